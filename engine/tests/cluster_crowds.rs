//! Do many connections, idle or malformed, keep out or drown what matters?

mod cluster;

use std::{
    io::Write,
    net::{Shutdown, TcpListener, TcpStream},
};

use cluster::{
    check,
    frames::{Raw, frame},
    group::Group,
    server::Server,
    wait_for,
};
use engine::server::{CLIENTS_MAX, STRANGERS_MAX};
use wire::{FailureKind, FrameKind, Index, Query, QueryBody, ReadMode, Reply, ReplyBody, Role};

/// Enough descriptors for thousands of connections.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the pointed-to local, and then reads it.
    let result = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
    };
    assert_eq!(result, 0);
}

fn lines_with(server: &Server, text: &str) -> usize {
    let log = server.log_text();
    log.lines().filter(|line| line.contains(text)).count()
}

/// Clients, probes and peers shared their places on the server port. Idle connections that took
/// them all locked a server out that was started again: it could neither reach the leader nor be
/// reached by it, and nothing was said.
#[test]
fn a_server_that_is_started_again_gets_in_through_idle_connections() {
    raise_descriptor_limit();
    let mut group = Group::formed(3, &[]);
    let leader = group.wait_for_leader();
    let follower = group.followers()[0];
    let address = group[leader].server_address();
    let clients: Vec<Raw> = (0..CLIENTS_MAX)
        .map(|_| Raw::introduced(address, Role::Client))
        .collect();
    let silent: Vec<TcpStream> = (0..STRANGERS_MAX + 100)
        .map(|_| TcpStream::connect(address).expect("the server port accepts"))
        .collect();
    group[leader].wait_for_log("that have not introduced themselves: the oldest are closed");

    // A client too many learns why.
    let mut refused: Vec<Raw> = (0..5)
        .map(|_| Raw::introduced(address, Role::Client))
        .collect();
    let query = Query {
        mode: ReadMode::Stale,
        min_index: Index(0),
        wait: wire::Wait::default(),
        body: QueryBody::Status,
    };
    for raw in &mut refused {
        raw.send(&frame(FrameKind::Query, 1, query.encode()));
        let reply = raw.next().unwrap().expect("a reply");
        let ReplyBody::Failed(failure) = Reply::decode(&reply.payload).unwrap().body else {
            panic!("a client too many is refused");
        };
        assert_eq!(failure.kind, FailureKind::Busy);
        assert!(failure.message.contains("native clients"), "{failure:?}");
    }
    assert_eq!(lines_with(&group[leader], "further ones are refused"), 1);

    group[follower].kill();
    let put = group[leader]
        .http()
        .put("/v1/kv/missed", b"while it was away");
    assert!(put.unwrap().is_true());
    group[follower].start();
    group.wait_for_equal_states();
    assert_eq!(group.wait_for_leader(), leader);
    drop((clients, silent, refused));
}

/// A storm of malformed connections made a line of log for each: 26,000 of them.
#[test]
fn malformed_connections_make_a_line_a_second_at_most() {
    const STORM: usize = 2000;
    let group = Group::formed(1, &[]);
    let began = std::time::Instant::now();
    for _ in 0..STORM {
        let mut stream = TcpStream::connect(group[0].server_address()).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let _ = stream.shutdown(Shutdown::Write);
    }
    wait_for("the storm is over", || {
        let mut raw = Raw::introduced(group[0].server_address(), Role::Client);
        raw.stream.shutdown(Shutdown::Write).unwrap();
        raw.expect_close();
        check(lines_with(&group[0], "connection refused") > 0, || {
            "nothing was said".to_owned()
        })
    });
    let lines = lines_with(&group[0], "connection refused");
    // However long it took: never more than one for each second that has begun.
    let most = began.elapsed().as_secs() as usize + 1;
    assert!(lines <= most, "{lines} lines in {most} s");
}

/// An address that cannot be resolved was complained of with every attempt, ten times a second.
#[test]
fn an_address_that_cannot_be_resolved_is_complained_of_once() {
    const ATTEMPTS: usize = 15;
    let mut group = Group::empty();
    // Nobody serves here, but it counts the attempts.
    let counter = TcpListener::bind((group.ip(1), 8300)).unwrap();
    let seeds = format!(
        "-retry-join=no..such..name,{}",
        counter.local_addr().unwrap()
    );
    let server = group.add_plain(&["-bootstrap-expect=2".to_owned(), seeds]);
    server.start();
    for _ in 0..ATTEMPTS {
        counter.accept().expect("an attempt");
    }
    server.wait_for_log("cannot be resolved");
    assert_eq!(lines_with(server, "cannot be resolved"), 1);
}

//! Do many connections, idle or malformed, keep out or drown what matters?

mod cluster;

use std::net::TcpStream;

use cluster::{
    frames::{Raw, frame},
    group::Group,
    server::Server,
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

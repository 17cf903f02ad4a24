//! What does a long listing cost the servers on its way, when its client does not read it?

mod cluster;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::Bytes;
use cluster::{
    check,
    frames::{Raw, frame},
    group::Group,
    server::Server,
    wait_for,
};
use wire::{
    Credit, FLAG_NO_FORWARD, Frame, FrameKind, Hello, Index, Query, QueryBody, ReadMode, Reply,
    ReplyBody, Role, limits,
};

const ROWS: usize = 200;
const VALUE_BYTES: usize = 100 * 1024;

/// Writes about 20 MB.
fn fill(server: &Server) {
    let value = vec![b'v'; VALUE_BYTES];
    for at in 0..ROWS {
        let path = format!("/v1/kv/list/{at:04}");
        let answer = server.http().put(&path, &value).unwrap();
        assert!(answer.is_true(), "{} {}", answer.status, answer.text());
    }
}

/// A client that asks for everything, and may then read nothing.
fn ask(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).expect("the HTTP port accepts");
    let patience = Some(Duration::from_secs(60));
    client.set_read_timeout(patience).expect("a timeout");
    // 1.0, so that the body needs no decoding: it ends with the connection.
    client
        .write_all(b"GET /v1/kv/list/?recurse HTTP/1.0\r\n\r\n")
        .expect("a request can be sent");
    client
}

fn rows_of(mut client: TcpStream) -> usize {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("the whole answer");
    let text = String::from_utf8(answer).expect("an answer is text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a header");
    assert!(head.contains(" 200 "), "{head}");
    let rows: serde_json::Value = serde_json::from_str(body).expect("a whole listing");
    rows.as_array().expect("an array").len()
}

/// Resident memory of a process, bytes.
fn resident(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kib.parse::<usize>().unwrap() * 1024
}

/// Waits until a server's memory stands still; how much it is.
fn settled(server: &Server) -> usize {
    let mut before = (0, 0);
    wait_for("memory that stands still", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = resident(server);
        let same = now.abs_diff(before.0) < 1 << 20;
        before = (now, if same { before.1 + 1 } else { 0 });
        check(before.1 >= 8, || format!("{} MiB", now >> 20))
    });
    before.0
}

/// Each listing that a follower forwarded lay in its memory as fast as the leader sent it, and each
/// that crossed from another executor as fast as that one could: 40 clients that did not read cost
/// a follower 1.8 GB. With two executors half of the clients' listings cross both.
#[test]
fn clients_that_do_not_read_cost_no_server_more_than_their_windows() {
    const CLIENTS: usize = 24;
    let group = Group::formed(3, &["-executors=2"]);
    let leader = group.wait_for_leader();
    let follower = group.followers()[0];
    fill(&group[leader]);
    group.wait_for_equal_states();
    for at in [follower, leader] {
        let server = &group[at];
        let idle = settled(server);
        let clients: Vec<_> = (0..CLIENTS).map(|_| ask(server.http_address())).collect();
        let grown = settled(server).saturating_sub(idle);
        // What waits to be taken, the piece that is being taken, and one in the making.
        let window = (limits::REPLY_WINDOW_PIECES + 2) * limits::REPLY_BYTES_MAX;
        // A half more for the allocator.
        let bound = CLIENTS * window * 3 / 2;
        assert!(
            bound < CLIENTS * ROWS * VALUE_BYTES / 2,
            "a test that can fail"
        );
        let mib = grown >> 20;
        println!("{CLIENTS} clients that do not read cost {mib} MiB");
        assert!(grown <= bound, "{mib} MiB, more than {} MiB", bound >> 20);
        // Half of them go away; the others still get all of it.
        let mut clients = clients.into_iter();
        clients.by_ref().take(CLIENTS / 2).for_each(drop);
        for client in clients {
            assert_eq!(rows_of(client), ROWS);
        }
        assert_eq!(rows_of(ask(server.http_address())), ROWS);
    }
}

/// A connection that passes for that of another server: a cluster of one lets itself in.
fn peer(server: &Server) -> Raw {
    let mut probe = Raw::connect(server.server_address());
    let mut hello = Hello {
        protocol: limits::PROTOCOL_VERSION,
        role: Role::Probe,
        ..Hello::default()
    };
    probe.send(&frame(FrameKind::Hello, 0, hello.encode()));
    let theirs = Hello::decode(&probe.next().unwrap().unwrap().payload).unwrap();
    hello.role = Role::Peer;
    (hello.raft_id, hello.cluster_id) = (theirs.raft_id, theirs.cluster_id);
    let mut raw = Raw::connect(server.server_address());
    raw.send(&frame(FrameKind::Hello, 0, hello.encode()));
    assert_eq!(raw.next().unwrap().unwrap().kind, FrameKind::Hello);
    raw
}

fn listing(request: u64) -> Frame {
    let query = Query {
        mode: ReadMode::Default,
        min_index: Index(0),
        wait: wire::Wait::default(),
        body: QueryBody::KvList {
            prefix: Bytes::from_static(b"list/"),
            start_after: Bytes::new(),
            limit: 0,
        },
    };
    Frame {
        flags: FLAG_NO_FORWARD,
        ..frame(FrameKind::Query, request, query.encode())
    }
}

fn status(request: u64) -> Frame {
    let query = Query {
        mode: ReadMode::Default,
        min_index: Index(0),
        wait: wire::Wait::default(),
        body: QueryBody::Status,
    };
    Frame {
        flags: FLAG_NO_FORWARD,
        ..frame(FrameKind::Query, request, query.encode())
    }
}

fn credit(request: u64, pieces: u32) -> Frame {
    frame(FrameKind::Credit, request, Credit { pieces }.encode())
}

/// The next reply's request, whether more follows, and how many rows it has.
fn reply(raw: &mut Raw) -> (u64, bool, usize) {
    let frame = raw.next().unwrap().expect("a reply");
    let reply = Reply::decode(&frame.payload).unwrap();
    let rows = match reply.body {
        ReplyBody::Rows(rows) => rows.len(),
        _ => 0,
    };
    (frame.request.0, reply.more, rows)
}

/// A forwarded listing is a window ahead of the credit for it, goes on when credit comes, and ends
/// when its asker says that it is gone: nothing waits for ever then.
#[test]
fn a_forwarded_listing_waits_for_credit_and_ends_with_its_asker() {
    let group = Group::formed(1, &[]);
    fill(&group[0]);
    let mut raw = peer(&group[0]);
    raw.send(&listing(1));
    let mut rows = 0;
    for _ in 0..limits::REPLY_WINDOW_PIECES {
        let (request, more, some) = reply(&mut raw);
        assert_eq!((request, more), (1, true));
        rows += some;
    }
    // Nothing but the answer to what was asked later comes, which waits for no credit.
    for request in 2..40 {
        raw.send(&status(request));
        assert_eq!(reply(&mut raw), (request, false, 0));
    }
    loop {
        raw.send(&credit(1, 1));
        let (request, more, some) = reply(&mut raw);
        assert_eq!(request, 1);
        rows += some;
        if !more {
            break;
        }
    }
    assert_eq!(rows, ROWS);
    // Its number is free again, so nothing is left of it; and so when the asker goes early.
    for _ in 0..3 {
        raw.send(&listing(1));
        for _ in 0..limits::REPLY_WINDOW_PIECES {
            assert_eq!(reply(&mut raw).0, 1);
        }
        raw.send(&credit(1, 0));
        raw.send(&status(50));
        assert_eq!(reply(&mut raw).0, 50);
    }
    // The same number twice is a fault of the peer's; its connection takes the listing with it.
    raw.send(&listing(1));
    raw.send(&listing(1));
    raw.expect_close();
    assert_eq!(rows_of(ask(group[0].http_address())), ROWS);
}

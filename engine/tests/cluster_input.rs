//! Does bad input end only with whoever sent it?

mod cluster;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use cluster::{
    frames::{Raw, frame},
    group::Group,
    server::Server,
    wait_for,
};
use wire::{Command, FrameKind, Hello, KvCommand, KvVerb, Reply, ReplyBody, Role, limits};

/// Both doors of the server serve others as before.
fn serves(server: &Server) {
    let answer = server.http().put("/v1/kv/others", b"unaffected").unwrap();
    assert!(answer.is_true(), "{} {}", answer.status, answer.text());
    assert_eq!(
        server.http().get("/v1/kv/others?raw").unwrap().body,
        b"unaffected"
    );
    let mut native = Raw::introduced(server.server_address(), Role::Client);
    native.send(&frame(FrameKind::Propose, 7, command("native", b"value")));
    let reply = native.next().unwrap().expect("a reply");
    assert_eq!(reply.request.0, 7);
    assert!(matches!(
        Reply::decode(&reply.payload).unwrap().body,
        ReplyBody::Written { ok: true, .. }
    ));
}

fn command(key: &str, value: &[u8]) -> bytes::Bytes {
    let verb = KvVerb::Set;
    Command::Kv(KvCommand {
        verb,
        key: key.as_bytes(),
        value,
        flags: 0,
        index: 0,
        session: b"",
    })
    .encode()
}

fn hello() -> BytesMut {
    let hello = Hello {
        protocol: limits::PROTOCOL_VERSION,
        role: Role::Client,
        ..Hello::default()
    };
    let mut out = BytesMut::new();
    frame(FrameKind::Hello, 0, hello.encode()).encode(&mut out);
    out
}

#[test]
fn garbage_on_the_server_port_ends_its_own_connection_only() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    let hello = hello();
    let mut newer = hello.clone();
    // The header's version, which lies behind the magic.
    newer[4] = newer[4].wrapping_add(1);
    let mut damaged = hello.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let inputs: [Vec<u8>; 6] = [
        b"GET /v1/kv/x HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        newer.to_vec(),
        damaged,
        (0..64 * 1024u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect(),
    ];
    for input in &inputs {
        let mut raw = Raw::connect(server.server_address());
        // The server may close before it has read all.
        let _ = raw.stream.write_all(input);
        raw.expect_close();
        serves(server);
    }
    // After a proper introduction as well, and in the other roles.
    for role in [Role::Client, Role::Peer, Role::Probe] {
        let mut raw = Raw::introduced(server.server_address(), role);
        let _ = raw.stream.write_all(&[0xaa; 1000]);
        raw.expect_close();
        serves(server);
    }
    server.wait_for_log("connection refused");
}

#[test]
fn a_frame_of_the_wrong_kind_or_size_ends_its_own_connection_only() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    for kind in [
        FrameKind::Raft,
        FrameKind::ImageFetch,
        FrameKind::BootstrapCommit,
    ] {
        let mut raw = Raw::introduced(server.server_address(), Role::Client);
        raw.send(&frame(kind, 1, bytes::Bytes::from_static(b"not a table")));
        // Refused in words, or closed; but never silence.
        if let Some(reply) = raw.next().unwrap() {
            assert!(matches!(
                Reply::decode(&reply.payload).unwrap().body,
                ReplyBody::Failed(_)
            ));
        }
        serves(server);
    }
    let mut raw = Raw::introduced(server.server_address(), Role::Client);
    let large = vec![1; limits::CLIENT_FRAME_BYTES_MAX + 1];
    let mut out = BytesMut::new();
    frame(FrameKind::Propose, 1, large.into()).encode(&mut out);
    let _ = raw.stream.write_all(&out);
    raw.expect_close();
    serves(server);
    // A header that announces more than any frame may have: refused before a byte of it is kept.
    let mut raw = Raw::introduced(server.server_address(), Role::Client);
    let mut header = BytesMut::new();
    frame(FrameKind::Propose, 1, bytes::Bytes::from_static(&[0; 64])).encode(&mut header);
    header[16..20].fill(0xff);
    let _ = raw.stream.write_all(&header);
    raw.expect_close();
    serves(server);
}

#[test]
fn a_command_that_makes_no_sense_is_refused_in_words() {
    let group = Group::formed(1, &[]);
    let mut raw = Raw::introduced(group[0].server_address(), Role::Client);
    let mut shard = frame(FrameKind::Propose, 2, command("k", b"v"));
    shard.shard = wire::ShardId(5);
    for bad in [
        frame(
            FrameKind::Propose,
            1,
            bytes::Bytes::from_static(b"no table"),
        ),
        shard,
    ] {
        let request = bad.request;
        raw.send(&bad);
        let reply = raw.next().unwrap().expect("a reply");
        assert_eq!(reply.request, request);
        assert!(matches!(
            Reply::decode(&reply.payload).unwrap().body,
            ReplyBody::Failed(_)
        ));
    }
    // The connection goes on.
    raw.send(&frame(FrameKind::Propose, 3, command("k", b"v")));
    let reply = raw.next().unwrap().expect("a reply");
    assert!(matches!(
        Reply::decode(&reply.payload).unwrap().body,
        ReplyBody::Written { ok: true, .. }
    ));
}

/// A native client that closed its sending side got none of the answers under way.
#[test]
fn half_closed_connections_get_their_answers() {
    let group = Group::formed(1, &[]);
    let mut http = TcpStream::connect(group[0].http_address()).unwrap();
    http.write_all(b"PUT /v1/kv/half HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nvalue")
        .unwrap();
    http.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    http.set_read_timeout(Some(cluster::PATIENCE)).unwrap();
    http.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("true"),
        "{answer}"
    );

    let mut native = Raw::introduced(group[0].server_address(), Role::Client);
    for request in 1..=20 {
        native.send(&frame(
            FrameKind::Propose,
            request,
            command("half", b"closed"),
        ));
    }
    native.stream.shutdown(Shutdown::Write).unwrap();
    let mut answered = 0;
    while let Ok(Some(_)) = native.next() {
        answered += 1;
    }
    assert_eq!(answered, 20, "what was asked before the close is answered");
}

/// A native client that did not read what it had asked for ended the whole server: the task that
/// waits for the socket runs at once when it is spawned, and found the buffer borrowed.
#[test]
fn those_who_send_slowly_or_do_not_read_hold_up_nobody() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    let value = vec![b'v'; 256 * 1024];
    for at in 0..64 {
        assert!(
            server
                .http()
                .put(&format!("/v1/kv/big/{at}"), &value)
                .unwrap()
                .is_true()
        );
    }
    // They ask for everything and read nothing.
    let deaf: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(server.http_address()).unwrap();
            stream
                .write_all(b"GET /v1/kv/big/?recurse HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            stream
        })
        .collect();
    let mut deaf_native = Raw::introduced(server.server_address(), Role::Client);
    let list = wire::Query {
        mode: wire::ReadMode::Default,
        min_index: wire::Index(0),
        wait: wire::Wait::default(),
        body: wire::QueryBody::KvList {
            prefix: bytes::Bytes::from_static(b"big/"),
            start_after: bytes::Bytes::new(),
            limit: 0,
        },
    };
    for request in 0..16 {
        deaf_native.send(&frame(FrameKind::Query, request, list.encode()));
    }
    // They begin, and do not go on.
    let slow: Vec<TcpStream> = (0..8)
        .map(|at| {
            let address = if at % 2 == 0 {
                server.http_address()
            } else {
                server.server_address()
            };
            let mut stream = TcpStream::connect(address).unwrap();
            let begun: &[u8] = if at % 2 == 0 {
                b"PUT /v1/kv/slow HTT"
            } else {
                &hello()[..7]
            };
            stream.write_all(begun).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    for _ in 0..100 {
        serves(server);
    }
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "others were held up: {:?}",
        began.elapsed()
    );
    drop((deaf, slow));
}

#[test]
fn what_is_too_long_is_refused_by_name_over_http() {
    let group = Group::formed(1, &[]);
    let http = group[0].http();
    let max = limits::VALUE_BYTES_MAX;
    assert!(
        http.put("/v1/kv/longest", &vec![b'x'; max])
            .unwrap()
            .is_true()
    );
    assert_eq!(http.get("/v1/kv/longest?raw").unwrap().body.len(), max);
    let answer = http.put("/v1/kv/longer", &vec![b'x'; max + 1]).unwrap();
    assert!(
        answer.status == 413 && answer.text().contains(&max.to_string()),
        "{} {}",
        answer.status,
        answer.text()
    );
    let key = "k".repeat(limits::KEY_BYTES_MAX);
    assert!(http.put(&format!("/v1/kv/{key}"), b"x").unwrap().is_true());
    let answer = http.put(&format!("/v1/kv/{key}k"), b"x").unwrap();
    assert!(
        answer.status == 414 && answer.text().contains("too long"),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert_eq!(http.get("/v1/kv/longer").unwrap().status, 404);
    serves(&group[0]);
}

#[test]
fn thousands_of_connections_that_come_and_go_leave_nothing_behind() {
    let group = Group::formed(1, &[]);
    let descriptors = |server: &Server| {
        std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
            .unwrap()
            .count()
    };
    serves(&group[0]);
    let before = descriptors(&group[0]);
    for round in 0..1500 {
        let address = if round % 2 == 0 {
            group[0].http_address()
        } else {
            group[0].server_address()
        };
        let mut stream = TcpStream::connect(address).unwrap();
        if round % 3 == 0 {
            let _ = stream.write_all(b"garbage garbage garbage garbage garbage garbage\r\n\r\n");
        }
    }
    serves(&group[0]);
    wait_for("descriptors are given back", || {
        let now = descriptors(&group[0]);
        cluster::check(now <= before + 16, || {
            format!("{now} descriptors, {before} before")
        })
    });
}

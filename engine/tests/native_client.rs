//! Does the native client keep its promises to its callers, whatever the servers do?
//!
//! Each test is a conversation with scripted servers on loopback; none asserts on wall time.

mod fake_server;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use engine::client::{Client, ClientError, ClientOptions, PutOptions, blocking};
use fake_server::{Conversation, FakeServer};
use futures_lite::{StreamExt, stream::iter};
use glommio::{LocalExecutorBuilder, Placement};
use wire::{ClusterStatus, FailureKind, Index, KvRow, ReadMode, ReplyBody, limits};

/// Runs on an executor of its own.
fn on_executor<R: Send + 'static>(run: impl AsyncFnOnce() -> R + Send + 'static) -> R {
    LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(64 * 1024)
        .spawn(async move || run().await)
        .unwrap()
        .join()
        .unwrap()
}

fn options(seeds: &[SocketAddr]) -> ClientOptions {
    ClientOptions {
        seeds: seeds.to_vec(),
        connect_timeout: Duration::from_secs(30),
        request_timeout: Duration::from_secs(30),
        ..ClientOptions::default()
    }
}

fn row(key: &str, value: &str) -> KvRow {
    KvRow {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        flags: 7,
        create_index: Index(3),
        modify_index: Index(4),
        lock_index: 0,
        session: Bytes::new(),
    }
}

/// What servers saw, in order.
type Seen = Arc<Mutex<Vec<String>>>;

fn note(seen: &Seen, who: &str, key: &[u8]) {
    let key = String::from_utf8_lossy(key);
    seen.lock().unwrap().push(format!("{who} {key}"));
}

const PLAIN: PutOptions = PutOptions {
    flags: 0,
    cas: None,
};

#[test]
fn reads_and_writes() {
    let server = FakeServer::bind();
    let address = server.address;
    server.serve(|_, talk| {
        let mut talk = talk.lead();
        while let Some(asked) = talk.asked() {
            let body = match (&asked.key[..], asked.is_write) {
                (_, true) => ReplyBody::Written {
                    ok: asked.key != b"cas",
                    index: Index(9),
                },
                (b"here", _) => ReplyBody::Rows(vec![row("here", "value")]),
                (b"gone", _) => ReplyBody::Rows(vec![]),
                (b"names/", _) => ReplyBody::Keys(vec!["names/a".into(), "names/b/".into()]),
                (b"", _) => ReplyBody::Status(ClusterStatus {
                    leader: "127.0.0.1:8300".into(),
                    ..ClusterStatus::default()
                }),
                _ => ReplyBody::Rows(vec![row("list/a", "1"), row("list/b", "2")]),
            };
            talk.reply(asked.request, body);
        }
    });
    on_executor(async move || {
        let client = Client::connect(options(&[address])).await.unwrap();
        let written = client.put(b"k", b"v", PLAIN).await.unwrap();
        assert_eq!((written.ok, written.index), (true, Index(9)));
        assert!(!client.cas(b"cas", b"v", Index(1)).await.unwrap().ok);
        assert!(client.delete(b"k").await.unwrap().ok);
        assert!(!client.delete_cas(b"cas", Index(1)).await.unwrap().ok);
        assert!(client.delete_tree(b"").await.unwrap().ok);
        let found = client.get(b"here", ReadMode::Default).await.unwrap();
        assert_eq!(found.value, Some(row("here", "value")));
        assert_eq!(
            (found.index, found.known_leader, found.last_contact_ms),
            (Index(77), true, 0)
        );
        let gone = client.get(b"gone", ReadMode::Consistent).await.unwrap();
        assert_eq!(gone.value, None);
        let rows = client.list(b"list/", ReadMode::Stale).await.unwrap();
        assert_eq!(rows.value, [row("list/a", "1"), row("list/b", "2")]);
        let names = client
            .keys(b"names/", b"/", ReadMode::Default)
            .await
            .unwrap();
        assert_eq!(names.value, ["names/a", "names/b/"]);
        let status = client.status().await.unwrap();
        assert_eq!(status.leader, "127.0.0.1:8300");
    });
}

/// A follower's Hello names the leader: nothing is asked of the follower.
#[test]
fn a_follower_sends_the_client_to_the_leader() {
    let (follower, leader) = (FakeServer::bind(), FakeServer::bind());
    let (seed, target) = (follower.address, leader.address);
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    follower.serve(move |_, mut talk| {
        let hello = talk.hello(Some(target), &[seed, target]);
        talk.greet(&hello);
        while let Some(asked) = talk.asked() {
            note(&log, "follower", &asked.key);
        }
    });
    let log = Arc::clone(&seen);
    leader.serve(move |_, talk| {
        let mut talk = talk.lead();
        while let Some(asked) = talk.asked() {
            note(&log, "leader", &asked.key);
            talk.written(asked.request, 5);
        }
    });
    on_executor(async move || {
        let client = Client::connect(options(&[seed])).await.unwrap();
        assert_eq!(client.put(b"k", b"v", PLAIN).await.unwrap().index, Index(5));
    });
    assert_eq!(*seen.lock().unwrap(), ["leader k"]);
    let mut client = blocking::Client::connect(options(&[seed])).unwrap();
    assert_eq!(client.put(b"k2", b"v", PLAIN).unwrap().index, Index(5));
    assert_eq!(*seen.lock().unwrap(), ["leader k", "leader k2"]);
}

/// A leader that has lost its office refuses; what it refused is done by the new one, once. What
/// it still answers itself counts.
#[test]
fn a_refusal_to_lead_sends_the_client_on() {
    let (old, new) = (FakeServer::bind(), FakeServer::bind());
    let (seed, target) = (old.address, new.address);
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    old.serve(move |_, talk| {
        let mut talk = talk.lead();
        let first = talk.asked().unwrap();
        let second = talk.asked().unwrap();
        note(&log, "old", &first.key);
        note(&log, "old", &second.key);
        talk.fail(first.request, FailureKind::NotLeader, &target.to_string());
        talk.written(second.request, 2);
        assert!(talk.asked().is_none(), "nothing more is asked of it");
    });
    let log = Arc::clone(&seen);
    new.serve(move |_, talk| {
        let mut talk = talk.lead();
        while let Some(asked) = talk.asked() {
            note(&log, "new", &asked.key);
            talk.written(asked.request, 3);
        }
    });
    on_executor(async move || {
        let client = Client::connect(options(&[seed])).await.unwrap();
        let both =
            futures_lite::future::zip(client.put(b"a", b"", PLAIN), client.put(b"b", b"", PLAIN));
        let (a, b) = both.await;
        assert_eq!((a.unwrap().index, b.unwrap().index), (Index(3), Index(2)));
    });
    assert_eq!(*seen.lock().unwrap(), ["old a", "old b", "new a"]);
}

#[test]
fn a_refusal_to_lead_sends_the_blocking_client_on() {
    let (old, new) = (FakeServer::bind(), FakeServer::bind());
    let (seed, target) = (old.address, new.address);
    old.serve(move |_, talk| {
        let mut talk = talk.lead();
        let asked = talk.asked().unwrap();
        talk.fail(asked.request, FailureKind::NotLeader, &target.to_string());
        assert!(talk.asked().is_none(), "nothing more is asked of it");
    });
    new.serve(|_, talk| {
        let mut talk = talk.lead();
        let asked = talk.asked().unwrap();
        talk.written(asked.request, 3);
    });
    let mut client = blocking::Client::connect(options(&[seed])).unwrap();
    assert_eq!(client.put(b"a", b"", PLAIN).unwrap().index, Index(3));
}

/// A server that serves nothing: the others are tried.
#[test]
fn a_server_outside_the_peer_set_is_left() {
    let (outside, member) = (FakeServer::bind(), FakeServer::bind());
    let (first, second) = (outside.address, member.address);
    outside.serve(move |_, talk| {
        let mut talk = talk.lead();
        while let Some(asked) = talk.asked() {
            talk.fail(asked.request, FailureKind::NotMember, "");
        }
    });
    member.serve(|_, talk| talk.lead().answer_all());
    on_executor(async move || {
        let client = Client::connect(options(&[first, second])).await.unwrap();
        assert!(client.put(b"k", b"v", PLAIN).await.unwrap().ok);
    });
}

/// While there is no leader, a follower is stayed with; it is left once it names one.
#[test]
fn the_leader_is_found_later() {
    let (follower, leader) = (FakeServer::bind(), FakeServer::bind());
    let (seed, target) = (follower.address, leader.address);
    follower.serve(move |_, mut talk| {
        let hello = talk.hello(None, &[seed, target]);
        talk.greet(&hello);
        while let Some(asked) = talk.asked() {
            if asked.is_write {
                talk.written(asked.request, 1);
            } else {
                let status = ClusterStatus {
                    leader: target.to_string(),
                    ..ClusterStatus::default()
                };
                talk.reply(asked.request, ReplyBody::Status(status));
            }
        }
    });
    leader.serve(|_, talk| {
        let mut talk = talk.lead();
        while let Some(asked) = talk.asked() {
            talk.written(asked.request, 2);
        }
    });
    on_executor(async move || {
        let client = Client::connect(options(&[seed])).await.unwrap();
        // Served by the follower (which forwards) at first, by the leader in the end.
        loop {
            match client.put(b"k", b"v", PLAIN).await.unwrap().index {
                Index(1) => glommio::timer::sleep(Duration::from_millis(10)).await,
                Index(2) => break,
                other => panic!("{other}"),
            }
        }
    });
}

#[test]
fn a_closed_connection_is_made_again() {
    let server = FakeServer::bind();
    let address = server.address;
    let (closed, seen_closed) = mpsc::channel();
    let closed = Mutex::new(closed);
    let accepted = server.serve(move |number, talk| {
        let mut talk = talk.lead();
        if number == 0 {
            let asked = talk.asked().unwrap();
            talk.written(asked.request, 1);
            talk.close();
            closed.lock().unwrap().send(()).unwrap();
        } else {
            talk.answer_all();
        }
    });
    on_executor(async move || {
        let client = Client::connect(options(&[address])).await.unwrap();
        client.put(b"a", b"", PLAIN).await.unwrap();
        seen_closed.recv().unwrap();
        // The executor may not have noticed yet: a read is safe either way.
        client.get(b"b", ReadMode::Default).await.unwrap();
        client.put(b"c", b"", PLAIN).await.unwrap();
    });
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

/// Takes one write on each connection and closes without an answer; then behaves.
fn forgetful(server: FakeServer, times: usize, seen: &Seen) {
    let seen = Arc::clone(seen);
    server.serve(move |number, talk| {
        let mut talk = talk.lead();
        if number < times {
            if let Some(asked) = talk.asked() {
                note(&seen, "lost", &asked.key);
            }
            talk.close();
            return;
        }
        while let Some(asked) = talk.asked() {
            note(&seen, "done", &asked.key);
            if asked.is_write {
                talk.written(asked.request, 8);
            } else {
                talk.reply(asked.request, ReplyBody::Rows(vec![row("k", "v")]));
            }
        }
    });
}

#[test]
fn a_write_without_an_answer_is_unknown_and_not_sent_again() {
    let server = FakeServer::bind();
    let address = server.address;
    let seen = Seen::default();
    forgetful(server, 1, &seen);
    on_executor(async move || {
        let client = Client::connect(options(&[address])).await.unwrap();
        let error = client.put(b"once", b"v", PLAIN).await.unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown(_)), "{error:?}");
        assert!(error.to_string().contains("closed"), "{error}");
        client.put(b"next", b"v", PLAIN).await.unwrap();
    });
    assert_eq!(*seen.lock().unwrap(), ["lost once", "done next"]);

    let server = FakeServer::bind();
    let address = server.address;
    let seen = Seen::default();
    forgetful(server, 1, &seen);
    let mut client = blocking::Client::connect(options(&[address])).unwrap();
    let error = client.put(b"once", b"v", PLAIN).unwrap_err();
    assert!(matches!(error, ClientError::OutcomeUnknown(_)), "{error:?}");
    client.put(b"next", b"v", PLAIN).unwrap();
    assert_eq!(*seen.lock().unwrap(), ["lost once", "done next"]);
}

#[test]
fn a_read_without_an_answer_is_asked_again() {
    let server = FakeServer::bind();
    let address = server.address;
    let seen = Seen::default();
    forgetful(server, 2, &seen);
    on_executor(async move || {
        let client = Client::connect(options(&[address])).await.unwrap();
        let read = client.get(b"k", ReadMode::Default).await.unwrap();
        assert_eq!(read.value, Some(row("k", "v")));
    });
    assert_eq!(*seen.lock().unwrap(), ["lost k", "lost k", "done k"]);

    let server = FakeServer::bind();
    let address = server.address;
    let seen = Seen::default();
    forgetful(server, 2, &seen);
    let mut client = blocking::Client::connect(options(&[address])).unwrap();
    let read = client.get(b"k", ReadMode::Default).unwrap();
    assert_eq!(read.value, Some(row("k", "v")));
    assert_eq!(*seen.lock().unwrap(), ["lost k", "lost k", "done k"]);
}

/// A server that says of a forwarded write that nobody knows: the same for the caller.
#[test]
fn a_server_may_not_know_either() {
    let server = FakeServer::bind();
    let address = server.address;
    server.serve(|_, talk| {
        let mut talk = talk.lead();
        let asked = talk.asked().unwrap();
        talk.fail(asked.request, FailureKind::OutcomeUnknown, "");
        let asked = talk.asked().unwrap();
        talk.fail(asked.request, FailureKind::Busy, "");
        talk.answer_all();
    });
    on_executor(async move || {
        let client = Client::connect(options(&[address])).await.unwrap();
        let unknown = client.put(b"k", b"v", PLAIN).await.unwrap_err();
        assert_eq!(
            unknown,
            ClientError::OutcomeUnknown("OutcomeUnknown by script".into())
        );
        let busy = client.put(b"k", b"v", PLAIN).await.unwrap_err();
        assert!(
            matches!(&busy, ClientError::Refused(why) if why.kind == FailureKind::Busy),
            "{busy:?}"
        );
        client.put(b"k", b"v", PLAIN).await.unwrap();
    });
}

#[test]
fn a_long_answer_comes_in_pieces() {
    let server = FakeServer::bind();
    let address = server.address;
    server.serve(|_, talk| {
        let mut talk = talk.lead();
        while let Some(asked) = talk.asked() {
            for n in 0..5 {
                let rows = (0..3).map(|m| row(&format!("list/{n}{m}"), "v")).collect();
                talk.piece(asked.request, ReplyBody::Rows(rows), true);
            }
            talk.reply(asked.request, ReplyBody::Rows(vec![row("list/last", "v")]));
        }
    });
    let check = |rows: Vec<KvRow>| {
        assert_eq!(rows.len(), 16);
        assert!(rows.is_sorted_by_key(|row| row.key.clone()));
    };
    on_executor(async move || {
        let client = Client::connect(options(&[address])).await.unwrap();
        check(
            client
                .list(b"list/", ReadMode::Default)
                .await
                .unwrap()
                .value,
        );
    });
    let mut client = blocking::Client::connect(options(&[address])).unwrap();
    check(client.list(b"list/", ReadMode::Default).unwrap().value);
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let server = FakeServer::bind();
    let address = server.address;
    server.serve(|_, talk| {
        let mut talk = talk.lead();
        let asked = talk.asked().unwrap();
        for _ in 0..100 {
            let long = "v".repeat(10_000);
            talk.piece(asked.request, ReplyBody::Rows(vec![row("k", &long)]), true);
        }
        talk.answer_all();
    });
    on_executor(async move || {
        let options = ClientOptions {
            answer_bytes_max: 100_000,
            ..options(&[address])
        };
        let client = Client::connect(options).await.unwrap();
        let error = client.list(b"k", ReadMode::Default).await.unwrap_err();
        assert_eq!(error, ClientError::AnswerTooLong { max: 100_000 });
        client.put(b"still", b"fine", PLAIN).await.unwrap();
    });
}

/// Answers each request of the first connection with `bytes`, as they are.
fn garbling(bytes: Vec<u8>) -> (SocketAddr, Seen) {
    let server = FakeServer::bind();
    let address = server.address;
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    server.serve(move |number, talk| {
        let mut talk = talk.lead();
        while let Some(asked) = talk.asked() {
            note(
                &log,
                if number == 0 { "garbled" } else { "done" },
                &asked.key,
            );
            match (number, asked.is_write) {
                (0, _) => talk.raw(&bytes),
                (_, true) => talk.written(asked.request, 1),
                (_, false) => talk.reply(asked.request, ReplyBody::Rows(vec![])),
            }
        }
    });
    (address, seen)
}

#[test]
fn malformed_frames_cost_the_connection_only() {
    let mut damaged = Vec::new();
    damaged.extend_from_slice(b"CURF");
    damaged.extend_from_slice(&[1, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
    damaged.extend_from_slice(&[0; 16]);
    let too_long = {
        let mut header = damaged.clone();
        header[16..20].fill(0xff);
        header
    };
    for bytes in [b"HTTP/1.1 400 Bad Request\r\n".to_vec(), damaged, too_long] {
        let (address, seen) = garbling(bytes.clone());
        on_executor(async move || {
            let client = Client::connect(options(&[address])).await.unwrap();
            let error = client.put(b"w", b"", PLAIN).await.unwrap_err();
            assert!(matches!(error, ClientError::OutcomeUnknown(_)), "{error:?}");
            assert!(
                error.to_string().contains("does not speak this protocol"),
                "{error}"
            );
            client.put(b"x", b"", PLAIN).await.unwrap();
        });
        assert_eq!(*seen.lock().unwrap(), ["garbled w", "done x"]);

        let (address, seen) = garbling(bytes);
        let mut client = blocking::Client::connect(options(&[address])).unwrap();
        assert_eq!(client.get(b"r", ReadMode::Default).unwrap().value, None);
        assert_eq!(*seen.lock().unwrap(), ["garbled r", "done r"]);
    }
}

/// It takes everything and says nothing.
fn silent(talk: Conversation) {
    let mut talk = talk.lead();
    while talk.asked().is_some() {}
}

#[test]
fn a_server_that_never_answers_runs_into_the_timeout() {
    let server = FakeServer::bind();
    let address = server.address;
    server.serve(|_, talk| silent(talk));
    let short = ClientOptions {
        request_timeout: Duration::from_millis(100),
        ..options(&[address])
    };
    let check = |write: ClientError, read: ClientError| {
        assert!(matches!(write, ClientError::OutcomeUnknown(_)), "{write:?}");
        assert!(matches!(read, ClientError::Timeout { .. }), "{read:?}");
    };
    let options = short.clone();
    on_executor(async move || {
        let client = Client::connect(options).await.unwrap();
        let write = client.put(b"k", b"v", PLAIN).await.unwrap_err();
        let read = client.get(b"k", ReadMode::Default).await.unwrap_err();
        check(write, read);
    });
    let mut client = blocking::Client::connect(short).unwrap();
    let write = client.put(b"k", b"v", PLAIN).unwrap_err();
    let read = client.get(b"k", ReadMode::Default).unwrap_err();
    check(write, read);
}

/// The hung server is left for one that answers.
#[test]
fn a_server_that_never_answers_is_left() {
    let (hung, alive) = (FakeServer::bind(), FakeServer::bind());
    let seeds = [hung.address, alive.address];
    hung.serve(|_, talk| silent(talk));
    alive.serve(|_, talk| talk.lead().answer_all());
    on_executor(async move || {
        let options = ClientOptions {
            request_timeout: Duration::from_millis(200),
            ..options(&seeds)
        };
        let client = Client::connect(options).await.unwrap();
        let error = client.put(b"a", b"", PLAIN).await.unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown(_)), "{error:?}");
        while client.put(b"b", b"", PLAIN).await.is_err() {}
    });
}

#[test]
fn connecting_says_what_is_in_the_way() {
    let nobody = FakeServer::bind().address;
    let mute = FakeServer::bind();
    let mute_address = mute.address;
    mute.serve(|_, mut talk| while talk.frame().is_some() {});
    let alone = FakeServer::bind();
    let alone_address = alone.address;
    alone.serve(|_, mut talk| {
        let hello = wire::Hello {
            shards: 0,
            ..talk.hello(None, &[])
        };
        talk.greet(&hello);
    });
    let web = FakeServer::bind();
    let web_address = web.address;
    web.serve(|_, mut talk| talk.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    for (seed, why) in [
        (nobody, "refused"),
        (mute_address, "does not answer"),
        (alone_address, "not part of a cluster yet"),
        (web_address, "does not speak this protocol"),
    ] {
        let options = ClientOptions {
            connect_timeout: Duration::from_millis(600),
            ..options(&[seed])
        };
        let check = move |error: ClientError| {
            let text = error.to_string();
            assert!(matches!(error, ClientError::NoServer { .. }), "{error:?}");
            assert!(
                text.contains(why) && text.contains(&seed.to_string()),
                "{why}: {text}"
            );
        };
        check(blocking::Client::connect(options.clone()).unwrap_err());
        on_executor(async move || check(Client::connect(options).await.unwrap_err()));
    }
    let error = blocking::Client::connect(options(&[])).unwrap_err();
    assert!(error.to_string().contains("at least one seed"), "{error}");
}

/// "Nothing happened" must stay true: the write may not leave when a server comes back.
#[test]
fn a_write_that_timed_out_before_it_left_never_arrives() {
    let server = FakeServer::bind();
    let address = server.address;
    server.serve_one(|talk| {
        let mut talk = talk.lead();
        let asked = talk.asked().unwrap();
        talk.written(asked.request, 1);
    });
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    on_executor(async move || {
        let options = ClientOptions {
            request_timeout: Duration::from_millis(300),
            ..options(&[address])
        };
        let client = Client::connect(options).await.unwrap();
        client.put(b"first", b"", PLAIN).await.unwrap();
        // The connection closes behind the answer. Until that is noticed, a write may leave.
        loop {
            match client.put(b"late", b"", PLAIN).await.unwrap_err() {
                ClientError::OutcomeUnknown(_) => {}
                ClientError::Timeout { last, .. } => {
                    break assert!(last.contains("refused"), "{last}");
                }
                error => panic!("{error:?}"),
            }
        }
        let again = FakeServer::bind_to(address);
        again.serve(move |_, talk| {
            let mut talk = talk.lead();
            while let Some(asked) = talk.asked() {
                note(&log, "again", &asked.key);
                talk.written(asked.request, 2);
            }
        });
        while client.put(b"last", b"", PLAIN).await.is_err() {}
    });
    assert_eq!(*seen.lock().unwrap(), ["again last"]);
}

/// A thousand writes at once on one connection, answered back to front.
#[test]
fn many_requests_are_in_flight() {
    const WRITES: usize = 1000;
    let server = FakeServer::bind();
    let address = server.address;
    let accepted = server.serve(|_, talk| {
        let mut talk = talk.lead();
        let mut all: Vec<_> = (0..WRITES).map(|_| talk.asked().unwrap()).collect();
        while let Some(asked) = all.pop() {
            let index = std::str::from_utf8(&asked.key).unwrap().parse().unwrap();
            talk.written(asked.request, index);
        }
        assert!(talk.asked().is_none());
    });
    on_executor(async move || {
        let client = Client::connect(options(&[address])).await.unwrap();
        let tasks: Vec<_> = (1..=WRITES as u64)
            .map(|n| {
                let client = client.clone();
                glommio::spawn_local(async move {
                    let key = n.to_string();
                    let written = client.put(key.as_bytes(), b"value", PLAIN).await;
                    assert_eq!(written.unwrap().index, Index(n));
                })
            })
            .collect();
        iter(tasks).then(|task| task).count().await;
    });
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

/// The third request waits until one of two is answered.
#[test]
fn requests_over_the_bound_wait() {
    let server = FakeServer::bind();
    let address = server.address;
    let most = Arc::new(AtomicUsize::new(0));
    let record = Arc::clone(&most);
    server.serve(move |_, talk| {
        let mut talk = talk.lead();
        let mut open = Vec::new();
        for _ in 0..20 {
            open.push(talk.asked().unwrap());
            record.fetch_max(open.len(), Ordering::SeqCst);
            if open.len() == 2 {
                let asked = open.remove(0);
                talk.written(asked.request, 1);
            }
        }
        for asked in open {
            talk.written(asked.request, 1);
        }
        talk.answer_all();
    });
    on_executor(async move || {
        let options = ClientOptions {
            requests_in_flight_max: 2,
            ..options(&[address])
        };
        let client = Client::connect(options).await.unwrap();
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let client = client.clone();
                glommio::spawn_local(async move { client.put(b"k", b"v", PLAIN).await.unwrap() })
            })
            .collect();
        iter(tasks).then(|task| task).count().await;
    });
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

/// Who waits for a place in vain learns that, and nothing of it left.
#[test]
fn waiting_for_a_place_ends_with_the_timeout() {
    let server = FakeServer::bind();
    let address = server.address;
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    server.serve(move |_, talk| {
        let mut talk = talk.lead();
        while let Some(asked) = talk.asked() {
            note(&log, "got", &asked.key);
        }
    });
    on_executor(async move || {
        let options = ClientOptions {
            requests_in_flight_max: 1,
            request_timeout: Duration::from_millis(200),
            ..options(&[address])
        };
        let client = Client::connect(options).await.unwrap();
        // The second begins to wait later, so that its time is up later: it gets the place, or not.
        let (first, second) = futures_lite::future::zip(
            client.put(b"first", b"", PLAIN),
            client.put(b"second", b"", PLAIN),
        )
        .await;
        assert!(
            matches!(first, Err(ClientError::OutcomeUnknown(_))),
            "{first:?}"
        );
        assert!(second.is_err());
    });
    assert_eq!(seen.lock().unwrap()[0], "got first");
}

#[test]
fn requests_that_cannot_work_are_not_sent() {
    let server = FakeServer::bind();
    let address = server.address;
    server.serve(|_, mut talk| {
        let hello = wire::Hello {
            shards: 4,
            ..talk.hello(None, &[])
        };
        talk.greet(&hello);
        while let Some(asked) = talk.asked() {
            assert_eq!(asked.shard, wire::shard_of(b"good", 4));
            talk.written(asked.request, 1);
        }
    });
    let mut client = blocking::Client::connect(options(&[address])).unwrap();
    let key = vec![b'k'; limits::KEY_BYTES_MAX + 1];
    let value = vec![b'v'; limits::VALUE_BYTES_MAX + 1];
    let command = Bytes::from(vec![0; limits::COMMAND_BYTES_MAX + 1]);
    for (error, why) in [
        (client.put(&key, b"", PLAIN).err(), "the key has 8193 bytes"),
        (client.put(b"", b"", PLAIN).err(), "the key is empty"),
        (
            client.put(b"k", &value, PLAIN).err(),
            "the value has 524289 bytes",
        ),
        (
            client.get(&key, ReadMode::Default).err(),
            "the key has 8193 bytes",
        ),
        (client.get(b"", ReadMode::Default).err(), "the key is empty"),
        (
            client.list(&key, ReadMode::Default).err(),
            "the prefix has 8193 bytes",
        ),
        (client.list(b"part", ReadMode::Default).err(), "span shards"),
        (
            client.keys(b"", b"/", ReadMode::Default).err(),
            "span shards",
        ),
        (client.delete_tree(b"part").err(), "span shards"),
        (
            client.propose(wire::ShardId(0), command).err(),
            "the command has 786433 bytes",
        ),
    ] {
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(why), "{why}: {text}");
    }
    client.put(b"good", b"", PLAIN).unwrap();
    client.delete_tree(b"good/").unwrap();
}

#[test]
fn connections_come_from_the_bound_address() {
    let server = FakeServer::bind();
    let address = server.address;
    let (peer, peers) = mpsc::channel();
    let peer = Mutex::new(peer);
    server.serve(move |_, talk| {
        peer.lock().unwrap().send(talk.peer.ip()).unwrap();
        talk.lead().answer_all();
    });
    let bind: std::net::IpAddr = "127.0.0.77".parse().unwrap();
    let bound = ClientOptions {
        bind: Some(bind),
        ..options(&[address])
    };
    blocking::Client::connect(bound.clone()).unwrap();
    assert_eq!(peers.recv().unwrap(), bind);
    on_executor(async move || {
        Client::connect(bound).await.unwrap();
    });
    assert_eq!(peers.recv().unwrap(), bind);
}

/// The last clone closes the connection; the server sees its end.
#[test]
fn dropping_the_client_closes_the_connection() {
    let server = FakeServer::bind();
    let address = server.address;
    let (ended, seen) = mpsc::channel();
    let ended = Mutex::new(ended);
    server.serve(move |_, talk| {
        talk.lead().answer_all();
        ended.lock().unwrap().send(()).unwrap();
    });
    on_executor(async move || {
        let client = Client::connect(options(&[address])).await.unwrap();
        let clone = client.clone();
        drop(client);
        clone.put(b"k", b"v", PLAIN).await.unwrap();
        drop(clone);
        while seen.try_recv().is_err() {
            glommio::timer::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// A server of another cluster took the address over: it is not written to.
#[test]
fn a_server_of_another_cluster_is_not_used() {
    let server = FakeServer::bind();
    let address = server.address;
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    server.serve(move |number, mut talk| {
        let mut hello = talk.hello(None, &[]);
        if number > 0 {
            hello.cluster_id = wire::Uuid([2; 16]);
        }
        talk.greet(&hello);
        if let Some(asked) = talk.asked() {
            note(&log, "got", &asked.key);
        }
        talk.close();
    });
    let options = ClientOptions {
        request_timeout: Duration::from_millis(500),
        ..options(&[address])
    };
    let mut client = blocking::Client::connect(options).unwrap();
    client.put(b"a", b"", PLAIN).unwrap_err();
    let error = client.put(b"b", b"", PLAIN).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("is of cluster"), "{error}");
    assert_eq!(*seen.lock().unwrap(), ["got a"]);
}

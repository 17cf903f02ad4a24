//! When does a blocking query return, and with what?
//!
//! Real servers over HTTP. A test that says "does not wake" asks the server: its gauge of waiters
//! still counts the one, and its counter of the woken has not moved.

mod cluster;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use cluster::{
    PATIENCE, check,
    frames::{Raw, frame},
    group::Group,
    http::{Answer, Http},
    server::Server,
    wait_for,
};
use wire::{
    FailureKind, FrameKind, Index, Query, QueryBody, ReadMode, Reply, ReplyBody, Role, Wait,
};

fn put(server: &Server, key: &str, value: &str) {
    let answer = server
        .http()
        .put(&format!("/v1/kv/{key}"), value.as_bytes())
        .expect("an answer");
    assert!(answer.is_true(), "{key}: {}", answer.text());
}

fn delete(server: &Server, path: &str) {
    let answer = server
        .http()
        .delete(&format!("/v1/kv/{path}"))
        .expect("an answer");
    assert!(answer.is_true(), "{path}: {}", answer.text());
}

fn index(answer: &Answer) -> u64 {
    answer
        .header("x-consul-index")
        .parse()
        .unwrap_or_else(|why| panic!("no index: {why}: {}", answer.text()))
}

/// The index that a client would ask with next.
fn index_of(server: &Server, path: &str) -> u64 {
    index(
        &server
            .http()
            .get(&format!("/v1/kv/{path}"))
            .expect("an answer"),
    )
}

/// A blocking query under way.
struct Waiter(JoinHandle<Answer>);

impl Waiter {
    /// Asks `path` (with its parameters) and an index.
    fn with_index(server: &Server, path: &str, index: u64) -> Self {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("/v1/kv/{path}{separator}index={index}");
        let http = Http::new(server.http_address(), PATIENCE);
        Self(thread::spawn(move || {
            http.get(&path)
                .unwrap_or_else(|why| panic!("{path}: {why:?}"))
        }))
    }

    /// Asks for what comes after now.
    fn start(server: &Server, path: &str) -> Self {
        Self::with_index(server, path, index_of(server, path))
    }

    fn answer(self) -> Answer {
        self.0.join().expect("the client ends with an answer")
    }
}

fn waiters(server: &Server) -> f64 {
    server.metric("curia.waiters")
}

fn woken(server: &Server) -> f64 {
    server.metric("curia.waiters_woken")
}

fn wait_for_waiters(server: &Server, count: usize) {
    wait_for(&format!("{count} waiters"), || {
        let found = waiters(server);
        check(found == count as f64, || format!("{found} wait"))
    });
}

/// A row changes: its key's, its prefixes' and the root's waiters return with it, others do not.
#[test]
fn a_change_wakes_those_whose_result_it_changes() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    put(server, "app/a", "1");
    put(server, "app/b", "1");
    put(server, "other", "1");
    let woken_ones = [
        "app/a",
        "app/?recurse",
        "app?recurse",
        "?recurse",
        "app/a?recurse",
    ]
    .map(|path| (path, Waiter::start(server, path)));
    // A sibling, a prefix beside, a missing key below, and names, which a new value is not.
    let sleeping = [
        "app/b",
        "other?recurse",
        "app/a/x",
        "app/a/?recurse",
        "app/?keys",
        "empty/?recurse",
        "app/?keys&separator=/",
    ]
    .map(|path| (path, Waiter::start(server, path)));
    wait_for_waiters(server, woken_ones.len() + sleeping.len());
    let before = index_of(server, "app/a");
    put(server, "app/a", "1");
    assert_eq!(
        index_of(server, "app/a"),
        before,
        "the same value again changes nothing"
    );
    assert_eq!(woken(server), 0.0);
    put(server, "app/a", "2");
    for (path, waiter) in woken_ones {
        let answer = waiter.answer();
        let rows = answer.rows();
        let row = rows.iter().find(|row| row.key == "app/a");
        assert_eq!(row.map(|row| &row.value[..]), Some(&b"2"[..]), "{path}");
        assert_eq!(index(&answer), row.unwrap().modify_index, "{path}");
    }
    wait_for_waiters(server, sleeping.len());
    assert_eq!(woken(server), 5.0);

    // Coming and going is for the waiters of names and of what was missing; a sibling still sleeps.
    put(server, "app/a/x", "1");
    put(server, "empty/y", "1");
    let mut sleeping = sleeping.into_iter();
    let (sibling, beside) = (sleeping.next().unwrap(), sleeping.next().unwrap());
    for (path, waiter) in sleeping {
        assert_eq!(waiter.answer().status, 200, "{path}");
    }
    wait_for_waiters(server, 2);
    assert_eq!(woken(server), 10.0);
    // Everything goes by one stroke.
    delete(server, "?recurse");
    for (path, waiter) in [sibling, beside] {
        assert_eq!(waiter.answer().status, 404, "{path}");
    }
    wait_for_waiters(server, 0);
}

/// A delete wakes who had the row; a recursive one those who had rows under it, and no others.
#[test]
fn deletes_wake_those_who_lose_something() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    for key in ["d/a", "d/b/c", "d/b/d", "e"] {
        put(server, key, "1");
    }
    let deleted = Waiter::start(server, "d/a");
    let prefix = Waiter::start(server, "d/?keys");
    let sleeping = ["d/b/c", "d/b/?recurse", "e", "d/missing", "d/b/e?recurse"]
        .map(|path| Waiter::start(server, path));
    wait_for_waiters(server, 7);
    delete(server, "d/a");
    let answer = deleted.answer();
    assert_eq!((answer.status, answer.text()), (404, String::new()));
    assert_eq!(prefix.answer().text(), r#"["d/b/c","d/b/d"]"#);
    wait_for_waiters(server, 5);

    // It is there no longer: deleting it again changes nothing.
    let again = Waiter::start(server, "d/a");
    let above = Waiter::start(server, "d?recurse");
    delete(server, "d/a");
    delete(server, "d/b?recurse");
    let [key, under, beside, missing, empty] = sleeping;
    assert_eq!((key.answer().status, under.answer().status), (404, 404));
    assert_eq!(above.answer().status, 404);
    wait_for_waiters(server, 4);
    assert_eq!(woken(server), 5.0);
    put(server, "d/a", "2");
    put(server, "d/missing", "2");
    put(server, "d/b/ee", "2");
    put(server, "e", "2");
    for waiter in [again, beside, missing, empty] {
        assert_eq!(waiter.answer().status, 200);
    }
}

/// A wait that is over is answered with what there is; an index of the future waits its time.
#[test]
fn waits_end_with_what_there_is() {
    let group = Group::formed(1, &[]);
    let server = &group[0];
    put(server, "t", "1");
    let now = index_of(server, "t");
    let begun = Instant::now();
    let waiters = ["t", "gone", "t?recurse", "gone/?keys"].map(|path| {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}wait=200ms");
        Waiter::with_index(server, &path, now)
    });
    let statuses = waiters.map(|waiter| waiter.answer().status);
    assert_eq!(statuses, [200, 404, 200, 404]);
    assert!(
        begun.elapsed() >= Duration::from_millis(200),
        "they came early"
    );
    let begun = Instant::now();
    let future = Waiter::with_index(server, "t?wait=1s", now + 1_000_000);
    for value in 2..5 {
        put(server, "t", &value.to_string());
    }
    let answer = future.answer();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it came early");
    assert_eq!(
        (answer.status, index(&answer)),
        (200, index_of(server, "t"))
    );
    // An index of the past and none at all wait for nothing.
    for path in [
        format!("t?index={now}"),
        "t?index=0&wait=60s".to_owned(),
        "t?wait=60s".to_owned(),
    ] {
        assert_eq!(
            server.http().get(&format!("/v1/kv/{path}")).unwrap().status,
            200
        );
    }
    wait_for_waiters(server, 0);
}

/// In the other modes the leader is asked, where the waiter then is; `stale` ones stay.
#[test]
fn through_a_follower_and_stale_at_one() {
    let group = Group::formed(3, &[]);
    let leader = group.wait_for_leader();
    let follower = &group[(leader + 1) % 3];
    put(follower, "f", "1");
    let path = |mode: &str| format!("f?raw{mode}");
    let before = index_of(follower, "f?consistent");
    wait_for("the follower has it", || {
        check(index_of(follower, "f?stale") == before, || {
            "not yet".to_owned()
        })
    });
    let waiting =
        ["", "&consistent", "&stale"].map(|mode| Waiter::with_index(follower, &path(mode), before));
    wait_for_waiters(follower, 1);
    wait_for_waiters(&group[leader], 2);
    put(follower, "f", "2");
    for waiter in waiting {
        let answer = waiter.answer();
        assert_eq!(answer.text(), "2");
        assert!(index(&answer) > before);
    }
    wait_for_waiters(follower, 0);
    wait_for_waiters(&group[leader], 0);
}

/// The leader dies, falls asleep, or stops while others wait at it through a follower: they wait
/// on at the next one, and miss nothing.
#[test]
fn waiters_outlive_their_leader() {
    let mut group = Group::formed(3, &[]);
    for how in ["killed", "paused", "stopped"] {
        let leader = group.wait_for_leader();
        let asked = (leader + 1) % 3;
        put(&group[asked], "l", how);
        let before = index_of(&group[asked], "l?consistent");
        let waiting: Vec<Waiter> = ["", "&consistent"]
            .iter()
            .flat_map(|mode| vec![format!("l?raw{mode}"); 10])
            .map(|path| Waiter::with_index(&group[asked], &path, before))
            .collect();
        wait_for_waiters(&group[leader], 20);
        match how {
            "killed" => group[leader].kill(),
            "paused" => group[leader].pause(),
            _ => group[leader].stop(),
        }
        let next = wait_for("they wait at another leader", || {
            let others = (0..3).filter(|at| *at != leader);
            let mut found = others.map(|at| (at, waiters(&group[at])));
            found
                .find(|(_, count)| *count == 20.0)
                .map(|(at, _)| at)
                .ok_or_else(|| "not yet".to_owned())
        });
        put(&group[next], "l", "after");
        for waiter in waiting {
            let answer = waiter.answer();
            assert_eq!(
                (answer.status, answer.text()),
                (200, "after".to_owned()),
                "{how}"
            );
        }
        match how {
            "paused" => group[leader].resume(),
            _ => group[leader].start(),
        }
        group.wait_for_leader();
        wait_for("nobody is left behind", || {
            let left: f64 = group.servers.iter().map(waiters).sum();
            check(left == 0.0, || format!("{left} wait"))
        });
    }
}

/// Connections of HTTP clients that wait, without a thread for each.
fn http_waiters(address: SocketAddr, path: &str, count: usize) -> Vec<TcpStream> {
    let request = format!("GET /v1/kv/{path} HTTP/1.1\r\nHost: x\r\n\r\n");
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.write_all(request.as_bytes()).expect("it is taken");
            stream
        })
        .collect()
}

fn read_status(stream: &mut TcpStream) -> String {
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer[..read]);
    text.lines().next().unwrap_or_default().to_owned()
}

/// Two thousand wait for one key, here and through a follower, on servers of two executors (half
/// of the connections are served where the key is not).
#[test]
fn all_of_many_are_answered() {
    const WAITERS: usize = 2_000;
    let group = Group::formed(3, &["-executors=2"]);
    let leader = group.wait_for_leader();
    let follower = &group[(leader + 1) % 3];
    put(follower, "many", "1");
    let path = format!("many?index={}", index_of(follower, "many"));
    let mut waiting = http_waiters(group[leader].http_address(), &path, WAITERS / 2);
    waiting.extend(http_waiters(follower.http_address(), &path, WAITERS / 2));
    wait_for_waiters(&group[leader], WAITERS);
    // However many wait, others are served.
    put(follower, "other", "1");
    assert_eq!(woken(&group[leader]), 0.0);
    put(follower, "many", "2");
    for stream in &mut waiting {
        assert_eq!(read_status(stream), "HTTP/1.1 200 OK");
    }
    wait_for_waiters(&group[leader], 0);
}

/// The places of those who leave are free again: at the server they asked, on its other executor,
/// and at the leader that it asked for them.
#[test]
fn those_who_leave_give_up_their_places() {
    let group = Group::formed(3, &["-executors=2"]);
    let leader = group.wait_for_leader();
    let follower = (leader + 1) % 3;
    put(&group[leader], "left", "1");
    let path = format!("left?index={}", index_of(&group[leader], "left"));
    for how in [Shutdown::Both, Shutdown::Write] {
        let at_leader = http_waiters(group[leader].http_address(), &path, 20);
        let at_follower = http_waiters(group[follower].http_address(), &path, 30);
        let stale = format!("{path}&stale");
        let stale = http_waiters(group[follower].http_address(), &stale, 10);
        wait_for_waiters(&group[leader], 50);
        wait_for_waiters(&group[follower], 10);
        for stream in at_leader.iter().chain(&at_follower).chain(&stale) {
            stream.shutdown(how).expect("it was open");
        }
        wait_for_waiters(&group[leader], 0);
        wait_for_waiters(&group[follower], 0);
        if how == Shutdown::Write {
            // They cannot be told from the others, but they may still read.
            for mut stream in at_leader.into_iter().chain(at_follower).chain(stale) {
                assert_eq!(read_status(&mut stream), "HTTP/1.1 200 OK");
            }
        }
    }
    assert_eq!(woken(&group[leader]), 0.0);
}

fn waiting_query(key: &'static str, index: u64, mode: ReadMode) -> bytes::Bytes {
    let query = Query {
        mode,
        min_index: Index(0),
        wait: Wait {
            index: Index(index),
            ms: 600_000,
        },
        body: QueryBody::KvGet {
            key: bytes::Bytes::from_static(key.as_bytes()),
        },
    };
    query.encode()
}

/// Native clients: many wait on one connection, one is taken back by its number, a number that is
/// in use is refused, the end of the connection frees all.
#[test]
fn native_clients_wait_cancel_and_leave() {
    let group = Group::formed(3, &[]);
    let leader = group.wait_for_leader();
    put(&group[leader], "n", "1");
    let before = index_of(&group[leader], "n");
    // At the leader the shard is asked straight away, at a follower by way of the leader.
    for at in [leader, (leader + 1) % 3] {
        let before = before.max(index_of(&group[leader], "n"));
        let mut raw = Raw::introduced(group[at].server_address(), Role::Client);
        for request in 1..=5 {
            let query = waiting_query("n", before, ReadMode::Default);
            raw.send(&frame(FrameKind::Query, request, query));
        }
        wait_for_waiters(&group[leader], 5);
        let again = waiting_query("n", before, ReadMode::Default);
        raw.send(&frame(FrameKind::Query, 3, again));
        let refused = raw.next().unwrap().expect("an answer");
        assert_eq!(refused.request.0, 3);
        let reply = Reply::decode(&refused.payload).unwrap();
        assert!(
            matches!(&reply.body, ReplyBody::Failed(failure) if failure.kind == FailureKind::Invalid),
            "{reply:?}"
        );
        raw.send(&frame(FrameKind::Cancel, 2, bytes::Bytes::new()));
        raw.send(&frame(FrameKind::Cancel, 77, bytes::Bytes::new()));
        wait_for_waiters(&group[leader], 4);
        put(&group[leader], "n", &format!("by {at}"));
        let mut answered: Vec<u64> = (0..4)
            .map(|_| raw.next().unwrap().expect("an answer").request.0)
            .collect();
        answered.sort_unstable();
        assert_eq!(answered, [1, 3, 4, 5]);

        let now = index_of(&group[leader], "n");
        for request in 1..=100 {
            let query = waiting_query("n", now, ReadMode::Default);
            raw.send(&frame(FrameKind::Query, request, query));
        }
        wait_for_waiters(&group[leader], 100);
        drop(raw);
        wait_for_waiters(&group[leader], 0);
    }
}

/// A server that stops tells those who wait at it, and stops no later for them.
#[test]
fn a_stopping_server_answers_those_who_wait_at_it() {
    for executors in ["-executors=1", "-executors=2"] {
        let mut group = Group::formed(1, &[executors]);
        put(&group[0], "s", "1");
        let path = format!("s?index={}", index_of(&group[0], "s"));
        let mut waiting = http_waiters(group[0].http_address(), &path, 50);
        wait_for_waiters(&group[0], 50);
        group[0].stop();
        for stream in &mut waiting {
            let status = read_status(stream);
            assert_eq!(status, "HTTP/1.1 503 Service Unavailable", "{executors}");
        }
    }
}

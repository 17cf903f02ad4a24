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
    group::Group,
    http::{Answer, Http},
    server::Server,
    wait_for,
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

    // All the others by one stroke: everything goes.
    put(server, "app/a/x", "1");
    put(server, "empty/y", "1");
    delete(server, "?recurse");
    for (path, waiter) in sleeping {
        waiter.answer();
        let _ = path;
    }
    wait_for_waiters(server, 0);
}

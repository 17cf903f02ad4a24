//! `?index=` and `?wait=` over real sockets: what is asked of the cluster, and what becomes of a
//! client that leaves while it waits.

mod http_support;

use engine::server::http::HttpLimits;
use http_support::{Client, Server, eventually, get};
use wire::{Index, ReadMode, Wait, limits};

/// What the last read waited for.
fn last_wait(server: &Server) -> Wait {
    *server.state().waits.last().expect("a read")
}

/// Asks and does not wait for the answer.
fn asking(server: &Server, target: &str) -> Client {
    let before = server.state().waiting;
    let mut client = server.client();
    client.send(&get(target));
    eventually("it waits", || server.state().waiting == before + 1);
    client
}

#[test]
fn gotcha_23_waits_are_cut_and_lengthened_at_random() {
    let server = Server::start();
    server.put("/v1/kv/k", "1");
    // The index is older than the answer: nothing really waits, and all is asked as if.
    for (query, ms) in [
        ("index=1", limits::WAIT_MS_DEFAULT),
        ("index=1&wait=20m", limits::WAIT_MS_MAX),
        ("index=1&wait=1m40s", 100_000),
        ("index=1&wait=0", limits::WAIT_MS_DEFAULT),
    ] {
        let mut seen = Vec::new();
        for _ in 0..40 {
            assert_eq!(server.get(&format!("/v1/kv/k?{query}")).status, 200);
            let wait = last_wait(&server);
            assert_eq!(wait.index, Index(1), "{query}");
            let most = ms + ms / limits::WAIT_JITTER_DIVISOR;
            assert!((ms..=most).contains(&wait.ms), "{query}: {} ms", wait.ms);
            seen.push(wait.ms);
        }
        seen.dedup();
        assert!(seen.len() > 1, "{query}: always {seen:?}");
    }
    for query in [
        "",
        "index=0",
        "index=0&wait=5s",
        "wait=5s",
        "index=",
        "recurse&wait=1s",
    ] {
        server.get(&format!("/v1/kv/k?{query}"));
        assert_eq!(last_wait(&server), Wait::default(), "{query}");
    }
    server.get("/v1/kv/k?index=1&stale&keys");
    let last = server.state().reads.last().cloned();
    assert_eq!(last.map(|(mode, _)| mode), Some(ReadMode::Stale));
    assert_eq!(last_wait(&server).index, Index(1));
}

#[test]
fn bad_waits_are_refused_before_anything_is_asked() {
    let server = Server::start();
    for (query, text) in [
        ("index=x", "Invalid index"),
        ("index=-1", "Invalid index"),
        ("index=18446744073709551616", "Invalid index"),
        ("index=1&wait=10", "Invalid wait time"),
        ("index=1&wait=soon", "Invalid wait time"),
        ("wait=", ""),
    ] {
        let answer = server.get(&format!("/v1/kv/k?{query}"));
        let expected = if text.is_empty() {
            (404, "")
        } else {
            (400, text)
        };
        assert_eq!(answer.outcome(), expected, "{query}");
        if !text.is_empty() {
            assert_eq!(
                answer.header("Content-Type"),
                Some("text/plain; charset=utf-8")
            );
        }
    }
    assert_eq!(server.state().reads.len(), 1);
    let configuration = server.get("/v1/operator/raft/configuration?index=x");
    assert_eq!(configuration.outcome(), (400, "Invalid index"));
}

#[test]
fn a_change_and_a_timeout_are_answered_as_any_read() {
    let server = Server::start();
    server.put("/v1/kv/k", "1");
    let mut changed = asking(&server, "/v1/kv/k?index=11&raw");
    let mut missing = asking(&server, "/v1/kv/gone?index=11&wait=50ms");
    let answer = missing.read();
    assert_eq!(answer.outcome(), (404, ""));
    assert_eq!(answer.header("X-Consul-Index"), Some("11"));
    server.put("/v1/kv/k", "2");
    let answer = changed.read();
    assert_eq!(answer.outcome(), (200, "2"));
    assert_eq!(answer.header("X-Consul-Index"), Some("12"));
    // The connection goes on.
    assert_eq!(changed.get("/v1/kv/k?raw").outcome(), (200, "2"));
    assert_eq!(server.metric("curia.http.requests_waiting"), 0.0);
}

#[test]
fn a_client_that_leaves_waits_no_longer() {
    let server = Server::start();
    server.put("/v1/kv/k", "1");
    for _ in 0..3 {
        let clients: Vec<Client> = (0..10)
            .map(|_| asking(&server, "/v1/kv/k?index=11"))
            .collect();
        assert_eq!(server.metric("curia.http.requests_waiting"), 10.0);
        drop(clients);
        eventually("all are gone", || server.state().waiting == 0);
    }
    eventually("their places are free", || {
        server.metric("curia.http.requests_waiting") == 0.0
    });
}

/// It cannot be told from one that has left, but it may still read its answer.
#[test]
fn a_half_closed_client_is_answered_with_what_there_is() {
    let server = Server::start();
    server.put("/v1/kv/k", "1");
    let mut client = asking(&server, "/v1/kv/k?index=11&raw");
    client.half_close();
    assert_eq!(client.read().outcome(), (200, "1"));
    assert!(client.is_closed());
}

/// What a client has sent before it is answered is neither lost nor taken for its end.
#[test]
fn a_pipelined_request_waits_its_turn() {
    let server = Server::start();
    server.put("/v1/kv/k", "1");
    let mut client = asking(&server, "/v1/kv/k?index=11&raw");
    client.send(&get("/v1/kv/other?raw"));
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(server.state().waiting, 1);
    server.put("/v1/kv/k", "2");
    assert_eq!(client.read().outcome(), (200, "2"));
    assert_eq!(client.read().status, 404);
}

#[test]
fn waiters_max_is_429_and_leaves_other_requests_alone() {
    let limits = HttpLimits {
        waiters_max: 3,
        requests_max: 1,
        ..HttpLimits::default()
    };
    let server = Server::with(limits, |_| {});
    server.put("/v1/kv/k", "1");
    let mut clients: Vec<Client> = (0..3)
        .map(|_| asking(&server, "/v1/kv/k?index=11&raw"))
        .collect();
    let refused = server.get("/v1/kv/k?index=11");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert_eq!(server.get("/v1/kv/k?raw").outcome(), (200, "1"));
    server.put("/v1/kv/k", "2");
    for client in &mut clients {
        assert_eq!(client.read().outcome(), (200, "2"));
    }
    assert_eq!(server.get("/v1/kv/k?index=1&raw").outcome(), (200, "2"));
}

/// A stale answer that is too old is asked of the leader, for what is left of the wait.
#[test]
fn max_stale_waits_once_for_both() {
    let server = Server::with(HttpLimits::default(), |state| state.last_contact_ms = 9_000);
    server.put("/v1/kv/k", "1");
    let answer = server.get("/v1/kv/k?index=11&wait=200ms&max_stale=1s&raw");
    assert_eq!(answer.outcome(), (200, "1"));
    let state = server.state();
    let modes: Vec<ReadMode> = state.reads.iter().map(|(mode, _)| *mode).collect();
    assert_eq!(modes, [ReadMode::Stale, ReadMode::Default]);
    assert_eq!(
        state.waits[1].ms, 0,
        "the first took all the time there was"
    );
}

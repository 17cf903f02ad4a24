//! `?watch` over real sockets: what it says, where it goes on, and what it costs.

mod http_support;

use std::time::Duration;

use engine::server::http::HttpLimits;
use http_support::{Client, Event, Server, eventually, fake::failure, request};
use wire::{ChangeOp, Cursor, FailureKind, Index, KvRow, ReadMode};

/// A server that tells progress often.
fn lively() -> Server {
    let limits = HttpLimits {
        watch_progress: Duration::from_millis(50),
        ..HttpLimits::default()
    };
    Server::with(limits, |_| {})
}

/// A watch whose head was read.
fn watching(server: &Server, target: &str, headers: &[(&str, &str)]) -> Client {
    let mut client = server.client();
    client.send(&request("GET", target, headers, b""));
    let head = client.read_head();
    assert_eq!(head.status, 200, "{target}");
    assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
    assert_eq!(head.header("Cache-Control"), Some("no-store"));
    assert_eq!(head.header("Transfer-Encoding"), Some("chunked"));
    client
}

/// The next event that is no progress.
fn next(client: &mut Client) -> Event {
    loop {
        let event = client.event().expect("the stream goes on");
        if event.name != "progress" {
            return event;
        }
    }
}

fn whats(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| next(client).what()).collect()
}

#[test]
fn a_watch_begins_with_the_rows_and_goes_on_with_each_change() {
    let server = lively();
    server.put("/v1/kv/w/a", "1");
    server.put("/v1/kv/other", "1");
    server.put("/v1/kv/w/b", "2");
    let mut client = watching(&server, "/v1/kv/w/?watch", &[]);
    let row = next(&mut client);
    assert_eq!(row.what(), "row set w/a");
    assert_eq!(row.id, None, "who loses the connection here begins anew");
    assert_eq!(row.data["Value"], "MQ==");
    assert_eq!(next(&mut client).what(), "row set w/b");
    let synced = next(&mut client);
    assert_eq!(
        (&*synced.name, &synced.data["Index"]),
        ("synced", &13.into())
    );
    assert_eq!(synced.id.as_deref(), Some("0000000000c0ffee-13"));

    server.put("/v1/kv/w/c", "3");
    server.put("/v1/kv/other", "2");
    server.delete("/v1/kv/w/a");
    server.delete("/v1/kv/w/?recurse");
    let set = next(&mut client);
    assert_eq!(set.what(), "change set w/c");
    assert_eq!(set.data["ModifyIndex"], 14);
    assert_eq!(set.id.as_deref(), Some("0000000000c0ffee-14.1"));
    let told = whats(&mut client, 2);
    assert_eq!(told, ["change delete w/a", "change delete-tree w/"]);
}

#[test]
fn a_watch_from_an_index_begins_behind_it() {
    let server = lively();
    for n in 0..4 {
        server.put("/v1/kv/k", n.to_string());
    }
    let mut client = watching(&server, "/v1/kv/k?watch&index=12", &[]);
    let told: Vec<u64> = (0..2)
        .map(|_| next(&mut client).data["ModifyIndex"].as_u64().unwrap())
        .collect();
    assert_eq!(told, [13, 14]);
    // With nothing to tell it says at once where it is.
    let mut client = watching(&server, "/v1/kv/none?watch&index=12&stale", &[]);
    let progress = client.event().unwrap();
    assert_eq!(progress.name, "progress");
    assert_eq!(
        progress.data,
        serde_json::json!({"Index": 14, "KnownLeader": true, "LastContact": 0})
    );
    assert_eq!(progress.id.as_deref(), Some("0000000000c0ffee-14"));
}

#[test]
fn last_event_id_goes_on_behind_that_event_whatever_the_url_says() {
    let server = lively();
    server.put("/v1/kv/k", "1");
    {
        let mut state = server.state();
        let row = state.rows[&b"k"[..]].clone();
        for op in [ChangeOp::Lock, ChangeOp::Unlock] {
            state.changed(
                op,
                KvRow {
                    session: "s".into(),
                    ..row.clone()
                },
            );
        }
    }
    let mut first = watching(&server, "/v1/kv/k?watch&index=10", &[]);
    let events: Vec<Event> = (0..3).map(|_| next(&mut first)).collect();
    assert_eq!(events[2].what(), "change unlock k");
    for (at, event) in events.iter().enumerate() {
        let id = event.id.as_deref().unwrap();
        let headers = [("Last-Event-ID", id)];
        let mut again = watching(&server, "/v1/kv/k?watch&index=1", &headers);
        for expected in &events[at + 1..] {
            assert_eq!(next(&mut again), *expected);
        }
        assert_eq!(again.event().unwrap().name, "progress");
    }
}

#[test]
fn progress_is_told_while_nothing_changes_and_its_id_moves_on() {
    let server = lively();
    server.put("/v1/kv/k", "1");
    let mut client = watching(&server, "/v1/kv/k?watch&index=11", &[]);
    let first = client.event().unwrap();
    server.put("/v1/kv/other", "1");
    let mut last = first.clone();
    while last.data["Index"] == 11 {
        last = client.event().unwrap();
        assert_eq!(last.name, "progress");
    }
    assert_eq!(last.id.as_deref(), Some("0000000000c0ffee-12"));
}

/// What was told is gone from the history, or is of another cluster, or of none.
#[test]
fn a_watch_that_cannot_go_on_is_reset_and_ends() {
    let server = lively();
    for n in 0..5 {
        server.put("/v1/kv/k", n.to_string());
    }
    server.state().history_begins = Cursor::behind(Index(13));
    for (target, id, reason) in [
        ("index=12", "", "history of this server begins later"),
        (
            "",
            "0000000000c0ffee-13.0",
            "history of this server begins later",
        ),
        ("", "0000000000c0ffef-14", "of another cluster"),
        ("index=16", "", "ahead of the cluster's"),
        ("", "0000000000c0ffee-4000", "ahead of the cluster's"),
    ] {
        let target = format!("/v1/kv/k?watch&{target}");
        let mut client = watching(&server, &target, &[("Last-Event-ID", id)]);
        let reset = client.event().unwrap();
        assert_eq!(reset.name, "reset", "{target} {id}");
        assert_eq!(reset.id.as_deref(), Some(""), "the id is forgotten");
        let found = reset.data["Reason"].as_str().unwrap();
        assert!(found.contains(reason), "{found}");
        assert_eq!(client.event(), None, "the stream ends");
        // As whole, so that the connection can go on.
        assert_eq!(client.get("/v1/kv/k?raw").outcome(), (200, "4"));
    }
    // A server that is behind is not asked what the cluster has.
    let mut client = watching(&server, "/v1/kv/k?watch&stale&index=16", &[]);
    assert_eq!(client.event().unwrap().name, "progress");
    server.put("/v1/kv/k", "not told");
    server.put("/v1/kv/k", "told");
    assert_eq!(next(&mut client).data["ModifyIndex"], 17);
}

/// It read slowly, and the history went on without it.
#[test]
fn a_watch_that_falls_behind_is_reset_midway() {
    let server = lively();
    server.put("/v1/kv/k", "1");
    let mut client = watching(&server, "/v1/kv/k?watch", &[]);
    assert_eq!(whats(&mut client, 2), ["row set k", "synced"]);
    {
        let mut state = server.state();
        state.index += 10;
        state.history_begins = Cursor::behind(Index(state.index));
    }
    assert_eq!(next(&mut client).name, "reset");
    assert_eq!(client.event(), None);
}

#[test]
fn bad_watches_are_refused_by_name() {
    let server = Server::start();
    for (query, id, text) in [
        ("watch&keys", "", "?watch cannot be combined with ?keys"),
        ("watch&raw", "", "?watch cannot be combined with ?raw"),
        (
            "watch&recurse&limit=3",
            "",
            "?watch cannot be combined with ?limit",
        ),
        ("watch&index=x", "", "Invalid index"),
        ("watch&wait=x", "", "Invalid wait time"),
        (
            "watch&stale&consistent",
            "",
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        (
            "watch",
            "17",
            "Invalid Last-Event-ID \"17\": send the id of an event of a watch, or none to start over",
        ),
    ] {
        let headers = [("Last-Event-ID", id)];
        let target = format!("/v1/kv/k?{query}");
        let answer = server.client().request("GET", &target, &headers, b"");
        assert_eq!(answer.outcome(), (400, text), "{query}");
    }
    assert_eq!(server.state().reads.len(), 0);
    let long = format!("/v1/kv/{}?watch", "k".repeat(9000));
    assert_eq!(server.get(&long).status, 414);
    assert_eq!(server.metric("curia.http.watches"), 0.0);
}

/// The mode decides how fresh the beginning is; what follows is this server's own.
#[test]
fn default_asks_the_leader_where_it_is_and_stale_does_not() {
    let server = lively();
    server.put("/v1/kv/k", "1");
    let modes = |query: &str| {
        eventually("the one before is gone", || {
            server.metric("curia.http.watches") == 0.0
        });
        server.state().reads.clear();
        let mut client = watching(&server, &format!("/v1/kv/k?watch{query}"), &[]);
        assert_eq!(whats(&mut client, 2), ["row set k", "synced"]);
        let state = server.state();
        let mut modes: Vec<ReadMode> = state.reads.iter().map(|(mode, _)| *mode).collect();
        modes.truncate(3);
        modes
    };
    use ReadMode::{Consistent, Default, Stale};
    assert_eq!(modes(""), [Default, Stale, Stale]);
    assert_eq!(modes("&consistent"), [Consistent, Stale, Stale]);
    assert_eq!(modes("&stale")[..2], [Stale, Stale]);
    server.state().failure = Some(failure(FailureKind::NoLeader, ""));
    assert_eq!(
        server.get("/v1/kv/k?watch").outcome(),
        (500, "No cluster leader")
    );
    assert_eq!(modes("&stale")[..2], [Stale, Stale]);
}

/// A server that is further behind than the client bears begins with what the leader has.
#[test]
fn max_stale_asks_the_leader_when_this_server_is_too_far_behind() {
    let server = lively();
    server.put("/v1/kv/k", "1");
    server.state().last_contact_ms = 9_000;
    let mut client = watching(&server, "/v1/kv/k?watch&max_stale=1s", &[]);
    assert_eq!(whats(&mut client, 2), ["row set k", "synced"]);
    let state = server.state();
    let asked: Vec<ReadMode> = state.reads[..4].iter().map(|(mode, _)| *mode).collect();
    use ReadMode::{Default, Stale};
    assert_eq!(asked, [Stale, Default, Stale, Stale]);
}

#[test]
fn what_comes_in_several_answers_is_told_in_one_stream() {
    let server = lively();
    for n in 0..50 {
        server.put(&format!("/v1/kv/k/{n:02}"), "v");
    }
    server.state().changes_max = 7;
    server.state().batch_rows = 3;
    let mut client = watching(&server, "/v1/kv/k/?watch&index=10", &[]);
    let mut rows = watching(&server, "/v1/kv/k/?watch", &[]);
    for n in 0..50 {
        assert_eq!(next(&mut client).what(), format!("change set k/{n:02}"));
        assert_eq!(next(&mut rows).what(), format!("row set k/{n:02}"));
    }
    assert_eq!(next(&mut rows).name, "synced");
}

#[test]
fn a_listing_that_fails_midway_and_a_server_that_stops() {
    let server = lively();
    for n in 0..300 {
        server.put(&format!("/v1/kv/k/{n}"), vec![b'v'; 1000]);
    }
    server.state().fail_after_batches = Some(2);
    server.state().batch_rows = 100;
    let mut client = watching(&server, "/v1/kv/k/?watch", &[]);
    let mut rows = 0;
    while client.event().is_some() {
        rows += 1;
    }
    assert!(rows > 0 && rows < 300, "it is cut off, and not synced");
    assert!(client.is_closed());
    server.state().fail_after_batches = None;

    let mut client = watching(&server, "/v1/kv/k/1?watch&index=310", &[]);
    assert_eq!(client.event().unwrap().name, "progress");
    server.state().watch_failure = Some(failure(FailureKind::ShuttingDown, "bye"));
    while let Some(event) = client.event() {
        assert_eq!(event.name, "progress");
    }
    // Ended whole: what was told is all there was.
    assert_eq!(client.get("/v1/kv/k/1").status, 200);
}

#[test]
fn watchers_max_is_429_and_leaves_other_requests_alone() {
    let limits = HttpLimits {
        watchers_max: 3,
        waiters_max: 1,
        requests_max: 1,
        ..HttpLimits::default()
    };
    let server = Server::with(limits, |_| {});
    server.put("/v1/kv/k", "1");
    let clients: Vec<Client> = (0..3)
        .map(|_| watching(&server, "/v1/kv/k?watch", &[]))
        .collect();
    let refused = server.get("/v1/kv/k?watch");
    assert_eq!(
        refused.outcome(),
        (
            429,
            "Too many watches on this server, try again later or against a different server"
        )
    );
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert_eq!(server.get("/v1/kv/k?raw").outcome(), (200, "1"));
    assert_eq!(server.get("/v1/kv/k?index=1&raw").outcome(), (200, "1"));
    drop(clients);
    eventually("their places are free", || {
        server.metric("curia.http.watches") == 0.0
    });
    assert_eq!(server.state().waiting, 0, "nothing waits for them any more");
    watching(&server, "/v1/kv/k?watch", &[]);
}

/// A client that has only closed its sending side cannot be told from one that left.
#[test]
fn a_watch_ends_with_its_clients_sending_side() {
    let server = Server::start();
    server.put("/v1/kv/k", "1");
    let mut client = watching(&server, "/v1/kv/k?watch", &[]);
    assert_eq!(whats(&mut client, 2), ["row set k", "synced"]);
    client.half_close();
    assert_eq!(client.event(), None);
    eventually("its place is free", || {
        server.metric("curia.http.watches") == 0.0
    });
}

/// One that reads nothing is cut off after the write timeout, and costs what fits the sockets and
/// one answer.
#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let limits = HttpLimits {
        write_timeout: Duration::from_millis(200),
        ..HttpLimits::default()
    };
    let server = Server::with(limits, |state| state.changes_max = 1);
    server.put("/v1/kv/k", "0");
    let client = watching(&server, "/v1/kv/k?watch", &[]);
    let (big, mut writes) = (vec![b'v'; 500_000], 0);
    while server.metric("curia.http.watches") > 0.0 {
        let mut value = big.clone();
        value.extend_from_slice(format!("{writes}").as_bytes());
        if writes < 60 {
            server.put("/v1/kv/k", value);
        }
        writes += 1;
        assert!(writes < 6000, "it is not cut off");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(client);
}

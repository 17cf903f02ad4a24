//! Consul's surprises, on a real server: what clients have come to depend on, number by number.
//!
//! The numbers are those of the project's list of gotchas. Not here: 19 and 20 (autopilot's health,
//! archives), whose endpoints do not exist yet; 21 (blocked queries return when the state is
//! replaced), in `shard/tests/blocking.rs`; 28 (tombstones are reaped through the log), which `shard::duties`
//! tests with a clock of its own; 29 (an unknown outcome is no failure), in `server::http::failure`
//! and `cluster_kills`.

mod cluster;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use cluster::{
    check,
    group::Group,
    http::{Answer, Http},
    wait_for,
};
use serde_json::{Value, json};

/// One server, and a client of it.
struct One {
    group: Group,
    http: Http,
}

impl One {
    fn start() -> Self {
        let group = Group::formed(1, &[]);
        group.wait_for_leader();
        let http = Http::new(group[0].http_address(), Duration::from_secs(30));
        Self { group, http }
    }

    fn get(&self, path: &str) -> Answer {
        self.http.get(path).expect("an answer")
    }

    fn put(&self, path: &str, body: &str) -> Answer {
        self.http.put(path, body.as_bytes()).expect("an answer")
    }

    fn delete(&self, path: &str) -> Answer {
        self.http.delete(path).expect("an answer")
    }

    fn row(&self, key: &str) -> Value {
        self.get(&format!("/v1/kv/{key}")).json()[0].clone()
    }

    /// A session of this server's own node, once its health is known.
    fn session(&self, body: &str) -> String {
        wait_for("a session is made", || {
            let answer = self.put("/v1/session/create", body);
            check(answer.status == 200, || answer.text())?;
            Ok(answer.json()["ID"].as_str().expect("an id").to_owned())
        })
    }

    /// A request that no client library would make, and the whole answer.
    fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.group[0].http_address()).expect("a connection");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

#[test]
fn gotcha_01_a_missing_key_is_an_empty_404_with_index_headers_and_empties_differ_by_endpoint() {
    let one = One::start();
    for path in [
        "/v1/kv/missing",
        "/v1/kv/missing?recurse",
        "/v1/kv/missing?keys",
    ] {
        let answer = one.get(path);
        assert_eq!((answer.status, &*answer.body), (404, &b""[..]), "{path}");
        assert_ne!(answer.header("x-consul-index"), "", "{path}");
        assert_eq!(answer.header("x-consul-knownleader"), "true");
    }
    let root = one.get("/v1/kv/?keys");
    assert_eq!((root.status, root.json()), (200, json!([])));
    let none = "00000000-0000-0000-0000-000000000000";
    assert_eq!(
        one.get(&format!("/v1/session/info/{none}")).json(),
        json!([])
    );
    assert_eq!(one.get("/v1/session/list").json(), json!([]));
    assert_eq!(one.get("/v1/catalog/node/missing").json(), Value::Null);
    assert_eq!(one.get("/v1/catalog/service/missing").json(), json!([]));
    assert_eq!(one.get("/v1/health/service/missing").json(), json!([]));
    assert_eq!(one.get("/v1/health/node/missing").json(), json!([]));
    assert_eq!(one.get("/v1/health/checks/missing").json(), json!([]));
}

#[test]
fn gotcha_02_an_identical_write_moves_no_index_and_wakes_nobody() {
    let one = One::start();
    one.put("/v1/kv/k?flags=7", "v");
    let before = one.row("k");
    let index = before["ModifyIndex"].as_u64().unwrap();
    let http = one.http.clone();
    let waiting = std::thread::spawn(move || {
        http.get(&format!("/v1/kv/k?index={index}&wait=2s"))
            .expect("an answer")
    });
    wait_for("the query waits", || {
        check(one.group[0].metric("curia.waiters") == 1.0, || {
            "nobody waits".into()
        })
    });
    assert!(one.put("/v1/kv/k?flags=7", "v").is_true());
    let answer = waiting.join().unwrap();
    assert_eq!(answer.header("x-consul-index"), index.to_string());
    assert_eq!(one.row("k"), before);
}

#[test]
fn gotcha_03_a_plain_put_on_a_locked_key_keeps_the_session_and_zeroes_the_lock_index() {
    let one = One::start();
    let id = one.session("{}");
    assert!(one.put(&format!("/v1/kv/k?acquire={id}"), "1").is_true());
    assert_eq!(one.row("k")["LockIndex"], 1);
    assert!(one.put("/v1/kv/k", "2").is_true());
    let row = one.row("k");
    assert_eq!(
        (&row["Session"], &row["LockIndex"]),
        (&json!(id), &json!(0))
    );
}

#[test]
fn gotcha_04_a_release_writes_its_body_as_the_value() {
    let one = One::start();
    let id = one.session("{}");
    one.put(&format!("/v1/kv/k?acquire={id}"), "held");
    assert!(
        one.put(&format!("/v1/kv/k?release={id}&flags=3"), "free")
            .is_true()
    );
    let row = one.row("k");
    assert_eq!(
        (&row["Value"], &row["Flags"]),
        (&json!("ZnJlZQ=="), &json!(3))
    );
    assert_eq!(
        (&row["Session"], &row["LockIndex"]),
        (&Value::Null, &json!(1))
    );
    assert!(
        !one.put(&format!("/v1/kv/k?release={id}"), "again")
            .is_true()
    );
}

#[test]
fn gotcha_05_a_cas_delete_of_what_is_not_there_is_true() {
    let one = One::start();
    assert!(one.delete("/v1/kv/missing?cas=5").is_true());
    one.put("/v1/kv/k", "v");
    assert!(!one.delete("/v1/kv/k?cas=0").is_true());
}

#[test]
fn gotcha_06_a_recursive_delete_takes_a_prefix_of_bytes() {
    let one = One::start();
    for key in ["dir", "dirx", "dir/a", "di"] {
        one.put(&format!("/v1/kv/{key}"), "");
    }
    assert!(one.delete("/v1/kv/dir?recurse").is_true());
    assert_eq!(one.get("/v1/kv/?keys").json(), json!(["di"]));
}

#[test]
fn gotchas_07_and_08_unclean_paths_are_moved_and_head_is_not_allowed() {
    let one = One::start();
    let moved = one.get("/v1/kv/a//b?flags=1");
    assert_eq!(moved.status, 301);
    assert_eq!(moved.header("location"), "/v1/kv/a/b?flags=1");
    let head = one.raw("HEAD /v1/kv/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert!(head.contains("Allow: OPTIONS,GET,PUT,DELETE"), "{head}");
}

#[test]
fn gotcha_09_a_small_number_as_lock_delay_is_seconds() {
    let one = One::start();
    for (body, ns) in [
        (r#"{"LockDelay":15}"#, 15_000_000_000u64),
        (r#"{"LockDelay":15000000000}"#, 15_000_000_000),
        (r#"{"LockDelay":"5s"}"#, 5_000_000_000),
        ("", 15_000_000_000),
    ] {
        let id = one.session(body);
        let info = one.get(&format!("/v1/session/info/{id}")).json();
        assert_eq!(info[0]["LockDelay"], ns, "{body}");
    }
}

/// Consul's sessions end after two TTLs; ours between one and two, and so do those of whoever
/// counted on at least one.
#[test]
fn gotchas_10_and_11_a_session_outlives_its_ttl_and_a_renewal_moves_no_index() {
    let one = One::start();
    let id = one.session(r#"{"TTL":"10s"}"#);
    let list = one.get("/v1/session/list");
    let renewed = one.put(&format!("/v1/session/renew/{id}"), "");
    let since = std::time::Instant::now();
    assert_eq!(renewed.json()[0]["ID"], json!(id));
    let after = one.get("/v1/session/list");
    assert_eq!(
        after.header("x-consul-index"),
        list.header("x-consul-index")
    );
    assert_eq!(after.json(), list.json());
    let index = list.header("x-consul-index");
    let ended = one.get(&format!("/v1/session/info/{id}?index={index}&wait=60s"));
    assert_eq!(ended.json(), json!([]));
    let lived = since.elapsed();
    assert!(
        lived >= Duration::from_secs(10),
        "it ended {lived:?} after its renewal"
    );
    let gone = one.put(&format!("/v1/session/renew/{id}"), "");
    assert_eq!(gone.status, 404);
    assert_eq!(gone.text(), format!("Session id '{id}' not found"));
}

#[test]
fn gotcha_12_a_sessions_checks_must_exist_and_not_be_critical() {
    let one = One::start();
    one.session("{}");
    let refused = one.put("/v1/session/create", r#"{"NodeChecks":["nope"]}"#);
    assert_eq!(refused.status, 500);
    assert_eq!(
        refused.text(),
        "apply failed: Missing check 'nope' registration"
    );
    let refused = one.put("/v1/session/create", r#"{"Node":"nobody"}"#);
    assert_eq!(refused.text(), "apply failed: Missing node registration");
    let node = r#"{"Node":"n","Address":"127.0.0.1","Check":{"Name":"c","CheckID":"c","Status":"critical"}}"#;
    assert!(one.put("/v1/catalog/register", node).is_true());
    let refused = one.put("/v1/session/create", r#"{"Node":"n","NodeChecks":["c"]}"#);
    assert_eq!(
        refused.text(),
        "apply failed: Check 'c' is in critical state"
    );
}

#[test]
fn gotchas_13_to_15_transactions_name_every_failure_and_have_limits() {
    let one = One::start();
    let op = |verb: &str, key: &str| json!({"KV": {"Verb": verb, "Key": key}});
    let ops = json!([op("get", "a"), op("set", "b"), op("check-index", "c")]);
    let failed = one.put("/v1/txn", &ops.to_string());
    assert_eq!(failed.status, 409);
    let failed = failed.json();
    assert_eq!(failed["Results"], Value::Null);
    let at: Vec<_> = failed["Errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["OpIndex"])
        .collect();
    assert_eq!(at, [0, 2]);
    let many: Vec<_> = (0..129).map(|_| op("get-or-empty", "a")).collect();
    let many = one.put("/v1/txn", &json!(many).to_string());
    assert_eq!(many.status, 413);
    assert_eq!(
        many.text(),
        "Transaction contains too many operations (129 > 128)"
    );
    let long = "v".repeat(512 * 1024 + 1);
    let long = one.put("/v1/kv/k", &long);
    assert_eq!(long.status, 413);
    let text = long.text();
    assert!(
        text.starts_with("Request body(524289 bytes) too large, max size: 524288 bytes. See "),
        "{text}"
    );
}

#[test]
fn gotchas_16_to_18_without_a_leader_stale_reads_go_on_and_others_wait_seven_seconds() {
    let mut group = Group::formed(3, &[]);
    let leader = group.wait_for_leader();
    let left = (leader + 1) % 3;
    let http = Http::new(group[left].http_address(), Duration::from_secs(30));
    wait_for("a write", || {
        let put = http
            .put("/v1/kv/k", b"v")
            .map_err(|why| format!("{why:?}"))?;
        check(put.is_true(), || put.text())
    });
    wait_for("it is everywhere", || {
        let stale = http
            .get("/v1/kv/k?stale")
            .map_err(|why| format!("{why:?}"))?;
        check(stale.status == 200, || stale.text())
    });
    for at in (0..3).filter(|at| *at != left) {
        group[at].kill();
    }
    wait_for("the leader is missed", || {
        let leader = http
            .get("/v1/status/leader")
            .map_err(|why| format!("{why:?}"))?;
        check(leader.status == 200 && leader.text() == "\"\"", || {
            leader.text()
        })
    });
    let stale = http.get("/v1/kv/k?stale").expect("an answer");
    assert_eq!(stale.status, 200);
    assert_eq!(stale.header("x-consul-knownleader"), "false");
    assert!(stale.header("x-consul-lastcontact").parse::<u64>().is_ok());
    let since = std::time::Instant::now();
    let refused = http.get("/v1/kv/k").expect("an answer");
    assert_eq!(
        (refused.status, &*refused.text()),
        (500, "No cluster leader")
    );
    assert!(
        since.elapsed() >= Duration::from_secs(6),
        "it was held for a leader"
    );
}

#[test]
fn gotchas_22_to_26_reads_have_consuls_floor_cap_misspelling_and_headers() {
    let one = One::start();
    let root = one.get("/v1/kv/?keys");
    assert!(root.header("x-consul-index").parse::<u64>().unwrap() >= 1);
    // A wait of an hour is no error: it is cut. (How long it is then is for params' own test.)
    one.put("/v1/kv/a/b", "");
    one.put("/v1/kv/a/c/d", "");
    let cut = one.get("/v1/kv/a/?keys&wait=1h");
    assert_eq!(cut.status, 200);
    let misspelt = one.get("/v1/kv/a/?keys&seperator=/");
    assert_eq!(misspelt.json(), json!(["a/b", "a/c/"]));
    let refused = one.get("/v1/kv/a?stale&consistent");
    assert_eq!(refused.status, 400);
    assert_eq!(refused.header("content-type"), "text/plain; charset=utf-8");
    let row = one.get("/v1/kv/a/b");
    assert_eq!(row.header("x-consul-effective-consistency"), "");
    let nodes = one.get("/v1/catalog/nodes");
    assert_eq!(nodes.header("x-consul-effective-consistency"), "leader");
}

#[test]
fn gotcha_27_a_lock_in_its_delay_is_false_and_no_error() {
    let one = One::start();
    let (a, b) = (one.session("{}"), one.session("{}"));
    assert!(one.put(&format!("/v1/kv/k?acquire={a}"), "").is_true());
    assert!(one.put(&format!("/v1/session/destroy/{a}"), "").is_true());
    let delayed = one.put(&format!("/v1/kv/k?acquire={b}"), "");
    assert_eq!((delayed.status, &*delayed.text()), (200, "false"));
    let in_txn = json!([{"KV": {"Verb": "lock", "Key": "k", "Session": b}}]);
    let in_txn = one.put("/v1/txn", &in_txn.to_string());
    assert_eq!(in_txn.status, 409);
    let what = &in_txn.json()["Errors"][0]["What"];
    assert_eq!(what, "failed to lock key \"k\" due to lock delay");
    // Without a delay the next may have it at once.
    let c = one.session(r#"{"LockDelay":"0s"}"#);
    assert!(one.put(&format!("/v1/kv/free?acquire={c}"), "").is_true());
    assert!(one.put(&format!("/v1/session/destroy/{c}"), "").is_true());
    assert!(one.put(&format!("/v1/kv/free?acquire={b}"), "").is_true());
}

/// Better than Consul, where every write wakes who waits for an empty prefix; the index moves on.
#[test]
fn gotcha_30_an_empty_prefix_is_not_woken_by_its_neighbours() {
    let one = One::start();
    one.put("/v1/kv/other", "1");
    let empty = one.get("/v1/kv/empty/?recurse");
    let index: u64 = empty.header("x-consul-index").parse().unwrap();
    let http = one.http.clone();
    let waiting = std::thread::spawn(move || {
        http.get(&format!("/v1/kv/empty/?recurse&index={index}&wait=60s"))
            .expect("an answer")
    });
    wait_for("the query waits", || {
        check(one.group[0].metric("curia.waiters") == 1.0, || {
            "nobody waits".into()
        })
    });
    for salt in 0..20 {
        one.put("/v1/kv/other", &salt.to_string());
    }
    assert_eq!(one.group[0].metric("curia.waiters_woken"), 0.0);
    one.put("/v1/kv/empty/now", "here");
    let answer = waiting.join().unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.header("x-consul-index").parse::<u64>().unwrap() > index);
}

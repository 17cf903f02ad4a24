//! `/v1/txn` over HTTP: which requests become which transactions, and what the answers look like.

mod http_support;

use bytes::Bytes;
use engine::server::http::TXN_BODY_BYTES_MAX;
use http_support::{Server, fake::failure};
use serde_json::json;
use wire::{FailureKind, Index, KvRow, QueryBody, ReadMode, TxnError, TxnResult, limits};

fn row(key: &'static str, value: &'static str) -> KvRow {
    KvRow {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        flags: 7,
        create_index: Index(3),
        modify_index: Index(9),
        lock_index: 0,
        session: Bytes::new(),
    }
}

#[test]
fn every_verb_reaches_the_cluster_as_it_was_asked() {
    let server = Server::start();
    let ops = [
        ("set", "Kv(Set)"),
        ("cas", "Kv(Cas)"),
        ("lock", "Kv(Lock)"),
        ("unlock", "Kv(Unlock)"),
        ("get", "Get"),
        ("get-or-empty", "GetOrEmpty"),
        ("get-tree", "GetTree"),
        ("check-index", "CheckIndex"),
        ("check-session", "CheckSession"),
        ("check-not-exists", "CheckNotExists"),
        ("delete", "Kv(Delete)"),
        ("delete-tree", "Kv(DeleteTree)"),
        ("delete-cas", "Kv(DeleteCas)"),
    ];
    let body: Vec<_> = ops
        .iter()
        .map(|(verb, _)| {
            json!({"KV": {"Verb": verb, "Key": "k", "Value": "djE=", "Flags": 4, "Index": 5, "Session": "s"}})
        })
        .collect();
    server.state().txn.rows = vec![row("k", "")];
    let answer = server.put("/v1/txn", json!(body).to_string());
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.text(),
        r#"{"Results":[{"KV":{"LockIndex":0,"Key":"k","Flags":7,"Value":null,"CreateIndex":3,"ModifyIndex":9}}],"Errors":null}"#
    );
    let wanted: Vec<_> = ops
        .iter()
        .map(|(_, verb)| format!("{verb} k=v1 flags 4 index 5 session s"))
        .collect();
    assert_eq!(server.state().txns, wanted);
}

/// Go's JSON takes the names of fields in any case, and clients rely on it: py-consul spells its
/// bodies in lower case. Here an operation spelt so was answered `unknown field "verb"`.
#[test]
fn fields_in_lower_case_are_the_same_fields() {
    let server = Server::start();
    let op = json!({"kv": {"verb": "set", "key": "k", "value": "djE=", "flags": 4, "index": 5, "session": "s"}});
    let answer = server.put("/v1/txn", json!([op]).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        server.state().txns,
        ["Kv(Set) k=v1 flags 4 index 5 session s"]
    );
}

#[test]
fn failures_are_a_conflict_that_names_each() {
    let server = Server::start();
    server.state().txn = TxnResult {
        rows: Vec::new(),
        errors: vec![TxnError {
            op: 1,
            what: "key \"k\" doesn't exist".into(),
        }],
    };
    let body = r#"[{"KV":{"Verb":"set","Key":"a"}},{"KV":{"Verb":"get","Key":"k"}}]"#;
    let answer = server.put("/v1/txn", body);
    assert_eq!(answer.status, 409);
    assert_eq!(
        answer.text(),
        r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"key \"k\" doesn't exist"}]}"#
    );
    // What is wrong whatever the state does not even enter the log.
    let body = r#"[{"KV":{"Verb":"sett","Key":"a"}},{"KV":{"Verb":"set"}}]"#;
    let answer = server.put("/v1/txn", body);
    assert_eq!(answer.status, 409);
    assert_eq!(
        answer.text(),
        r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"unknown KV operation: sett"},{"OpIndex":1,"What":"Must provide key"}]}"#
    );
    assert_eq!(server.state().txns.len(), 2, "of the first request");
}

#[test]
fn one_that_only_reads_stays_out_of_the_log_and_says_how_fresh_it_is() {
    let server = Server::start();
    server.state().txn.rows = vec![row("k", "v")];
    server.state().last_contact_ms = 12;
    let body = r#"[{"KV":{"Verb":"get","Key":"k"}}]"#;
    for (query, mode, level, contact) in [
        ("", ReadMode::Default, "leader", 0),
        ("?consistent", ReadMode::Consistent, "consistent", 0),
        ("?stale", ReadMode::Stale, "stale", 12_000_000),
    ] {
        let answer = server.put(&format!("/v1/txn{query}"), body);
        assert_eq!(answer.status, 200);
        let document = answer.json();
        assert_eq!(document["Results"][0]["KV"]["Value"], "dg==");
        assert_eq!(document["ConsistencyLevel"], level);
        assert_eq!(document["LastContact"], contact);
        assert_eq!(document["KnownLeader"], true);
        assert_eq!(answer.header("X-Consul-Knownleader"), Some("true"));
        let state = server.state();
        let (asked, read) = state.reads.last().unwrap();
        assert!(*asked == mode && matches!(read, QueryBody::Txn(_)));
    }
    assert!(server.state().txns.is_empty());
    server.state().txn = TxnResult::default();
    assert_eq!(server.put("/v1/txn", "[]").json()["Results"], json!([]));
}

#[test]
fn bad_requests_change_nothing_and_say_why() {
    let server = Server::start();
    let op = json!({"KV": {"Verb": "get", "Key": "k"}});
    let too_many = json!(vec![op; limits::TXN_OPS_MAX + 1]).to_string();
    let huge = vec![b' '; TXN_BODY_BYTES_MAX + 1];
    for (body, status, text) in [
        (
            r#"[{"Session":{}}]"#.as_bytes(),
            400,
            r#"Failed to parse body: json: unknown field "Session""#,
        ),
        (b"{", 400, "Failed to parse body: "),
        (
            b"[{}]",
            400,
            "Failed to parse body: an operation is one of KV, Node, Service and Check",
        ),
        (
            br#"[{"KV":{"Verb":"set","Key":"k","Value":"???"}}]"#,
            400,
            "Failed to parse body: value of key \"k\": ",
        ),
        (
            too_many.as_bytes(),
            413,
            "Transaction contains too many operations (129 > 128)",
        ),
        (&huge, 413, "Request body(524289 bytes) too large"),
    ] {
        let answer = server.put("/v1/txn", body);
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().starts_with(text), "{}", answer.text());
    }
    assert!(server.state().txns.is_empty() && server.state().reads.is_empty());
    let answer = server.get("/v1/txn");
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("Allow"), Some("OPTIONS,PUT"));
    server.state().failure = Some(failure(FailureKind::NoLeader, ""));
    let answer = server.put("/v1/txn", r#"[{"KV":{"Verb":"set","Key":"k"}}]"#);
    assert_eq!((answer.status, answer.text()), (500, "No cluster leader"));
}

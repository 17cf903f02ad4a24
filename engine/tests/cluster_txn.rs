//! Transactions on real servers: through whichever of them, before and after a change of leader.

mod cluster;

use cluster::{check, group::Group, wait_for};
use serde_json::{Value, json};

fn txn(group: &Group, at: usize, ops: &Value) -> (u16, Value) {
    let body = ops.to_string();
    wait_for("a transaction is answered", || {
        let answer = group[at]
            .http()
            .put("/v1/txn", body.as_bytes())
            .map_err(|why| format!("{why:?}"))?;
        check(answer.status != 500, || answer.text())?;
        Ok((answer.status, answer.json()))
    })
}

#[test]
fn a_transaction_takes_effect_as_a_whole_or_not_at_all_through_any_server() {
    let mut group = Group::formed(3, &[]);
    group.wait_for_leader();
    for at in 0..3 {
        let (a, b) = (format!("t{at}/a"), format!("t{at}/b"));
        let set = json!([
            {"KV": {"Verb": "check-not-exists", "Key": a}},
            {"KV": {"Verb": "set", "Key": a, "Value": "MQ=="}},
            {"KV": {"Verb": "set", "Key": b, "Value": "Mg=="}},
            {"KV": {"Verb": "get", "Key": a}},
        ]);
        let (status, result) = txn(&group, at, &set);
        assert_eq!(status, 200, "{result}");
        let rows = result["Results"].as_array().unwrap();
        assert_eq!(rows.len(), 3);
        let index = rows[0]["KV"]["ModifyIndex"].as_u64().unwrap();
        assert!(rows.iter().all(|row| row["KV"]["ModifyIndex"] == index));
        assert_eq!(
            (&rows[1]["KV"]["Value"], &rows[2]["KV"]["Value"]),
            (&Value::Null, &json!("MQ=="))
        );
        // The second attempt fails on its first operation, and leaves the rest as it was.
        let again = json!([
            {"KV": {"Verb": "check-not-exists", "Key": a}},
            {"KV": {"Verb": "delete", "Key": b}},
            {"KV": {"Verb": "cas", "Key": b, "Index": 1, "Value": ""}},
        ]);
        let (status, result) = txn(&group, at, &again);
        assert_eq!(status, 409);
        assert_eq!(
            result["Errors"],
            json!([
                {"OpIndex": 0, "What": format!("key {a:?} exists")},
                {"OpIndex": 2, "What": format!("failed to set key {b:?}, index is stale")},
            ])
        );
        let read = json!([{"KV": {"Verb": "get-tree", "Key": format!("t{at}/")}}]);
        let (status, result) = txn(&group, at, &read);
        assert_eq!(status, 200);
        assert_eq!(result["Results"].as_array().unwrap().len(), 2);
        assert_eq!(result["KnownLeader"], true);
    }
    let leader = group.wait_for_leader();
    group[leader].kill();
    let other = (leader + 1) % 3;
    group.wait_for_leader();
    let (status, _) = txn(
        &group,
        other,
        &json!([{"KV": {"Verb": "set", "Key": "after", "Value": ""}}]),
    );
    assert_eq!(status, 200);
    group.start_all();
    let keys: Vec<_> = group
        .wait_for_equal_states()
        .into_iter()
        .map(|row| row.key)
        .collect();
    assert_eq!(
        keys,
        ["after", "t0/a", "t0/b", "t1/a", "t1/b", "t2/a", "t2/b"]
    );
}

#[test]
fn one_that_spans_shards_is_refused_by_name() {
    let group = Group::formed(1, &["-shards=2", "-executors=2"]);
    let set = |key: String| json!({"KV": {"Verb": "set", "Key": key, "Value": ""}});
    // Of so many first segments some lie in the one shard and some in the other.
    let spread: Vec<_> = (0..32).map(|at| set(format!("{at}/k"))).collect();
    let together: Vec<_> = (0..32).map(|at| set(format!("same/{at}"))).collect();
    let (status, result) = txn(&group, 0, &json!(together));
    assert_eq!(status, 200, "{result}");
    for ops in [
        json!(spread),
        json!([{"KV": {"Verb": "get-tree", "Key": "sam"}}]),
    ] {
        let answer = group[0]
            .http()
            .put("/v1/txn", ops.to_string().as_bytes())
            .unwrap();
        assert!(
            answer.text().contains("more than one shard"),
            "{} {}",
            answer.status,
            answer.text()
        );
    }
    let read = group[0].http().get("/v1/kv/0/k").unwrap();
    assert_eq!(read.status, 404, "nothing of it was written");
}

/// Operations on nodes, services and checks beside keys: as a whole or not at all, by any server.
#[test]
fn the_catalog_and_keys_change_together() {
    let group = Group::formed(3, &[]);
    group.wait_for_leader();
    for at in 0..3 {
        let node = format!("node-{at}");
        let set = json!([
            {"Node": {"Verb": "set", "Node": {"Node": node, "Address": "10.0.0.1"}}},
            {"Service": {"Verb": "set", "Node": node, "Service": {"ID": "web", "Service": "web"}}},
            {"Check": {"Verb": "set", "Check": {"Node": node, "CheckID": "c", "Name": "c", "Status": "passing"}}},
            {"KV": {"Verb": "set", "Key": node, "Value": "MQ=="}},
        ]);
        let (status, result) = txn(&group, at, &set);
        assert_eq!(status, 200, "{result}");
        assert_eq!(result["Errors"], Value::Null);
        let rows = result["Results"].as_array().unwrap();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0]["Node"]["Node"], json!(node));
        assert_eq!(rows[1]["Service"]["ID"], json!("web"));
        assert_eq!(rows[2]["Check"]["Status"], json!("passing"));
        assert_eq!(rows[3]["KV"]["Key"], json!(node));
        let failing = json!([
            {"KV": {"Verb": "delete", "Key": node}},
            {"Node": {"Verb": "cas", "Node": {"Node": node, "Address": "10.0.0.2", "ModifyIndex": 1}}},
            {"Service": {"Verb": "get", "Node": node, "Service": {"ID": "gone"}}},
        ]);
        let (status, result) = txn(&group, at, &failing);
        assert_eq!((status, &result["Results"]), (409, &Value::Null));
        assert_eq!(
            result["Errors"],
            json!([
                {"OpIndex": 1, "What": format!("failed to set node {node:?}, index is stale")},
                {"OpIndex": 2, "What": format!("service \"gone\" on node {node:?} doesn't exist")},
            ])
        );
        let read = json!([
            {"KV": {"Verb": "get", "Key": node}},
            {"Service": {"Verb": "get", "Node": node, "Service": {"ID": "web"}}},
        ]);
        let (status, result) = txn(&group, at, &read);
        assert_eq!(status, 200, "{result}");
        assert_eq!(result["Results"].as_array().unwrap().len(), 2);
        assert_eq!(result["ConsistencyLevel"], "leader");
    }
}

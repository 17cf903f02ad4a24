//! What does `/v1/txn` answer for a transaction on records and keys?
//!
//! Consul's whole body: the rows in the order of the operations, each under the name of its kind, or
//! every failure and no rows.

use base64::Engine;
use serde_json::{Map, Value, json};

use super::{
    catalog::{ShownCheck, ShownNode, ShownService},
    json,
};
use crate::{
    fsm::{TxnOutcome, TxnRow},
    state::KvRow,
};

/// The body.
pub fn result(outcome: &TxnOutcome) -> Vec<u8> {
    let errors: Vec<_> = outcome
        .errors
        .iter()
        .map(|error| json!({"OpIndex": error.op, "What": error.what}))
        .collect();
    if !errors.is_empty() {
        return json(&json!({"Results": null, "Errors": errors}));
    }
    let rows: Vec<_> = outcome.rows().iter().map(row).collect();
    json(&json!({"Results": rows, "Errors": null}))
}

fn row(row: &TxnRow) -> Value {
    match row {
        TxnRow::Kv { row, with_value } => json!({"KV": key(row, *with_value)}),
        TxnRow::Node(node) => json!({"Node": ShownNode::new(node)}),
        TxnRow::Service(service) => json!({"Service": ShownService::new(service)}),
        TxnRow::Check(check) => json!({"Check": ShownCheck::new(check)}),
    }
}

fn key(row: &KvRow, with_value: bool) -> Map<String, Value> {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes));
    let value = match with_value && !row.value().is_empty() {
        true => base64::engine::general_purpose::STANDARD
            .encode(row.value())
            .into(),
        false => Value::Null,
    };
    let mut shown = Map::new();
    shown.insert("LockIndex".into(), row.lock_index().into());
    shown.insert("Key".into(), text(row.key()));
    shown.insert("Flags".into(), row.flags().into());
    shown.insert("Value".into(), value);
    if !row.session().is_empty() {
        shown.insert("Session".into(), text(row.session()));
    }
    shown.insert("CreateIndex".into(), row.create_index().0.into());
    shown.insert("ModifyIndex".into(), row.modify_index().0.into());
    shown
}

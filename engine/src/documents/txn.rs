//! What does `/v1/txn` answer for a transaction on records and keys?
//!
//! Consul's whole body: the rows in the order of the operations, each under the name of its kind, or
//! every failure and no rows.

use base64::Engine;
use serde::Serialize;

use super::{
    catalog::{ShownCheck, ShownNode, ShownService},
    json,
};
use crate::{
    fsm::{TxnOutcome, TxnRow},
    state::KvRow,
};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'s> {
    results: Option<Vec<ShownRow<'s>>>,
    errors: Option<Vec<ShownError<'s>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownError<'s> {
    op_index: u32,
    what: &'s str,
}

#[derive(Serialize)]
enum ShownRow<'s> {
    #[serde(rename = "KV")]
    Kv(ShownKey<'s>),
    Node(ShownNode<'s>),
    Service(ShownService<'s>),
    Check(ShownCheck<'s>),
}

/// A key as `GET /v1/kv` shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownKey<'s> {
    lock_index: u64,
    key: std::borrow::Cow<'s, str>,
    flags: u64,
    value: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    session: std::borrow::Cow<'s, str>,
    create_index: u64,
    modify_index: u64,
}

/// The body.
pub fn result(outcome: &TxnOutcome) -> Vec<u8> {
    let errors: Vec<_> = outcome
        .errors
        .iter()
        .map(|error| ShownError {
            op_index: error.op,
            what: &error.what,
        })
        .collect();
    let failed = !errors.is_empty();
    json(&Shown {
        results: (!failed).then(|| outcome.rows().iter().map(row).collect()),
        errors: failed.then_some(errors),
    })
}

/// Whether a body is of a transaction that failed.
pub fn is_failure(body: &[u8]) -> bool {
    body.starts_with(br#"{"Results":null"#)
}

fn row(row: &TxnRow) -> ShownRow<'_> {
    match row {
        TxnRow::Kv { row, with_value } => ShownRow::Kv(key(row, *with_value)),
        TxnRow::Node(node) => ShownRow::Node(ShownNode::new(node)),
        TxnRow::Service(service) => ShownRow::Service(ShownService::new(service)),
        TxnRow::Check(check) => ShownRow::Check(ShownCheck::new(check)),
    }
}

fn key(row: &KvRow, with_value: bool) -> ShownKey<'_> {
    let shown = with_value && !row.value().is_empty();
    ShownKey {
        lock_index: row.lock_index(),
        key: String::from_utf8_lossy(row.key()),
        flags: row.flags(),
        value: shown.then(|| base64::engine::general_purpose::STANDARD.encode(row.value())),
        session: String::from_utf8_lossy(row.session()),
        create_index: row.create_index().0,
        modify_index: row.modify_index().0,
    }
}

#[cfg(test)]
mod tests {
    use wire::TxnError;

    use super::*;

    /// The fields came in the order of the alphabet once, and a failure was answered as a success:
    /// its body did not begin as one.
    #[test]
    fn a_failure_is_known_by_its_body() {
        let mut outcome = TxnOutcome::default();
        assert_eq!(result(&outcome), br#"{"Results":[],"Errors":null}"#);
        assert!(!is_failure(&result(&outcome)));
        let what = "key \"a\" doesn't exist".to_owned();
        outcome.errors.push(TxnError { op: 1, what });
        let failed = result(&outcome);
        let text = r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"key \"a\" doesn't exist"}]}"#;
        assert_eq!(failed, text.as_bytes());
        assert!(is_failure(&failed));
    }
}

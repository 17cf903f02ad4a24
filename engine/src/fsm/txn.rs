//! What does a transaction do to the state, and what does it answer?
//!
//! Its operations see each other's effects, in order, at one index. When any of them fails all are
//! undone, and every one that failed is named, as Consul does (`/v1/txn`): the later ones are
//! tried on the state that the earlier ones would have left. Operations that only read are
//! answered by the same code from the state as it is ([`read_only`]).

use bytes::Bytes;
use wire::{Index, KvRowRef, KvVerb, TxnError, TxnOp, TxnOps, TxnResult, TxnVerb, limits};

use super::{Outcome, kv, sessions};
use crate::state::{
    KvRow, RecordRow, Tables, Txn,
    records::{Check, Node, Service},
    schema::Kvs,
};

/// What a transaction came to. With errors nothing was changed and there are no rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnOutcome {
    rows: Vec<Row>,
    rows_bytes: usize,
    /// Whether it is answered as a JSON document.
    as_json: bool,
    /// Every operation that failed.
    pub errors: Vec<TxnError>,
}

/// How many times longer than its bytes a text can be in JSON: `\u0000`.
const JSON_LONGER_MAX: usize = 6;

/// A row of the answer.
#[derive(Clone, Debug)]
pub enum Row {
    /// A key.
    Kv {
        /// The row.
        row: KvRow,
        /// Rows that were written are answered without their values.
        with_value: bool,
    },
    /// A node.
    Node(RecordRow<Node>),
    /// A service.
    Service(RecordRow<Service>),
    /// A check.
    Check(RecordRow<Check>),
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Kv { row, with_value },
                Self::Kv {
                    row: r,
                    with_value: w,
                },
            ) => row == r && with_value == w,
            (Self::Node(ours), Self::Node(theirs)) => ours.bytes() == theirs.bytes(),
            (Self::Service(ours), Self::Service(theirs)) => ours.bytes() == theirs.bytes(),
            (Self::Check(ours), Self::Check(theirs)) => ours.bytes() == theirs.bytes(),
            _ => false,
        }
    }
}

impl Eq for Row {}

impl Row {
    /// At least what it takes in a reply, bytes.
    fn wire_bytes(&self) -> usize {
        match self {
            Self::Kv { row, with_value } => {
                let value_bytes = if *with_value { 0 } else { row.value().len() };
                row.as_ref().wire_bytes() - value_bytes
            }
            Self::Node(row) => row.bytes().len(),
            Self::Service(row) => row.bytes().len(),
            Self::Check(row) => row.bytes().len(),
        }
    }
}

impl TxnOutcome {
    /// The rows read and written, in the order of the operations.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// As it travels, if it is about keys only.
    pub fn to_wire(&self) -> TxnResult {
        let rows = self.rows.iter().map(|row| {
            let Row::Kv { row, with_value } = row else {
                unreachable!("a transaction on keys answers with keys");
            };
            let row = row.as_ref();
            let value = if *with_value { row.value } else { b"" };
            wire::KvRow {
                key: Bytes::copy_from_slice(row.key),
                value: Bytes::copy_from_slice(value),
                flags: row.flags,
                create_index: row.create_index,
                modify_index: row.modify_index,
                lock_index: row.lock_index,
                session: Bytes::copy_from_slice(row.session),
            }
        });
        TxnResult {
            rows: rows.collect(),
            errors: self.errors.clone(),
        }
    }

    fn push_kv(&mut self, row: &KvRow, with_value: bool) -> Result<(), String> {
        let row = row.clone();
        self.push(Row::Kv { row, with_value })
    }

    /// One that will be answered as a JSON document, in a single frame too.
    pub(super) fn as_json() -> Self {
        Self {
            as_json: true,
            ..Self::default()
        }
    }

    /// Adds a row to the answer; `Err` when it becomes too long.
    pub(super) fn push(&mut self, row: Row) -> Result<(), String> {
        let longer = if self.as_json { JSON_LONGER_MAX } else { 1 };
        self.rows_bytes += row.wire_bytes() * longer;
        if self.rows_bytes > limits::TXN_ROWS_BYTES_MAX {
            return Err(format!(
                "the transaction's rows are over the limit of {} bytes; list a prefix with ?recurse instead",
                limits::TXN_ROWS_BYTES_MAX
            ));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn note(&mut self, op: usize, done: Result<(), String>) {
        if let Err(what) = done {
            let op = op as u32;
            self.errors.push(TxnError { op, what });
        }
    }

    pub(super) fn finish(mut self) -> Self {
        if !self.errors.is_empty() {
            self.rows.clear();
        }
        self
    }
}

/// Carries out a transaction at `index`, or nothing of it. `scratch` is kept by the caller.
pub(super) fn apply(
    txn: &mut Txn<'_>,
    index: Index,
    ops: &TxnOps<'_>,
    scratch: &mut Vec<u8>,
) -> TxnOutcome {
    let before = txn.savepoint();
    let mut outcome = TxnOutcome::default();
    for (at, op) in ops.iter().enumerate() {
        let done = carry_out(txn, index, &op, scratch, &mut outcome);
        outcome.note(at, done);
    }
    if !outcome.errors.is_empty() && !mutant!(TxnNotUndone) {
        txn.rollback_to(before);
    }
    outcome.finish()
}

/// Carries out one operation on a key.
pub(super) fn carry_out(
    txn: &mut Txn<'_>,
    index: Index,
    op: &TxnOp<'_>,
    scratch: &mut Vec<u8>,
    outcome: &mut TxnOutcome,
) -> Result<(), String> {
    match op.verb {
        TxnVerb::Kv(verb) => write(txn, index, verb, op, scratch, outcome),
        _ => read(txn.tables(), op, outcome),
    }
}

/// Answers a transaction that changes nothing from the state as it is.
pub fn read_only(tables: &Tables, ops: &TxnOps<'_>) -> TxnOutcome {
    let mut outcome = TxnOutcome::default();
    for (at, op) in ops.iter().enumerate() {
        let done = read(tables, &op, &mut outcome);
        outcome.note(at, done);
    }
    outcome.finish()
}

fn write(
    txn: &mut Txn<'_>,
    index: Index,
    verb: KvVerb,
    op: &TxnOp<'_>,
    scratch: &mut Vec<u8>,
    outcome: &mut TxnOutcome,
) -> Result<(), String> {
    let command = wire::KvCommand {
        verb,
        key: op.key,
        value: op.value,
        flags: op.flags,
        index: op.index,
        session: op.session,
    };
    let key = quoted(op.key);
    match kv::apply(txn, index, &command, scratch) {
        Outcome::Done { ok: true } => {}
        Outcome::Refused(why) => return Err(why),
        _ => {
            return Err(match verb {
                KvVerb::DeleteCas => format!("failed to delete key {key}, index is stale"),
                KvVerb::Lock if sessions::is_delayed(txn.tables(), op.key) => {
                    format!("failed to lock key {key} due to lock delay")
                }
                KvVerb::Lock => format!("failed to lock key {key}, lock is already held"),
                KvVerb::Unlock => format!(
                    "failed to unlock key {key}, lock isn't held, or is held by another session"
                ),
                _ => format!("failed to set key {key}, index is stale"),
            });
        }
    }
    match txn.get::<Kvs>(op.key) {
        Some(row) if !matches!(verb, KvVerb::DeleteTree) => outcome.push_kv(row, false),
        _ => Ok(()),
    }
}

pub(super) fn read(
    tables: &Tables,
    op: &TxnOp<'_>,
    outcome: &mut TxnOutcome,
) -> Result<(), String> {
    let key = quoted(op.key);
    let row = tables.kvs.get(op.key);
    match (op.verb, row) {
        (TxnVerb::GetTree, _) => {
            let mut cursor = tables.kvs.view().prefix(op.key);
            let mut done = Ok(());
            while done.is_ok()
                && cursor.scan(|row| {
                    done = outcome.push_kv(row, true);
                    done.is_ok()
                })
            {}
            done
        }
        (TxnVerb::Get | TxnVerb::GetOrEmpty, Some(row)) => outcome.push_kv(row, true),
        (TxnVerb::Get, None) => Err(format!("key {key} doesn't exist")),
        (TxnVerb::GetOrEmpty, None) => {
            let empty = KvRowRef {
                key: op.key,
                value: b"",
                flags: 0,
                create_index: Index(0),
                modify_index: Index(0),
                lock_index: 0,
                session: b"",
            };
            outcome.push_kv(&KvRow::new(empty, &mut Vec::new()), true)
        }
        (TxnVerb::CheckIndex, None) => {
            Err(format!("failed to check index, key {key} doesn't exist"))
        }
        (TxnVerb::CheckIndex, Some(row)) => match row.modify_index() {
            Index(current) if current == op.index => outcome.push_kv(row, false),
            current => Err(format!(
                "failed index check for key {key}, current modify index {current} != {}",
                op.index
            )),
        },
        (TxnVerb::CheckSession, None) => {
            Err(format!("failed to check session, key {key} doesn't exist"))
        }
        (TxnVerb::CheckSession, Some(row)) if row.session() == op.session => {
            outcome.push_kv(row, false)
        }
        (TxnVerb::CheckSession, Some(row)) => Err(format!(
            "failed session check for key {key}, current session \"{}\" != \"{}\"",
            kv::session_text(row.session()),
            kv::session_text(op.session)
        )),
        (TxnVerb::CheckNotExists, Some(_)) => Err(format!("key {key} exists")),
        (TxnVerb::CheckNotExists, None) => Ok(()),
        (TxnVerb::Kv(_), _) => unreachable!("a transaction that only reads was checked to do so"),
    }
}

/// A key as Consul's errors name it.
fn quoted(key: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(key))
}

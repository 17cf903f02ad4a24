//! What does a transaction do that is about nodes, services or checks as well as keys?
//!
//! The same as one about keys alone ([`super::txn`]): its operations see each other's effects, in
//! order, at one index, and with a failure all are undone and every failure is named. It is a
//! command of its own, since its operations are records; its KV operations are carried out by the
//! same code.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use wire::{Index, TxnOp, TxnVerb, limits};

use super::{
    catalog::{self, CatalogVerb},
    txn::{self, Row, TxnOutcome},
};
use crate::state::{
    Tables, Txn,
    records::{Check, Node, Service},
};

/// A transaction. Consul: `structs.TxnRequest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct MixedTxn {
    /// The operations, at most [`limits::TXN_OPS_MAX`].
    #[serde(deserialize_with = "at_most")]
    pub ops: Vec<MixedOp>,
}

fn at_most<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MixedOp>, D::Error> {
    let ops = Vec::<MixedOp>::deserialize(deserializer)?;
    match ops.len() {
        0..=limits::TXN_OPS_MAX => Ok(ops),
        more => Err(D::Error::custom(format!(
            "{more} operations are over the limit of {}",
            limits::TXN_OPS_MAX
        ))),
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MixedOp {
    /// On a key.
    #[serde(rename = "KV")]
    Kv(KvOp),
    /// On a node.
    Node {
        /// What to do.
        verb: CatalogVerb,
        /// The node; its modify index is what a cas expects.
        node: Box<Node>,
    },
    /// On a service.
    Service {
        /// What to do.
        verb: CatalogVerb,
        /// The service, with its node; its modify index is what a cas expects.
        service: Box<Service>,
    },
    /// On a check.
    Check {
        /// What to do.
        verb: CatalogVerb,
        /// The check, with its node; its modify index is what a cas expects.
        check: Box<Check>,
    },
}

/// An operation on a key; see [`TxnOp`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct KvOp {
    /// What to do.
    #[serde(serialize_with = "verb_number", deserialize_with = "verb_of_number")]
    pub verb: TxnVerb,
    /// The key, or the prefix.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// The value that is written.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
    /// The client's number.
    pub flags: u64,
    /// The expected modify index of a cas or a check.
    pub index: u64,
    /// Session of a lock, an unlock or a check.
    #[serde(with = "serde_bytes")]
    pub session: Vec<u8>,
}

fn verb_number<S: Serializer>(verb: &TxnVerb, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(verb.number())
}

fn verb_of_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TxnVerb, D::Error> {
    let number = u8::deserialize(deserializer)?;
    TxnVerb::from_number(number).ok_or_else(|| D::Error::custom(format!("unknown verb {number}")))
}

impl KvOp {
    fn op(&self) -> TxnOp<'_> {
        TxnOp {
            verb: self.verb,
            key: &self.key,
            value: &self.value,
            flags: self.flags,
            index: self.index,
            session: &self.session,
        }
    }

    /// What is wrong with it whatever the state; a KV command on its own is checked when it is
    /// decoded.
    fn check(&self) -> Result<(), String> {
        let over = |what: &str, length: usize, most: usize| match length > most {
            true => Err(format!(
                "{what} of {length} bytes is over the limit of {most}"
            )),
            false => Ok(()),
        };
        over("key", self.key.len(), limits::KEY_BYTES_MAX)?;
        over("session", self.session.len(), limits::SESSION_BYTES_MAX)
    }
}

impl MixedOp {
    /// Whether it changes nothing.
    pub fn reads(&self) -> bool {
        match self {
            Self::Kv(op) => op.verb.reads(),
            Self::Node { verb, .. } | Self::Service { verb, .. } | Self::Check { verb, .. } => {
                *verb == CatalogVerb::Get
            }
        }
    }
}

impl MixedTxn {
    /// Whether it changes nothing.
    pub fn reads_only(&self) -> bool {
        self.ops.iter().all(MixedOp::reads)
    }
}

/// Carries out a transaction at `index`, or nothing of it.
pub(super) fn apply(txn: &mut Txn<'_>, index: Index, ops: &MixedTxn) -> TxnOutcome {
    let before = txn.savepoint();
    let mut outcome = TxnOutcome::as_json();
    let mut scratch = Vec::new();
    for (at, op) in ops.ops.iter().enumerate() {
        // Part of what one operation did may be there although it failed; the next ones are tried
        // without it.
        let ours = txn.savepoint();
        let done = carry_out(txn, index, op, &mut scratch, &mut outcome);
        if done.is_err() {
            txn.rollback_to(ours);
        }
        outcome.note(at, done);
    }
    if !outcome.errors.is_empty() {
        txn.rollback_to(before);
    }
    outcome.finish()
}

/// Answers a transaction that changes nothing from the state as it is.
pub fn read_only(tables: &Tables, ops: &MixedTxn) -> TxnOutcome {
    let mut outcome = TxnOutcome::as_json();
    for (at, op) in ops.ops.iter().enumerate() {
        let done = match op {
            MixedOp::Kv(op) => op
                .check()
                .and_then(|()| txn::read(tables, &op.op(), &mut outcome)),
            MixedOp::Node { node, .. } => {
                catalog::find_node(tables, node).and_then(|row| outcome.push(Row::Node(row)))
            }
            MixedOp::Service { service, .. } => catalog::find_service(tables, service)
                .and_then(|row| outcome.push(Row::Service(row))),
            MixedOp::Check { check, .. } => {
                catalog::find_check(tables, check).and_then(|row| outcome.push(Row::Check(row)))
            }
        };
        outcome.note(at, done);
    }
    outcome.finish()
}

fn carry_out(
    txn: &mut Txn<'_>,
    index: Index,
    op: &MixedOp,
    scratch: &mut Vec<u8>,
    outcome: &mut TxnOutcome,
) -> Result<(), String> {
    let row = match op {
        MixedOp::Kv(op) => {
            op.check()?;
            return txn::carry_out(txn, index, &op.op(), scratch, outcome);
        }
        MixedOp::Node { verb, node } => catalog::node_op(txn, index, *verb, node)?.map(Row::Node),
        MixedOp::Service { verb, service } => {
            catalog::service_op(txn, index, *verb, service)?.map(Row::Service)
        }
        MixedOp::Check { verb, check } => {
            catalog::check_op(txn, index, *verb, check)?.map(Row::Check)
        }
    };
    row.map_or(Ok(()), |row| outcome.push(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fsm::{Fsm, Outcome, records::RecordOp},
        state::records::Weights,
    };
    use wire::{KvVerb, Term};

    fn run(fsm: &mut Fsm, ops: Vec<MixedOp>) -> TxnOutcome {
        let index = Index(fsm.applied().0.0 + 1);
        let bytes = RecordOp::Txn(MixedTxn { ops }).encode();
        let mut outcomes = Vec::new();
        fsm.apply_run(&[(index, Term(1), bytes)], &mut outcomes)
            .expect("a known command");
        match outcomes.remove(0) {
            Outcome::Mixed(outcome) => *outcome,
            other => panic!("no transaction: {other:?}"),
        }
    }

    fn node(verb: CatalogVerb, name: &str, modify_index: u64) -> MixedOp {
        let node = Box::new(Node {
            node: name.into(),
            address: "10.0.0.1".into(),
            modify_index,
            ..Node::default()
        });
        MixedOp::Node { verb, node }
    }

    fn service(verb: CatalogVerb, on: &str, id: &str) -> MixedOp {
        let service = Box::new(Service {
            node: on.into(),
            id: id.into(),
            service: id.into(),
            weights: Weights::default(),
            ..Service::default()
        });
        MixedOp::Service { verb, service }
    }

    fn set(key: &str) -> MixedOp {
        MixedOp::Kv(KvOp {
            verb: TxnVerb::Kv(KvVerb::Set),
            key: key.into(),
            value: b"v".to_vec(),
            flags: 0,
            index: 0,
            session: Vec::new(),
        })
    }

    #[test]
    fn keys_and_the_catalog_change_together_or_not_at_all() {
        let mut fsm = Fsm::new();
        let done = run(
            &mut fsm,
            vec![
                node(CatalogVerb::Set, "n", 0),
                service(CatalogVerb::Set, "n", "web"),
                set("k"),
            ],
        );
        assert_eq!((done.errors.len(), done.rows().len()), (0, 3));
        let digest = fsm.digest();
        let failed = run(
            &mut fsm,
            vec![
                set("other"),
                node(CatalogVerb::Cas, "n", 9),
                service(CatalogVerb::Set, "missing", "web"),
                service(CatalogVerb::Delete, "n", "web"),
                service(CatalogVerb::Get, "n", "web"),
            ],
        );
        let errors: Vec<_> = failed.errors.iter().map(|e| (e.op, &*e.what)).collect();
        assert_eq!(
            errors,
            [
                (1, "failed to set node \"n\", index is stale"),
                (2, "Missing node registration"),
                (4, "service \"web\" on node \"n\" doesn't exist"),
            ]
        );
        assert!(failed.rows().is_empty());
        assert_eq!(fsm.digest(), digest, "nothing changed");
        // What only reads is answered alike with and without the log.
        let reads = vec![
            node(CatalogVerb::Get, "n", 0),
            service(CatalogVerb::Get, "n", "web"),
            service(CatalogVerb::Get, "n", "gone"),
        ];
        let ops = MixedTxn { ops: reads.clone() };
        assert!(ops.reads_only());
        let read = read_only(fsm.store().tables(), &ops);
        assert_eq!(read.errors, run(&mut fsm, reads).errors);
        assert_eq!(
            read.errors[0].what,
            "service \"gone\" on node \"n\" doesn't exist"
        );
    }

    /// The answer travels in one frame, and control characters take six times their room in JSON.
    #[test]
    fn an_answer_that_a_frame_might_not_hold_is_an_error() {
        let mut fsm = Fsm::new();
        let key = "\u{1}".repeat(limits::KEY_BYTES_MAX - 4);
        let sets: Vec<_> = (0..100).map(|n| set(&format!("{key}{n:04}"))).collect();
        for some in sets.chunks(20) {
            assert_eq!(run(&mut fsm, some.to_vec()).errors, []);
        }
        let tree = MixedOp::Kv(KvOp {
            verb: TxnVerb::GetTree,
            key: b"\x01".to_vec(),
            value: Vec::new(),
            flags: 0,
            index: 0,
            session: Vec::new(),
        });
        let all = run(&mut fsm, vec![tree]);
        assert!(all.errors[0].what.contains("over the limit"), "{all:?}");
        let most = limits::TXN_ROWS_BYTES_MAX + JSON_OF_ERRORS_AND_NAMES;
        assert!(most < limits::FRAME_BYTES_MAX);
    }

    /// Field names, quotes and brackets of 128 rows with empty fields, generously.
    const JSON_OF_ERRORS_AND_NAMES: usize = 1024 * 1024;

    #[test]
    fn more_than_txn_ops_max_and_longer_keys_than_key_bytes_max_are_refused() {
        let read = |count: usize| {
            let ops = vec![node(CatalogVerb::Get, "n", 0); count];
            let bytes = RecordOp::Txn(MixedTxn { ops }).encode();
            crate::fsm::records::check(&bytes)
        };
        assert_eq!(read(limits::TXN_OPS_MAX), Ok(()));
        let error = read(limits::TXN_OPS_MAX + 1).unwrap_err().to_string();
        assert!(
            error.contains("129 operations are over the limit of 128"),
            "{error}"
        );
        let mut fsm = Fsm::new();
        let longest = "k".repeat(limits::KEY_BYTES_MAX);
        assert_eq!(run(&mut fsm, vec![set(&longest)]).errors, []);
        let longer = run(&mut fsm, vec![set(&(longest + "k"))]);
        assert!(longer.errors[0].what.contains("is over the limit"));
    }
}

//! The registry against the plainest of models: every waiter's result, read again after every
//! single command.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use wire::{Command, Index, KvCommand, KvVerb, Query, QueryBody, ReadMode, Term, Wait};

use super::{Waiter, Watches};
use crate::documents::Question;
use crate::{
    fsm::Fsm,
    shard::Ticket,
    state::{KvRow, schema::Change},
};

impl Watches {
    /// Everything that belongs together is there, and nothing else.
    fn check(&self) {
        assert_eq!(self.deadlines.len(), self.waiters.len());
        for (ticket, parked) in &self.waiters {
            assert!(self.deadlines.contains(&(parked.deadline_ns, *ticket)));
        }
        for places in [&self.keys, &self.prefixes] {
            assert_eq!(places.by_key.len(), places.order.len());
            assert_eq!(places.lengths.values().sum::<usize>(), places.by_key.len());
            for (key, place) in &places.by_key {
                assert!(places.order.contains(key) && places.lengths.contains_key(&key.len()));
                assert!(!place.rows.is_empty() || !place.names.is_empty());
                for list in [&place.rows, &place.names] {
                    for (at, ticket) in list.iter().enumerate() {
                        assert_eq!(self.waiters[ticket].at, at);
                    }
                }
            }
        }
    }
}

/// What a query reads, with everything that may tell a change.
fn result(fsm: &Fsm, body: &QueryBody) -> Vec<(Vec<u8>, Vec<u8>, u64)> {
    let row = |row: &KvRow| {
        (
            row.key().to_vec(),
            row.value().to_vec(),
            row.modify_index().0,
        )
    };
    let list = |prefix: &[u8]| {
        let mut rows = Vec::new();
        fsm.store()
            .kv_list(prefix, b"", 0)
            .next_rows(usize::MAX, usize::MAX, &mut rows);
        rows
    };
    match body {
        QueryBody::KvGet { key } => fsm.store().kv_get(key).1.iter().map(row).collect(),
        QueryBody::KvList { prefix, .. } => list(prefix).iter().map(row).collect(),
        QueryBody::KvKeys { prefix, .. } => list(prefix)
            .iter()
            .map(|row| (row.key().to_vec(), Vec::new(), 0))
            .collect(),
        QueryBody::Record(question) => {
            let question = Question::decode(question).expect("a question");
            {
                let document = question.answer(fsm.store().tables());
                vec![(document.expect("a short one"), Vec::new(), 0)]
            }
        }
        QueryBody::Status | QueryBody::Txn(_) | QueryBody::KvWatch { .. } => {
            unreachable!("it is not watched")
        }
    }
}

#[derive(Debug, Default)]
struct Model {
    waiting: BTreeMap<Ticket, Waiter>,
    woken: BTreeMap<Ticket, Waiter>,
}

impl Model {
    fn is_known(&self, ticket: &Ticket) -> bool {
        self.waiting.contains_key(ticket) || self.woken.contains_key(ticket)
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let woken = self.woken.remove(&ticket);
        woken.or_else(|| self.waiting.remove(&ticket))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Park {
        kind: u8,
        key: Vec<u8>,
        stale: bool,
        for_ns: u64,
    },
    /// A run of commands, applied in one transaction.
    Run(Vec<(KvVerb, Vec<u8>, u8)>),
    /// Some of the woken are taken out.
    Drain(usize),
    Pass(u64),
    Cancel(prop::sample::Index),
    Deposed,
    Replaced,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(b'a'), 1 => Just(b'b'), 1 => Just(0xff)];
    prop::collection::vec(byte, 0..5)
}

fn step() -> impl Strategy<Value = Step> {
    use KvVerb::{Cas, Delete, DeleteTree, Set};
    let verb = prop::sample::select(vec![Set, Set, Set, Cas, Delete, Delete, DeleteTree]);
    prop_oneof![
        8 => (0..4u8, key(), any::<bool>(), 0..50u64)
            .prop_map(|(kind, key, stale, for_ns)| Step::Park { kind, key, stale, for_ns }),
        6 => prop::collection::vec((verb, key(), 0..2u8), 1..6).prop_map(Step::Run),
        2 => (0..4usize).prop_map(Step::Drain),
        1 => (0..30u64).prop_map(Step::Pass),
        2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => Just(Step::Deposed),
        1 => Just(Step::Replaced),
    ]
}

fn query(kind: u8, key: Vec<u8>, stale: bool) -> Query {
    let key = Bytes::from(key);
    let body = match kind {
        0 if !key.is_empty() => QueryBody::KvGet { key },
        1 | 0 => QueryBody::KvList {
            prefix: key,
            start_after: Bytes::new(),
            limit: 0,
        },
        2 => QueryBody::KvKeys {
            prefix: key,
            separator: Bytes::new(),
            start_after: Bytes::new(),
            limit: 0,
        },
        _ => QueryBody::KvKeys {
            prefix: key,
            separator: Bytes::from_static(b"a"),
            start_after: Bytes::new(),
            limit: 0,
        },
    };
    let mode = match stale {
        true => ReadMode::Stale,
        false => ReadMode::Default,
    };
    Query {
        mode,
        min_index: Index(0),
        wait: Wait {
            index: Index(1),
            ms: 1,
        },
        body,
    }
}

fn take_woken(watches: &mut Watches, model: &mut Model, at_most: usize) {
    for _ in 0..at_most {
        let Some(waiter) = watches.next_woken() else {
            assert!(model.woken.is_empty(), "not woken: {:?}", model.woken);
            return;
        };
        let expected = model.woken.remove(&waiter.ticket);
        assert_eq!(expected, Some(waiter), "woken for nothing");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn exactly_those_wake_whose_rows_have_changed(steps in prop::collection::vec(step(), 1..60)) {
        let mut watches = Watches::default();
        let mut model = Model::default();
        // One applies runs and tells what has changed, the other shows every state in between.
        let (mut fsm, mut plain) = (Fsm::new(), Fsm::new());
        let (mut now_ns, mut next_ticket) = (0u64, 0);
        for step in steps {
            match step {
                Step::Park { kind, key, stale, for_ns } => {
                    next_ticket += 1;
                    let waiter = Waiter {
                        ticket: Ticket(next_ticket),
                        query: query(kind, key, stale),
                        deadline_ns: now_ns + 1 + for_ns,
                    };
                    prop_assert!(watches.park(waiter.clone()).is_ok());
                    model.waiting.insert(waiter.ticket, waiter);
                }
                Step::Run(commands) => {
                    let mut run = Vec::new();
                    for (verb, key, value) in commands {
                        if key.is_empty() && verb != KvVerb::DeleteTree {
                            continue;
                        }
                        let command = KvCommand {
                            verb,
                            key: &key,
                            value: &[value],
                            flags: 0,
                            index: 0,
                            session: b"",
                        };
                        let index = Index(plain.applied().0.0 + 1);
                        let entry = (index, Term(1), Command::Kv(command).encode());
                        let before: Vec<_> =
                            model.waiting.values().map(|w| result(&plain, &w.query.body)).collect();
                        plain.apply_run(std::slice::from_ref(&entry), &mut Vec::new()).unwrap();
                        let changed: Vec<Ticket> = model
                            .waiting
                            .values()
                            .zip(before)
                            .filter(|(w, before)| result(&plain, &w.query.body) != *before)
                            .map(|(w, _)| w.ticket)
                            .collect();
                        for ticket in changed {
                            let waiter = model.waiting.remove(&ticket).expect("it waits");
                            model.woken.insert(ticket, waiter);
                        }
                        run.push(entry);
                    }
                    let mut changed = |_, changes: &[Change]| watches.changed(changes);
                    fsm.apply_run_watched(&run, &mut Vec::new(), Some(&mut changed)).unwrap();
                    prop_assert_eq!(fsm.digest(), plain.digest());
                }
                Step::Drain(at_most) => take_woken(&mut watches, &mut model, at_most),
                Step::Pass(ns) => {
                    now_ns += ns;
                    take_woken(&mut watches, &mut model, usize::MAX);
                    while let Some(late) = watches.next_late(now_ns) {
                        let expected = model.waiting.remove(&late.ticket);
                        prop_assert_eq!(expected.as_ref(), Some(&late));
                        prop_assert!(late.deadline_ns <= now_ns);
                    }
                    prop_assert!(model.waiting.values().all(|w| w.deadline_ns > now_ns));
                }
                Step::Cancel(which) => {
                    let ticket = Ticket(which.index(next_ticket as usize + 1) as u64);
                    let known = model.is_known(&ticket);
                    let taken = watches.take(ticket);
                    prop_assert_eq!(taken.is_some(), known);
                    prop_assert_eq!(taken, model.remove(ticket));
                }
                Step::Deposed => {
                    let gone = watches.take_unless_stale();
                    prop_assert!(gone.is_sorted());
                    for ticket in gone {
                        let waiter = model.remove(ticket).expect("it waited");
                        prop_assert_eq!(waiter.query.mode, ReadMode::Default);
                    }
                    let stay = model.waiting.values().chain(model.woken.values());
                    prop_assert!(stay.into_iter().all(|w| w.query.mode == ReadMode::Stale));
                }
                Step::Replaced => {
                    watches.wake_all();
                    model.woken.append(&mut model.waiting);
                    for waiter in model.woken.values_mut() {
                        waiter.query.wait = Wait::default();
                    }
                }
            }
            watches.check();
            prop_assert_eq!(watches.len(), model.waiting.len() + model.woken.len());
        }
        take_woken(&mut watches, &mut model, usize::MAX);
        for ticket in watches.take_all() {
            prop_assert!(model.waiting.remove(&ticket).is_some());
        }
        prop_assert!(model.waiting.is_empty() && watches.is_empty());
        watches.check();
        prop_assert!(watches.keys.by_key.is_empty() && watches.prefixes.by_key.is_empty());
    }
}

/// While nobody waits nothing is looked up, and what cannot be watched is given back.
#[test]
fn a_status_is_not_watched() {
    let mut watches = Watches::default();
    let waiter = Waiter {
        ticket: Ticket(1),
        query: Query {
            body: QueryBody::Status,
            ..query(0, b"a".to_vec(), false)
        },
        deadline_ns: 1,
    };
    assert_eq!(watches.park(waiter.clone()), Err(waiter));
    assert!(watches.is_empty() && watches.next_woken().is_none());
}

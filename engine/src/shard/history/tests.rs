//! The history against the plainest of models: a list of what every operation did to a map.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use wire::{Command, KvCommand, KvVerb, Term, TxnOp, TxnOps, TxnVerb, Uuid};

use super::*;
use crate::fsm::Fsm;

const CLUSTER: ClusterId = Uuid([7; 16]);

/// What one operation did: where, what, to which key, and the value since.
type Told = (Cursor, ChangeOp, Vec<u8>, Vec<u8>);

/// Operations as they are drawn: verb, key, value.
type Drawn = (TxnVerb, Vec<u8>, Vec<u8>);

#[derive(Clone, Debug)]
enum Entry {
    One(Drawn),
    Txn(Vec<Drawn>),
    /// Raft's own: no command.
    Empty,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(b'a'), 1 => Just(b'/'), 1 => Just(0xff)];
    prop::collection::vec(byte, 1..4)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![4 => 0..3usize, 1 => Just(20_000)];
    (length, 0..2u8).prop_map(|(length, byte)| vec![byte; length])
}

fn drawn() -> impl Strategy<Value = Drawn> {
    use KvVerb::{Delete, DeleteTree, Set};
    let verb = prop::sample::select(vec![Set, Set, Set, Set, Delete, Delete, DeleteTree]);
    (verb.prop_map(TxnVerb::Kv), key(), value())
}

fn entry() -> impl Strategy<Value = Entry> {
    // A check that fails undoes what came before it in its transaction.
    let check = key().prop_map(|key| (TxnVerb::CheckNotExists, key, Vec::new()));
    let op = prop_oneof![6 => drawn(), 1 => check];
    prop_oneof![
        4 => drawn().prop_map(Entry::One),
        2 => prop::collection::vec(op, 1..6).prop_map(Entry::Txn),
        1 => Just(Entry::Empty),
    ]
}

fn op((verb, key, value): &Drawn) -> TxnOp<'_> {
    TxnOp {
        verb: *verb,
        key,
        value,
        flags: 0,
        index: 0,
        session: b"",
    }
}

fn encode(entry: &Entry) -> Bytes {
    match entry {
        Entry::One((TxnVerb::Kv(verb), key, value)) => Command::Kv(KvCommand {
            verb: *verb,
            key,
            value,
            flags: 0,
            index: 0,
            session: b"",
        })
        .encode(),
        Entry::One(_) | Entry::Empty => Bytes::new(),
        Entry::Txn(ops) => {
            let ops: Vec<_> = ops.iter().map(op).collect();
            Command::Txn(TxnOps::new(&ops)).encode()
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Model {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    told: Vec<Told>,
}

impl Model {
    fn apply(&mut self, index: Index, entry: &Entry) {
        let ops = match entry {
            Entry::Empty => return,
            Entry::One(op) => std::slice::from_ref(op),
            Entry::Txn(ops) => ops,
        };
        let before = self.clone();
        let mut failed = false;
        let mut position = 0;
        for (verb, key, value) in ops {
            let happened = match verb {
                TxnVerb::CheckNotExists => {
                    failed |= self.rows.contains_key(key);
                    None
                }
                TxnVerb::Kv(KvVerb::Set) => {
                    let old = self.rows.insert(key.clone(), value.clone());
                    (old.as_ref() != Some(value)).then_some((ChangeOp::Set, value.clone()))
                }
                TxnVerb::Kv(KvVerb::Delete) => {
                    let old = self.rows.remove(key);
                    old.map(|_| (ChangeOp::Delete, Vec::new()))
                }
                _ => {
                    let count = self.rows.len();
                    self.rows.retain(|other, _| !other.starts_with(key));
                    (self.rows.len() < count).then_some((ChangeOp::DeleteTree, Vec::new()))
                }
            };
            if let Some((op, value)) = happened {
                position += 1;
                self.told
                    .push((Cursor { index, position }, op, key.clone(), value));
            }
        }
        if failed {
            *self = before;
        }
    }

    /// What is to be told of `prefix` behind a cursor.
    fn since(&self, prefix: &[u8], after: Cursor) -> Vec<Told> {
        self.told
            .iter()
            .filter(|(at, op, key, _)| {
                let above = *op == ChangeOp::DeleteTree && prefix.starts_with(key);
                *at > after && (key.starts_with(prefix) || above)
            })
            .map(|(at, op, key, value)| {
                let key = if key.len() < prefix.len() {
                    prefix
                } else {
                    key
                };
                (*at, *op, key.to_vec(), value.clone())
            })
            .collect()
    }
}

/// Asks until there is no more; `None` when the history is gone.
fn all_since(history: &History, prefix: &[u8], after: Cursor, applied: Index) -> Option<Vec<Told>> {
    let (mut after, mut told) = (after, Vec::new());
    loop {
        let found = history.since(prefix, after, applied);
        let wire = found.to_wire();
        if wire.gone {
            assert!(wire.changes.is_empty() && told.is_empty());
            return None;
        }
        let bytes = |change: &KvChange| change.row.value.len();
        let last = wire.changes.last().map_or(0, bytes);
        let all: usize = wire.changes.iter().map(bytes).sum();
        assert!(all - last < CHANGES_BYTES_MAX, "too much for one answer");
        assert!(wire.next > after || wire.caught_up && wire.next >= after);
        for change in wire.changes {
            assert!(change.at > after && change.at <= wire.next);
            told.push((
                change.at,
                change.op,
                change.row.key.to_vec(),
                change.row.value.to_vec(),
            ));
        }
        after = wire.next;
        if wire.caught_up {
            assert_eq!(after, Cursor::behind(applied).max(after));
            return Some(told);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn each_change_is_told_once_and_in_order_from_any_cursor(
        runs in prop::collection::vec(prop::collection::vec(entry(), 1..6), 1..20),
        prefixes in prop::collection::vec(prop_oneof![Just(Vec::new()), key()], 3),
        cursors in prop::collection::vec((0..60u64, 0..5u32), 8),
        bytes_max in prop_oneof![Just(100_000usize), Just(usize::MAX)],
    ) {
        let mut fsm = Fsm::new();
        let mut history = History::new(CLUSTER, ShardId(3), Index(0), bytes_max);
        let mut model = Model::default();
        for entries in &runs {
            let first = fsm.applied().0.0 + 1;
            let run: Vec<_> = entries
                .iter()
                .zip(first..)
                .map(|(entry, index)| (Index(index), Term(1), encode(entry)))
                .collect();
            for (entry, (index, ..)) in entries.iter().zip(&run) {
                model.apply(*index, entry);
            }
            let mut changed = |index, changes: &[Change]| history.record(index, changes);
            fsm.apply_run_watched(&run, &mut Vec::new(), Some(&mut changed)).unwrap();
            prop_assert!(history.bytes() <= bytes_max);
            prop_assert_eq!(history.changes.iter().map(Kept::bytes).sum::<usize>(), history.bytes());
            let (applied, _) = fsm.applied();
            let dropped = model.told.len() - history.len();
            let begin = dropped.checked_sub(1).map_or(Cursor::behind(Index(0)), |at| model.told[at].0);
            prop_assert_eq!(history.begin, begin, "it forgets no more than it must");
            for prefix in &prefixes {
                for (index, position) in &cursors {
                    let position = if *position == 0 { Cursor::ALL } else { *position };
                    let after = Cursor { index: Index(*index), position };
                    let expected = (after >= begin).then(|| model.since(prefix, after));
                    prop_assert_eq!(all_since(&history, prefix, after, applied), expected);
                }
            }
        }
        prop_assert!(bytes_max < usize::MAX || history.len() == model.told.len());
    }

    /// A map that is kept up to date by what is told is the state, from whatever moment on.
    #[test]
    fn what_is_told_makes_the_state_of_the_rows_it_began_with(
        entries in prop::collection::vec(entry(), 1..60),
        begin in any::<prop::sample::Index>(),
        prefix in prop_oneof![Just(Vec::new()), key()],
    ) {
        let mut fsm = Fsm::new();
        let mut history = History::new(CLUSTER, ShardId(0), Index(0), usize::MAX);
        let begin = begin.index(entries.len());
        let mut rows = BTreeMap::new();
        let listing = |fsm: &Fsm| {
            let mut rows = Vec::new();
            fsm.store().kv_list(&prefix, b"", 0).next_rows(usize::MAX, usize::MAX, &mut rows);
            let pair = |row: &KvRow| (row.key().to_vec(), row.value().to_vec());
            rows.iter().map(pair).collect::<BTreeMap<_, _>>()
        };
        for (at, entry) in entries.iter().enumerate() {
            if at == begin {
                rows = listing(&fsm);
            }
            let run = [(Index(at as u64 + 1), Term(1), encode(entry))];
            let mut changed = |index, changes: &[Change]| history.record(index, changes);
            fsm.apply_run_watched(&run, &mut Vec::new(), Some(&mut changed)).unwrap();
        }
        let (applied, _) = fsm.applied();
        let after = Cursor::behind(Index(begin as u64));
        for (_, op, key, value) in all_since(&history, &prefix, after, applied).unwrap() {
            match op {
                ChangeOp::Delete => drop(rows.remove(&key)),
                ChangeOp::DeleteTree => rows.retain(|other, _| !other.starts_with(&key)),
                _ => drop(rows.insert(key, value)),
            }
        }
        prop_assert_eq!(rows, listing(&fsm));
    }
}

fn row(key: &[u8], session: &[u8], index: u64) -> KvRow {
    let row = KvRowRef {
        key,
        value: b"v",
        flags: 0,
        create_index: Index(1),
        modify_index: Index(index),
        lock_index: 1,
        session,
    };
    KvRow::new(row, &mut Vec::new())
}

fn put(old: Option<KvRow>, new: KvRow) -> Change {
    Change::Kvs(RowChange::Put { old, new })
}

/// Whoever took the lock, and however it was let go of: by its holder, or because its session died.
#[test]
fn locks_and_releases_are_told_as_such() {
    let mut history = History::new(CLUSTER, ShardId(0), Index(0), 1 << 20);
    let rows = [
        (&b""[..], 1),
        (b"one", 2),
        (b"one", 3),
        (b"two", 4),
        (b"", 5),
    ];
    let mut before = None;
    for (session, index) in rows {
        let new = row(b"lock", session, index);
        history.record(Index(index), &[put(before.replace(new.clone()), new)]);
    }
    history.record(Index(6), &[put(None, row(b"lock/2", b"one", 6))]);
    let told = history
        .since(b"lock", Cursor::behind(Index(0)), Index(6))
        .to_wire();
    let ops: Vec<_> = told.changes.iter().map(|change| change.op.name()).collect();
    assert_eq!(ops, ["set", "lock", "set", "lock", "unlock", "lock"]);
    assert_eq!(told.changes[3].row.session, "two");
}

#[test]
fn changes_looked_at_max_bounds_one_question() {
    let mut history = History::new(CLUSTER, ShardId(0), Index(0), 64 << 20);
    let others = 2 * CHANGES_LOOKED_AT_MAX as u64 + 10;
    for index in 1..=others {
        history.record(Index(index), &[put(None, row(b"other", b"", index))]);
    }
    let applied = Index(others + 1);
    history.record(applied, &[put(None, row(b"mine", b"", applied.0))]);
    let mut after = Cursor::behind(Index(0));
    for _ in 0..2 {
        let found = history.since(b"mine", after, applied);
        assert!(found.is_news() && !found.caught_up && found.kept.is_empty());
        let looked_at = found.next.index.0 - after.index.0;
        assert_eq!(looked_at, CHANGES_LOOKED_AT_MAX as u64);
        after = found.next;
    }
    let found = history.since(b"mine", after, applied);
    assert!(found.caught_up && found.kept.len() == 1);
    assert_eq!(found.next, Cursor::behind(applied));
    // Nobody is told twice who comes from a server that is further.
    let ahead = Cursor::behind(Index(applied.0 + 5));
    let found = history.since(b"mine", ahead, applied);
    assert!(!found.is_news());
    assert_eq!(found.next, ahead);
}

#[test]
fn a_replaced_state_has_no_history_and_one_that_is_off_keeps_none() {
    let mut history = History::new(CLUSTER, ShardId(0), Index(4), 1 << 20);
    history.record(Index(5), &[put(None, row(b"a", b"", 5))]);
    assert!(history.since(b"", Cursor::behind(Index(3)), Index(5)).gone);
    assert!(!history.since(b"", Cursor::behind(Index(4)), Index(5)).gone);
    history.replaced(Index(9));
    assert!(history.is_empty() && history.bytes() == 0);
    assert!(history.since(b"", Cursor::behind(Index(8)), Index(9)).gone);
    assert!(!history.since(b"", Cursor::behind(Index(9)), Index(9)).gone);
    let mut off = History::new(CLUSTER, ShardId(0), Index(4), 0);
    off.record(Index(5), &[put(None, row(b"a", b"", 5))]);
    assert!(!off.is_on() && off.is_empty() && off.bytes() == 0);
}

#[test]
fn histories_of_other_shards_and_clusters_are_told_apart() {
    let origin =
        |cluster, shard| History::new(Uuid([cluster; 16]), ShardId(shard), Index(0), 1).origin;
    assert_eq!(origin(1, 0), origin(1, 0));
    assert_ne!(origin(1, 0), origin(1, 1));
    assert_ne!(origin(1, 0), origin(2, 0));
}

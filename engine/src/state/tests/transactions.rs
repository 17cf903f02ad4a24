//! A transaction is all or nothing, over all tables, and so is each part of it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use wire::{Index, KvRowRef};

use crate::state::{
    IndexRow, KvRow, Store, Txn,
    schema::{Change, KVS_SESSION, Kvs, RowChange, Tombstones},
};

fn row(key: &[u8], stamp: u64, session: u8) -> KvRow {
    let session = vec![session; if session == 0 { 0 } else { 16 }];
    let fields = KvRowRef {
        key,
        value: &stamp.to_le_bytes(),
        flags: 0,
        create_index: Index(1),
        modify_index: Index(stamp),
        lock_index: 0,
        session: &session,
    };
    KvRow::new(fields, &mut Vec::new())
}

/// key -> (stamp, session) of kvs, key -> index of tombstones.
type Model = (BTreeMap<Vec<u8>, (u64, u8)>, BTreeMap<Vec<u8>, u64>);

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, u8),
    Bury(Vec<u8>),
    Remove(Vec<u8>),
    RemovePrefix(Vec<u8>),
    Settle,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 1..5)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (key(), 0..3u8).prop_map(|(key, session)| Op::Put(key, session)),
        2 => key().prop_map(Op::Bury),
        4 => key().prop_map(Op::Remove),
        2 => key().prop_map(Op::RemovePrefix),
        1 => Just(Op::RemovePrefix(Vec::new())),
        1 => Just(Op::Settle),
    ]
}

fn carry_out(txn: &mut Txn<'_>, model: &mut Model, op: &Op, stamp: u64) {
    match op {
        Op::Put(key, session) => {
            txn.put::<Kvs>(row(key, stamp, *session)).expect("fits");
            txn.touch::<Kvs>(Index(stamp));
            model.0.insert(key.clone(), (stamp, *session));
        }
        Op::Bury(key) => {
            txn.put::<Tombstones>(IndexRow::new(key, Index(stamp)))
                .expect("fits");
            model.1.insert(key.clone(), stamp);
        }
        Op::Remove(key) => assert_eq!(txn.remove::<Kvs>(key), model.0.remove(key).is_some()),
        Op::RemovePrefix(prefix) => {
            let before = model.0.len();
            model.0.retain(|key, _| !key.starts_with(prefix));
            assert_eq!(txn.remove_prefix::<Kvs>(prefix), before - model.0.len());
        }
        Op::Settle => txn.settle(),
    }
}

fn agrees(store: &Store, model: &Model) {
    let tables = store.tables();
    tables.check();
    assert_eq!(
        (tables.kvs.len(), tables.tombstones.len()),
        (model.0.len(), model.1.len())
    );
    for (key, (stamp, session)) in &model.0 {
        assert_eq!(tables.kvs.get(key), Some(&row(key, *stamp, *session)));
    }
    for (key, stamp) in &model.1 {
        assert_eq!(
            tables.tombstones.get(key),
            Some(&IndexRow::new(key, Index(*stamp)))
        );
    }
    for session in 1..3u8 {
        let mut held = Vec::new();
        let found = tables.kvs.find(&KVS_SESSION, &[session; 16][..], |row| {
            held.push(row.key().to_vec());
            true
        });
        found.expect("a session query");
        let expected: Vec<_> = model
            .0
            .iter()
            .filter(|(_, row)| row.1 == session)
            .map(|(key, _)| key.clone())
            .collect();
        assert_eq!(held, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn what_is_rolled_back_never_was(
        runs in prop::collection::vec((prop::collection::vec((prop::collection::vec(op(), 0..8), any::<bool>()), 0..6), 0..4u8), 1..8)
    ) {
        let mut store = Store::new();
        let mut model = Model::default();
        let mut stamp = 0;
        for (commands, fate) in runs {
            let before = (model.clone(), store.digest(), store.tables().max_index(&["kvs"]));
            let mut txn = store.begin();
            for (ops, keep) in commands {
                let (savepoint, saved) = (txn.savepoint(), model.clone());
                for op in &ops {
                    stamp += 1;
                    carry_out(&mut txn, &mut model, op, stamp);
                }
                if !keep {
                    txn.rollback_to(savepoint);
                    model = saved;
                }
            }
            if fate == 0 {
                drop(txn);
                model = before.0;
                prop_assert_eq!(store.digest(), before.1);
                prop_assert_eq!(store.tables().max_index(&["kvs"]), before.2);
            } else {
                txn.commit();
            }
            agrees(&store, &model);
        }
    }
}

#[test]
fn the_index_table_is_written_once_per_run_and_undone_with_it() {
    let mut store = Store::new();
    let mut txn = store.begin();
    txn.put::<Kvs>(row(b"a", 1, 0)).expect("fits");
    txn.touch::<Kvs>(Index(1));
    let savepoint = txn.savepoint();
    txn.put::<Kvs>(row(b"b", 2, 0)).expect("fits");
    txn.touch::<Kvs>(Index(2));
    txn.rollback_to(savepoint);
    txn.commit();
    assert_eq!(store.tables().max_index(&["kvs"]), Index(1));
    let mut txn = store.begin();
    for stamp in 3..6 {
        txn.put::<Kvs>(row(b"c", stamp, 0)).expect("fits");
        txn.touch::<Kvs>(Index(stamp));
    }
    txn.settle();
    let written = txn
        .changes()
        .iter()
        .filter(|change| matches!(change, Change::Indexes(_)))
        .count();
    assert_eq!(written, 1);
    drop(txn);
    assert_eq!(store.tables().max_index(&["kvs"]), Index(1));
}

#[test]
fn a_transaction_tells_what_changed() {
    let mut store = Store::new();
    let mut txn = store.begin();
    txn.put::<Kvs>(row(b"a/1", 1, 0)).expect("fits");
    txn.put::<Kvs>(row(b"a/1", 2, 0)).expect("fits");
    txn.remove_prefix::<Kvs>(b"a/");
    assert!(!txn.remove::<Kvs>(b"a/1"));
    let told: Vec<String> = txn
        .changes()
        .iter()
        .map(|change| match change {
            Change::Kvs(RowChange::Put { old, new }) => {
                format!("put {} {:?}", new.modify_index(), old.is_some())
            }
            Change::Kvs(RowChange::PrefixRemoved { prefix, before }) => {
                format!(
                    "removed {} {}",
                    prefix.escape_ascii(),
                    before.count_prefix(prefix)
                )
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["put 1 false", "put 2 true", "removed a/ 1"]);
    txn.commit();
}

/// Dropping a store that an installed image replaced freed a million rows at once, in the middle of serving.
#[test]
fn a_replaced_state_is_freed_in_slices_and_its_views_stay() {
    let fill = |store: &mut Store, count: u64| {
        let mut txn = store.begin();
        for n in 0..count {
            txn.put::<Kvs>(row(format!("key/{n:05}").as_bytes(), n + 1, (n % 2) as u8))
                .expect("fits");
        }
        txn.commit();
    };
    let mut store = Store::new();
    fill(&mut store, 5_000);
    let mut old = store.kv_list(b"key/", b"", 0);
    let mut new = Store::new();
    fill(&mut new, 10);
    store.replace(new);
    assert_eq!(store.kv_len(), 10);
    for _ in 0..1_000 {
        assert!(
            store.release_some(50),
            "an open view keeps its state waiting"
        );
    }
    let mut rows = Vec::new();
    while old.next_rows(100, usize::MAX, &mut rows) {}
    assert_eq!(rows.len(), 5_000);
    drop(old);
    let mut slices = 0;
    while store.release_some(50) {
        slices += 1;
    }
    assert!(slices >= 5_000 / (50 + 64), "{slices} slices");
    assert_eq!(store.kv_len(), 10);
    store.tables().check();
}

/// Deleting a million keys by their prefix stalled the server for half a second, because each was
/// taken out of the point index at once. Now most wait; nothing may be seen of them meanwhile.
#[test]
fn keys_of_a_removed_prefix_are_gone_at_once_and_swept_later() {
    let mut store = Store::new();
    let key = |n: u64| format!("dir/{n:04}").into_bytes();
    let mut txn = store.begin();
    (0..2_000).for_each(|n| txn.put::<Kvs>(row(&key(n), 1, 1)).expect("fits"));
    txn.put::<Kvs>(row(b"dix", 1, 1)).expect("fits");
    txn.commit();
    let mut txn = store.begin();
    assert_eq!(txn.remove_prefix::<Kvs>(b"dir/"), 2_000);
    txn.commit();
    assert!((0..2_000).all(|n| store.kv_get(&key(n)).1.is_none()));
    assert!(store.release_some(1), "rows wait to be swept");
    // Keys written since stay, before and after the sweep, also after the same prefix went again.
    for stamp in 2..10 {
        let mut txn = store.begin();
        (0..2_000)
            .step_by(7)
            .for_each(|n| txn.put::<Kvs>(row(&key(n), stamp, 2)).expect("fits"));
        if stamp % 4 == 0 {
            txn.remove_prefix::<Kvs>(b"di");
        }
        txn.commit();
        store.tables().check();
        let expected = if stamp % 4 == 0 {
            0
        } else {
            2_000_u64.div_ceil(7)
        };
        assert_eq!(store.kv_len(), expected + u64::from(stamp < 4));
    }
    while store.release_some(100) {}
    store.tables().check();
    assert_eq!(
        store.kv_get(&key(7)).1.map(|row| row.modify_index()),
        Some(Index(9))
    );
    let mut found = 0;
    let held = store.tables().kvs.find(&KVS_SESSION, &[1; 16][..], |_| {
        found += 1;
        true
    });
    assert_eq!((held, found), (Ok(()), 0));
}

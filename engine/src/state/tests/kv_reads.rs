//! KV reads against a scan of a sorted map.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use wire::{Index, KvRowRef};

use crate::state::{
    IndexRow, KvKeys, KvList, KvRow, Store,
    schema::{Kvs, Tombstones},
};

fn row(key: &[u8], value: &[u8], stamp: u64) -> KvRow {
    let fields = KvRowRef {
        key,
        value,
        flags: 0,
        create_index: Index(stamp),
        modify_index: Index(stamp),
        lock_index: 0,
        session: b"",
    };
    KvRow::new(fields, &mut Vec::new())
}

fn store_of(keys: &BTreeMap<Vec<u8>, u64>, tombstones: &BTreeMap<Vec<u8>, u64>) -> Store {
    let mut store = Store::new();
    let mut txn = store.begin();
    for (key, stamp) in keys {
        txn.put::<Kvs>(row(key, b"v", *stamp)).expect("fits");
    }
    for (key, stamp) in tombstones {
        txn.put::<Tombstones>(IndexRow::new(key, Index(*stamp)))
            .expect("fits");
    }
    let greatest = |map: &BTreeMap<Vec<u8>, u64>| map.values().copied().max().unwrap_or(0);
    txn.touch::<Kvs>(Index(greatest(keys)));
    txn.touch::<Tombstones>(Index(greatest(tombstones)));
    txn.commit();
    store
}

fn all_rows(mut list: KvList, slice: usize) -> Vec<Vec<u8>> {
    let mut rows = Vec::new();
    while list.next_rows(slice, usize::MAX, &mut rows) {}
    assert!(
        !list.next_rows(slice, usize::MAX, &mut rows),
        "the end stays the end"
    );
    rows.iter().map(|row| row.key().to_vec()).collect()
}

fn all_keys(mut keys: KvKeys, slice: usize) -> Vec<Bytes> {
    let mut names = Vec::new();
    while keys.next_keys(slice, &mut names) {}
    assert!(!keys.next_keys(slice, &mut names));
    names
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => Just(b'a'), 3 => Just(b'/'), 1 => Just(b'b'), 1 => Just(0xff), 1 => Just(0)];
    prop::collection::vec(byte, 1..8)
}

fn maybe_empty() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => Just(Vec::new()), 4 => key().prop_map(|mut key| { key.truncate(3); key })]
}

proptest! {
    #[test]
    fn reads_agree_with_a_scan(
        keys in prop::collection::btree_map(key(), 1..100u64, 0..120),
        tombstones in prop::collection::btree_map(key(), 1..100u64, 0..10),
        prefix in maybe_empty(),
        start_after in maybe_empty(),
        limit in 0..20u64,
        names_max in 0..10u64,
        separator in prop_oneof![Just(&b"/"[..]), Just(&b""[..]), Just(&b"a/"[..]), Just(&b"\xff"[..])],
        slice in 1..40usize,
    ) {
        let store = store_of(&keys, &tombstones);
        let under = |map: &BTreeMap<Vec<u8>, u64>| {
            map.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, stamp)| *stamp).max().unwrap_or(0)
        };
        let tables = keys.values().chain(tombstones.values()).copied().max().unwrap_or(0);
        let own = if prefix.is_empty() { 0 } else { under(&keys).max(under(&tombstones)) };
        let index = Index((if own == 0 { tables } else { own }).max(1));

        let list = store.kv_list(&prefix, &start_after, limit);
        prop_assert_eq!(list.index(), index);
        let limit = if limit == 0 { usize::MAX } else { limit as usize };
        let expected: Vec<Vec<u8>> = keys
            .keys()
            .filter(|key| key.starts_with(&prefix) && (start_after.is_empty() || **key > start_after))
            .take(limit)
            .cloned()
            .collect();
        prop_assert_eq!(all_rows(list, slice), expected);

        let names = store.kv_keys(&prefix, separator, b"", 0);
        prop_assert_eq!(names.index(), index);
        let cut = |key: &Vec<u8>| {
            let rest = &key[prefix.len()..];
            let at = (0..rest.len()).find(|&at| !separator.is_empty() && rest[at..].starts_with(separator));
            Bytes::copy_from_slice(&key[..at.map_or(key.len(), |at| prefix.len() + at + separator.len())])
        };
        let expected: BTreeSet<Bytes> = keys.keys().filter(|key| key.starts_with(&prefix)).map(cut).collect();
        prop_assert_eq!(all_keys(names, slice), expected.iter().cloned().collect::<Vec<_>>());
        let page = store.kv_keys(&prefix, separator, &start_after, names_max);
        prop_assert_eq!(page.index(), index);
        let expected: Vec<Bytes> = expected
            .into_iter()
            .filter(|name| start_after.is_empty() || **name > *start_after)
            .take(if names_max == 0 { usize::MAX } else { names_max as usize })
            .collect();
        prop_assert_eq!(all_keys(page, slice), expected);

        for (key, stamp) in &keys {
            prop_assert_eq!(store.kv_get(key), (Index(*stamp), Some(row(key, b"v", *stamp))));
        }
        let missing = [&prefix[..], b"missing"].concat();
        prop_assert_eq!(store.kv_get(&missing), (Index(tables.max(1)), None));
    }
}

#[test]
fn an_empty_store_answers_with_index_one() {
    let store = Store::new();
    assert_eq!(store.kv_get(b"a"), (Index(1), None));
    assert_eq!(store.kv_list(b"", b"", 0).index(), Index(1));
    assert_eq!(store.kv_keys(b"a", b"/", b"", 0).index(), Index(1));
}

#[test]
fn a_piece_of_a_listing_ends_once_it_has_its_bytes() {
    let mut store = Store::new();
    let mut txn = store.begin();
    for n in 0..200u32 {
        txn.put::<Kvs>(row(&n.to_be_bytes(), &[0; 1000], 1))
            .expect("fits");
    }
    txn.commit();
    let mut list = store.kv_list(b"", b"", 0);
    let mut rows = Vec::new();
    assert!(list.next_rows(usize::MAX, 3_000, &mut rows));
    assert_eq!(rows.len(), 3, "1040 bytes each");
    assert!(list.next_rows(usize::MAX, 1, &mut rows));
    assert_eq!(rows.len(), 4, "at least one");
    assert!(list.next_rows(7, usize::MAX, &mut rows));
    assert_eq!(rows.len(), 11);
    while list.next_rows(50, 10_000, &mut rows) {}
    assert_eq!(rows.len(), 200);
}

#[test]
fn a_parked_listing_sees_its_own_moment() {
    let keys: BTreeMap<Vec<u8>, u64> = (0..500u32).map(|n| (n.to_be_bytes().to_vec(), 1)).collect();
    let mut store = store_of(&keys, &BTreeMap::new());
    let mut list = store.kv_list(b"", b"", 0);
    let mut names = store.kv_keys(b"", b"", b"", 0);
    let mut rows = Vec::new();
    assert!(list.next_rows(100, usize::MAX, &mut rows));
    let mut txn = store.begin();
    txn.remove_prefix::<Kvs>(&[0, 0, 0]);
    txn.put::<Kvs>(row(&[0, 0, 1], b"later", 2)).expect("fits");
    txn.commit();
    while list.next_rows(100, usize::MAX, &mut rows) {}
    assert_eq!(
        rows.iter()
            .map(|row| row.key().to_vec())
            .collect::<Vec<_>>(),
        keys.into_keys().collect::<Vec<_>>()
    );
    let mut out = Vec::new();
    while names.next_keys(33, &mut out) {}
    assert_eq!(out.len(), 500);
    assert_eq!(
        store.kv_len(),
        245,
        "256 keys of the first prefix went, one came"
    );
}

//! Does every table of the schema keep what its declaration promises?
//!
//! For each table: objects go in, are found by each of their indexes, are changed, are found by
//! the new keys and not by the old, and go out, with all indexes checked in between. The schema's
//! macro makes one test per table, so a new table that names no samples does not compile.

use wire::{Index, KvRowRef};

use super::{
    IndexRow, KvRow, Store,
    index::Keys,
    row::Row,
    schema::{InSchema, Indexes, Kvs, Tombstones},
    tree::Keyed,
};

/// Example objects of a table.
pub(super) trait Sample: InSchema {
    /// Some objects with different primary keys; together they have a value in every index.
    fn samples() -> Vec<Self::Row>;
    /// The same object after a change that moves it in every index it can move in.
    fn changed(row: &Self::Row) -> Self::Row;
}

impl Sample for Kvs {
    fn samples() -> Vec<KvRow> {
        let row = |key: &[u8], session: &[u8]| {
            let row = KvRowRef {
                key,
                value: b"value",
                flags: 1,
                create_index: Index(2),
                modify_index: Index(3),
                lock_index: 4,
                session,
            };
            KvRow::new(row, &mut Vec::new())
        };
        vec![
            row(b"a", &[1; 16]),
            row(b"a/b", b""),
            row(b"A", &[2; 16]),
            row(b"c\0d", &[1; 16]),
        ]
    }

    fn changed(row: &KvRow) -> KvRow {
        let session = if row.session() == [2; 16] {
            &[][..]
        } else {
            &[2; 16]
        };
        KvRow::new(
            KvRowRef {
                session,
                modify_index: Index(9),
                ..row.as_ref()
            },
            &mut Vec::new(),
        )
    }
}

impl Sample for Tombstones {
    fn samples() -> Vec<IndexRow> {
        vec![
            IndexRow::new(b"a", Index(1)),
            IndexRow::new(b"a/", Index(2)),
        ]
    }
    fn changed(row: &IndexRow) -> IndexRow {
        IndexRow::new(row.key(), Index(row.index().0 + 1))
    }
}

impl Sample for Indexes {
    fn samples() -> Vec<IndexRow> {
        vec![
            IndexRow::new(b"kvs", Index(1)),
            IndexRow::new(b"tombstones", Index(2)),
        ]
    }
    fn changed(row: &IndexRow) -> IndexRow {
        IndexRow::new(row.key(), Index(row.index().0 + 1))
    }
}

/// The keys of a row in the primary and in every other index.
fn keys<D: Sample>(row: &D::Row) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = Vec::new();
    for def in std::iter::once(D::primary()).chain(D::secondaries()) {
        let mut keys = Keys::default();
        def.keys_of(row, &mut keys)
            .expect("a sample fits its table");
        all.extend(keys.iter().map(|key| (def.name, key.to_vec())));
    }
    all
}

fn found<D: Sample>(store: &Store, row: &D::Row, index: &str, key: &[u8]) -> bool {
    D::of(store.tables())
        .find_raw(index, key)
        .iter()
        .any(|primary| primary == row.key())
}

/// See the [module](self).
pub(super) fn conforms<D: Sample>() {
    let mut store = Store::new();
    let samples = D::samples();
    for row in &samples {
        let mut txn = store.begin();
        txn.put::<D>(row.clone()).expect("a sample");
        txn.commit();
        store.tables().check();
    }
    for def in std::iter::once(D::primary()).chain(D::secondaries()) {
        let has = |row: &D::Row| keys::<D>(row).iter().any(|(name, _)| *name == def.name);
        assert!(
            samples.iter().any(has),
            "no sample has a value in index '{}'",
            def.name
        );
    }
    let filled = store.digest();
    for row in &samples {
        assert!(
            D::of(store.tables())
                .get(row.key())
                .is_some_and(|stored| stored.is_same(row))
        );
        assert!(
            keys::<D>(row)
                .iter()
                .all(|(name, key)| found::<D>(&store, row, name, key))
        );
    }
    for row in &samples {
        let changed = D::changed(row);
        let mut txn = store.begin();
        txn.put::<D>(changed.clone()).expect("a changed sample");
        txn.commit();
        store.tables().check();
        let new = keys::<D>(&changed);
        assert!(
            new.iter()
                .all(|(name, key)| found::<D>(&store, row, name, key))
        );
        for (name, key) in keys::<D>(row).iter().filter(|old| !new.contains(old)) {
            assert!(
                !found::<D>(&store, row, name, key),
                "still found by '{name}'"
            );
        }
        store
            .begin()
            .put::<D>(row.clone())
            .expect("undone when the transaction is dropped");
        assert!(
            D::of(store.tables())
                .get(row.key())
                .is_some_and(|stored| stored.is_same(&changed))
        );
    }
    assert_ne!(store.digest(), filled);
    for row in &samples {
        let mut txn = store.begin();
        txn.put::<D>(row.clone()).expect("back to the first");
        txn.commit();
    }
    assert_eq!(
        store.digest(),
        filled,
        "the digest depends on the rows only"
    );
    for row in &samples {
        let mut bytes = Vec::new();
        row.encode(&mut bytes);
        assert!(D::Row::decode(&bytes).is_ok_and(|read| read.is_same(row)));
        assert_eq!(row.digest(), xxhash_rust::xxh3::xxh3_64(&bytes));
        let mut txn = store.begin();
        assert!(txn.remove::<D>(row.key()) && !txn.remove::<D>(row.key()));
        txn.commit();
        store.tables().check();
        assert!(
            keys::<D>(row)
                .iter()
                .all(|(name, key)| !found::<D>(&store, row, name, key))
        );
    }
    assert!(D::of(store.tables()).is_empty());
    assert_eq!(store.digest(), 0);
}

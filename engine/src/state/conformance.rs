//! Does every table of the schema keep what its declaration promises?
//!
//! For each table: objects go in, are found by each of their indexes, are changed, are found by
//! the new keys and not by the old, and go out, with all indexes checked in between. The schema's
//! macro makes one test per table, so a new table that names no samples does not compile.

use std::{fs, path::Path};

use super::{
    Store, index::Keys, records::RECORDS_VERSION, row::Row, schema::InSchema, tree::Keyed,
};

/// Example objects of a table.
pub(super) trait Sample: InSchema {
    /// Some objects with different primary keys; together they have a value in every index.
    fn samples() -> Vec<Self::Row>;
    /// The same object after a change that moves it in every index it can move in.
    fn changed(row: &Self::Row) -> Self::Row;
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
    looks_as_it_always_did(D::NAME, &samples[0]);
}

/// Rows lie in images and in digests, so their bytes never change. The first sample of each table
/// is in `golden/rows`; `CURIA_WRITE_GOLDEN=1` writes those of a new table.
fn looks_as_it_always_did<R: Row>(table: &str, row: &R) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("golden/rows/version-{RECORDS_VERSION}/{table}.row"));
    let mut bytes = Vec::new();
    row.encode(&mut bytes);
    if std::env::var_os("CURIA_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a file in a directory")).expect("writable");
        fs::write(&path, &bytes).expect("the golden directory");
    }
    let golden = fs::read(&path).unwrap_or_default();
    assert!(
        bytes == golden,
        "a row of '{table}' is not encoded as in {path:?}"
    );
    assert!(R::decode(&golden).is_ok_and(|read| read.is_same(row)));
}

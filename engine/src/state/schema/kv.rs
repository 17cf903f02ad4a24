//! Keys and values, what of them was deleted, and when each table last changed.

use super::{SOME, UNIQUE, UNIQUE_PREFIX};
use crate::state::{
    index::{FunctionalIndex, IndexDef, Lookup, Write},
    row::{IndexRow, KvRow},
    table::TableDef,
    tree::Keyed,
};

/// Keys and values. Consul: table `kvs`.
#[derive(Debug)]
pub struct Kvs;

/// `kvs.id`: the key, case-sensitive, as it is; by prefix for listings.
pub const KVS_ID: FunctionalIndex<KvRow, [u8]> = FunctionalIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    read: |key, out| {
        out.raw(key);
    },
    write: Write::One(|row, out| !out.raw(row.key()).as_bytes().is_empty()),
    prefix: Some(|prefix, out| {
        out.raw(prefix);
    }),
};

/// `kvs.session`: the session that holds the key, if one does.
pub const KVS_SESSION: FunctionalIndex<KvRow, [u8]> = FunctionalIndex {
    name: "session",
    attributes: SOME,
    read: |session, out| {
        out.raw(session);
    },
    write: Write::One(|row, out| !out.raw(row.session()).as_bytes().is_empty()),
    prefix: None,
};

impl TableDef for Kvs {
    type Row = KvRow;
    const ID: u16 = 1;
    const NAME: &'static str = "kvs";
    const POINT_INDEX: bool = true;
    fn primary() -> IndexDef<KvRow> {
        KVS_ID.def()
    }
    fn secondaries() -> Vec<IndexDef<KvRow>> {
        vec![KVS_SESSION.def()]
    }
}

/// What was deleted, and when, so that the index of a listing never falls. Consul: `tombstones`.
#[derive(Debug)]
pub struct Tombstones;

/// `tombstones.id`: the deleted key, or the prefix of a recursive delete.
pub const TOMBSTONES_ID: FunctionalIndex<IndexRow, [u8]> = FunctionalIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    read: |key, out| {
        out.raw(key);
    },
    write: Write::One(|row, out| !out.raw(row.key()).as_bytes().is_empty()),
    prefix: Some(|prefix, out| {
        out.raw(prefix);
    }),
};

impl TableDef for Tombstones {
    type Row = IndexRow;
    const ID: u16 = 2;
    const NAME: &'static str = "tombstones";
    const POINT_INDEX: bool = false;
    fn primary() -> IndexDef<IndexRow> {
        TOMBSTONES_ID.def()
    }
    fn secondaries() -> Vec<IndexDef<IndexRow>> {
        Vec::new()
    }
}

/// The greatest modify index of each table, and of whatever else is waited for. Consul: `index`.
#[derive(Debug)]
pub struct Indexes;

/// `index.id`: a table's name.
pub const INDEXES_ID: FunctionalIndex<IndexRow, str> = FunctionalIndex {
    name: "id",
    attributes: UNIQUE,
    read: |name, out| {
        out.raw(name.as_bytes());
    },
    write: Write::One(|row, out| !out.raw(row.key()).as_bytes().is_empty()),
    prefix: None,
};

impl TableDef for Indexes {
    type Row = IndexRow;
    const ID: u16 = 3;
    const NAME: &'static str = "index";
    const POINT_INDEX: bool = false;
    fn primary() -> IndexDef<IndexRow> {
        INDEXES_ID.def()
    }
    fn secondaries() -> Vec<IndexDef<IndexRow>> {
        Vec::new()
    }
}

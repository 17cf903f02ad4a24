//! How many of something are there?
//!
//! Counted in the table `usage` in the transaction that changes the number, as Consul does for its
//! gauges and `/v1/operator/usage`.

use wire::Index;

use crate::state::{
    Tables, Txn,
    index::Key,
    records::Usage,
    schema::{InSchema, Usages},
};

/// Nodes of the catalog.
pub const NODES: &str = "nodes";
/// Instances of services.
pub const SERVICE_INSTANCES: &str = "services";
/// Different names of services.
pub const SERVICE_NAMES: &str = "service-names";

fn key(id: &str) -> Key {
    let mut key = Key::default();
    key.lower(id);
    key
}

/// How many there are.
pub fn count(tables: &Tables, id: &str) -> u64 {
    let row = Usages::of(tables).get(key(id).as_bytes());
    row.map_or(0, |usage| usage.count)
}

/// There are `change` more, or fewer.
pub(super) fn add(txn: &mut Txn<'_>, index: Index, id: &str, change: i64) {
    let count = count(txn.tables(), id)
        .checked_add_signed(change)
        .expect("what goes was counted when it came");
    let usage = Usage {
        id: id.to_owned(),
        index: index.0,
        count,
    };
    txn.put_record::<Usages, _>(usage)
        .expect("a short row that no index refuses");
}

//! When is a deletion forgotten?
//!
//! A tombstone keeps the index of a listing from falling when its newest row goes. After a while
//! (Consul: 15 minutes) no client waits with an index that old, and the leader has the old ones
//! reaped, by a command like any other, so that every server forgets the same ones.
//!
//! The tombstones are looked through in key order, a bounded number at a time: a command names the
//! range of keys that it is about, and the leader goes on from there with the next one.

use serde::{Deserialize, Serialize};

use crate::state::{Txn, schema::Tombstones, tree::Keyed};

/// Forgets the tombstones up to an index among the next ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Reap {
    /// Those of this raft index and older go.
    pub index: u64,
    /// Looks at keys greater than this one.
    #[serde(with = "serde_bytes")]
    pub start_after: Vec<u8>,
    /// Looks at keys up to this one.
    #[serde(with = "serde_bytes")]
    pub up_to: Vec<u8>,
}

/// Carries it out. True: whether anything was there to be forgotten tells nobody anything.
pub(super) fn reap(txn: &mut Txn<'_>, reap: &Reap) -> bool {
    for key in old(txn, reap) {
        txn.remove::<Tombstones>(&key);
    }
    true
}

fn old(txn: &Txn<'_>, reap: &Reap) -> Vec<Vec<u8>> {
    let mut cursor = txn.tables().tombstones.view().cursor();
    if !reap.start_after.is_empty() {
        // The least key greater than a key is that key and a zero byte.
        cursor.seek(&[&reap.start_after[..], &[0]].concat());
    }
    let (mut old, mut within) = (Vec::new(), true);
    while within
        && cursor.scan(|row| {
            within = row.key() <= &reap.up_to[..];
            if within && row.index().0 <= reap.index {
                old.push(row.key().to_vec());
            }
            within
        })
    {}
    old
}

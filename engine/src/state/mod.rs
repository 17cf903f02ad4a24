//! What does the cluster know, at this index and at those still being read?
//!
//! After Consul's memdb-based state store: [tables](schema) with [indexes](index) declared in one
//! place, changed by [transactions](txn), read at one point in time. Where memdb keeps an
//! immutable radix tree per index and gives every node a channel, here a table is a
//! [copy-on-write tree](tree) by primary key, a [hash index](point) for single keys, and a tree
//! of entries for each other index; one thread owns it all, so nothing is locked.
//!
//! From the bottom: `tree` and `point` hold rows; `row` and `records` say what rows are; `index`
//! and `secondary` find them by other keys; `table` keeps one table's parts in step; `schema`
//! lists the tables; `txn` changes them; `kv` reads them as Consul's KV endpoints do.

pub mod index;
mod kv;
pub mod point;
pub mod records;
pub mod row;
pub mod schema;
mod secondary;
pub mod table;
pub mod tree;
pub mod txn;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use kv::{KvKeys, KvList};
pub use records::RecordRow;
pub use row::{IndexRow, KvRow};
pub use schema::{TableViews, Tables};
pub use txn::Txn;

use schema::Change;
use table::Release;

/// All tables of one shard.
#[derive(Debug, Default)]
pub struct Store {
    tables: Tables,
    /// Undo log of the transaction under way; empty between transactions.
    changes: Vec<Change>,
    /// What replaced states left behind, to be freed in slices.
    leftovers: Vec<Box<dyn Release>>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_tables(tables: Tables) -> Self {
        Self {
            tables,
            ..Self::default()
        }
    }

    /// The tables, for reads.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Begins a transaction.
    pub fn begin(&mut self) -> Txn<'_> {
        Txn::new(self)
    }

    /// The state as it is now, for as long as the views are kept. O(1).
    pub fn views(&self) -> TableViews {
        self.tables.views()
    }

    /// Digest of all rows of all tables.
    pub fn digest(&self) -> u64 {
        self.tables.digest()
    }

    /// Becomes `new`. Views of the old state stay as they are; it is freed by [`Self::release_some`].
    pub fn replace(&mut self, new: Self) {
        let old = std::mem::replace(&mut self.tables, new.tables);
        self.leftovers.extend(old.discard());
        self.leftovers.extend(new.leftovers);
    }

    /// Frees about `rows` rows of what dropped views, removed prefixes and replaced states left
    /// behind; true while there is more. For the shard loop when it is idle: writes free a few by
    /// themselves, but nothing frees a replaced state except this.
    pub fn release_some(&mut self, rows: usize) -> bool {
        let more = self.tables.release_some(rows);
        let Some(oldest) = self.leftovers.first_mut() else {
            return more;
        };
        if !oldest.release_some(rows) {
            self.leftovers.remove(0);
        }
        more || !self.leftovers.is_empty()
    }
}

//! What does the cluster know? (API first; bodies follow.)
pub mod tree;

use bytes::Bytes;
use wire::{Index, KvRowRef};

/// One KV row: a cheap handle (one reference count) on one allocation.
#[derive(Clone, Debug)]
pub struct KvRow(std::rc::Rc<[u8]>);

impl KvRow {
    /// The row, borrowed.
    pub fn as_ref(&self) -> KvRowRef<'_> {
        todo!()
    }
    /// The key.
    pub fn key(&self) -> &[u8] {
        todo!()
    }
    /// Bytes that the row occupies (key, value and header).
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// All tables of one shard.
#[derive(Debug, Default)]
pub struct Store {}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
    /// One key: its `X-Consul-Index` and the row.
    pub fn kv_get(&self, _key: &[u8]) -> (Index, Option<KvRow>) {
        todo!()
    }
    /// Rows by prefix at this point in time, as a cursor; `limit` 0 for no bound.
    pub fn kv_list(&self, _prefix: &[u8], _start_after: &[u8], _limit: u64) -> KvList {
        todo!()
    }
    /// Key names by prefix at this point in time, cut after the first separator past the prefix.
    pub fn kv_keys(&self, _prefix: &[u8], _separator: &[u8]) -> KvKeys {
        todo!()
    }
    /// Number of KV rows.
    pub fn kv_len(&self) -> u64 {
        todo!()
    }
    /// Frees at most about `rows` rows of what dropped views and cut subtrees left behind.
    /// True while there is more. For the shard loop when idle; every write frees a few by itself.
    pub fn release_some(&mut self, _rows: usize) -> bool {
        todo!()
    }
}

/// A listing at one point in time: may be parked across awaits while writes go on.
#[derive(Debug)]
pub struct KvList {
    index: Index,
}

impl KvList {
    /// `X-Consul-Index`, known before the first row.
    pub fn index(&self) -> Index {
        self.index
    }
    /// Appends the next rows to `out`: at most `rows_max`, and no further row once they hold
    /// `bytes_max` bytes. False at the end: no later call yields rows.
    pub fn next_rows(
        &mut self,
        _rows_max: usize,
        _bytes_max: usize,
        _out: &mut Vec<KvRow>,
    ) -> bool {
        todo!()
    }
}

/// Key names at one point in time, in slices.
#[derive(Debug)]
pub struct KvKeys {
    index: Index,
}

impl KvKeys {
    /// `X-Consul-Index`, known before the first key.
    pub fn index(&self) -> Index {
        self.index
    }
    /// Appends the next at most `keys_max` names to `out`. False at the end.
    pub fn next_keys(&mut self, _keys_max: usize, _out: &mut Vec<Bytes>) -> bool {
        todo!()
    }
}

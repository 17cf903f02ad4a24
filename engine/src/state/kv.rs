//! What do Consul's KV reads answer, and with which `X-Consul-Index`?
//!
//! The index is what a blocking query waits on, so it must never be lower than the modify index
//! of a row in the answer, and everything that changes the answer later must raise it:
//!
//! | read | index |
//! |---|---|
//! | one key that exists | its modify index |
//! | one key that does not | greatest of the tables `kvs` and `tombstones` |
//! | a prefix | greatest of the matching rows and of the tombstones under the prefix; if there are neither, of the tables |
//! | the empty prefix | greatest of the tables |
//!
//! and 1 where that would be 0. It is known before the first row of a listing is read, because the
//! trees keep maxima of their subtrees. A limit changes the rows, not the index.

use bytes::Bytes;
use wire::Index;

use super::{
    Store, Tables,
    row::KvRow,
    schema::{Kvs, Tombstones},
    table::TableDef,
    tree::{Cursor, prefix_successor},
};

/// Consul never answers with index 0: a client would take it for "no index" and ask without waiting.
const INDEX_MIN: Index = Index(1);

impl Store {
    /// One key: its `X-Consul-Index`, and the row if there is one.
    pub fn kv_get(&self, key: &[u8]) -> (Index, Option<KvRow>) {
        match self.tables.kvs.get(key) {
            Some(row) => (row.modify_index().max(INDEX_MIN), Some(row.clone())),
            None => (kv_tables_index(&self.tables), None),
        }
    }

    /// The rows whose keys start with `prefix` and are greater than `start_after` (empty: all of
    /// them), at most `limit` (0: no bound), as they are now.
    pub fn kv_list(&self, prefix: &[u8], start_after: &[u8], limit: u64) -> KvList {
        let mut cursor = self.tables.kvs.view().prefix(prefix);
        if start_after >= prefix && !start_after.is_empty() {
            // The least key greater than a key is that key and a zero byte.
            cursor.seek(&[start_after, &[0]].concat());
        }
        KvList {
            index: self.kv_prefix_index(prefix),
            cursor,
            left: if limit == 0 { u64::MAX } else { limit },
        }
    }

    /// The keys that start with `prefix`, each cut behind the first `separator` past the prefix
    /// (empty: none is cut), each once, as they are now: those of the names that are greater than
    /// `start_after` (empty: all of them), at most `limit` (0: no bound).
    pub fn kv_keys(
        &self,
        prefix: &[u8],
        separator: &[u8],
        start_after: &[u8],
        limit: u64,
    ) -> KvKeys {
        let mut keys = KvKeys {
            index: self.kv_prefix_index(prefix),
            cursor: self.tables.kvs.view().prefix(prefix),
            prefix_length: prefix.len(),
            separator: separator.into(),
            left: if limit == 0 { u64::MAX } else { limit },
        };
        if start_after >= prefix && !start_after.is_empty() {
            keys.skip(start_after);
        }
        keys
    }

    /// Number of keys.
    pub fn kv_len(&self) -> u64 {
        self.tables.kvs.len() as u64
    }

    /// `X-Consul-Index` of a listing.
    pub fn kv_prefix_index(&self, prefix: &[u8]) -> Index {
        if !prefix.is_empty() {
            let rows = self.tables.kvs.view().max_stamp(prefix);
            let tombstones = self.tables.tombstones.view().max_stamp(prefix);
            if rows.max(tombstones) > 0 {
                return Index(rows.max(tombstones));
            }
        }
        kv_tables_index(&self.tables)
    }
}

fn kv_tables_index(tables: &Tables) -> Index {
    tables
        .max_index(&[Kvs::NAME, Tombstones::NAME])
        .max(INDEX_MIN)
}

/// Rows at one point in time: may be parked across awaits while writes go on.
#[derive(Debug)]
pub struct KvList {
    index: Index,
    cursor: Cursor<KvRow>,
    left: u64,
}

impl KvList {
    /// `X-Consul-Index`.
    pub fn index(&self) -> Index {
        self.index
    }

    /// Appends the next rows to `out`: at most `rows_max`, and none after those that bring the
    /// rows appended by this call to `bytes_max` bytes. False once there are no more.
    pub fn next_rows(&mut self, rows_max: usize, bytes_max: usize, out: &mut Vec<KvRow>) -> bool {
        let (mut rows, mut bytes) = (0, 0);
        while self.left > 0 {
            if rows == rows_max || bytes >= bytes_max {
                return true;
            }
            let left = &mut self.left;
            let more = self.cursor.scan(|row| {
                out.push(row.clone());
                rows += 1;
                bytes += row.bytes();
                *left -= 1;
                *left > 0 && rows < rows_max && bytes < bytes_max
            });
            if !more {
                self.left = 0;
            }
        }
        false
    }
}

/// Key names at one point in time: may be parked across awaits while writes go on.
#[derive(Debug)]
pub struct KvKeys {
    index: Index,
    cursor: Cursor<KvRow>,
    prefix_length: usize,
    separator: Box<[u8]>,
    left: u64,
}

impl KvKeys {
    /// `X-Consul-Index`.
    pub fn index(&self) -> Index {
        self.index
    }

    /// Appends the next at most `keys_max` names to `out`. False once there are no more.
    ///
    /// A group of keys that share a name costs one search, however many they are.
    pub fn next_keys(&mut self, keys_max: usize, out: &mut Vec<Bytes>) -> bool {
        for _ in 0..keys_max {
            if self.left == 0 {
                break;
            }
            let Some(row) = self.cursor.take(1).first() else {
                self.left = 0;
                break;
            };
            self.left -= 1;
            let Some(end) = name_end(row.key(), self.prefix_length, &self.separator) else {
                out.push(Bytes::copy_from_slice(row.key()));
                continue;
            };
            let name = Bytes::copy_from_slice(&row.key()[..end]);
            self.skip_group(&name);
            out.push(name);
        }
        self.left > 0
    }

    /// Goes behind all names up to `last`, which is not less than the prefix.
    fn skip(&mut self, last: &[u8]) {
        // It may be a group's name or a key in one: the group's name is not greater than it.
        let in_group = last
            .get(self.prefix_length..)
            .and_then(|_| name_end(last, self.prefix_length, &self.separator));
        match in_group {
            Some(end) => self.skip_group(&last[..end]),
            // The least key greater than a key is that key and a zero byte.
            None => self.cursor.seek(&[last, &[0]].concat()),
        }
    }

    /// Goes behind all keys that are listed as `name`.
    fn skip_group(&mut self, name: &[u8]) {
        match prefix_successor(name) {
            Some(next) => self.cursor.seek(&next),
            None => self.left = 0,
        }
    }
}

/// Where the name ends that `key` is listed under; `None` for the whole key.
fn name_end(key: &[u8], prefix_length: usize, separator: &[u8]) -> Option<usize> {
    if separator.is_empty() {
        return None;
    }
    let rest = &key[prefix_length..];
    let at = rest
        .windows(separator.len())
        .position(|window| window == separator)?;
    Some(prefix_length + at + separator.len())
}

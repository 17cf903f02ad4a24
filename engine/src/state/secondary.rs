//! How is a row found by something that is not its primary key?
//!
//! A tree of entries {index key, primary key}, ordered by both. Entries hold no row: a write that
//! leaves the index key as it was does not touch the index at all, which for KV rows without a
//! session is every write.
//!
//! ```text
//! +-----------+-------------+------------+
//! | index key | primary key | length u32 |     length: of the index key, big-endian
//! +-----------+-------------+------------+
//! ```
//! The length also keeps entries apart whose two keys read the same when put together.

use std::rc::Rc;

use super::{
    index::{IndexDef, IndexError, Keys},
    tree::{Graveyard, Keyed, Tree},
};

/// One entry, see the [module](self).
#[derive(Clone, Debug)]
pub struct IndexEntry(Rc<[u8]>);

impl IndexEntry {
    fn new(key: &[u8], primary: &[u8]) -> Self {
        let length =
            u32::try_from(key.len()).expect("index keys are made of rows, which are far smaller");
        Self([key, primary, &length.to_be_bytes()].concat().into())
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let (keys, length) = self
            .0
            .split_last_chunk::<4>()
            .expect("an entry ends in a length");
        keys.split_at(u32::from_be_bytes(*length) as usize)
    }
}

impl Keyed for IndexEntry {
    fn key(&self) -> &[u8] {
        &self.0
    }
}

/// One index of a table.
#[derive(Debug)]
pub(super) struct Secondary<R: 'static> {
    def: IndexDef<R>,
    entries: Tree<IndexEntry>,
    /// Keys of the row that goes and of the row that comes, between `prepare` and `apply`.
    going: Keys,
    coming: Keys,
}

impl<R> Secondary<R> {
    pub(super) fn new(def: IndexDef<R>) -> Self {
        Self {
            def,
            entries: Tree::new(),
            going: Keys::default(),
            coming: Keys::default(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.def.name
    }

    pub(super) fn def(&self) -> &IndexDef<R> {
        &self.def
    }

    /// Works out what replacing `old` by `new` means here, and whether it is allowed. Changes nothing.
    pub(super) fn prepare(&mut self, old: Option<&R>, new: Option<&R>) -> Result<(), IndexError> {
        self.going.clear();
        self.coming.clear();
        if let Some(old) = old {
            self.def.keys_of(old, &mut self.going)?;
        }
        if let Some(new) = new {
            self.def.keys_of(new, &mut self.coming)?;
        }
        if self.def.attributes.unique {
            // A key that the old row has too is its own.
            let taken = |key: &[u8]| !self.going.contains(key) && self.has(key);
            if self.coming.iter().any(taken) {
                return Err(IndexError::NotUnique {
                    index: self.def.name,
                });
            }
        }
        Ok(())
    }

    /// Carries out what was prepared, for the row of this primary key.
    pub(super) fn apply(&mut self, primary: &[u8]) {
        let Self {
            going,
            coming,
            entries,
            ..
        } = self;
        for key in going.iter().filter(|key| !coming.contains(key)) {
            entries.remove(IndexEntry::new(key, primary).key());
        }
        for key in coming.iter().filter(|key| !going.contains(key)) {
            entries.insert(IndexEntry::new(key, primary));
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Removes the entries of all rows whose primary keys start with `prefix`; looks at every entry.
    pub(super) fn remove_primary_prefix(&mut self, prefix: &[u8]) {
        let mut gone = Vec::new();
        self.scan(&[], |entry| {
            if entry.split().1.starts_with(prefix) {
                gone.push(entry.clone());
            }
            true
        });
        for entry in gone {
            self.entries.remove(entry.key());
        }
    }

    fn has(&self, key: &[u8]) -> bool {
        let mut found = false;
        self.find(key, |_| {
            found = true;
            false
        });
        found
    }

    /// Calls `each` with the primary keys under this index key until it returns false.
    pub(super) fn find(&self, key: &[u8], mut each: impl FnMut(&[u8]) -> bool) {
        self.scan(key, |entry| {
            let (index_key, primary) = entry.split();
            // A longer index key that starts like this one is another key.
            index_key.len() != key.len() || each(primary)
        });
    }

    /// Calls `each` with the primary keys under index keys with this prefix until it returns false.
    pub(super) fn find_prefix(&self, prefix: &[u8], mut each: impl FnMut(&[u8]) -> bool) {
        self.scan(prefix, |entry| {
            let (index_key, primary) = entry.split();
            // An entry may start like this only together with its primary key.
            index_key.len() < prefix.len() || each(primary)
        });
    }

    fn scan(&self, prefix: &[u8], mut each: impl FnMut(&IndexEntry) -> bool) {
        let mut cursor = self.entries.view().prefix(prefix);
        loop {
            let entries = cursor.take(usize::MAX);
            if entries.is_empty() || !entries.iter().all(&mut each) {
                return;
            }
        }
    }

    pub(super) fn release_some(&self, rows: usize) -> bool {
        self.entries.release_some(rows)
    }

    pub(super) fn graveyard(&self) -> Graveyard<IndexEntry> {
        self.entries.graveyard().clone()
    }

    /// All entries, for checks.
    pub(super) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.entries.check();
        let mut all = Vec::new();
        self.scan(&[], |entry| {
            let (key, primary) = entry.split();
            all.push((key.to_vec(), primary.to_vec()));
            true
        });
        all
    }
}

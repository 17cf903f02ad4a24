//! How do a table and its indexes stay one thing?
//!
//! A table is its rows in a [`Tree`] by primary key, beside it where worthwhile a [`PointIndex`],
//! and a tree of entries for each further index. Every change goes through [`Table::put`],
//! [`Table::remove`] or [`Table::remove_prefix`], which check everything that can be refused
//! before they change anything, and keep rows and indexes in step.
//!
//! Removing a prefix is the one thing that the point index does not follow at once: taking a
//! million rows out of it would stall the server for half a second. The rows leave the tree by a
//! cut; the prefix is noted as a cut, keys under it are looked up in the tree for the time
//! being, and every write (and an idle owner) sweeps some of the cut's rows out of the point index.
//!
//! Invariant ([`Table::check`]): every index holds exactly the keys of the table's rows, but for
//! the point index's rows under a prefix that is still being swept.

use std::collections::VecDeque;

use super::{
    index::{IndexDef, IndexError, Key, Keys, Lookup},
    point::{DiscardedPart, PointIndex},
    row::Row,
    secondary::Secondary,
    tree::{Cursor, Graveyard, Keyed, Tree, TreeBuilder, View},
};

/// What the schema says of a table.
pub trait TableDef: 'static {
    /// Its rows.
    type Row: Row;
    /// Its number in images and in the state digest: never changed, never used again.
    const ID: u16;
    /// Its name, also its key in the index table.
    const NAME: &'static str;
    /// Whether rows are also found by a hash of the primary key: for tables of very many rows.
    const POINT_INDEX: bool;
    /// The primary index, by which rows are ordered: unique, and written as the row's own key.
    fn primary() -> IndexDef<Self::Row>;
    /// All other indexes.
    fn secondaries() -> Vec<IndexDef<Self::Row>>;
}

/// Rows of a cut that a write takes out of the point index: a few microseconds.
const SWEPT_PER_WRITE: usize = if cfg!(test) { 1 } else { 8 };
/// Rows of a cut that are taken out of the point index at once; most cuts are smaller. (Tests use
/// small numbers, so that cuts are left waiting.)
const SWEPT_AT_ONCE: usize = if cfg!(test) { 1 } else { 256 };
/// Cuts that may wait to be swept; one more, and the oldest is swept to its end.
const CUTS_MAX: usize = if cfg!(test) { 4 } else { 64 };

/// Rows that have left the tree but maybe not the point index.
#[derive(Debug)]
struct Cut<R: Row> {
    prefix: Box<[u8]>,
    /// Over the tree before the cut: the rows that are not swept yet.
    rows: Cursor<R>,
}

/// One table.
#[derive(Debug)]
pub struct Table<D: TableDef> {
    rows: Tree<D::Row>,
    point: Option<PointIndex<D::Row>>,
    /// Oldest first; empty without a point index.
    cuts: VecDeque<Cut<D::Row>>,
    secondaries: Vec<Secondary<D::Row>>,
}

impl<D: TableDef> Default for Table<D> {
    fn default() -> Self {
        Self::with_rows(Tree::new())
    }
}

/// What a table's rows' digests are multiplied with, so that a row counts differently in each table.
pub(crate) fn digest_weight(table: u16) -> u64 {
    (u64::from(table) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

impl<D: TableDef> Table<D> {
    fn with_rows(rows: Tree<D::Row>) -> Self {
        Self {
            rows,
            point: D::POINT_INDEX.then(PointIndex::new),
            cuts: VecDeque::new(),
            secondaries: D::secondaries().into_iter().map(Secondary::new).collect(),
        }
    }

    /// The row of this primary key.
    pub fn get(&self, key: &[u8]) -> Option<&D::Row> {
        match &self.point {
            Some(point) if !self.cuts.iter().any(|cut| key.starts_with(&cut.prefix)) => {
                point.get(key)
            }
            _ => self.rows.get(key),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Sum over the rows' digests, weighted for the table.
    pub fn digest(&self) -> u64 {
        self.rows.digest().wrapping_mul(digest_weight(D::ID))
    }

    /// The rows as they are now. O(1).
    pub fn view(&self) -> View<D::Row> {
        self.rows.view()
    }

    /// Puts a row in; returns the one that had its key. On an error nothing changed.
    pub fn put(&mut self, row: D::Row) -> Result<Option<D::Row>, IndexError> {
        self.sweep(SWEPT_PER_WRITE);
        let old = self.get(row.key()).cloned();
        for secondary in &mut self.secondaries {
            secondary.prepare(old.as_ref(), Some(&row))?;
        }
        self.secondaries
            .iter_mut()
            .for_each(|secondary| secondary.apply(row.key()));
        if let Some(point) = &mut self.point {
            point.insert(row.clone());
        }
        self.rows.insert(row);
        Ok(old)
    }

    /// Takes out the row of this primary key.
    pub fn remove(&mut self, key: &[u8]) -> Option<D::Row> {
        self.sweep(SWEPT_PER_WRITE);
        let old = self.rows.remove(key)?;
        if let Some(point) = &mut self.point {
            point.remove(old.key());
        }
        forget(&mut self.secondaries, &old);
        Some(old)
    }

    /// Removes all rows whose primary key starts with `prefix`; returns how many, and the rows as
    /// they were before. `None` where there is no such row.
    ///
    /// Takes as long for a million rows as for ten, except that each row's entries in other
    /// indexes go at once.
    pub fn remove_prefix(&mut self, prefix: &[u8]) -> Option<(usize, View<D::Row>)> {
        let (count, before) = self.rows.remove_prefix(prefix)?;
        for at in 0..self.secondaries.len() {
            // Whichever is less to look at: the entries of the index, or the rows that went.
            if self.secondaries[at].len() <= count {
                self.secondaries[at].remove_primary_prefix(prefix);
            } else {
                each(before.prefix(prefix), |row| {
                    forget(&mut self.secondaries[at..=at], row)
                });
            }
        }
        if self.point.is_some() {
            self.cuts.push_back(Cut {
                prefix: prefix.into(),
                rows: before.prefix(prefix),
            });
            let overdue = self.cuts.len() > CUTS_MAX;
            self.sweep(if overdue { usize::MAX } else { SWEPT_AT_ONCE });
        }
        Some((count, before))
    }

    /// Takes [`Self::remove_prefix`] back; the table must be as it left it.
    pub(super) fn undo_remove_prefix(&mut self, prefix: &[u8], before: &View<D::Row>) {
        self.rows.restore(before);
        if let Some(cut) = self.cuts.iter().rposition(|cut| *cut.prefix == *prefix) {
            self.cuts.remove(cut);
        }
        each(before.prefix(prefix), |row| {
            if let Some(point) = &mut self.point {
                point.insert(row.clone());
            }
            for secondary in &mut self.secondaries {
                let known = secondary.prepare(None, Some(row));
                known.expect("it was stored before");
                secondary.apply(row.key());
            }
        });
    }

    /// Takes about `rows` rows of the oldest cut out of the point index; true while there are more.
    fn sweep(&mut self, rows: usize) -> bool {
        let (Some(cut), Some(point)) = (self.cuts.front_mut(), &mut self.point) else {
            return false;
        };
        let mut left = rows;
        while left > 0 {
            let more = cut.rows.scan(|gone| {
                // A row that was written under this key since is not the one that went.
                point.remove_if(gone.key(), |held| held.is(gone));
                left -= 1;
                left > 0
            });
            if !more {
                self.cuts.pop_front();
                break;
            }
        }
        !self.cuts.is_empty()
    }

    /// The first row that an index finds.
    pub fn first<'q, L: Lookup<D::Row>>(
        &self,
        index: &L,
        query: L::Query<'q>,
    ) -> Result<Option<D::Row>, IndexError> {
        let mut found = None;
        self.find(index, query, |row| {
            found = Some(row.clone());
            false
        })?;
        Ok(found)
    }

    /// Calls `each` with the rows under one key of an index, in order of the primary key, until it
    /// returns false.
    pub fn find<'q, L: Lookup<D::Row>>(
        &self,
        index: &L,
        query: L::Query<'q>,
        mut each: impl FnMut(&D::Row) -> bool,
    ) -> Result<(), IndexError> {
        let mut key = Key::default();
        index.read(query, &mut key)?;
        if index.def().name == D::primary().name {
            self.get(key.as_bytes()).map(each);
            return Ok(());
        }
        self.secondary(&index.def())
            .find(key.as_bytes(), |primary| each(self.indexed(primary)));
        Ok(())
    }

    /// Calls `each` with the rows whose keys in an index start with the query's, in order of these
    /// keys, until it returns false. A row with several such keys comes several times.
    pub fn find_prefix<'q, L: Lookup<D::Row>>(
        &self,
        index: &L,
        query: L::Query<'q>,
        mut each: impl FnMut(&D::Row) -> bool,
    ) -> Result<(), IndexError> {
        let def = index.def();
        if !def.attributes.prefix {
            return Err(IndexError::NoPrefix { index: def.name });
        }
        let mut key = Key::default();
        index.read_prefix(query, &mut key)?;
        if def.name != D::primary().name {
            self.secondary(&def)
                .find_prefix(key.as_bytes(), |primary| each(self.indexed(primary)));
            return Ok(());
        }
        let mut cursor = self.rows.view().prefix(key.as_bytes());
        loop {
            let rows = cursor.take(usize::MAX);
            if rows.is_empty() || !rows.iter().all(&mut each) {
                return Ok(());
            }
        }
    }

    /// Primary keys under one key, as bytes, of the index of this name.
    #[cfg(test)]
    pub(super) fn find_raw(&self, index: &str, key: &[u8]) -> Vec<Vec<u8>> {
        if index == D::primary().name {
            return self
                .get(key)
                .map(|row| row.key().to_vec())
                .into_iter()
                .collect();
        }
        let mut found = Vec::new();
        let secondary = self
            .secondaries
            .iter()
            .find(|secondary| secondary.name() == index);
        secondary
            .expect("an index of the table")
            .find(key, |primary| {
                found.push(primary.to_vec());
                true
            });
        found
    }

    fn secondary(&self, def: &IndexDef<D::Row>) -> &Secondary<D::Row> {
        let found = self
            .secondaries
            .iter()
            .find(|secondary| secondary.name() == def.name);
        found.unwrap_or_else(|| panic!("table '{}' has no index '{}'", D::NAME, def.name))
    }

    fn indexed(&self, primary: &[u8]) -> &D::Row {
        self.get(primary)
            .expect("an index names only rows of its table")
    }

    /// Frees about `rows` rows of what views and removals left behind; true while there is more.
    pub fn release_some(&mut self, rows: usize) -> bool {
        let more = self.sweep(rows) | self.rows.release_some(rows);
        self.secondaries
            .iter()
            .fold(more, |more, secondary| secondary.release_some(rows) || more)
    }

    /// Takes the table apart, so that its memory can be given back in slices.
    pub(super) fn discard(mut self) -> Discarded<D::Row> {
        Discarded {
            parts: self
                .point
                .as_mut()
                .map(PointIndex::take_parts)
                .unwrap_or_default(),
            secondaries: self.secondaries.iter().map(Secondary::graveyard).collect(),
            rows: self.rows.graveyard().clone(),
        }
    }

    /// Proves the invariant of the module text, for tests and offline checks: O(rows).
    pub fn check(&self) {
        self.rows.check();
        let mut expected: Vec<Vec<(Vec<u8>, Vec<u8>)>> = vec![Vec::new(); self.secondaries.len()];
        let mut keys = Default::default();
        each(self.rows.view().cursor(), |row| {
            assert!(self.get(row.key()).is_some_and(|found| found.is(row)));
            if let Some(point) = &self.point {
                assert!(point.get(row.key()).is_some_and(|found| found.is(row)));
            }
            D::primary()
                .keys_of(row, &mut keys)
                .expect("a stored row has a primary key");
            assert_eq!(
                keys.iter().collect::<Vec<_>>(),
                [row.key()],
                "primary index of '{}'",
                D::NAME
            );
            for (secondary, expected) in self.secondaries.iter().zip(&mut expected) {
                secondary
                    .def()
                    .keys_of(row, &mut keys)
                    .expect("a stored row fits its indexes");
                expected.extend(keys.iter().map(|key| (key.to_vec(), row.key().to_vec())));
            }
        });
        if let Some(point) = &self.point {
            let unswept = self
                .cuts
                .iter()
                .map(|cut| cut.rows.view().len())
                .sum::<usize>();
            assert!(point.len() >= self.len() && point.len() <= self.len() + unswept);
        }
        for (secondary, mut expected) in self.secondaries.iter().zip(expected) {
            let mut found = secondary.entries();
            found.sort();
            expected.sort();
            assert_eq!(
                found,
                expected,
                "index '{}' of '{}'",
                secondary.name(),
                D::NAME
            );
            let mut index_keys: Vec<_> = expected.iter().map(|(key, _)| key).collect();
            index_keys.dedup();
            assert!(!secondary.def().attributes.unique || index_keys.len() == expected.len());
        }
    }
}

/// Takes a row that has left the tree out of these indexes.
fn forget<R: Row>(secondaries: &mut [Secondary<R>], old: &R) {
    for secondary in secondaries {
        let allowed = secondary.prepare(Some(old), None);
        allowed.expect("a removal violates nothing");
        secondary.apply(old.key());
    }
}

fn each<R: Row>(mut cursor: Cursor<R>, mut each: impl FnMut(&R)) {
    loop {
        let rows = cursor.take(usize::MAX);
        if rows.is_empty() {
            return;
        }
        rows.iter().for_each(&mut each);
    }
}

/// What is left of a table that was replaced.
#[derive(Debug)]
pub(super) struct Discarded<R: Row> {
    parts: Vec<DiscardedPart<R>>,
    secondaries: Vec<Graveyard<super::secondary::IndexEntry>>,
    rows: Graveyard<R>,
}

/// Something that is given back in slices.
pub(super) trait Release: std::fmt::Debug {
    /// Frees about `rows` rows; true while there is or can be more.
    fn release_some(&mut self, rows: usize) -> bool;
}

impl<R: Row> Release for Discarded<R> {
    fn release_some(&mut self, rows: usize) -> bool {
        let mut done = 0;
        while done < rows {
            // The tree still holds every row, so this only counts references down.
            let Some(part) = self.parts.pop() else { break };
            done += part.len();
        }
        if !self.parts.is_empty() {
            return true;
        }
        let left = rows.saturating_sub(done);
        let more = self.rows.release_some(left) || self.rows.is_shared();
        self.secondaries
            .iter()
            .fold(more, |more, graveyard| graveyard.release_some(left) || more)
    }
}

/// Builds a table from rows in ascending order of the primary key.
#[derive(Debug)]
pub(crate) struct TableBuilder<D: TableDef> {
    rows: TreeBuilder<D::Row>,
    rest: Table<D>,
    /// Scratch space.
    keys: Keys,
}

impl<D: TableDef> Default for TableBuilder<D> {
    fn default() -> Self {
        Self {
            rows: TreeBuilder::new(),
            rest: Table::default(),
            keys: Keys::default(),
        }
    }
}

/// Why a row cannot be part of the table that is being built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("rows are not in ascending order of their keys")]
    Order,
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl<D: TableDef> TableBuilder<D> {
    /// Adds the next row.
    pub(crate) fn push(&mut self, row: D::Row) -> Result<(), BuildError> {
        D::primary().keys_of(&row, &mut self.keys)?;
        self.rows.push(row.clone()).map_err(|_| BuildError::Order)?;
        for secondary in &mut self.rest.secondaries {
            secondary.prepare(None, Some(&row))?;
            secondary.apply(row.key());
        }
        if let Some(point) = &mut self.rest.point {
            point.insert(row);
        }
        Ok(())
    }

    /// Number of rows so far.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The table.
    pub(crate) fn finish(self) -> Table<D> {
        Table {
            rows: self.rows.finish(),
            ..self.rest
        }
    }
}

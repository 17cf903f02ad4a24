//! How does a run of commands change the state all at once, and one of them not at all?
//!
//! A transaction changes the tables in place and keeps, for each change, the row that was there
//! before. That list is the undo log (back to a [`Savepoint`], or all of it when the transaction
//! is dropped), and at the commit it is what watches will be woken by: [`Txn::changes`].
//! Readers run between transactions and hold views, so nobody sees half of one.
//!
//! The greatest modify index per table, and of whatever else the index table has rows for, is
//! gathered here and written once per run ([`Txn::settle`]), not once per command.

use arrayvec::ArrayVec;
use wire::Index;

use super::{
    Store,
    index::IndexError,
    records::{Record, RecordError, RecordRow},
    row::IndexRow,
    schema::{Change, InSchema, Indexes, RowChange, Tables},
};

/// More changes than this are not kept allocated after a commit.
const CHANGES_KEPT: usize = 16 * 1024;

/// Tables whose modify index rises with this run.
type Touched = ArrayVec<(&'static str, Index), { Tables::ALL.len() }>;

/// Row of the index table that rises with this run, or goes.
type Named = (Box<str>, Option<Index>);

/// A moment within a transaction that can be returned to.
#[derive(Clone, Debug)]
pub struct Savepoint {
    changes: usize,
    touched: Touched,
    named: usize,
}

/// Why a record was not put into its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// It is too long.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An index refuses it.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// A transaction over all tables: all of it or, if it is dropped, nothing.
#[derive(Debug)]
pub struct Txn<'s> {
    store: &'s mut Store,
    touched: Touched,
    /// In the order in which it was said; the last word on a name counts.
    named: Vec<Named>,
}

impl<'s> Txn<'s> {
    pub(super) fn new(store: &'s mut Store) -> Self {
        debug_assert!(store.changes.is_empty());
        Self {
            store,
            touched: Touched::new(),
            named: Vec::new(),
        }
    }

    /// The state with all changes so far, except the index table (see [`Self::settle`]).
    pub fn tables(&self) -> &Tables {
        &self.store.tables
    }

    /// A row by its primary key.
    pub fn get<D: InSchema>(&self, key: &[u8]) -> Option<&D::Row> {
        D::of(&self.store.tables).get(key)
    }

    /// Puts a row in, in the place of the one with its key. On an error nothing changed.
    pub fn put<D: InSchema>(&mut self, row: D::Row) -> Result<(), IndexError> {
        let old = D::of_mut(&mut self.store.tables).put(row.clone())?;
        self.store
            .changes
            .push(D::change(RowChange::Put { old, new: row }));
        Ok(())
    }

    /// Puts a record in, in the place of the one with its key. On an error nothing changed.
    pub fn put_record<D, T>(&mut self, record: T) -> Result<(), PutError>
    where
        D: InSchema<Row = RecordRow<T>>,
        T: Record,
    {
        Ok(self.put::<D>(RecordRow::new(record)?)?)
    }

    /// Takes out a row; false where there is none.
    pub fn remove<D: InSchema>(&mut self, key: &[u8]) -> bool {
        let Some(old) = D::of_mut(&mut self.store.tables).remove(key) else {
            return false;
        };
        self.store
            .changes
            .push(D::change(RowChange::Removed { old }));
        true
    }

    /// Takes out all rows whose primary keys start with `prefix`; returns how many.
    pub fn remove_prefix<D: InSchema>(&mut self, prefix: &[u8]) -> usize {
        let Some((count, before)) = D::of_mut(&mut self.store.tables).remove_prefix(prefix) else {
            return 0;
        };
        self.store.changes.push(D::change(RowChange::PrefixRemoved {
            prefix: prefix.into(),
            before,
        }));
        count
    }

    /// Says that table `D` changed at `index`.
    pub fn touch<D: InSchema>(&mut self, index: Index) {
        match self.touched.iter_mut().find(|(name, _)| *name == D::NAME) {
            Some((_, at)) => *at = index,
            None => self.touched.push((D::NAME, index)),
        }
    }

    /// Says that what the row `name` of the index table stands for changed at `index`. Names of
    /// tables have [`Self::touch`].
    pub fn touch_named(&mut self, name: impl Into<Box<str>>, index: Index) {
        self.named.push((name.into(), Some(index)));
    }

    /// Says that what the row `name` of the index table stands for is gone, and its row with it.
    pub fn forget_named(&mut self, name: impl Into<Box<str>>) {
        self.named.push((name.into(), None));
    }

    /// Writes what was touched into the index table. Done by `commit`, and before a digest is taken.
    pub fn settle(&mut self) {
        let mut named = std::mem::take(&mut self.named);
        // Stable, so the last word on a name is the last of its group.
        named.sort_by(|a, b| a.0.cmp(&b.0));
        for said in named.chunk_by(|a, b| a.0 == b.0) {
            match said.last().expect("groups are not empty") {
                (name, Some(index)) => self
                    .put::<Indexes>(IndexRow::new(name.as_bytes(), *index))
                    .expect("index rows violate nothing"),
                (name, None) => {
                    self.remove::<Indexes>(name.as_bytes());
                }
            }
        }
        for (name, index) in std::mem::take(&mut self.touched) {
            self.put::<Indexes>(IndexRow::new(name.as_bytes(), index))
                .expect("index rows violate nothing");
        }
    }

    /// What has changed since the transaction began, oldest first.
    pub fn changes(&self) -> &[Change] {
        &self.store.changes
    }

    /// This moment, for [`Self::rollback_to`].
    pub fn savepoint(&self) -> Savepoint {
        Savepoint {
            changes: self.store.changes.len(),
            touched: self.touched.clone(),
            named: self.named.len(),
        }
    }

    /// Undoes everything since `savepoint`, newest first.
    pub fn rollback_to(&mut self, savepoint: Savepoint) {
        self.undo(savepoint.changes);
        self.touched = savepoint.touched;
        self.named.truncate(savepoint.named);
    }

    fn undo(&mut self, length: usize) {
        while self.store.changes.len() > length {
            let change = self.store.changes.pop().expect("longer than nothing");
            self.store.tables.undo(change);
        }
    }

    /// Makes all changes final.
    pub fn commit(mut self) {
        self.settle();
        self.store.changes.clear();
        self.store.changes.shrink_to(CHANGES_KEPT);
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        self.undo(0);
    }
}

//! How can a million rows be read at one point in time while they are being written?
//!
//! [`Tree`] is a persistent ordered map: a copy-on-write B+tree whose nodes are shared by
//! reference count. A [`View`] is one more reference to the root, so opening one costs the same
//! for ten rows and for ten million; from then on a write copies the nodes on its path that a
//! view still needs, and changes all others in place. `std`'s `BTreeMap` would have to be cloned
//! (80 ms at a million rows); `imbl`'s map opens views as cheaply, but closing one frees all that
//! it alone still held in one go (39 ms after 100,000 writes). Here nothing is freed on the
//! spot: what a view leaves behind goes to a [`Graveyard`], from which every
//! write takes a few rows ([`RELEASED_PER_WRITE`]) and an idle owner the rest
//! ([`Tree::release_some`]).
//!
//! Two things make point operations cheap although a row lies behind a pointer:
//! nodes keep the first eight bytes in which their keys can differ, so that a search touches
//! one row and not twenty (`node`); and inner nodes keep a summary of each subtree (`summary`), so that the
//! `X-Consul-Index` of a listing is known before its first row is read ([`View::max_stamp`]), and
//! removing a prefix takes no longer for a million rows than for ten.
//!
//! Invariants ([`Tree::check`] proves them in tests): keys ascend strictly; every key of a
//! subtree lies between the separators around it; every node's `skip` is at most what those two
//! separators have in common; summaries are exact; no node but an empty root is empty.

mod build;
mod cut;
mod graveyard;
mod insert;
mod node;
mod remove;
mod summary;
mod view;

#[cfg(test)]
mod tests;

pub use build::TreeBuilder;
pub use graveyard::Graveyard;
pub use view::{Cursor, View};

use node::Link;
use summary::Summary;

/// Rows that a write frees from the graveyard beyond its own work: enough that a steady stream of
/// writes frees faster than it copies, little enough (about 2 µs) that no write is noticeably slow.
pub const RELEASED_PER_WRITE: usize = 96;

/// What a tree holds: a cheap handle on something that carries its own key.
pub trait Keyed: Clone {
    /// The key, the same for as long as the row exists.
    fn key(&self) -> &[u8];
    /// A number of which the tree keeps the maximum over any prefix; a row's modify index.
    fn stamp(&self) -> u64 {
        0
    }
    /// A number of which the tree keeps the sum (modulo 2⁶⁴): a hash of the whole row.
    fn digest(&self) -> u64 {
        0
    }
}

/// The persistent ordered map, see the [module](self).
#[derive(Debug)]
pub struct Tree<T: Keyed> {
    root: Option<Link<T>>,
    len: usize,
    graveyard: Graveyard<T>,
}

impl<T: Keyed> Default for Tree<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Keyed> Tree<T> {
    /// An empty tree.
    pub fn new() -> Self {
        Self {
            root: None,
            len: 0,
            graveyard: Graveyard::new(),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The row of this key.
    pub fn get(&self, key: &[u8]) -> Option<&T> {
        self.root.as_ref()?.get(key)
    }

    /// Sum of the rows' digests, modulo 2⁶⁴.
    pub fn digest(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.summary().digest)
    }

    /// The tree as it is now, for as long as the view is kept. O(1).
    pub fn view(&self) -> View<T> {
        View::new(self.root.clone(), self.len, self.graveyard.clone())
    }

    /// Removes all rows in O(1); they are freed in slices.
    pub fn clear(&mut self) {
        self.len = 0;
        if let Some(root) = self.root.take() {
            self.graveyard.bury(root);
        }
    }

    /// Becomes what it was when `view` was taken from it, in O(1).
    ///
    /// Views taken since keep what they saw.
    pub(crate) fn restore(&mut self, view: &View<T>) {
        let (root, len) = view.parts();
        if let Some(old) = std::mem::replace(&mut self.root, root) {
            self.graveyard.bury(old);
        }
        self.len = len;
    }

    /// Frees about `rows` rows of what views and removals left behind; true while there is more.
    pub fn release_some(&self, rows: usize) -> bool {
        self.graveyard.release_some(rows)
    }

    /// Where this tree's views leave what they held; outlives the tree.
    pub(crate) fn graveyard(&self) -> &Graveyard<T> {
        &self.graveyard
    }

    fn release_after_write(&self) {
        self.graveyard.release_some(RELEASED_PER_WRITE);
    }

    /// Panics unless every invariant of the module text holds. For tests.
    pub fn check(&self) {
        let count = self.root.as_ref().map_or(0, |root| root.check(None, None));
        assert_eq!(count, self.len, "rows counted and rows claimed");
    }
}

impl<T: Keyed> Drop for Tree<T> {
    /// Leaves the rows to the graveyard, whose other holders (views, or whoever replaced the
    /// state) free them in slices; where nobody else holds it, this is the end of the process or
    /// of a test, and all goes at once.
    fn drop(&mut self) {
        self.clear();
    }
}

/// Number of leading bytes that two keys share.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The least key that is greater than every key starting with `prefix`; `None` where no key is.
pub fn prefix_successor(prefix: &[u8]) -> Option<Box<[u8]>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor.into_boxed_slice())
}

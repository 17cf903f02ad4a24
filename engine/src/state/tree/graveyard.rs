//! Who frees the nodes that nobody needs any more, and when?
//!
//! Dropping the last reference to a subtree frees every row in it, on the spot: tens of
//! milliseconds for what a view of a large table alone still held. So roots are never dropped
//! where they might be the last reference; they are put here, and taken apart a few rows at a
//! time by whoever has time. Shared by a tree and all its views, and outlives each of them.
//!
//! Invariant: no borrow of the list is held while rows are dropped.

use std::{cell::RefCell, rc::Rc};

use super::{Keyed, node::Link};

/// What is waiting to be freed; a handle, shared by a tree and its views.
#[derive(Debug)]
pub struct Graveyard<T>(Rc<RefCell<Vec<Link<T>>>>);

impl<T> Clone for Graveyard<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: Keyed> Default for Graveyard<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Keyed> Graveyard<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self(Rc::default())
    }

    /// Takes over a reference that may be the last one. O(1).
    pub(super) fn bury(&self, link: Link<T>) {
        if link.is_last() {
            self.0.borrow_mut().push(link);
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Whether a tree or a view may still add to it.
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Frees nodes until about `rows` rows (at most a leaf more) are done with; true while there is more.
    pub fn release_some(&self, rows: usize) -> bool {
        let mut done = 0;
        while done < rows {
            let Some(link) = self.0.borrow_mut().pop() else {
                return false;
            };
            match link {
                Link::Leaf(leaf) => done += Rc::into_inner(leaf).map_or(1, |leaf| leaf.rows.len()),
                Link::Inner(inner) => {
                    done += 1;
                    if let Some(inner) = Rc::into_inner(inner) {
                        self.0.borrow_mut().extend(inner.children);
                    }
                }
            }
        }
        !self.is_empty()
    }
}

//! How do all keys with a prefix go at once?
//!
//! They are neighbours, so only the nodes on the way to the first and to the last of them change;
//! every subtree in between is unlinked whole. A view taken before keeps all of it: that is how
//! the caller walks what was removed, how a transaction undoes it (the old root goes back), and
//! why nothing is freed here.

use std::rc::Rc;

use super::{
    Keyed, Tree, View,
    node::{Fence, Inner, Link, fences},
    prefix_successor,
    remove::{Edge, mend, merge_if_thin, remove_if_empty, widen},
};

impl<T: Keyed> Tree<T> {
    /// Removes every row whose key starts with `prefix`; returns how many, and the tree as it was
    /// before. `None` where there is no such row.
    pub fn remove_prefix(&mut self, prefix: &[u8]) -> Option<(usize, View<T>)> {
        self.release_after_write();
        let before = self.view();
        let count = before.count_prefix(prefix);
        if count == 0 {
            return None;
        }
        self.len -= count;
        if self.len == 0 {
            self.root = None;
        } else {
            let end = prefix_successor(prefix);
            cut(
                self.root.as_mut()?,
                Some(prefix),
                end.as_deref(),
                None,
                None,
            );
            self.trim_root();
        }
        Some((count, before))
    }
}

/// Removes the rows from `from` (inclusive) to `to` (exclusive); `None` is the node's own edge, and
/// other bounds lie between the node's fences.
fn cut<T: Keyed>(
    link: &mut Link<T>,
    from: Fence<'_>,
    to: Fence<'_>,
    low: Fence<'_>,
    high: Fence<'_>,
) {
    match link {
        Link::Leaf(leaf) => {
            let leaf = Rc::make_mut(leaf);
            let first = from.map_or(0, |key| leaf.lower_bound(key));
            let end = to.map_or(leaf.rows.len(), |key| leaf.lower_bound(key));
            leaf.drain(first..end);
        }
        Link::Inner(inner) => cut_below(Rc::make_mut(inner), from, to, low, high),
    }
}

fn cut_below<T: Keyed>(
    inner: &mut Inner<T>,
    from: Fence<'_>,
    to: Fence<'_>,
    low: Fence<'_>,
    high: Fence<'_>,
) {
    let first = from.map_or(0, |key| inner.route(key));
    let last = to.map_or(inner.children.len() - 1, |key| inner.route(key));
    if first == last {
        cut_child(inner, first, from, to, low, high);
        mend(inner, first, low, high);
        return;
    }
    cut_child(inner, last, None, to, low, high);
    cut_child(inner, first, from, None, low, high);
    if last > first + 1 {
        inner.drain(first + 1, last);
        widen(inner, first, Edge::Right, low, high);
    }
    // Both ends may have become empty, and an empty node must not be merged with.
    remove_if_empty(inner, first + 1, low, high);
    remove_if_empty(inner, first, low, high);
    merge_if_thin(inner, first + 1, low, high);
    merge_if_thin(inner, first, low, high);
}

fn cut_child<T: Keyed>(
    inner: &mut Inner<T>,
    at: usize,
    from: Fence<'_>,
    to: Fence<'_>,
    low: Fence<'_>,
    high: Fence<'_>,
) {
    let (low, high) = fences(&inner.separators, at, low, high);
    cut(&mut inner.children[at], from, to, low, high);
    inner.summaries[at] = inner.children[at].summary();
}

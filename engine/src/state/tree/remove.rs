//! How does a row get out, and what keeps the tree from thinning out?
//!
//! A node that falls under a quarter merges with a neighbour if both fit comfortably into one;
//! otherwise it stays as it is. Rows are never shifted between neighbours: that would buy little
//! and cost a copy of both. A node that becomes empty goes, and its neighbour inherits its range
//! of keys; what the neighbour's keys are known to share may shrink by that ([`widen`]).

use std::rc::Rc;

use super::{
    Keyed, Summary, Tree,
    node::{Fence, Inner, Link, NODE_FILL_MIN, NODE_MERGED_MAX, fences, shared_length},
};

impl<T: Keyed> Tree<T> {
    /// Takes out the row of this key.
    pub fn remove(&mut self, key: &[u8]) -> Option<T> {
        self.release_after_write();
        // Looked up first, so that a miss copies no node.
        self.get(key)?;
        let removed = take(self.root.as_mut()?, key, None, None);
        self.len -= 1;
        self.trim_root();
        Some(removed)
    }

    /// Removes empty and single-child nodes at the top.
    pub(super) fn trim_root(&mut self) {
        while let Some(root) = &self.root {
            match root {
                _ if root.fill() == 0 => self.root = None,
                Link::Inner(inner) if inner.children.len() == 1 => {
                    self.root = Some(inner.children[0].clone())
                }
                _ => return,
            }
        }
    }
}

/// Takes out a row that is there.
fn take<T: Keyed>(link: &mut Link<T>, key: &[u8], low: Fence<'_>, high: Fence<'_>) -> T {
    match link {
        Link::Leaf(leaf) => {
            let leaf = Rc::make_mut(leaf);
            let at = leaf.find(key).expect("looked up before");
            leaf.remove(at)
        }
        Link::Inner(inner) => {
            let inner = Rc::make_mut(inner);
            let at = inner.route(key);
            let (child_low, child_high) = fences(&inner.separators, at, low, high);
            let removed = take(&mut inner.children[at], key, child_low, child_high);
            inner.amend(at, Summary::NONE, Summary::of(&removed));
            mend(inner, at, low, high);
            removed
        }
    }
}

/// Restores the shape of a node whose child `at` lost rows. The node may end up without children.
pub(super) fn mend<T: Keyed>(inner: &mut Inner<T>, at: usize, low: Fence<'_>, high: Fence<'_>) {
    if !remove_if_empty(inner, at, low, high) {
        merge_if_thin(inner, at, low, high);
    }
}

/// Takes child `at` out if it is empty.
pub(super) fn remove_if_empty<T: Keyed>(
    inner: &mut Inner<T>,
    at: usize,
    low: Fence<'_>,
    high: Fence<'_>,
) -> bool {
    if inner.children[at].fill() > 0 {
        return false;
    }
    if inner.children.len() == 1 {
        inner.children.clear();
        inner.summaries.clear();
    } else if at == 0 {
        inner.remove(0, 0);
        widen(inner, 0, Edge::Left, low, high);
    } else {
        inner.remove(at, at - 1);
        widen(inner, at - 1, Edge::Right, low, high);
    }
    true
}

/// Merges child `at` with a neighbour if it holds little and both fit into one. None of them may be empty.
pub(super) fn merge_if_thin<T: Keyed>(
    inner: &mut Inner<T>,
    at: usize,
    low: Fence<'_>,
    high: Fence<'_>,
) {
    if inner
        .children
        .get(at)
        .is_none_or(|child| child.fill() >= NODE_FILL_MIN)
    {
        return;
    }
    let fits = |left: usize| {
        let both = inner.children.get(left)?.fill() + inner.children.get(left + 1)?.fill();
        (both <= NODE_MERGED_MAX).then_some(left)
    };
    if let Some(left) = fits(at).or_else(|| fits(at.checked_sub(1)?)) {
        merge(inner, left, low, high);
    }
}

/// Appends child `left + 1` to child `left`.
fn merge<T: Keyed>(inner: &mut Inner<T>, left: usize, low: Fence<'_>, high: Fence<'_>) {
    let between = inner.separators[left].clone();
    let (right, summary) = inner.remove(left + 1, left);
    inner.summaries[left] = inner.summaries[left].join(summary);
    let (low, high) = fences(&inner.separators, left, low, high);
    let skip = shared_length(low, high);
    match (&mut inner.children[left], right) {
        (Link::Leaf(left), Link::Leaf(right)) => {
            Rc::make_mut(left).append(Rc::unwrap_or_clone(right), skip)
        }
        (Link::Inner(left), Link::Inner(right)) => {
            Rc::make_mut(left).append(between, Rc::unwrap_or_clone(right), skip);
        }
        _ => unreachable!("all leaves are at one depth"),
    }
}

/// Which fence of a node moved outwards.
#[derive(Clone, Copy)]
pub(super) enum Edge {
    Left,
    Right,
}

/// Makes the heads of child `at`, and of the nodes along that edge of it, begin early enough
/// after one of its fences moved outwards.
pub(super) fn widen<T: Keyed>(
    inner: &mut Inner<T>,
    at: usize,
    edge: Edge,
    low: Fence<'_>,
    high: Fence<'_>,
) {
    let (low, high) = fences(&inner.separators, at, low, high);
    let shared = shared_length(low, high);
    match &mut inner.children[at] {
        Link::Leaf(leaf) => {
            if leaf.skip() > shared {
                Rc::make_mut(leaf).set_skip(shared);
            }
        }
        Link::Inner(child) => {
            let child = Rc::make_mut(child);
            if child.skip() > shared {
                child.set_skip(shared);
            }
            match (edge, child.children.len()) {
                (_, 0) => {}
                (Edge::Left, _) => widen(child, 0, edge, low, high),
                (Edge::Right, count) => widen(child, count - 1, edge, low, high),
            }
        }
    }
}

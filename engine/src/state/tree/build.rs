//! How does an image become a tree in one pass?
//!
//! Rows arrive in key order, so leaves are filled one after the other and the levels above are
//! laid on them at the end: no search, no split, no copy.

use std::rc::Rc;

use arrayvec::ArrayVec;

use super::{
    Graveyard, Keyed, Summary, Tree,
    node::{Inner, LEAF_ROWS_MAX, Leaf, Link, separator, shared_length},
};

/// Rows or children per node: some room is left, or the first random inserts would split every leaf.
const FILL: usize = LEAF_ROWS_MAX * 7 / 8;

/// Builds a tree from rows in ascending key order.
#[derive(Debug)]
pub struct TreeBuilder<T: Keyed> {
    rows: ArrayVec<T, LEAF_ROWS_MAX>,
    /// Lower fence of the leaf that is being filled.
    low: Option<Rc<[u8]>>,
    leaves: Level<T>,
    len: usize,
}

/// Nodes of one level, and the separators on their left (one fewer than nodes).
#[derive(Debug)]
struct Level<T> {
    separators: Vec<Rc<[u8]>>,
    nodes: Vec<(Link<T>, Summary)>,
}

impl<T> Level<T> {
    fn new() -> Self {
        Self {
            separators: Vec::new(),
            nodes: Vec::new(),
        }
    }
}

impl<T: Keyed> Default for TreeBuilder<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Keyed> TreeBuilder<T> {
    /// No rows yet.
    pub fn new() -> Self {
        Self {
            rows: ArrayVec::new(),
            low: None,
            leaves: Level::new(),
            len: 0,
        }
    }

    /// Adds the next row; gives it back if its key is not greater than the last one's.
    pub fn push(&mut self, row: T) -> Result<(), T> {
        if let Some(last) = self.rows.last() {
            if last.key() >= row.key() {
                return Err(row);
            }
            if self.rows.len() == FILL {
                let high = separator(last.key(), row.key());
                self.close_leaf(Some(&high));
                self.leaves.separators.push(Rc::clone(&high));
                self.low = Some(high);
            }
        }
        self.rows.push(row);
        self.len += 1;
        Ok(())
    }

    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn close_leaf(&mut self, high: Option<&[u8]>) {
        let skip = shared_length(self.low.as_deref(), high);
        let leaf = Leaf::new(std::mem::take(&mut self.rows), skip);
        let summary = leaf.summary();
        self.leaves.nodes.push((Link::leaf(leaf), summary));
    }

    /// The tree.
    pub fn finish(mut self) -> Tree<T> {
        if self.rows.is_empty() {
            return Tree::new();
        }
        self.close_leaf(None);
        let mut level = self.leaves;
        while level.nodes.len() > 1 {
            level = raise(level);
        }
        Tree {
            root: level.nodes.pop().map(|(root, _)| root),
            len: self.len,
            graveyard: Graveyard::new(),
        }
    }
}

/// Groups the nodes of a level under nodes of the next.
fn raise<T: Keyed>(level: Level<T>) -> Level<T> {
    let mut above = Level::new();
    let mut nodes = level.nodes.into_iter();
    let mut separators = level.separators.into_iter();
    let mut low: Option<Rc<[u8]>> = None;
    while nodes.len() > 0 {
        let (children, summaries): (ArrayVec<_, _>, ArrayVec<_, _>) =
            nodes.by_ref().take(FILL).unzip();
        let between: ArrayVec<_, _> = separators.by_ref().take(children.len() - 1).collect();
        let high = separators.next();
        let skip = shared_length(low.as_deref(), high.as_deref());
        let inner = Inner::new(between, children, summaries, skip);
        let summary = inner.summary();
        above.nodes.push((Link::inner(inner), summary));
        above.separators.extend(high.clone());
        low = high;
    }
    above
}

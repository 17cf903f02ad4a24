//! What is in a node, and how is a key found in it?
//!
//! ```text
//! inner   skip  heads h0 h1 … (×2)  separators s0 s1 …      children c0 c1 c2 …   summaries m0 m1 m2 …
//! leaf    skip  heads h0 h1 h2 …    rows r0 r1 r2 …
//! ```
//! Keys under child `i` are ≥ `s(i-1)` and < `s(i)`; at the edges of a node the separators of its
//! ancestors bound them (its *fences*). All keys between two fences start with what the fences
//! have in common; `skip` is that length, or less. A *head* is the eight bytes behind it as a
//! big-endian number, padded with zeros. Heads lie side by side in the node, so a search is a
//! binary search over numbers in a few cache lines, and follows a pointer only where heads are
//! equal; inner nodes keep the eight bytes behind those as well. Configuration keys share long prefixes: without `skip` all heads would be.
//!
//! Separators are the shortest byte strings that part their neighbours, so they are small, and
//! shared by copies of the node.

use std::{cmp::Ordering, ops::Range, rc::Rc};

use arrayvec::ArrayVec;

use super::{Keyed, common_prefix, summary::Summary};

/// Most rows of a leaf. Tests use small nodes: trees of many levels with few rows.
pub(super) const LEAF_ROWS_MAX: usize = if cfg!(test) { 8 } else { 64 };
/// Most children of an inner node.
pub(super) const CHILDREN_MAX: usize = LEAF_ROWS_MAX;
/// A node with fewer rows or children looks for a neighbour to merge with…
pub(super) const NODE_FILL_MIN: usize = LEAF_ROWS_MAX / 4;
/// …and merges if the result has at most so many, so that the next insert does not split it again.
pub(super) const NODE_MERGED_MAX: usize = LEAF_ROWS_MAX * 3 / 4;

/// A boundary inherited from an ancestor; `None` at the outer edges of the tree.
pub(super) type Fence<'a> = Option<&'a [u8]>;

/// Rows, in key order.
#[derive(Clone, Debug)]
pub(super) struct Leaf<T> {
    skip: usize,
    heads: ArrayVec<u64, LEAF_ROWS_MAX>,
    pub(super) rows: ArrayVec<T, LEAF_ROWS_MAX>,
}

/// Subtrees, in key order.
#[derive(Clone, Debug)]
pub(super) struct Inner<T> {
    skip: usize,
    heads: ArrayVec<u64, CHILDREN_MAX>,
    /// The eight bytes behind each head.
    second_heads: ArrayVec<u64, CHILDREN_MAX>,
    pub(super) separators: ArrayVec<Rc<[u8]>, CHILDREN_MAX>,
    pub(super) children: ArrayVec<Link<T>, CHILDREN_MAX>,
    pub(super) summaries: ArrayVec<Summary, CHILDREN_MAX>,
}

/// A shared reference to a node. Two kinds of allocation, because inner nodes are larger.
#[derive(Clone, Debug)]
pub(super) enum Link<T> {
    Leaf(Rc<Leaf<T>>),
    Inner(Rc<Inner<T>>),
}

/// Length that every key between two fences shares.
pub(super) fn shared_length(low: Fence<'_>, high: Fence<'_>) -> usize {
    match (low, high) {
        (Some(low), Some(high)) => common_prefix(low, high),
        _ => 0,
    }
}

/// The fences of child `at` of a node with these separators and fences.
pub(super) fn fences<'a>(
    separators: &'a [Rc<[u8]>],
    at: usize,
    low: Fence<'a>,
    high: Fence<'a>,
) -> (Fence<'a>, Fence<'a>) {
    let left = if at == 0 {
        low
    } else {
        Some(&*separators[at - 1])
    };
    (
        left,
        separators.get(at).map(|separator| &**separator).or(high),
    )
}

/// The shortest string `s` with `left < s ≤ right`.
pub(super) fn separator(left: &[u8], right: &[u8]) -> Rc<[u8]> {
    debug_assert!(left < right);
    right[..common_prefix(left, right) + 1].into()
}

fn head(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut padded = [0; 8];
            padded[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(padded)
        }
    }
}

/// How many heads are less than `head`.
///
/// Looks at all of them: eight cache lines that load at once are had sooner than the four of a
/// binary search that wait for one another. Measured: a set at a million keys takes a fifth less.
fn rank(heads: &[u64], head: u64) -> usize {
    heads.iter().map(|&other| usize::from(other < head)).sum()
}

/// The heads equal to `head`.
fn ties(heads: &[u64], head: u64) -> Range<usize> {
    let low = rank(heads, head);
    let same = heads[low..].iter().take_while(|&&other| other == head);
    low..low + same.count()
}

/// The first place in `range` that is not `before`; all places that are come first.
fn first_not(range: Range<usize>, mut before: impl FnMut(usize) -> bool) -> usize {
    let Range {
        start: mut low,
        end: mut high,
    } = range;
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl<T: Keyed> Leaf<T> {
    /// A leaf of rows in key order whose keys all share `skip` bytes.
    pub(super) fn new(rows: ArrayVec<T, LEAF_ROWS_MAX>, skip: usize) -> Self {
        let heads = rows.iter().map(|row| head(row.key(), skip)).collect();
        Self { skip, heads, rows }
    }

    /// Number of rows with keys less than `key`, which lies between the leaf's fences.
    pub(super) fn lower_bound(&self, key: &[u8]) -> usize {
        let ties = ties(&self.heads, head(key, self.skip));
        first_not(ties, |at| self.rows[at].key() < key)
    }

    /// Where `key` is, or where it belongs.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let ties = ties(&self.heads, head(key, self.skip));
        match ties.len() {
            0 => Err(ties.start),
            // The usual case: one row has this head, and one comparison decides.
            1 => match self.rows[ties.start].key().cmp(key) {
                Ordering::Less => Err(ties.end),
                Ordering::Equal => Ok(ties.start),
                Ordering::Greater => Err(ties.start),
            },
            _ => {
                let first = ties.start;
                let place = self.rows[ties].binary_search_by(|row| row.key().cmp(key));
                place.map(|at| first + at).map_err(|at| first + at)
            }
        }
    }

    /// Adds a row where [`Self::find`] said it belongs. The leaf must not be full.
    pub(super) fn insert(&mut self, at: usize, row: T) {
        self.heads.insert(at, head(row.key(), self.skip));
        self.rows.insert(at, row);
    }

    pub(super) fn remove(&mut self, at: usize) -> T {
        self.heads.remove(at);
        self.rows.remove(at)
    }

    pub(super) fn drain(&mut self, range: Range<usize>) {
        self.heads.drain(range.clone());
        self.rows.drain(range);
    }

    /// Moves the rows from `at` on into a new leaf.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        Self {
            skip: self.skip,
            heads: self.heads.drain(at..).collect(),
            rows: self.rows.drain(at..).collect(),
        }
    }

    /// Appends the rows of the leaf to the right; both then share only `skip` bytes.
    pub(super) fn append(&mut self, right: Self, skip: usize) {
        self.rows.extend(right.rows);
        self.rehead(skip);
    }

    /// Makes heads begin behind `skip` bytes.
    pub(super) fn set_skip(&mut self, skip: usize) {
        if skip != self.skip {
            self.rehead(skip);
        }
    }

    fn rehead(&mut self, skip: usize) {
        self.skip = skip;
        self.heads = self.rows.iter().map(|row| head(row.key(), skip)).collect();
    }

    pub(super) fn skip(&self) -> usize {
        self.skip
    }

    /// Looks at the header of every row.
    fn max_stamp(&self) -> u64 {
        self.rows.iter().map(T::stamp).max().unwrap_or(0)
    }

    /// Looks at every byte of every row.
    pub(super) fn summary(&self) -> Summary {
        self.rows
            .iter()
            .fold(Summary::NONE, |sum, row| sum.join(Summary::of(row)))
    }
}

impl<T: Keyed> Inner<T> {
    /// A node over these children; `separators` lie between them and all share `skip` bytes.
    pub(super) fn new(
        separators: ArrayVec<Rc<[u8]>, CHILDREN_MAX>,
        children: ArrayVec<Link<T>, CHILDREN_MAX>,
        summaries: ArrayVec<Summary, CHILDREN_MAX>,
        skip: usize,
    ) -> Self {
        let mut inner = Self {
            skip,
            heads: ArrayVec::new(),
            second_heads: ArrayVec::new(),
            separators,
            children,
            summaries,
        };
        inner.rehead(skip);
        inner
    }

    /// Which child `key`, which lies between the node's fences, belongs under.
    pub(super) fn route(&self, key: &[u8]) -> usize {
        let same = ties(&self.heads, head(key, self.skip));
        if same.is_empty() {
            return same.start;
        }
        // Separators of one node may well agree in eight bytes more ("/config/"), but not in sixteen.
        let first = same.start;
        let same = ties(&self.second_heads[same], head(key, self.skip + 8));
        first_not(first + same.start..first + same.end, |at| {
            *self.separators[at] <= *key
        })
    }

    /// Keeps the summary of child `at` right after a row `came` and a row is `gone` (either may be none).
    pub(super) fn amend(&mut self, at: usize, came: Summary, gone: Summary) {
        let with = self.summaries[at].join(came);
        let stamp = if gone.rows > 0 && gone.stamp == with.stamp && came.stamp < gone.stamp {
            self.children[at].max_stamp()
        } else {
            with.stamp
        };
        self.summaries[at] = with.without(gone, stamp);
    }

    /// Takes the rows of `right`, until now part of child `at`, out of its summary.
    pub(super) fn part(&mut self, at: usize, right: Summary) {
        let stamp = self.children[at].max_stamp();
        self.summaries[at] = self.summaries[at].without(right, stamp);
    }

    /// Adds `right` behind child `at`, parted by `separator`. The node must not be full.
    pub(super) fn insert_after(
        &mut self,
        at: usize,
        separator: Rc<[u8]>,
        right: Link<T>,
        summary: Summary,
    ) {
        self.heads.insert(at, head(&separator, self.skip));
        self.second_heads
            .insert(at, head(&separator, self.skip + 8));
        self.separators.insert(at, separator);
        self.children.insert(at + 1, right);
        self.summaries.insert(at + 1, summary);
    }

    /// Takes out child `at` and separator `parted`, the one on its left or its right.
    pub(super) fn remove(&mut self, at: usize, parted: usize) -> (Link<T>, Summary) {
        self.heads.remove(parted);
        self.second_heads.remove(parted);
        self.separators.remove(parted);
        (self.children.remove(at), self.summaries.remove(at))
    }

    /// Takes out children `from..to` and the separators on their left.
    pub(super) fn drain(&mut self, from: usize, to: usize) {
        self.heads.drain(from - 1..to - 1);
        self.second_heads.drain(from - 1..to - 1);
        self.separators.drain(from - 1..to - 1);
        self.children.drain(from..to);
        self.summaries.drain(from..to);
    }

    /// Moves the children from `at ≥ 1` on into a new node; the separator between the two is returned.
    pub(super) fn split_off(&mut self, at: usize) -> (Rc<[u8]>, Self) {
        let right = Self {
            skip: self.skip,
            heads: self.heads.drain(at..).collect(),
            second_heads: self.second_heads.drain(at..).collect(),
            separators: self.separators.drain(at..).collect(),
            children: self.children.drain(at..).collect(),
            summaries: self.summaries.drain(at..).collect(),
        };
        self.heads.pop();
        self.second_heads.pop();
        let between = self
            .separators
            .pop()
            .expect("a split node had two children");
        (between, right)
    }

    /// Appends the children of the node to the right, parted by `between`.
    pub(super) fn append(&mut self, between: Rc<[u8]>, right: Self, skip: usize) {
        self.separators.push(between);
        self.separators.extend(right.separators);
        self.children.extend(right.children);
        self.summaries.extend(right.summaries);
        self.rehead(skip);
    }

    /// Makes heads begin behind `skip` bytes.
    pub(super) fn set_skip(&mut self, skip: usize) {
        if skip != self.skip {
            self.rehead(skip);
        }
    }

    fn rehead(&mut self, skip: usize) {
        let heads = |skip| self.separators.iter().map(move |s| head(s, skip)).collect();
        (self.heads, self.second_heads) = (heads(skip), heads(skip + 8));
        self.skip = skip;
    }

    pub(super) fn skip(&self) -> usize {
        self.skip
    }

    pub(super) fn summary(&self) -> Summary {
        self.summaries
            .iter()
            .fold(Summary::NONE, |sum, below| sum.join(*below))
    }
}

impl<T: Keyed> Link<T> {
    pub(super) fn leaf(leaf: Leaf<T>) -> Self {
        Self::Leaf(Rc::new(leaf))
    }

    pub(super) fn inner(inner: Inner<T>) -> Self {
        Self::Inner(Rc::new(inner))
    }

    /// Rows or children.
    pub(super) fn fill(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.rows.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    /// Of all rows below.
    pub(super) fn summary(&self) -> Summary {
        match self {
            Self::Leaf(leaf) => leaf.summary(),
            Self::Inner(inner) => inner.summary(),
        }
    }

    /// The greatest stamp below.
    fn max_stamp(&self) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf.max_stamp(),
            Self::Inner(inner) => inner.summary().stamp,
        }
    }

    /// Whether dropping this reference would free the node.
    pub(super) fn is_last(&self) -> bool {
        match self {
            Self::Leaf(leaf) => Rc::strong_count(leaf) == 1,
            Self::Inner(inner) => Rc::strong_count(inner) == 1,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&T> {
        let mut link = self;
        loop {
            match link {
                Self::Inner(inner) => link = &inner.children[inner.route(key)],
                Self::Leaf(leaf) => return leaf.find(key).ok().map(|at| &leaf.rows[at]),
            }
        }
    }

    /// Counts the rows below, and panics unless the module's invariants hold between these fences.
    pub(super) fn check(&self, low: Fence<'_>, high: Fence<'_>) -> usize {
        let within =
            |key: &[u8]| low.is_none_or(|low| low <= key) && high.is_none_or(|high| key < high);
        let shared = shared_length(low, high);
        match self {
            Self::Leaf(leaf) => {
                assert!(leaf.skip <= shared && !leaf.rows.is_empty());
                assert!(leaf.rows.iter().all(|row| within(row.key())));
                assert!(
                    leaf.rows
                        .windows(2)
                        .all(|pair| pair[0].key() < pair[1].key())
                );
                let heads: Vec<u64> = leaf
                    .rows
                    .iter()
                    .map(|row| head(row.key(), leaf.skip))
                    .collect();
                assert_eq!(heads, leaf.heads[..]);
                leaf.rows.len()
            }
            Self::Inner(inner) => {
                assert!(inner.skip <= shared && !inner.children.is_empty());
                assert_eq!(inner.children.len(), inner.separators.len() + 1);
                assert!(inner.separators.iter().all(|separator| within(separator)));
                let heads =
                    |skip| -> Vec<u64> { inner.separators.iter().map(|s| head(s, skip)).collect() };
                assert_eq!(heads(inner.skip), inner.heads[..]);
                assert_eq!(heads(inner.skip + 8), inner.second_heads[..]);
                let summaries: Vec<Summary> = inner.children.iter().map(Link::summary).collect();
                assert_eq!(summaries, inner.summaries[..]);
                let leafs = inner
                    .children
                    .iter()
                    .filter(|child| matches!(child, Self::Leaf(_)))
                    .count();
                assert!(
                    leafs == 0 || leafs == inner.children.len(),
                    "children of one level"
                );
                (0..inner.children.len())
                    .map(|at| {
                        let (low, high) = fences(&inner.separators, at, low, high);
                        inner.children[at].check(low, high)
                    })
                    .sum()
            }
        }
    }
}

//! How is one point in time read, a slice now and a slice later?
//!
//! A [`View`] owns a reference to a root that no write changes any more, so it needs no borrow of
//! the tree and can be kept across an await, by any number of readers. A [`Cursor`] is a view
//! and a path of child numbers; numbers stay valid in a tree that does not change, so parking it
//! costs nothing and resuming costs one walk from the root.
//!
//! Invariant: dropping either is O(1); what they alone still held goes to the graveyard.

use arrayvec::ArrayVec;

use super::{
    Graveyard, Keyed,
    node::{Fence, Inner, Leaf, Link},
    prefix_successor,
};

/// Most levels of a tree: nodes hold 24 rows or children on average at least, so this is far beyond memory.
const DEPTH_MAX: usize = 16;

/// A tree as it was at one moment. `Clone` and drop are O(1).
#[derive(Clone, Debug)]
pub struct View<T: Keyed> {
    root: Option<Link<T>>,
    len: usize,
    graveyard: Graveyard<T>,
}

impl<T: Keyed> Drop for View<T> {
    fn drop(&mut self) {
        if let Some(root) = self.root.take() {
            self.graveyard.bury(root);
        }
    }
}

impl<T: Keyed> View<T> {
    pub(super) fn new(root: Option<Link<T>>, len: usize, graveyard: Graveyard<T>) -> Self {
        Self {
            root,
            len,
            graveyard,
        }
    }

    pub(super) fn parts(&self) -> (Option<Link<T>>, usize) {
        (self.root.clone(), self.len)
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

    /// All rows in key order.
    pub fn cursor(&self) -> Cursor<T> {
        self.prefix(&[])
    }

    /// The rows whose keys start with `prefix`, in key order.
    pub fn prefix(&self, prefix: &[u8]) -> Cursor<T> {
        let mut cursor = Cursor {
            view: self.clone(),
            path: ArrayVec::new(),
            end: prefix_successor(prefix),
            done: false,
        };
        cursor.seek(prefix);
        cursor
    }

    /// The greatest stamp of the rows whose keys start with `prefix`; 0 where there are none.
    ///
    /// Looks at two leaves at most, however many rows there are.
    pub fn max_stamp(&self, prefix: &[u8]) -> u64 {
        let end = prefix_successor(prefix);
        let fold = Fold {
            leaf: |rows: &[T]| -> u64 { rows.iter().map(T::stamp).max().unwrap_or(0) },
            whole: |inner: &Inner<T>, at: usize| inner.summaries[at].stamp,
            join: u64::max,
        };
        self.root
            .as_ref()
            .map_or(0, |root| fold.over(root, Some(prefix), end.as_deref()))
    }

    /// How many keys start with `prefix`; a walk from the root, however many they are.
    pub fn count_prefix(&self, prefix: &[u8]) -> usize {
        if prefix.is_empty() {
            return self.len;
        }
        let end = prefix_successor(prefix);
        let fold = Fold {
            leaf: |rows: &[T]| rows.len(),
            whole: |inner: &Inner<T>, at: usize| inner.summaries[at].rows as usize,
            join: |a, b| a + b,
        };
        self.root
            .as_ref()
            .map_or(0, |root| fold.over(root, Some(prefix), end.as_deref()))
    }
}

/// A sum over a range of keys: leaves at its ends row by row, subtrees inside it as a whole.
struct Fold<L, W, J> {
    leaf: L,
    whole: W,
    join: J,
}

impl<L, W, J> Fold<L, W, J> {
    fn over<T: Keyed, N>(&self, link: &Link<T>, from: Fence<'_>, to: Fence<'_>) -> N
    where
        L: Fn(&[T]) -> N,
        W: Fn(&Inner<T>, usize) -> N,
        J: Fn(N, N) -> N,
    {
        match link {
            Link::Leaf(leaf) => {
                let first = from.map_or(0, |key| leaf.lower_bound(key));
                let end = to.map_or(leaf.rows.len(), |key| leaf.lower_bound(key));
                (self.leaf)(&leaf.rows[first..end])
            }
            Link::Inner(inner) => {
                let first = from.map_or(0, |key| inner.route(key));
                let last = to.map_or(inner.children.len() - 1, |key| inner.route(key));
                if first == last {
                    return self.over(&inner.children[first], from, to);
                }
                let ends = (self.join)(
                    self.over(&inner.children[first], from, None),
                    self.over(&inner.children[last], None, to),
                );
                (first + 1..last).fold(ends, |sum, at| (self.join)(sum, (self.whole)(inner, at)))
            }
        }
    }
}

/// A place in a view, between two rows.
#[derive(Debug)]
pub struct Cursor<T: Keyed> {
    view: View<T>,
    /// Child numbers from the root down, then the number of the next row in its leaf (which may be
    /// one past its last row).
    path: ArrayVec<u16, DEPTH_MAX>,
    /// First key that is not wanted any more.
    end: Option<Box<[u8]>>,
    done: bool,
}

impl<T: Keyed> Cursor<T> {
    /// Moves before the first row whose key is at least `key`, forwards or backwards.
    pub fn seek(&mut self, key: &[u8]) {
        self.path.clear();
        self.done = self.view.root.is_none();
        let Some(mut link) = self.view.root.as_ref() else {
            return;
        };
        loop {
            match link {
                Link::Inner(inner) => {
                    let at = inner.route(key);
                    self.path.push(at as u16);
                    link = &inner.children[at];
                }
                Link::Leaf(leaf) => return self.path.push(leaf.lower_bound(key) as u16),
            }
        }
    }

    /// The next rows, at most `max` and at most the rest of a leaf; empty only at the end (or for
    /// a `max` of 0). The cursor moves behind them.
    pub fn take(&mut self, max: usize) -> &[T] {
        if self.done || max == 0 {
            return &[];
        }
        let Some(leaf) = current_leaf(self.view.root.as_ref(), &mut self.path) else {
            self.done = true;
            return &[];
        };
        let next = self.path.last_mut().expect("a path ends in a leaf");
        let first = usize::from(*next);
        let mut rows = &leaf.rows[first..leaf.rows.len().min(first.saturating_add(max))];
        if let (Some(end), Some(last)) = (&self.end, rows.last())
            && *last.key() >= **end
        {
            rows = &rows[..rows.partition_point(|row| *row.key() < **end)];
            self.done = true;
        }
        *next += rows.len() as u16;
        rows
    }

    /// Calls `each` with the next rows until it returns false, at most to the end of a leaf. The
    /// cursor moves behind the last row that was shown. False if there was none: the end.
    pub fn scan(&mut self, mut each: impl FnMut(&T) -> bool) -> bool {
        let rows = self.take(usize::MAX);
        let shown = match rows.iter().position(|row| !each(row)) {
            Some(refused) => refused + 1,
            None => rows.len(),
        };
        let kept_back = rows.len() - shown;
        if kept_back > 0 {
            *self.path.last_mut().expect("a path ends in a leaf") -= kept_back as u16;
            self.done = false;
        }
        shown > 0
    }

    /// The view that is being read.
    pub fn view(&self) -> &View<T> {
        &self.view
    }
}

/// The leaf that holds the next row, after moving the path there from the end of the leaf before.
fn current_leaf<'a, T: Keyed>(
    root: Option<&'a Link<T>>,
    path: &mut ArrayVec<u16, DEPTH_MAX>,
) -> Option<&'a Leaf<T>> {
    let mut above: ArrayVec<&Inner<T>, DEPTH_MAX> = ArrayVec::new();
    let mut link = root?;
    loop {
        while let Link::Inner(inner) = link {
            let at = path.get(above.len()).copied().unwrap_or_else(|| {
                path.push(0);
                0
            });
            above.push(inner);
            link = &inner.children[usize::from(at)];
        }
        let Link::Leaf(leaf) = link else {
            unreachable!("inner nodes were walked through")
        };
        if path.len() == above.len() {
            path.push(0);
        }
        if usize::from(path[above.len()]) < leaf.rows.len() {
            return Some(leaf);
        }
        // Up to the deepest node that has a child further right, and down its left edge.
        let turn = (0..above.len())
            .rev()
            .find(|&level| usize::from(path[level]) + 1 < above[level].children.len())?;
        path.truncate(turn + 1);
        path[turn] += 1;
        above.truncate(turn);
        link = if turn == 0 {
            root?
        } else {
            &above[turn - 1].children[usize::from(path[turn - 1])]
        };
    }
}

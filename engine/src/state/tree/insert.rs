//! How does a row get in?
//!
//! Down the path of its key, copying nodes that a view still needs; a full leaf splits on the
//! way back up. A leaf at the right edge of the tree that overflows at its end keeps all its rows:
//! keys that arrive in order fill leaves completely.

use std::rc::Rc;

use super::{
    Keyed, Summary, Tree,
    node::{
        CHILDREN_MAX, Fence, Inner, LEAF_ROWS_MAX, Leaf, Link, fences, separator, shared_length,
    },
};

/// What became of a subtree that a row was put into.
struct Placed<T> {
    /// The row that had this key before.
    replaced: Option<T>,
    /// Of that row.
    gone: Summary,
    /// The upper half, if there was not enough room.
    split: Option<Split<T>>,
}

struct Split<T> {
    separator: Rc<[u8]>,
    right: Link<T>,
}

impl<T: Keyed> Tree<T> {
    /// Puts a row in; returns the one that had its key before.
    pub fn insert(&mut self, row: T) -> Option<T> {
        self.release_after_write();
        let Some(root) = &mut self.root else {
            let rows = std::iter::once(row).collect();
            self.root = Some(Link::leaf(Leaf::new(rows, 0)));
            self.len = 1;
            return None;
        };
        let came = Summary::of(&row);
        let placed = place(root, row, came, None, None);
        if let Some(split) = placed.split {
            let left = root.clone();
            let summaries = [left.summary(), split.right.summary()];
            let separators = std::iter::once(split.separator).collect();
            let children = [left, split.right].into_iter().collect();
            *root = Link::inner(Inner::new(
                separators,
                children,
                summaries.into_iter().collect(),
                0,
            ));
        }
        self.len += usize::from(placed.replaced.is_none());
        placed.replaced
    }
}

fn place<T: Keyed>(
    link: &mut Link<T>,
    row: T,
    came: Summary,
    low: Fence<'_>,
    high: Fence<'_>,
) -> Placed<T> {
    match link {
        Link::Leaf(leaf) => place_in_leaf(Rc::make_mut(leaf), row, low, high),
        Link::Inner(inner) => place_below(Rc::make_mut(inner), row, came, low, high),
    }
}

fn place_below<T: Keyed>(
    inner: &mut Inner<T>,
    row: T,
    came: Summary,
    low: Fence<'_>,
    high: Fence<'_>,
) -> Placed<T> {
    let at = inner.route(row.key());
    let (child_low, child_high) = fences(&inner.separators, at, low, high);
    let Placed {
        replaced,
        gone,
        split,
    } = place(&mut inner.children[at], row, came, child_low, child_high);
    inner.amend(at, came, gone);
    let Some(split) = split else {
        return Placed {
            replaced,
            gone,
            split: None,
        };
    };
    let summary = split.right.summary();
    inner.part(at, summary);
    if inner.children.len() < CHILDREN_MAX {
        inner.insert_after(at, split.separator, split.right, summary);
        return Placed {
            replaced,
            gone,
            split: None,
        };
    }
    let at_end = high.is_none() && at + 1 == CHILDREN_MAX;
    let middle = if at_end {
        CHILDREN_MAX - 1
    } else {
        CHILDREN_MAX / 2
    };
    let (between, mut right) = inner.split_off(middle);
    if at < middle {
        inner.insert_after(at, split.separator, split.right, summary);
    } else {
        right.insert_after(at - middle, split.separator, split.right, summary);
    }
    inner.set_skip(shared_length(low, Some(&between)));
    right.set_skip(shared_length(Some(&between), high));
    Placed {
        replaced,
        gone,
        split: Some(Split {
            separator: between,
            right: Link::inner(right),
        }),
    }
}

fn place_in_leaf<T: Keyed>(
    leaf: &mut Leaf<T>,
    row: T,
    low: Fence<'_>,
    high: Fence<'_>,
) -> Placed<T> {
    let at = match leaf.find(row.key()) {
        Ok(at) => {
            let replaced = std::mem::replace(&mut leaf.rows[at], row);
            return Placed {
                gone: Summary::of(&replaced),
                replaced: Some(replaced),
                split: None,
            };
        }
        Err(at) => at,
    };
    if leaf.rows.len() < LEAF_ROWS_MAX {
        leaf.insert(at, row);
        return Placed {
            replaced: None,
            gone: Summary::NONE,
            split: None,
        };
    }
    let at_end = high.is_none() && at == LEAF_ROWS_MAX;
    let middle = if at_end {
        LEAF_ROWS_MAX
    } else {
        LEAF_ROWS_MAX / 2
    };
    let mut right = leaf.split_off(middle);
    if at < middle {
        leaf.insert(at, row);
    } else {
        right.insert(at - middle, row);
    }
    let last = leaf.rows.last().expect("half of a full leaf");
    let separator = separator(last.key(), right.rows[0].key());
    leaf.set_skip(shared_length(low, Some(&separator)));
    right.set_skip(shared_length(Some(&separator), high));
    Placed {
        replaced: None,
        gone: Summary::NONE,
        split: Some(Split {
            separator,
            right: Link::leaf(right),
        }),
    }
}

//! What happens next?
//!
//! Virtual time goes from one happening to the next. Two at the same moment come in the order they
//! were asked for, so that nothing is left to the queue's whim.

use std::{cmp::Ordering, collections::BinaryHeap};

struct Item<T> {
    at_ns: u64,
    order: u64,
    what: T,
}

impl<T> PartialEq for Item<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Item<T> {}

impl<T> PartialOrd for Item<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Item<T> {
    /// The heap gives the greatest first: that is the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_ns, other.order).cmp(&(self.at_ns, self.order))
    }
}

/// Happenings to come.
pub struct Queue<T> {
    heap: BinaryHeap<Item<T>>,
    order: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            order: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Lets something happen at this time, ns.
    pub fn at(&mut self, at_ns: u64, what: T) {
        self.order += 1;
        let order = self.order;
        self.heap.push(Item { at_ns, order, what });
    }

    /// The next happening and its time.
    pub fn next(&mut self) -> Option<(u64, T)> {
        self.heap.pop().map(|item| (item.at_ns, item.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_equals_in_the_order_asked_for() {
        let mut queue = Queue::default();
        for (at, what) in [(5, 'd'), (1, 'a'), (3, 'b'), (3, 'c')] {
            queue.at(at, what);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(order, [(1, 'a'), (3, 'b'), (3, 'c'), (5, 'd')]);
    }
}

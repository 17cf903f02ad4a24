//! Which blocking queries wait here for someone who may lose interest?
//!
//! A query that another executor, another server or a native client waits for is entered under
//! the asker's name for it, with what is to be done when a word from the asker comes, or the end
//! of its connection: to give up a place among the waiters of a shard, or to end the task that
//! waits, which gives up what it holds further on.

use std::{cell::RefCell, hash::Hash, rc::Rc};

use ahash::AHashMap;
use futures_channel::oneshot;
use futures_lite::FutureExt;

/// What is done when nobody waits any longer.
type Cancel = Box<dyn FnOnce()>;

/// Waiting queries by their askers' names for them; cheap to clone.
pub struct Cancels<K>(Rc<RefCell<AHashMap<K, Option<Cancel>>>>);

impl<K> Default for Cancels<K> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<K> Clone for Cancels<K> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<K: Clone + Eq + Hash> Cancels<K> {
    /// A query that waits until what is returned is dropped; `None` if one waits under this name.
    pub fn enter(&self, key: K) -> Option<Entered<K>> {
        let mut waiting = self.0.borrow_mut();
        if waiting.contains_key(&key) {
            return None;
        }
        waiting.insert(key.clone(), None);
        Some(Entered {
            cancels: self.clone(),
            key,
        })
    }

    /// What is to be done when this query, which was entered, is cancelled.
    pub fn on_cancel(&self, key: &K, cancel: impl FnOnce() + 'static) {
        if let Some(waiting) = self.0.borrow_mut().get_mut(key) {
            *waiting = Some(Box::new(cancel));
        }
    }

    /// The asker has lost interest in this query, if it waits at all.
    pub fn cancel(&self, key: &K) {
        let cancel = self.0.borrow_mut().remove(key).flatten();
        // What it does may drop the query's entry, so nothing is borrowed here.
        if let Some(cancel) = cancel {
            cancel();
        }
    }

    /// All askers have.
    pub fn cancel_all(&self) {
        let all = std::mem::take(&mut *self.0.borrow_mut());
        for cancel in all.into_values().flatten() {
            cancel();
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

/// The place of a query that waits; it is given up when this is dropped.
pub struct Entered<K: Clone + Eq + Hash> {
    cancels: Cancels<K>,
    key: K,
}

impl<K: Clone + Eq + Hash> Entered<K> {
    /// Runs `answer` to its end, or until the query is cancelled. Not an `async fn`, which would
    /// keep room for `answer` twice.
    pub fn or_cancelled(self, answer: impl Future<Output = ()>) -> impl Future<Output = ()> {
        let (sender, cancelled) = oneshot::channel::<()>();
        self.cancels.on_cancel(&self.key, move || drop(sender));
        let cancelled = async move {
            let _entered = self;
            // Nothing is ever sent: the sender is dropped.
            let _ = cancelled.await;
        };
        answer.or(cancelled)
    }
}

impl<K: Clone + Eq + Hash> Drop for Entered<K> {
    fn drop(&mut self) {
        let waiting = self.cancels.0.borrow_mut().remove(&self.key);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        future::{poll_fn, ready},
        task::Poll,
    };

    use futures_lite::future::block_on;

    use super::*;

    #[test]
    fn a_task_ends_with_its_answer_or_when_it_is_cancelled() {
        let cancels = Cancels::default();
        let answered = cancels.enter(1).unwrap();
        block_on(answered.or_cancelled(ready(())));
        assert_eq!(cancels.len(), 0);

        let waiting = cancels.enter(2).unwrap();
        let asker = cancels.clone();
        let mut polls = 0;
        let never = poll_fn(|_| {
            polls += 1;
            asker.cancel(&2);
            Poll::<()>::Pending
        });
        block_on(waiting.or_cancelled(never));
        assert_eq!((cancels.len(), polls), (0, 1));
    }

    #[test]
    fn a_name_is_taken_until_its_query_is_answered() {
        let cancels = Cancels::default();
        let cancelled = Rc::new(Cell::new(0));
        let count = |by: u32| {
            let cancelled = Rc::clone(&cancelled);
            move || cancelled.set(cancelled.get() + by)
        };
        let first = cancels.enter(3).unwrap();
        cancels.on_cancel(&3, count(1));
        assert!(cancels.enter(3).is_none());
        drop(first);
        cancels.cancel(&3);
        assert_eq!(cancelled.get(), 0, "it was answered before");

        let again = cancels.enter(3).unwrap();
        cancels.on_cancel(&3, count(10));
        let _other = cancels.enter(4).unwrap();
        cancels.on_cancel(&4, count(100));
        cancels.cancel_all();
        assert_eq!((cancelled.get(), cancels.len()), (110, 0));
        drop(again);
    }
}

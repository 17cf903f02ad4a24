//! When does a watch run its handler, and when does it ask again?
//!
//! The client's side of blocking queries, without a server or a clock: answers and failures go in,
//! decisions come out. An answer is news only if its mark and its document have changed; an index
//! that goes back starts over; failures are spaced out, ever further.

use std::time::Duration;

use serde_json::Value;

/// Wait after a first failure; after the nth in a row it is n² times that.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(180);

/// What a server says of how new an answer is, and what it is waited with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// `X-Consul-Index`, which grows with each change.
    Index(u64),
    /// The same header of events: a number of the newest event, which does not grow.
    Event(u64),
    /// `X-Consul-ContentHash`
    Hash(String),
}

impl Mark {
    /// The mark to wait with, after one was waited with before.
    fn next(&self, previous: Option<&Self>) -> Option<Self> {
        match (self, previous) {
            (Self::Index(index), Some(Self::Index(before))) if index < before => None,
            // 0 would not wait, and the loop would spin.
            (Self::Index(index), _) => Some(Self::Index(*index.max(&1))),
            _ => Some(self.clone()),
        }
    }
}

/// A server's answer to a watch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) mark: Mark,
    /// The document, as text without white space.
    pub(super) text: String,
}

/// Where a watch stands.
#[derive(Debug, Default)]
pub(super) struct Plan {
    mark: Option<Mark>,
    last: Option<Value>,
    failures: u32,
}

impl Plan {
    /// What the next question waits with; `None` asks for an answer at once.
    pub(super) fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// Takes an answer; whether it is news for the handler.
    pub(super) fn answered(&mut self, answer: &Answer) -> bool {
        self.failures = 0;
        if self.mark.as_ref() == Some(&answer.mark) {
            return false;
        }
        self.mark = answer.mark.next(self.mark.as_ref());
        // Compared as values: the order of names says nothing.
        let document = serde_json::from_str(&answer.text).ok();
        if self.last.is_some() && self.last == document {
            return false;
        }
        self.last = document;
        true
    }

    /// Takes a failure; how long to wait before the next question, which starts over.
    pub(super) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.mark = None;
        let factor = self.failures.saturating_mul(self.failures);
        RETRY.saturating_mul(factor).min(RETRY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(index: u64, text: &str) -> Answer {
        Answer {
            mark: Mark::Index(index),
            text: text.into(),
        }
    }

    #[test]
    fn only_changes_are_news() {
        let mut plan = Plan::default();
        assert_eq!(plan.mark(), None);
        assert!(
            plan.answered(&answer(5, "null")),
            "also of what is not there"
        );
        assert_eq!(plan.mark(), Some(&Mark::Index(5)));
        assert!(!plan.answered(&answer(5, "null")), "the wait was over");
        assert!(
            !plan.answered(&answer(6, "null")),
            "something else has changed"
        );
        assert_eq!(plan.mark(), Some(&Mark::Index(6)));
        assert!(plan.answered(&answer(7, "[1]")));
        assert!(!plan.answered(&answer(8, "[1]")));
    }

    #[test]
    fn an_index_that_goes_back_starts_over() {
        let mut plan = Plan::default();
        assert!(plan.answered(&answer(9, "1")));
        assert!(plan.answered(&answer(4, "2")));
        assert_eq!(plan.mark(), None);
        assert!(
            !plan.answered(&answer(4, "2")),
            "the same again, with its index"
        );
        assert_eq!(plan.mark(), Some(&Mark::Index(4)));
    }

    #[test]
    fn zero_is_never_waited_with() {
        let mut plan = Plan::default();
        assert!(plan.answered(&answer(0, "[]")));
        assert_eq!(plan.mark(), Some(&Mark::Index(1)));
    }

    #[test]
    fn numbers_of_events_go_anywhere() {
        let mut plan = Plan::default();
        for (mark, text) in [(9, "1"), (4, "2"), (7, "3")] {
            let mark = Mark::Event(mark);
            assert!(plan.answered(&Answer {
                mark: mark.clone(),
                text: text.into()
            }));
            assert_eq!(plan.mark(), Some(&mark));
        }
    }

    #[test]
    fn failures_are_spaced_out() {
        let mut plan = Plan::default();
        assert!(plan.answered(&answer(9, "1")));
        let waits: Vec<u64> = (0..8).map(|_| plan.failed().as_secs()).collect();
        assert_eq!(waits, [5, 20, 45, 80, 125, 180, 180, 180]);
        assert_eq!(plan.mark(), None, "the next question is answered at once");
        assert!(
            !plan.answered(&answer(9, "1")),
            "nothing has changed meanwhile"
        );
        assert_eq!(plan.failed().as_secs(), 5);
    }
}

//! In which term was an entry proposed?
//!
//! Raft asks for terms several times per proposal, so the answer must not touch the disk. Terms
//! change rarely: one run `(first index, term)` per change is enough. A run of term 0 covers
//! entries that are missing.
//!
//! Invariant: runs are in index order, neighbours differ, and the last one goes on for ever; the
//! index above knows where the log ends.

use std::collections::VecDeque;

/// Term runs of one shard's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TermRuns {
    runs: VecDeque<(u64, u64)>,
}

impl TermRuns {
    /// Term at `index`; 0 when unknown.
    #[inline]
    pub fn at(&self, index: u64) -> u64 {
        match self.runs.back() {
            None => 0,
            Some(&(first, term)) if first <= index => term,
            Some(_) => {
                let after = self.runs.partition_point(|run| run.0 <= index);
                after.checked_sub(1).map_or(0, |run| self.runs[run].1)
            }
        }
    }

    /// The entry at `index`, which follows all others, has this term.
    #[inline]
    pub fn push(&mut self, index: u64, term: u64) {
        if self.runs.back().map(|run| run.1) != Some(term) {
            debug_assert!(self.runs.back().is_none_or(|run| run.0 < index));
            self.runs.push_back((index, term));
        }
    }

    /// Forgets `index` and what follows.
    pub fn truncate_from(&mut self, index: u64) {
        while self.runs.back().is_some_and(|run| run.0 >= index) {
            self.runs.pop_back();
        }
    }

    /// Forgets runs that end before `first`.
    pub fn compact_to(&mut self, first: u64) {
        while self.runs.len() > 1 && self.runs[1].0 <= first {
            self.runs.pop_front();
        }
    }

    /// Overwrites the term of `first..=last`; `end` is the log's last entry.
    pub fn set(&mut self, first: u64, last: u64, term: u64, end: u64) {
        let behind = (last < end).then(|| self.at(last + 1));
        let later: Vec<_> = self
            .runs
            .iter()
            .copied()
            .filter(|run| run.0 > last + 1)
            .collect();
        self.truncate_from(first);
        self.push(first, term);
        if let Some(behind) = behind {
            self.push(last + 1, behind);
        }
        for (first, term) in later {
            self.push(first, term);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain vector of terms.
        #[test]
        fn runs_equal_a_vector(ops in proptest::collection::vec((0u8..4, 1u64..40, 0u64..6, 1u64..4), 1..60)) {
            let mut runs = TermRuns::default();
            let mut model: Vec<u64> = vec![0];
            for (op, at, length, term) in ops {
                let end = model.len() as u64 - 1;
                match op {
                    0 | 1 => {
                        runs.push(end + 1, term);
                        model.push(term);
                    }
                    2 if at <= end => {
                        runs.truncate_from(at);
                        model.truncate(at as usize);
                    }
                    3 if at <= end => {
                        let last = (at + length).min(end);
                        runs.set(at, last, term, end);
                        model[at as usize..=last as usize].fill(term);
                    }
                    _ => {}
                }
                for (index, term) in model.iter().enumerate().skip(1) {
                    prop_assert_eq!(runs.at(index as u64), *term, "at {}", index);
                }
                prop_assert!(runs.runs.iter().zip(runs.runs.iter().skip(1)).all(|(a, b)| a.0 < b.0 && a.1 != b.1));
            }
        }
    }
}

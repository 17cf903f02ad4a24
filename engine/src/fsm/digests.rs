//! How do replicas notice that they are not identical?
//!
//! Every server notes the digest of its state after each index that is a multiple of
//! [`INTERVAL`]. Now and then the leader puts the digest that it noted into the log
//! (`Command::DigestCheck`), and every server compares it with its own of the same index. What is
//! older than the history, or than the image a server started from, cannot be compared and is
//! passed over.

use wire::Index;

/// Digests are noted at multiples of this many applied indexes.
pub const INTERVAL: u64 = 1024;

/// Digests that are remembered: a check may be this many intervals late.
const REMEMBERED: usize = 64;

/// The digests noted last.
#[derive(Clone, Debug, Default)]
pub(super) struct DigestHistory(std::collections::VecDeque<(Index, u64)>);

impl DigestHistory {
    /// Whether a digest is to be noted at `index`.
    pub(super) fn wants(index: Index) -> bool {
        index.0.is_multiple_of(INTERVAL)
    }

    pub(super) fn note(&mut self, index: Index, digest: u64) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((index, digest));
    }

    /// The digest noted at `index`, if it is remembered.
    pub(super) fn at(&self, index: Index) -> Option<u64> {
        let at = self
            .0
            .binary_search_by_key(&index, |&(noted, _)| noted)
            .ok()?;
        Some(self.0[at].1)
    }

    pub(super) fn latest(&self) -> Option<(Index, u64)> {
        self.0.back().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_ones_only() {
        let mut history = DigestHistory::default();
        for n in 1..=REMEMBERED as u64 + 1 {
            assert!(
                DigestHistory::wants(Index(n * INTERVAL))
                    && !DigestHistory::wants(Index(n * INTERVAL + 1))
            );
            history.note(Index(n * INTERVAL), n);
        }
        assert_eq!(history.at(Index(INTERVAL)), None);
        assert_eq!(history.at(Index(2 * INTERVAL)), Some(2));
        assert_eq!(history.at(Index(2 * INTERVAL + 1)), None);
        assert_eq!(history.latest(), Some((Index(65 * INTERVAL), 65)));
    }
}

//! What does an inner node know of the rows below without looking at them?
//!
//! Their number, their greatest stamp and the sum of their digests. So the index of a listing,
//! the size of a prefix and the digest of what a cut leaves are known in a walk from the root,
//! however many rows are concerned.

use super::Keyed;

/// Of some rows: number, greatest stamp, and sum of digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) rows: u64,
    pub(super) stamp: u64,
    /// Modulo 2⁶⁴.
    pub(super) digest: u64,
}

impl Summary {
    /// Of no row.
    pub(super) const NONE: Self = Self {
        rows: 0,
        stamp: 0,
        digest: 0,
    };

    /// Of one row.
    pub(super) fn of<T: Keyed>(row: &T) -> Self {
        Self {
            rows: 1,
            stamp: row.stamp(),
            digest: row.digest(),
        }
    }

    /// Of these rows and those.
    pub(super) fn join(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            stamp: self.stamp.max(other.stamp),
            digest: self.digest.wrapping_add(other.digest),
        }
    }

    /// Without rows that were among them. Their greatest stamp is the caller's to find.
    pub(super) fn without(self, gone: Self, stamp: u64) -> Self {
        Self {
            rows: self.rows - gone.rows,
            stamp,
            digest: self.digest.wrapping_sub(gone.digest),
        }
    }
}

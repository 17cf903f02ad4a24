//! Where in the log is an entry, and what is known of its shard without reading?
//!
//! One [`ShardIndex`] per shard, kept by the same methods while appending and while recovering,
//! so that what recovery believes is what the running log believed. Entries are found through
//! *extents*: runs of consecutive entries within one batch, at most about
//! [`EXTENT_BYTES_MAX`] long, so that reading one entry never reads a megabyte.
//!
//! Invariants: extents are in index order and do not overlap; each index in
//! `snapshot_index + 1 ..= last_index` is either in exactly one extent or in exactly one gap.

use std::collections::VecDeque;

use bytes::Bytes;
use wire::{Index, Term};

use crate::io::{SegmentNo, sector::Stamp};

use super::{
    format::{CheckpointBody, DOUBT_HARD_STATE, DOUBT_TAIL},
    terms::TermRuns,
    types::{Checkpoint, Gap, HardState},
};

/// An extent ends once it is this long on disk, bytes; one longer entry may exceed it.
pub(super) const EXTENT_BYTES_MAX: u64 = 32 * 1024;

/// A run of consecutive entries of one shard within one batch. Records of other shards may lie
/// between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// First entry.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// Whether the records are fills.
    pub fill: bool,
    /// What its sectors are stamped with.
    pub stamp: Stamp,
    /// The segment.
    pub segment: SegmentNo,
    /// Physical position of the first record in the segment, bytes.
    pub at: u64,
    /// Physical end of the last record, bytes.
    pub end: u64,
}

impl Extent {
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }
}

/// Where a record was put.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordAt {
    pub stamp: Stamp,
    pub segment: SegmentNo,
    pub at: u64,
    pub end: u64,
}

/// Whether the hard state waits to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dirty {
    #[default]
    No,
    /// Only the commit index moved: it rides along.
    Commit,
    /// Term, vote or doubt changed.
    TermOrVote,
}

/// All that the log knows of one shard.
#[derive(Clone, Debug, Default)]
pub(super) struct ShardIndex {
    pub hard_state: HardState,
    pub hard_state_in_doubt: bool,
    /// A corrupt record at the log's end may have held further entries.
    pub tail_in_doubt: bool,
    pub dirty: Dirty,
    pub snapshot_index: u64,
    pub snapshot_term: u64,
    pub configuration: Bytes,
    last_index: u64,
    terms: TermRuns,
    extents: VecDeque<Extent>,
    gaps: Vec<Gap>,
    /// Fills lie in later segments than their neighbours, so that pins must be searched for.
    has_fills: bool,
    /// Whether the next entry may join the last extent: no truncated record lies between.
    extendable: bool,
}

impl ShardIndex {
    pub fn first_index(&self) -> u64 {
        self.snapshot_index + 1
    }

    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// Term at `index`; 0 when it is outside the log or missing.
    #[inline]
    pub fn term(&self, index: u64) -> u64 {
        if index == self.snapshot_index {
            self.snapshot_term
        } else if index < self.snapshot_index || index > self.last_index {
            0
        } else {
            self.terms.at(index)
        }
    }

    pub fn doubt_bits(&self) -> u8 {
        (if self.hard_state_in_doubt {
            DOUBT_HARD_STATE
        } else {
            0
        }) | if self.tail_in_doubt { DOUBT_TAIL } else { 0 }
    }

    /// Closed gaps, then the open one at the tail.
    pub fn gaps(&self) -> Vec<Gap> {
        let open = self.tail_in_doubt.then_some(Gap {
            first: Index(self.last_index + 1),
            last: None,
            next: None,
        });
        self.gaps.iter().copied().chain(open).collect()
    }

    pub fn has_closed_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            hard_state: self.hard_state,
            snapshot_index: Index(self.snapshot_index),
            snapshot_term: Term(self.snapshot_term),
            configuration: self.configuration.clone(),
        }
    }

    pub fn checkpoint_body(&self) -> CheckpointBody {
        CheckpointBody {
            snapshot_index: self.snapshot_index,
            snapshot_term: self.snapshot_term,
            last_index: self.last_index,
            last_term: self.term(self.last_index),
            configuration: self.configuration.clone(),
        }
    }

    /// Adds the entry at `index`, at most one above the last. Truncates what was there and
    /// behind.
    #[inline]
    pub fn append(&mut self, index: u64, term: u64, at: RecordAt) {
        debug_assert!(index > self.snapshot_index && index <= self.last_index + 1);
        if index <= self.last_index {
            self.truncate_from(index);
        }
        if let Some(gap) = self.gaps.last_mut()
            && gap.next.is_none()
        {
            gap.next = Some((Index(index), Term(term)));
        }
        self.last_index = index;
        self.terms.push(index, term);
        if let Some(extent) = self.extents.back_mut()
            && self.extendable
            && extent.stamp == at.stamp
            && extent.last() + 1 == index
            && !extent.fill
            && at.end - extent.at <= EXTENT_BYTES_MAX
        {
            extent.count += 1;
            extent.end = at.end;
            return;
        }
        self.extents.push_back(extent(index, false, at));
        self.extendable = true;
    }

    /// Restores a missing entry. Returns whether it was missing.
    pub fn fill(&mut self, index: u64, term: u64, at: RecordAt) -> bool {
        let Some(no) = self.gap_of(index) else {
            return false;
        };
        let gap = self.gaps[no];
        let before = (gap.first.0 < index).then(|| Gap {
            first: gap.first,
            last: Some(Index(index - 1)),
            next: Some((Index(index), Term(term))),
        });
        let after = (gap.last > Some(Index(index))).then(|| Gap {
            first: Index(index + 1),
            ..gap
        });
        self.gaps.splice(no..=no, before.into_iter().chain(after));
        self.terms.set(index, index, term, self.last_index);
        let place = self.extents.partition_point(|extent| extent.first < index);
        if let Some(before) = place.checked_sub(1).map(|no| &mut self.extents[no])
            && before.fill
            && before.stamp == at.stamp
            && before.last() + 1 == index
            && before.end == at.at
            && at.end - before.at <= EXTENT_BYTES_MAX
        {
            before.count += 1;
            before.end = at.end;
        } else {
            self.extents.insert(place, extent(index, true, at));
        }
        self.has_fills = true;
        true
    }

    /// The closed gap that holds `index`.
    fn gap_of(&self, index: u64) -> Option<usize> {
        let after = self.gaps.partition_point(|gap| gap.first.0 <= index);
        let no = after.checked_sub(1)?;
        (self.gaps[no].last >= Some(Index(index))).then_some(no)
    }

    pub fn is_missing(&self, index: u64) -> bool {
        self.gap_of(index).is_some()
    }

    /// Removes `index` and what follows.
    pub fn truncate_from(&mut self, index: u64) {
        debug_assert!(index > self.snapshot_index);
        self.extendable = false;
        while self
            .extents
            .back()
            .is_some_and(|extent| extent.first >= index)
        {
            self.extents.pop_back();
        }
        if let Some(extent) = self.extents.back_mut()
            && extent.last() >= index
        {
            extent.count = (index - extent.first) as u32;
        }
        self.gaps.retain(|gap| gap.first.0 < index);
        if let Some(gap) = self.gaps.last_mut()
            && gap.last >= Some(Index(index - 1))
        {
            gap.last = Some(Index(index - 1));
            gap.next = None;
        }
        self.terms.truncate_from(index);
        self.last_index = self.last_index.min(index - 1);
    }

    /// Declares `first..=last` missing, `last` at or beyond the log's end; what was there goes.
    pub fn lose(&mut self, first: u64, last: u64) {
        debug_assert!(first > self.snapshot_index && first <= last && last >= self.last_index);
        debug_assert!(first <= self.last_index + 1);
        if first <= self.last_index {
            self.truncate_from(first);
        }
        match self.gaps.last_mut() {
            Some(gap) if gap.last == Some(Index(first - 1)) => {
                gap.last = Some(Index(last));
                gap.next = None;
            }
            _ => self.gaps.push(Gap {
                first: Index(first),
                last: Some(Index(last)),
                next: None,
            }),
        }
        self.terms.push(first, 0);
        self.last_index = last;
    }

    /// Moves the snapshot: entries up to it go. With `keep` the entries behind it stay, otherwise
    /// the log restarts after it.
    pub fn compact(&mut self, snapshot_index: u64, snapshot_term: u64, keep: bool) {
        if !keep || snapshot_index >= self.last_index {
            self.extents.clear();
            self.gaps.clear();
            self.terms = TermRuns::default();
            self.last_index = snapshot_index;
            self.has_fills = false;
        } else {
            while self
                .extents
                .front()
                .is_some_and(|extent| extent.last() <= snapshot_index)
            {
                self.extents.pop_front();
            }
            self.gaps
                .retain(|gap| gap.last > Some(Index(snapshot_index)));
            if let Some(gap) = self.gaps.first_mut()
                && gap.first.0 <= snapshot_index
            {
                gap.first = Index(snapshot_index + 1);
            }
            self.terms.compact_to(snapshot_index + 1);
        }
        self.snapshot_index = snapshot_index;
        self.snapshot_term = snapshot_term;
    }

    /// The oldest segment that holds an entry still needed.
    pub fn pin(&self) -> Option<SegmentNo> {
        if self.has_fills {
            self.extents.iter().map(|extent| extent.segment).min()
        } else {
            self.extents.front().map(|extent| extent.segment)
        }
    }

    /// Extents from the one that holds `index` on; empty when none does.
    pub fn extents_from(&self, index: u64) -> impl Iterator<Item = &Extent> {
        let no = self.extents.partition_point(|extent| extent.last() < index);
        let holds = self
            .extents
            .get(no)
            .is_some_and(|extent| extent.first <= index);
        self.extents
            .range(no..)
            .take(if holds { usize::MAX } else { 0 })
    }
}

fn extent(index: u64, fill: bool, at: RecordAt) -> Extent {
    Extent {
        first: index,
        count: 1,
        fill,
        stamp: at.stamp,
        segment: at.segment,
        at: at.at,
        end: at.end,
    }
}

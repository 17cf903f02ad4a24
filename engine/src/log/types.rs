//! What goes into the log, and what comes back out of it?
//!
//! The nouns of the log's interface, without behaviour. Raft's own words where it has one.

use bytes::Bytes;
use wire::{Index, Lsn, Term};

use crate::io::{BLOCK_BYTES, SectorKey};

use super::{LogError, format};

/// Smallest segment, bytes: room for a head, an entry and a close.
pub const SEGMENT_BYTES_MIN: u64 = 16 * BLOCK_BYTES as u64;
/// Space of the active segment that only hard states and checkpoints should use, bytes at most
/// (a sixteenth of the segment when that is less).
pub const RESERVE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What each batch keeps free for one hard state of each shard, payload bytes.
pub(super) const KEPT_BYTES: usize = wire::limits::SHARDS_MAX * format::RECORD_HEADER_BYTES;

/// Sizes and switches of one executor's log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Length of a new segment file, bytes; a multiple of the block, at least
    /// [`SEGMENT_BYTES_MIN`]. An existing segment keeps its own length.
    pub segment_bytes: u64,
    /// Longest batch, bytes; what is appended beyond it spills into further batches.
    pub batch_bytes_max: usize,
    /// What all segment files of the log may take on disk, bytes: live, prepared and freed ones.
    /// At half of it [`pinned`](super::Log::pinned) names the shards to snapshot; beyond it no
    /// segment is prepared, but for one that a hard state or checkpoint is waiting for.
    pub log_bytes_max: u64,
    /// Durable writes at the same time.
    pub writes_in_flight_max: usize,
    /// A write starts beside one in flight only when it is at least this long, bytes: small ones
    /// gain more from gathering on.
    pub second_write_bytes_min: usize,
    /// After this long without a write a mark names the tail durable, nanoseconds.
    pub idle_mark_ns: u64,
    /// A segment that could not be prepared is tried again after this long, nanoseconds.
    pub prepare_retry_ns: u64,
    /// Freed segment files that are kept for recycling.
    pub free_segments_max: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            batch_bytes_max: 1024 * 1024,
            log_bytes_max: 1024 * 1024 * 1024,
            writes_in_flight_max: 2,
            second_write_bytes_min: 64 * 1024,
            idle_mark_ns: 100_000_000,
            prepare_retry_ns: 500_000_000,
            free_segments_max: 4,
        }
    }
}

impl LogConfig {
    /// Longest payload of one entry, bytes: it must fit into one batch and half a segment, beside
    /// a hard state of each shard. `append` panics beyond it: the gateway's bound on commands is
    /// far below.
    pub fn entry_bytes_max(&self) -> usize {
        let batch = (self.batch_bytes_max as u64).min(self.segment_bytes / 2);
        let payload = batch as usize / BLOCK_BYTES * format::BLOCK_PAYLOAD_BYTES;
        payload - format::HEADER_BYTES - format::RECORD_HEADER_BYTES - KEPT_BYTES
    }

    /// Refuses sizes that contradict each other.
    pub(super) fn check(&self) -> Result<(), LogError> {
        let block = BLOCK_BYTES as u64;
        let refuse = |what: String| Err(LogError::Config(what));
        if !self.segment_bytes.is_multiple_of(block) || self.segment_bytes < SEGMENT_BYTES_MIN {
            return refuse(format!(
                "segment_bytes ({}) must be a multiple of {block} and at least {SEGMENT_BYTES_MIN}",
                self.segment_bytes
            ));
        }
        let batch = self.batch_bytes_max as u64;
        if !batch.is_multiple_of(block) || batch < 2 * block || batch > self.segment_bytes {
            return refuse(format!(
                "batch_bytes_max ({batch}) must be a multiple of {block}, at least {} and at most segment_bytes ({})",
                2 * block,
                self.segment_bytes
            ));
        }
        if self.log_bytes_max < 4 * self.segment_bytes {
            return refuse(format!(
                "log_bytes_max ({}) must be at least four segments ({})",
                self.log_bytes_max,
                4 * self.segment_bytes
            ));
        }
        if self.writes_in_flight_max == 0 {
            return refuse("writes_in_flight_max must be at least 1".into());
        }
        Ok(())
    }

    /// A batch closes its segment when it would leave less than this, bytes.
    pub(super) fn close_below_bytes(&self) -> u64 {
        (self.segment_bytes / 16).min(64 * 1024)
    }

    /// What the active segment keeps for hard states when no further one could be prepared, bytes.
    pub fn reserve_bytes(&self) -> u64 {
        (self.segment_bytes / 16).clamp(4 * BLOCK_BYTES as u64, RESERVE_BYTES_MAX)
    }
}

/// What distinguishes this log from every other; made once, with its data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// Random; every batch carries it.
    pub log_id: u64,
    /// Random and secret; seeds every checksum, so that no client's value can pass for a batch.
    pub salt: u64,
}

impl LogIdentity {
    /// What the log's sectors are checked with.
    pub fn key(&self) -> SectorKey {
        let mixed = (self.salt ^ self.log_id.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        SectorKey((mixed >> 32) as u32)
    }
}

/// Raft's persistent state of one shard besides its entries (Raft paper, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: Term,
    /// Whom it voted for in that term; 0 for nobody.
    pub vote: u64,
    /// Highest entry known committed. May lag behind what was acknowledged.
    pub commit: Index,
}

/// What must survive of a shard when older segments go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its hard state.
    pub hard_state: HardState,
    /// Every entry up to here is in an image; the log's first entry is the one after it.
    pub snapshot_index: Index,
    /// Term of that entry.
    pub snapshot_term: Term,
    /// The configuration as of the snapshot; opaque to the log.
    pub configuration: Bytes,
}

/// An entry to append; its bytes are copied once, into the batch's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// Its place in the shard's log.
    pub index: Index,
    /// The term in which it was proposed.
    pub term: Term,
    /// Opaque to the log (raft's entry type).
    pub kind: u8,
    /// Opaque to the log.
    pub data: &'a [u8],
}

/// An entry read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the shard's log.
    pub index: Index,
    /// The term in which it was proposed.
    pub term: Term,
    /// Opaque to the log (raft's entry type).
    pub kind: u8,
    /// Opaque to the log. Entries of one read share an allocation of at most the read's size.
    pub data: Bytes,
}

impl Entry {
    /// A view of it, to append.
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef {
            index: self.index,
            term: self.term,
            kind: self.kind,
            data: &self.data,
        }
    }
}

/// A run of entries that a corrupt record held, or may have replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first entry that is missing or in doubt.
    pub first: Index,
    /// The last one; `None` when the corrupt record was the last: how far it went is not known.
    pub last: Option<Index>,
    /// The entry after the gap. By Raft's log matching property, a peer whose log has an entry
    /// with this index and term has exactly the missing entries before it.
    pub next: Option<(Index, Term)>,
}

/// What happened when an op was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing that the caller waits for.
    Nothing,
    /// Every batch up to this one is durable.
    Durable(Lsn),
    /// The read of this token can be finished.
    Read(u64),
}

/// Whether entries may be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Space {
    /// There is room.
    Ok,
    /// No further segment can be prepared and the active one is nearly full: the caller refuses
    /// proposals and appended entries. Hard states and checkpoints still fit. Ends by itself.
    Full {
        /// What stands in the way, for an operator.
        why: String,
    },
}

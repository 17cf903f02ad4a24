//! How does what was acknowledged survive?
//!
//! One log per executor, for all its shards: a row of *batches* in *segment* files, each batch one
//! durable write of everything that waited. The log is sans-io. It names no file descriptor, ring,
//! clock or thread: [`Log::take_ops`] hands out [`LogOp`](crate::io::LogOp)s, [`Log::done`] takes
//! their answers, time is passed in; recovery, inspection and repair run over a blocking
//! [`Disk`]. The executor's ring and the simulator drive the same code.
//!
//! ```text
//!   append ─┐                       ┌─ LogOp::Write ──▶ ring ──▶ device
//!   put_*  ─┼─▶ open batch ─▶ closed ┤                                  │
//!   fill   ─┘   (gathers while one  └─ LogOp::Prepare ─▶ lane           │
//!               is in flight)                                           ▼
//!   acknowledge ◀── Progress::Durable(lsn) ◀────── in order ◀─────── done
//! ```
//!
//! | file | its question |
//! |---|---|
//! | `types`, `error`, `stats` | what goes in and comes out |
//! | `format`, `gapped`, `batch` | what the bytes mean, and how they are encoded |
//! | `gather`, `drive`, `buffers` | from append to durable |
//! | `segments` | which files exist, and their recycling |
//! | `index`, `terms` | what is known without reading |
//! | `read` | verified reads |
//! | `scan`, `walk`, `verdict`, `replay`, `recovery` | opening after anything |
//! | `inspect`, `repair` | the offline tools |
//!
//! What is assumed of a device, every crash case, the formats as diagrams and the limitations
//! are in `README.md` beside this file.
//!
//! Invariants: a block that held an acknowledged byte is never written again, but in a recycled
//! segment; nothing is acknowledged before it and everything before it is durable; nothing that
//! may have been acknowledged is dropped.

mod batch;
mod blocking;
mod buffers;
mod drive;
mod error;
mod format;
mod gapped;
mod gather;
mod index;
mod inspect;
#[cfg(any(test, feature = "simulation"))]
pub mod proof;
mod read;
mod recovery;
mod repair;
mod replay;
mod scan;
mod segments;
mod stats;
mod terms;
mod types;
mod verdict;
mod walk;

use std::collections::VecDeque;

use wire::{Index, Lsn, ShardId, Term, limits::SHARDS_MAX};

use crate::io::{AlignedBuf, Disk, SectorKey, SegmentNo, prepare_segment};

pub use crate::io::perform;
pub use buffers::BUFFER_BYTES;
pub use error::{CorruptAt, LogError, LogFailure};
pub use format::FORMAT_VERSION;
pub use inspect::{Inspection, inspect};
pub use recovery::{Recovered, RecoveredShard, RecoveryReport};
pub use repair::{Cut, repair_cut_tail};
pub use stats::LogStats;
pub use types::{
    Checkpoint, Entry, EntryRef, Gap, HardState, LogConfig, LogIdentity, Progress,
    RESERVE_BYTES_MAX, SEGMENT_BYTES_MIN, Space,
};
pub use verdict::{Cause, Verdict};

use batch::Batch;
use buffers::Buffers;
use drive::InFlight;
use format::Place;
use index::ShardIndex;
use read::Reading;
use segments::{File, Segments};

/// The log of one executor and all its shards.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    identity: LogIdentity,
    key: SectorKey,
    /// Which start of the server this is.
    incarnation: u32,
    shards: Shards,
    /// Shards whose hard state waits for the next batch to close.
    dirty: Vec<ShardId>,
    segments: Segments,
    buffers: Buffers,
    /// The batch that gathers.
    open: Option<Batch>,
    /// Batches that are complete and wait to be issued, in order.
    closed: VecDeque<Batch>,
    /// Issued writes, in order.
    in_flight: VecDeque<InFlight>,
    /// Where the next batch to open begins.
    tail: Place,
    next_lsn: u64,
    durable: u64,
    /// Of the last issued batch.
    digest: u64,
    /// The first segment still needed.
    oldest: SegmentNo,
    next_token: u64,
    reads: Vec<Reading>,
    /// Whether the last batch is one that a mark should name durable.
    needs_mark: bool,
    shutting_down: bool,
    last_write_ns: u64,
    failure: Option<LogFailure>,
    stats: LogStats,
    scratch: Vec<u8>,
}

/// Shards by number: a look-up per appended entry is an array access.
#[derive(Debug, Default)]
struct Shards(Vec<Option<Box<ShardIndex>>>);

impl Shards {
    fn get(&self, shard: ShardId) -> Option<&ShardIndex> {
        self.0.get(usize::from(shard.0))?.as_deref()
    }

    /// The shard's index, made when it is new.
    #[inline]
    fn entry(&mut self, shard: ShardId) -> &mut ShardIndex {
        let no = usize::from(shard.0);
        if no >= self.0.len() {
            assert!(no < SHARDS_MAX, "shard {shard} is beyond SHARDS_MAX");
            self.0.resize_with(no + 1, || None);
        }
        self.0[no].get_or_insert_default()
    }

    fn iter(&self) -> impl Iterator<Item = (ShardId, &ShardIndex)> {
        let shards = self.0.iter().enumerate();
        shards.filter_map(|(no, shard)| Some((ShardId(no as u16), shard.as_deref()?)))
    }
}

/// Where an opened log continues.
#[derive(Debug)]
struct Opening {
    incarnation: u32,
    tail: Place,
    next_lsn: u64,
    digest: u64,
    oldest: SegmentNo,
}

impl Log {
    /// Makes a log in a directory that holds none. Blocking: formats and flushes the first
    /// segment.
    ///
    /// # Errors
    /// [`LogError::Exists`] when there are segments; [`LogError::Config`]; [`LogError::Io`].
    pub fn create(
        disk: &dyn Disk,
        config: LogConfig,
        identity: LogIdentity,
    ) -> Result<Log, LogError> {
        config.check()?;
        let files = disk
            .list()
            .map_err(LogError::io("list", "the log directory"))?;
        if let Some((file, _)) = files
            .into_iter()
            .find(|file| SegmentNo::parse(&file.0).is_some())
        {
            return Err(LogError::Exists { file });
        }
        let first = SegmentNo(1);
        prepare_segment(disk, first, None, config.segment_bytes, identity.key())
            .map_err(LogError::io("create", first.file_name()))?;
        let live = vec![File {
            no: first,
            bytes: config.segment_bytes,
            exists: true,
        }];
        let segments = Segments::new(identity.key(), Vec::new(), live, Vec::new());
        let opening = Opening {
            incarnation: 1,
            tail: Place {
                segment: first,
                offset: 0,
            },
            next_lsn: 1,
            digest: 0,
            oldest: first,
        };
        Ok(Self::open(
            config,
            identity,
            Shards::default(),
            segments,
            opening,
        ))
    }

    fn open(
        config: LogConfig,
        identity: LogIdentity,
        shards: Shards,
        segments: Segments,
        opening: Opening,
    ) -> Self {
        Self {
            key: identity.key(),
            config,
            identity,
            incarnation: opening.incarnation,
            shards,
            dirty: Vec::new(),
            segments,
            buffers: Buffers::default(),
            open: None,
            closed: VecDeque::new(),
            in_flight: VecDeque::new(),
            tail: opening.tail,
            next_lsn: opening.next_lsn,
            durable: opening.next_lsn - 1,
            digest: opening.digest,
            oldest: opening.oldest,
            next_token: 0,
            reads: Vec::new(),
            needs_mark: opening.next_lsn > 1,
            shutting_down: false,
            last_write_ns: 0,
            failure: None,
            stats: LogStats::default(),
            scratch: Vec::new(),
        }
    }

    /// Buffers that a ring has registered; they are used before others, and for ever.
    pub fn give_buffers(&mut self, buffers: Vec<AlignedBuf>) {
        buffers.into_iter().for_each(|buf| self.buffers.give(buf));
    }

    /// The first entry that the shard's log holds or would hold: its snapshot's index + 1.
    pub fn first_index(&self, shard: ShardId) -> Index {
        Index(self.shards.get(shard).map_or(1, ShardIndex::first_index))
    }

    /// The shard's last entry, durable or not; the snapshot's index when there is none.
    pub fn last_index(&self, shard: ShardId) -> Index {
        Index(self.shards.get(shard).map_or(0, ShardIndex::last_index))
    }

    /// Term of an entry or of the snapshot, from memory; `None` outside the log and in gaps.
    pub fn term(&self, shard: ShardId, index: Index) -> Option<Term> {
        let term = self.shards.get(shard)?.term(index.0);
        (term != 0).then_some(Term(term))
    }

    /// Entries that corrupt records held and that have not been restored, in order. The last may
    /// be open-ended.
    pub fn gaps(&self, shard: ShardId) -> Vec<Gap> {
        self.shards.get(shard).map_or(Vec::new(), ShardIndex::gaps)
    }

    /// The shard's newest hard state, durable or not.
    pub fn hard_state(&self, shard: ShardId) -> HardState {
        self.shards
            .get(shard)
            .map_or(HardState::default(), |index| index.hard_state)
    }

    /// Whether a corrupt record may have held a newer term, vote or tail entry of the shard: it
    /// must not vote before [`settle_hard_state`](Self::settle_hard_state).
    pub fn hard_state_in_doubt(&self, shard: ShardId) -> bool {
        let index = self.shards.get(shard);
        index.is_some_and(|index| index.doubt_bits() != 0)
    }

    /// The shard as [`recover`](Self::recover) would describe it now; `None` when it is not known.
    pub fn recovered(&self, shard: ShardId) -> Option<RecoveredShard> {
        self.shards.get(shard).map(recovery::describe)
    }

    /// The batch that carries everything appended so far: when it is durable, all of it is.
    pub fn open_lsn(&self) -> Lsn {
        Lsn(self.next_lsn - 1)
    }

    /// Every batch up to this one is durable.
    pub fn durable_lsn(&self) -> Lsn {
        if mutant!(AckBeforeFlush) {
            return self.open_lsn();
        }
        Lsn(self.durable)
    }

    /// What killed this log, if anything did.
    pub fn failure(&self) -> Option<&LogFailure> {
        self.failure.as_ref()
    }

    /// Which start of the server this is, from 1.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// The configured sizes.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Shards whose entries hold back more than half of `log_bytes_max`: to be snapshotted.
    pub fn pinned(&self) -> Vec<ShardId> {
        let bound = self.config.log_bytes_max / 2;
        let holds_back = |index: &ShardIndex| {
            index
                .pin()
                .is_some_and(|pin| self.segments.live_bytes_from(pin) > bound)
        };
        let shards = self.shards.iter();
        shards
            .filter(|(_, index)| holds_back(index))
            .map(|(shard, _)| shard)
            .collect()
    }

    /// Counters since the log was opened.
    pub fn stats(&self) -> LogStats {
        LogStats {
            zero_fill_bytes: self.segments.formatted_bytes,
            segments_prepared: self.segments.prepared_total,
            segments_recycled: self.segments.recycled_total,
            prepare_failures: self.segments.failures_total,
            segments_live: self.segments.live_count(),
            disk_bytes: self.segments.disk_bytes(),
            ..self.stats
        }
    }
}

#[cfg(test)]
mod tests;

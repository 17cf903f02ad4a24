//! (being built) signatures first.
use std::{collections::BTreeMap, io};

use wire::{Index, Lsn, ShardId, Term};

use super::*;
use crate::io::{AlignedBuf, Disk, LogDone, LogOp, SegmentNo};

/// What recovery found.
#[derive(Debug)]
pub struct Recovered {
    /// Each shard that the log knows.
    pub shards: BTreeMap<ShardId, RecoveredShard>,
    /// What was scanned, dropped and missing.
    pub report: RecoveryReport,
}
/// One shard as of the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredShard {
    /// Its newest hard state, snapshot and configuration.
    pub checkpoint: Checkpoint,
    /// The first entry that the log holds (snapshot index + 1).
    pub first_index: Index,
    /// The last entry; the snapshot's index when there is none.
    pub last_index: Index,
    /// Its term.
    pub last_term: Term,
    /// Entries that corrupt records held, in order.
    pub gaps: Vec<Gap>,
    /// A corrupt record may have held a newer term or vote.
    pub hard_state_in_doubt: bool,
}
/// What recovery did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Batches accepted.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Segments that bytes were accepted from; all were flushed.
    pub segments: u64,
    /// Where the log ended, and whether by an end or a torn write.
    pub tail: Option<CorruptAt>,
    /// Places that could not be read (also those that held nothing needed).
    pub corrupt: Vec<CorruptAt>,
    /// The incarnation that this start writes under.
    pub incarnation: u32,
}

/// The durable log of one executor: all its shards, one sequence of batches.
#[derive(Debug)]
pub struct Log;

impl Log {
    /// A log in a directory that holds none. Blocking.
    pub fn create(disk: &dyn Disk, config: LogConfig, identity: LogIdentity) -> Result<Log, LogError> { unimplemented!() }
    /// Opens an existing log. Blocking.
    pub fn recover(disk: &dyn Disk, config: LogConfig, identity: LogIdentity, lone: bool) -> Result<(Log, Recovered), LogError> { unimplemented!() }
    /// Adds an entry to the open batch. An index at or below the last one truncates what follows (raft conflict).
    pub fn append(&mut self, shard: ShardId, entry: EntryRef<'_>) { unimplemented!() }
    /// New hard state; call before appending the entries it belongs to. `start_batch` false: commit-only, rides in the next batch.
    pub fn put_hard_state(&mut self, shard: ShardId, state: HardState, start_batch: bool) { unimplemented!() }
    /// After an image is durable: frees what lies before. Drops all entries when the log's entry at the snapshot differs.
    pub fn put_checkpoint(&mut self, shard: ShardId, checkpoint: Checkpoint) { unimplemented!() }
    /// Restores entries of a gap from a peer.
    pub fn fill_gap(&mut self, shard: ShardId, entries: &[Entry]) { unimplemented!() }
    /// The caller has proven that the hard state it holds is safe: the doubt ends with the next batch.
    pub fn settle_hard_state(&mut self, shard: ShardId) { unimplemented!() }
    /// Whether a corrupt record may have held a newer term or vote of this shard.
    pub fn hard_state_in_doubt(&self, shard: ShardId) -> bool { unimplemented!() }
    /// Entries still missing.
    pub fn gaps(&self, shard: ShardId) -> &[Gap] { unimplemented!() }
    /// The batch that carries everything appended so far.
    pub fn open_lsn(&self) -> Lsn { unimplemented!() }
    /// All batches up to here are durable.
    pub fn durable_lsn(&self) -> Lsn { unimplemented!() }
    /// Buffers that a ring has registered; used before others.
    pub fn give_buffers(&mut self, buffers: Vec<AlignedBuf>) { unimplemented!() }
    /// What is to be done now.
    pub fn take_ops(&mut self, now_ns: u64, ops: &mut Vec<LogOp>) { unimplemented!() }
    /// An op was answered.
    pub fn done(&mut self, now_ns: u64, done: LogDone) -> Result<Progress, LogFailure> { unimplemented!() }
    /// The failure that killed this log.
    pub fn failure(&self) -> Option<&LogFailure> { unimplemented!() }
    /// When take_ops should be called although nothing happened.
    pub fn next_deadline_ns(&self) -> Option<u64> { unimplemented!() }
    /// Whether entries may be appended.
    pub fn space(&self) -> Space { unimplemented!() }
    /// When the oldest unfinished write was issued.
    pub fn oldest_write_ns(&self) -> Option<u64> { unimplemented!() }
    /// Clean shutdown: closes the open batch, then a mark names the tail durable. Call take_ops/done until is_idle.
    pub fn shutdown_mark(&mut self, now_ns: u64, ops: &mut Vec<LogOp>) { unimplemented!() }
    /// Nothing in flight, nothing waiting.
    pub fn is_idle(&self) -> bool { unimplemented!() }
    /// First retained entry (snapshot index + 1).
    pub fn first_index(&self, shard: ShardId) -> Index { unimplemented!() }
    /// Last entry, durable or not.
    pub fn last_index(&self, shard: ShardId) -> Index { unimplemented!() }
    /// Term of an entry, or of the snapshot; `None` outside and in gaps.
    pub fn term(&self, shard: ShardId, index: Index) -> Option<Term> { unimplemented!() }
    /// Start-up replay: at least one entry, at most about `bytes_max`; `first..=last`.
    pub fn read_blocking(&self, disk: &dyn Disk, shard: ShardId, first: Index, last: Index, bytes_max: usize) -> Result<Vec<Entry>, LogError> { unimplemented!() }
    /// Starts a read of durable entries.
    pub fn start_read(&mut self, shard: ShardId, first: Index, last: Index, bytes_max: usize, ops: &mut Vec<LogOp>) -> Result<u64, LogError> { unimplemented!() }
    /// Ends a read after [`Progress::Read`].
    pub fn finish_read(&mut self, token: u64) -> Result<Vec<Entry>, LogError> { unimplemented!() }
    /// Shards whose entries hold back more than half of `log_bytes_max`.
    pub fn pinned(&self) -> Vec<ShardId> { unimplemented!() }
    /// Counters.
    pub fn stats(&self) -> LogStats { unimplemented!() }
}

//! What do the accepted batches add up to, and what is missing from them?
//!
//! The records of each batch are applied to the same [`ShardIndex`] that the running log keeps.
//! What a corrupt batch may have held is *pending* until later records settle it:
//!
//! - A later entry carries the term of its predecessor. When the log has that predecessor with
//!   that term, then by Raft's log matching everything before it is right as well, and nothing of
//!   the shard was lost. Otherwise the entries before it are a gap. If the lost batch may have
//!   *replaced* entries, the gap begins above the last commit known before: committed entries are
//!   never replaced.
//! - A later hard state or checkpoint is complete in itself, doubt bits included.
//! - What is still pending at the end stays in doubt.

use std::collections::BTreeMap;

use wire::{Index, ShardId, Term};

use super::{
    Shards,
    format::{
        BatchHeader, CheckpointBody, DOUBT_HARD_STATE, DOUBT_TAIL, RecordHeader, RecordKind,
        Records, shard_bit,
    },
    gapped::GapReader,
    index::{RecordAt, ShardIndex},
    types::HardState,
};

/// What a corrupt batch may have held of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pending {
    entries: bool,
    cuts: bool,
    state: bool,
    /// The commit index as of before the loss: a later one is of a log that was not seen.
    committed: u64,
}

impl Pending {
    fn add(&mut self, (entries, cuts, state): (u64, u64, u64), shards: u64) {
        // An installed image cuts without an entry, and may have been the new end of the log.
        self.entries |= (entries | cuts) & shards != 0;
        self.cuts |= cuts & shards != 0;
        self.state |= state & shards != 0;
    }
}

/// Shards as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub shards: Shards,
    pub batches: u64,
    pub entries: u64,
    pending: BTreeMap<ShardId, Pending>,
    /// For shards that have not appeared yet.
    unlisted: Pending,
}

impl Replay {
    /// Applies a whole batch, of which `bytes` are the physical bytes.
    pub fn apply(&mut self, header: &BatchHeader, bytes: &[u8]) {
        self.batches += 1;
        for record in Records::new(bytes, header) {
            let (record, mut body) = record.expect("judged well-formed");
            let body_at = body.position();
            match record.kind {
                RecordKind::Entry | RecordKind::Fill => {
                    self.entries += 1;
                    let at = record_at(header, body_at, &record);
                    if record.kind == RecordKind::Entry {
                        self.entry(&record, at);
                    } else {
                        self.shards
                            .entry(record.shard)
                            .fill(record.index, record.term, at);
                    }
                }
                RecordKind::HardState => self.hard_state(&record),
                RecordKind::Checkpoint => {
                    let mut bytes = Vec::with_capacity(record.length as usize);
                    body.append_to(&mut bytes, record.length as usize);
                    let body = CheckpointBody::decode(&bytes).expect("judged well-formed");
                    self.hard_state(&record);
                    self.checkpoint(record.shard, body);
                }
                // What follows it names every shard.
                RecordKind::SegmentHead => self.unlisted = Pending::default(),
            }
        }
    }

    /// A batch is lost: with its header the masks bound what it held.
    pub fn lose(&mut self, header: Option<&BatchHeader>) {
        let masks = header.map_or((u64::MAX, u64::MAX, u64::MAX), |header| {
            (header.entry_shards, header.cut_shards, header.state_shards)
        });
        for (shard, index) in self.shards.iter() {
            let pending = self.pending.entry(shard).or_default();
            if !pending.entries {
                pending.committed = index.hard_state.commit.0;
            }
            pending.add(masks, shard_bit(shard));
        }
        self.unlisted.add(masks, u64::MAX);
    }

    /// The end: what is still pending is in doubt. Returns whether there may be shards of which
    /// all records are lost.
    pub fn finish(&mut self) -> bool {
        for (shard, pending) in std::mem::take(&mut self.pending) {
            let index = self.shards.entry(shard);
            index.hard_state_in_doubt |= pending.state;
            index.tail_in_doubt |= pending.entries;
        }
        self.unlisted != Pending::default()
    }

    /// What is pending for a shard of which a record was read, and is settled by it.
    #[inline]
    fn settle(&mut self, shard: ShardId, settled: fn(&mut Pending)) -> Pending {
        if self.pending.is_empty() && self.unlisted == Pending::default() {
            return Pending::default();
        }
        if self.shards.get(shard).is_none() {
            self.pending.insert(shard, self.unlisted);
        }
        let pending = self.pending.entry(shard).or_default();
        let before = *pending;
        settled(pending);
        before
    }

    fn entry(&mut self, record: &RecordHeader, at: RecordAt) {
        let pending = self.settle(record.shard, |pending| {
            (pending.entries, pending.cuts) = (false, false);
        });
        let index = self.shards.entry(record.shard);
        if record.index <= index.snapshot_index {
            return;
        }
        let before = record.index - 1;
        let known = index.term(before);
        let other_history = record.prev != 0 && known != 0 && known != record.prev;
        if before > index.last_index() || other_history {
            lose_entries(index, before, pending, other_history);
        }
        index.append(record.index, record.term, at);
    }

    fn hard_state(&mut self, record: &RecordHeader) {
        self.settle(record.shard, |pending| pending.state = false);
        let index = self.shards.entry(record.shard);
        index.hard_state = HardState {
            term: Term(record.term),
            vote: record.prev,
            commit: Index(record.index),
        };
        index.hard_state_in_doubt = record.sub & DOUBT_HARD_STATE != 0;
        index.tail_in_doubt = record.sub & DOUBT_TAIL != 0;
    }

    fn checkpoint(&mut self, shard: ShardId, body: CheckpointBody) {
        let before = self.settle(shard, |pending| *pending = Pending::default());
        let index = self.shards.entry(shard);
        index.configuration = body.configuration;
        if body.snapshot_index > index.snapshot_index {
            let keep = body.last_index > body.snapshot_index;
            index.compact(body.snapshot_index, body.snapshot_term, keep);
        }
        if body.last_index < index.snapshot_index {
            return;
        }
        if body.last_index < index.last_index() && !mutant!(CutForgotten) {
            index.truncate_from(body.last_index + 1);
        }
        let known = index.term(body.last_index);
        let other_history = known != 0 && body.last_term != 0 && known != body.last_term;
        if body.last_index > index.last_index() || other_history {
            lose_entries(index, body.last_index, before, other_history);
        }
    }
}

/// The entries up to `last` are missing, and those that the lost batch may have replaced.
fn lose_entries(index: &mut ShardIndex, last: u64, lost: Pending, other_history: bool) {
    let first = if lost.cuts || other_history {
        let committed = lost.committed.max(index.snapshot_index);
        index.last_index().min(committed) + 1
    } else {
        index.last_index() + 1
    };
    let first = first.min(last);
    if last < index.last_index() {
        index.truncate_from(last + 1);
    }
    index.lose(first, last);
}

/// Where a record was written whose body is at physical position `body_at` of the batch.
fn record_at(header: &BatchHeader, body_at: usize, record: &RecordHeader) -> RecordAt {
    let mut end = GapReader::at_physical(&[], body_at);
    end.skip(record.length as usize);
    RecordAt {
        stamp: header.stamp,
        segment: header.place.segment,
        at: header.place.offset
            + super::gapped::back(body_at, super::format::RECORD_HEADER_BYTES) as u64,
        end: header.place.offset + end.position() as u64,
    }
}

//! What happens between "append" and "issue"?
//!
//! Everything that is appended goes into the one open batch, of whatever shard. A batch closes
//! when the device is free to take it, or when the next record does not fit: then it *spills*,
//! and if what stood in the way was the end of the segment it *closes the segment* (a flag in its
//! header), so that recovery always knows where the next batch must be.
//!
//! Hard states are kept aside and written as the last records of the batch that closes next: of
//! several updates only the newest costs bytes. A commit-only update never opens a batch.
//!
//! Invariant: the open batch always has room for a hard state of every shard ([`KEPT_BYTES`]), so
//! closing cannot fail.

use wire::{Index, ShardId};

use crate::io::{BLOCK_BYTES, sector::Stamp};

use super::{
    Log,
    batch::Batch,
    format::{FLAG_CLOSES, FLAG_MARK, Place, RecordHeader, RecordKind},
    index::{Dirty, ShardIndex},
    types::{Checkpoint, Entry, EntryRef, HardState, KEPT_BYTES},
};

impl Log {
    /// Adds an entry to the open batch. An index at or below the last one truncates what follows
    /// (a raft conflict). Durable with [`open_lsn`](Self::open_lsn) as of after the call.
    ///
    /// # Panics
    /// When the index is not above the snapshot and at most one above the last entry, or the data
    /// is longer than [`entry_bytes_max`](super::LogConfig::entry_bytes_max).
    pub fn append(&mut self, shard: ShardId, entry: EntryRef<'_>) {
        self.make_room(entry.data.len());
        let index = self.shards.entry(shard);
        let batch = self.open.as_mut().expect("make_room opens one");
        assert!(
            entry.index.0 > index.snapshot_index && entry.index.0 <= index.last_index() + 1,
            "shard {shard}: entry {} does not continue a log of {}..={}",
            entry.index,
            index.first_index(),
            index.last_index()
        );
        let record = RecordHeader {
            length: entry.data.len() as u32,
            shard,
            kind: RecordKind::Entry,
            sub: entry.kind,
            term: entry.term.0,
            index: entry.index.0,
            prev: index.term(entry.index.0 - 1),
        };
        batch.note_entry(shard, entry.index.0 <= index.last_index());
        index.append(
            entry.index.0,
            entry.term.0,
            batch.next_record(entry.data.len()),
        );
        batch.push(record, entry.data, &mut self.buffers);
    }

    /// New hard state of a shard. Call it before appending the entries it belongs to, so that
    /// they share a batch. With `start_batch` it becomes durable with
    /// [`open_lsn`](Self::open_lsn); without (the commit index only) it rides in the next batch.
    /// A change of term or vote always starts one.
    pub fn put_hard_state(&mut self, shard: ShardId, state: HardState, start_batch: bool) {
        let index = self.shards.entry(shard);
        let voted = (state.term, state.vote) != (index.hard_state.term, index.hard_state.vote);
        index.hard_state = state;
        self.note_dirty(shard, voted || start_batch);
    }

    /// Ends the doubt about a shard's hard state and tail: the caller has followed a leader that
    /// was elected without this server, or has every other voter's term. Starts a batch.
    pub fn settle_hard_state(&mut self, shard: ShardId) {
        let index = self.shards.entry(shard);
        index.hard_state_in_doubt = false;
        index.tail_in_doubt = false;
        // A checkpoint says where the log ends as well, which a hard state does not.
        self.write_checkpoint(shard, false);
    }

    /// Drops the entries from `first` on, and gaps among them, so that a leader's log can be taken in
    /// their place. Starts a batch.
    ///
    /// # Panics
    /// When `first` is not above the snapshot.
    pub fn cut(&mut self, shard: ShardId, first: Index) {
        let index = self.shards.entry(shard);
        assert!(
            first.0 > index.snapshot_index,
            "shard {shard}: entry {first} is not above the snapshot at {}",
            index.snapshot_index
        );
        if first.0 <= index.last_index() {
            index.truncate_from(first.0);
            self.write_checkpoint(shard, true);
        }
    }

    /// Declares a shard's hard state doubtful: for a shard that should be in a log of which
    /// recovery reports [`unlisted_in_doubt`](super::RecoveryReport::unlisted_in_doubt) and is not,
    /// and before entries that this server may have acknowledged are given up. Starts a batch.
    pub fn doubt_hard_state(&mut self, shard: ShardId) {
        self.shards.entry(shard).hard_state_in_doubt = true;
        self.note_dirty(shard, true);
    }

    /// Moves the start of a shard's log, once an image up to there is durable: entries up to
    /// `snapshot_index` go, and segments that nobody needs are freed when the record is durable.
    /// When the log has another entry at the snapshot's index, or none, all entries go (an
    /// installed image, Raft paper §7). Also the way to introduce a shard, with index 0.
    ///
    /// # Panics
    /// When the snapshot would move back.
    pub fn put_checkpoint(&mut self, shard: ShardId, checkpoint: Checkpoint) {
        let index = self.shards.entry(shard);
        let (at, term) = (checkpoint.snapshot_index.0, checkpoint.snapshot_term.0);
        assert!(
            at >= index.snapshot_index,
            "shard {shard}: snapshot {at} is before {}",
            index.snapshot_index
        );
        // A missing entry does not contradict the snapshot; what follows it was appended to the
        // log that it belonged to.
        let keep =
            index.term(at) == term || index.is_missing(at) || mutant!(ConflictKeptBehindImage);
        let cuts = !keep && index.last_index() > index.snapshot_index;
        index.hard_state = checkpoint.hard_state;
        index.configuration = checkpoint.configuration;
        index.compact(at, term, keep);
        self.write_checkpoint(shard, cuts);
        self.find_oldest();
        if mutant!(SegmentFreedEarly) {
            self.segments.free_below(self.oldest);
        }
    }

    /// Restores missing entries, fetched from a peer that proved by (index, term) that it has
    /// them. Those that are not missing are ignored.
    pub fn fill_gap(&mut self, shard: ShardId, entries: &[Entry]) {
        for entry in entries {
            let index = self.shards.entry(shard);
            if index.tail_in_doubt && entry.index.0 == index.last_index() + 1 {
                self.append(shard, entry.as_ref());
                continue;
            }
            if !index.is_missing(entry.index.0) {
                continue;
            }
            self.make_room(entry.data.len());
            let index = self.shards.entry(shard);
            let batch = self.open.as_mut().expect("make_room opens one");
            index.fill(
                entry.index.0,
                entry.term.0,
                batch.next_record(entry.data.len()),
            );
            batch.note_entry(shard, false);
            let record = RecordHeader {
                length: entry.data.len() as u32,
                shard,
                kind: RecordKind::Fill,
                sub: entry.kind,
                term: entry.term.0,
                index: entry.index.0,
                prev: 0,
            };
            batch.push(record, &entry.data, &mut self.buffers);
        }
    }

    /// Makes the open batch one that has room for a record with a body of so many bytes.
    #[inline]
    fn make_room(&mut self, body_bytes: usize) {
        if let Some(batch) = &self.open
            && batch.fits(body_bytes, KEPT_BYTES)
        {
            return;
        }
        self.make_room_anew(body_bytes);
    }

    #[cold]
    fn make_room_anew(&mut self, body_bytes: usize) {
        assert!(
            body_bytes <= self.config.entry_bytes_max(),
            "a record of {body_bytes} bytes is beyond entry_bytes_max"
        );
        self.ensure_open();
        while !self
            .open
            .as_ref()
            .is_some_and(|batch| batch.fits(body_bytes, KEPT_BYTES))
        {
            let left = self.segments.active().bytes - self.tail.offset;
            let at_segment_end = left <= self.config.batch_bytes_max as u64;
            self.close(if at_segment_end { FLAG_CLOSES } else { 0 });
            self.ensure_open();
        }
    }

    pub(super) fn ensure_open(&mut self) {
        if self.open.is_some() {
            return;
        }
        let left = self.segments.active().bytes - self.tail.offset;
        debug_assert!(left >= BLOCK_BYTES as u64);
        let stamp = Stamp {
            incarnation: self.incarnation,
            lsn: self.next_lsn,
        };
        self.next_lsn += 1;
        let longest = left.min(self.config.batch_bytes_max as u64);
        let buf = self.buffers.take(BLOCK_BYTES);
        self.open = Some(Batch::open(self.tail, stamp, longest, buf));
        if self.tail.offset == 0 {
            self.write_segment_head();
        }
    }

    /// The first batch of a segment repeats all that must survive when older segments go.
    fn write_segment_head(&mut self) {
        let record = RecordHeader {
            length: 0,
            shard: ShardId(0),
            kind: RecordKind::SegmentHead,
            sub: 0,
            term: 0,
            index: self.segments.active().bytes,
            prev: 0,
        };
        let batch = self.open.as_mut().expect("just opened");
        batch.push(record, &[], &mut self.buffers);
        let shards: Vec<ShardId> = self.shards.iter().map(|(shard, _)| shard).collect();
        for shard in shards {
            if mutant!(VoteFreedWithSegment) {
                break;
            }
            let batch = self.open.as_mut().expect("just opened");
            let index = self.shards.entry(shard);
            push_checkpoint(batch, shard, index, &mut self.scratch, &mut self.buffers);
        }
        self.dirty.clear();
    }

    fn write_checkpoint(&mut self, shard: ShardId, cuts: bool) {
        let body_bytes = 32 + self.shards.entry(shard).configuration.len();
        self.make_room(body_bytes);
        let batch = self.open.as_mut().expect("make_room opens one");
        let index = self.shards.entry(shard);
        push_checkpoint(batch, shard, index, &mut self.scratch, &mut self.buffers);
        batch.note_state(shard);
        if cuts {
            batch.note_cut(shard);
        }
        self.dirty.retain(|dirty| *dirty != shard);
    }

    fn note_dirty(&mut self, shard: ShardId, start_batch: bool) {
        if start_batch {
            self.ensure_open();
        }
        let index = self.shards.entry(shard);
        if index.dirty == Dirty::No {
            self.dirty.push(shard);
        }
        if start_batch {
            index.dirty = Dirty::TermOrVote;
        } else if index.dirty == Dirty::No {
            index.dirty = Dirty::Commit;
        }
    }

    /// Completes the open batch: it can be issued, and the next one opens behind it.
    pub(super) fn close(&mut self, flags: u16) {
        let Some(mut batch) = self.open.take() else {
            return;
        };
        for shard in self.dirty.drain(..) {
            let index = self.shards.entry(shard);
            let record = hard_state_record(shard, RecordKind::HardState, 0, index);
            batch.push(record, &[], &mut self.buffers);
            if std::mem::take(&mut index.dirty) == Dirty::TermOrVote {
                batch.note_state(shard);
            }
        }
        batch.flags |= flags;
        let active = self.segments.active();
        let end = batch.place.offset + batch.disk_bytes();
        if active.bytes - end < self.config.close_below_bytes().max(BLOCK_BYTES as u64) {
            batch.flags |= FLAG_CLOSES;
        }
        // Its own segment holds the last head that is durable by then.
        assert!(
            self.oldest <= batch.place.segment,
            "a batch frees the head it relies on"
        );
        batch.oldest = self.oldest;
        self.tail.offset = end;
        if batch.flags & FLAG_CLOSES != 0 {
            let next = self.segments.roll(&self.config);
            self.tail = Place {
                segment: next.no,
                offset: 0,
            };
            self.find_oldest();
        }
        self.needs_mark = batch.flags & FLAG_MARK == 0;
        self.closed.push_back(batch);
    }

    /// The first segment that a shard's entries pin; the active one when none does.
    fn find_oldest(&mut self) {
        let pins = self.shards.iter().filter_map(|(_, index)| index.pin());
        let oldest = pins.min().unwrap_or(self.tail.segment);
        self.oldest = oldest.max(self.oldest);
    }
}

fn hard_state_record(
    shard: ShardId,
    kind: RecordKind,
    length: usize,
    index: &ShardIndex,
) -> RecordHeader {
    RecordHeader {
        length: length as u32,
        shard,
        kind,
        sub: index.doubt_bits(),
        term: index.hard_state.term.0,
        index: index.hard_state.commit.0,
        prev: match mutant!(VoteNotWritten) {
            true => 0,
            false => index.hard_state.vote,
        },
    }
}

fn push_checkpoint(
    batch: &mut Batch,
    shard: ShardId,
    index: &mut ShardIndex,
    scratch: &mut Vec<u8>,
    buffers: &mut super::Buffers,
) {
    scratch.clear();
    index.checkpoint_body().encode(scratch);
    let record = hard_state_record(shard, RecordKind::Checkpoint, scratch.len(), index);
    batch.push(record, scratch, buffers);
    if std::mem::take(&mut index.dirty) == Dirty::TermOrVote {
        batch.note_state(shard);
    }
}

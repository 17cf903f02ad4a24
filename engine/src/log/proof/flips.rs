//! Is every flipped bit of a log found, placed, and mended where a peer has the bytes?
//!
//! One bit of a log at rest is flipped, and the log recovered. Alone it refuses and names the
//! batch that the bit is in, or has everything and reports the batch as damaged; a bit of unused
//! space changes nothing. With peers it opens, offers nothing that is wrong, and once it was
//! given what it misses, as a follower is by its leader, it is the log that it was.

use std::ops::Range;

use bytes::Bytes;
use wire::ShardId;

use super::{
    Rig, Tally, Violation, checkpoint, data, ensure, hard_state,
    life::{Commit, Models, equals},
    mending::{mend, offers_the_truth},
    small,
};
use crate::{
    io::{LogOp, SegmentNo, mem::MemDisk},
    log::{CorruptAt, LogConfig, LogError, Verdict},
};

/// A batch of the log: where it is, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    segment: SegmentNo,
    offset: u64,
    bytes: u64,
}

/// A log at rest, and what is in it.
#[derive(Clone, Debug)]
pub struct Target {
    disk: MemDisk,
    config: LogConfig,
    batches: Vec<Written>,
    models: Models,
    segments: u64,
}

impl Target {
    /// A log of so many bytes, rounded up to segments of 64 KiB, the last of them not quite full:
    /// entries of many sizes in two shards, votes, a conflict, a checkpoint, and a mark at the end.
    pub fn new(bytes: u64) -> Self {
        let config = LogConfig {
            batch_bytes_max: 32 * 1024,
            ..small()
        };
        let segments = bytes.div_ceil(config.segment_bytes).max(1);
        let mut target = Self {
            disk: MemDisk::new(),
            config: config.clone(),
            batches: Vec::new(),
            models: Models::new(),
            segments,
        };
        let mut rig = Rig::new(config.clone());
        let end = |rig: &Rig| {
            let tail = rig.log.tail;
            (tail.segment.0 - 1) * config.segment_bytes + tail.offset
        };
        let enough = (segments - 1) * config.segment_bytes + 48 * 1024;
        let mut turn = 0;
        while end(&rig) < enough {
            target.write(&mut rig, turn);
            turn += 1;
        }
        // The mark.
        rig.now = 1_000_000_000;
        target.run(&mut rig);
        assert_eq!(rig.log.tail.segment, SegmentNo(segments));
        target.disk = rig.disk;
        target
    }

    fn write(&mut self, rig: &mut Rig, turn: u64) {
        let shard = ShardId(u16::from(turn % 4 == 3));
        let model = self.models.entry(shard).or_default();
        if turn.is_multiple_of(5) {
            let commit = model.last().saturating_sub(3);
            model.hard_state = hard_state(1 + turn / 20, 7, commit.max(model.hard_state.commit.0));
            rig.log.put_hard_state(shard, model.hard_state, true);
        }
        if turn == 11 {
            let at = model.last() / 2;
            let term = model.term(at);
            model.entries.drain(..at as usize);
            model.snapshot = (at, term);
            let state = model.hard_state;
            rig.log.put_checkpoint(shard, checkpoint(state, at, term));
        }
        let conflict = turn % 17 == 16 && model.last() > model.hard_state.commit.0 + 1;
        let index = model.last() + u64::from(!conflict);
        let term = model.hard_state.term.0.max(1) + u64::from(conflict);
        if conflict {
            model.entries.pop();
            model.hard_state.term.0 = term;
            rig.log.put_hard_state(shard, model.hard_state, true);
        }
        let sizes = [10, 2000, 6000, 500, 3900, 20, 8000, 1, 100];
        let bytes = data(index, term, sizes[turn as usize % sizes.len()]);
        rig.append(shard, index, term, &bytes);
        model.entries.push((term, Bytes::from(bytes)));
        self.run(rig);
    }

    /// As [`Rig::run`], noting where each batch went.
    fn run(&mut self, rig: &mut Rig) {
        loop {
            let ops = rig.ops();
            if ops.is_empty() {
                return;
            }
            for op in ops {
                if let LogOp::Write {
                    segment,
                    offset,
                    length,
                    ..
                } = &op
                {
                    self.batches.push(Written {
                        segment: *segment,
                        offset: *offset,
                        bytes: *length as u64,
                    });
                }
                let done = rig.disk.execute(op);
                rig.log.done(rig.now, done).expect("the disk does not fail");
            }
        }
    }

    /// Bits of the log's live segments.
    pub fn bits(&self) -> u64 {
        self.segments * self.config.segment_bytes * 8
    }

    /// Flips each of these bits on its own; every `mend_every`-th (1: all) is mended as well.
    ///
    /// Counts: `flips`, of which `refused alone`, `harmless` (in padding, or in a batch of which
    /// nothing is needed) and `unused`; `mended`.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn flip_each(
        &self,
        bits: Range<u64>,
        mend_every: u64,
        each: &mut dyn FnMut(),
    ) -> Result<Tally, Violation> {
        let mut tally = Tally::default();
        for bit in bits {
            let flipped = self.flip(bit, bit.is_multiple_of(mend_every), &mut tally);
            flipped.map_err(|what| Violation {
                at: format!("bit {bit}"),
                what,
            })?;
            each();
        }
        Ok(tally)
    }

    fn flip(&self, bit: u64, mended: bool, tally: &mut Tally) -> Result<(), String> {
        let segment_bits = self.config.segment_bytes * 8;
        let (segment, bit) = (SegmentNo(1 + bit / segment_bits), bit % segment_bits);
        let disk = self.disk.clone();
        disk.flip(&segment.file_name(), bit);
        tally.add("flips", 1);
        let hit = self.batches.iter().find(|batch| {
            batch.segment == segment
                && (batch.offset..batch.offset + batch.bytes).contains(&(bit / 8))
        });
        let place = hit.map(|batch| (batch.segment.file_name(), batch.offset));
        match Rig::reopen(disk.clone(), self.config.clone(), true) {
            Err(LogError::Undecided { at }) => {
                ensure!(
                    place == Some((at.file.clone(), at.offset)),
                    "refused for {at}, and it is in {place:?}"
                );
                tally.add("refused alone", 1);
            }
            Err(error) => return Err(format!("refused alone, and not by its place: {error}")),
            Ok((rig, recovered)) => {
                equals(&self.models, &rig, &recovered, Commit::Exact)?;
                self.located(place.as_ref(), &recovered.report.corrupt)?;
                let count = match place {
                    Some(_) => "harmless",
                    None => "unused",
                };
                tally.add(count, 1);
            }
        }
        if mended {
            self.mend(disk, place.as_ref())?;
            tally.add("mended", 1);
        }
        Ok(())
    }

    /// Exactly the batch that was hit is reported.
    fn located(&self, place: Option<&(String, u64)>, corrupt: &[CorruptAt]) -> Result<(), String> {
        let reported: Vec<_> = corrupt
            .iter()
            .map(|at| (at.file.clone(), at.offset))
            .collect();
        ensure!(
            reported.iter().eq(place),
            "it is in {place:?}, and reported is {corrupt:?}"
        );
        let fits = |at: &CorruptAt| {
            matches!(
                at.verdict,
                Verdict::Corrupt(_) | Verdict::WholePaddingDamaged
            )
        };
        ensure!(corrupt.iter().all(fits), "reported as {corrupt:?}");
        Ok(())
    }

    fn mend(&self, disk: MemDisk, place: Option<&(String, u64)>) -> Result<(), String> {
        let (mut rig, recovered) = Rig::reopen(disk, self.config.clone(), false)
            .map_err(|error| format!("refused with peers: {error}"))?;
        self.located(place, &recovered.report.corrupt)?;
        offers_the_truth(&self.models, &rig, &recovered)?;
        mend(&mut rig, &self.models, &mut |rig| rig.run());
        let (rig, recovered) = Rig::reopen(rig.disk, self.config.clone(), true)
            .map_err(|error| format!("refused after it was mended: {error}"))?;
        equals(&self.models, &rig, &recovered, Commit::Exact)
            .map_err(|what| format!("mended: {what}"))
    }

    /// The same log with a flipped bit that its judge does not know of: it must be found out.
    pub fn with_hidden_flip(self, bit: u64) -> Self {
        self.disk.flip(&SegmentNo(1).file_name(), bit);
        self
    }
}

//! How does a log open after anything may have happened to it?
//!
//! 1. Walk all segments that may be needed, in order, in bounded memory: positions are kept, not
//!    payloads ([`walk`](super::walk)), and each place gets its verdict
//!    ([`verdict`](super::verdict)).
//! 2. Apply what counts; note what is missing ([`replay`](super::replay)).
//! 3. With something missing, a lone server refuses: nobody could give it back.
//! 4. Make every segment durable that bytes were accepted from: what reads back after a kill may
//!    still be only in a cache, and nothing may be voted, acknowledged or campaigned upon it.
//! 5. Continue under a new incarnation, in the block after the last batch. After a corrupt tail
//!    continue in a new segment instead: nothing is ever written over bytes in doubt.
//!
//! Recovery changes nothing on disk until it has succeeded in reading (and then only makes
//! durable, prepares a segment, and removes leftovers), so a crash during recovery is a crash
//! before it.

use std::collections::{BTreeMap, BTreeSet};

use wire::{Index, Lsn, ShardId, Term};

use crate::io::{BLOCK_BYTES, Disk, SegmentNo, prepare_segment, sector::INCARNATION_MAX};

use super::{
    Cause, Checkpoint, CorruptAt, Gap, Log, LogConfig, LogError, LogIdentity, Opening,
    SEGMENT_BYTES_MIN, Verdict,
    format::{BatchHeader, FLAG_CLOSES, Place},
    index::ShardIndex,
    replay::Replay,
    segments::{File, Segments},
    walk::{Step, Walk},
};

/// How far batch numbers jump after a corrupt tail. The first batch behind it must name durable
/// whatever was lost, also when the device later reads back more of it than it does now.
const LOST_LSNS: u64 = 1 << 32;

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Each shard that the log knows.
    pub shards: BTreeMap<ShardId, RecoveredShard>,
    /// What was walked, dropped and missing.
    pub report: RecoveryReport,
}

/// One shard as of the end of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredShard {
    /// Its newest hard state, snapshot and configuration.
    pub checkpoint: Checkpoint,
    /// The first entry that the log holds: the snapshot's index + 1.
    pub first_index: Index,
    /// The last entry; the snapshot's index when there is none.
    pub last_index: Index,
    /// Its term.
    pub last_term: Term,
    /// Entries that corrupt records held, in order; the last may be open-ended.
    pub gaps: Vec<Gap>,
    /// A corrupt record may have held a newer term, a vote, or entries at the tail: the shard
    /// must not vote before [`Log::settle_hard_state`].
    pub hard_state_in_doubt: bool,
}

/// What recovery walked over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Batches accepted.
    pub batches: u64,
    /// Entries in them, also those superseded since.
    pub entries: u64,
    /// Bytes read from disk.
    pub bytes_read: u64,
    /// Segments that bytes were accepted from; all were made durable.
    pub segments: u64,
    /// The last batch accepted.
    pub last_lsn: Lsn,
    /// Where the log ended, by an end or a torn write; `None` when the tail is corrupt.
    pub end: Option<CorruptAt>,
    /// Places that could not be read, also those that held nothing needed, and batches with
    /// damaged padding.
    pub corrupt: Vec<CorruptAt>,
    /// There may be shards of which all records are lost: one that should be listed and is not
    /// must be introduced with [`Log::doubt_hard_state`].
    pub unlisted_in_doubt: bool,
    /// The incarnation that this start writes under.
    pub incarnation: u32,
}

/// What a walk to the end adds up to.
pub(super) struct Found {
    pub replay: Replay,
    pub report: RecoveryReport,
    /// Where the log ends, when that is known.
    pub end: Option<Place>,
    /// Where something was lost, in order.
    pub losses: Vec<(Place, CorruptAt)>,
    pub next_lsn: u64,
    pub newest_incarnation: u32,
    newest_lsn: u64,
    pub newest_segment: SegmentNo,
    digest: Option<u64>,
    pub oldest: SegmentNo,
    accepted: BTreeSet<SegmentNo>,
    pub files: BTreeMap<SegmentNo, u64>,
}

impl Log {
    /// Opens a log that exists. Blocking. `lone`: no other voter could give back what is
    /// missing, so anything missing is refused.
    ///
    /// # Errors
    /// [`LogError::Empty`] without any segment; [`LogError::Undecided`] for a lone server with
    /// something missing; [`LogError::Foreign`], [`LogError::Version`], [`LogError::Spliced`],
    /// [`LogError::Config`]; [`LogError::Io`].
    pub fn recover(
        disk: &dyn Disk,
        config: LogConfig,
        identity: LogIdentity,
        lone: bool,
    ) -> Result<(Log, Recovered), LogError> {
        config.check()?;
        let mut found = find(disk, identity)?;
        if let (true, Some(at)) = (lone, found.missing()) {
            return Err(LogError::Undecided { at });
        }
        for segment in &found.accepted {
            if mutant!(RecoveryDoesNotFlush) {
                break;
            }
            let name = segment.file_name();
            disk.sync(&name).map_err(LogError::io("flush", name))?;
        }
        disk.sync_dir()
            .map_err(LogError::io("flush", "the log directory"))?;
        found.report.incarnation = found.newest_incarnation + 1;
        assert!(
            found.report.incarnation <= INCARNATION_MAX,
            "incarnations are used up"
        );
        let shards = found.replay.shards.iter();
        let recovered = Recovered {
            shards: shards
                .map(|(shard, index)| (shard, describe(index)))
                .collect(),
            report: found.report.clone(),
        };
        Ok((found.open(disk, config, identity)?, recovered))
    }
}

/// What a walk comes across.
pub(super) enum Seen<'a> {
    /// A batch that counts, and its bytes.
    Batch(&'a BatchHeader, &'a [u8], Verdict),
    /// Something lost.
    Lost(&'a CorruptAt),
    /// The end.
    End(&'a CorruptAt),
}

/// Walks the whole log.
pub(super) fn find(disk: &dyn Disk, identity: LogIdentity) -> Result<Found, LogError> {
    walk_until(disk, identity, None, &mut |_| Ok(()))
}

/// Walks the log, to `until` at most, and tells what it sees.
pub(super) fn walk_until(
    disk: &dyn Disk,
    identity: LogIdentity,
    until: Option<Place>,
    tell: &mut dyn FnMut(Seen<'_>) -> Result<(), LogError>,
) -> Result<Found, LogError> {
    let mut walk = Walk::new(disk, identity)?;
    let mut replay = Replay::default();
    let mut report = RecoveryReport::default();
    let (mut accepted, mut oldest) = (BTreeSet::new(), SegmentNo(0));
    let (mut losses, mut end) = (Vec::new(), None);
    let mut last_place = Place::default();
    loop {
        if until == Some(walk.place()) {
            end = until;
            break;
        }
        match walk.step()? {
            Step::Batch {
                header,
                padding_damaged,
            } => {
                let verdict = match padding_damaged {
                    true => Verdict::WholePaddingDamaged,
                    false => Verdict::Whole,
                };
                if padding_damaged {
                    report.corrupt.push(CorruptAt {
                        file: header.place.segment.file_name(),
                        offset: header.place.offset,
                        verdict,
                    });
                }
                let batch = walk.batch()?;
                tell(Seen::Batch(&header, batch, verdict))?;
                replay.apply(&header, batch);
                accepted.insert(header.place.segment);
                oldest = header.oldest;
                report.last_lsn = Lsn(header.stamp.lsn);
            }
            Step::Lost(lost) => {
                last_place = lost.place;
                tell(Seen::Lost(&lost.at))?;
                replay.lose(lost.header.as_ref());
                report.corrupt.push(lost.at.clone());
                losses.push((lost.place, lost.at));
                if !lost.resumes {
                    break;
                }
            }
            Step::End { at, place } => {
                tell(Seen::End(&at))?;
                report.end = Some(at);
                end = Some(place);
                break;
            }
        }
    }
    report.unlisted_in_doubt = replay.finish();
    let lowest = walk.scan.files.keys().next().copied().unwrap_or_default();
    if oldest > SegmentNo(0) && oldest < lowest {
        let place = Place {
            segment: oldest,
            offset: 0,
        };
        report.corrupt.push(missing_segment(oldest));
        losses.insert(0, (place, missing_segment(oldest)));
    }
    // A lost batch may have held the checkpoint by which later ones gave segments up. What counts now
    // is an earlier one, and the entries behind it: their segments are needed as long as they are.
    let pins = replay.shards.iter().filter_map(|(_, index)| index.pin());
    let needed = pins.min().unwrap_or(SegmentNo(u64::MAX));
    report.batches = replay.batches;
    report.entries = replay.entries;
    report.bytes_read = walk.scan.bytes_read;
    report.segments = accepted.len() as u64;
    Ok(Found {
        replay,
        report,
        end,
        losses,
        next_lsn: walk.next_lsn(),
        newest_incarnation: walk.newest_incarnation,
        newest_lsn: walk.newest_lsn,
        newest_segment: walk.newest_segment.max(last_place.segment),
        digest: walk.digest,
        oldest: oldest.max(lowest).min(needed),
        accepted,
        files: walk.scan.files,
    })
}

fn missing_segment(segment: SegmentNo) -> CorruptAt {
    CorruptAt {
        file: segment.file_name(),
        offset: 0,
        verdict: Verdict::Corrupt(Cause::MissingSegment),
    }
}

pub(super) fn describe(index: &ShardIndex) -> RecoveredShard {
    RecoveredShard {
        checkpoint: index.checkpoint(),
        first_index: Index(index.first_index()),
        last_index: Index(index.last_index()),
        last_term: Term(index.term(index.last_index())),
        gaps: index.gaps(),
        hard_state_in_doubt: index.doubt_bits() != 0,
    }
}

impl Found {
    /// Where something is missing that this log needs; `None` when nothing is.
    pub fn missing(&self) -> Option<CorruptAt> {
        let mut shards = self.replay.shards.iter();
        let incomplete =
            shards.any(|(_, index)| index.has_closed_gaps() || index.doubt_bits() != 0);
        if !incomplete && !self.report.unlisted_in_doubt && self.end.is_some() {
            return None;
        }
        // A doubt that outlived the segment with the damage has no place left to name.
        let newest = self.newest_segment.file_name();
        let first = self.losses.first().map(|loss| loss.1.clone());
        Some(first.unwrap_or(CorruptAt {
            file: newest,
            offset: 0,
            verdict: Verdict::Corrupt(Cause::Damaged),
        }))
    }

    fn open(
        self,
        disk: &dyn Disk,
        config: LogConfig,
        identity: LogIdentity,
    ) -> Result<Log, LogError> {
        let incarnation = self.report.incarnation;
        let opening = match self.end {
            Some(tail) => Opening {
                incarnation,
                tail,
                next_lsn: self.next_lsn,
                digest: self.digest.unwrap_or(0),
                oldest: self.oldest,
            },
            None => Opening {
                incarnation,
                tail: Place {
                    segment: self.newest_segment.next(),
                    offset: 0,
                },
                next_lsn: self.newest_lsn.max(self.next_lsn) + LOST_LSNS,
                digest: 0,
                oldest: self.oldest,
            },
        };
        let segments = self.sort_files(disk, &config, identity, opening.tail.segment)?;
        let mut log = Log::open(config, identity, self.replay.shards, segments, opening);
        if self.report.unlisted_in_doubt && self.end.is_some() {
            // The head of a new segment lists every shard, and ends that doubt.
            log.ensure_open();
            log.close(FLAG_CLOSES);
        }
        Ok(log)
    }

    /// Which files are live, which are prepared and which are free; what is none of them goes.
    fn sort_files(
        &self,
        disk: &dyn Disk,
        config: &LogConfig,
        identity: LogIdentity,
        active: SegmentNo,
    ) -> Result<Segments, LogError> {
        let mut files = self.files.clone();
        let usable =
            |bytes: u64| bytes >= SEGMENT_BYTES_MIN && bytes.is_multiple_of(BLOCK_BYTES as u64);
        let fresh = self.end.is_none() && !files.get(&active).is_some_and(|bytes| usable(*bytes));
        if fresh {
            prepare_segment(disk, active, None, config.segment_bytes, identity.key())
                .map_err(LogError::io("prepare", active.file_name()))?;
            files.insert(active, config.segment_bytes);
        }
        let file = |no: SegmentNo| {
            let bytes = files.get(&no).copied()?;
            Some(File {
                no,
                bytes,
                exists: true,
            })
        };
        let live = files
            .range(self.oldest..=active)
            .filter_map(|(no, _)| file(*no))
            .collect();
        let up = (active.0 + 1..).map_while(|no| file(SegmentNo(no)));
        let prepared: Vec<File> = up.take_while(|file| usable(file.bytes)).collect();
        let down = (1..self.oldest.0).rev().map_while(|no| file(SegmentNo(no)));
        let mut free: Vec<File> = down.collect();
        free.reverse();
        let kept: BTreeSet<SegmentNo> = free.iter().chain(&prepared).map(|file| file.no).collect();
        let stray = files
            .keys()
            .filter(|no| !kept.contains(no) && !(self.oldest..=active).contains(no));
        for name in stray.map(|no| no.file_name()).chain(temporary_files(disk)?) {
            disk.remove(&name).map_err(LogError::io("remove", name))?;
        }
        Ok(Segments::new(identity.key(), free, live, prepared))
    }
}

/// What a crash during the preparation of a segment leaves.
fn temporary_files(disk: &dyn Disk) -> Result<Vec<String>, LogError> {
    let files = disk
        .list()
        .map_err(LogError::io("list", "the log directory"))?;
    let names = files.into_iter().map(|file| file.0);
    Ok(names
        .filter(|name| name.ends_with(".segment.new"))
        .collect())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        io::mem::MemDisk,
        log::{EntryRef, HardState},
    };

    const SHARD: ShardId = ShardId(0);
    const IDENTITY: LogIdentity = LogIdentity { log_id: 1, salt: 2 };

    fn append(log: &mut Log, disk: &MemDisk, index: u64) {
        let entry = EntryRef {
            index: Index(index),
            term: Term(1),
            kind: 0,
            data: &[7; 1000],
        };
        log.append(SHARD, entry);
        log.flush_blocking(disk, 0).unwrap();
    }

    fn put_checkpoint(log: &mut Log, disk: &MemDisk, index: u64) {
        let checkpoint = Checkpoint {
            hard_state: HardState {
                term: Term(1),
                vote: 0,
                commit: Index(index),
            },
            snapshot_index: Index(index),
            snapshot_term: Term(u64::from(index > 0)),
            configuration: Bytes::from_static(b"servers"),
        };
        log.put_checkpoint(SHARD, checkpoint);
        log.flush_blocking(disk, 0).unwrap();
    }

    /// Found by the simulator (a flipped bit in the batch of a checkpoint): later batches had given
    /// up the segments that the checkpoint made needless. Recovery went back to the checkpoint
    /// before, kept the entries behind it in its index, and recycled their segment all the same: the
    /// server could not read its own log a moment later.
    #[test]
    fn entries_that_count_again_since_a_checkpoint_was_lost_keep_their_segment() {
        let disk = MemDisk::new();
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES_MIN,
            batch_bytes_max: 2 * BLOCK_BYTES,
            ..LogConfig::default()
        };
        let mut log = Log::create(&disk, config.clone(), IDENTITY).unwrap();
        put_checkpoint(&mut log, &disk, 0);
        let mut last = 0;
        while log.tail.segment == SegmentNo(1) {
            last += 1;
            append(&mut log, &disk, last);
        }
        append(&mut log, &disk, last + 1);
        let (file, offset) = (log.tail.segment.file_name(), log.tail.offset);
        put_checkpoint(&mut log, &disk, last);
        append(&mut log, &disk, last + 2);
        assert!(
            log.oldest > SegmentNo(1),
            "the first segment is needed no more"
        );
        drop(log);
        disk.flip(&file, (offset + 100) * 8);
        let (mut log, recovered) = Log::recover(&disk, config, IDENTITY, false).unwrap();
        let found = &recovered.shards[&SHARD];
        assert_eq!(
            found.checkpoint.snapshot_index,
            Index(0),
            "the first checkpoint"
        );
        assert_eq!(found.last_index, Index(last + 2));
        for index in last + 3..last + 50 {
            append(&mut log, &disk, index);
        }
        for index in 1..last + 50 {
            let index = Index(index);
            log.read_blocking(&disk, SHARD, index, index, 1 << 20)
                .unwrap_or_else(|error| panic!("entry {index}: {error}"));
        }
    }
}

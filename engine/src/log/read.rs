//! How does an old entry come back from disk?
//!
//! By its extent, verified sector by sector on every read: each sector carries its own check and
//! the stamp of its batch, so a part of a batch can be read and trusted without the rest of it.
//! The same plan and the same decoder serve the running log (an op and its answer) and the replay
//! at start-up (blocking).

use std::{io, ops::Range};

use bytes::Bytes;
use wire::{Index, ShardId, Term};

use crate::io::{
    AlignedBuf, BLOCK_BYTES, Disk, LogOp, SectorKey, SegmentNo,
    sector::{self, SECTOR_BYTES},
};

use super::{
    CorruptAt, Log, LogError,
    format::{RECORD_HEADER_BYTES, RecordHeader, RecordKind},
    gapped::GapReader,
    index::Extent,
    types::Entry,
    verdict::{Cause, Verdict},
};

/// What one read will fetch: extents of one segment, in index order.
#[derive(Debug)]
struct Plan {
    shard: ShardId,
    segment: SegmentNo,
    offset: u64,
    length: usize,
    first: u64,
    last: u64,
    extents: Vec<Extent>,
}

/// A read that was started.
#[derive(Debug)]
pub(super) struct Reading {
    pub token: u64,
    pub answer: Option<(Option<AlignedBuf>, io::Result<()>)>,
    plan: Plan,
}

impl Log {
    /// Reads durable entries from `first` on, at most to `last`: at least one, and as many as lie
    /// together on disk within about `bytes_max`. Blocking; for start-up, before a server serves.
    ///
    /// # Errors
    /// As [`start_read`](Self::start_read) and [`finish_read`](Self::finish_read).
    pub fn read_blocking(
        &self,
        disk: &dyn Disk,
        shard: ShardId,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let plan = self.plan(shard, first, last, bytes_max)?;
        let mut buf = AlignedBuf::new(plan.length);
        let read = disk.read_at(
            &plan.segment.file_name(),
            plan.offset,
            &mut buf[..plan.length],
        );
        read.map_err(|_| damaged(&plan, plan.offset))?;
        decode(&plan, &buf[..plan.length], self.key)
    }

    /// Starts a read as [`read_blocking`](Self::read_blocking), through an op. Returns the token
    /// that [`Progress::Read`](super::Progress::Read) will name.
    ///
    /// # Errors
    /// [`LogError::Compacted`], [`LogError::Unavailable`] (beyond the end, or not yet durable),
    /// [`LogError::InGap`]: `first` cannot be read from this log.
    pub fn start_read(
        &mut self,
        shard: ShardId,
        first: Index,
        last: Index,
        bytes_max: usize,
        ops: &mut Vec<LogOp>,
    ) -> Result<u64, LogError> {
        let plan = self.plan(shard, first, last, bytes_max)?;
        self.next_token += 1;
        let token = self.next_token;
        ops.push(LogOp::Read {
            segment: plan.segment,
            offset: plan.offset,
            buf: AlignedBuf::new(plan.length),
            length: plan.length,
            token,
        });
        self.reads.push(Reading {
            token,
            answer: None,
            plan,
        });
        Ok(token)
    }

    /// The entries of an answered read.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when what was read does not check, or the device could not read it.
    ///
    /// # Panics
    /// When the read was not announced by [`Progress::Read`](super::Progress::Read).
    pub fn finish_read(&mut self, token: u64) -> Result<Vec<Entry>, LogError> {
        let no = self.reads.iter().position(|read| read.token == token);
        let read = self.reads.swap_remove(no.expect("the read was started"));
        let (buf, result) = read.answer.expect("the read was answered");
        let bytes = match (&buf, result) {
            (Some(buf), Ok(())) => &buf[..read.plan.length],
            _ => return Err(damaged(&read.plan, read.plan.offset)),
        };
        let entries = decode(&read.plan, bytes, self.key)?;
        self.stats.entries_read += entries.len() as u64;
        Ok(entries)
    }

    fn plan(
        &self,
        shard: ShardId,
        first: Index,
        last: Index,
        bytes_max: usize,
    ) -> Result<Plan, LogError> {
        let unavailable = LogError::Unavailable {
            shard,
            index: first,
        };
        let Some(index) = self.shards.get(shard) else {
            return Err(unavailable);
        };
        if first.0 < index.first_index() {
            let retained = Index(index.first_index());
            return Err(LogError::Compacted {
                shard,
                index: first,
                first: retained,
            });
        }
        if index.is_missing(first.0) {
            return Err(LogError::InGap {
                shard,
                index: first,
            });
        }
        let durable = |extent: &&Extent| {
            extent.stamp.incarnation < self.incarnation || extent.stamp.lsn <= self.durable
        };
        let mut extents = index.extents_from(first.0).take_while(durable).copied();
        let Some(start) = extents.next().filter(|_| first <= last) else {
            return Err(unavailable);
        };
        let block = BLOCK_BYTES as u64;
        let offset = start.at / block * block;
        let length = |end: u64| (end - offset).next_multiple_of(block);
        let mut taken = vec![start];
        for extent in extents.take_while(|extent| extent.first <= last.0) {
            let before = taken[taken.len() - 1];
            // Nothing is read that lies between two extents and is not needed: it may be what
            // replaced entries left behind, or a batch that cannot be read.
            let adjacent = extent.at / block <= before.end.div_ceil(block);
            if !adjacent
                || extent.segment != before.segment
                || extent.first != before.last() + 1
                || extent.at < before.end
                || length(extent.end) > bytes_max as u64
            {
                break;
            }
            taken.push(extent);
        }
        Ok(Plan {
            shard,
            segment: start.segment,
            offset,
            length: length(taken[taken.len() - 1].end) as usize,
            first: first.0,
            last: last.0,
            extents: taken,
        })
    }
}

fn damaged(plan: &Plan, offset: u64) -> LogError {
    LogError::Corrupt(CorruptAt {
        file: plan.segment.file_name(),
        offset,
        verdict: Verdict::Corrupt(Cause::Damaged),
    })
}

/// An entry whose data is still a range of the read's one allocation.
struct Found {
    index: u64,
    term: u64,
    kind: u8,
    data: Range<usize>,
}

fn decode(plan: &Plan, bytes: &[u8], key: SectorKey) -> Result<Vec<Entry>, LogError> {
    let mut data = Vec::with_capacity(bytes.len());
    let mut found = Vec::new();
    for extent in &plan.extents {
        verify(plan, extent, bytes, key)?;
        decode_extent(plan, extent, bytes, &mut data, &mut found)?;
    }
    let data = Bytes::from(data);
    let entry = |found: Found| Entry {
        index: Index(found.index),
        term: Term(found.term),
        kind: found.kind,
        data: data.slice(found.data),
    };
    Ok(found.into_iter().map(entry).collect())
}

/// Every sector that the extent touches is whole and of its batch.
fn verify(plan: &Plan, extent: &Extent, bytes: &[u8], key: SectorKey) -> Result<(), LogError> {
    let sector_bytes = SECTOR_BYTES as u64;
    for no in extent.at / sector_bytes..extent.end.div_ceil(sector_bytes) {
        let at = (no * sector_bytes - plan.offset) as usize;
        let verified = sector::verify(&bytes[at..at + SECTOR_BYTES], key, no);
        if verified.is_none_or(|verified| verified.stamp != extent.stamp) {
            return Err(damaged(plan, no * sector_bytes));
        }
    }
    Ok(())
}

fn decode_extent(
    plan: &Plan,
    extent: &Extent,
    bytes: &[u8],
    data: &mut Vec<u8>,
    found: &mut Vec<Found>,
) -> Result<(), LogError> {
    let malformed = |at: usize| {
        LogError::Corrupt(CorruptAt {
            file: plan.segment.file_name(),
            offset: plan.offset + at as u64,
            verdict: Verdict::Corrupt(Cause::Malformed),
        })
    };
    let mut reader = GapReader::at_physical(bytes, (extent.at - plan.offset) as usize);
    let mut expected = extent.first;
    while expected <= extent.last().min(plan.last) {
        let at = reader.position();
        let fits = plan.offset + (at as u64) < extent.end && reader.has(RECORD_HEADER_BYTES);
        let record = fits
            .then(|| RecordHeader::decode(&reader.array()))
            .flatten();
        let record = record.filter(|record| reader.has(record.length as usize));
        let Some(record) = record else {
            return Err(malformed(at));
        };
        let entry = matches!(record.kind, RecordKind::Entry | RecordKind::Fill);
        if !entry || record.shard != plan.shard {
            reader.skip(record.length as usize);
            continue;
        }
        if record.index != expected {
            return Err(malformed(at));
        }
        expected += 1;
        if record.index < plan.first {
            reader.skip(record.length as usize);
            continue;
        }
        let start = data.len();
        reader.append_to(data, record.length as usize);
        found.push(Found {
            index: record.index,
            term: record.term,
            kind: record.sub,
            data: start..data.len(),
        });
    }
    Ok(())
}

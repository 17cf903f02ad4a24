//! How does what is appended become one durable write?
//!
//! Records are encoded straight into the aligned buffer that the kernel will read from: the one
//! copy of a payload on its way to disk. Number and place of a batch are known when it opens, so
//! entries can be found by their final place from the start. Its header names what was durable at
//! the moment of *issue* and the digest of its predecessor, so the header is written, and all
//! sectors are sealed, when it is issued; that is the only other pass over the bytes.

use wire::ShardId;

use crate::io::{
    AlignedBuf, BLOCK_BYTES, SectorKey, SegmentNo,
    sector::{self, SECTOR_BYTES, SECTOR_PAYLOAD_BYTES, Stamp},
};

use super::{
    buffers::Buffers,
    format::{
        BLOCK_PAYLOAD_BYTES, BatchHeader, HEADER_BYTES, Place, RECORD_HEADER_BYTES, RecordHeader,
        blocks_for, fold, shard_bit,
    },
    gapped::{physical, put},
    index::RecordAt,
};

/// A batch that gathers.
#[derive(Debug)]
pub(super) struct Batch {
    pub place: Place,
    pub stamp: Stamp,
    pub flags: u16,
    pub entries: u32,
    /// The first segment still needed once this batch is durable; set when it closes.
    pub oldest: SegmentNo,
    records: u32,
    entry_shards: u64,
    state_shards: u64,
    cut_shards: u64,
    buf: AlignedBuf,
    /// Physical end of the records.
    at: usize,
    payload_bytes: usize,
    payload_bytes_max: usize,
}

impl Batch {
    /// An empty batch that may grow to `disk_bytes_max`.
    pub fn open(place: Place, stamp: Stamp, disk_bytes_max: u64, buf: AlignedBuf) -> Self {
        let blocks = disk_bytes_max as usize / BLOCK_BYTES;
        debug_assert!(blocks > 0);
        Self {
            place,
            stamp,
            flags: 0,
            entries: 0,
            oldest: SegmentNo(0),
            records: 0,
            entry_shards: 0,
            state_shards: 0,
            cut_shards: 0,
            buf,
            at: physical(HEADER_BYTES),
            payload_bytes: HEADER_BYTES,
            payload_bytes_max: blocks * BLOCK_PAYLOAD_BYTES,
        }
    }

    /// Whether a record with a body of so many bytes fits, beside `kept` bytes for others.
    #[inline]
    pub fn fits(&self, body_bytes: usize, kept: usize) -> bool {
        self.payload_bytes + RECORD_HEADER_BYTES + body_bytes + kept <= self.payload_bytes_max
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// What it will take on disk, bytes.
    pub fn disk_bytes(&self) -> u64 {
        blocks_for(self.payload_bytes) * BLOCK_BYTES as u64
    }

    /// Where the next record of so many body bytes will be, to be told to the index first: what
    /// the index knows goes into the record.
    #[inline]
    pub fn next_record(&self, body_bytes: usize) -> RecordAt {
        let end = physical(self.payload_bytes + RECORD_HEADER_BYTES + body_bytes);
        RecordAt {
            stamp: self.stamp,
            segment: self.place.segment,
            at: self.place.offset + self.at as u64,
            end: self.place.offset + end as u64,
        }
    }

    /// Adds a record. The caller has checked that it fits.
    #[inline]
    pub fn push(&mut self, record: RecordHeader, body: &[u8], buffers: &mut Buffers) {
        debug_assert_eq!(record.length as usize, body.len());
        self.payload_bytes += RECORD_HEADER_BYTES + body.len();
        assert!(
            self.payload_bytes <= self.payload_bytes_max,
            "the record was not checked to fit"
        );
        if self.payload_bytes > self.buf.len() / SECTOR_BYTES * SECTOR_PAYLOAD_BYTES {
            self.grow(buffers);
        }
        put(&mut self.buf, &mut self.at, &record.encode());
        put(&mut self.buf, &mut self.at, body);
        self.records += 1;
    }

    #[cold]
    fn grow(&mut self, buffers: &mut Buffers) {
        let disk_bytes = self.disk_bytes() as usize;
        let longest = self.payload_bytes_max / BLOCK_PAYLOAD_BYTES * BLOCK_BYTES;
        let mut longer = buffers.take(disk_bytes.max((2 * self.buf.len()).min(longest)));
        let used = self.at.min(self.buf.len());
        longer[..used].copy_from_slice(&self.buf[..used]);
        buffers.give(std::mem::replace(&mut self.buf, longer));
    }

    pub fn note_entry(&mut self, shard: ShardId, cuts: bool) {
        self.entries += 1;
        self.entry_shards |= shard_bit(shard);
        if cuts {
            self.cut_shards |= shard_bit(shard);
        }
    }

    pub fn note_cut(&mut self, shard: ShardId) {
        self.cut_shards |= shard_bit(shard);
    }

    pub fn note_state(&mut self, shard: ShardId) {
        self.state_shards |= shard_bit(shard);
    }

    /// Writes the header and seals every sector. Returns the buffer, its length on disk and the
    /// batch's digest.
    pub fn seal(mut self, key: SectorKey, issue: &Issue) -> (AlignedBuf, usize, u64) {
        let length = self.disk_bytes() as usize;
        if self.at < length {
            // A recycled buffer holds an older batch; padding is covered by the checks too.
            self.buf[self.at..length].fill(0);
        }
        self.header(issue).encode(&mut self.buf[..SECTOR_BYTES]);
        let first_sector = self.place.offset / SECTOR_BYTES as u64;
        let mut digest = 0;
        for (no, sector) in self.buf[..length]
            .chunks_exact_mut(SECTOR_BYTES)
            .enumerate()
        {
            let check = sector::seal(sector, key, first_sector + no as u64, self.stamp, no == 0);
            digest = fold(digest, check);
        }
        (self.buf, length, digest)
    }

    fn header(&self, issue: &Issue) -> BatchHeader {
        BatchHeader {
            flags: self.flags,
            records: self.records,
            log_id: issue.log_id,
            place: self.place,
            stamp: self.stamp,
            record_bytes: (self.payload_bytes - HEADER_BYTES) as u32,
            previous_digest: issue.previous_digest,
            durable: issue.durable,
            oldest: self.oldest,
            entry_shards: self.entry_shards,
            state_shards: self.state_shards,
            cut_shards: self.cut_shards,
        }
    }
}

/// What a header says that is known only when the batch is issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issue {
    pub log_id: u64,
    pub previous_digest: u64,
    pub durable: u64,
}

//! What do the bytes of a segment mean?
//!
//! A segment file is a row of *batches*, each a whole number of 4 KiB blocks, each one durable
//! write. Physically a batch is a row of 512-byte sectors that end in a 16-byte stamp
//! ([`sector`](crate::io::sector)); what is left of them, 496 bytes each, put together, is the
//! batch's *payload*, and the diagrams below are of that. Records simply continue across stamps:
//! the payload is *gapped* where the design first thought of displacing bytes into the header.
//! It is the same bytes on disk, with no table of displaced ones to keep, and a record's physical
//! place follows from its payload place by arithmetic alone.
//!
//! ```text
//! batch payload (all integers little-endian)
//!   0        8       10      12      16       24        32       40       48
//!   +--------+-------+-------+-------+--------+---------+--------+--------+
//!   | magic  |version| flags |records| log id | segment | offset | lsn    |
//!   +--------+-------+-------+-------+--------+---------+--------+--------+
//!   48       52       56        64        72        80       88       96      104
//!   +--------+--------+---------+---------+---------+--------+--------+--------+
//!   |incarna-|records'| digest  | durable | oldest  | entry  | state  | cut    |
//!   |tion    |bytes   | of prev.| lsn     | segment | shards | shards | shards |
//!   +--------+--------+---------+---------+---------+--------+--------+--------+
//!   104 …    records, then zeros up to the end of the block
//!
//! record
//!   0        4       6      7      8        16       24       32
//!   +--------+-------+------+------+--------+--------+--------+----------+
//!   | length | shard | kind | sub  | term   | index  | prev   | length   |
//!   | of body|       |      |      |        |        |        | bytes    |
//!   +--------+-------+------+------+--------+--------+--------+----------+
//!
//!   kind            sub          term    index          prev              body
//!   1 entry         entry kind   term    index          term of index-1   data
//!   2 fill          entry kind   term    index          0                 data
//!   3 hard state    doubt bits   term    commit         vote              -
//!   4 checkpoint    doubt bits   term    commit         vote              see below
//!   5 segment head  0            0       segment bytes  0                 -
//!
//! checkpoint body
//!   0          8          16         24         32
//!   +----------+----------+----------+----------+---------------+
//!   | snapshot | snapshot | last     | last     | configuration |
//!   | index    | term     | index    | term     | (to the end)  |
//!   +----------+----------+----------+----------+---------------+
//! ```
//!
//! Gaps are not stored: an index between snapshot and last of which no live segment holds the
//! entry *is* a gap. The doubt bits are (1: hard state, 2: entries at the tail), or a doubt would
//! be forgotten when the segment with the damage is freed.
//!
//! *durable lsn* is the highest batch that was durable when this one was issued. *oldest segment*
//! is the first that was still needed then. The three masks have bit `shard % 64` set for shards
//! with entries, with a term or vote, and with truncated entries in the batch: when the records
//! are damaged but the header is whole, they bound what was lost.
//!
//! There is no checksum of the batch as a whole: a batch is whole when each of its sectors passes
//! its own check and carries the batch's stamp. The digest chains batches by folding the checks.

use wire::ShardId;

use crate::io::{
    BLOCK_BYTES, SegmentNo,
    sector::{SECTOR_BYTES, SECTOR_PAYLOAD_BYTES, Stamp},
};

use super::gapped::GapReader;

/// First eight bytes of a batch.
pub const MAGIC: [u8; 8] = *b"curialog";
/// Version of everything in this file.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of a batch header.
pub const HEADER_BYTES: usize = 104;
/// Bytes of a record header.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Payload bytes of one block.
pub const BLOCK_PAYLOAD_BYTES: usize = BLOCK_BYTES / SECTOR_BYTES * SECTOR_PAYLOAD_BYTES;
/// No log ever comes so far, so that one more is always a number.
const LSN_MAX: u64 = 1 << 62;
const CHECKPOINT_FIXED_BYTES: usize = 32;

/// Batch flag: the segment ends with this batch; the next one is at the start of the next segment.
pub const FLAG_CLOSES: u16 = 1;
/// Batch flag: a mark, written to name the tail durable.
pub const FLAG_MARK: u16 = 2;

/// Doubt bit: a corrupt record may have held a newer term or vote.
pub const DOUBT_HARD_STATE: u8 = 1;
/// Doubt bit: a corrupt record at the log's end may have held further entries.
pub const DOUBT_TAIL: u8 = 2;

/// Where a batch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The segment.
    pub segment: SegmentNo,
    /// Bytes from its start; a multiple of the block.
    pub offset: u64,
}

/// The header of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// [`FLAG_CLOSES`], [`FLAG_MARK`].
    pub flags: u16,
    /// Number of records.
    pub records: u32,
    /// The log it belongs to.
    pub log_id: u64,
    /// Where it was written.
    pub place: Place,
    /// Its number and the start of the server that wrote it.
    pub stamp: Stamp,
    /// Bytes of records.
    pub record_bytes: u32,
    /// Digest of the batch before it.
    pub previous_digest: u64,
    /// Highest batch known durable when it was issued.
    pub durable: u64,
    /// First segment still needed when it was issued.
    pub oldest: SegmentNo,
    /// Shards with entries in it (bit `shard % 64`).
    pub entry_shards: u64,
    /// Shards with a new term or vote in it.
    pub state_shards: u64,
    /// Shards of which it truncates entries.
    pub cut_shards: u64,
}

/// Why bytes in the place of a header are none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAHeader {
    /// Another magic, or numbers that no log comes to.
    Magic,
    /// Written by a newer program.
    Version(u16),
}

/// Mask bit of a shard.
pub fn shard_bit(shard: ShardId) -> u64 {
    1 << (shard.0 % 64)
}

impl BatchHeader {
    /// Length of the batch on disk, bytes: whole blocks.
    pub fn disk_bytes(&self) -> u64 {
        blocks_for(HEADER_BYTES + self.record_bytes as usize) * BLOCK_BYTES as u64
    }

    /// Where the next batch begins.
    pub fn next_place(&self) -> Place {
        if self.flags & FLAG_CLOSES != 0 {
            Place {
                segment: self.place.segment.next(),
                offset: 0,
            }
        } else {
            Place {
                segment: self.place.segment,
                offset: self.place.offset + self.disk_bytes(),
            }
        }
    }

    /// Writes it into the payload of a batch's first sector.
    pub fn encode(&self, sector: &mut [u8]) {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            sector[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        put(&FORMAT_VERSION.to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.records.to_le_bytes());
        put(&self.log_id.to_le_bytes());
        put(&self.place.segment.0.to_le_bytes());
        put(&self.place.offset.to_le_bytes());
        put(&self.stamp.lsn.to_le_bytes());
        put(&self.stamp.incarnation.to_le_bytes());
        put(&self.record_bytes.to_le_bytes());
        put(&self.previous_digest.to_le_bytes());
        put(&self.durable.to_le_bytes());
        put(&self.oldest.0.to_le_bytes());
        put(&self.entry_shards.to_le_bytes());
        put(&self.state_shards.to_le_bytes());
        put(&self.cut_shards.to_le_bytes());
        debug_assert_eq!(at, HEADER_BYTES);
    }

    /// Reads it from a batch's first sector, which has passed its check.
    pub fn decode(sector: &[u8]) -> Result<Self, NotAHeader> {
        if sector[..8] != MAGIC {
            return Err(NotAHeader::Magic);
        }
        let version = u16_at(sector, 8);
        if version != FORMAT_VERSION {
            return Err(NotAHeader::Version(version));
        }
        let header = Self {
            flags: u16_at(sector, 10),
            records: u32_at(sector, 12),
            log_id: u64_at(sector, 16),
            place: Place {
                segment: SegmentNo(u64_at(sector, 24)),
                offset: u64_at(sector, 32),
            },
            stamp: Stamp {
                lsn: u64_at(sector, 40),
                incarnation: u32_at(sector, 48),
            },
            record_bytes: u32_at(sector, 52),
            previous_digest: u64_at(sector, 56),
            durable: u64_at(sector, 64),
            oldest: SegmentNo(u64_at(sector, 72)),
            entry_shards: u64_at(sector, 80),
            state_shards: u64_at(sector, 88),
            cut_shards: u64_at(sector, 96),
        };
        let lsn_max = header.stamp.lsn.max(header.durable);
        let segment_max = header.place.segment.max(header.oldest);
        match lsn_max <= LSN_MAX && segment_max <= SegmentNo::MAX {
            true => Ok(header),
            false => Err(NotAHeader::Magic),
        }
    }
}

/// Blocks that hold so much payload.
pub fn blocks_for(payload_bytes: usize) -> u64 {
    payload_bytes.div_ceil(BLOCK_PAYLOAD_BYTES) as u64
}

/// Folds one more sector check into the digest of a batch; begin with 0.
#[inline]
pub fn fold(digest: u64, check: u32) -> u64 {
    (digest.rotate_left(5) ^ u64::from(check)).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A raft entry; at or below the last index it truncates what follows.
    Entry = 1,
    /// A raft entry that fills a gap; what follows stays.
    Fill = 2,
    /// A shard's hard state.
    HardState = 3,
    /// All that must survive of a shard when older segments go.
    Checkpoint = 4,
    /// First record of a segment.
    SegmentHead = 5,
}

impl RecordKind {
    fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Entry,
            2 => Self::Fill,
            3 => Self::HardState,
            4 => Self::Checkpoint,
            5 => Self::SegmentHead,
            _ => return None,
        })
    }
}

/// The header of a record; the diagram says what the numbers mean for each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the body.
    pub length: u32,
    /// Whose record it is.
    pub shard: ShardId,
    /// What it is.
    pub kind: RecordKind,
    /// Entry kind or doubt bits.
    pub sub: u8,
    /// Term.
    pub term: u64,
    /// Index, commit or segment bytes.
    pub index: u64,
    /// Term of the previous entry, or vote.
    pub prev: u64,
}

impl RecordHeader {
    /// Its bytes.
    #[inline]
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[6] = self.kind as u8;
        bytes[7] = self.sub;
        bytes[8..16].copy_from_slice(&self.term.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.index.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.prev.to_le_bytes());
        bytes
    }

    /// Reads it; `None` for an unknown kind.
    #[inline]
    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<Self> {
        Some(Self {
            length: u32_at(bytes, 0),
            shard: ShardId(u16_at(bytes, 4)),
            kind: RecordKind::from_u8(bytes[6])?,
            sub: bytes[7],
            term: u64_at(bytes, 8),
            index: u64_at(bytes, 16),
            prev: u64_at(bytes, 24),
        })
    }
}

/// The body of a checkpoint record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointBody {
    /// Every entry up to here is in an image.
    pub snapshot_index: u64,
    /// Its term.
    pub snapshot_term: u64,
    /// Last entry as of the record; the snapshot's when there is none.
    pub last_index: u64,
    /// Its term; 0 when it is in a gap.
    pub last_term: u64,
    /// Opaque.
    pub configuration: bytes::Bytes,
}

impl CheckpointBody {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for number in [
            self.snapshot_index,
            self.snapshot_term,
            self.last_index,
            self.last_term,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.configuration);
    }

    /// Reads it; `None` when it is too short or contradicts itself.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let body = (bytes.len() >= CHECKPOINT_FIXED_BYTES).then(|| Self {
            snapshot_index: u64_at(bytes, 0),
            snapshot_term: u64_at(bytes, 8),
            last_index: u64_at(bytes, 16),
            last_term: u64_at(bytes, 24),
            configuration: bytes::Bytes::copy_from_slice(&bytes[CHECKPOINT_FIXED_BYTES..]),
        });
        body.filter(|body| body.last_index >= body.snapshot_index)
    }
}

/// Walks the records of a whole batch; each item is a record header and a reader at its body.
/// `None` as an item: the records do not add up, and nothing follows.
pub struct Records<'a> {
    reader: GapReader<'a>,
    bytes_left: usize,
    records_left: u32,
}

impl<'a> Records<'a> {
    /// Over the physical bytes of a batch.
    pub fn new(batch: &'a [u8], header: &BatchHeader) -> Self {
        Self {
            reader: GapReader::new(batch, HEADER_BYTES),
            bytes_left: header.record_bytes as usize,
            records_left: header.records,
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Option<(RecordHeader, GapReader<'a>)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.records_left == 0 {
            return (self.bytes_left != 0).then(|| {
                self.bytes_left = 0;
                None
            });
        }
        let record = (self.bytes_left >= RECORD_HEADER_BYTES)
            .then(|| RecordHeader::decode(&self.reader.array()))
            .flatten()
            .filter(|r| self.bytes_left - RECORD_HEADER_BYTES >= r.length as usize);
        let Some(record) = record else {
            (self.records_left, self.bytes_left) = (0, 0);
            return Some(None);
        };
        let body = self.reader.clone();
        self.reader.skip(record.length as usize);
        self.bytes_left -= RECORD_HEADER_BYTES + record.length as usize;
        self.records_left -= 1;
        Some(Some((record, body)))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_and_knows_its_version() {
        let header = BatchHeader {
            flags: FLAG_CLOSES,
            records: 3,
            log_id: 4,
            place: Place {
                segment: SegmentNo(5),
                offset: 8192,
            },
            stamp: Stamp {
                incarnation: 6,
                lsn: 7,
            },
            record_bytes: 8000,
            previous_digest: 9,
            durable: 6,
            oldest: SegmentNo(2),
            entry_shards: 1,
            state_shards: 2,
            cut_shards: 4,
        };
        let mut sector = [0u8; SECTOR_BYTES];
        header.encode(&mut sector);
        assert_eq!(BatchHeader::decode(&sector), Ok(header.clone()));
        assert_eq!(header.disk_bytes(), 3 * BLOCK_BYTES as u64);
        sector[8] = 9;
        assert_eq!(BatchHeader::decode(&sector), Err(NotAHeader::Version(9)));
        sector[0] = 0;
        assert_eq!(BatchHeader::decode(&sector), Err(NotAHeader::Magic));
    }

    #[test]
    fn checkpoint_round_trips_and_nonsense_is_refused() {
        let body = CheckpointBody {
            snapshot_index: 10,
            snapshot_term: 2,
            last_index: 20,
            last_term: 3,
            configuration: bytes::Bytes::from_static(b"who is in"),
        };
        let mut bytes = Vec::new();
        body.encode(&mut bytes);
        assert_eq!(CheckpointBody::decode(&bytes), Some(body));
        for length in 0..CHECKPOINT_FIXED_BYTES {
            assert_eq!(CheckpointBody::decode(&bytes[..length]), None);
        }
        bytes[16] = 9;
        assert_eq!(
            CheckpointBody::decode(&bytes),
            None,
            "last below the snapshot"
        );
    }
}

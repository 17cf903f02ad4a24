//! What is in an image, byte for byte?
//!
//! ```text
//! image   header | chunk 0 | chunk 1 | … | footer
//!
//! header   0              8          12            16           32           40      48       56
//!         +--------------+----------+-------------+------------+------------+-------+--------+
//!         | "CURIAIMG"   | version  | header      | cluster id | last index | term  | digest |
//!         |              | u32      | bytes u32   | 16 bytes   | u64        | u64   | u64    |
//!         +--------------+----------+-------------+------------+------------+-------+--------+
//!          56              60          62           64              68
//!         +---------------+-----------+------------+---------------+-------------------------+---------------+---------+
//!         | feature level | shard u16 | tables u16 | configuration | tables × {table u16,    | configuration | crc u32 |
//!         | u32           |           |            | bytes u32     |           rows u64}     |               |         |
//!         +---------------+-----------+------------+---------------+-------------------------+---------------+---------+
//!
//! chunk    0        4               8            12         16          18         20        24
//!         +--------+---------------+------------+----------+-----------+----------+---------+--------------------------+
//!         | "CHNK" | payload bytes | number u32 | rows u32 | table u16 | zero u16 | crc u32 | rows × {length u32, row} |
//!         |        | u32           | from 0     |          |           |          |         |                          |
//!         +--------+---------------+------------+----------+-----------+----------+---------+--------------------------+
//!
//! footer   0        4              8            12         16         24           32
//!         +--------+--------------+------------+----------+----------+------------+----------------------+--------------+---------+
//!         | "FOOT" | footer bytes | chunks u32 | zero u32 | rows u64 | digest u64 | chunks × {offset u64}| footer bytes | crc u32 |
//!         |        | u32          |            |          |          |            |                      | u32          |         |
//!         +--------+--------------+------------+----------+----------+------------+----------------------+--------------+---------+
//! ```
//! Little-endian. Each CRC32C covers all other bytes of its header, chunk (payload included) or
//! footer. Rows are the canonical bytes of [`crate::state::row`], in ascending key order within a
//! table; tables are in the schema's order, those without rows left out. The configuration is raft's, opaque here. The footer
//! is found from the end of the file, and the offsets in it let a reader begin at any chunk.
//!
//! The digest in the header is the one that the state machine kept as it went; the one in the
//! footer was taken from the rows as they were written. A loader computes a third. All three
//! must agree, so that an image from which the state cannot be had again is noticed before the log
//! behind it is cut, and not after.

mod header;
mod loader;
mod writer;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use wire::{ClusterId, Index, ShardId, Term, limits};

pub use loader::ImageLoader;
pub use writer::ImageWriter;

/// Version of the format that this build writes, and the only one that it reads.
pub const IMAGE_VERSION: u32 = 1;

/// Rows are added to a chunk until it holds this many bytes: small enough that checking and
/// loading one takes a quarter of a millisecond.
pub const CHUNK_FILL_BYTES: usize = 128 * 1024;

/// Longest configuration that an image can carry, bytes.
pub const CONFIGURATION_BYTES_MAX: usize = 64 * 1024;

const HEADER_MAGIC: &[u8; 8] = b"CURIAIMG";
const CHUNK_MAGIC: &[u8; 4] = b"CHNK";
const FOOTER_MAGIC: &[u8; 4] = b"FOOT";

/// Bytes of a header without tables and configuration, its CRC included.
const HEADER_BYTES: usize = 72;
/// Bytes per table in the header.
const HEADER_TABLE_BYTES: usize = 10;
/// Most tables that a header can list: more than any version will have.
const TABLES_MAX: usize = 256;
/// Bytes of a chunk before its rows.
const CHUNK_HEADER_BYTES: usize = 24;
/// Bytes of a footer without offsets.
const FOOTER_BYTES: usize = 40;

// A chunk is begun below its fill and ends with any one row: a command's bytes and a row's header.
const _: () =
    assert!(CHUNK_FILL_BYTES + limits::COMMAND_BYTES_MAX + 4096 <= limits::IMAGE_CHUNK_BYTES_MAX);

/// What an image's header says besides the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageMeta {
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// Last applied index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Raft configuration at `index`, opaque here; at most [`CONFIGURATION_BYTES_MAX`].
    pub configuration: Bytes,
    /// Feature level of the state.
    pub feature_level: u32,
    /// State digest at `index`.
    pub digest: u64,
}

/// Why bytes are not a whole, undamaged image that this build can load. Offsets are in the image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// It does not begin like an image.
    #[error("not an image: it does not begin with 'CURIAIMG'")]
    NotAnImage,
    /// An image of another version of the format.
    #[error("image format version {found} is not supported (this build reads {IMAGE_VERSION})")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// A state that uses features of a later build.
    #[error("image of feature level {found}; this build knows up to {known}: start a newer build")]
    FeatureLevel {
        /// The level in the header.
        found: u32,
        /// The highest level that this build knows.
        known: u32,
    },
    /// Bytes changed since they were written.
    #[error("image damaged: checksum of the {what} at byte {offset} does not match")]
    Checksum {
        /// Header, chunk or footer.
        what: &'static str,
        /// Where it begins.
        offset: u64,
    },
    /// Something that no writer writes.
    #[error("image damaged: the {what} at byte {offset} is malformed: {why}")]
    Malformed {
        /// Header, chunk or footer.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// It ends too early.
    #[error("image incomplete: it ends at byte {length}, before its footer does")]
    Truncated {
        /// How many bytes there are.
        length: u64,
    },
    /// It goes on after its end.
    #[error("image damaged: bytes follow its footer, which ends at byte {offset}")]
    Trailing {
        /// Where the footer ends.
        offset: u64,
    },
    /// All bytes are as written, but the rows are not the state that the header speaks of.
    #[error(
        "image does not hold the state it names: digest {found:016x} of the rows, {named:016x} in the {place}"
    )]
    Digest {
        /// Header or footer.
        place: &'static str,
        /// The digest there.
        named: u64,
        /// The digest of the rows.
        found: u64,
    },
}

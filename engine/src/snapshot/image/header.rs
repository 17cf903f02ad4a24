//! How is an image's header written and read?

use bytes::Bytes;
use wire::{ClusterId, Index, ShardId, Term};

use super::{
    CONFIGURATION_BYTES_MAX, HEADER_BYTES, HEADER_MAGIC, HEADER_TABLE_BYTES, IMAGE_VERSION,
    ImageError, ImageMeta, TABLES_MAX,
};

/// Bytes before which the length of a header is not known.
pub(super) const HEADER_START_BYTES: usize = 16;
const HEADER_BYTES_MAX: usize =
    HEADER_BYTES + TABLES_MAX * HEADER_TABLE_BYTES + CONFIGURATION_BYTES_MAX;

/// Little-endian numbers at fixed places.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn malformed(why: impl Into<String>) -> ImageError {
    ImageError::Malformed {
        what: "header",
        offset: 0,
        why: why.into(),
    }
}

/// A header of this meta and these {table, rows}.
pub(super) fn encode(meta: &ImageMeta, tables: &[(u16, u64)]) -> Vec<u8> {
    assert!(meta.configuration.len() <= CONFIGURATION_BYTES_MAX && tables.len() <= TABLES_MAX);
    let length = HEADER_BYTES + tables.len() * HEADER_TABLE_BYTES + meta.configuration.len();
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(HEADER_MAGIC);
    out.extend_from_slice(&IMAGE_VERSION.to_le_bytes());
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&meta.cluster_id.0);
    out.extend_from_slice(&meta.index.0.to_le_bytes());
    out.extend_from_slice(&meta.term.0.to_le_bytes());
    out.extend_from_slice(&meta.digest.to_le_bytes());
    out.extend_from_slice(&meta.feature_level.to_le_bytes());
    out.extend_from_slice(&meta.shard.0.to_le_bytes());
    out.extend_from_slice(&(tables.len() as u16).to_le_bytes());
    out.extend_from_slice(&(meta.configuration.len() as u32).to_le_bytes());
    for (table, rows) in tables {
        out.extend_from_slice(&table.to_le_bytes());
        out.extend_from_slice(&rows.to_le_bytes());
    }
    out.extend_from_slice(&meta.configuration);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    debug_assert_eq!(out.len(), length);
    out
}

/// The length of the header that begins with these [`HEADER_START_BYTES`] bytes.
pub(super) fn length(start: &[u8]) -> Result<usize, ImageError> {
    if start[..8] != *HEADER_MAGIC {
        return Err(ImageError::NotAnImage);
    }
    // A version that is not ours may have any header, so its checksum cannot be asked first.
    let found = u32_at(start, 8);
    if found != IMAGE_VERSION {
        return Err(ImageError::Version { found });
    }
    let length = u32_at(start, 12) as usize;
    if !(HEADER_BYTES..=HEADER_BYTES_MAX).contains(&length) {
        return Err(malformed(format!("a length of {length} bytes")));
    }
    Ok(length)
}

/// Reads a whole header.
pub(super) fn decode(bytes: &[u8]) -> Result<(ImageMeta, Vec<(u16, u64)>), ImageError> {
    let (covered, crc) = bytes.split_at(bytes.len() - 4);
    if crc32c::crc32c(covered) != u32_at(crc, 0) {
        return Err(ImageError::Checksum {
            what: "header",
            offset: 0,
        });
    }
    let tables = usize::from(u16_at(bytes, 62));
    let configuration = u32_at(bytes, 64) as usize;
    if HEADER_BYTES + tables * HEADER_TABLE_BYTES + configuration != bytes.len() {
        return Err(malformed("its parts are not as long as it is"));
    }
    let (listed, configuration) = bytes[68..bytes.len() - 4].split_at(tables * HEADER_TABLE_BYTES);
    let tables = listed
        .chunks_exact(HEADER_TABLE_BYTES)
        .map(|table| (u16_at(table, 0), u64_at(table, 2)))
        .collect();
    let meta = ImageMeta {
        cluster_id: ClusterId::from_slice(&bytes[16..32]).expect("16 bytes"),
        index: Index(u64_at(bytes, 32)),
        term: Term(u64_at(bytes, 40)),
        digest: u64_at(bytes, 48),
        feature_level: u32_at(bytes, 56),
        shard: ShardId(u16_at(bytes, 60)),
        configuration: Bytes::copy_from_slice(configuration),
    };
    Ok((meta, tables))
}

//! How do log entries travel beside a flatbuffer?
//!
//! Their bytes are the frame's blob, as they are; the flatbuffer holds one fixed-size header for
//! each. So entries are neither copied nor verified one by one, and the same bytes serve the log,
//! every peer's frame and the state machine.
//!
//! ```text
//! EntryHeader, 32 bytes, little-endian
//!  0         8        16        20        24       28       32
//! +---------+---------+---------+---------+--------+--------+
//! | index   | term    | offset  | length  | kind   | crc32c |
//! | u64     | u64     | u32     | u32     | u32    | u32    |
//! +---------+---------+---------+---------+--------+--------+
//!                       into the blob      EntryType  of the entry's bytes
//! ```

use bytes::Bytes;
use raft::eraftpb::EntryType;

use crate::codec;
use crate::generated::wire::EntryHeader;
use crate::{Index, Term, WireError, limits};

/// The header of an entry whose bytes begin at `offset` of the blob.
///
/// # Panics
///
/// If the entry does not fit a frame.
pub(crate) fn header(index: u64, term: u64, kind: u32, data: &[u8], offset: usize) -> EntryHeader {
    assert!(offset + data.len() <= limits::FRAME_BYTES_MAX);
    let crc = crc32c::crc32c(data);
    EntryHeader::new(index, term, offset as u32, data.len() as u32, kind, crc)
}

/// An entry's bytes, out of the blob, checked.
pub(crate) fn data(
    what: &'static str,
    header: &EntryHeader,
    blob: &Bytes,
) -> Result<Bytes, WireError> {
    let start = header.offset() as usize;
    let stop = start + header.length() as usize;
    if stop > blob.len() {
        let (index, length) = (header.index(), blob.len());
        let why = format_args!("entry {index} is at {start}..{stop} of a blob of {length} bytes");
        return Err(codec::malformed(what, why));
    }
    let data = blob.slice(start..stop);
    if crc32c::crc32c(&data) != header.crc() {
        return Err(WireError::Checksum("entry"));
    }
    Ok(data)
}

/// The entry type with this number.
pub(crate) fn kind(what: &'static str, number: u32) -> Result<EntryType, WireError> {
    match number {
        0 => Ok(EntryType::EntryNormal),
        1 => Ok(EntryType::EntryConfChange),
        2 => Ok(EntryType::EntryConfChangeV2),
        _ => Err(codec::malformed(
            what,
            format_args!("unknown entry type {number}"),
        )),
    }
}

/// Checks that entries follow one another as in a log: indexes without a gap, terms that never
/// fall and never pass `last_term`.
pub(crate) struct Sequence {
    what: &'static str,
    previous: (u64, u64),
    last_term: u64,
}

impl Sequence {
    /// A sequence whose first entry follows the one at `previous` (index, term).
    pub(crate) fn after(what: &'static str, previous: (Index, Term), last_term: Term) -> Self {
        let previous = (previous.0.0, previous.1.0);
        Self {
            what,
            previous,
            last_term: last_term.0,
        }
    }

    pub(crate) fn check(&mut self, index: u64, term: u64) -> Result<(), WireError> {
        let (previous_index, previous_term) = self.previous;
        if index != previous_index + 1 || index > limits::INDEX_MAX {
            let why = format_args!("entry {index} follows entry {previous_index}");
            return Err(codec::malformed(self.what, why));
        }
        if term == 0 || term < previous_term || term > self.last_term {
            let last = self.last_term;
            let why = format_args!("entry term {term} is not in {previous_term}..={last}");
            return Err(codec::malformed(self.what, why));
        }
        self.previous = (index, term);
        Ok(())
    }
}

//! How do an image's chunks and a damaged log's missing entries travel?

use bytes::Bytes;

use crate::{Index, Term, WireError};

/// Asks the leader for a piece of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFetch {
    /// Last index the image contains.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// First byte wanted.
    pub offset: u64,
    /// How many bytes at most.
    pub length: u32,
}

/// A piece of an image; its bytes are the frame's blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageChunk {
    /// Last index the image contains.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// First byte sent.
    pub offset: u64,
    /// Length of the whole image in bytes.
    pub total: u64,
    /// CRC32C of the blob.
    pub crc: u32,
    /// There is no such image (any more): ask for a newer one.
    pub missing: bool,
}

/// Asks a peer for the entries that a damaged record held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntriesFetch {
    /// First index wanted.
    pub first: Index,
    /// Last index wanted; 0 for all the peer has.
    pub last: Index,
    /// The entry behind the gap, which the peer must hold with the same term (log matching); 0 for none.
    pub next_index: Index,
    /// Its term.
    pub next_term: Term,
}

/// One entry as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireEntry {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// eraftpb entry type.
    pub kind: u32,
    /// Its bytes, a slice of the frame's blob.
    pub data: Bytes,
}

/// The entries asked for; their bytes are the frame's blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntriesChunk {
    /// The answering server's term.
    pub term: Term,
    /// Its commit index.
    pub commit: Index,
    /// Its last index.
    pub last_index: Index,
    /// Whether it leads at `term`.
    pub leader: bool,
    /// It cannot prove that its entries are the ones that were lost.
    pub refused: bool,
    /// Why.
    pub reason: String,
    /// The entries.
    pub entries: Vec<WireEntry>,
}

macro_rules! codec {
    ($($name:ident),*) => {$(
        impl $name {
            /// Verifies and reads one.
            pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
                let _ = bytes;
                todo!()
            }
            /// Encodes one.
            pub fn encode(&self) -> Bytes {
                todo!()
            }
        }
    )*};
}
codec!(ImageFetch, ImageChunk, EntriesFetch);

impl EntriesChunk {
    /// Verifies and reads one; entry bytes are slices of `blob`, each checked against its CRC.
    pub fn decode(payload: &Bytes, blob: &Bytes) -> Result<Self, WireError> {
        let _ = (payload, blob);
        todo!()
    }

    /// Encodes payload and blob.
    pub fn encode(&self) -> (Bytes, Bytes) {
        todo!()
    }
}

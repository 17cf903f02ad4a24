//! How do an image's chunks and a damaged log's missing entries travel?
//!
//! Both are pulled by the one that needs them, piece by piece, so that neither can crowd out
//! raft's own messages. Their bytes are the frame's blob.

use bytes::Bytes;

use crate::codec;
use crate::entries::{self, Sequence};
use crate::generated::wire as fb;
use crate::{Index, Term, WireError, limits};

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
    /// The entries wanted are no longer in its log but in its image up to this index; 0 otherwise.
    pub image_index: Index,
    /// Its term.
    pub image_term: Term,
    /// Its log reaches further back than the gap and does not hold the entry behind it.
    pub other_history: bool,
}

impl ImageFetch {
    /// Verifies and reads one.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        const WHAT: &str = "image fetch";
        let fetch = codec::root::<fb::ImageFetch>(WHAT, bytes)?;
        let length = fetch.length();
        codec::at_most(
            "image chunk",
            length as usize,
            limits::IMAGE_CHUNK_BYTES_MAX,
        )?;
        Ok(Self {
            index: codec::index(WHAT, fetch.index())?,
            term: codec::term(WHAT, fetch.term())?,
            offset: fetch.offset(),
            length,
        })
    }

    /// Encodes one.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| {
            let args = fb::ImageFetchArgs {
                index: self.index.0,
                term: self.term.0,
                offset: self.offset,
                length: self.length,
            };
            let fetch = fb::ImageFetch::create(builder, &args);
            builder.finish_minimal(fetch);
        })
    }
}

impl ImageChunk {
    const WHAT: &str = "image chunk";

    /// Verifies and reads one. Its bytes are still to be checked with [`Self::check`].
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let chunk = codec::root::<fb::ImageChunk>(Self::WHAT, bytes)?;
        let (offset, total) = (chunk.offset(), chunk.total());
        if offset > total {
            let why = format_args!("byte {offset} of an image of {total} bytes");
            return Err(codec::malformed(Self::WHAT, why));
        }
        Ok(Self {
            index: codec::index(Self::WHAT, chunk.index())?,
            term: codec::term(Self::WHAT, chunk.term())?,
            offset,
            total,
            crc: chunk.crc(),
            missing: chunk.missing(),
        })
    }

    /// Checks the frame's blob: it has the CRC, is no longer than a chunk may be and lies
    /// within the image.
    pub fn check(&self, blob: &[u8]) -> Result<(), WireError> {
        codec::at_most(Self::WHAT, blob.len(), limits::IMAGE_CHUNK_BYTES_MAX)?;
        if blob.len() as u64 > self.total - self.offset.min(self.total) {
            let (length, offset, total) = (blob.len(), self.offset, self.total);
            let why = format_args!("{length} bytes at {offset} of an image of {total} bytes");
            return Err(codec::malformed(Self::WHAT, why));
        }
        if crc32c::crc32c(blob) != self.crc {
            return Err(WireError::Checksum(Self::WHAT));
        }
        Ok(())
    }

    /// Encodes one.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| {
            let args = fb::ImageChunkArgs {
                index: self.index.0,
                term: self.term.0,
                offset: self.offset,
                total: self.total,
                crc: self.crc,
                missing: self.missing,
            };
            let chunk = fb::ImageChunk::create(builder, &args);
            builder.finish_minimal(chunk);
        })
    }
}

impl EntriesFetch {
    /// Verifies and reads one.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        const WHAT: &str = "entries fetch";
        let fetch = codec::root::<fb::EntriesFetch>(WHAT, bytes)?;
        let read = Self {
            first: codec::index(WHAT, fetch.first())?,
            last: codec::index(WHAT, fetch.last())?,
            next_index: codec::index(WHAT, fetch.next_index())?,
            next_term: codec::term(WHAT, fetch.next_term())?,
        };
        if read.first.0 == 0 || (read.last.0 != 0 && read.last < read.first) {
            let why = format_args!("entries {} to {} are no range", read.first, read.last);
            return Err(codec::malformed(WHAT, why));
        }
        Ok(read)
    }

    /// Encodes one.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| {
            let args = fb::EntriesFetchArgs {
                first: self.first.0,
                last: self.last.0,
                next_index: self.next_index.0,
                next_term: self.next_term.0,
            };
            let fetch = fb::EntriesFetch::create(builder, &args);
            builder.finish_minimal(fetch);
        })
    }
}

impl EntriesChunk {
    const WHAT: &str = "entries chunk";

    /// Verifies and reads one; entry bytes are slices of `blob`, each checked against its CRC.
    /// Their indexes have no gaps, their terms never fall.
    pub fn decode(payload: &Bytes, blob: &Bytes) -> Result<Self, WireError> {
        let chunk = codec::root::<fb::EntriesChunk>(Self::WHAT, payload)?;
        Ok(Self {
            term: codec::term(Self::WHAT, chunk.term())?,
            commit: codec::index(Self::WHAT, chunk.commit())?,
            last_index: codec::index(Self::WHAT, chunk.last_index())?,
            leader: chunk.leader(),
            refused: chunk.refused(),
            reason: codec::text("reason", chunk.reason(), limits::MESSAGE_BYTES_MAX)?,
            entries: Self::read_entries(&chunk, blob)?,
            image_index: codec::index(Self::WHAT, chunk.image_index())?,
            image_term: codec::term(Self::WHAT, chunk.image_term())?,
            other_history: chunk.other_history(),
        })
    }

    fn read_entries(
        chunk: &fb::EntriesChunk<'_>,
        blob: &Bytes,
    ) -> Result<Vec<WireEntry>, WireError> {
        let Some(headers) = chunk.entries().filter(|headers| !headers.is_empty()) else {
            return Ok(Vec::new());
        };
        if headers.len() > limits::ENTRIES_PER_MESSAGE_MAX {
            let (count, max) = (headers.len(), limits::ENTRIES_PER_MESSAGE_MAX);
            let why = format_args!("{count} entries are over the limit of {max}");
            return Err(codec::malformed(Self::WHAT, why));
        }
        let Some(before) = headers.get(0).index().checked_sub(1) else {
            return Err(codec::malformed(Self::WHAT, "an entry of index 0"));
        };
        let last_term = codec::term(Self::WHAT, chunk.term())?;
        let mut sequence = Sequence::after(Self::WHAT, (Index(before), Term(0)), last_term);
        let mut read = Vec::with_capacity(headers.len());
        for header in headers {
            sequence.check(header.index(), header.term())?;
            entries::kind(Self::WHAT, header.kind())?;
            read.push(WireEntry {
                index: Index(header.index()),
                term: Term(header.term()),
                kind: header.kind(),
                data: entries::data(Self::WHAT, header, blob)?,
            });
        }
        Ok(read)
    }

    /// Encodes payload and blob.
    ///
    /// # Panics
    ///
    /// If the entries do not fit a frame; ask for fewer at a time.
    pub fn encode(&self) -> (Bytes, Bytes) {
        let mut blob = Vec::with_capacity(self.entries.iter().map(|e| e.data.len()).sum());
        let mut headers = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let (index, term) = (entry.index.0, entry.term.0);
            let header = entries::header(index, term, entry.kind, &entry.data, blob.len());
            headers.push(header);
            blob.extend_from_slice(&entry.data);
        }
        let payload = codec::encoded(|builder| {
            let reason = codec::cut(&self.reason, limits::MESSAGE_BYTES_MAX);
            let args = fb::EntriesChunkArgs {
                term: self.term.0,
                commit: self.commit.0,
                last_index: self.last_index.0,
                leader: self.leader,
                refused: self.refused,
                reason: Some(builder.create_string(reason)),
                entries: Some(builder.create_vector(&headers)),
                image_index: self.image_index.0,
                image_term: self.image_term.0,
                other_history: self.other_history,
            };
            let chunk = fb::EntriesChunk::create(builder, &args);
            builder.finish_minimal(chunk);
        });
        (payload, Bytes::from(blob))
    }
}

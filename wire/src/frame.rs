//! Where does one message end and the next begin, and did it arrive whole?
//!
//! ```text
//!  0        4     5     6        8           16          20          24      28        32
//! +--------+-----+-----+--------+-----------+-----------+-----------+-------+---------+----------+------+
//! | magic  | ver | kind| shard  | request id| payload   | blob      | flags | crc32c  | payload  | blob |
//! | "CURF" | u8  | u8  | u16    | u64       | length u32| length u32| u32   | u32     | flatbuf. | bytes|
//! +--------+-----+-----+--------+-----------+-----------+-----------+-------+---------+----------+------+
//! ```
//! Little-endian. The CRC32C covers bytes 0..28, payload and blob.
//!
//! The lengths are believed only as far as bytes have come: see [`crate::FrameDecoder`].

use std::iter;

use bytes::{Bytes, BytesMut};

use crate::{RequestId, ShardId, WireError, limits};

/// First four bytes of every frame.
pub(crate) const MAGIC: [u8; 4] = *b"CURF";
/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 32;
/// Where the checksum lies in the header; it covers what is before it.
const CRC_AT: usize = 28;

/// What a frame's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// [`crate::Hello`], first in each direction.
    Hello = 1,
    /// Raft messages, see [`crate::encode_raft_frame`].
    Raft = 2,
    /// A [`crate::Command`] to be proposed; answered by Reply under the same request id.
    Propose = 3,
    /// A [`crate::Query`]; answered by Reply.
    Query = 4,
    /// A [`crate::Reply`].
    Reply = 5,
    /// A [`crate::Bootstrap`] proposal; answered by BootstrapAnswer.
    BootstrapPropose = 6,
    /// A [`crate::BootstrapAnswer`].
    BootstrapAnswer = 7,
    /// A [`crate::Bootstrap`] decision.
    BootstrapCommit = 8,
    /// An [`crate::ImageFetch`]; answered by ImageChunk.
    ImageFetch = 9,
    /// An [`crate::ImageChunk`].
    ImageChunk = 10,
    /// An [`crate::EntriesFetch`]; answered by EntriesChunk.
    EntriesFetch = 11,
    /// An [`crate::EntriesChunk`].
    EntriesChunk = 12,
    /// A [`crate::Credit`] for the forwarded request of this request id.
    Credit = 13,
    /// Nobody waits any longer for the answer to the Query under the same request id: it may be
    /// forgotten. No payload, and no answer; an answer may be under way already.
    Cancel = 14,
    /// A user event that a server tells the others: JSON in the blob, no payload, no answer.
    Event = 15,
}

impl FrameKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Hello,
        Self::Raft,
        Self::Propose,
        Self::Query,
        Self::Reply,
        Self::BootstrapPropose,
        Self::BootstrapAnswer,
        Self::BootstrapCommit,
        Self::ImageFetch,
        Self::ImageChunk,
        Self::EntriesFetch,
        Self::EntriesChunk,
        Self::Credit,
        Self::Cancel,
        Self::Event,
    ];

    /// The kind with this number.
    fn from_number(number: u8) -> Result<Self, WireError> {
        let at = usize::from(number).wrapping_sub(1);
        Self::ALL.get(at).copied().ok_or(WireError::Kind(number))
    }
}

/// Set on a forwarded Propose or Query: the receiver must not forward it again. A long answer to
/// it is at most [`limits::REPLY_WINDOW_PIECES`] pieces ahead of the sender's [`crate::Credit`].
pub const FLAG_NO_FORWARD: u32 = 1;

/// One whole frame; payload and blob are views of the buffer it was received in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// Which shard it concerns.
    pub shard: ShardId,
    /// Ties an answer to its question; 0 where there is none.
    pub request: RequestId,
    /// `FLAG_*` bits; unknown ones are ignored.
    pub flags: u32,
    /// The flatbuffer.
    pub payload: Bytes,
    /// Raw bytes beside it.
    pub blob: Bytes,
}

impl Frame {
    /// Appends the frame to `out`.
    ///
    /// # Panics
    ///
    /// If it is longer than [`limits::FRAME_BYTES_MAX`]: whoever made it did not keep its bounds.
    pub fn encode(&self, out: &mut BytesMut) {
        let head = FrameHead {
            kind: self.kind,
            shard: self.shard,
            request: self.request,
            flags: self.flags,
        };
        head.encode(&self.payload, iter::once(&self.blob[..]), out);
    }
}

/// A frame without its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHead {
    pub(crate) kind: FrameKind,
    pub(crate) shard: ShardId,
    pub(crate) request: RequestId,
    pub(crate) flags: u32,
}

impl FrameHead {
    pub(crate) fn new(kind: FrameKind, shard: ShardId, request: RequestId) -> Self {
        Self {
            kind,
            shard,
            request,
            flags: 0,
        }
    }

    /// Appends a whole frame to `out`, its blob gathered from `blob`.
    pub(crate) fn encode<'b>(
        &self,
        payload: &[u8],
        blob: impl Iterator<Item = &'b [u8]> + Clone,
        out: &mut BytesMut,
    ) {
        let blob_bytes = blob.clone().map(<[u8]>::len).sum::<usize>();
        let total = HEADER_BYTES + payload.len() + blob_bytes;
        assert!(
            total <= limits::FRAME_BYTES_MAX,
            "a {:?} frame of {total} bytes is over the limit of {}",
            self.kind,
            limits::FRAME_BYTES_MAX
        );
        let mut header = [0u8; HEADER_BYTES];
        header[0..4].copy_from_slice(&MAGIC);
        header[4] = limits::FRAME_VERSION;
        header[5] = self.kind as u8;
        header[6..8].copy_from_slice(&self.shard.0.to_le_bytes());
        header[8..16].copy_from_slice(&self.request.0.to_le_bytes());
        header[16..20].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        header[20..24].copy_from_slice(&(blob_bytes as u32).to_le_bytes());
        header[24..28].copy_from_slice(&self.flags.to_le_bytes());
        let mut crc = crc32c::crc32c_append(crc32c::crc32c(&header[..CRC_AT]), payload);
        for part in blob.clone() {
            crc = crc32c::crc32c_append(crc, part);
        }
        header[CRC_AT..].copy_from_slice(&crc.to_le_bytes());

        out.reserve(total);
        out.extend_from_slice(&header);
        out.extend_from_slice(payload);
        for part in blob {
            out.extend_from_slice(part);
        }
    }
}

/// A header that was read, and what it announces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeader {
    head: FrameHead,
    payload_bytes: usize,
    crc: u32,
    /// Header, payload and blob together.
    pub(crate) total: usize,
}

impl FrameHeader {
    /// Reads the header at the head of `bytes`; `None` when it has not all come.
    ///
    /// What does not start like a frame is refused from its first bytes on, so that a stranger's
    /// short greeting is answered at once and not waited for.
    pub(crate) fn read(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<Self>, WireError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            let mut magic = [0u8; 4];
            magic[..known].copy_from_slice(&bytes[..known]);
            return Err(WireError::Magic(u32::from_le_bytes(magic)));
        }
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        if header[4] != limits::FRAME_VERSION {
            return Err(WireError::Version {
                found: header[4],
                supported: limits::FRAME_VERSION,
            });
        }
        let kind = FrameKind::from_number(header[5])?;
        let word = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("in header"));
        let (payload_bytes, blob_bytes) = (word(16), word(20));
        let total = HEADER_BYTES as u64 + u64::from(payload_bytes) + u64::from(blob_bytes);
        if total > frame_bytes_max as u64 {
            return Err(WireError::TooLarge {
                what: "frame",
                found: total,
                max: frame_bytes_max as u64,
            });
        }
        Ok(Some(Self {
            head: FrameHead {
                kind,
                shard: ShardId(u16::from_le_bytes([header[6], header[7]])),
                request: RequestId(u64::from_le_bytes(
                    *header[8..].first_chunk().expect("in header"),
                )),
                flags: word(24),
            },
            payload_bytes: payload_bytes as usize,
            crc: word(CRC_AT),
            total: total as usize,
        }))
    }

    /// Checks the whole frame's bytes and takes them apart.
    pub(crate) fn open(&self, mut whole: Bytes) -> Result<Frame, WireError> {
        debug_assert_eq!(whole.len(), self.total);
        let crc = crc32c::crc32c(&whole[..CRC_AT]);
        if crc32c::crc32c_append(crc, &whole[HEADER_BYTES..]) != self.crc {
            return Err(WireError::Checksum("frame"));
        }
        let blob = whole.split_off(HEADER_BYTES + self.payload_bytes);
        let payload = whole.split_off(HEADER_BYTES);
        Ok(Frame {
            kind: self.head.kind,
            shard: self.head.shard,
            request: self.head.request,
            flags: self.head.flags,
            payload,
            blob,
        })
    }
}

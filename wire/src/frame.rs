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

use bytes::{Bytes, BytesMut};

use crate::{RequestId, ShardId, WireError};

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
}

/// Set on a forwarded Propose or Query: the receiver must not forward it again.
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
    pub fn encode(&self, out: &mut BytesMut) {
        let _ = out;
        todo!()
    }
}

/// Turns a byte stream, split anywhere, into frames.
///
/// Never allocates more than twice what arrived plus one receive buffer; an error is final for
/// the stream (the connection is closed).
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// A decoder that accepts frames of at most `frame_bytes_max` bytes in all.
    pub fn new(frame_bytes_max: usize) -> Self {
        let _ = frame_bytes_max;
        todo!()
    }

    /// The space to receive the next bytes into: never empty. Follow with [`Self::received`].
    pub fn space(&mut self) -> &mut [u8] {
        todo!()
    }

    /// Says that the first `n` bytes of [`Self::space`] were filled.
    pub fn received(&mut self, n: usize) {
        let _ = n;
        todo!()
    }

    /// The next whole frame, `None` when more bytes are needed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let _ = &self.buffer;
        todo!()
    }
}

//! How does a turn's worth of raft messages for one peer and shard become one frame?
//!
//! Entry payloads are appended to the frame as a blob, as they are; the flatbuffer carries only
//! headers. On the receiving side every `Entry.data` is a slice of the frame: no copies.

use bytes::{Bytes, BytesMut};
use raft::eraftpb::Message;

use crate::{FrameDecoder, RequestId, ShardId, WireError};

/// A raft message with the stamps that the leader's lease is measured from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaftEnvelope {
    /// The message.
    pub message: Message,
    /// Sender's clock at send, ns; 0 where it does not matter.
    pub sent_at: u64,
    /// The `sent_at` of the message that this one answers; 0 for none.
    pub echo: u64,
}

/// Appends one complete Raft frame with these messages to `out` (a peer's send buffer).
/// `builder` is kept by the caller and reused.
pub fn encode_raft_frame(
    builder: &mut flatbuffers::FlatBufferBuilder<'static>,
    shard: ShardId,
    messages: &[RaftEnvelope],
    out: &mut BytesMut,
) {
    let _ = (builder, shard, messages, out, RequestId(0));
    let _: Option<FrameDecoder> = None;
    todo!()
}

/// Reads a Raft frame's messages; entry bytes are slices of `blob`.
///
/// Checks all that raft-rs would abort on: entry indexes contiguous from `index + 1`, entry terms
/// ≤ the message's, ranges inside the blob, CRC of each entry, known message and entry types.
pub fn decode_raft_frame(payload: &Bytes, blob: &Bytes) -> Result<Vec<RaftEnvelope>, WireError> {
    let _ = (payload, blob);
    todo!()
}

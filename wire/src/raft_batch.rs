//! How does a turn's worth of raft messages for one peer and shard become one frame?
//!
//! Entry payloads are appended to the frame as a blob, as they are; the flatbuffer carries only
//! headers. On the receiving side every `Entry.data` is a slice of the frame: no copies.
//!
//! raft-rs trusts the messages that it is stepped with and aborts the process on some that make
//! no sense, so what can be seen from a message alone is checked here ([`crate::raft_checks`]).

use bytes::{Bytes, BytesMut};
use raft::eraftpb::{Entry, Message, MessageType, Snapshot};

use crate::codec::{self, Builder};
use crate::entries;
use crate::frame::{FrameHead, FrameKind};
use crate::generated::wire as fb;
use crate::raft_checks::{self, WHAT};
use crate::{RequestId, ShardId, WireError, limits};

/// A message has at least a type, a sender and a receiver, and the offset to it.
const MESSAGE_BYTES_MIN: usize = 28;

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

impl RaftEnvelope {
    /// Bytes of entries in the message.
    fn blob_bytes(&self) -> usize {
        self.message.entries.iter().map(|e| e.data.len()).sum()
    }
}

/// Appends these messages to `out` (a peer's send buffer): one complete Raft frame, or several
/// where they hold more than [`limits::APPEND_BYTES_MAX`] of entries or are more than
/// [`limits::RAFT_MESSAGES_PER_FRAME_MAX`]. `builder` is kept by the caller and reused; what it
/// held is dropped.
///
/// # Panics
///
/// If one message's entries exceed [`limits::FRAME_BYTES_MAX`], or an entry has a context: we
/// give entries none, and a receiver would not see it.
pub fn encode_raft_frame(
    builder: &mut flatbuffers::FlatBufferBuilder<'static>,
    shard: ShardId,
    messages: &[RaftEnvelope],
    out: &mut BytesMut,
) {
    let mut rest = messages;
    while !rest.is_empty() {
        let (frame, behind) = rest.split_at(frame_of(rest));
        encode_frame(builder, shard, frame, out);
        rest = behind;
    }
}

/// How many messages at the head of `messages` share a frame; at least one.
fn frame_of(messages: &[RaftEnvelope]) -> usize {
    let mut blob_bytes = 0;
    let fits = |message: &RaftEnvelope| {
        blob_bytes += message.blob_bytes();
        blob_bytes <= limits::APPEND_BYTES_MAX
    };
    let candidates = messages.iter().take(limits::RAFT_MESSAGES_PER_FRAME_MAX);
    candidates.map(fits).take_while(|fits| *fits).count().max(1)
}

fn encode_frame(
    builder: &mut Builder,
    shard: ShardId,
    messages: &[RaftEnvelope],
    out: &mut BytesMut,
) {
    builder.reset();
    let mut offset = 0;
    let built: Vec<_> = messages
        .iter()
        .map(|envelope| {
            let message = build_message(builder, envelope, offset);
            offset += envelope.blob_bytes();
            message
        })
        .collect();
    let built = Some(builder.create_vector(&built));
    let batch = fb::RaftBatch::create(builder, &fb::RaftBatchArgs { messages: built });
    builder.finish_minimal(batch);

    let entries = messages.iter().flat_map(|m| m.message.entries.iter());
    let head = FrameHead::new(FrameKind::Raft, shard, RequestId(0));
    head.encode(builder.finished_data(), entries.map(|e| &e.data[..]), out);
}

/// Builds one message whose entries begin at `offset` of the blob.
fn build_message(
    builder: &mut Builder,
    envelope: &RaftEnvelope,
    offset: usize,
) -> flatbuffers::WIPOffset<fb::RaftMessage<'static>> {
    let message = &envelope.message;
    let entries = (!message.entries.is_empty()).then(|| {
        // The builder writes back to front and asks for the last entry first.
        let mut stop = offset + envelope.blob_bytes();
        builder.create_vector_from_iter(message.entries.iter().map(|entry| {
            stop -= entry.data.len();
            build_entry(entry, stop)
        }))
    });
    let context = codec::put_some(builder, &message.context);
    let snapshot = (message.get_msg_type() == MessageType::MsgSnapshot)
        .then(|| build_snapshot(builder, message.get_snapshot()));
    let args = fb::RaftMessageArgs {
        kind: message.get_msg_type() as u8,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        priority: message.priority,
        context,
        entries,
        snapshot,
        sent_at: envelope.sent_at,
        echo: envelope.echo,
    };
    fb::RaftMessage::create(builder, &args)
}

fn build_entry(entry: &Entry, offset: usize) -> fb::EntryHeader {
    assert!(entry.context.is_empty(), "an entry has no context");
    let kind = entry.get_entry_type() as u32;
    entries::header(entry.index, entry.term, kind, &entry.data, offset)
}

fn build_snapshot(
    builder: &mut Builder,
    snapshot: &Snapshot,
) -> flatbuffers::WIPOffset<fb::SnapshotDescriptor<'static>> {
    let metadata = snapshot.get_metadata();
    let conf = metadata.get_conf_state();
    let args = fb::SnapshotDescriptorArgs {
        index: metadata.index,
        term: metadata.term,
        voters: Some(builder.create_vector(&conf.voters)),
        learners: Some(builder.create_vector(&conf.learners)),
        voters_outgoing: Some(builder.create_vector(&conf.voters_outgoing)),
        learners_next: Some(builder.create_vector(&conf.learners_next)),
        auto_leave: conf.auto_leave,
        image: Some(codec::put(builder, &snapshot.data)),
    };
    fb::SnapshotDescriptor::create(builder, &args)
}

/// Reads a Raft frame's messages; entry bytes are slices of `blob`.
///
/// Checks all that raft-rs would abort on and that can be told from a message alone: known and
/// non-local message types, entry indexes contiguous from `index + 1`, entry terms that never
/// fall and are ≤ the message's, ranges inside the blob, the CRC of each entry, a peer set that
/// raft-rs can restore. What depends on the receiver's own log (a heartbeat's commit index past
/// its end, a conflict with a committed entry) stays with the driver.
pub fn decode_raft_frame(payload: &Bytes, blob: &Bytes) -> Result<Vec<RaftEnvelope>, WireError> {
    let batch = codec::root::<fb::RaftBatch>(WHAT, payload)?;
    let messages = codec::elements(WHAT, payload, batch.messages(), MESSAGE_BYTES_MIN)?;
    if messages.len() > limits::RAFT_MESSAGES_PER_FRAME_MAX {
        let (count, max) = (messages.len(), limits::RAFT_MESSAGES_PER_FRAME_MAX);
        let why = format_args!("{count} messages are over the limit of {max}");
        return Err(codec::malformed(WHAT, why));
    }
    let mut envelopes = Vec::with_capacity(messages.len());
    for message in messages {
        envelopes.push(RaftEnvelope {
            message: read_message(payload, blob, &message)?,
            sent_at: message.sent_at(),
            echo: message.echo(),
        });
    }
    Ok(envelopes)
}

fn read_message(
    payload: &Bytes,
    blob: &Bytes,
    wire: &fb::RaftMessage<'_>,
) -> Result<Message, WireError> {
    let mut message = Message {
        to: wire.to(),
        from: wire.from(),
        term: wire.term(),
        log_term: wire.log_term(),
        index: wire.index(),
        commit: wire.commit(),
        commit_term: wire.commit_term(),
        request_snapshot: wire.request_snapshot(),
        reject: wire.reject(),
        reject_hint: wire.reject_hint(),
        priority: wire.priority(),
        context: codec::shared(payload, wire.context()),
        ..Message::default()
    };
    message.set_msg_type(raft_checks::message_type(wire.kind())?);
    if let Some(headers) = wire.entries() {
        if headers.len() > limits::ENTRIES_PER_MESSAGE_MAX {
            let (count, max) = (headers.len(), limits::ENTRIES_PER_MESSAGE_MAX);
            let why = format_args!("{count} entries are over the limit of {max}");
            return Err(codec::malformed(WHAT, why));
        }
        let mut entries = Vec::with_capacity(headers.len());
        for header in headers {
            entries.push(read_entry(header, blob)?);
        }
        message.set_entries(entries.into());
    }
    if let Some(snapshot) = wire.snapshot() {
        message.set_snapshot(read_snapshot(payload, &snapshot));
    }
    raft_checks::check(&message)?;
    Ok(message)
}

fn read_entry(header: &fb::EntryHeader, blob: &Bytes) -> Result<Entry, WireError> {
    let mut entry = Entry {
        index: header.index(),
        term: header.term(),
        data: entries::data(WHAT, header, blob)?,
        ..Entry::default()
    };
    entry.set_entry_type(entries::kind(WHAT, header.kind())?);
    Ok(entry)
}

fn read_snapshot(payload: &Bytes, wire: &fb::SnapshotDescriptor<'_>) -> Snapshot {
    let ids = |ids: Option<flatbuffers::Vector<'_, u64>>| -> Vec<u64> {
        ids.into_iter().flatten().collect()
    };
    let mut snapshot = Snapshot {
        data: codec::shared(payload, wire.image()),
        ..Snapshot::default()
    };
    let metadata = snapshot.mut_metadata();
    metadata.index = wire.index();
    metadata.term = wire.term();
    let conf = metadata.mut_conf_state();
    conf.voters = ids(wire.voters());
    conf.learners = ids(wire.learners());
    conf.voters_outgoing = ids(wire.voters_outgoing());
    conf.learners_next = ids(wire.learners_next());
    conf.auto_leave = wire.auto_leave();
    snapshot
}

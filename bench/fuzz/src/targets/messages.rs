//! Does a message that was read mean the same after it was written again?
//!
//! Payload and blob of each kind of frame, without the frame: `{kind, blob length, blob, payload}`.
//! What a receiver's decoder lets through, a sender must be able to write, and the next receiver
//! must read the same.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use engine::{documents::Question, fsm::records};
use wire::{
    Bootstrap, BootstrapAnswer, Command, Credit, EntriesChunk, EntriesFetch, FrameDecoder,
    FrameKind, Hello, ImageChunk, ImageFetch, Query, QueryBody, Reply, ShardId, WireError,
    decode_raft_frame, encode_raft_frame,
};

use crate::feed::Feed;

/// Reads a message of the kind that the first byte says.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let kind = feed.pick(&FrameKind::ALL);
    let blob = Bytes::copy_from_slice(feed.bytes(4096));
    check(kind, &Bytes::copy_from_slice(feed.rest()), &blob);
}

/// Reads, writes and reads again.
pub(super) fn check(kind: FrameKind, payload: &Bytes, blob: &Bytes) {
    match kind {
        FrameKind::Hello => twice(payload, Hello::decode, Hello::encode),
        FrameKind::Raft => raft(payload, blob),
        FrameKind::Propose => command(payload),
        FrameKind::Query => {
            twice(payload, Query::decode, Query::encode);
            twice(payload, Query::decode, |query| query.detached().encode());
            if let Ok(Query {
                body: QueryBody::Record(question),
                ..
            }) = Query::decode(payload)
                && let Ok(question) = Question::decode(&question)
            {
                let again = Question::decode(&question.encode());
                let _ = question.subject();
                assert_eq!(again, Ok(question));
            }
        }
        FrameKind::Reply => twice(payload, Reply::decode, Reply::encode),
        FrameKind::BootstrapPropose | FrameKind::BootstrapCommit => {
            twice(payload, Bootstrap::decode, Bootstrap::encode);
        }
        FrameKind::BootstrapAnswer => {
            twice(payload, BootstrapAnswer::decode, BootstrapAnswer::encode);
        }
        FrameKind::ImageFetch => twice(payload, ImageFetch::decode, ImageFetch::encode),
        FrameKind::ImageChunk => {
            twice(payload, ImageChunk::decode, ImageChunk::encode);
            let _ = ImageChunk::decode(payload).map(|chunk| chunk.check(blob));
        }
        FrameKind::EntriesFetch => twice(payload, EntriesFetch::decode, EntriesFetch::encode),
        FrameKind::EntriesChunk => {
            if let Ok(chunk) = EntriesChunk::decode(payload, blob) {
                let (payload, blob) = chunk.encode();
                assert_eq!(EntriesChunk::decode(&payload, &blob), Ok(chunk));
            }
        }
        FrameKind::Credit => twice(payload, Credit::decode, Credit::encode),
        FrameKind::Event => {
            if let Ok(event) = engine::server::agent::events::UserEvent::decode(blob) {
                let again = engine::server::agent::events::UserEvent::decode(&event.encode());
                assert_eq!(again.as_ref(), Ok(&event));
            }
        }
        FrameKind::Cancel => {}
    }
}

fn twice<T: PartialEq + Debug>(
    bytes: &Bytes,
    decode: impl Fn(&Bytes) -> Result<T, WireError>,
    encode: impl Fn(&T) -> Bytes,
) {
    if let Ok(read) = decode(bytes) {
        assert_eq!(decode(&encode(&read)).as_ref(), Ok(&read));
    }
}

fn command(payload: &Bytes) {
    let Ok(command) = Command::decode(payload) else {
        return;
    };
    let again = command.encode();
    assert_eq!(Command::decode(&again).as_ref(), Ok(&command));
    let _ = records::check(payload);
}

/// The messages of a frame, as one or several frames, are the same messages.
fn raft(payload: &Bytes, blob: &Bytes) {
    let Ok(messages) = decode_raft_frame(payload, blob) else {
        return;
    };
    let mut out = BytesMut::new();
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    encode_raft_frame(&mut builder, ShardId(0), &messages, &mut out);
    let mut decoder = FrameDecoder::default();
    let mut again = Vec::new();
    let mut rest = &out[..];
    while !rest.is_empty() {
        let space = decoder.space();
        let n = space.len().min(rest.len());
        space[..n].copy_from_slice(&rest[..n]);
        decoder.received(n);
        rest = &rest[n..];
        while let Some(frame) = decoder.next_frame().expect("just encoded") {
            let more = decode_raft_frame(&frame.payload, &frame.blob);
            again.extend(more.expect("what was read can be read again"));
        }
    }
    assert_eq!(again, messages);
}

//! Does what was sent arrive, for every value of every type and any split of the stream?

mod common;

use bytes::{Bytes, BytesMut};
use common::{feed, strategies};
use flatbuffers::FlatBufferBuilder;
use proptest::{collection::vec, prelude::*};
use wire::*;

/// The only frame in `out`.
fn only_frame(out: &[u8]) -> Frame {
    let (mut frames, error) = feed(&mut FrameDecoder::default(), out);
    assert_eq!((frames.len(), error), (1, None));
    frames.pop().unwrap()
}

proptest! {
    #[test]
    fn transactions(ops in vec((strategies::txn_verb(), strategies::kv()), 0..10)) {
        let ops: Vec<_> = ops.iter().map(|(verb, kv)| strategies::op(*verb, kv)).collect();
        let command = Command::Txn(TxnOps::new(&ops));
        let bytes = command.encode();
        prop_assert_eq!(Command::decode(&bytes), Ok(command));
        let reads = ops.iter().all(|op| op.verb.reads());
        prop_assert_eq!(TxnOps::new(&ops).reads_only(), reads);
    }

    #[test]
    fn commands(
        kv in strategies::kv(),
        index in strategies::index(),
        digest: u64,
        kind in proptest::sample::select(RecordKind::ALL),
        body in vec(any::<u8>(), 0..100),
    ) {
        let kv = strategies::borrowed(&kv);
        let record = RecordCommand { kind, body: &body };
        let mut builder = FlatBufferBuilder::new();
        for command in [
            Command::Kv(kv),
            Command::DigestCheck { index, digest },
            Command::Record(record),
            Command::Ignorable,
        ] {
            let bytes = command.encode();
            prop_assert_eq!(Command::decode(&bytes), Ok(command));
            let mut out = BytesMut::from(&b"before"[..]);
            command.encode_into(&mut builder, &mut out);
            prop_assert_eq!(&out[6..], &bytes[..]);
        }
        let mut out = BytesMut::new();
        encode_propose_frame(ShardId(5), RequestId(6), &kv, &mut out);
        let frame = only_frame(&out);
        prop_assert_eq!((frame.kind, frame.shard, frame.request), (FrameKind::Propose, ShardId(5), RequestId(6)));
        prop_assert_eq!(Command::decode(&frame.payload), Ok(Command::Kv(kv)));
    }

    #[test]
    fn queries(query in strategies::query()) {
        prop_assert_eq!(Query::decode(&query.encode()), Ok(query));
    }

    #[test]
    fn replies(reply in strategies::reply()) {
        let bytes = reply.encode();
        prop_assert_eq!(Reply::decode(&bytes), Ok(reply.clone()));
        let mut out = BytesMut::new();
        reply.encode_frame(ShardId(1), RequestId(2), &mut out);
        prop_assert_eq!(only_frame(&out).payload, bytes);
    }

    #[test]
    fn borrowed_rows(rows in strategies::rows(), index in strategies::index()) {
        let meta = ReplyMeta { index, known_leader: true, last_contact_ms: 1, more: true };
        let mut out = BytesMut::new();
        encode_rows_reply(ShardId(1), RequestId(2), &meta, rows.iter().map(KvRow::borrow), &mut out);
        let frame = only_frame(&out);
        prop_assert_eq!((frame.kind, frame.shard, frame.request), (FrameKind::Reply, ShardId(1), RequestId(2)));
        let announced: usize = rows.iter().map(|row| row.borrow().wire_bytes()).sum();
        prop_assert!(frame.payload.len() <= announced + 200, "{} > {}", frame.payload.len(), announced);
        let reply = Reply::decode(&frame.payload).unwrap();
        prop_assert_eq!(reply.meta(), meta);
        prop_assert_eq!(reply.body, ReplyBody::Rows(rows));
    }

    #[test]
    fn hellos(hello in strategies::hello()) {
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test]
    fn bootstraps(members in strategies::members(), shards in 1..=64u16, id in any::<[u8; 16]>(), accepted: bool) {
        prop_assume!(!members.is_empty() && id != [0; 16]);
        let bootstrap = Bootstrap { cluster_id: Uuid(id), shards, members };
        prop_assert_eq!(Bootstrap::decode(&bootstrap.encode()), Ok(bootstrap));
        let answer = BootstrapAnswer { accepted, reason: "because".into() };
        prop_assert_eq!(BootstrapAnswer::decode(&answer.encode()), Ok(answer));
    }

    #[test]
    fn transfers(index in strategies::index(), term in strategies::term(), a: u64, b: u64, length in 0..1u32 << 20, crc: u32) {
        let fetch = ImageFetch { index, term, offset: a, length };
        prop_assert_eq!(ImageFetch::decode(&fetch.encode()), Ok(fetch));
        let chunk = ImageChunk { index, term, offset: a.min(b), total: a.max(b), crc, missing: a > b };
        prop_assert_eq!(ImageChunk::decode(&chunk.encode()), Ok(chunk));
        let fetch = EntriesFetch { first: Index(index.0 / 2 + 1), last: Index(index.0 / 2 + 7), next_index: index, next_term: term };
        prop_assert_eq!(EntriesFetch::decode(&fetch.encode()), Ok(fetch));
    }

    #[test]
    fn credits(pieces in 0..=limits::REPLY_WINDOW_PIECES as u32) {
        let credit = Credit { pieces };
        prop_assert_eq!(Credit::decode(&credit.encode()), Ok(credit));
    }

    #[test]
    fn entries_chunks(chunk in strategies::entries_chunk()) {
        let (payload, blob) = chunk.encode();
        prop_assert_eq!(EntriesChunk::decode(&payload, &blob), Ok(chunk));
    }

    #[test]
    fn raft_messages(messages in vec(strategies::envelope(), 1..6)) {
        let mut builder = FlatBufferBuilder::new();
        let mut out = BytesMut::new();
        encode_raft_frame(&mut builder, ShardId(9), &messages, &mut out);
        let frame = only_frame(&out);
        prop_assert_eq!((frame.kind, frame.shard), (FrameKind::Raft, ShardId(9)));
        let read = decode_raft_frame(&frame.payload, &frame.blob).unwrap();
        for entry in read.iter().flat_map(|m| m.message.entries.iter()) {
            let inside = frame.blob.as_ptr_range();
            prop_assert!(entry.data.is_empty() || inside.contains(&entry.data.as_ptr()), "copied");
        }
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn any_split_of_a_stream(frames in vec(strategies::frame(), 1..12), cuts in vec(any::<prop::sample::Index>(), 0..40)) {
        let mut out = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut out));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(out.len())).collect();
        cuts.extend([0, out.len()]);
        cuts.sort_unstable();
        let mut decoder = FrameDecoder::default();
        let mut found = Vec::new();
        for piece in cuts.windows(2) {
            let (some, error) = feed(&mut decoder, &out[piece[0]..piece[1]]);
            prop_assert_eq!(error, None);
            found.extend(some);
        }
        prop_assert_eq!(found, frames);
    }

    /// A caller that receives several times before it asks gets the same frames.
    #[test]
    fn asking_late(frames in vec(strategies::frame(), 1..12)) {
        let mut out = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut out));
        let mut decoder = FrameDecoder::default();
        let mut rest = &out[..];
        while !rest.is_empty() {
            let space = decoder.space();
            let n = space.len().min(rest.len());
            space[..n].copy_from_slice(&rest[..n]);
            decoder.received(n);
            rest = &rest[n..];
        }
        let found: Vec<_> = std::iter::from_fn(|| decoder.next_frame().unwrap()).collect();
        prop_assert_eq!(found, frames);
    }

    /// Whatever arrives, the decoder answers; it never panics.
    #[test]
    fn noise(bytes in vec(any::<u8>(), 0..2000), head in any::<bool>()) {
        let mut stream = if head { b"CURF\x01\x03".to_vec() } else { Vec::new() };
        stream.extend(bytes);
        let _ = feed(&mut FrameDecoder::default(), &stream);
        let payload = Bytes::from(stream);
        for kind in FrameKind::ALL {
            let frame = Frame { kind, shard: ShardId(0), request: RequestId(0), flags: 0, payload: payload.clone(), blob: payload.clone() };
            let _ = common::read_content(&frame);
        }
    }
}

/// One byte at a time, the worst split of all.
#[test]
fn byte_by_byte() {
    let stream: Vec<u8> = common::samples()
        .into_iter()
        .flat_map(|(_, bytes)| bytes)
        .collect();
    let mut decoder = FrameDecoder::default();
    let mut found = Vec::new();
    for byte in stream.chunks(1) {
        let (frames, error) = feed(&mut decoder, byte);
        assert_eq!(error, None);
        found.extend(frames);
    }
    let whole = feed(&mut FrameDecoder::default(), &stream).0;
    assert_eq!(found, whole);
    assert_eq!(found.len(), common::samples().len());
}

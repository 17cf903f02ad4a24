//! What do encoding and decoding cost per frame and per command?
//!
//! The design allows no per-entry allocation and counts nanoseconds here against microseconds of
//! system calls: these figures say when that stops being true.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flatbuffers::FlatBufferBuilder;
use raft::eraftpb::{Entry, Message, MessageType};
use wire::{
    Command, FrameDecoder, Index, KvCommand, KvVerb, RaftEnvelope, Reply, ReplyBody, RequestId,
    ShardId, decode_raft_frame, encode_propose_frame, encode_raft_frame, limits,
};

const KEY: [u8; 64] = [b'k'; 64];
const VALUE: [u8; 256] = [b'v'; 256];

fn command() -> KvCommand<'static> {
    KvCommand {
        verb: KvVerb::Set,
        key: &KEY,
        value: &VALUE,
        flags: 0,
        index: 0,
        session: &[],
    }
}

fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("command 64+256 B");
    group.throughput(Throughput::Elements(1));
    let mut out = BytesMut::with_capacity(1 << 20);
    group.bench_function("encode as a frame", |b| {
        b.iter(|| {
            out.clear();
            encode_propose_frame(ShardId(0), RequestId(1), black_box(&command()), &mut out);
            out.len()
        });
    });
    let bytes = Command::Kv(command()).encode();
    group.bench_function("verify and read", |b| {
        b.iter(|| matches!(Command::decode(black_box(&bytes)).unwrap(), Command::Kv(kv) if kv.value.len() == 256));
    });
    group.finish();
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame stream");
    let mut stream = BytesMut::new();
    const FRAMES: usize = 100;
    for request in 1..=FRAMES as u64 {
        encode_propose_frame(ShardId(0), RequestId(request), &command(), &mut stream);
    }
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("receive and cut, 100 commands", |b| {
        let mut decoder = FrameDecoder::new(limits::CLIENT_FRAME_BYTES_MAX);
        b.iter(|| {
            let mut rest = &stream[..];
            let mut frames = 0;
            while !rest.is_empty() {
                let space = decoder.space();
                let n = space.len().min(rest.len());
                space[..n].copy_from_slice(&rest[..n]);
                decoder.received(n);
                rest = &rest[n..];
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames += usize::from(!frame.payload.is_empty());
                }
            }
            assert_eq!(frames, FRAMES);
        });
    });
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply to a write");
    group.throughput(Throughput::Elements(1));
    let reply = Reply {
        index: Index(7),
        known_leader: true,
        last_contact_ms: 0,
        more: false,
        body: ReplyBody::Written {
            ok: true,
            index: Index(7),
        },
    };
    let mut out = BytesMut::with_capacity(1 << 16);
    group.bench_function("encode as a frame", |b| {
        b.iter(|| {
            out.clear();
            black_box(&reply).encode_frame(ShardId(0), RequestId(1), &mut out);
            out.len()
        });
    });
    let bytes = reply.encode();
    group.bench_function("verify and read", |b| {
        b.iter(|| Reply::decode(black_box(&bytes)).unwrap().index)
    });
    group.finish();
}

fn appends(c: &mut Criterion) {
    let mut group = c.benchmark_group("append entries");
    let data = Command::Kv(command()).encode();
    for entries in [1u64, 16, 256] {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (
            message.from,
            message.to,
            message.term,
            message.log_term,
            message.index,
        ) = (1, 2, 3, 3, 10);
        for i in 1..=entries {
            let mut entry = Entry::default();
            (entry.index, entry.term, entry.data) = (10 + i, 3, data.clone());
            message.entries.push(entry);
        }
        let envelopes = [RaftEnvelope {
            message,
            sent_at: 1,
            echo: 0,
        }];
        group.throughput(Throughput::Elements(entries));
        let mut builder = FlatBufferBuilder::new();
        let mut out = BytesMut::with_capacity(1 << 20);
        group.bench_with_input(
            BenchmarkId::new("encode", entries),
            &envelopes,
            |b, envelopes| {
                b.iter(|| {
                    out.clear();
                    encode_raft_frame(&mut builder, ShardId(0), envelopes, &mut out);
                    out.len()
                });
            },
        );
        out.clear();
        encode_raft_frame(&mut builder, ShardId(0), &envelopes, &mut out);
        let (payload, blob) = split(&out);
        group.bench_with_input(
            BenchmarkId::new("decode", entries),
            &(payload, blob),
            |b, (payload, blob)| {
                b.iter(|| decode_raft_frame(payload, blob).unwrap().len());
            },
        );
    }
    group.finish();
}

/// Payload and blob of the one frame in `bytes`.
fn split(bytes: &[u8]) -> (Bytes, Bytes) {
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
    let mut rest = bytes;
    loop {
        let space = decoder.space();
        let n = space.len().min(rest.len());
        space[..n].copy_from_slice(&rest[..n]);
        decoder.received(n);
        rest = &rest[n..];
        if let Some(frame) = decoder.next_frame().unwrap() {
            return (frame.payload, frame.blob);
        }
    }
}

criterion_group!(benches, commands, frames, replies, appends);
criterion_main!(benches);

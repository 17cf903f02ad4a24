//! Does memory follow the bytes that came, and does the hot path stay away from the allocator?
//!
//! Counts every allocation of the thread that runs the test.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use bytes::{Bytes, BytesMut};
use common::{encoded, feed, strategies};
use proptest::{collection::vec, prelude::*};
use wire::*;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    calls: usize,
    largest: usize,
    live: isize,
}

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new(Count { calls: 0, largest: 0, live: 0 }) };
}

struct Counting;

fn count(allocated: usize, freed: usize) {
    // The allocator is also called while a thread's locals are torn down.
    let _ = COUNT.try_with(|cell| {
        let mut count = cell.get();
        count.calls += usize::from(allocated > 0);
        count.largest = count.largest.max(allocated);
        count.live += allocated as isize - freed as isize;
        cell.set(count);
    });
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `run` allocates: calls, the largest, and how much is live at its end.
fn counted<R>(run: impl FnOnce() -> R) -> (Count, R) {
    COUNT.set(Count::default());
    let result = run();
    (COUNT.get(), result)
}

/// Feeds `stream` in pieces of `piece` bytes; at no moment was more allocated at once, nor is
/// more held, than twice what arrived and one receive buffer.
fn check_bounds(stream: &[u8], piece: usize) {
    let mut decoder = FrameDecoder::default();
    let mut arrived = 0;
    COUNT.set(Count::default());
    for piece in stream.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let space = decoder.space();
            let n = space.len().min(rest.len());
            space[..n].copy_from_slice(&rest[..n]);
            decoder.received(n);
            arrived += n;
            rest = &rest[n..];
            while let Ok(Some(frame)) = decoder.next_frame() {
                drop(frame);
            }
            let count = COUNT.get();
            let bound = 2 * arrived + limits::RECEIVE_BUFFER_BYTES;
            assert!(count.largest <= bound, "{count:?} after {arrived} bytes");
            assert!(
                count.live <= bound as isize,
                "{count:?} after {arrived} bytes"
            );
        }
    }
}

#[test]
fn golden_frames_cut_and_flipped_allocate_within_bounds() {
    for (_, bytes) in common::samples() {
        for length in 0..=bytes.len() {
            check_bounds(&bytes[..length], usize::MAX);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            check_bounds(&flipped, usize::MAX);
        }
    }
}

/// A header that announces the longest frame allocates nothing for it until its bytes come.
#[test]
fn announced_lengths_are_not_believed() {
    let mut header = encoded(&Frame {
        kind: FrameKind::ImageChunk,
        shard: ShardId(0),
        request: RequestId(0),
        flags: 0,
        payload: Bytes::new(),
        blob: Bytes::new(),
    });
    let announced = (limits::FRAME_BYTES_MAX - header.len()) as u32;
    header[20..24].copy_from_slice(&announced.to_le_bytes());
    let (count, _) = counted(|| feed(&mut FrameDecoder::default(), &header));
    assert!(count.largest <= limits::RECEIVE_BUFFER_BYTES, "{count:?}");

    header.resize(limits::FRAME_BYTES_MAX, 0);
    for piece in [100_000, 1_460] {
        check_bounds(&header, piece);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn streams_allocate_within_bounds(frames in vec(strategies::frame(), 1..10), piece in 1..100_000usize) {
        let mut out = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut out));
        check_bounds(&out, piece);
    }

    /// Content whose checksum is right and whose meaning is not: at most what a table of the
    /// payload's size could honestly describe.
    #[test]
    fn content_allocates_within_bounds(which in any::<prop::sample::Index>(), flips in vec(any::<prop::sample::Index>(), 1..8)) {
        let samples = common::samples_with_payload();
        let (name, bytes) = which.get(&samples);
        let mut frame = feed(&mut FrameDecoder::default(), bytes).0.pop().unwrap();
        let mut payload = frame.payload.to_vec();
        prop_assume!(!payload.is_empty());
        for flip in flips {
            let bit = flip.index(payload.len() * 8);
            payload[bit / 8] ^= 1 << (bit % 8);
        }
        frame.payload = payload.into();
        let (count, _) = counted(|| common::read_content(&frame));
        prop_assert!(count.largest <= 16 * bytes.len() + 1024, "{name}: {count:?}");
    }
}

/// What a frame keeps alive is its own size, not the receive buffer's.
#[test]
fn a_small_frame_does_not_pin_the_receive_buffer() {
    let (_, bytes) = &common::samples()[2];
    let big = encoded(&Frame {
        kind: FrameKind::ImageChunk,
        shard: ShardId(0),
        request: RequestId(0),
        flags: 0,
        payload: Bytes::new(),
        blob: Bytes::from(vec![7; 40_000]),
    });
    // Grow the receive buffer first: the second pass must not matter.
    let mut decoder = FrameDecoder::default();
    feed(&mut decoder, &big.repeat(4));
    let (count, (frames, _)) = counted(|| feed(&mut decoder, bytes));
    assert!(count.live <= bytes.len() as isize + 1024, "{count:?}");
    drop(frames);
}

#[test]
fn a_long_frame_lies_in_the_buffer_it_was_received_in() {
    let long = encoded(&Frame {
        kind: FrameKind::ImageChunk,
        shard: ShardId(0),
        request: RequestId(0),
        flags: 0,
        payload: Bytes::new(),
        blob: Bytes::from(vec![7; limits::IMAGE_CHUNK_BYTES_MAX]),
    });
    let mut decoder = FrameDecoder::default();
    feed(&mut decoder, &long);
    let (count, (frames, _)) = counted(|| feed(&mut decoder, &long));
    assert_eq!(frames.len(), 1);
    assert!(
        count.largest <= long.len(),
        "exactly as long as the frame: {count:?}"
    );
    assert!(count.live <= long.len() as isize + 1024, "{count:?}");
}

#[test]
fn frames_that_arrive_together_share_one_allocation() {
    let (_, bytes) = &common::samples()[2];
    let stream = bytes.repeat(100);
    assert!(stream.len() < limits::RECEIVE_BUFFER_BYTES / 2);
    let mut decoder = FrameDecoder::default();
    feed(&mut decoder, &stream.repeat(10));
    let space = decoder.space();
    space[..stream.len()].copy_from_slice(&stream);
    decoder.received(stream.len());
    let (count, found) = counted(|| {
        let mut found = 0;
        while let Some(frame) = decoder.next_frame().unwrap() {
            found += 1;
            drop(frame);
        }
        found
    });
    assert_eq!(found, 100);
    assert!(
        count.calls <= 2,
        "the bytes and their reference count: {count:?}"
    );
}

#[test]
fn the_write_path_does_not_allocate() {
    let kv = KvCommand {
        verb: KvVerb::Set,
        key: &[b'k'; 64],
        value: &[b'v'; 256],
        flags: 1,
        index: 0,
        session: b"",
    };
    let written = Reply {
        index: Index(7),
        known_leader: true,
        last_contact_ms: 0,
        more: false,
        body: ReplyBody::Written {
            ok: true,
            index: Index(7),
        },
    };
    let row = common::sample_row();
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let mut out = BytesMut::with_capacity(1 << 20);
    let mut run = || {
        out.clear();
        for n in 0..100 {
            encode_propose_frame(ShardId(0), RequestId(n), &kv, &mut out);
            written.encode_frame(ShardId(0), RequestId(n), &mut out);
            Command::Kv(kv).encode_into(&mut builder, &mut out);
        }
    };
    run();
    assert_eq!(counted(run).0.calls, 0);

    let command = Command::Kv(kv).encode();
    let (count, read) = counted(|| Command::decode(&command));
    assert_eq!((count.calls, read), (0, Ok(Command::Kv(kv))));

    let meta = ReplyMeta::default();
    let mut run = || {
        out.clear();
        encode_rows_reply(ShardId(0), RequestId(1), &meta, [row.borrow()], &mut out);
    };
    run();
    assert!(counted(run).0.calls <= 1, "the list of rows");
}

/// No allocation per entry, neither where an append is encoded nor where it is read.
#[test]
fn appends_do_not_allocate_per_entry() {
    let of = |entries: u64| {
        let mut envelope = RaftEnvelope::default();
        let message = &mut envelope.message;
        message.set_msg_type(raft::eraftpb::MessageType::MsgAppend);
        (message.to, message.from, message.term) = (2, 1, 1);
        message.set_entries(
            (1..=entries)
                .map(|index| raft::eraftpb::Entry {
                    index,
                    term: 1,
                    data: Bytes::from_static(&[b'v'; 300]),
                    ..Default::default()
                })
                .collect::<Vec<_>>()
                .into(),
        );
        [envelope]
    };
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let mut out = BytesMut::with_capacity(1 << 20);
    let mut calls = |entries| {
        let messages = of(entries);
        out.clear();
        encode_raft_frame(&mut builder, ShardId(0), &messages, &mut out);
        out.clear();
        let (encoding, ()) =
            counted(|| encode_raft_frame(&mut builder, ShardId(0), &messages, &mut out));
        let frame = feed(&mut FrameDecoder::default(), &out).0.pop().unwrap();
        // The first slice of a buffer that is not shared yet makes its reference count.
        let _shared = (frame.payload.clone(), frame.blob.clone());
        let (reading, read) = counted(|| decode_raft_frame(&frame.payload, &frame.blob).unwrap());
        assert_eq!(read, messages);
        (encoding.calls, reading.calls)
    };
    assert_eq!(calls(1), calls(500));
}

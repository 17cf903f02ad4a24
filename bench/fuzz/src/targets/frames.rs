//! Does a stream of frames mean the same however it is split, and is every frame kept whole?
//!
//! Bytes as they come; with the first bit set, the checksums of whatever looks like a frame are
//! made right first, so that what lies behind them is reached.

use bytes::BytesMut;
use wire::{Frame, FrameDecoder, WireError, limits};

use super::messages;
use crate::feed::Feed;

const HEADER_BYTES: usize = 32;
const CRC_AT: usize = 28;

/// Decodes a stream whole and in pieces.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let (seal, client) = (feed.flag(), feed.flag());
    let cuts: Vec<usize> = (0..4).map(|_| 1 + usize::from(feed.byte())).collect();
    let mut stream = feed.rest().to_vec();
    if seal {
        make_checksums_right(&mut stream);
    }
    let max = match client {
        true => limits::CLIENT_FRAME_BYTES_MAX,
        false => limits::FRAME_BYTES_MAX,
    };
    let (frames, error) = decode(&stream, max, &[usize::MAX]);
    let split = decode(&stream, max, &cuts);
    assert_eq!(frames, split.0);
    // What does not begin like a frame is refused as soon as that shows, so by other first bytes.
    match (&error, &split.1) {
        (Some(WireError::Magic(_)), Some(WireError::Magic(_))) => {}
        (whole, split) => assert_eq!(whole, split),
    }
    let mut again = BytesMut::new();
    for frame in &frames {
        frame.encode(&mut again);
        messages::check(frame.kind, &frame.payload, &frame.blob);
    }
    assert!(stream.starts_with(&again), "a frame is not what it was");
}

/// All frames of a stream that comes in pieces of these lengths, and what ended it.
fn decode(stream: &[u8], max: usize, cuts: &[usize]) -> (Vec<Frame>, Option<WireError>) {
    let mut decoder = FrameDecoder::new(max);
    let (mut frames, mut rest, mut arrived) = (Vec::new(), stream, 0);
    for cut in cuts.iter().cycle() {
        let space = decoder.space();
        assert!(space.len() <= 2 * arrived + limits::RECEIVE_BUFFER_BYTES);
        let n = space.len().min(*cut).min(rest.len());
        space[..n].copy_from_slice(&rest[..n]);
        decoder.received(n);
        rest = &rest[n..];
        arrived += n;
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_frame(), Err(error.clone()), "errors are final");
                    return (frames, Some(error));
                }
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    (frames, None)
}

fn make_checksums_right(stream: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = stream.get(at..at + HEADER_BYTES) {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let end = at + HEADER_BYTES + (word(16) as usize).saturating_add(word(20) as usize);
        let Some(frame) = stream.get_mut(at..end) else {
            return;
        };
        let crc = crc32c::crc32c(&frame[..CRC_AT]);
        let crc = crc32c::crc32c_append(crc, &frame[HEADER_BYTES..]);
        frame[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}

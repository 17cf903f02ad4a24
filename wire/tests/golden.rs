//! Does every frame still look as it always did, and is every damaged one refused?
//!
//! The files in `golden/` are one frame of each kind. A build that writes them differently cannot
//! talk to servers that run the previous one, nor read their logs. After a deliberate change of
//! format (with a new version), write them anew: `WIRE_GOLDEN=write cargo test -p wire --test golden`.

mod common;

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use common::{encoded, feed, read_content, samples, samples_with_payload};
use wire::{FrameDecoder, FrameKind, limits};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.frame"))
}

#[test]
fn frames_look_as_they_always_did() {
    let mut kinds = BTreeSet::new();
    for (name, bytes) in samples() {
        if env::var_os("WIRE_GOLDEN").is_some_and(|how| how == "write") {
            fs::write(path(name), &bytes).unwrap();
        }
        let golden = fs::read(path(name)).unwrap_or_default();
        assert!(
            golden == bytes,
            "{name} is not encoded as in {:?}",
            path(name)
        );
        kinds.insert(bytes[5]);
    }
    assert_eq!(kinds.len(), FrameKind::ALL.len(), "a sample for every kind");
}

#[test]
fn golden_files_are_read_and_written_back() {
    for (name, _) in samples() {
        let golden = fs::read(path(name)).unwrap();
        let (frames, error) = feed(&mut FrameDecoder::default(), &golden);
        assert_eq!((frames.len(), error), (1, None), "{name}");
        read_content(&frames[0]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(encoded(&frames[0]), golden, "{name}");
    }
}

#[test]
fn a_cut_frame_is_never_a_frame() {
    for (name, bytes) in samples() {
        for length in 0..bytes.len() {
            let (frames, error) = feed(&mut FrameDecoder::default(), &bytes[..length]);
            assert_eq!((frames.len(), error), (0, None), "{name} cut to {length}");
        }
    }
}

/// A flip that makes a length greater leaves the decoder waiting; what follows on the stream then
/// fails the checksum.
#[test]
fn every_flipped_bit_is_an_error() {
    let filler = vec![0u8; limits::FRAME_BYTES_MAX];
    for (name, bytes) in samples() {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = FrameDecoder::default();
            let (frames, mut error) = feed(&mut decoder, &flipped);
            if error.is_none() {
                let (more, late) = feed(&mut decoder, &filler);
                assert!(more.is_empty());
                error = late;
            }
            assert!(frames.is_empty() && error.is_some(), "{name}, bit {bit}");
            assert!(decoder.next_frame().is_err(), "an error is final");
        }
    }
}

/// A sender that computes the checksum over nonsense, or damage before it was computed: the
/// content is refused or makes sense, and never panics.
#[test]
fn flipped_and_cut_content_never_panics() {
    for (name, bytes) in samples_with_payload() {
        let (frames, _) = feed(&mut FrameDecoder::default(), &bytes);
        let frame = &frames[0];
        let mut refused = 0;
        for bit in 0..frame.payload.len() * 8 {
            let mut payload = frame.payload.to_vec();
            payload[bit / 8] ^= 1 << (bit % 8);
            let mut flipped = frame.clone();
            flipped.payload = payload.into();
            refused += usize::from(read_content(&flipped).is_err());
        }
        assert!(refused > 0, "{name}: no flip was noticed at all");
        for length in 0..frame.payload.len() {
            let mut cut = frame.clone();
            cut.payload.truncate(length);
            let _ = read_content(&cut);
        }
        for length in 0..frame.blob.len() {
            let mut cut = frame.clone();
            cut.blob.truncate(length);
            assert!(read_content(&cut).is_err(), "{name}: blob cut to {length}");
        }
        for bit in 0..frame.blob.len() * 8 {
            let mut blob = frame.blob.to_vec();
            blob[bit / 8] ^= 1 << (bit % 8);
            let mut flipped = frame.clone();
            flipped.blob = blob.into();
            assert!(read_content(&flipped).is_err(), "{name}: blob bit {bit}");
        }
    }
}

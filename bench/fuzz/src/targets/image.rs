//! Is an image that is not exactly one refused, and is one that is taken the state that it holds?
//!
//! Edits to the image of a state with rows in every family, after which every checksum and digest
//! that can be made right is made right: then only what the rows say is wrong. Or any bytes. An
//! image means the same however it is split, and one that is taken is written again byte for byte.

use std::sync::OnceLock;

use engine::{
    fsm::Fsm,
    snapshot::image::{ImageError, ImageLoader, ImageMeta},
};
use wire::{Index, Term};

use super::machine;
use crate::{commands, feed::Feed};

const EDITS_MAX: usize = 6;
/// Where digests lie in the header, and behind the beginning of the footer.
const HEADER_DIGEST_AT: usize = 48;
const FOOTER_DIGEST_AT: usize = 24;

/// Loads an image.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let (any, seal) = (feed.byte() == 255, feed.byte() < 230);
    let piece = 1 + feed.below(2000);
    let bytes = match any {
        true => feed.rest().to_vec(),
        false => edited(&mut feed, seal),
    };
    let whole = load(&bytes, bytes.len());
    let split = load(&bytes, piece);
    match (whole, split) {
        (Ok((fsm, meta)), Ok(_)) => {
            fsm.store().tables().check();
            if meta.cluster_id.0 == [7; 16] && meta.shard.0 == 0 {
                assert!(
                    machine::image(&fsm) == bytes,
                    "taken, and not what was written"
                );
            }
        }
        (Err(whole), Err(split)) => assert_eq!(whole, split),
        (whole, split) => panic!("whole {whole:?}, split {split:?}"),
    }
}

fn load(bytes: &[u8], piece: usize) -> Result<(Fsm, ImageMeta), ImageError> {
    let mut loader = ImageLoader::new();
    for piece in bytes.chunks(piece.max(1)) {
        loader.push(piece)?;
    }
    loader.finish()
}

fn edited(feed: &mut Feed<'_>, seal: bool) -> Vec<u8> {
    let mut bytes = whole().to_vec();
    let mut edits = 0;
    while !feed.is_empty() && edits < EDITS_MAX {
        edits += 1;
        let at = feed.below(bytes.len());
        let new = feed.bytes(40);
        let end = (at + new.len()).min(bytes.len());
        let replaced = match feed.below(4) {
            // Longer or shorter: what follows moves.
            0 => at..at,
            1 => at..(at + feed.below(40)).min(bytes.len()),
            _ => at..end,
        };
        bytes.splice(replaced, new.iter().copied());
    }
    if seal {
        make_right(&mut bytes);
        // The third digest is the loader's, which names it.
        for _ in 0..2 {
            match load(&bytes, bytes.len()) {
                Err(ImageError::Digest { place, found, .. }) => {
                    let at = match place {
                        "header" => HEADER_DIGEST_AT,
                        _ => footer_at(&bytes) + FOOTER_DIGEST_AT,
                    };
                    bytes[at..at + 8].copy_from_slice(&found.to_le_bytes());
                    make_right(&mut bytes);
                }
                _ => break,
            }
        }
    }
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize
}

fn footer_at(bytes: &[u8]) -> usize {
    let length = u32_at(bytes, bytes.len() - 8);
    bytes.len() - length
}

/// Makes the checksum of each part right, as far as parts can be told.
fn make_right(bytes: &mut [u8]) {
    if bytes.len() < 16 {
        return;
    }
    let mut at = u32_at(bytes, 12);
    if at < 20 || at > bytes.len() {
        return;
    }
    let crc = crc32c::crc32c(&bytes[..at - 4]);
    bytes[at - 4..at].copy_from_slice(&crc.to_le_bytes());
    while let Some(head) = bytes.get(at..at + 24) {
        let length = u32_at(head, 4);
        let footer = head.starts_with(b"FOOT");
        let end = at + length + if footer { 0 } else { 24 };
        let Some(part) = bytes.get_mut(at..end).filter(|part| part.len() >= 24) else {
            return;
        };
        let (crc, crc_at) = match footer {
            true => (crc32c::crc32c(&part[..part.len() - 4]), part.len() - 4),
            false => {
                let crc = crc32c::crc32c(&part[..20]);
                (crc32c::crc32c_append(crc, &part[24..]), 20)
            }
        };
        part[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}

/// An image with rows in most tables.
fn whole() -> &'static [u8] {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let seed: Vec<u8> = (0..6000_u32).map(|at| ((at * 7919) >> 5) as u8).collect();
        let mut feed = Feed::new(&seed);
        let mut fsm = Fsm::new();
        for index in 1..=60 {
            let entry = (Index(index), Term(1), commands::command(&mut feed, index));
            let applied = fsm.apply_run(&[entry], &mut Vec::new());
            applied.expect("every command here is one of this build's");
        }
        machine::image(&fsm)
    })
}

//! How does one read and write through the stamps?
//!
//! A batch's payload is contiguous to everybody but this file: physically there are 16 bytes of
//! stamp after every 496. Positions here are *physical*, bytes from the start of a buffer that
//! begins at a sector boundary.
//!
//! Invariant: a position between operations is never inside a stamp; one that would be is moved
//! to the start of the next sector.

use crate::io::sector::{SECTOR_BYTES, SECTOR_PAYLOAD_BYTES};

const STAMP_BYTES: usize = SECTOR_BYTES - SECTOR_PAYLOAD_BYTES;

/// Physical position of a payload position.
#[inline]
pub fn physical(payload_at: usize) -> usize {
    payload_at / SECTOR_PAYLOAD_BYTES * SECTOR_BYTES + payload_at % SECTOR_PAYLOAD_BYTES
}

/// The physical position so many payload bytes before another.
#[inline]
pub fn back(at: usize, bytes: usize) -> usize {
    let payload_at = at / SECTOR_BYTES * SECTOR_PAYLOAD_BYTES + at % SECTOR_BYTES;
    physical(payload_at - bytes)
}

/// Copies `bytes` into the payload at physical position `at`, which moves behind them.
#[inline]
pub fn put(buf: &mut [u8], at: &mut usize, mut bytes: &[u8]) {
    loop {
        let room = SECTOR_PAYLOAD_BYTES - *at % SECTOR_BYTES;
        if bytes.len() < room {
            buf[*at..*at + bytes.len()].copy_from_slice(bytes);
            *at += bytes.len();
            return;
        }
        let (now, rest) = bytes.split_at(room);
        buf[*at..*at + room].copy_from_slice(now);
        *at += room + STAMP_BYTES;
        bytes = rest;
    }
}

/// Reads payload from a physical position on.
#[derive(Clone, Debug)]
pub struct GapReader<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> GapReader<'a> {
    /// At a payload position of a buffer that starts with a sector.
    pub fn new(buf: &'a [u8], payload_at: usize) -> Self {
        Self::at_physical(buf, physical(payload_at))
    }

    /// At a physical position of a buffer that starts with a sector.
    pub fn at_physical(buf: &'a [u8], at: usize) -> Self {
        Self { buf, at }
    }

    /// The physical position.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Moves on without reading.
    #[inline]
    pub fn skip(&mut self, bytes: usize) {
        let within = self.at % SECTOR_BYTES + bytes;
        self.at = self.at - self.at % SECTOR_BYTES + physical(within);
    }

    /// Whether so much payload is left in the buffer.
    pub fn has(&self, bytes: usize) -> bool {
        let mut end = self.clone();
        end.skip(bytes);
        // The end may lie at the start of the sector after the last one.
        end.at <= self.buf.len()
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.read(&mut out);
        out
    }

    /// The next bytes, as many as `out` is long.
    #[inline]
    pub fn read(&mut self, mut out: &mut [u8]) {
        loop {
            let room = SECTOR_PAYLOAD_BYTES - self.at % SECTOR_BYTES;
            if out.len() < room {
                out.copy_from_slice(&self.buf[self.at..self.at + out.len()]);
                self.at += out.len();
                return;
            }
            let (now, rest) = out.split_at_mut(room);
            now.copy_from_slice(&self.buf[self.at..self.at + room]);
            self.at += room + STAMP_BYTES;
            out = rest;
        }
    }

    /// Appends the next `bytes` bytes to `out`.
    pub fn append_to(&mut self, out: &mut Vec<u8>, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let now = left.min(SECTOR_PAYLOAD_BYTES - self.at % SECTOR_BYTES);
            out.extend_from_slice(&self.buf[self.at..self.at + now]);
            self.skip(now);
            left -= now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is put piece by piece comes back piece by piece, and no stamp is touched.
        #[test]
        fn pieces_round_trip(pieces in proptest::collection::vec(0usize..1200, 1..20)) {
            let total: usize = pieces.iter().sum();
            let mut buf = vec![0u8; physical(total) + 2 * SECTOR_BYTES];
            let bytes: Vec<u8> = (0..total).map(|n| (n % 251) as u8 + 1).collect();
            let (mut at, mut done) = (0, 0);
            for piece in &pieces {
                put(&mut buf, &mut at, &bytes[done..done + piece]);
                done += piece;
                prop_assert_eq!(at, physical(done));
            }
            for sector in buf.chunks(SECTOR_BYTES) {
                prop_assert!(sector.iter().skip(SECTOR_PAYLOAD_BYTES).all(|byte| *byte == 0));
            }
            let mut reader = GapReader::new(&buf, 0);
            let mut back = Vec::new();
            for (no, piece) in pieces.iter().enumerate() {
                prop_assert!(reader.has(*piece));
                if no % 2 == 0 {
                    reader.append_to(&mut back, *piece);
                } else {
                    let from = back.len();
                    back.resize(from + piece, 0);
                    reader.read(&mut back[from..]);
                }
            }
            prop_assert_eq!(back, bytes);
        }
    }
}

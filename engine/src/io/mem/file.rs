//! What does a file hold, and what of it would a power cut leave?
//!
//! Contents are shared blocks, so that a copy of a disk costs pointers and not bytes: a crash
//! model takes one at every write. Beside what a reader sees now a file keeps what is durable and
//! the writes in between, in order. Each of them is kept as the whole sectors that it made, since
//! a disk writes sectors: of a sector that two writes changed, a power cut leaves the state before
//! both, after the first or after both.
//!
//! Invariant: `durable` with all of `pending` applied in order is `now`, unless something was lost.

use std::{ops::Range, sync::Arc};

use crate::io::{BLOCK_BYTES, sector::SECTOR_BYTES};

use super::Survival;

/// Bytes in shared blocks; what lies beyond the length is zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Bytes {
    blocks: Arc<Vec<Arc<[u8; BLOCK_BYTES]>>>,
    length: usize,
}

impl Bytes {
    pub fn len(&self) -> usize {
        self.length
    }

    /// Longer, filled up with zeros, or shorter.
    pub fn resize(&mut self, length: usize) {
        let blocks = Arc::make_mut(&mut self.blocks);
        if length < self.length && !length.is_multiple_of(BLOCK_BYTES) {
            Arc::make_mut(&mut blocks[length / BLOCK_BYTES])[length % BLOCK_BYTES..].fill(0);
        }
        blocks.resize_with(length.div_ceil(BLOCK_BYTES), || Arc::new([0; BLOCK_BYTES]));
        self.length = length;
    }

    pub fn write(&mut self, mut at: usize, mut bytes: &[u8]) {
        if at + bytes.len() > self.length {
            self.resize(at + bytes.len());
        }
        let blocks = Arc::make_mut(&mut self.blocks);
        while !bytes.is_empty() {
            let within = at % BLOCK_BYTES;
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - within));
            Arc::make_mut(&mut blocks[at / BLOCK_BYTES])[within..within + now.len()]
                .copy_from_slice(now);
            (at, bytes) = (at + now.len(), rest);
        }
    }

    /// Fills `out` from `at` on; `false` when the bytes end before.
    pub fn read(&self, mut at: usize, mut out: &mut [u8]) -> bool {
        if at + out.len() > self.length {
            return false;
        }
        while !out.is_empty() {
            let within = at % BLOCK_BYTES;
            let (now, rest) = {
                let length = out.len().min(BLOCK_BYTES - within);
                out.split_at_mut(length)
            };
            now.copy_from_slice(&self.blocks[at / BLOCK_BYTES][within..within + now.len()]);
            (at, out) = (at + now.len(), rest);
        }
        true
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.length];
        self.read(0, &mut out);
        out
    }

    pub fn flip(&mut self, bit: u64) {
        let at = (bit / 8) as usize;
        assert!(at < self.length, "bit {bit} is behind the end");
        let blocks = Arc::make_mut(&mut self.blocks);
        Arc::make_mut(&mut blocks[at / BLOCK_BYTES])[at % BLOCK_BYTES] ^= 1 << (bit % 8);
    }
}

/// A write that is not durable: the sectors that it made.
#[derive(Clone, Debug)]
struct Pending {
    /// Where the first sector begins.
    at: usize,
    bytes: Arc<Vec<u8>>,
    /// Sectors (counted from the file's start) that a later durable write has replaced.
    replaced: Vec<usize>,
}

impl Pending {
    fn sectors(&self) -> Range<usize> {
        let end = self.at + self.bytes.len();
        self.at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)
    }

    fn sector(&self, sector: usize) -> &[u8] {
        let at = sector * SECTOR_BYTES - self.at;
        &self.bytes[at..(at + SECTOR_BYTES).min(self.bytes.len())]
    }
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    pub now: Bytes,
    durable: Bytes,
    pending: Vec<Pending>,
    /// Whether `now` shows something that is neither durable nor pending.
    lost: bool,
}

impl File {
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        self.now.write(at, bytes);
        let start = at / SECTOR_BYTES * SECTOR_BYTES;
        let end = (at + bytes.len())
            .next_multiple_of(SECTOR_BYTES)
            .min(self.now.len());
        let mut sectors = vec![0; end - start];
        self.now.read(start, &mut sectors);
        self.pending.push(Pending {
            at: start,
            bytes: Arc::new(sectors),
            replaced: Vec::new(),
        });
    }

    /// Everything is durable, but for what was lost.
    pub fn sync(&mut self) {
        match self.lost {
            true => self.durable = self.flushed(),
            false => self.durable = self.now.clone(),
        }
        self.pending.clear();
    }

    /// What is seen now is durable, whatever was lost.
    pub fn settle(&mut self) {
        self.durable = self.now.clone();
        self.pending.clear();
        self.lost = false;
    }

    /// What is not durable never will be, and is seen until the power fails.
    pub fn lose(&mut self) {
        self.lost |= !self.pending.is_empty();
        self.pending.clear();
    }

    /// What was lost is seen no more.
    pub fn drop_cached(&mut self) {
        if std::mem::take(&mut self.lost) {
            self.now = self.flushed();
        }
    }

    /// What a flush would make durable.
    fn flushed(&self) -> Bytes {
        let mut flushed = self.durable.clone();
        for write in &self.pending {
            for sector in write.sectors() {
                if !write.replaced.contains(&sector) {
                    flushed.write(sector * SECTOR_BYTES, write.sector(sector));
                }
            }
        }
        flushed
    }

    /// One range, whole sectors, is durable; nothing is said of other writes.
    pub fn sync_range(&mut self, range: &Range<usize>) {
        let mut bytes = vec![0; range.len()];
        if !self.now.read(range.start, &mut bytes) {
            return;
        }
        self.durable.write(range.start, &bytes);
        for write in &mut self.pending {
            let inside = |sector: &usize| range.contains(&(sector * SECTOR_BYTES));
            write.replaced.extend(write.sectors().filter(inside));
        }
        self.pending
            .retain(|write| write.replaced.len() < write.sectors().len());
    }

    /// How many writes are not durable.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The power fails.
    pub fn crash(&mut self, survival: Survival, draw: &mut dyn FnMut() -> u64) {
        self.lost = false;
        if self.pending.is_empty() {
            // A flush that was only reported may have left `now` ahead.
            self.now = self.durable.clone();
            return;
        }
        let mut left = self.durable.clone();
        let torn = match survival {
            Survival::TornOne => (draw() % self.pending.len() as u64) as usize,
            _ => usize::MAX,
        };
        for (no, write) in self.pending.iter().enumerate() {
            let tear = match survival {
                Survival::Nothing => Tear::None,
                Survival::Everything => Tear::All,
                Survival::SomeWrites if draw().is_multiple_of(2) => Tear::All,
                Survival::SomeWrites => Tear::None,
                Survival::TornOne if no < torn => Tear::All,
                Survival::TornOne if no > torn => Tear::None,
                Survival::TornOne | Survival::Torn => Tear::draw(write.sectors().len(), draw),
            };
            for (from_start, sector) in write.sectors().enumerate() {
                if tear.keeps(from_start, draw) && !write.replaced.contains(&sector) {
                    left.write(sector * SECTOR_BYTES, write.sector(sector));
                }
            }
        }
        self.now = left.clone();
        self.durable = left;
        self.pending.clear();
    }
}

/// Which sectors of a write survive.
enum Tear {
    None,
    All,
    /// Those before a point.
    Before(usize),
    /// Those from a point on.
    From(usize),
    /// All but one.
    Without(usize),
    /// Each on its own.
    Each,
}

impl Tear {
    fn draw(sectors: usize, draw: &mut dyn FnMut() -> u64) -> Self {
        let point = (draw() % sectors as u64) as usize;
        match draw() % 6 {
            0 => Self::None,
            1 => Self::All,
            2 => Self::Before(point),
            3 => Self::From(point),
            4 => Self::Without(point),
            _ => Self::Each,
        }
    }

    fn keeps(&self, sector: usize, draw: &mut dyn FnMut() -> u64) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Before(point) => sector < *point,
            Self::From(point) => sector >= *point,
            Self::Without(point) => sector != *point,
            Self::Each => draw().is_multiple_of(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_bytes_are_a_vector() {
        let mut bytes = Bytes::default();
        let mut plain: Vec<u8> = Vec::new();
        let mut state = 7u64;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        for step in 0..500u64 {
            let kept = bytes.clone();
            let before = plain.clone();
            let (at, length) = (draw(20_000) as usize, draw(9_000) as usize);
            match draw(4) {
                0 => {
                    bytes.resize(at);
                    plain.resize(at, 0);
                }
                1 if !plain.is_empty() => {
                    let bit = draw(plain.len() as u64 * 8);
                    bytes.flip(bit);
                    plain[(bit / 8) as usize] ^= 1 << (bit % 8);
                }
                _ => {
                    let new = vec![step as u8; length];
                    bytes.write(at, &new);
                    plain.resize(plain.len().max(at + length), 0);
                    plain[at..at + length].copy_from_slice(&new);
                }
            }
            assert_eq!(bytes.to_vec(), plain);
            assert_eq!(kept.to_vec(), before, "a copy does not change");
            assert!(!bytes.read(plain.len(), &mut [0]));
        }
    }

    #[test]
    fn a_durable_write_is_not_undone_by_an_older_one() {
        // A process was killed with a write under way, and its successor wrote the place anew.
        let mut file = File::default();
        file.write(0, &[1; 2048]);
        file.sync();
        file.write(512, &[2; 1024]);
        file.write(512, &[3; 512]);
        file.sync_range(&(512..1024));
        for seed in 0..50 {
            for survival in Survival::ALL {
                let mut left = file.clone();
                let mut state = seed;
                left.crash(survival, &mut || {
                    state = u64::wrapping_add(u64::wrapping_mul(state, 25), 13);
                    state >> 2
                });
                let bytes = left.now.to_vec();
                assert_eq!((bytes[0], bytes[512], bytes[1536]), (1, 3, 1));
                assert!(bytes[1024] == 1 || bytes[1024] == 2);
            }
        }
    }
}

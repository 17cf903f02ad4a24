//! How do a fuzzer's bytes become choices?
//!
//! Read from the front, one choice after the other, so that a byte that the fuzzer changes changes
//! one choice and leaves those before it alone. Bytes that have run out are zeros: every input is
//! a whole script, and the empty one is the dullest.

use wire::limits;

/// Numbers at which something may change.
const EDGES: [u64; 12] = [
    0,
    1,
    127,
    1024,
    u16::MAX as u64,
    u32::MAX as u64,
    1 << 53,
    i64::MAX as u64,
    i64::MAX as u64 + 1,
    limits::INDEX_MAX,
    limits::INDEX_MAX + 1,
    u64::MAX,
];

/// Names of which most inputs use the same few, so that commands meet each other's rows.
const NAMES: [&str; 12] = [
    "a", "b", "A", "ab", "web", "db", "n1", "N1", "", "a/b", "\u{e9}", "\u{130}x",
];

/// The choices of one input.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'d>(&'d [u8]);

impl<'d> Feed<'d> {
    /// All of an input.
    pub fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    /// Whether the input has run out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Below `bound`, which is at least 1; takes as many bytes as it needs.
    pub fn below(&mut self, bound: usize) -> usize {
        let mut drawn = usize::from(self.byte());
        let mut drawn_max = usize::from(u8::MAX);
        while drawn_max + 1 < bound {
            drawn = drawn << 8 | usize::from(self.byte());
            drawn_max = drawn_max << 8 | 0xff;
        }
        drawn % bound
    }

    /// A number: mostly small, sometimes one at an edge, sometimes any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..200 => u64::from(small),
            200..240 => EDGES[self.below(EDGES.len())],
            _ => {
                let mut bytes = [0; 8];
                bytes.fill_with(|| self.byte());
                u64::from_le_bytes(bytes)
            }
        }
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Up to `max` bytes; their number comes first.
    pub fn bytes(&mut self, max: usize) -> &'d [u8] {
        let length = self.below(max + 1).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// A text of up to `max` bytes of the input.
    pub fn text(&mut self, max: usize) -> String {
        String::from_utf8_lossy(self.bytes(max)).into_owned()
    }

    /// A name: mostly one of a few.
    pub fn name(&mut self) -> String {
        match self.byte() {
            known @ 0..220 => NAMES[usize::from(known) % NAMES.len()].to_owned(),
            220..230 => "x".repeat(self.below(300)),
            _ => self.text(12),
        }
    }

    /// Up to `max` things.
    pub fn several<T>(&mut self, max: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(max + 1);
        (0..count).map(|_| one(self)).collect()
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'d [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_has_run_out_is_zeros() {
        let mut feed = Feed::new(&[3, b'a', b'b', b'c', 7]);
        assert_eq!(feed.bytes(10), b"abc");
        assert_eq!(feed.below(5), 2);
        assert!(feed.is_empty());
        assert_eq!(
            (feed.below(100_000), feed.flag(), feed.number()),
            (0, false, 0)
        );
        assert_eq!((feed.bytes(9), feed.rest()), (&b""[..], &b""[..]));
    }

    #[test]
    fn every_number_below_a_bound_can_be_drawn() {
        let drawn = |data: &[u8], bound| Feed::new(data).below(bound);
        assert_eq!(drawn(&[255], 256), 255);
        assert_eq!(drawn(&[255, 255], 65_536), 65_535);
        assert_eq!(drawn(&[1, 0], 257), 256);
    }
}

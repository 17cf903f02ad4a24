//! Where does chance come from, so that it can be had again?
//!
//! One seed, split by purpose: what the network draws does not move what the workload draws, so
//! that a run in which one fault is left out stays close to the run with it. SplitMix64 (Steele,
//! Lea, Flood 2014) is enough to draw faults from, and is the same everywhere.

/// A source of draws.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// The draws of one purpose under a seed.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut draw = Self(seed ^ purpose.wrapping_mul(0xD1B5_4A32_D192_ED03));
        draw.next();
        draw
    }

    /// Any number.
    #[allow(
        clippy::should_implement_trait,
        reason = "it never ends, and is no iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number from `from` to `to`, both included.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True so often in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// A number whose logarithm is spread evenly: small ones are as common as great ones.
    pub fn spread(&mut self, from: u64, to: u64) -> u64 {
        let octaves = (to / from.max(1)).max(1).ilog2() + 1;
        let octave = self.below(u64::from(octaves));
        let least = from << octave;
        self.within(least, (2 * least).min(to).max(least))
    }
}

/// A running digest of whatever happens: equal for two runs only if they were the same run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Digest {
    /// Takes in a number.
    pub fn mix(&mut self, with: u64) {
        let mixed = (self.0 ^ with).wrapping_mul(0x9FB2_1C65_1E98_DF25);
        self.0 = mixed ^ (mixed >> 29);
    }

    /// Takes in bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.mix(u64::from(*byte));
        }
    }

    /// Of bytes alone.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut digest = Self::default();
        digest.bytes(bytes);
        digest.0
    }
}

//! How does a seed repeat a run's choices?
//!
//! It repeats what was chosen, in the order it was chosen in; not the timing of real processes.
//! Each client and the torment have dice of their own, so that one does not reshuffle the others.

use std::time::Duration;

/// A small generator (splitmix64): choices need to be repeatable, not good.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice for one purpose of a run.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut dice = Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// From 0 to `bound` − 1; `bound` is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of them; there must be one.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A time from `from_ms` to `to_ms` − 1.
    pub fn millis(&mut self, from_ms: usize, to_ms: usize) -> Duration {
        Duration::from_millis((from_ms + self.below(to_ms - from_ms)) as u64)
    }

    /// Some of the servers: often one, sometimes any set, sometimes all.
    pub fn some_servers(&mut self, servers: usize) -> Vec<usize> {
        let first = self.below(servers);
        match self.below(6) {
            0 => (0..servers).collect(),
            1 | 2 => (0..servers)
                .filter(|at| *at == first || self.once_in(2))
                .collect(),
            _ => vec![first],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_choices_and_purposes_differ() {
        let draw = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            (0..20).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
        let mut dice = Dice::new(1, 1);
        let sets: Vec<_> = (0..200).map(|_| dice.some_servers(3).len()).collect();
        assert!((1..=3).all(|size| sets.contains(&size)));
    }
}

//! When does a follower give up on its leader, and how is that drawn?
//!
//! raft-rs draws election timeouts from the thread's generator, which nobody can replay. Ours is
//! a pure function of seed, server, term and elections seen, and overwrites raft-rs's draw after
//! every call that may have redrawn it (it is idempotent, so there is no need to know which did).

use xxhash_rust::xxh3::xxh3_64;

/// Seeded election timeouts of one replica.
#[derive(Clone, Debug)]
pub struct ElectionTimer {
    seed: u64,
    server: u64,
    ticks_min: usize,
    ticks_max: usize,
}

impl ElectionTimer {
    /// Timeouts in `ticks_min..ticks_max` for this server under this seed.
    pub fn new(seed: u64, server: u64, ticks_min: usize, ticks_max: usize) -> Self {
        assert!(
            ticks_min < ticks_max,
            "an election timeout needs a range to be drawn from"
        );
        Self {
            seed,
            server,
            ticks_min,
            ticks_max,
        }
    }

    /// The timeout in ticks for this term after so many campaigns of this replica.
    pub fn ticks(&self, term: u64, campaigns: u64) -> usize {
        let mut key = [0u8; 32];
        for (at, part) in [self.seed, self.server, term, campaigns]
            .into_iter()
            .enumerate()
        {
            key[at * 8..at * 8 + 8].copy_from_slice(&part.to_le_bytes());
        }
        self.ticks_min + (xxh3_64(&key) % (self.ticks_max - self.ticks_min) as u64) as usize
    }
}

/// Turns passing time into raft ticks.
///
/// After a pause (SIGSTOP, a starved host) the missed ticks are not made up for: the sockets hold
/// what arrived meanwhile, and a server that fed a whole election timeout before reading them
/// would campaign against a leader that never left. Safety does not hang on ticks: the lease is
/// measured on a clock that counts suspension.
#[derive(Clone, Debug)]
pub struct TickFeeder {
    tick_ns: u64,
    gap_ticks_max: u64,
    last_ns: u64,
}

impl TickFeeder {
    /// Ticks of `tick_ns`, starting at `now_ns`; a gap of more than `gap_ticks_max` ticks is a pause.
    pub fn new(tick_ns: u64, gap_ticks_max: u64, now_ns: u64) -> Self {
        Self {
            tick_ns,
            gap_ticks_max,
            last_ns: now_ns,
        }
    }

    /// How many ticks to feed now.
    pub fn due(&mut self, now_ns: u64) -> u64 {
        let ticks = now_ns.saturating_sub(self.last_ns) / self.tick_ns;
        if ticks > self.gap_ticks_max {
            self.last_ns = now_ns;
            return 1;
        }
        self.last_ns += ticks * self.tick_ns;
        ticks
    }

    /// When the next tick is due.
    pub fn next_ns(&self) -> u64 {
        self.last_ns + self.tick_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_replayable_and_spread() {
        let timer = ElectionTimer::new(7, 1, 10, 20);
        let other = ElectionTimer::new(7, 2, 10, 20);
        let draws: Vec<_> = (0..200)
            .map(|campaigns| timer.ticks(3, campaigns))
            .collect();
        assert_eq!(
            draws,
            (0..200)
                .map(|campaigns| timer.ticks(3, campaigns))
                .collect::<Vec<_>>()
        );
        assert!(draws.iter().all(|t| (10..20).contains(t)));
        for value in 10..20 {
            assert!(draws.contains(&value), "{value} was never drawn");
        }
        assert!((0..50).any(|campaigns| timer.ticks(3, campaigns) != other.ticks(3, campaigns)));
    }

    #[test]
    fn a_pause_feeds_one_tick_only() {
        let mut feeder = TickFeeder::new(10, 5, 0);
        assert_eq!(feeder.due(9), 0);
        assert_eq!(feeder.due(10), 1);
        assert_eq!(feeder.due(35), 2);
        assert_eq!(feeder.next_ns(), 40);
        assert_eq!(feeder.due(10_000), 1);
        assert_eq!(feeder.due(10_009), 0);
        assert_eq!(feeder.due(10_010), 1);
    }
}

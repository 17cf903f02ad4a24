//! Until when can nobody else have become leader?
//!
//! Every append and heartbeat carries the leader's clock at send; a peer that accepted it at the
//! leader's term echoes that stamp. A follower that accepted a message at time `t` (which is not
//! before it was sent) grants no vote for one election timeout after. So a quorum that echoed
//! stamps ≥ `s` rules out another leader until `s` + election timeout, on clocks that drift
//! apart by no more than the margin (design §5). The clock counts suspension (`CLOCK_BOOTTIME`),
//! and is read again just before an answer leaves.
//!
//! The same stamps confirm `consistent` reads without any assumption on clocks between servers:
//! a quorum that echoed a stamp not older than the read's arrival had no newer leader after it
//! arrived (ReadIndex, Raft thesis §6.4).

use std::collections::BTreeMap;

/// What the voters have echoed to this leader in its present term.
#[derive(Clone, Debug, Default)]
pub struct QuorumClock {
    echoed: BTreeMap<u64, u64>,
}

impl QuorumClock {
    /// Forgets everything: at each change of term or role, and before a leadership transfer.
    pub fn reset(&mut self) {
        self.echoed.clear();
    }

    /// A voter echoed a stamp of this term.
    pub fn echo(&mut self, voter: u64, sent_at_ns: u64) {
        let newest = self.echoed.entry(voter).or_default();
        *newest = (*newest).max(sent_at_ns);
    }

    /// The newest stamp that a server has echoed.
    pub fn echoed_ns(&self, server: u64) -> Option<u64> {
        self.echoed.get(&server).copied()
    }

    /// The newest stamp that a quorum has echoed, the leader itself counting as echoing `now_ns`.
    /// `None` when no quorum has echoed anything. `is_quorum` judges a set of voters.
    pub fn quorum_stamp_ns(
        &self,
        own: u64,
        now_ns: u64,
        voters: &[u64],
        is_quorum: impl Fn(&[u64]) -> bool,
    ) -> Option<u64> {
        let mut stamps: Vec<(u64, u64)> = voters
            .iter()
            .filter_map(|voter| {
                let stamp = if *voter == own {
                    Some(now_ns)
                } else {
                    self.echoed.get(voter).copied()
                };
                stamp.map(|stamp| (stamp, *voter))
            })
            .collect();
        stamps.sort_unstable_by(|a, b| b.cmp(a));
        let mut set = Vec::with_capacity(stamps.len());
        for (stamp, voter) in stamps {
            set.push(voter);
            if is_quorum(&set) {
                return Some(stamp);
            }
        }
        None
    }
}

/// Length of the lease: (election ticks − 1) × tick ÷ 1.2 (design §5). The lost tick is the
/// follower's rounding, the divisor the 10 % that either clock may be off.
pub fn lease_ns(election_ticks: u64, tick_ns: u64) -> u64 {
    if mutant!(LeaseTooLong) {
        return 2 * election_ticks * tick_ns;
    }
    (election_ticks - 1) * tick_ns * 10 / 12
}

#[cfg(test)]
mod tests {
    use super::*;

    fn majority_of(n: usize) -> impl Fn(&[u64]) -> bool {
        move |set| set.len() > n / 2
    }

    #[test]
    fn the_stamp_is_that_of_the_slowest_member_of_the_fastest_quorum() {
        let voters = [1, 2, 3, 4, 5];
        let mut clock = QuorumClock::default();
        assert_eq!(clock.quorum_stamp_ns(1, 100, &voters, majority_of(5)), None);
        clock.echo(2, 50);
        assert_eq!(clock.quorum_stamp_ns(1, 100, &voters, majority_of(5)), None);
        clock.echo(3, 40);
        assert_eq!(
            clock.quorum_stamp_ns(1, 100, &voters, majority_of(5)),
            Some(40)
        );
        clock.echo(4, 60);
        assert_eq!(
            clock.quorum_stamp_ns(1, 100, &voters, majority_of(5)),
            Some(50)
        );
        clock.echo(4, 10);
        assert_eq!(
            clock.quorum_stamp_ns(1, 100, &voters, majority_of(5)),
            Some(50),
            "stamps only rise"
        );
        clock.reset();
        assert_eq!(clock.quorum_stamp_ns(1, 100, &voters, majority_of(5)), None);
    }

    #[test]
    fn a_sole_voter_is_its_own_quorum() {
        let clock = QuorumClock::default();
        assert_eq!(clock.quorum_stamp_ns(1, 77, &[1], majority_of(1)), Some(77));
    }

    #[test]
    fn an_echo_of_a_server_that_is_no_voter_does_not_count() {
        let mut clock = QuorumClock::default();
        clock.echo(9, 99);
        assert_eq!(
            clock.quorum_stamp_ns(1, 100, &[1, 2, 3], majority_of(3)),
            None
        );
    }

    #[test]
    fn the_lease_is_shorter_than_any_followers_patience() {
        let (ticks, tick) = (10, 50_000_000);
        let lease = lease_ns(ticks, tick);
        let slowest_lease = lease as f64 * 1.1; // our clock runs 10 % slow
        let fastest_follower = ((ticks - 1) * tick) as f64 * 0.91; // its clock 10 % fast, one tick lost
        assert!(
            slowest_lease <= fastest_follower * 1.01,
            "{slowest_lease} {fastest_follower}"
        );
    }
}

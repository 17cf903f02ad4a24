//! Does a damaged peer's question harm whoever answers it?

use wire::{EntriesFetch, Index};

use super::*;

/// An index that no log here reaches.
const BEYOND: u64 = 1_000_000;

fn question(at: usize, first: u64) -> Event {
    Event::EntriesFetch {
        from: ServerId((at as u64 + 1) % 3 + 1),
        shard: SHARD,
        fetch: EntriesFetch {
            first: Index(first),
            ..EntriesFetch::default()
        },
    }
}

/// Found by the simulator: a damaged server asks the leader for what its log held at the end. When
/// the question arrived in the very turn in which the leader was elected, the answer counted the
/// entry that a new leader begins with, which was not below raft yet; the assertion there stopped
/// the only healthy leader. One for entries beyond the leader's log, as a deposed leader gets that
/// still believes it leads, did the same.
#[test]
fn a_question_for_the_tail_in_the_turn_of_an_election_is_answered() {
    let mut elected = 0;
    for seed in 1..=10 {
        let mut world = World::new(seed, 3, 0, u64::MAX);
        for _ in 0..400 {
            // Last in the turn: after the vote that makes it the leader.
            for at in 0..3 {
                for first in [2, BEYOND] {
                    world.nodes[at].later.push((0, question(at, first)));
                }
            }
            world.step();
        }
        elected += world.leaders.len();
    }
    assert!(
        elected >= 10,
        "no leader was elected: the test tests nothing"
    );
}

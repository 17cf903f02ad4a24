//! What does a leader propose that nobody asked for?
//!
//! That time has passed, for sessions and lock-delays ([`LeaseClock`]), and that old tombstones may
//! be forgotten ([`Reaper`]). Both are commands like any other: every replica carries them out, and
//! every replica keeps the times that it would need as the next leader.
//!
//! **The lease clock.** The leader logs how long ago the clock was last moved, as it saw it. A
//! replica that becomes the leader counts from when it applied the last such command itself.
//!
//! ```text
//!   leader A   tick ──1 s── tick ──1 s── tick ✗
//!   replica B  applied ···· applied ···· applied ──── elected ── tick (what passed since ↑)
//! ```
//!
//! Invariants, of which sessions live: the clock never counts the same time twice; it never moves
//! by more than [`TICK_INTERVALS_MAX`] intervals at once, so that after a pause nothing expires
//! whose renewals are still in a socket; an interval is at most an eighth of the shortest TTL. With
//! a deadline of one and a half TTLs a session ends neither within one TTL of its last renewal nor,
//! but for the time without a leader, after two.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    fsm::{
        records::RecordOp,
        sessions::{Tick, is_overdue, lease_clock_moved, needs_lease_clock, shortest_ttl_ms},
        tombstones::Reap,
    },
    state::{Tables, tree::Keyed},
};

/// Longest and shortest time between two moves of the lease clock, ns.
pub const INTERVAL_NS_MAX: u64 = 1_000_000_000;
/// See [`INTERVAL_NS_MAX`].
pub const INTERVAL_NS_MIN: u64 = 10_000_000;
/// Longest time between two moves while a lock-delay runs, ns: how much too long it may be.
pub const DELAY_INTERVAL_NS_MAX: u64 = 250_000_000;
/// Moves of the lease clock in the shortest TTL.
pub const TICKS_PER_TTL: u64 = 8;
/// Intervals that the lease clock may move by at once; what passed beyond them is not counted.
pub const TICK_INTERVALS_MAX: u64 = 2;

/// How long a deletion is remembered, ns (Consul's tombstone TTL, 15 minutes).
pub const TOMBSTONE_TTL_NS: u64 = 15 * 60 * 1_000_000_000;
/// Time between two notes of which deletions are how old, ns (Consul's granularity).
pub const TOMBSTONE_GRANULARITY_NS: u64 = 30 * 1_000_000_000;
/// Tombstones that one command looks at.
pub const REAPED_AT_ONCE_MAX: usize = 4096;

/// When the lease clock moves next.
#[derive(Debug, Default)]
pub struct LeaseClock {
    /// Index of the command that moved the clock last, when it was last looked at.
    seen: u64,
    /// From when on time is not counted yet, ns.
    since_ns: u64,
    /// Whether anything waits for the clock.
    needed: bool,
    interval_ns: u64,
    /// Whether more is over than the last tick ended.
    overdue: bool,
    /// When the command that is under way was proposed, ns.
    proposed_ns: Option<u64>,
}

impl LeaseClock {
    /// Looks at the state after something was applied. On every replica.
    pub fn observe(&mut self, now_ns: u64, tables: &Tables) {
        let needed = needs_lease_clock(tables);
        if !needed && !self.needed {
            return;
        }
        let moved = lease_clock_moved(tables);
        if !self.needed {
            self.since_ns = now_ns;
            self.proposed_ns = None;
        } else if moved != self.seen {
            // Ours counted up to when it was proposed; what it took to commit counts too, unless
            // it took so long that the next move would be too far.
            let proposed = self.proposed_ns.take().unwrap_or(now_ns);
            self.since_ns = proposed.max(now_ns.saturating_sub(self.interval_ns));
        }
        self.seen = moved;
        self.overdue = is_overdue(tables);
        self.needed = needed;
        self.interval_ns = interval_ns(tables);
    }

    /// What is to be proposed by a leader now.
    pub fn due(&mut self, now_ns: u64) -> Option<Tick> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let elapsed_ns = now_ns - self.since_ns;
        let most_ns = TICK_INTERVALS_MAX * self.interval_ns;
        let elapsed_ms = elapsed_ns.min(most_ns) / 1_000_000;
        // A part of a millisecond counts next time.
        let rest_ns = if elapsed_ns < most_ns {
            elapsed_ns % 1_000_000
        } else {
            0
        };
        self.proposed_ns = Some(now_ns - rest_ns);
        Some(Tick { elapsed_ms })
    }

    /// When a leader has something to propose, ns.
    pub fn next_ns(&self) -> Option<u64> {
        let waits = self.needed && self.proposed_ns.is_none();
        waits.then(|| match self.overdue {
            true => self.since_ns,
            false => self.since_ns + self.interval_ns,
        })
    }

    /// What was under way may never be applied.
    pub fn lost(&mut self) {
        self.proposed_ns = None;
    }
}

fn interval_ns(tables: &Tables) -> u64 {
    let of_ttl = match shortest_ttl_ms(tables) {
        Some(ms) => ms.saturating_mul(1_000_000) / TICKS_PER_TTL,
        None => INTERVAL_NS_MAX,
    };
    let most = match tables.lock_delays.is_empty() {
        true => INTERVAL_NS_MAX,
        false => DELAY_INTERVAL_NS_MAX,
    };
    of_ttl.clamp(INTERVAL_NS_MIN, most)
}

/// Which tombstones are old enough to be forgotten.
#[derive(Debug, Default)]
pub struct Reaper {
    /// When the applied index was what, oldest first.
    notes: VecDeque<(u64, u64)>,
    /// Tombstones up to this index are being forgotten; up to this key they are.
    under_way: Option<(u64, Vec<u8>)>,
}

impl Reaper {
    /// What is to be proposed by a leader now.
    pub fn due(&mut self, now_ns: u64, applied: u64, tables: &Tables) -> Option<Reap> {
        if tables.tombstones.is_empty() {
            *self = Self::default();
            return None;
        }
        let newest = self.notes.back().map(|(at_ns, _)| *at_ns);
        if newest.is_none_or(|at_ns| now_ns >= at_ns + TOMBSTONE_GRANULARITY_NS) {
            self.notes.push_back((now_ns, applied));
        }
        while let Some((at_ns, index)) = self.notes.front().copied()
            && now_ns >= at_ns + TOMBSTONE_TTL_NS
        {
            self.notes.pop_front();
            self.under_way = Some((index, Vec::new()));
        }
        let (index, start_after) = self.under_way.take()?;
        let up_to = last_of_next(tables, &start_after)?;
        self.under_way = Some((index, up_to.clone()));
        Some(Reap {
            index,
            start_after,
            up_to,
        })
    }
}

/// The key of the last of the next tombstones; `None` at the end.
fn last_of_next(tables: &Tables, start_after: &[u8]) -> Option<Vec<u8>> {
    let mut cursor = tables.tombstones.view().cursor();
    if !start_after.is_empty() {
        cursor.seek(&[start_after, &[0]].concat());
    }
    let (mut last, mut left) = (None, REAPED_AT_ONCE_MAX);
    while left > 0
        && cursor.scan(|row| {
            last = Some(row.key().to_vec());
            left -= 1;
            left > 0
        })
    {}
    last
}

/// Both.
#[derive(Debug, Default)]
pub struct Duties {
    clock: LeaseClock,
    reaper: Reaper,
}

impl Duties {
    /// See [`LeaseClock::observe`].
    pub fn observe(&mut self, now_ns: u64, tables: &Tables) {
        self.clock.observe(now_ns, tables);
    }

    /// Encoded commands that a leader is to propose now.
    pub fn due(&mut self, now_ns: u64, applied: u64, tables: &Tables) -> Vec<Bytes> {
        let tick = self.clock.due(now_ns).map(RecordOp::LeaseClock);
        let reap = self.reaper.due(now_ns, applied, tables);
        let ops = tick.into_iter().chain(reap.map(RecordOp::Tombstone));
        ops.map(|op| op.encode()).collect()
    }

    /// When a leader has something to propose, ns; the reaper is in no hurry.
    pub fn next_ns(&self) -> Option<u64> {
        self.clock.next_ns()
    }

    /// This replica leads no longer, or does since now.
    pub fn role_changed(&mut self) {
        self.clock.lost();
        self.reaper = Reaper::default();
    }

    /// What was due was not proposed.
    pub fn refused(&mut self) {
        self.clock.lost();
    }
}

#[cfg(test)]
mod tests;

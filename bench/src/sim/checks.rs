//! What is true of each server by itself, turn after turn?
//!
//! | it holds | that |
//! |---|---|
//! | watches | nobody waits for a change that has happened (reliability promise 20) |
//! | answers to those who waited | there was a change, or their time was over |
//! | indexes | the index of a listing never falls while a server runs |
//!
//! The last two need what nobody is sure of otherwise: clocks that do not jump.

use std::collections::HashMap;

use engine::shard::{Effects, Reply, Ticket};
use wire::{ShardId, Wait};

use super::{
    plan::{Fault, MS, Plan},
    recorder::Broken,
    world::World,
};

/// The prefixes that clients write under.
const PREFIXES: [&[u8]; 3] = [b"p0/", b"p1/", b"p2/"];
/// The fastest clock of any plan runs at twice the true rate.
const FASTEST: u64 = 2;

/// What was seen of each server so far.
#[derive(Default)]
pub struct Checks {
    /// Blocking queries: who was asked, when, and to wait for what.
    asked: HashMap<Ticket, (u64, Wait)>,
    /// The indexes of the prefixes, by server, start and shard.
    indexes: HashMap<(usize, ShardId), (u32, [u64; PREFIXES.len()])>,
    /// Whether time goes on evenly enough for deadlines to mean something.
    even: bool,
}

impl Checks {
    /// Of a world in which nothing has happened.
    pub fn new(plan: &Plan) -> Self {
        Self {
            even: !plan.has(Fault::ClockJump),
            ..Self::default()
        }
    }

    /// A query is asked.
    pub fn asked(&mut self, ticket: Ticket, now_ns: u64, wait: Wait) {
        if wait.ms > 0 {
            self.asked.insert(ticket, (now_ns, wait));
        }
    }
}

impl World {
    /// Looks at what a turn has left behind. `installed`: the state was replaced in it.
    pub(super) fn check(
        &mut self,
        at: usize,
        effects: &Effects,
        installed: bool,
    ) -> Result<(), Broken> {
        self.check_watches(at, effects)?;
        if self.checks.even {
            if !installed {
                self.check_answers(at, effects)?;
            }
            self.check_indexes(at, installed)?;
        }
        Ok(())
    }

    fn check_watches(&self, at: usize, effects: &Effects) -> Result<(), Broken> {
        if effects.again {
            return Ok(());
        }
        let core = self.servers[at].core.as_ref().expect("it is up");
        for (shard, member) in core.members() {
            if let Some(ticket) = member.slept_through() {
                return Err(format!(
                    "shard {shard}: server {at} lets request {} wait, which has slept through a change",
                    ticket.0
                ));
            }
        }
        Ok(())
    }

    /// Who waits for a change is answered when there is one, or when its time is over.
    fn check_answers(&mut self, at: usize, effects: &Effects) -> Result<(), Broken> {
        for answered in &effects.answers {
            let Some((asked_ns, wait)) = self.checks.asked.remove(&answered.ticket) else {
                continue;
            };
            let Ok(Reply::Read(read)) = &answered.result else {
                continue;
            };
            let waited_ns = self.now_ns - asked_ns;
            let early = waited_ns < u64::from(wait.ms) * MS / FASTEST;
            if early && read.index <= wait.index {
                return Err(format!(
                    "server {at}: request {} waits for a change after index {}, and woke for nothing at index {} after {} ms",
                    answered.ticket.0,
                    wait.index,
                    read.index,
                    waited_ns / MS
                ));
            }
        }
        Ok(())
    }

    fn check_indexes(&mut self, at: usize, installed: bool) -> Result<(), Broken> {
        let server = &self.servers[at];
        let core = server.core.as_ref().expect("it is up");
        for (shard, member) in core.members() {
            let store = member.fsm().store();
            let now = PREFIXES.map(|prefix| store.kv_prefix_index(prefix).0);
            let seen = (server.boot, now);
            let before = self.checks.indexes.insert((at, *shard), seen);
            let Some((boot, before)) = before else {
                continue;
            };
            if boot != server.boot || installed {
                continue;
            }
            for ((prefix, before), now) in PREFIXES.iter().zip(before).zip(now) {
                if now < before {
                    return Err(format!(
                        "shard {shard}: server {at}: the index of {} falls from {before} to {now}",
                        prefix.escape_ascii()
                    ));
                }
            }
        }
        Ok(())
    }
}

//! How does one seed go, from its beginning to its verdict?
//!
//! *Safety*: operations under faults, while the recorder looks on. *Liveness*: faults stop, and
//! within [`CALM_NS_MAX`] of virtual time every server must be up, hold the same log and state, and
//! each shard must take a write. *Verdict*: everything that was acknowledged, refused and read is
//! held against what the log says.

use wire::{Index, ShardId};

use super::{
    draw::Digest,
    plan::{MS, Plan, Wish},
    recorder::Broken,
    world::{Counts, Happening, World},
};
use crate::judge::indexed::{self, Place};

/// Longest time with faults, ns of virtual time: what is left to be asked for is asked in peace.
pub const TORMENT_NS_MAX: u64 = 30_000 * MS;
/// How long after the last fault everything must be well, ns of virtual time.
pub const CALM_NS_MAX: u64 = 30_000 * MS;
/// Between two looks at whether everything is well, ns of virtual time.
const LOOK_NS: u64 = 10 * MS;

/// What a seed came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Of every event, in order.
    pub digest: Digest,
    /// What was counted.
    pub counts: Counts,
    /// Operations of clients.
    pub operations: u64,
    /// Those that were answered.
    pub answered: u64,
}

/// Runs a seed. `Err` says which promise was broken.
pub fn run(wish: &Wish) -> Result<Outcome, Broken> {
    let mut world = World::new(Plan::draw(wish));
    let result = world.run();
    result.map_err(|broken| {
        let at_ms = world.now_ns / MS;
        format!("{broken} (at {at_ms} ms of virtual time)")
    })
}

impl World {
    fn run(&mut self) -> Result<Outcome, Broken> {
        self.ask_all_shards();
        while self.now_ns < TORMENT_NS_MAX && !self.clients.are_done(&self.plan) {
            self.step()?;
        }
        self.become_calm();
        let until_ns = self.now_ns + CALM_NS_MAX;
        let mut look_ns = 0;
        let mut asked = false;
        loop {
            self.step()?;
            if self.now_ns < look_ns {
                continue;
            }
            look_ns = self.now_ns + LOOK_NS;
            if !self.clients.are_done(&self.plan) && self.now_ns < until_ns {
                continue;
            }
            if !asked {
                asked = true;
                self.ask_all_shards();
            } else if self.is_well() {
                break;
            } else if self.now_ns > until_ns + CALM_NS_MAX {
                return Err(self.unwell());
            }
        }
        self.verdict()
    }

    /// Faults stop.
    fn become_calm(&mut self) {
        self.calm = true;
        self.network.heal();
        for at in 0..self.servers.len() {
            let server = &mut self.servers[at];
            server.paused_until_ns = server.paused_until_ns.min(self.now_ns);
            server.stalled_until_ns = server.stalled_until_ns.min(self.now_ns);
            server.log_disk.set_capacity(None);
            server.is_full = false;
            server.log_disk.fail_never();
            server.image_disk.fail_never();
            if server.turn_is_due {
                let boot = server.boot;
                self.queue.at(self.now_ns, Happening::Turn(at, boot));
            }
            let (up, boot) = (server.core.is_some(), server.boot);
            if !up && server.ward.is_none() {
                self.queue.at(self.now_ns, Happening::Start(at, boot));
            }
        }
    }

    /// All servers are up, hold the same, and everybody was answered.
    fn is_well(&self) -> bool {
        let serving = || self.servers.iter().filter(|server| !server.refuses);
        let Some(first) = serving().next().and_then(|server| server.core.as_ref()) else {
            return false;
        };
        self.clients.are_done(&self.plan)
            && first.members().all(|(shard, member)| {
                let last = member.replica().last_index();
                let mut leaders = 0;
                let equal = serving().all(|server| {
                    let member = server.core.as_ref().and_then(|core| core.member(*shard));
                    member.is_some_and(|member| {
                        let replica = member.replica();
                        leaders += usize::from(replica.is_leader());
                        replica.last_index() == last
                            && replica.applied_index() == last
                            && member.fsm().applied().0 == last
                    })
                });
                equal && leaders == 1 && self.recorder.shard(*shard).last() == last
            })
    }

    fn unwell(&self) -> Broken {
        let mut positions = Vec::new();
        for (at, server) in self.servers.iter().enumerate() {
            let Some(core) = &server.core else {
                positions.push(format!(
                    "server {at}: down (ward: {})",
                    server.ward.is_some()
                ));
                continue;
            };
            for (shard, member) in core.members() {
                let replica = member.replica();
                positions.push(format!(
                    "server {at} shard {shard}: term {} leads {} last {} commit {} applied {} ({})",
                    replica.term(),
                    replica.is_leader(),
                    replica.last_index(),
                    replica.commit(),
                    replica.applied_index(),
                    replica.followers_in_words()
                ));
            }
        }
        format!(
            "no liveness: {} s after the last fault the cluster is not well: {}; waiting: {}",
            CALM_NS_MAX / 1000 / MS,
            positions.join(", "),
            self.clients.describe()
        )
    }

    /// Lets the linear-time judge read a shard's history, with the places that the log tells of, and
    /// holds every server's state against the one that it comes to.
    fn judge(&mut self, shard: u16) -> Result<(), Broken> {
        let recorded = self.recorder.shard(ShardId(shard));
        let history = &self.clients.histories[usize::from(shard)];
        let mut places = vec![Place::Never; history.operations.len()];
        let tickets = self.clients.tickets_of.iter();
        for (_, operation, ticket) in tickets.filter(|(of, ..)| *of == shard) {
            if let Some(index) = recorded.decided(ticket.0) {
                if places[*operation] != Place::Never {
                    return Err(format!("operation {operation} was carried out twice"));
                }
                places[*operation] = Place::At(index.0);
            }
        }
        let judged = indexed::judge(history, &places)
            .map_err(|impossible| format!("shard {shard}: {impossible}"))?;
        self.counts.judged += judged.judged as u64;
        let servers = self.servers.iter().enumerate();
        for (at, server) in servers.filter(|(_, server)| !server.refuses) {
            let rows = server.rows(ShardId(shard));
            if let Some(difference) = indexed::difference(&judged.model, &rows) {
                return Err(format!("shard {shard}: server {at}: {difference}"));
            }
        }
        Ok(())
    }

    fn verdict(&mut self) -> Result<Outcome, Broken> {
        let decided = |shard: u16, ticket: engine::shard::Ticket| -> Option<Index> {
            self.recorder.shard(ShardId(shard)).decided(ticket.0)
        };
        let refused = self
            .clients
            .broken_refusal(|shard, ticket| decided(shard, ticket).is_some());
        if let Some((shard, ticket)) = refused {
            return Err(format!(
                "shard {shard}: request {} was refused as if nothing had happened, and is in the log at {:?}",
                ticket.0,
                decided(shard, ticket)
            ));
        }
        for shard in 0..self.plan.shards {
            self.judge(shard)?;
        }
        self.counts.faults = self.nemesis.strikes + self.network.lost;
        self.counts.virtual_ns = self.now_ns;
        let operations = self.clients.histories.iter().flat_map(|h| &h.operations);
        let answered = operations.filter(|op| op.answer.is_some()).count() as u64;
        Ok(Outcome {
            digest: self.digest,
            counts: self.counts,
            operations: self.clients.called(),
            answered,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::plan::Wish, run};

    /// Seeds that found something once; `perf-reports/reliability/TRACK.md` tells their stories.
    #[test]
    fn seeds_that_failed_once_pass() {
        for seed in [80, 528, 594] {
            if let Err(why) = run(&Wish::of(seed, 1000)) {
                panic!("{why}");
            }
        }
    }
}

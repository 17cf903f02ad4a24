//! The turn: gather, step, perform.
//!
//! One turn takes all events that have gathered. While the log's write is in flight, further
//! events gather for the next turn: that is the group commit, with no timer and no delay for a
//! lone writer.

use std::collections::BTreeMap;

use wire::ShardId;

use super::{
    event::{Effects, Event},
    images::Images,
    member::Member,
};
use crate::{
    consensus::TickFeeder,
    log::{Log, LogStats, Progress, Space},
};

/// Timing of an executor's shards.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Length of a raft tick, ns.
    pub tick_ns: u64,
    /// Least ticks before an election.
    pub election_ticks: u64,
}

/// One executor's shards and their log.
pub struct Core {
    config: CoreConfig,
    log: Log,
    members: BTreeMap<ShardId, Member>,
    feeder: TickFeeder,
    now_ns: u64,
    stopping: bool,
}

impl Core {
    /// The shards as opened on their log.
    pub fn new(
        config: CoreConfig,
        log: Log,
        members: BTreeMap<ShardId, Member>,
        now_ns: u64,
    ) -> Self {
        let feeder = TickFeeder::new(config.tick_ns, config.election_ticks / 2, now_ns);
        Self {
            config,
            log,
            members,
            feeder,
            now_ns,
            stopping: false,
        }
    }

    /// Takes what happened and says what must be done. `now_ns` counts suspension.
    pub fn turn(&mut self, now_ns: u64, events: &mut Vec<Event>, effects: &mut Effects) {
        // Strictly later than the turn before: stamps of two turns never compare equal.
        self.now_ns = now_ns.max(self.now_ns + 1);
        let now_ns = self.now_ns;
        self.tick(now_ns, effects);
        for event in events.drain(..) {
            self.take(now_ns, event, effects);
        }
        let full = self.is_full();
        for member in self.members.values_mut() {
            member.propose(now_ns, full, effects);
            member.advance(now_ns, &mut self.log, effects);
        }
        self.log.take_ops(now_ns, &mut effects.log);
    }

    fn tick(&mut self, now_ns: u64, effects: &mut Effects) {
        let ticks = self.feeder.due(now_ns);
        if ticks == 0 {
            return;
        }
        let patience_ns = self.config.election_ticks * self.config.tick_ns;
        let stalled = self
            .log
            .oldest_write_ns()
            .is_some_and(|issued| now_ns > issued + patience_ns);
        let pinned = self.log.pinned();
        let durable = self.log.durable_lsn();
        for (shard, member) in &mut self.members {
            member.tick(ticks, stalled);
            member.tend_images(now_ns, pinned.contains(shard), durable, effects);
            member.compacted(self.log.first_index(*shard));
        }
    }

    fn take(&mut self, now_ns: u64, event: Event, effects: &mut Effects) {
        match event {
            Event::Request {
                ticket,
                shard,
                request,
            } => {
                let full = self.full();
                if let Some(member) = self.members.get_mut(&shard) {
                    member.request(now_ns, ticket, request, full, effects);
                }
            }
            Event::Cancel { shard, tickets } => {
                if let Some(member) = self.members.get_mut(&shard) {
                    member.cancel(&tickets);
                }
            }
            Event::Peer {
                from,
                shard,
                messages,
            } => {
                let full = self.is_full();
                if let Some(member) = self.members.get_mut(&shard) {
                    member.messages(now_ns, from, messages, full, effects);
                }
            }
            Event::PeerDown { server } => {
                for member in self.members.values_mut() {
                    member.peer_down(server);
                }
            }
            Event::Log(done) => self.log_done(now_ns, done, effects),
            Event::File(done) => {
                if let Some(member) = self.members.get_mut(&Images::shard_of(done.token)) {
                    member.file_done(now_ns, done, &mut self.log, effects);
                }
            }
            Event::ImageFetch { from, shard, fetch } => {
                if let Some(member) = self.members.get_mut(&shard) {
                    member.images().serve(now_ns, from, &fetch, effects);
                }
            }
            Event::ImageChunk {
                from,
                shard,
                chunk,
                bytes,
            } => {
                if let Some(member) = self.members.get_mut(&shard) {
                    member.images().chunk(now_ns, from, &chunk, bytes, effects);
                }
            }
            Event::EntriesFetch { from, shard, fetch } => {
                if let Some(member) = self.members.get_mut(&shard) {
                    member.serve_entries(now_ns, from, &fetch, &mut self.log, effects);
                }
            }
            // Only a shard under repair asks for entries, and that one is not served yet.
            Event::EntriesChunk { .. } | Event::Wake => {}
            Event::Compaction(bounds) => {
                for member in self.members.values_mut() {
                    member.set_compaction(bounds);
                }
            }
            Event::Rest => {
                for member in self.members.values_mut() {
                    member.rest();
                }
            }
            Event::Shutdown => self.shut_down(now_ns, effects),
        }
    }

    fn is_full(&self) -> bool {
        matches!(self.log.space(), Space::Full { .. })
    }

    fn full(&self) -> Option<String> {
        match self.log.space() {
            Space::Ok => None,
            Space::Full { why } => Some(format!(
                "no space left for writes: {why}; reads go on, and writes resume when space returns"
            )),
        }
    }

    fn log_done(&mut self, now_ns: u64, done: crate::io::LogDone, effects: &mut Effects) {
        match self.log.done(now_ns, done) {
            // Each member looks at the durable LSN when it drains.
            Ok(Progress::Durable(_) | Progress::Nothing) => {}
            Ok(Progress::Read(token)) => {
                for member in self.members.values_mut() {
                    if member.entries_read(token, &mut self.log, effects) {
                        break;
                    }
                }
            }
            Err(failure) => {
                effects.fatal = Some(format!(
                    "{failure}; nothing more is written to this log. What was acknowledged is safe on a quorum. Mend the disk and restart this server"
                ));
            }
        }
    }

    fn shut_down(&mut self, now_ns: u64, effects: &mut Effects) {
        if !self.stopping {
            self.stopping = true;
            for member in self.members.values_mut() {
                member.shut_down(effects);
            }
            self.log.shutdown_mark(now_ns, &mut effects.log);
        }
    }

    /// Whether a stopping server has nothing more to write.
    pub fn is_shut_down(&self) -> bool {
        self.log.is_shut_down()
    }

    /// When a turn is due although nothing happened.
    pub fn next_deadline_ns(&self) -> u64 {
        // Duties wait for space, and with them nobody: a tick looks whether there is some.
        let full = self.is_full();
        let members = self.members.values().filter(|_| !full);
        let duties = members.filter_map(Member::next_duty_ns);
        let deadlines = duties.chain(self.log.next_deadline_ns());
        deadlines.fold(self.feeder.next_ns(), u64::min)
    }

    /// Whether [`Event::Rest`] would tell a follower something.
    pub fn has_commit_to_tell(&self) -> bool {
        self.members
            .values()
            .any(|member| member.replica().has_commit_to_tell())
    }

    /// A shard of this executor.
    pub fn member(&self, shard: ShardId) -> Option<&Member> {
        self.members.get(&shard)
    }

    /// The shards of this executor.
    pub fn members(&self) -> impl Iterator<Item = (&ShardId, &Member)> {
        self.members.iter()
    }

    /// Counters of the log.
    pub fn log_stats(&self) -> LogStats {
        self.log.stats()
    }

    /// The log, for buffers that the ring registered.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }
}

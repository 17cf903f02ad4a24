//! How do servers, network, disks and clients go through virtual time together?
//!
//! One thread and one queue of happenings. A server's turn takes whatever has reached its inbox, as
//! the production executor does, and its effects become happenings again: a message arrives, a disk
//! answers, a client hears. Nothing but the queue and the draws decides what comes next.

use std::collections::HashMap;

use engine::{
    io::{FileOp, LogOp},
    shard::{Answered, Effects, Event, Request, Ticket, Trace, Transfer},
};
use wire::{EntriesFetch, FailureKind, Index, RaftEnvelope, ServerId, ShardId};

use super::{
    checks::Checks,
    clients::Clients,
    draw::{Digest, Draw},
    nemesis::Nemesis,
    network::Network,
    plan::{Fault, MS, Plan, TICK_NS},
    queue::Queue,
    recorder::{Broken, Recorder},
    server::{Server, Writing, begin, perform_file, place_at, place_of, raft_id},
};

/// What travels between servers.
#[derive(Debug)]
pub enum Parcel {
    /// Raft messages of one turn.
    Raft(Vec<RaftEnvelope>),
    /// A piece of an image, or a question or answer about entries.
    Transfer(Transfer),
    /// A damaged server asks for entries.
    EntriesFetch(EntriesFetch),
}

/// What can happen.
pub enum Happening {
    /// Something arrives at a server.
    Arrive {
        /// From whom.
        from: usize,
        /// At whom.
        to: usize,
        /// Which start of the receiver it was sent to.
        boot: u32,
        /// Of which shard.
        shard: ShardId,
        /// What.
        parcel: Parcel,
    },
    /// A write to a log ends.
    Written(usize, u32, Writing),
    /// Another operation on a log is carried out.
    Logged(usize, u32, LogOp),
    /// An operation on images is carried out.
    Filed(usize, u32, FileOp),
    /// A tick of a server's timer.
    Tick(usize, u32),
    /// A server takes its inbox.
    Turn(usize, u32),
    /// A server that stood still does what its last turn decided.
    Perform(usize, u32, Box<Effects>),
    /// A server has nothing to do.
    Rest(usize, u32),
    /// A connection to a peer breaks: (at, peer).
    Broken(usize, usize),
    /// A server starts.
    Start(usize, u32),
    /// A server that repairs its log asks again.
    Round(usize, u32),
    /// A client asks for its next thing.
    Call(usize),
    /// A client asks again for what was refused.
    Again(u64),
    /// A request reaches a server.
    Asked(usize, u32, Ticket, ShardId, Box<Request>),
    /// An answer reaches its client.
    Heard(Box<Answered>),
    /// The connection broke before the answer came.
    CutOff(Ticket),
    /// A client waits no longer.
    GiveUp(u64),
    /// The nemesis strikes.
    Strike,
    /// What the nemesis did ends.
    Relent(u64),
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Happenings.
    pub events: u64,
    /// Turns of servers.
    pub turns: u64,
    /// Faults: those of the nemesis, and messages that did not arrive.
    pub faults: u64,
    /// Starts after a crash.
    pub restarts: u64,
    /// Images that replaced a state.
    pub installs: u64,
    /// Repairs of damaged logs.
    pub repairs: u64,
    /// Servers that refused to start after a storage fault.
    pub refusals: u64,
    /// Answers that were held against the model or against time.
    pub judged: u64,
    /// Virtual time, ns.
    pub virtual_ns: u64,
}

impl Counts {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.turns += other.turns;
        self.faults += other.faults;
        self.restarts += other.restarts;
        self.installs += other.installs;
        self.repairs += other.repairs;
        self.refusals += other.refusals;
        self.judged += other.judged;
        self.virtual_ns += other.virtual_ns;
    }
}

/// Everything.
pub struct World {
    pub(super) plan: Plan,
    pub(super) now_ns: u64,
    pub(super) queue: Queue<Happening>,
    pub(super) servers: Vec<Server>,
    pub(super) network: Network,
    pub(super) clients: Clients,
    pub(super) nemesis: Nemesis,
    pub(super) recorder: Recorder,
    pub(super) checks: Checks,
    pub(super) disk_draw: Draw,
    pub(super) time_draw: Draw,
    pub(super) digest: Digest,
    pub(super) counts: Counts,
    /// Which server a request that waits for its answer was asked of.
    pub(super) waiting: HashMap<Ticket, usize>,
    /// When the last message of each link arrives.
    arrivals: Vec<u64>,
    /// Effects of the turn under way, kept from turn to turn.
    effects: Effects,
    /// Faults have stopped.
    pub(super) calm: bool,
}

impl World {
    /// A cluster that was just formed and starts now.
    pub fn new(plan: Plan) -> Self {
        let mut time_draw = Draw::new(plan.seed, 3);
        let servers: Vec<Server> = (0..plan.servers)
            .map(|at| {
                let clock_ns = time_draw.within(1, 1_000_000 * MS);
                Server::new(at, &plan, clock_ns)
            })
            .collect();
        let effects = Effects {
            trace: Some(Box::new(Trace::default())),
            ..Effects::default()
        };
        let mut world = Self {
            now_ns: 0,
            queue: Queue::default(),
            network: Network::new(&plan),
            clients: Clients::new(&plan),
            nemesis: Nemesis::new(&plan),
            recorder: Recorder::new(plan.shards, plan.servers),
            checks: Checks::new(&plan),
            disk_draw: Draw::new(plan.seed, 4),
            digest: Digest(plan.seed),
            counts: Counts::default(),
            waiting: HashMap::new(),
            arrivals: vec![0; plan.servers * plan.servers],
            effects,
            calm: false,
            servers,
            time_draw,
            plan,
        };
        for at in 0..world.servers.len() {
            world.servers[at].boot = 1;
            world.queue.at(0, Happening::Start(at, 1));
        }
        for client in 0..world.clients.len() {
            let at_ns = world.time_draw.below(100 * MS);
            world.queue.at(at_ns, Happening::Call(client));
        }
        world.queue.at(200 * MS, Happening::Strike);
        world
    }

    /// Says what goes on, where somebody wants to know.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.plan.tell {
            let at_us = self.now_ns / 1000;
            eprintln!("{:6}.{:03} ms  {}", at_us / 1000, at_us % 1000, what());
        }
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) -> Result<(), Broken> {
        let (at_ns, what) = self.queue.next().expect("servers tick for ever");
        self.now_ns = at_ns;
        self.counts.events += 1;
        self.digest.mix(at_ns);
        self.happen(what)
    }

    fn happen(&mut self, what: Happening) -> Result<(), Broken> {
        match what {
            Happening::Arrive {
                from,
                to,
                boot,
                shard,
                parcel,
            } => self.arrive(from, to, boot, shard, parcel)?,
            Happening::Written(at, boot, writing) if self.is_up(at, boot) => {
                let done = self.servers[at].log_disk.finish(writing);
                self.servers[at].pasts.complete(done.token);
                self.post(at, Event::Log(done));
            }
            Happening::Logged(at, boot, op) if self.is_up(at, boot) => {
                let done = self.servers[at].log_disk.execute(op);
                self.post(at, Event::Log(done));
            }
            Happening::Filed(at, boot, op) if self.is_up(at, boot) => {
                let done = perform_file(&self.servers[at].image_disk, op);
                self.post(at, Event::File(done));
            }
            Happening::Tick(at, boot) if self.is_up(at, boot) => {
                // A timer of its own clock, a little late.
                let ppm = self.plan.drift_ppm[at];
                let period = (TICK_NS as i64 * 1_000_000 / (1_000_000 + ppm)) as u64;
                let late = self.time_draw.below(MS / 4);
                let next = self.now_ns + period + late;
                self.queue.at(next, Happening::Tick(at, boot));
                self.check_bounds(at)?;
                self.post(at, Event::Wake);
            }
            Happening::Turn(at, boot) if self.is_up(at, boot) => self.turn(at)?,
            Happening::Perform(at, boot, effects) if self.is_up(at, boot) => {
                let mut effects = *effects;
                self.perform(at, &mut effects)?;
            }
            Happening::Rest(at, boot)
                if self.is_up(at, boot) && self.servers[at].inbox.is_empty() =>
            {
                self.post(at, Event::Rest);
            }
            Happening::Broken(at, peer) => {
                let server = raft_id(peer);
                if self.servers[at].core.is_some() {
                    self.post(at, Event::PeerDown { server });
                }
            }
            Happening::Start(at, boot) => self.start(at, boot)?,
            Happening::Round(at, boot) if self.servers[at].boot == boot => self.round(at)?,
            Happening::Call(client) => self.call(client),
            Happening::Again(asking) => self.ask(asking),
            Happening::Asked(at, boot, ticket, shard, request) => {
                if self.is_up(at, boot) {
                    let request = *request;
                    self.post(
                        at,
                        Event::Request {
                            ticket,
                            shard,
                            request,
                        },
                    );
                } else {
                    // Nobody was there to take it.
                    self.queue.at(self.now_ns + MS, Happening::CutOff(ticket));
                }
            }
            Happening::Heard(answered) => self.heard(*answered)?,
            Happening::CutOff(ticket) => self.cut_off(ticket),
            Happening::GiveUp(asking) => self.give_up(asking),
            Happening::Strike => self.strike(),
            Happening::Relent(no) => self.relent(no),
            // Of an earlier start.
            _ => {}
        }
        Ok(())
    }

    /// What is bounded keeps to its bound.
    fn check_bounds(&self, at: usize) -> Result<(), Broken> {
        let limits = &self.plan.limits;
        let core = self.servers[at].core.as_ref().expect("it is up");
        // One segment more, for the hard states that a full log still takes.
        let most = limits.log_bytes_max + limits.segment_bytes;
        let bytes = core.log_stats().disk_bytes;
        match bytes <= most {
            true => Ok(()),
            false => Err(format!(
                "server {at}: the log takes {bytes} bytes, and may take {most}"
            )),
        }
    }

    /// Whether a server runs, and is the same start as was meant.
    fn is_up(&self, at: usize, boot: u32) -> bool {
        self.servers[at].boot == boot && self.servers[at].core.is_some()
    }

    /// Something happened to a server: it takes it with its next turn.
    pub(super) fn post(&mut self, at: usize, event: Event) {
        let server = &mut self.servers[at];
        server.inbox.push(event);
        if !server.turn_is_due {
            server.turn_is_due = true;
            let wake_ns = self.time_draw.below(60_000);
            let at_ns = (self.now_ns + wake_ns).max(server.paused_until_ns);
            let boot = server.boot;
            self.queue.at(at_ns, Happening::Turn(at, boot));
        }
    }

    fn arrive(
        &mut self,
        from: usize,
        to: usize,
        boot: u32,
        shard: ShardId,
        parcel: Parcel,
    ) -> Result<(), Broken> {
        let up = self.servers[to].core.is_some();
        // A message belongs to a connection, which ends with the process; a ghost does not.
        let meant = self.servers[to].boot == boot || self.plan.has(Fault::Ghosts);
        if !meant || !self.network.is_open(from, to) {
            return Ok(());
        }
        let from = raft_id(from);
        if !up {
            return self.arrive_at_patient(from, to, shard, parcel);
        }
        let event = match parcel {
            Parcel::Raft(messages) => Event::Peer {
                from,
                shard,
                messages,
            },
            Parcel::EntriesFetch(fetch) => Event::EntriesFetch { from, shard, fetch },
            Parcel::Transfer(Transfer::ImageFetch(fetch)) => {
                Event::ImageFetch { from, shard, fetch }
            }
            Parcel::Transfer(Transfer::ImageChunk(chunk, bytes)) => Event::ImageChunk {
                from,
                shard,
                chunk,
                bytes,
            },
            Parcel::Transfer(Transfer::EntriesChunk(chunk)) => {
                Event::EntriesChunk { from, shard, chunk }
            }
        };
        self.post(to, event);
        Ok(())
    }

    fn turn(&mut self, at: usize) -> Result<(), Broken> {
        let server = &mut self.servers[at];
        if server.paused_until_ns > self.now_ns {
            let boot = server.boot;
            let until = server.paused_until_ns;
            self.queue.at(until, Happening::Turn(at, boot));
            return Ok(());
        }
        server.turn_is_due = false;
        let clock_ns = server.clock_ns(self.now_ns);
        let mut effects = std::mem::take(&mut self.effects);
        let core = server.core.as_mut().expect("it is up");
        core.turn(clock_ns, &mut server.inbox, &mut effects);
        self.counts.turns += 1;
        let result = self.look_on(at, &mut effects);
        let pause = match self.calm {
            false => self.nemesis.pause_within_turn(&self.plan),
            true => None,
        };
        if let (Some(pause_ns), Ok(())) = (pause, &result) {
            // The process stands still between what it decided and what it does.
            let until = self.now_ns + pause_ns;
            self.servers[at].paused_until_ns = until;
            let held = std::mem::take(&mut effects);
            let boot = self.servers[at].boot;
            self.queue
                .at(until, Happening::Perform(at, boot, Box::new(held)));
            effects.trace = Some(Box::default());
        } else if result.is_ok() {
            self.perform(at, &mut effects)?;
        }
        self.effects = effects;
        result
    }

    /// Lets the recorder see what a turn did.
    fn look_on(&mut self, at: usize, effects: &mut Effects) -> Result<(), Broken> {
        let trace = effects.trace.as_mut().expect("it was asked for");
        let installed = !trace.installed.is_empty();
        self.counts.installs += trace.installed.len() as u64;
        self.recorder.turned(at, trace)?;
        self.check(at, effects, installed)?;
        let core = self.servers[at].core.as_ref().expect("it is up");
        for (shard, member) in core.members() {
            let replica = member.replica();
            let applied = replica.applied_index();
            if replica.is_leader() {
                self.recorder.leads(*shard, replica.term(), at)?;
            }
            // An installed image counts as applied only once its checkpoint is durable.
            let (index, _) = member.fsm().applied();
            self.recorder
                .state(*shard, at, index, member.fsm().digest())?;
            self.digest
                .mix(applied.0 ^ replica.term().0 << 40 ^ replica.commit().0 << 20);
            self.digest.mix(member.fsm().digest());
        }
        for (_, shard, envelope) in &effects.raft {
            self.recorder.sent(*shard, at, envelope)?;
        }
        Ok(())
    }

    fn perform(&mut self, at: usize, effects: &mut Effects) -> Result<(), Broken> {
        if let Some(why) = effects.fatal.take() {
            return self.stopped(at, &why, effects);
        }
        for notice in effects.notices.drain(..) {
            self.tell(|| format!("server {at}: {notice:?}"));
        }
        self.send_raft(at, effects);
        for (to, shard, transfer) in effects.transfers.drain(..) {
            self.send(at, to, shard, Parcel::Transfer(transfer));
        }
        self.submit(at, effects);
        self.answer(at, effects);
        let server = &self.servers[at];
        let boot = server.boot;
        let core = server.core.as_ref().expect("it is up");
        if core.has_commit_to_tell() {
            let rest_ns = self.time_draw.within(MS / 20, MS);
            self.queue
                .at(self.now_ns + rest_ns, Happening::Rest(at, boot));
        }
        if server.stopping && core.is_shut_down() {
            self.stopped_in_order(at);
        } else if std::mem::take(&mut effects.again) {
            self.post(at, Event::Wake);
        }
        Ok(())
    }

    /// One parcel per peer and shard, with all its messages of this turn; each on its own where
    /// they may overtake each other.
    fn send_raft(&mut self, at: usize, effects: &mut Effects) {
        let mut raft = std::mem::take(&mut effects.raft);
        raft.sort_by_key(|(to, shard, _)| (*to, *shard));
        let mut messages = raft.drain(..).peekable();
        while let Some((to, shard, first)) = messages.next() {
            let mut batch = vec![first];
            while !self.network.reorders()
                && let Some((_, _, next)) = messages.next_if(|(t, s, _)| (*t, *s) == (to, shard))
            {
                batch.push(next);
            }
            self.send(at, to, shard, Parcel::Raft(batch));
        }
        drop(messages);
        effects.raft = raft;
    }

    /// Sends something to a server.
    pub(super) fn send(&mut self, from: usize, to: ServerId, shard: ShardId, parcel: Parcel) {
        let to = place_of(to);
        if to >= self.servers.len() {
            return;
        }
        let boot = self.servers[to].boot;
        let [first, again] = self.network.ways(from, to);
        if let (Some(way_ns), Parcel::Raft(messages)) = (again, &parcel) {
            let parcel = Parcel::Raft(messages.clone());
            self.deliver(from, to, boot, shard, way_ns, parcel);
        }
        if let Some(way_ns) = first {
            self.deliver(from, to, boot, shard, way_ns, parcel);
        }
    }

    fn deliver(
        &mut self,
        from: usize,
        to: usize,
        boot: u32,
        shard: ShardId,
        way_ns: u64,
        parcel: Parcel,
    ) {
        let link = from * self.servers.len() + to;
        let mut at_ns = self.now_ns + way_ns;
        if !self.network.reorders() {
            at_ns = at_ns.max(self.arrivals[link]);
            self.arrivals[link] = at_ns;
        }
        self.queue.at(
            at_ns,
            Happening::Arrive {
                from,
                to,
                boot,
                shard,
                parcel,
            },
        );
    }

    /// Gives the disks their work.
    fn submit(&mut self, at: usize, effects: &mut Effects) {
        let remembers = [Fault::Corrupt, Fault::LostWrite, Fault::Misdirected]
            .iter()
            .any(|fault| self.plan.has(*fault));
        for op in effects.log.drain(..) {
            let takes_ns = self.disk_time();
            let server = &mut self.servers[at];
            let ready_ns = self.now_ns.max(server.stalled_until_ns) + takes_ns;
            let boot = server.boot;
            let happening = match op {
                LogOp::Write { .. } => {
                    if remembers {
                        server.remember(&op);
                    }
                    Happening::Written(at, boot, begin(&server.log_disk, op))
                }
                LogOp::Read { .. } => Happening::Logged(at, boot, op),
                // Background work may be carried out long before its answer is heard, or after.
                other if self.disk_draw.chance(500) => {
                    Happening::Written(at, boot, begin(&server.log_disk, other))
                }
                other => Happening::Logged(at, boot, other),
            };
            self.queue.at(ready_ns, happening);
        }
        for op in effects.files.drain(..) {
            let takes_ns = self.disk_time();
            let server = &mut self.servers[at];
            // The lane does one thing after the other.
            let from_ns = self.now_ns.max(server.lane_free_ns);
            let ready_ns = from_ns.max(server.stalled_until_ns) + takes_ns;
            server.lane_free_ns = ready_ns;
            let boot = server.boot;
            self.queue.at(ready_ns, Happening::Filed(at, boot, op));
        }
    }

    fn disk_time(&mut self) -> u64 {
        let most = match self.calm {
            true => self.plan.write_ns_max.min(MS),
            false => self.plan.write_ns_max,
        };
        most / 4 + self.disk_draw.below(most)
    }

    fn answer(&mut self, at: usize, effects: &mut Effects) {
        let clock_ns = self.servers[at].clock_ns(self.now_ns);
        for mut answered in effects.answers.drain(..) {
            // As the shell does: the lease may have run out while the answer was made.
            if answered
                .lease_until_ns
                .is_some_and(|until| until <= clock_ns)
            {
                answered.result = Err(engine::shard::failure(
                    FailureKind::NotLeader,
                    "the leader's lease ran out while it answered",
                ));
            }
            self.waiting.remove(&answered.ticket);
            let way_ns = self.time_draw.within(10_000, MS / 2);
            self.queue
                .at(self.now_ns + way_ns, Happening::Heard(Box::new(answered)));
        }
    }

    /// Everything that waits for an answer of this server will not get one.
    pub(super) fn hang_up(&mut self, at: usize) {
        let mut tickets: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, asked)| **asked == at)
            .map(|(ticket, _)| *ticket)
            .collect();
        tickets.sort_unstable();
        for ticket in tickets {
            self.waiting.remove(&ticket);
            self.queue.at(self.now_ns + MS, Happening::CutOff(ticket));
        }
        for peer in 0..self.servers.len() {
            let after_ns = self.time_draw.below(5 * MS);
            self.queue
                .at(self.now_ns + after_ns, Happening::Broken(peer, at));
        }
    }

    /// A server's power fails, for so long.
    pub(super) fn crash(&mut self, at: usize, for_ns: u64) {
        self.tell(|| format!("server {at} loses power for {} ms", for_ns / MS));
        let draw = &mut self.disk_draw;
        self.servers[at].lose_power(self.now_ns, &mut || draw.next());
        self.hang_up(at);
        self.counts.restarts += 1;
        let boot = self.servers[at].boot;
        self.queue
            .at(self.now_ns + for_ns, Happening::Start(at, boot));
    }

    /// A server said that it cannot go on.
    fn stopped(&mut self, at: usize, why: &str, effects: &mut Effects) -> Result<(), Broken> {
        if !self.servers[at].is_excused() {
            return Err(format!("server {at} stopped: {why}"));
        }
        self.tell(|| format!("server {at} stops: {why}"));
        let trace = effects.trace.take();
        *effects = Effects {
            trace,
            ..Effects::default()
        };
        self.servers[at].kill();
        self.hang_up(at);
        self.counts.restarts += 1;
        let boot = self.servers[at].boot;
        let for_ns = self.time_draw.within(MS, 300 * MS);
        self.queue
            .at(self.now_ns + for_ns, Happening::Start(at, boot));
        Ok(())
    }

    fn stopped_in_order(&mut self, at: usize) {
        self.servers[at].kill();
        self.hang_up(at);
        self.counts.restarts += 1;
        let boot = self.servers[at].boot;
        let for_ns = self.time_draw.within(MS, 200 * MS);
        self.queue
            .at(self.now_ns + for_ns, Happening::Start(at, boot));
    }

    fn start(&mut self, at: usize, boot: u32) -> Result<(), Broken> {
        let server = &self.servers[at];
        if server.boot != boot || server.core.is_some() || server.refuses {
            return Ok(());
        }
        let (log, recovered) = match self.servers[at].recover(at, &self.plan) {
            Ok(found) => found,
            // A planted fault was still to come: it strikes once.
            Err(_) if self.servers[at].is_excused() => {
                self.queue.at(self.now_ns + MS, Happening::Start(at, boot));
                return Ok(());
            }
            Err(why) => return Err(format!("server {at} does not start: {why}")),
        };
        self.tell(|| format!("server {at} starts: {recovered:?}"));
        if engine::server::repair::is_damaged(&recovered) {
            return self.admit(at, log, recovered);
        }
        self.open(at, log, &recovered)
    }

    /// Opens a log that is whole.
    pub(super) fn open(
        &mut self,
        at: usize,
        log: engine::log::Log,
        recovered: &engine::log::Recovered,
    ) -> Result<(), Broken> {
        let replayed = self.note_replayed(at, &log, recovered)?;
        let (plan, now_ns) = (&self.plan, self.now_ns);
        let server = &mut self.servers[at];
        let opened = replayed.and_then(|()| server.open(at, plan, now_ns, log, recovered));
        let boot = server.boot;
        match opened {
            Ok(()) => {}
            Err(_) if server.is_excused() => {
                self.queue.at(self.now_ns + MS, Happening::Start(at, boot));
                return Ok(());
            }
            // A checkpoint was destroyed, and the image that the one before it names is long gone.
            // It says so, and which file; the others go on without it (TRACK.md, open).
            Err(why) if server.damaged && why.contains("image: entity not found") => {
                server.refuses = true;
                self.counts.refusals += 1;
                self.tell(|| format!("server {at} refuses to start: {why}"));
                return Ok(());
            }
            Err(why) => return Err(format!("server {at} does not open: {why}")),
        }
        let tick_ns = self.now_ns + self.time_draw.below(TICK_NS);
        self.queue.at(tick_ns, Happening::Tick(at, boot));
        self.post(at, Event::Wake);
        Ok(())
    }

    /// What a start replays is applied without a turn: the recorder hears of it here. The inner
    /// error is the disk's.
    fn note_replayed(
        &mut self,
        at: usize,
        log: &engine::log::Log,
        recovered: &engine::log::Recovered,
    ) -> Result<Result<(), String>, Broken> {
        for (shard, found) in &recovered.shards {
            let commit = found.checkpoint.hard_state.commit.min(found.last_index);
            let mut next = found.first_index.max(Index(2));
            while next <= commit {
                let disk = &self.servers[at].log_disk;
                let entries = match log.read_blocking(disk, *shard, next, commit, 1 << 20) {
                    Ok(entries) => entries,
                    Err(error) => return Ok(Err(error.to_string())),
                };
                let Some(last) = entries.last() else { break };
                next = Index(last.index.0 + 1);
                for entry in &entries {
                    let (index, term) = (entry.index, entry.term);
                    self.recorder
                        .applied(*shard, at, index, term, &entry.data)?;
                }
            }
        }
        Ok(Ok(()))
    }

    /// The server at an address that a refusal named.
    pub(super) fn leader_at(&self, address: &str) -> Option<usize> {
        place_at(address).filter(|at| *at < self.servers.len())
    }
}

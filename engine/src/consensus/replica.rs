//! One server's part in one raft group.
//!
//! A thin shell around raft-rs's `RawNode`: what raft-rs leaves to its user is here, and nothing
//! else. That is: which bytes go into the log batch and which messages wait for them; seeded
//! election timeouts; the lease; and the silence after a start.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::{
    Config, RawNode, StateRole,
    eraftpb::{Entry, EntryType, HardState as RaftHardState, Message, MessageType, Snapshot},
};
use wire::{Index, Lsn, RaftEnvelope, ServerId, ShardId, Term, limits};

use super::{
    Configuration, ElectionTimer, EntryStore, QuorumClock, WantedEntries, lease::lease_ns,
    split::split_append,
};
use crate::log::{EntryRef, HardState, Log};

/// Timing and bounds of a replica. Ticks are fed by the caller.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This server's raft id.
    pub id: ServerId,
    /// The raft group.
    pub shard: ShardId,
    /// Length of a tick, ns.
    pub tick_ns: u64,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// A follower waits between once and twice this many ticks for its leader.
    pub election_ticks: usize,
    /// Seed of the election timeouts.
    pub seed: u64,
    /// Proposed but uncommitted payload bytes, beyond which proposals are refused.
    pub uncommitted_bytes_max: u64,
    /// Whether this server held raft state before it started: if so it may have promised a lease,
    /// and grants no vote for one election timeout.
    pub restarted: bool,
}

/// A message that may leave now.
#[derive(Debug)]
pub struct Outgoing {
    /// To whom.
    pub to: ServerId,
    /// The message with its stamps.
    pub envelope: RaftEnvelope,
    /// What had to be durable before it may leave; asserted again where it leaves.
    pub requires: Lsn,
}

/// A change of role seen while draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleChange {
    /// This server was elected at this term.
    Elected(Term),
    /// This server led and leads no more.
    Deposed,
}

/// What a drain produced.
#[derive(Debug, Default)]
pub struct Output {
    /// Messages that may leave now.
    pub send: Vec<Outgoing>,
    /// Committed entries, in order, to be applied now.
    pub committed: Vec<Entry>,
    /// An image was accepted by raft: replace the state and say so with [`Replica::installed`].
    pub install: Option<Snapshot>,
    /// Role changes in order.
    pub roles: Vec<RoleChange>,
}

/// Why a proposal was not taken. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// This server does not lead.
    NotLeader,
    /// Leadership is being handed over.
    Transferring,
    /// Too much is proposed and not yet committed.
    Backlog,
}

/// A ready whose bytes are on their way to the disk.
#[derive(Debug)]
struct Unpersisted {
    lsn: Lsn,
    number: u64,
}

/// One raft group member.
pub struct Replica {
    config: ReplicaConfig,
    configuration: Configuration,
    voters: Vec<u64>,
    node: RawNode<EntryStore>,
    timer: ElectionTimer,
    /// For each message in `node.raft.msgs`, the stamp it echoes.
    echoes: Vec<u64>,
    unpersisted: VecDeque<Unpersisted>,
    /// Messages that wait for the disk.
    held: VecDeque<Outgoing>,
    /// An image that the state machine holds and whose checkpoint is not durable yet.
    installed: Option<Index>,
    /// Newest (term, vote) that was put into a batch.
    promised: (u64, u64),
    /// The batch with the newest term or vote.
    hard_state_lsn: Lsn,
    /// The batch with the newest entries.
    entries_lsn: Lsn,
    clock: QuorumClock,
    term_start: Index,
    silent_until_ns: u64,
    campaigns: u64,
    elections: u64,
    was_leader: bool,
    /// The commit index that the followers were told last.
    told: Index,
    seen_term: u64,
    last_contact_ns: u64,
    last_leader: ServerId,
}

impl Replica {
    /// Opens a replica on what recovery found. `applied` is what the state machine holds.
    pub fn new(
        config: ReplicaConfig,
        configuration: Configuration,
        store: EntryStore,
        applied: Index,
        now_ns: u64,
    ) -> Self {
        let raft_config = Config {
            id: config.id.0,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied: applied.0,
            max_size_per_msg: limits::APPEND_BYTES_MAX as u64,
            max_inflight_msgs: limits::APPENDS_IN_FLIGHT_MAX,
            check_quorum: !mutant!(NoCheckQuorum),
            pre_vote: true,
            batch_append: true,
            // Followers learn what is committed with the next append, or once the leader rests
            // ([`Self::tell_commit`]): a message of its own for each commit would cost each
            // follower a wake-up, and the leader another for the answer.
            skip_bcast_commit: true,
            max_uncommitted_size: config.uncommitted_bytes_max,
            max_committed_size_per_ready: limits::APPLY_BYTES_MAX as u64,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node =
            RawNode::new(&raft_config, store, &logger).expect("the raft configuration is valid");
        let timer = ElectionTimer::new(
            config.seed,
            config.id.0,
            config.election_ticks,
            2 * config.election_ticks,
        );
        let election_ns = config.election_ticks as u64 * config.tick_ns;
        let voters: Vec<u64> = configuration
            .voters()
            .map(|member| member.raft_id.0)
            .collect();
        let sole = voters == [config.id.0];
        let mut replica = Self {
            silent_until_ns: if config.restarted && !sole && !mutant!(VoteInSilence) {
                now_ns + election_ns
            } else {
                0
            },
            config,
            configuration,
            voters,
            node,
            timer,
            echoes: Vec::new(),
            unpersisted: VecDeque::new(),
            held: VecDeque::new(),
            installed: None,
            promised: (0, 0),
            hard_state_lsn: Lsn(0),
            entries_lsn: Lsn(0),
            clock: QuorumClock::default(),
            term_start: Index(u64::MAX),
            campaigns: 0,
            elections: 0,
            was_leader: false,
            told: Index(0),
            seen_term: 0,
            last_contact_ns: 0,
            last_leader: ServerId::default(),
        };
        replica.seen_term = replica.node.raft.term;
        replica.promised = (replica.node.raft.term, replica.node.raft.vote);
        if sole {
            replica.campaign();
        }
        replica.after_input(0);
        replica
    }

    fn campaign(&mut self) {
        self.node
            .campaign()
            .expect("a campaign is always a legal step");
    }

    /// To be called after every call into raft-rs: aligns echoes with the messages it made, and
    /// overwrites the election timeout it may have drawn.
    fn after_input(&mut self, echo: u64) {
        self.echoes.resize(self.node.raft.msgs.len(), echo);
        let raft = &mut self.node.raft;
        if raft.term != self.seen_term {
            self.seen_term = raft.term;
            self.campaigns += 1;
            if !mutant!(LeaseKeptAcrossTerms) {
                self.clock.reset();
            }
        }
        let ticks = self.timer.ticks(raft.term, self.campaigns);
        raft.set_randomized_election_timeout(ticks);
    }

    /// One tick has passed. Ticks that are due are fed *before* the messages of a turn: fed after,
    /// they would count time from before a heartbeat against the promise that the heartbeat renews.
    /// `disk_stalled` says that the oldest write is older than an election
    /// timeout: such a leader must not hold the cluster, such a follower must not campaign.
    pub fn tick(&mut self, disk_stalled: bool) {
        self.tell_commit();
        // A sole voter has nobody to hand over to: its clients wait for its disk either way.
        let alone = self.voters == [self.config.id.0];
        if disk_stalled && !alone {
            if self.is_leader() {
                let term = self.node.raft.term;
                self.node.raft.become_follower(term, raft::INVALID_ID);
            }
        } else if self.installed.is_none() {
            // Until the checkpoint of an image is durable raft-rs does not know that it was applied,
            // and would stop the server if it campaigned: entries before the image are not there.
            let elapsed = self.node.raft.election_elapsed;
            self.node.tick();
            // A campaign or pre-vote began: the next one waits for another draw, or two servers
            // that drew alike would collide for ever.
            if !self.is_leader() && self.node.raft.election_elapsed <= elapsed {
                self.campaigns += 1;
            }
        }
        self.after_input(0);
    }

    /// Whether followers may not know yet what is committed here.
    pub fn has_commit_to_tell(&self) -> bool {
        self.is_leader() && self.commit() > self.told
    }

    /// Tells the followers what is committed, if this leader has not done so since. To be called
    /// when nothing else goes out (Consul's `CommitTimeout`), and at each tick.
    pub fn tell_commit(&mut self) {
        if self.has_commit_to_tell() {
            self.told = self.commit();
            self.node.raft.bcast_append();
            self.after_input(0);
        }
    }

    /// Takes a message from a peer. Messages that no correct peer of this group sends are dropped
    /// here, because raft-rs aborts on them.
    pub fn step(&mut self, now_ns: u64, from: ServerId, envelope: RaftEnvelope) {
        let RaftEnvelope {
            mut message,
            sent_at,
            echo,
        } = envelope;
        let kind = message.get_msg_type();
        if message.to != self.config.id.0 || message.from != from.0 || !acceptable(kind) {
            return;
        }
        let vote = matches!(
            kind,
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
        );
        if vote && now_ns < self.silent_until_ns {
            return;
        }
        if !self.is_plausible(&message) {
            return;
        }
        if kind == MessageType::MsgHeartbeat && message.commit > self.last_index().0 {
            // A disk that lost its last writes without a trace: the leader remembers entries that
            // are no longer here. raft-rs would abort; unanswered, the leader would never send them
            // again.
            message.commit = 0;
        }
        let term = message.term;
        let answers = matches!(
            kind,
            MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse
        );
        // An error means that the message is of no use to raft, not that something is wrong.
        let _ = self.node.step(message);
        let current = term == self.node.raft.term;
        if current && self.node.raft.leader_id == from.0 {
            self.last_contact_ns = now_ns;
            self.last_leader = from;
        }
        self.after_input(if current { sent_at } else { 0 });
        let current = current || mutant!(EchoOfOlderTerm);
        if answers && current && self.is_leader() && echo != 0 && echo <= now_ns {
            let echo = match mutant!(LeaseFromReceipt) {
                true => now_ns,
                false => echo,
            };
            self.clock.echo(from.0, echo);
        }
        if mutant!(CommitOfOlderTerm) && self.is_leader() {
            let (replicated, _) = self.node.raft.mut_prs().maximal_committed_index();
            self.node.raft.raft_log.commit_to(replicated);
        }
    }

    /// Whether raft-rs may see a message: what it aborts on, or takes at face value, is left out.
    fn is_plausible(&self, message: &Message) -> bool {
        let last = self.last_index().0;
        match message.get_msg_type() {
            // A leader that is told of entries beyond its log would count them as replicated.
            MessageType::MsgAppendResponse => message.reject || message.index <= last,
            MessageType::MsgAppend => {
                let mut next = message.index;
                message.log_term != 0
                    && message.entries.iter().all(|entry| {
                        next += 1;
                        entry.index == next
                    })
            }
            _ => true,
        }
    }

    /// Proposes a batch; on success the entries have the returned consecutive indexes.
    pub fn propose(
        &mut self,
        commands: &mut Vec<Bytes>,
    ) -> Result<std::ops::Range<u64>, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        if self.node.raft.lead_transferee.is_some() {
            return Err(ProposeError::Transferring);
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.id.0;
        let entries: Vec<Entry> = commands
            .iter()
            .map(|data| {
                let mut entry = Entry::default();
                entry.set_entry_type(EntryType::EntryNormal);
                entry.data = data.clone();
                entry
            })
            .collect();
        message.set_entries(entries.into());
        let first = self.last_index().0 + 1;
        let result = self.node.step(message);
        self.after_input(0);
        result.map_err(|_| ProposeError::Backlog)?;
        commands.clear();
        Ok(first..self.last_index().0 + 1)
    }

    /// Sends a heartbeat to everyone now, so that reads waiting for a confirmation get it.
    pub fn confirm_leadership(&mut self) {
        self.node.ping();
        self.after_input(0);
    }

    /// Takes everything raft-rs has ready: bytes into the open batch of `log`, messages and
    /// committed entries into `out`.
    pub fn drain(&mut self, now_ns: u64, log: &mut Log, out: &mut Output) {
        loop {
            // Readies that had nothing to persist count as persisted with those before them.
            self.on_durable(match mutant!(LeaderCountsUnflushed) {
                true => log.open_lsn(),
                false => log.durable_lsn(),
            });
            if !self.node.has_ready() {
                break;
            }
            let mut ready = self.node.ready();
            self.note_role(out);
            if let Some(state) = ready.hs() {
                log.put_hard_state(self.config.shard, hard_state(state), ready.must_sync());
            }
            if !ready.snapshot().is_empty() {
                let snapshot = ready.snapshot().clone();
                let meta = snapshot.get_metadata();
                let (index, term) = (Index(meta.index), Term(meta.term));
                let conf_state = meta.get_conf_state().clone();
                self.node.mut_store().install(index, term, conf_state);
                out.install = Some(snapshot);
            }
            let entries = ready.take_entries();
            for entry in &entries {
                log.append(self.config.shard, entry_ref(entry));
            }
            self.node.mut_store().append(&entries);
            self.route(now_ns, &mut ready, !entries.is_empty(), log, out);
            out.committed.extend(ready.take_committed_entries());
            self.node.advance_append_async(ready);
            if out.install.is_some() || !out.committed.is_empty() {
                // What follows an image is taken once the state is replaced; what follows a
                // committed run once that is applied, so that runs keep to their bound.
                break;
            }
        }
        self.release(log.durable_lsn(), out);
    }

    /// Decides for one ready what its messages wait for.
    fn route(
        &mut self,
        now_ns: u64,
        ready: &mut raft::Ready,
        entries: bool,
        log: &Log,
        out: &mut Output,
    ) {
        let open = log.open_lsn();
        if ready.must_sync() {
            if entries {
                self.entries_lsn = open;
            }
            // A ready with entries says "must sync" whatever its hard state is: only a new term or
            // vote is what other messages promise.
            let promised = ready.hs().map(|state| (state.term, state.vote));
            if promised.is_some_and(|promised| promised != self.promised) {
                self.promised = promised.unwrap_or_default();
                if !mutant!(VoteBeforeFlush) {
                    self.hard_state_lsn = open;
                }
            }
            if !ready.snapshot().is_empty() && !mutant!(InstallAckedEarly) {
                self.entries_lsn = open;
                self.hard_state_lsn = open;
            }
        }
        let lsn = self.entries_lsn.max(self.hard_state_lsn);
        self.unpersisted.push_back(Unpersisted {
            lsn,
            number: ready.number(),
        });
        let at_once = ready.take_messages();
        let mut echoes = std::mem::take(&mut self.echoes).into_iter();
        for mut message in at_once {
            let echo = echoes.next().unwrap_or_default();
            if !self.set_append_right(&mut message) {
                continue;
            }
            for message in split_append(message) {
                out.send
                    .push(self.outgoing(now_ns, message, echo, self.hard_state_lsn));
            }
        }
        for message in ready.take_persisted_messages() {
            let echo = echoes.next().unwrap_or_default();
            let requires = match message.get_msg_type() {
                MessageType::MsgAppendResponse if !mutant!(FollowerAcksBeforeFlush) => lsn,
                _ => self.hard_state_lsn,
            };
            let outgoing = self.outgoing(now_ns, message, echo, requires);
            self.held.push_back(outgoing);
        }
    }

    /// raft-rs's `batch_append` adds entries to an empty append that is already queued for the same
    /// peer, even when that one was for another index (it was made before a rejection moved the
    /// peer back). Sent as it is, the follower would acknowledge entries it does not have. The
    /// entries are right, so the message is made to fit them; false to drop it, which raft takes
    /// as loss.
    fn set_append_right(&self, message: &mut Message) -> bool {
        if message.get_msg_type() != MessageType::MsgAppend || mutant!(AppendToWrongPlace) {
            return true;
        }
        if let Some(first) = message.entries.first().map(|entry| entry.index)
            && first != message.index + 1
        {
            let Some(term) = self.node.store().term_of(first - 1) else {
                return false;
            };
            message.index = first - 1;
            message.log_term = term;
        }
        message.log_term != 0
    }

    fn outgoing(&self, now_ns: u64, message: Message, echo: u64, requires: Lsn) -> Outgoing {
        let stamped = matches!(
            message.get_msg_type(),
            MessageType::MsgAppend | MessageType::MsgHeartbeat
        );
        Outgoing {
            to: ServerId(message.to),
            envelope: RaftEnvelope {
                sent_at: if stamped { now_ns } else { 0 },
                echo,
                message,
            },
            requires,
        }
    }

    fn note_role(&mut self, out: &mut Output) {
        let leads = self.is_leader();
        if leads && !self.was_leader {
            self.elections += 1;
            if !mutant!(LeaseKeptAcrossTerms) {
                self.clock.reset();
            }
            self.term_start = self.last_index();
            out.roles.push(RoleChange::Elected(self.term()));
        }
        if !leads && self.was_leader {
            self.term_start = Index(u64::MAX);
            out.roles.push(RoleChange::Deposed);
        }
        self.was_leader = leads;
    }

    /// Everything up to `durable` is on disk: raft may count it, and held messages may leave.
    /// Call [`Self::drain`] after it.
    pub fn on_durable(&mut self, durable: Lsn) {
        let mut number = None;
        while self
            .unpersisted
            .front()
            .is_some_and(|ready| ready.lsn <= durable)
        {
            number = self.unpersisted.pop_front().map(|ready| ready.number);
        }
        if let Some(number) = number {
            self.node.on_persist_ready(number);
            self.after_input(0);
            if let Some(index) = self.installed.take() {
                self.applied(index);
            }
        }
    }

    fn release(&mut self, durable: Lsn, out: &mut Output) {
        let mut still = VecDeque::new();
        for outgoing in self.held.drain(..) {
            if outgoing.requires <= durable {
                out.send.push(outgoing);
            } else {
                still.push_back(outgoing);
            }
        }
        self.held = still;
    }

    /// What the last ready promises is durable only with this batch (a checkpoint that goes with
    /// an installed image).
    pub fn also_requires(&mut self, lsn: Lsn) {
        self.entries_lsn = self.entries_lsn.max(lsn);
        self.hard_state_lsn = self.hard_state_lsn.max(lsn);
        if let Some(last) = self.unpersisted.back_mut() {
            last.lsn = last.lsn.max(lsn);
        }
        for held in &mut self.held {
            held.requires = held.requires.max(lsn);
        }
    }

    /// Whether a drain would find anything.
    pub fn has_ready(&self) -> bool {
        self.node.has_ready()
    }

    /// The state machine has applied up to `index`. For an installed image raft-rs is told once
    /// the image's checkpoint is durable: it aborts on an applied index beyond the persisted one.
    pub fn applied(&mut self, index: Index) {
        if index.0 > self.node.raft.raft_log.persisted {
            self.installed = Some(index);
            return;
        }
        self.node.advance_apply_to(index.0);
        self.node.mut_store().shrink_cache(index.0);
        self.after_input(0);
    }

    /// A configuration came into force (with an image, or by a committed change).
    pub fn set_configuration(&mut self, configuration: Configuration) {
        self.voters = configuration
            .voters()
            .map(|member| member.raft_id.0)
            .collect();
        self.configuration = configuration;
    }

    /// A peer's connection broke: probe it instead of pipelining into the void.
    pub fn report_unreachable(&mut self, peer: ServerId) {
        self.node.report_unreachable(peer.0);
        self.after_input(0);
    }

    /// A follower took the image it was offered, or failed to.
    pub fn report_image(&mut self, peer: ServerId, installed: bool) {
        let status = if installed {
            raft::SnapshotStatus::Finish
        } else {
            raft::SnapshotStatus::Failure
        };
        self.node.report_snapshot(peer.0, status);
        self.after_input(0);
    }

    /// Entries that a lagging follower needs and that are only on disk.
    pub fn take_wanted_entries(&self) -> Vec<WantedEntries> {
        self.node.store().take_wanted()
    }

    /// The wanted entries are here.
    pub fn entries_fetched(&mut self, wanted: WantedEntries, entries: Vec<Entry>) {
        self.node.mut_store().put_fetched(entries);
        for context in wanted.into_contexts() {
            self.node.on_entries_fetched(context);
            self.after_input(0);
        }
    }

    /// The log below raft-rs.
    pub fn store(&self) -> &EntryStore {
        self.node.store()
    }

    /// The log below raft-rs, to compact it or to offer an image.
    pub fn store_mut(&mut self) -> &mut EntryStore {
        self.node.mut_store()
    }

    /// Until when a read may be answered from the applied state, on the caller's clock; `None`
    /// when this server does not lead, has no quorum's word, is handing over, or has not yet
    /// applied an entry of its own term.
    pub fn lease_until_ns(&self, now_ns: u64) -> Option<u64> {
        if !self.reads_ready() || self.node.raft.lead_transferee.is_some() {
            return None;
        }
        let until = self.quorum_stamp_ns(now_ns)?
            + lease_ns(self.config.election_ticks as u64, self.config.tick_ns);
        (until > now_ns).then_some(until)
    }

    /// The newest send stamp that a quorum has echoed in this term.
    pub fn quorum_stamp_ns(&self, now_ns: u64) -> Option<u64> {
        if !self.is_leader() {
            return None;
        }
        let voters = self.voters.len();
        self.clock
            .quorum_stamp_ns(self.config.id.0, now_ns, &self.voters, |set| {
                set.len() > voters / 2
            })
    }

    /// Whether this server leads and has applied an entry of its own term.
    pub fn reads_ready(&self) -> bool {
        self.is_leader()
            && (self.node.raft.raft_log.applied >= self.term_start.0 || mutant!(ReadBeforeOwnTerm))
    }

    /// Another bound for the entries kept behind an image (`raft_trailing_logs`).
    pub fn set_trailing_entries_max(&mut self, trailing_entries_max: u64) {
        self.node
            .mut_store()
            .set_trailing_entries_max(trailing_entries_max);
    }

    /// Whether this server leads.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The leader this server knows of.
    pub fn leader(&self) -> Option<ServerId> {
        let id = self.node.raft.leader_id;
        (id != raft::INVALID_ID).then_some(ServerId(id))
    }

    /// Current term.
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// What this leader knows of its followers, in raft-rs's words: for whoever looks for a fault.
    pub fn followers_in_words(&self) -> String {
        let progress = self.node.raft.prs().iter();
        let progress = progress.map(|(id, progress)| {
            format!(
                "{id}: {} matched {} next {} pending image {}",
                progress.state, progress.matched, progress.next_idx, progress.pending_snapshot
            )
        });
        progress.collect::<Vec<_>>().join(", ")
    }

    /// Commit index.
    pub fn commit(&self) -> Index {
        Index(self.node.raft.raft_log.committed)
    }

    /// Applied index.
    pub fn applied_index(&self) -> Index {
        Index(self.node.raft.raft_log.applied)
    }

    /// Last index of the log, durable or not.
    pub fn last_index(&self) -> Index {
        Index(self.node.raft.raft_log.last_index())
    }

    /// Term, vote and commit index as raft-rs has them; not necessarily durable.
    pub fn hard_state(&self) -> HardState {
        hard_state(&self.node.raft.hard_state())
    }

    /// Whether raft-rs accepted an image that the next drain will hand out.
    pub fn has_pending_image(&self) -> bool {
        self.node
            .snap()
            .is_some_and(|snapshot| !snapshot.is_empty())
    }

    /// The peer set.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// How often this server was elected since it started.
    pub fn elections(&self) -> u64 {
        self.elections
    }

    /// The leader that this server last heard from, and when, ns; `None` for never since its start.
    pub fn last_heard(&self) -> Option<(ServerId, u64)> {
        (self.last_contact_ns != 0).then_some((self.last_leader, self.last_contact_ns))
    }

    /// As the leader: newest stamp of this clock that a server has echoed in this term, ns.
    pub fn echoed_ns(&self, server: ServerId) -> Option<u64> {
        self.clock.echoed_ns(server.0)
    }

    /// When this server last heard from its leader; 0 for never.
    pub fn last_contact_ns(&self) -> u64 {
        self.last_contact_ns
    }

    /// This server's raft id.
    pub fn id(&self) -> ServerId {
        self.config.id
    }

    /// Payload bytes proposed and not yet committed.
    pub fn uncommitted_bytes(&self) -> usize {
        self.node.raft.uncommitted_size()
    }
}

/// Message types a peer may send. Local ones and forwarded proposals and reads are not among them:
/// forwarding is the business of `server`, which can tell what became of a request.
fn acceptable(kind: MessageType) -> bool {
    use MessageType::*;
    matches!(
        kind,
        MsgAppend
            | MsgAppendResponse
            | MsgRequestVote
            | MsgRequestVoteResponse
            | MsgSnapshot
            | MsgHeartbeat
            | MsgHeartbeatResponse
            | MsgRequestPreVote
            | MsgRequestPreVoteResponse
            | MsgTimeoutNow
    )
}

/// raft-rs's hard state as the log keeps it.
fn hard_state(state: &RaftHardState) -> HardState {
    HardState {
        term: Term(state.term),
        vote: state.vote,
        commit: Index(state.commit),
    }
}

fn entry_ref(entry: &Entry) -> EntryRef<'_> {
    EntryRef {
        index: Index(entry.index),
        term: Term(entry.term),
        kind: entry.get_entry_type() as u8,
        data: &entry.data,
    }
}

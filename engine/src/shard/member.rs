//! One shard on one server: its replica, its state machine, and who waits on them.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, MessageType};
use wire::{
    Command, EntriesFetch, FailureKind, Index, Lsn, Query, QueryBody, RaftEnvelope, ServerId,
    ShardId, Term, Wait,
};

use super::{
    duties::Duties,
    event::{CompactionBounds, Effects, Notice, Request, Ticket, failure},
    history::History,
    images::{ImageEvent, Images, Loaded},
    reads::{Asked, Reads, Sight, not_leader},
    reconcile::{Contact, Reconciler},
    repair::Repairs,
    tickets::{Applied, Tickets},
    watch::Watches,
};
use crate::{
    consensus::{Configuration, Output, ProposeError, Replica, RoleChange, WantedEntries},
    documents::Question,
    fsm::{Fsm, Outcome, Watch, records::RecordOp},
    io::FileDone,
    log::{Checkpoint, Log, LogError},
    state::schema::Change,
};

/// One shard of this server.
pub struct Member {
    shard: ShardId,
    replica: Replica,
    fsm: Fsm,
    tickets: Tickets,
    reads: Reads,
    watches: Watches,
    history: History,
    stopping: bool,
    images: Images,
    repairs: Repairs,
    commands: Vec<Bytes>,
    askers: Vec<Option<Ticket>>,
    output: Output,
    outcomes: Vec<Outcome>,
    digest_proposed: Index,
    duties: Duties,
    reconciler: Reconciler,
    /// Reads of old entries under way for lagging followers, by log token.
    fetching: Vec<(u64, WantedEntries)>,
}

/// Most reads of old entries under way for lagging followers of one shard.
pub const ENTRY_READS_IN_FLIGHT_MAX: usize = 8;

impl Member {
    /// A shard as it was opened.
    pub fn new(
        shard: ShardId,
        replica: Replica,
        fsm: Fsm,
        history: History,
        images: Images,
    ) -> Self {
        Self {
            shard,
            replica,
            fsm,
            tickets: Tickets::default(),
            reads: Reads::default(),
            watches: Watches::default(),
            history,
            stopping: false,
            images,
            repairs: Repairs::default(),
            commands: Vec::new(),
            askers: Vec::new(),
            output: Output::default(),
            outcomes: Vec::new(),
            digest_proposed: Index(0),
            duties: Duties::default(),
            reconciler: Reconciler::default(),
            fetching: Vec::new(),
        }
    }

    /// As the leader, keeps the peer set in the catalog as nodes of this datacenter.
    pub fn keep_servers(&mut self, datacenter: &str) {
        self.reconciler = Reconciler::new(datacenter);
    }

    /// The raft group member.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The state machine.
    pub fn fsm(&self) -> &Fsm {
        &self.fsm
    }

    /// Requests that wait here.
    pub fn waiting(&self) -> usize {
        self.tickets.len() + self.reads.len() + self.askers.len()
    }

    /// Blocking queries that wait here for a change.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// What has changed lately.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Feeds ticks; before the turn's messages (see [`Replica::tick`]).
    pub fn tick(&mut self, ticks: u64, disk_stalled: bool) {
        for _ in 0..ticks {
            self.replica.tick(disk_stalled);
        }
    }

    /// The executor has nothing to do: see [`Replica::tell_commit`].
    pub fn rest(&mut self) {
        self.replica.tell_commit();
    }

    /// Takes a request: into the turn's proposals, or to the reads.
    pub fn request(
        &mut self,
        now_ns: u64,
        ticket: Ticket,
        request: Request,
        log_full: Option<String>,
        effects: &mut Effects,
    ) {
        match request {
            Request::Read(query) if self.stopping && query.waits() => {
                effects.fail(ticket, stopping());
            }
            Request::Read(query) => {
                if let Some(why) = unreadable_question(&query) {
                    return effects.fail(ticket, failure(FailureKind::Invalid, why));
                }
                let sight = Sight::new(now_ns, &self.replica, self.fsm.store(), &self.history);
                let asked = Asked::new(now_ns, ticket, query);
                self.reads.take(asked, sight, &mut self.watches, effects);
            }
            Request::Write(_) if !self.replica.is_leader() => {
                effects.fail(ticket, not_leader(&self.replica));
            }
            Request::Write(_) if log_full.is_some() => {
                effects.fail(
                    ticket,
                    failure(FailureKind::DiskFull, log_full.unwrap_or_default()),
                );
            }
            Request::Write(command) => {
                self.commands.push(command);
                self.askers.push(Some(ticket));
            }
        }
    }

    /// Nobody waits any longer for these.
    pub fn cancel(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            self.watches.take(*ticket);
        }
        self.reads.cancel(tickets);
    }

    /// Takes raft messages. `log_full`: appends are left unread, which a leader reads as loss.
    pub fn messages(
        &mut self,
        now_ns: u64,
        from: ServerId,
        messages: Vec<RaftEnvelope>,
        log_full: bool,
        effects: &mut Effects,
    ) {
        for envelope in messages {
            match envelope.message.get_msg_type() {
                MessageType::MsgAppend if log_full && !envelope.message.entries.is_empty() => {}
                MessageType::MsgSnapshot if self.needs_image(&envelope) => {
                    self.images.receive(now_ns, from, envelope, effects);
                }
                _ => self.replica.step(now_ns, from, envelope),
            }
        }
    }

    /// A snapshot message of the present or a later term, ahead of what is committed here.
    fn needs_image(&self, envelope: &RaftEnvelope) -> bool {
        let message = &envelope.message;
        Term(message.term) >= self.replica.term()
            && message.get_snapshot().get_metadata().index > self.replica.commit().0
    }

    /// Proposes everything gathered in this turn as one batch. `log_full`: nothing that nobody asked
    /// for is added. What is left of a full log is for terms, votes and what is needed to make room,
    /// and a cluster at rest would eat it up, an entry a second.
    pub fn propose(&mut self, now_ns: u64, log_full: bool, effects: &mut Effects) {
        if !log_full {
            self.do_duties(now_ns);
        }
        if self.commands.is_empty() {
            return;
        }
        self.ride_digest_check();
        let term = self.replica.term();
        match self.replica.propose(&mut self.commands) {
            Ok(indexes) => {
                for (index, asker) in indexes.zip(self.askers.drain(..)) {
                    if let (Some(trace), Some(ticket)) = (&mut effects.trace, asker) {
                        trace
                            .proposed
                            .push((self.shard, ticket, Index(index), term));
                    }
                    self.tickets.proposed(index, term, asker);
                }
            }
            Err(why) => {
                self.commands.clear();
                self.duties.refused();
                let refusal = match why {
                    ProposeError::NotLeader => not_leader(&self.replica),
                    ProposeError::Transferring => busy("leadership transfer in progress"),
                    ProposeError::Backlog => {
                        busy("too many writes are proposed and not yet committed")
                    }
                };
                for asker in self.askers.drain(..).flatten() {
                    effects.fail(asker, refusal.clone());
                }
            }
        }
    }

    /// Proposes what nobody asked for. A new leader waits until it has applied all that the one
    /// before it had committed.
    fn do_duties(&mut self, now_ns: u64) {
        if self.stopping || !self.replica.is_leader() || !self.replica.reads_ready() {
            return;
        }
        let applied = self.replica.applied_index().0;
        let mut due = self.duties.due(now_ns, applied, self.fsm.store().tables());
        due.extend(self.look_at_servers(now_ns));
        self.askers.extend(due.iter().map(|_| None));
        self.commands.extend(due);
    }

    /// What the catalog must be told of the peer set.
    fn look_at_servers(&mut self, now_ns: u64) -> Vec<Bytes> {
        if !self.reconciler.is_due(now_ns) {
            return Vec::new();
        }
        let replica = &self.replica;
        let contacts = replica
            .configuration()
            .members
            .iter()
            .map(|member| Contact {
                member,
                own: member.raft_id == replica.id(),
                echoed_ns: replica.echoed_ns(member.raft_id),
            });
        let last_heard = replica.last_heard();
        let tables = self.fsm.store().tables();
        let ops = self.reconciler.look(now_ns, last_heard, contacts, tables);
        ops.iter().map(RecordOp::encode).collect()
    }

    /// When there will be something to propose that nobody asks for, ns.
    pub fn next_duty_ns(&self) -> Option<u64> {
        let leads = self.replica.is_leader() && self.replica.reads_ready();
        let next = self.duties.next_ns();
        next.into_iter()
            .chain(self.reconciler.next_ns())
            .min()
            .filter(|_| leads && !self.stopping)
    }

    /// Lets the newest digest travel with a batch that goes out anyway (reliability promise 6).
    fn ride_digest_check(&mut self) {
        if let Some((index, digest)) = self.fsm.latest_digest()
            && index > self.digest_proposed
        {
            self.digest_proposed = index;
            self.commands
                .push(Command::DigestCheck { index, digest }.encode());
            self.askers.push(None);
        }
    }

    /// Drains consensus, applies what is committed, answers what may be answered.
    pub fn advance(&mut self, now_ns: u64, log: &mut Log, effects: &mut Effects) {
        self.reads.before_drain(now_ns, &mut self.replica);
        loop {
            let mut output = std::mem::take(&mut self.output);
            self.replica.drain(now_ns, log, &mut output);
            self.perform(now_ns, &mut output, log, effects);
            self.output = output;
            if !self.replica.has_ready() || effects.fatal.is_some() {
                break;
            }
        }
        self.answer_reads(now_ns, effects);
        self.fetch_entries(log, effects);
        self.fsm.release_some(RELEASE_ROWS_PER_TURN);
    }

    /// Answers the reads that may be answered, then asks the woken and the late again, a bounded
    /// number at a time.
    fn answer_reads(&mut self, now_ns: u64, effects: &mut Effects) {
        let sight = Sight::new(now_ns, &self.replica, self.fsm.store(), &self.history);
        self.reads.after_apply(sight, &mut self.watches, effects);
        if self.watches.is_empty() {
            return;
        }
        let waiting = self.reads.len();
        let mut answered = 0;
        while answered < WOKEN_PER_TURN_MAX {
            if let Some(waiter) = self.watches.next_woken() {
                self.reads.resume(waiter, sight, &mut self.watches, effects);
            } else if let Some(mut late) = self.watches.next_late(now_ns) {
                late.query.wait = Wait::default();
                let applied = self.replica.applied_index();
                self.history.skip_to_end(&mut late.query, applied);
                self.reads.take(late, sight, &mut self.watches, effects);
            } else {
                break;
            }
            answered += 1;
        }
        // More are woken, or some need a heartbeat round, which a turn begins at its start.
        effects.again |= answered == WOKEN_PER_TURN_MAX || self.reads.len() > waiting;
    }

    fn perform(&mut self, now_ns: u64, output: &mut Output, log: &mut Log, effects: &mut Effects) {
        for role in output.roles.drain(..) {
            let leads = matches!(role, RoleChange::Elected(_));
            self.duties.role_changed();
            self.reconciler.role_changed();
            if !leads {
                self.tickets.deposed(effects);
                for ticket in self.watches.take_unless_stale() {
                    effects.fail(ticket, not_leader(&self.replica));
                }
            }
            effects.notices.push(Notice::Leader {
                shard: self.shard,
                leads,
            });
        }
        for outgoing in output.send.drain(..) {
            if outgoing.envelope.message.get_msg_type() == MessageType::MsgSnapshot {
                self.images.offered(now_ns, outgoing.to);
            }
            effects.send(self.shard, outgoing, log.durable_lsn());
        }
        if output.install.take().is_some() {
            self.install(log, effects);
        }
        if !output.committed.is_empty() {
            let committed = std::mem::take(&mut output.committed);
            self.apply(now_ns, &committed, effects);
        }
    }

    /// Applies a committed run in one state transaction, then answers its writers.
    fn apply(&mut self, now_ns: u64, committed: &[Entry], effects: &mut Effects) {
        let mut run: Vec<(Index, Term, &[u8])> = committed
            .iter()
            .map(|entry| (Index(entry.index), Term(entry.term), entry.data.as_ref()))
            .collect();
        if mutant!(ApplyOutOfOrder)
            && let [.., last, next] = &mut run[..]
        {
            std::mem::swap(&mut last.2, &mut next.2);
        }
        if committed
            .iter()
            .any(|entry| entry.get_entry_type() != EntryType::EntryNormal)
        {
            effects.fatal = Some(
                "the log holds a configuration change, which this build does not know; run a later one".to_owned(),
            );
            return;
        }
        self.outcomes.clear();
        let (watches, history) = (&mut self.watches, &mut self.history);
        let somebody_waits = !watches.is_empty();
        if !watches.has_woken() {
            history.wakes_from(run[0].0);
        }
        let nobody_asks = !somebody_waits && !history.is_on();
        let mut changed = |index, changes: &[Change]| {
            if somebody_waits {
                watches.changed(changes);
            }
            history.record(index, changes);
        };
        let watch: Option<Watch<'_>> = match nobody_asks {
            true => None,
            false => Some(&mut changed),
        };
        let applied = self.fsm.apply_run_watched(&run, &mut self.outcomes, watch);
        if let Err(error) = applied {
            effects.fatal = Some(error.to_string());
            return;
        }
        if let Some(trace) = &mut effects.trace {
            trace.applied.extend(committed.iter().map(|entry| {
                let (index, term) = (Index(entry.index), Term(entry.term));
                (self.shard, index, term, entry.data.clone())
            }));
        }
        let mut bytes = 0;
        for ((index, term, data), outcome) in run.iter().zip(self.outcomes.drain(..)) {
            bytes += data.len() as u64 + ENTRY_LOG_OVERHEAD_BYTES;
            self.tickets
                .applied(Applied::new(*index, *term, outcome), effects);
        }
        self.images.count_applied(run.len() as u64, bytes);
        if let Some(last) = committed.last() {
            self.replica.applied(Index(last.index));
        }
        self.duties.observe(now_ns, self.fsm.store().tables());
    }

    /// Raft accepted a received image: replace the state in one step and put the checkpoint into
    /// the same batch that raft's answer waits for.
    fn install(&mut self, log: &mut Log, effects: &mut Effects) {
        let Some(Loaded {
            fsm,
            meta,
            name,
            bytes,
        }) = self.images.take_loaded(effects)
        else {
            effects.fatal = Some(format!(
                "shard {}: raft accepted an image that was not loaded",
                self.shard
            ));
            return;
        };
        let configuration = match Configuration::decode(&meta.configuration) {
            Ok(configuration) => configuration,
            Err(error) => {
                effects.fatal = Some(format!(
                    "shard {}: image {}: {error}",
                    self.shard,
                    name.file_name()
                ));
                return;
            }
        };
        log.put_checkpoint(
            self.shard,
            self.checkpoint(name.index, name.term, meta.configuration.clone()),
        );
        if !mutant!(InstallAckedEarly) {
            self.replica.also_requires(log.open_lsn());
        }
        self.fsm.replace(fsm);
        if let Some(trace) = &mut effects.trace {
            trace.installed.push((self.shard, name.index));
        }
        self.history.replaced(name.index);
        self.watches.wake_all();
        self.duties.role_changed();
        self.replica.set_configuration(configuration.clone());
        self.replica.applied(name.index);
        self.images.keep(name, bytes, log.open_lsn());
        effects.notices.push(Notice::Configuration(configuration));
        effects.notices.push(Notice::Info(format!(
            "shard {}: installed the leader's image at index {}",
            self.shard, name.index
        )));
    }

    fn checkpoint(&self, index: Index, term: Term, configuration: Bytes) -> Checkpoint {
        Checkpoint {
            hard_state: self.replica.hard_state(),
            snapshot_index: index,
            snapshot_term: term,
            configuration,
        }
    }

    /// Begins an image if one is due, and lets go of old images and of transfers that fell silent.
    /// `durable`: how far the log is.
    pub fn tend_images(&mut self, now_ns: u64, pinned: bool, durable: Lsn, effects: &mut Effects) {
        self.images.expire(now_ns, effects);
        self.images.release(durable, effects);
        for server in self.images.take_idle(now_ns) {
            self.replica.report_image(server, false);
        }
        let wanted = self.replica.store().take_image_wanted();
        if self.images.is_due(now_ns, wanted, pinned) {
            let configuration = self.replica.configuration().encode();
            let mut view = self.fsm.view();
            if mutant!(ImageAheadOfItself) {
                view.index = self.replica.last_index();
            }
            self.images.begin(view, configuration, effects);
        }
    }

    /// A background file operation of this shard ended.
    pub fn file_done(&mut self, now_ns: u64, done: FileDone, log: &mut Log, effects: &mut Effects) {
        match self.images.file_done(now_ns, done, effects) {
            ImageEvent::Nothing => {}
            ImageEvent::Written(name, bytes) => {
                let configuration = self.replica.configuration();
                let (conf_state, encoded) = (configuration.conf_state(), configuration.encode());
                log.put_checkpoint(
                    self.shard,
                    self.checkpoint(name.index, name.term, encoded.clone()),
                );
                self.images.keep(name, bytes, log.open_lsn());
                let image = crate::consensus::ImageDescriptor {
                    index: name.index,
                    term: name.term,
                    configuration: encoded,
                };
                self.replica.store_mut().offer_image(image, conf_state);
            }
            ImageEvent::Received(boxed) => {
                let (from, message) = *boxed;
                self.replica.step(now_ns, from, message);
                if !self.replica.has_pending_image() {
                    self.images.drop_loaded(effects);
                }
            }
        }
    }

    /// The log freed what lies before `first`.
    pub fn compacted(&mut self, first: Index) {
        self.replica.store_mut().compact(first);
    }

    /// Images of this shard.
    pub fn images(&mut self) -> &mut Images {
        &mut self.images
    }

    /// Starts the disk reads that lagging followers wait for.
    fn fetch_entries(&mut self, log: &mut Log, effects: &mut Effects) {
        for wanted in self.replica.take_wanted_entries() {
            let underway = self
                .fetching
                .iter()
                .any(|(_, other)| other.first == wanted.first);
            if underway || self.fetching.len() >= ENTRY_READS_IN_FLIGHT_MAX {
                // raft-rs asks again with the next heartbeat's answer.
                continue;
            }
            let bytes_max = wire::limits::APPEND_BYTES_MAX;
            match log.start_read(
                self.shard,
                wanted.first,
                wanted.last,
                bytes_max,
                &mut effects.log,
            ) {
                Ok(token) => self.fetching.push((token, wanted)),
                Err(error) => effects
                    .notices
                    .push(unreadable(self.shard, &wanted, &error)),
            }
        }
    }

    /// A log read ended; true if it was this shard's.
    pub fn entries_read(&mut self, token: u64, log: &mut Log, effects: &mut Effects) -> bool {
        let Some(at) = self.fetching.iter().position(|(mine, _)| *mine == token) else {
            return self.repairs.read(self.shard, token, log, effects);
        };
        let (_, wanted) = self.fetching.swap_remove(at);
        match log.finish_read(token) {
            Ok(entries) => {
                let entries = entries.into_iter().map(raft_entry).collect();
                self.replica.entries_fetched(wanted, entries);
            }
            Err(error) => effects
                .notices
                .push(unreadable(self.shard, &wanted, &error)),
        }
        true
    }

    /// A peer lost entries and asks for them.
    pub fn serve_entries(
        &mut self,
        now_ns: u64,
        from: ServerId,
        fetch: &EntriesFetch,
        log: &mut Log,
        effects: &mut Effects,
    ) {
        let store = self.replica.store();
        let image = self.images.newest().filter(|image| {
            // What is wanted is in the image only.
            fetch.first < store.first() && fetch.first <= image.index
        });
        if image.is_some() {
            self.images.offered(now_ns, from);
        }
        let replica = &self.replica;
        self.repairs
            .serve(self.shard, from, fetch, replica, image, log, effects);
    }

    /// Other bounds for compaction from now on.
    pub fn set_compaction(&mut self, bounds: CompactionBounds) {
        self.images
            .set_bounds(bounds.threshold_entries, bounds.interval_ns);
        self.replica
            .set_trailing_entries_max(bounds.trailing_entries_max);
    }

    /// A peer's connection broke.
    pub fn peer_down(&mut self, server: ServerId) {
        self.replica.report_unreachable(server);
    }

    /// Answers everything that waits: the server is stopping.
    pub fn shut_down(&mut self, effects: &mut Effects) {
        self.stopping = true;
        self.tickets.deposed(effects);
        self.reads.refuse_all(&stopping(), effects);
        for ticket in self.watches.take_all() {
            effects.fail(ticket, stopping());
        }
        for asker in self.askers.drain(..).flatten() {
            effects.fail(asker, stopping());
        }
        self.commands.clear();
    }
}

/// Why a question about records cannot be answered by this build.
fn unreadable_question(query: &Query) -> Option<String> {
    match &query.body {
        QueryBody::Record(question) => Question::decode(question).err().map(|e| e.to_string()),
        _ => None,
    }
}

fn stopping() -> wire::Failure {
    failure(FailureKind::ShuttingDown, "this server is shutting down")
}

fn unreadable(shard: ShardId, wanted: &WantedEntries, error: &LogError) -> Notice {
    let (first, last) = (wanted.first, wanted.last);
    Notice::Warn(format!(
        "shard {shard}: entries {first} to {last} cannot be read for a follower: {error}"
    ))
}

/// Woken or late blocking queries answered in one turn: bounds the time it takes.
pub const WOKEN_PER_TURN_MAX: usize = 1024;
/// Rows of dropped views and replaced states freed in each turn: bounds the time it takes.
const RELEASE_ROWS_PER_TURN: usize = 256;
/// What an entry costs in the log beside its payload, bytes.
pub const ENTRY_LOG_OVERHEAD_BYTES: u64 = 32;

/// When a refused client should try again, ms.
const RETRY_AFTER_MS: u32 = 100;

fn busy(why: &str) -> wire::Failure {
    let mut failure = failure(FailureKind::Busy, why);
    failure.retry_after_ms = RETRY_AFTER_MS;
    failure
}

/// An entry of the log as raft-rs wants it.
pub fn raft_entry(entry: crate::log::Entry) -> Entry {
    let mut out = Entry::default();
    out.index = entry.index.0;
    out.term = entry.term.0;
    out.set_entry_type(match entry.kind {
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => EntryType::EntryNormal,
    });
    out.data = entry.data;
    out
}

//! When may a read be answered?
//!
//! | mode | answered |
//! |---|---|
//! | stale | at once, from what this server has |
//! | default | under a valid lease, once the commit index of its arrival is applied, which is at once but while the leader's own disk is behind a quorum's; without a lease like `consistent` |
//! | consistent | once a quorum has echoed a stamp not older than the read, and the commit index of its arrival is applied |
//!
//! Reads that wait share heartbeat rounds: one is under way at a time, and whatever arrives
//! meanwhile shares the next. No read is answered before an entry of the leader's own term is
//! applied (Consul #2644).
//!
//! A blocking query is a read that may be answered, but whose index the asker has already seen: it
//! is parked with the [`Watches`], and comes back here, under the same rules, when it was woken.

use std::collections::{BTreeSet, VecDeque};

use wire::{Command, FailureKind, Index, Query, QueryBody, ReadMode, WatchFrom};

use super::{
    event::{Effects, ReadAnswer, ReadBody, Ticket, failure},
    history::{Changes, History},
    watch::{Waiter, Watches},
};
use crate::{
    consensus::Replica,
    documents::{Question, TooLong},
    fsm::read_only,
    state::Store,
};

/// A read that arrived; one that waits for a change has a deadline.
pub type Asked = Waiter;

impl Asked {
    /// A read that arrived at `now_ns`.
    pub fn new(now_ns: u64, ticket: Ticket, query: Query) -> Self {
        let deadline_ns = now_ns + u64::from(query.wait.ms) * 1_000_000;
        Self {
            ticket,
            query,
            deadline_ns,
        }
    }
}

/// What reads are judged by and answered from.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    now_ns: u64,
    replica: &'a Replica,
    store: &'a Store,
    history: &'a History,
}

impl<'a> Sight<'a> {
    /// The state of a shard at this moment.
    pub fn new(now_ns: u64, replica: &'a Replica, store: &'a Store, history: &'a History) -> Self {
        Self {
            now_ns,
            replica,
            store,
            history,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    asked: Asked,
    arrived_ns: u64,
    /// Commit index at arrival; `None` until this leader may say one.
    read_index: Option<Index>,
}

/// Reads of one shard that cannot be answered yet.
#[derive(Debug, Default)]
pub struct Reads {
    waiting: VecDeque<Waiting>,
    /// Stamp of the heartbeat round under way.
    round_ns: Option<u64>,
}

/// How long a round may stay unconfirmed before another is sent, ns.
const ROUND_RETRY_NS: u64 = 50_000_000;

impl Reads {
    /// Takes a read: answers it now if it may be, refuses it if this server does not lead and the
    /// mode needs that, keeps it until it may be answered, or parks it until there is news.
    pub fn take(
        &mut self,
        asked: Asked,
        sight: Sight<'_>,
        watches: &mut Watches,
        effects: &mut Effects,
    ) {
        let replica = sight.replica;
        let fresh_enough = replica.applied_index() >= asked.query.min_index;
        match asked.query.mode {
            ReadMode::Stale if replica.is_leader() || replica.last_contact_ns() != 0 => {
                if fresh_enough {
                    settle(asked, sight, None, watches, effects);
                } else {
                    self.keep(sight.now_ns, asked);
                }
            }
            ReadMode::Default if mutant!(FollowerAnswersDefault) && !replica.is_leader() => {
                settle(asked, sight, None, watches, effects);
            }
            _ if !replica.is_leader() => effects.fail(asked.ticket, not_leader(replica)),
            // What is committed may be known, and shown, elsewhere: a follower whose disk is faster
            // than the leader's has applied it already.
            ReadMode::Default if fresh_enough && replica.applied_index() >= replica.commit() => {
                match replica.lease_until_ns(sight.now_ns) {
                    Some(until) => settle(asked, sight, Some(until), watches, effects),
                    None => self.keep(sight.now_ns, asked),
                }
            }
            _ => self.keep(sight.now_ns, asked),
        }
    }

    /// Takes a blocking query that a change has woken. With an index from the future it may still
    /// have to wait, as in Consul.
    pub fn resume(
        &mut self,
        mut waiter: Waiter,
        sight: Sight<'_>,
        watches: &mut Watches,
        effects: &mut Effects,
    ) {
        sight.history.skip_to_wake(&mut waiter.query);
        if has_news(&waiter, sight) {
            self.take(waiter, sight, watches, effects);
        } else if let Err(waiter) = watches.park(waiter) {
            self.take(waiter, sight, watches, effects);
        }
    }

    fn keep(&mut self, arrived_ns: u64, asked: Asked) {
        self.waiting.push_back(Waiting {
            asked,
            arrived_ns,
            read_index: None,
        });
    }

    /// Nobody waits for these any longer.
    pub fn cancel(&mut self, tickets: &[Ticket]) {
        if !self.waiting.is_empty() {
            let gone: BTreeSet<Ticket> = tickets.iter().copied().collect();
            self.waiting
                .retain(|waiting| !gone.contains(&waiting.asked.ticket));
        }
    }

    /// Once a turn, after messages were taken: starts a round if one is needed.
    pub fn before_drain(&mut self, now_ns: u64, replica: &mut Replica) {
        if self.waiting.is_empty() || !replica.reads_ready() {
            return;
        }
        let commit = replica.commit();
        let mut needed = false;
        for waiting in &mut self.waiting {
            if waiting.asked.query.mode != ReadMode::Stale {
                waiting.read_index.get_or_insert(commit);
                needed = true;
            }
        }
        let stamp = replica.quorum_stamp_ns(now_ns).unwrap_or(0);
        if self
            .round_ns
            .is_some_and(|round| stamp >= round || now_ns > round + ROUND_RETRY_NS)
        {
            self.round_ns = None;
        }
        let leased = replica.lease_until_ns(now_ns).is_some();
        let unconfirmed = self.waiting.iter().any(|waiting| {
            let by_lease = leased && waiting.asked.query.mode == ReadMode::Default;
            waiting.arrived_ns > stamp && !by_lease
        });
        if needed && unconfirmed && self.round_ns.is_none() {
            self.round_ns = Some(now_ns);
            replica.confirm_leadership();
        }
    }

    /// Once a turn, after the apply step: answers what may be answered.
    pub fn after_apply(&mut self, sight: Sight<'_>, watches: &mut Watches, effects: &mut Effects) {
        if self.waiting.is_empty() {
            return;
        }
        let replica = sight.replica;
        let applied = replica.applied_index();
        let stamp = replica.quorum_stamp_ns(sight.now_ns);
        let leads = replica.is_leader();
        let lease = replica.lease_until_ns(sight.now_ns);
        for _ in 0..self.waiting.len() {
            let waiting = self.waiting.pop_front().expect("it was counted");
            let query = &waiting.asked.query;
            let stale = query.mode == ReadMode::Stale;
            if !stale && !leads {
                effects.fail(waiting.asked.ticket, not_leader(replica));
                continue;
            }
            let lease = lease.filter(|_| query.mode == ReadMode::Default);
            let echoed = stamp.is_some_and(|stamp| stamp >= waiting.arrived_ns);
            let confirmed = stale
                || (echoed || lease.is_some() || mutant!(ReadWithoutRound))
                    && waiting.read_index.is_some_and(|index| applied >= index);
            if !confirmed || applied < query.min_index {
                self.waiting.push_back(waiting);
                continue;
            }
            // A round that was echoed holds without a lease, and whatever the clock says later.
            let until = lease.filter(|_| !echoed);
            settle(waiting.asked, sight, until, watches, effects);
        }
    }

    /// Refuses everything that waits.
    pub fn refuse_all(&mut self, failure: &wire::Failure, effects: &mut Effects) {
        for waiting in self.waiting.drain(..) {
            effects.fail(waiting.asked.ticket, failure.clone());
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

/// Refusal of a server that does not lead, with the leader's address where it knows it.
pub fn not_leader(replica: &Replica) -> wire::Failure {
    let leader = replica
        .leader()
        .and_then(|id| replica.configuration().member(id));
    let mut failure = failure(FailureKind::NotLeader, "this server is not the leader");
    failure.leader = leader
        .map(|member| member.address.clone())
        .unwrap_or_default();
    failure
}

/// Whether a read has no reason to wait for a change, or none any longer. Of a watch that
/// [`changes`] tell.
fn has_news(asked: &Asked, sight: Sight<'_>) -> bool {
    !asked.query.waits()
        || asked.deadline_ns <= sight.now_ns
        || matches!(asked.query.body, QueryBody::KvWatch { .. })
        || index_of(&asked.query.body, sight) > asked.query.wait.index
        || mutant!(WokenForNothing)
}

/// The question of a query that was taken.
fn asked_of(question: &[u8]) -> Question {
    Question::decode(question).expect("it was read when the request arrived")
}

/// Answers a read that may be answered, or parks it if it waits for a change.
fn settle(
    mut asked: Asked,
    sight: Sight<'_>,
    lease_until_ns: Option<u64>,
    watches: &mut Watches,
    effects: &mut Effects,
) {
    let changes = match changes(&asked.query, sight) {
        Ok(changes) => changes,
        Err(failure) => return effects.fail(asked.ticket, failure),
    };
    // Who asks where the history stands is answered, whatever there is to tell.
    let from_cursor = matches!(
        asked.query.body,
        QueryBody::KvWatch {
            from: WatchFrom::Cursor(_),
            ..
        }
    );
    let told_all = from_cursor && !changes.as_ref().is_some_and(Changes::is_news);
    let waits = asked.query.waits() && asked.deadline_ns > sight.now_ns;
    if !has_news(&asked, sight) || waits && told_all {
        match watches.park(asked) {
            Ok(()) => return,
            Err(back) => asked = back,
        }
    }
    let answer = match changes {
        Some(changes) => answer(
            sight,
            sight.replica.applied_index(),
            ReadBody::Changes(changes),
        ),
        None => match evaluate(&asked.query, sight) {
            Ok(answer) => answer,
            Err(why) => {
                let why = failure(FailureKind::TooLarge, why.to_string());
                return effects.fail(asked.ticket, why);
            }
        },
    };
    let lease_until_ns = lease_until_ns.filter(|_| !mutant!(LeaseWithoutRecheck));
    effects.read(asked.ticket, answer, lease_until_ns);
}

/// What a watch is told, if the query is one that asks for changes.
fn changes(query: &Query, sight: Sight<'_>) -> Result<Option<Changes>, wire::Failure> {
    let QueryBody::KvWatch { prefix, from } = &query.body else {
        return Ok(None);
    };
    if !sight.history.is_on() {
        return Err(failure(FailureKind::Invalid, WATCHES_ARE_OFF));
    }
    let applied = sight.replica.applied_index();
    Ok(match from {
        WatchFrom::Now => Some(sight.history.now(applied)),
        WatchFrom::Cursor(after) => Some(sight.history.since(prefix, *after, applied)),
        WatchFrom::Rows => None,
    })
}

/// Why a server without a history tells of no changes.
const WATCHES_ARE_OFF: &str =
    "watches are switched off on this server (limits.watch_history_bytes is 0)";

/// `X-Consul-Index` of what a query would be answered now.
fn index_of(body: &QueryBody, sight: Sight<'_>) -> Index {
    match body {
        QueryBody::KvGet { key } => sight.store.kv_get(key).0,
        QueryBody::KvList { prefix, .. } | QueryBody::KvKeys { prefix, .. } => {
            sight.store.kv_prefix_index(prefix)
        }
        QueryBody::Status => sight.replica.commit(),
        // They wait for no index.
        QueryBody::Txn(_) | QueryBody::KvWatch { .. } => sight.replica.applied_index(),
        QueryBody::Record(question) => asked_of(question).index(sight.store.tables()),
    }
}

fn evaluate(query: &Query, sight: Sight<'_>) -> Result<ReadAnswer, TooLong> {
    let Sight { replica, store, .. } = sight;
    let (index, body) = match &query.body {
        QueryBody::KvGet { key } => {
            let (index, row) = store.kv_get(key);
            (index, ReadBody::Row(row))
        }
        QueryBody::KvList {
            prefix,
            start_after,
            limit,
        } => {
            let list = store.kv_list(prefix, start_after, *limit);
            (list.index(), ReadBody::List(list))
        }
        QueryBody::KvKeys {
            prefix,
            separator,
            start_after,
            limit,
        } => {
            let keys = store.kv_keys(prefix, separator, start_after, *limit);
            (keys.index(), ReadBody::Keys(keys))
        }
        QueryBody::Status => (replica.commit(), ReadBody::Status(status(replica))),
        QueryBody::Txn(command) => {
            let outcome = match Command::decode(command) {
                Ok(Command::Txn(ops)) => read_only(store.tables(), &ops),
                _ => unreachable!("the query was checked when it was decoded"),
            };
            (replica.applied_index(), ReadBody::Txn(outcome))
        }
        QueryBody::Record(question) => {
            let question = asked_of(question);
            let document = question.answer(store.tables())?;
            (
                question.index(store.tables()),
                ReadBody::Document(document.into()),
            )
        }
        // What asks for changes was answered by them: this one begins with the rows.
        QueryBody::KvWatch { prefix, .. } => {
            let list = store.kv_list(prefix, b"", 0);
            (replica.applied_index(), ReadBody::List(list))
        }
    };
    Ok(answer(sight, index, body))
}

fn answer(sight: Sight<'_>, index: Index, body: ReadBody) -> ReadAnswer {
    let Sight {
        now_ns, replica, ..
    } = sight;
    let last_contact_ms = if replica.is_leader() {
        0
    } else {
        now_ns.saturating_sub(replica.last_contact_ns()) / 1_000_000
    };
    ReadAnswer {
        index: Index(index.0.max(1)),
        known_leader: replica.leader().is_some(),
        last_contact_ms,
        body,
    }
}

/// The cluster as this replica sees it.
pub fn status(replica: &Replica) -> wire::ClusterStatus {
    let leader = replica.leader();
    let mut members = replica.configuration().members.clone();
    for member in &mut members {
        member.leader = Some(member.raft_id) == leader;
    }
    wire::ClusterStatus {
        leader: leader
            .and_then(|id| replica.configuration().member(id))
            .map(|member| member.address.clone())
            .unwrap_or_default(),
        term: replica.term(),
        commit: replica.commit(),
        applied: replica.applied_index(),
        members,
    }
}

//! When may a read be answered?
//!
//! | mode | answered |
//! |---|---|
//! | stale | at once, from what this server has |
//! | default | at once under a valid lease; without one like `consistent` |
//! | consistent | once a quorum has echoed a stamp not older than the read, and the commit index of its arrival is applied |
//!
//! Reads that wait share heartbeat rounds: one is under way at a time, and whatever arrives
//! meanwhile shares the next. No read is answered before an entry of the leader's own term is
//! applied (Consul #2644).

use std::collections::VecDeque;

use wire::{Command, FailureKind, Index, Query, QueryBody, ReadMode};

use super::event::{Effects, ReadAnswer, ReadBody, Ticket, failure};
use crate::{consensus::Replica, fsm::read_only, state::Store};

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    query: Query,
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
    /// mode needs that, or keeps it.
    pub fn take(
        &mut self,
        now_ns: u64,
        ticket: Ticket,
        query: Query,
        replica: &Replica,
        store: &Store,
        effects: &mut Effects,
    ) {
        let fresh_enough = replica.applied_index() >= query.min_index;
        match query.mode {
            ReadMode::Stale if replica.is_leader() || replica.last_contact_ns() != 0 => {
                if fresh_enough {
                    effects.read(ticket, evaluate(now_ns, &query, replica, store), None);
                } else {
                    self.park(now_ns, ticket, query);
                }
            }
            _ if !replica.is_leader() => effects.fail(ticket, not_leader(replica)),
            ReadMode::Default if fresh_enough => match replica.lease_until_ns(now_ns) {
                Some(until) => {
                    effects.read(
                        ticket,
                        evaluate(now_ns, &query, replica, store),
                        Some(until),
                    );
                }
                None => self.park(now_ns, ticket, query),
            },
            _ => self.park(now_ns, ticket, query),
        }
    }

    fn park(&mut self, arrived_ns: u64, ticket: Ticket, query: Query) {
        self.waiting.push_back(Waiting {
            ticket,
            query,
            arrived_ns,
            read_index: None,
        });
    }

    /// Once a turn, after messages were taken: starts a round if one is needed.
    pub fn before_drain(&mut self, now_ns: u64, replica: &mut Replica) {
        if self.waiting.is_empty() || !replica.reads_ready() {
            return;
        }
        let commit = replica.commit();
        let mut needed = false;
        for waiting in &mut self.waiting {
            if waiting.query.mode != ReadMode::Stale {
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
        let unconfirmed = self
            .waiting
            .iter()
            .any(|waiting| waiting.arrived_ns > stamp);
        if needed && unconfirmed && self.round_ns.is_none() {
            self.round_ns = Some(now_ns);
            replica.confirm_leadership();
        }
    }

    /// Once a turn, after the apply step: answers what may be answered.
    pub fn after_apply(
        &mut self,
        now_ns: u64,
        replica: &Replica,
        store: &Store,
        effects: &mut Effects,
    ) {
        let applied = replica.applied_index();
        if self.waiting.is_empty() {
            return;
        }
        let stamp = replica.quorum_stamp_ns(now_ns);
        let leads = replica.is_leader();
        self.waiting.retain(|waiting| {
            let stale = waiting.query.mode == ReadMode::Stale;
            if !stale && !leads {
                effects.fail(waiting.ticket, not_leader(replica));
                return false;
            }
            let confirmed = stale
                || stamp.is_some_and(|stamp| stamp >= waiting.arrived_ns)
                    && waiting.read_index.is_some_and(|index| applied >= index);
            if !confirmed || applied < waiting.query.min_index {
                return true;
            }
            effects.read(
                waiting.ticket,
                evaluate(now_ns, &waiting.query, replica, store),
                None,
            );
            false
        });
    }

    /// Refuses everything that waits.
    pub fn refuse_all(&mut self, failure: &wire::Failure, effects: &mut Effects) {
        for waiting in self.waiting.drain(..) {
            effects.fail(waiting.ticket, failure.clone());
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

fn evaluate(now_ns: u64, query: &Query, replica: &Replica, store: &Store) -> ReadAnswer {
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
        QueryBody::KvKeys { prefix, separator } => {
            let keys = store.kv_keys(prefix, separator);
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
    };
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

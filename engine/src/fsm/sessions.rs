//! How does a session come, live and die, and what becomes of its locks?
//!
//! As in Consul: a session belongs to a node and dies with it, with any check it is bound to, and
//! when its TTL is over. What it held is released or deleted, and for its lock-delay nobody may lock
//! those keys again, so that a holder who does not know yet can stop.
//!
//! Unlike in Consul, time is part of the state. The *lease clock* ([`lease_clock_ms`]) counts
//! milliseconds by commands in which the leader says how much time has passed ([`Tick`]); no record
//! holds a wall-clock time, and a new leader goes on where the last one was. A renewal is a command
//! too: it is answered when it is in the log, and no change of leader forgets it. Expiry and
//! lock-delays are therefore decided in here, the same on every server, without a gap between a
//! check and what it was made for.
//!
//! The clock never gains on real time between two moments by more than one tick's cap
//! (`shard::duties`), so that a session whose deadline is one and a half TTLs after its last
//! renewal never ends within one TTL of it.

use serde::{Deserialize, Serialize};
use wire::{Index, KvRowRef, Uuid, limits};

use super::kv;
use crate::state::{
    KvRow, Tables, Txn,
    index::{Arg, IndexError, Key},
    records::{LockDelay, PreparedQuery, RecordRow, Session, SessionCheck, SystemMetadata},
    schema::{
        CHECKS_ID, KVS_SESSION, Kvs, LOCK_DELAYS_UNTIL, LockDelays, PREPARED_QUERIES_SESSION,
        PreparedQueries, SESSION_CHECKS_NODE_CHECK, SESSION_CHECKS_SESSION, SESSIONS_DEADLINE,
        SESSIONS_NODE, SESSIONS_TTL, SessionChecks, Sessions, SystemMetadatas,
    },
    tree::Keyed,
};

/// Longest lock-delay, ns: longer ones are cut (Consul `MaxLockDelay`).
pub const LOCK_DELAY_NS_MAX: u64 = 60 * 1_000_000_000;
/// Sessions that expire, and lock-delays that end, at one tick: bounds the time that it takes.
pub const EXPIRED_PER_TICK_MAX: usize = 256;
/// Key of the lease clock in the system's metadata.
const LEASE_CLOCK: &str = "lease-clock-ms";

/// What a session command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionVerb {
    /// Makes it.
    Create,
    /// Ends it. True whether or not it was there.
    Destroy,
    /// Begins its TTL anew. False where there is none of this id.
    Renew,
}

/// A command about a session. Consul: `structs.SessionRequest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SessionRequest {
    /// What to do.
    pub op: SessionVerb,
    /// The session; its id is all that `Destroy` and `Renew` look at.
    pub session: Session,
}

/// A leader's word that time has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tick {
    /// How much, ms.
    pub elapsed_ms: u64,
}

/// Carries out a session command at `index`; `Err` is Consul's reason why not.
pub(super) fn apply(
    txn: &mut Txn<'_>,
    index: Index,
    request: &SessionRequest,
) -> Result<bool, String> {
    let id = &request.session.id;
    match request.op {
        SessionVerb::Create => create(txn, index, request.session.clone()).map(|()| true),
        SessionVerb::Destroy => {
            if let Some(session) = get(txn.tables(), id).cloned() {
                end(txn, index, &session);
            }
            Ok(true)
        }
        SessionVerb::Renew => Ok(renew(txn, id)),
    }
}

/// A session by its id.
pub fn get<'t>(tables: &'t Tables, id: &str) -> Option<&'t RecordRow<Session>> {
    let mut key = Key::default();
    key.lower(id);
    tables.sessions.get(key.as_bytes())
}

/// Milliseconds that leaders have counted.
pub fn lease_clock_ms(tables: &Tables) -> u64 {
    clock_row(tables).map_or(0, |row| row.value.parse().expect("written as a number"))
}

/// Index of the command that moved the lease clock last; 0 for none.
pub fn lease_clock_moved(tables: &Tables) -> u64 {
    clock_row(tables).map_or(0, |row| row.modify_index)
}

/// Whether something's time is over that is still there: more than one tick may end.
pub fn is_overdue(tables: &Tables) -> bool {
    let now_ms = lease_clock_ms(tables);
    let mut overdue = false;
    search(
        tables
            .sessions
            .find_prefix(&SESSIONS_DEADLINE, &0, |session| {
                overdue |= session.deadline_ms().is_some_and(|at| at <= now_ms);
                false
            }),
    );
    search(
        tables
            .lock_delays
            .find_prefix(&LOCK_DELAYS_UNTIL, &0, |delay| {
                overdue |= delay.until_ms <= now_ms;
                false
            }),
    );
    overdue
}

/// Whether anything in the state waits for the lease clock.
pub fn needs_lease_clock(tables: &Tables) -> bool {
    shortest_ttl_ms(tables).is_some() || !tables.lock_delays.is_empty()
}

/// The shortest TTL of all sessions, ms; `None` where none has one.
pub fn shortest_ttl_ms(tables: &Tables) -> Option<u64> {
    let mut shortest = None;
    search(tables.sessions.find_prefix(&SESSIONS_TTL, &0, |session| {
        shortest = Some(session.ttl_ms);
        false
    }));
    shortest
}

fn clock_row(tables: &Tables) -> Option<&RecordRow<SystemMetadata>> {
    tables.system_metadata.get(LEASE_CLOCK_KEY)
}

/// The primary key of [`LEASE_CLOCK`].
const LEASE_CLOCK_KEY: &[u8] = b"lease-clock-ms\0";

fn create(txn: &mut Txn<'_>, index: Index, mut session: Session) -> Result<(), String> {
    if session.id.is_empty() {
        return Err("Missing session ID".to_owned());
    }
    if session.id.len() > limits::SESSION_BYTES_MAX {
        return Err(format!(
            "session ID of {} bytes is over the limit of {}",
            session.id.len(),
            limits::SESSION_BYTES_MAX
        ));
    }
    if get(txn.tables(), &session.id).is_some() {
        return Err(format!("session {:?} exists already", session.id));
    }
    match &*session.behavior {
        "" => session.behavior = "release".to_owned(),
        "release" | "delete" => {}
        other => return Err(format!("Invalid session behavior: {other}")),
    }
    let tables = txn.tables();
    let mut node = Key::default();
    node.lower(&session.node);
    if tables.nodes.get(node.as_bytes()).is_none() {
        return Err("Missing node registration".to_owned());
    }
    for id in bound_checks(&session) {
        let query: &[Arg<'_>] = &[Arg::Text(&session.node), Arg::Text(id)];
        let check = tables.checks.first(&CHECKS_ID, query);
        match check.map_err(|error| error.to_string())? {
            None => return Err(format!("Missing check '{id}' registration")),
            Some(check) if check.status == "critical" => {
                return Err(format!("Check '{id}' is in critical state"));
            }
            Some(_) => {}
        }
    }
    (session.create_index, session.modify_index) = (index.0, index.0);
    session.renewed_at_ms = lease_clock_ms(tables);
    for id in bound_checks(&session)
        .map(str::to_owned)
        .collect::<Vec<_>>()
    {
        let bound = SessionCheck {
            node: session.node.clone(),
            check_id: id,
            session: session.id.clone(),
        };
        put::<SessionChecks, _>(txn, bound)?;
    }
    txn.touch::<SessionChecks>(index);
    put::<Sessions, _>(txn, session)?;
    txn.touch::<Sessions>(index);
    Ok(())
}

/// Ids of the checks that a session dies with.
fn bound_checks(session: &Session) -> impl Iterator<Item = &str> {
    let of_services = session.service_checks.iter().map(|check| &*check.id);
    session
        .node_checks
        .iter()
        .map(|id| &**id)
        .chain(of_services)
}

/// Begins the TTL anew. No index moves: nobody who watches a session wants to hear of it.
fn renew(txn: &mut Txn<'_>, id: &str) -> bool {
    let tables = txn.tables();
    let Some(session) = get(tables, id) else {
        return false;
    };
    let now_ms = lease_clock_ms(tables);
    if session.renewed_at_ms != now_ms && session.ttl_ms > 0 {
        let mut renewed = Session::clone(session);
        renewed.renewed_at_ms = now_ms;
        put::<Sessions, _>(txn, renewed).expect("no longer than it was");
    }
    true
}

/// Ends a session: what it held is released or deleted, and delayed.
fn end(txn: &mut Txn<'_>, index: Index, session: &Session) {
    let key = RecordRow::new(session.clone()).expect("as it was stored");
    txn.remove::<Sessions>(key.key());
    txn.touch::<Sessions>(index);
    for bound in found(|each| {
        let query: &[Arg<'_>] = &[Arg::Text(&session.id)];
        let tables = txn.tables();
        search(
            tables
                .session_checks
                .find(&SESSION_CHECKS_SESSION, query, each),
        );
    }) {
        txn.remove::<SessionChecks>(bound.key());
        txn.touch::<SessionChecks>(index);
    }
    let held = found(|each| {
        let tables = txn.tables();
        search(tables.kvs.find(&KVS_SESSION, session.id.as_bytes(), each));
    });
    for row in held.iter().filter(|_| !mutant!(SessionKeepsLocks)) {
        let_go(txn, index, session, row);
    }
    for query in queries_of(txn.tables(), &session.id) {
        txn.remove::<PreparedQueries>(query.key());
        txn.touch::<PreparedQueries>(index);
    }
}

/// The prepared queries that die with a session.
fn queries_of(tables: &Tables, id: &str) -> Vec<RecordRow<PreparedQuery>> {
    let Some(id) = Uuid::parse(id) else {
        return Vec::new();
    };
    found(|each| {
        let query: &[Arg<'_>] = &[Arg::Uuid(&id.0)];
        search(
            tables
                .prepared_queries
                .find(&PREPARED_QUERIES_SESSION, query, each),
        );
    })
}

/// Searches are written here, and fit their indexes.
fn search(found: Result<(), IndexError>) {
    found.expect("a query of its index's type");
}

fn let_go(txn: &mut Txn<'_>, index: Index, session: &Session, row: &KvRow) {
    if session.behavior == "delete" {
        kv::delete(txn, index, row.key());
    } else {
        let released = KvRowRef {
            session: b"",
            modify_index: index,
            ..row.as_ref()
        };
        txn.put::<Kvs>(KvRow::new(released, &mut Vec::new()))
            .expect("no index of kvs can refuse a row");
        txn.touch::<Kvs>(index);
    }
    let delay_ms = session
        .lock_delay
        .min(LOCK_DELAY_NS_MAX)
        .div_ceil(1_000_000);
    if delay_ms > 0 {
        let until_ms = lease_clock_ms(txn.tables()) + delay_ms;
        let delay = LockDelay {
            key: row.key().to_vec(),
            until_ms,
        };
        put::<LockDelays, _>(txn, delay).expect("a key that kvs holds");
    }
}

/// Whether nobody may lock this key for the time being.
pub(super) fn is_delayed(tables: &Tables, key: &[u8]) -> bool {
    let delay = tables.lock_delays.get(key);
    delay.is_some_and(|delay| delay.until_ms > lease_clock_ms(tables)) && !mutant!(LockDelayIgnored)
}

/// Ends the sessions that are bound to a check which went, or became critical.
pub(super) fn invalidate_for_check(txn: &mut Txn<'_>, index: Index, node: &str, check: &str) {
    let bound = found(|each| {
        let query: &[Arg<'_>] = &[Arg::Text(node), Arg::Text(check)];
        let tables = txn.tables();
        search(
            tables
                .session_checks
                .find(&SESSION_CHECKS_NODE_CHECK, query, each),
        );
    });
    for bound in bound {
        if let Some(session) = get(txn.tables(), &bound.session).cloned() {
            end(txn, index, &session);
        }
    }
}

/// Ends the sessions of a node that went.
pub(super) fn invalidate_for_node(txn: &mut Txn<'_>, index: Index, node: &str) {
    let sessions = found(|each| {
        let query: &[Arg<'_>] = &[Arg::Text(node)];
        search(txn.tables().sessions.find(&SESSIONS_NODE, query, each));
    });
    for session in sessions {
        end(txn, index, &session);
    }
}

/// Lets time pass: ends the sessions whose time is over, the longest overdue first, and forgets
/// lock-delays that are over.
pub(super) fn tick(txn: &mut Txn<'_>, index: Index, tick: Tick) -> bool {
    let before = clock_row(txn.tables()).map(|row| SystemMetadata::clone(row));
    let now_ms = lease_clock_ms(txn.tables()).saturating_add(tick.elapsed_ms);
    let row = SystemMetadata {
        key: LEASE_CLOCK.to_owned(),
        value: now_ms.to_string(),
        create_index: before.map_or(index.0, |row| row.create_index),
        modify_index: index.0,
    };
    put::<SystemMetadatas, _>(txn, row).expect("it is short");
    let over = first(|each| {
        let sessions = &txn.tables().sessions;
        search(sessions.find_prefix(&SESSIONS_DEADLINE, &0, |row| {
            row.deadline_ms().is_some_and(|at| at <= now_ms) && each(row)
        }));
    });
    for session in over {
        end(txn, index, &session);
    }
    let over = first(|each| {
        let delays = &txn.tables().lock_delays;
        search(delays.find_prefix(&LOCK_DELAYS_UNTIL, &0, |row| {
            row.until_ms <= now_ms && each(row)
        }));
    });
    for delay in over {
        txn.remove::<LockDelays>(delay.key());
    }
    true
}

/// All rows that a search finds.
fn found<R: Clone>(search: impl FnOnce(&mut dyn FnMut(&R) -> bool)) -> Vec<R> {
    let mut rows = Vec::new();
    search(&mut |row: &R| {
        rows.push(row.clone());
        true
    });
    rows
}

/// The first [`EXPIRED_PER_TICK_MAX`] rows that a search finds.
fn first<R: Clone>(search: impl FnOnce(&mut dyn FnMut(&R) -> bool)) -> Vec<R> {
    let mut rows = Vec::new();
    search(&mut |row: &R| {
        rows.push(row.clone());
        rows.len() < EXPIRED_PER_TICK_MAX
    });
    rows
}

fn put<D, T>(txn: &mut Txn<'_>, record: T) -> Result<(), String>
where
    D: crate::state::schema::InSchema<Row = RecordRow<T>>,
    T: crate::state::records::Record,
{
    let row = RecordRow::new(record).map_err(|error| error.to_string())?;
    txn.put::<D>(row).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;

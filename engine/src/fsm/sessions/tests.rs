//! Sessions and locks against a plain model: a few maps, and Consul's rules as one reads them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use wire::{Command, Index, KvCommand, KvVerb, Term};

use super::*;
use crate::{
    fsm::{Fsm, Outcome, records::RecordOp},
    state::{
        records::{Check, Node},
        schema::{Checks, Nodes},
    },
};

const NODES: [&str; 2] = ["alpha", "Beta"];
const CHECKS: [&str; 2] = ["serfHealth", "disk"];
const SESSIONS: [&str; 3] = ["s-one", "s-two", "s-three"];
const KEYS: [&str; 4] = ["a", "a/b", "c", "d"];

/// Both nodes, each with both checks, passing.
fn with_catalog() -> Fsm {
    let mut fsm = Fsm::new();
    let mut txn = fsm.store.begin();
    for node in NODES {
        let row = Node {
            node: node.into(),
            ..Node::default()
        };
        put::<Nodes, _>(&mut txn, row).unwrap();
        for check in CHECKS {
            set_check(&mut txn, node, check, "passing");
        }
    }
    txn.commit();
    fsm
}

fn set_check(txn: &mut Txn<'_>, node: &str, check: &str, status: &str) {
    let row = Check {
        node: node.into(),
        check_id: check.into(),
        status: status.into(),
        ..Check::default()
    };
    put::<Checks, _>(txn, row).unwrap();
}

fn carry_out(fsm: &mut Fsm, bytes: bytes::Bytes) -> Outcome {
    let index = Index(fsm.applied().0.0 + 1);
    let mut outcomes = Vec::new();
    fsm.apply_run(&[(index, Term(1), bytes)], &mut outcomes)
        .expect("a known command");
    outcomes.remove(0)
}

fn session(fsm: &mut Fsm, op: SessionVerb, session: Session) -> Outcome {
    carry_out(
        fsm,
        RecordOp::Session(SessionRequest { op, session }).encode(),
    )
}

fn kv(fsm: &mut Fsm, verb: KvVerb, key: &str, session: &str) -> Outcome {
    let command = KvCommand {
        verb,
        key: key.as_bytes(),
        value: b"value",
        flags: 0,
        index: 0,
        session: session.as_bytes(),
    };
    carry_out(fsm, Command::Kv(command).encode())
}

fn pass(fsm: &mut Fsm, elapsed_ms: u64) {
    let done = carry_out(fsm, RecordOp::LeaseClock(Tick { elapsed_ms }).encode());
    assert_eq!(done, Outcome::Done { ok: true });
}

fn wanted(id: &str, ttl_ms: u64) -> Session {
    Session {
        id: id.into(),
        node: "alpha".into(),
        behavior: "release".into(),
        ttl_ms,
        node_checks: vec!["serfHealth".into()],
        lock_delay: 15_000_000_000,
        ..Session::default()
    }
}

const YES: Outcome = Outcome::Done { ok: true };
const NO: Outcome = Outcome::Done { ok: false };

fn refused(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(why) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn what_cannot_be_made_is_refused_in_consuls_words() {
    let mut fsm = with_catalog();
    let mut create = |change: &dyn Fn(&mut Session)| {
        let mut session_ = wanted("s", 0);
        change(&mut session_);
        refused(session(&mut fsm, SessionVerb::Create, session_))
    };
    assert_eq!(
        create(&|s| s.node = "gone".into()),
        "Missing node registration"
    );
    assert_eq!(
        create(&|s| s.node_checks = vec!["nope".into()]),
        "Missing check 'nope' registration"
    );
    let service_check = ServiceCheckNamed("web");
    assert_eq!(
        create(&|s| s.service_checks = vec![service_check.clone().into()]),
        "Missing check 'web' registration"
    );
    assert_eq!(
        create(&|s| s.behavior = "x".into()),
        "Invalid session behavior: x"
    );
    assert_eq!(create(&|s| s.id.clear()), "Missing session ID");
    let mut txn = fsm.store.begin();
    set_check(&mut txn, "alpha", "disk", "critical");
    txn.commit();
    let mut bound = wanted("s", 0);
    bound.node_checks = vec!["disk".into()];
    assert_eq!(
        refused(session(&mut fsm, SessionVerb::Create, bound)),
        "Check 'disk' is in critical state"
    );
    assert_eq!(fsm.store().tables().sessions.len(), 0);
    assert_eq!(session(&mut fsm, SessionVerb::Create, wanted("s", 0)), YES);
    assert!(refused(session(&mut fsm, SessionVerb::Create, wanted("s", 0))).contains("exists"));
}

#[derive(Clone)]
struct ServiceCheckNamed(&'static str);

impl From<ServiceCheckNamed> for crate::state::records::ServiceCheck {
    fn from(named: ServiceCheckNamed) -> Self {
        Self {
            id: named.0.into(),
            ..Self::default()
        }
    }
}

/// Consul's gotchas 3 and 4, 11 and 27, in one life of a lock.
#[test]
fn a_lock_is_taken_kept_released_and_delayed() {
    let mut fsm = with_catalog();
    session(&mut fsm, SessionVerb::Create, wanted("s-one", 10_000));
    session(&mut fsm, SessionVerb::Create, wanted("s-two", 0));
    assert_eq!(kv(&mut fsm, KvVerb::Lock, "k", "s-one"), YES);
    assert_eq!(kv(&mut fsm, KvVerb::Lock, "k", "s-two"), NO);
    let row = |fsm: &Fsm| fsm.store().tables().kvs.get(b"k").unwrap().clone();
    assert_eq!(
        (row(&fsm).lock_index(), row(&fsm).session()),
        (1, &b"s-one"[..])
    );
    // Its holder takes it again: no new lock index, and the same value moves nothing.
    let before = row(&fsm).modify_index();
    assert_eq!(kv(&mut fsm, KvVerb::Lock, "k", "s-one"), YES);
    assert_eq!(
        (row(&fsm).lock_index(), row(&fsm).modify_index()),
        (1, before)
    );
    // A renewal moves no index.
    let sessions = fsm.store().tables().max_index(&["sessions"]);
    assert_eq!(
        session(&mut fsm, SessionVerb::Renew, wanted("s-one", 0)),
        YES
    );
    assert_eq!(fsm.store().tables().max_index(&["sessions"]), sessions);
    // Released by hand, it is free at once.
    assert_eq!(kv(&mut fsm, KvVerb::Unlock, "k", "s-one"), YES);
    assert_eq!(kv(&mut fsm, KvVerb::Lock, "k", "s-two"), YES);
    assert_eq!(row(&fsm).lock_index(), 2);
    // Its holder destroyed, it is delayed: `false`, not an error.
    assert_eq!(
        session(&mut fsm, SessionVerb::Destroy, wanted("s-two", 0)),
        YES
    );
    assert_eq!((row(&fsm).session(), row(&fsm).lock_index()), (&b""[..], 2));
    assert_eq!(kv(&mut fsm, KvVerb::Lock, "k", "s-one"), NO);
    assert_eq!(kv(&mut fsm, KvVerb::Lock, "k", "nobody"), NO);
    for _ in 0..14 {
        pass(&mut fsm, 1000);
        session(&mut fsm, SessionVerb::Renew, wanted("s-one", 0));
    }
    assert_eq!(kv(&mut fsm, KvVerb::Lock, "k", "s-one"), NO);
    pass(&mut fsm, 1000);
    assert_eq!(kv(&mut fsm, KvVerb::Lock, "k", "s-one"), YES);
    let gone = kv(&mut fsm, KvVerb::Lock, "other", "nobody");
    assert_eq!(refused(gone), "invalid session \"nobody\"");
}

/// The search was made with the id as text, which the index of UUIDs refuses; the refusal was
/// ignored, and the queries stayed.
#[test]
fn prepared_queries_die_with_their_session() {
    let mut fsm = with_catalog();
    let id = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";
    session(&mut fsm, SessionVerb::Create, wanted(id, 0));
    let query = |number: u8, session: &str| PreparedQuery {
        id: Uuid([number; 16]).to_string(),
        session: session.into(),
        ..PreparedQuery::default()
    };
    let mut txn = fsm.store.begin();
    put::<PreparedQueries, _>(&mut txn, query(1, id)).unwrap();
    put::<PreparedQueries, _>(&mut txn, query(2, "")).unwrap();
    txn.commit();
    session(&mut fsm, SessionVerb::Destroy, wanted(id, 0));
    let tables = fsm.store().tables();
    assert_eq!(tables.prepared_queries.len(), 1);
    assert_ne!(tables.max_index(&["prepared-queries"]), Index(0));
}

#[test]
fn lock_delays_over_the_maximum_are_cut() {
    let mut fsm = with_catalog();
    let mut session_ = wanted("s", 0);
    session_.lock_delay = LOCK_DELAY_NS_MAX + 1;
    session(&mut fsm, SessionVerb::Create, session_);
    kv(&mut fsm, KvVerb::Lock, "k", "s");
    session(&mut fsm, SessionVerb::Destroy, wanted("s", 0));
    let delay = fsm.store().tables().lock_delays.get(b"k").unwrap();
    assert_eq!(delay.until_ms, LOCK_DELAY_NS_MAX / 1_000_000);
    // Over: nothing is left to wait for.
    pass(&mut fsm, LOCK_DELAY_NS_MAX / 1_000_000);
    assert!(!needs_lease_clock(fsm.store().tables()));
}

/// A row of a key names its holder in a byte's worth of bytes; an id beyond that would have stopped
/// every server when the session took a lock.
#[test]
fn ids_over_session_bytes_max_are_refused() {
    let mut fsm = with_catalog();
    let id = |bytes: usize| "s".repeat(bytes);
    let longest = wanted(&id(limits::SESSION_BYTES_MAX), 0);
    assert_eq!(session(&mut fsm, SessionVerb::Create, longest), YES);
    let longer = wanted(&id(limits::SESSION_BYTES_MAX + 1), 0);
    assert!(refused(session(&mut fsm, SessionVerb::Create, longer)).contains("over the limit"));
}

#[test]
fn no_more_than_the_maximum_expire_at_one_tick() {
    let mut fsm = with_catalog();
    for number in 0..EXPIRED_PER_TICK_MAX + 1 {
        session(
            &mut fsm,
            SessionVerb::Create,
            wanted(&number.to_string(), 1000),
        );
    }
    pass(&mut fsm, 1499);
    assert_eq!(
        fsm.store().tables().sessions.len(),
        EXPIRED_PER_TICK_MAX + 1
    );
    pass(&mut fsm, 1);
    assert_eq!(fsm.store().tables().sessions.len(), 1);
    pass(&mut fsm, 1);
    assert_eq!(fsm.store().tables().sessions.len(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Create {
        at: usize,
        node: usize,
        checks: u8,
        delete: bool,
        ttl: u64,
        delay: u64,
    },
    Destroy(usize),
    Renew(usize),
    Pass(u64),
    Kv {
        verb: KvVerb,
        key: usize,
        at: usize,
    },
    CheckGone {
        node: usize,
        check: usize,
    },
    NodeGone(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let kv_verb = prop::sample::select(vec![
        KvVerb::Lock,
        KvVerb::Lock,
        KvVerb::Unlock,
        KvVerb::Set,
        KvVerb::Delete,
    ]);
    prop_oneof![
        3 => (0..3usize, 0..2usize, 0..4u8, any::<bool>(), 0..3u64, 0..3u64).prop_map(
            |(at, node, checks, delete, ttl, delay)| Step::Create { at, node, checks, delete, ttl: ttl * 1000, delay }
        ),
        1 => (0..3usize).prop_map(Step::Destroy),
        1 => (0..3usize).prop_map(Step::Renew),
        2 => (0..1200u64).prop_map(Step::Pass),
        6 => (kv_verb, 0..4usize, 0..3usize).prop_map(|(verb, key, at)| Step::Kv { verb, key, at }),
        1 => (0..2usize, 0..2usize).prop_map(|(node, check)| Step::CheckGone { node, check }),
        1 => (0..2usize).prop_map(Step::NodeGone),
    ]
}

#[derive(Clone, Debug)]
struct ModelSession {
    node: usize,
    checks: BTreeSet<usize>,
    delete: bool,
    ttl: u64,
    renewed: u64,
    delay_ms: u64,
}

#[derive(Default)]
struct Model {
    clock: u64,
    sessions: BTreeMap<usize, ModelSession>,
    /// Key to holder and lock index.
    keys: BTreeMap<usize, (Option<usize>, u64)>,
    delays: BTreeMap<usize, u64>,
}

impl Model {
    fn end(&mut self, id: usize) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        for (key, (holder, _)) in self.keys.clone() {
            if holder == Some(id) {
                match session.delete {
                    true => drop(self.keys.remove(&key)),
                    false => self.keys.get_mut(&key).unwrap().0 = None,
                }
                if session.delay_ms > 0 {
                    self.delays.insert(key, self.clock + session.delay_ms);
                }
            }
        }
    }

    fn end_those(&mut self, doomed: impl Fn(&ModelSession) -> bool) {
        let over: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, s)| doomed(s))
            .map(|(id, _)| *id)
            .collect();
        over.into_iter().for_each(|id| self.end(id));
    }

    /// `None` for a refusal.
    fn take(&mut self, step: &Step) -> Option<bool> {
        match *step {
            Step::Create {
                at,
                node,
                checks,
                delete,
                ttl,
                delay,
            } => {
                if self.sessions.contains_key(&at) {
                    return None;
                }
                let checks = (0..2).filter(|check| checks & (1 << check) != 0).collect();
                let renewed = self.clock;
                let session = ModelSession {
                    node,
                    checks,
                    delete,
                    ttl,
                    renewed,
                    delay_ms: delay * 700,
                };
                self.sessions.insert(at, session);
            }
            Step::Destroy(at) => self.end(at),
            Step::Renew(at) => match self.sessions.get_mut(&at) {
                Some(session) => session.renewed = self.clock,
                None => return Some(false),
            },
            Step::Pass(ms) => {
                self.clock += ms;
                let now = self.clock;
                self.end_those(|s| s.ttl > 0 && s.renewed + s.ttl * 3 / 2 <= now);
                self.delays.retain(|_, until| *until > now);
            }
            Step::CheckGone { node, check } => {
                self.end_those(|s| s.node == node && s.checks.contains(&check));
            }
            Step::NodeGone(node) => self.end_those(|s| s.node == node),
            Step::Kv { verb, key, at } => {
                let held = self.keys.get(&key).copied();
                match verb {
                    KvVerb::Set => {
                        self.keys.insert(key, (held.and_then(|held| held.0), 0));
                    }
                    KvVerb::Delete => drop(self.keys.remove(&key)),
                    KvVerb::Unlock => match held {
                        Some((Some(holder), lock)) if holder == at => {
                            self.keys.insert(key, (None, lock));
                        }
                        _ => return Some(false),
                    },
                    _ => {
                        if self
                            .delays
                            .get(&key)
                            .is_some_and(|until| *until > self.clock)
                        {
                            return Some(false);
                        }
                        if !self.sessions.contains_key(&at) {
                            return None;
                        }
                        let lock = match held {
                            None => 1,
                            Some((None, lock)) => lock + 1,
                            Some((Some(holder), lock)) if holder == at => lock,
                            Some(_) => return Some(false),
                        };
                        self.keys.insert(key, (Some(at), lock));
                    }
                }
            }
        }
        Some(true)
    }
}

fn take(fsm: &mut Fsm, step: &Step) -> Option<bool> {
    let outcome = match *step {
        Step::Create {
            at,
            node,
            checks,
            delete,
            ttl,
            delay,
        } => {
            let bound = (0..2).filter(|check| checks & (1 << check) != 0);
            let mut session_ = wanted(SESSIONS[at], ttl);
            session_.node = NODES[node].to_uppercase();
            session_.node_checks = bound.map(|check: usize| CHECKS[check].to_owned()).collect();
            session_.lock_delay = delay * 700_000_000;
            session_.behavior = if delete { "delete" } else { "" }.into();
            session(fsm, SessionVerb::Create, session_)
        }
        Step::Destroy(at) => session(fsm, SessionVerb::Destroy, wanted(SESSIONS[at], 0)),
        Step::Renew(at) => session(fsm, SessionVerb::Renew, wanted(SESSIONS[at], 0)),
        Step::Pass(ms) => {
            pass(fsm, ms);
            YES
        }
        Step::Kv { verb, key, at } => kv(fsm, verb, KEYS[key], SESSIONS[at]),
        Step::CheckGone { node, check } => {
            let mut txn = fsm.store.begin();
            invalidate_for_check(&mut txn, Index(1_000_000), NODES[node], CHECKS[check]);
            txn.commit();
            YES
        }
        Step::NodeGone(node) => {
            let mut txn = fsm.store.begin();
            invalidate_for_node(&mut txn, Index(1_000_000), NODES[node]);
            txn.commit();
            YES
        }
    };
    match outcome {
        Outcome::Done { ok } => Some(ok),
        Outcome::Refused(_) => None,
        Outcome::Txn(_) | Outcome::Mixed(_) => unreachable!("no transaction was sent"),
    }
}

fn agrees(fsm: &Fsm, model: &Model) {
    let tables = fsm.store().tables();
    tables.check();
    let ids: BTreeSet<_> = model.sessions.keys().map(|at| SESSIONS[*at]).collect();
    let found: BTreeSet<_> = SESSIONS
        .into_iter()
        .filter(|id| get(tables, id).is_some())
        .collect();
    assert_eq!(found, ids);
    assert_eq!(tables.sessions.len(), ids.len());
    let bound: usize = model
        .sessions
        .values()
        .map(|session| session.checks.len())
        .sum();
    assert_eq!(tables.session_checks.len(), bound);
    assert_eq!(tables.kvs.len(), model.keys.len());
    for (key, (holder, lock)) in &model.keys {
        let row = tables
            .kvs
            .get(KEYS[*key].as_bytes())
            .expect("a key of the model");
        let holder = holder.map_or("", |at| SESSIONS[at]);
        assert_eq!(
            (row.session(), row.lock_index()),
            (holder.as_bytes(), *lock)
        );
    }
    assert_eq!(tables.lock_delays.len(), model.delays.len());
    for (key, until) in &model.delays {
        let delay = tables
            .lock_delays
            .get(KEYS[*key].as_bytes())
            .expect("a delay of the model");
        assert_eq!(delay.until_ms, *until);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn sessions_and_locks_do_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut fsm = with_catalog();
        let mut model = Model::default();
        for step in &steps {
            let expected = model.take(step);
            prop_assert_eq!(take(&mut fsm, step), expected, "{:?}", step);
            agrees(&fsm, &model);
        }
    }
}

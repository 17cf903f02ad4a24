//! Does a session live as long as it was promised, whoever leads and however long things take?

use bytes::Bytes;
use proptest::prelude::*;
use wire::{Index, Term};

use super::*;
use crate::{
    fsm::{
        Fsm,
        sessions::{SessionRequest, SessionVerb, get},
    },
    state::{
        IndexRow, Store,
        records::{Node, RecordRow, Session},
        schema::{Nodes, Tombstones},
    },
};

const MS: u64 = 1_000_000;
const TTL_MS: u64 = 2000;

/// A replica: its state, and when it applied what.
struct Replica {
    fsm: Fsm,
    duties: Duties,
}

/// Replicas that apply one log, each when it likes.
struct Cluster {
    now_ns: u64,
    log: Vec<Bytes>,
    replicas: Vec<Replica>,
    leader: Option<usize>,
}

impl Cluster {
    fn new() -> Self {
        let replicas = (0..3).map(|_| {
            let mut store = Store::new();
            let mut txn = store.begin();
            let node = Node {
                node: "n".into(),
                ..Node::default()
            };
            txn.put::<Nodes>(RecordRow::new(node).unwrap()).unwrap();
            txn.commit();
            Replica {
                fsm: Fsm::from_parts(store, Index(0), Term(0), 1),
                duties: Duties::default(),
            }
        });
        Self {
            now_ns: 1,
            log: Vec::new(),
            replicas: replicas.collect(),
            leader: Some(0),
        }
    }

    fn catch_up(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let from = replica.fsm.applied().0.0 as usize;
        let entries: Vec<_> = self.log[from..]
            .iter()
            .zip(from as u64 + 1..)
            .map(|(bytes, index)| (Index(index), Term(1), bytes.clone()))
            .collect();
        replica.fsm.apply_run(&entries, &mut Vec::new()).unwrap();
        let tables = replica.fsm.store().tables();
        replica.duties.observe(self.now_ns, tables);
    }

    /// The leader has this in the log and applies it, which takes `took_ms`.
    fn commit(&mut self, bytes: Bytes, took_ms: u64) {
        let leader = self.leader.expect("somebody leads");
        self.log.push(bytes);
        self.now_ns += took_ms * MS;
        self.catch_up(leader);
    }

    fn session(&mut self, op: SessionVerb, took_ms: u64) {
        let session = Session {
            id: "s".into(),
            node: "n".into(),
            ttl_ms: TTL_MS,
            ..Session::default()
        };
        self.commit(
            RecordOp::Session(SessionRequest { op, session }).encode(),
            took_ms,
        );
    }

    /// Lets time pass under the leader, in turns of 20 ms.
    fn pass(&mut self, ms: u64, took_ms: u64) {
        let until = self.now_ns + ms * MS;
        while self.now_ns < until && self.lives() {
            self.now_ns += 20 * MS;
            let Some(leader) = self.leader else { continue };
            let replica = &mut self.replicas[leader];
            let tables = replica.fsm.store().tables();
            let due = replica
                .duties
                .due(self.now_ns, self.log.len() as u64, tables);
            for bytes in due {
                self.commit(bytes, took_ms);
            }
        }
    }

    fn elect(&mut self, at: usize) {
        if let Some(old) = self.leader {
            self.replicas[old].duties.role_changed();
        }
        self.replicas[at].duties.role_changed();
        self.catch_up(at);
        self.leader = Some(at);
    }

    fn lives(&self) -> bool {
        let newest = self.replicas.iter().max_by_key(|r| r.fsm.applied().0);
        get(newest.unwrap().fsm.store().tables(), "s").is_some()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The leader works for so long, and its commits take so long.
    Pass { ms: u64, took_ms: u64 },
    /// Everything stands still.
    Pause(u64),
    /// A replica catches up.
    CatchUp(usize),
    /// The leader is gone for a while; then another leads.
    Elect { at: usize, without_ms: u64 },
    /// The client renews.
    Renew { took_ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..1500u64, 0..50u64).prop_map(|(ms, took_ms)| Step::Pass { ms, took_ms }),
        1 => (0..10_000u64).prop_map(Step::Pause),
        2 => (0..3usize).prop_map(Step::CatchUp),
        1 => (0..3usize, 0..1500u64).prop_map(|(at, without_ms)| Step::Elect { at, without_ms }),
        2 => (0..3000u64).prop_map(|took_ms| Step::Renew { took_ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The promise to the holder: not before one TTL after the last renewal that was answered.
    #[test]
    fn a_session_never_ends_within_its_ttl(steps in prop::collection::vec(step(), 1..40)) {
        let mut cluster = Cluster::new();
        cluster.session(SessionVerb::Create, 5);
        let mut renewed_ns = cluster.now_ns;
        for step in steps {
            match step {
                Step::Pass { ms, took_ms } => cluster.pass(ms, took_ms),
                Step::Pause(ms) => cluster.now_ns += ms * MS,
                Step::CatchUp(at) => cluster.catch_up(at),
                Step::Elect { at, without_ms } => {
                    cluster.now_ns += without_ms * MS;
                    cluster.elect(at);
                }
                Step::Renew { took_ms } => {
                    cluster.session(SessionVerb::Renew, took_ms);
                    if cluster.lives() {
                        renewed_ns = cluster.now_ns;
                    }
                }
            }
            if !cluster.lives() {
                let lived_ms = (cluster.now_ns - renewed_ns) / MS;
                prop_assert!(lived_ms >= TTL_MS, "it ended {lived_ms} ms after its renewal");
                break;
            }
        }
    }

    /// The promise to the others: not after two TTLs, but for the time without a leader, however
    /// often the leader changes. (Consul begins the whole time anew at each change.)
    #[test]
    fn a_session_that_nobody_renews_ends_by_two_ttls(
        changes in prop::collection::vec((1..1500u64, 0..3usize, 0..1500u64), 0..12),
        took_ms in 0..20u64,
    ) {
        let mut cluster = Cluster::new();
        cluster.session(SessionVerb::Create, 0);
        let begun_ns = cluster.now_ns;
        let mut without_ns = 0;
        for (ms, at, without_ms) in changes {
            cluster.pass(ms, took_ms);
            if !cluster.lives() {
                break;
            }
            // Followers are at most moments behind.
            (0..3).for_each(|at| cluster.catch_up(at));
            cluster.now_ns += without_ms * MS;
            without_ns += without_ms * MS;
            cluster.elect(at);
        }
        let left_ms = 2 * TTL_MS;
        cluster.pass(left_ms, took_ms);
        prop_assert!(!cluster.lives());
        let lived_ms = (cluster.now_ns - begun_ns - without_ns) / MS;
        prop_assert!(lived_ms <= 2 * TTL_MS, "it lived {lived_ms} ms under leaders");
    }
}

#[test]
fn nobody_is_told_the_time_who_does_not_ask() {
    let mut cluster = Cluster::new();
    cluster.commit(Bytes::new(), 0);
    cluster.now_ns += 3600 * 1000 * MS;
    let replica = &mut cluster.replicas[0];
    let tables = replica.fsm.store().tables();
    assert!(replica.duties.due(cluster.now_ns, 1, tables).is_empty());
    assert_eq!(replica.duties.next_ns(), None);
}

/// Sessions that expire together end a bounded number at a tick; the next ticks used to wait their
/// whole interval, so that many sessions took minutes to end.
#[test]
fn what_one_tick_leaves_the_next_ends_at_once() {
    let mut cluster = Cluster::new();
    for number in 0..3 * crate::fsm::sessions::EXPIRED_PER_TICK_MAX {
        let session = Session {
            id: number.to_string(),
            node: "n".into(),
            ttl_ms: TTL_MS,
            ..Session::default()
        };
        let op = SessionVerb::Create;
        cluster.commit(
            RecordOp::Session(SessionRequest { op, session }).encode(),
            0,
        );
    }
    let left = |cluster: &Cluster| cluster.replicas[0].fsm.store().tables().sessions.len();
    let all = left(&cluster);
    let mut turns = 0;
    while left(&cluster) > 0 {
        cluster.now_ns += 20 * MS;
        let replica = &mut cluster.replicas[0];
        let tables = replica.fsm.store().tables();
        for bytes in replica.duties.due(cluster.now_ns, 0, tables) {
            cluster.commit(bytes, 0);
        }
        turns += usize::from(left(&cluster) < all);
        assert!(turns < 10, "{} are left", left(&cluster));
    }
}

#[test]
fn intervals_stay_within_their_bounds() {
    let of = |ttl_ms: u64| {
        let mut cluster = Cluster::new();
        let session = Session {
            id: "s".into(),
            node: "n".into(),
            ttl_ms,
            ..Session::default()
        };
        let op = SessionVerb::Create;
        cluster.commit(
            RecordOp::Session(SessionRequest { op, session }).encode(),
            0,
        );
        interval_ns(cluster.replicas[0].fsm.store().tables())
    };
    assert_eq!(of(1), INTERVAL_NS_MIN);
    assert_eq!(of(800), 800 * MS / TICKS_PER_TTL);
    assert_eq!(of(86_400_000), INTERVAL_NS_MAX);
}

/// Consul: 15 minutes, in steps of 30 seconds.
#[test]
fn tombstones_are_reaped_when_they_are_old_and_not_before() {
    let mut store = Store::new();
    let mut txn = store.begin();
    for number in 0..2 * REAPED_AT_ONCE_MAX as u64 {
        let key = format!("{number:08}");
        txn.put::<Tombstones>(IndexRow::new(key.as_bytes(), Index(number + 1)))
            .unwrap();
    }
    txn.commit();
    let mut fsm = Fsm::from_parts(store, Index(0), Term(0), 1);
    let mut reaper = Reaper::default();
    // All but the last hundred are there when the leader first looks.
    let noted = 2 * REAPED_AT_ONCE_MAX as u64 - 100;
    let (mut now_ns, mut reaps) = (1, 0);
    let mut applied = noted;
    while fsm.store().tables().tombstones.len() > 100 {
        if let Some(reap) = reaper.due(now_ns, applied, fsm.store().tables()) {
            assert!(now_ns > TOMBSTONE_TTL_NS, "reaped after {now_ns} ns");
            let index = Index(fsm.applied().0.0 + 1);
            let bytes = RecordOp::Tombstone(reap).encode();
            fsm.apply_run(&[(index, Term(1), bytes)], &mut Vec::new())
                .unwrap();
            reaps += 1;
        }
        applied = noted + 100;
        now_ns += TOMBSTONE_GRANULARITY_NS / 3;
        assert!(now_ns < TOMBSTONE_TTL_NS + 3 * TOMBSTONE_GRANULARITY_NS);
    }
    assert_eq!(reaps, 2, "{REAPED_AT_ONCE_MAX} at once");
    let left = fsm.store().tables().tombstones.view();
    assert!(
        left.get(b"00008191")
            .is_some_and(|row| row.index() > Index(noted))
    );
}

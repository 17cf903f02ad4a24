//! What may every part of the process know of its shards, without asking them?
//!
//! Status and counters for endpoints that answer at once. A lock is held for a copy, a few times
//! a second: this is not on the data path.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use wire::{ClusterStatus, ShardId};

use super::meters::{Meter, Meters};
use crate::{
    fsm::{
        acl::decisions_index,
        usage::{self, BILLABLE_INSTANCES, CONFIG_KINDS, CONNECT_KINDS, SERVICE_NAMES},
    },
    shard::{Core, Member, status},
};

/// Shared by all executors of a process.
#[derive(Clone, Debug, Default)]
pub struct Board {
    shared: Arc<Mutex<Shared>>,
    /// [`decisions_index`] of the system shard; not there with ACLs off.
    acl_index: Option<Arc<AtomicU64>>,
    meter: Meter,
    executor: u16,
    updated_ns: Cell<u64>,
}

#[derive(Debug, Default)]
struct Shared {
    status: BTreeMap<ShardId, ClusterStatus>,
    /// By executor.
    metrics: BTreeMap<u16, BTreeMap<&'static str, f64>>,
}

/// Counters are copied at most this often, ns.
const UPDATE_NS_MIN: u64 = 20_000_000;

impl Board {
    /// The same board, written to by another executor.
    pub fn for_executor(&self, executor: u16) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            acl_index: self.acl_index.clone(),
            meter: self.meter.meters().of(executor),
            executor,
            updated_ns: Cell::new(0),
        }
    }

    /// A board for a server with ACLs on or off.
    pub fn new(acl: bool, executors: u16) -> Self {
        Self {
            acl_index: acl.then(Arc::default),
            meter: Meters::new(executors).of(0),
            ..Self::default()
        }
    }

    /// Tells every executor of a change to what rights depend on, before anyone is answered who
    /// could have learned of it.
    pub fn note_acl(&self, core: &Core) {
        let Some(acl_index) = &self.acl_index else {
            return;
        };
        if let Some((_, member)) = core.members().find(|(shard, _)| shard.0 == 0) {
            let index = decisions_index(member.fsm().store().tables());
            acl_index.store(index.0, Ordering::Release);
        }
    }

    /// What [`Self::note_acl`] said last.
    pub fn acl_index(&self) -> u64 {
        let index = self.acl_index.as_ref();
        index.map_or(0, |index| index.load(Ordering::Acquire))
    }

    /// Copies what changed; `at_once` for a change of leader or peer set.
    pub fn update(&self, core: &Core, at_once: bool) {
        let now_ns = super::shell::now_ns();
        if !at_once && now_ns < self.updated_ns.get() + UPDATE_NS_MIN {
            return;
        }
        self.updated_ns.set(now_ns);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &mut *shared;
        let metrics = shared.metrics.entry(self.executor).or_default();
        let mut elections = 0;
        let (mut waiters, mut woken) = (0, 0);
        let (mut kept, mut kept_bytes) = (0, 0);
        for (shard, member) in core.members() {
            let replica = member.replica();
            elections += replica.elections();
            waiters += member.watches().len();
            woken += member.watches().woken_total();
            kept += member.history().len();
            kept_bytes += member.history().bytes();
            shared.status.insert(*shard, status(replica));
            if shard.0 == 0 {
                let last_contact_ns = match replica.is_leader() {
                    true => 0,
                    false => now_ns.saturating_sub(replica.last_contact_ns()),
                };
                let gauges = [
                    ("curia.raft.term", replica.term().0 as f64),
                    ("curia.raft.commit_index", replica.commit().0 as f64),
                    ("curia.raft.applied_index", replica.applied_index().0 as f64),
                    ("curia.raft.last_index", replica.last_index().0 as f64),
                    (
                        "curia.raft.is_leader",
                        f64::from(u8::from(replica.is_leader())),
                    ),
                    ("curia.raft.last_contact_ms", last_contact_ns as f64 / 1e6),
                    (
                        "curia.raft.entry_cache_bytes",
                        replica.store().cache_bytes() as f64,
                    ),
                    (
                        "curia.state.kv_entries",
                        member.fsm().store().kv_len() as f64,
                    ),
                    ("curia.requests.waiting", member.waiting() as f64),
                ];
                metrics.extend(gauges);
                metrics.extend(consul_gauges(member));
                metrics.extend(usage_gauges(member));
            }
        }
        let log = core.log_stats();
        let counters = [
            ("curia.raft.elections", elections as f64),
            ("curia.waiters", waiters as f64),
            ("curia.waiters_woken", woken as f64),
            ("curia.history.changes", kept as f64),
            ("curia.history.bytes", kept_bytes as f64),
            ("curia.log.batches", log.batches as f64),
            ("curia.log.empty_batches", log.empty_batches as f64),
            ("curia.log.entries", log.entries as f64),
            ("curia.log.bytes_submitted", log.bytes_submitted as f64),
            ("curia.log.zero_fill_bytes", log.zero_fill_bytes as f64),
            ("curia.log.segments_prepared", log.segments_prepared as f64),
            ("curia.log.segments_recycled", log.segments_recycled as f64),
            ("curia.log.prepare_failures", log.prepare_failures as f64),
            ("curia.log.segments_live", log.segments_live as f64),
            ("curia.log.disk_bytes", log.disk_bytes as f64),
            (
                "curia.log.last_batch_entries",
                log.last_batch_entries as f64,
            ),
        ];
        metrics.extend(counters);
        metrics.extend([
            ("consul.raft.wal.log_appends", log.batches as f64),
            ("consul.raft.wal.log_entries_written", log.entries as f64),
            ("consul.rpc.queries_blocking", waiters as f64),
        ]);
    }

    /// What this executor's times and counts are written to.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A shard's cluster as this server sees it.
    pub fn status(&self, shard: ShardId) -> ClusterStatus {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.status.get(&shard).cloned().unwrap_or_default()
    }

    /// All counters and gauges; those of several executors are summed.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = BTreeMap::new();
        for (name, value) in shared.metrics.values().flatten() {
            *all.entry((*name).to_owned()).or_default() += value;
        }
        all
    }
}

/// What dashboards made for Consul look for, as far as it is counted here: under its names, and in
/// its units.
fn consul_gauges(member: &Member) -> [(&'static str, f64); 7] {
    let replica = member.replica();
    let tables = member.fsm().store().tables();
    let servers = replica.configuration().members.len();
    [
        (
            "consul.server.isLeader",
            f64::from(u8::from(replica.is_leader())),
        ),
        (
            "consul.raft.applied_index",
            replica.applied_index().0 as f64,
        ),
        ("consul.raft.last_index", replica.last_index().0 as f64),
        ("consul.members.servers", servers as f64),
        (
            "consul.state.kv_entries",
            member.fsm().store().kv_len() as f64,
        ),
        ("consul.state.nodes", tables.nodes.len() as f64),
        (
            "consul.state.service_instances",
            tables.services.len() as f64,
        ),
    ]
}

/// How much is registered, under Consul's names.
fn usage_gauges(member: &Member) -> impl Iterator<Item = (&'static str, f64)> {
    let tables = member.fsm().store().tables();
    let count = |id| usage::count(tables, id) as f64;
    let kinds = CONNECT_KINDS.iter().chain(CONFIG_KINDS);
    let kinds = kinds.map(move |kind| (kind.gauge, count(kind.id)));
    let all = [
        ("consul.state.services", count(SERVICE_NAMES)),
        (
            "consul.state.billable_service_instances",
            count(BILLABLE_INSTANCES),
        ),
    ];
    all.into_iter().chain(kinds)
}

//! Which servers does the catalog show as alive?
//!
//! As in Consul, the leader keeps a node, the service `consul` and the check `serfHealth` in the
//! catalog for every server of the peer set: sessions hang on that check by default. Consul learns
//! from gossip who is alive; here the leader knows from raft, by the stamps of its own clock that
//! its peers echo.
//!
//! A server is silent for as long as *the leader was looking* and nothing new came from it. A leader
//! that stood still counts no more than two looks for the time, so that it does not pronounce dead
//! all whose messages are still in its sockets. A new leader begins with the silence of the leader
//! before it, which it knows, less some time to hear from everybody.
//!
//! Invariant: what is proposed is what the catalog does not show already, so that a cluster that is
//! well writes nothing.

use std::collections::BTreeMap;

use wire::{Member, ServerId, Uuid};

use crate::{
    fsm::{catalog::RegisterRequest, records::RecordOp},
    state::{
        Tables,
        index::{Arg, Key},
        records::{Check, Node, Service},
        schema::NODES_UUID,
    },
};

/// A server that says nothing for so long is shown as critical, ns.
pub const SILENCE_NS_MAX: u64 = 10_000_000_000;
/// Between two looks, ns.
pub const LOOK_INTERVAL_NS: u64 = 1_000_000_000;
/// Of the time between two looks at most so much counts, ns.
pub const LOOK_NS_MAX: u64 = 2 * LOOK_INTERVAL_NS;
/// Time that a new leader takes at least to hear from a server before it is shown as critical, ns.
pub const HEARING_NS: u64 = 2 * LOOK_INTERVAL_NS;

/// The check by which the catalog shows whether a server is alive.
pub const SERF_HEALTH: &str = "serfHealth";
const SERVICE: &str = "consul";

/// What a leader knows of a server.
#[derive(Clone, Copy, Debug)]
pub struct Contact<'m> {
    /// The server.
    pub member: &'m Member,
    /// The leader itself.
    pub own: bool,
    /// Newest stamp of the leader's clock that it echoed in this term, ns.
    pub echoed_ns: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    echoed_ns: Option<u64>,
    silent_ns: u64,
}

/// Keeps the servers in the catalog.
#[derive(Debug, Default)]
pub struct Reconciler {
    /// Of the nodes that it makes; none are made while it is empty.
    datacenter: String,
    /// `None`: a new leader, which has not looked yet.
    looked_ns: Option<u64>,
    heard: BTreeMap<ServerId, Heard>,
}

impl Reconciler {
    /// Of servers of this datacenter.
    pub fn new(datacenter: &str) -> Self {
        Self {
            datacenter: datacenter.to_owned(),
            ..Self::default()
        }
    }

    /// Another leads, or this replica does since now: what was heard before says nothing.
    pub fn role_changed(&mut self) {
        self.looked_ns = None;
        self.heard.clear();
    }

    /// Whether a look is due.
    pub fn is_due(&self, now_ns: u64) -> bool {
        let due = |looked_ns| now_ns >= looked_ns + LOOK_INTERVAL_NS;
        !self.datacenter.is_empty() && self.looked_ns.is_none_or(due)
    }

    /// When a new leader must look for the first time; later looks come with its ticks.
    pub fn next_ns(&self) -> Option<u64> {
        let waits = !self.datacenter.is_empty() && self.looked_ns.is_none();
        waits.then_some(0)
    }

    /// Looks at all servers; what must be said of them. `last_heard` is the leader before this
    /// one, and when it was last heard, ns.
    pub fn look<'m>(
        &mut self,
        now_ns: u64,
        last_heard: Option<(ServerId, u64)>,
        contacts: impl Iterator<Item = Contact<'m>>,
        tables: &Tables,
    ) -> Vec<RecordOp> {
        let looked_ns = self.looked_ns.replace(now_ns);
        let passed_ns = |server: ServerId| match (looked_ns, last_heard) {
            (Some(looked_ns), _) => (now_ns - looked_ns).min(LOOK_NS_MAX),
            (None, Some((leader, at_ns))) if leader == server => {
                let silent_ns = now_ns.saturating_sub(at_ns);
                silent_ns.min(SILENCE_NS_MAX - HEARING_NS)
            }
            _ => 0,
        };
        let mut ops = Vec::new();
        for contact in contacts {
            let heard = self.heard.entry(contact.member.raft_id).or_default();
            if contact.own || heard.echoed_ns != contact.echoed_ns {
                *heard = Heard {
                    echoed_ns: contact.echoed_ns,
                    silent_ns: 0,
                };
            } else {
                heard.silent_ns = heard
                    .silent_ns
                    .saturating_add(passed_ns(contact.member.raft_id));
            }
            let alive = match heard.silent_ns {
                SILENCE_NS_MAX.. => Some(false),
                // It may be as dead as the catalog says; it may not have been heard yet.
                _ if heard.echoed_ns.is_none() && !contact.own => None,
                _ => Some(true),
            };
            if let Some(alive) = alive {
                ops.extend(self.registration(contact.member, alive, tables));
            }
        }
        ops
    }

    /// What the catalog must be told of a server, if anything.
    fn registration(&self, member: &Member, alive: bool, tables: &Tables) -> Option<RecordOp> {
        let id = member.node_id.to_string();
        let known = node_of(member, tables);
        if known.is_none() && !alive {
            // Nothing hangs on a node that was never there.
            return None;
        }
        let name = known.as_ref().map_or(&member.name, |node| &node.node);
        let (address, port) = member.address.rsplit_once(':')?;
        let address = address.trim_matches(['[', ']']);
        let service = service(name, port, member.voter);
        let check = check(name, alive);
        let here = known.as_ref().is_some_and(|node| node.address == address);
        let as_wanted = here
            && held_service(tables, name).is_some_and(|held| same_service(&held, &service))
            && held_check(tables, name).is_some_and(|held| held.status == check.status);
        if as_wanted {
            return None;
        }
        let node = known.clone().unwrap_or_default();
        Some(RecordOp::Register(RegisterRequest {
            datacenter: self.datacenter.clone(),
            id,
            node: name.clone(),
            address: address.to_owned(),
            // What the server's own agent has said of it stays.
            tagged_addresses: node.tagged_addresses,
            node_meta: node.meta,
            service: alive.then_some(service),
            check: Some(check),
            ..RegisterRequest::default()
        }))
    }
}

/// The node of a server: by its id, for it may have been given another name since.
fn node_of(member: &Member, tables: &Tables) -> Option<Node> {
    let Uuid(id) = member.node_id;
    let found = tables.nodes.first(&NODES_UUID, &[Arg::Uuid(&id)]);
    let found = found.expect("the query fits the index");
    found.map(|row| Node::clone(&row))
}

fn key(node: &str, id: &str) -> Key {
    let mut key = Key::default();
    key.lower(node).lower(id);
    key
}

fn held_service(tables: &Tables, node: &str) -> Option<Service> {
    let row = tables.services.get(key(node, SERVICE).as_bytes())?;
    Some(Service::clone(row))
}

fn held_check(tables: &Tables, node: &str) -> Option<Check> {
    let row = tables.checks.get(key(node, SERF_HEALTH).as_bytes())?;
    Some(Check::clone(row))
}

fn same_service(a: &Service, b: &Service) -> bool {
    (&a.service, a.port, &a.meta) == (&b.service, b.port, &b.meta)
}

fn service(node: &str, port: &str, voter: bool) -> Service {
    let meta = [
        ("non_voter", (!voter).to_string()),
        ("raft_version", "3".to_owned()),
        ("read_replica", (!voter).to_string()),
    ];
    Service {
        node: node.to_owned(),
        id: SERVICE.to_owned(),
        service: SERVICE.to_owned(),
        port: port.parse().unwrap_or_default(),
        meta: meta.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Service::default()
    }
}

fn check(node: &str, alive: bool) -> Check {
    let (status, output) = match alive {
        true => ("passing", "Agent alive and reachable"),
        false => ("critical", "Agent not live or unreachable"),
    };
    Check {
        node: node.to_owned(),
        check_id: SERF_HEALTH.to_owned(),
        name: "Serf Health Status".to_owned(),
        status: status.to_owned(),
        output: output.to_owned(),
        ..Check::default()
    }
}

#[cfg(test)]
mod tests {
    use wire::Index;

    use super::*;
    use crate::{fsm::catalog, state::Store};

    const SECOND: u64 = 1_000_000_000;

    fn member(n: u8) -> Member {
        Member {
            raft_id: ServerId(n.into()),
            node_id: Uuid([n; 16]),
            name: format!("s{n}"),
            address: format!("10.0.0.{n}:8300"),
            voter: true,
            leader: false,
        }
    }

    /// A leader, its catalog and the echoes of two peers.
    struct Cluster {
        reconciler: Reconciler,
        store: Store,
        members: Vec<Member>,
        echoed: [Option<u64>; 2],
        index: u64,
        now_ns: u64,
    }

    impl Cluster {
        fn new() -> Self {
            Self {
                reconciler: Reconciler::new("dc1"),
                store: Store::default(),
                members: (1..=3).map(member).collect(),
                echoed: [None; 2],
                index: 10,
                now_ns: 100 * SECOND,
            }
        }

        /// A look, and its commands carried out; how many they were.
        fn look(&mut self, last_heard: Option<(ServerId, u64)>) -> usize {
            let echoed = self.echoed;
            let contacts = self.members.iter().enumerate().map(|(at, member)| Contact {
                member,
                own: at == 0,
                echoed_ns: at.checked_sub(1).and_then(|peer| echoed[peer]),
            });
            let tables = self.store.tables();
            let ops = self
                .reconciler
                .look(self.now_ns, last_heard, contacts, tables);
            for op in &ops {
                let RecordOp::Register(request) = op else {
                    panic!("{op:?}");
                };
                self.index += 1;
                let mut txn = self.store.begin();
                catalog::register(&mut txn, Index(self.index), request).unwrap();
                txn.commit();
            }
            ops.len()
        }

        fn pass(&mut self, ns: u64, alive: [bool; 2]) -> usize {
            self.now_ns += ns;
            for (peer, alive) in alive.into_iter().enumerate() {
                if alive {
                    self.echoed[peer] = Some(self.now_ns);
                }
            }
            self.look(None)
        }

        fn status(&self, n: u8) -> String {
            let check = held_check(self.store.tables(), &format!("s{n}"));
            check.map_or("none".to_owned(), |check| check.status)
        }
    }

    #[test]
    fn servers_come_as_they_are_heard_and_a_cluster_that_is_well_writes_nothing() {
        let mut cluster = Cluster::new();
        assert_eq!(cluster.reconciler.next_ns(), Some(0));
        assert_eq!(cluster.look(None), 1, "the leader itself");
        assert_eq!(cluster.reconciler.next_ns(), None);
        assert_eq!(cluster.pass(SECOND, [true, false]), 1);
        assert_eq!(
            [1, 2, 3].map(|n| cluster.status(n)),
            ["passing", "passing", "none"]
        );
        assert_eq!(cluster.pass(SECOND, [true, true]), 1);
        for _ in 0..30 {
            assert_eq!(cluster.pass(SECOND, [true, true]), 0);
        }
        let service = held_service(cluster.store.tables(), "s2").unwrap();
        assert_eq!((&*service.service, service.port), ("consul", 8300));
    }

    #[test]
    fn a_silent_server_turns_critical_once_and_passing_when_it_is_heard() {
        let mut cluster = Cluster::new();
        cluster.look(None);
        cluster.pass(SECOND, [true, true]);
        for _ in 0..9 {
            assert_eq!(cluster.pass(SECOND, [true, false]), 0);
        }
        assert_eq!(cluster.pass(SECOND, [true, false]), 1);
        assert_eq!(cluster.status(3), "critical");
        assert_eq!(cluster.status(2), "passing");
        assert_eq!(cluster.pass(SECOND, [true, false]), 0);
        assert_eq!(cluster.pass(SECOND, [true, true]), 1);
        assert_eq!(cluster.status(3), "passing");
    }

    /// Counting by the clock, a leader that was stopped for a minute would find everybody silent
    /// for a minute, with their messages waiting in its sockets.
    #[test]
    fn a_leader_that_stood_still_pronounces_nobody_dead() {
        let mut cluster = Cluster::new();
        cluster.look(None);
        cluster.pass(SECOND, [true, true]);
        assert_eq!(cluster.pass(60 * SECOND, [false, false]), 0);
        assert_eq!(cluster.pass(SECOND, [true, true]), 0);
    }

    #[test]
    fn a_new_leader_counts_the_silence_of_the_one_before_and_hears_the_others_first() {
        let mut cluster = Cluster::new();
        cluster.look(None);
        cluster.pass(SECOND, [true, true]);
        cluster.reconciler.role_changed();
        cluster.echoed = [None; 2];
        assert_eq!(cluster.look(Some((ServerId(3), 7 * SECOND))), 0);
        assert_eq!(cluster.pass(SECOND, [true, false]), 0);
        assert_eq!(cluster.pass(SECOND, [true, false]), 1);
        assert_eq!([2, 3].map(|n| cluster.status(n)), ["passing", "critical"]);
        cluster.reconciler.role_changed();
        cluster.echoed = [None; 2];
        cluster.look(None);
        assert_eq!(
            cluster.status(3),
            "critical",
            "nobody has heard of it since"
        );
    }

    #[test]
    fn what_a_servers_agent_says_of_its_node_stays() {
        let mut cluster = Cluster::new();
        let request = RegisterRequest {
            datacenter: "dc1".into(),
            id: member(1).node_id.to_string(),
            node: "another name".into(),
            address: "10.9.9.9".into(),
            node_meta: [("rack".to_owned(), "7".to_owned())].into(),
            ..RegisterRequest::default()
        };
        let mut txn = cluster.store.begin();
        catalog::register(&mut txn, Index(5), &request).unwrap();
        txn.commit();
        cluster.look(None);
        let node = node_of(&member(1), cluster.store.tables()).unwrap();
        assert_eq!((&*node.node, &*node.address), ("another name", "10.0.0.1"));
        assert_eq!(node.meta["rack"], "7");
        assert_eq!(cluster.look(None), 0);
    }

    #[test]
    fn without_a_datacenter_nothing_is_looked_at() {
        let reconciler = Reconciler::default();
        assert!(!reconciler.is_due(u64::MAX) && reconciler.next_ns().is_none());
    }
}

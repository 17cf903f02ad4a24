//! What must the catalog be told, so that it shows what is registered here?
//!
//! Consul's anti-entropy: the agent is right about its services and checks, the catalog about the
//! rest. [`Seen`] is what the catalog held when it was last read, with what was written since; what
//! is registered is compared with it, all of it now and then, and what has just changed at once.
//!
//! Two things in this node's part of the catalog belong to the leader (`shard::reconcile`): the
//! service `consul` and the check `serfHealth`. Tags of a service that allows it belong to the
//! catalog. An output that changes while its status does not is told only after a while, as in
//! Consul: otherwise every run of every check would be a command.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::local::{self, Item, Local, go_duration};
use crate::{
    documents::NodeRows,
    fsm::{
        catalog::{DeregisterRequest, RegisterRequest},
        records::RecordOp,
    },
    shard::reconcile::SERF_HEALTH,
    state::records::{Check, JsonText, Node, Service, ServiceAddress, Weights},
};

/// After so long the catalog is told of an output that changed alone, ms (Consul: 5 minutes).
pub const OUTPUT_DEFERRED_MS: u64 = 5 * 60 * 1000;

/// Checks that one command carries at most: with the longest outputs, they fit.
const CHECKS_PER_COMMAND: usize = 8;

/// The leader's service.
const CONSUL: &str = "consul";

/// What the catalog is to be told, and of what.
#[derive(Clone, Debug, PartialEq)]
pub struct Telling {
    /// The command.
    pub op: RecordOp,
    /// What it puts right; empty for the node itself.
    pub items: Vec<Item>,
}

/// What the catalog holds of this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    node: Option<Node>,
    services: BTreeMap<String, Service>,
    checks: BTreeMap<String, Check>,
}

/// What does not change: who this node is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnNode {
    /// Its row as it is to be.
    pub node: Node,
}

impl OwnNode {
    /// The node of a server with this address.
    pub fn new(id: &str, name: &str, address: &str, datacenter: &str) -> Self {
        let kind = if address.contains(':') { "6" } else { "4" };
        let tags = [
            "lan".to_owned(),
            format!("lan_ipv{kind}"),
            "wan".to_owned(),
            format!("wan_ipv{kind}"),
        ];
        Self {
            node: Node {
                id: id.to_owned(),
                node: name.to_owned(),
                address: address.to_owned(),
                datacenter: datacenter.to_owned(),
                tagged_addresses: tags.map(|tag| (tag, address.to_owned())).into(),
                meta: [("consul-network-segment".to_owned(), String::new())].into(),
                ..Node::default()
            },
        }
    }

    /// The operator's pairs (`node_meta`), beside Consul's own.
    pub fn set_meta(&mut self, meta: &BTreeMap<String, String>) {
        self.node.meta = meta.clone();
        let own = ("consul-network-segment".to_owned(), String::new());
        self.node.meta.extend([own]);
    }

    fn registration(&self) -> RegisterRequest {
        RegisterRequest {
            datacenter: self.node.datacenter.clone(),
            id: self.node.id.clone(),
            node: self.node.node.clone(),
            address: self.node.address.clone(),
            ..RegisterRequest::default()
        }
    }
}

impl Seen {
    /// As it was read.
    pub fn new(rows: NodeRows) -> Self {
        let services = rows.services.into_iter();
        let checks = rows.checks.into_iter();
        Self {
            node: rows.node,
            services: services.map(|row| (row.id.clone(), row)).collect(),
            checks: checks.map(|row| (row.check_id.clone(), row)).collect(),
        }
    }

    /// Everything that is registered, here or there.
    pub fn all(&self, local: &Local) -> BTreeSet<Item> {
        let services = local.services().keys().chain(self.services.keys());
        let checks = local.checks().keys().chain(self.checks.keys());
        services
            .map(|id| Item::Service(id.clone()))
            .chain(checks.map(|id| Item::Check(id.clone())))
            .collect()
    }

    /// What the catalog must be told of the node itself.
    pub fn node_telling(&self, own: &OwnNode) -> Option<Telling> {
        let wanted = &own.node;
        let is_same = self.node.as_ref().is_some_and(|held| {
            held.id == wanted.id
                && held.address == wanted.address
                && held.tagged_addresses == wanted.tagged_addresses
                && held.meta == wanted.meta
        });
        (!is_same).then(|| Telling {
            op: RecordOp::Register(RegisterRequest {
                tagged_addresses: wanted.tagged_addresses.clone(),
                node_meta: wanted.meta.clone(),
                ..own.registration()
            }),
            items: Vec::new(),
        })
    }

    /// What the catalog must be told of `items`, in an order in which it can be done.
    pub fn tellings(
        &self,
        local: &Local,
        own: &OwnNode,
        now_ms: u64,
        items: &BTreeSet<Item>,
    ) -> Vec<Telling> {
        let mut gone = Vec::new();
        // By service; checks of the node under the empty name.
        let mut changed: BTreeMap<&str, (Option<Service>, Vec<Check>)> = BTreeMap::new();
        for item in items {
            match item {
                Item::Service(id) if id == CONSUL => {}
                Item::Check(id) if id == SERF_HEALTH => {}
                Item::Service(id) => match local.services().get(id) {
                    Some(service) => {
                        let wanted = self.wanted_service(service, local.node());
                        if self
                            .services
                            .get(id)
                            .is_none_or(|held| !same(held, &wanted))
                        {
                            changed.entry(id).or_default().0 = Some(wanted);
                        }
                    }
                    None if self.services.contains_key(id) => {
                        gone.push(self.gone(own, id, "", item));
                    }
                    None => {}
                },
                Item::Check(id) => match local.checks().get(id) {
                    Some(check) => {
                        let wanted = wanted_check(check, local.node());
                        if self.differs(&wanted, check, now_ms) {
                            let of = &*check.definition.service_id;
                            changed.entry(of).or_default().1.push(wanted);
                        }
                    }
                    None => match self.checks.get(id) {
                        // Its service takes it along.
                        Some(held)
                            if held.service_id.is_empty()
                                || local.services().contains_key(&held.service_id) =>
                        {
                            gone.push(self.gone(own, "", id, item));
                        }
                        _ => {}
                    },
                },
            }
        }
        let changed = changed
            .into_values()
            .flat_map(|(service, checks)| registrations(own, service, checks));
        gone.into_iter().chain(changed).collect()
    }

    fn gone(&self, own: &OwnNode, service_id: &str, check_id: &str, item: &Item) -> Telling {
        Telling {
            op: RecordOp::Deregister(DeregisterRequest {
                node: own.node.node.clone(),
                service_id: service_id.to_owned(),
                check_id: check_id.to_owned(),
            }),
            items: vec![item.clone()],
        }
    }

    /// Tags that were changed in the catalog, of services that allow it.
    pub fn overridden_tags(&self, local: &Local) -> Vec<(String, Vec<String>)> {
        let services = local.services().iter();
        services
            .filter(|(_, service)| service.definition.enable_tag_override)
            .filter_map(|(id, service)| {
                let held = self.services.get(id)?;
                let differs = held.tags != service.definition.tags;
                differs.then(|| (id.clone(), held.tags.clone()))
            })
            .collect()
    }

    fn wanted_service(&self, service: &local::Service, node: &str) -> Service {
        let definition = &service.definition;
        let json = |value: &Option<Value>| match value {
            Some(value) => JsonText::parse(&value.to_string()).unwrap_or_default(),
            None => JsonText::NONE,
        };
        let addresses = definition.tagged_addresses.iter();
        Service {
            node: node.to_owned(),
            id: definition.id.clone(),
            service: definition.name.clone(),
            kind: definition.kind.clone(),
            tags: definition.tags.clone(),
            address: definition.address.clone(),
            tagged_addresses: addresses
                .map(|(name, (address, port))| {
                    let address = ServiceAddress {
                        address: address.clone(),
                        port: (*port).into(),
                    };
                    (name.clone(), address)
                })
                .collect(),
            meta: definition.meta.clone(),
            port: definition.port.into(),
            socket_path: definition.socket_path.clone(),
            weights: Weights {
                passing: definition.weights.passing.into(),
                warning: definition.weights.warning.into(),
            },
            enable_tag_override: definition.enable_tag_override,
            proxy: json(&definition.proxy),
            connect: json(&definition.connect),
            create_index: 0,
            modify_index: 0,
        }
    }

    fn differs(&self, wanted: &Check, check: &local::Check, now_ms: u64) -> bool {
        let Some(held) = self.checks.get(&wanted.check_id) else {
            return true;
        };
        let mut held = held.clone();
        (held.create_index, held.modify_index) = (0, 0);
        held.node.clone_from(&wanted.node);
        if held == *wanted {
            return false;
        }
        held.output.clone_from(&wanted.output);
        if held != *wanted {
            return true;
        }
        let since_ms = check.output_changed_ms.unwrap_or(now_ms);
        now_ms.saturating_sub(since_ms) >= OUTPUT_DEFERRED_MS
    }

    /// The catalog was told.
    pub fn told(&mut self, op: &RecordOp) {
        match op {
            RecordOp::Deregister(request) if !request.service_id.is_empty() => {
                self.services.remove(&request.service_id);
                self.checks
                    .retain(|_, check| check.service_id != request.service_id);
            }
            RecordOp::Deregister(request) => {
                self.checks.remove(&request.check_id);
            }
            RecordOp::Register(request) => {
                if !request.skip_node_update {
                    self.node = Some(Node {
                        id: request.id.clone(),
                        node: request.node.clone(),
                        address: request.address.clone(),
                        datacenter: request.datacenter.clone(),
                        tagged_addresses: request.tagged_addresses.clone(),
                        meta: request.node_meta.clone(),
                        ..Node::default()
                    });
                }
                if let Some(service) = &request.service {
                    self.services.insert(service.id.clone(), service.clone());
                }
                for check in &request.checks {
                    self.checks.insert(check.check_id.clone(), check.clone());
                }
            }
            _ => {}
        }
    }
}

fn same(held: &Service, wanted: &Service) -> bool {
    let mut held = held.clone();
    (held.create_index, held.modify_index) = (0, 0);
    held.node.clone_from(&wanted.node);
    if wanted.enable_tag_override {
        held.tags.clone_from(&wanted.tags);
    }
    held == *wanted
}

fn wanted_check(check: &local::Check, node: &str) -> Check {
    let definition = &check.definition;
    Check {
        node: node.to_owned(),
        check_id: definition.id.clone(),
        name: definition.name.clone(),
        status: check.status.as_str().to_owned(),
        notes: definition.notes.clone(),
        output: check.output.clone(),
        service_id: definition.service_id.clone(),
        service_name: check.service_name.clone(),
        service_tags: check.service_tags.clone(),
        kind: definition.kind.name().to_owned(),
        interval: go_duration(definition.interval_ns),
        timeout: go_duration(definition.timeout_ns),
        ..Check::default()
    }
}

/// A service with its checks, in as few commands as they fit into.
fn registrations(own: &OwnNode, service: Option<Service>, checks: Vec<Check>) -> Vec<Telling> {
    let mut pieces: Vec<Vec<Check>> = Vec::new();
    for check in checks {
        match pieces.last_mut() {
            Some(piece) if piece.len() < CHECKS_PER_COMMAND => piece.push(check),
            _ => pieces.push(vec![check]),
        }
    }
    if pieces.is_empty() {
        pieces.push(Vec::new());
    }
    let mut service = service;
    pieces
        .into_iter()
        .map(|checks| {
            let service = service.take();
            let of_service = service.iter().map(|row| Item::Service(row.id.clone()));
            let of_checks = checks.iter().map(|row| Item::Check(row.check_id.clone()));
            Telling {
                items: of_service.chain(of_checks).collect(),
                op: RecordOp::Register(RegisterRequest {
                    service,
                    checks,
                    skip_node_update: true,
                    ..own.registration()
                }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use wire::Index;

    use super::*;
    use crate::{
        documents::{AgentQuestion, Question},
        fsm::catalog,
        server::agent::local::{CheckDefinition, Origin, ServiceDefinition, Status},
        state::Store,
    };

    const NODE_ID: &str = "0191f3ab-00ff-4c2d-9e7a-0123456789ab";

    fn own() -> OwnNode {
        OwnNode::new(NODE_ID, "n1", "10.0.0.1", "dc1")
    }

    fn read(store: &Store) -> Seen {
        let question = Question::Agent(AgentQuestion::Node { node: "n1".into() });
        Seen::new(NodeRows::decode(&question.answer(store.tables()).unwrap()).unwrap())
    }

    fn carry_out(store: &mut Store, index: &mut u64, op: &RecordOp) {
        *index += 1;
        let mut txn = store.begin();
        match op {
            RecordOp::Register(request) => catalog::register(&mut txn, Index(*index), request),
            RecordOp::Deregister(request) => catalog::deregister(&mut txn, Index(*index), request),
            other => panic!("{other:?}"),
        }
        .unwrap();
        txn.commit();
    }

    /// Reads the catalog and puts it right; how many commands that took.
    fn full(local: &mut Local, store: &mut Store, index: &mut u64, now_ms: u64) -> usize {
        let seen = read(store);
        for (id, tags) in seen.overridden_tags(local) {
            local.override_tags(&id, &tags);
        }
        let mut tellings: Vec<Telling> = seen.node_telling(&own()).into_iter().collect();
        tellings.extend(seen.tellings(local, &own(), now_ms, &seen.all(local)));
        tellings
            .iter()
            .for_each(|telling| carry_out(store, index, &telling.op));
        tellings.len()
    }

    fn register(local: &mut Local, body: serde_json::Value) {
        let definition = ServiceDefinition::from_value(&body).unwrap();
        local
            .register_service(0, definition, Origin::Client, true)
            .unwrap();
    }

    fn names(seen: &Seen) -> (Vec<&str>, Vec<(&str, &str)>) {
        let checks = seen.checks.iter().map(|(id, row)| (&**id, &*row.status));
        (
            seen.services.keys().map(|id| &**id).collect(),
            checks.collect(),
        )
    }

    #[test]
    fn the_catalog_is_brought_in_step_and_left_alone_then() {
        let (mut local, mut store, mut index) = (Local::new("n1"), Store::default(), 10);
        register(
            &mut local,
            json!({"Name": "web", "Port": 80, "Address": "10.0.0.1", "Proxy": {"a": 1},
                "Check": {"TTL": "1m"}}),
        );
        assert_eq!(full(&mut local, &mut store, &mut index, 0), 2);
        assert_eq!(full(&mut local, &mut store, &mut index, 0), 0);
        let seen = read(&store);
        assert_eq!(
            names(&seen),
            (vec!["web"], vec![("service:web", "critical")])
        );
        assert_eq!(
            seen.node.as_ref().unwrap().tagged_addresses["lan_ipv4"],
            "10.0.0.1"
        );
        local
            .update_ttl(0, "service:web", Status::Passing, "")
            .unwrap();
        assert_eq!(full(&mut local, &mut store, &mut index, 0), 1);
        local.deregister_service("web").unwrap();
        assert_eq!(full(&mut local, &mut store, &mut index, 0), 1);
        assert_eq!(names(&read(&store)), (vec![], vec![]));
    }

    #[test]
    fn what_others_put_on_the_node_goes_but_for_the_leaders() {
        let (mut local, mut store, mut index) = (Local::new("n1"), Store::default(), 10);
        full(&mut local, &mut store, &mut index, 0);
        for (service, check) in [("consul", "serfHealth"), ("stray", "stray")] {
            let request = RegisterRequest {
                service: Some(Service {
                    service: service.into(),
                    ..Service::default()
                }),
                check: Some(Check {
                    check_id: check.into(),
                    ..Check::default()
                }),
                skip_node_update: true,
                ..own().registration()
            };
            carry_out(&mut store, &mut index, &RecordOp::Register(request));
        }
        assert_eq!(full(&mut local, &mut store, &mut index, 0), 2);
        assert_eq!(
            names(&read(&store)),
            (vec!["consul"], vec![("serfHealth", "critical")])
        );
        assert_eq!(full(&mut local, &mut store, &mut index, 0), 0);
    }

    #[test]
    fn an_output_alone_waits() {
        let (mut local, mut store, mut index) = (Local::new("n1"), Store::default(), 10);
        register(&mut local, json!({"Name": "web", "Check": {"TTL": "1h"}}));
        full(&mut local, &mut store, &mut index, 0);
        local
            .update_ttl(1000, "service:web", Status::Critical, "news")
            .unwrap();
        assert_eq!(
            full(
                &mut local,
                &mut store,
                &mut index,
                1000 + OUTPUT_DEFERRED_MS - 1
            ),
            0
        );
        assert_eq!(
            full(
                &mut local,
                &mut store,
                &mut index,
                1000 + OUTPUT_DEFERRED_MS
            ),
            1
        );
        assert_eq!(read(&store).checks["service:web"].output, "news");
    }

    #[test]
    fn tags_that_may_be_overridden_are_the_catalogs() {
        let (mut local, mut store, mut index) = (Local::new("n1"), Store::default(), 10);
        let body = json!({"Name": "web", "Tags": ["a"], "EnableTagOverride": true});
        register(&mut local, body);
        full(&mut local, &mut store, &mut index, 0);
        let mut service = read(&store).services["web"].clone();
        service.tags = vec!["b".into()];
        let request = RegisterRequest {
            service: Some(service),
            skip_node_update: true,
            ..own().registration()
        };
        carry_out(&mut store, &mut index, &RecordOp::Register(request));
        assert_eq!(full(&mut local, &mut store, &mut index, 0), 0);
        assert_eq!(local.services()["web"].definition.tags, ["b"]);
    }

    #[test]
    fn many_checks_go_in_several_commands_that_each_fit() {
        let (mut local, mut store, mut index) = (Local::new("n1"), Store::default(), 10);
        let checks: Vec<_> = (0..20)
            .map(|n| {
                json!({"CheckID": format!("c{n}"), "TTL": "1m",
            "OutputMaxSize": local::OUTPUT_BYTES_MAX})
            })
            .collect();
        register(&mut local, json!({"Name": "web", "Checks": checks}));
        let long = "\u{1}".repeat(local::OUTPUT_BYTES_MAX);
        for n in 0..20 {
            local
                .update_ttl(0, &format!("c{n}"), Status::Passing, &long)
                .unwrap();
        }
        let seen = read(&store);
        for telling in seen.tellings(&local, &own(), 0, &seen.all(&local)) {
            let bytes = telling.op.encode().len();
            assert!(bytes <= wire::limits::RECORD_BYTES_MAX, "{bytes}");
        }
        assert_eq!(full(&mut local, &mut store, &mut index, 0), 4);
        assert_eq!(full(&mut local, &mut store, &mut index, 0), 0);
    }

    proptest! {
        /// Told only of what has changed, the catalog shows the same as told of everything, and
        /// what is remembered of it is what it holds.
        #[test]
        fn telling_what_changed_is_as_good_as_telling_everything(
            acts in prop::collection::vec((0..5u8, 0..3u8, 0..3u8), 1..40)
        ) {
            let (mut local, mut store, mut index) = (Local::new("n1"), Store::default(), 10);
            full(&mut local, &mut store, &mut index, 0);
            let mut seen = read(&store);
            local.take_unsynced();
            for (act, which, how) in acts {
                let id = format!("s{which}");
                let check = format!("service:{id}");
                match act {
                    0 | 1 => {
                        let checks = vec![json!({"TTL": "1m"}); usize::from(how)];
                        let body = json!({"Name": id, "Port": how, "Checks": checks});
                        register(&mut local, body);
                    }
                    2 => drop(local.deregister_service(&id)),
                    3 => {
                        let status = [Status::Passing, Status::Warning, Status::Critical];
                        let status = status[usize::from(how)];
                        drop(local.update_ttl(0, &check, status, "o"));
                    }
                    _ => {
                        let body = json!({"Name": "c", "TTL": "1m", "ServiceID": id});
                        let definition = CheckDefinition::from_value(&body).unwrap();
                        drop(local.register_check(0, definition, Origin::Client));
                    }
                }
                let items = local.take_unsynced();
                for telling in seen.tellings(&local, &own(), 0, &items) {
                    carry_out(&mut store, &mut index, &telling.op);
                    seen.told(&telling.op);
                }
                let left = read(&store);
                prop_assert_eq!(left.tellings(&local, &own(), 0, &left.all(&local)), vec![]);
                prop_assert_eq!(names(&seen), names(&left));
            }
        }
    }
}

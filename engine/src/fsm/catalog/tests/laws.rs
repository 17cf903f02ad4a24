//! The catalog against a plain model, the index law, and runs that are cut in other places.

use proptest::prelude::*;
use wire::{Index, Term};

use super::{Step, carry_out, uuid};
use crate::{
    fsm::{
        Fsm,
        catalog::{
            Check, DeregisterRequest, Node, RegisterRequest, Service,
            model::{Model, key},
            rows::{self, kind_row, node_row, service_row},
        },
        records::RecordOp,
        usage,
    },
    state::{
        RecordRow, Store,
        records::{JsonText, Record},
        schema::Change,
        tree::View,
    },
};

const NAMES: [&str; 4] = ["a", "A", "b", "c"];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

fn name_or_none() -> impl Strategy<Value = String> {
    prop_oneof![1 => Just(String::new()), 4 => name()]
}

fn service() -> impl Strategy<Value = Service> {
    let tags = prop::collection::vec(name(), 0..2);
    let kind = prop_oneof![3 => Just(""), 1 => Just("connect-proxy"), 1 => Just("mesh-gateway")];
    let called = prop_oneof![6 => name_or_none(), 1 => Just("consul".to_owned())];
    let native = prop::sample::select(&["null", "{\"Native\":false}", "{\"Native\":true}"][..]);
    (name_or_none(), called, tags, kind, 0..2u64, native).prop_map(
        |(id, service, tags, kind, port, native)| Service {
            id,
            service,
            tags,
            kind: kind.to_owned(),
            port,
            connect: JsonText::parse(native).expect("JSON"),
            ..Service::default()
        },
    )
}

fn check() -> impl Strategy<Value = Check> {
    let id = prop_oneof![
        3 => name_or_none(),
        2 => Just("serfHealth".to_owned())
    ];
    let status = prop::sample::select(&["", "passing", "warning", "critical"][..]);
    let service_id = prop_oneof![1 => Just(String::new()), 1 => name()];
    (id, status, service_id, 0..2u8).prop_map(|(check_id, status, service_id, output)| Check {
        check_id,
        status: status.to_owned(),
        service_id,
        output: "x".repeat(output.into()),
        ..Check::default()
    })
}

fn step() -> impl Strategy<Value = Step> {
    let id = prop_oneof![2 => Just(String::new()), 3 => (0..3u8).prop_map(uuid)];
    let address = prop_oneof![1 => Just(""), 8 => Just("1.1.1.1"), 2 => Just("2.2.2.2")];
    let meta = prop::collection::btree_map(name(), name(), 0..2);
    let skip = prop::bool::weighted(0.2);
    let node = (id, name(), address, meta, skip);
    let parts = (
        prop::option::of(service()),
        prop::option::of(check()),
        prop::collection::vec(check(), 0..2),
    );
    let register = (node, parts).prop_map(
        |((id, node, address, node_meta, skip_node_update), (service, check, checks))| {
            // A check that is named twice may be changed and changed back.
            let id_of = |check: &Check| check.check_id.to_lowercase();
            let mut seen: Vec<String> = check.iter().map(id_of).collect();
            let mut checks = checks;
            checks.retain(|check| {
                let new = !seen.contains(&id_of(check));
                seen.push(id_of(check));
                new
            });
            Step::Register(RegisterRequest {
                id,
                node,
                address: address.to_owned(),
                node_meta,
                skip_node_update,
                service,
                check,
                checks,
                ..RegisterRequest::default()
            })
        },
    );
    let deregister = (name(), name_or_none(), name_or_none(), 0..3u8).prop_map(
        |(node, service_id, check_id, what)| {
            Step::Deregister(DeregisterRequest {
                node,
                service_id: if what == 0 { service_id } else { String::new() },
                check_id: if what <= 1 { check_id } else { String::new() },
            })
        },
    );
    prop_oneof![3 => register, 1 => deregister]
}

/// Calls `each` with every row of a table.
fn every<T: Record>(view: View<RecordRow<T>>, mut each: impl FnMut(T)) {
    let mut cursor = view.cursor();
    while cursor.scan(|row| {
        each(T::clone(row));
        true
    }) {}
}

/// What is in the tables, without indexes.
fn contents(store: &Store) -> Model {
    let tables = store.tables();
    let mut model = Model::default();
    every(tables.nodes.view(), |mut node: Node| {
        (node.create_index, node.modify_index) = (0, 0);
        model.nodes.insert(node.node.to_lowercase(), node);
    });
    every(tables.services.view(), |mut service: Service| {
        (service.create_index, service.modify_index) = (0, 0);
        let key = key(&service.node, &service.id);
        model.services.insert(key, service);
    });
    every(tables.checks.view(), |mut check: Check| {
        (check.create_index, check.modify_index) = (0, 0);
        let key = key(&check.node, &check.check_id);
        model.checks.insert(key, check);
    });
    model
}

/// The index of a question about a service or node: of its own row, else of the last that went.
fn index_of(store: &Store, own: &str, extinction: &str) -> u64 {
    match store.tables().max_index(&[own]) {
        Index(0) => store.tables().max_index(&[extinction]).0,
        index => index.0,
    }
}

/// The index law: what is shown changed if and only if its index is this command's.
fn law(store: &Store, index: u64, before: &Model, after: &Model) {
    let table = |name: &str| store.tables().max_index(&[name]).0;
    let tables = [
        ("nodes", before.nodes != after.nodes),
        ("services", before.services != after.services),
        ("checks", before.checks != after.checks),
    ];
    for (name, changed) in tables {
        if changed {
            assert_eq!(table(name), index, "{name} changed");
        }
        if before == after {
            assert!(table(name) < index, "{name} did not change");
        }
    }
    for name in ["a", "b", "c"] {
        let service = index_of(store, &service_row(name), rows::SERVICE_LAST_EXTINCTION);
        if before.shown_of_service(name) != after.shown_of_service(name) {
            assert_eq!(service, index, "service {name} changed");
        }
        let node = index_of(store, &node_row(name), rows::NODE_LAST_EXTINCTION);
        if before.shown_of_node(name) != after.shown_of_node(name) {
            assert_eq!(node, index, "node {name} changed");
        }
        if before == after {
            assert!(service < index && node < index, "{name} did not change");
        }
        let exists = after
            .services
            .values()
            .any(|s| s.service.to_lowercase() == name);
        assert_eq!(
            table(&service_row(name)) > 0,
            exists,
            "row of service {name}"
        );
        assert_eq!(table(&node_row(name)) > 0, after.nodes.contains_key(name));
    }
    for kind in ["", "connect-proxy"] {
        let of_kind = |model: &Model| -> Vec<Service> {
            let all = model.services.values();
            all.filter(|service| service.kind == kind)
                .cloned()
                .collect()
        };
        if of_kind(before) != of_kind(after) {
            assert_eq!(table(&kind_row(kind)), index, "kind {kind:?} changed");
        }
    }
}

fn counts(store: &Store, model: &Model) {
    let count = |id| usage::count(store.tables(), id);
    let mut names: Vec<String> = model
        .services
        .values()
        .map(|s| s.service.to_lowercase())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(count(usage::NODES), model.nodes.len() as u64);
    assert_eq!(count(usage::SERVICE_INSTANCES), model.services.len() as u64);
    assert_eq!(count(usage::SERVICE_NAMES), names.len() as u64);
    let of = |belongs: &dyn Fn(&Service) -> bool| {
        model.services.values().filter(|s| belongs(s)).count() as u64
    };
    let billable = of(&|s| s.kind.is_empty() && s.service != "consul");
    assert_eq!(count(usage::BILLABLE_INSTANCES), billable);
    for kind in usage::CONNECT_KINDS {
        let expected = match kind.name {
            "connect-native" => of(&|s| s.connect.as_str().contains("true")),
            name => of(&|s| s.kind == name),
        };
        assert_eq!(count(kind.id), expected, "{}", kind.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_catalog_is_what_the_model_says(steps in prop::collection::vec(step(), 1..40)) {
        let mut store = Store::new();
        let mut model = Model::default();
        for (at, step) in steps.iter().enumerate() {
            let index = at as u64 + 1;
            let before = model.clone();
            let digest = store.digest();
            let expected = match step {
                Step::Register(request) => model.register(request),
                Step::Deregister(request) => {
                    model.deregister(request);
                    true
                }
            };
            let done = carry_out(&mut store, index, step);
            prop_assert_eq!(done.is_ok(), expected, "{:?}", done);
            if !expected {
                model = before.clone();
            }
            if before == model {
                prop_assert_eq!(store.digest(), digest, "nothing changed");
            }
            store.tables().check();
            prop_assert_eq!(&contents(&store), &model);
            law(&store, index, &before, &model);
            counts(&store, &model);
        }
    }
}

impl Step {
    fn encoded(&self) -> bytes::Bytes {
        match self.clone() {
            Step::Register(request) => RecordOp::Register(request).encode(),
            Step::Deregister(request) => RecordOp::Deregister(request).encode(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    /// Servers cut the log into runs as it comes, and end with the same state, refusals included.
    #[test]
    fn how_the_log_is_cut_into_runs_changes_nothing(
        steps in prop::collection::vec(step(), 1..40),
        cuts in prop::collection::vec(1..8usize, 1..8),
    ) {
        let entries: Vec<_> = steps
            .iter()
            .enumerate()
            .map(|(at, step)| (Index(at as u64 + 1), Term(1), step.encoded()))
            .collect();
        let (mut one, mut other) = (Fsm::new(), Fsm::new());
        let (mut ones, mut others) = (Vec::new(), Vec::new());
        for entry in entries.chunks(1) {
            one.apply_run(entry, &mut ones).expect("known commands");
        }
        let (mut rest, mut cuts) = (&entries[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (run, later) = rest.split_at(rest.len().min(*cuts.next().expect("cycles")));
            let mut ignore = |_: Index, _: &[Change]| ();
            other
                .apply_run_watched(run, &mut others, Some(&mut ignore))
                .expect("known commands");
            rest = later;
        }
        prop_assert_eq!(ones, others);
        prop_assert_eq!(one.digest(), other.digest());
        other.store().tables().check();
    }
}

//! Registrations against a plain model, and Consul's rules one by one.

use proptest::prelude::*;
use wire::{Index, Term, Uuid};

use super::{
    model::{Model, key},
    rows::{self, kind_row, node_row, service_row},
    *,
};
use crate::{
    fsm::{Fsm, records::RecordOp, usage},
    state::{
        RecordRow, Store,
        records::{Record, Session, SessionCheck},
        schema::{Change, SessionChecks, Sessions},
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

fn uuid(n: u8) -> String {
    Uuid([n; 16]).to_string()
}

fn service() -> impl Strategy<Value = Service> {
    let tags = prop::collection::vec(name(), 0..2);
    let kind = prop_oneof![3 => Just(""), 1 => Just("connect-proxy")];
    (name_or_none(), name_or_none(), tags, kind, 0..2u64).prop_map(
        |(id, service, tags, kind, port)| Service {
            id,
            service,
            tags,
            kind: kind.to_owned(),
            port,
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

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are few")]
enum Step {
    Register(RegisterRequest),
    Deregister(DeregisterRequest),
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

/// A command as the state machine carries it out.
fn carry_out(store: &mut Store, index: u64, step: &Step) -> Result<(), String> {
    let mut txn = store.begin();
    let done = match step {
        Step::Register(request) => register(&mut txn, Index(index), request),
        Step::Deregister(request) => deregister(&mut txn, Index(index), request),
    };
    match done {
        Ok(()) => txn.commit(),
        Err(_) => drop(txn),
    }
    done
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
            let mut ignore = |_: &[Change]| ();
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

/// A store in which commands get ascending indexes.
#[derive(Default)]
struct Rig {
    store: Store,
    index: u64,
}

impl Rig {
    fn register(&mut self, request: RegisterRequest) -> Result<(), String> {
        self.index += 1;
        carry_out(&mut self.store, self.index, &Step::Register(request))
    }

    fn deregister(&mut self, node: &str, service: &str, check: &str) {
        self.index += 1;
        let request = DeregisterRequest {
            node: node.into(),
            service_id: service.into(),
            check_id: check.into(),
        };
        carry_out(&mut self.store, self.index, &Step::Deregister(request))
            .expect("a node is named");
    }

    /// The error of a registration that is refused.
    fn refused(&mut self, request: RegisterRequest) -> String {
        let before = self.store.digest();
        let why = self.register(request).expect_err("refused");
        assert_eq!(self.store.digest(), before);
        why
    }

    fn op<T>(&mut self, op: impl FnOnce(&mut Txn<'_>, Index) -> T) -> T {
        self.index += 1;
        let mut txn = self.store.begin();
        let done = op(&mut txn, Index(self.index));
        txn.commit();
        done
    }

    fn session(&mut self, node: &str, check: &str, n: u8) {
        let session = Session {
            id: uuid(n),
            node: node.into(),
            behavior: "release".into(),
            node_checks: vec![check.into()],
            ..Session::default()
        };
        self.op(|txn, _| {
            let bound = SessionCheck {
                node: node.into(),
                check_id: check.into(),
                session: session.id.clone(),
            };
            txn.put_record::<SessionChecks, _>(bound).expect("short");
            txn.put_record::<Sessions, _>(session).expect("short");
        });
    }

    fn sessions(&self) -> usize {
        self.store.tables().sessions.len()
    }
}

fn node(name: &str) -> RegisterRequest {
    RegisterRequest {
        node: name.into(),
        address: "1.1.1.1".into(),
        ..RegisterRequest::default()
    }
}

fn with_id(name: &str, n: u8) -> RegisterRequest {
    RegisterRequest {
        id: uuid(n),
        ..node(name)
    }
}

fn with_service(name: &str, id: &str, service: &str) -> RegisterRequest {
    RegisterRequest {
        service: Some(Service {
            id: id.into(),
            service: service.into(),
            ..Service::default()
        }),
        ..node(name)
    }
}

fn with_check(request: RegisterRequest, id: &str, service: &str, status: &str) -> RegisterRequest {
    RegisterRequest {
        check: Some(Check {
            check_id: id.into(),
            service_id: service.into(),
            status: status.into(),
            ..Check::default()
        }),
        ..request
    }
}

#[test]
fn requests_that_are_refused_are_refused_in_consuls_words() {
    let mut rig = Rig::default();
    assert_eq!(rig.refused(node("")), "Must provide node");
    let addressless = RegisterRequest {
        address: String::new(),
        ..node("a")
    };
    assert_eq!(
        rig.refused(addressless.clone()),
        "Must provide address if SkipNodeUpdate is not set"
    );
    let bad = |id: &str| RegisterRequest {
        id: id.into(),
        ..node("a")
    };
    assert_eq!(
        rig.refused(bad("nope")),
        "Bad node ID: uuid string is wrong length"
    );
    assert_eq!(
        rig.refused(bad(&uuid(1).replace('-', "x"))),
        "Bad node ID: uuid is improperly formatted"
    );
    assert_eq!(
        rig.refused(with_service("a", "id", "")),
        "Must provide service name (Service.Service) when service ID is provided"
    );
    let mut anywhere = with_service("a", "", "web");
    anywhere.service.as_mut().expect("given").address = "0.0.0.0".into();
    assert_eq!(rig.refused(anywhere), "Invalid service address");
    assert_eq!(
        rig.refused(with_check(node("a"), "c", "web", "passing")),
        "failed inserting check: Missing service registration on node \"a\""
    );
    let mut elsewhere = with_check(node("a"), "c", "", "passing");
    elsewhere.check.as_mut().expect("given").node = "b".into();
    assert_eq!(
        rig.refused(elsewhere),
        "check node \"b\" does not match node \"a\""
    );
    assert!(
        rig.refused(with_check(node("a"), "c", "", "fine"))
            .contains("\"fine\"")
    );
    assert!(
        rig.refused(with_check(node("a"), "", "", "passing"))
            .contains("check ID")
    );
    let nameless = rig.op(|txn, index| deregister(txn, index, &DeregisterRequest::default()));
    assert_eq!(nameless, Err("Must provide node".to_owned()));
    // With a node that is known, no address is needed.
    rig.register(node("a")).expect("fine");
    let skip = RegisterRequest {
        skip_node_update: true,
        ..addressless
    };
    rig.register(skip).expect("the node stays as it is");
    assert_eq!(
        nodes::get(rig.store.tables(), "A").expect("known").address,
        "1.1.1.1"
    );
}

#[test]
fn meta_is_bounded() {
    let mut rig = Rig::default();
    let meta = |pairs: Vec<(String, String)>| pairs.into_iter().collect::<BTreeMap<_, _>>();
    let many = |n: usize| meta((0..n).map(|n| (n.to_string(), String::new())).collect());
    let one = |key: usize, value: usize| meta(vec![("k".repeat(key), "v".repeat(value))]);
    let of_node = |node_meta| RegisterRequest {
        node_meta,
        ..node("a")
    };
    let of_service = |meta| {
        let mut request = with_service("a", "web", "web");
        request.service.as_mut().expect("given").meta = meta;
        request
    };
    rig.register(of_node(many(META_PAIRS_MAX)))
        .expect("as many as may be");
    rig.register(of_service(many(META_PAIRS_MAX)))
        .expect("as many as may be");
    rig.register(of_node(one(META_KEY_BYTES_MAX, META_VALUE_BYTES_MAX)))
        .expect("as long as may be");
    assert_eq!(
        rig.refused(of_node(many(META_PAIRS_MAX + 1))),
        "Node metadata cannot contain more than 64 key/value pairs"
    );
    assert_eq!(
        rig.refused(of_service(many(META_PAIRS_MAX + 1))),
        "Invalid Service Meta for node a and serviceID web: \
         Service metadata cannot contain more than 64 key/value pairs"
    );
    let long = rig.refused(of_node(one(META_KEY_BYTES_MAX + 1, 1)));
    assert!(
        long.ends_with("Key is too long (limit: 128 characters)"),
        "{long}"
    );
    let long = rig.refused(of_service(one(1, META_VALUE_BYTES_MAX + 1)));
    assert!(
        long.ends_with("Value is too long (limit: 512 characters)"),
        "{long}"
    );
    assert!(
        rig.refused(of_node(one(0, 1)))
            .ends_with("Key cannot be blank")
    );
    let odd = meta(vec![("a.b".into(), String::new())]);
    assert_eq!(
        rig.refused(of_node(odd)),
        "Couldn't load metadata pair ('a.b', ''): Key contains invalid characters"
    );
}

#[test]
fn names_are_bounded() {
    let mut rig = Rig::default();
    let longest = "n".repeat(CATALOG_NAME_BYTES_MAX);
    let over = "n".repeat(CATALOG_NAME_BYTES_MAX + 1);
    let all = with_check(
        with_service(&longest, &longest, &longest),
        &longest,
        &longest,
        "passing",
    );
    rig.register(all).expect("all names at their limits");
    rig.store.tables().check();
    let long = [
        node(&over),
        with_service("a", &over, "web"),
        with_service("a", "web", &over),
        with_check(node("a"), &over, "", "passing"),
    ];
    for request in long {
        let why = rig.refused(request);
        assert!(
            why.contains("too long: 2049 bytes (limit: 2048 bytes)"),
            "{why}"
        );
    }
    // Bytes that keys must escape count twice there.
    let escaped = "\0".repeat(CATALOG_NAME_BYTES_MAX);
    let why = rig.refused(with_service(&escaped, &escaped, "web"));
    assert!(why.contains("a key of 8194 bytes, at most 8192"), "{why}");
}

#[test]
fn outputs_that_agents_report_are_cut() {
    let longest = "x".repeat(CHECK_OUTPUT_BYTES_MAX);
    assert_eq!(cut_output(&longest), longest);
    let cut = cut_output(&format!("{longest}yz")).into_owned();
    assert_eq!(cut, format!("{longest} ... (captured 4096 of 4098 bytes)"));
    // Not in the middle of a character.
    let cut = cut_output(&format!("{}é", &longest[1..])).into_owned();
    assert!(cut.starts_with(&longest[1..]) && cut.contains("x ... ("));
}

#[test]
fn the_same_again_changes_nothing() {
    let mut rig = Rig::default();
    let request = || {
        let mut request = with_check(with_service("a", "web1", "web"), "alive", "web1", "passing");
        request.node_meta = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        request
    };
    rig.register(request()).expect("fine");
    let digest = rig.store.digest();
    rig.register(request()).expect("fine");
    let mut other_case = request();
    other_case.node = "A".into();
    rig.register(other_case).expect("fine");
    assert_eq!(rig.store.digest(), digest);
}

#[test]
fn checks_carry_the_name_and_tags_of_their_service() {
    let mut rig = Rig::default();
    let mut request = with_check(with_service("a", "web1", "Web"), "alive", "web1", "");
    request.service.as_mut().expect("given").tags = vec!["v1".into()];
    rig.register(request).expect("fine");
    let check = checks::get(rig.store.tables(), "a", "ALIVE")
        .expect("registered")
        .clone();
    assert_eq!(
        (&*check.service_name, &check.service_tags[..]),
        ("Web", &["v1".to_owned()][..])
    );
    assert_eq!(check.status, "critical", "the default");
}

#[test]
fn a_node_is_renamed_by_its_uuid() {
    let mut rig = Rig::default();
    let mut old = with_check(
        with_service("old", "web", "web"),
        "serfHealth",
        "",
        "passing",
    );
    old.id = uuid(1);
    rig.register(old).expect("fine");
    rig.register(with_id("new", 1)).expect("renamed");
    let tables = rig.store.tables();
    assert!(nodes::get(tables, "old").is_none() && tables.services.is_empty());
    assert!(tables.checks.is_empty());
    let renamed = nodes::get(tables, "new").expect("renamed");
    assert_eq!((renamed.create_index, renamed.modify_index), (1, 2));
    assert_eq!(tables.max_index(&[rows::NODE_LAST_EXTINCTION]), Index(2));
}

#[test]
fn a_living_nodes_name_cannot_be_taken() {
    let mut rig = Rig::default();
    rig.register(with_check(with_id("a", 1), "serfHealth", "", "passing"))
        .expect("fine");
    assert_eq!(
        rig.refused(with_id("A", 2)),
        format!(
            "failed inserting node: Error while renaming Node ID: \"{}\": \
             Node name A is reserved by node {} with name a (1.1.1.1)",
            uuid(2),
            uuid(1)
        )
    );
    rig.register(with_id("b", 2)).expect("another name");
    let why = rig.refused(with_id("a", 2));
    assert!(
        why.contains("(1.1.1.1): Node name a is reserved by node"),
        "{why}"
    );
    let dead = RegisterRequest {
        skip_node_update: true,
        ..with_check(node("a"), "serfHealth", "", "critical")
    };
    rig.register(dead).expect("fine");
    rig.register(with_id("A", 2))
        .expect("a name that is free now");
    assert_eq!(
        nodes::get(rig.store.tables(), "a").expect("taken").id,
        uuid(2)
    );
    assert_eq!(rig.store.tables().nodes.len(), 1);
}

#[test]
fn a_node_without_uuid_can_get_one() {
    let mut rig = Rig::default();
    rig.register(with_check(node("a"), "serfHealth", "", "passing"))
        .expect("fine");
    rig.register(with_id("a", 1)).expect("it had none");
    assert!(nodes::by_id(rig.store.tables(), &uuid(1)).is_some());
    assert_eq!(rig.store.tables().checks.len(), 1, "what is on it stays");
}

#[test]
fn deregistering_takes_along_what_hangs_on_it() {
    let mut rig = Rig::default();
    rig.register(with_check(
        with_service("a", "web", "web"),
        "w",
        "web",
        "passing",
    ))
    .expect("fine");
    rig.register(with_check(
        with_service("a", "db", "db"),
        "d",
        "db",
        "passing",
    ))
    .expect("fine");
    rig.register(with_check(node("a"), "n", "", "passing"))
        .expect("fine");
    let left = |rig: &Rig| {
        let tables = rig.store.tables();
        (
            tables.nodes.len(),
            tables.services.len(),
            tables.checks.len(),
        )
    };
    // A service is meant if one is named, even with a check.
    rig.deregister("a", "web", "d");
    assert_eq!(left(&rig), (1, 1, 2));
    rig.deregister("a", "", "n");
    assert_eq!(left(&rig), (1, 1, 1));
    rig.deregister("a", "unknown", "");
    rig.deregister("unknown", "", "");
    assert_eq!(left(&rig), (1, 1, 1));
    rig.deregister("A", "", "");
    assert_eq!(left(&rig), (0, 0, 0));
}

#[test]
fn sessions_die_with_what_they_are_bound_to() {
    let mut rig = Rig::default();
    let alive = |status| with_check(with_service("a", "web", "web"), "c", "web", status);
    let bound = |rig: &mut Rig| {
        rig.register(alive("passing")).expect("fine");
        rig.session("a", "c", 1);
        assert_eq!(rig.sessions(), 1);
    };
    bound(&mut rig);
    rig.register(alive("warning")).expect("fine");
    assert_eq!(rig.sessions(), 1, "a warning is no death");
    rig.register(alive("critical")).expect("fine");
    assert_eq!(rig.sessions(), 0);
    let ways = [("", "c"), ("web", ""), ("", "")];
    for (service, check) in ways {
        bound(&mut rig);
        rig.deregister("a", service, check);
        assert_eq!(rig.sessions(), 0, "{service} {check}");
    }
    bound(&mut rig);
    rig.session("a", "other", 2);
    rig.deregister("a", "", "");
    assert_eq!(
        rig.sessions(),
        0,
        "a node's sessions, whatever they are bound to"
    );
}

#[test]
fn operations_of_transactions_answer_as_consuls() {
    let mut rig = Rig::default();
    let node = |modify_index| Node {
        node: "n".into(),
        address: "1.1.1.1".into(),
        modify_index,
        ..Node::default()
    };
    let service = |modify_index, port| Service {
        node: "n".into(),
        id: "s".into(),
        service: "web".into(),
        port,
        modify_index,
        ..Service::default()
    };
    let check = |modify_index, output: &str| Check {
        node: "n".into(),
        check_id: "c".into(),
        status: "passing".into(),
        output: output.into(),
        modify_index,
        ..Check::default()
    };
    use CatalogVerb::*;
    let nodes = |rig: &mut Rig, verb, given: Node| rig.op(|txn, at| node_op(txn, at, verb, &given));
    let services =
        |rig: &mut Rig, verb, given: Service| rig.op(|txn, at| service_op(txn, at, verb, &given));
    let checks =
        |rig: &mut Rig, verb, given: Check| rig.op(|txn, at| check_op(txn, at, verb, &given));
    let text = |why: &str| Some(why.to_owned());

    assert_eq!(
        nodes(&mut rig, Get, node(0)).err(),
        text("node \"n\" doesn't exist")
    );
    assert_eq!(
        services(&mut rig, Set, service(0, 1)).err(),
        text("Missing node registration")
    );
    let stale = text("failed to set node \"n\", index is stale");
    assert_eq!(nodes(&mut rig, Cas, node(7)).err(), stale, "there is none");
    let made = nodes(&mut rig, Cas, node(0)).expect("free").expect("shown");
    assert_eq!(nodes(&mut rig, Cas, node(0)).err(), stale, "there is one");
    assert!(nodes(&mut rig, Cas, node(made.modify_index)).is_ok());
    assert!(nodes(&mut rig, Get, node(0)).is_ok_and(|found| found.is_some()));

    let gone = text("service \"s\" on node \"n\" doesn't exist");
    assert_eq!(services(&mut rig, Get, service(0, 1)).err(), gone);
    let made = services(&mut rig, Set, service(0, 1))
        .expect("fine")
        .expect("shown");
    let stale = text("failed to set service \"s\" on node \"n\", index is stale");
    assert_eq!(
        services(&mut rig, Cas, service(made.modify_index + 1, 2)).err(),
        stale
    );
    let next = services(&mut rig, Cas, service(made.modify_index, 2))
        .expect("fine")
        .expect("shown");
    assert_eq!((next.create_index, next.port), (made.create_index, 2));
    let stale = text("failed to delete service \"s\" on node \"n\", index is stale");
    assert_eq!(
        services(&mut rig, DeleteCas, service(made.modify_index, 0)).err(),
        stale
    );
    assert_eq!(
        services(
            &mut rig,
            Set,
            Service {
                service: String::new(),
                ..service(0, 0)
            }
        )
        .err(),
        text("Must provide service name (Service.Service) when service ID is provided")
    );

    assert_eq!(
        checks(&mut rig, Get, check(0, "")).err(),
        text("check \"c\" on node \"n\" doesn't exist")
    );
    let made = checks(&mut rig, Set, check(0, ""))
        .expect("fine")
        .expect("shown");
    let stale = text("failed to set check \"c\" on node \"n\", index is stale");
    assert_eq!(checks(&mut rig, Cas, check(0, "x")).err(), stale);
    assert!(checks(&mut rig, Cas, check(made.modify_index, "x")).is_ok());
    let stale = text("failed to delete check \"c\" on node \"n\", index is stale");
    assert_eq!(
        checks(&mut rig, DeleteCas, check(made.modify_index, "")).err(),
        stale
    );
    assert!(checks(&mut rig, Delete, check(0, "")).is_ok_and(|none| none.is_none()));
    assert_eq!(
        checks(&mut rig, DeleteCas, check(0, "")).err(),
        stale,
        "it is gone"
    );

    assert!(services(&mut rig, DeleteCas, service(next.modify_index, 0)).is_ok());
    assert_eq!(
        nodes(&mut rig, DeleteCas, node(1)).err(),
        text("failed to delete node \"n\", index is stale")
    );
    assert!(nodes(&mut rig, Delete, node(0)).is_ok() && nodes(&mut rig, Delete, node(0)).is_ok());
    assert!(rig.store.tables().nodes.is_empty());
}

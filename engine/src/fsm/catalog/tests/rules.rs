//! Consul's rules, limits and texts, one by one.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use wire::Index;

use super::{Step, carry_out, uuid};
use crate::{
    fsm::{
        catalog::{
            CATALOG_NAME_BYTES_MAX, CHECK_OUTPUT_BYTES_MAX, CatalogVerb, Check, DeregisterRequest,
            META_KEY_BYTES_MAX, META_PAIRS_MAX, META_VALUE_BYTES_MAX, Node, RegisterRequest,
            Service, check_op, checks, cut_output, deregister, node_op, nodes, rows, service_op,
        },
        records::packed,
    },
    state::{
        Store, Txn,
        records::{Session, SessionCheck},
        schema::{SessionChecks, Sessions},
    },
};

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
fn gotcha_02_the_same_again_changes_nothing() {
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

/// Bodies of commands lie in logs: a later version must read them, and write the same for as long
/// as nobody uses what it adds. `CURIA_WRITE_GOLDEN=1` writes them anew.
#[test]
fn commands_look_as_they_always_did() {
    let pairs = |value: &str| BTreeMap::from([("k".to_owned(), value.to_owned())]);
    let request = RegisterRequest {
        datacenter: "dc1".into(),
        id: uuid(1),
        tagged_addresses: pairs("1.2.3.4"),
        node_meta: pairs("v"),
        checks: vec![Check {
            check_id: "c".into(),
            ..Check::default()
        }],
        skip_node_update: true,
        ..with_check(with_service("n", "web1", "web"), "alive", "web1", "passing")
    };
    let gone = DeregisterRequest {
        node: "n".into(),
        service_id: "web1".into(),
        check_id: "alive".into(),
    };
    golden("register", &request);
    golden("deregister", &gone);
}

fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, request: &T) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("golden/commands/version-1/{name}.msgpack"));
    let bytes = packed(request);
    if std::env::var_os("CURIA_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("writable");
        std::fs::write(&path, &bytes).expect("the golden directory");
    }
    let golden = std::fs::read(&path).unwrap_or_default();
    assert!(bytes == golden, "{name} is not encoded as in {path:?}");
    assert_eq!(
        &rmp_serde::from_slice::<T>(&golden).expect("readable"),
        request
    );
}

//! Who is woken, and with which index?

use proptest::prelude::*;

use super::*;
use crate::{documents::Question, fsm::catalog::DeregisterRequest, state::records::JsonText};

/// Every kind of question, about few names.
fn questions() -> Vec<CatalogQuestion> {
    let mut all = vec![
        ask(About::Nodes),
        ask(About::Services),
        ask(About::ChecksInState {
            status: "any".into(),
        }),
        ask(About::ChecksInState {
            status: "critical".into(),
        }),
    ];
    for name in ["a", "b"] {
        let connect = Instances {
            connect: true,
            ..service(name)
        };
        let passing = Instances {
            passing: true,
            ..service(name)
        };
        all.extend(
            [
                About::Service(service(name)),
                About::Service(connect.clone()),
                About::Health(service(name)),
                About::Health(connect),
                About::Health(passing),
                About::Node { node: name.into() },
                About::NodeServices { node: name.into() },
                About::ChecksOfNode { node: name.into() },
                About::ChecksOfService {
                    service: name.into(),
                },
            ]
            .map(ask),
        );
    }
    all.push(ask(About::Node { node: uuid() }));
    let by_node: Vec<_> = all
        .iter()
        .map(|question| CatalogQuestion {
            narrow: Narrow {
                node_meta: vec![("k".into(), "v".into())],
                ..Narrow::default()
            },
            ..question.clone()
        })
        .filter(|question| {
            !matches!(
                question.about,
                About::Node { .. } | About::NodeServices { .. }
            )
        })
        .collect();
    all.extend(by_node);
    all.push(CatalogQuestion {
        about: About::Services,
        narrow: Narrow {
            filter: "ServicePort == 1".into(),
            ..Narrow::default()
        },
    });
    all
}

fn command() -> impl Strategy<Value = RecordOp> {
    let name = || prop::sample::select(&["a", "b"][..]);
    let status = prop::sample::select(&["passing", "warning", "critical"][..]);
    let of_service = (name(), name(), 0..2u64, prop::bool::weighted(0.2));
    let check = prop::option::of((name(), status, prop::bool::ANY));
    let register = (name(), 0..3u8, prop::option::of(of_service), check).prop_map(
        |(on, kind, of_service, check)| {
            let mut request = node(on);
            match kind {
                0 => request.id = uuid(),
                1 => drop(request.node_meta.insert("k".into(), "v".into())),
                _ => {}
            }
            let mut service_id = String::new();
            if let Some((id, name, port, proxy)) = of_service {
                let mut given = Service {
                    id: id.into(),
                    service: name.into(),
                    port,
                    ..Service::default()
                };
                if proxy {
                    given.kind = "connect-proxy".into();
                    given.proxy = JsonText::parse(r#"{"DestinationServiceName":"a"}"#).unwrap();
                }
                service_id = given.id.clone();
                request.service = Some(given);
            }
            if let Some((id, status, of_node)) = check {
                let service = if of_node { "" } else { &service_id };
                request = with_check(request, id, service, status);
            }
            RecordOp::Register(request)
        },
    );
    let deregister = (name(), name(), 0..4u8).prop_map(|(node, id, what)| {
        let id = id.to_owned();
        let (service_id, check_id) = match what {
            0 => (String::new(), String::new()),
            1 => (String::new(), id),
            _ => (id, String::new()),
        };
        RecordOp::Deregister(DeregisterRequest {
            node: node.into(),
            service_id,
            check_id,
        })
    });
    prop_oneof![3 => register, 1 => deregister]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    /// What a blocking query needs: a document that changed has the index of the command that
    /// changed it, and touches the question's subject; the index never falls; and a command that
    /// changes nothing wakes nobody.
    #[test]
    fn a_question_whose_answer_changes_is_woken_at_a_greater_index(
        commands in prop::collection::vec(command(), 1..25),
    ) {
        let mut fsm = Fsm::new();
        let questions = questions();
        for op in commands {
            let seen = |fsm: &Fsm| -> Vec<(Vec<u8>, u64)> {
                let tables = fsm.store().tables();
                questions.iter().map(|asked| (asked.answer(tables), asked.index(tables).0)).collect()
            };
            let (before, digest) = (seen(&fsm), fsm.digest());
            let subjects = apply(&mut fsm, op.clone());
            let at = fsm.applied().0.0;
            if fsm.digest() == digest {
                prop_assert!(subjects.is_empty(), "{op:?}");
            }
            for ((asked, old), new) in questions.iter().zip(before).zip(seen(&fsm)) {
                prop_assert!(new.1 >= old.1, "the index of {asked:?} fell from {} to {}", old.1, new.1);
                if new.0 != old.0 {
                    prop_assert_eq!(new.1, at, "{:?} after {:?}", asked, op);
                    let subject = asked.subject();
                    prop_assert!(subjects.contains(subject.as_bytes()), "{asked:?} after {op:?}");
                }
            }
        }
    }
}

/// A waiter sleeps through what happens beside it; Consul's wakes in some of these cases.
#[test]
fn questions_sleep_through_what_does_not_concern_them() {
    let mut fsm = Fsm::new();
    let web = with_service(node("a"), "web", "web", &["v1"]);
    apply(
        &mut fsm,
        RecordOp::Register(with_check(web.clone(), "c", "web", "passing")),
    );
    let woken = |subjects: &BTreeSet<Vec<u8>>, about: About| {
        subjects.contains(ask(about).subject().as_bytes())
    };
    let db = with_check(
        with_service(node("b"), "db", "db", &[]),
        "d",
        "db",
        "passing",
    );
    let subjects = apply(&mut fsm, RecordOp::Register(db));
    for sleeps in [
        About::Service(service("web")),
        About::Health(service("web")),
        About::Health(service("missing")),
        About::Node { node: "a".into() },
        About::ChecksOfNode { node: "a".into() },
        About::ChecksOfService {
            service: "web".into(),
        },
        About::ChecksInState {
            status: "critical".into(),
        },
    ] {
        assert!(!woken(&subjects, sleeps.clone()), "{sleeps:?}");
    }
    assert!(woken(&subjects, About::Nodes) && woken(&subjects, About::Services));
    // Another port is no other name or tag.
    let mut moved = web.clone();
    moved.service.as_mut().expect("given").port = 81;
    let subjects = apply(&mut fsm, RecordOp::Register(moved));
    assert!(woken(&subjects, About::Service(service("WEB"))));
    assert!(!woken(&subjects, About::Services) && !woken(&subjects, About::Nodes));
    // The end of one service does not wake who waits for another that is missing.
    let gone = DeregisterRequest {
        node: "b".into(),
        ..DeregisterRequest::default()
    };
    let subjects = apply(&mut fsm, RecordOp::Deregister(gone));
    assert!(woken(&subjects, About::Service(service("db"))));
    assert!(!woken(&subjects, About::Service(service("missing"))));
}

#[test]
fn questions_travel() {
    for question in questions() {
        let question = Question::Catalog(question);
        assert_eq!(Question::decode(&question.encode()), Ok(question));
    }
}

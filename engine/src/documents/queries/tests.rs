//! Executions against a plain reading of what a query asks for, and the law of blocking queries.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;
use wire::{Index, Term, Uuid};

use super::*;
use crate::{
    documents::{Question, subjects},
    fsm::{
        Fsm,
        catalog::RegisterRequest,
        queries::{QueryRequest, QueryVerb},
        records::RecordOp,
        sessions::{SessionRequest, SessionVerb},
    },
    state::records::{Check, Service, Session},
};

/// Carries out a command; the subjects that it touched.
fn apply(fsm: &mut Fsm, op: RecordOp) -> BTreeSet<Vec<u8>> {
    let index = Index(fsm.applied().0.0 + 1);
    let (mut outcomes, mut touched) = (Vec::new(), BTreeSet::new());
    fsm.apply_run_watched(
        &[(index, Term(1), op.encode())],
        &mut outcomes,
        Some(&mut |_, changes| {
            for change in changes {
                subjects::touched(change, &mut |subject| {
                    touched.insert(subject.as_bytes().to_vec());
                });
            }
        }),
    )
    .expect("a known command");
    touched
}

/// One instance on a node of its own, with a check of the node and one of the instance.
#[derive(Clone, Debug)]
struct Made {
    tags: Vec<&'static str>,
    rack: &'static str,
    build: &'static str,
    on_node: &'static str,
    on_service: &'static str,
}

fn made() -> impl Strategy<Value = Made> {
    let status = || prop::sample::select(&["passing", "warning", "critical"][..]);
    let pair = || prop::sample::select(&["1", "2"][..]);
    let tags = prop::collection::vec(prop::sample::select(&["a", "B"][..]), 0..2);
    (tags, pair(), pair(), status(), status()).prop_map(
        |(tags, rack, build, on_node, on_service)| Made {
            tags,
            rack,
            build,
            on_node,
            on_service,
        },
    )
}

fn register(fsm: &mut Fsm, at: usize, made: &Made) {
    let check = |id: &str, status: &str, service: &str| Check {
        node: format!("n{at}"),
        check_id: id.into(),
        name: id.into(),
        status: status.into(),
        service_id: service.into(),
        ..Check::default()
    };
    let request = RegisterRequest {
        node: format!("n{at}"),
        address: format!("10.0.0.{at}"),
        datacenter: "dc1".into(),
        node_meta: [("rack".to_owned(), made.rack.to_owned())].into(),
        service: Some(Service {
            id: "w".into(),
            service: "web".into(),
            tags: made.tags.iter().map(|tag| (*tag).to_owned()).collect(),
            meta: [("build".to_owned(), made.build.to_owned())].into(),
            ..Service::default()
        }),
        checks: vec![
            check("node-up", made.on_node, ""),
            check("web-up", made.on_service, "w"),
        ],
        ..RegisterRequest::default()
    };
    apply(fsm, RecordOp::Register(request));
}

fn asked() -> impl Strategy<Value = ServiceQuery> {
    let pairs = |key: &'static str| {
        let value = prop::option::weighted(0.3, prop::sample::select(&["1", "2"][..]));
        value.prop_map(move |value| -> BTreeMap<String, String> {
            value
                .map(|value| (key.to_owned(), value.to_owned()))
                .into_iter()
                .collect()
        })
    };
    let tags = prop::sample::select(&["a", "A", "b", "!a", "!B"][..]);
    let ignored = prop::sample::select(&["node-up", "web-up", "other"][..]);
    (
        prop::bool::ANY,
        prop::collection::vec(ignored, 0..2),
        prop::collection::vec(tags, 0..3),
        pairs("rack"),
        pairs("build"),
        prop::sample::select(&["", "n1", "N2", "n9", "_agent", "_ip"][..]),
    )
        .prop_map(
            |(only_passing, ignored, tags, rack, build, near)| ServiceQuery {
                service: "web".into(),
                only_passing,
                ignore_check_ids: ignored.into_iter().map(str::to_owned).collect(),
                tags: tags.into_iter().map(str::to_owned).collect(),
                node_meta: rack,
                service_meta: build,
                near: near.into(),
                ..ServiceQuery::default()
            },
        )
}

/// Whether a query finds an instance, as its documentation says it.
fn is_found(query: &ServiceQuery, made: &Made) -> bool {
    let healthy = |id: &str, status: &str| {
        query.ignore_check_ids.iter().any(|ignored| ignored == id)
            || status == "passing"
            || status == "warning" && !query.only_passing
    };
    let has = |tag: &str| made.tags.iter().any(|held| held.eq_ignore_ascii_case(tag));
    let tagged = query.tags.iter().all(|tag| match tag.strip_prefix('!') {
        Some(tag) => !has(tag),
        None => has(tag),
    });
    healthy("node-up", made.on_node)
        && healthy("web-up", made.on_service)
        && tagged
        && query
            .node_meta
            .get("rack")
            .is_none_or(|rack| rack == made.rack)
        && query
            .service_meta
            .get("build")
            .is_none_or(|build| build == made.build)
}

fn definition(number: u8, name: &str, service: ServiceQuery) -> Definition {
    Definition {
        id: Uuid([number; 16]).to_string(),
        name: name.into(),
        token: "secret".into(),
        service,
        ..Definition::default()
    }
}

fn write(op: QueryVerb, query: &Definition) -> RecordOp {
    let query = query.record();
    RecordOp::PreparedQuery(QueryRequest { op, query })
}

/// Nodes of an execution, in its order.
fn executed(fsm: &Fsm, how: Execution) -> Vec<String> {
    let document = QueriesQuestion::Execute(how).answer(fsm.store().tables());
    let document: Value = serde_json::from_slice(&document).expect("JSON");
    assert_eq!(document["Query"]["Token"], "secret");
    let nodes = document["Query"]["Executed"]["Nodes"]
        .as_array()
        .expect("a list");
    let name = |row: &Value| row["Node"]["Node"].as_str().expect("a name").to_owned();
    nodes.iter().map(name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    /// Exactly those that the plain reading finds; a seed decides their order, a limit how many;
    /// the node to be near to comes first.
    #[test]
    fn an_execution_finds_what_a_plain_reading_does(
        all in prop::collection::vec(made(), 0..7),
        query in asked(),
        (limit, seed) in (0..4u64, any::<u64>()),
        near in prop::sample::select(&["", "n3"][..]),
    ) {
        let mut fsm = Fsm::new();
        for (at, made) in all.iter().enumerate() {
            register(&mut fsm, at, made);
        }
        apply(&mut fsm, write(QueryVerb::Create, &definition(1, "q", query.clone())));
        let how = Execution {
            asked: "Q".into(),
            near: near.into(),
            agent: "n4".into(),
            ip: "10.0.0.5".into(),
            seed,
            ..Execution::default()
        };
        let found = executed(&fsm, how.clone());
        let mut sorted = found.clone();
        sorted.sort();
        let expected = all.iter().enumerate().filter(|(_, made)| is_found(&query, made));
        let expected: Vec<_> = expected.map(|(at, _)| format!("n{at}")).collect();
        prop_assert_eq!(&sorted, &expected);
        let near = match (near, &*query.near) {
            ("", "_agent") => "n4",
            ("", "_ip") => "n5",
            ("", near) => near,
            (near, _) => near,
        };
        let is_near = |node: &String| node.eq_ignore_ascii_case(near);
        if found.iter().any(is_near) {
            prop_assert!(is_near(&found[0]), "{:?} near {}", found, near);
        }
        let limited = executed(&fsm, Execution { limit, ..how });
        let most = if limit == 0 { found.len() } else { limit as usize };
        prop_assert_eq!(&limited[..], &found[..most.min(found.len())]);
    }

    /// A document that changed has the index of the command that changed it, and wakes who asked;
    /// an index never falls; a command that changes nothing wakes nobody.
    #[test]
    fn a_question_whose_answer_changes_is_woken_at_a_greater_index(
        steps in prop::collection::vec((0..4u8, 1..4u8, 0..3u8, any::<bool>()), 1..25),
    ) {
        let mut fsm = Fsm::new();
        register(&mut fsm, 0, &Made {
            tags: vec![], rack: "1", build: "1", on_node: "passing", on_service: "passing",
        });
        let session = |op| RecordOp::Session(SessionRequest {
            op,
            session: Session {
                id: Uuid([9; 16]).to_string(),
                node: "n0".into(),
                behavior: "release".into(),
                ..Session::default()
            },
        });
        let id = |number: u8| Uuid([number; 16]).to_string();
        let mut questions = vec![QueriesQuestion::List { hide_tokens: true }];
        for hide_tokens in [false, true] {
            questions.extend((1..4).map(|n| QueriesQuestion::Get { id: id(n), hide_tokens }));
            questions.push(QueriesQuestion::Explain { asked: "n1x".into(), hide_tokens });
        }
        for (what, number, name, bound) in steps {
            let mut query = definition(number, ["", "n1", "n2"][usize::from(name)], ServiceQuery {
                service: "web".into(),
                ..ServiceQuery::default()
            });
            if bound {
                query.session = Uuid([9; 16]).to_string();
                query.template.kind = NAME_PREFIX_MATCH.into();
            }
            let op = match what {
                0 => write(QueryVerb::Create, &query),
                1 => write(QueryVerb::Update, &query),
                2 => write(QueryVerb::Delete, &query),
                _ if bound => session(SessionVerb::Create),
                _ => session(SessionVerb::Destroy),
            };
            let seen = |fsm: &Fsm| -> Vec<(Vec<u8>, u64)> {
                let tables = fsm.store().tables();
                questions.iter().map(|asked| (asked.answer(tables), asked.index(tables).0)).collect()
            };
            let (before, digest) = (seen(&fsm), fsm.digest());
            let touched = apply(&mut fsm, op);
            let at = fsm.applied().0.0;
            if fsm.digest() == digest {
                prop_assert!(touched.is_empty());
            }
            for ((asked, old), new) in questions.iter().zip(before).zip(seen(&fsm)) {
                prop_assert!(new.1 >= old.1, "{asked:?}");
                if new.0 != old.0 {
                    prop_assert_eq!(new.1, at, "{:?}", asked);
                    prop_assert!(touched.contains(asked.subject().as_bytes()), "{asked:?}");
                }
            }
        }
    }
}

#[test]
fn tokens_are_hidden_from_those_who_may_not_see_them() {
    let mut fsm = Fsm::new();
    let query = ServiceQuery::default();
    apply(
        &mut fsm,
        write(QueryVerb::Create, &definition(1, "q", query)),
    );
    let id = Uuid([1; 16]).to_string();
    for (hide_tokens, shown) in [(true, HIDDEN), (false, "secret")] {
        for question in [
            QueriesQuestion::Get {
                id: id.clone(),
                hide_tokens,
            },
            QueriesQuestion::List { hide_tokens },
            QueriesQuestion::Explain {
                asked: "q".into(),
                hide_tokens,
            },
        ] {
            let document = question.answer(fsm.store().tables());
            let document: Value = serde_json::from_slice(&document).expect("JSON");
            let token = [&document[0]["Token"], &document["Query"]["Token"]];
            assert!(
                token.contains(&&Value::from(shown)),
                "{question:?}: {document}"
            );
            let question = Question::from(question);
            assert_eq!(Question::decode(&question.encode()), Ok(question));
        }
    }
}

/// The native protocol takes any body: such a query is shown as far as it is understood, and is no
/// reason to fail a list.
#[test]
fn a_query_that_cannot_be_read_is_shown_and_not_executed() {
    let mut fsm = Fsm::new();
    let mut query = definition(1, "q", ServiceQuery::default()).record();
    query.body = crate::state::records::JsonText::parse("[1]").expect("JSON");
    let op = QueryVerb::Create;
    apply(
        &mut fsm,
        RecordOp::PreparedQuery(QueryRequest { op, query }),
    );
    let tables = fsm.store().tables();
    let answer = |question: QueriesQuestion| -> Value {
        serde_json::from_slice(&question.answer(tables)).expect("JSON")
    };
    let list = answer(QueriesQuestion::List { hide_tokens: false });
    assert_eq!(list[0]["Name"], "q");
    let how = Execution {
        asked: "q".into(),
        ..Execution::default()
    };
    let failed = answer(QueriesQuestion::Execute(how));
    let why = failed["Failed"].as_str().expect("a reason");
    assert!(why.contains("cannot be read"), "{why}");
}

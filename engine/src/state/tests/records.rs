//! The tables of the catalog, sessions and tokens, against lists that are searched.

use std::collections::BTreeMap;

use proptest::prelude::*;
use wire::Index;

use crate::state::{
    RecordRow, Store, Txn,
    index::{Arg, Key, Lookup},
    records::{
        AclToken, Check, JsonText, Node, PolicyLink, Record, Service, ServiceIdentity, Session,
    },
    schema::*,
    table::Table,
    txn::PutError,
};

/// Few names, some of which differ in case only or hold what separates names in keys.
const NAMES: [&str; 6] = ["a", "A", "b", "a\0b", "\u{1}", "ab"];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

fn name_or_none() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), name()]
}

fn uuid(n: u8) -> String {
    wire::Uuid([n; 16]).to_string()
}

fn uuid_or_none() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), (0..4u8).prop_map(uuid)]
}

fn node() -> impl Strategy<Value = Node> {
    let meta = prop::collection::btree_map(name(), name_or_none(), 0..3);
    (uuid_or_none(), name(), meta).prop_map(|(id, node, meta)| Node {
        id,
        node,
        meta,
        ..Node::default()
    })
}

fn service() -> impl Strategy<Value = Service> {
    (
        name(),
        name(),
        name_or_none(),
        any::<bool>(),
        name_or_none(),
    )
        .prop_map(|(node, id, service, proxy, target)| {
            let json = match proxy {
                true => serde_json::json!({"DestinationServiceName": target}),
                false => serde_json::json!({"Native": !target.is_empty()}),
            };
            let json = JsonText::parse(&json.to_string()).expect("JSON");
            Service {
                node,
                id,
                service,
                kind: if proxy { "connect-proxy" } else { "" }.to_owned(),
                proxy: if proxy { json.clone() } else { JsonText::NONE },
                connect: if proxy { JsonText::NONE } else { json },
                ..Service::default()
            }
        })
}

fn check() -> impl Strategy<Value = Check> {
    let status = prop::sample::select(&["passing", "warning", "critical"][..]);
    (name(), name(), status, name_or_none(), name_or_none()).prop_map(
        |(node, check_id, status, service_id, service_name)| Check {
            node,
            check_id,
            status: status.to_owned(),
            service_id,
            service_name,
            ..Check::default()
        },
    )
}

fn session() -> impl Strategy<Value = Session> {
    (0..6u8, name(), 0..3u64, 0..20u64).prop_map(|(id, node, ttl_ms, renewed_at_ms)| Session {
        id: uuid(id),
        node,
        ttl_ms,
        renewed_at_ms,
        ..Session::default()
    })
}

fn token() -> impl Strategy<Value = AclToken> {
    let links = prop::collection::vec((0..4u8).prop_map(uuid), 0..3);
    let services = prop::collection::vec(name_or_none(), 0..3);
    let rest = (any::<bool>(), name_or_none(), 0..3u64);
    (0..4u8, name(), links, services, rest).prop_map(
        |(accessor, secret_id, links, services, (local, auth_method, expiration_time))| AclToken {
            accessor_id: uuid(accessor),
            secret_id,
            policies: links
                .into_iter()
                .map(|id| PolicyLink {
                    id,
                    ..PolicyLink::default()
                })
                .collect(),
            service_identities: services
                .into_iter()
                .map(|service_name| ServiceIdentity {
                    service_name,
                    ..ServiceIdentity::default()
                })
                .collect(),
            local,
            auth_method,
            expiration_time,
            ..AclToken::default()
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Node(Node, bool),
    Service(Service, bool),
    Check(Check, bool),
    Session(Session, bool),
    Token(AclToken, bool),
}

/// Some steps, and whether they are made to stay.
fn steps() -> impl Strategy<Value = (Vec<Step>, bool)> {
    let put = || prop::bool::weighted(0.75);
    let step = prop_oneof![
        (node(), put()).prop_map(|(row, put)| Step::Node(row, put)),
        (service(), put()).prop_map(|(row, put)| Step::Service(row, put)),
        (check(), put()).prop_map(|(row, put)| Step::Check(row, put)),
        (session(), put()).prop_map(|(row, put)| Step::Session(row, put)),
        (token(), put()).prop_map(|(row, put)| Step::Token(row, put)),
    ];
    (prop::collection::vec(step, 1..8), prop::bool::weighted(0.7))
}

fn key_of<T: Record>(record: &T) -> Vec<u8> {
    let mut key = Key::default();
    record.primary_key(&mut key);
    key.as_bytes().to_vec()
}

/// The rows of one table by their keys.
type Rows<T> = BTreeMap<Vec<u8>, T>;

#[derive(Clone, Default)]
struct Model {
    nodes: Rows<Node>,
    services: Rows<Service>,
    checks: Rows<Check>,
    sessions: Rows<Session>,
    tokens: Rows<AclToken>,
}

/// Puts a row in or takes it out, in table and model; they agree on whether that is allowed.
fn change<D, T>(
    txn: &mut Txn<'_>,
    rows: &mut Rows<T>,
    row: T,
    put: bool,
    collide: impl Fn(&T, &T) -> bool,
) where
    D: InSchema<Row = RecordRow<T>>,
    T: Record,
{
    let key = key_of(&row);
    if !put {
        assert_eq!(txn.remove::<D>(&key), rows.remove(&key).is_some());
        return;
    }
    let taken = rows
        .iter()
        .any(|(other, held)| *other != key && collide(held, &row));
    match txn.put_record::<D, T>(row.clone()) {
        Ok(()) => assert!(!taken),
        Err(PutError::Index(_)) => assert!(taken),
        Err(error) => panic!("{error}"),
    }
    if !taken {
        rows.insert(key, row);
    }
}

impl Model {
    fn step(&mut self, txn: &mut Txn<'_>, step: Step) {
        match step {
            Step::Node(row, put) => change::<Nodes, _>(txn, &mut self.nodes, row, put, |a, b| {
                !a.id.is_empty() && a.id == b.id
            }),
            Step::Service(row, put) => {
                change::<Services, _>(txn, &mut self.services, row, put, |_, _| false)
            }
            Step::Check(row, put) => {
                change::<Checks, _>(txn, &mut self.checks, row, put, |_, _| false)
            }
            Step::Session(row, put) => {
                change::<Sessions, _>(txn, &mut self.sessions, row, put, |_, _| false)
            }
            Step::Token(row, put) => {
                change::<AclTokens, _>(txn, &mut self.tokens, row, put, |a, b| {
                    a.secret_id == b.secret_id
                })
            }
        }
    }
}

/// An index finds the rows that a search finds.
fn finds<'q, D, T, L>(
    table: &Table<D>,
    rows: &Rows<T>,
    index: &L,
    query: L::Query<'q>,
    wanted: impl Fn(&T) -> bool,
) where
    D: InSchema<Row = RecordRow<T>>,
    T: Record,
    L: Lookup<RecordRow<T>>,
{
    let mut found = Vec::new();
    table
        .find(index, query, |row| {
            found.push(T::clone(row));
            true
        })
        .expect("a query that fits");
    let expected: Vec<T> = rows.values().filter(|row| wanted(row)).cloned().collect();
    assert_eq!(found, expected, "{}.{}", D::NAME, index.def().name);
}

/// Rows in the order of an index that sorts by time.
fn in_order<D, T>(
    table: &Table<D>,
    rows: &Rows<T>,
    index: &crate::state::index::FunctionalIndex<RecordRow<T>, u64>,
    time: impl Fn(&T) -> Option<u64>,
) where
    D: InSchema<Row = RecordRow<T>>,
    T: Record,
{
    let mut found = Vec::new();
    let mut each = |row: &RecordRow<T>| {
        found.push(time(row).expect("only rows with a time"));
        true
    };
    table.find_prefix(index, &0, &mut each).expect("declared");
    let mut expected: Vec<u64> = rows.values().filter_map(&time).collect();
    expected.sort();
    assert_eq!(found, expected, "{}.{}", D::NAME, index.name);
}

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

fn agrees(store: &Store, model: &Model) {
    let tables = store.tables();
    tables.check();
    let Model {
        nodes,
        services,
        checks,
        sessions,
        tokens,
    } = model;
    for a in NAMES {
        let text = &[Arg::Text(a)][..];
        finds(&tables.nodes, nodes, &NODES_ID, text, |row| {
            same(&row.node, a)
        });
        finds(&tables.services, services, &SERVICES_NODE, text, |row| {
            same(&row.node, a)
        });
        finds(&tables.services, services, &SERVICES_SERVICE, text, |row| {
            same(&row.service, a)
        });
        finds(&tables.services, services, &SERVICES_CONNECT, a, |row| {
            same(&row.connect_name(), a)
        });
        finds(&tables.checks, checks, &CHECKS_NODE, text, |row| {
            same(&row.node, a)
        });
        finds(&tables.checks, checks, &CHECKS_SERVICE, text, |row| {
            same(&row.service_name, a)
        });
        finds(&tables.sessions, sessions, &SESSIONS_NODE, text, |row| {
            same(&row.node, a)
        });
        finds(&tables.acl_tokens, tokens, &ACL_TOKENS_ID, text, |row| {
            row.secret_id == a
        });
        finds(
            &tables.acl_tokens,
            tokens,
            &ACL_TOKENS_AUTHMETHOD,
            text,
            |row| same(&row.auth_method, a),
        );
        finds(
            &tables.acl_tokens,
            tokens,
            &ACL_TOKENS_SERVICE_NAME,
            a,
            |row| {
                row.service_identities
                    .iter()
                    .any(|id| same(&id.service_name, a))
            },
        );
        for b in NAMES.into_iter().chain([""]) {
            let both = &[Arg::Text(a), Arg::Text(b)][..];
            let pair = (a.to_owned(), b.to_owned());
            finds(&tables.nodes, nodes, &NODES_META, &pair, |row| {
                row.meta.get(a).is_some_and(|value| value == b)
            });
            finds(&tables.services, services, &SERVICES_ID, both, |row| {
                same(&row.node, a) && same(&row.id, b)
            });
            finds(&tables.checks, checks, &CHECKS_ID, both, |row| {
                same(&row.node, a) && same(&row.check_id, b)
            });
            finds(&tables.checks, checks, &CHECKS_NODE_SERVICE, both, |row| {
                same(&row.node, a) && same(&row.service_id, b)
            });
        }
    }
    for kind in ["", "connect-proxy", "other"] {
        let text = &[Arg::Text(kind)][..];
        finds(&tables.services, services, &SERVICES_KIND, text, |row| {
            row.kind == kind
        });
    }
    for status in ["passing", "warning", "critical"] {
        let text = &[Arg::Text(status)][..];
        finds(&tables.checks, checks, &CHECKS_STATUS, text, |row| {
            row.status == status
        });
    }
    for n in 0..6 {
        let bytes = [n; 16];
        let bytes = &[Arg::Uuid(&bytes)][..];
        let id = &*uuid(n);
        finds(&tables.nodes, nodes, &NODES_UUID, bytes, |row| row.id == id);
        finds(
            &tables.sessions,
            sessions,
            &SESSIONS_ID,
            &[Arg::Text(id)],
            |row| row.id == id,
        );
        finds(
            &tables.acl_tokens,
            tokens,
            &ACL_TOKENS_ACCESSOR,
            bytes,
            |row| row.accessor_id == id,
        );
        finds(
            &tables.acl_tokens,
            tokens,
            &ACL_TOKENS_POLICIES,
            id,
            |row| row.policies.iter().any(|link| link.id == id),
        );
    }
    finds(
        &tables.acl_tokens,
        tokens,
        &ACL_TOKENS_POLICIES,
        "no UUID",
        |_| false,
    );
    for local in [false, true] {
        let query = &[Arg::Condition(local)][..];
        finds(
            &tables.acl_tokens,
            tokens,
            &ACL_TOKENS_LOCALITY,
            query,
            |row| row.local == local,
        );
        let index = if local {
            &ACL_TOKENS_EXPIRES_LOCAL
        } else {
            &ACL_TOKENS_EXPIRES_GLOBAL
        };
        in_order(&tables.acl_tokens, tokens, index, |row| {
            (row.expiration_time > 0 && row.local == local).then_some(row.expiration_time)
        });
    }
    in_order(
        &tables.sessions,
        sessions,
        &SESSIONS_DEADLINE,
        Session::deadline_ms,
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]
    /// Runs of transactions, in each of which a part may be rolled back, and some of which are
    /// dropped whole.
    #[test]
    fn indexes_of_records_agree_with_a_search(
        transactions in prop::collection::vec((prop::collection::vec(steps(), 1..4), prop::bool::weighted(0.8)), 1..8),
    ) {
        let mut store = Store::new();
        let mut model = Model::default();
        for (parts, commit) in transactions {
            let mut next = model.clone();
            let mut txn = store.begin();
            for (steps, keep) in parts {
                let (savepoint, before) = (txn.savepoint(), next.clone());
                for step in steps {
                    next.step(&mut txn, step);
                }
                if !keep {
                    txn.rollback_to(savepoint);
                    next = before;
                }
            }
            if commit {
                txn.commit();
                model = next;
            } else {
                drop(txn);
            }
            agrees(&store, &model);
        }
    }
}

#[test]
fn the_last_word_on_a_name_is_written_to_the_index_table() {
    let index = |store: &Store, name: &str| store.tables().max_index(&[name]).0;
    let mut store = Store::new();
    let mut txn = store.begin();
    txn.touch_named("service.web", Index(1));
    txn.touch_named("service.db", Index(1));
    txn.touch_named("service.web", Index(2));
    let savepoint = txn.savepoint();
    txn.forget_named("service.web");
    txn.rollback_to(savepoint);
    txn.commit();
    assert_eq!(
        (index(&store, "service.web"), index(&store, "service.db")),
        (2, 1)
    );
    let mut txn = store.begin();
    txn.touch_named("service.web", Index(3));
    txn.forget_named("service.web");
    txn.forget_named("service.db");
    txn.touch_named("service.db", Index(4));
    txn.settle();
    assert_eq!(txn.changes().len(), 2, "one change a name");
    txn.commit();
    assert_eq!(
        (index(&store, "service.web"), index(&store, "service.db")),
        (0, 4)
    );
}

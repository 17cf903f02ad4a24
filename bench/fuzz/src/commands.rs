//! How do a fuzzer's choices become commands that a cluster could have agreed on?
//!
//! Everything that [`records::check`] or a leader lets into the log may come out: names, ids and
//! sessions are drawn from few, so that commands meet each other's rows; numbers are mostly small,
//! and indexes mostly of commands before.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::{
    fsm::{
        acl::{Bootstrap, PolicyDelete, PolicySet, RoleDelete, RoleSet, TokenDelete, TokenSet},
        catalog::{CatalogVerb, CoordinatesRequest, DeregisterRequest, RegisterRequest},
        config::{ConfigRequest, ConfigVerb},
        mixed::{KvOp, MixedOp, MixedTxn},
        queries::{QueryRequest, QueryVerb},
        records::RecordOp,
        sessions::{SessionRequest, SessionVerb, Tick},
        tombstones::Reap,
    },
    state::records::{
        AclPolicy, AclRole, AclToken, Check, ConfigEntry, Coord, Coordinate, JsonText, Node,
        NodeIdentity, PolicyLink, PreparedQuery, QueryTemplate, RoleLink, Service, ServiceAddress,
        ServiceCheck, ServiceIdentity, Session, Weights,
    },
};
use wire::{Command, KvCommand, KvVerb, TxnOp, TxnOps, TxnVerb};

use crate::feed::Feed;

/// Ids of sessions, tokens, policies, roles, nodes and queries alike: some are the same but for
/// their case, and some are none.
pub(crate) const IDS: [&str; 8] = [
    "11111111-2222-3333-4444-555555555555",
    "11111111-2222-3333-4444-5555555555AA",
    "11111111-2222-3333-4444-5555555555aa",
    "00000000-0000-0000-0000-000000000001",
    "00000000-0000-0000-0000-000000000002",
    "b6f1a1f0-0000-4000-8000-000000000001",
    "",
    "not-an-id",
];

const KEYS: [&[u8]; 10] = [
    b"a",
    b"a/",
    b"a/b",
    b"a/b/c",
    b"b",
    b"\xff",
    b"\xff\xff",
    b"a\0",
    b"lock",
    b"z",
];
const TAGS: [&str; 4] = ["v1", "V1", "v2", ""];
const RULES: [&str; 5] = [
    "",
    "key_prefix \"a\" { policy = \"read\" }",
    "node \"n1\" { policy = \"write\" }",
    "acl = \"write\"",
    "{\"key\":{\"b\":{\"policy\":\"deny\"}}}",
];
const JSON: [&str; 5] = [
    "{}",
    "{\"Native\":true}",
    "{\"DestinationServiceName\":\"web\",\"X\":[1,null,1e400]}",
    "null",
    "\"<&>\u{2028}\"",
];

/// A command as it lies in the log, after `before` others.
pub fn command(feed: &mut Feed<'_>, before: u64) -> Bytes {
    match feed.below(16) {
        0..4 => {
            let (key, value, session) = (key(feed), feed.bytes(24).to_vec(), id(feed));
            let verb = feed.pick(&KvVerb::ALL);
            let key = match (verb, key.is_empty()) {
                (KvVerb::DeleteTree, _) | (_, false) => key,
                _ => b"k".to_vec(),
            };
            Command::Kv(KvCommand {
                verb,
                key: &key,
                value: &value,
                flags: feed.number(),
                index: index(feed, before),
                session: session.as_bytes(),
            })
            .encode()
        }
        4 | 5 => txn(feed, before),
        _ => record(feed, before).encode(),
    }
}

fn txn(feed: &mut Feed<'_>, before: u64) -> Bytes {
    let ops = feed.several(5, |feed| kv_op(feed, before));
    let ops: Vec<TxnOp<'_>> = ops
        .iter()
        .map(|op| TxnOp {
            verb: op.verb,
            key: &op.key,
            value: &op.value,
            flags: op.flags,
            index: op.index,
            session: &op.session,
        })
        .collect();
    Command::Txn(TxnOps::new(&ops)).encode()
}

/// A command on records.
pub fn record(feed: &mut Feed<'_>, before: u64) -> RecordOp {
    match feed.below(24) {
        0..4 => RecordOp::Register(register(feed, before)),
        4 => RecordOp::Deregister(DeregisterRequest {
            node: feed.name(),
            service_id: feed.name(),
            check_id: feed.name(),
        }),
        5..9 => RecordOp::Session(SessionRequest {
            op: feed.pick(&[
                SessionVerb::Create,
                SessionVerb::Create,
                SessionVerb::Renew,
                SessionVerb::Destroy,
            ]),
            session: session(feed),
        }),
        9 => RecordOp::Tombstone(Reap {
            index: index(feed, before),
            start_after: key(feed),
            up_to: key(feed),
        }),
        10 => RecordOp::Coordinates(CoordinatesRequest {
            updates: feed.several(3, coordinate),
        }),
        11 => RecordOp::ConfigEntry(ConfigRequest {
            op: feed.pick(&[
                ConfigVerb::Upsert,
                ConfigVerb::UpsertCas,
                ConfigVerb::Delete,
                ConfigVerb::DeleteCas,
            ]),
            entry: ConfigEntry {
                kind: feed
                    .pick(&["service-defaults", "proxy-defaults", "mesh"])
                    .into(),
                name: feed.name(),
                body: json(feed),
                create_index: 0,
                modify_index: index(feed, before),
            },
        }),
        12 => RecordOp::PreparedQuery(QueryRequest {
            op: feed.pick(&[QueryVerb::Create, QueryVerb::Update, QueryVerb::Delete]),
            query: PreparedQuery {
                id: id(feed),
                name: feed.name(),
                session: id(feed),
                template: QueryTemplate {
                    kind: feed.pick(&["", "name_prefix_match", "x"]).into(),
                },
                body: json(feed),
                ..PreparedQuery::default()
            },
        }),
        13 | 14 => RecordOp::Txn(MixedTxn {
            ops: feed.several(4, |feed| mixed(feed, before)),
        }),
        15 => RecordOp::AclBootstrap(Bootstrap {
            token: token(feed, before),
            reset_index: index(feed, before),
        }),
        16 => RecordOp::AclTokenSet(TokenSet {
            tokens: feed.several(2, |feed| token(feed, before)),
            create: feed.flag(),
            cas: feed.flag(),
            now_ns: feed.number(),
        }),
        17 => RecordOp::AclTokenDelete(TokenDelete {
            ids: feed.several(2, id),
        }),
        18 => RecordOp::AclPolicySet(PolicySet {
            policies: feed.several(2, policy),
            create: feed.flag(),
        }),
        19 => RecordOp::AclPolicyDelete(PolicyDelete {
            ids: feed.several(2, id),
        }),
        20 => RecordOp::AclRoleSet(RoleSet {
            roles: feed.several(2, role),
            create: feed.flag(),
        }),
        21 => RecordOp::AclRoleDelete(RoleDelete {
            ids: feed.several(2, id),
        }),
        _ => RecordOp::LeaseClock(Tick {
            elapsed_ms: feed.number(),
        }),
    }
}

fn id(feed: &mut Feed<'_>) -> String {
    feed.pick(&IDS).to_owned()
}

fn key(feed: &mut Feed<'_>) -> Vec<u8> {
    match feed.byte() {
        0..200 => feed.pick(&KEYS).to_vec(),
        200..210 => Vec::new(),
        _ => feed.bytes(40).to_vec(),
    }
}

fn index(feed: &mut Feed<'_>, before: u64) -> u64 {
    match feed.byte() {
        back @ 0..150 => before.saturating_sub(u64::from(back)),
        150..200 => 0,
        _ => feed.number(),
    }
}

fn json(feed: &mut Feed<'_>) -> JsonText {
    JsonText::parse(feed.pick(&JSON)).expect("these are JSON")
}

fn pairs(feed: &mut Feed<'_>) -> BTreeMap<String, String> {
    let pairs = feed.several(2, |feed| (feed.name(), feed.name()));
    pairs.into_iter().collect()
}

fn tags(feed: &mut Feed<'_>) -> Vec<String> {
    feed.several(2, |feed| feed.pick(&TAGS).to_owned())
}

fn register(feed: &mut Feed<'_>, before: u64) -> RegisterRequest {
    RegisterRequest {
        datacenter: "dc1".into(),
        id: id(feed),
        node: feed.name(),
        address: feed.pick(&["10.0.0.1", "", "host"]).into(),
        tagged_addresses: pairs(feed),
        node_meta: pairs(feed),
        service: feed.flag().then(|| service(feed, before)),
        check: feed.flag().then(|| check(feed, before)),
        checks: feed.several(2, |feed| check(feed, before)),
        skip_node_update: feed.flag(),
    }
}

fn node(feed: &mut Feed<'_>, before: u64) -> Node {
    Node {
        id: id(feed),
        node: feed.name(),
        address: feed.pick(&["10.0.0.1", ""]).into(),
        datacenter: "dc1".into(),
        tagged_addresses: pairs(feed),
        meta: pairs(feed),
        create_index: 0,
        modify_index: index(feed, before),
    }
}

fn service(feed: &mut Feed<'_>, before: u64) -> Service {
    let address = |feed: &mut Feed<'_>| ServiceAddress {
        address: feed.name(),
        port: feed.number(),
    };
    Service {
        node: feed.name(),
        id: feed.name(),
        service: feed.name(),
        kind: feed
            .pick(&["", "", "connect-proxy", "mesh-gateway", "x"])
            .into(),
        tags: tags(feed),
        address: feed.pick(&["", "10.0.0.2"]).into(),
        tagged_addresses: feed
            .several(1, |feed| (feed.name(), address(feed)))
            .into_iter()
            .collect(),
        meta: pairs(feed),
        port: feed.number(),
        socket_path: String::new(),
        weights: Weights {
            passing: feed.number(),
            warning: feed.number(),
        },
        enable_tag_override: feed.flag(),
        proxy: json(feed),
        connect: json(feed),
        create_index: 0,
        modify_index: index(feed, before),
    }
}

fn check(feed: &mut Feed<'_>, before: u64) -> Check {
    Check {
        node: feed.name(),
        check_id: feed.name(),
        name: feed.name(),
        status: feed
            .pick(&["passing", "critical", "warning", "", "x"])
            .into(),
        output: feed.text(8),
        service_id: feed.name(),
        service_tags: tags(feed),
        kind: feed.pick(&["", "ttl"]).into(),
        exposed_port: feed.number(),
        definition: json(feed),
        modify_index: index(feed, before),
        ..Check::default()
    }
}

fn session(feed: &mut Feed<'_>) -> Session {
    let ttl_ms = feed.number();
    Session {
        id: id(feed),
        name: feed.name(),
        node: feed.name(),
        lock_delay: feed.number(),
        behavior: feed.pick(&["release", "delete", "", "x"]).into(),
        ttl: format!("{ttl_ms}ms"),
        node_checks: feed.several(2, Feed::name),
        service_checks: feed.several(1, |feed| ServiceCheck {
            id: feed.name(),
            namespace: String::new(),
        }),
        create_index: 0,
        modify_index: 0,
        ttl_ms,
        renewed_at_ms: feed.number(),
    }
}

fn coordinate(feed: &mut Feed<'_>) -> Coordinate {
    let number = |feed: &mut Feed<'_>| match feed.byte() {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => -0.0,
        other => f64::from(other) / 8.0 - 4.0,
    };
    Coordinate {
        node: feed.name(),
        segment: feed.pick(&["", "", "s"]).into(),
        coord: Coord {
            vec: feed.several(8, number),
            error: number(feed),
            adjustment: number(feed),
            height: number(feed),
        },
    }
}

fn policy_links(feed: &mut Feed<'_>) -> Vec<PolicyLink> {
    feed.several(2, |feed| PolicyLink {
        id: id(feed),
        name: feed.name(),
    })
}

fn service_identities(feed: &mut Feed<'_>) -> Vec<ServiceIdentity> {
    feed.several(1, |feed| ServiceIdentity {
        service_name: feed.name(),
        datacenters: feed.several(1, Feed::name),
    })
}

fn node_identities(feed: &mut Feed<'_>) -> Vec<NodeIdentity> {
    feed.several(1, |feed| NodeIdentity {
        node_name: feed.name(),
        datacenter: "dc1".into(),
    })
}

fn token(feed: &mut Feed<'_>, before: u64) -> AclToken {
    AclToken {
        accessor_id: id(feed),
        secret_id: id(feed),
        description: feed.name(),
        policies: policy_links(feed),
        roles: feed.several(2, |feed| RoleLink {
            id: id(feed),
            name: feed.name(),
        }),
        service_identities: service_identities(feed),
        node_identities: node_identities(feed),
        local: feed.flag(),
        expiration_time: feed.number(),
        create_time: feed.number(),
        hash: feed.bytes(4).to_vec(),
        modify_index: index(feed, before),
        ..AclToken::default()
    }
}

fn policy(feed: &mut Feed<'_>) -> AclPolicy {
    AclPolicy {
        id: id(feed),
        name: feed.name(),
        rules: feed.pick(&RULES).into(),
        datacenters: feed.several(1, Feed::name),
        ..AclPolicy::default()
    }
}

fn role(feed: &mut Feed<'_>) -> AclRole {
    AclRole {
        id: id(feed),
        name: feed.name(),
        policies: policy_links(feed),
        service_identities: service_identities(feed),
        node_identities: node_identities(feed),
        ..AclRole::default()
    }
}

fn kv_op(feed: &mut Feed<'_>, before: u64) -> KvOp {
    let number = feed.below(KvVerb::ALL.len() + TxnVerb::READING.len());
    let verb = TxnVerb::from_number(number as u8).expect("below how many there are");
    let key = match (verb, key(feed)) {
        (TxnVerb::Kv(KvVerb::DeleteTree) | TxnVerb::GetTree, key) => key,
        (_, key) if key.is_empty() => b"k".to_vec(),
        (_, key) => key,
    };
    KvOp {
        verb,
        key,
        value: feed.bytes(16).to_vec(),
        flags: feed.number(),
        index: index(feed, before),
        session: id(feed).into_bytes(),
    }
}

fn mixed(feed: &mut Feed<'_>, before: u64) -> MixedOp {
    let verb = feed.pick(&[
        CatalogVerb::Get,
        CatalogVerb::Set,
        CatalogVerb::Cas,
        CatalogVerb::Delete,
        CatalogVerb::DeleteCas,
    ]);
    match feed.below(4) {
        0 => MixedOp::Kv(kv_op(feed, before)),
        1 => MixedOp::Node {
            verb,
            node: Box::new(node(feed, before)),
        },
        2 => MixedOp::Service {
            verb,
            service: Box::new(service(feed, before)),
        },
        _ => MixedOp::Check {
            verb,
            check: Box::new(check(feed, before)),
        },
    }
}

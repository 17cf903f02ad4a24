//! Example objects of every table, for the conformance test and the golden rows.
//!
//! The first sample of a table has a value of its own in every field, so that its golden shows
//! them all.

use wire::{Index, KvRowRef};

use super::{IndexRow, KvRow, RecordRow, conformance::Sample, records::*, schema::*, tree::Keyed};

impl Sample for Kvs {
    fn samples() -> Vec<KvRow> {
        let row = |key: &[u8], session: &[u8]| {
            let row = KvRowRef {
                key,
                value: b"value",
                flags: 1,
                create_index: Index(2),
                modify_index: Index(3),
                lock_index: 4,
                session,
            };
            KvRow::new(row, &mut Vec::new())
        };
        vec![
            row(b"a", &[1; 16]),
            row(b"a/b", b""),
            row(b"A", &[2; 16]),
            row(b"c\0d", &[1; 16]),
        ]
    }

    fn changed(row: &KvRow) -> KvRow {
        let session = if row.session() == [2; 16] {
            &[][..]
        } else {
            &[2; 16]
        };
        KvRow::new(
            KvRowRef {
                session,
                modify_index: Index(9),
                ..row.as_ref()
            },
            &mut Vec::new(),
        )
    }
}

impl Sample for Tombstones {
    fn samples() -> Vec<IndexRow> {
        vec![
            IndexRow::new(b"a", Index(1)),
            IndexRow::new(b"a/", Index(2)),
        ]
    }
    fn changed(row: &IndexRow) -> IndexRow {
        IndexRow::new(row.key(), Index(row.index().0 + 1))
    }
}

impl Sample for Indexes {
    fn samples() -> Vec<IndexRow> {
        vec![
            IndexRow::new(b"kvs", Index(1)),
            IndexRow::new(b"tombstones", Index(2)),
        ]
    }
    fn changed(row: &IndexRow) -> IndexRow {
        IndexRow::new(row.key(), Index(row.index().0 + 1))
    }
}

fn row<T: Record>(record: T) -> RecordRow<T> {
    RecordRow::new(record).expect("a sample is short")
}

fn map<V: Clone>(pairs: &[(&str, V)]) -> std::collections::BTreeMap<String, V> {
    let owned = |(name, value): &(&str, V)| ((*name).to_owned(), value.clone());
    pairs.iter().map(owned).collect()
}

fn json(text: &str) -> JsonText {
    JsonText::parse(text).expect("JSON")
}

fn uuid(n: u8) -> String {
    wire::Uuid([n; 16]).to_string()
}

impl Sample for Nodes {
    fn samples() -> Vec<Self::Row> {
        let node = Node {
            id: uuid(1),
            node: "Node-1".into(),
            address: "10.0.0.1".into(),
            datacenter: "dc1".into(),
            tagged_addresses: map(&[("lan", "10.0.0.1".to_owned()), ("wan", "1.2.3.4".into())]),
            meta: map(&[("os", "Linux".to_owned()), ("rack", "7".into())]),
            create_index: 5,
            modify_index: 300,
        };
        let bare = Node {
            node: "n2".into(),
            ..Node::default()
        };
        vec![row(node), row(bare)]
    }
    fn changed(node: &Self::Row) -> Self::Row {
        row(Node {
            id: uuid(node.node.len() as u8 + 40),
            meta: map(&[("os", "BSD".to_owned())]),
            modify_index: 301,
            ..Node::clone(node)
        })
    }
}

impl Sample for Services {
    fn samples() -> Vec<Self::Row> {
        let address = ServiceAddress {
            address: "1.2.3.4".into(),
            port: 80,
        };
        let proxy = Service {
            node: "Node-1".into(),
            id: "Web-1".into(),
            service: "Web".into(),
            kind: "connect-proxy".into(),
            tags: vec!["v1".into(), "Blue".into()],
            address: "10.0.0.2".into(),
            tagged_addresses: map(&[("wan", address)]),
            meta: map(&[("team", "a".to_owned())]),
            port: 8080,
            socket_path: "/run/web".into(),
            weights: Weights {
                passing: 3,
                warning: 2,
            },
            enable_tag_override: true,
            proxy: json("{\"DestinationServiceName\": \"API\"}"),
            connect: json("{\"Native\":false}"),
            create_index: 5,
            modify_index: 300,
        };
        let native = Service {
            node: "n2".into(),
            id: "db".into(),
            service: "db".into(),
            connect: json("{\"Native\":true}"),
            ..Service::default()
        };
        let plain = Service {
            node: "n2".into(),
            id: "db2".into(),
            service: "db".into(),
            ..Service::default()
        };
        vec![row(proxy), row(native), row(plain)]
    }
    fn changed(service: &Self::Row) -> Self::Row {
        row(Service {
            service: format!("{}-new", service.service),
            kind: "connect-proxy".into(),
            proxy: json("{\"DestinationServiceName\":\"other\"}"),
            modify_index: 301,
            ..Service::clone(service)
        })
    }
}

impl Sample for Checks {
    fn samples() -> Vec<Self::Row> {
        let check = Check {
            node: "Node-1".into(),
            check_id: "service:Web".into(),
            name: "Web is up".into(),
            status: "passing".into(),
            notes: "call Bob".into(),
            output: "HTTP 200".into(),
            service_id: "Web-1".into(),
            service_name: "Web".into(),
            service_tags: vec!["v1".into()],
            kind: "http".into(),
            interval: "10s".into(),
            timeout: "1s".into(),
            exposed_port: 21500,
            definition: json("{\"Interval\":\"10s\"}"),
            create_index: 5,
            modify_index: 300,
        };
        let of_node = Check {
            node: "n2".into(),
            check_id: "serfHealth".into(),
            status: "critical".into(),
            ..Check::default()
        };
        vec![row(check), row(of_node)]
    }
    fn changed(check: &Self::Row) -> Self::Row {
        row(Check {
            status: "warning".into(),
            service_id: format!("{}2", check.service_id),
            service_name: format!("{}2", check.service_name),
            modify_index: 301,
            ..Check::clone(check)
        })
    }
}

impl Sample for Coordinates {
    fn samples() -> Vec<Self::Row> {
        let place = Coordinate {
            node: "Node-1".into(),
            segment: "Alpha".into(),
            coord: Coord {
                vec: vec![0.5, -1.0, 0.0],
                error: 1.5,
                adjustment: -0.25,
                height: 1e-5,
            },
        };
        let bare = Coordinate {
            node: "Node-1".into(),
            ..Coordinate::default()
        };
        vec![row(place), row(bare)]
    }
    fn changed(place: &Self::Row) -> Self::Row {
        let mut changed = Coordinate::clone(place);
        changed.coord.error += 1.0;
        row(changed)
    }
}

impl Sample for Sessions {
    fn samples() -> Vec<Self::Row> {
        let session = Session {
            id: uuid(0xab),
            name: "lock of a".into(),
            node: "Node-1".into(),
            lock_delay: 15_000_000_000,
            behavior: "release".into(),
            ttl: "10s".into(),
            node_checks: vec!["serfHealth".into()],
            service_checks: vec![ServiceCheck {
                id: "web".into(),
                namespace: "default".into(),
            }],
            create_index: 5,
            modify_index: 300,
            ttl_ms: 10_000,
            renewed_at_ms: 77,
        };
        let bare = Session {
            id: uuid(2),
            node: "n2".into(),
            ..Session::default()
        };
        vec![row(session), row(bare)]
    }
    fn changed(session: &Self::Row) -> Self::Row {
        row(Session {
            node: format!("{}-new", session.node),
            ttl_ms: 20_000,
            renewed_at_ms: 99,
            modify_index: 301,
            ..Session::clone(session)
        })
    }
}

impl Sample for SessionChecks {
    fn samples() -> Vec<Self::Row> {
        let bound = |n| SessionCheck {
            node: "Node-1".into(),
            check_id: "serfHealth".into(),
            session: uuid(n),
        };
        vec![row(bound(0xab)), row(bound(2))]
    }
    /// All that can change is how its names are written.
    fn changed(bound: &Self::Row) -> Self::Row {
        row(SessionCheck {
            node: bound.node.to_lowercase(),
            ..SessionCheck::clone(bound)
        })
    }
}

impl Sample for LockDelays {
    fn samples() -> Vec<Self::Row> {
        let delay = |key: &[u8], until_ms| LockDelay {
            key: key.to_vec(),
            until_ms,
        };
        vec![row(delay(b"locks/\xff\0", 1 << 40)), row(delay(b"a", 0))]
    }
    fn changed(delay: &Self::Row) -> Self::Row {
        row(LockDelay {
            until_ms: delay.until_ms + 1,
            ..LockDelay::clone(delay)
        })
    }
}

impl Sample for ConfigEntries {
    fn samples() -> Vec<Self::Row> {
        vec![row(ConfigEntry {
            kind: "service-defaults".into(),
            name: "Web".into(),
            body: json("{\"Kind\":\"service-defaults\",\"Name\":\"Web\"}"),
            create_index: 5,
            modify_index: 300,
        })]
    }
    fn changed(entry: &Self::Row) -> Self::Row {
        row(ConfigEntry {
            modify_index: 301,
            ..ConfigEntry::clone(entry)
        })
    }
}

impl Sample for PreparedQueries {
    fn samples() -> Vec<Self::Row> {
        let query = PreparedQuery {
            id: uuid(1),
            name: "Geo-".into(),
            session: uuid(0xab),
            template: QueryTemplate {
                kind: "name_prefix_match".into(),
            },
            body: json("{\"Service\":{\"Service\":\"web\"}}"),
            create_index: 5,
            modify_index: 300,
        };
        let catch_all = PreparedQuery {
            id: uuid(2),
            name: String::new(),
            ..query.clone()
        };
        let bare = PreparedQuery {
            id: uuid(3),
            ..PreparedQuery::default()
        };
        vec![row(query), row(catch_all), row(bare)]
    }
    fn changed(query: &Self::Row) -> Self::Row {
        row(PreparedQuery {
            name: format!("new-{}", query.id),
            session: uuid(9),
            modify_index: 301,
            ..PreparedQuery::clone(query)
        })
    }
}

impl Sample for AutopilotConfigs {
    fn samples() -> Vec<Self::Row> {
        vec![row(AutopilotConfig {
            min_quorum: 3,
            redundancy_zone_tag: "zone".into(),
            disable_upgrade_migration: true,
            upgrade_version_tag: "build".into(),
            create_index: 5,
            modify_index: 300,
            ..AutopilotConfig::default()
        })]
    }
    fn changed(config: &Self::Row) -> Self::Row {
        row(AutopilotConfig {
            cleanup_dead_servers: false,
            modify_index: 301,
            ..AutopilotConfig::clone(config)
        })
    }
}

fn policy_link(n: u8) -> PolicyLink {
    PolicyLink {
        id: uuid(n),
        name: format!("policy-{n}"),
    }
}

fn service_identity(name: &str) -> ServiceIdentity {
    ServiceIdentity {
        service_name: name.into(),
        datacenters: vec!["dc1".into()],
    }
}

fn node_identity() -> NodeIdentity {
    NodeIdentity {
        node_name: "n1".into(),
        datacenter: "dc1".into(),
    }
}

fn templated_policy() -> TemplatedPolicy {
    TemplatedPolicy {
        template_id: uuid(8),
        template_name: "builtin/service".into(),
        template_variables: TemplateVariables { name: "API".into() },
        datacenters: vec!["dc2".into()],
    }
}

impl Sample for AclTokens {
    fn samples() -> Vec<Self::Row> {
        let token = AclToken {
            accessor_id: uuid(1),
            secret_id: "Secret".into(),
            description: "of Bob".into(),
            policies: vec![policy_link(1), policy_link(2)],
            roles: vec![RoleLink {
                id: uuid(3),
                name: "role".into(),
            }],
            service_identities: vec![service_identity("Web")],
            node_identities: vec![node_identity()],
            templated_policies: vec![templated_policy()],
            local: true,
            auth_method: "K8s".into(),
            expiration_time: 1_700_000_000_000_000_000,
            create_time: 1_600_000_000_000_000_000,
            hash: vec![0, 0xff],
            create_index: 5,
            modify_index: 300,
        };
        let global = AclToken {
            accessor_id: uuid(2),
            secret_id: "secret".into(),
            local: false,
            ..token.clone()
        };
        let bare = AclToken {
            accessor_id: "00000000-0000-0000-0000-000000000002".into(),
            secret_id: "anonymous".into(),
            ..AclToken::default()
        };
        vec![row(token), row(global), row(bare)]
    }
    fn changed(token: &Self::Row) -> Self::Row {
        row(AclToken {
            policies: vec![policy_link(2), policy_link(7)],
            roles: Vec::new(),
            service_identities: vec![service_identity("db")],
            local: !token.local,
            auth_method: "jwt".into(),
            expiration_time: token.expiration_time + 1,
            modify_index: 301,
            ..AclToken::clone(token)
        })
    }
}

impl Sample for AclPolicies {
    fn samples() -> Vec<Self::Row> {
        vec![row(AclPolicy {
            id: uuid(1),
            name: "Read-All".into(),
            description: "reads".into(),
            rules: "key_prefix \"\" { policy = \"read\" }".into(),
            datacenters: vec!["dc1".into()],
            hash: vec![0, 0xff],
            create_index: 5,
            modify_index: 300,
        })]
    }
    fn changed(policy: &Self::Row) -> Self::Row {
        row(AclPolicy {
            name: "other".into(),
            modify_index: 301,
            ..AclPolicy::clone(policy)
        })
    }
}

impl Sample for AclRoles {
    fn samples() -> Vec<Self::Row> {
        vec![row(AclRole {
            id: uuid(1),
            name: "Ops".into(),
            description: "operators".into(),
            policies: vec![policy_link(1)],
            service_identities: vec![service_identity("Web")],
            node_identities: vec![node_identity()],
            templated_policies: vec![templated_policy()],
            hash: vec![0, 0xff],
            create_index: 5,
            modify_index: 300,
        })]
    }
    fn changed(role: &Self::Row) -> Self::Row {
        row(AclRole {
            name: "other".into(),
            policies: vec![policy_link(2)],
            modify_index: 301,
            ..AclRole::clone(role)
        })
    }
}

impl Sample for SystemMetadatas {
    fn samples() -> Vec<Self::Row> {
        vec![row(SystemMetadata {
            key: "virtual-ips".into(),
            value: "true".into(),
            create_index: 5,
            modify_index: 300,
        })]
    }
    fn changed(fact: &Self::Row) -> Self::Row {
        row(SystemMetadata {
            value: "false".into(),
            modify_index: 301,
            ..SystemMetadata::clone(fact)
        })
    }
}

impl Sample for Usages {
    fn samples() -> Vec<Self::Row> {
        vec![row(Usage {
            id: "nodes".into(),
            index: 300,
            count: 70_000,
        })]
    }
    fn changed(usage: &Self::Row) -> Self::Row {
        row(Usage {
            count: usage.count + 1,
            ..Usage::clone(usage)
        })
    }
}

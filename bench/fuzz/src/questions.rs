//! How do a fuzzer's choices become questions about the state?

use engine::{
    documents::{
        AclQuestion, AgentQuestion, CatalogQuestion, ConfigQuestion, CoordinatesQuestion, Question,
        SessionQuestion,
        acl::View,
        catalog::{About, Instances, Narrow},
    },
    fsm::{mixed::MixedTxn, records::RecordOp},
};

use crate::{commands, feed::Feed};

const FILTERS: [&str; 5] = [
    "",
    "",
    "Node == \"n1\"",
    "ServiceTags contains \"v1\" or Meta is empty",
    "not Service.Tags is empty",
];

/// A question.
pub fn question(feed: &mut Feed<'_>) -> Question {
    match feed.below(8) {
        0 => Question::Acl(acl(feed)),
        1 => Question::Agent(match feed.flag() {
            true => AgentQuestion::Node { node: feed.name() },
            false => AgentQuestion::Failed { check: feed.name() },
        }),
        2 => Question::Config(match feed.flag() {
            true => ConfigQuestion::List {
                kind: "service-defaults".into(),
            },
            false => ConfigQuestion::Get {
                kind: "mesh".into(),
                name: feed.name(),
            },
        }),
        3 => Question::Coordinates(CoordinatesQuestion::Nodes { segment: None }),
        4 => Question::Session(match feed.below(3) {
            0 => SessionQuestion::Info { id: id(feed) },
            1 => SessionQuestion::Node { node: feed.name() },
            _ => SessionQuestion::List,
        }),
        5 => match commands::record(feed, 9) {
            RecordOp::Txn(ops) if MixedTxn::reads_only(&ops) => Question::Txn(ops),
            _ => Question::Session(SessionQuestion::List),
        },
        _ => Question::Catalog(catalog(feed)),
    }
}

fn id(feed: &mut Feed<'_>) -> String {
    feed.pick(&commands::IDS).to_owned()
}

fn catalog(feed: &mut Feed<'_>) -> CatalogQuestion {
    let instances = |feed: &mut Feed<'_>| Instances {
        service: feed.name(),
        connect: feed.flag(),
        tags: feed.several(1, |_| "v1".to_owned()),
        passing: feed.flag(),
    };
    let about = match feed.below(9) {
        0 => About::Nodes,
        1 => About::Services,
        2 => About::Service(instances(feed)),
        3 => About::Node { node: feed.name() },
        4 => About::NodeServices { node: id(feed) },
        5 => About::Health(instances(feed)),
        6 => About::ChecksOfNode { node: feed.name() },
        7 => About::ChecksOfService {
            service: feed.name(),
        },
        _ => About::ChecksInState {
            status: feed.pick(&["any", "passing", "critical", "x"]).into(),
        },
    };
    let narrow = Narrow {
        filter: feed.pick(&FILTERS).into(),
        node_meta: feed.several(1, |feed| (feed.name(), feed.name())),
        near: feed.name(),
    };
    CatalogQuestion { about, narrow }
}

fn acl(feed: &mut Feed<'_>) -> AclQuestion {
    let view = View {
        now_ns: feed.number(),
        hide_secrets: feed.flag(),
    };
    match feed.below(12) {
        0 => AclQuestion::Token {
            accessor: id(feed),
            view,
        },
        1 => AclQuestion::TokenSelf {
            secret: id(feed),
            view,
        },
        2 => AclQuestion::Tokens {
            policy: id(feed),
            role: id(feed),
            auth_method: String::new(),
            service: feed.name(),
            view,
        },
        3 => AclQuestion::Policy { id: id(feed) },
        4 => AclQuestion::PolicyByName { name: feed.name() },
        5 => AclQuestion::Policies,
        6 => AclQuestion::Role { id: id(feed) },
        7 => AclQuestion::Roles { policy: id(feed) },
        8 => AclQuestion::Resolve {
            secret: id(feed),
            datacenter: "dc1".into(),
        },
        9 => AclQuestion::Duties {
            now_ns: feed.number(),
            initial_management: id(feed),
        },
        10 => AclQuestion::ServiceOf {
            node: feed.name(),
            service_id: feed.name(),
            check_id: feed.name(),
        },
        _ => AclQuestion::SessionNode { id: id(feed) },
    }
}

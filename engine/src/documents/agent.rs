//! What does a server's agent ask of the catalog?
//!
//! No endpoints of Consul's. All that a node has: its agent puts right what differs from what is
//! registered with it (`server::agent::sync`). And which nodes fail a check: `serfHealth` says who
//! of the members is alive. Rows go out as they are stored.

use serde::{Deserialize, Serialize};
use wire::Index;

use super::{Subject, json};
use crate::state::{
    Tables,
    index::{Arg, Key},
    records::{Check, Node, Service},
    schema::{CHECKS_NODE, CHECKS_STATUS, Checks, Nodes, SERVICES_NODE, Services},
    table::TableDef,
};

/// A question of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentQuestion {
    /// All that a node has: [`NodeRows`].
    Node {
        /// Its name.
        node: String,
    },
    /// Names of the nodes on which the check with this id is critical.
    Failed {
        /// Id of the check.
        check: String,
    },
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRows {
    /// The node; `None` if it is not there.
    pub node: Option<Node>,
    /// Its services.
    pub services: Vec<Service>,
    /// Its checks.
    pub checks: Vec<Check>,
}

impl NodeRows {
    /// Reads an answer.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(document: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(document)
    }

    fn of(tables: &Tables, name: &str) -> Self {
        let mut key = Key::default();
        key.lower(name);
        let node = tables.nodes.get(key.as_bytes());
        let mut rows = Self {
            node: node.map(|row| Node::clone(row)),
            ..Self::default()
        };
        let query: &[Arg<'_>] = &[Arg::Text(name)];
        let services = tables.services.find(&SERVICES_NODE, query, |service| {
            rows.services.push(Service::clone(service));
            true
        });
        services.expect("the query fits its index");
        let checks = tables.checks.find(&CHECKS_NODE, query, |check| {
            rows.checks.push(Check::clone(check));
            true
        });
        checks.expect("the query fits its index");
        rows
    }
}

fn failed(tables: &Tables, check: &str) -> Vec<String> {
    let mut nodes = Vec::new();
    let query: &[Arg<'_>] = &[Arg::Text("critical")];
    let found = tables.checks.find(&CHECKS_STATUS, query, |row| {
        if row.check_id == check {
            nodes.push(row.node.clone());
        }
        true
    });
    found.expect("the query fits its index");
    nodes
}

impl AgentQuestion {
    pub(super) fn subject(&self) -> Subject {
        Subject::table(Nodes::ID)
    }

    pub(super) fn index(&self, tables: &Tables) -> Index {
        tables.max_index(&[Nodes::NAME, Services::NAME, Checks::NAME])
    }

    pub(super) fn answer(&self, tables: &Tables) -> Vec<u8> {
        match self {
            Self::Node { node } => json(&NodeRows::of(tables, node)),
            Self::Failed { check } => json(&failed(tables, check)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fsm::catalog::{self, RegisterRequest},
        state::{Store, records::JsonText},
    };

    #[test]
    fn rows_come_as_they_are_stored() {
        let mut store = Store::default();
        let rows = |store: &Store, name: &str| {
            let question = AgentQuestion::Node { node: name.into() };
            NodeRows::decode(&question.answer(store.tables())).unwrap()
        };
        assert_eq!(rows(&store, "n"), NodeRows::default());
        let request = RegisterRequest {
            node: "N".into(),
            address: "a".into(),
            service: Some(Service {
                service: "web".into(),
                proxy: JsonText::parse("{\"A\": 1}").unwrap(),
                ..Service::default()
            }),
            check: Some(Check {
                name: "c".into(),
                ..Check::default()
            }),
            ..RegisterRequest::default()
        };
        let mut txn = store.begin();
        catalog::register(&mut txn, Index(3), &request).unwrap();
        txn.commit();
        let rows = rows(&store, "n");
        assert_eq!(rows.node.unwrap().modify_index, 3);
        assert_eq!(rows.services[0].proxy.as_str(), "{\"A\": 1}");
        assert_eq!(rows.checks[0].check_id, "c");
        let failed = |check: &str| {
            let check = check.to_owned();
            AgentQuestion::Failed { check }.answer(store.tables())
        };
        assert_eq!(failed("c"), b"[\"N\"]");
        assert_eq!(failed("d"), b"[]");
    }
}

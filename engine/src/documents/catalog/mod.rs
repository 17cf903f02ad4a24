//! What do Consul's catalog and health endpoints answer?
//!
//! | question | index | wakes for |
//! |---|---|---|
//! | all nodes | `nodes` | any node |
//! | names of services | `services`; with `node-meta` also `nodes` | tags and names of services; with a filter or `node-meta` any service or node |
//! | a service's instances, with or without their health | `service.<name>`; where there is none, `service_last_extinction`; else of the tables | that row |
//! | a node and its services | `node.<name>`; where there is none, `node_last_extinction`; else of the tables | that row |
//! | the same by the node's UUID | of the tables | any node, service or check |
//! | proxies of a service | of the tables | any node, service or check |
//! | checks of a node, a service, in a state | `checks`; with `node-meta` also `nodes` | those checks; with `node-meta` any check or node |
//!
//! The indexes are Consul's (`fsm::catalog` raises the rows). Its waiters for checks wake with any
//! check of the cluster, ours with their own.
//!
//! Rows are [narrowed](narrow) by `node-meta`, `filter` and the endpoint's own parameters, and put
//! in order of their distance from a node if `near` asks for it.

mod gather;
mod narrow;
mod shown;
mod subjects;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use wire::Index;

use super::{Subject, json};
use crate::{
    filter::{FilterError, Shape, shapes},
    fsm::catalog::rows::{NODE_LAST_EXTINCTION, SERVICE_LAST_EXTINCTION, node_row, service_row},
    state::{
        Tables,
        schema::{Checks, Nodes, Services},
        table::TableDef,
    },
};

pub(super) use gather::{Checked, checked};
pub use narrow::Narrow;
pub(super) use narrow::nearest_first;
pub(super) use shown::{ShownCheck, ShownHealth, ShownNode, ShownService};
pub(super) use subjects::{touched_check, touched_index, touched_node, touched_services};

/// A question about the catalog, and what narrows its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogQuestion {
    /// What is asked for.
    pub about: About,
    /// Which of it, in which order.
    pub narrow: Narrow,
}

/// What of the catalog is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// `GET /v1/catalog/nodes`.
    Nodes,
    /// `GET /v1/catalog/services`.
    Services,
    /// `GET /v1/catalog/service/<name>`, or `connect/<name>`.
    Service(Instances),
    /// `GET /v1/catalog/node/<node>`.
    Node {
        /// The node's name, or its UUID.
        node: String,
    },
    /// `GET /v1/catalog/node-services/<node>`.
    NodeServices {
        /// The node's name, or its UUID.
        node: String,
    },
    /// `GET /v1/health/service/<name>`, or `connect/<name>`.
    Health(Instances),
    /// `GET /v1/health/node/<node>`.
    ChecksOfNode {
        /// The node's name.
        node: String,
    },
    /// `GET /v1/health/checks/<service>`.
    ChecksOfService {
        /// The service's name.
        service: String,
    },
    /// `GET /v1/health/state/<status>`.
    ChecksInState {
        /// `passing`, `warning`, `critical`, or `any`.
        status: String,
    },
}

/// Which instances of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    /// The service's name.
    pub service: String,
    /// What speaks for it in the mesh, instead of itself.
    pub connect: bool,
    /// Those that have all of these tags, in any case.
    pub tags: Vec<String>,
    /// Those of which all checks pass; for health only.
    pub passing: bool,
}

/// Whether a node is asked for by its UUID, which may at any time be another node's, or nobody's.
fn by_uuid(node: &str) -> bool {
    wire::Uuid::parse(node).is_some()
}

impl CatalogQuestion {
    /// Whether the filter fits the rows; Consul's text if not.
    pub fn check(&self) -> Result<(), FilterError> {
        self.narrow.filter(self.shape()).map(drop)
    }

    /// What the filter can select.
    fn shape(&self) -> &'static Shape {
        match self.about {
            About::Nodes => &shapes::NODE,
            About::Services | About::Service(_) => &shapes::CATALOG_SERVICE,
            About::Node { .. } | About::NodeServices { .. } => &shapes::SERVICE,
            About::Health(_) => &shapes::HEALTH_SERVICE,
            About::ChecksOfNode { .. }
            | About::ChecksOfService { .. }
            | About::ChecksInState { .. } => &shapes::CHECK,
        }
    }

    pub(super) fn subject(&self) -> Subject {
        let by_node = !self.narrow.node_meta.is_empty();
        match &self.about {
            About::Nodes => Subject::table(Nodes::ID),
            About::Services if by_node || !self.narrow.filter.is_empty() => subjects::anything(),
            About::Services => subjects::names(),
            About::Service(asked) | About::Health(asked) if asked.connect => subjects::anything(),
            About::Service(asked) | About::Health(asked) => {
                subjects::index_row(&service_row(&asked.service))
            }
            About::Node { node } | About::NodeServices { node } if by_uuid(node) => {
                subjects::anything()
            }
            About::Node { node } | About::NodeServices { node } => {
                subjects::index_row(&node_row(node))
            }
            _ if by_node => subjects::anything(),
            About::ChecksOfNode { node } => subjects::checks_of_node(node),
            About::ChecksOfService { service } => subjects::checks_of_service(service),
            About::ChecksInState { status } if status == "any" => Subject::table(Checks::ID),
            About::ChecksInState { status } => subjects::checks_in_state(status),
        }
    }

    pub(super) fn index(&self, tables: &Tables) -> Index {
        let by_node = !self.narrow.node_meta.is_empty();
        let own = |row: String, extinction: &str, all: &[&str]| {
            [&row[..], extinction]
                .into_iter()
                .map(|row| tables.max_index(&[row]))
                .find(|index| index.0 > 0)
                .unwrap_or_else(|| tables.max_index(all))
        };
        const NODES: &str = Nodes::NAME;
        const SERVICES: &str = Services::NAME;
        const CHECKS: &str = Checks::NAME;
        match &self.about {
            About::Nodes => tables.max_index(&[NODES]),
            About::Services if by_node => tables.max_index(&[NODES, SERVICES]),
            About::Services => tables.max_index(&[SERVICES]),
            About::Service(asked) if asked.connect => tables.max_index(&[NODES, SERVICES]),
            About::Health(asked) if asked.connect => tables.max_index(&[NODES, SERVICES, CHECKS]),
            About::Service(asked) => {
                let row = service_row(&asked.service);
                own(row, SERVICE_LAST_EXTINCTION, &[NODES, SERVICES])
            }
            About::Health(asked) => {
                let row = service_row(&asked.service);
                own(row, SERVICE_LAST_EXTINCTION, &[NODES, SERVICES, CHECKS])
            }
            About::Node { node } | About::NodeServices { node } if by_uuid(node) => {
                tables.max_index(&[NODES, SERVICES])
            }
            About::Node { node } | About::NodeServices { node } => {
                own(node_row(node), NODE_LAST_EXTINCTION, &[NODES, SERVICES])
            }
            _ if by_node => tables.max_index(&[NODES, CHECKS]),
            _ => tables.max_index(&[CHECKS]),
        }
    }

    pub(super) fn answer(&self, tables: &Tables) -> Vec<u8> {
        // What asks over HTTP was checked at the door; for others, a filter that fits no row.
        let Ok(filter) = self.narrow.filter(self.shape()) else {
            return b"[]".to_vec();
        };
        let narrowed = narrow::Narrowed {
            tables,
            narrow: &self.narrow,
            filter,
        };
        match &self.about {
            About::Nodes => gather::nodes(&narrowed),
            About::Services => gather::names(&narrowed),
            About::Service(asked) => gather::instances(&narrowed, asked),
            About::Node { node } => gather::node(&narrowed, node),
            About::NodeServices { node } => gather::node_services(&narrowed, node),
            About::Health(asked) => gather::health(&narrowed, asked),
            About::ChecksOfNode { node } => gather::checks_of_node(&narrowed, node),
            About::ChecksOfService { service } => gather::checks_of_service(&narrowed, service),
            About::ChecksInState { status } => gather::checks_in_state(&narrowed, status),
        }
    }
}

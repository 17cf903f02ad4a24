//! What does the catalog know of a node, a service and a check?

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::Index;

use super::{JsonText, Record};
use crate::state::index::Key;

/// A machine, or whatever else has a name and an address. Consul: `structs.Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Node {
    /// UUID as text; empty for nodes that were registered without one.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name; its case counts for display only.
    pub node: String,
    /// IP address or host name.
    pub address: String,
    /// Datacenter.
    pub datacenter: String,
    /// Further addresses by tag (`lan`, `wan`, …).
    pub tagged_addresses: BTreeMap<String, String>,
    /// The operator's pairs.
    pub meta: BTreeMap<String, String>,
    /// Index of the command that made it.
    pub create_index: u64,
    /// Index of the last command that changed it.
    pub modify_index: u64,
}

impl Record for Node {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.node);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

/// Address and port of a service under one tag. Consul: `structs.ServiceAddress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct ServiceAddress {
    /// IP address or host name.
    pub address: String,
    /// Port, 0 for none.
    pub port: u64,
}

/// How a service's instance is weighted in DNS by its health. Consul: `structs.Weights`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Weights {
    /// While all its checks pass.
    pub passing: u64,
    /// While one of them warns.
    pub warning: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

/// One instance of a service on a node. Consul: `structs.ServiceNode`, without what it repeats
/// of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Service {
    /// The node it is on.
    pub node: String,
    /// Unique on the node.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name of the service.
    pub service: String,
    /// Empty for ordinary services, or `connect-proxy`, `mesh-gateway`, ….
    pub kind: String,
    /// Tags, in the client's order.
    pub tags: Vec<String>,
    /// Its own address; empty where it is the node's.
    pub address: String,
    /// Further addresses by tag.
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    /// The operator's pairs.
    pub meta: BTreeMap<String, String>,
    /// Port, 0 for none.
    pub port: u64,
    /// Path of a Unix socket, in place of address and port.
    pub socket_path: String,
    /// Weights in DNS.
    pub weights: Weights,
    /// Whether tags that others change win over those of the node's agent.
    pub enable_tag_override: bool,
    /// Consul's `Proxy`, as it came.
    pub proxy: JsonText,
    /// Consul's `Connect`, as it came.
    pub connect: JsonText,
    /// Index of the command that made it.
    pub create_index: u64,
    /// Index of the last command that changed it.
    pub modify_index: u64,
}

impl Record for Service {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.node).lower(&self.id);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

/// What of `Proxy` and `Connect` the connect index needs.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConnectParts {
    destination_service_name: Option<String>,
    native: Option<bool>,
}

impl Service {
    /// Whether it speaks the mesh's protocol itself.
    pub fn is_connect_native(&self) -> bool {
        let parts = || serde_json::from_str::<ConnectParts>(self.connect.as_str());
        !self.connect.is_empty() && parts().is_ok_and(|parts| parts.native == Some(true))
    }

    /// The service that this instance speaks for in the mesh: a proxy's destination, or its own
    /// name if it speaks the mesh's protocol itself; empty for neither.
    pub fn connect_name(&self) -> String {
        let parts = |text: &JsonText| {
            serde_json::from_str::<ConnectParts>(text.as_str()).unwrap_or_default()
        };
        if self.kind == "connect-proxy" {
            return parts(&self.proxy)
                .destination_service_name
                .unwrap_or_default();
        }
        match parts(&self.connect).native {
            Some(true) => self.service.clone(),
            _ => String::new(),
        }
    }
}

/// What is known of the health of a node, or of a service on it. Consul: `structs.HealthCheck`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Check {
    /// The node.
    pub node: String,
    /// Unique on the node.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// For people.
    pub name: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// For people.
    pub notes: String,
    /// What the last run said.
    pub output: String,
    /// The service it is of; empty for a check of the node.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// The service's name, copied when the check is registered.
    pub service_name: String,
    /// The service's tags, copied likewise.
    pub service_tags: Vec<String>,
    /// `ttl`, `http`, `tcp`, …; empty where unknown.
    #[serde(rename = "Type")]
    pub kind: String,
    /// How often it runs, as Go writes durations.
    pub interval: String,
    /// How long a run may take, as Go writes durations.
    pub timeout: String,
    /// Port that a proxy exposes it by, 0 for none.
    pub exposed_port: u64,
    /// Consul's `Definition`, as it came.
    pub definition: JsonText,
    /// Index of the command that made it.
    pub create_index: u64,
    /// Index of the last command that changed it.
    pub modify_index: u64,
}

impl Record for Check {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.node).lower(&self.check_id);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

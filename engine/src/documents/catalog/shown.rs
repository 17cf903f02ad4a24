//! How does Consul write a node, a service and a check?
//!
//! Field by field in its order, since tools compare documents. Lists are never null, maps of nodes
//! and services without pairs are (a Go map that nobody made); `Proxy` and `Connect` are what the
//! client gave, or what Consul writes for nothing. One thing is kinder than Consul's: a service
//! without a port shows `"Port":0`, where Consul leaves it out and strict clients stumble.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Checked;
use crate::state::records::{Check, JsonText, Node, Service, ServiceAddress, Weights};

type Pairs = BTreeMap<String, String>;
type Addresses = BTreeMap<String, ServiceAddress>;

/// `Proxy` of a service that is none, as Consul writes it.
const NO_PROXY: &str = r#"{"Mode":"","MeshGateway":{},"Expose":{}}"#;
/// An object without fields.
const NOTHING: &str = "{}";

fn or_null(pairs: &Pairs) -> Option<&Pairs> {
    Some(pairs).filter(|pairs| !pairs.is_empty())
}

fn json_or<'s>(json: &'s JsonText, default: &'static str) -> &'s RawValue {
    json.raw()
        .unwrap_or_else(|| serde_json::from_str(default).expect("it is JSON"))
}

/// A node.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::documents) struct ShownNode<'s> {
    #[serde(rename = "ID")]
    id: &'s str,
    node: &'s str,
    address: &'s str,
    datacenter: &'s str,
    tagged_addresses: Option<&'s Pairs>,
    meta: Option<&'s Pairs>,
    create_index: u64,
    modify_index: u64,
}

impl<'s> ShownNode<'s> {
    pub(in crate::documents) fn new(node: &'s Node) -> Self {
        Self {
            id: &node.id,
            node: &node.node,
            address: &node.address,
            datacenter: &node.datacenter,
            tagged_addresses: or_null(&node.tagged_addresses),
            meta: or_null(&node.meta),
            create_index: node.create_index,
            modify_index: node.modify_index,
        }
    }
}

/// An instance of a service together with its node: a row of `/v1/catalog/service/<name>`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShownInstance<'s> {
    #[serde(rename = "ID")]
    id: &'s str,
    node: &'s str,
    address: &'s str,
    datacenter: &'s str,
    tagged_addresses: Option<&'s Pairs>,
    node_meta: Option<&'s Pairs>,
    service_kind: &'s str,
    #[serde(rename = "ServiceID")]
    service_id: &'s str,
    service_name: &'s str,
    service_tags: &'s [String],
    service_address: &'s str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_tagged_addresses: &'s Addresses,
    service_weights: Weights,
    service_meta: &'s Pairs,
    service_port: u64,
    service_socket_path: &'s str,
    service_enable_tag_override: bool,
    service_proxy: &'s RawValue,
    service_connect: &'s RawValue,
    create_index: u64,
    modify_index: u64,
}

impl<'s> ShownInstance<'s> {
    pub(super) fn new(node: &'s Node, service: &'s Service) -> Self {
        Self {
            id: &node.id,
            node: &node.node,
            address: &node.address,
            datacenter: &node.datacenter,
            tagged_addresses: or_null(&node.tagged_addresses),
            node_meta: or_null(&node.meta),
            service_kind: &service.kind,
            service_id: &service.id,
            service_name: &service.service,
            service_tags: &service.tags,
            service_address: &service.address,
            service_tagged_addresses: &service.tagged_addresses,
            service_weights: service.weights,
            service_meta: &service.meta,
            service_port: service.port,
            service_socket_path: &service.socket_path,
            service_enable_tag_override: service.enable_tag_override,
            service_proxy: json_or(&service.proxy, NO_PROXY),
            service_connect: json_or(&service.connect, NOTHING),
            create_index: service.create_index,
            modify_index: service.modify_index,
        }
    }
}

/// A service on a node.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::documents) struct ShownService<'s> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'s str,
    #[serde(rename = "ID")]
    id: &'s str,
    service: &'s str,
    tags: &'s [String],
    address: &'s str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: &'s Addresses,
    meta: Option<&'s Pairs>,
    port: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    socket_path: &'s str,
    weights: Weights,
    enable_tag_override: bool,
    proxy: &'s RawValue,
    connect: &'s RawValue,
    /// Of clusters that share services; empty here.
    peer_name: &'static str,
    create_index: u64,
    modify_index: u64,
}

impl<'s> ShownService<'s> {
    pub(in crate::documents) fn new(service: &'s Service) -> Self {
        Self {
            kind: &service.kind,
            id: &service.id,
            service: &service.service,
            tags: &service.tags,
            address: &service.address,
            tagged_addresses: &service.tagged_addresses,
            meta: or_null(&service.meta),
            port: service.port,
            socket_path: &service.socket_path,
            weights: service.weights,
            enable_tag_override: service.enable_tag_override,
            proxy: json_or(&service.proxy, NO_PROXY),
            connect: json_or(&service.connect, NOTHING),
            peer_name: "",
            create_index: service.create_index,
            modify_index: service.modify_index,
        }
    }
}

/// A check.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::documents) struct ShownCheck<'s> {
    node: &'s str,
    #[serde(rename = "CheckID")]
    check_id: &'s str,
    name: &'s str,
    status: &'s str,
    notes: &'s str,
    output: &'s str,
    #[serde(rename = "ServiceID")]
    service_id: &'s str,
    service_name: &'s str,
    service_tags: &'s [String],
    #[serde(rename = "Type")]
    kind: &'s str,
    interval: &'s str,
    timeout: &'s str,
    exposed_port: u64,
    definition: &'s RawValue,
    create_index: u64,
    modify_index: u64,
}

impl<'s> ShownCheck<'s> {
    pub(in crate::documents) fn new(check: &'s Check) -> Self {
        Self {
            node: &check.node,
            check_id: &check.check_id,
            name: &check.name,
            status: &check.status,
            notes: &check.notes,
            output: &check.output,
            service_id: &check.service_id,
            service_name: &check.service_name,
            service_tags: &check.service_tags,
            kind: &check.kind,
            interval: &check.interval,
            timeout: &check.timeout,
            exposed_port: check.exposed_port,
            definition: json_or(&check.definition, NOTHING),
            create_index: check.create_index,
            modify_index: check.modify_index,
        }
    }
}

/// An instance of a service with its health: a row of `/v1/health/service/<name>`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::documents) struct ShownHealth<'s> {
    node: ShownNode<'s>,
    service: ShownService<'s>,
    checks: Vec<ShownCheck<'s>>,
}

impl<'s> ShownHealth<'s> {
    pub(in crate::documents) fn of((node, service, checks): &'s Checked) -> Self {
        Self {
            node: ShownNode::new(node),
            service: ShownService::new(service),
            checks: checks.iter().map(|check| ShownCheck::new(check)).collect(),
        }
    }
}

/// A node with its services by id: `/v1/catalog/node/<node>`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShownNodeServices<'s> {
    pub(super) node: ShownNode<'s>,
    pub(super) services: BTreeMap<&'s str, ShownService<'s>>,
}

/// A node with its services as a list: `/v1/catalog/node-services/<node>`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ShownNodeServiceList<'s> {
    pub(super) node: Option<ShownNode<'s>>,
    pub(super) services: Vec<ShownService<'s>>,
}

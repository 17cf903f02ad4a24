//! What JSON do clients get of services and checks?
//!
//! Consul's `api.AgentService` and `structs.HealthCheck`, with their fields in its order: lists and
//! objects are never null, what Consul leaves out when empty is left out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{Check, Local, NODE_MAINTENANCE, SERVICE_MAINTENANCE, Service, Status, content_hash};
use crate::server::http::go_text::print_duration;

/// Address and port.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AddressRow<'a> {
    address: &'a str,
    port: u16,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct WeightsRow {
    passing: u16,
    warning: u16,
}

fn none<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A service, as `/v1/agent/services` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceRow<'a> {
    #[serde(skip_serializing_if = "none")]
    kind: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: &'a [String],
    meta: &'a BTreeMap<String, String>,
    port: u16,
    address: &'a str,
    #[serde(skip_serializing_if = "none")]
    socket_path: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: BTreeMap<&'a str, AddressRow<'a>>,
    weights: WeightsRow,
    enable_tag_override: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    content_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<&'a Value>,
    datacenter: &'a str,
}

impl<'a> ServiceRow<'a> {
    /// Of a service in this datacenter.
    pub fn new(service: &'a Service, datacenter: &'a str) -> Self {
        let service = &service.definition;
        let address = |(name, (address, port)): (&'a String, &'a (String, u16))| {
            let row = AddressRow {
                address,
                port: *port,
            };
            (&**name, row)
        };
        Self {
            kind: &service.kind,
            id: &service.id,
            service: &service.name,
            tags: &service.tags,
            meta: &service.meta,
            port: service.port,
            address: &service.address,
            socket_path: &service.socket_path,
            tagged_addresses: service.tagged_addresses.iter().map(address).collect(),
            weights: WeightsRow {
                passing: service.weights.passing,
                warning: service.weights.warning,
            },
            enable_tag_override: service.enable_tag_override,
            content_hash: String::new(),
            proxy: service.proxy.as_ref(),
            connect: service.connect.as_ref(),
            datacenter,
        }
    }

    /// The same with its hash, as `/v1/agent/service/<id>` shows it; and the hash.
    pub fn hashed(mut self) -> (Self, String) {
        let hash = content_hash(&serde_json::to_vec(&self).expect("plain data into memory"));
        self.content_hash.clone_from(&hash);
        (self, hash)
    }
}

/// A check, as `/v1/agent/checks` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CheckRow<'a> {
    node: &'a str,
    #[serde(rename = "CheckID")]
    check_id: &'a str,
    name: &'a str,
    status: &'a str,
    notes: &'a str,
    output: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: &'a [String],
    r#type: &'a str,
    interval: String,
    timeout: String,
    exposed_port: u16,
    definition: BTreeMap<(), ()>,
    create_index: u64,
    modify_index: u64,
}

/// How long as Go writes it; empty for nothing.
pub(in super::super) fn go_duration(nanos: u64) -> String {
    match nanos {
        0 => String::new(),
        nanos => print_duration(nanos as i64),
    }
}

impl<'a> CheckRow<'a> {
    /// Of a check on this node.
    pub fn new(check: &'a Check, node: &'a str) -> Self {
        let definition = &check.definition;
        Self {
            node,
            check_id: &definition.id,
            name: &definition.name,
            status: check.status.as_str(),
            notes: &definition.notes,
            output: &check.output,
            service_id: &definition.service_id,
            service_name: &check.service_name,
            service_tags: &check.service_tags,
            r#type: definition.kind.name(),
            interval: go_duration(definition.interval_ns),
            timeout: go_duration(definition.timeout_ns),
            exposed_port: 0,
            definition: BTreeMap::new(),
            create_index: 0,
            modify_index: 0,
        }
    }
}

/// A check, as `/v1/agent/health/service/…` shows it: as any other.
pub type HealthRow<'a> = CheckRow<'a>;

/// How a service is doing, with what it is and why.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceHealth<'a> {
    /// `passing`, `warning`, `critical` or `maintenance`.
    pub aggregated_status: &'static str,
    service: Option<ServiceRow<'a>>,
    checks: Option<Vec<HealthRow<'a>>>,
}

impl<'a> ServiceHealth<'a> {
    /// Of a service that is not here.
    pub fn missing() -> Self {
        Self {
            aggregated_status: Status::Critical.as_str(),
            service: None,
            checks: None,
        }
    }

    /// Of the service with this id: its own checks and those of the node.
    pub fn of(local: &'a Local, service: &'a Service, datacenter: &'a str) -> Self {
        let id = &service.definition.id;
        let checks: Vec<&Check> = local
            .checks
            .values()
            .filter(|check| {
                let of = &check.definition.service_id;
                of == id || of.is_empty()
            })
            .collect();
        Self {
            aggregated_status: aggregated(&checks),
            service: Some(ServiceRow::new(service, datacenter)),
            checks: Some(
                checks
                    .into_iter()
                    .map(|check| CheckRow::new(check, &local.node))
                    .collect(),
            ),
        }
    }

    /// Status code: 200, 429 or 503.
    pub fn code(&self) -> u16 {
        match self.aggregated_status {
            "passing" => 200,
            "warning" => 429,
            _ => 503,
        }
    }
}

fn aggregated(checks: &[&Check]) -> &'static str {
    let maintenance = checks.iter().any(|check| {
        let id = &*check.definition.id;
        id == NODE_MAINTENANCE || id.starts_with(SERVICE_MAINTENANCE)
    });
    match maintenance {
        true => "maintenance",
        false => checks
            .iter()
            .map(|check| check.status)
            .max()
            .unwrap_or(Status::Passing)
            .as_str(),
    }
}

/// The worst of several: its code and name. `None` of none.
pub fn worst(healths: &[ServiceHealth<'_>]) -> Option<(u16, &'static str)> {
    let rank = |health: &&ServiceHealth<'_>| match health.aggregated_status {
        "passing" => 0,
        "warning" => 1,
        "critical" => 2,
        _ => 3,
    };
    let worst = healths.iter().max_by_key(rank)?;
    Some((worst.code(), worst.aggregated_status))
}

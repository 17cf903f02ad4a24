//! What do registering and deregistering do to the catalog?
//!
//! As in Consul's state store: a registration brings a node, and with it a service and checks, in
//! one step; what is the same as before changes no index and wakes nobody. A deregistration takes
//! out a service, else a check, else the whole node, and with each what hangs on it: a node's
//! services, checks and coordinates, a service's checks, and the sessions that are bound to a
//! check or a node.
//!
//! Invariant, from which reads get their index ([`rows`]): whatever a question about the
//! catalog covers, a change of it raises a row of the index table that the question's index is
//! taken from.
//!
//! One file per kind of row: [`nodes`], [`services`], [`checks`]. What a client may ask for is
//! checked in [`validate`], here and not at the door, so that every path to the log is covered.

pub mod checks;
mod coordinates;
pub mod nodes;
pub mod rows;
pub mod services;
mod validate;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::Index;

use crate::state::{
    Txn,
    records::{Check, Node, Service},
};

pub use checks::{check_op, find_check};
pub use coordinates::{CoordinatesRequest, DIMENSIONS};
pub use nodes::{find_node, node_op};
pub use services::{find_service, service_op};
pub use validate::{
    CATALOG_NAME_BYTES_MAX, CHECK_OUTPUT_BYTES_MAX, META_KEY_BYTES_MAX, META_PAIRS_MAX,
    META_VALUE_BYTES_MAX, check_meta, cut_output,
};

/// Puts a node into the catalog, with what is on it. Consul: `structs.RegisterRequest`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct RegisterRequest {
    /// The node's datacenter.
    pub datacenter: String,
    /// The node's UUID; empty for none.
    #[serde(rename = "ID")]
    pub id: String,
    /// The node's name.
    pub node: String,
    /// The node's address.
    pub address: String,
    /// Its further addresses.
    pub tagged_addresses: BTreeMap<String, String>,
    /// Its pairs.
    pub node_meta: BTreeMap<String, String>,
    /// A service on it; its node is the request's.
    pub service: Option<Service>,
    /// A check.
    pub check: Option<Check>,
    /// Further checks.
    pub checks: Vec<Check>,
    /// Leaves a node that is known as it is.
    pub skip_node_update: bool,
}

/// Takes a service, a check or a node out of the catalog. Consul: `structs.DeregisterRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DeregisterRequest {
    /// The node's name.
    pub node: String,
    /// The service that goes, if one is named.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Else the check that goes, if one is named; else the node.
    #[serde(rename = "CheckID")]
    pub check_id: String,
}

/// What a transaction's operation does to a node, service or check (`/v1/txn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatalogVerb {
    /// Answers with it.
    Get,
    /// Puts it in.
    Set,
    /// Puts it in if its modify index is the one given; 0 if it is not there.
    Cas,
    /// Takes it out, if it is there.
    Delete,
    /// Takes it out if its modify index is the one given.
    DeleteCas,
}

/// Refuses a registration that could not be carried out in whatever state: Consul's text. At the
/// door, to spare the log.
pub fn check(request: &RegisterRequest) -> Result<(), String> {
    validate::registration(request).map(drop)
}

/// Carries out a registration at `index`. On an error, which is Consul's text, the caller undoes
/// what was done.
pub fn register(txn: &mut Txn<'_>, index: Index, request: &RegisterRequest) -> Result<(), String> {
    let request = validate::registration(request)?;
    let node = Node {
        id: request.id.clone(),
        node: request.node.clone(),
        address: request.address,
        datacenter: request.datacenter,
        tagged_addresses: request.tagged_addresses,
        meta: request.node_meta,
        ..Node::default()
    };
    let held = nodes::get(txn.tables(), &node.node);
    let differs = |held: &Node| !request.skip_node_update && !nodes::is_same(held, &node);
    if held.is_none_or(|held| differs(held)) {
        nodes::ensure(txn, index, node).map_err(|why| format!("failed inserting node: {why}"))?;
    }
    if let Some(service) = request.service {
        services::ensure(txn, index, service)
            .map_err(|why| format!("failed inserting service: {why}"))?;
    }
    for check in request.checks {
        let node = check.node.clone();
        checks::ensure(txn, index, check)
            .map_err(|why| format!("failed inserting check: {why} on node {node:?}"))?;
    }
    Ok(())
}

/// Carries out a deregistration at `index`. What is not there is as good as gone.
pub fn deregister(
    txn: &mut Txn<'_>,
    index: Index,
    request: &DeregisterRequest,
) -> Result<(), String> {
    if request.node.is_empty() {
        return Err("Must provide node".to_owned());
    }
    if !request.service_id.is_empty() {
        services::delete(txn, index, &request.node, &request.service_id);
    } else if !request.check_id.is_empty() {
        checks::delete(txn, index, &request.node, &request.check_id);
    } else {
        nodes::delete(txn, index, &request.node);
    }
    Ok(())
}

/// Carries out an update of coordinates at `index`.
pub fn coordinates(
    txn: &mut Txn<'_>,
    index: Index,
    request: &CoordinatesRequest,
) -> Result<bool, String> {
    coordinates::update(txn, index, request)
}

/// Whether a write that hangs on a modify index may go ahead: 0 asks for there being no object.
fn cas_holds(asked: u64, held: Option<u64>) -> bool {
    match held {
        None => asked == 0,
        Some(held) => asked != 0 && asked == held,
    }
}

/// Whether a deletion that hangs on a modify index may go ahead.
fn delete_cas_holds(asked: u64, held: Option<u64>) -> bool {
    held == Some(asked)
}

/// Whether two names are of the same object.
fn same_name(a: &str, b: &str) -> bool {
    a == b || rows::lower(a) == rows::lower(b)
}

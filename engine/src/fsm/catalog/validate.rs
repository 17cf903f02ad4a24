//! What may a client put into the catalog?
//!
//! Consul's rules and texts. What a request leaves out is filled in here: a service's id is its
//! name, a check's id is its name, and its node is the request's.

use std::{borrow::Cow, collections::BTreeMap};

use wire::Uuid;

use super::{RegisterRequest, same_name};
use crate::state::records::{Check, Node, Service};

/// Most pairs of a node's or service's meta (Consul `metaMaxKeyPairs`).
pub const META_PAIRS_MAX: usize = 64;
/// Longest name of such a pair, bytes (Consul `metaKeyMaxLength`).
pub const META_KEY_BYTES_MAX: usize = 128;
/// Longest value of such a pair, bytes (Consul `metaValueMaxLength`).
pub const META_VALUE_BYTES_MAX: usize = 512;
/// Longest output of a check that an agent reports, bytes (Consul `check_output_max_size`). What
/// is registered directly with the catalog is kept whole, as in Consul.
pub const CHECK_OUTPUT_BYTES_MAX: usize = 4096;
/// Longest name or id of a node, service or check, bytes, so that any two make a key. Consul has
/// no bound; DNS names have at most 253.
pub const CATALOG_NAME_BYTES_MAX: usize = 2048;

/// The request with everything filled in, if it may be carried out.
pub(super) fn registration(request: &RegisterRequest) -> Result<RegisterRequest, String> {
    let mut request = request.clone();
    if request.node.is_empty() {
        return Err("Must provide node".to_owned());
    }
    name("Node name", &request.node)?;
    node_id(&request.id)?;
    if request.address.is_empty() && !request.skip_node_update {
        return Err("Must provide address if SkipNodeUpdate is not set".to_owned());
    }
    check_meta("Node", &request.node_meta)?;
    if let Some(given) = &mut request.service {
        given.node.clone_from(&request.node);
        service(given)?;
    }
    request.checks.extend(request.check.take());
    for given in &mut request.checks {
        if given.node.is_empty() {
            given.node.clone_from(&request.node);
        }
        check(given)?;
        if !same_name(&given.node, &request.node) {
            return Err(format!(
                "check node {:?} does not match node {:?}",
                given.node, request.node
            ));
        }
    }
    Ok(request)
}

/// A node of a transaction.
pub(super) fn node(node: &Node) -> Result<(), String> {
    if node.node.is_empty() {
        return Err("Must provide node".to_owned());
    }
    name("Node name", &node.node)?;
    node_id(&node.id)?;
    check_meta("Node", &node.meta)
}

/// Checks a service and fills it in.
pub(super) fn service(service: &mut Service) -> Result<(), String> {
    if service.service.is_empty() {
        return Err(
            "Must provide service name (Service.Service) when service ID is provided".to_owned(),
        );
    }
    if service.id.is_empty() {
        service.id.clone_from(&service.service);
    }
    name("Service name", &service.service)?;
    name("Service ID", &service.id)?;
    if ["0.0.0.0", "::", "[::]"].contains(&&*service.address) {
        return Err("Invalid service address".to_owned());
    }
    check_meta("Service", &service.meta).map_err(|why| {
        format!(
            "Invalid Service Meta for node {} and serviceID {}: {why}",
            service.node, service.id
        )
    })
}

/// Checks a check and fills it in.
pub(super) fn check(check: &mut Check) -> Result<(), String> {
    if check.check_id.is_empty() {
        check.check_id.clone_from(&check.name);
    }
    if check.check_id.is_empty() {
        return Err("Must provide check ID or name (Check.CheckID, Check.Name)".to_owned());
    }
    name("Check ID", &check.check_id)?;
    match &*check.status {
        "" => check.status = "critical".to_owned(),
        "passing" | "warning" | "critical" => {}
        other => {
            return Err(format!(
                "Invalid check status {other:?}: must be passing, warning or critical"
            ));
        }
    }
    Ok(())
}

fn name(what: &str, name: &str) -> Result<(), String> {
    if name.len() > CATALOG_NAME_BYTES_MAX {
        return Err(format!(
            "{what} is too long: {} bytes (limit: {CATALOG_NAME_BYTES_MAX} bytes)",
            name.len()
        ));
    }
    Ok(())
}

fn node_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Ok(()),
        36 if Uuid::parse(id).is_some() => Ok(()),
        36 => Err("Bad node ID: uuid is improperly formatted".to_owned()),
        _ => Err("Bad node ID: uuid string is wrong length".to_owned()),
    }
}

/// Whether these may be the meta of a node or a service (`of`), or be asked for as such.
pub fn check_meta(of: &str, pairs: &BTreeMap<String, String>) -> Result<(), String> {
    if pairs.len() > META_PAIRS_MAX {
        return Err(format!(
            "{of} metadata cannot contain more than {META_PAIRS_MAX} key/value pairs"
        ));
    }
    for (key, value) in pairs {
        pair(key, value)
            .map_err(|why| format!("Couldn't load metadata pair ('{key}', '{value}'): {why}"))?;
    }
    Ok(())
}

fn pair(key: &str, value: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.is_empty() {
        Err("Key cannot be blank".to_owned())
    } else if !key.bytes().all(allowed) {
        Err("Key contains invalid characters".to_owned())
    } else if key.len() > META_KEY_BYTES_MAX {
        Err(format!(
            "Key is too long (limit: {META_KEY_BYTES_MAX} characters)"
        ))
    } else if value.len() > META_VALUE_BYTES_MAX {
        Err(format!(
            "Value is too long (limit: {META_VALUE_BYTES_MAX} characters)"
        ))
    } else {
        Ok(())
    }
}

/// What an agent reports of a check's output: all of it, or its beginning and how long it was.
pub fn cut_output(output: &str) -> Cow<'_, str> {
    if output.len() <= CHECK_OUTPUT_BYTES_MAX {
        return Cow::Borrowed(output);
    }
    let end = output.floor_char_boundary(CHECK_OUTPUT_BYTES_MAX);
    Cow::Owned(format!(
        "{} ... (captured {CHECK_OUTPUT_BYTES_MAX} of {} bytes)",
        &output[..end],
        output.len()
    ))
}

//! How does a service come to a node, and go?

use wire::Index;

use super::{CatalogVerb, cas_holds, checks, delete_cas_holds, nodes, rows, same_name, validate};
use crate::state::{
    RecordRow, Tables, Txn,
    index::{Arg, Key},
    records::Service,
    schema::{CHECKS_NODE_SERVICE, Services},
    tree::Keyed,
};

/// A service by node and id.
pub fn get<'t>(tables: &'t Tables, node: &str, id: &str) -> Option<&'t RecordRow<Service>> {
    let mut key = Key::default();
    key.lower(node).lower(id);
    tables.services.get(key.as_bytes())
}

/// Whether two are the same but for their indexes. Names every field, so that a new one is not
/// forgotten; the longest ones come last.
fn is_same(a: &Service, b: &Service) -> bool {
    let Service {
        node,
        id,
        service,
        kind,
        tags,
        address,
        tagged_addresses,
        meta,
        port,
        socket_path,
        weights,
        enable_tag_override,
        proxy,
        connect,
        create_index: _,
        modify_index: _,
    } = a;
    same_name(node, &b.node)
        && *id == b.id
        && *service == b.service
        && *kind == b.kind
        && *port == b.port
        && *weights == b.weights
        && *enable_tag_override == b.enable_tag_override
        && *address == b.address
        && *socket_path == b.socket_path
        && *tags == b.tags
        && *tagged_addresses == b.tagged_addresses
        && *meta == b.meta
        && *proxy == b.proxy
        && *connect == b.connect
}

/// Puts a service on its node, which must be known.
pub(super) fn ensure(txn: &mut Txn<'_>, index: Index, mut service: Service) -> Result<(), String> {
    if nodes::get(txn.tables(), &service.node).is_none() {
        return Err("Missing node registration".to_owned());
    }
    let held = get(txn.tables(), &service.node, &service.id).cloned();
    if let Some(held) = &held
        && is_same(held, &service)
    {
        return Ok(());
    }
    service.create_index = held.as_ref().map_or(index.0, |held| held.create_index);
    service.modify_index = index.0;
    txn.put_record::<Services, _>(service.clone())
        .map_err(|error| error.to_string())?;
    txn.touch::<Services>(index);
    match held {
        Some(held) if same_name(&held.service, &service.service) => {
            rows::instance_changed(txn, index, &held, &service);
        }
        held => {
            if let Some(held) = held {
                rows::instance_went(txn, index, &held);
            }
            rows::instance_came(txn, index, &service);
        }
    }
    Ok(())
}

/// Takes a service off its node, with its checks.
pub(super) fn delete(txn: &mut Txn<'_>, index: Index, node: &str, id: &str) {
    let Some(service) = get(txn.tables(), node, id).cloned() else {
        return;
    };
    let mut of_service = Vec::new();
    let query = [Arg::Text(node), Arg::Text(id)];
    txn.tables()
        .checks
        .find(&CHECKS_NODE_SERVICE, &query, |check| {
            of_service.push(check.check_id.clone());
            true
        })
        .expect("the query fits the index");
    for check in of_service {
        checks::delete(txn, index, node, &check);
    }
    txn.remove::<Services>(service.key());
    txn.touch::<Services>(index);
    rows::instance_went(txn, index, &service);
}

/// The service that an operation names; Consul's text where there is none.
pub fn find_service(tables: &Tables, service: &Service) -> Result<RecordRow<Service>, String> {
    let (node, id) = (&service.node, &service.id);
    let found = get(tables, node, id).cloned();
    found.ok_or_else(|| format!("service {id:?} on node {node:?} doesn't exist"))
}

/// An operation of a transaction. Answers with the service, unless it was deleted.
pub fn service_op(
    txn: &mut Txn<'_>,
    index: Index,
    verb: CatalogVerb,
    service: &Service,
) -> Result<Option<RecordRow<Service>>, String> {
    let (node, id) = (&service.node, &service.id);
    let held = get(txn.tables(), node, id);
    let held_index = held.map(|held| held.modify_index);
    match verb {
        CatalogVerb::Get => find_service(txn.tables(), service).map(Some),
        CatalogVerb::Cas if !cas_holds(service.modify_index, held_index) => Err(format!(
            "failed to set service {id:?} on node {node:?}, index is stale"
        )),
        CatalogVerb::Set | CatalogVerb::Cas => {
            let mut service = service.clone();
            validate::service(&mut service)?;
            let id = service.id.clone();
            ensure(txn, index, service)?;
            Ok(get(txn.tables(), node, &id).cloned())
        }
        CatalogVerb::DeleteCas if !delete_cas_holds(service.modify_index, held_index) => Err(
            format!("failed to delete service {id:?} on node {node:?}, index is stale"),
        ),
        CatalogVerb::Delete | CatalogVerb::DeleteCas => {
            delete(txn, index, node, id);
            Ok(None)
        }
    }
}

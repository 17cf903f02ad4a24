//! How does a check come, change its status, and go?
//!
//! A check of a service carries the service's name and tags, as they were when it was registered.
//! A check that goes or turns critical ends the sessions that are bound to it.

use wire::Index;

use super::{CatalogVerb, cas_holds, delete_cas_holds, nodes, rows, same_name, services, validate};
use crate::{
    fsm::sessions,
    state::{RecordRow, Tables, Txn, index::Key, records::Check, schema::Checks, tree::Keyed},
};

/// A check by node and id.
pub fn get<'t>(tables: &'t Tables, node: &str, id: &str) -> Option<&'t RecordRow<Check>> {
    let mut key = Key::default();
    key.lower(node).lower(id);
    tables.checks.get(key.as_bytes())
}

/// Whether two are the same but for their indexes. Names every field, so that a new one is not
/// forgotten; the longest ones come last.
fn is_same(a: &Check, b: &Check) -> bool {
    let Check {
        node,
        check_id,
        name,
        status,
        notes,
        output,
        service_id,
        service_name,
        service_tags,
        kind,
        interval,
        timeout,
        exposed_port,
        definition,
        create_index: _,
        modify_index: _,
    } = a;
    same_name(node, &b.node)
        && *status == b.status
        && *check_id == b.check_id
        && *service_id == b.service_id
        && *exposed_port == b.exposed_port
        && *name == b.name
        && *kind == b.kind
        && *interval == b.interval
        && *timeout == b.timeout
        && *service_name == b.service_name
        && *service_tags == b.service_tags
        && *notes == b.notes
        && *definition == b.definition
        && *output == b.output
}

/// Puts a check on its node, which must be known, and so must its service.
pub(super) fn ensure(txn: &mut Txn<'_>, index: Index, mut check: Check) -> Result<(), String> {
    if nodes::get(txn.tables(), &check.node).is_none() {
        return Err("Missing node registration".to_owned());
    }
    if check.service_id.is_empty() {
        check.service_name.clear();
        check.service_tags.clear();
    } else {
        let service = services::get(txn.tables(), &check.node, &check.service_id)
            .ok_or("Missing service registration")?;
        check.service_name.clone_from(&service.service);
        check.service_tags.clone_from(&service.tags);
    }
    let held = get(txn.tables(), &check.node, &check.check_id).cloned();
    if check.status == "critical" {
        sessions::invalidate_for_check(txn, index, &check.node, &check.check_id);
    }
    if let Some(held) = &held
        && is_same(held, &check)
    {
        return Ok(());
    }
    check.create_index = held.as_ref().map_or(index.0, |held| held.create_index);
    check.modify_index = index.0;
    txn.put_record::<Checks, _>(check.clone())
        .map_err(|error| error.to_string())?;
    txn.touch::<Checks>(index);
    touch_services(txn, index, &check);
    if let Some(held) = held
        && !same_name(&held.service_id, &check.service_id)
    {
        touch_services(txn, index, &held);
    }
    Ok(())
}

/// Says that the services which show a check changed: its own, or all on the node.
fn touch_services(txn: &mut Txn<'_>, index: Index, check: &Check) {
    if check.service_id.is_empty() {
        return rows::services_of(txn, index, &check.node);
    }
    if let Some(service) = services::get(txn.tables(), &check.node, &check.service_id).cloned() {
        rows::service(txn, index, &service);
    }
}

/// Takes a check off its node.
pub(super) fn delete(txn: &mut Txn<'_>, index: Index, node: &str, id: &str) {
    let Some(check) = get(txn.tables(), node, id).cloned() else {
        return;
    };
    txn.remove::<Checks>(check.key());
    txn.touch::<Checks>(index);
    touch_services(txn, index, &check);
    sessions::invalidate_for_check(txn, index, node, id);
}

/// The check that an operation names; Consul's text where there is none.
pub fn find_check(tables: &Tables, check: &Check) -> Result<RecordRow<Check>, String> {
    let (node, id) = (&check.node, &check.check_id);
    let found = get(tables, node, id).cloned();
    found.ok_or_else(|| format!("check {id:?} on node {node:?} doesn't exist"))
}

/// An operation of a transaction. Answers with the check, unless it was deleted.
pub fn check_op(
    txn: &mut Txn<'_>,
    index: Index,
    verb: CatalogVerb,
    check: &Check,
) -> Result<Option<RecordRow<Check>>, String> {
    let (node, id) = (&check.node, &check.check_id);
    let held = get(txn.tables(), node, id);
    let held_index = held.map(|held| held.modify_index);
    match verb {
        CatalogVerb::Get => find_check(txn.tables(), check).map(Some),
        CatalogVerb::Cas if !cas_holds(check.modify_index, held_index) => Err(format!(
            "failed to set check {id:?} on node {node:?}, index is stale"
        )),
        CatalogVerb::Set | CatalogVerb::Cas => {
            let mut check = check.clone();
            validate::check(&mut check)?;
            let id = check.check_id.clone();
            ensure(txn, index, check)?;
            Ok(get(txn.tables(), node, &id).cloned())
        }
        CatalogVerb::DeleteCas if !delete_cas_holds(check.modify_index, held_index) => Err(
            format!("failed to delete check {id:?} on node {node:?}, index is stale"),
        ),
        CatalogVerb::Delete | CatalogVerb::DeleteCas => {
            delete(txn, index, node, id);
            Ok(None)
        }
    }
}

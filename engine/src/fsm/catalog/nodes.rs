//! How does a node come, change its name, and go?
//!
//! A node is known by its name, and by its UUID if it has one. A registration with a known UUID and
//! another name renames the node: what was registered under the old name goes. A name belongs to
//! the node that holds it, unless that node has no UUID or is not alive.

use wire::Index;

use super::{
    CatalogVerb, cas_holds, checks, delete_cas_holds, rows, same_name, services, validate,
};
use crate::{
    fsm::{sessions, usage},
    state::{
        RecordRow, Tables, Txn,
        index::{Arg, Key},
        records::Node,
        schema::{CHECKS_NODE, COORDINATES_NODE, Coordinates, NODES_UUID, Nodes},
        tree::Keyed,
    },
};

/// The check by which servers say whether a node is alive.
const SERF_HEALTH: &str = "serfHealth";

fn key(name: &str) -> Key {
    let mut key = Key::default();
    key.lower(name);
    key
}

/// A node by its name.
pub fn get<'t>(tables: &'t Tables, name: &str) -> Option<&'t RecordRow<Node>> {
    tables.nodes.get(key(name).as_bytes())
}

/// A node by its UUID as text.
pub fn by_id(tables: &Tables, id: &str) -> Option<RecordRow<Node>> {
    let id = wire::Uuid::parse(id)?;
    let found = tables.nodes.first(&NODES_UUID, &[Arg::Uuid(&id.0)]);
    found.expect("the query fits the index")
}

/// Whether two are the same but for their indexes.
pub(super) fn is_same(a: &Node, b: &Node) -> bool {
    a.id == b.id
        && same_name(&a.node, &b.node)
        && a.address == b.address
        && a.datacenter == b.datacenter
        && a.tagged_addresses == b.tagged_addresses
        && a.meta == b.meta
}

/// Puts a node in.
pub(super) fn ensure(txn: &mut Txn<'_>, index: Index, mut node: Node) -> Result<(), String> {
    let held = match by_id(txn.tables(), &node.id) {
        Some(known) => {
            if !same_name(&known.node, &node.node) {
                rename(txn, index, &known, &node)?;
            }
            Some(known)
        }
        None => {
            if !node.id.is_empty() {
                name_is_free(txn.tables(), &node, true)
                    .map_err(|why| format!("Error while renaming Node ID: {:?}: {why}", node.id))?;
            }
            get(txn.tables(), &node.node).cloned()
        }
    };
    if let Some(held) = &held
        && is_same(held, &node)
    {
        return Ok(());
    }
    node.create_index = held.map_or(index.0, |held| held.create_index);
    node.modify_index = index.0;
    let name = node.node.clone();
    let before = txn.tables().nodes.len();
    txn.put_record::<Nodes, _>(node)
        .map_err(|error| error.to_string())?;
    if txn.tables().nodes.len() > before {
        usage::add(txn, index, usage::NODES, 1);
    }
    txn.touch::<Nodes>(index);
    txn.touch_named(rows::node_row(&name), index);
    rows::services_of(txn, index, &name);
    Ok(())
}

fn rename(txn: &mut Txn<'_>, index: Index, known: &Node, node: &Node) -> Result<(), String> {
    name_is_free(txn.tables(), node, false).map_err(|why| {
        format!(
            "Error while renaming Node ID: {:?} ({}): {why}",
            node.id, node.address
        )
    })?;
    delete(txn, index, &known.node);
    Ok(())
}

/// Whether a node may have its name: nobody has it, or who has it may lose it.
fn name_is_free(tables: &Tables, node: &Node, of_nodes_without_id: bool) -> Result<(), String> {
    let Some(holder) = get(tables, &node.node).filter(|holder| holder.id != node.id) else {
        return Ok(());
    };
    let serf = checks::get(tables, &holder.node, SERF_HEALTH);
    let alive = serf.is_some_and(|check| check.status != "critical");
    if !alive || (of_nodes_without_id && holder.id.is_empty()) {
        return Ok(());
    }
    Err(format!(
        "Node name {} is reserved by node {} with name {} ({})",
        node.node, holder.id, holder.node, holder.address
    ))
}

/// Takes a node out, with all that hangs on it.
pub(super) fn delete(txn: &mut Txn<'_>, index: Index, name: &str) {
    let Some(node) = get(txn.tables(), name).cloned() else {
        return;
    };
    for service in rows::services_on(txn.tables(), name) {
        services::delete(txn, index, name, &service.id);
    }
    let mut of_node = Vec::new();
    txn.tables()
        .checks
        .find(&CHECKS_NODE, &[Arg::Text(name)], |check| {
            of_node.push(check.check_id.clone());
            true
        })
        .expect("the query fits the index");
    for check in of_node {
        checks::delete(txn, index, name, &check);
    }
    delete_coordinates(txn, index, name);
    txn.remove::<Nodes>(node.key());
    usage::add(txn, index, usage::NODES, -1);
    txn.touch::<Nodes>(index);
    txn.forget_named(rows::node_row(name));
    txn.touch_named(rows::NODE_LAST_EXTINCTION, index);
    sessions::invalidate_for_node(txn, index, &node.node);
}

fn delete_coordinates(txn: &mut Txn<'_>, index: Index, node: &str) {
    let mut places = Vec::new();
    txn.tables()
        .coordinates
        .find(&COORDINATES_NODE, &[Arg::Text(node)], |place| {
            places.push(place.clone());
            true
        })
        .expect("the query fits the index");
    for place in places {
        txn.remove::<Coordinates>(place.key());
        txn.touch::<Coordinates>(index);
    }
}

/// The node that an operation names by its UUID or its name; Consul's text where there is none.
pub fn find_node(tables: &Tables, node: &Node) -> Result<RecordRow<Node>, String> {
    let found = match &*node.id {
        "" => get(tables, &node.node).cloned(),
        id => by_id(tables, id),
    };
    found.ok_or_else(|| format!("node {:?} doesn't exist", node.node))
}

/// An operation of a transaction. Answers with the node, unless it was deleted.
pub fn node_op(
    txn: &mut Txn<'_>,
    index: Index,
    verb: CatalogVerb,
    node: &Node,
) -> Result<Option<RecordRow<Node>>, String> {
    let name = &node.node;
    let held = get(txn.tables(), name).map(|held| held.modify_index);
    match verb {
        CatalogVerb::Get => find_node(txn.tables(), node).map(Some),
        CatalogVerb::Cas if !cas_holds(node.modify_index, held) => {
            Err(format!("failed to set node {name:?}, index is stale"))
        }
        CatalogVerb::Set | CatalogVerb::Cas => {
            validate::node(node)?;
            ensure(txn, index, node.clone())?;
            Ok(find_node(txn.tables(), node).ok())
        }
        CatalogVerb::DeleteCas if !delete_cas_holds(node.modify_index, held) => {
            Err(format!("failed to delete node {name:?}, index is stale"))
        }
        CatalogVerb::Delete | CatalogVerb::DeleteCas => {
            delete(txn, index, name);
            Ok(None)
        }
    }
}

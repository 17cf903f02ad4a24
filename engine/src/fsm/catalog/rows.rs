//! Which rows of the index table does a change of the catalog raise?
//!
//! | row | raised by a change of |
//! |---|---|
//! | `nodes`, `services`, `checks`, `coordinates` | the table |
//! | `node.<node>` | the node, or a service on it |
//! | `service.<name>` | an instance of the service, its node, or a check of either |
//! | `service_kind.<kind>` | the same, for all services of a kind |
//! | `service_last_extinction` | a service's last instance going: its own row goes then |
//! | `node_last_extinction` | a node going: its own row goes then |
//!
//! Consul's, without its prefix for rows of peers. Names are in lower case, as all keys of Consul's
//! index table.

use wire::Index;

use crate::{
    fsm::usage,
    state::{
        Tables, Txn,
        index::Arg,
        records::{RecordRow, Service},
        schema::{SERVICES_NODE, SERVICES_SERVICE},
    },
};

/// Row of the last time that a service's last instance went.
pub const SERVICE_LAST_EXTINCTION: &str = "service_last_extinction";
/// Row of the last time that a node went.
pub const NODE_LAST_EXTINCTION: &str = "node_last_extinction";

/// Lower case as keys have it.
pub fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Row of a service by its name.
pub fn service_row(name: &str) -> String {
    format!("service.{}", lower(name))
}

/// Row of a node by its name.
pub fn node_row(name: &str) -> String {
    format!("node.{}", lower(name))
}

/// Row of a kind of services; ordinary ones are of the kind `typical`, as in Consul.
pub fn kind_row(kind: &str) -> String {
    match kind {
        "" => "service_kind.typical".to_owned(),
        kind => format!("service_kind.{}", lower(kind)),
    }
}

/// Services on a node.
pub(super) fn services_on(tables: &Tables, node: &str) -> Vec<RecordRow<Service>> {
    let mut found = Vec::new();
    tables
        .services
        .find(&SERVICES_NODE, &[Arg::Text(node)], |service| {
            found.push(service.clone());
            true
        })
        .expect("the query fits the index");
    found
}

/// Something about an instance of this service changed.
pub(super) fn service(txn: &mut Txn<'_>, index: Index, service: &Service) {
    txn.touch_named(service_row(&service.service), index);
    txn.touch_named(kind_row(&service.kind), index);
}

/// Something changed that all services on a node show.
pub(super) fn services_of(txn: &mut Txn<'_>, index: Index, node: &str) {
    for on_node in services_on(txn.tables(), node) {
        service(txn, index, &on_node);
    }
}

/// An instance came.
pub(super) fn instance_came(txn: &mut Txn<'_>, index: Index, came: &Service) {
    service(txn, index, came);
    txn.touch_named(node_row(&came.node), index);
    usage::instance(txn, index, None, Some(came));
    if instances(txn.tables(), &came.service) == 1 {
        usage::add(txn, index, usage::SERVICE_NAMES, 1);
    }
}

/// An instance changed, and not its name.
pub(super) fn instance_changed(txn: &mut Txn<'_>, index: Index, before: &Service, after: &Service) {
    // The kind may have changed.
    service(txn, index, before);
    service(txn, index, after);
    txn.touch_named(node_row(&after.node), index);
    usage::instance(txn, index, Some(before), Some(after));
}

/// An instance went, and is out of its table.
pub(super) fn instance_went(txn: &mut Txn<'_>, index: Index, went: &Service) {
    service(txn, index, went);
    txn.touch_named(node_row(&went.node), index);
    usage::instance(txn, index, Some(went), None);
    if instances(txn.tables(), &went.service) == 0 {
        txn.forget_named(service_row(&went.service));
        txn.touch_named(SERVICE_LAST_EXTINCTION, index);
        usage::add(txn, index, usage::SERVICE_NAMES, -1);
    }
}

/// How many instances a service has: 0, 1, or 2 for more.
fn instances(tables: &Tables, name: &str) -> usize {
    let mut count = 0;
    tables
        .services
        .find(&SERVICES_SERVICE, &[Arg::Text(name)], |_| {
            count += 1;
            count < 2
        })
        .expect("the query fits the index");
    count
}

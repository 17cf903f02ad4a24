//! How many of something are there?
//!
//! Counted in the table `usage` in the transaction that changes the number, as Consul does for its
//! gauges and `/v1/operator/usage`. Keys are not: every new key would pay for a second row, and the
//! table of keys knows how long it is.
//!
//! Invariant: a count is what a look at all rows would find (`fsm/catalog/tests/laws.rs`). An image
//! of before something was counted has too little of it; then a count stays at nothing, as Consul's,
//! since no count is worth a stop.

use wire::Index;

use crate::state::{
    Tables, Txn,
    index::Key,
    records::{Service, Usage},
    schema::{InSchema, Usages},
};

/// Nodes of the catalog.
pub const NODES: &str = "nodes";
/// Instances of services.
pub const SERVICE_INSTANCES: &str = "services";
/// Different names of services.
pub const SERVICE_NAMES: &str = "service-names";
/// Instances of ordinary services, without the servers' own.
pub const BILLABLE_INSTANCES: &str = "billable-services";

/// A kind of something, which has a count of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Consul's name of it.
    pub name: &'static str,
    /// Its row in the table.
    pub id: &'static str,
    /// Its gauge, with its label.
    pub gauge: &'static str,
}

macro_rules! kinds {
    ($prefix:literal, $gauge:literal: $($name:literal,)*) => {
        &[$(Kind {
            name: $name,
            id: concat!($prefix, $name),
            gauge: concat!($gauge, ";kind=", $name),
        }),*]
    };
}

/// Kinds of instances that the mesh consists of.
pub const CONNECT_KINDS: &[Kind] = kinds! {
    "connect-mesh-", "consul.state.connect_instances":
    "api-gateway",
    "connect-native",
    "connect-proxy",
    "ingress-gateway",
    "mesh-gateway",
    "terminating-gateway",
};

/// Kinds of config entries.
pub const CONFIG_KINDS: &[Kind] = kinds! {
    "config-entries-", "consul.state.config_entries":
    "api-gateway",
    "bound-api-gateway",
    "control-plane-request-limit",
    "exported-services",
    "file-system-certificate",
    "http-route",
    "ingress-gateway",
    "inline-certificate",
    "jwt-provider",
    "mesh",
    "proxy-defaults",
    "rate-limit",
    "sameness-group",
    "service-defaults",
    "service-intentions",
    "service-resolver",
    "service-router",
    "service-splitter",
    "tcp-route",
    "terminating-gateway",
};

/// Of an instance that speaks the mesh's protocol itself.
const CONNECT_NATIVE: &str = "connect-native";
/// The servers' own service.
const CONSUL: &str = "consul";

fn key(id: &str) -> Key {
    let mut key = Key::default();
    key.lower(id);
    key
}

fn row<'t>(tables: &'t Tables, id: &str) -> Option<&'t Usage> {
    Usages::of(tables).get(key(id).as_bytes()).map(|row| &**row)
}

/// How many there are.
pub fn count(tables: &Tables, id: &str) -> u64 {
    row(tables, id).map_or(0, |usage| usage.count)
}

/// The index of the command that changed their number last; 0 for none.
pub fn index(tables: &Tables, id: &str) -> Index {
    Index(row(tables, id).map_or(0, |usage| usage.index))
}

/// There are `change` more, or fewer.
pub(super) fn add(txn: &mut Txn<'_>, index: Index, id: &str, change: i64) {
    let usage = Usage {
        id: id.to_owned(),
        index: index.0,
        count: count(txn.tables(), id).saturating_add_signed(change),
    };
    txn.put_record::<Usages, _>(usage)
        .expect("a short row that no index refuses");
}

/// An instance took the place of another, or of none; or went.
pub(super) fn instance(
    txn: &mut Txn<'_>,
    index: Index,
    before: Option<&Service>,
    after: Option<&Service>,
) {
    let (before, after) = (counted_as(before), counted_as(after));
    for id in before.iter().filter(|id| !after.contains(id)) {
        add(txn, index, id, -1);
    }
    for id in after.iter().filter(|id| !before.contains(id)) {
        add(txn, index, id, 1);
    }
}

/// The counts that an instance is in.
fn counted_as(service: Option<&Service>) -> Vec<&'static str> {
    let Some(service) = service else {
        return Vec::new();
    };
    let mut counts = vec![SERVICE_INSTANCES];
    if service.kind.is_empty() && service.service != CONSUL {
        counts.push(BILLABLE_INSTANCES);
    }
    let native = service.is_connect_native();
    let kinds = CONNECT_KINDS.iter().filter(|kind| match kind.name {
        CONNECT_NATIVE => native,
        name => name == service.kind,
    });
    counts.extend(kinds.map(|kind| kind.id));
    counts
}

/// A config entry came or went.
pub(super) fn config_entry(txn: &mut Txn<'_>, index: Index, kind: &str, change: i64) {
    let known = CONFIG_KINDS.iter().find(|known| known.name == kind);
    if let Some(known) = known {
        add(txn, index, known.id, change);
    }
}

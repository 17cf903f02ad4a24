//! What does `GET /v1/operator/usage` answer?
//!
//! The counts of the usage table. The answer's index is that of the last command that changed one
//! of them, and a blocking query wakes for that: not for keys, and not for a service that is
//! written anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::Index;

use super::{Question, Subject, json};
use crate::{
    fsm::usage::{
        self, BILLABLE_INSTANCES, CONNECT_KINDS, NODES, SERVICE_INSTANCES, SERVICE_NAMES,
    },
    state::{Tables, records::Usage, schema::Usages, table::TableDef},
};

/// The question how much is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageQuestion {
    /// The name of this datacenter.
    pub datacenter: String,
}

/// Consul: `structs.ServiceUsage`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    services: u64,
    service_instances: u64,
    connect_service_instances: BTreeMap<&'static str, u64>,
    billable_service_instances: u64,
    nodes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'s> {
    usage: BTreeMap<&'s str, Shown>,
}

impl From<UsageQuestion> for Question {
    fn from(question: UsageQuestion) -> Self {
        Self::Usage(question)
    }
}

/// Rows of the table that are shown.
fn rows() -> impl Iterator<Item = &'static str> {
    [NODES, SERVICE_NAMES, SERVICE_INSTANCES, BILLABLE_INSTANCES]
        .into_iter()
        .chain(CONNECT_KINDS.iter().map(|kind| kind.id))
}

impl UsageQuestion {
    pub(super) fn subject(&self) -> Subject {
        catalog()
    }

    pub(super) fn index(&self, tables: &Tables) -> Index {
        let indexes = rows().map(|id| usage::index(tables, id));
        indexes.max().unwrap_or(Index(0))
    }

    pub(super) fn answer(&self, tables: &Tables) -> Vec<u8> {
        let count = |id| usage::count(tables, id);
        let kinds = CONNECT_KINDS.iter().map(|kind| (kind.name, count(kind.id)));
        let shown = Shown {
            services: count(SERVICE_NAMES),
            service_instances: count(SERVICE_INSTANCES),
            connect_service_instances: kinds.collect(),
            billable_service_instances: count(BILLABLE_INSTANCES),
            nodes: count(NODES),
        };
        json(&Document {
            usage: [(&*self.datacenter, shown)].into(),
        })
    }
}

/// The subject of a count that changed.
pub(super) fn touched(usage: &Usage, each: &mut dyn FnMut(Subject)) {
    if rows().any(|id| id == usage.id) {
        each(catalog());
    }
}

fn catalog() -> Subject {
    Subject::named(Usages::ID, "catalog")
}

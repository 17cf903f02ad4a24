//! Whose changes do questions about the catalog wait for?
//!
//! What a service or a node shows is spread over rows of three tables (a service shows its nodes
//! and their checks), and the state machine already says which services and nodes a change
//! shows in: it raises their rows in the index table. So a question about one of them waits for
//! that row. Questions about checks wait for rows of checks, those about all of something for a
//! table.

use super::{Checks, Nodes, Services, Subject, TableDef};
use crate::{
    documents::subjects::rows_of,
    fsm::catalog::rows::lower,
    state::{
        IndexRow, RecordRow,
        records::{Check, Service},
        schema::{Indexes, RowChange},
        tree::Keyed,
    },
};

/// A row of the index table.
pub(super) fn index_row(name: &str) -> Subject {
    Subject::named(Indexes::ID, name)
}

/// Tags and names of services.
pub(super) fn names() -> Subject {
    Subject::named(Services::ID, "names")
}

/// Everything in the catalog.
pub(super) fn anything() -> Subject {
    Subject::named(Nodes::ID, "anything")
}

pub(super) fn checks_of_node(node: &str) -> Subject {
    Subject::named(Checks::ID, &format!("node/{}", lower(node)))
}

pub(super) fn checks_of_service(service: &str) -> Subject {
    Subject::named(Checks::ID, &format!("service/{}", lower(service)))
}

pub(super) fn checks_in_state(status: &str) -> Subject {
    Subject::named(Checks::ID, &format!("state/{}", lower(status)))
}

/// The subjects of a node that came, went or changed.
pub(in crate::documents) fn touched_node(each: &mut dyn FnMut(Subject)) {
    each(Subject::table(Nodes::ID));
    each(anything());
}

/// The subjects of a change of services.
pub(in crate::documents) fn touched_services(
    change: &RowChange<RecordRow<Service>>,
    each: &mut dyn FnMut(Subject),
) {
    let same_names = match change {
        RowChange::Put {
            old: Some(old),
            new,
        } => old.service == new.service && old.tags == new.tags,
        _ => false,
    };
    let mut any = false;
    rows_of(change, |_| any = true);
    if any {
        each(anything());
        if !same_names {
            each(names());
        }
    }
}

/// The subjects of a check that came, went or changed.
pub(in crate::documents) fn touched_check(check: &Check, each: &mut dyn FnMut(Subject)) {
    each(Subject::table(Checks::ID));
    each(anything());
    each(checks_of_node(&check.node));
    each(checks_in_state(&check.status));
    if !check.service_name.is_empty() {
        each(checks_of_service(&check.service_name));
    }
}

/// The subject of a row of the index table that was raised, or went.
pub(in crate::documents) fn touched_index(
    change: &RowChange<IndexRow>,
    each: &mut dyn FnMut(Subject),
) {
    let row = match change {
        RowChange::Put { new: row, .. } | RowChange::Removed { old: row } => row,
        // Nothing removes these by prefix.
        RowChange::PrefixRemoved { .. } => return,
    };
    if let Ok(name) = std::str::from_utf8(row.key())
        && name.contains('.')
    {
        each(index_row(name));
    }
}

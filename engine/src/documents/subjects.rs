//! Which changes does a question wait for?
//!
//! A subject is a table, or what a name in a table stands for: a session's id, a node, a service.
//! A change names its subjects from the row before and the row after, so that who waits for a
//! service that does not exist yet, or no longer, is woken too.

use bytes::Bytes;

use super::{acl, catalog, config, coordinates, queries, sessions, usage};
use crate::state::{
    records::{Record, RecordRow},
    schema::{Change, RowChange},
};

/// What a question waits for, as bytes: a letter for the space, and the name in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(Bytes);

impl Subject {
    /// Everything in the table with this number.
    pub fn table(id: u16) -> Self {
        Self([&b"t"[..], &id.to_be_bytes()].concat().into())
    }

    /// What the table with this number holds under a name.
    pub fn named(id: u16, name: &str) -> Self {
        let name = name.to_lowercase();
        Self(
            [&b"n"[..], &id.to_be_bytes(), name.as_bytes()]
                .concat()
                .into(),
        )
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Calls `each` with the subjects of a change. A row that was only written anew, at the index that
/// it had, shows nothing new.
pub fn touched(change: &Change, each: &mut dyn FnMut(Subject)) {
    match change {
        Change::AclTokens(change) => rows_of(change, |row| acl::touched_token(row, each)),
        Change::AclPolicies(change) => rows_of(change, |_| acl::touched_policy(each)),
        Change::AclRoles(change) => rows_of(change, |_| acl::touched_role(each)),
        Change::Indexes(change) => catalog::touched_index(change, each),
        Change::Nodes(change) => rows_of(change, |_| catalog::touched_node(each)),
        Change::Services(change) => catalog::touched_services(change, each),
        Change::Checks(change) => rows_of(change, |row| catalog::touched_check(row, each)),
        Change::ConfigEntries(change) => rows_of(change, |row| config::touched(row, each)),
        Change::Coordinates(change) => coordinates::touched(change, each),
        Change::PreparedQueries(change) => rows_of(change, |row| queries::touched(row, each)),
        Change::Sessions(change) => rows_of(change, |row| sessions::touched(row, each)),
        Change::Usages(change) => rows_of(change, |row| usage::touched(row, each)),
        // Keys have watches of their own; the others are shown by no question.
        _ => {}
    }
}

/// Calls `each` with the row before a change and the row since.
pub(super) fn rows_of<T: Record>(change: &RowChange<RecordRow<T>>, mut each: impl FnMut(&T)) {
    match change {
        RowChange::Put {
            old: Some(old),
            new,
        } if old.modify_index() == new.modify_index() => {}
        RowChange::Put { old, new } => {
            old.iter().for_each(|old| each(old));
            each(new);
        }
        RowChange::Removed { old } => each(old),
        RowChange::PrefixRemoved { prefix, before } => {
            let mut gone = before.prefix(prefix);
            while gone.scan(|row| {
                each(row);
                true
            }) {}
        }
    }
}

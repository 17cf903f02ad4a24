//! Which tables are there, and by what are their rows found?
//!
//! This module is the whole answer: the list at its end names every table, and the files beside
//! it declare each with its indexes, one file per family. To add a table: its row (a
//! [`Record`](super::records::Record), or a layout of its own), its indexes as constants, its
//! [`TableDef`], and one line in `tables!`. Transactions, undo, digest, images, checks and the
//! conformance test follow from that line.
//!
//! Tables and indexes are named as Consul's, without the prefix that its catalog indexes have for
//! the peer a row was imported from, and without the indexes that only its mesh needs.

use wire::{Index, Uuid};

use super::{
    index::{Attributes, Key},
    row::{IndexRow, Row, RowError},
    table::{BuildError, Release, Table, TableBuilder, TableDef},
    tree::{Cursor, Keyed, View},
};

/// Declares a table of records: its number, name, primary index and further indexes.
macro_rules! record_table {
    ($(#[$doc:meta])* $Def:ident: $Record:ident = $id:literal $name:literal, by $primary:ident, and [$($index:ident),*]) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $Def;

        impl crate::state::table::TableDef for $Def {
            type Row = crate::state::records::RecordRow<$Record>;
            const ID: u16 = $id;
            const NAME: &'static str = $name;
            const POINT_INDEX: bool = false;
            fn primary() -> crate::state::index::IndexDef<Self::Row> {
                crate::state::index::Lookup::def(&$primary)
            }
            fn secondaries() -> Vec<crate::state::index::IndexDef<Self::Row>> {
                vec![$(crate::state::index::Lookup::def(&$index)),*]
            }
        }
    };
}

mod acl;
mod catalog;
mod config;
mod kv;
mod session;
mod system;

pub use acl::*;
pub use catalog::*;
pub use config::*;
pub use kv::*;
pub use session::*;
pub use system::*;

/// Attributes of an index that names each row by a value of its own.
const UNIQUE: Attributes = Attributes {
    unique: true,
    ..Attributes::NONE
};
/// The same, and found by the beginnings of values.
const UNIQUE_PREFIX: Attributes = Attributes {
    prefix: true,
    ..UNIQUE
};
/// Attributes of an index that not every row is in.
const SOME: Attributes = Attributes {
    allow_missing: true,
    ..Attributes::NONE
};
/// The same, with any number of keys per row.
const SOME_MULTI: Attributes = Attributes {
    multi: true,
    ..SOME
};

/// Appends a UUID, given as text, as its 16 bytes; false, and nothing, if it is none.
pub(super) fn uuid_key(text: &str, key: &mut Key) -> bool {
    Uuid::parse(text).is_some_and(|uuid| !key.uuid(uuid).as_bytes().is_empty())
}

/// One change to a table, with what it takes to undo it and to know who waits for it.
#[derive(Debug)]
pub enum RowChange<R: Row> {
    /// A row came, in the place of `old` if there was one.
    Put {
        /// The row before.
        old: Option<R>,
        /// The row since.
        new: R,
    },
    /// A row went.
    Removed {
        /// The row before.
        old: R,
    },
    /// All rows whose primary keys start with `prefix` went.
    PrefixRemoved {
        /// The prefix.
        prefix: Box<[u8]>,
        /// The table before.
        before: View<R>,
    },
}

/// A table of the schema: how to get at it by its type.
pub trait InSchema: TableDef {
    /// This table among all.
    fn of(tables: &Tables) -> &Table<Self>
    where
        Self: Sized;
    /// This table among all.
    fn of_mut(tables: &mut Tables) -> &mut Table<Self>
    where
        Self: Sized;
    /// A change of this table among those of all.
    fn change(change: RowChange<Self::Row>) -> Change;
}

fn undo<D: TableDef>(table: &mut Table<D>, change: RowChange<D::Row>) {
    match change {
        RowChange::Put { old: Some(old), .. } | RowChange::Removed { old } => {
            table.put(old).expect("it was stored before");
        }
        RowChange::Put { old: None, new } => {
            table.remove(new.key()).expect("it was stored since");
        }
        RowChange::PrefixRemoved { prefix, before } => table.undo_remove_prefix(&prefix, &before),
    }
}

/// The rows of one table in order, as canonical bytes, in slices.
pub(crate) trait RowSource: std::fmt::Debug {
    /// Appends {length u32, canonical bytes} of the next rows until there are `budget` bytes, and
    /// shows each to `each`; returns how many. 0 at the end.
    fn fill(&mut self, budget: usize, each: &mut dyn FnMut(&[u8]), out: &mut Vec<u8>) -> u32;
}

impl<R: Row> RowSource for Cursor<R> {
    fn fill(&mut self, budget: usize, each: &mut dyn FnMut(&[u8]), out: &mut Vec<u8>) -> u32 {
        let mut rows = 0;
        let mut more = true;
        while more && out.len() < budget {
            more = self.scan(|row| {
                let start = out.len();
                out.extend_from_slice(&[0; 4]);
                row.encode(out);
                let length = u32::try_from(out.len() - start - 4).expect("a row is far smaller");
                out[start..start + 4].copy_from_slice(&length.to_le_bytes());
                each(&out[start + 4..]);
                rows += 1;
                out.len() < budget
            });
        }
        rows
    }
}

/// Why bytes cannot be part of a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("table {0} is not known to this build")]
    UnknownTable(u16),
    #[error("table '{table}': {why}")]
    Row { table: &'static str, why: RowError },
    #[error("table '{table}': {why}")]
    Build {
        table: &'static str,
        why: BuildError,
    },
}

/// Declares the tables; see the [module](self).
macro_rules! tables {
    ($($(#[$doc:meta])* $field:ident: $Def:ident,)*) => {
        /// All tables of one shard's state.
        #[derive(Debug, Default)]
        pub struct Tables {
            $($(#[$doc])* pub $field: Table<$Def>,)*
        }

        /// A view of every table, all of one moment.
        #[derive(Clone, Debug)]
        pub struct TableViews {
            $($(#[$doc])* pub $field: View<<$Def as TableDef>::Row>,)*
        }

        /// One change to one of the tables.
        #[derive(Debug)]
        pub enum Change {
            $($(#[$doc])* $Def(RowChange<<$Def as TableDef>::Row>),)*
        }

        $(impl InSchema for $Def {
            fn of(tables: &Tables) -> &Table<Self> {
                &tables.$field
            }
            fn of_mut(tables: &mut Tables) -> &mut Table<Self> {
                &mut tables.$field
            }
            fn change(change: RowChange<Self::Row>) -> Change {
                Change::$Def(change)
            }
        })*

        impl Tables {
            /// Number and name of every table, in the order in which images hold them.
            pub const ALL: &'static [(u16, &'static str)] = &[$(($Def::ID, $Def::NAME),)*];

            /// Digest of all rows of all tables; independent of the order in which they came.
            pub fn digest(&self) -> u64 {
                0u64$(.wrapping_add(self.$field.digest()))*
            }

            /// The state as it is now. O(1).
            pub fn views(&self) -> TableViews {
                TableViews { $($field: self.$field.view(),)* }
            }

            /// Frees about `rows` rows per table of what was left behind; true while there is more.
            pub fn release_some(&mut self, rows: usize) -> bool {
                false$(| self.$field.release_some(rows))*
            }

            /// Proves that every index agrees with its table; O(rows).
            pub fn check(&self) {
                $(self.$field.check();)*
            }

            pub(super) fn undo(&mut self, change: Change) {
                match change {
                    $(Change::$Def(change) => undo(&mut self.$field, change),)*
                }
            }

            pub(super) fn discard(self) -> Vec<Box<dyn Release>> {
                vec![$(Box::new(self.$field.discard()) as Box<dyn Release>,)*]
            }
        }

        impl TableViews {
            /// Number of each table, its row count, and its rows in order.
            pub(crate) fn sources(&self) -> Vec<(u16, u64, Box<dyn RowSource>)> {
                vec![$((
                    $Def::ID,
                    self.$field.len() as u64,
                    Box::new(self.$field.cursor()) as Box<dyn RowSource>,
                ),)*]
            }
        }

        /// Builds all tables from rows in table order and key order.
        #[derive(Debug, Default)]
        pub(crate) struct TablesBuilder {
            $($field: TableBuilder<$Def>,)*
        }

        impl TablesBuilder {
            /// Adds the next row of a table, as canonical bytes.
            pub(crate) fn push(&mut self, table: u16, bytes: &[u8]) -> Result<(), LoadError> {
                match table {
                    $($Def::ID => {
                        let row = <$Def as TableDef>::Row::decode(bytes)
                            .map_err(|why| LoadError::Row { table: $Def::NAME, why })?;
                        self.$field.push(row).map_err(|why| LoadError::Build { table: $Def::NAME, why })
                    })*
                    other => Err(LoadError::UnknownTable(other)),
                }
            }

            /// Number of rows of a table so far.
            pub(crate) fn rows(&self, table: u16) -> u64 {
                match table {
                    $($Def::ID => self.$field.len() as u64,)*
                    _ => 0,
                }
            }

            /// The tables.
            pub(crate) fn finish(self) -> Tables {
                Tables { $($field: self.$field.finish(),)* }
            }
        }

        #[cfg(test)]
        mod every_table {
            use super::{super::conformance, *};
            $(#[test]
            fn $field() {
                conformance::conforms::<$Def>();
            })*
        }
    };
}

tables! {
    /// Keys and values.
    kvs: Kvs,
    /// Deleted keys.
    tombstones: Tombstones,
    /// Greatest modify indexes.
    indexes: Indexes,
    /// Nodes of the catalog.
    nodes: Nodes,
    /// Services on nodes.
    services: Services,
    /// Checks of nodes and services.
    checks: Checks,
    /// Network coordinates of nodes.
    coordinates: Coordinates,
    /// Sessions.
    sessions: Sessions,
    /// Which sessions are bound to which checks.
    session_checks: SessionChecks,
    /// Keys that cannot be locked for a while.
    lock_delays: LockDelays,
    /// Configuration entries.
    config_entries: ConfigEntries,
    /// Prepared queries.
    prepared_queries: PreparedQueries,
    /// Autopilot's configuration.
    autopilot_config: AutopilotConfigs,
    /// ACL tokens.
    acl_tokens: AclTokens,
    /// ACL policies.
    acl_policies: AclPolicies,
    /// ACL roles.
    acl_roles: AclRoles,
    /// Facts about the cluster.
    system_metadata: SystemMetadatas,
    /// Counts.
    usage: Usages,
}

impl Tables {
    /// The greatest of the modify indexes of these tables; 0 where nothing ever changed.
    pub fn max_index(&self, names: &[&str]) -> Index {
        names
            .iter()
            .filter_map(|name| self.indexes.get(name.as_bytes()))
            .map(IndexRow::index)
            .max()
            .unwrap_or_default()
    }
}

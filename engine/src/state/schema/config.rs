//! Configuration entries, prepared queries, and autopilot's configuration.

use super::{SOME, UNIQUE, UNIQUE_PREFIX};
use crate::state::{
    index::{Attributes, DeclaredIndex, Field, FunctionalIndex, Write},
    records::{AutopilotConfig, ConfigEntry, PreparedQuery, RecordRow},
};

record_table! {
    /// Configuration entries. Consul: `config-entries`.
    ConfigEntries: ConfigEntry = 11 "config-entries", by CONFIG_ENTRIES_ID, and []
}

/// `config-entries.id`: kind and name; by prefix for all of a kind.
pub const CONFIG_ENTRIES_ID: DeclaredIndex<RecordRow<ConfigEntry>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    fields: &[
        Field::Lower(|entry| &entry.kind),
        Field::Lower(|entry| &entry.name),
    ],
};

record_table! {
    /// Prepared queries. Consul: `prepared-queries`.
    PreparedQueries: PreparedQuery = 12 "prepared-queries", by PREPARED_QUERIES_ID, and [PREPARED_QUERIES_NAME, PREPARED_QUERIES_TEMPLATE, PREPARED_QUERIES_SESSION]
}

const UNIQUE_OR_MISSING: Attributes = Attributes {
    allow_missing: true,
    ..UNIQUE
};

/// `prepared-queries.id`: the id.
pub const PREPARED_QUERIES_ID: DeclaredIndex<RecordRow<PreparedQuery>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    fields: &[Field::UuidText(|query| &query.id)],
};

/// `prepared-queries.name`: the name, if it has one.
pub const PREPARED_QUERIES_NAME: DeclaredIndex<RecordRow<PreparedQuery>> = DeclaredIndex {
    name: "name",
    attributes: UNIQUE_OR_MISSING,
    fields: &[Field::Lower(|query| &query.name)],
};

/// `prepared-queries.template`: the beginning of names that a template stands for; may be empty,
/// for all names. To find the template of a name, ask for the name, and then for ever less of it.
pub const PREPARED_QUERIES_TEMPLATE: FunctionalIndex<RecordRow<PreparedQuery>, str> =
    FunctionalIndex {
        name: "template",
        attributes: UNIQUE_OR_MISSING,
        read: |name, key| {
            key.raw(&[0]).lower_prefix(name);
        },
        write: Write::One(|query, key| {
            query.is_template()
                && !key
                    .raw(&[0])
                    .lower_prefix(&query.name)
                    .as_bytes()
                    .is_empty()
        }),
        prefix: None,
    };

/// `prepared-queries.session`: the session it dies with, if there is one.
pub const PREPARED_QUERIES_SESSION: DeclaredIndex<RecordRow<PreparedQuery>> = DeclaredIndex {
    name: "session",
    attributes: SOME,
    fields: &[Field::UuidText(|query| &query.session)],
};

record_table! {
    /// Autopilot's configuration: at most one row. Consul: `autopilot-config`.
    AutopilotConfigs: AutopilotConfig = 13 "autopilot-config", by AUTOPILOT_CONFIG_ID, and []
}

/// `autopilot-config.id`: always the same, so that there is one row.
pub const AUTOPILOT_CONFIG_ID: DeclaredIndex<RecordRow<AutopilotConfig>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_OR_MISSING,
    fields: &[Field::Condition(|_| true)],
};

//! Facts about the cluster, and counts.

use super::UNIQUE_PREFIX;
use crate::state::{
    index::{DeclaredIndex, Field},
    records::{RecordRow, SystemMetadata, Usage},
};

record_table! {
    /// Facts about the cluster. Consul: `system-metadata`.
    SystemMetadatas: SystemMetadata = 17 "system-metadata", by SYSTEM_METADATA_ID, and []
}

/// `system-metadata.id`: its name.
pub const SYSTEM_METADATA_ID: DeclaredIndex<RecordRow<SystemMetadata>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    fields: &[Field::Lower(|fact| &fact.key)],
};

record_table! {
    /// Counts. Consul: `usage`.
    Usages: Usage = 18 "usage", by USAGE_ID, and []
}

/// `usage.id`: what is counted.
pub const USAGE_ID: DeclaredIndex<RecordRow<Usage>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    fields: &[Field::Lower(|usage| &usage.id)],
};

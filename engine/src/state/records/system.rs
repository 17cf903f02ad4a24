//! What does the state know of itself?

use serde::{Deserialize, Serialize};
use wire::Index;

use super::Record;
use crate::state::index::Key;

/// A fact about the cluster. Consul: `structs.SystemMetadataEntry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct SystemMetadata {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Index of the command that made it.
    pub create_index: u64,
    /// Index of the last command that changed it.
    pub modify_index: u64,
}

impl Record for SystemMetadata {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.key);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

/// How many of something there are. Consul: `state.UsageEntry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Usage {
    /// Of what: a table's name, `service-names`, `config-entries-<kind>`, ….
    #[serde(rename = "ID")]
    pub id: String,
    /// Index of the last command that changed the count.
    pub index: u64,
    /// How many.
    pub count: u64,
}

impl Record for Usage {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.id);
    }
    fn modify_index(&self) -> Index {
        Index(self.index)
    }
}

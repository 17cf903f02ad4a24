//! What configuration does the cluster itself hold?

use serde::{Deserialize, Serialize};
use wire::Index;

use super::{JsonText, Record};
use crate::state::index::Key;

/// A configuration entry: stored and served, not understood. Consul: `structs.ConfigEntry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct ConfigEntry {
    /// What it configures: `service-defaults`, `proxy-defaults`, ….
    pub kind: String,
    /// Its name within the kind.
    pub name: String,
    /// All of it as JSON, without the indexes.
    pub body: JsonText,
    /// Index of the command that made it.
    pub create_index: u64,
    /// Index of the last command that changed it.
    pub modify_index: u64,
}

impl Record for ConfigEntry {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.kind).lower(&self.name);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

/// Whether a prepared query stands for all names that begin as its own. Consul:
/// `structs.QueryTemplateOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct QueryTemplate {
    /// `name_prefix_match`, or empty for no template.
    #[serde(rename = "Type")]
    pub kind: String,
}

/// A stored query for a service. Consul: `structs.PreparedQuery`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct PreparedQuery {
    /// UUID as text.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name to execute it by; may be empty.
    pub name: String,
    /// The session it dies with; empty for none.
    pub session: String,
    /// Whether it is a template.
    pub template: QueryTemplate,
    /// All of it as JSON, without the indexes.
    pub body: JsonText,
    /// Index of the command that made it.
    pub create_index: u64,
    /// Index of the last command that changed it.
    pub modify_index: u64,
}

impl PreparedQuery {
    /// Whether it stands for all names that begin as its own.
    pub fn is_template(&self) -> bool {
        !self.template.kind.is_empty()
    }
}

impl Record for PreparedQuery {
    fn primary_key(&self, key: &mut Key) {
        super::super::schema::uuid_key(&self.id, key);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

/// How the cluster looks after its servers; one row. Consul: `structs.AutopilotConfig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct AutopilotConfig {
    /// Whether servers that are gone are removed.
    pub cleanup_dead_servers: bool,
    /// How long ago a healthy server was in contact with the leader at most, ns.
    pub last_contact_threshold: u64,
    /// How many entries a healthy server is behind at most.
    pub max_trailing_logs: u64,
    /// How many servers are left at least by removals; 0 for no minimum.
    pub min_quorum: u64,
    /// For how long a server must be healthy before it votes, ns.
    pub server_stabilization_time: u64,
    /// Key of the node meta that names a server's redundancy zone; empty for none.
    pub redundancy_zone_tag: String,
    /// Whether servers of a new version are promoted at once.
    pub disable_upgrade_migration: bool,
    /// Key of the node meta that names a server's version; empty for the build's.
    pub upgrade_version_tag: String,
    /// Index of the command that made it.
    pub create_index: u64,
    /// Index of the last command that changed it.
    pub modify_index: u64,
}

impl Default for AutopilotConfig {
    /// Consul's.
    fn default() -> Self {
        Self {
            cleanup_dead_servers: true,
            last_contact_threshold: 200_000_000,
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_time: 10_000_000_000,
            redundancy_zone_tag: String::new(),
            disable_upgrade_migration: false,
            upgrade_version_tag: String::new(),
            create_index: 0,
            modify_index: 0,
        }
    }
}

impl AutopilotConfig {
    /// Primary key of the one row.
    pub const KEY: &'static [u8] = &[1];
}

impl Record for AutopilotConfig {
    fn primary_key(&self, key: &mut Key) {
        key.flag(true);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

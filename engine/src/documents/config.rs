//! What do Consul's endpoints for config entries answer?
//!
//! An entry is shown as it was written, with its indexes. The answer's index is the table's; a
//! blocking query wakes for its own entry, or for those of its kind.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wire::Index;

use super::{Subject, json};
use crate::{
    fsm::config,
    state::{
        Tables,
        index::Arg,
        records::ConfigEntry,
        schema::{CONFIG_ENTRIES_ID, ConfigEntries},
        table::TableDef,
    },
};

/// A question about config entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigQuestion {
    /// One: `GET /v1/config/<kind>/<name>`. `null` where there is none.
    Get {
        /// The kind.
        kind: String,
        /// The name.
        name: String,
    },
    /// All of a kind: `GET /v1/config/<kind>`.
    List {
        /// The kind.
        kind: String,
    },
}

impl ConfigQuestion {
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Get { kind, name } => of_entry(kind, name),
            Self::List { kind } => of_kind(kind),
        }
    }

    pub(super) fn index(&self, tables: &Tables) -> Index {
        tables.max_index(&[ConfigEntries::NAME])
    }

    pub(super) fn answer(&self, tables: &Tables) -> Vec<u8> {
        match self {
            Self::Get { kind, name } => {
                json(&config::get(tables, kind, name).map(|row| shown(row)))
            }
            Self::List { kind } => {
                let mut found = Vec::new();
                let query: &[Arg<'_>] = &[Arg::Text(kind)];
                let all = tables
                    .config_entries
                    .find_prefix(&CONFIG_ENTRIES_ID, query, |entry| {
                        // By prefix, "a" finds the kind "ab" too.
                        if entry.kind.eq_ignore_ascii_case(kind) {
                            found.push(shown(entry));
                        }
                        true
                    });
                all.expect("the query fits its index");
                json(&found)
            }
        }
    }
}

fn shown(entry: &ConfigEntry) -> Value {
    let body = serde_json::from_str(entry.body.as_str());
    let mut shown: Map<String, Value> = body.unwrap_or_default();
    shown.insert("CreateIndex".to_owned(), entry.create_index.into());
    shown.insert("ModifyIndex".to_owned(), entry.modify_index.into());
    Value::Object(shown)
}

/// The subjects of an entry that came, went or changed.
pub(super) fn touched(entry: &ConfigEntry, each: &mut dyn FnMut(Subject)) {
    each(of_entry(&entry.kind, &entry.name));
    each(of_kind(&entry.kind));
}

fn of_entry(kind: &str, name: &str) -> Subject {
    Subject::named(ConfigEntries::ID, &format!("entry/{kind}/{name}"))
}

fn of_kind(kind: &str) -> Subject {
    Subject::named(ConfigEntries::ID, &format!("kind/{kind}"))
}

//! A key as the API writes it, and as Go programs expect it from `curia watch`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::CliError;

/// A row of the KV table. Written again, its fields come in the order of Go's `api.KVPair`, and an
/// absent session is an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in super::super) struct Row {
    pub(in super::super) key: String,
    pub(in super::super) create_index: u64,
    pub(in super::super) modify_index: u64,
    pub(in super::super) lock_index: u64,
    pub(in super::super) flags: u64,
    /// Base64; empty for an empty value.
    #[serde(deserialize_with = "or_empty", serialize_with = "or_null")]
    pub(in super::super) value: String,
    #[serde(default)]
    pub(in super::super) session: String,
}

/// An empty value is `null` on the wire.
fn or_empty<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn or_null<S: serde::Serializer>(value: &str, to: S) -> Result<S::Ok, S::Error> {
    (!value.is_empty()).then_some(value).serialize(to)
}

impl Row {
    /// The value's bytes.
    pub(in super::super) fn bytes(&self) -> Result<Vec<u8>, CliError> {
        STANDARD
            .decode(&self.value)
            .map_err(|error| CliError(format!("Error! the server's value is not Base64: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_as_go_writes_it() {
        let row: Row = serde_json::from_str(
            r#"{"LockIndex":1,"Key":"a","Flags":2,"Value":null,"CreateIndex":3,"ModifyIndex":4}"#,
        )
        .unwrap();
        assert_eq!(
            serde_json::to_string(&row).unwrap(),
            r#"{"Key":"a","CreateIndex":3,"ModifyIndex":4,"LockIndex":1,"Flags":2,"Value":null,"Session":""}"#
        );
    }
}

//! `curia kv export`: keys as a JSON document that `curia kv import` and Consul's read.
//!
//! The document is an array of entries, indented with tabs, in key order. Indexes and sessions
//! belong to the cluster and stay behind.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        CliError,
        client::{Client, kv_path},
        flags::ClientFlags,
        output::write_out,
    },
    Row, fail, key_of,
};

/// Prints the keys below a prefix as JSON, for `curia kv import`.
///
///   curia kv export app/ > app.json
///   curia kv export                           (all keys)
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct KvExport {
    /// What keys start with [default: all keys]
    #[arg(value_name = "PREFIX")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// One key of an exported document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Entry {
    pub(super) key: String,
    #[serde(default)]
    pub(super) flags: u64,
    /// Base64.
    #[serde(default)]
    pub(super) value: String,
}

pub(super) fn run(flags: &KvExport) -> Result<(), CliError> {
    if let n @ 2.. = flags.args.len() {
        return fail(format!(
            "Too many arguments (expected 1, got {n}); flags come before PREFIX"
        ));
    }
    let querying = |CliError(why)| CliError(format!("Error querying curia agent: {why}"));
    let reply = Client::new(&flags.client)?
        .get(&kv_path(&key_of(&flags.args)), &["recurse".into()])
        .map_err(querying)?;
    let rows: Vec<Row> = match reply.status {
        404 => Vec::new(),
        _ => reply.json().map_err(querying)?,
    };
    let entries: Vec<Entry> = rows
        .into_iter()
        .map(|row| Entry {
            key: row.key,
            flags: row.flags,
            value: row.value,
        })
        .collect();
    write_out(&document(&entries)?)
}

pub(super) fn document(entries: &[Entry]) -> Result<Vec<u8>, CliError> {
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, format);
    entries
        .serialize(&mut serializer)
        .map_err(|error| CliError(format!("Error! cannot write the document: {error}")))?;
    out.push(b'\n');
    Ok(out)
}

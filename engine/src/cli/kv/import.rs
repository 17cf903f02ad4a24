//! `curia kv import`: writes the keys of a document that `curia kv export` or Consul's has printed.
//!
//! Consul's sends one write per key. Here up to [`BATCH_OPS_MAX`] keys travel in one transaction,
//! which is one entry of the log, so a million keys take minutes instead of hours. Within a batch
//! all keys are written or none; an import that fails says which keys it was at, and can be run
//! again, for it writes the same values.

use std::io::IsTerminal;

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    super::{
        CliError,
        client::{Client, kv_path},
        flags::ClientFlags,
        output::say,
    },
    export::Entry,
    fail, read_data,
};

/// Keys in one transaction: what the oldest servers in use take.
const BATCH_OPS_MAX: usize = 64;
/// Value bytes, in Base64, in one transaction: with their keys and names half of the 512 KiB that a
/// server takes by default.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Writes the keys of a document that `curia kv export` has printed.
///
///   curia kv import @app.json
///   curia kv export app/ | curia kv import -http-addr=other:8500 -
///   curia kv import -prefix=copy @app.json
///   curia kv import '[{"key": "app/colour", "flags": 0, "value": "Ymx1ZQ=="}]'
///
/// Existing keys are overwritten; others stay as they are.
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct KvImport {
    /// Path to put before each key
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,
    /// The document: text, @FILE, or - for standard input
    #[arg(value_name = "DATA")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(flags: &KvImport) -> Result<(), CliError> {
    let data = match &flags.args[..] {
        [] => return fail("Missing DATA argument"),
        [data] if data.is_empty() => return fail("Empty DATA argument"),
        [data] => read_data(data)?,
        args => {
            return fail(format!(
                "Too many arguments (expected 1, got {}); flags come before DATA",
                args.len()
            ));
        }
    };
    let entries = entries(&data, &flags.prefix)?;
    let client = Client::new(&flags.client)?;
    let bar = progress(entries.len());
    for batch in batches(&entries) {
        write(&client, batch)?;
        let lines: Vec<String> = batch
            .iter()
            .map(|entry| format!("Imported: {}", entry.key))
            .collect();
        bar.suspend(|| say(lines.join("\n")))?;
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Reads a document and checks all of it, before any of it is written.
fn entries(document: &[u8], prefix: &str) -> Result<Vec<Entry>, CliError> {
    let mut entries: Vec<Entry> = serde_json::from_slice(document)
        .map_err(|error| CliError(format!("Error! Cannot unmarshal data: {error}")))?;
    let prefix = prefix.strip_prefix('/').unwrap_or(prefix);
    for entry in &mut entries {
        if let Err(error) = STANDARD.decode(&entry.value) {
            return fail(format!(
                "base64 decoding value for key {}: {error}",
                entry.key
            ));
        }
        if !prefix.is_empty() {
            entry.key = format!("{}/{}", prefix.trim_end_matches('/'), entry.key);
        }
        if entry.key.is_empty() {
            return fail("an entry of the document has no key");
        }
    }
    Ok(entries)
}

/// Runs of entries that fit into a transaction. One that is too large for that stands alone.
fn batches(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, entry) in entries.iter().enumerate() {
        let size = entry.value.len() + entry.key.len();
        if at > start && (at - start == BATCH_OPS_MAX || bytes + size > BATCH_BYTES_MAX) {
            batches.push(&entries[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < entries.len() {
        batches.push(&entries[start..]);
    }
    batches
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Set<'a> {
    verb: &'static str,
    key: &'a str,
    flags: u64,
    value: &'a str,
}

#[derive(Serialize)]
struct Op<'a> {
    #[serde(rename = "KV")]
    kv: Set<'a>,
}

fn write(client: &Client, batch: &[Entry]) -> Result<(), CliError> {
    let [first, .., last] = batch else {
        return batch.iter().try_for_each(|entry| write_one(client, entry));
    };
    let ops: Vec<Op<'_>> = batch
        .iter()
        .map(|entry| Op {
            kv: Set {
                verb: "set",
                key: &entry.key,
                flags: entry.flags,
                value: &entry.value,
            },
        })
        .collect();
    let failed = |CliError(why): CliError| {
        CliError(format!(
            "Error! Failed writing data for keys {} to {}: {why}",
            first.key, last.key
        ))
    };
    let body = serde_json::to_vec(&ops)
        .map_err(|error| failed(CliError(format!("cannot encode them: {error}"))))?;
    let reply = client.put("/v1/txn", &[], &body).map_err(failed)?;
    match reply.status {
        // A server with tighter limits for transactions still takes key by key.
        413 => batch.iter().try_for_each(|entry| write_one(client, entry)),
        _ => reply.success().map(drop).map_err(failed),
    }
}

fn write_one(client: &Client, entry: &Entry) -> Result<(), CliError> {
    let failed = |CliError(why)| {
        CliError(format!(
            "Error! Failed writing data for key {}: {why}",
            entry.key
        ))
    };
    let value = STANDARD
        .decode(&entry.value)
        .map_err(|error| failed(CliError(error.to_string())))?;
    let query = match entry.flags {
        0 => Vec::new(),
        flags => vec![format!("flags={flags}")],
    };
    let reply = client.put(&kv_path(&entry.key), &query, &value);
    reply.and_then(|reply| reply.success()).map_err(failed)?;
    Ok(())
}

/// A bar on standard error, if someone watches.
fn progress(keys: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() || keys <= BATCH_OPS_MAX {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(keys as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} keys, {eta} left") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::export::document, *};

    fn entry(key: String, flags: u64, value: &[u8]) -> Entry {
        Entry {
            key,
            flags,
            value: STANDARD.encode(value),
        }
    }

    fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
        let value = prop::collection::vec(any::<u8>(), 0..64);
        let entry = ("[ -~\u{e9}/]{1,12}", any::<u64>(), value)
            .prop_map(|(key, flags, value)| entry(key, flags, &value));
        prop::collection::vec(entry, 0..300)
    }

    proptest! {
        #[test]
        fn what_was_exported_is_imported(exported in any_entries()) {
            let text = document(&exported).unwrap();
            prop_assert_eq!(entries(&text, "").unwrap(), exported);
        }

        #[test]
        fn batches_keep_order_and_limits(
            sizes in prop::collection::vec(prop_oneof![0..64usize, 0..BATCH_BYTES_MAX * 2], 0..200),
        ) {
            let entries: Vec<Entry> = sizes
                .iter()
                .map(|size| Entry { key: "k".into(), flags: 0, value: "A".repeat(*size) })
                .collect();
            let batches = batches(&entries);
            prop_assert_eq!(batches.concat(), entries.clone());
            for batch in batches {
                let bytes: usize = batch.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
                prop_assert!(!batch.is_empty() && batch.len() <= BATCH_OPS_MAX);
                prop_assert!(bytes <= BATCH_BYTES_MAX || batch.len() == 1);
            }
        }
    }

    #[test]
    fn prefixes_are_joined_with_one_slash() {
        let text = br#"[{"key":"dir/","flags":0,"value":""}]"#;
        for (prefix, key) in [("", "dir/"), ("a", "a/dir/"), ("/a/", "a/dir/")] {
            assert_eq!(entries(text, prefix).unwrap()[0].key, key);
        }
    }

    #[test]
    fn mistakes_are_found_before_anything_is_written() {
        for (text, error) in [
            ("{", "Error! Cannot unmarshal data"),
            (
                r#"[{"key":"a","value":"!"}]"#,
                "Error! base64 decoding value for key a",
            ),
            (
                r#"[{"key":"","value":""}]"#,
                "Error! an entry of the document has no key",
            ),
        ] {
            let CliError(told) = entries(text.as_bytes(), "").unwrap_err();
            assert!(told.starts_with(error), "{told}");
        }
    }
}

//! `curia kv put`: writes a key, by itself, if it has not changed, or as a lock.

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;

use super::{
    super::{
        CliError,
        client::{Client, kv_path, pair},
        flags::ClientFlags,
    },
    fail, key_of, number, read_data, tell,
};

/// Writes a key.
///
///   curia kv put app/colour blue
///   curia kv put app/config @config.json      (from a file; `-` for standard input)
///   curia kv put -cas -modify-index=42 app/colour green
///   curia kv put -acquire -session=ID app/leader me
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct KvPut {
    /// The data is Base64 and is written decoded
    #[arg(long)]
    base64: bool,
    /// Writes only if the key's modify index is -modify-index (0: only if there is no such key)
    #[arg(long)]
    cas: bool,
    /// See -cas
    #[arg(long, value_name = "INDEX", default_value = "0")]
    modify_index: String,
    /// Number to store with the key, yours to interpret
    #[arg(long, value_name = "N", default_value = "0")]
    flags: String,
    /// Acquires the key as a lock for -session
    #[arg(long)]
    acquire: bool,
    /// Releases the lock that -session holds on the key
    #[arg(long)]
    release: bool,
    /// Id of the session for -acquire and -release
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// The key and the data: text, @FILE, or - for standard input
    #[arg(value_name = "KEY [DATA]", allow_hyphen_values = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(flags: &KvPut) -> Result<(), CliError> {
    let data = match &flags.args[..] {
        [] => return fail("Missing KEY argument"),
        [_] => Vec::new(),
        [_, data] => read_data(data)?,
        args => {
            return fail(format!(
                "Too many arguments (expected 1 or 2, got {})",
                args.len()
            ));
        }
    };
    let key = key_of(&flags.args);
    if key.is_empty() {
        return fail("Missing KEY argument");
    }
    let data = match flags.base64 {
        false => data,
        true => STANDARD
            .decode(data.trim_ascii())
            .map_err(|error| CliError(format!("Error! Cannot base64 decode data: {error}")))?,
    };
    let session = flags.session.as_deref().unwrap_or_default();
    if (flags.acquire || flags.release) && session.is_empty() {
        return fail("Missing -session (required with -acquire and -release)");
    }
    if [flags.cas, flags.acquire, flags.release]
        .iter()
        .filter(|given| **given)
        .count()
        > 1
    {
        return fail("Cannot specify more than one of -cas, -acquire and -release");
    }
    let index = number("-modify-index", &flags.modify_index)?;
    if index != 0 && !flags.cas {
        return fail("Cannot specify -modify-index without -cas");
    }
    let mut query = Vec::new();
    match number("-flags", &flags.flags)? {
        0 => {}
        flags => query.push(format!("flags={flags}")),
    }
    let (did, did_not) = if flags.cas {
        query.push(format!("cas={index}"));
        (
            format!("Data written to: {key}"),
            format!("Did not write to {key}: CAS failed"),
        )
    } else if flags.acquire {
        query.push(pair("acquire", session));
        (
            format!("Lock acquired on: {key}"),
            "Did not acquire lock".into(),
        )
    } else if flags.release {
        query.push(pair("release", session));
        (
            format!("Lock released on: {key}"),
            "Did not release lock".into(),
        )
    } else {
        (
            format!("Data written to: {key}"),
            "Failed writing data".into(),
        )
    };
    let written = Client::new(&flags.client)?
        .put(&kv_path(&key), &query, &data)
        .and_then(|reply| reply.took_effect())
        .map_err(|CliError(why)| CliError(format!("Error! Failed writing data: {why}")))?;
    tell(written, &did, did_not)
}

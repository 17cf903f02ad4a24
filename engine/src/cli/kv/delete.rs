//! `curia kv delete`: deletes a key, or those below a prefix.

use clap::Args;

use super::{
    super::{
        CliError,
        client::{Client, kv_path},
        flags::ClientFlags,
    },
    fail, key_of, number, tell,
};

/// Deletes a key, or the keys below a prefix.
///
///   curia kv delete app/colour
///   curia kv delete -cas -modify-index=42 app/colour
///   curia kv delete -recurse app/
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct KvDelete {
    /// Deletes only if the key's modify index is -modify-index
    #[arg(long)]
    cas: bool,
    /// See -cas
    #[arg(long, value_name = "INDEX")]
    modify_index: Option<String>,
    /// Deletes all keys that start with KEY
    #[arg(long)]
    recurse: bool,
    /// The key, or with -recurse the prefix
    #[arg(value_name = "KEY")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(flags: &KvDelete) -> Result<(), CliError> {
    match flags.args.len() {
        0 => return fail("Missing KEY argument"),
        1 => {}
        n => {
            return fail(format!(
                "Too many arguments (expected 1, got {n}); flags come before KEY"
            ));
        }
    }
    let key = key_of(&flags.args);
    // An empty prefix is all keys: only for one who asks for exactly that.
    if key.is_empty() && !flags.recurse {
        return fail("Missing KEY argument");
    }
    if flags.cas && flags.recurse {
        return fail("Cannot specify both -cas and -recurse");
    }
    let index = match (&flags.modify_index, flags.cas) {
        (None, true) => return fail("Must specify -modify-index with -cas"),
        (Some(_), false) => return fail("Cannot specify -modify-index without -cas"),
        (None, false) => 0,
        (Some(text), true) => number("-modify-index", text)?,
    };
    let (query, did, did_not) = if flags.recurse {
        (
            vec!["recurse".into()],
            format!("Deleted keys with prefix: {key}"),
            format!("Did not delete prefix {key}"),
        )
    } else if flags.cas {
        let did_not = format!("Did not delete key {key}: CAS failed");
        (
            vec![format!("cas={index}")],
            format!("Deleted key: {key}"),
            did_not,
        )
    } else {
        (
            Vec::new(),
            format!("Deleted key: {key}"),
            format!("Did not delete key {key}"),
        )
    };
    let what = if flags.recurse { "prefix" } else { "key" };
    let deleted = Client::new(&flags.client)?
        .delete(&kv_path(&key), &query)
        .and_then(|reply| reply.took_effect())
        .map_err(|CliError(why)| CliError(format!("Error! Did not delete {what} {key}: {why}")))?;
    tell(deleted, &did, did_not)
}

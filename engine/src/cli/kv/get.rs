//! `curia kv get`: one key, or those below a prefix.

use clap::Args;

use super::{
    super::{
        CliError,
        client::{Client, kv_path, pair},
        flags::ClientFlags,
        output::write_out,
    },
    Row, fail, key_of,
};

/// Reads a key, or the keys below a prefix.
///
///   curia kv get app/colour
///   curia kv get -detailed app/colour
///   curia kv get -recurse app/
///   curia kv get -keys -separator=/ app/
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct KvGet {
    /// Prints the value in Base64
    #[arg(long)]
    base64: bool,
    /// Prints indexes, flags and session as well
    #[arg(long)]
    detailed: bool,
    /// Prints the names of the keys that start with KEY
    #[arg(long)]
    keys: bool,
    /// Prints all keys that start with KEY
    #[arg(long)]
    recurse: bool,
    /// With -keys: cuts names after the first separator behind KEY
    #[arg(long, value_name = "TEXT", default_value = "/")]
    separator: String,
    /// The key, or with -keys and -recurse the prefix
    #[arg(value_name = "KEY")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(flags: &KvGet) -> Result<(), CliError> {
    let many = flags.keys || flags.recurse;
    match flags.args.len() {
        0 if !many => return fail("Missing KEY argument"),
        0 | 1 => {}
        n => {
            return fail(format!(
                "Too many arguments (expected 1, got {n}); flags come before KEY"
            ));
        }
    }
    let key = key_of(&flags.args);
    if key.is_empty() && !many {
        return fail("Missing KEY argument");
    }
    let client = Client::new(&flags.client)?;
    let query = if flags.keys {
        vec!["keys".into(), pair("separator", &flags.separator)]
    } else if flags.recurse {
        vec!["recurse".into()]
    } else {
        Vec::new()
    };
    let querying = |CliError(why)| CliError(format!("Error querying curia agent: {why}"));
    let reply = client.get(&kv_path(&key), &query).map_err(querying)?;
    if reply.status == 404 {
        return match many {
            true => Ok(()),
            false => fail(format!("No key exists at: {key}")),
        };
    }
    let mut out = Vec::new();
    if flags.keys {
        for key in reply.json::<Vec<String>>().map_err(querying)? {
            out.extend_from_slice(key.as_bytes());
            out.push(b'\n');
        }
    } else {
        let rows: Vec<Row> = reply.json().map_err(querying)?;
        print_rows(flags, &rows, &mut out)?;
    }
    write_out(&out)
}

fn print_rows(flags: &KvGet, rows: &[Row], out: &mut Vec<u8>) -> Result<(), CliError> {
    for (at, row) in rows.iter().enumerate() {
        if flags.detailed {
            if at > 0 {
                out.push(b'\n');
            }
            detailed(row, flags.base64, out)?;
            continue;
        }
        if flags.recurse {
            out.extend_from_slice(row.key.as_bytes());
            out.push(b':');
        }
        out.extend_from_slice(&shown(row, flags.base64)?);
        out.push(b'\n');
    }
    Ok(())
}

/// What is printed of the value: the bytes, or Base64 of them.
fn shown(row: &Row, base64: bool) -> Result<Vec<u8>, CliError> {
    match base64 {
        true => Ok(row.value.clone().into_bytes()),
        false => row.bytes(),
    }
}

fn detailed(row: &Row, base64: bool, out: &mut Vec<u8>) -> Result<(), CliError> {
    let session = match &*row.session {
        "" => "-",
        session => session,
    };
    let text = format!(
        "CreateIndex      {}\nFlags            {}\nKey              {}\nLockIndex        {}\n\
         ModifyIndex      {}\nSession          {session}\nValue            ",
        row.create_index, row.flags, row.key, row.lock_index, row.modify_index,
    );
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&shown(row, base64)?);
    out.push(b'\n');
    Ok(())
}

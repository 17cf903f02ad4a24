//! `curia kv get|put|delete`: outputs and errors are Consul's, word for word.

use std::{
    fs,
    io::{self, Read, Write},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{
    CliError,
    client::{Client, kv_path, pair},
    flags::{KvDelete, KvGet, KvPut},
};

fn fail<T>(text: impl Into<String>) -> Result<T, CliError> {
    Err(CliError(format!("Error! {}", text.into())))
}

/// A row as the API writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    lock_index: u64,
    key: String,
    flags: u64,
    value: Option<String>,
    session: Option<String>,
    create_index: u64,
    modify_index: u64,
}

impl Row {
    fn value(&self) -> Result<Vec<u8>, CliError> {
        STANDARD
            .decode(self.value.as_deref().unwrap_or_default())
            .map_err(|error| CliError(format!("Error! the server's value is not Base64: {error}")))
    }

    /// What is printed of the value: the bytes, or Base64 of them.
    fn shown(&self, base64: bool) -> Result<Vec<u8>, CliError> {
        match base64 {
            true => Ok(self.value.clone().unwrap_or_default().into_bytes()),
            false => self.value(),
        }
    }

    fn detailed(&self, base64: bool, out: &mut Vec<u8>) -> Result<(), CliError> {
        let session = self
            .session
            .as_deref()
            .filter(|session| !session.is_empty())
            .unwrap_or("-");
        let text = format!(
            "CreateIndex      {}\nFlags            {}\nKey              {}\nLockIndex        {}\n\
             ModifyIndex      {}\nSession          {session}\nValue            ",
            self.create_index, self.flags, self.key, self.lock_index, self.modify_index,
        );
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(&self.shown(base64)?);
        out.push(b'\n');
        Ok(())
    }
}

/// Keys cannot start with a slash, but people write one.
fn key_of(args: &[String]) -> String {
    let key = args.first().map(String::as_str).unwrap_or_default();
    key.strip_prefix('/').unwrap_or(key).to_string()
}

pub(super) fn get(flags: KvGet) -> Result<(), CliError> {
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
    let body = reply.success().map_err(querying)?;
    let unreadable = |error| {
        CliError(format!(
            "Error! the server's answer is not as expected: {error}"
        ))
    };
    let mut out = Vec::new();
    if flags.keys {
        let keys: Vec<String> = serde_json::from_slice(&body).map_err(unreadable)?;
        for key in keys {
            out.extend_from_slice(key.as_bytes());
            out.push(b'\n');
        }
    } else {
        let rows: Vec<Row> = serde_json::from_slice(&body).map_err(unreadable)?;
        print_rows(&flags, &rows, &mut out)?;
    }
    write_out(&out)
}

fn print_rows(flags: &KvGet, rows: &[Row], out: &mut Vec<u8>) -> Result<(), CliError> {
    for (at, row) in rows.iter().enumerate() {
        if flags.detailed {
            if at > 0 {
                out.push(b'\n');
            }
            row.detailed(flags.base64, out)?;
            continue;
        }
        if flags.recurse {
            out.extend_from_slice(row.key.as_bytes());
            out.push(b':');
        }
        out.extend_from_slice(&row.shown(flags.base64)?);
        out.push(b'\n');
    }
    Ok(())
}

fn write_out(out: &[u8]) -> Result<(), CliError> {
    match io::stdout().lock().write_all(out) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|error| CliError(format!("Error! cannot write the output: {error}")))
        }
    }
}

pub(super) fn put(flags: KvPut) -> Result<(), CliError> {
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

fn tell(done: bool, did: &str, did_not: String) -> Result<(), CliError> {
    if !done {
        return fail(did_not);
    }
    println!("Success! {did}");
    Ok(())
}

fn number(flag: &str, text: &str) -> Result<u64, CliError> {
    text.parse()
        .or_else(|_| fail(format!("{flag}={text}: must be a whole number from 0")))
}

/// The data of a put: text, `@FILE`, or `-` for standard input.
fn read_data(data: &str) -> Result<Vec<u8>, CliError> {
    if let Some(path) = data.strip_prefix('@') {
        return fs::read(path)
            .or_else(|error| fail(format!("Failed to read file {path}: {error}")));
    }
    if data != "-" {
        return Ok(data.as_bytes().to_vec());
    }
    let mut read = Vec::new();
    match io::stdin().lock().read_to_end(&mut read) {
        Ok(_) => Ok(read),
        Err(error) => fail(format!("Failed to read stdin: {error}")),
    }
}

pub(super) fn delete(flags: KvDelete) -> Result<(), CliError> {
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

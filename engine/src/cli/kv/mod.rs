//! `curia kv …`: outputs and errors are Consul's, word for word.

mod delete;
mod export;
mod get;
mod import;
mod put;
mod row;

use std::{
    fs,
    io::{self, Read},
};

use clap::Subcommand;

pub(super) use row::Row;

use super::CliError;

#[derive(Debug, Subcommand)]
pub(super) enum KvCommand {
    Get(get::KvGet),
    Put(put::KvPut),
    Delete(delete::KvDelete),
    Export(export::KvExport),
    Import(import::KvImport),
}

pub(super) fn run(command: &KvCommand) -> Result<(), CliError> {
    match command {
        KvCommand::Get(flags) => get::run(flags),
        KvCommand::Put(flags) => put::run(flags),
        KvCommand::Delete(flags) => delete::run(flags),
        KvCommand::Export(flags) => export::run(flags),
        KvCommand::Import(flags) => import::run(flags),
    }
}

fn fail<T>(text: impl Into<String>) -> Result<T, CliError> {
    Err(CliError(format!("Error! {}", text.into())))
}

/// Keys cannot start with a slash, but people write one.
fn key_of(args: &[String]) -> String {
    let key = args.first().map(String::as_str).unwrap_or_default();
    key.strip_prefix('/').unwrap_or(key).to_string()
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

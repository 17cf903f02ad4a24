//! Definitions in files: JSON or HCL, whichever it is, from a path or standard input.

use std::{
    fs,
    io::{self, Read},
};

use serde_json::Value;

use super::{CliError, config};

/// Reads a file, or standard input for `-`.
pub(super) fn text(path: &str) -> Result<String, CliError> {
    if path != "-" {
        return fs::read_to_string(path)
            .map_err(|error| CliError(format!("Failed to read file {path}: {error}")));
    }
    let mut text = String::new();
    match io::stdin().lock().read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(CliError(format!("Failed to read stdin: {error}"))),
    }
}

/// Reads a document: JSON if it begins as an object of JSON does, otherwise HCL.
pub(super) fn parse(text: &str) -> Result<Value, CliError> {
    match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|error| CliError(format!("not JSON: {error}"))),
        false => config::parse_hcl(text).map_err(CliError),
    }
}

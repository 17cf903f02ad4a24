//! Reading what Go servers answer: `null` where there is nothing, and what to print without rows.

use serde::{Deserialize, Deserializer};

use super::CliError;

/// Reads `null` as what is empty.
pub(super) fn null_is_empty<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The only argument of a command, which is its `what`.
pub(super) fn only<'a>(args: &'a [String], what: &str) -> Result<&'a str, CliError> {
    match args {
        [only] if !only.is_empty() => Ok(only),
        [] | [_] => Err(CliError(format!("Error! Missing {what} argument"))),
        args => Err(CliError(format!(
            "Error! Too many arguments (expected 1, got {}); flags come before {what}",
            args.len()
        ))),
    }
}

/// Refuses arguments of a command that takes none.
pub(super) fn none(args: &[String]) -> Result<(), CliError> {
    match args {
        [] => Ok(()),
        [first, ..] => Err(CliError(format!(
            "Error! Too many arguments (expected 0, got {}, first {first:?})",
            args.len()
        ))),
    }
}

/// `key=value` of a flag, as a pair.
pub(super) fn key_value(flag: &str, text: &str) -> Result<(String, String), CliError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(CliError(format!("Error! {flag}={text}: give KEY=VALUE"))),
    }
}

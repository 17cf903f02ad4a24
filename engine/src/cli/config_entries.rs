//! `curia config`: reads and writes config entries, centrally kept settings of services.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    CliError,
    client::{Client, pair, path_of},
    document_file,
    flags::ClientFlags,
    output::{indented, say},
    rows::{none, only},
};

/// Reads and writes config entries.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    List(ConfigList),
    Read(ConfigRead),
    Write(ConfigWrite),
    Delete(ConfigDelete),
}

/// Lists the names of the entries of a kind.
///
///   curia config list -kind=service-defaults
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct ConfigList {
    /// Kind of the entries
    #[arg(
        long,
        value_name = "KIND",
        default_value = "",
        hide_default_value = true
    )]
    kind: String,
    /// Those that match an expression
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Prints an entry as JSON.
///
///   curia config read -kind=service-defaults -name=web
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct ConfigRead {
    /// Kind of the entry
    #[arg(
        long,
        value_name = "KIND",
        default_value = "",
        hide_default_value = true
    )]
    kind: String,
    /// Name of the entry
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Writes an entry from a file.
///
///   curia config write web.hcl
///   curia config write -cas -modify-index=42 web.json
///   echo '{"Kind":"proxy-defaults","Name":"global"}' | curia config write -
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct ConfigWrite {
    /// Writes only if the entry's modify index is -modify-index (0: only if there is none)
    #[arg(long)]
    cas: bool,
    /// See -cas
    #[arg(long, value_name = "INDEX", default_value = "0")]
    modify_index: u64,
    /// File in JSON or HCL; - for standard input
    #[arg(value_name = "FILE")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Deletes an entry.
///
///   curia config delete -kind=service-defaults -name=web
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct ConfigDelete {
    /// Kind of the entry
    #[arg(
        long,
        value_name = "KIND",
        default_value = "",
        hide_default_value = true
    )]
    kind: String,
    /// Name of the entry
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// Deletes only if the entry's modify index is -modify-index
    #[arg(long)]
    cas: bool,
    /// See -cas
    #[arg(long, value_name = "INDEX", default_value = "0")]
    modify_index: u64,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(command: &ConfigCommand) -> Result<(), CliError> {
    match command {
        ConfigCommand::List(flags) => list(flags),
        ConfigCommand::Read(flags) => read(flags),
        ConfigCommand::Write(flags) => write(flags),
        ConfigCommand::Delete(flags) => delete(flags),
    }
}

fn given(flag: &str, text: &str) -> Result<(), CliError> {
    match text {
        "" => Err(CliError(format!("Must specify the -{flag} parameter"))),
        _ => Ok(()),
    }
}

fn list(flags: &ConfigList) -> Result<(), CliError> {
    none(&flags.args)?;
    given("kind", &flags.kind)?;
    let query: Vec<String> = flags
        .filter
        .iter()
        .map(|text| pair("filter", text))
        .collect();
    let entries: Option<Vec<Value>> = Client::new(&flags.client)?
        .get(&path_of("/v1/config", &flags.kind), &query)
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| {
            CliError(format!(
                "Error listing config entries for kind {:?}: {why}",
                flags.kind
            ))
        })?;
    for entry in entries.unwrap_or_default() {
        say(entry["Name"].as_str().unwrap_or_default())?;
    }
    Ok(())
}

fn path(kind: &str, name: &str) -> String {
    path_of(&path_of("/v1/config", kind), name)
}

fn read(flags: &ConfigRead) -> Result<(), CliError> {
    none(&flags.args)?;
    given("kind", &flags.kind)?;
    given("name", &flags.name)?;
    let body = Client::new(&flags.client)?
        .get(&path(&flags.kind, &flags.name), &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| {
            CliError(format!(
                "Error reading config entry {}/{}: {why}",
                flags.kind, flags.name
            ))
        })?;
    say(indented(&String::from_utf8_lossy(&body), "    "))
}

/// Kind and name of an entry, whose spelling is made the API's.
fn identity(entry: &mut Value) -> Result<(String, String), CliError> {
    let Value::Object(fields) = entry else {
        return Err(CliError("the file holds no object".into()));
    };
    let mut take = |wanted: &str| -> String {
        let key = fields.keys().find(|key| key.eq_ignore_ascii_case(wanted));
        let Some(value) = key.cloned().and_then(|key| fields.remove(&key)) else {
            return String::new();
        };
        let text = value.as_str().unwrap_or_default().to_owned();
        fields.insert(wanted.into(), value);
        text
    };
    let (kind, name) = (take("Kind"), take("Name"));
    match kind.is_empty() {
        true => Err(CliError("the file has no Kind".into())),
        false => Ok((kind, name)),
    }
}

fn write(flags: &ConfigWrite) -> Result<(), CliError> {
    let failed =
        |CliError(why): CliError| CliError(format!("Failed to decode config entry input: {why}"));
    let file = only(&flags.args, "FILE")?;
    if flags.modify_index != 0 && !flags.cas {
        return Err(CliError("Cannot specify -modify-index without -cas".into()));
    }
    let text = document_file::text(file)?;
    let mut entry = document_file::parse(&text).map_err(failed)?;
    let (kind, name) = identity(&mut entry).map_err(failed)?;
    let query = match flags.cas {
        true => vec![format!("cas={}", flags.modify_index)],
        false => Vec::new(),
    };
    let written = Client::new(&flags.client)?
        .put("/v1/config", &query, entry.to_string().as_bytes())
        .and_then(|reply| reply.took_effect())
        .map_err(|CliError(why)| {
            CliError(format!("Error writing config entry {kind}/{name}: {why}"))
        })?;
    match written {
        true => say(format!("Config entry written: {kind}/{name}")),
        false => Err(CliError(format!("Config entry not updated: {kind}/{name}"))),
    }
}

fn delete(flags: &ConfigDelete) -> Result<(), CliError> {
    none(&flags.args)?;
    given("kind", &flags.kind)?;
    given("name", &flags.name)?;
    let query = match (flags.cas, flags.modify_index) {
        (true, 0) => {
            return Err(CliError(
                "Must specify a -modify-index greater than 0 with -cas".into(),
            ));
        }
        (false, 1..) => {
            return Err(CliError("Cannot specify -modify-index without -cas".into()));
        }
        (true, index) => vec![format!("cas={index}")],
        (false, 0) => Vec::new(),
    };
    let entry = format!("{}/{}", flags.kind, flags.name);
    let body = Client::new(&flags.client)?
        .delete(&path(&flags.kind, &flags.name), &query)
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error deleting config entry {entry}: {why}")))?;
    match flags.cas && body.trim_ascii() == b"false" {
        true => Err(CliError(format!("Config entry not deleted: {entry}"))),
        false => say(format!("Config entry deleted: {entry}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kind_and_name_are_found_in_any_case() {
        let mut entry = document_file::parse(
            "kind = \"service-defaults\"\nName = \"web\"\nProtocol = \"http\"\n",
        )
        .unwrap();
        assert_eq!(
            identity(&mut entry).unwrap(),
            ("service-defaults".into(), "web".into())
        );
        assert_eq!(
            entry,
            json!({ "Kind": "service-defaults", "Name": "web", "Protocol": "http" })
        );
        assert!(identity(&mut json!({ "Name": "x" })).is_err());
        assert!(identity(&mut json!([])).is_err());
    }
}

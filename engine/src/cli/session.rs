//! `curia session`: what Consul has no commands for, in the manner of those that it has.

use clap::{ArgAction, Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    CliError,
    client::{Client, path_of},
    flags::ClientFlags,
    output::{Format, columns, indented, say, write_out},
    rows::{none, null_is_empty, only},
};

/// Sessions, which hold locks: lists, makes, renews and ends them. Consul has no such command;
/// the names of flags are those of its API.
#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    List(SessionList),
    Info(SessionOne),
    Create(SessionCreate),
    Destroy(SessionOne),
    Renew(SessionOne),
}

/// Lists sessions.
///
///   curia session list
///   curia session list -node=s1 -format=json
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct SessionList {
    /// Those of one node only
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    format: Format,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Shows, ends or renews one session.
///
///   curia session info ID
///   curia session renew ID
///   curia session destroy ID                  (releases, or deletes, all that it holds)
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct SessionOne {
    #[command(flatten)]
    format: Format,
    /// Id of the session
    #[arg(value_name = "ID")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Makes a session and prints its id.
///
///   curia session create -name=deploy -ttl=30s
///   curia kv put -acquire -session="$(curia session create -ttl=1m)" app/leader me
///
/// A session with a TTL ends unless it is renewed in that time. One without ends when its
/// checks fail or its node goes.
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct SessionCreate {
    /// Name, for people
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Node that the session belongs to [default: that of the server asked]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Time after which the session may end if it was not renewed [default: none]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Time for which nobody gets what this session loses by ending unasked [default: 15s]
    #[arg(long, value_name = "DURATION")]
    lock_delay: Option<String>,
    /// What becomes of held keys: release or delete [default: release]
    #[arg(long, value_name = "BEHAVIOR")]
    behavior: Option<String>,
    /// Check of the node that must not be critical; `-node-check=` for none. Repeatable
    /// [default: serfHealth]
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    node_check: Vec<String>,
    /// Check of a service of the node that must not be critical. Repeatable.
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    service_check: Vec<String>,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Row {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    node: String,
    lock_delay: u64,
    behavior: String,
    #[serde(rename = "TTL")]
    ttl: String,
    #[serde(deserialize_with = "null_is_empty")]
    node_checks: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    service_checks: Vec<Value>,
    create_index: u64,
    modify_index: u64,
}

pub(super) fn run(command: &SessionCommand) -> Result<(), CliError> {
    match command {
        SessionCommand::List(flags) => list(flags),
        SessionCommand::Info(flags) => info(flags),
        SessionCommand::Create(flags) => create(flags),
        SessionCommand::Destroy(flags) => {
            let id = only(&flags.args, "ID")?;
            let failed = |CliError(why)| CliError(format!("Error destroying session: {why}"));
            let reply =
                Client::new(&flags.client)?.put(&path_of("/v1/session/destroy", id), &[], b"");
            reply.and_then(|reply| reply.success()).map_err(failed)?;
            say(format!("Session destroyed: {id}"))
        }
        SessionCommand::Renew(flags) => {
            let id = only(&flags.args, "ID")?;
            let failed = |CliError(why)| CliError(format!("Error renewing session: {why}"));
            let rows: Vec<Row> = Client::new(&flags.client)?
                .put(&path_of("/v1/session/renew", id), &[], b"")
                .and_then(|reply| reply.json())
                .map_err(failed)?;
            match rows.first() {
                Some(row) if !row.ttl.is_empty() => {
                    say(format!("Session renewed: {id} (TTL {})", row.ttl))
                }
                _ => say(format!("Session renewed: {id} (it has no TTL)")),
            }
        }
    }
}

fn list(flags: &SessionList) -> Result<(), CliError> {
    none(&flags.args)?;
    let path = match &flags.node {
        Some(node) => path_of("/v1/session/node", node),
        None => "/v1/session/list".into(),
    };
    let listing = |CliError(why)| CliError(format!("Error listing sessions: {why}"));
    let reply = Client::new(&flags.client)?
        .get(&path, &[])
        .map_err(listing)?;
    if flags.format.json()? {
        let body = reply.success().map_err(listing)?;
        return say(indented(&String::from_utf8_lossy(&body), "    "));
    }
    let rows: Vec<Row> = reply.json().map_err(listing)?;
    let heading = ["ID", "Name", "Node", "TTL", "Behavior"];
    let mut table = vec![heading.map(String::from).to_vec()];
    table.extend(rows.into_iter().map(|row| {
        let ttl = if row.ttl.is_empty() {
            "-".into()
        } else {
            row.ttl
        };
        vec![row.id, row.name, row.node, ttl, row.behavior]
    }));
    write_out(columns(&table).as_bytes())
}

fn info(flags: &SessionOne) -> Result<(), CliError> {
    let id = only(&flags.args, "ID")?;
    let reading = |CliError(why)| CliError(format!("Error reading session: {why}"));
    let reply = Client::new(&flags.client)?
        .get(&path_of("/v1/session/info", id), &[])
        .map_err(reading)?;
    let body = reply.success().map_err(reading)?;
    let rows: Vec<Row> = serde_json::from_slice::<Option<_>>(&body)
        .map_err(|error| reading(CliError(error.to_string())))?
        .unwrap_or_default();
    let Some(row) = rows.first() else {
        return Err(CliError(format!("Error! No session exists with id: {id}")));
    };
    if flags.format.json()? {
        return say(indented(&String::from_utf8_lossy(&body), "    "));
    }
    say(shown(row))
}

fn shown(row: &Row) -> String {
    let or_dash = |text: &str| match text {
        "" => "-".to_owned(),
        text => text.to_owned(),
    };
    let services: Vec<String> = row
        .service_checks
        .iter()
        .map(|check| check["ID"].as_str().unwrap_or_default().to_owned())
        .collect();
    [
        ("ID", row.id.clone()),
        ("Name", or_dash(&row.name)),
        ("Node", row.node.clone()),
        ("TTL", or_dash(&row.ttl)),
        (
            "LockDelay",
            crate::server::http::go_text::print_duration(
                i64::try_from(row.lock_delay).unwrap_or(i64::MAX),
            ),
        ),
        ("Behavior", row.behavior.clone()),
        ("NodeChecks", or_dash(&row.node_checks.join(", "))),
        ("ServiceChecks", or_dash(&services.join(", "))),
        ("CreateIndex", row.create_index.to_string()),
        ("ModifyIndex", row.modify_index.to_string()),
    ]
    .map(|(name, value)| format!("{name:<16} {value}"))
    .join("\n")
}

fn create(flags: &SessionCreate) -> Result<(), CliError> {
    none(&flags.args)?;
    let mut body = Map::new();
    for (name, text) in [
        ("Name", &flags.name),
        ("Node", &flags.node),
        ("TTL", &flags.ttl),
        ("LockDelay", &flags.lock_delay),
        ("Behavior", &flags.behavior),
    ] {
        body.extend(text.as_ref().map(|text| (name.into(), json!(text))));
    }
    let named = |checks: &[String]| -> Vec<String> {
        let named = checks.iter().filter(|check| !check.is_empty());
        named.cloned().collect()
    };
    if !flags.node_check.is_empty() {
        body.insert("NodeChecks".into(), json!(named(&flags.node_check)));
    }
    if !flags.service_check.is_empty() {
        let checks: Vec<Value> = named(&flags.service_check)
            .into_iter()
            .map(|id| json!({ "ID": id }))
            .collect();
        body.insert("ServiceChecks".into(), json!(checks));
    }
    let created: Row = Client::new(&flags.client)?
        .put(
            "/v1/session/create",
            &[],
            Value::Object(body).to_string().as_bytes(),
        )
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| CliError(format!("Error creating session: {why}")))?;
    say(created.id)
}

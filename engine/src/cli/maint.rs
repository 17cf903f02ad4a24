//! `curia maint`: takes a node or a service out of service, for maintenance.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;

use super::{
    CliError,
    client::{Client, pair, path_of},
    flags::ClientFlags,
    output::say,
    rows::none,
};

const NODE_CHECK: &str = "_node_maintenance";
const SERVICE_CHECK: &str = "_service_maintenance:";

/// Takes the node, or a service, out of service for maintenance, and back.
///
///   curia maint -enable -reason='new disks'
///   curia maint -enable -service=web
///   curia maint -disable
///   curia maint                               (lists what is in maintenance)
///
/// What is in maintenance has a critical check: those who ask for healthy services pass it by.
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct MaintFlags {
    /// Begins maintenance
    #[arg(long)]
    enable: bool,
    /// Ends it
    #[arg(long)]
    disable: bool,
    /// Why, for people; with -enable
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
    /// Id of the service [default: the whole node]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    service: String,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    node: String,
    #[serde(rename = "CheckID")]
    check_id: String,
    notes: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
}

pub(super) fn run(flags: &MaintFlags) -> Result<(), CliError> {
    none(&flags.args)?;
    let wrong = |text: &str| Err(CliError(text.into()));
    match (flags.enable, flags.disable) {
        (true, true) => return wrong("Only one of -enable or -disable may be provided"),
        (false, _) if !flags.reason.is_empty() => {
            return wrong("Reason may only be provided with -enable");
        }
        (false, false) if !flags.service.is_empty() => {
            return wrong("Service requires either -enable or -disable");
        }
        (false, false) => return list(&Client::new(&flags.client)?),
        _ => {}
    }
    let (doing, done) = match flags.enable {
        true => ("enabling", "enabled"),
        false => ("disabling", "disabled"),
    };
    let mut query = vec![format!("enable={}", flags.enable)];
    if flags.enable && !flags.reason.is_empty() {
        query.push(pair("reason", &flags.reason));
    }
    let (path, what) = match &*flags.service {
        "" => ("/v1/agent/maintenance".into(), "node"),
        id => (path_of("/v1/agent/service/maintenance", id), "service"),
    };
    Client::new(&flags.client)?
        .put(&path, &query, b"")
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error {doing} {what} maintenance: {why}")))?;
    match &*flags.service {
        "" => say(format!("Node maintenance is now {done}")),
        id => say(format!("Service maintenance is now {done} for {id:?}")),
    }
}

fn list(client: &Client) -> Result<(), CliError> {
    let checks: BTreeMap<String, Check> = client
        .get("/v1/agent/checks", &[])
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| CliError(format!("Error getting checks: {why}")))?;
    for check in checks.into_values() {
        let (what, name) = match &*check.check_id {
            NODE_CHECK => ("Node:\n  Name:  ", &check.node),
            id if id.starts_with(SERVICE_CHECK) => ("Service:\n  ID:    ", &check.service_id),
            _ => continue,
        };
        say(format!("{what} {name}\n  Reason: {}\n", check.notes))?;
    }
    Ok(())
}

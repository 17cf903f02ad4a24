//! `curia acl policy …`

use clap::{ArgAction, Args, Subcommand};
use serde_json::json;

use super::{
    super::{
        CliError,
        client::{Client, path_of},
        document_file,
        flags::ClientFlags,
        output::say,
        rows::none,
    },
    grants::whole_id,
    show::{self, Policy, Shape},
};

/// Lists, reads, writes and deletes policies.
#[derive(Debug, Subcommand)]
pub(in super::super) enum PolicyCommand {
    List(PolicyList),
    Read(PolicyRead),
    Create(PolicyCreate),
    Update(PolicyUpdate),
    Delete(PolicyDelete),
}

/// Lists the policies.
#[derive(Args, Debug, Default)]
pub(in super::super) struct PolicyList {
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Shows a policy.
///
///   curia acl policy read -name=web
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct PolicyRead {
    /// Id of the policy, or the beginning of it
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Name of the policy
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Makes a policy.
///
///   curia acl policy create -name=web -rules='service "web" { policy = "write" }'
///   curia acl policy create -name=web -rules=@web.hcl      (from a file; - for standard input)
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct PolicyCreate {
    /// Name of the policy
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// What it is for
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,
    /// The rules, in HCL or JSON: text, @FILE, or - for standard input
    #[arg(
        long,
        value_name = "RULES",
        default_value = "",
        hide_default_value = true
    )]
    rules: String,
    /// Datacenter in which it is good. Repeatable [default: all]
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    valid_datacenter: Vec<String>,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Changes a policy. What is not named stays, unless -no-merge is given.
///
///   curia acl policy update -name=web -rules=@web.hcl
///   curia acl policy update -id=ID -name=new-name
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct PolicyUpdate {
    /// Id of the policy, or the beginning of it
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Name of the policy; with -id, its new name
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// What it is for
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,
    /// The rules, in HCL or JSON: text, @FILE, or - for standard input
    #[arg(
        long,
        value_name = "RULES",
        default_value = "",
        hide_default_value = true
    )]
    rules: String,
    /// Datacenter in which it is good. Repeatable.
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    valid_datacenter: Vec<String>,
    /// Makes the policy exactly what is named here
    #[arg(long)]
    no_merge: bool,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Deletes a policy.
///
///   curia acl policy delete -name=web
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct PolicyDelete {
    /// Id of the policy, or the beginning of it
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Name of the policy
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

pub(super) fn run(command: &PolicyCommand) -> Result<(), CliError> {
    match command {
        PolicyCommand::List(flags) => list(flags),
        PolicyCommand::Read(flags) => read(flags),
        PolicyCommand::Create(flags) => create(flags),
        PolicyCommand::Update(flags) => update(flags),
        PolicyCommand::Delete(flags) => delete(flags),
    }
}

fn path(id: &str) -> String {
    path_of("/v1/acl/policy", id)
}

/// The id of a policy that is named by id, or else by name.
fn id_of(client: &Client, id: &str, name: &str) -> Result<String, CliError> {
    let determining = |CliError(why)| CliError(format!("Error determining policy ID: {why}"));
    match (id, name) {
        ("", "") => Err(CliError(
            "Must specify either the -id or -name parameters".into(),
        )),
        ("", name) => {
            let policy: Policy = client
                .get(&path_of("/v1/acl/policy/name", name), &[])
                .and_then(|reply| reply.json())
                .map_err(determining)?;
            Ok(policy.id)
        }
        (id, _) => whole_id(client, "/v1/acl/policies", id, "policy").map_err(determining),
    }
}

/// The rules of a flag: text, `@FILE`, or `-` for standard input.
fn rules_of(text: &str) -> Result<String, CliError> {
    let loading = |CliError(why)| CliError(format!("Error loading rules: {why}"));
    match text.strip_prefix('@') {
        Some(file) => document_file::text(file).map_err(loading),
        None if text == "-" => document_file::text(text).map_err(loading),
        None => Ok(text.to_owned()),
    }
}

fn list(flags: &PolicyList) -> Result<(), CliError> {
    none(&flags.args)?;
    let body = Client::new(&flags.client)?
        .get("/v1/acl/policies", &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Failed to retrieve the policy list: {why}")))?;
    flags
        .shape
        .print(&body, |all: &Vec<Policy>, meta| show::policies(all, meta))
}

fn read(flags: &PolicyRead) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = id_of(&client, &flags.id, &flags.name)?;
    let body = client
        .get(&path(&id), &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error reading policy {id:?}: {why}")))?;
    flags.shape.print(&body, show::policy)
}

fn create(flags: &PolicyCreate) -> Result<(), CliError> {
    none(&flags.args)?;
    if flags.name.is_empty() {
        return Err(CliError("Missing require '-name' flag".into()));
    }
    let body = json!({
        "Name": flags.name,
        "Description": flags.description,
        "Rules": rules_of(&flags.rules)?,
        "Datacenters": flags.valid_datacenter,
    });
    let made = Client::new(&flags.client)?
        .put("/v1/acl/policy", &[], body.to_string().as_bytes())
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Failed to create new policy: {why}")))?;
    flags.shape.print(&made, show::policy)
}

fn update(flags: &PolicyUpdate) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = id_of(&client, &flags.id, &flags.name)?;
    let mut policy = match flags.no_merge {
        true => Policy {
            id: id.clone(),
            ..Policy::default()
        },
        false => client
            .get(&path(&id), &[])
            .and_then(|reply| reply.json())
            .map_err(|CliError(why)| CliError(format!("Error reading policy {id:?}: {why}")))?,
    };
    for (field, text) in [
        (&mut policy.name, flags.name.clone()),
        (&mut policy.description, flags.description.clone()),
        (&mut policy.rules, rules_of(&flags.rules)?),
    ] {
        if !text.is_empty() {
            *field = text;
        }
    }
    if !flags.valid_datacenter.is_empty() {
        policy.datacenters.clone_from(&flags.valid_datacenter);
    }
    let body = serde_json::to_string(&policy).unwrap_or_default();
    let updated = client
        .put(&path(&id), &[], body.as_bytes())
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error updating policy {id:?}: {why}")))?;
    if !flags.shape.json()? {
        say("Policy updated successfully")?;
    }
    flags.shape.print(&updated, show::policy)
}

fn delete(flags: &PolicyDelete) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = id_of(&client, &flags.id, &flags.name)?;
    client
        .delete(&path(&id), &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error deleting policy {id:?}: {why}")))?;
    say(format!("Policy {id:?} deleted successfully"))
}

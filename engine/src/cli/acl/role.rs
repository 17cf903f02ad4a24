//! `curia acl role …`

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    super::{
        CliError,
        client::{Client, path_of},
        flags::ClientFlags,
        output::say,
        rows::none,
    },
    grants::{GrantFlags, whole_id},
    show::{self, Role, Shape},
};

/// Lists, reads, writes and deletes roles.
#[derive(Debug, Subcommand)]
pub(in super::super) enum RoleCommand {
    List(RoleList),
    Read(RoleRead),
    Create(RoleCreate),
    Update(RoleUpdate),
    Delete(RoleDelete),
}

/// Lists the roles.
#[derive(Args, Debug, Default)]
pub(in super::super) struct RoleList {
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Which role.
#[derive(Args, Debug, Default)]
struct Which {
    /// Id of the role, or the beginning of it
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Name of the role
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
}

/// Shows a role.
///
///   curia acl role read -name=reader
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct RoleRead {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Makes a role.
///
///   curia acl role create -name=reader -policy-name=read-keys
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct RoleCreate {
    /// Name of the role
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
    #[command(flatten)]
    grants: GrantFlags,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Changes a role: what is named is added to what it has, unless -no-merge is given.
///
///   curia acl role update -id=ID -name=readers -policy-name=read-more
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct RoleUpdate {
    #[command(flatten)]
    which: Which,
    /// What it is for
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,
    #[command(flatten)]
    grants: GrantFlags,
    /// Makes the role exactly what is named here
    #[arg(long)]
    no_merge: bool,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Deletes a role.
///
///   curia acl role delete -name=reader
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct RoleDelete {
    #[command(flatten)]
    which: Which,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(command: &RoleCommand) -> Result<(), CliError> {
    match command {
        RoleCommand::List(flags) => list(flags),
        RoleCommand::Read(flags) => read(flags),
        RoleCommand::Create(flags) => create(flags),
        RoleCommand::Update(flags) => update(flags),
        RoleCommand::Delete(flags) => delete(flags),
    }
}

fn path(id: &str) -> String {
    path_of("/v1/acl/role", id)
}

impl Which {
    fn id(&self, client: &Client) -> Result<String, CliError> {
        let determining = |CliError(why)| CliError(format!("Error determining role ID: {why}"));
        match (&*self.id, &*self.name) {
            ("", "") => Err(CliError(
                "Must specify either the -id or -name parameters".into(),
            )),
            ("", name) => {
                let role: Role = client
                    .get(&path_of("/v1/acl/role/name", name), &[])
                    .and_then(|reply| reply.json())
                    .map_err(determining)?;
                Ok(role.id)
            }
            (id, _) => whole_id(client, "/v1/acl/roles", id, "role").map_err(determining),
        }
    }
}

fn list(flags: &RoleList) -> Result<(), CliError> {
    none(&flags.args)?;
    let body = Client::new(&flags.client)?
        .get("/v1/acl/roles", &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Failed to retrieve the role list: {why}")))?;
    flags
        .shape
        .print(&body, |all: &Vec<Role>, meta| show::roles(all, meta))
}

fn read(flags: &RoleRead) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = flags.which.id(&client)?;
    let body = client
        .get(&path(&id), &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error reading role {id:?}: {why}")))?;
    flags.shape.print(&body, show::role)
}

fn create(flags: &RoleCreate) -> Result<(), CliError> {
    none(&flags.args)?;
    if flags.name.is_empty() {
        return Err(CliError("Missing require '-name' flag".into()));
    }
    if flags.grants.none() {
        return Err(CliError(
            "Cannot create a role without specifying -policy-name, -policy-id, \
             -service-identity, or -node-identity at least once"
                .into(),
        ));
    }
    let mut body = serde_json::to_value(flags.grants.grants()?).unwrap_or_default();
    body["Name"] = json!(flags.name);
    body["Description"] = json!(flags.description);
    let made = Client::new(&flags.client)?
        .put("/v1/acl/role", &[], body.to_string().as_bytes())
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Failed to create new role: {why}")))?;
    flags.shape.print(&made, show::role)
}

fn update(flags: &RoleUpdate) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = flags.which.id(&client)?;
    let mut role = match flags.no_merge {
        true => Role {
            id: id.clone(),
            ..Role::default()
        },
        false => client
            .get(&path(&id), &[])
            .and_then(|reply| reply.json())
            .map_err(|CliError(why)| {
                CliError(format!("Error when retrieving current role: {why}"))
            })?,
    };
    if !flags.which.name.is_empty() {
        role.name.clone_from(&flags.which.name);
    }
    if !flags.description.is_empty() {
        role.description.clone_from(&flags.description);
    }
    flags.grants.add(&mut role.grants)?;
    let body = serde_json::to_string(&role).unwrap_or_default();
    let updated = client
        .put(&path(&id), &[], body.as_bytes())
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error updating role {id:?}: {why}")))?;
    if !flags.shape.json()? {
        say("Role updated successfully")?;
    }
    flags.shape.print(&updated, show::role)
}

fn delete(flags: &RoleDelete) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = flags.which.id(&client)?;
    client
        .delete(&path(&id), &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error deleting role {id:?}: {why}")))?;
    say(format!("Role {id:?} deleted successfully"))
}

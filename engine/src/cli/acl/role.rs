//! `curia acl role …`

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    super::CliError,
    grants::GrantFlags,
    kind::{Asked, Description, ROLE, Shown, Which},
    show::{self, Role},
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
    shown: Shown,
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
    shown: Shown,
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
    #[command(flatten)]
    about: Description,
    #[command(flatten)]
    grants: GrantFlags,
    #[command(flatten)]
    shown: Shown,
}

/// Changes a role: what is named is added to what it has, unless -no-merge is given.
///
///   curia acl role update -id=ID -name=readers -policy-name=read-more
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct RoleUpdate {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    about: Description,
    #[command(flatten)]
    grants: GrantFlags,
    /// Makes the role exactly what is named here
    #[arg(long)]
    no_merge: bool,
    #[command(flatten)]
    shown: Shown,
}

/// Deletes a role.
///
///   curia acl role delete -name=reader
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct RoleDelete {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    asked: Asked,
}

pub(super) fn run(command: &RoleCommand) -> Result<(), CliError> {
    match command {
        RoleCommand::List(flags) => ROLE.list(&flags.shown, show::roles),
        RoleCommand::Read(RoleRead { which, shown }) => {
            let client = shown.client()?;
            ROLE.read(&client, &ROLE.id_of(&client, which)?, shown, show::role)
        }
        RoleCommand::Create(flags) => create(flags),
        RoleCommand::Update(flags) => update(flags),
        RoleCommand::Delete(RoleDelete { which, asked }) => {
            ROLE.delete(asked, |client| ROLE.id_of(client, which))
        }
    }
}

fn create(flags: &RoleCreate) -> Result<(), CliError> {
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
    body["Description"] = json!(flags.about.description);
    ROLE.create(&body, &flags.shown, show::role)
}

fn update(flags: &RoleUpdate) -> Result<(), CliError> {
    let client = flags.shown.client()?;
    let id = ROLE.id_of(&client, &flags.which)?;
    let mut role = match flags.no_merge {
        true => Role {
            id: id.clone(),
            ..Role::default()
        },
        false => ROLE.current(&client, &id)?,
    };
    if !flags.which.name.is_empty() {
        role.name.clone_from(&flags.which.name);
    }
    if !flags.about.description.is_empty() {
        role.description.clone_from(&flags.about.description);
    }
    flags.grants.add(&mut role.grants)?;
    let updated = client
        .put_json(&ROLE.path(&id), &role)
        .map_err(|CliError(why)| CliError(format!("Error updating role {id:?}: {why}")))?;
    flags.shown.done("Role updated successfully")?;
    flags.shown.print(&updated, show::role)
}

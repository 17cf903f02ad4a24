//! `curia acl policy …`

use clap::{ArgAction, Args, Subcommand};
use serde_json::json;

use super::{
    super::{CliError, document_file},
    kind::{Asked, Description, POLICY, Shown, Which},
    show::{self, Policy},
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
    shown: Shown,
}

/// Shows a policy.
///
///   curia acl policy read -name=web
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct PolicyRead {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    shown: Shown,
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
    #[command(flatten)]
    about: Description,
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
    shown: Shown,
}

/// Changes a policy. What is not named stays, unless -no-merge is given.
///
///   curia acl policy update -name=web -rules=@web.hcl
///   curia acl policy update -id=ID -name=new-name
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct PolicyUpdate {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    about: Description,
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
    shown: Shown,
}

/// Deletes a policy.
///
///   curia acl policy delete -name=web
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct PolicyDelete {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    asked: Asked,
}

pub(super) fn run(command: &PolicyCommand) -> Result<(), CliError> {
    match command {
        PolicyCommand::List(flags) => POLICY.list(&flags.shown, show::policies),
        PolicyCommand::Read(PolicyRead { which, shown }) => {
            let client = shown.client()?;
            POLICY.read(&client, &POLICY.id_of(&client, which)?, shown, show::policy)
        }
        PolicyCommand::Create(flags) => create(flags),
        PolicyCommand::Update(flags) => update(flags),
        PolicyCommand::Delete(PolicyDelete { which, asked }) => {
            POLICY.delete(asked, |client| POLICY.id_of(client, which))
        }
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

fn create(flags: &PolicyCreate) -> Result<(), CliError> {
    if flags.name.is_empty() {
        return Err(CliError("Missing require '-name' flag".into()));
    }
    let body = json!({
        "Name": flags.name,
        "Description": flags.about.description,
        "Rules": rules_of(&flags.rules)?,
        "Datacenters": flags.valid_datacenter,
    });
    POLICY.create(&body, &flags.shown, show::policy)
}

fn update(flags: &PolicyUpdate) -> Result<(), CliError> {
    let client = flags.shown.client()?;
    let id = POLICY.id_of(&client, &flags.which)?;
    let mut policy = match flags.no_merge {
        true => Policy {
            id: id.clone(),
            ..Policy::default()
        },
        false => POLICY.current(&client, &id)?,
    };
    for (field, text) in [
        (&mut policy.name, flags.which.name.clone()),
        (&mut policy.description, flags.about.description.clone()),
        (&mut policy.rules, rules_of(&flags.rules)?),
    ] {
        if !text.is_empty() {
            *field = text;
        }
    }
    if !flags.valid_datacenter.is_empty() {
        policy.datacenters.clone_from(&flags.valid_datacenter);
    }
    let updated = client
        .put_json(&POLICY.path(&id), &policy)
        .map_err(|CliError(why)| CliError(format!("Error updating policy {id:?}: {why}")))?;
    flags.shown.done("Policy updated successfully")?;
    flags.shown.print(&updated, show::policy)
}

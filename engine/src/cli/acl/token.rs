//! `curia acl token …` and `curia acl bootstrap`.

use clap::{ArgAction, Args, Subcommand};
use serde_json::{Value, json};

use super::{
    super::{
        CliError,
        client::{Client, path_of},
        document_file,
        flags::ClientFlags,
        output::say,
        rows::none,
    },
    grants::{GrantFlags, add_links, links, whole_id},
    show::{self, Shape, Token},
};

/// Lists, reads, writes and deletes tokens.
#[derive(Debug, Subcommand)]
pub(in super::super) enum TokenCommand {
    List(TokenList),
    Read(TokenRead),
    Create(TokenCreate),
    Update(TokenUpdate),
    Clone(TokenClone),
    Delete(TokenDelete),
}

/// Makes the first management token, once.
///
///   curia acl bootstrap
///   echo SECRET | curia acl bootstrap -        (with a secret of your own, a UUID)
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct Bootstrap {
    #[command(flatten)]
    shape: Shape,
    /// File that holds the secret; - for standard input
    #[arg(value_name = "FILE")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Lists the tokens.
#[derive(Args, Debug, Default)]
pub(in super::super) struct TokenList {
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Which token.
#[derive(Args, Debug, Default)]
struct Which {
    /// Accessor id of the token, or the beginning of it
    #[arg(
        long,
        value_name = "ID",
        alias = "id",
        default_value = "",
        hide_default_value = true
    )]
    accessor_id: String,
}

/// Shows a token.
///
///   curia acl token read -accessor-id=ID
///   curia acl token read -self
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct TokenRead {
    #[command(flatten)]
    which: Which,
    /// The token that this command is run with
    #[arg(long = "self")]
    own: bool,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Makes a token.
///
///   curia acl token create -description='of web' -policy-name=web -role-name=reader
///   curia acl token create -service-identity=web:dc1 -expires-ttl=24h
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct TokenCreate {
    /// Accessor id to give it [default: a new one]
    #[arg(long, value_name = "ID")]
    accessor: Option<String>,
    /// Secret to give it [default: a new one]
    #[arg(long, value_name = "ID")]
    secret: Option<String>,
    /// What it is for
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,
    /// It is of this datacenter only
    #[arg(long)]
    local: bool,
    /// How long it is good for [default: for ever]
    #[arg(long, value_name = "DURATION")]
    expires_ttl: Option<String>,
    #[command(flatten)]
    grants: GrantFlags,
    /// Id of a role. Repeatable.
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    role_id: Vec<String>,
    /// Name of a role. Repeatable.
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    role_name: Vec<String>,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Changes a token. What is named replaces what it has of that kind; the rest stays.
///
///   curia acl token update -accessor-id=ID -policy-name=web
///   curia acl token update -accessor-id=ID -append-policy-name=more
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct TokenUpdate {
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
    /// Id of a role. Repeatable.
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    role_id: Vec<String>,
    /// Name of a role. Repeatable.
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    role_name: Vec<String>,
    /// Id of a policy to add. Repeatable.
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    append_policy_id: Vec<String>,
    /// Name of a policy to add. Repeatable.
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    append_policy_name: Vec<String>,
    /// Id of a role to add. Repeatable.
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    append_role_id: Vec<String>,
    /// Name of a role to add. Repeatable.
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    append_role_name: Vec<String>,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Makes a token with what another may do.
///
///   curia acl token clone -accessor-id=ID -description='of web, second'
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct TokenClone {
    #[command(flatten)]
    which: Which,
    /// What it is for [default: as the other]
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,
    #[command(flatten)]
    shape: Shape,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Deletes a token.
///
///   curia acl token delete -accessor-id=ID
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct TokenDelete {
    #[command(flatten)]
    which: Which,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(in super::super) fn bootstrap(flags: &Bootstrap) -> Result<(), CliError> {
    let body = match &flags.args[..] {
        [] => Vec::new(),
        [file] => {
            let secret = document_file::text(file)?;
            json!({ "BootstrapSecret": secret.trim() })
                .to_string()
                .into_bytes()
        }
        _ => return Err(CliError("Too many command line arguments.".into())),
    };
    let made = Client::new(&flags.client)?
        .put("/v1/acl/bootstrap", &[], &body)
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Failed ACL bootstrapping: {why}")))?;
    flags.shape.print(&made, show::token)
}

pub(super) fn run(command: &TokenCommand) -> Result<(), CliError> {
    match command {
        TokenCommand::List(flags) => list(flags),
        TokenCommand::Read(flags) => read(flags),
        TokenCommand::Create(flags) => create(flags),
        TokenCommand::Update(flags) => update(flags),
        TokenCommand::Clone(flags) => clone(flags),
        TokenCommand::Delete(flags) => delete(flags),
    }
}

fn list(flags: &TokenList) -> Result<(), CliError> {
    none(&flags.args)?;
    let body = Client::new(&flags.client)?
        .get("/v1/acl/tokens", &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Failed to retrieve the token list: {why}")))?;
    flags
        .shape
        .print(&body, |all: &Vec<Token>, meta| show::tokens(all, meta))
}

impl Which {
    /// The whole accessor id.
    fn id(&self, client: &Client) -> Result<String, CliError> {
        if self.accessor_id.is_empty() {
            return Err(CliError("Must specify the -accessor-id parameter".into()));
        }
        whole_id(client, "/v1/acl/tokens", &self.accessor_id, "token")
            .map_err(|CliError(why)| CliError(format!("Error determining token ID: {why}")))
    }
}

fn path(id: &str) -> String {
    path_of("/v1/acl/token", id)
}

fn read(flags: &TokenRead) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = match flags.own {
        true => "self".into(),
        false => flags.which.id(&client)?,
    };
    let body = client
        .get(&path(&id), &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error reading token {id:?}: {why}")))?;
    flags.shape.print(&body, show::token)
}

fn create(flags: &TokenCreate) -> Result<(), CliError> {
    none(&flags.args)?;
    let roles = links(&flags.role_id, &flags.role_name);
    if flags.grants.none() && roles.is_empty() {
        return Err(CliError(
            "Cannot create a token without specifying -policy-name, -policy-id, -role-name, \
             -role-id, -service-identity, or -node-identity at least once"
                .into(),
        ));
    }
    let mut body = serde_json::to_value(flags.grants.grants()?).unwrap_or_default();
    body["Roles"] = json!(roles);
    body["Description"] = json!(flags.description);
    body["Local"] = json!(flags.local);
    for (name, text) in [
        ("AccessorID", &flags.accessor),
        ("SecretID", &flags.secret),
        ("ExpirationTTL", &flags.expires_ttl),
    ] {
        if let Some(text) = text {
            body[name] = json!(text);
        }
    }
    let made = Client::new(&flags.client)?
        .put("/v1/acl/token", &[], body.to_string().as_bytes())
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Failed to create new token: {why}")))?;
    flags.shape.print(&made, show::token)
}

fn update(flags: &TokenUpdate) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = flags.which.id(&client)?;
    let mut token: Token = client
        .get(&path(&id), &[])
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| CliError(format!("Error when retrieving current token: {why}")))?;
    if !flags.description.is_empty() {
        token.description.clone_from(&flags.description);
    }
    flags.grants.replace(&mut token.grants)?;
    let roles = links(&flags.role_id, &flags.role_name);
    if !roles.is_empty() {
        token.roles = roles;
    }
    add_links(
        &mut token.grants.policies,
        links(&flags.append_policy_id, &flags.append_policy_name),
    );
    add_links(
        &mut token.roles,
        links(&flags.append_role_id, &flags.append_role_name),
    );
    let body = serde_json::to_string(&token).unwrap_or_default();
    let updated = client
        .put(&path(&id), &[], body.as_bytes())
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Failed to update token {id}: {why}")))?;
    if !flags.shape.json()? {
        say("Token updated successfully.")?;
    }
    flags.shape.print(&updated, show::token)
}

fn clone(flags: &TokenClone) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = flags.which.id(&client)?;
    let body: Value = match &*flags.description {
        "" => json!({}),
        text => json!({ "Description": text }),
    };
    let made = client
        .put(
            &format!("{}/clone", path(&id)),
            &[],
            body.to_string().as_bytes(),
        )
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error cloning token: {why}")))?;
    if !flags.shape.json()? {
        say("Token cloned successfully.")?;
    }
    flags.shape.print(&made, show::token)
}

fn delete(flags: &TokenDelete) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let id = flags.which.id(&client)?;
    client
        .delete(&path(&id), &[])
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Error deleting token {id:?}: {why}")))?;
    say(format!("Token {id:?} deleted successfully"))
}

//! `curia acl token …` and `curia acl bootstrap`.

use clap::{ArgAction, Args, Subcommand};
use serde_json::{Value, json};

use super::{
    super::{CliError, client::Client, document_file, flags::ClientFlags},
    grants::{GrantFlags, add_links, links},
    kind::{Asked, Description, Shown, TOKEN},
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
    shown: Shown,
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

/// Roles to give.
#[derive(Args, Debug, Default)]
struct RoleFlags {
    /// Id of a role. Repeatable.
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    role_id: Vec<String>,
    /// Name of a role. Repeatable.
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    role_name: Vec<String>,
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
    shown: Shown,
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
    #[command(flatten)]
    about: Description,
    /// It is of this datacenter only
    #[arg(long)]
    local: bool,
    /// How long it is good for [default: for ever]
    #[arg(long, value_name = "DURATION")]
    expires_ttl: Option<String>,
    #[command(flatten)]
    grants: GrantFlags,
    #[command(flatten)]
    roles: RoleFlags,
    #[command(flatten)]
    shown: Shown,
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
    #[command(flatten)]
    about: Description,
    #[command(flatten)]
    grants: GrantFlags,
    #[command(flatten)]
    roles: RoleFlags,
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
    shown: Shown,
}

/// Makes a token with what another may do.
///
///   curia acl token clone -accessor-id=ID -description='of web, second'
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct TokenClone {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    about: Description,
    #[command(flatten)]
    shown: Shown,
}

/// Deletes a token.
///
///   curia acl token delete -accessor-id=ID
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct TokenDelete {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    asked: Asked,
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
        TokenCommand::List(flags) => TOKEN.list(&flags.shown, show::tokens),
        TokenCommand::Read(flags) => read(flags),
        TokenCommand::Create(flags) => create(flags),
        TokenCommand::Update(flags) => update(flags),
        TokenCommand::Clone(flags) => clone(flags),
        TokenCommand::Delete(TokenDelete { which, asked }) => {
            TOKEN.delete(asked, |client| which.id(client))
        }
    }
}

impl Which {
    /// The whole accessor id.
    fn id(&self, client: &Client) -> Result<String, CliError> {
        if self.accessor_id.is_empty() {
            return Err(CliError("Must specify the -accessor-id parameter".into()));
        }
        TOKEN.whole_id(client, &self.accessor_id)
    }
}

fn read(flags: &TokenRead) -> Result<(), CliError> {
    let client = flags.shown.client()?;
    let id = match flags.own {
        true => "self".into(),
        false => flags.which.id(&client)?,
    };
    TOKEN.read(&client, &id, &flags.shown, show::token)
}

fn create(flags: &TokenCreate) -> Result<(), CliError> {
    let roles = links(&flags.roles.role_id, &flags.roles.role_name);
    if flags.grants.none() && roles.is_empty() {
        return Err(CliError(
            "Cannot create a token without specifying -policy-name, -policy-id, -role-name, \
             -role-id, -service-identity, or -node-identity at least once"
                .into(),
        ));
    }
    let mut body = serde_json::to_value(flags.grants.grants()?).unwrap_or_default();
    body["Roles"] = json!(roles);
    body["Description"] = json!(flags.about.description);
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
    TOKEN.create(&body, &flags.shown, show::token)
}

fn update(flags: &TokenUpdate) -> Result<(), CliError> {
    let client = flags.shown.client()?;
    let id = flags.which.id(&client)?;
    let mut token: Token = TOKEN.current(&client, &id)?;
    if !flags.about.description.is_empty() {
        token.description.clone_from(&flags.about.description);
    }
    flags.grants.replace(&mut token.grants)?;
    let roles = links(&flags.roles.role_id, &flags.roles.role_name);
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
    let updated = client
        .put_json(&TOKEN.path(&id), &token)
        .map_err(|CliError(why)| CliError(format!("Failed to update token {id}: {why}")))?;
    flags.shown.done("Token updated successfully.")?;
    flags.shown.print(&updated, show::token)
}

fn clone(flags: &TokenClone) -> Result<(), CliError> {
    let client = flags.shown.client()?;
    let id = flags.which.id(&client)?;
    let body: Value = match &*flags.about.description {
        "" => json!({}),
        text => json!({ "Description": text }),
    };
    let made = client
        .put_json(&format!("{}/clone", TOKEN.path(&id)), &body)
        .map_err(|CliError(why)| CliError(format!("Error cloning token: {why}")))?;
    flags.shown.done("Token cloned successfully.")?;
    flags.shown.print(&made, show::token)
}

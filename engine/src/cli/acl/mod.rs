//! `curia acl`: who may do what, in Consul's words and forms.

mod grants;
mod kind;
mod policy;
mod role;
mod show;
mod token;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    CliError,
    client::{Client, path_of},
    flags::ClientFlags,
    output::say,
};

/// Tokens, policies and roles: who may do what.
///
/// ACLs are off unless the servers' configuration turns them on (acl { enabled = true }). Then
/// make the first token with `curia acl bootstrap`, and give it as -token or CONSUL_HTTP_TOKEN.
#[derive(Debug, Subcommand)]
pub(super) enum AclCommand {
    Bootstrap(token::Bootstrap),
    #[command(subcommand)]
    Token(token::TokenCommand),
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    #[command(subcommand)]
    Role(role::RoleCommand),
    SetAgentToken(SetAgentToken),
}

/// Gives the server that is asked a token to use itself.
///
///   curia acl set-agent-token default SECRET
///   curia acl set-agent-token agent SECRET
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct SetAgentToken {
    /// What it is for (agent, config_file_service_registration, default, dns, recovery or
    /// replication), and its secret
    #[arg(value_name = "TYPE SECRET")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(command: &AclCommand) -> Result<(), CliError> {
    match command {
        AclCommand::Bootstrap(flags) => token::bootstrap(flags),
        AclCommand::Token(command) => token::run(command),
        AclCommand::Policy(command) => policy::run(command),
        AclCommand::Role(command) => role::run(command),
        AclCommand::SetAgentToken(flags) => set_agent_token(flags),
    }
}

fn set_agent_token(flags: &SetAgentToken) -> Result<(), CliError> {
    let [kind, secret] = &flags.args[..] else {
        return Err(CliError("Error: give TYPE and SECRET".into()));
    };
    // The API has other names for two of them.
    let path = match &**kind {
        "recovery" => "agent_recovery",
        "master" => "agent_master",
        "agent" | "default" | "dns" | "replication" | "config_file_service_registration" => kind,
        _ => {
            return Err(CliError(format!(
                "Error: Unknown token type {kind:?}: there are agent, \
                 config_file_service_registration, default, dns, recovery and replication"
            )));
        }
    };
    Client::new(&flags.client)?
        .put(
            &path_of("/v1/agent/token", path),
            &[],
            json!({ "Token": secret }).to_string().as_bytes(),
        )
        .and_then(|reply| reply.success())
        .map_err(|CliError(why)| CliError(format!("Failed to set agent token {kind:?}: {why}")))?;
    say(format!("ACL token {kind:?} set successfully"))
}

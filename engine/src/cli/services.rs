//! `curia services`: registers and deregisters services with a server's agent.
//!
//! From flags, or from files as the agent's configuration has them: `service` or `services`, in
//! JSON or HCL. Field names are taken with and without underscores, as the agent's API does.

use clap::{ArgAction, Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    CliError,
    client::{Client, path_of},
    document_file,
    flags::ClientFlags,
    output::say,
    rows::key_value,
};

/// Registers and deregisters services.
#[derive(Debug, Subcommand)]
pub(super) enum ServicesCommand {
    Register(ServicesRegister),
    Deregister(ServicesDeregister),
}

/// Registers services with the server asked.
///
///   curia services register web.hcl
///   curia services register -name=web -port=80 -tag=v2 -meta=owner=me
///
/// A file holds what the agent's configuration would: service = {...}, or services = [...].
/// Registrations are kept in the server's data directory and survive its restarts.
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct ServicesRegister {
    /// Id of the service [default: its name]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Name of the service
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// Address of the service [default: that of the node]
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Port of the service
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Unix socket of the service, instead of address and port
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Tag. Repeatable.
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    tag: Vec<String>,
    /// Metadata. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    meta: Vec<String>,
    /// Files of definitions; - for standard input
    #[arg(value_name = "FILE")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Deregisters services from the server asked.
///
///   curia services deregister -id=web
///   curia services deregister web.hcl
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct ServicesDeregister {
    /// Id of the service
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    /// Files of definitions; - for standard input
    #[arg(value_name = "FILE")]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(command: &ServicesCommand) -> Result<(), CliError> {
    match command {
        ServicesCommand::Register(flags) => register(flags),
        ServicesCommand::Deregister(flags) => deregister(flags),
    }
}

fn register(flags: &ServicesRegister) -> Result<(), CliError> {
    let services = match (&*flags.name, &flags.args[..]) {
        ("", []) => {
            return Err(CliError(
                "Service registration requires at least one argument or flags.".into(),
            ));
        }
        ("", files) => definitions(files)?,
        (_, []) => vec![from_flags(flags)?],
        _ => {
            return Err(CliError(
                "Service registration requires arguments or -id, not both.".into(),
            ));
        }
    };
    let client = Client::new(&flags.client)?;
    for service in services {
        let name = named(&service, "name").unwrap_or_default();
        client
            .put(
                "/v1/agent/service/register",
                &[],
                service.to_string().as_bytes(),
            )
            .and_then(|reply| reply.success())
            .map_err(|CliError(why)| {
                CliError(format!("Error registering service {name:?}: {why}"))
            })?;
        say(format!("Registered service: {name}"))?;
    }
    Ok(())
}

fn from_flags(flags: &ServicesRegister) -> Result<Value, CliError> {
    let id = match &*flags.id {
        "" => &flags.name,
        id => id,
    };
    let meta: Map<String, Value> = flags
        .meta
        .iter()
        .map(|text| key_value("-meta", text).map(|(key, value)| (key, value.into())))
        .collect::<Result<_, _>>()?;
    let mut service = json!({ "ID": id, "Name": flags.name, "Tags": flags.tag, "Meta": meta });
    if let Some(address) = &flags.address {
        service["Address"] = json!(address);
    }
    if let Some(port) = flags.port {
        service["Port"] = json!(port);
    }
    if let Some(socket) = &flags.socket {
        service["SocketPath"] = json!(socket);
    }
    Ok(service)
}

/// All services of some files.
fn definitions(files: &[String]) -> Result<Vec<Value>, CliError> {
    let mut services = Vec::new();
    for file in files {
        let reading =
            |CliError(why): CliError| CliError(format!("Error reading service {file}: {why}"));
        let text = document_file::text(file).map_err(reading)?;
        let found = services_of(document_file::parse(&text).map_err(reading)?);
        if found.is_empty() {
            let none = "it defines none: give service = {...} or services = [...]";
            return Err(reading(CliError(none.into())));
        }
        services.extend(found);
    }
    Ok(services)
}

fn services_of(document: Value) -> Vec<Value> {
    let Value::Object(document) = document else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in document {
        match (&*key, value) {
            // Blocks of HCL with the same name are a list.
            ("service" | "services", Value::Array(several)) => found.extend(several),
            ("service" | "services", one) => found.push(one),
            _ => {}
        }
    }
    found
}

/// A text of a definition, whose field names may be in any case.
fn named(service: &Value, field: &str) -> Option<String> {
    let fields = service.as_object()?;
    let (_, value) = fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(field))?;
    Some(value.as_str()?.to_owned()).filter(|text| !text.is_empty())
}

fn deregister(flags: &ServicesDeregister) -> Result<(), CliError> {
    let ids = match (&*flags.id, &flags.args[..]) {
        ("", []) => {
            return Err(CliError(
                "Service deregistration requires at least one argument or -id flag.".into(),
            ));
        }
        ("", files) => definitions(files)?
            .iter()
            .filter_map(|service| named(service, "id").or_else(|| named(service, "name")))
            .collect(),
        (id, []) => vec![id.to_owned()],
        _ => {
            return Err(CliError(
                "Service deregistration requires arguments or -id, not both.".into(),
            ));
        }
    };
    let client = Client::new(&flags.client)?;
    for id in ids {
        client
            .put(&path_of("/v1/agent/service/deregister", &id), &[], b"")
            .and_then(|reply| reply.success())
            .map_err(|CliError(why)| {
                CliError(format!("Error deregistering service {id:?}: {why}"))
            })?;
        say(format!("Deregistered service: {id}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let services = services_of(document_file::parse(text).unwrap());
        let mut names: Vec<String> = services
            .iter()
            .filter_map(|service| named(service, "name"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn services_come_from_json_and_hcl() {
        assert_eq!(names(r#"{"service":{"name":"web"}}"#), ["web"]);
        assert_eq!(
            names(r#"{"Services":[], "services":[{"Name":"a"},{"name":"b"}]}"#),
            ["a", "b"]
        );
        assert_eq!(
            names("service {\n  name = \"web\"\n  port = 80\n}"),
            ["web"]
        );
        assert_eq!(
            names("service { name = \"a\" }\nservice { name = \"b\" }"),
            ["a", "b"]
        );
        assert!(names(r#"{"node_name":"x"}"#).is_empty());
    }
}

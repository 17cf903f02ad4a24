//! How are tokens, policies and roles printed? As Consul's `pretty` and `json` formats do.

#![allow(
    clippy::ptr_arg,
    reason = "lists are handed over as functions of what is read"
)]

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::{
    CliError,
    output::{Format, indented, say},
    rows::null_is_empty,
};

/// In which form, and how much.
#[derive(Args, Debug, Default)]
pub(super) struct Shape {
    #[command(flatten)]
    format: Format,
    /// Prints hash and indexes as well
    #[arg(long)]
    meta: bool,
}

impl Shape {
    /// Prints a document of the API: as it is, or as `pretty` says.
    pub(super) fn print<T: DeserializeOwned>(
        &self,
        body: &[u8],
        pretty: impl Fn(&T, bool) -> String,
    ) -> Result<(), CliError> {
        if self.json()? {
            return say(indented(&String::from_utf8_lossy(body), "    "));
        }
        let object = serde_json::from_slice(body).map_err(|error| {
            CliError(format!("the server's answer is not as expected: {error}"))
        })?;
        say(pretty(&object, self.meta).trim_end_matches('\n'))
    }

    pub(super) fn json(&self) -> Result<bool, CliError> {
        self.format.json()
    }
}

/// A policy or role that another object has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Link {
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub(super) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ServiceIdentity {
    pub(super) service_name: String,
    #[serde(
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(super) datacenters: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NodeIdentity {
    pub(super) node_name: String,
    pub(super) datacenter: String,
}

/// What a token or role may do: by policies, and by being a service or node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Grants {
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) policies: Vec<Link>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) service_identities: Vec<ServiceIdentity>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) node_identities: Vec<NodeIdentity>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Token {
    #[serde(rename = "AccessorID")]
    pub(super) accessor_id: String,
    #[serde(rename = "SecretID")]
    pub(super) secret_id: String,
    pub(super) description: String,
    #[serde(flatten)]
    pub(super) grants: Grants,
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) roles: Vec<Link>,
    pub(super) local: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) auth_method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expiration_time: Option<String>,
    #[serde(skip_serializing)]
    create_time: String,
    #[serde(flatten)]
    pub(super) meta: Meta,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Policy {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) rules: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(super) datacenters: Vec<String>,
    #[serde(flatten)]
    pub(super) meta: Meta,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Role {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
    #[serde(flatten)]
    pub(super) grants: Grants,
    #[serde(flatten)]
    pub(super) meta: Meta,
}

/// What belongs to the server; it is shown, and not sent back.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Meta {
    #[serde(skip_serializing, deserialize_with = "null_is_empty")]
    hash: String,
    #[serde(skip_serializing)]
    create_index: u64,
    #[serde(skip_serializing)]
    modify_index: u64,
}

impl Meta {
    fn lines(&self, width: usize) -> String {
        let hash: String = STANDARD
            .decode(&self.hash)
            .unwrap_or_default()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        line("Hash", &hash, width)
            + &line("Create Index", &self.create_index.to_string(), width)
            + &line("Modify Index", &self.modify_index.to_string(), width)
    }
}

/// `Name:   value`, the value at a column.
fn line(name: &str, value: &str, width: usize) -> String {
    format!("{:width$}{value}\n", format!("{name}:"))
}

fn links(heading: &str, links: &[Link], indent: &str) -> String {
    let mut out = String::new();
    if !links.is_empty() {
        out.push_str(&format!("{indent}{heading}:\n"));
    }
    for link in links {
        out.push_str(&format!("{indent}   {} - {}\n", link.id, link.name));
    }
    out
}

fn identities(grants: &Grants, indent: &str) -> String {
    let mut out = String::new();
    if !grants.service_identities.is_empty() {
        out.push_str(&format!("{indent}Service Identities:\n"));
    }
    for identity in &grants.service_identities {
        let datacenters = match &identity.datacenters[..] {
            [] => "all".to_owned(),
            some => some.join(", "),
        };
        let name = &identity.service_name;
        out.push_str(&format!("{indent}   {name} (Datacenters: {datacenters})\n"));
    }
    if !grants.node_identities.is_empty() {
        out.push_str(&format!("{indent}Node Identities:\n"));
    }
    for identity in &grants.node_identities {
        let (name, datacenter) = (&identity.node_name, &identity.datacenter);
        out.push_str(&format!("{indent}   {name} (Datacenter: {datacenter})\n"));
    }
    out
}

/// Where the values of tokens begin.
const TOKEN_WIDTH: usize = 18;
/// Where those of policies and roles do.
const WIDTH: usize = 14;

pub(super) fn token(token: &Token, meta: bool) -> String {
    let mut out = String::new();
    for (name, value) in [
        ("AccessorID", &token.accessor_id),
        ("SecretID", &token.secret_id),
        ("Description", &token.description),
        ("Local", &token.local.to_string()),
    ] {
        out.push_str(&line(name, value, TOKEN_WIDTH));
    }
    if !token.auth_method.is_empty() {
        out.push_str(&line("Auth Method", &token.auth_method, TOKEN_WIDTH));
    }
    out.push_str(&line("Create Time", &time(&token.create_time), TOKEN_WIDTH));
    if let Some(expires) = &token.expiration_time {
        out.push_str(&line("Expiration Time", &time(expires), TOKEN_WIDTH));
    }
    if meta {
        out.push_str(&token.meta.lines(TOKEN_WIDTH));
    }
    out.push_str(&links("Policies", &token.grants.policies, ""));
    out.push_str(&links("Roles", &token.roles, ""));
    out.push_str(&identities(&token.grants, ""));
    out
}

pub(super) fn policy(policy: &Policy, meta: bool) -> String {
    let mut out = line("ID", &policy.id, WIDTH)
        + &line("Name", &policy.name, WIDTH)
        + &line("Description", &policy.description, WIDTH)
        + &line("Datacenters", &policy.datacenters.join(", "), WIDTH);
    if meta {
        out.push_str(&policy.meta.lines(WIDTH));
    }
    out.push_str(&format!("Rules:\n{}\n", policy.rules));
    out
}

pub(super) fn role(role: &Role, meta: bool) -> String {
    let mut out = line("ID", &role.id, WIDTH)
        + &line("Name", &role.name, WIDTH)
        + &line("Description", &role.description, WIDTH);
    if meta {
        out.push_str(&role.meta.lines(WIDTH));
    }
    out.push_str(&links("Policies", &role.grants.policies, ""));
    out.push_str(&identities(&role.grants, ""));
    out
}

pub(super) fn tokens(tokens: &[Token], meta: bool) -> String {
    let all: Vec<String> = tokens.iter().map(|one| token(one, meta)).collect();
    all.join("\n")
}

pub(super) fn policies(policies: &[Policy], meta: bool) -> String {
    let one = |policy: &Policy| {
        let mut out = format!("{}:\n", policy.name);
        let mut lines = line("ID", &policy.id, WIDTH)
            + &line("Description", &policy.description, WIDTH)
            + &line("Datacenters", &policy.datacenters.join(", "), WIDTH);
        if meta {
            lines.push_str(&policy.meta.lines(WIDTH));
        }
        out.extend(lines.lines().map(|line| format!("   {line}\n")));
        out
    };
    policies.iter().map(one).collect()
}

pub(super) fn roles(roles: &[Role], meta: bool) -> String {
    let one = |role: &Role| {
        let mut out = format!("{}:\n", role.name);
        let mut lines =
            line("ID", &role.id, WIDTH) + &line("Description", &role.description, WIDTH);
        if meta {
            lines.push_str(&role.meta.lines(WIDTH));
        }
        out.extend(lines.lines().map(|line| format!("   {line}\n")));
        out.push_str(&links("Policies", &role.grants.policies, "   "));
        out.push_str(&identities(&role.grants, "   "));
        out
    };
    roles.iter().map(one).collect()
}

/// A time as Go prints it: `2026-01-02 03:04:05.6 +0000 UTC`.
fn time(rfc3339: &str) -> String {
    match rfc3339.strip_suffix('Z') {
        Some(utc) => format!("{} +0000 UTC", utc.replacen('T', " ", 1)),
        None => rfc3339.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_printed_as_consul_prints_it() {
        let json = r#"{"AccessorID":"a-1","SecretID":"s-1","Description":"Bootstrap Token (Global Management)",
            "Policies":[{"ID":"00000000-0000-0000-0000-000000000001","Name":"global-management"}],
            "ServiceIdentities":[{"ServiceName":"web"},{"ServiceName":"db","Datacenters":["dc1","dc2"]}],
            "NodeIdentities":[{"NodeName":"n","Datacenter":"dc1"}],"Roles":null,
            "Local":false,"CreateTime":"2018-10-22T11:27:04.479026Z","Hash":"AP8=","CreateIndex":12,"ModifyIndex":13}"#;
        let read: Token = serde_json::from_str(json).unwrap();
        assert_eq!(
            token(&read, true),
            "AccessorID:       a-1\nSecretID:         s-1\n\
             Description:      Bootstrap Token (Global Management)\nLocal:            false\n\
             Create Time:      2018-10-22 11:27:04.479026 +0000 UTC\n\
             Hash:             00ff\nCreate Index:     12\nModify Index:     13\n\
             Policies:\n   00000000-0000-0000-0000-000000000001 - global-management\n\
             Service Identities:\n   web (Datacenters: all)\n   db (Datacenters: dc1, dc2)\n\
             Node Identities:\n   n (Datacenter: dc1)\n"
        );
        let sent = serde_json::to_value(&read).unwrap();
        assert!(
            sent.get("Hash").is_none() && sent.get("CreateTime").is_none(),
            "{sent}"
        );
        assert_eq!(sent["Policies"][0]["Name"], "global-management");
    }

    #[test]
    fn lists_of_policies_and_roles_are_indented() {
        let list: Vec<Policy> = serde_json::from_str(
            r#"[{"ID":"1","Name":"p","Description":"d","Datacenters":null,"Hash":"","CreateIndex":1,"ModifyIndex":1}]"#,
        )
        .unwrap();
        assert_eq!(
            policies(&list, false),
            "p:\n   ID:           1\n   Description:  d\n   Datacenters:  \n"
        );
        let list: Vec<Role> =
            serde_json::from_str(r#"[{"ID":"2","Name":"r","Policies":[{"ID":"1","Name":"p"}]}]"#)
                .unwrap();
        assert_eq!(
            roles(&list, false),
            "r:\n   ID:           2\n   Description:  \n   Policies:\n      1 - p\n"
        );
    }
}

//! `curia members` and `curia info`: the cluster and the server that is asked.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::{
    CliError,
    client::Client,
    flags::ClientFlags,
    output::{columns, pairs, write_out},
    rows::{none, null_is_empty},
};

/// Exit code when no member matches, as Consul's.
const NOBODY: u8 = 2;

/// Lists the servers of the cluster.
///
///   curia members
///   curia members -detailed
///   curia members -status=alive
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct MembersFlags {
    /// Prints tags instead of columns
    #[arg(long)]
    detailed: bool,
    /// Regular expression that the status must match: alive, leaving, left or failed
    #[arg(long, value_name = "REGEXP", default_value = ".*")]
    status: String,
    /// Members of other datacenters too
    #[arg(long)]
    wan: bool,
    /// Those that match an expression
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Member {
    name: String,
    addr: String,
    port: u16,
    #[serde(deserialize_with = "null_is_empty")]
    tags: BTreeMap<String, String>,
    status: u8,
}

impl Member {
    fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }

    fn status(&self) -> &'static str {
        match self.status {
            0 => "none",
            1 => "alive",
            2 => "leaving",
            3 => "left",
            4 => "failed",
            _ => "unknown",
        }
    }

    fn address(&self) -> String {
        match self.addr.contains(':') {
            true => format!("[{}]:{}", self.addr, self.port),
            false => format!("{}:{}", self.addr, self.port),
        }
    }

    fn row(&self) -> Vec<String> {
        let server = self.tag("role") == "consul";
        let build = match self.tag("build").split(':').next() {
            None | Some("") => "< 0.3",
            Some(build) => build,
        };
        let segment = match (server, self.tag("segment")) {
            (true, _) => "<all>",
            (false, "") => "<default>",
            (false, segment) => segment,
        };
        let kind = match self.tag("role") {
            "consul" => "server",
            "node" => "client",
            _ => "unknown",
        };
        [
            &self.name,
            &*self.address(),
            self.status(),
            kind,
            build,
            self.tag("vsn"),
            self.tag("dc"),
            "default",
            segment,
        ]
        .map(String::from)
        .to_vec()
    }
}

pub(super) fn members(flags: &MembersFlags) -> Result<ExitCode, CliError> {
    none(&flags.args)?;
    let status = regex::Regex::new(&format!("^(?:{})$", flags.status))
        .map_err(|error| CliError(format!("Failed to compile status regexp: {error}")))?;
    let mut query: Vec<String> = Vec::new();
    query.extend(flags.wan.then(|| "wan=1".into()));
    let filter = flags.filter.as_ref();
    query.extend(filter.map(|filter| super::client::pair("filter", filter)));
    let mut members: Vec<Member> = Client::new(&flags.client)?
        .get("/v1/agent/members", &query)
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| CliError(format!("Error retrieving members: {why}")))?;
    members.retain(|member| status.is_match(member.status()));
    if members.is_empty() {
        return Ok(ExitCode::from(NOBODY));
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    write_out(table(&members, flags.detailed).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn table(members: &[Member], detailed: bool) -> String {
    let heading: &[&str] = match detailed {
        true => &["Node", "Address", "Status", "Tags"],
        false => &[
            "Node",
            "Address",
            "Status",
            "Type",
            "Build",
            "Protocol",
            "DC",
            "Partition",
            "Segment",
        ],
    };
    let mut rows = vec![heading.iter().map(|name| (*name).into()).collect()];
    rows.extend(members.iter().map(|member| match detailed {
        false => member.row(),
        true => vec![
            member.name.clone(),
            member.address(),
            member.status().into(),
            pairs(&member.tags),
        ],
    }));
    columns(&rows)
}

/// Prints what the server that is asked says of itself, in groups.
///
///   curia info
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct InfoFlags {
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Itself {
    #[serde(default, deserialize_with = "null_is_empty")]
    stats: BTreeMap<String, BTreeMap<String, Value>>,
}

pub(super) fn info(flags: &InfoFlags) -> Result<(), CliError> {
    none(&flags.args)?;
    let itself: Itself = Client::new(&flags.client)?
        .get("/v1/agent/self", &[])
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| CliError(format!("Error querying agent: {why}")))?;
    let mut out = String::new();
    for (group, facts) in itself.stats {
        out.push_str(&format!("{group}:\n"));
        for (name, fact) in facts {
            let fact = match fact {
                Value::String(text) => text,
                other => other.to_string(),
            };
            out.push_str(&format!("\t{name} = {fact}\n"));
        }
    }
    write_out(out.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stand_in_consuls_columns() {
        let members: Vec<Member> = serde_json::from_str(
            r#"[{"Name":"s1","Addr":"127.0.0.1","Port":8301,"Status":1,
                 "Tags":{"role":"consul","build":"1.21.0:abc","dc":"dc1","vsn":"2"}},
                {"Name":"other","Addr":"::1","Port":1,"Status":4,"Tags":{"role":"node"}}]"#,
        )
        .unwrap();
        assert_eq!(
            table(&members, false),
            "Node   Address         Status  Type    Build   Protocol  DC   Partition  Segment\n\
             s1     127.0.0.1:8301  alive   server  1.21.0  2         dc1  default    <all>\n\
             other  [::1]:1         failed  client  < 0.3                  default    <default>\n"
        );
        assert!(
            table(&members, true).contains("alive   build=1.21.0:abc,dc=dc1,role=consul,vsn=2\n")
        );
    }
}

//! `curia catalog`: datacenters, nodes and services, in Consul's columns.

use std::collections::BTreeMap;

use clap::{ArgAction, Args, Subcommand};
use serde::Deserialize;

use super::{
    CliError,
    client::{Client, pair, path_of},
    flags::ClientFlags,
    output::{columns, pairs, say, write_out},
    rows::{key_value, none, null_is_empty},
};

/// Shows what is registered: datacenters, nodes, services.
#[derive(Debug, Subcommand)]
pub(super) enum CatalogCommand {
    Datacenters(CatalogDatacenters),
    Nodes(CatalogNodes),
    Services(CatalogServices),
}

/// Lists the datacenters.
///
///   curia catalog datacenters
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct CatalogDatacenters {
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Lists the nodes.
///
///   curia catalog nodes
///   curia catalog nodes -service=web -detailed
///   curia catalog nodes -node-meta=rack=7 -filter='Meta.os == "linux"'
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct CatalogNodes {
    /// Prints whole ids, tagged addresses and metadata as well
    #[arg(long)]
    detailed: bool,
    /// Those that offer a service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Sorts by the distance from a node; _agent for the server asked
    #[arg(long, value_name = "NODE")]
    near: Option<String>,
    /// Those with this metadata. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    node_meta: Vec<String>,
    /// Those that match an expression
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// Lists the services.
///
///   curia catalog services -tags
///   curia catalog services -node=s1
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct CatalogServices {
    /// Prints each service's tags beside it
    #[arg(long)]
    tags: bool,
    /// Those of one node, by name or id
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Those on nodes with this metadata. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    node_meta: Vec<String>,
    #[arg(hide = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

pub(super) fn run(command: &CatalogCommand) -> Result<(), CliError> {
    match command {
        CatalogCommand::Datacenters(flags) => datacenters(flags),
        CatalogCommand::Nodes(flags) => nodes(flags),
        CatalogCommand::Services(flags) => services(flags),
    }
}

fn datacenters(flags: &CatalogDatacenters) -> Result<(), CliError> {
    none(&flags.args)?;
    let names: Vec<String> = Client::new(&flags.client)?
        .get("/v1/catalog/datacenters", &[])
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| CliError(format!("Error listing datacenters: {why}")))?;
    say(names.join("\n"))
}

/// A node, or a service's row with what it says of its node.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    datacenter: String,
    #[serde(deserialize_with = "null_is_empty")]
    tagged_addresses: BTreeMap<String, String>,
    #[serde(alias = "NodeMeta", deserialize_with = "null_is_empty")]
    meta: BTreeMap<String, String>,
}

const NO_MATCH: &str = "match the given query - try expanding your search.";

fn node_meta(wanted: &[String]) -> Result<Vec<String>, CliError> {
    wanted
        .iter()
        .map(|text| {
            let (key, value) = key_value("-node-meta", text)?;
            Ok(pair("node-meta", &format!("{key}:{value}")))
        })
        .collect()
}

fn nodes(flags: &CatalogNodes) -> Result<(), CliError> {
    none(&flags.args)?;
    let mut query = node_meta(&flags.node_meta)?;
    query.extend(flags.near.as_ref().map(|near| pair("near", near)));
    query.extend(flags.filter.as_ref().map(|filter| pair("filter", filter)));
    let (path, what) = match &flags.service {
        Some(service) => (path_of("/v1/catalog/service", service), "nodes for service"),
        None => ("/v1/catalog/nodes".into(), "nodes"),
    };
    let mut nodes: Vec<Node> = Client::new(&flags.client)?
        .get(&path, &query)
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| CliError(format!("Error listing {what}: {why}")))?;
    // A node with several instances of the service is one node.
    let mut seen = std::collections::HashSet::new();
    nodes.retain(|node| seen.insert(node.node.clone()));
    match nodes.is_empty() {
        true => say(format!("No nodes {NO_MATCH}")),
        false => write_out(table(&nodes, flags.detailed).as_bytes()),
    }
}

fn table(nodes: &[Node], detailed: bool) -> String {
    let heading = ["Node", "ID", "Address", "DC", "TaggedAddresses", "Meta"];
    let shown = if detailed { 6 } else { 4 };
    let mut rows = vec![heading[..shown].iter().map(|name| (*name).into()).collect()];
    for node in nodes {
        let id = match detailed {
            true => node.id.clone(),
            false => node.id.chars().take(8).collect(),
        };
        let mut row = vec![
            node.node.clone(),
            id,
            node.address.clone(),
            node.datacenter.clone(),
            pairs(&node.tagged_addresses),
            pairs(&node.meta),
        ];
        row.truncate(shown);
        rows.push(row);
    }
    columns(&rows)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Instance {
    service: String,
    #[serde(deserialize_with = "null_is_empty")]
    tags: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct OfNode {
    #[serde(deserialize_with = "null_is_empty")]
    services: BTreeMap<String, Instance>,
}

fn services(flags: &CatalogServices) -> Result<(), CliError> {
    none(&flags.args)?;
    let client = Client::new(&flags.client)?;
    let query = node_meta(&flags.node_meta)?;
    let services: BTreeMap<String, Vec<String>> = match &flags.node {
        None => client
            .get("/v1/catalog/services", &query)
            .and_then(|reply| reply.json())
            .map_err(|CliError(why)| CliError(format!("Error listing services: {why}")))?,
        Some(node) => of_node(&client, node, &query)?,
    };
    if services.is_empty() {
        return say(format!("No services {NO_MATCH}"));
    }
    let width = services.keys().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0) + 6;
    let lines: Vec<String> = services
        .into_iter()
        .map(|(name, mut tags)| match flags.tags {
            false => name,
            true => {
                tags.sort();
                let line = format!("{name:width$}{}", tags.join(","));
                line.trim_end().to_owned()
            }
        })
        .collect();
    say(lines.join("\n"))
}

fn of_node(
    client: &Client,
    node: &str,
    query: &[String],
) -> Result<BTreeMap<String, Vec<String>>, CliError> {
    let found: Option<OfNode> = client
        .get(&path_of("/v1/catalog/node", node), query)
        .and_then(|reply| reply.json())
        .map_err(|CliError(why)| CliError(format!("Error listing services for node: {why}")))?;
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for instance in found.unwrap_or_default().services.into_values() {
        let tags = services.entry(instance.service).or_default();
        tags.extend(instance.tags);
        tags.sort();
        tags.dedup();
    }
    Ok(services)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stand_in_consuls_columns() {
        let nodes: Vec<Node> = serde_json::from_str(
            r#"[{"ID":"1b662d97-8b5c-4cc2-0ac0-96f55ad423b5","Node":"worker-01","Address":"10.4.5.31","Datacenter":"dc1",
                 "TaggedAddresses":{"wan":"10.4.5.31","lan":"10.4.5.31"},"Meta":null},
                {"ID":"","Node":"w2","Address":"10.4.5.2","Datacenter":"dc1","TaggedAddresses":null,"NodeMeta":{"a":"b"}}]"#,
        )
        .unwrap();
        assert_eq!(
            table(&nodes, false),
            "Node       ID        Address    DC\n\
             worker-01  1b662d97  10.4.5.31  dc1\n\
             w2                   10.4.5.2   dc1\n"
        );
        assert_eq!(
            table(&nodes, true),
            "Node       ID                                    Address    DC   TaggedAddresses              Meta\n\
             worker-01  1b662d97-8b5c-4cc2-0ac0-96f55ad423b5  10.4.5.31  dc1  lan=10.4.5.31,wan=10.4.5.31\n\
             w2                                               10.4.5.2   dc1                               a=b\n"
        );
    }
}

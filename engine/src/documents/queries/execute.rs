//! Which instances does a prepared query find?
//!
//! Those of its service that no check of theirs or of their node's speaks against, narrowed by tags
//! and meta. Their order is random, so that askers spread over them, unless a node to be near to is
//! known: then the nearest come first, and of all that node itself. What is random is drawn by
//! whoever asks, and comes with the question.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::definition::{Definition, Dns, ServiceQuery};
use crate::{
    documents::catalog::{Checked, Instances, Narrow, ShownHealth, checked, nearest_first},
    state::{
        Tables,
        records::{Check, Service},
        tree::Keyed,
    },
};

/// How a query is executed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// The query's id, its name, or a name that a template stands for.
    pub asked: String,
    /// What speaks for the service in the mesh, whatever the query says.
    pub connect: bool,
    /// The node to be near to, in place of the query's; `_ip` for the one with this `ip`.
    pub near: String,
    /// The node whose agent asks: `_agent`.
    pub agent: String,
    /// The address that the request came from.
    pub ip: String,
    /// Instances at most; 0 for all.
    pub limit: u64,
    /// Decides the order of what is equally near.
    pub seed: u64,
    /// This datacenter.
    pub datacenter: String,
}

/// Consul: `structs.PreparedQueryExecuteResponse`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Executed<'s> {
    service: &'s str,
    nodes: Vec<ShownHealth<'s>>,
    #[serde(rename = "DNS")]
    dns: &'s Dns,
    datacenter: &'s str,
    /// Of clusters that share services; empty here.
    peer_name: &'static str,
    /// How many other datacenters were asked: there is none to ask.
    failovers: u64,
}

impl<'s> Executed<'s> {
    pub(super) fn new(query: &'s Definition, how: &'s Execution, found: &'s [Checked]) -> Self {
        Self {
            service: &query.service.service,
            nodes: found.iter().map(ShownHealth::of).collect(),
            dns: &query.dns,
            datacenter: &how.datacenter,
            peer_name: "",
            failovers: 0,
        }
    }
}

/// The instances that a query finds, in order.
pub(super) fn found(tables: &Tables, query: &ServiceQuery, how: &Execution) -> Vec<Checked> {
    let narrow = Narrow {
        node_meta: query.node_meta.clone().into_iter().collect(),
        ..Narrow::default()
    };
    let instances = Instances {
        service: query.service.clone(),
        connect: query.connect || how.connect,
        ..Instances::default()
    };
    let mut found = checked(tables, &narrow, &instances);
    found.retain(|(_, service, checks)| {
        checks.iter().all(|check| permits(query, check)) && fits(query, service)
    });
    found.sort_by_cached_key(|(_, service, _)| xxh3_64_with_seed(service.key(), how.seed));
    if let Some(near) = near(tables, query, how) {
        nearest_first(tables, &near, &mut found, |(node, ..)| &node.node);
        // Stable: the others keep their order.
        found.sort_by_key(|(node, ..)| !node.node.eq_ignore_ascii_case(&near));
    }
    if how.limit > 0 {
        found.truncate(usize::try_from(how.limit).unwrap_or(usize::MAX));
    }
    found
}

/// Whether a check leaves its instance in.
fn permits(query: &ServiceQuery, check: &Check) -> bool {
    let speaks_against = match query.only_passing {
        true => check.status != "passing",
        false => check.status == "critical",
    };
    !speaks_against || query.ignore_check_ids.contains(&check.check_id)
}

/// Whether an instance has the tags and the meta.
fn fits(query: &ServiceQuery, service: &Service) -> bool {
    let tags: Vec<String> = service.tags.iter().map(|tag| tag.to_lowercase()).collect();
    let has_tags = query.tags.iter().all(|wanted| {
        let wanted = wanted.to_lowercase();
        match wanted.strip_prefix('!') {
            Some(forbidden) => !tags.iter().any(|tag| tag == forbidden),
            None => tags.contains(&wanted),
        }
    });
    let mut pairs = query.service_meta.iter();
    has_tags && pairs.all(|(key, value)| service.meta.get(key) == Some(value))
}

/// The node to be near to.
fn near(tables: &Tables, query: &ServiceQuery, how: &Execution) -> Option<String> {
    let wanted = match &*how.near {
        "" => &query.near,
        given => given,
    };
    match wanted {
        "" => None,
        "_agent" => Some(how.agent.clone()),
        "_ip" => by_address(tables, &how.ip),
        node => Some(node.to_owned()),
    }
}

fn by_address(tables: &Tables, ip: &str) -> Option<String> {
    let mut found = None;
    let mut cursor = tables.nodes.view().cursor();
    while cursor.scan(|node| {
        if !ip.is_empty() && node.address == ip {
            found = Some(node.node.clone());
        }
        found.is_none()
    }) && found.is_none()
    {}
    found
}

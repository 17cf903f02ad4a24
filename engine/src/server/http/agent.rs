//! What does this server say of itself and its cluster?
//!
//! `/v1/status/*`, `/v1/operator/raft/configuration` and `/v1/agent/*`, in Consul's shapes. Rarely
//! asked, so these go through serde.

use std::{collections::BTreeMap, time::SystemTime};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use wire::ClusterStatus;

use super::json::Style;
use crate::server::gateway::ServerInfo;

/// Raft protocol version that Consul's clients know; ours has no others.
const RAFT_PROTOCOL: &str = "3";

pub(super) fn document(value: &impl Serialize, style: Style) -> Bytes {
    let mut out = Vec::with_capacity(256);
    let written = match style {
        Style::Compact => serde_json::to_writer(&mut out, value),
        Style::Pretty => {
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
            value.serialize(&mut serializer)
        }
    };
    written.expect("strings and numbers into memory");
    style.end(&mut out);
    out.into()
}

/// `"127.0.0.1:8300"`, or `""` while no leader is known.
pub(super) fn leader(status: &ClusterStatus, style: Style) -> Bytes {
    document(&status.leader, style)
}

/// Addresses of the peer set.
pub(super) fn peers(status: &ClusterStatus, style: Style) -> Bytes {
    let peers: Vec<&str> = status
        .members
        .iter()
        .map(|member| &*member.address)
        .collect();
    document(&peers, style)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RaftServer<'a> {
    #[serde(rename = "ID")]
    id: String,
    node: &'a str,
    address: &'a str,
    leader: bool,
    protocol_version: &'static str,
    voter: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RaftConfiguration<'a> {
    servers: Vec<RaftServer<'a>>,
    index: u64,
}

/// The peer set, with Consul's `Index` of 0.
pub(super) fn raft_configuration(status: &ClusterStatus, style: Style) -> Bytes {
    let servers = status
        .members
        .iter()
        .map(|member| RaftServer {
            id: member.node_id.to_string(),
            node: if member.name.is_empty() {
                "(unknown)"
            } else {
                &member.name
            },
            address: &member.address,
            leader: member.leader,
            protocol_version: RAFT_PROTOCOL,
            voter: member.voter,
        })
        .collect();
    document(&RaftConfiguration { servers, index: 0 }, style)
}

/// `/v1/agent/self`: what client libraries read at their start, and `consul info`'s groups.
pub(super) fn this(info: &ServerInfo, status: &ClusterStatus, style: Style) -> Bytes {
    let me = status
        .members
        .iter()
        .find(|member| member.node_id.to_string() == info.node_id);
    let leads = me.is_some_and(|member| member.leader);
    let (address, port) = info
        .server_address
        .rsplit_once(':')
        .unwrap_or((&info.server_address, "0"));
    let voters = status.members.iter().filter(|member| member.voter).count();
    document(
        &json!({
            "Config": {
                "Datacenter": info.datacenter,
                "PrimaryDatacenter": info.datacenter,
                "NodeName": info.node_name,
                "NodeID": info.node_id,
                "Revision": info.revision,
                "Server": true,
                "Version": info.version,
            },
            "DebugConfig": {
                "DevMode": info.dev_mode,
                "Executors": info.executors,
                "HTTPAddr": info.http_address,
                "ServerAddr": info.server_address,
                "Shards": info.shards,
            },
            "Coord": Value::Null,
            "Member": {
                "Name": info.node_name,
                "Addr": address.trim_matches(['[', ']']),
                "Port": port.parse::<u16>().unwrap_or_default(),
                "Tags": {
                    "build": info.version,
                    "dc": info.datacenter,
                    "id": info.node_id,
                    "port": port,
                    "raft_vsn": RAFT_PROTOCOL,
                    "role": "consul",
                },
                "Status": 1,
            },
            "Stats": {
                "agent": { "check_monitors": "0", "check_ttls": "0", "checks": "0", "services": "0" },
                "build": { "revision": info.revision, "version": info.version },
                "consul": {
                    "leader": leads.to_string(),
                    "leader_addr": status.leader,
                    "server": "true",
                },
                "raft": {
                    "applied_index": status.applied.to_string(),
                    "commit_index": status.commit.to_string(),
                    "num_peers": voters.saturating_sub(1).to_string(),
                    "protocol_version": RAFT_PROTOCOL,
                    "state": if leads { "Leader" } else { "Follower" },
                    "term": status.term.to_string(),
                },
                "runtime": { "arch": std::env::consts::ARCH, "os": std::env::consts::OS },
            },
            "Meta": info.node_meta,
            "xDS": Value::Null,
        }),
        style,
    )
}

/// `/v1/agent/version`.
pub(super) fn version(info: &ServerInfo, style: Style) -> Bytes {
    #[derive(Serialize)]
    struct Version<'a> {
        #[serde(rename = "SHA")]
        sha: &'a str,
        #[serde(rename = "HumanVersion")]
        human_version: &'a str,
        #[serde(rename = "FIPS")]
        fips: &'a str,
    }
    document(
        &Version {
            sha: &info.revision,
            human_version: &info.version,
            fips: "",
        },
        style,
    )
}

/// `/v1/agent/metrics`: everything as gauges, since a scraper takes differences itself.
pub(super) fn metrics(metrics: &BTreeMap<String, f64>, now: SystemTime, style: Style) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Gauge<'a> {
        name: &'a str,
        value: f64,
        labels: BTreeMap<String, String>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Metrics<'a> {
        timestamp: String,
        gauges: Vec<Gauge<'a>>,
        points: [(); 0],
        counters: [(); 0],
        samples: [(); 0],
    }
    let timestamp = humantime::format_rfc3339_seconds(now).to_string();
    let gauges = metrics
        .iter()
        .map(|(name, value)| Gauge {
            name,
            value: *value,
            labels: BTreeMap::new(),
        })
        .collect();
    let timestamp = timestamp.replace('T', " ").replace('Z', " +0000 UTC");
    document(
        &Metrics {
            timestamp,
            gauges,
            points: [],
            counters: [],
            samples: [],
        },
        style,
    )
}

//! What does this server say of itself and its cluster?
//!
//! `/v1/status/*`, `/v1/operator/raft/configuration` and `/v1/agent/*`, in Consul's shapes. Rarely
//! asked, so these go through serde.

use std::{collections::BTreeMap, time::SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::ClusterStatus;

use super::json::Style;
use crate::{filter::Filter, server::gateway::ServerInfo};

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

/// How much is registered with the agent.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Counts {
    services: usize,
    checks: usize,
    ttls: usize,
    monitors: usize,
}

/// A server as Consul's gossip would show it. Status 1 is alive, 4 failed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MemberRow {
    name: String,
    addr: String,
    port: u16,
    tags: BTreeMap<&'static str, String>,
    status: u8,
    protocol_min: u8,
    protocol_max: u8,
    protocol_cur: u8,
    delegate_min: u8,
    delegate_max: u8,
    delegate_cur: u8,
}

impl MemberRow {
    fn new(info: &ServerInfo, id: &str, name: &str, address: &str, alive: bool) -> Self {
        let (ip, port) = address.rsplit_once(':').unwrap_or((address, "0"));
        let tags = [
            ("acls", "0"),
            ("build", &info.version),
            ("dc", &info.datacenter),
            ("ft_fs", "1"),
            ("ft_si", "1"),
            ("id", id),
            ("port", port),
            ("raft_vsn", RAFT_PROTOCOL),
            ("role", "consul"),
            ("segment", ""),
            ("vsn", "2"),
            ("vsn_max", "3"),
            ("vsn_min", "2"),
        ];
        Self {
            name: name.to_owned(),
            addr: ip.trim_matches(['[', ']']).to_owned(),
            port: port.parse().unwrap_or_default(),
            tags: tags.map(|(name, value)| (name, value.to_owned())).into(),
            status: if alive { 1 } else { 4 },
            protocol_min: 1,
            protocol_max: 5,
            protocol_cur: 2,
            delegate_min: 2,
            delegate_max: 5,
            delegate_cur: 4,
        }
    }

    /// This server, also before there is a cluster that lists it.
    fn own(info: &ServerInfo, status: &ClusterStatus) -> Self {
        let listed = status
            .members
            .iter()
            .find(|member| member.node_id.to_string() == info.node_id);
        let address = listed.map_or(&info.server_address, |member| &member.address);
        Self::new(info, &info.node_id, &info.node_name, address, true)
    }
}

/// `/v1/agent/members`: the peer set. `failed` are names of those whose `serfHealth` is critical.
pub(super) fn members(
    info: &ServerInfo,
    status: &ClusterStatus,
    failed: &[String],
    filter: &Filter,
    style: Style,
) -> Bytes {
    let mut rows: Vec<MemberRow> = status
        .members
        .iter()
        .map(|member| {
            let alive = !failed.contains(&member.name);
            let id = member.node_id.to_string();
            MemberRow::new(info, &id, &member.name, &member.address, alive)
        })
        .collect();
    if rows.is_empty() {
        rows.push(MemberRow::own(info, status));
    }
    rows.retain(|row| {
        filter.is_empty() || serde_json::to_value(row).is_ok_and(|row| filter.matches(&row))
    });
    document(&rows, style)
}

/// The peer set as `consul info` shows it.
fn configuration_text(status: &ClusterStatus) -> String {
    let servers: Vec<String> = status
        .members
        .iter()
        .map(|member| {
            let suffrage = if member.voter { "Voter" } else { "Nonvoter" };
            format!(
                "{{Suffrage:{suffrage} ID:{} Address:{}}}",
                member.node_id, member.address
            )
        })
        .collect();
    format!("[{}]", servers.join(" "))
}

/// `/v1/agent/host`: what can be read of the machine without a privilege.
pub(super) fn host(style: Style) -> Bytes {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let kib = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let uptime = read("/proc/uptime");
    let uptime = uptime.split('.').next().and_then(|s| s.parse::<u64>().ok());
    document(
        &json!({
            "Memory": {
                "total": kib("MemTotal"),
                "available": kib("MemAvailable"),
                "free": kib("MemFree"),
            },
            "CPU": std::thread::available_parallelism().map_or(1, usize::from),
            "Host": {
                "hostname": read("/proc/sys/kernel/hostname").trim(),
                "os": std::env::consts::OS,
                "kernelVersion": read("/proc/sys/kernel/osrelease").trim(),
                "kernelArch": std::env::consts::ARCH,
                "uptime": uptime,
            },
            "CollectionTime": SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos() as u64),
            "Errors": Value::Null,
        }),
        style,
    )
}

/// `/v1/agent/self`: what client libraries read at their start, and `consul info`'s groups.
pub(super) fn this(
    info: &ServerInfo,
    status: &ClusterStatus,
    counts: &Counts,
    style: Style,
) -> Bytes {
    let me = status
        .members
        .iter()
        .find(|member| member.node_id.to_string() == info.node_id);
    let leads = me.is_some_and(|member| member.leader);
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
            "Member": MemberRow::own(info, status),
            "Stats": {
                "agent": {
                    "check_monitors": counts.monitors.to_string(),
                    "check_ttls": counts.ttls.to_string(),
                    "checks": counts.checks.to_string(),
                    "services": counts.services.to_string(),
                },
                "build": { "revision": info.revision, "version": info.version },
                "consul": {
                    "bootstrap": (voters == 1).to_string(),
                    "known_datacenters": "1",
                    "leader": leads.to_string(),
                    "leader_addr": status.leader,
                    "server": "true",
                },
                "raft": {
                    "applied_index": status.applied.to_string(),
                    "commit_index": status.commit.to_string(),
                    "latest_configuration": configuration_text(status),
                    "latest_configuration_index": "0",
                    "num_peers": voters.saturating_sub(1).to_string(),
                    "protocol_version": RAFT_PROTOCOL,
                    "protocol_version_max": RAFT_PROTOCOL,
                    "protocol_version_min": RAFT_PROTOCOL,
                    "state": if leads { "Leader" } else { "Follower" },
                    "term": status.term.to_string(),
                },
                "runtime": {
                    "arch": std::env::consts::ARCH,
                    "cpu_count": std::thread::available_parallelism().map_or(1, usize::from).to_string(),
                    "os": std::env::consts::OS,
                },
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

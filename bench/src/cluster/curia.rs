//! How is curia started, asked and spoken to?
//!
//! By the flags and paths that Consul has, so this would load Consul just as well.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::BytesMut;
use serde_json::Value;

use super::{Node, Status};
use crate::http::{self, Response};
use crate::load::{Consistency, Dialect, Op, Verdict};
use crate::{Error, Result};

/// Port of the HTTP API.
pub const HTTP_PORT: u16 = 8500;
/// Port that servers and native clients speak frames on.
pub const SERVER_PORT: u16 = 8300;

/// The command that starts one server. Executors are not pinned one per core but fixed to one,
/// because all servers of a run share the cores.
pub fn command(binary: &Path, node: &Node, nodes: &[Node]) -> Command {
    let join: Vec<String> = nodes
        .iter()
        .map(|n| n.at(SERVER_PORT).to_string())
        .collect();
    let mut command = Command::new(binary);
    command
        .arg("agent")
        .arg("-server")
        .arg(format!("-bootstrap-expect={}", nodes.len()))
        .arg(format!("-retry-join={}", join.join(",")))
        .arg(format!("-node={}", node.name()))
        .arg(format!("-bind={}", node.ip))
        .arg(format!("-client={}", node.ip))
        .arg(format!("-http-port={HTTP_PORT}"))
        .arg(format!("-server-port={SERVER_PORT}"))
        .arg(format!("-data-dir={}", node.data_dir.display()))
        .arg("-executors=1");
    command
}

/// Asks `/v1/status/*`.
pub fn status(node: &Node, nodes: &[Node], timeout: Duration) -> Result<Status> {
    let host = node.at(HTTP_PORT);
    let leader = json(host, "/v1/status/leader", timeout)?;
    let peers = json(host, "/v1/status/peers", timeout)?;
    let leader: Option<SocketAddr> = leader.as_str().and_then(|text| text.parse().ok());
    Ok(Status {
        leader: nodes.iter().position(|n| Some(n.at(SERVER_PORT)) == leader),
        members: peers.as_array().map(Vec::len),
        term: metrics(node, timeout)
            .ok()
            .and_then(|m| m.get("curia.raft.term"))
            .map(|term| term as u64),
    })
}

/// Gauges of one server.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Value);

impl Metrics {
    /// The value of the gauge `name`; `None` if the server has none of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0["Gauges"]
            .as_array()?
            .iter()
            .find(|gauge| gauge["Name"] == name)?["Value"]
            .as_f64()
    }
}

/// Reads `/v1/agent/metrics`.
pub fn metrics(node: &Node, timeout: Duration) -> Result<Metrics> {
    metrics_at(node.at(HTTP_PORT), timeout)
}

/// The same of the server at this HTTP address.
pub fn metrics_at(host: SocketAddr, timeout: Duration) -> Result<Metrics> {
    json(host, "/v1/agent/metrics", timeout).map(Metrics)
}

fn json(host: SocketAddr, path: &str, timeout: Duration) -> Result<Value> {
    let response = http::fetch(host, &http::get(path, host), timeout)?;
    if response.status != 200 {
        let body = String::from_utf8_lossy(&response.body).into_owned();
        return Err(Error::Server(format!(
            "{host}{path}: {} {body}",
            response.status
        )));
    }
    serde_json::from_slice(&response.body)
        .map_err(|e| Error::Server(format!("{host}{path}: not JSON: {e}")))
}

/// Consul's KV API.
#[derive(Clone, Copy, Debug, Default)]
pub struct KvDialect;

impl Dialect for KvDialect {
    fn put(&self, host: SocketAddr, key: &[u8], value: &[u8], out: &mut BytesMut) {
        encode("PUT", host, key, "", Some(value), out);
    }

    fn get(&self, host: SocketAddr, key: &[u8], consistency: Consistency, out: &mut BytesMut) {
        let query = match consistency {
            Consistency::Default => "",
            Consistency::Consistent => "?consistent",
            Consistency::Stale => "?stale",
        };
        encode("GET", host, key, query, None, out);
    }

    fn judge(&self, op: Op, response: &Response) -> Verdict {
        match (op, response.status) {
            (Op::Put, 200) if response.body == b"true" => Verdict::Done,
            (Op::Get, 200) if !response.body.is_empty() => Verdict::Done,
            (_, status) => {
                let body = String::from_utf8_lossy(&response.body);
                let reason: String = body.chars().take(80).collect();
                Verdict::Failed(format!("{status} {reason}"))
            }
        }
    }
}

/// Keys of the ledger are URL-safe, so that nothing needs escaping.
fn encode(
    method: &str,
    host: SocketAddr,
    key: &[u8],
    query: &str,
    body: Option<&[u8]>,
    out: &mut BytesMut,
) {
    use std::fmt::Write;
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b" /v1/kv/");
    out.extend_from_slice(key);
    // Writing into a buffer that grows cannot fail.
    let _ = write!(out, "{query} HTTP/1.1\r\nHost: {host}\r\n");
    if let Some(body) = body {
        let _ = write!(out, "Content-Length: {}\r\n", body.len());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_consul_clients_send() {
        let host = "127.0.0.1:8500".parse().unwrap();
        let mut out = BytesMut::new();
        KvDialect.put(host, b"a/b", b"value", &mut out);
        assert_eq!(
            String::from_utf8(out.to_vec()).unwrap(),
            "PUT /v1/kv/a/b HTTP/1.1\r\nHost: 127.0.0.1:8500\r\nContent-Length: 5\r\n\r\nvalue"
        );
        let mut out = BytesMut::new();
        KvDialect.get(host, b"a", Consistency::Stale, &mut out);
        assert_eq!(
            &out[..],
            b"GET /v1/kv/a?stale HTTP/1.1\r\nHost: 127.0.0.1:8500\r\n\r\n"
        );
    }

    #[test]
    fn only_a_plain_yes_is_a_commit() {
        let answer = |status, body: &[u8]| Response {
            status,
            body: body.to_vec(),
            close: false,
            index: 0,
        };
        assert_eq!(
            KvDialect.judge(Op::Put, &answer(200, b"true")),
            Verdict::Done
        );
        for (status, body) in [
            (200, &b"false"[..]),
            (200, b""),
            (500, b"No cluster leader"),
            (204, b""),
        ] {
            assert_ne!(
                KvDialect.judge(Op::Put, &answer(status, body)),
                Verdict::Done
            );
        }
        assert_ne!(KvDialect.judge(Op::Get, &answer(404, b"")), Verdict::Done);
    }

    #[test]
    fn gauges_are_found_by_name_and_missing_ones_are_not_zero() {
        let text = r#"{"Gauges":[{"Name":"curia.raft.term","Value":7,"Labels":{}},{"Name":"x","Value":1.5}]}"#;
        let metrics = Metrics(serde_json::from_str(text).unwrap());
        assert_eq!(metrics.get("curia.raft.term"), Some(7.0));
        assert_eq!(metrics.get("curia.log.batches"), None);
        assert_eq!(Metrics::default().get("x"), None);
    }
}

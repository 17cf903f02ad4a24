//! How is etcd started, asked and spoken to?
//!
//! Its native protocol is gRPC; `load::grpc` speaks the little of it that a load needs. The JSON
//! gateway is here for probes and verification, and as a second, slower way to load it: inside
//! etcd the gateway is a gRPC client of its own server.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use serde_json::Value;

use super::{Node, Status};
use crate::http::{self, Response};
use crate::load::{Consistency, Dialect, Op, Verdict};
use crate::{Error, Result};

/// Port of the client API, gRPC and JSON alike.
pub const CLIENT_PORT: u16 = 2379;
/// Port that servers talk to each other on.
pub const PEER_PORT: u16 = 2380;

/// The command that starts one server, with etcd's defaults but for a quota that a benchmark
/// does not reach (the default of 2 GiB makes it refuse writes).
pub fn command(binary: &Path, node: &Node, nodes: &[Node]) -> Command {
    let url = |port| format!("http://{}", node.at(port));
    let peers: Vec<String> = nodes
        .iter()
        .map(|n| format!("{}=http://{}", n.name(), n.at(PEER_PORT)))
        .collect();
    let mut command = Command::new(binary);
    command
        .arg(format!("--name={}", node.name()))
        .arg(format!("--data-dir={}", node.data_dir.display()))
        .arg(format!("--listen-peer-urls={}", url(PEER_PORT)))
        .arg(format!("--initial-advertise-peer-urls={}", url(PEER_PORT)))
        .arg(format!("--listen-client-urls={}", url(CLIENT_PORT)))
        .arg(format!("--advertise-client-urls={}", url(CLIENT_PORT)))
        .arg(format!("--initial-cluster={}", peers.join(",")))
        .arg("--initial-cluster-state=new")
        .arg("--quota-backend-bytes=8589934592")
        .arg("--logger=zap")
        .arg("--log-level=warn");
    command
}

/// Asks `Maintenance.Status`. It tells who leads only by member id, so every server is asked
/// whether that is its own.
pub fn status(node: &Node, nodes: &[Node], timeout: Duration) -> Result<Status> {
    let own = post(
        node.at(CLIENT_PORT),
        "/v3/maintenance/status",
        "{}",
        timeout,
    )?;
    let leader = own["leader"].as_str().filter(|id| *id != "0");
    let leader = leader.and_then(|id| {
        let is_it = |other: &&Node| match other.position == node.position {
            true => own["header"]["member_id"] == id,
            false => post(
                other.at(CLIENT_PORT),
                "/v3/maintenance/status",
                "{}",
                timeout,
            )
            .is_ok_and(|s| s["header"]["member_id"] == id),
        };
        nodes.iter().find(is_it).map(|n| n.position)
    });
    Ok(Status {
        leader,
        members: None,
        term: own["raftTerm"].as_str().and_then(|t| t.parse().ok()),
    })
}

fn post(host: SocketAddr, path: &str, body: &str, timeout: Duration) -> Result<Value> {
    let request = http::request("POST", path, host, body.as_bytes());
    let response = http::fetch(host, &request, timeout)?;
    if response.status != 200 {
        return Err(Error::Server(format!(
            "{host}{path}: status {}",
            response.status
        )));
    }
    serde_json::from_slice(&response.body)
        .map_err(|e| Error::Server(format!("{host}{path}: not JSON: {e}")))
}

/// The value in the answer to a range request by JSON; `None` where the key does not exist.
pub fn value_of(body: &[u8]) -> Option<Vec<u8>> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    STANDARD.decode(answer["kvs"][0]["value"].as_str()?).ok()
}

/// etcd's JSON gateway.
#[derive(Clone, Copy, Debug, Default)]
pub struct GatewayDialect;

impl Dialect for GatewayDialect {
    fn put(&self, host: SocketAddr, key: &[u8], value: &[u8], out: &mut BytesMut) {
        let body = format!(
            r#"{{"key":"{}","value":"{}"}}"#,
            STANDARD.encode(key),
            STANDARD.encode(value)
        );
        http::encode_request("POST", "/v3/kv/put", host, body.as_bytes(), out);
    }

    fn get(&self, host: SocketAddr, key: &[u8], consistency: Consistency, out: &mut BytesMut) {
        let body = format!(
            r#"{{"key":"{}","serializable":{}}}"#,
            STANDARD.encode(key),
            consistency == Consistency::Stale
        );
        http::encode_request("POST", "/v3/kv/range", host, body.as_bytes(), out);
    }

    fn judge(&self, op: Op, response: &Response) -> Verdict {
        let found = || response.body.windows(7).any(|w| w == b"\"kvs\":[");
        match (op, response.status) {
            (Op::Put, 200) => Verdict::Done,
            (Op::Get, 200) if found() => Verdict::Done,
            (_, status) => {
                let body = String::from_utf8_lossy(&response.body);
                let reason: String = body.chars().take(80).collect();
                Verdict::Failed(format!("{status} {reason}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_requests_carry_base64() {
        let host = "127.0.0.1:2379".parse().unwrap();
        let mut out = BytesMut::new();
        GatewayDialect.put(host, b"k", b"value", &mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        assert!(text.starts_with("POST /v3/kv/put HTTP/1.1\r\n"));
        assert!(
            text.ends_with("\r\n\r\n{\"key\":\"aw==\",\"value\":\"dmFsdWU=\"}"),
            "{text}"
        );
    }

    #[test]
    fn values_come_out_of_a_range_answer() {
        let found =
            br#"{"header":{"revision":"2"},"kvs":[{"key":"aw==","value":"dmFsdWU="}],"count":"1"}"#;
        assert_eq!(value_of(found).as_deref(), Some(&b"value"[..]));
        assert_eq!(value_of(br#"{"header":{"revision":"2"}}"#), None);
    }
}

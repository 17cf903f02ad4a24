//! How do several servers of one product live on one machine, and die when told to?
//!
//! Each server is a real process with its own loopback address, its own data directory on the
//! measured disk, and its output in a file there. Ports are the same on every address, so a run
//! picks an address block of its own instead of guessing free ports.

pub mod curia;
pub mod etcd;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::guard::{ChildGuard, Scratch};
use crate::{Context, Error, Result};

/// How long a cluster may take until every server knows the same leader.
pub const READY_MAX: Duration = Duration::from_secs(60);
/// Timeout of one probe.
const PROBE_MAX: Duration = Duration::from_secs(2);
/// How long a killed server's addresses are waited for; after that its successor says what is wrong.
const ADDRESSES_FREE_MAX: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// Most servers that fit into an address block beside the floor's.
pub const SERVERS_MAX: usize = 200;

/// Which product, and its executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Product {
    /// This repository's server.
    Curia(PathBuf),
    /// etcd 3.4 or later.
    Etcd(PathBuf),
}

/// What one server says about its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Position of the leader it knows.
    pub leader: Option<usize>,
    /// Size of its peer set, where it says.
    pub members: Option<usize>,
    /// Its raft term, where it says.
    pub term: Option<u64>,
}

/// One server's place: fixed, whether it runs or not.
#[derive(Clone, Debug)]
pub struct Node {
    /// Position in the cluster, from 0.
    pub position: usize,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its data directory.
    pub data_dir: PathBuf,
}

impl Node {
    /// Its address with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddrV4::new(self.ip, port).into()
    }

    /// Its name within the cluster.
    pub fn name(&self) -> String {
        format!("node-{}", self.position + 1)
    }
}

impl Product {
    /// Name for tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Curia(_) => "curia",
            Self::Etcd(_) => "etcd",
        }
    }

    /// Port that clients speak HTTP to.
    pub fn http_port(&self) -> u16 {
        match self {
            Self::Curia(_) => curia::HTTP_PORT,
            Self::Etcd(_) => etcd::CLIENT_PORT,
        }
    }

    fn ports(&self) -> [u16; 2] {
        match self {
            Self::Curia(_) => [curia::HTTP_PORT, curia::SERVER_PORT],
            Self::Etcd(_) => [etcd::CLIENT_PORT, etcd::PEER_PORT],
        }
    }

    fn command(&self, node: &Node, nodes: &[Node]) -> Command {
        match self {
            Self::Curia(binary) => curia::command(binary, node, nodes),
            Self::Etcd(binary) => etcd::command(binary, node, nodes),
        }
    }

    fn status(&self, node: &Node, nodes: &[Node]) -> Result<Status> {
        match self {
            Self::Curia(_) => curia::status(node, nodes, PROBE_MAX),
            Self::Etcd(_) => etcd::status(node, nodes, PROBE_MAX),
        }
    }
}

/// Address block of this run: 127.a.b.0/24 from our process id, so that runs side by side do not
/// meet.
pub fn own_network() -> [u8; 3] {
    let pid = std::process::id();
    [127, 16 + (pid % 200) as u8, 1 + (pid / 200 % 250) as u8]
}

/// Reads `--network 127.5.6`.
pub fn parse_network(text: &str) -> std::result::Result<[u8; 3], String> {
    let parts: Vec<u8> = text.split('.').filter_map(|p| p.parse().ok()).collect();
    match parts[..] {
        [127, b, c] if text.split('.').count() == 3 => Ok([127, b, c]),
        _ => Err(
            "three numbers that begin with 127, e.g. 127.7.1: servers get 127.7.1.1, .2, …".into(),
        ),
    }
}

/// Server processes and their data. Dropping it kills them and removes the data.
pub struct Cluster {
    product: Product,
    nodes: Vec<Node>,
    children: Vec<Option<ChildGuard>>,
    _scratch: Scratch,
}

impl Cluster {
    /// Starts `servers` processes with fresh data under `data_dir`. They are not ready yet.
    pub fn start(
        product: Product,
        servers: usize,
        network: [u8; 3],
        data_dir: &Path,
        keep_data: bool,
    ) -> Result<Self> {
        if servers == 0 || servers > SERVERS_MAX {
            return Err(Error::Usage(format!(
                "a cluster of {servers} servers: choose 1 to {SERVERS_MAX}"
            )));
        }
        let scratch = Scratch::create(data_dir, product.name(), keep_data)?;
        let [a, b, c] = network;
        let nodes: Vec<Node> = (0..servers)
            .map(|position| Node {
                position,
                ip: Ipv4Addr::new(a, b, c, 1 + position as u8),
                data_dir: scratch.path().join(format!("node-{}", position + 1)),
            })
            .collect();
        let mut cluster = Self {
            product,
            children: nodes.iter().map(|_| None).collect(),
            nodes,
            _scratch: scratch,
        };
        for position in 0..servers {
            cluster.start_server(position)?;
        }
        Ok(cluster)
    }

    /// Starts one server on the data that its place has; no effect if it runs.
    pub fn start_server(&mut self, position: usize) -> Result<()> {
        if self.children[position].is_some() {
            return Ok(());
        }
        let node = &self.nodes[position];
        fs::create_dir_all(&node.data_dir)
            .context(|| format!("create {}", node.data_dir.display()))?;
        let log = log_path(node);
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .context(|| format!("create {}", log.display()))?;
        let errors = output
            .try_clone()
            .context(|| "duplicate a descriptor".into())?;
        let mut command = self.product.command(node, &self.nodes);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = ChildGuard::spawn(&mut command)
            .context(|| format!("start {}", command.get_program().to_string_lossy()))?;
        self.children[position] = Some(child);
        Ok(())
    }

    /// `kill -9` of one server; no effect if it does not run.
    ///
    /// Returns once its addresses can be bound again: the kernel ends a killed process's io_uring
    /// instances in the background, and they hold its sockets for some milliseconds longer.
    pub fn kill(&mut self, position: usize) {
        if self.children[position].take().is_none() {
            return;
        }
        let deadline = Instant::now() + ADDRESSES_FREE_MAX;
        for port in self.product.ports() {
            let address = self.nodes[position].at(port);
            while TcpListener::bind(address).is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Which product this is.
    pub fn product(&self) -> &Product {
        &self.product
    }

    /// All places.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Positions of the servers that were started and not killed.
    pub fn running(&self) -> Vec<usize> {
        let started = |p: &usize| self.children[*p].is_some();
        (0..self.nodes.len()).filter(started).collect()
    }

    /// Process ids of the running servers.
    pub fn pids(&self) -> Vec<i32> {
        self.children
            .iter()
            .flatten()
            .map(ChildGuard::pid)
            .collect()
    }

    /// HTTP addresses of all places.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        let port = self.product.http_port();
        self.nodes.iter().map(|node| node.at(port)).collect()
    }

    /// What one server says now.
    pub fn status(&self, position: usize) -> Result<Status> {
        self.product.status(&self.nodes[position], &self.nodes)
    }

    /// The highest raft term that any running server reports.
    pub fn term(&self) -> Option<u64> {
        let terms = self
            .running()
            .into_iter()
            .map(|p| self.status(p).ok()?.term);
        terms.max().flatten()
    }

    /// Waits until all running servers name the same running leader and know the whole peer set,
    /// and returns its position.
    pub fn wait_ready(&mut self) -> Result<usize> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            match self.agreed_leader() {
                Ok(leader) => return Ok(leader),
                Err(why) if Instant::now() > deadline => {
                    return Err(self.failure(&format!("not ready after {READY_MAX:?}: {why}")));
                }
                Err(_) => {}
            }
            self.check_alive()?;
            std::thread::sleep(PROBE_EVERY);
        }
    }

    fn agreed_leader(&self) -> std::result::Result<usize, String> {
        let mut agreed = None;
        let running = self.running();
        for &position in &running {
            let name = self.nodes[position].name();
            let status = self.status(position).map_err(|e| format!("{name}: {e}"))?;
            let leader = status
                .leader
                .ok_or_else(|| format!("{name} knows no leader"))?;
            if !running.contains(&leader) {
                return Err(format!("{name} still takes a killed server for the leader"));
            }
            if status.members.is_some_and(|n| n != self.nodes.len()) {
                return Err(format!("{name} knows {:?} members", status.members));
            }
            match agreed {
                Some(other) if other != leader => return Err("two leaders are named".into()),
                _ => agreed = Some(leader),
            }
        }
        agreed.ok_or_else(|| "no server runs".into())
    }

    /// `Err` with its log if a server that should run has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        let mut ended = None;
        for (position, child) in self.children.iter_mut().enumerate() {
            if let Some(status) = child.as_mut().and_then(ChildGuard::ended) {
                ended = Some((position, status));
            }
        }
        match ended {
            None => Ok(()),
            Some((position, status)) => {
                let name = self.nodes[position].name();
                Err(self.failure(&format!("{name} ended by itself with {status}")))
            }
        }
    }

    /// An error with the last lines that each server wrote, and the last panic before them.
    pub fn failure(&self, what: &str) -> Error {
        let mut text = format!(
            "{} with {} servers: {what}",
            self.product.name(),
            self.nodes.len()
        );
        for node in &self.nodes {
            let log = fs::read_to_string(log_path(node)).unwrap_or_default();
            let shown = last_words(&log);
            if !shown.is_empty() {
                text += &format!("\n--- last lines of {}:\n{}", node.name(), shown.join("\n"));
            }
        }
        Error::Server(text)
    }
}

/// The last lines, and where the last panic speaks further up, its place and message.
fn last_words(log: &str) -> Vec<&str> {
    const LINES: usize = 8;
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines.len().saturating_sub(LINES);
    let mut shown = Vec::new();
    if let Some(at) = lines[..tail]
        .iter()
        .rposition(|line| line.contains("panicked at"))
    {
        shown.extend_from_slice(&lines[at..tail.min(at + 2)]);
        shown.push("…");
    }
    shown.extend_from_slice(&lines[tail..]);
    shown
}

/// Beside the data directory, which belongs to the server alone.
fn log_path(node: &Node) -> PathBuf {
    node.data_dir.with_extension("output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_loopback_blocks() {
        assert_eq!(parse_network("127.5.6"), Ok([127, 5, 6]));
        for bad in ["10.0.0", "127.1", "127.1.2.3", "127.1.x", "127.300.1", ""] {
            assert!(parse_network(bad).is_err(), "{bad}");
        }
        assert_eq!(own_network()[0], 127);
    }

    #[test]
    fn a_server_that_ends_by_itself_is_reported_with_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let product = Product::Etcd("/bin/false".into());
        let mut cluster = Cluster::start(product, 1, own_network(), dir.path(), false).unwrap();
        let text = cluster.wait_ready().unwrap_err().to_string();
        assert!(text.contains("node-1 ended by itself"), "{text}");
        drop(cluster);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "data removed");
    }

    #[test]
    fn a_panic_above_its_backtrace_is_among_the_last_words() {
        let backtrace: String = (0..30).map(|n| format!("  {n}: frame\n")).collect();
        let log =
            format!("started\nthread 'main' panicked at src/x.rs:1:1:\nwhy it did\n{backtrace}");
        let shown = last_words(&log);
        assert_eq!(shown[1], "why it did");
        assert_eq!(shown.len(), 3 + 8);
        assert_eq!(last_words("a\nb\n"), ["a", "b"]);
    }

    #[test]
    fn an_executable_that_does_not_exist_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let product = Product::Curia("/nonexistent/curia".into());
        let text = Cluster::start(product, 1, own_network(), dir.path(), false)
            .err()
            .unwrap()
            .to_string();
        assert!(text.contains("/nonexistent/curia"), "{text}");
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for n in [0, SERVERS_MAX + 1] {
            let product = Product::Curia("curia".into());
            assert!(Cluster::start(product, n, own_network(), dir.path(), false).is_err());
        }
    }
}

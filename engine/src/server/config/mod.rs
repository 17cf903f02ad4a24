//! What was a server told to be?
//!
//! The command line and the configuration files, checked and complete: whoever holds an
//! [`AgentConfig`] need not validate anything again. It lies here, below `cli`, because the server
//! runs on it; only `cli` makes one.

pub mod acl;
mod changes;
pub mod definitions;
pub mod options;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use wire::NodeId;

use super::http::{HttpLimits, HttpRules};
use acl::AclOptions;
pub use changes::Changes;
use definitions::{CheckDefinition, ServiceDefinition};
use options::{AutopilotOptions, TelemetryOptions};

/// How a server without data comes to be part of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootstrapMode {
    /// It waits to be added, or was part of one before (neither `-bootstrap` nor `-bootstrap-expect`).
    None,
    /// It forms a cluster of its own (`-bootstrap`, `-bootstrap-expect=1`, `-dev`).
    Alone,
    /// It forms one with others as soon as so many know each other; 2 to `limits::MEMBERS_MAX`.
    Expect(u16),
}

/// Where a server keeps its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDir {
    /// In a directory made for this run and removed at its end (`-dev`).
    Temporary,
    /// `-data-dir`; created if it does not exist.
    At(PathBuf),
}

/// How an executor learns that a durable write has completed (`log.completion`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogCompletion {
    /// It is woken; costs about 50 µs more and no processor time.
    #[default]
    Eventfd,
    /// It polls while a write is in flight: for processors that are truly its own.
    Poll,
}

/// Options of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// `log.completion`.
    pub completion: LogCompletion,
    /// `log.require_direct`: refuse to start without direct I/O and `RWF_DSYNC` instead of falling
    /// back with a warning.
    pub require_direct: bool,
    /// `log.segment_mb`, in bytes: 1 to 1024 MiB, a multiple of 1 MiB.
    pub segment_bytes: u64,
}

/// Options of consensus and compaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftOptions {
    /// `performance.raft_multiplier`, 1 to 10: scales heartbeat and election timeout.
    pub multiplier: u8,
    /// `raft_snapshot_threshold`: entries since the last image that call for the next one; from 1.
    /// A log that grows fast is also bounded in bytes (`shard::ImageConfig`).
    pub snapshot_threshold: u64,
    /// `raft_snapshot_interval`: how often that is looked at; from 10 ms.
    pub snapshot_interval: Duration,
    /// `raft_trailing_logs`: entries kept behind an image for followers that are a little behind,
    /// in memory and within the entry cache's bound; 0 for none.
    pub trailing_logs: u64,
}

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// On an address and port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// On a socket of the file system (`unix://PATH`).
    Unix(PathBuf),
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// `unix_sockets`: to whom a socket of the file system belongs, and who may use it. `None` leaves
/// what the process and its umask make of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSocketOptions {
    /// `unix_sockets.user`, its number.
    pub user: Option<u32>,
    /// `unix_sockets.group`, its number.
    pub group: Option<u32>,
    /// `unix_sockets.mode`: permission bits.
    pub mode: Option<u32>,
}

/// A checked and complete configuration of `curia agent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// `-dev`: one server for trying things out; also indents HTTP answers.
    pub dev: bool,
    /// `-bootstrap`, `-bootstrap-expect`.
    pub bootstrap: BootstrapMode,
    /// `-retry-join`: `host:port` of servers to find the cluster by, in the order given, each once.
    /// The host may be a name and is not resolved here.
    pub retry_join: Vec<String>,
    /// `retry_interval`: between two complaints of one of them that cannot be resolved. They are
    /// tried more often than that.
    pub retry_interval: Duration,
    /// `-node`: not empty, printable.
    pub node_name: String,
    /// `-node-id`: replaces the one that is made at the first start. Never nil.
    pub node_id: Option<NodeId>,
    /// `node_meta`: at most [`definitions::META_PAIRS_MAX`] pairs.
    pub node_meta: BTreeMap<String, String>,
    /// `-datacenter`: lower-case letters, digits, `-` and `_`.
    pub datacenter: String,
    /// `primary_datacenter`; the datacenter itself where it was not given.
    pub primary_datacenter: String,
    /// `-bind`, `-server-port`: where to listen for servers and native clients. Outgoing
    /// connections leave from its IP unless that is unspecified (0.0.0.0). Port 0 with
    /// `-server-port=-1`: nowhere, which only a server on its own can bear.
    pub server_bind: SocketAddr,
    /// `-advertise`: where other servers reach this one; never unspecified.
    pub server_advertise: SocketAddr,
    /// `-client`, `-http-port`, `addresses.http`: where to listen for HTTP, each once; empty with
    /// `-http-port=-1` unless there is a socket of the file system.
    pub http_addresses: Vec<HttpAddress>,
    /// `unix_sockets`.
    pub unix_sockets: UnixSocketOptions,
    /// `-data-dir`.
    pub data_dir: DataDir,
    /// `-executors`: 1 to [`EXECUTORS_MAX`]; without the flag one per processor.
    pub executors: u16,
    /// Whether `-executors` was given: executors are pinned to processors only if it was not.
    pub executors_chosen: bool,
    /// `-shards`: 1 to `limits::SHARDS_MAX`, counts only when a cluster is formed. `None`: not
    /// given, so 1 for a new cluster, and whatever an existing one has.
    pub shards: Option<u16>,
    /// `log.*`.
    pub log: LogOptions,
    /// `raft_*`, `performance.raft_multiplier`.
    pub raft: RaftOptions,
    /// `performance.rpc_hold_timeout`: how long a request waits for a leader.
    pub rpc_hold_timeout: Duration,
    /// `limits.watch_history_bytes`: changes that each shard remembers for watches, from
    /// [`WATCH_HISTORY_BYTES_MIN`]; 0 switches watches off.
    pub watch_history_bytes: usize,
    /// Bounds of each executor's HTTP service; `limits.*` among them.
    pub http: HttpLimits,
    /// `http_config`: what HTTP requests are let in, and what each answer carries.
    pub http_rules: HttpRules,
    /// `services`, `service`: to be registered at the start; ids differ.
    pub services: Vec<ServiceDefinition>,
    /// `checks`, `check`: to be registered at the start; ids differ.
    pub checks: Vec<CheckDefinition>,
    /// `acl`.
    pub acl: AclOptions,
    /// `autopilot`.
    pub autopilot: AutopilotOptions,
    /// `telemetry`.
    pub telemetry: TelemetryOptions,
    /// `-pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `-log-level`.
    pub log_level: log::LevelFilter,
    /// What was accepted and deserves a word: to be logged as warnings once logging works.
    pub warnings: Vec<String>,
}

impl AgentConfig {
    /// The first address of HTTP that is one of TCP, for those who are told where to find it.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_addresses
            .iter()
            .find_map(|address| match address {
                HttpAddress::Tcp(address) => Some(*address),
                HttpAddress::Unix(_) => None,
            })
    }

    /// Whether there is a port for servers and native clients.
    pub fn listens_for_servers(&self) -> bool {
        self.server_bind.port() != 0
    }
}

/// Shortest TTL of a session unless `session_ttl_min` says otherwise; Consul's.
pub const SESSION_TTL_MIN: Duration = Duration::from_secs(10);
/// What `session_ttl_min` may be at least: the lease clock moves up to 20 ms at once, and a TTL must
/// be several times that (`shard::duties`).
pub const SESSION_TTL_MIN_LEAST: Duration = Duration::from_millis(100);

/// Least memory for the changes of a shard, bytes: any one change fits.
pub const WATCH_HISTORY_BYTES_MIN: usize = 1 << 20;
/// Most executors of a server.
pub const EXECUTORS_MAX: u16 = 256;

//! What can a request handler ask of the cluster?
//!
//! The one seam between the protocols (HTTP, native frames) and the machinery below. Behind it
//! lie routing to the shard's executor, forwarding to the leader, the hold for a leader
//! (Consul `rpc_hold_timeout`) and the lease or quorum check of a read.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use bytes::Bytes;
use wire::{ClusterStatus, Failure, Index, KvChanges, KvRow, KvRowRef, Query, ShardId, TxnResult};

use super::{
    agent::{
        request::{AgentReply, AgentRequest},
        tokens::Tokens,
    },
    config::options::TelemetryOptions,
    meters::Meter,
};

/// A write that is durable on a quorum and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// `false` for a cas, acquire or release that did not take effect.
    pub ok: bool,
    /// Its raft index.
    pub index: Index,
}

/// Answer to a read: Consul's three meta headers, and the rows.
#[derive(Debug)]
pub struct Answer<S> {
    /// `X-Consul-Index` (never 0).
    pub index: Index,
    /// `X-Consul-KnownLeader`.
    pub known_leader: bool,
    /// `X-Consul-LastContact`, milliseconds.
    pub last_contact_ms: u64,
    /// What was read.
    pub body: AnswerBody<S>,
}

/// What was read.
#[derive(Debug)]
pub enum AnswerBody<S> {
    /// KV rows, possibly very many.
    Rows(S),
    /// Key names.
    Keys(Vec<Bytes>),
    /// The cluster.
    Status(ClusterStatus),
    /// A transaction that only reads.
    Txn(TxnResult),
    /// The JSON answer to a question about records.
    Document(Bytes),
    /// What a watch is told.
    Changes(KvChanges),
}

/// Rows at one point in time, in pieces of bounded work.
pub trait RowStream: 'static {
    /// One piece.
    type Batch: RowBatch;
    /// The next piece, `None` at the end. An error is final: the answer is incomplete.
    fn next_batch(&mut self) -> impl Future<Output = Option<Result<Self::Batch, Failure>>>;
}

/// A piece of rows.
pub trait RowBatch {
    /// Number of rows.
    fn len(&self) -> usize;
    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The row at `at < len()`.
    fn row(&self, at: usize) -> KvRowRef<'_>;
}

impl RowBatch for Vec<KvRow> {
    fn len(&self) -> usize {
        self.len()
    }
    fn row(&self, at: usize) -> KvRowRef<'_> {
        self[at].borrow()
    }
}

/// What a server knows of itself without asking anyone.
#[derive(Clone, Debug, Default)]
pub struct ServerInfo {
    /// `-node`.
    pub node_name: String,
    /// Node id text.
    pub node_id: String,
    /// `-datacenter`.
    pub datacenter: String,
    /// Server address `ip:port`.
    pub server_address: String,
    /// `node_meta`.
    pub node_meta: BTreeMap<String, String>,
    /// HTTP address `ip:port`.
    pub http_address: String,
    /// Version of this build.
    pub version: String,
    /// Commit this build was made from; empty where unknown.
    pub revision: String,
    /// Number of shards.
    pub shards: u16,
    /// Number of executors.
    pub executors: u16,
    /// How long a request waits for a leader (`performance.rpc_hold_timeout`).
    pub hold: std::time::Duration,
    /// Who may do what (`acl`).
    pub acl: super::config::acl::AclOptions,
    /// Its own tokens, where they may change while it runs; otherwise those of `acl`.
    pub tokens: Option<Arc<Tokens>>,
    /// The data directory.
    pub data_dir: std::path::PathBuf,
    /// Started with `-dev`: answers are indented, as Consul's.
    pub dev_mode: bool,
    /// Under which names metrics are shown, and to whom.
    pub telemetry: TelemetryOptions,
}

/// The way from a request handler into the cluster. One per executor, cheap to clone.
pub trait Gateway: Clone + 'static {
    /// Rows of a read.
    type Rows: RowStream;

    /// Has an encoded [`wire::Command`] committed and applied by `shard`.
    fn write(
        &self,
        shard: ShardId,
        command: Bytes,
    ) -> impl Future<Output = Result<Written, Failure>>;

    /// As [`write`](Self::write), for an encoded command about records, which live in the system
    /// shard. `SpansShards` for what works in a cluster of one shard only.
    fn record(&self, command: Bytes) -> impl Future<Output = Result<Written, Failure>>;

    /// As [`record`](Self::record), for a command that answers with a document.
    fn record_with_answer(
        &self,
        command: Bytes,
    ) -> impl Future<Output = Result<(Index, Bytes), Failure>>;

    /// As [`write`](Self::write), for an encoded transaction; one that failed was applied too, and
    /// changed nothing.
    fn txn(&self, command: Bytes) -> impl Future<Output = Result<(Index, TxnResult), Failure>>;

    /// Answers a query in its mode; a blocking query when its index is greater than the one it
    /// waits with, or its time is over. One whose future is dropped is forgotten. `SpansShards` for
    /// what more than one shard would have to answer.
    fn read(&self, query: Query) -> impl Future<Output = Result<Answer<Self::Rows>, Failure>>;

    /// Has a request carried out by this server's agent.
    fn agent(&self, request: AgentRequest) -> impl Future<Output = AgentReply>;

    /// Which shard a key belongs to.
    fn shard_of(&self, key: &[u8]) -> ShardId;

    /// This server's view of the system shard's cluster, at once.
    fn status(&self) -> ClusterStatus;

    /// Who this server is.
    fn info(&self) -> ServerInfo;

    /// Has this server read its configuration again. The error is why it did not: everything is as
    /// before.
    fn reload(&self) -> impl Future<Output = Result<(), String>> {
        async { Err("this server cannot read its configuration again".to_owned()) }
    }

    /// The index of the last change here to anything that rights depend on, at once.
    fn acl_index(&self) -> u64 {
        0
    }

    /// What this executor's times and counts are written to.
    fn meter(&self) -> Meter {
        Meter::default()
    }

    /// Counters and gauges by name (`curia.log.batches` …), for `/v1/agent/metrics` and the bench.
    fn metrics(&self) -> BTreeMap<String, f64>;
}

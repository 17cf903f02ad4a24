//! How do requests become frames, and replies results?
//!
//! Checked here, before anything is sent: what a server would refuse costs no round trip, and
//! what would not fit a frame never reaches the encoder.

use bytes::{Bytes, BytesMut};
use wire::{
    ClusterStatus, Failure, FailureKind, Frame, FrameKind, Index, KvCommand, KvRow, KvVerb, Query,
    QueryBody, ReadMode, Reply, ReplyBody, RequestId, ShardId, Wait, encode_propose_frame, limits,
    shard_of, spans_shards,
};

use super::ClientError;

/// A write that is durable on a quorum and applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// `false` for a cas that did not take effect.
    pub ok: bool,
    /// Its raft index; the modify index of what it wrote.
    pub index: Index,
}

/// What a read found, and how fresh it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// What was found.
    pub value: T,
    /// `X-Consul-Index` of what was read.
    pub index: Index,
    /// Whether the answering server knew a leader.
    pub known_leader: bool,
    /// How long ago the answering server last heard of the leader, milliseconds; 0 from the leader.
    pub last_contact_ms: u64,
}

/// How to write a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Opaque number kept with the value.
    pub flags: u64,
    /// Write only if the modify index is this one; 0: only if the key does not exist.
    pub cas: Option<Index>,
}

/// A request, ready to become a frame once it has a number.
pub(crate) trait Request {
    /// Whether it may have an effect.
    const IS_WRITE: bool;
    /// At least the size of its frame, bytes.
    fn bytes(&self) -> usize;
    /// Appends its frame.
    fn encode(&self, request: RequestId, out: &mut BytesMut);
}

/// Header and tables around a request's own bytes.
const FRAME_OVERHEAD_BYTES: usize = 160;

/// A KV write.
pub(crate) struct Write<'a> {
    shard: ShardId,
    command: KvCommand<'a>,
}

impl<'a> Write<'a> {
    /// A checked write, for a cluster of `shards` shards.
    pub(crate) fn new(command: KvCommand<'a>, shards: u16) -> Result<Self, ClientError> {
        let tree = command.verb == KvVerb::DeleteTree;
        at_most("key", command.key.len(), limits::KEY_BYTES_MAX)?;
        at_most("value", command.value.len(), limits::VALUE_BYTES_MAX)?;
        if command.key.is_empty() && !tree {
            return Err(ClientError::Invalid("the key is empty".into()));
        }
        if tree && spans_shards(command.key, shards) {
            return Err(spanning("a recursive delete"));
        }
        let shard = shard_of(command.key, shards);
        Ok(Self { shard, command })
    }
}

impl Request for Write<'_> {
    const IS_WRITE: bool = true;

    fn bytes(&self) -> usize {
        FRAME_OVERHEAD_BYTES + self.command.key.len() + self.command.value.len()
    }

    fn encode(&self, request: RequestId, out: &mut BytesMut) {
        encode_propose_frame(self.shard, request, &self.command, out);
    }
}

/// An encoded command or query.
pub(crate) struct Encoded<const WRITE: bool> {
    shard: ShardId,
    payload: Bytes,
}

impl Encoded<true> {
    pub(crate) fn command(shard: ShardId, command: Bytes) -> Result<Self, ClientError> {
        at_most("command", command.len(), limits::COMMAND_BYTES_MAX)?;
        Ok(Self {
            shard,
            payload: command,
        })
    }
}

impl Encoded<false> {
    /// A checked query, for a cluster of `shards` shards.
    pub(crate) fn query(query: &Query, shards: u16) -> Result<Self, ClientError> {
        let shard = match &query.body {
            QueryBody::KvGet { key } => {
                if key.is_empty() {
                    return Err(ClientError::Invalid("the key is empty".into()));
                }
                at_most("key", key.len(), limits::KEY_BYTES_MAX)?;
                shard_of(key, shards)
            }
            QueryBody::KvList { prefix, .. }
            | QueryBody::KvKeys { prefix, .. }
            | QueryBody::KvWatch { prefix, .. } => {
                at_most("prefix", prefix.len(), limits::KEY_BYTES_MAX)?;
                if spans_shards(prefix, shards) {
                    return Err(spanning("a listing"));
                }
                shard_of(prefix, shards)
            }
            // Records live in the system shard.
            QueryBody::Status | QueryBody::Record(_) => ShardId(0),
            // Its keys' shards are the servers' to judge.
            QueryBody::Txn(_) => ShardId(0),
        };
        Ok(Self {
            shard,
            payload: query.encode(),
        })
    }
}

impl<const WRITE: bool> Request for Encoded<WRITE> {
    const IS_WRITE: bool = WRITE;

    fn bytes(&self) -> usize {
        FRAME_OVERHEAD_BYTES + self.payload.len()
    }

    fn encode(&self, request: RequestId, out: &mut BytesMut) {
        let frame = Frame {
            kind: if WRITE {
                FrameKind::Propose
            } else {
                FrameKind::Query
            },
            shard: self.shard,
            request,
            flags: 0,
            payload: self.payload.clone(),
            blob: Bytes::new(),
        };
        frame.encode(out);
    }
}

fn at_most(what: &str, found: usize, max: usize) -> Result<(), ClientError> {
    if found > max {
        let why = format!("the {what} has {found} bytes; the limit is {max}");
        return Err(ClientError::Invalid(why));
    }
    Ok(())
}

fn spanning(what: &str) -> ClientError {
    ClientError::Refused(Failure {
        kind: FailureKind::SpansShards,
        message: format!(
            "{what} needs a prefix with a whole first path segment: shorter ones span shards"
        ),
        leader: String::new(),
        retry_after_ms: 0,
    })
}

/// The commands of the API, by name.
pub(crate) fn set<'a>(key: &'a [u8], value: &'a [u8], options: PutOptions) -> KvCommand<'a> {
    let verb = if options.cas.is_some() {
        KvVerb::Cas
    } else {
        KvVerb::Set
    };
    KvCommand {
        verb,
        key,
        value,
        flags: options.flags,
        index: options.cas.map_or(0, |index| index.0),
        session: &[],
    }
}

pub(crate) fn delete(verb: KvVerb, key: &[u8], index: Index) -> KvCommand<'_> {
    KvCommand {
        verb,
        key,
        value: &[],
        flags: 0,
        index: index.0,
        session: &[],
    }
}

/// The queries of the API, by name.
pub(crate) fn get(key: &[u8], mode: ReadMode) -> Query {
    query(
        mode,
        QueryBody::KvGet {
            key: Bytes::copy_from_slice(key),
        },
    )
}

pub(crate) fn list(prefix: &[u8], mode: ReadMode) -> Query {
    let body = QueryBody::KvList {
        prefix: Bytes::copy_from_slice(prefix),
        start_after: Bytes::new(),
        limit: 0,
    };
    query(mode, body)
}

pub(crate) fn keys(prefix: &[u8], separator: &[u8], mode: ReadMode) -> Query {
    let body = QueryBody::KvKeys {
        prefix: Bytes::copy_from_slice(prefix),
        separator: Bytes::copy_from_slice(separator),
        start_after: Bytes::new(),
        limit: 0,
    };
    query(mode, body)
}

pub(crate) fn status() -> Query {
    query(ReadMode::Stale, QueryBody::Status)
}

fn query(mode: ReadMode, body: QueryBody) -> Query {
    Query {
        mode,
        min_index: Index(0),
        wait: Wait::default(),
        body,
    }
}

/// The result of a write. The session has checked that the reply is one to a write.
pub(crate) fn written(reply: Reply) -> Result<Written, ClientError> {
    match reply.body {
        ReplyBody::Written { ok, index } => Ok(Written { ok, index }),
        ReplyBody::Failed(failure) => Err(failure.into()),
        _ => Err(misfit()),
    }
}

fn read<T>(reply: Reply, value: T) -> Read<T> {
    Read {
        value,
        index: reply.index,
        known_leader: reply.known_leader,
        last_contact_ms: reply.last_contact_ms,
    }
}

pub(crate) fn rows(mut reply: Reply) -> Result<Read<Vec<KvRow>>, ClientError> {
    match &mut reply.body {
        ReplyBody::Rows(rows) => {
            let rows = std::mem::take(rows);
            Ok(read(reply, rows))
        }
        _ => Err(misfit()),
    }
}

pub(crate) fn row(reply: Reply) -> Result<Read<Option<KvRow>>, ClientError> {
    let mut rows = rows(reply)?;
    Ok(Read {
        value: rows.value.pop(),
        index: rows.index,
        known_leader: rows.known_leader,
        last_contact_ms: rows.last_contact_ms,
    })
}

pub(crate) fn names(mut reply: Reply) -> Result<Read<Vec<Bytes>>, ClientError> {
    match &mut reply.body {
        ReplyBody::Keys(keys) => {
            let keys = std::mem::take(keys);
            Ok(read(reply, keys))
        }
        _ => Err(misfit()),
    }
}

pub(crate) fn cluster(reply: Reply) -> Result<ClusterStatus, ClientError> {
    match reply.body {
        ReplyBody::Status(status) => Ok(status),
        _ => Err(misfit()),
    }
}

/// A read was answered with something else than was asked for.
fn misfit() -> ClientError {
    ClientError::Invalid("the server answered another question than was asked".into())
}

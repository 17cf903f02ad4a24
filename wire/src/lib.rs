//! What do curia's servers and clients say to each other, byte for byte?
//!
//! Frames carry flatbuffers; bytes become types once, at the socket, and are trusted inside.
//! The lowest step of the staircase: it knows no socket, clock, file or thread.

mod codec;
mod command;
mod credit;
mod decoder;
mod entries;
mod error;
mod frame;
#[rustfmt::skip]
#[allow(warnings, clippy::all, missing_docs)]
mod generated;
mod hello;
mod ids;
pub mod limits;
mod members;
mod placement;
mod query;
mod raft_batch;
mod raft_checks;
mod record;
mod reply;
#[cfg(test)]
mod schema;
mod transfer;
mod txn;
mod watch;

pub use command::{Command, KvCommand, KvVerb, encode_propose_frame};
pub use credit::Credit;
pub use decoder::FrameDecoder;
pub use error::WireError;
pub use frame::{FLAG_NO_FORWARD, Frame, FrameKind};
pub use hello::{Bootstrap, BootstrapAnswer, Hello, Role};
pub use ids::{
    ClusterId, ExecutorId, Index, Lsn, NodeId, RequestId, ServerId, ShardId, Term, Uuid,
};
pub use members::{ClusterStatus, Member};
pub use placement::{shard_of, spans_shards};
pub use query::{Query, QueryBody, ReadMode, Wait};
pub use raft_batch::{RaftEnvelope, decode_raft_frame, encode_raft_frame};
pub use record::{RecordCommand, RecordKind};
pub use reply::{
    Failure, FailureKind, KvRow, KvRowRef, Reply, ReplyBody, ReplyMeta, encode_rows_reply,
};
pub use transfer::{EntriesChunk, EntriesFetch, ImageChunk, ImageFetch, WireEntry};
pub use txn::{TxnError, TxnOp, TxnOps, TxnResult, TxnVerb};
pub use watch::{ChangeOp, Cursor, KvChange, KvChanges, WatchFrom};

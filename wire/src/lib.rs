//! What do curia's servers and clients say to each other, byte for byte?
//!
//! Frames carry flatbuffers; bytes become types once, at the socket, and are trusted inside.
//! The lowest step of the staircase: it knows no socket, clock, file or thread.

mod command;
mod error;
mod frame;
mod hello;
mod ids;
pub mod limits;
mod query;
mod raft_batch;
mod reply;
mod transfer;

pub use command::{Command, KvCommand, KvVerb};
pub use error::WireError;
pub use frame::{FLAG_NO_FORWARD, Frame, FrameDecoder, FrameKind};
pub use hello::{Bootstrap, BootstrapAnswer, Hello, Role};
pub use ids::{ClusterId, ExecutorId, Index, Lsn, NodeId, RequestId, ServerId, ShardId, Term, Uuid};
pub use query::{Query, QueryBody, ReadMode};
pub use raft_batch::{RaftEnvelope, decode_raft_frame, encode_raft_frame};
pub use reply::{ClusterStatus, Failure, FailureKind, KvRow, KvRowRef, Member, Reply, ReplyBody};
pub use transfer::{EntriesChunk, EntriesFetch, ImageChunk, ImageFetch, WireEntry};

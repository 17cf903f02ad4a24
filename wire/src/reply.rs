//! What does a server answer?

use bytes::Bytes;

use crate::{Index, NodeId, ServerId, Term, WireError};

/// Why a request was not carried out, as a client must understand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// No leader within the hold time. Nothing happened.
    NoLeader = 0,
    /// This server does not lead and was asked not to forward. Nothing happened.
    NotLeader = 1,
    /// The write may or may not have happened: the leader was lost while it was under way.
    OutcomeUnknown = 2,
    /// Over a bound on bytes or requests in flight. Nothing happened; try again after `retry_after_ms`.
    Busy = 3,
    /// The request itself is wrong. Nothing happened.
    Invalid = 4,
    /// Over a size limit. Nothing happened.
    TooLarge = 5,
    /// The log has no room to grow. Nothing happened; reads go on.
    DiskFull = 6,
    /// This server is not in the peer set.
    NotMember = 7,
    /// The server is stopping.
    ShuttingDown = 8,
    /// What was asked spans shards, which is refused by name.
    SpansShards = 9,
    /// The state machine refused the command; it is in the log and changed nothing.
    Refused = 10,
    /// Something failed here that should not have.
    Internal = 11,
}

/// A refusal or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means for the client.
    pub kind: FailureKind,
    /// One sentence: what is wrong and what to do.
    pub message: String,
    /// Server address of the leader where known; otherwise empty.
    pub leader: String,
    /// When to try again; 0 where that says nothing.
    pub retry_after_ms: u32,
}

/// One KV row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvRow {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The client's number.
    pub flags: u64,
    /// Index of the write that made the row.
    pub create_index: Index,
    /// Index of the last write that changed it.
    pub modify_index: Index,
    /// How often it was acquired.
    pub lock_index: u64,
    /// Id of the session that holds it; empty where none does.
    pub session: Bytes,
}

/// A borrowed KV row, wherever it lies: in the state store or in a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvRowRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The client's number.
    pub flags: u64,
    /// Index of the write that made the row.
    pub create_index: Index,
    /// Index of the last write that changed it.
    pub modify_index: Index,
    /// How often it was acquired.
    pub lock_index: u64,
    /// Id of the session that holds it; empty where none does.
    pub session: &'a [u8],
}

impl KvRow {
    /// The row, borrowed.
    pub fn borrow(&self) -> KvRowRef<'_> {
        KvRowRef {
            key: &self.key,
            value: &self.value,
            flags: self.flags,
            create_index: self.create_index,
            modify_index: self.modify_index,
            lock_index: self.lock_index,
            session: &self.session,
        }
    }
}

/// One server of the peer set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its raft id.
    pub raft_id: ServerId,
    /// Its node id.
    pub node_id: NodeId,
    /// Its node name.
    pub name: String,
    /// Its server address, `ip:port`.
    pub address: String,
    /// Whether it counts towards the quorum.
    pub voter: bool,
    /// Whether it leads, as far as the answering server knows.
    pub leader: bool,
}

/// The cluster as one server sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Server address of the leader; empty where none is known.
    pub leader: String,
    /// Current term.
    pub term: Term,
    /// Commit index.
    pub commit: Index,
    /// Applied index.
    pub applied: Index,
    /// The peer set.
    pub members: Vec<Member>,
}

/// The answer proper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// A write was applied.
    Written {
        /// What Consul answers: `false` for a cas, acquire or release that did not take effect.
        ok: bool,
        /// Its raft index.
        index: Index,
    },
    /// Rows of a get (0 or 1) or a list.
    Rows(Vec<KvRow>),
    /// Key names.
    Keys(Vec<Bytes>),
    /// It was not carried out.
    Failed(Failure),
    /// Status.
    Status(ClusterStatus),
}

/// One answer, or with `more` one piece of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `X-Consul-Index`.
    pub index: Index,
    /// `X-Consul-KnownLeader`.
    pub known_leader: bool,
    /// `X-Consul-LastContact`, milliseconds.
    pub last_contact_ms: u64,
    /// Further pieces follow under the same request id.
    pub more: bool,
    /// The answer.
    pub body: ReplyBody,
}

impl Reply {
    /// Verifies and reads a reply; byte fields are slices of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let _ = bytes;
        todo!()
    }

    /// Encodes a reply.
    pub fn encode(&self) -> Bytes {
        todo!()
    }
}

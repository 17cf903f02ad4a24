//! Who is at the other end, and may we talk? Also the three messages that form a cluster.

use bytes::Bytes;

use crate::{ClusterId, Member, NodeId, ServerId, WireError};

/// What a connection to the server port is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// A client of the native protocol.
    #[default]
    Client = 0,
    /// Another server's link for raft messages, forwarded requests, images and repair.
    Peer = 1,
    /// Another server that only asks who we are, before any cluster exists.
    Probe = 2,
}

/// First frame in either direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version, `limits::PROTOCOL_VERSION`.
    pub protocol: u16,
    /// What the dialler wants; an acceptor repeats it.
    pub role: Role,
    /// Sender's node id; nil for a client.
    pub node_id: NodeId,
    /// Sender's raft id; 0 for a client.
    pub raft_id: ServerId,
    /// Sender's node name.
    pub name: String,
    /// Sender's server address.
    pub address: String,
    /// Sender's HTTP address; empty where it has none.
    pub http_address: String,
    /// Sender's datacenter.
    pub datacenter: String,
    /// Sender's cluster; nil before bootstrap and for clients.
    pub cluster_id: ClusterId,
    /// Which executor's link this is.
    pub lane: u16,
    /// How many executors the sender has.
    pub lanes: u16,
    /// How many shards the cluster has; 0 before bootstrap.
    pub shards: u16,
    /// The sender's `-bootstrap-expect`; 0 for none.
    pub expect: u16,
    /// Whether the sender holds raft state.
    pub has_state: bool,
    /// Server address of the leader the sender knows; empty for none.
    pub leader: String,
    /// The peer set the sender knows.
    pub members: Vec<Member>,
}

/// A proposal or the decision to form a cluster of exactly these members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bootstrap {
    /// The cluster's name to be.
    pub cluster_id: ClusterId,
    /// Number of shards, fixed from here on.
    pub shards: u16,
    /// Its voters.
    pub members: Vec<Member>,
}

/// Answer to a proposal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootstrapAnswer {
    /// Whether the sender joins.
    pub accepted: bool,
    /// Why not.
    pub reason: String,
}

macro_rules! codec {
    ($($name:ident),*) => {$(
        impl $name {
            /// Verifies and reads one.
            pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
                let _ = bytes;
                todo!()
            }
            /// Encodes one.
            pub fn encode(&self) -> Bytes {
                todo!()
            }
        }
    )*};
}
codec!(Hello, Bootstrap, BootstrapAnswer);

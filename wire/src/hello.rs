//! Who is at the other end, and may we talk? Also the three messages that form a cluster.
//!
//! A Hello of another protocol version is read all the same, as far as its tables allow, so that
//! the receiver can refuse it by name instead of as garbage.

use bytes::Bytes;

use crate::codec;
use crate::generated::wire as fb;
use crate::{ClusterId, Member, NodeId, ServerId, WireError, limits};

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

impl Role {
    /// Every role, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Client, Self::Peer, Self::Probe];
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

impl Hello {
    /// Verifies and reads one.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        const WHAT: &str = "hello";
        let hello = codec::root::<fb::Hello>(WHAT, bytes)?;
        let Some(&role) = Role::ALL.get(usize::from(hello.role())) else {
            let why = format_args!("unknown role {}", hello.role());
            return Err(codec::malformed(WHAT, why));
        };
        Ok(Self {
            protocol: hello.protocol(),
            role,
            node_id: codec::uuid(WHAT, hello.node_id())?,
            raft_id: ServerId(hello.raft_id()),
            name: codec::text("name", hello.name(), limits::NAME_BYTES_MAX)?,
            address: codec::text("address", hello.address(), limits::ADDRESS_BYTES_MAX)?,
            http_address: codec::text(
                "HTTP address",
                hello.http_address(),
                limits::ADDRESS_BYTES_MAX,
            )?,
            datacenter: codec::text("datacenter", hello.datacenter(), limits::NAME_BYTES_MAX)?,
            cluster_id: codec::uuid(WHAT, hello.cluster_id())?,
            lane: hello.lane(),
            lanes: hello.lanes(),
            shards: shards(WHAT, hello.shards())?,
            expect: hello.expect(),
            has_state: hello.has_state(),
            leader: codec::text("leader", hello.leader(), limits::ADDRESS_BYTES_MAX)?,
            members: Member::read_all(WHAT, hello.members())?,
        })
    }

    /// Encodes one.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| {
            let args = fb::HelloArgs {
                protocol: self.protocol,
                role: self.role as u8,
                node_id: Some(codec::put(builder, &self.node_id.0)),
                raft_id: self.raft_id.0,
                name: Some(builder.create_string(&self.name)),
                address: Some(builder.create_string(&self.address)),
                datacenter: Some(builder.create_string(&self.datacenter)),
                cluster_id: Some(codec::put(builder, &self.cluster_id.0)),
                lane: self.lane,
                lanes: self.lanes,
                shards: self.shards,
                expect: self.expect,
                has_state: self.has_state,
                leader: Some(builder.create_string(&self.leader)),
                members: Some(Member::build_all(builder, &self.members)),
                http_address: Some(builder.create_string(&self.http_address)),
            };
            let hello = fb::Hello::create(builder, &args);
            builder.finish_minimal(hello);
        })
    }
}

/// A number of shards within its limit.
fn shards(what: &'static str, shards: u16) -> Result<u16, WireError> {
    if usize::from(shards) > limits::SHARDS_MAX {
        let max = limits::SHARDS_MAX;
        let why = format_args!("{shards} shards are over the limit of {max}");
        return Err(codec::malformed(what, why));
    }
    Ok(shards)
}

impl Bootstrap {
    /// Verifies and reads one: a named cluster with at least one shard and one member.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        const WHAT: &str = "bootstrap";
        let bootstrap = codec::root::<fb::Bootstrap>(WHAT, bytes)?;
        let read = Self {
            cluster_id: codec::uuid(WHAT, bootstrap.cluster_id())?,
            shards: shards(WHAT, bootstrap.shards())?,
            members: Member::read_all(WHAT, bootstrap.members())?,
        };
        if read.cluster_id.is_nil() || read.shards == 0 || read.members.is_empty() {
            let why = "a cluster needs an id, a shard and a member";
            return Err(codec::malformed(WHAT, why));
        }
        Ok(read)
    }

    /// Encodes one.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| {
            let args = fb::BootstrapArgs {
                cluster_id: Some(codec::put(builder, &self.cluster_id.0)),
                shards: self.shards,
                members: Some(Member::build_all(builder, &self.members)),
            };
            let bootstrap = fb::Bootstrap::create(builder, &args);
            builder.finish_minimal(bootstrap);
        })
    }
}

impl BootstrapAnswer {
    /// Verifies and reads one.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let answer = codec::root::<fb::BootstrapAnswer>("bootstrap answer", bytes)?;
        Ok(Self {
            accepted: answer.accepted(),
            reason: codec::text("reason", answer.reason(), limits::MESSAGE_BYTES_MAX)?,
        })
    }

    /// Encodes one.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| {
            let reason = codec::cut(&self.reason, limits::MESSAGE_BYTES_MAX);
            let args = fb::BootstrapAnswerArgs {
                accepted: self.accepted,
                reason: Some(builder.create_string(reason)),
            };
            let answer = fb::BootstrapAnswer::create(builder, &args);
            builder.finish_minimal(answer);
        })
    }
}

//! Who is in the cluster, as servers tell each other and their clients?
//!
//! The peer set travels in Hello, in what forms a cluster, and in the answer to a status query.

use flatbuffers::{ForwardsUOffset, Vector, WIPOffset};

use crate::codec::{self, Builder};
use crate::generated::wire as fb;
use crate::{Index, NodeId, ServerId, Term, WireError, limits};

const STATUS: &str = "cluster status";

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

impl ClusterStatus {
    pub(crate) fn read(status: &fb::ClusterStatus<'_>) -> Result<Self, WireError> {
        Ok(Self {
            leader: codec::text("leader", status.leader(), limits::ADDRESS_BYTES_MAX)?,
            term: codec::term(STATUS, status.term())?,
            commit: codec::index(STATUS, status.commit())?,
            applied: codec::index(STATUS, status.applied())?,
            members: Member::read_all(STATUS, status.members())?,
        })
    }

    pub(crate) fn build(&self, builder: &mut Builder) -> WIPOffset<fb::ClusterStatus<'static>> {
        let args = fb::ClusterStatusArgs {
            leader: Some(builder.create_string(&self.leader)),
            term: self.term.0,
            commit: self.commit.0,
            applied: self.applied.0,
            members: Some(Member::build_all(builder, &self.members)),
        };
        fb::ClusterStatus::create(builder, &args)
    }
}

type Members<'a> = Vector<'a, ForwardsUOffset<fb::Member<'a>>>;

impl Member {
    /// Reads a peer set. Its members have raft ids, each once.
    pub(crate) fn read_all(
        what: &'static str,
        members: Option<Members<'_>>,
    ) -> Result<Vec<Self>, WireError> {
        let Some(members) = members else {
            return Ok(Vec::new());
        };
        if members.len() > limits::MEMBERS_MAX {
            let why = format_args!(
                "{} members are over the limit of {}",
                members.len(),
                limits::MEMBERS_MAX
            );
            return Err(codec::malformed(what, why));
        }
        let mut read = Vec::with_capacity(members.len());
        for member in members {
            let member = Self::read(what, &member)?;
            if member.raft_id.0 == 0 || read.iter().any(|m: &Self| m.raft_id == member.raft_id) {
                let why = format_args!("raft id {} twice or zero", member.raft_id);
                return Err(codec::malformed(what, why));
            }
            read.push(member);
        }
        Ok(read)
    }

    fn read(what: &'static str, member: &fb::Member<'_>) -> Result<Self, WireError> {
        Ok(Self {
            raft_id: ServerId(member.raft_id()),
            node_id: codec::uuid(what, member.node_id())?,
            name: codec::text("name", member.name(), limits::NAME_BYTES_MAX)?,
            address: codec::text("address", member.address(), limits::ADDRESS_BYTES_MAX)?,
            voter: member.voter(),
            leader: member.leader(),
        })
    }

    pub(crate) fn build_all(
        builder: &mut Builder,
        members: &[Self],
    ) -> WIPOffset<Vector<'static, ForwardsUOffset<fb::Member<'static>>>> {
        let members: Vec<_> = members.iter().map(|m| m.build(builder)).collect();
        builder.create_vector(&members)
    }

    fn build(&self, builder: &mut Builder) -> WIPOffset<fb::Member<'static>> {
        let args = fb::MemberArgs {
            raft_id: self.raft_id.0,
            node_id: Some(codec::put(builder, &self.node_id.0)),
            name: Some(builder.create_string(&self.name)),
            address: Some(builder.create_string(&self.address)),
            voter: self.voter,
            leader: self.leader,
        };
        fb::Member::create(builder, &args)
    }
}

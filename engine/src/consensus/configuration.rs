//! Who is in the peer set, and under which raft id?
//!
//! The replicated configuration maps raft ids (one per incarnation of a data directory) to node
//! ids, names and addresses. It travels in checkpoints and images as the bytes of a
//! [`wire::Bootstrap`] table, so that forming a cluster and remembering it share one format.

use bytes::Bytes;
use raft::eraftpb::ConfState;
use wire::{Bootstrap, ClusterId, Member, ServerId, WireError};

/// The peer set of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The cluster's name.
    pub cluster_id: ClusterId,
    /// Number of shards, fixed at bootstrap.
    pub shards: u16,
    /// The servers, in raft id order.
    pub members: Vec<Member>,
}

impl Configuration {
    /// A configuration of these members, whatever order they come in.
    pub fn new(cluster_id: ClusterId, shards: u16, mut members: Vec<Member>) -> Self {
        for member in &mut members {
            member.leader = false;
        }
        members.sort_by_key(|member| member.raft_id);
        Self {
            cluster_id,
            shards,
            members,
        }
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let table = Bootstrap::decode(bytes)?;
        Ok(Self::new(table.cluster_id, table.shards, table.members))
    }

    /// Bytes for checkpoints and images.
    pub fn encode(&self) -> Bytes {
        Bootstrap {
            cluster_id: self.cluster_id,
            shards: self.shards,
            members: self.members.clone(),
        }
        .encode()
    }

    /// The same as raft-rs wants it.
    pub fn conf_state(&self) -> ConfState {
        let ids = |voter: bool| {
            self.members
                .iter()
                .filter(|m| m.voter == voter)
                .map(|m| m.raft_id.0)
                .collect::<Vec<_>>()
        };
        let mut state = ConfState::default();
        state.set_voters(ids(true));
        state.set_learners(ids(false));
        state
    }

    /// The member with this raft id.
    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.iter().find(|member| member.raft_id == id)
    }

    /// Voters.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.voter)
    }

    /// Votes needed to decide: ⌊voters ÷ 2⌋ + 1.
    pub fn quorum(&self) -> usize {
        quorum(self.voters().count())
    }
}

/// Votes needed among `voters` servers (the deployment table: 1,2,2,3,3,4,4 for 1 to 7).
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployment_table() {
        let quorums: Vec<_> = (1..=7).map(quorum).collect();
        assert_eq!(quorums, [1, 2, 2, 3, 3, 4, 4]);
        let tolerance: Vec<_> = (1..=7).map(|n| n - quorum(n)).collect();
        assert_eq!(tolerance, [0, 0, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn order_of_members_does_not_matter() {
        let member = |id| Member {
            raft_id: ServerId(id),
            voter: true,
            leader: id == 2,
            ..Member::default()
        };
        let a = Configuration::new(ClusterId::default(), 1, vec![member(2), member(1)]);
        let b = Configuration::new(ClusterId::default(), 1, vec![member(1), member(2)]);
        assert_eq!(a, b);
        assert_eq!(a.conf_state().voters, vec![1, 2]);
    }
}

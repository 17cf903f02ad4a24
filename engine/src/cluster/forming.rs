//! When may empty servers form a cluster, and of whom?
//!
//! Pure decisions; `server::forming` does the talking. The rules (Consul's `-bootstrap-expect`,
//! made safe against two clusters forming at once):
//!
//! 1. Who reaches any server with raft state never forms a cluster: it adopts that one if it is
//!    listed there, and otherwise says that it is not in the peer set.
//! 2. A cluster is proposed by the lowest raft id among exactly `expect` empty servers that agree
//!    on `expect`, datacenter and shards.
//! 3. Every other member must promise to join, while the proposer holds the connection. A promise
//!    goes to one proposal at a time.
//! 4. The cluster exists once the *proposer* has made it durable. Members that miss the decision
//!    find the proposer by rule 1, listed in it.
//!
//! So two clusters could form only of disjoint sets of promised servers.

use std::collections::BTreeMap;

use wire::{Bootstrap, BootstrapAnswer, ClusterId, Hello, Member, ServerId};

/// An answer of another server is good for so long, ns.
pub const SEEN_NS_MAX: u64 = 3_000_000_000;

/// This server, before it has a cluster.
#[derive(Clone, Debug)]
pub struct Own {
    /// How it will be listed.
    pub member: Member,
    /// How many servers to form a cluster of; 0: it waits to be added.
    pub expect: u16,
    /// Shards of a cluster it would form.
    pub shards: u16,
    /// Its datacenter.
    pub datacenter: String,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet, for this reason.
    Wait(String),
    /// Propose a cluster of these members (and form it at once if that is this server alone).
    Propose(Vec<Member>),
    /// A cluster exists that lists this server: be part of it.
    Adopt(Bootstrap),
    /// A cluster exists that does not list this server.
    NotListed {
        /// One of its servers.
        server: String,
        /// The cluster.
        cluster_id: ClusterId,
    },
    /// The servers found cannot form one cluster: stop and say why.
    Conflict(String),
}

/// What others have said.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    hellos: BTreeMap<ServerId, (Hello, u64)>,
}

impl Seen {
    /// Another server introduced itself.
    pub fn note(&mut self, hello: &Hello, now_ns: u64) {
        self.hellos.insert(hello.raft_id, (hello.clone(), now_ns));
    }

    /// Decides. `asked_everyone`: each `-retry-join` address was tried at least once.
    pub fn decide(&self, own: &Own, asked_everyone: bool, now_ns: u64) -> Step {
        let fresh: Vec<&Hello> = self
            .hellos
            .values()
            .filter(|(hello, seen_ns)| {
                hello.raft_id != own.member.raft_id && now_ns < seen_ns + SEEN_NS_MAX
            })
            .map(|(hello, _)| hello)
            .collect();
        if let Some(step) = existing(own, &fresh) {
            return step;
        }
        if own.expect == 0 {
            return Step::Wait("waiting to be added to a cluster (neither -bootstrap nor -bootstrap-expect was given)".to_owned());
        }
        if let Some(conflict) = conflict(own, &fresh) {
            return Step::Conflict(conflict);
        }
        if !asked_everyone {
            return Step::Wait("asking the servers of -retry-join".to_owned());
        }
        let expecting: Vec<&Hello> = fresh
            .into_iter()
            .filter(|hello| hello.expect == own.expect)
            .collect();
        let found = expecting.len() + 1;
        let expect = usize::from(own.expect);
        if found < expect {
            return Step::Wait(format!("found {found} of {expect} servers expected"));
        }
        if found > expect && expect > 1 {
            return Step::Wait(format!(
                "found {found} servers but -bootstrap-expect={expect}: stop those that are too many, or raise it on all"
            ));
        }
        let mut members = vec![own.member.clone()];
        if expect > 1 {
            members.extend(expecting.iter().map(|hello| listed(hello)));
        }
        members.sort_by_key(|member| member.raft_id);
        if members[0].raft_id != own.member.raft_id {
            return Step::Wait(format!(
                "waiting for {} to propose the cluster",
                members[0].name
            ));
        }
        Step::Propose(members)
    }
}

fn listed(hello: &Hello) -> Member {
    Member {
        raft_id: hello.raft_id,
        node_id: hello.node_id,
        name: hello.name.clone(),
        address: hello.address.clone(),
        voter: true,
        leader: false,
    }
}

/// Rule 1.
fn existing(own: &Own, fresh: &[&Hello]) -> Option<Step> {
    let with_state = fresh
        .iter()
        .filter(|hello| hello.has_state && !hello.cluster_id.is_nil());
    let mut unlisted = None;
    for hello in with_state {
        let lists = |id: ServerId| hello.members.iter().any(|member| member.raft_id == id);
        if lists(own.member.raft_id) {
            return Some(Step::Adopt(Bootstrap {
                cluster_id: hello.cluster_id,
                shards: hello.shards,
                members: hello
                    .members
                    .iter()
                    .map(|m| Member {
                        leader: false,
                        ..m.clone()
                    })
                    .collect(),
            }));
        }
        unlisted = Some(Step::NotListed {
            server: hello.address.clone(),
            cluster_id: hello.cluster_id,
        });
    }
    unlisted
}

fn conflict(own: &Own, fresh: &[&Hello]) -> Option<String> {
    for hello in fresh {
        let who = format!("server {} at {}", hello.name, hello.address);
        if hello.expect != 0 && hello.expect != own.expect {
            return Some(format!(
                "{who} was started with -bootstrap-expect={}, this one with {}: start all with the same number",
                hello.expect, own.expect
            ));
        }
        if hello.datacenter != own.datacenter {
            return Some(format!(
                "{who} is of -datacenter={}, this one of {}: remove it from -retry-join",
                hello.datacenter, own.datacenter
            ));
        }
        if hello.name == own.member.name {
            return Some(format!(
                "{who} has the same -node name as this one: give each server its own"
            ));
        }
        if hello.node_id == own.member.node_id {
            return Some(format!(
                "{who} has the same node id as this one ({}): was its data directory copied?",
                hello.node_id
            ));
        }
    }
    None
}

/// The one promise a server may have given.
#[derive(Clone, Debug, Default)]
pub struct Promise {
    given: Option<Bootstrap>,
}

impl Promise {
    /// Judges a proposal (rule 3).
    pub fn judge(&mut self, own: &Own, proposal: &Bootstrap) -> BootstrapAnswer {
        let refuse = |reason: &str| BootstrapAnswer {
            accepted: false,
            reason: reason.to_owned(),
        };
        if let Some(given) = &self.given
            && given != proposal
        {
            return refuse("this server has promised itself to another proposal");
        }
        if !proposal.members.contains(&own.member) {
            return refuse("the proposal does not list this server as it is");
        }
        if usize::from(own.expect) != proposal.members.len() {
            return refuse("the proposal is not of as many servers as this one expects");
        }
        if proposal.shards != own.shards {
            return refuse("this server was started with another number of -shards");
        }
        self.given = Some(proposal.clone());
        BootstrapAnswer {
            accepted: true,
            reason: String::new(),
        }
    }

    /// Gives a promise to one's own proposal, if none is given.
    pub fn give(&mut self, proposal: &Bootstrap) -> bool {
        if self.given.is_some() {
            return false;
        }
        self.given = Some(proposal.clone());
        true
    }

    /// The proposer is gone, or gave up.
    pub fn release(&mut self, proposal: &Bootstrap) {
        if self.given.as_ref() == Some(proposal) {
            self.given = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member {
            raft_id: ServerId(id),
            node_id: wire::Uuid([id as u8; 16]),
            name: format!("s{id}"),
            address: format!("127.0.0.{id}:8300"),
            voter: true,
            leader: false,
        }
    }

    fn own(id: u64, expect: u16) -> Own {
        Own {
            member: member(id),
            expect,
            shards: 1,
            datacenter: "dc1".to_owned(),
        }
    }

    fn hello(id: u64, expect: u16) -> Hello {
        let Member {
            raft_id,
            node_id,
            name,
            address,
            ..
        } = member(id);
        Hello {
            raft_id,
            node_id,
            name,
            address,
            expect,
            datacenter: "dc1".to_owned(),
            ..Hello::default()
        }
    }

    fn seen(hellos: &[Hello]) -> Seen {
        let mut seen = Seen::default();
        for hello in hellos {
            seen.note(hello, 0);
        }
        seen
    }

    #[test]
    fn the_lowest_of_exactly_the_expected_number_proposes() {
        let all = seen(&[hello(1, 3), hello(2, 3), hello(3, 3)]);
        assert!(
            matches!(all.decide(&own(1, 3), true, 1), Step::Propose(members) if members.len() == 3)
        );
        assert!(matches!(all.decide(&own(2, 3), true, 1), Step::Wait(_)));
        assert!(
            matches!(all.decide(&own(1, 3), false, 1), Step::Wait(_)),
            "not before everyone was asked"
        );
        let few = seen(&[hello(2, 3)]);
        assert!(matches!(few.decide(&own(1, 3), true, 1), Step::Wait(_)));
        assert!(
            matches!(all.decide(&own(1, 3), true, SEEN_NS_MAX + 1), Step::Wait(_)),
            "stale answers do not count"
        );
    }

    #[test]
    fn too_many_servers_form_nothing() {
        let many = seen(&[hello(2, 3), hello(3, 3), hello(4, 3)]);
        assert!(
            matches!(many.decide(&own(1, 3), true, 1), Step::Wait(why) if why.contains("too many"))
        );
    }

    #[test]
    fn an_existing_cluster_is_adopted_or_respected_never_rivalled() {
        let mut other = hello(2, 3);
        other.has_state = true;
        other.cluster_id = wire::Uuid([9; 16]);
        other.shards = 1;
        other.members = vec![member(2), member(3)];
        assert!(matches!(
            seen(&[other.clone()]).decide(&own(1, 1), true, 1),
            Step::NotListed { .. }
        ));
        other.members.push(member(1));
        assert!(matches!(
            seen(&[other]).decide(&own(1, 3), false, 1),
            Step::Adopt(_)
        ));
    }

    #[test]
    fn what_cannot_be_one_cluster_is_named() {
        let mut other = hello(2, 5);
        assert!(
            matches!(seen(&[other.clone()]).decide(&own(1, 3), true, 1), Step::Conflict(why) if why.contains("-bootstrap-expect=5"))
        );
        other.expect = 3;
        other.datacenter = "dc2".to_owned();
        assert!(
            matches!(seen(&[other.clone()]).decide(&own(1, 3), true, 1), Step::Conflict(why) if why.contains("dc2"))
        );
        other.datacenter = "dc1".to_owned();
        other.name = "s1".to_owned();
        assert!(
            matches!(seen(&[other]).decide(&own(1, 3), true, 1), Step::Conflict(why) if why.contains("-node"))
        );
    }

    #[test]
    fn a_promise_goes_to_one_proposal_at_a_time() {
        let proposal = |cluster: u8| Bootstrap {
            cluster_id: wire::Uuid([cluster; 16]),
            shards: 1,
            members: vec![member(1), member(2)],
        };
        let mut promise = Promise::default();
        assert!(promise.judge(&own(2, 2), &proposal(1)).accepted);
        assert!(
            promise.judge(&own(2, 2), &proposal(1)).accepted,
            "the same again is the same promise"
        );
        assert!(!promise.judge(&own(2, 2), &proposal(2)).accepted);
        promise.release(&proposal(2));
        assert!(
            !promise.judge(&own(2, 2), &proposal(2)).accepted,
            "only the holder releases"
        );
        promise.release(&proposal(1));
        assert!(promise.judge(&own(2, 2), &proposal(2)).accepted);
        assert!(
            !promise.judge(&own(3, 2), &proposal(2)).accepted,
            "not listed"
        );
        assert!(
            !Promise::default().judge(&own(2, 3), &proposal(1)).accepted,
            "another number"
        );
        assert!(!promise.give(&proposal(3)));
    }
}

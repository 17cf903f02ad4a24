//! What is true of all servers together, and does it stay so?
//!
//! The recorder sees what no server can: every leader, every entry that is sent, every run that is
//! applied, on all servers.
//!
//! | it holds | that |
//! |---|---|
//! | leaders | a term has one leader at most (Raft paper §5.2, election safety) |
//! | entries | an entry of one index and term is the same everywhere (§5.3, log matching) |
//! | committed | what one server applied at an index, every server applies there (§5.4, state machine safety) |
//! | digests | states at the same applied index are equal |

use std::collections::{BTreeMap, HashMap};

use engine::shard::Trace;
use wire::{Index, RaftEnvelope, ShardId, Term};

use super::draw::Digest;

/// A promise that was broken, in a sentence.
pub type Broken = String;

/// One shard, as all servers together have it.
#[derive(Default)]
pub struct Shard {
    /// Term and digest of each committed entry, from index 2 on: the first is the configuration.
    committed: Vec<(Term, u64)>,
    leaders: BTreeMap<Term, usize>,
    entries: HashMap<(u64, u64), u64>,
    digests: HashMap<u64, u64>,
    /// The place in the log that each request was given.
    proposed: HashMap<u64, (Index, Term)>,
    /// The last request that was given a place at a term.
    places: HashMap<(Index, Term), u64>,
}

/// All shards.
pub struct Recorder {
    shards: Vec<Shard>,
    lone: bool,
}

impl Recorder {
    /// Of a cluster in which nothing has happened.
    pub fn new(shards: u16, servers: usize) -> Self {
        Self {
            lone: servers == 1,
            shards: (0..shards).map(|_| Shard::default()).collect(),
        }
    }

    /// One shard.
    pub fn shard(&self, shard: ShardId) -> &Shard {
        &self.shards[usize::from(shard.0)]
    }

    /// A server leads at this term.
    pub fn leads(&mut self, shard: ShardId, term: Term, server: usize) -> Result<(), Broken> {
        let known = self.shards[usize::from(shard.0)].leaders.entry(term);
        let first = *known.or_insert(server);
        match first == server {
            true => Ok(()),
            false => Err(format!(
                "shard {shard}: servers {first} and {server} both lead in term {term}"
            )),
        }
    }

    /// A server sends a message.
    pub fn sent(
        &mut self,
        shard: ShardId,
        server: usize,
        envelope: &RaftEnvelope,
    ) -> Result<(), Broken> {
        for entry in &envelope.message.entries {
            let digest = Digest::of(&entry.data);
            let known = &mut self.shards[usize::from(shard.0)].entries;
            let first = *known.entry((entry.index, entry.term)).or_insert(digest);
            if first != digest {
                return Err(format!(
                    "shard {shard}: server {server} sends another entry {} of term {} than was seen before",
                    entry.index, entry.term
                ));
            }
        }
        Ok(())
    }

    /// What a turn of a server decided.
    pub fn turned(&mut self, server: usize, trace: &mut Trace) -> Result<(), Broken> {
        for (shard, ticket, index, term) in trace.proposed.drain(..) {
            let lone = self.lone;
            let recorded = &mut self.shards[usize::from(shard.0)];
            recorded.proposed.insert(ticket.0, (index, term));
            let earlier = recorded.places.insert((index, term), ticket.0);
            match earlier {
                // A lone server needs nobody's vote, and may lose a term with all that it wrote in
                // it: what it begins anew then has the same name.
                Some(earlier) if lone => drop(recorded.proposed.remove(&earlier)),
                Some(_) => {
                    return Err(format!(
                        "shard {shard}: server {server} gives entry {index} of term {term} to a second request"
                    ));
                }
                None => {}
            }
        }
        for (shard, index, term, data) in trace.applied.drain(..) {
            self.applied(shard, server, index, term, &data)?;
        }
        trace.installed.clear();
        Ok(())
    }

    /// A server applied an entry.
    pub fn applied(
        &mut self,
        shard: ShardId,
        server: usize,
        index: Index,
        term: Term,
        data: &[u8],
    ) -> Result<(), Broken> {
        let committed = &mut self.shards[usize::from(shard.0)].committed;
        let (at, entry) = (index.0 as usize - 2, (term, Digest::of(data)));
        match committed.get(at) {
            Some(known) if *known == entry => Ok(()),
            Some(known) => Err(format!(
                "shard {shard}: server {server} applies an entry {index} of term {term} where one of term {} was committed",
                known.0
            )),
            None if at == committed.len() => {
                committed.push(entry);
                Ok(())
            }
            None => Err(format!(
                "shard {shard}: server {server} applies entry {index}, and nobody has applied {}",
                committed.len() + 2
            )),
        }
    }

    /// A server's state at its applied index.
    pub fn state(
        &mut self,
        shard: ShardId,
        server: usize,
        applied: Index,
        digest: u64,
    ) -> Result<(), Broken> {
        let digests = &mut self.shards[usize::from(shard.0)].digests;
        let first = *digests.entry(applied.0).or_insert(digest);
        match first == digest {
            true => Ok(()),
            false => Err(format!(
                "shard {shard}: the state of server {server} at index {applied} is not what another's was"
            )),
        }
    }
}

impl Shard {
    /// The last index that anybody applied.
    pub fn last(&self) -> Index {
        Index(self.committed.len() as u64 + 1)
    }

    /// Where a request was decided, if it was.
    pub fn decided(&self, ticket: u64) -> Option<Index> {
        let (index, term) = self.proposed.get(&ticket)?;
        let at = (index.0 as usize).checked_sub(2)?;
        let (committed, _) = self.committed.get(at)?;
        (committed == term).then_some(*index)
    }
}

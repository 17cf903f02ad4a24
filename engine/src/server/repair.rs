//! How does a server whose log was damaged get back what it lost, before it takes part again?
//!
//! A shard with a gap, or whose newest vote may be lost, does not start: it neither votes nor
//! acknowledges. Until it is whole, this server asks the others, again and again:
//!
//! - *a gap with entries behind it* is filled by any server that holds the entry behind it (log
//!   matching);
//! - *a damaged tail* is replaced by the leader's log from this server's commit index on (up to
//!   there all logs agree): whatever this server ever acknowledged to that leader is among it. All
//!   of it comes from one leader of one term, than which no other voter knows a later one: a
//!   deposed leader lacks what its successor committed, and a log put together from two leaders'
//!   is nobody's;
//! - *a hard state in doubt* is settled once every other voter has said its term: whoever ever
//!   collected this server's vote had made its term durable first. The server then starts at the
//!   highest of them with its vote given to itself, and so cannot vote twice in it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use glommio::timer::sleep;
use wire::{
    EntriesChunk, EntriesFetch, Frame, FrameKind, Index, RequestId, ServerId, ShardId, Term,
};

use super::{
    port::{Phase, Port},
    shell::{Shell, now_ns},
};
use crate::{
    consensus::Configuration,
    io::Disk,
    log::{Entry, Gap, HardState, Log, Recovered},
};

/// Between two rounds of asking.
const ROUND: Duration = Duration::from_millis(200);
/// The state of the repair is said again after so many rounds.
const SAY_AGAIN_ROUNDS: u32 = 25;

type Inbox = Rc<RefCell<Vec<(ServerId, ShardId, EntriesChunk)>>>;

/// Repairs every shard of a log that needs it; returns at once when none does.
#[allow(clippy::too_many_arguments)]
pub async fn repair(
    log: &mut Log,
    recovered: &mut Recovered,
    disk: &dyn Disk,
    own: ServerId,
    configuration: &Configuration,
    shell: &Rc<Shell>,
    port: Option<&Rc<Port>>,
    stopping: &Rc<Cell<bool>>,
) -> Result<(), String> {
    let damaged: Vec<ShardId> = recovered
        .shards
        .iter()
        .filter(|(_, shard)| !shard.gaps.is_empty() || shard.hard_state_in_doubt)
        .map(|(shard, _)| *shard)
        .collect();
    if damaged.is_empty() {
        return Ok(());
    }
    log::error!(
        target: "agent.server.log",
        "the log is damaged; {} shard(s) will be repaired from the peers before this server takes part", damaged.len()
    );
    let Some(port) = port else {
        return Err("the log of an executor other than the first is damaged, which this build cannot repair from the peers: \
                    empty the data directory and let the server rejoin".to_owned());
    };
    let inbox: Inbox = Rc::default();
    let sink = Rc::clone(&inbox);
    port.enter(Phase::Repairing(Rc::new(move |from, shard, chunk| {
        sink.borrow_mut().push((from, shard, chunk));
    })));
    for shard in damaged {
        let others: Vec<ServerId> = configuration
            .voters()
            .map(|m| m.raft_id)
            .filter(|id| *id != own)
            .collect();
        let found = &recovered.shards[&shard];
        // The commit index may be newer than the entries that are left: a mark carries it.
        let agreed = found.checkpoint.hard_state.commit.min(found.last_index);
        let first = found.first_index.max(Index(agreed.0 + 1));
        let mut patient = Patient::new(shard, first, &others);
        let mut rounds = 0;
        while !patient.is_whole(log) {
            if stopping.get() {
                return Err("stopped while the log was being repaired".to_owned());
            }
            patient.ask(log, shell);
            sleep(ROUND).await;
            for (from, of, chunk) in inbox.borrow_mut().drain(..) {
                if of == shard {
                    patient.take(log, from, &chunk);
                    log.flush_blocking(disk, now_ns())
                        .map_err(|error| error.to_string())?;
                }
            }
            if patient.can_settle(log) {
                patient.settle(log, recovered, own);
                log.flush_blocking(disk, now_ns())
                    .map_err(|error| error.to_string())?;
            }
            rounds += 1;
            if rounds % SAY_AGAIN_ROUNDS == 0 {
                log::warn!(
                    target: "agent.server.log",
                    "still repairing: shard={shard} gaps={:?} hard_state_in_doubt={} voters_heard={}/{}",
                    log.gaps(shard), log.hard_state_in_doubt(shard), patient.terms.len(), others.len()
                );
            }
        }
        if let Some(found) = recovered.shards.get_mut(&shard) {
            found.gaps.clear();
            found.hard_state_in_doubt = false;
            found.last_index = log.last_index(shard);
            found.last_term = log.term(shard, found.last_index).unwrap_or(found.last_term);
        }
        log::info!(target: "agent.server.log", "repaired: shard={shard} last_index={}", log.last_index(shard));
    }
    Ok(())
}

/// A shard under repair.
struct Patient {
    shard: ShardId,
    /// The other voters.
    others: Vec<ServerId>,
    /// First entry wanted of the leader's log, for a damaged tail.
    tail_first: Index,
    /// Whose log is being taken, and of which term.
    leader: Option<(ServerId, Term)>,
    /// Next entry wanted of the leader's log, for a damaged tail.
    tail_next: Index,
    /// The leader's log was taken to its end.
    tail_whole: bool,
    /// What the other voters said.
    terms: BTreeMap<ServerId, Term>,
}

impl Patient {
    fn new(shard: ShardId, tail_first: Index, others: &[ServerId]) -> Self {
        Self {
            shard,
            others: others.to_vec(),
            tail_first,
            leader: None,
            tail_next: tail_first,
            tail_whole: false,
            terms: BTreeMap::new(),
        }
    }

    fn is_whole(&self, log: &Log) -> bool {
        log.gaps(self.shard).is_empty() && !log.hard_state_in_doubt(self.shard)
    }

    /// The first gap that any peer can fill.
    fn closed_gap(&self, log: &Log) -> Option<Gap> {
        log.gaps(self.shard)
            .into_iter()
            .find(|gap| gap.next.is_some())
    }

    fn ask(&self, log: &Log, shell: &Rc<Shell>) {
        let fetch = match self.closed_gap(log) {
            Some(gap) => {
                let (next_index, next_term) = gap.next.unwrap_or_default();
                let last = gap.last.unwrap_or(Index(next_index.0.saturating_sub(1)));
                EntriesFetch {
                    first: gap.first,
                    last,
                    next_index,
                    next_term,
                }
            }
            None => EntriesFetch {
                first: self.tail_next,
                ..EntriesFetch::default()
            },
        };
        for to in &self.others {
            let frame = Frame {
                kind: FrameKind::EntriesFetch,
                shard: self.shard,
                request: RequestId(0),
                flags: 0,
                payload: fetch.encode(),
                blob: bytes::Bytes::new(),
            };
            shell.links.send(*to, |out| frame.encode(out));
        }
        shell.links.flush();
    }

    /// Takes what answers the present question; anything else is of an earlier one.
    fn take(&mut self, log: &mut Log, from: ServerId, chunk: &EntriesChunk) {
        self.terms.insert(from, chunk.term);
        if chunk.refused {
            return;
        }
        let first = chunk.entries.first().map(|entry| entry.index);
        let entries = chunk.entries.iter().map(|entry| Entry {
            index: entry.index,
            term: entry.term,
            kind: entry.kind as u8,
            data: entry.data.clone(),
        });
        if let Some(gap) = self.closed_gap(log) {
            if first == Some(gap.first) {
                log.fill_gap(self.shard, &entries.collect::<Vec<_>>());
            }
        } else if chunk.leader
            && self.follows(from, chunk.term)
            && first.is_none_or(|first| first == self.tail_next)
        {
            for entry in entries {
                self.tail_next = Index(entry.index.0 + 1);
                log.append(self.shard, entry.as_ref());
            }
            self.tail_whole = self.tail_next > chunk.last_index;
        }
    }

    /// Whether a leader of this term is the one to follow. One that was not followed before is
    /// followed from the start.
    fn follows(&mut self, from: ServerId, term: Term) -> bool {
        if !self.is_newest(term) {
            return false;
        }
        if self.leader != Some((from, term)) {
            self.leader = Some((from, term));
            self.tail_next = self.tail_first;
            self.tail_whole = false;
        }
        true
    }

    /// Whether all other voters were heard, and none of a later term.
    fn is_newest(&self, term: Term) -> bool {
        self.others
            .iter()
            .all(|id| self.terms.get(id).is_some_and(|known| *known <= term))
    }

    fn can_settle(&self, log: &Log) -> bool {
        log.hard_state_in_doubt(self.shard)
            && self.closed_gap(log).is_none()
            && self.tail_whole
            && self.leader.is_some_and(|(_, term)| self.is_newest(term))
    }

    fn settle(&self, log: &mut Log, recovered: &mut Recovered, own: ServerId) {
        let Some(found) = recovered.shards.get_mut(&self.shard) else {
            return;
        };
        let known = found.checkpoint.hard_state;
        let term = self
            .terms
            .values()
            .copied()
            .max()
            .unwrap_or(known.term)
            .max(known.term);
        let state = HardState {
            term,
            vote: own.0,
            commit: known.commit,
        };
        log.put_hard_state(self.shard, state, true);
        log.settle_hard_state(self.shard);
        found.checkpoint.hard_state = state;
    }
}

#[cfg(test)]
mod tests {
    use wire::WireEntry;

    use super::*;
    use crate::{
        io::Dir,
        log::{LogConfig, LogIdentity},
        shard::bootstrap_log,
    };

    const SHARD: ShardId = ShardId(0);
    const A: ServerId = ServerId(1);
    const B: ServerId = ServerId(2);

    fn damaged_log(dir: &std::path::Path) -> (Dir, Log) {
        let disk = Dir::open(dir).unwrap();
        let config = LogConfig {
            segment_bytes: 1 << 20,
            ..LogConfig::default()
        };
        let identity = LogIdentity { log_id: 1, salt: 2 };
        let mut log = Log::create(&disk, config, identity).unwrap();
        bootstrap_log(&mut log, &[SHARD], &Configuration::default());
        log.doubt_hard_state(SHARD);
        log.flush_blocking(&disk, 0).unwrap();
        (disk, log)
    }

    /// What a leader of `term` answers whose entries up to `last` have these terms.
    fn chunk(term: u64, first: u64, terms: &[u64], last: u64) -> EntriesChunk {
        let entry = |(at, entry_term): (usize, &u64)| WireEntry {
            index: Index(first + at as u64),
            term: Term(*entry_term),
            kind: 0,
            data: bytes::Bytes::from_static(b"x"),
        };
        EntriesChunk {
            term: Term(term),
            last_index: Index(last),
            leader: true,
            entries: terms.iter().enumerate().map(entry).collect(),
            ..EntriesChunk::default()
        }
    }

    fn follower(term: u64) -> EntriesChunk {
        EntriesChunk {
            term: Term(term),
            refused: true,
            ..EntriesChunk::default()
        }
    }

    fn terms(log: &Log) -> Vec<u64> {
        let last = log.last_index(SHARD).0;
        (2..=last)
            .filter_map(|at| log.term(SHARD, Index(at)))
            .map(|t| t.0)
            .collect()
    }

    /// The tail was put together from whichever leaders answered: the first entries from one, the
    /// rest from its successor, whose log had others in their place.
    #[test]
    fn a_tail_comes_from_one_leader_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (_disk, mut log) = damaged_log(dir.path());
        let mut patient = Patient::new(SHARD, Index(2), &[A, B]);
        patient.take(&mut log, B, &follower(5));
        patient.take(&mut log, A, &chunk(5, 2, &[5, 5], 4));
        assert_eq!(patient.tail_next, Index(4));
        // B was elected meanwhile, without the entries that A had alone.
        patient.take(&mut log, B, &chunk(6, 4, &[6], 4));
        assert!(!patient.can_settle(&log));
        assert_eq!(patient.tail_next, Index(2), "all of B's log is wanted");
        patient.take(&mut log, A, &follower(6));
        patient.take(&mut log, B, &chunk(6, 2, &[3, 3, 6], 4));
        assert_eq!(terms(&log), [3, 3, 6]);
        assert!(patient.can_settle(&log));
    }

    /// A leader that was deposed and does not know it yet was believed.
    #[test]
    fn a_deposed_leader_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (_disk, mut log) = damaged_log(dir.path());
        let mut patient = Patient::new(SHARD, Index(2), &[A, B]);
        patient.take(&mut log, A, &chunk(5, 2, &[5], 2));
        assert!(terms(&log).is_empty(), "B was not heard yet");
        patient.take(&mut log, B, &follower(6));
        patient.take(&mut log, A, &chunk(5, 2, &[5], 2));
        assert!(terms(&log).is_empty() && !patient.can_settle(&log));
        patient.take(&mut log, B, &chunk(6, 2, &[6], 2));
        assert!(patient.can_settle(&log));
        // Another election is under way: its winner may know more.
        patient.take(&mut log, A, &follower(7));
        assert!(!patient.can_settle(&log));
    }
}

//! How does a server whose log was damaged get back what it lost, before it takes part again?
//!
//! A shard with a gap, or whose newest vote may be lost, does not start: it neither votes nor
//! acknowledges. Until it is whole, this server asks the others, again and again:
//!
//! - *a gap with entries behind it* is filled by any server that holds the entry behind it (log
//!   matching);
//! - *a damaged tail* is replaced by the leader's log from this server's commit index on (up to
//!   there all logs agree): whatever this server ever acknowledged to that leader is among it;
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
        let commit = recovered.shards[&shard].checkpoint.hard_state.commit;
        let first = recovered.shards[&shard]
            .first_index
            .max(Index(commit.0 + 1));
        let mut patient = Patient {
            shard,
            tail_next: first,
            tail_whole: false,
            terms: BTreeMap::new(),
        };
        let mut rounds = 0;
        while !patient.is_whole(log) {
            if stopping.get() {
                return Err("stopped while the log was being repaired".to_owned());
            }
            patient.ask(log, &others, shell);
            sleep(ROUND).await;
            for (from, of, chunk) in inbox.borrow_mut().drain(..) {
                if of == shard {
                    patient.terms.insert(from, chunk.term);
                    patient.take(log, &chunk);
                    log.flush_blocking(disk, now_ns())
                        .map_err(|error| error.to_string())?;
                }
            }
            if patient.can_settle(log, &others) {
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
    /// Next entry wanted of the leader's log, for a damaged tail.
    tail_next: Index,
    /// The leader's log was taken to its end.
    tail_whole: bool,
    /// What the other voters said.
    terms: BTreeMap<ServerId, Term>,
}

impl Patient {
    fn is_whole(&self, log: &Log) -> bool {
        log.gaps(self.shard).is_empty() && !log.hard_state_in_doubt(self.shard)
    }

    /// The first gap that any peer can fill.
    fn closed_gap(&self, log: &Log) -> Option<Gap> {
        log.gaps(self.shard)
            .into_iter()
            .find(|gap| gap.next.is_some())
    }

    fn ask(&self, log: &Log, others: &[ServerId], shell: &Rc<Shell>) {
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
        for to in others {
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
    fn take(&mut self, log: &mut Log, chunk: &EntriesChunk) {
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
        } else if chunk.leader && first.is_none_or(|first| first == self.tail_next) {
            for entry in entries {
                self.tail_next = Index(entry.index.0 + 1);
                log.append(self.shard, entry.as_ref());
            }
            self.tail_whole = self.tail_next > chunk.last_index;
        }
    }

    fn can_settle(&self, log: &Log, others: &[ServerId]) -> bool {
        let heard = others.iter().all(|id| self.terms.contains_key(id));
        log.hard_state_in_doubt(self.shard)
            && self.closed_gap(log).is_none()
            && self.tail_whole
            && heard
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

//! How does a server whose log was damaged get back what it lost, before it takes part again?
//!
//! A shard with a gap, or whose newest vote may be lost, does not start: it neither votes nor
//! acknowledges. Until it is whole, this server asks the others, again and again:
//!
//! - *a gap with entries behind it* is filled by any server that holds the entry behind it (log
//!   matching);
//! - *a damaged tail* is filled by the leader, with everything the leader has: whatever this
//!   server ever acknowledged to it is among that;
//! - *a hard state in doubt* is settled once every other voter has said its term: whoever ever
//!   collected this server's vote had made its term durable first. The server then starts at the
//!   highest of them with its vote given to itself, and so cannot vote twice in it.

use std::{cell::{Cell, RefCell}, collections::BTreeMap, rc::Rc, time::Duration};

use glommio::timer::sleep;
use wire::{EntriesChunk, EntriesFetch, Frame, FrameKind, Index, RequestId, ServerId, ShardId, Term};

use super::{port::{Phase, Port}, shell::{Shell, now_ns}};
use crate::{
    consensus::Configuration,
    io::{Disk, drive_blocking},
    log::{Entry, HardState, Log, Recovered},
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
    port: &Rc<Port>,
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
    let inbox: Inbox = Rc::default();
    let sink = Rc::clone(&inbox);
    port.enter(Phase::Repairing(Rc::new(move |from, shard, chunk| {
        sink.borrow_mut().push((from, shard, chunk));
    })));
    for shard in damaged {
        let others: Vec<ServerId> = configuration.voters().map(|m| m.raft_id).filter(|id| *id != own).collect();
        let mut terms: BTreeMap<ServerId, Term> = BTreeMap::new();
        let mut rounds = 0;
        while !log.gaps(shard).is_empty() || log.hard_state_in_doubt(shard) {
            if stopping.get() {
                return Err("stopped while the log was being repaired".to_owned());
            }
            ask(log, shard, &others, shell);
            sleep(ROUND).await;
            for (from, of, chunk) in inbox.borrow_mut().drain(..) {
                if of == shard {
                    terms.insert(from, chunk.term);
                    take(log, disk, shard, &chunk)?;
                }
            }
            if log.hard_state_in_doubt(shard) && others.iter().all(|id| terms.contains_key(id)) {
                settle(log, disk, recovered, shard, own, &terms)?;
            }
            rounds += 1;
            if rounds % SAY_AGAIN_ROUNDS == 0 {
                log::warn!(
                    target: "agent.server.log",
                    "still repairing: shard={shard} gaps={:?} hard_state_in_doubt={} voters_heard={}/{}",
                    log.gaps(shard), log.hard_state_in_doubt(shard), terms.len(), others.len()
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

fn ask(log: &Log, shard: ShardId, others: &[ServerId], shell: &Rc<Shell>) {
    let gap = log.gaps(shard).first().copied();
    let fetch = EntriesFetch {
        first: gap.map_or(Index(log.last_index(shard).0 + 1), |gap| gap.first),
        last: gap.and_then(|gap| gap.last).unwrap_or(Index(0)),
        next_index: gap.and_then(|gap| gap.next).map_or(Index(0), |(index, _)| index),
        next_term: gap.and_then(|gap| gap.next).map_or(Term(0), |(_, term)| term),
    };
    for to in others {
        let frame = Frame {
            kind: FrameKind::EntriesFetch,
            shard,
            request: RequestId(0),
            flags: 0,
            payload: fetch.encode(),
            blob: bytes::Bytes::new(),
        };
        shell.links.send(*to, |out| frame.encode(out));
    }
    shell.links.flush();
}

/// Takes what continues the first gap; anything else is of an earlier question.
fn take(log: &mut Log, disk: &dyn Disk, shard: ShardId, chunk: &EntriesChunk) -> Result<(), String> {
    let Some(gap) = log.gaps(shard).first().copied() else { return Ok(()) };
    let open_ended = gap.next.is_none();
    if chunk.refused || open_ended && !chunk.leader {
        return Ok(());
    }
    let entries: Vec<Entry> = chunk
        .entries
        .iter()
        .map(|entry| Entry { index: entry.index, term: entry.term, kind: entry.kind as u8, data: entry.data.clone() })
        .collect();
    if entries.first().is_none_or(|entry| entry.index != gap.first) && !(open_ended && entries.is_empty()) {
        return Ok(());
    }
    let whole_tail = open_ended && entries.last().map_or(Index(gap.first.0 - 1), |e| e.index) >= chunk.last_index;
    log.fill_gap(shard, &entries);
    let _ = whole_tail;
    drive_blocking(log, disk, now_ns()).map_err(|error| error.to_string())
}

fn settle(
    log: &mut Log,
    disk: &dyn Disk,
    recovered: &mut Recovered,
    shard: ShardId,
    own: ServerId,
    terms: &BTreeMap<ServerId, Term>,
) -> Result<(), String> {
    let Some(found) = recovered.shards.get_mut(&shard) else { return Ok(()) };
    let known = found.checkpoint.hard_state;
    let term = terms.values().copied().max().unwrap_or(known.term).max(known.term);
    let state = HardState { term, vote: own.0, commit: known.commit };
    log.put_hard_state(shard, state, true);
    log.settle_hard_state(shard);
    found.checkpoint.hard_state = state;
    drive_blocking(log, disk, now_ns()).map_err(|error| error.to_string())
}

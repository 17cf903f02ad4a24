//! What may happen to a log, and what must then be in it?
//!
//! A life appends, votes, commits, compacts, installs and idles at random; its writes are begun,
//! finished or held back at random. The [`Recorder`] notes in which batch each change went, so
//! that it can say what the log must be as of any batch.

use std::collections::BTreeMap;

use bytes::Bytes;
use wire::{Index, Lsn, ShardId};

use super::{Rig, Rng, checkpoint, data, ensure, hard_state};
use crate::{
    io::{LogDone, LogOp, mem::Begun},
    log::{HardState, LogConfig, Recovered},
};

/// Shards of a life.
const SHARDS: u64 = 3;

/// What a shard should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardModel {
    /// Its newest hard state.
    pub hard_state: HardState,
    /// Index and term of its snapshot.
    pub snapshot: (u64, u64),
    /// Term and data; the first is the entry after the snapshot.
    pub entries: Vec<(u64, Bytes)>,
}

impl ShardModel {
    /// The last index.
    pub fn last(&self) -> u64 {
        self.snapshot.0 + self.entries.len() as u64
    }

    /// Term of an entry or of the snapshot; 0 outside.
    pub fn term(&self, index: u64) -> u64 {
        match index.checked_sub(self.snapshot.0 + 1) {
            Some(at) => self.entries.get(at as usize).map_or(0, |entry| entry.0),
            None => self.snapshot.1,
        }
    }

    /// Term and data of an entry behind the snapshot.
    pub fn entry(&self, index: u64) -> Option<&(u64, Bytes)> {
        let at = index.checked_sub(self.snapshot.0 + 1)?;
        self.entries.get(at as usize)
    }
}

/// Shards by number.
pub type Models = BTreeMap<ShardId, ShardModel>;

#[derive(Clone, Debug)]
enum Op {
    Append {
        index: u64,
        term: u64,
        data: Bytes,
    },
    HardState(HardState),
    Checkpoint {
        state: HardState,
        index: u64,
        term: u64,
    },
}

impl Op {
    fn apply(&self, shard: &mut ShardModel) {
        match self {
            Op::Append { index, term, data } => {
                shard
                    .entries
                    .truncate((index - shard.snapshot.0 - 1) as usize);
                shard.entries.push((*term, data.clone()));
            }
            Op::HardState(state) => shard.hard_state = *state,
            Op::Checkpoint { state, index, term } => {
                let keep = shard.term(*index) == *term && *index < shard.last();
                let drop = if keep {
                    (index - shard.snapshot.0) as usize
                } else {
                    shard.entries.len()
                };
                shard.entries.drain(..drop);
                shard.snapshot = (*index, *term);
                shard.hard_state = *state;
            }
        }
    }
}

/// What was done, in which batch it went, and what must be there in any case.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    ops: Vec<(u64, ShardId, Op)>,
    base: Models,
    /// As of now.
    pub now: Models,
}

impl Recorder {
    fn note(&mut self, lsn: Lsn, shard: ShardId, op: Op) {
        op.apply(self.now.entry(shard).or_default());
        self.ops.push((lsn.0, shard, op));
    }

    /// The shards as of a batch.
    pub fn as_of(&self, lsn: u64) -> Models {
        let mut models = self.base.clone();
        for (_, shard, op) in self.ops.iter().filter(|op| op.0 <= lsn) {
            op.apply(models.entry(*shard).or_default());
        }
        models
    }

    /// The state as of a batch; what comes after it is forgotten.
    pub fn cut(&mut self, lsn: u64) {
        self.base = self.as_of(lsn);
        self.ops.clear();
        self.now = self.base.clone();
    }
}

/// What holds at a moment of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// Batches up to here were acknowledged: they must be there.
    pub acknowledged: u64,
    /// Batches up to here were begun to be gathered: nothing beyond can be there.
    pub opened: u64,
}

/// One life of one log.
#[derive(Debug)]
pub struct Life {
    /// What decides.
    pub rng: Rng,
    /// Sizes.
    pub config: LogConfig,
    /// The log and its disk.
    pub rig: Rig,
    /// The truth.
    pub recorder: Recorder,
    /// What held at each recorded moment of the disk.
    pub facts: Vec<Fact>,
    /// Writes that were issued.
    pub issued: u64,
    /// For showing that a judge can fail: acknowledge writes that are not durable.
    pub acknowledge_early: bool,
    begun: Vec<Result<Begun, LogDone>>,
}

impl Life {
    /// A life that begins with a new log.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let big = rng.below(6) == 0;
        let config = LogConfig {
            segment_bytes: if big { 256 * 1024 } else { 64 * 1024 },
            batch_bytes_max: [8, 16, 64][rng.below(3) as usize] * 1024,
            log_bytes_max: 8 * 1024 * 1024,
            writes_in_flight_max: 1 + rng.below(3) as usize,
            second_write_bytes_min: rng.below(2) as usize * 8192,
            free_segments_max: rng.below(4) as usize,
            ..LogConfig::default()
        };
        Self::resume(rng, Rig::new(config), Recorder::default())
    }

    /// A life that goes on in a recovered log, of which the recorder knows all.
    pub fn resume(rng: Rng, rig: Rig, recorder: Recorder) -> Self {
        Self {
            rng,
            config: rig.log.config().clone(),
            rig,
            recorder,
            facts: Vec::new(),
            issued: 0,
            acknowledge_early: false,
            begun: Vec::new(),
        }
    }

    /// Begins to record the disk, and what holds at each of its moments.
    pub fn record(&mut self) {
        self.rig.disk.record();
        self.facts.clear();
        self.note_facts();
    }

    /// The latest moments, and those that the last step made, are judged by what holds now.
    fn note_facts(&mut self) {
        let fact = Fact {
            acknowledged: self.rig.log.durable_lsn().0,
            opened: self.rig.log.open_lsn().0,
        };
        let moments = self.rig.disk.moments();
        if moments == self.facts.len() {
            self.facts.pop();
        }
        self.facts.resize(moments, fact);
    }

    fn append(&mut self, shard: ShardId, index: u64, term: u64) {
        let bytes = match self.rng.below(10) {
            0 => 3000,
            1..4 => 600,
            _ => 20,
        };
        let bytes = self.rng.below(bytes) as usize;
        let mut data = data(index, term, bytes);
        data.extend_from_slice(&self.rng.next().to_le_bytes());
        let lsn = self.rig.append(shard, index, term, &data);
        let data = Bytes::from(data);
        self.recorder
            .note(lsn, shard, Op::Append { index, term, data });
    }

    /// Does one thing.
    pub fn act(&mut self) {
        let shard = ShardId(self.rng.below(SHARDS) as u16);
        let model = self.recorder.now.entry(shard).or_default();
        let (last, snapshot, state) = (model.last(), model.snapshot.0, model.hard_state);
        let term = model.term(last).max(state.term.0).max(1);
        let commit = state.commit.0.max(snapshot);
        match self.rng.below(20) {
            0 => {
                let commit = commit + self.rng.below(last.saturating_sub(commit) + 1);
                let state = hard_state(term + self.rng.below(2), self.rng.below(5), commit);
                self.rig.log.put_hard_state(shard, state, true);
                self.recorder
                    .note(self.rig.log.open_lsn(), shard, Op::HardState(state));
            }
            1 if last > commit => {
                let commit = commit + self.rng.below(last - commit + 1);
                self.commit(shard, hard_state(state.term.0, state.vote, commit));
            }
            // A conflict: the last entries are replaced.
            2 if last > commit => {
                let index = last - self.rng.below((last - commit).min(5));
                self.append(shard, index, term + 1);
            }
            3 if last > snapshot => {
                let index = snapshot + 1 + self.rng.below(last - snapshot);
                let term = self.recorder.now[&shard].term(index);
                self.checkpoint(shard, state, index, term);
            }
            // An installed image beyond the log, or one that contradicts it.
            4 if self.rng.below(8) == 0 => {
                let index = last + 1 + self.rng.below(3);
                self.checkpoint(shard, state, index, term);
            }
            // All shards, so that segments are freed.
            5 => {
                for (shard, model) in self.recorder.now.clone() {
                    let index = model.last();
                    if index > model.snapshot.0 {
                        self.checkpoint(shard, model.hard_state, index, model.term(index));
                    }
                }
            }
            _ => {
                for index in 1..=1 + self.rng.below(6) {
                    self.append(shard, last + index, term);
                }
            }
        }
    }

    /// A commit index alone rides in the open batch, or in the one that opens next.
    fn commit(&mut self, shard: ShardId, state: HardState) {
        let next = u64::from(self.rig.log.open.is_none());
        self.rig.log.put_hard_state(shard, state, false);
        let lsn = Lsn(self.rig.log.open_lsn().0 + next);
        self.recorder.note(lsn, shard, Op::HardState(state));
    }

    fn checkpoint(&mut self, shard: ShardId, state: HardState, index: u64, term: u64) {
        self.rig
            .log
            .put_checkpoint(shard, checkpoint(state, index, term));
        self.recorder.note(
            self.rig.log.open_lsn(),
            shard,
            Op::Checkpoint { state, index, term },
        );
    }

    /// The device does some of what it was asked for.
    ///
    /// # Panics
    /// When a write fails: the disk of a life does not.
    pub fn drive(&mut self) {
        self.rig.now += self.rng.below(60_000_000);
        for op in self.rig.ops() {
            if matches!(op, LogOp::Write { .. }) {
                self.issued += 1;
                self.begun.push(self.rig.disk.begin(op));
                self.note_facts();
            } else {
                let done = self.rig.disk.execute(op);
                self.note_facts();
                self.done(done);
            }
        }
        while !self.begun.is_empty() && self.rng.below(3) > 0 {
            let no = self.rng.below(self.begun.len() as u64) as usize;
            let begun = self.begun.swap_remove(no);
            if let (true, Ok(begun)) = (self.acknowledge_early, &begun) {
                let done = LogDone {
                    token: begun.token(),
                    buf: None,
                    result: Ok(()),
                    formatted_bytes: 0,
                };
                self.done(done);
                continue;
            }
            let done = self.rig.disk.finish(begun);
            self.note_facts();
            self.done(done);
        }
    }

    fn done(&mut self, done: LogDone) {
        let now = self.rig.now;
        self.rig
            .log
            .done(now, done)
            .expect("the disk does not fail");
        self.note_facts();
    }
}

/// Whether a hard state is the one that was written.
pub(super) fn is_same(found: HardState, written: HardState, commit: Commit) -> bool {
    let commits = match commit {
        Commit::Exact => found.commit == written.commit,
        Commit::MayLag => found.commit <= written.commit,
    };
    commits && (found.term, found.vote) == (written.term, written.vote)
}

/// What a commit index must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The newest that is in the batches.
    Exact,
    /// Not beyond it: that one is lost costs nothing, and is nobody's doubt.
    MayLag,
}

/// Whether the log is exactly what the models say, with nothing in doubt.
///
/// # Errors
/// What differs.
pub fn equals(
    models: &Models,
    rig: &Rig,
    recovered: &Recovered,
    commit: Commit,
) -> Result<(), String> {
    for (shard, model) in models {
        let Some(found) = recovered.shards.get(shard) else {
            let empty = *model == ShardModel::default();
            ensure!(empty, "shard {shard} is gone");
            continue;
        };
        let state = found.checkpoint.hard_state;
        ensure!(
            is_same(state, model.hard_state, commit),
            "shard {shard}: hard state {state:?} instead of {:?}",
            model.hard_state
        );
        let snapshot = (
            found.checkpoint.snapshot_index.0,
            found.checkpoint.snapshot_term.0,
        );
        ensure!(
            snapshot == model.snapshot,
            "shard {shard}: snapshot {snapshot:?} instead of {:?}",
            model.snapshot
        );
        ensure!(
            found.last_index.0 == model.last(),
            "shard {shard}: last entry {} instead of {}",
            found.last_index,
            model.last()
        );
        ensure!(
            found.gaps.is_empty() && !found.hard_state_in_doubt,
            "shard {shard}: gaps {:?}, doubt {}",
            found.gaps,
            found.hard_state_in_doubt
        );
        let first = model.snapshot.0 + 1;
        let entries = rig
            .read(*shard, first, model.last())
            .map_err(|error| format!("shard {shard}: {error}"))?;
        for ((index, term, data), expected) in entries.into_iter().zip(&model.entries) {
            let known = rig.log.term(*shard, Index(index)).map(|term| term.0);
            ensure!(
                (term, &data) == (expected.0, &expected.1) && known == Some(term),
                "shard {shard} entry {index}: term {term} ({known:?} in memory) and {} bytes instead of term {} and {} bytes",
                data.len(),
                expected.0,
                expected.1.len()
            );
        }
    }
    for shard in recovered.shards.keys() {
        ensure!(
            models.contains_key(shard),
            "shard {shard} was never written"
        );
    }
    Ok(())
}

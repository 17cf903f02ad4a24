//! Random lives of a log, judged by a recorder that knows what was acknowledged.
//!
//! A life appends, votes, compacts, installs and idles at random; its writes are begun, finished
//! or held back at random; then the power fails and whatever was not durable survives in part.
//! After each recovery, which must succeed even for a lone server, the log must be exactly the
//! recorded one up to some batch that is neither below the last acknowledged one nor beyond the
//! last one issued: nothing lost, nothing phantom, nothing reordered.

use std::collections::BTreeMap;

use super::*;
use crate::io::mem::{Begun, Fault};

/// What a shard should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardModel {
    pub hard_state: HardState,
    pub snapshot: (u64, u64),
    /// Term and data; the first is the entry after the snapshot.
    pub entries: Vec<(u64, Vec<u8>)>,
}

impl ShardModel {
    pub fn last(&self) -> u64 {
        self.snapshot.0 + self.entries.len() as u64
    }

    pub fn term(&self, index: u64) -> u64 {
        match index.checked_sub(self.snapshot.0 + 1) {
            Some(at) => self.entries.get(at as usize).map_or(0, |entry| entry.0),
            None => self.snapshot.1,
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append {
        index: u64,
        term: u64,
        data: Vec<u8>,
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

/// The recorder: what was done, in which batch it went, and what must be there in any case.
#[derive(Default)]
pub struct Recorder {
    ops: Vec<(u64, ShardId, Op)>,
    base: BTreeMap<ShardId, ShardModel>,
    pub now: BTreeMap<ShardId, ShardModel>,
}

impl Recorder {
    fn note(&mut self, lsn: Lsn, shard: ShardId, op: Op) {
        op.apply(self.now.entry(shard).or_default());
        self.ops.push((lsn.0, shard, op));
    }

    /// The state as of a batch; what comes after it is forgotten.
    pub fn cut(&mut self, lsn: u64) {
        for (at, shard, op) in std::mem::take(&mut self.ops) {
            if at <= lsn {
                op.apply(self.base.entry(shard).or_default());
            }
        }
        self.now = self.base.clone();
    }
}

pub struct Life {
    pub rng: Rng,
    pub config: LogConfig,
    pub rig: Rig,
    pub recorder: Recorder,
    begun: Vec<Result<Begun, crate::io::LogDone>>,
    issued: u64,
    pub acknowledged: u64,
    restarts: u64,
}

impl Life {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let big = rng.below(3) == 0;
        let config = LogConfig {
            segment_bytes: if big { 256 * 1024 } else { 64 * 1024 },
            batch_bytes_max: [8, 16, 64][rng.below(3) as usize] * 1024,
            log_bytes_max: 8 * 1024 * 1024,
            writes_in_flight_max: 1 + rng.below(3) as usize,
            second_write_bytes_min: rng.below(2) as usize * 8192,
            free_segments_max: rng.below(4) as usize,
            ..LogConfig::default()
        };
        let rig = Rig::new(config.clone());
        Self {
            rng,
            config,
            rig,
            recorder: Recorder::default(),
            begun: Vec::new(),
            issued: 0,
            acknowledged: 0,
            restarts: 0,
        }
    }

    fn shard(&mut self) -> ShardId {
        ShardId(self.rng.below(3) as u16)
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
        self.recorder
            .note(lsn, shard, Op::Append { index, term, data });
    }

    pub fn act(&mut self) {
        let shard = self.shard();
        let model = self.recorder.now.entry(shard).or_default().clone();
        let last = model.last();
        let term = model.term(last).max(model.hard_state.term.0).max(1);
        match self.rng.below(20) {
            0 => {
                let commit = model.hard_state.commit.0.max(model.snapshot.0);
                let commit = commit + self.rng.below(last.saturating_sub(commit) + 1);
                let state = hard_state(term + self.rng.below(2), self.rng.below(5), commit);
                self.rig.log.put_hard_state(shard, state, true);
                self.recorder
                    .note(self.rig.log.open_lsn(), shard, Op::HardState(state));
            }
            // A conflict: the last entries are replaced.
            1 if last > model.snapshot.0.max(model.hard_state.commit.0) => {
                let fixed = model.snapshot.0.max(model.hard_state.commit.0);
                let index = last - self.rng.below((last - fixed).min(5));
                self.append(shard, index, term + 1);
            }
            2 if last > model.snapshot.0 => {
                let index = model.snapshot.0 + 1 + self.rng.below(last - model.snapshot.0);
                self.checkpoint(shard, model.hard_state, index, model.term(index));
            }
            // An installed image beyond the log, or one that contradicts it.
            3 if self.rng.below(8) == 0 => {
                let index = last + 1 + self.rng.below(3);
                self.checkpoint(shard, model.hard_state, index, term);
            }
            _ => {
                for index in 1..=1 + self.rng.below(6) {
                    self.append(shard, last + index, term);
                }
            }
        }
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
    pub fn drive(&mut self) {
        self.rig.now += self.rng.below(60_000_000);
        for op in self.rig.ops() {
            if matches!(op, LogOp::Write { .. }) {
                self.issued += 1;
                self.begun.push(self.rig.disk.begin(op));
            } else {
                let done = self.rig.disk.execute(op);
                self.rig.log.done(self.rig.now, done).unwrap();
            }
        }
        while !self.begun.is_empty() && self.rng.below(3) > 0 {
            let no = self.rng.below(self.begun.len() as u64) as usize;
            let done = self.rig.disk.finish(self.begun.swap_remove(no));
            self.rig.log.done(self.rig.now, done).unwrap();
        }
        self.acknowledged = self.rig.log.durable_lsn().0;
    }

    /// Power fails or the process is killed, possibly while recovering; in the end the log opens.
    fn crash(mut self) -> Self {
        let opened = self.rig.log.open_lsn().0;
        self.begun.clear();
        let disk = self.rig.disk;
        // Only the process dies: then everything that was begun reads back, and from then on it
        // must stay, although nobody had flushed it.
        let killed = self.rng.below(3) == 0;
        let rng = &mut self.rng;
        if !killed {
            disk.crash(&mut || rng.next());
        }
        while self.rng.below(4) == 0 {
            disk.fail_at(1 + self.rng.below(40), Fault::Errno(libc::EIO));
            let _ = Log::recover(&disk, self.config.clone(), IDENTITY, false);
            let rng = &mut self.rng;
            disk.crash(&mut || rng.next());
        }
        let (rig, recovered) = Rig::reopen(disk, self.config.clone(), true).unwrap();
        self.rig = rig;
        let last = recovered.report.last_lsn.0;
        assert!(
            last >= self.acknowledged,
            "acknowledged {} but only {last} there",
            self.acknowledged
        );
        assert!(last <= opened, "phantom batch {last} of {opened}");
        assert_eq!(recovered.report.corrupt, []);
        self.recorder.cut(last);
        self.compare(&recovered);
        self.acknowledged = last;
        self.restarts += 1;
        self
    }

    pub fn compare(&self, recovered: &Recovered) {
        for (shard, model) in &self.recorder.now {
            let Some(found) = recovered.shards.get(shard) else {
                assert_eq!(*model, ShardModel::default(), "shard {shard} is gone");
                continue;
            };
            assert_eq!(
                found.checkpoint.hard_state, model.hard_state,
                "shard {shard}"
            );
            assert_eq!(
                found.checkpoint.snapshot_index.0, model.snapshot.0,
                "shard {shard}"
            );
            assert_eq!(
                found.checkpoint.snapshot_term.0, model.snapshot.1,
                "shard {shard}"
            );
            assert_eq!(found.last_index.0, model.last(), "shard {shard}");
            assert!(found.gaps.is_empty() && !found.hard_state_in_doubt);
            let entries = self.rig.entries(*shard);
            assert_eq!(entries.len(), model.entries.len());
            for ((index, term, data), expected) in entries.into_iter().zip(&model.entries) {
                assert_eq!(
                    (term, &data),
                    (expected.0, &expected.1),
                    "shard {shard} entry {index}"
                );
                assert_eq!(self.rig.log.term(*shard, Index(index)), Some(Term(term)));
            }
        }
    }
}

/// Lives through so many crashes; returns how many batches were issued.
fn live(seed: u64, crashes: u64) -> u64 {
    let mut life = Life::new(seed);
    while life.restarts < crashes {
        for _ in 0..life.rng.below(80) {
            life.act();
            if life.rng.below(3) > 0 {
                life.drive();
            }
        }
        life = life.crash();
    }
    life.issued
}

#[test]
fn random_lives_lose_nothing_and_invent_nothing() {
    let seeds = std::env::var("LOG_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(300);
    let first = std::env::var("LOG_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let mut issued = 0;
    for seed in first.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        let lived = std::panic::catch_unwind(|| live(seed, 12));
        match lived {
            Ok(batches) => issued += batches,
            Err(panic) => {
                eprintln!(
                    "replay with: LOG_SEED={seed} cargo test -p engine --lib log::tests::model"
                );
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(
        first.is_some() || issued > 20 * seeds,
        "the lives were too quiet: {issued} batches"
    );
}

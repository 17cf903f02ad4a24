//! Tests of the log against [`MemDisk`]: what is promised, row by row and model by model.

mod basics;
mod corruption;
mod faults;
mod golden;
mod model;
mod tools;
mod verdicts;

use wire::{Index, Lsn, ShardId, Term};

use super::*;
use crate::io::{LogOp, mem::MemDisk};

pub const IDENTITY: LogIdentity = LogIdentity {
    log_id: 0x1122_3344_5566_7788,
    salt: 0x99AA_BBCC_DDEE_FF00,
};
pub const S0: ShardId = ShardId(0);
pub const S1: ShardId = ShardId(1);

/// Segments of 64 KiB, of which a test fills many.
pub fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 64 * 1024,
        batch_bytes_max: 16 * 1024,
        log_bytes_max: 16 * 64 * 1024,
        free_segments_max: 8,
        ..LogConfig::default()
    }
}

/// A log on a disk in memory, driven to rest after each step.
pub struct Rig {
    pub disk: MemDisk,
    pub log: Log,
    pub now: u64,
}

impl Rig {
    pub fn new(config: LogConfig) -> Self {
        let disk = MemDisk::new();
        let log = Log::create(&disk, config, IDENTITY).unwrap();
        Self { disk, log, now: 0 }
    }

    pub fn reopen(
        disk: MemDisk,
        config: LogConfig,
        lone: bool,
    ) -> Result<(Self, Recovered), LogError> {
        let (log, recovered) = Log::recover(&disk, config, IDENTITY, lone)?;
        Ok((Self { disk, log, now: 0 }, recovered))
    }

    /// The server is killed at rest and starts again.
    pub fn restart(self) -> (Self, Recovered) {
        let config = self.log.config().clone();
        Self::reopen(self.disk, config, true).unwrap()
    }

    pub fn ops(&mut self) -> Vec<LogOp> {
        let mut ops = Vec::new();
        self.log.take_ops(self.now, &mut ops);
        ops
    }

    /// Executes everything that the log asks for, until it asks for nothing.
    pub fn run(&mut self) {
        loop {
            let ops = self.ops();
            if ops.is_empty() {
                return;
            }
            for op in ops {
                let done = self.disk.execute(op);
                self.log.done(self.now, done).unwrap();
            }
        }
    }

    pub fn append(&mut self, shard: ShardId, index: u64, term: u64, data: &[u8]) -> Lsn {
        let entry = EntryRef {
            index: Index(index),
            term: Term(term),
            kind: 0,
            data,
        };
        self.log.append(shard, entry);
        self.log.open_lsn()
    }

    /// All entries of a shard, read back.
    pub fn entries(&self, shard: ShardId) -> Vec<(u64, u64, Vec<u8>)> {
        let (first, last) = (self.log.first_index(shard), self.log.last_index(shard));
        self.range(shard, first.0, last.0)
    }

    pub fn range(&self, shard: ShardId, first: u64, last: u64) -> Vec<(u64, u64, Vec<u8>)> {
        let mut all: Vec<(u64, u64, Vec<u8>)> = Vec::new();
        let mut next = first;
        while next <= last {
            let read = self
                .log
                .read_blocking(&self.disk, shard, Index(next), Index(last), 20_000);
            for entry in read.unwrap() {
                assert_eq!(entry.index.0, next);
                next += 1;
                all.push((entry.index.0, entry.term.0, entry.data.to_vec()));
            }
        }
        all
    }
}

pub fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState {
        term: Term(term),
        vote,
        commit: Index(commit),
    }
}

pub fn checkpoint(hard_state: HardState, index: u64, term: u64) -> Checkpoint {
    Checkpoint {
        hard_state,
        snapshot_index: Index(index),
        snapshot_term: Term(term),
        configuration: bytes::Bytes::from_static(b"members"),
    }
}

/// Data that says which entry it is.
pub fn data(index: u64, term: u64, bytes: usize) -> Vec<u8> {
    let mut out = format!("{index}/{term}:").into_bytes();
    out.resize(bytes.max(out.len()), index as u8);
    out
}

/// A small seeded generator (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

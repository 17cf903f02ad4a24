//! Tests of the log against [`MemDisk`]: what is promised, row by row and model by model.

mod basics;
mod corruption;
mod crash;
mod device;
mod faults;
mod golden;
mod tools;
mod verdicts;

use wire::{Index, Lsn, ShardId, Term};

pub use super::proof::{IDENTITY, Rig, Rng, checkpoint, data, hard_state, small};
use super::*;
use crate::io::{LogOp, mem::MemDisk};

pub const S0: ShardId = ShardId(0);
pub const S1: ShardId = ShardId(1);

impl Rig {
    /// The server is killed at rest and starts again.
    pub fn restart(self) -> (Self, Recovered) {
        let config = self.log.config().clone();
        Self::reopen(self.disk, config, true).unwrap()
    }

    /// All entries of a shard, read back.
    pub fn entries(&self, shard: ShardId) -> Vec<(u64, u64, Vec<u8>)> {
        let (first, last) = (self.log.first_index(shard), self.log.last_index(shard));
        self.range(shard, first.0, last.0)
    }

    /// Entries of a shard, read back.
    pub fn range(&self, shard: ShardId, first: u64, last: u64) -> Vec<(u64, u64, Vec<u8>)> {
        let read = self.read(shard, first, last).unwrap().into_iter();
        read.map(|(index, term, data)| (index, term, data.to_vec()))
            .collect()
    }
}

/// A number from the environment: more seeds, or the one to replay.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

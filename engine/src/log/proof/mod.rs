//! How is it shown that what was acknowledged survives?
//!
//! By driving the shipped log over [`MemDisk`], which remembers what it was told, and comparing
//! what recovery believes with a recorder that knows what was acknowledged. The tests run short
//! versions of what is here, `curia-bench images`, `flips` and `nth-fault` long ones; the feature
//! `simulation` makes it available to them. It adds code and changes none.
//!
//! | file | what it does |
//! |---|---|
//! | [`life`] | a random life of a log, and the recorder |
//! | [`crash`] | at every write boundary of a life: every way in which the power can fail |
//! | [`mending`] | the same while a damaged log is restored from its peers |
//! | [`flips`] | every bit of a log flipped, found, and mended by peers |
//! | [`nth`] | the N-th operation fails, for every N |
//!
//! Invariant: the truth is kept apart from the log: nothing here asks the log what it should hold.

pub mod crash;
pub mod flips;
pub mod life;
pub mod mending;
pub mod nth;

use std::{fmt, ops::AddAssign};

use bytes::Bytes;
use wire::{Index, Lsn, ShardId, Term};

use super::{Checkpoint, EntryRef, HardState, Log, LogConfig, LogError, LogIdentity, Recovered};
use crate::io::{LogOp, mem::MemDisk};

/// Whose log it is.
pub const IDENTITY: LogIdentity = LogIdentity {
    log_id: 0x1122_3344_5566_7788,
    salt: 0x99AA_BBCC_DDEE_FF00,
};

/// Segments of 64 KiB, of which a script fills many.
pub fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 64 * 1024,
        batch_bytes_max: 16 * 1024,
        log_bytes_max: 16 * 64 * 1024,
        free_segments_max: 8,
        ..LogConfig::default()
    }
}

/// A promise was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The seed, bit or operation that shows it again.
    pub at: String,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

impl std::error::Error for Violation {}

/// Says what is wrong unless `condition` holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(crate) use ensure;

/// Counts by name, in the order in which they were declared: what a run has really seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub Vec<(&'static str, u64)>);

impl Tally {
    /// Adds to a count.
    pub fn add(&mut self, name: &'static str, more: u64) {
        match self.0.iter_mut().find(|count| count.0 == name) {
            Some(count) => count.1 += more,
            None => self.0.push((name, more)),
        }
    }

    /// A count; 0 when it was never added to.
    pub fn get(&self, name: &str) -> u64 {
        let count = self.0.iter().find(|count| count.0 == name);
        count.map_or(0, |count| count.1)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        other
            .0
            .into_iter()
            .for_each(|(name, more)| self.add(name, more));
    }
}

/// A log on a disk in memory, driven to rest after each step.
#[derive(Debug)]
pub struct Rig {
    /// The disk.
    pub disk: MemDisk,
    /// The log on it.
    pub log: Log,
    /// What the log is told of the time, nanoseconds.
    pub now: u64,
}

impl Rig {
    /// A new log.
    ///
    /// # Panics
    /// When the sizes contradict each other.
    pub fn new(config: LogConfig) -> Self {
        let disk = MemDisk::new();
        let log = Log::create(&disk, config, IDENTITY).expect("an empty disk");
        Self { disk, log, now: 0 }
    }

    /// Recovers the log of a disk.
    ///
    /// # Errors
    /// As [`Log::recover`].
    pub fn reopen(
        disk: MemDisk,
        config: LogConfig,
        lone: bool,
    ) -> Result<(Self, Recovered), LogError> {
        let (log, recovered) = Log::recover(&disk, config, IDENTITY, lone)?;
        Ok((Self { disk, log, now: 0 }, recovered))
    }

    /// What the log wants done now.
    pub fn ops(&mut self) -> Vec<LogOp> {
        let mut ops = Vec::new();
        self.log.take_ops(self.now, &mut ops);
        ops
    }

    /// Executes everything that the log asks for, until it asks for nothing.
    ///
    /// # Panics
    /// When a write fails.
    pub fn run(&mut self) {
        loop {
            let ops = self.ops();
            if ops.is_empty() {
                return;
            }
            for op in ops {
                let done = self.disk.execute(op);
                self.log
                    .done(self.now, done)
                    .expect("the disk does not fail");
            }
        }
    }

    /// Appends an entry; returns the batch it went into.
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

    /// Index, term and data of the shard's entries `first..=last`, read back.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(
        &self,
        shard: ShardId,
        first: u64,
        last: u64,
    ) -> Result<Vec<(u64, u64, Bytes)>, LogError> {
        let mut all = Vec::new();
        let mut next = first;
        while next <= last {
            let read =
                self.log
                    .read_blocking(&self.disk, shard, Index(next), Index(last), 20_000)?;
            for entry in read {
                assert_eq!(entry.index.0, next, "a read returns what was asked for");
                next += 1;
                all.push((entry.index.0, entry.term.0, entry.data));
            }
        }
        Ok(all)
    }
}

/// A hard state from plain numbers.
pub fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState {
        term: Term(term),
        vote,
        commit: Index(commit),
    }
}

/// A checkpoint from plain numbers.
pub fn checkpoint(hard_state: HardState, index: u64, term: u64) -> Checkpoint {
    Checkpoint {
        hard_state,
        snapshot_index: Index(index),
        snapshot_term: Term(term),
        configuration: Bytes::from_static(b"members"),
    }
}

/// Data that says which entry it is.
pub fn data(index: u64, term: u64, bytes: usize) -> Vec<u8> {
    let mut out = format!("{index}/{term}:").into_bytes();
    out.resize(bytes.max(out.len()), index as u8);
    out
}

/// A small seeded generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
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

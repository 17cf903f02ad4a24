//! In which ways can the log fail, and who must know?
//!
//! Three kinds that never turn into one another. [`LogFailure`]: the device failed while
//! running, and the log is dead until restart. [`LogError`]: opening, reading or repairing was
//! refused. [`CorruptAt`]: bytes on disk that should be whole are not; it always carries the file
//! and the offset, and nothing converts it into "end of log".

use std::{fmt, io};

use wire::{Index, Lsn, ShardId};

use super::verdict::Verdict;

/// Where bytes were found that cannot be trusted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptAt {
    /// The segment file.
    pub file: String,
    /// Where in it, bytes.
    pub offset: u64,
    /// What was found.
    pub verdict: Verdict,
}

impl fmt::Display for CorruptAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at offset {}: {}",
            self.file, self.offset, self.verdict
        )
    }
}

/// A durable write failed. Final until the server restarts and recovers: after a failed flush
/// the kernel may report the next one as successful without having written anything.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "log write failed: {file} at offset {offset} (batch {lsn}): {why}; this log accepts nothing more until the server restarts"
)]
pub struct LogFailure {
    /// The segment file.
    pub file: String,
    /// Where in it, bytes.
    pub offset: u64,
    /// The batch.
    pub lsn: Lsn,
    /// What the device reported.
    pub why: String,
}

/// Opening, reading or repairing the log was refused.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk reported an error.
    #[error("log: cannot {what} {file}: {source}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        file: String,
        /// What was reported.
        source: io::Error,
    },
    /// `create` in a directory that holds segments.
    #[error("log: cannot create a log where {file} exists; this directory has been a log before")]
    Exists {
        /// A segment.
        file: String,
    },
    /// `recover` where there are no segments at all.
    #[error(
        "log: no segment files, although this data directory has been a log; they were removed or the wrong directory is mounted. Refusing to start as an empty server: restore the files, or wipe the whole data directory and join as a new server"
    )]
    Empty,
    /// Segments of another log.
    #[error(
        "log: {file} belongs to another log (id {found:016x}, expected {expected:016x}); was a data directory mixed up?"
    )]
    Foreign {
        /// The segment.
        file: String,
        /// Whose it is.
        found: u64,
        /// Whose it should be.
        expected: u64,
    },
    /// A newer format.
    #[error(
        "log: {file} has format version {found}; this program reads up to {supported}. Start it with the version that wrote it, or a newer one"
    )]
    Version {
        /// The segment.
        file: String,
        /// Its version.
        found: u16,
        /// The newest that can be read.
        supported: u16,
    },
    /// The sizes contradict each other.
    #[error("log: {0}")]
    Config(String),
    /// A lone server found something missing that no peer can give back.
    #[error("log: {at}. This server has no peers to fetch the data from, and will not guess. Restore {file} from a backup, or as a last resort run `curia log repair --cut-tail`, which keeps the bytes from there on aside and ends the log at offset {offset}", file = at.file, offset = at.offset)]
    Undecided {
        /// Where.
        at: CorruptAt,
    },
    /// What was read does not check.
    #[error("log: corrupt entry: {0}")]
    Corrupt(CorruptAt),
    /// The batches are whole, but they do not continue one another: segments of two histories.
    #[error(
        "log: {0}; the segment files are not of one history (was a single file restored from a backup?)"
    )]
    Spliced(CorruptAt),
    /// The entry is no longer in the log.
    #[error("log: shard {shard} entry {index} is compacted away (the first is {first})")]
    Compacted {
        /// The shard.
        shard: ShardId,
        /// The entry.
        index: Index,
        /// The first that is retained.
        first: Index,
    },
    /// The entry is not yet in the log, or not yet durable.
    #[error("log: shard {shard} entry {index} is not in the durable log")]
    Unavailable {
        /// The shard.
        shard: ShardId,
        /// The entry.
        index: Index,
    },
    /// The entry was in a corrupt record and has not been fetched from a peer.
    #[error("log: shard {shard} entry {index} was lost to corruption and not yet restored")]
    InGap {
        /// The shard.
        shard: ShardId,
        /// The entry.
        index: Index,
    },
}

impl LogError {
    pub(super) fn io(
        what: &'static str,
        file: impl Into<String>,
    ) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { what, file, source }
    }
}

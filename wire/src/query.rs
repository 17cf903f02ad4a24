//! What may be read, and how fresh must the answer be?

use bytes::Bytes;

use crate::{Index, WireError};

/// Consul's three consistency modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ReadMode {
    /// By the leader under a valid lease.
    #[default]
    Default = 0,
    /// Confirmed by a quorum round.
    Consistent = 1,
    /// By any server, from what it has.
    Stale = 2,
}

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// How fresh.
    pub mode: ReadMode,
    /// Answer only once this index is applied; 0 for no such wish.
    pub min_index: Index,
    /// What.
    pub body: QueryBody,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryBody {
    /// One key.
    KvGet {
        /// The key.
        key: Bytes,
    },
    /// Rows by byte prefix, in key order.
    KvList {
        /// The prefix; empty for all.
        prefix: Bytes,
        /// Only keys greater than this one; empty for no bound.
        start_after: Bytes,
        /// At most so many rows; 0 for no bound.
        limit: u64,
    },
    /// Key names by byte prefix; cut after the first separator past the prefix, each once.
    KvKeys {
        /// The prefix; empty for all.
        prefix: Bytes,
        /// The separator; empty for none.
        separator: Bytes,
    },
    /// Who leads, and who is in the peer set.
    Status,
}

impl Query {
    /// Verifies and reads a query; byte fields are slices of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let _ = bytes;
        todo!()
    }

    /// Encodes a query.
    pub fn encode(&self) -> Bytes {
        todo!()
    }
}

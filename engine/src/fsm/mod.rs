//! How does a committed command change the state? (API first; bodies follow.)
use wire::{Index, Term, WireError};

use crate::state::Store;

/// What one entry came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out; `ok` is what Consul answers (`false`: a cas or lock that did not take effect).
    Done {
        /// Whether it took effect.
        ok: bool,
    },
    /// In the log, but changed nothing, for this reason (Consul's text).
    Refused(String),
}

/// The server must stop: it cannot go on without lying.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FsmError {
    /// An entry that this build cannot read and that is not marked as safe to skip.
    #[error(
        "entry {index} holds a command that this build cannot apply ({source}); run a build at least as new as the one that wrote it"
    )]
    UnknownCommand {
        /// The entry.
        index: Index,
        /// What is wrong with it.
        source: WireError,
    },
    /// Our state is not what the leader's was at the same index.
    #[error(
        "state differs from the leader's at index {index}: digest {ours:016x} here, {theirs:016x} there; remove this server's data directory and let it rejoin"
    )]
    Divergence {
        /// Where the digests were taken.
        index: Index,
        /// Ours.
        ours: u64,
        /// The leader's.
        theirs: u64,
    },
}

/// Point in time of everything an image holds: O(1) to take, may be held across awaits.
#[derive(Debug)]
pub struct FsmView {
    /// Last applied index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// State digest at `index`.
    pub digest: u64,
    /// Feature level at `index`.
    pub feature_level: u32,
}

/// The replicated state machine of one shard.
#[derive(Debug, Default)]
pub struct Fsm {
    store: Store,
}

impl Fsm {
    /// The state before the first entry.
    pub fn new() -> Self {
        Self::default()
    }
    /// Applies committed entries in one state transaction and appends one outcome for each.
    ///
    /// Indexes continue from [`Self::applied`] without a gap (asserted): entries that are no
    /// commands (raft's empty ones, configuration changes) are given with empty bytes.
    /// On an error the entries before the bad one are applied and have their outcomes.
    pub fn apply_run<B: AsRef<[u8]>>(
        &mut self,
        _entries: &[(Index, Term, B)],
        _outcomes: &mut Vec<Outcome>,
    ) -> Result<(), FsmError> {
        todo!()
    }
    /// Index and term of the last applied entry; 0 before the first.
    pub fn applied(&self) -> (Index, Term) {
        todo!()
    }
    /// Digest of the state at the applied index.
    pub fn digest(&self) -> u64 {
        todo!()
    }
    /// The newest (index, digest) at a multiple of 1,024, for a leader to propose as a `DigestCheck`.
    pub fn latest_digest(&self) -> Option<(Index, u64)> {
        todo!()
    }
    /// Level of features that the replicated state has switched on.
    pub fn feature_level(&self) -> u32 {
        todo!()
    }
    /// The tables, for reads.
    pub fn store(&self) -> &Store {
        &self.store
    }
    /// The state at the applied index, for an image.
    pub fn view(&self) -> FsmView {
        todo!()
    }
    /// Becomes `new` (an installed image); what was held before is freed in slices by `release_some`.
    pub fn replace(&mut self, _new: Fsm) {
        todo!()
    }
    /// See [`Store::release_some`].
    pub fn release_some(&mut self, rows: usize) -> bool {
        self.store.release_some(rows)
    }
}

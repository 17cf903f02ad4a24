//! How does a committed command change the state?
//!
//! The same way on every server: the outcome depends on the state, the command and its index, and
//! on nothing else. There is no clock here, no random source, and no iteration over a hash map.
//! A run of committed entries is applied in one state transaction; a command that is refused
//! in its middle undoes only itself.
//!
//! State, digest and applied index change in one step. Nothing is applied twice and nothing is
//! left out: an entry's index is the applied index plus one, or the server stops.
//!
//! What this build cannot read stops the server too, unless it is marked as safe to skip: to go on
//! without it would be to hold another state than the others.

pub mod acl;
pub mod catalog;
pub mod config;
mod digests;
mod kv;
pub mod mixed;
pub mod queries;
pub mod records;
pub mod sessions;
pub mod tombstones;
pub mod usage;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
mod txn;

use wire::{Command, Index, Term, WireError};

use digests::DigestHistory;
pub use digests::INTERVAL as DIGEST_INTERVAL;
use records::RecordOp;
pub use txn::{Row as TxnRow, TxnOutcome, read_only};

use crate::state::{Store, TableViews, Txn, schema::Change};

/// Level of features that the state of a new cluster has, and the highest that this build knows.
/// A later build raises it by a command, once every server knows the level.
pub const FEATURE_LEVEL: u32 = 1;

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
    /// What a transaction came to.
    Txn(Box<TxnOutcome>),
    /// What a transaction on records and keys came to.
    Mixed(Box<TxnOutcome>),
}

/// Who is told what each entry has changed.
pub type Watch<'w> = &'w mut dyn FnMut(Index, &[Change]);

/// The server must stop: it cannot go on without lying.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FsmError {
    /// An entry that this build cannot read and that is not marked as safe to skip.
    #[error(
        "entry {index} holds a command that this build cannot apply ({source}); \
         start a build at least as new as the one that wrote it"
    )]
    UnknownCommand {
        /// The entry.
        index: Index,
        /// What is wrong with it.
        source: WireError,
    },
    /// Our state is not what the leader's was at the same index.
    #[error(
        "state differs from the leader's at index {index}: digest {ours:016x} here, {theirs:016x} there; \
         stop this server, remove its data directory and let it join again"
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

/// The state at one applied index: O(1) to take, may be kept across awaits.
#[derive(Clone, Debug)]
pub struct FsmView {
    /// Last applied index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// State digest at `index`.
    pub digest: u64,
    /// Feature level at `index`.
    pub feature_level: u32,
    /// The tables.
    pub tables: TableViews,
}

/// The replicated state machine of one shard.
#[derive(Debug)]
pub struct Fsm {
    store: Store,
    applied: Index,
    term: Term,
    feature_level: u32,
    digests: DigestHistory,
    /// Where rows are put together before they get their own allocation.
    scratch: Vec<u8>,
}

impl Default for Fsm {
    fn default() -> Self {
        Self::new()
    }
}

impl Fsm {
    /// The state before the first entry.
    pub fn new() -> Self {
        Self::from_parts(Store::new(), Index(0), Term(0), FEATURE_LEVEL)
    }

    /// A state that an image holds.
    pub(crate) fn from_parts(store: Store, applied: Index, term: Term, feature_level: u32) -> Self {
        Self {
            store,
            applied,
            term,
            feature_level,
            digests: DigestHistory::default(),
            scratch: Vec::new(),
        }
    }

    /// Applies committed entries in one state transaction and appends one outcome for each.
    ///
    /// Indexes continue from [`Self::applied`] without a gap (asserted): entries that are no
    /// commands (raft's empty ones, configuration changes) are given with empty bytes.
    /// On an error the entries before the bad one are applied and have their outcomes.
    pub fn apply_run<B: AsRef<[u8]>>(
        &mut self,
        entries: &[(Index, Term, B)],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), FsmError> {
        self.apply_run_watched(entries, outcomes, None)
    }

    /// [`Self::apply_run`], and tells `watch` what each entry has changed, oldest first, before the
    /// run is committed. What a command did not change (the same value again) is not there.
    pub fn apply_run_watched<B: AsRef<[u8]>>(
        &mut self,
        entries: &[(Index, Term, B)],
        outcomes: &mut Vec<Outcome>,
        watch: Option<Watch<'_>>,
    ) -> Result<(), FsmError> {
        let commands = entries.iter().map(|(index, term, bytes)| {
            let command = match bytes.as_ref() {
                [] => Ok(None),
                bytes => Command::decode(bytes).map(Some),
            };
            (*index, *term, command)
        });
        self.apply_commands(commands, outcomes, watch)
    }

    /// [`Self::apply_run`] below the decoding; `None` is an entry without a command.
    fn apply_commands<'a>(
        &mut self,
        commands: impl Iterator<Item = (Index, Term, Result<Option<Command<'a>>, WireError>)>,
        outcomes: &mut Vec<Outcome>,
        mut watch: Option<Watch<'_>>,
    ) -> Result<(), FsmError> {
        let Self {
            store,
            applied,
            term: last_term,
            digests,
            scratch,
            ..
        } = self;
        let mut txn = store.begin();
        let mut result = Ok(());
        // How many of the run's changes the watch was told of.
        let mut told = 0;
        for (index, term, command) in commands {
            assert_eq!(
                index.0,
                applied.0 + 1,
                "entries are applied once, in order, without a gap"
            );
            let outcome = command
                .map_err(|source| FsmError::UnknownCommand { index, source })
                .and_then(|command| apply(&mut txn, index, command, digests, scratch));
            match outcome {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            (*applied, *last_term) = (index, term);
            if let Some(watch) = &mut watch
                && txn.changes().len() > told
            {
                watch(index, &txn.changes()[told..]);
                told = txn.changes().len();
            }
            if DigestHistory::wants(index) {
                if !mutant!(DigestBeforeSettled) {
                    txn.settle();
                }
                digests.note(index, txn.tables().digest());
            }
        }
        if let Some(watch) = &mut watch {
            // Who waits for a service waits for its row in the index table.
            txn.settle();
            if txn.changes().len() > told {
                watch(*applied, &txn.changes()[told..]);
            }
        }
        txn.commit();
        result
    }

    /// Index and term of the last applied entry; 0 before the first.
    pub fn applied(&self) -> (Index, Term) {
        (self.applied, self.term)
    }

    /// Digest of the state at the applied index.
    pub fn digest(&self) -> u64 {
        self.store.digest()
    }

    /// The newest (index, digest) at a multiple of [`DIGEST_INTERVAL`], for a leader to propose as
    /// a `DigestCheck`; `None` before there is one.
    pub fn latest_digest(&self) -> Option<(Index, u64)> {
        self.digests.latest()
    }

    /// Level of features that the replicated state has switched on.
    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// The state, for reads.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The state at the applied index, for an image. O(1).
    pub fn view(&self) -> FsmView {
        FsmView {
            index: match mutant!(AppliedIndexBehindState) {
                true => Index(self.applied.0 - 1),
                false => self.applied,
            },
            term: self.term,
            digest: self.digest(),
            feature_level: self.feature_level,
            tables: self.store.views(),
        }
    }

    /// Becomes `new` (an installed image). What was held before is freed in slices by
    /// [`Self::release_some`]; views of it stay as they are.
    pub fn replace(&mut self, new: Self) {
        self.store.replace(new.store);
        self.applied = new.applied;
        self.term = new.term;
        self.feature_level = new.feature_level;
        self.digests = new.digests;
    }

    /// See [`Store::release_some`].
    pub fn release_some(&mut self, rows: usize) -> bool {
        self.store.release_some(rows)
    }
}

fn apply(
    txn: &mut Txn<'_>,
    index: Index,
    command: Option<Command<'_>>,
    digests: &DigestHistory,
    scratch: &mut Vec<u8>,
) -> Result<Outcome, FsmError> {
    match command {
        None | Some(Command::Ignorable) => Ok(Outcome::Done { ok: true }),
        Some(Command::Kv(kv)) => {
            let before = txn.savepoint();
            let outcome = kv::apply(txn, index, &kv, scratch);
            if matches!(outcome, Outcome::Refused(_)) {
                txn.rollback_to(before);
            }
            Ok(outcome)
        }
        Some(Command::Txn(ops)) => {
            let outcome = txn::apply(txn, index, &ops, scratch);
            Ok(Outcome::Txn(Box::new(outcome)))
        }
        Some(Command::Record(record)) => {
            let op = RecordOp::decode(&record)
                .map_err(|source| FsmError::UnknownCommand { index, source })?;
            Ok(records::apply(txn, index, &op))
        }
        Some(Command::DigestCheck {
            index,
            digest: theirs,
        }) => match digests.at(index) {
            Some(ours) if ours != theirs => Err(FsmError::Divergence {
                index,
                ours,
                theirs,
            }),
            _ => Ok(Outcome::Done { ok: true }),
        },
    }
}

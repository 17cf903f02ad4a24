//! Which mutants are there, and which is active?
//!
//! The text of each says what the code does wrong; the promise that this breaks is a row of the
//! table in the report. Each is planted at one place, found by its name.

use std::cell::Cell;

/// Names, texts and promises in one place, so that none can be forgotten.
macro_rules! mutants {
    ($($name:ident: $promise:literal, $text:literal;)*) => {
        /// A fault that can be planted. See the module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $(#[doc = $text] $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// What it does wrong.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text.trim_ascii(),)*
                }
            }

            /// The promise that it breaks.
            pub fn promise(self) -> &'static str {
                match self {
                    $(Self::$name => $promise,)*
                }
            }
        }
    };
}

mutants! {
    // The log.
    AckBeforeFlush: "durable before acknowledged", "A batch counts as durable as soon as it is gathered.";
    DurableOutOfOrder: "durable before acknowledged", "A batch counts as durable although one before it is not.";
    FailedFlushIgnored: "a failed flush ends a log", "A write that failed counts as durable.";
    RecoveryDoesNotFlush: "durable before acknowledged", "What recovery reads back is not made durable.";
    CutOnCorruption: "corruption is never the end of the log", "Corrupt records are dropped as if they were a torn tail.";
    LostWriteIsTheEnd: "corruption is never the end of the log", "Older bytes are the end of the log although a later batch names what is missing durable.";
    CheckIgnored: "damage is detected", "The checks of sectors are not looked at.";
    ForgedBatchBelieved: "no value passes for a batch", "The checks of sectors are not seeded with the log's secret.";
    VoteNotWritten: "one vote in a term", "The hard state is written without the vote.";
    VoteFreedWithSegment: "one vote in a term", "The head of a segment does not repeat the hard states, which go with older segments.";
    SegmentFreedEarly: "what is needed is kept", "Segments are freed before the checkpoint that frees them is durable.";
    CutForgotten: "log matching", "Recovery keeps entries that a checkpoint has cut off.";
    ConflictKeptBehindImage: "log matching", "An installed image leaves the entries of another history behind it.";
    DoubtForgotten: "a damaged server does not vote", "A server takes part although its hard state is in doubt.";
    RepairFromAnyLeader: "a repair restores what was acknowledged", "A deposed leader's log repairs a damaged tail.";
    // Consensus.
    VoteBeforeFlush: "one vote in a term", "A vote leaves before it is durable.";
    FollowerAcksBeforeFlush: "durable before acknowledged", "A follower acknowledges entries before they are durable.";
    LeaderCountsUnflushed: "durable before acknowledged", "A leader counts entries of its own before they are durable.";
    TermForgottenAtStart: "one leader in a term", "A server starts with the term of its last entry, and without its vote.";
    AllCommittedAtStart: "state machine safety", "A server takes all entries of its log for committed when it starts.";
    UncommittedDroppedAtStart: "durable before acknowledged", "A server forgets the entries behind its commit index when it starts.";
    CommitOfOlderTerm: "state machine safety", "Entries of an earlier term are committed by counting replicas (Raft paper \u{a7}5.4.2).";
    AppendToWrongPlace: "log matching", "An append whose entries do not follow its predecessor is sent as raft-rs made it.";
    StaleEntriesFetched: "log matching", "Entries read from disk for a follower stay when the log is truncated.";
    VoteInSilence: "no stale read", "A server votes right after its start, although it may have promised a lease.";
    NoCheckQuorum: "no stale read", "A server votes although it hears from a leader.";
    LeaseTooLong: "no stale read", "The lease lasts for two election timeouts.";
    LeaseFromReceipt: "no stale read", "The lease counts from when the answer came, not from when the heartbeat went.";
    LeaseKeptAcrossTerms: "no stale read", "What was echoed in one term counts in the next.";
    EchoOfOlderTerm: "no stale read", "An answer of an older term confirms a leader.";
    LeaseWithoutRecheck: "no stale read", "The lease is not looked at again when the answer leaves.";
    ReadWithoutRound: "no stale read", "A consistent read is answered by what a quorum echoed before it came.";
    ReadBeforeOwnTerm: "no stale read", "A new leader answers before it has applied an entry of its own term.";
    FollowerAnswersDefault: "no stale read", "A follower answers reads of mode default.";
    // Images.
    ImageNamedEarly: "an image is whole before it counts", "The checkpoint is written before the image has its name.";
    ImageAheadOfItself: "an image holds what it claims", "An image claims to hold the last entry of the log.";
    AppliedIndexBehindState: "nothing is applied twice", "An image claims to hold one entry less than it does.";
    ImageMissesRow: "an image holds what it claims", "A table of one row is left out of images.";
    InstallAckedEarly: "an image is whole before it counts", "An image is acknowledged before its checkpoint is durable.";
    // What clients are told.
    TicketTermIgnored: "acknowledged is decided", "A write is acknowledged when any entry is applied at its index.";
    UnknownSaidRefused: "refused is not done", "A deposed leader says of what it has proposed that nothing happened.";
    ForgottenWatch: "no lost wake-up", "Deletions wake nobody.";
    ComingWakesNobody: "no lost wake-up", "A key that comes to be wakes nobody who waits for it.";
    WokenForNothing: "no lost wake-up", "A blocking query returns although nothing has changed.";
    // The state machine.
    ApplyOutOfOrder: "replicas are identical", "The last two commands of a run are applied in each other's place.";
    DigestBeforeSettled: "replicas are identical", "A digest is taken before the tables' indexes are written.";
    CasIgnoresIndex: "linearizable", "A cas succeeds whatever the index is.";
    SetForgetsHolder: "one holder of a lock", "A plain set takes the lock off a key.";
    LockTakenTwice: "one holder of a lock", "A lock that is held is given to another session.";
    ReleaseByAnybody: "one holder of a lock", "A session releases a lock that another holds.";
    SessionKeepsLocks: "one holder of a lock", "A session that ends releases nothing.";
    SessionEndsEarly: "sessions live for their TTL", "A session ends after half its TTL.";
    LockDelayIgnored: "lock-delay", "A key can be locked again at once after its holder was lost.";
    TxnNotUndone: "linearizable", "A transaction that fails is not undone.";
    TombstoneNotWritten: "indexes never fall", "A deletion leaves no tombstone.";
}

thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// From now on this mutant is active on this thread, and no other.
pub fn choose(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// Whether a mutant is active on this thread.
pub fn active(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_active_on_the_thread_that_chose_it() {
        choose(Some(Mutant::AckBeforeFlush));
        assert!(active(Mutant::AckBeforeFlush) && !active(Mutant::CasIgnoresIndex));
        let elsewhere = std::thread::spawn(|| active(Mutant::AckBeforeFlush));
        assert!(!elsewhere.join().expect("it only looks"));
        choose(None);
        assert!(Mutant::ALL.iter().all(|mutant| !active(*mutant)));
    }
}

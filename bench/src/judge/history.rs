//! What did clients call, when, and what were they told?
//!
//! Times are nanoseconds of one clock, the simulator's or the machine's monotonic one. A call
//! whose answer never came, or said "perhaps", has no answer: it may have taken place at any time
//! after its call, or never. A call that was refused before anything happened is left out, or
//! recorded as [`Answer::Refused`], which a judge holds the store to: it must not have happened.
//!
//! Values are unique per write, so that a value tells which write it is from.

use serde::{Deserialize, Serialize};

/// What one client asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Reads a key, linearizably: modes `default` and `consistent`.
    Get {
        /// The key.
        key: String,
    },
    /// Reads a key from any server; it may be old, but each index it tells of must have been.
    GetStale {
        /// The key.
        key: String,
    },
    /// One change.
    Step(Step),
    /// All steps or none, in order; steps that change nothing are reads.
    Txn(Vec<Step>),
    /// Makes a session without a TTL or checks, whose lock-delay is zero.
    CreateSession,
    /// Destroys a session: its locks are released, or their keys deleted.
    DestroySession {
        /// Its id.
        session: String,
    },
}

/// One change, or one verb of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Writes a value.
    Set {
        /// The key.
        key: String,
        /// The value; no other write writes it.
        value: String,
    },
    /// Writes a value if the key's index is this; 0 for a key that must not exist.
    Cas {
        /// The key.
        key: String,
        /// The value; no other write writes it.
        value: String,
        /// The modify index that is wanted.
        index: u64,
    },
    /// Deletes a key; one that does not exist is no failure.
    Delete {
        /// The key.
        key: String,
    },
    /// Deletes a key if its index is this.
    DeleteCas {
        /// The key.
        key: String,
        /// The modify index that is wanted.
        index: u64,
    },
    /// Deletes all keys with a prefix.
    DeleteTree {
        /// The prefix.
        prefix: String,
    },
    /// Takes a lock and writes a value.
    Acquire {
        /// The key.
        key: String,
        /// The value; no other write writes it.
        value: String,
        /// Who takes it.
        session: String,
    },
    /// Gives a lock back and writes a value.
    Release {
        /// The key.
        key: String,
        /// The value; no other write writes it.
        value: String,
        /// Who held it.
        session: String,
    },
    /// Reads a key, in a transaction.
    Get {
        /// The key.
        key: String,
    },
}

/// A key as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its value.
    pub value: String,
    /// The index it came to be at.
    pub create_index: u64,
    /// The index of its last change.
    pub modify_index: u64,
    /// How often it was locked.
    pub lock_index: u64,
    /// Who holds it; empty for nobody.
    pub session: String,
}

/// What one client was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A read: the row, if the key exists, and the index of the answer.
    Row(Option<Row>, u64),
    /// A change was decided: done, or its condition did not hold. `index` is where in the log it
    /// was decided, 0 where that was not said.
    Done {
        /// Whether it was done.
        ok: bool,
        /// The index.
        index: u64,
    },
    /// A transaction was done; the row after each step that has one.
    Txn {
        /// Rows of reads and writes, in the order of the steps; `None` for deletes.
        rows: Vec<Option<Row>>,
        /// Where in the log it was decided, 0 where that was not said.
        index: u64,
    },
    /// A transaction was rolled back: these steps failed.
    RolledBack {
        /// Numbers of the steps that failed, from 0.
        failed: Vec<usize>,
    },
    /// A session came to be.
    Session {
        /// Its id.
        session: String,
        /// Where in the log, 0 where that was not said.
        index: u64,
    },
    /// It was promised that nothing happened.
    Refused,
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who; one client calls one thing at a time.
    pub client: u32,
    /// What.
    pub call: Call,
    /// When it was called, ns.
    pub called_ns: u64,
    /// When the answer came, ns, and what it said. None if nobody knows what came of it.
    pub answer: Option<(u64, Answer)>,
}

/// What all clients did, in the order of their calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
}

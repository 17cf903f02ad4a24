//! What may a log entry ask of the state machine?
//!
//! A command is encoded once, where it enters the cluster, and its bytes are what travels, what
//! the log keeps and what the state machine reads.

use bytes::Bytes;

use crate::{Index, WireError};

/// What a KV command does (Consul FSM command 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KvVerb {
    /// Writes key, value and flags; keeps the holder of a lock, zeroes its lock index (Consul's quirk).
    Set = 0,
    /// Removes one key; true whether or not it existed.
    Delete = 1,
    /// Removes one key if its modify index is `index`; true when the key does not exist.
    DeleteCas = 2,
    /// Removes every key that starts with these bytes.
    DeleteTree = 3,
    /// Writes if the modify index is `index` (0: only if the key does not exist).
    Cas = 4,
    /// Acquires the key for `session`.
    Lock = 5,
    /// Releases the key held by `session`, writing value and flags.
    Unlock = 6,
}

/// One KV operation, borrowing from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvCommand<'a> {
    /// What to do.
    pub verb: KvVerb,
    /// The key, or for [`KvVerb::DeleteTree`] the prefix; 1..=`limits::KEY_BYTES_MAX` bytes (a prefix may be empty).
    pub key: &'a [u8],
    /// The value; empty where the verb writes none.
    pub value: &'a [u8],
    /// Opaque number of the client's.
    pub flags: u64,
    /// The expected modify index of [`KvVerb::Cas`] and [`KvVerb::DeleteCas`].
    pub index: u64,
    /// Session id bytes of [`KvVerb::Lock`] and [`KvVerb::Unlock`]; otherwise empty.
    pub session: &'a [u8],
}

/// What one log entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// A KV operation.
    Kv(KvCommand<'a>),
    /// The leader's state digest after it applied `index`; a replica that disagrees stops itself.
    DigestCheck {
        /// The applied index that the digest speaks of.
        index: Index,
        /// The leader's digest at that index.
        digest: u64,
    },
    /// Of a later version, marked as safe to skip.
    Ignorable,
}

impl<'a> Command<'a> {
    /// Verifies and reads a command. `Err` for bytes that are not a command of a known version
    /// and are not marked ignorable.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let _ = bytes;
        todo!()
    }

    /// Encodes a command into its own allocation.
    pub fn encode(&self) -> Bytes {
        todo!()
    }
}

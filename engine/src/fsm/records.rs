//! What does a command about records ask for, and what does it do?
//!
//! The tables beside the KV table are changed by commands whose bodies are MessagePack with field
//! names. [`RecordOp`] is what a body says; each family of tables has its own module, which knows
//! what its operations do. A body is read twice: at the door ([`check`]), so that what cannot be
//! read is refused and never proposed, and when it is applied. A body in the log that this build
//! cannot read comes from a later one and stops the server, as any unknown command does.
//!
//! To add a command: its request in its family's module, a variant here, and a kind in
//! [`wire::RecordKind`].

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use wire::{Command, Index, RecordCommand, RecordKind, WireError};

use super::{
    Outcome,
    acl::{self, Bootstrap, PolicyDelete, PolicySet, RoleDelete, RoleSet, TokenDelete, TokenSet},
    catalog::{self, CoordinatesRequest, DeregisterRequest, RegisterRequest},
    config::{self, ConfigRequest},
    mixed::{self, MixedTxn},
    queries::{self, QueryRequest},
    sessions::{self, SessionRequest, Tick},
    tombstones::{self, Reap},
};
use crate::state::Txn;

/// A command about records, read.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one at a time, where it is read"
)]
pub enum RecordOp {
    /// Puts a node, with what is on it, into the catalog.
    Register(RegisterRequest),
    /// Takes a node, service or check out of the catalog.
    Deregister(DeregisterRequest),
    /// Says where nodes are.
    Coordinates(CoordinatesRequest),
    /// Creates, destroys or renews a session.
    Session(SessionRequest),
    /// Forgets old tombstones.
    Tombstone(Reap),
    /// Makes the first management token.
    AclBootstrap(Bootstrap),
    /// Makes or changes tokens.
    AclTokenSet(TokenSet),
    /// Deletes tokens.
    AclTokenDelete(TokenDelete),
    /// Makes or changes policies.
    AclPolicySet(PolicySet),
    /// Deletes policies.
    AclPolicyDelete(PolicyDelete),
    /// Makes or changes roles.
    AclRoleSet(RoleSet),
    /// Deletes roles.
    AclRoleDelete(RoleDelete),
    /// Writes or deletes a config entry.
    ConfigEntry(ConfigRequest),
    /// Creates, changes or deletes a prepared query.
    PreparedQuery(QueryRequest),
    /// Changes records and keys together.
    Txn(MixedTxn),
    /// Lets the lease clock go on.
    LeaseClock(Tick),
}

impl RecordOp {
    /// What the command is about.
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::Register(_) => RecordKind::Register,
            Self::Deregister(_) => RecordKind::Deregister,
            Self::Coordinates(_) => RecordKind::Coordinates,
            Self::Session(_) => RecordKind::Session,
            Self::Tombstone(_) => RecordKind::Tombstone,
            Self::AclBootstrap(_) => RecordKind::AclBootstrap,
            Self::AclTokenSet(_) => RecordKind::AclTokenSet,
            Self::AclTokenDelete(_) => RecordKind::AclTokenDelete,
            Self::AclPolicySet(_) => RecordKind::AclPolicySet,
            Self::AclPolicyDelete(_) => RecordKind::AclPolicyDelete,
            Self::AclRoleSet(_) => RecordKind::AclRoleSet,
            Self::AclRoleDelete(_) => RecordKind::AclRoleDelete,
            Self::ConfigEntry(_) => RecordKind::ConfigEntry,
            Self::PreparedQuery(_) => RecordKind::PreparedQuery,
            Self::Txn(_) => RecordKind::Txn,
            Self::LeaseClock(_) => RecordKind::LeaseClock,
        }
    }

    /// Reads a body. `Malformed` for one that is not of its kind or of a later version.
    pub fn decode(command: &RecordCommand<'_>) -> Result<Self, WireError> {
        match command.kind {
            RecordKind::Register => body(command).map(Self::Register),
            RecordKind::Deregister => body(command).map(Self::Deregister),
            RecordKind::Coordinates => body(command).map(Self::Coordinates),
            RecordKind::Session => body(command).map(Self::Session),
            RecordKind::Tombstone => body(command).map(Self::Tombstone),
            RecordKind::AclBootstrap => body(command).map(Self::AclBootstrap),
            RecordKind::AclTokenSet => body(command).map(Self::AclTokenSet),
            RecordKind::AclTokenDelete => body(command).map(Self::AclTokenDelete),
            RecordKind::AclPolicySet => body(command).map(Self::AclPolicySet),
            RecordKind::AclPolicyDelete => body(command).map(Self::AclPolicyDelete),
            RecordKind::AclRoleSet => body(command).map(Self::AclRoleSet),
            RecordKind::AclRoleDelete => body(command).map(Self::AclRoleDelete),
            RecordKind::ConfigEntry => body(command).map(Self::ConfigEntry),
            RecordKind::PreparedQuery => body(command).map(Self::PreparedQuery),
            RecordKind::Txn => body(command).map(Self::Txn),
            RecordKind::LeaseClock => body(command).map(Self::LeaseClock),
            kind => Err(malformed(format!("{kind:?} is not known to this build"))),
        }
    }

    /// The encoded [`Command`].
    pub fn encode(&self) -> Bytes {
        let body = match self {
            Self::Register(request) => packed(request),
            Self::Deregister(request) => packed(request),
            Self::Coordinates(request) => packed(request),
            Self::Session(request) => packed(request),
            Self::Tombstone(reap) => packed(reap),
            Self::AclBootstrap(request) => packed(request),
            Self::AclTokenSet(request) => packed(request),
            Self::AclTokenDelete(request) => packed(request),
            Self::AclPolicySet(request) => packed(request),
            Self::AclPolicyDelete(request) => packed(request),
            Self::AclRoleSet(request) => packed(request),
            Self::AclRoleDelete(request) => packed(request),
            Self::ConfigEntry(request) => packed(request),
            Self::PreparedQuery(request) => packed(request),
            Self::Txn(ops) => packed(ops),
            Self::LeaseClock(tick) => packed(tick),
        };
        let kind = self.kind();
        Command::Record(RecordCommand { kind, body: &body }).encode()
    }
}

/// MessagePack with field names, of anything that holds no floating-point keys or the like.
pub fn packed(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("plain structures can be written to memory")
}

fn body<T: DeserializeOwned>(command: &RecordCommand<'_>) -> Result<T, WireError> {
    rmp_serde::from_slice(command.body)
        .map_err(|error| malformed(format!("{:?}: {error}", command.kind)))
}

fn malformed(why: String) -> WireError {
    WireError::Malformed {
        what: "record command",
        why,
    }
}

/// Whether a command that a client sent may be proposed: its body can be read, and it is not one
/// of those that only a leader makes.
pub fn check(bytes: &[u8]) -> Result<(), WireError> {
    match Command::decode(bytes)? {
        Command::Kv(_) | Command::Txn(_) | Command::Ignorable => Ok(()),
        Command::Record(record) => match RecordOp::decode(&record)? {
            RecordOp::Register(_)
            | RecordOp::Deregister(_)
            | RecordOp::Coordinates(_)
            | RecordOp::Session(_)
            | RecordOp::ConfigEntry(_)
            | RecordOp::PreparedQuery(_)
            | RecordOp::Txn(_) => Ok(()),
            RecordOp::Tombstone(_) => Err(leaders_own("Tombstone")),
            RecordOp::AclBootstrap(_)
            | RecordOp::AclTokenSet(_)
            | RecordOp::AclTokenDelete(_)
            | RecordOp::AclPolicySet(_)
            | RecordOp::AclPolicyDelete(_)
            | RecordOp::AclRoleSet(_)
            | RecordOp::AclRoleDelete(_) => Ok(()),
            RecordOp::LeaseClock(_) => Err(leaders_own("LeaseClock")),
        },
        Command::DigestCheck { .. } => Err(leaders_own("DigestCheck")),
    }
}

fn leaders_own(what: &str) -> WireError {
    malformed(format!("{what} is proposed by a leader only"))
}

/// Carries out a command at `index`. One that is refused changed nothing.
pub(super) fn apply(txn: &mut Txn<'_>, index: Index, op: &RecordOp) -> Outcome {
    let before = txn.savepoint();
    let done = match op {
        RecordOp::Register(request) => catalog::register(txn, index, request).map(|()| true),
        RecordOp::Deregister(request) => catalog::deregister(txn, index, request).map(|()| true),
        RecordOp::Coordinates(request) => catalog::coordinates(txn, index, request),
        RecordOp::Session(request) => sessions::apply(txn, index, request),
        RecordOp::Tombstone(reap) => Ok(tombstones::reap(txn, reap)),
        RecordOp::AclBootstrap(request) => acl::bootstrap(txn, index, request),
        RecordOp::AclTokenSet(request) => acl::set_tokens(txn, index, request),
        RecordOp::AclTokenDelete(request) => acl::delete_tokens(txn, index, request),
        RecordOp::AclPolicySet(request) => acl::set_policies(txn, index, request),
        RecordOp::AclPolicyDelete(request) => acl::delete_policies(txn, index, request),
        RecordOp::AclRoleSet(request) => acl::set_roles(txn, index, request),
        RecordOp::AclRoleDelete(request) => acl::delete_roles(txn, index, request),
        RecordOp::ConfigEntry(request) => config::apply(txn, index, request),
        RecordOp::PreparedQuery(request) => queries::apply(txn, index, request),
        RecordOp::Txn(ops) => {
            return Outcome::Mixed(Box::new(mixed::apply(txn, index, ops)));
        }
        RecordOp::LeaseClock(tick) => Ok(sessions::tick(txn, index, *tick)),
    };
    match done {
        Ok(ok) => Outcome::Done { ok },
        Err(why) => {
            txn.rollback_to(before);
            Outcome::Refused(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_back_and_others_are_refused() {
        let op = RecordOp::Tombstone(Reap {
            index: 7,
            start_after: b"a".to_vec(),
            up_to: b"b".to_vec(),
        });
        let bytes = op.encode();
        let Ok(Command::Record(record)) = Command::decode(&bytes) else {
            panic!("a record command");
        };
        assert_eq!(RecordOp::decode(&record), Ok(op));
        for length in 0..record.body.len() {
            let cut = RecordCommand {
                body: &record.body[..length],
                ..record
            };
            assert!(RecordOp::decode(&cut).is_err(), "cut to {length}");
        }
        let unknown = RecordCommand {
            kind: RecordKind::SystemMetadata,
            ..record
        };
        assert!(RecordOp::decode(&unknown).is_err());
    }

    /// The digest check of a client with a digest of its own would have stopped every server:
    /// the native port took it like any other command.
    #[test]
    fn what_only_a_leader_says_is_not_taken_from_a_client() {
        let digest = Command::DigestCheck {
            index: Index(1000),
            digest: 1,
        };
        let reap = RecordOp::Tombstone(Reap::default());
        for bytes in [digest.encode(), reap.encode()] {
            let error = check(&bytes).unwrap_err().to_string();
            assert!(error.contains("a leader only"), "{error}");
        }
    }
}

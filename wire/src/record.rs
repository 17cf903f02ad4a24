//! What may be asked of the tables beside the KV table: catalog, sessions, ACL, configuration?
//!
//! Their objects are small, many-fielded and grow new fields with each version, so a command
//! carries one as MessagePack with field names, as Consul's own log does, under Consul's number for
//! the kind of command. Frames see the body as bytes; the state machine reads it, and whoever takes
//! a command from a client has it read once before the log (`fsm::records`), so that nothing that
//! cannot be applied is ever proposed.

use crate::codec::{self, Builder};
use crate::generated::wire as fb;
use crate::{WireError, limits};

const WHAT: &str = "record command";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a record command is about. Numbers below 128 are Consul's message types; above, ours.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum RecordKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl RecordKind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kind with this number.
            pub fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Registers a node, with a service and checks.
    Register = 0,
    /// Takes out a node, a service or a check.
    Deregister = 1,
    /// Creates or destroys a session.
    Session = 3,
    /// Forgets old tombstones.
    Tombstone = 5,
    /// Network coordinates of nodes.
    Coordinates = 6,
    /// Creates, changes or deletes a prepared query.
    PreparedQuery = 7,
    /// Operations on records and keys that take effect together or not at all.
    Txn = 8,
    /// Sets the configuration of autopilot.
    Autopilot = 9,
    /// Makes the first management token.
    AclBootstrap = 11,
    /// Writes tokens.
    AclTokenSet = 17,
    /// Deletes tokens.
    AclTokenDelete = 18,
    /// Writes policies.
    AclPolicySet = 19,
    /// Deletes policies.
    AclPolicyDelete = 20,
    /// Writes or deletes a config entry.
    ConfigEntry = 22,
    /// Writes roles.
    AclRoleSet = 23,
    /// Deletes roles.
    AclRoleDelete = 24,
    /// Writes or deletes a key of the system's metadata.
    SystemMetadata = 31,
    /// The lease clock goes on, and sessions whose time is over end.
    LeaseClock = 129,
}

/// A command about records, borrowing from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordCommand<'a> {
    /// What it is about.
    pub kind: RecordKind,
    /// Its fields: MessagePack.
    pub body: &'a [u8],
}

impl<'a> RecordCommand<'a> {
    pub(crate) fn read(record: &fb::RecordCommand<'a>) -> Result<Self, WireError> {
        let Some(kind) = RecordKind::from_number(record.kind()) else {
            let why = format_args!("unknown kind {}", record.kind());
            return Err(codec::malformed(WHAT, why));
        };
        let body = codec::field(record.body());
        codec::at_most("body", body.len(), limits::RECORD_BYTES_MAX)?;
        Ok(Self { kind, body })
    }

    pub(crate) fn build(
        &self,
        builder: &mut Builder,
    ) -> flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset> {
        let args = fb::RecordCommandArgs {
            kind: self.kind as u8,
            body: Some(codec::put(builder, self.body)),
        };
        fb::RecordCommand::create(builder, &args).as_union_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds_are_one_to_one() {
        assert!(RecordKind::ALL.is_sorted());
        for kind in RecordKind::ALL {
            assert_eq!(RecordKind::from_number(*kind as u8), Some(*kind));
        }
        let known = (0..=u8::MAX).filter_map(RecordKind::from_number).count();
        assert_eq!(known, RecordKind::ALL.len());
    }
}

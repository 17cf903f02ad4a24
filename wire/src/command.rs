//! What may a log entry ask of the state machine?
//!
//! A command is encoded once, where it enters the cluster, and its bytes are what travels, what
//! the log keeps and what the state machine reads.
//!
//! A command carries the version it was written in and a mark that says whether a server that
//! does not know it may skip it. Without the mark an unknown command is an error, on every
//! replica alike: applying a log in which one entry was silently left out would be worse.

use bytes::{Bytes, BytesMut};
use flatbuffers::FlatBufferBuilder;

use crate::codec::{self, Builder};
use crate::frame::{FrameHead, FrameKind};
use crate::generated::wire as fb;
use crate::{Index, RecordCommand, RequestId, ShardId, TxnOps, WireError, limits};

const WHAT: &str = "command";

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

impl KvVerb {
    /// Every verb, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Set,
        Self::Delete,
        Self::DeleteCas,
        Self::DeleteTree,
        Self::Cas,
        Self::Lock,
        Self::Unlock,
    ];
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
    /// Operations that take effect together or not at all.
    Txn(TxnOps<'a>),
    /// An operation on the tables beside the KV table.
    Record(RecordCommand<'a>),
    /// Of a later version, marked as safe to skip.
    Ignorable,
}

impl<'a> Command<'a> {
    /// Verifies and reads a command. `Err` for bytes that are not a command of a known version
    /// and are not marked ignorable.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        codec::at_most(WHAT, bytes.len(), limits::COMMAND_BYTES_MAX)?;
        let command = codec::root::<fb::Command>(WHAT, bytes)?;
        match read(bytes, &command) {
            Err(WireError::Malformed { .. }) if command.ignore_unknown() => Ok(Self::Ignorable),
            read => read,
        }
    }

    /// Encodes a command into its own allocation.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| self.build(builder))
    }

    /// Appends the encoded command to `out`. `builder` is kept by the caller and reused; what it
    /// held is dropped.
    pub fn encode_into(&self, builder: &mut FlatBufferBuilder<'static>, out: &mut BytesMut) {
        codec::encoded_into(builder, out, |builder| self.build(builder));
    }

    fn build(&self, builder: &mut Builder) {
        let (body_type, body) = match self {
            Self::Kv(kv) => (fb::CommandBody::KvCommand, Some(kv.build(builder))),
            Self::DigestCheck { index, digest } => {
                let args = fb::DigestCheckArgs {
                    index: index.0,
                    digest: *digest,
                };
                let check = fb::DigestCheck::create(builder, &args);
                (fb::CommandBody::DigestCheck, Some(check.as_union_value()))
            }
            Self::Txn(ops) => {
                let txn = ops.build(builder);
                (fb::CommandBody::TxnCommand, Some(txn.as_union_value()))
            }
            Self::Record(record) => (fb::CommandBody::RecordCommand, Some(record.build(builder))),
            Self::Ignorable => (fb::CommandBody::NONE, None),
        };
        let args = fb::CommandArgs {
            version: limits::COMMAND_VERSION,
            ignore_unknown: matches!(self, Self::Ignorable),
            body_type,
            body,
        };
        let command = fb::Command::create(builder, &args);
        builder.finish_minimal(command);
    }
}

/// Reads a verified command; what this version does not know is `Malformed`.
fn read<'a>(bytes: &[u8], command: &fb::Command<'a>) -> Result<Command<'a>, WireError> {
    if command.version() != limits::COMMAND_VERSION {
        return Err(codec::malformed(
            WHAT,
            format_args!(
                "version {} is not supported (this build speaks {})",
                command.version(),
                limits::COMMAND_VERSION
            ),
        ));
    }
    if let Some(kv) = command.body_as_kv_command() {
        return KvCommand::read(&kv).map(Command::Kv);
    }
    if let Some(check) = command.body_as_digest_check() {
        return Ok(Command::DigestCheck {
            index: codec::index(WHAT, check.index())?,
            digest: check.digest(),
        });
    }
    if let Some(txn) = command.body_as_txn_command() {
        return TxnOps::read(bytes, &txn).map(Command::Txn);
    }
    if let Some(record) = command.body_as_record_command() {
        return RecordCommand::read(&record).map(Command::Record);
    }
    Err(codec::malformed(
        WHAT,
        format_args!("unknown body {}", command.body_type().0),
    ))
}

impl<'a> KvCommand<'a> {
    fn read(kv: &fb::KvCommand<'a>) -> Result<Self, WireError> {
        let Some(&verb) = KvVerb::ALL.get(usize::from(kv.verb())) else {
            let why = format_args!("unknown verb {}", kv.verb());
            return Err(codec::malformed(WHAT, why));
        };
        let read = Self {
            verb,
            key: codec::field(kv.key()),
            value: codec::field(kv.value()),
            flags: kv.flags(),
            index: kv.index(),
            session: codec::field(kv.session()),
        };
        codec::at_most("key", read.key.len(), limits::KEY_BYTES_MAX)?;
        codec::at_most("session", read.session.len(), limits::SESSION_BYTES_MAX)?;
        if read.key.is_empty() && verb != KvVerb::DeleteTree {
            return Err(codec::malformed(WHAT, "the key is empty"));
        }
        Ok(read)
    }

    fn build(&self, builder: &mut Builder) -> flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset> {
        let session = codec::put_some(builder, self.session);
        let value = codec::put_some(builder, self.value);
        let key = codec::put_some(builder, self.key);
        let args = fb::KvCommandArgs {
            verb: self.verb as u8,
            key,
            value,
            flags: self.flags,
            index: self.index,
            session,
        };
        fb::KvCommand::create(builder, &args).as_union_value()
    }
}

/// Appends a whole Propose frame with this command to `out`, with no allocation of its own.
///
/// # Panics
///
/// If key and value together are near [`limits::FRAME_BYTES_MAX`]; check them against
/// [`limits::KEY_BYTES_MAX`] and [`limits::VALUE_BYTES_MAX`] first.
pub fn encode_propose_frame(
    shard: ShardId,
    request: RequestId,
    command: &KvCommand<'_>,
    out: &mut BytesMut,
) {
    codec::with_scratch(|builder| {
        Command::Kv(*command).build(builder);
        let head = FrameHead::new(FrameKind::Propose, shard, request);
        head.encode(builder.finished_data(), std::iter::empty(), out);
    });
}

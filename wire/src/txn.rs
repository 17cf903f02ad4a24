//! What may a transaction do, and what does it answer?
//!
//! Up to [`limits::TXN_OPS_MAX`] operations on keys, all of them or none (Consul `/v1/txn`). They
//! travel as KV commands with verbs of their own behind [`KvVerb`]'s. Decoding checks every
//! operation and copies none: they are read where they lie, when they are applied.

use bytes::Bytes;
use flatbuffers::{ForwardsUOffset, Vector, WIPOffset};

use crate::codec::{self, Builder};
use crate::command::KvVerb;
use crate::generated::wire as fb;
use crate::{KvRow, WireError, limits};

const WHAT: &str = "transaction";
/// An operation is a table with a key at least, and the offset to it.
const OP_BYTES_MIN: usize = 16;
/// An error is a table with a sentence, and the offset to it.
const ERROR_BYTES_MIN: usize = 16;

/// What one operation of a transaction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnVerb {
    /// What the verb does outside a transaction; one that does not take effect fails it.
    Kv(KvVerb),
    /// The row of a key; fails where there is none.
    Get,
    /// The row of a key, or an empty one.
    GetOrEmpty,
    /// All rows under a prefix.
    GetTree,
    /// Fails unless the key's modify index is this.
    CheckIndex,
    /// Fails unless this session holds the key.
    CheckSession,
    /// Fails if the key exists.
    CheckNotExists,
}

impl TxnVerb {
    /// The verbs behind [`KvVerb::ALL`], in the order of their numbers.
    pub const READING: [Self; 6] = [
        Self::Get,
        Self::GetOrEmpty,
        Self::GetTree,
        Self::CheckIndex,
        Self::CheckSession,
        Self::CheckNotExists,
    ];

    /// Whether it changes nothing.
    pub fn reads(self) -> bool {
        !matches!(self, Self::Kv(_))
    }

    /// Its number in a command.
    pub fn number(self) -> u8 {
        match self {
            Self::Kv(verb) => verb as u8,
            reading => {
                let at = Self::READING.iter().position(|verb| *verb == reading);
                (KvVerb::ALL.len() + at.expect("every other verb reads")) as u8
            }
        }
    }

    /// The verb with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        let number = usize::from(number);
        match KvVerb::ALL.get(number) {
            Some(verb) => Some(Self::Kv(*verb)),
            None => Self::READING.get(number - KvVerb::ALL.len()).copied(),
        }
    }
}

/// One operation, borrowing from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnOp<'a> {
    /// What to do.
    pub verb: TxnVerb,
    /// The key, or the prefix; empty for a prefix only.
    pub key: &'a [u8],
    /// The value that is written.
    pub value: &'a [u8],
    /// Opaque number of the client's.
    pub flags: u64,
    /// The expected modify index of a cas or a check.
    pub index: u64,
    /// Session id bytes of a lock, an unlock or a check.
    pub session: &'a [u8],
}

/// The operations of a transaction, in their order.
#[derive(Clone, Copy)]
pub struct TxnOps<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    Decoded(Vector<'a, ForwardsUOffset<fb::KvCommand<'a>>>),
    Given(&'a [TxnOp<'a>]),
}

impl<'a> TxnOps<'a> {
    /// Operations to be encoded.
    pub fn new(ops: &'a [TxnOp<'a>]) -> Self {
        Self(Source::Given(ops))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self.0 {
            Source::Decoded(ops) => ops.len(),
            Source::Given(ops) => ops.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether none changes anything.
    pub fn reads_only(&self) -> bool {
        self.iter().all(|op| op.verb.reads())
    }

    /// The operations.
    pub fn iter(&self) -> impl Iterator<Item = TxnOp<'a>> + use<'a> {
        let source = self.0;
        (0..self.len()).map(move |at| match source {
            Source::Decoded(ops) => read_op(&ops.get(at)).expect("checked when it was decoded"),
            Source::Given(ops) => ops[at],
        })
    }

    /// Checks every operation of a verified table.
    pub(crate) fn read(bytes: &[u8], txn: &fb::TxnCommand<'a>) -> Result<Self, WireError> {
        let ops = codec::elements(WHAT, bytes, txn.ops(), OP_BYTES_MIN)?;
        codec::at_most("operations", ops.len(), limits::TXN_OPS_MAX)?;
        for op in ops {
            read_op(&op)?;
        }
        Ok(Self(Source::Decoded(txn.ops().unwrap_or_default())))
    }

    pub(crate) fn build(&self, builder: &mut Builder) -> WIPOffset<fb::TxnCommand<'static>> {
        let ops: Vec<_> = self.iter().map(|op| build_op(builder, &op)).collect();
        let ops = Some(builder.create_vector(&ops));
        fb::TxnCommand::create(builder, &fb::TxnCommandArgs { ops })
    }
}

impl std::fmt::Debug for TxnOps<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for TxnOps<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for TxnOps<'_> {}

fn read_op<'a>(op: &fb::KvCommand<'a>) -> Result<TxnOp<'a>, WireError> {
    let Some(verb) = TxnVerb::from_number(op.verb()) else {
        let why = format_args!("unknown verb {}", op.verb());
        return Err(codec::malformed(WHAT, why));
    };
    let read = TxnOp {
        verb,
        key: codec::field(op.key()),
        value: codec::field(op.value()),
        flags: op.flags(),
        index: op.index(),
        session: codec::field(op.session()),
    };
    codec::at_most("key", read.key.len(), limits::KEY_BYTES_MAX)?;
    codec::at_most("session", read.session.len(), limits::SESSION_BYTES_MAX)?;
    let prefix = matches!(verb, TxnVerb::Kv(KvVerb::DeleteTree) | TxnVerb::GetTree);
    if read.key.is_empty() && !prefix {
        return Err(codec::malformed(WHAT, "a key is empty"));
    }
    Ok(read)
}

fn build_op(builder: &mut Builder, op: &TxnOp<'_>) -> WIPOffset<fb::KvCommand<'static>> {
    let session = codec::put_some(builder, op.session);
    let value = codec::put_some(builder, op.value);
    let key = codec::put_some(builder, op.key);
    let args = fb::KvCommandArgs {
        verb: op.verb.number(),
        key,
        value,
        flags: op.flags,
        index: op.index,
        session,
    };
    fb::KvCommand::create(builder, &args)
}

/// Why one operation failed, and with it the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnError {
    /// Its place among the operations, from 0.
    pub op: u32,
    /// Consul's text.
    pub what: String,
}

/// What a transaction came to: with errors nothing was changed and there are no rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResult {
    /// The rows read and written, in the order of the operations; those written come without
    /// their values.
    pub rows: Vec<KvRow>,
    /// Every operation that failed.
    pub errors: Vec<TxnError>,
}

impl TxnResult {
    pub(crate) fn read(bytes: &Bytes, result: &fb::TxnResult<'_>) -> Result<Self, WireError> {
        let rows = KvRow::read_all(bytes, result.rows())?;
        let errors = codec::elements(WHAT, bytes, result.errors(), ERROR_BYTES_MIN)?
            .map(|error| {
                Ok(TxnError {
                    op: error.op(),
                    what: codec::text("what", error.what(), limits::MESSAGE_BYTES_MAX)?,
                })
            })
            .collect::<Result<_, WireError>>()?;
        Ok(Self { rows, errors })
    }

    pub(crate) fn build(&self, builder: &mut Builder) -> WIPOffset<fb::TxnResult<'static>> {
        let rows = crate::reply::build_row_list(builder, self.rows.iter().map(KvRow::borrow));
        let errors: Vec<_> = self
            .errors
            .iter()
            .map(|error| {
                let what = codec::cut(&error.what, limits::MESSAGE_BYTES_MAX);
                let what = Some(builder.create_string(what));
                fb::TxnError::create(builder, &fb::TxnErrorArgs { op: error.op, what })
            })
            .collect();
        let errors = Some(builder.create_vector(&errors));
        let args = fb::TxnResultArgs {
            rows: Some(rows),
            errors,
        };
        fb::TxnResult::create(builder, &args)
    }
}

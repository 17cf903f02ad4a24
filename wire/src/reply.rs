//! What does a server answer?
//!
//! A long answer goes out in pieces of bounded size under one request id, so that neither side
//! ever holds all of it. Rows are encoded from wherever they lie, straight into the connection's
//! send buffer.

use bytes::{Bytes, BytesMut};
use flatbuffers::{ForwardsUOffset, UnionWIPOffset, Vector, WIPOffset};

use crate::codec::{self, Builder};
use crate::frame::{FrameHead, FrameKind};
use crate::generated::wire as fb;
use crate::{ClusterStatus, Index, KvChanges, RequestId, ShardId, TxnResult, WireError, limits};

const WHAT: &str = "reply";
/// A row is a table with two vectors at least, and the offset to it.
const ROW_BYTES_MIN: usize = 24;
/// A key name is a table with a vector, and the offset to it.
const KEY_NAME_BYTES_MIN: usize = 16;

/// Why a request was not carried out, as a client must understand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// No leader within the hold time. Nothing happened.
    NoLeader = 0,
    /// This server does not lead and was asked not to forward. Nothing happened.
    NotLeader = 1,
    /// The write may or may not have happened: the leader was lost while it was under way.
    OutcomeUnknown = 2,
    /// Over a bound on bytes or requests in flight. Nothing happened; try again after `retry_after_ms`.
    Busy = 3,
    /// The request itself is wrong. Nothing happened.
    Invalid = 4,
    /// Over a size limit. Nothing happened.
    TooLarge = 5,
    /// The log has no room to grow. Nothing happened; reads go on.
    DiskFull = 6,
    /// This server is not in the peer set.
    NotMember = 7,
    /// The server is stopping.
    ShuttingDown = 8,
    /// What was asked spans shards, which is refused by name.
    SpansShards = 9,
    /// The state machine refused the command; it is in the log and changed nothing.
    Refused = 10,
    /// Something failed here that should not have.
    Internal = 11,
}

impl FailureKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::NoLeader,
        Self::NotLeader,
        Self::OutcomeUnknown,
        Self::Busy,
        Self::Invalid,
        Self::TooLarge,
        Self::DiskFull,
        Self::NotMember,
        Self::ShuttingDown,
        Self::SpansShards,
        Self::Refused,
        Self::Internal,
    ];

    /// The kind with this number. One that a later version added reads as [`Self::Internal`]:
    /// the message still says what it was, and the connection is not at fault.
    fn from_number(number: u8) -> Self {
        let known = Self::ALL.get(usize::from(number)).copied();
        known.unwrap_or(Self::Internal)
    }
}

/// A refusal or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means for the client.
    pub kind: FailureKind,
    /// One sentence: what is wrong and what to do.
    pub message: String,
    /// Server address of the leader where known; otherwise empty.
    pub leader: String,
    /// When to try again; 0 where that says nothing.
    pub retry_after_ms: u32,
}

/// One KV row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvRow {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The client's number.
    pub flags: u64,
    /// Index of the write that made the row.
    pub create_index: Index,
    /// Index of the last write that changed it.
    pub modify_index: Index,
    /// How often it was acquired.
    pub lock_index: u64,
    /// Id of the session that holds it; empty where none does.
    pub session: Bytes,
}

/// A borrowed KV row, wherever it lies: in the state store or in a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvRowRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The client's number.
    pub flags: u64,
    /// Index of the write that made the row.
    pub create_index: Index,
    /// Index of the last write that changed it.
    pub modify_index: Index,
    /// How often it was acquired.
    pub lock_index: u64,
    /// Id of the session that holds it; empty where none does.
    pub session: &'a [u8],
}

impl KvRow {
    /// The row, borrowed.
    pub fn borrow(&self) -> KvRowRef<'_> {
        KvRowRef {
            key: &self.key,
            value: &self.value,
            flags: self.flags,
            create_index: self.create_index,
            modify_index: self.modify_index,
            lock_index: self.lock_index,
            session: &self.session,
        }
    }
}

impl KvRowRef<'_> {
    /// The row with bytes of its own.
    pub fn to_row(self) -> KvRow {
        KvRow {
            key: Bytes::copy_from_slice(self.key),
            value: Bytes::copy_from_slice(self.value),
            flags: self.flags,
            create_index: self.create_index,
            modify_index: self.modify_index,
            lock_index: self.lock_index,
            session: Bytes::copy_from_slice(self.session),
        }
    }

    /// At least what the row takes in a reply, bytes: what a piece of a long reply is cut by.
    pub fn wire_bytes(&self) -> usize {
        /// Table, offsets, lengths and padding around a row's bytes.
        const ROW_OVERHEAD_BYTES: usize = 80;
        ROW_OVERHEAD_BYTES + self.key.len() + self.value.len() + self.session.len()
    }
}

/// The answer proper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// A write was applied.
    Written {
        /// What Consul answers: `false` for a cas, acquire or release that did not take effect.
        ok: bool,
        /// Its raft index.
        index: Index,
    },
    /// Rows of a get (0 or 1) or a list.
    Rows(Vec<KvRow>),
    /// Key names.
    Keys(Vec<Bytes>),
    /// It was not carried out.
    Failed(Failure),
    /// Status.
    Status(ClusterStatus),
    /// What a transaction came to.
    Txn(TxnResult),
    /// A JSON document, or with [`Reply::more`] the next piece of one.
    Document(Bytes),
    /// What a watch is told.
    Changes(KvChanges),
}

/// One answer, or with `more` one piece of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `X-Consul-Index`.
    pub index: Index,
    /// `X-Consul-KnownLeader`.
    pub known_leader: bool,
    /// `X-Consul-LastContact`, milliseconds.
    pub last_contact_ms: u64,
    /// Further pieces follow under the same request id.
    pub more: bool,
    /// The answer.
    pub body: ReplyBody,
}

/// A reply without its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyMeta {
    /// `X-Consul-Index`.
    pub index: Index,
    /// `X-Consul-KnownLeader`.
    pub known_leader: bool,
    /// `X-Consul-LastContact`, milliseconds.
    pub last_contact_ms: u64,
    /// Further pieces follow under the same request id.
    pub more: bool,
}

type Body = (fb::ReplyBody, WIPOffset<UnionWIPOffset>);

impl Reply {
    /// Verifies and reads a reply; byte fields are slices of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let reply = codec::root::<fb::Reply>(WHAT, bytes)?;
        Ok(Self {
            index: codec::index(WHAT, reply.index())?,
            known_leader: reply.known_leader(),
            last_contact_ms: reply.last_contact_ms(),
            more: reply.more(),
            body: ReplyBody::read(bytes, &reply)?,
        })
    }

    /// Encodes a reply.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| self.build(builder))
    }

    /// Appends a whole Reply frame to `out`, with no allocation of its own but for lists.
    ///
    /// # Panics
    ///
    /// If it is longer than [`limits::FRAME_BYTES_MAX`]: long answers go out in pieces.
    pub fn encode_frame(&self, shard: ShardId, request: RequestId, out: &mut BytesMut) {
        codec::with_scratch(|builder| {
            self.build(builder);
            let head = FrameHead::new(FrameKind::Reply, shard, request);
            head.encode(builder.finished_data(), std::iter::empty(), out);
        });
    }

    /// What surrounds the body.
    pub fn meta(&self) -> ReplyMeta {
        ReplyMeta {
            index: self.index,
            known_leader: self.known_leader,
            last_contact_ms: self.last_contact_ms,
            more: self.more,
        }
    }

    fn build(&self, builder: &mut Builder) {
        let body = self.body.build(builder);
        finish(builder, &self.meta(), body);
    }
}

/// Appends a whole Reply frame with these rows to `out`, straight from where they lie.
///
/// # Panics
///
/// If it is longer than [`limits::FRAME_BYTES_MAX`]: cut long answers into pieces of about
/// [`limits::REPLY_BYTES_MAX`] by [`KvRowRef::wire_bytes`].
pub fn encode_rows_reply<'r>(
    shard: ShardId,
    request: RequestId,
    meta: &ReplyMeta,
    rows: impl IntoIterator<Item = KvRowRef<'r>>,
    out: &mut BytesMut,
) {
    codec::with_scratch(|builder| {
        let body = build_rows(builder, rows);
        finish(builder, meta, body);
        let head = FrameHead::new(FrameKind::Reply, shard, request);
        head.encode(builder.finished_data(), std::iter::empty(), out);
    });
}

fn finish(builder: &mut Builder, meta: &ReplyMeta, (body_type, body): Body) {
    let args = fb::ReplyArgs {
        index: meta.index.0,
        known_leader: meta.known_leader,
        last_contact_ms: meta.last_contact_ms,
        more: meta.more,
        body_type,
        body: Some(body),
    };
    let reply = fb::Reply::create(builder, &args);
    builder.finish_minimal(reply);
}

fn build_rows<'r>(builder: &mut Builder, rows: impl IntoIterator<Item = KvRowRef<'r>>) -> Body {
    let rows = Some(build_row_list(builder, rows));
    let rows = fb::Rows::create(builder, &fb::RowsArgs { rows });
    (fb::ReplyBody::Rows, rows.as_union_value())
}

/// A list of row tables.
type RowList = Vector<'static, ForwardsUOffset<fb::KvRow<'static>>>;

pub(crate) fn build_row_list<'r>(
    builder: &mut Builder,
    rows: impl IntoIterator<Item = KvRowRef<'r>>,
) -> WIPOffset<RowList> {
    let rows: Vec<_> = rows.into_iter().map(|row| put_row(builder, row)).collect();
    builder.create_vector(&rows)
}

pub(crate) fn put_row(builder: &mut Builder, row: KvRowRef<'_>) -> WIPOffset<fb::KvRow<'static>> {
    let session = codec::put_some(builder, row.session);
    let args = fb::KvRowArgs {
        key: Some(codec::put(builder, row.key)),
        value: Some(codec::put(builder, row.value)),
        flags: row.flags,
        create_index: row.create_index.0,
        modify_index: row.modify_index.0,
        lock_index: row.lock_index,
        session,
    };
    fb::KvRow::create(builder, &args)
}

impl ReplyBody {
    fn read(bytes: &Bytes, reply: &fb::Reply<'_>) -> Result<Self, WireError> {
        if let Some(written) = reply.body_as_written() {
            return Ok(Self::Written {
                ok: written.ok(),
                index: codec::index(WHAT, written.index())?,
            });
        }
        if let Some(rows) = reply.body_as_rows() {
            return KvRow::read_all(bytes, rows.rows()).map(Self::Rows);
        }
        if let Some(keys) = reply.body_as_keys() {
            let keys = codec::elements(WHAT, bytes, keys.keys(), KEY_NAME_BYTES_MIN)?;
            let keys = keys.map(|name| codec::shared(bytes, name.key()));
            return Ok(Self::Keys(keys.collect()));
        }
        if let Some(failed) = reply.body_as_failed() {
            return Failure::read(&failed).map(Self::Failed);
        }
        if let Some(status) = reply.body_as_cluster_status() {
            return ClusterStatus::read(&status).map(Self::Status);
        }
        if let Some(result) = reply.body_as_txn_result() {
            return TxnResult::read(bytes, &result).map(Self::Txn);
        }
        if let Some(document) = reply.body_as_document() {
            return Ok(Self::Document(codec::shared(bytes, document.json())));
        }
        if let Some(changes) = reply.body_as_kv_changes() {
            return KvChanges::read(bytes, &changes).map(Self::Changes);
        }
        let why = format_args!("unknown body {}", reply.body_type().0);
        Err(codec::malformed(WHAT, why))
    }

    fn build(&self, builder: &mut Builder) -> Body {
        match self {
            Self::Written { ok, index } => {
                let args = fb::WrittenArgs {
                    ok: *ok,
                    index: index.0,
                };
                let written = fb::Written::create(builder, &args);
                (fb::ReplyBody::Written, written.as_union_value())
            }
            Self::Rows(rows) => build_rows(builder, rows.iter().map(KvRow::borrow)),
            Self::Keys(keys) => {
                let names: Vec<_> = keys
                    .iter()
                    .map(|key| {
                        let key = Some(codec::put(builder, key));
                        fb::KeyName::create(builder, &fb::KeyNameArgs { key })
                    })
                    .collect();
                let keys = Some(builder.create_vector(&names));
                let keys = fb::Keys::create(builder, &fb::KeysArgs { keys });
                (fb::ReplyBody::Keys, keys.as_union_value())
            }
            Self::Failed(failure) => {
                let failed = failure.build(builder);
                (fb::ReplyBody::Failed, failed.as_union_value())
            }
            Self::Status(status) => {
                let status = status.build(builder);
                (fb::ReplyBody::ClusterStatus, status.as_union_value())
            }
            Self::Txn(result) => {
                let result = result.build(builder);
                (fb::ReplyBody::TxnResult, result.as_union_value())
            }
            Self::Document(json) => {
                let json = Some(codec::put(builder, json));
                let document = fb::Document::create(builder, &fb::DocumentArgs { json });
                (fb::ReplyBody::Document, document.as_union_value())
            }
            Self::Changes(changes) => (fb::ReplyBody::KvChanges, changes.build(builder)),
        }
    }
}

impl KvRow {
    pub(crate) fn read_all<'a>(
        bytes: &Bytes,
        rows: Option<Vector<'a, ForwardsUOffset<fb::KvRow<'a>>>>,
    ) -> Result<Vec<Self>, WireError> {
        let rows = codec::elements(WHAT, bytes, rows, ROW_BYTES_MIN)?;
        rows.map(|row| Self::read(bytes, &row)).collect()
    }

    pub(crate) fn read(bytes: &Bytes, row: &fb::KvRow<'_>) -> Result<Self, WireError> {
        Ok(Self {
            key: codec::shared(bytes, row.key()),
            value: codec::shared(bytes, row.value()),
            flags: row.flags(),
            create_index: codec::index(WHAT, row.create_index())?,
            modify_index: codec::index(WHAT, row.modify_index())?,
            lock_index: row.lock_index(),
            session: codec::shared(bytes, row.session()),
        })
    }
}

impl Failure {
    fn read(failed: &fb::Failed<'_>) -> Result<Self, WireError> {
        Ok(Self {
            kind: FailureKind::from_number(failed.kind()),
            message: codec::text("message", failed.message(), limits::MESSAGE_BYTES_MAX)?,
            leader: codec::text("leader", failed.leader(), limits::ADDRESS_BYTES_MAX)?,
            retry_after_ms: failed.retry_after_ms(),
        })
    }

    fn build(&self, builder: &mut Builder) -> WIPOffset<fb::Failed<'static>> {
        let message = codec::cut(&self.message, limits::MESSAGE_BYTES_MAX);
        let args = fb::FailedArgs {
            kind: self.kind as u8,
            message: Some(builder.create_string(message)),
            leader: Some(builder.create_string(&self.leader)),
            retry_after_ms: self.retry_after_ms,
        };
        fb::Failed::create(builder, &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of offsets to one shared row is a valid flatbuffer: four bytes on the wire would
    /// become a row of over a hundred in memory. One long row beside it keeps the verifier calm.
    #[test]
    fn rows_that_share_one_table_are_refused() {
        let shared = |rows: usize| {
            codec::encoded(|builder| {
                let args = fb::KvRowArgs {
                    value: Some(codec::put(builder, &vec![0; 8 * rows])),
                    ..fb::KvRowArgs::default()
                };
                let long = fb::KvRow::create(builder, &args);
                let empty = fb::KvRow::create(builder, &fb::KvRowArgs::default());
                let mut list = vec![empty; rows];
                list.push(long);
                let rows = Some(builder.create_vector(&list));
                let rows = fb::Rows::create(builder, &fb::RowsArgs { rows });
                let body = (fb::ReplyBody::Rows, rows.as_union_value());
                finish(builder, &ReplyMeta::default(), body);
            })
        };
        assert!(Reply::decode(&shared(1)).is_ok());
        let error = Reply::decode(&shared(10_000)).unwrap_err().to_string();
        assert!(error.contains("10001 elements do not fit"), "{error}");
    }
}

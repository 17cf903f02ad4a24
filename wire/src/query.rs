//! What may be read, and how fresh must the answer be?
//!
//! Byte fields of a decoded query are views of the frame it came in: a read waits for at most a
//! quorum round, so it may keep its frame alive that long. One that waits for a change may wait
//! for minutes, and is [detached](Query::detached) first.

use bytes::Bytes;

use crate::codec::{self, Builder};
use crate::generated::wire as fb;
use crate::{Command, Index, WatchFrom, WireError, limits};

const WHAT: &str = "query";

/// Consul's three consistency modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ReadMode {
    /// By the leader under a valid lease.
    #[default]
    Default = 0,
    /// Confirmed by a quorum round.
    Consistent = 1,
    /// By any server, from what it has.
    Stale = 2,
}

impl ReadMode {
    /// Every mode, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Default, Self::Consistent, Self::Stale];
}

/// One read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// How fresh.
    pub mode: ReadMode,
    /// Answer only once this index is applied; 0 for no such wish.
    pub min_index: Index,
    /// Whether it waits for a change (Consul's blocking query).
    pub wait: Wait,
    /// What.
    pub body: QueryBody,
}

/// How long to wait for an answer with which index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Answer once the answer's index is greater than this one; 0: answer at once.
    pub index: Index,
    /// Answer after so many milliseconds whatever the index is, from 0 to
    /// [`limits::WAIT_MS_MAX`] plus a [`limits::WAIT_JITTER_DIVISOR`]th of it.
    pub ms: u32,
}

/// The longest wait that a query may ask for, jitter included, ms.
const WAIT_AND_JITTER_MS_MAX: u32 =
    limits::WAIT_MS_MAX + limits::WAIT_MS_MAX / limits::WAIT_JITTER_DIVISOR;

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryBody {
    /// One key.
    KvGet {
        /// The key.
        key: Bytes,
    },
    /// Rows by byte prefix, in key order.
    KvList {
        /// The prefix; empty for all.
        prefix: Bytes,
        /// Only keys greater than this one; empty for no bound.
        start_after: Bytes,
        /// At most so many rows; 0 for no bound.
        limit: u64,
    },
    /// Key names by byte prefix; cut after the first separator past the prefix, each once.
    KvKeys {
        /// The prefix; empty for all.
        prefix: Bytes,
        /// The separator; empty for none.
        separator: Bytes,
        /// Only names greater than this one; empty for no bound.
        start_after: Bytes,
        /// At most so many names; 0 for no bound.
        limit: u64,
    },
    /// Who leads, and who is in the peer set.
    Status,
    /// A transaction that only reads: an encoded [`Command::Txn`](crate::Command::Txn).
    Txn(Bytes),
    /// A question about the tables beside the KV table: MessagePack, which the shard reads.
    Record(Bytes),
    /// What becomes of the rows with a prefix.
    KvWatch {
        /// The prefix; empty for all.
        prefix: Bytes,
        /// Since when.
        from: WatchFrom,
    },
}

impl Query {
    /// Verifies and reads a query; byte fields are slices of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let query = codec::root::<fb::Query>(WHAT, bytes)?;
        let Some(&mode) = ReadMode::ALL.get(usize::from(query.mode())) else {
            let why = format_args!("unknown read mode {}", query.mode());
            return Err(codec::malformed(WHAT, why));
        };
        Ok(Self {
            mode,
            min_index: codec::index(WHAT, query.min_index())?,
            wait: Wait::read(&query)?,
            body: QueryBody::read(bytes, &query)?,
        })
    }

    /// Encodes a query.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| {
            let (body_type, body) = self.body.build(builder);
            let args = fb::QueryArgs {
                mode: self.mode as u8,
                min_index: self.min_index.0,
                body_type,
                body: Some(body),
                wait_index: self.wait.index.0,
                wait_ms: self.wait.ms,
            };
            let query = fb::Query::create(builder, &args);
            builder.finish_minimal(query);
        })
    }

    /// Whether it may have to wait for a change.
    pub fn waits(&self) -> bool {
        self.wait.index != Index(0) && self.wait.ms != 0
    }

    /// The same query with bytes of its own, so that it does not keep its frame alive.
    pub fn detached(&self) -> Self {
        let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let body = match &self.body {
            QueryBody::KvGet { key } => QueryBody::KvGet { key: own(key) },
            QueryBody::KvList {
                prefix,
                start_after,
                limit,
            } => QueryBody::KvList {
                prefix: own(prefix),
                start_after: own(start_after),
                limit: *limit,
            },
            QueryBody::KvKeys {
                prefix,
                separator,
                start_after,
                limit,
            } => QueryBody::KvKeys {
                prefix: own(prefix),
                separator: own(separator),
                start_after: own(start_after),
                limit: *limit,
            },
            QueryBody::Status => QueryBody::Status,
            QueryBody::Txn(command) => QueryBody::Txn(own(command)),
            QueryBody::Record(question) => QueryBody::Record(own(question)),
            QueryBody::KvWatch { prefix, from } => QueryBody::KvWatch {
                prefix: own(prefix),
                from: *from,
            },
        };
        Self { body, ..*self }
    }
}

impl Wait {
    fn read(query: &fb::Query<'_>) -> Result<Self, WireError> {
        let ms = query.wait_ms();
        codec::at_most(
            "wait time (ms)",
            ms as usize,
            WAIT_AND_JITTER_MS_MAX as usize,
        )?;
        Ok(Self {
            index: codec::index(WHAT, query.wait_index())?,
            ms,
        })
    }
}

impl QueryBody {
    fn read(bytes: &Bytes, query: &fb::Query<'_>) -> Result<Self, WireError> {
        let key = |field: Option<flatbuffers::Vector<'_, u8>>| {
            let key = codec::shared(bytes, field);
            codec::at_most("key", key.len(), limits::KEY_BYTES_MAX)?;
            Ok::<_, WireError>(key)
        };
        if let Some(get) = query.body_as_kv_get() {
            let key = key(get.key())?;
            if key.is_empty() {
                return Err(codec::malformed(WHAT, "the key is empty"));
            }
            return Ok(Self::KvGet { key });
        }
        if let Some(list) = query.body_as_kv_list() {
            return Ok(Self::KvList {
                prefix: key(list.prefix())?,
                start_after: key(list.start_after())?,
                limit: list.limit(),
            });
        }
        if let Some(keys) = query.body_as_kv_keys() {
            return Ok(Self::KvKeys {
                prefix: key(keys.prefix())?,
                separator: key(keys.separator())?,
                start_after: key(keys.start_after())?,
                limit: keys.limit(),
            });
        }
        if let Some(watch) = query.body_as_kv_watch() {
            return Ok(Self::KvWatch {
                prefix: key(watch.prefix())?,
                from: WatchFrom::read(&watch)?,
            });
        }
        if query.body_as_status().is_some() {
            return Ok(Self::Status);
        }
        if let Some(read) = query.body_as_txn_read() {
            let command = codec::shared(bytes, read.command());
            return match Command::decode(&command)? {
                Command::Txn(ops) if ops.reads_only() => Ok(Self::Txn(command)),
                _ => Err(codec::malformed(
                    WHAT,
                    "it is no transaction that only reads",
                )),
            };
        }
        if let Some(read) = query.body_as_record_read() {
            let question = codec::shared(bytes, read.question());
            codec::at_most("question", question.len(), limits::QUESTION_BYTES_MAX)?;
            return Ok(Self::Record(question));
        }
        let why = format_args!("unknown body {}", query.body_type().0);
        Err(codec::malformed(WHAT, why))
    }

    fn build(
        &self,
        builder: &mut Builder,
    ) -> (
        fb::QueryBody,
        flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset>,
    ) {
        match self {
            Self::KvGet { key } => {
                let key = Some(codec::put(builder, key));
                let get = fb::KvGet::create(builder, &fb::KvGetArgs { key });
                (fb::QueryBody::KvGet, get.as_union_value())
            }
            Self::KvList {
                prefix,
                start_after,
                limit,
            } => {
                let args = fb::KvListArgs {
                    prefix: Some(codec::put(builder, prefix)),
                    start_after: Some(codec::put(builder, start_after)),
                    limit: *limit,
                };
                let list = fb::KvList::create(builder, &args);
                (fb::QueryBody::KvList, list.as_union_value())
            }
            Self::KvKeys {
                prefix,
                separator,
                start_after,
                limit,
            } => {
                let args = fb::KvKeysArgs {
                    prefix: Some(codec::put(builder, prefix)),
                    separator: Some(codec::put(builder, separator)),
                    start_after: codec::put_some(builder, start_after),
                    limit: *limit,
                };
                let keys = fb::KvKeys::create(builder, &args);
                (fb::QueryBody::KvKeys, keys.as_union_value())
            }
            Self::Status => {
                let status = fb::Status::create(builder, &fb::StatusArgs {});
                (fb::QueryBody::Status, status.as_union_value())
            }
            Self::Txn(command) => {
                let command = Some(codec::put(builder, command));
                let read = fb::TxnRead::create(builder, &fb::TxnReadArgs { command });
                (fb::QueryBody::TxnRead, read.as_union_value())
            }
            Self::Record(question) => {
                let question = Some(codec::put(builder, question));
                let read = fb::RecordRead::create(builder, &fb::RecordReadArgs { question });
                (fb::QueryBody::RecordRead, read.as_union_value())
            }
            Self::KvWatch { prefix, from } => {
                let watch = from.build(builder, prefix);
                (fb::QueryBody::KvWatch, watch.as_union_value())
            }
        }
    }
}

//! What has changed since, and where does one go on from?
//!
//! A watch asks for the changes behind a [`Cursor`], and each answer gives the cursor for the next
//! question. The changes are those of committed entries, in the order of the log, so a cursor
//! means the same on every server of the cluster: an asker may go on at another one. What is asked
//! of a server is a query like any other ([`WatchFrom`]), so it keeps no memory of who watches.

use bytes::Bytes;
use flatbuffers::{UnionWIPOffset, WIPOffset};

use crate::codec::{self, Builder};
use crate::generated::wire as fb;
use crate::{Index, KvRow, WireError, reply::put_row};

const WHAT: &str = "changes";
/// A change is a table with a row, and the offset to it.
const CHANGE_BYTES_MIN: usize = 24;

/// A place between two changes: behind the `position`-th change of the entry at `index`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The entry.
    pub index: Index,
    /// How many of its changes lie before; [`Cursor::ALL`] for all of them.
    pub position: u32,
}

impl Cursor {
    /// Position behind every change of an entry.
    pub const ALL: u32 = u32::MAX;

    /// Behind everything that the entry at `index` changed.
    pub fn behind(index: Index) -> Self {
        let position = Self::ALL;
        Self { index, position }
    }
}

/// Where a watch begins or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// Nowhere yet: the answer is the cursor behind everything applied, without changes. As fresh
    /// as the query's mode.
    Now,
    /// With the rows as they are: the answer is a listing, and its index the applied one.
    Rows,
    /// Behind this cursor. A query that waits is answered once there is a change, or its time is
    /// over.
    Cursor(Cursor),
}

impl WatchFrom {
    fn number(self) -> u8 {
        match self {
            Self::Now => 0,
            Self::Rows => 1,
            Self::Cursor(_) => 2,
        }
    }

    pub(crate) fn read(watch: &fb::KvWatch<'_>) -> Result<Self, WireError> {
        match watch.from() {
            0 => Ok(Self::Now),
            1 => Ok(Self::Rows),
            2 => Ok(Self::Cursor(Cursor {
                index: codec::index(WHAT, watch.index())?,
                position: watch.position(),
            })),
            other => Err(codec::malformed(
                WHAT,
                format_args!("unknown start {other}"),
            )),
        }
    }

    pub(crate) fn build(
        self,
        builder: &mut Builder,
        prefix: &[u8],
    ) -> WIPOffset<fb::KvWatch<'static>> {
        let Cursor { index, position } = match self {
            Self::Cursor(cursor) => cursor,
            Self::Now | Self::Rows => Cursor::default(),
        };
        let args = fb::KvWatchArgs {
            prefix: Some(codec::put(builder, prefix)),
            from: self.number(),
            index: index.0,
            position,
        };
        fb::KvWatch::create(builder, &args)
    }
}

/// What became of a row, or of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChangeOp {
    /// It came, or has another value or other flags.
    Set = 0,
    /// A session holds it that did not before.
    Lock = 1,
    /// No session holds it any more.
    Unlock = 2,
    /// It went.
    Delete = 3,
    /// All rows with a prefix went.
    DeleteTree = 4,
}

impl ChangeOp {
    /// Every operation, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Set,
        Self::Lock,
        Self::Unlock,
        Self::Delete,
        Self::DeleteTree,
    ];

    /// Its name, as Consul names the verbs of a transaction.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Lock => "lock",
            Self::Unlock => "unlock",
            Self::Delete => "delete",
            Self::DeleteTree => "delete-tree",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvChange {
    /// What happened.
    pub op: ChangeOp,
    /// The cursor behind it.
    pub at: Cursor,
    /// The row since; of what went, only the key (of a [`ChangeOp::DeleteTree`] the prefix) says
    /// anything.
    pub row: KvRow,
}

/// Changes of rows with a prefix, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvChanges {
    /// Whose history this is: the same on every server of a cluster for one shard, and different
    /// in another. Never 0.
    pub origin: u64,
    /// The cursor to go on from.
    pub next: Cursor,
    /// There was no further change when this was answered; else ask on at once.
    pub caught_up: bool,
    /// The history no longer reaches back to the cursor: start over. There are no changes then.
    pub gone: bool,
    /// The changes.
    pub changes: Vec<KvChange>,
}

impl KvChanges {
    pub(crate) fn read(bytes: &Bytes, table: &fb::KvChanges<'_>) -> Result<Self, WireError> {
        let changes = codec::elements(WHAT, bytes, table.changes(), CHANGE_BYTES_MIN)?;
        let changes = changes.map(|change| {
            let Some(&op) = ChangeOp::ALL.get(usize::from(change.op())) else {
                let why = format_args!("unknown operation {}", change.op());
                return Err(codec::malformed(WHAT, why));
            };
            let row = change.row();
            let row = row.ok_or_else(|| codec::malformed(WHAT, "a change without a row"))?;
            Ok(KvChange {
                op,
                at: Cursor {
                    index: codec::index(WHAT, change.index())?,
                    position: change.position(),
                },
                row: KvRow::read(bytes, &row)?,
            })
        });
        Ok(Self {
            origin: table.origin(),
            next: Cursor {
                index: codec::index(WHAT, table.index())?,
                position: table.position(),
            },
            caught_up: table.caught_up(),
            gone: table.gone(),
            changes: changes.collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn build(&self, builder: &mut Builder) -> WIPOffset<UnionWIPOffset> {
        let changes: Vec<_> = self
            .changes
            .iter()
            .map(|change| {
                let row = Some(put_row(builder, change.row.borrow()));
                let args = fb::KvChangeArgs {
                    op: change.op as u8,
                    index: change.at.index.0,
                    position: change.at.position,
                    row,
                };
                fb::KvChange::create(builder, &args)
            })
            .collect();
        let args = fb::KvChangesArgs {
            origin: self.origin,
            index: self.next.index.0,
            position: self.next.position,
            caught_up: self.caught_up,
            gone: self.gone,
            changes: Some(builder.create_vector(&changes)),
        };
        fb::KvChanges::create(builder, &args).as_union_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list is as short on the wire as its offsets, and as long in memory as its rows.
    #[test]
    fn changes_that_share_one_table_are_refused() {
        let shared = |changes: usize| {
            codec::encoded(|builder| {
                let args = fb::KvRowArgs {
                    value: Some(codec::put(builder, &vec![0; 16 * changes])),
                    ..fb::KvRowArgs::default()
                };
                let long = Some(fb::KvRow::create(builder, &args));
                let row = Some(fb::KvRow::create(builder, &fb::KvRowArgs::default()));
                let args = |row| fb::KvChangeArgs {
                    row,
                    ..fb::KvChangeArgs::default()
                };
                let long = fb::KvChange::create(builder, &args(long));
                let short = fb::KvChange::create(builder, &args(row));
                let mut list = vec![short; changes];
                list.push(long);
                let args = fb::KvChangesArgs {
                    changes: Some(builder.create_vector(&list)),
                    ..fb::KvChangesArgs::default()
                };
                let table = fb::KvChanges::create(builder, &args);
                builder.finish_minimal(table);
            })
        };
        let read = |bytes: Bytes| {
            let table = codec::root::<fb::KvChanges>(WHAT, &bytes)?;
            KvChanges::read(&bytes, &table)
        };
        assert_eq!(read(shared(1)).unwrap().changes.len(), 2);
        let error = read(shared(10_000)).unwrap_err().to_string();
        assert!(error.contains("10001 elements do not fit"), "{error}");
    }

    /// The verifier adds up what tables share: honest short ones must not look like a bomb.
    #[test]
    fn many_short_changes_are_read() {
        let change = |n: u64| KvChange {
            op: ChangeOp::Delete,
            at: Cursor::behind(Index(n)),
            row: KvRow {
                key: Bytes::from_static(b"k"),
                value: Bytes::new(),
                flags: 0,
                create_index: Index(0),
                modify_index: Index(0),
                lock_index: 0,
                session: Bytes::new(),
            },
        };
        let changes = KvChanges {
            changes: (1..5000).map(change).collect(),
            ..KvChanges::default()
        };
        let bytes = codec::encoded(|builder| {
            let table = changes.build(builder);
            builder.finish_minimal(table);
        });
        let table = codec::root::<fb::KvChanges>(WHAT, &bytes).unwrap();
        assert_eq!(KvChanges::read(&bytes, &table), Ok(changes));
    }
}

//! What has changed since?
//!
//! The newest changes of keys that were applied here, in the order of the log: what watches are
//! told. Each is the handle that the state holds anyway and its [`Cursor`]: the index of its entry
//! and its place among the entry's changes. Which changes an entry makes depends on the state and
//! on nothing else, so every server keeps the same sequence, and a watch goes on at any of them.
//!
//! Watchers are not kept here. One that has seen everything is parked like any blocking query
//! ([`Watches`](super::watch::Watches)); one that is slow asks when it can, from its cursor, and
//! finds that the history has gone on without it when it was too slow. So however many watch, and
//! however slowly, a write costs one push here, and the memory is bounded by
//! [`History::bytes_max`](History::new).
//!
//! Invariant: every change behind `begin` is in `changes`, in order, and `bytes` is their sum. What
//! is deleted with a prefix is one change that names the prefix, whatever it took away: a view of
//! what was there would keep a whole state alive.

use std::collections::VecDeque;

use wire::{ChangeOp, ClusterId, Cursor, Index, KvChange, KvChanges, Query, QueryBody, WatchFrom};
use wire::{KvRowRef, ShardId};
use xxhash_rust::xxh3::xxh3_64;

use crate::state::{
    KvRow,
    schema::{Change, RowChange},
};

/// Bytes of changes that a shard remembers, unless it is told otherwise.
pub const HISTORY_BYTES_DEFAULT: usize = 16 << 20;
/// Rows of one answer, bytes; it has at least one, whatever its length.
pub const CHANGES_BYTES_MAX: usize = 32 << 10;
/// Changes that one question looks at, those of other keys among them: bounds its time.
pub const CHANGES_LOOKED_AT_MAX: usize = 4096;

/// What a change was made to.
#[derive(Clone, Debug)]
enum What {
    /// The row since, or the one that went.
    Row(KvRow),
    /// All rows with this prefix.
    Prefix(Box<[u8]>),
}

/// A change and the cursor behind it.
#[derive(Clone, Debug)]
struct Kept {
    at: Cursor,
    op: ChangeOp,
    what: What,
}

impl Kept {
    fn of(at: Cursor, change: &RowChange<KvRow>) -> Self {
        let (op, what) = match change {
            RowChange::Put { old, new } => (put_op(old.as_ref(), new), What::Row(new.clone())),
            RowChange::Removed { old } => (ChangeOp::Delete, What::Row(old.clone())),
            RowChange::PrefixRemoved { prefix, .. } => {
                (ChangeOp::DeleteTree, What::Prefix(prefix.clone()))
            }
        };
        Self { at, op, what }
    }

    /// What it costs at most: a row may be the state's as well.
    fn bytes(&self) -> usize {
        /// Reference counts in front of a shared row.
        const SHARED_BYTES: usize = 16;
        size_of::<Self>()
            + match &self.what {
                What::Row(row) => SHARED_BYTES + row.bytes(),
                What::Prefix(prefix) => prefix.len(),
            }
    }

    /// Whether a row with `prefix` was, or may have been, concerned.
    fn concerns(&self, prefix: &[u8]) -> bool {
        match &self.what {
            What::Row(row) => row.key().starts_with(prefix),
            What::Prefix(gone) => gone.starts_with(prefix) || prefix.starts_with(gone),
        }
    }

    /// As somebody is told who watches `prefix`: of rows outside it nothing is said.
    fn to_wire(&self, prefix: &[u8]) -> KvChange {
        let gone = |key| KvRowRef {
            key,
            value: b"",
            flags: 0,
            create_index: Index(0),
            modify_index: self.at.index,
            lock_index: 0,
            session: b"",
        };
        let row = match &self.what {
            What::Row(row) if self.op == ChangeOp::Delete => gone(row.key()),
            What::Row(row) => row.as_ref(),
            What::Prefix(tree) if tree.len() < prefix.len() => gone(prefix),
            What::Prefix(tree) => gone(tree),
        };
        KvChange {
            op: self.op,
            at: self.at,
            row: row.to_row(),
        }
    }
}

fn put_op(old: Option<&KvRow>, new: &KvRow) -> ChangeOp {
    let before = old.map_or(&b""[..], KvRow::session);
    match new.session() {
        now if now == before => ChangeOp::Set,
        b"" => ChangeOp::Unlock,
        _ => ChangeOp::Lock,
    }
}

/// An answer to a watch, with handles of the rows it tells of.
#[derive(Debug)]
pub struct Changes {
    prefix: Box<[u8]>,
    origin: u64,
    next: Cursor,
    caught_up: bool,
    gone: bool,
    kept: Vec<Kept>,
}

impl Changes {
    /// Whether it tells an asker something: a change, or that there is more to look at.
    pub fn is_news(&self) -> bool {
        !self.caught_up || self.gone || !self.kept.is_empty()
    }

    /// As it travels.
    pub fn to_wire(&self) -> KvChanges {
        KvChanges {
            origin: self.origin,
            next: self.next,
            caught_up: self.caught_up,
            gone: self.gone,
            changes: self
                .kept
                .iter()
                .map(|kept| kept.to_wire(&self.prefix))
                .collect(),
        }
    }
}

/// The newest changes of one shard.
#[derive(Debug)]
pub struct History {
    origin: u64,
    bytes_max: usize,
    bytes: usize,
    /// Behind this cursor nothing is missing.
    begin: Cursor,
    changes: VecDeque<Kept>,
    /// Whoever is woken and was not asked again yet was woken by this entry or a later one.
    woken_by: Index,
}

impl History {
    /// The history of a shard, empty, whose state is that of `applied`. It keeps `bytes_max` bytes
    /// of changes; 0 switches it off.
    pub fn new(cluster: ClusterId, shard: ShardId, applied: Index, bytes_max: usize) -> Self {
        let name = [&cluster.0[..], &shard.0.to_le_bytes()].concat();
        Self {
            origin: xxh3_64(&name).max(1),
            bytes_max,
            bytes: 0,
            begin: Cursor::behind(applied),
            changes: VecDeque::new(),
            woken_by: Index(0),
        }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.bytes_max > 0
    }

    /// Bytes of the changes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many changes are kept.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Takes what an entry has changed; entries come in order, those that changed nothing need not.
    pub fn record(&mut self, index: Index, changes: &[Change]) {
        if !self.is_on() {
            return;
        }
        let mut position = 0;
        for change in changes {
            if let Change::Kvs(change) = change {
                position += 1;
                let kept = Kept::of(Cursor { index, position }, change);
                self.bytes += kept.bytes();
                self.changes.push_back(kept);
            }
        }
        while self.bytes > self.bytes_max {
            let oldest = self.changes.pop_front().expect("bytes are of changes");
            self.bytes -= oldest.bytes();
            self.begin = oldest.at;
        }
    }

    /// The state was replaced by that of `applied`: nobody knows what became of which row.
    pub fn replaced(&mut self, applied: Index) {
        self.changes.clear();
        self.bytes = 0;
        self.begin = Cursor::behind(applied);
    }

    /// The cursor behind everything, at the applied index.
    pub fn now(&self, applied: Index) -> Changes {
        Changes {
            prefix: Box::default(),
            origin: self.origin,
            next: Cursor::behind(applied),
            caught_up: true,
            gone: false,
            kept: Vec::new(),
        }
    }

    /// The changes of rows with `prefix` behind `after`, as many as one answer holds.
    ///
    /// A cursor ahead of what is applied here comes from a server that is further; what it has
    /// told is not told again.
    pub fn since(&self, prefix: &[u8], after: Cursor, applied: Index) -> Changes {
        let mut found = self.now(applied);
        found.next = found.next.max(after);
        if after < self.begin {
            found.gone = true;
            return found;
        }
        let first = self.changes.partition_point(|kept| kept.at <= after);
        let mut bytes = 0;
        for (looked_at, kept) in self.changes.range(first..).enumerate() {
            if looked_at == CHANGES_LOOKED_AT_MAX || bytes >= CHANGES_BYTES_MAX {
                found.caught_up = false;
                found.next = self.changes[first + looked_at - 1].at;
                break;
            }
            if kept.concerns(prefix) {
                bytes += kept.bytes();
                found.kept.push(kept.clone());
            }
        }
        if !found.kept.is_empty() {
            found.prefix = prefix.into();
        }
        found
    }

    /// The entries from `first` on are about to wake watchers; all woken before were asked again.
    pub fn wakes_from(&mut self, first: Index) {
        self.woken_by = first;
    }

    /// Lets a watch that was parked and then woken begin at what woke it: of what came in between
    /// nothing concerned it, however much it was.
    pub fn skip_to_wake(&self, query: &mut Query) {
        advance(
            query,
            Cursor::behind(Index(self.woken_by.0.saturating_sub(1))),
        );
    }

    /// Lets a watch that was parked until its time was over go on from here: nothing concerned it.
    pub fn skip_to_end(&self, query: &mut Query, applied: Index) {
        advance(query, Cursor::behind(applied));
    }
}

fn advance(query: &mut Query, to: Cursor) {
    if let QueryBody::KvWatch {
        from: WatchFrom::Cursor(after),
        ..
    } = &mut query.body
    {
        *after = to.max(*after);
    }
}

#[cfg(test)]
mod tests;

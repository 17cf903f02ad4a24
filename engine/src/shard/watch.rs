//! Whose result can this change have changed?
//!
//! A blocking query that has to wait is parked here until a change touches its own rows, its time
//! is over, or nobody waits for it any longer. Consul gives every node of its trees a channel and
//! wakes whoever stands near a change; here the applied changes themselves are looked up among
//! those who wait, so that a waiter wakes only if a row of its own result came, went or changed:
//! also one that waits for a missing key or an empty prefix.
//!
//! ```text
//!            change of key k ──► keys      { k }            one lookup
//!                           └──► prefixes  { k[..n] }       one for each prefix length n in use
//!  removal of all under p ─────► keys      { p… }           those that had a row
//!                           ├──► prefixes  { p… }           those that had rows
//!                           └──► prefixes  { p[..n] }       above it: they all lost rows
//! ```
//!
//! What is woken costs nothing yet: the whole list of a place moves to the queue of the woken in
//! one step, and is asked again a bounded number at a time. While nobody waits, the state machine
//! does not even say what changed.
//!
//! Invariants: each waiter is in `waiters` and `deadlines` until it is taken out, and either in
//! its place or in one batch of `woken`. A ticket in a batch may be gone; it is passed over.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::IntoIter,
};

use ahash::AHashMap;
use bytes::Bytes;
use wire::{Query, QueryBody, ReadMode, Wait};

use super::event::Ticket;
use crate::{
    documents::{Question, subjects::touched},
    state::{
        KvRow,
        schema::{Change, RowChange},
        tree::View,
    },
};

/// A blocking query and when it is answered whatever its index is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Who waits.
    pub ticket: Ticket,
    /// For what.
    pub query: Query,
    /// Until when, ns of the turn's clock.
    pub deadline_ns: u64,
}

/// Which changes can change a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interest {
    /// Those of one row.
    Row,
    /// Those of rows with a prefix.
    Rows,
    /// Coming and going of rows with a prefix, whatever they hold.
    Names,
    /// Those that touch a subject of the records.
    Subject,
}

fn interest(body: &QueryBody) -> Option<(Interest, Bytes)> {
    match body {
        QueryBody::KvGet { key } => Some((Interest::Row, key.clone())),
        QueryBody::KvList { prefix, .. } => Some((Interest::Rows, prefix.clone())),
        QueryBody::KvWatch { prefix, .. } => Some((Interest::Rows, prefix.clone())),
        QueryBody::KvKeys { prefix, .. } => Some((Interest::Names, prefix.clone())),
        QueryBody::Record(question) => {
            let question = Question::decode(question).ok()?;
            Some((Interest::Subject, question.subject().into_bytes()))
        }
        QueryBody::Status | QueryBody::Txn(_) => None,
    }
}

#[derive(Debug)]
struct Parked {
    query: Query,
    deadline_ns: u64,
    /// Position in its list, while it is in its place.
    at: usize,
}

/// Who waits at one key or prefix.
#[derive(Debug, Default)]
struct Place {
    rows: Vec<Ticket>,
    names: Vec<Ticket>,
}

/// Places by key: found by hash for a change of one row, in order for the removal of many.
#[derive(Debug, Default)]
struct Places {
    by_key: AHashMap<Bytes, Place>,
    order: BTreeSet<Bytes>,
    /// How many places have a key of this length.
    lengths: BTreeMap<usize, usize>,
}

/// Those of one shard who wait for a change.
#[derive(Debug, Default)]
pub struct Watches {
    waiters: AHashMap<Ticket, Parked>,
    keys: Places,
    prefixes: Places,
    subjects: Places,
    deadlines: BTreeSet<(u64, Ticket)>,
    woken: VecDeque<IntoIter<Ticket>>,
    woken_total: u64,
}

impl Watches {
    /// How many wait, the woken who were not asked again yet among them.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Who waits for what, in no order.
    pub fn waiting(&self) -> impl Iterator<Item = (Ticket, &Query)> {
        let waiters = self.waiters.iter();
        waiters.map(|(ticket, parked)| (*ticket, &parked.query))
    }

    /// How many were taken from the queue of the woken since the start.
    pub fn woken_total(&self) -> u64 {
        self.woken_total
    }

    /// Whether somebody may be woken who was not asked again yet.
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// Lets a query wait for the next change of its result. What cannot be watched is given back.
    #[allow(clippy::result_large_err, reason = "the waiter itself is given back")]
    pub fn park(&mut self, waiter: Waiter) -> Result<(), Waiter> {
        let Waiter {
            ticket,
            query,
            deadline_ns,
        } = waiter;
        if interest(&query.body).is_none() {
            return Err(Waiter {
                ticket,
                query,
                deadline_ns,
            });
        }
        // A frame may be thousands of times longer than the query that came in it.
        let query = query.detached();
        let (interest, key) = interest(&query.body).expect("as before");
        let list = self.places(interest).enter(&key).list(interest);
        list.push(ticket);
        let at = list.len() - 1;
        self.deadlines.insert((deadline_ns, ticket));
        let parked = Parked {
            query,
            deadline_ns,
            at,
        };
        let before = self.waiters.insert(ticket, parked);
        debug_assert!(before.is_none(), "a ticket waits once");
        Ok(())
    }

    /// Looks up who waits for what has been changed.
    pub fn changed(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Kvs(RowChange::Put { old: None, .. }) if mutant!(ComingWakesNobody) => {}
                Change::Kvs(RowChange::Put { old, new }) => {
                    self.row_changed(new.key(), old.is_none());
                }
                Change::Kvs(RowChange::Removed { .. }) if mutant!(ForgottenWatch) => {}
                Change::Kvs(RowChange::Removed { old }) => self.row_changed(old.key(), true),
                Change::Kvs(RowChange::PrefixRemoved { prefix, before }) => {
                    self.rows_removed(prefix, before);
                }
                // They follow from changes of keys, and nobody reads them as such.
                Change::Tombstones(_) => {}
                record => self.record_changed(record),
            }
        }
    }

    fn record_changed(&mut self, change: &Change) {
        let Self {
            subjects, woken, ..
        } = self;
        if !subjects.by_key.is_empty() {
            touched(change, &mut |subject| {
                subjects.wake(subject.as_bytes(), true, woken);
            });
        }
    }

    fn row_changed(&mut self, key: &[u8], came_or_went: bool) {
        self.keys.wake(key, came_or_went, &mut self.woken);
        let mut length = self.prefixes.length_from(0);
        while let Some(n) = length.filter(|n| *n <= key.len()) {
            self.prefixes.wake(&key[..n], came_or_went, &mut self.woken);
            length = self.prefixes.length_from(n + 1);
        }
    }

    /// `before` had rows under `prefix`, or nothing would have been removed.
    fn rows_removed(&mut self, prefix: &[u8], before: &View<KvRow>) {
        for key in self.keys.under(prefix, |key| before.get(key).is_some()) {
            self.keys.wake(&key, true, &mut self.woken);
        }
        let had_rows = |key: &[u8]| !before.prefix(key).take(1).is_empty();
        for key in self.prefixes.under(prefix, had_rows) {
            self.prefixes.wake(&key, true, &mut self.woken);
        }
        let mut length = self.prefixes.length_from(0);
        while let Some(n) = length.filter(|n| *n < prefix.len()) {
            self.prefixes.wake(&prefix[..n], true, &mut self.woken);
            length = self.prefixes.length_from(n + 1);
        }
    }

    /// The next who was woken by a change.
    pub fn next_woken(&mut self) -> Option<Waiter> {
        while let Some(batch) = self.woken.front_mut() {
            let Some(ticket) = batch.next() else {
                self.woken.pop_front();
                continue;
            };
            if let Some(parked) = self.forget(ticket) {
                self.woken_total += 1;
                return Some(parked.waiter(ticket));
            }
        }
        None
    }

    /// The next whose time is over at `now_ns`.
    pub fn next_late(&mut self, now_ns: u64) -> Option<Waiter> {
        let &(deadline_ns, ticket) = self.deadlines.first()?;
        if deadline_ns > now_ns {
            return None;
        }
        self.take(ticket)
    }

    /// Takes a waiter out, wherever it is.
    pub fn take(&mut self, ticket: Ticket) -> Option<Waiter> {
        let parked = self.forget(ticket)?;
        let (interest, key) = interest(&parked.query.body).expect("it was parked");
        let places = self.places(interest);
        if let Some(place) = places.by_key.get_mut(&key[..]) {
            let list = place.list(interest);
            // It may have been woken, and others wait in its place by now.
            if list.get(parked.at) == Some(&ticket) {
                list.swap_remove(parked.at);
                let moved = list.get(parked.at).copied();
                if place.is_empty() {
                    places.leave(&key);
                }
                if let Some(moved) = moved {
                    let moved = self.waiters.get_mut(&moved).expect("it is in its place");
                    moved.at = parked.at;
                }
            }
        }
        Some(parked.waiter(ticket))
    }

    /// Takes out all who wait for an answer of a leader, in the order in which they came.
    pub fn take_unless_stale(&mut self) -> Vec<Ticket> {
        self.take_those(|query| query.mode != ReadMode::Stale)
    }

    /// Takes out everyone, in the order in which they came.
    pub fn take_all(&mut self) -> Vec<Ticket> {
        self.take_those(|_| true)
    }

    fn take_those(&mut self, wanted: impl Fn(&Query) -> bool) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = self
            .waiters
            .iter()
            .filter(|(_, parked)| wanted(&parked.query))
            .map(|(ticket, _)| *ticket)
            .collect();
        tickets.sort_unstable();
        for ticket in &tickets {
            self.take(*ticket);
        }
        tickets
    }

    /// Wakes everyone, to be answered whatever their index is: the state was replaced.
    pub fn wake_all(&mut self) {
        let mut tickets: Vec<Ticket> = self.waiters.keys().copied().collect();
        tickets.sort_unstable();
        for parked in self.waiters.values_mut() {
            parked.query.wait = Wait::default();
        }
        self.keys = Places::default();
        self.prefixes = Places::default();
        self.subjects = Places::default();
        self.woken.clear();
        self.woken.push_back(tickets.into_iter());
    }

    /// A waiter goes, but for its place.
    fn forget(&mut self, ticket: Ticket) -> Option<Parked> {
        let parked = self.waiters.remove(&ticket)?;
        self.deadlines.remove(&(parked.deadline_ns, ticket));
        give_back(&mut self.waiters);
        Some(parked)
    }

    fn places(&mut self, interest: Interest) -> &mut Places {
        match interest {
            Interest::Row => &mut self.keys,
            Interest::Rows | Interest::Names => &mut self.prefixes,
            Interest::Subject => &mut self.subjects,
        }
    }
}

/// A table that many have left, and that is empty now, gives back its room.
fn give_back<K, V>(table: &mut AHashMap<K, V>) {
    if table.is_empty() && table.capacity() > EMPTY_TABLE_KEPT_MAX {
        *table = AHashMap::new();
    }
}

/// An empty table of more places than this is not kept.
const EMPTY_TABLE_KEPT_MAX: usize = 1024;

impl Parked {
    fn waiter(self, ticket: Ticket) -> Waiter {
        Waiter {
            ticket,
            query: self.query,
            deadline_ns: self.deadline_ns,
        }
    }
}

impl Places {
    /// The place of this key.
    fn enter(&mut self, key: &Bytes) -> &mut Place {
        if !self.by_key.contains_key(key) {
            self.order.insert(key.clone());
            *self.lengths.entry(key.len()).or_default() += 1;
        }
        self.by_key.entry(key.clone()).or_default()
    }

    /// Nobody is left in this place.
    fn leave(&mut self, key: &[u8]) {
        self.by_key.remove(key);
        give_back(&mut self.by_key);
        self.order.remove(key);
        let count = self.lengths.get_mut(&key.len()).expect("it was counted");
        *count -= 1;
        if *count == 0 {
            self.lengths.remove(&key.len());
        }
    }

    /// The least length in use that is not less than `least`.
    fn length_from(&self, least: usize) -> Option<usize> {
        self.lengths
            .range(least..)
            .next()
            .map(|(length, _)| *length)
    }

    /// Moves who waits in this place to the woken.
    fn wake(&mut self, key: &[u8], came_or_went: bool, woken: &mut VecDeque<IntoIter<Ticket>>) {
        let Some(place) = self.by_key.get_mut(key) else {
            return;
        };
        let names = match came_or_went {
            true => std::mem::take(&mut place.names),
            false => Vec::new(),
        };
        let batches = [std::mem::take(&mut place.rows), names];
        woken.extend(
            batches
                .into_iter()
                .filter(|batch| !batch.is_empty())
                .map(Vec::into_iter),
        );
        if place.is_empty() {
            self.leave(key);
        }
    }

    /// Keys of the places under `prefix` that `had` says something of, in order.
    fn under(&self, prefix: &[u8], had: impl Fn(&[u8]) -> bool) -> Vec<Bytes> {
        use std::ops::Bound::{Included, Unbounded};
        self.order
            .range::<[u8], _>((Included(prefix), Unbounded))
            .take_while(|key| key.starts_with(prefix))
            .filter(|key| had(key))
            .cloned()
            .collect()
    }
}

impl Place {
    fn list(&mut self, interest: Interest) -> &mut Vec<Ticket> {
        match interest {
            Interest::Row | Interest::Rows | Interest::Subject => &mut self.rows,
            Interest::Names => &mut self.names,
        }
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.names.is_empty()
    }
}

#[cfg(test)]
mod tests;

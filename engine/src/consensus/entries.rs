//! What does raft-rs see of the log, without ever waiting for a disk?
//!
//! raft-rs reads its storage synchronously and aborts on an error it does not expect. So:
//! entries above the applied index are always in memory; terms of the whole retained log are
//! runs, looked up without I/O; only what a lagging follower needs may be on disk alone, and
//! raft-rs asks for it in the one form that may answer "later" ([`WantedEntries`]).

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use bytes::Bytes;
use raft::{
    Error, GetEntriesContext, RaftState, Result, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};
use wire::{Index, Term};

/// What an entry costs beside its payload, bytes (struct, deque slot, shared-bytes handle).
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// The image a leader offers to a follower that is behind its log. Opaque to raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDescriptor {
    /// Last index in the image.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// The encoded configuration that goes with it.
    pub configuration: Bytes,
}

/// Entries that raft-rs wants for a lagging follower and that are only on disk.
#[derive(Debug)]
pub struct WantedEntries {
    /// First index wanted.
    pub first: Index,
    /// Last index wanted.
    pub last: Index,
    contexts: Vec<GetEntriesContext>,
}

impl WantedEntries {
    /// What to hand to raft-rs once the entries are at hand.
    pub fn into_contexts(self) -> Vec<GetEntriesContext> {
        self.contexts
    }
}

/// A shard's log as raft-rs sees it.
pub struct EntryStore {
    initial: RaftState,
    /// First index that can still be had, from memory or disk.
    first: u64,
    /// First index that is on disk.
    disk_first: u64,
    /// (first index, term) of each run, ascending; the first run may start below `first`.
    runs: Vec<(u64, u64)>,
    last: u64,
    cache: VecDeque<Entry>,
    cache_first: u64,
    cache_bytes: usize,
    cache_bytes_max: usize,
    trailing_entries_max: u64,
    image: Option<ImageDescriptor>,
    image_conf: ConfState,
    image_wanted: Cell<bool>,
    wanted: RefCell<Vec<WantedEntries>>,
    fetched: Vec<Entry>,
}

impl EntryStore {
    /// The store of a shard whose log begins after (`snapshot_index`, `snapshot_term`). At most
    /// `cache_bytes_max` of applied entries stay in memory, and at most `trailing_entries_max` of
    /// those that are no longer on disk.
    pub fn new(
        hard_state: HardState,
        conf_state: ConfState,
        snapshot_index: Index,
        snapshot_term: Term,
        cache_bytes_max: usize,
        trailing_entries_max: u64,
    ) -> Self {
        Self {
            initial: RaftState {
                hard_state,
                conf_state,
            },
            first: snapshot_index.0 + 1,
            disk_first: snapshot_index.0 + 1,
            runs: vec![(snapshot_index.0, snapshot_term.0)],
            last: snapshot_index.0,
            cache: VecDeque::new(),
            cache_first: snapshot_index.0 + 1,
            cache_bytes: 0,
            cache_bytes_max,
            trailing_entries_max,
            image: None,
            image_conf: ConfState::default(),
            image_wanted: Cell::new(false),
            wanted: RefCell::default(),
            fetched: Vec::new(),
        }
    }

    /// Another bound for the entries that are kept although they are no longer on disk; it counts
    /// from the next compaction on.
    pub fn set_trailing_entries_max(&mut self, trailing_entries_max: u64) {
        self.trailing_entries_max = trailing_entries_max;
    }

    /// Appends entries, dropping what conflicts (Raft paper §5.3).
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first().map(|entry| entry.index) else {
            return;
        };
        assert!(
            first >= self.first && first <= self.last + 1,
            "entry {first} leaves a gap after {}",
            self.last
        );
        self.truncate_from(first);
        for entry in entries {
            assert_eq!(entry.index, self.last + 1, "entries are not contiguous");
            if self.runs.last().is_none_or(|run| run.1 != entry.term) {
                self.runs.push((entry.index, entry.term));
            }
            self.last = entry.index;
            self.cache_bytes += entry.data.len() + ENTRY_OVERHEAD_BYTES;
            self.cache.push_back(entry.clone());
        }
    }

    fn truncate_from(&mut self, first: u64) {
        while self.runs.len() > 1 && self.runs.last().is_some_and(|run| run.0 >= first) {
            self.runs.pop();
        }
        while self.cache.back().is_some_and(|entry| entry.index >= first) {
            let entry = self.cache.pop_back().expect("it was there");
            self.cache_bytes -= entry.data.len() + ENTRY_OVERHEAD_BYTES;
        }
        if self.cache.is_empty() {
            self.cache_first = first;
        }
        if !mutant!(StaleEntriesFetched) {
            self.fetched.retain(|entry| entry.index < first);
        }
        self.last = self.last.min(first - 1);
    }

    /// Forgets cached entries up to `applied`, oldest first, until the cache fits its bound.
    pub fn shrink_cache(&mut self, applied: u64) {
        while self.cache_bytes > self.cache_bytes_max && self.cache_first <= applied {
            self.forget_oldest();
        }
        self.forget_before(self.disk_first.min(self.cache_first));
    }

    fn forget_oldest(&mut self) {
        let entry = self
            .cache
            .pop_front()
            .expect("the cache ends where the log does");
        self.cache_bytes -= entry.data.len() + ENTRY_OVERHEAD_BYTES;
        self.cache_first = entry.index + 1;
    }

    /// Bytes of entries in memory.
    pub fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// The log on disk now begins at `first`. What the cache still holds from before it stays
    /// available, so that a follower only a little behind needs no image.
    pub fn compact(&mut self, first: Index) {
        if first.0 > self.disk_first {
            assert!(
                first.0 <= self.last + 1,
                "compaction to {first} beyond the last index {}",
                self.last
            );
            self.disk_first = first.0;
            let trailing_first = first.0.saturating_sub(self.trailing_entries_max);
            while self.cache_first < trailing_first {
                self.forget_oldest();
            }
            self.forget_before(self.disk_first.min(self.cache_first));
        }
    }

    fn forget_before(&mut self, first: u64) {
        if first <= self.first {
            return;
        }
        let term = self.term_of(first - 1).expect("forgotten within the log");
        let gone = self
            .runs
            .partition_point(|run| run.0 < first)
            .saturating_sub(1);
        self.runs.drain(..gone);
        self.runs[0] = (first - 1, term);
        self.first = first;
    }

    /// An image replaced everything up to (`index`, `term`); the log begins anew behind it.
    pub fn install(&mut self, index: Index, term: Term, conf_state: ConfState) {
        self.initial.conf_state = conf_state;
        self.first = index.0 + 1;
        self.disk_first = self.first;
        self.last = index.0;
        self.runs = vec![(index.0, term.0)];
        self.cache.clear();
        self.cache_first = self.first;
        self.cache_bytes = 0;
        self.fetched.clear();
    }

    /// The newest image that a lagging follower can be given.
    pub fn offer_image(&mut self, image: ImageDescriptor, conf_state: ConfState) {
        self.image = Some(image);
        self.image_conf = conf_state;
        self.image_wanted.set(false);
    }

    /// Whether raft-rs asked for an image that is not there, since last asked.
    pub fn take_image_wanted(&self) -> bool {
        self.image_wanted.take()
    }

    /// What raft-rs asked for that is only on disk.
    pub fn take_wanted(&self) -> Vec<WantedEntries> {
        std::mem::take(&mut *self.wanted.borrow_mut())
    }

    /// Entries read from disk, kept until the next ones are.
    pub fn put_fetched(&mut self, entries: Vec<Entry>) {
        self.fetched = entries;
    }

    /// First index that can be had.
    pub fn first(&self) -> Index {
        Index(self.first)
    }

    /// Last index.
    pub fn last(&self) -> Index {
        Index(self.last)
    }

    /// Term of an entry of the retained log, or of the one just before it.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index + 1 < self.first || index > self.last {
            return None;
        }
        let at = self.runs.partition_point(|run| run.0 <= index);
        at.checked_sub(1).map(|at| self.runs[at].1)
    }

    fn cached(&self, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        let from = (low - self.cache_first) as usize;
        let to = (high - self.cache_first) as usize;
        limited(self.cache.range(from..to), bytes_max)
    }
}

/// At least one entry, and no more than `bytes_max` of payload.
fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut out = Vec::new();
    let mut bytes = 0u64;
    for entry in entries {
        bytes += entry.data.len() as u64;
        if !out.is_empty() && bytes > bytes_max {
            break;
        }
        out.push(entry.clone());
    }
    out
}

impl Storage for EntryStore {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        if low < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(
            high <= self.last + 1,
            "entries up to {high} wanted, last is {}",
            self.last
        );
        if low >= self.cache_first {
            return Ok(self.cached(low, high, bytes_max));
        }
        if let Some(at) = self.fetched.iter().position(|entry| entry.index == low) {
            let to = self.fetched.len().min(at + (high - low) as usize);
            return Ok(limited(self.fetched[at..to].iter(), bytes_max));
        }
        if !context.can_async() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let mut wanted = self.wanted.borrow_mut();
        match wanted.iter_mut().find(|w| w.first.0 == low) {
            Some(same) => same.contexts.push(context),
            None => wanted.push(WantedEntries {
                first: Index(low),
                last: Index(high.min(self.cache_first) - 1),
                contexts: vec![context],
            }),
        }
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index + 1 < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.term_of(index)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot> {
        match &self.image {
            Some(image) if image.index.0 >= request_index && image.index.0 + 1 >= self.first => {
                let mut snapshot = Snapshot::default();
                snapshot.mut_metadata().index = image.index.0;
                snapshot.mut_metadata().term = image.term.0;
                snapshot
                    .mut_metadata()
                    .set_conf_state(self.image_conf.clone());
                snapshot.data = image.configuration.clone();
                Ok(snapshot)
            }
            _ => {
                self.image_wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        let mut entry = Entry::default();
        entry.index = index;
        entry.term = term;
        entry.data = Bytes::from(vec![index as u8; 100]);
        entry
    }

    fn store() -> EntryStore {
        EntryStore::new(
            HardState::default(),
            ConfState::default(),
            Index(5),
            Term(2),
            10 * 228,
            u64::MAX,
        )
    }

    #[test]
    fn terms_are_known_for_the_whole_retained_log() {
        let mut store = store();
        store.append(&[entry(6, 2), entry(7, 3), entry(8, 3), entry(9, 7)]);
        let terms: Vec<_> = (4..=10).map(|index| store.term_of(index)).collect();
        assert_eq!(
            terms,
            [None, Some(2), Some(2), Some(3), Some(3), Some(7), None]
        );
        store.append(&[entry(8, 8)]);
        assert_eq!(store.term_of(8), Some(8));
        assert_eq!(store.last_index().unwrap(), 8);
        store.compact(Index(8));
        assert_eq!(store.first_index().unwrap(), 6, "the cache still has them");
        store.cache_bytes_max = 0;
        store.shrink_cache(7);
        assert_eq!(store.term_of(7), Some(3));
        assert_eq!(store.term_of(6), None);
        assert_eq!(store.first_index().unwrap(), 8);
    }

    #[test]
    fn no_more_entries_trail_an_image_than_asked_for() {
        let mut store = store();
        store.cache_bytes_max = usize::MAX;
        store.trailing_entries_max = 3;
        store.append(&(6..26).map(|index| entry(index, 2)).collect::<Vec<_>>());
        store.compact(Index(20));
        assert_eq!(store.first_index().unwrap(), 17);
        assert_eq!(
            store
                .entries(17, 26, None, GetEntriesContext::empty(false))
                .unwrap()
                .len(),
            9
        );
        store.trailing_entries_max = 0;
        store.compact(Index(26));
        assert_eq!(
            (store.first_index().unwrap(), store.last_index().unwrap()),
            (26, 25)
        );
        assert_eq!(store.cache_bytes(), 0);
    }

    #[test]
    fn unapplied_entries_never_leave_memory() {
        let mut store = store();
        let entries: Vec<_> = (6..106).map(|index| entry(index, 2)).collect();
        store.append(&entries);
        store.shrink_cache(20);
        assert_eq!(
            store
                .entries(21, 106, None, GetEntriesContext::empty(false))
                .unwrap()
                .len(),
            85
        );
        assert!(
            store
                .entries(20, 21, None, GetEntriesContext::empty(false))
                .is_err()
        );
    }

    #[test]
    fn what_is_only_on_disk_is_asked_for_once_and_served_when_fetched() {
        let mut store = store();
        store.append(&(6..106).map(|index| entry(index, 2)).collect::<Vec<_>>());
        store.shrink_cache(50);
        for _ in 0..2 {
            let answer = store.entries(10, 106, Some(500), GetEntriesContext::empty(true));
            assert!(matches!(
                answer,
                Err(Error::Store(StorageError::LogTemporarilyUnavailable))
            ));
        }
        let wanted = store.take_wanted();
        assert_eq!(wanted.len(), 1);
        assert_eq!((wanted[0].first, wanted[0].last), (Index(10), Index(50)));
        store.put_fetched((10..20).map(|index| entry(index, 2)).collect());
        let got = store
            .entries(10, 106, Some(500), GetEntriesContext::empty(true))
            .unwrap();
        assert_eq!(
            got.iter().map(|e| e.index).collect::<Vec<_>>(),
            [10, 11, 12, 13, 14]
        );
    }

    #[test]
    fn a_size_limit_never_starves() {
        let mut store = store();
        store.append(&[entry(6, 2), entry(7, 2)]);
        assert_eq!(
            store
                .entries(6, 8, Some(0), GetEntriesContext::empty(false))
                .unwrap()
                .len(),
            1
        );
    }
}

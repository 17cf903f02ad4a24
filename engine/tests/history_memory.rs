//! Does a shard's history of changes take no more memory than it counts? Seen by the allocator, so
//! that the figure does not depend on the machine.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicIsize, Ordering},
};

use engine::{
    shard::History,
    state::{
        KvRow,
        schema::{Change, RowChange},
    },
};
use wire::{Index, KvRowRef, ShardId, Uuid};

/// Counts the bytes that are allocated and not freed.
struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is passed on unchanged; only a counter is kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HISTORY_BYTES: usize = 4 << 20;

/// Records changes that nothing else keeps alive, ten times more than the history holds.
fn fill(value_bytes: usize) {
    let value = vec![7; value_bytes];
    let mut scratch = Vec::with_capacity(value_bytes + 1024);
    let before = LIVE.load(Ordering::Relaxed);
    let mut history = History::new(Uuid([1; 16]), ShardId(0), Index(0), HISTORY_BYTES);
    let mut most = 0;
    for index in 1..=10 * HISTORY_BYTES as u64 / (value_bytes as u64 + 100) {
        let row = KvRowRef {
            key: b"service/instances/1",
            value: &value,
            flags: 0,
            create_index: Index(1),
            modify_index: Index(index),
            lock_index: 0,
            session: b"",
        };
        let new = KvRow::new(row, &mut scratch);
        let change = Change::Kvs(RowChange::Put { old: None, new });
        history.record(Index(index), &[change]);
        most = most.max(LIVE.load(Ordering::Relaxed) - before);
    }
    let (changes, counted) = (history.len(), history.bytes());
    println!("values of {value_bytes}: {changes} changes, {counted} bytes counted, {most} at most");
    assert!(counted <= HISTORY_BYTES && counted > HISTORY_BYTES / 2);
    // A queue that grows holds its old and its new room for a moment.
    let room = (changes * 3 * 48) as isize;
    assert!(most <= HISTORY_BYTES as isize + room + (64 << 10));
    drop(history);
    // The harness allocates a little beside this.
    let left = LIVE.load(Ordering::Relaxed) - before;
    assert!(left < 64 << 10, "{left} bytes left");
}

/// One test, since the counter is the process's.
#[test]
fn a_history_takes_what_it_counts_and_the_room_of_its_queue() {
    for value_bytes in [0, 256, 100_000] {
        fill(value_bytes);
    }
}

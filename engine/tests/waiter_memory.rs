//! What does a blocking query cost while it waits? Counted by the allocator, so that the figure
//! does not depend on the machine. (Its connection and its place among the askers come on top.)

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicIsize, Ordering},
};

use bytes::Bytes;
use engine::shard::{
    Ticket,
    watch::{Waiter, Watches},
};
use wire::{Index, Query, QueryBody, ReadMode, Wait};

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

const WAITERS: u64 = 100_000;
const WAITER_BYTES_MAX: isize = 1024;

fn park_all(name: &str, body: impl Fn(Bytes) -> QueryBody) {
    // A frame that a waiter may not keep alive.
    let frame = Bytes::from(vec![b'k'; 4096]);
    let before = LIVE.load(Ordering::Relaxed);
    let mut watches = Watches::default();
    for number in 0..WAITERS {
        let key = match name {
            "one key" => frame.slice(..32),
            _ => Bytes::from(format!("service/instances/{number:014}")),
        };
        let waiter = Waiter {
            ticket: Ticket(number),
            query: Query {
                mode: ReadMode::Default,
                min_index: Index(0),
                wait: Wait {
                    index: Index(1),
                    ms: 300_000,
                },
                body: body(key),
            },
            deadline_ns: number,
        };
        watches.park(waiter).expect("it can be watched");
    }
    let each = (LIVE.load(Ordering::Relaxed) - before) / WAITERS as isize;
    println!("{name}: {each} bytes for each waiter");
    assert!(each <= WAITER_BYTES_MAX, "{name}: {each} bytes each");
    for number in 0..WAITERS {
        watches.take(Ticket(number)).expect("it waits");
    }
    let left = LIVE.load(Ordering::Relaxed) - before;
    assert!(left < 64 << 10, "{left} bytes left when all have gone");
}

/// One test, since the counter is the process's.
#[test]
fn a_hundred_thousand_waiters_cost_at_most_a_kibibyte_each() {
    park_all("one key", |key| QueryBody::KvGet { key });
    park_all("keys", |key| QueryBody::KvGet { key });
    park_all("prefixes", |prefix| QueryBody::KvList {
        prefix,
        start_after: Bytes::new(),
        limit: 0,
    });
}

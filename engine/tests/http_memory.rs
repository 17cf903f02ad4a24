//! What does a connection cost, idle and under a long listing? Counted by the allocator, so that
//! the figure does not depend on the machine.

mod http_support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicIsize, Ordering},
};

use bytes::Bytes;
use engine::server::http::{ANSWER_PIECE_BYTES, BUFFER_BYTES_MAX};
use http_support::{Server, eventually, get};
use wire::{Index, KvRow};

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

fn live() -> isize {
    LIVE.load(Ordering::Relaxed)
}

/// One test, since the counter is the process's.
#[test]
fn connections_cost_what_is_promised() {
    let server = Server::start();
    server.put("/v1/kv/k", vec![b'x'; 256]);
    idle(&server, 256, 22 * 1024);
    idle(&server, 500_000, 22 * 1024 + 2 * BUFFER_BYTES_MAX as isize);
    listing(&server);
}

/// An idle connection costs at most 22 KiB: 8 KiB for each of hyper's two buffers, and its tasks.
/// After large values its read buffer may have grown to its bound, and nothing more is kept.
fn idle(server: &Server, value_bytes: usize, bound: isize) {
    const CONNECTIONS: usize = 200;
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.put("/v1/kv/k", vec![b'x'; value_bytes]).status, 200);
        assert_eq!(client.get("/v1/kv/k").status, 200);
        assert_eq!(client.get("/v1/kv/k?raw").status, 200);
    }
    let with = live();
    drop(clients);
    eventually("all are closed", || {
        server.metric("curia.http.connections") == 1.0
    });
    // The test's own client has a read buffer of 8 KiB for each.
    let each = (with - live()) / CONNECTIONS as isize - 8192;
    println!("an idle connection costs {each} bytes after values of {value_bytes} bytes");
    assert!(each <= bound, "{each}");
}

/// A listing that its client does not read costs a few pieces, not the listing.
fn listing(server: &Server) {
    const LISTINGS: isize = 8;
    {
        let mut state = server.state();
        state.batch_rows = 20;
        let value = Bytes::from(vec![b'x'; 3000]);
        for at in 0..2000 {
            let key = format!("list/{at:06}").into_bytes();
            let row = KvRow {
                key: key.clone().into(),
                value: value.clone(),
                flags: 0,
                create_index: Index(1),
                modify_index: Index(1),
                lock_index: 0,
                session: Bytes::new(),
            };
            state.rows.insert(key, row);
        }
    }
    let mut clients: Vec<_> = (0..LISTINGS).map(|_| server.client()).collect();
    let before = live();
    for client in &mut clients {
        client.send(&get("/v1/kv/list/?recurse"));
    }
    // Nobody reads: the streams stand still once the sockets are full.
    let mut read = 0;
    eventually("the streams stand still", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = server.state().batches_read;
        let still = now > 0 && now == read;
        read = now;
        still
    });
    // The fake store's own copy of the rows, without their shared value, is not the answer's.
    let store = 2000 * (size_of::<KvRow>() as isize);
    let each = (live() - before) / LISTINGS - store;
    println!("a listing that nobody reads costs {each} bytes");
    let bound = (2 * BUFFER_BYTES_MAX + 5 * ANSWER_PIECE_BYTES) as isize;
    assert!(each <= bound, "{each} > {bound}");
    for client in &mut clients {
        assert_eq!(client.read().json().as_array().unwrap().len(), 2000);
    }
}

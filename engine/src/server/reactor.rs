//! How does an executor wait, and for how long in which place?
//!
//! Two reactors share its thread. glommio runs the tasks, the timers and the channels; the
//! executor's own [`Ring`] has the log and the sockets. A *driver* task decides which of the two
//! sleeps:
//!
//! ```text
//!            ┌────────────── something is under way: let every task run ◄───────────┐
//!            ▼                                                                      │
//!   nothing left to run ── busy a moment ago? ─ yes ► sleep in the ring, ≤ LINGER ──┤ completions
//!                                 │                                                 │
//!                                 no (or nothing came) ► sleep in glommio ──────────┘ event, timer
//! ```
//! A sleep in the ring costs one system call, one in glommio about ten. What only glommio knows of
//! (timers, connects, the other executors' messages) is at most [`LINGER`] late while a busy
//! executor sleeps in the ring; messages of other executors ring a [`Bell`] instead.
//!
//! Invariant: the driver sleeps in the ring only after two rounds in which no task of this executor
//! touched a socket, the log or a shard; and never sleeps anywhere with submissions unsent.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use glommio::{
    io::BufferedFile,
    timer::{Timer, sleep},
};

use crate::io::{Interest, Readiness, Ring, event::Event};

/// How long a busy executor sleeps in its ring before it sleeps in glommio.
const LINGER: Duration = Duration::from_millis(1);

/// Rounds without a stir after which nothing is left to run. One would do, if tasks did not wake
/// tasks that touch nothing themselves.
const QUIET_ROUNDS: u32 = 2;

/// A timer's shortest time: it fires when glommio looks at its timers next.
const INSTANT: Duration = Duration::from_micros(1);

/// After a refusal of the kernel that should not be.
const RETRY: Duration = Duration::from_millis(10);

thread_local! {
    /// The ring of the executor that runs on this thread, by the executor's id.
    static CURRENT: RefCell<Option<(usize, Rc<Ring>)>> = const { RefCell::new(None) };
}

/// The ring of the executor that this runs on; made, with its driver, at the first call.
///
/// # Errors
/// When the kernel gives no ring.
pub fn ring() -> io::Result<Rc<Ring>> {
    let executor = glommio::executor().id();
    let known = CURRENT.with_borrow(|current| match current {
        Some((of, ring)) if *of == executor => Some(Rc::clone(ring)),
        _ => None,
    });
    match known {
        Some(ring) => Ok(ring),
        None => start(Bell::new()?),
    }
}

/// Starts this executor's ring and its driver, to be woken by `bell` too.
///
/// # Errors
/// When the kernel gives no ring.
pub fn start(bell: Arc<Bell>) -> io::Result<Rc<Ring>> {
    let ring = Ring::open()?;
    let executor = glommio::executor().id();
    CURRENT.set(Some((executor, Rc::clone(&ring))));
    glommio::spawn_local(listen(Rc::clone(&ring), ring.eventfd()?)).detach();
    glommio::spawn_local(hear(Rc::clone(&ring), Arc::clone(&bell))).detach();
    glommio::spawn_local(drive(Rc::clone(&ring), bell)).detach();
    Ok(ring)
}

/// What another executor rings after it has sent a message. glommio wakes an executor that sleeps
/// in it, and knows nothing of one that sleeps in its ring.
pub struct Bell {
    rung: AtomicU64,
    asleep: AtomicBool,
    event: Event,
}

impl Bell {
    /// A silent one.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            rung: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            event: Event::new()?,
        }))
    }

    /// Called behind a message.
    pub fn ring(&self) {
        // Either the count is seen before the executor falls asleep, or its sleep is seen here.
        self.rung.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.event.ring();
        }
    }

    fn heard(&self, seen: &mut u64) -> bool {
        let rung = self.rung.load(Ordering::SeqCst);
        std::mem::replace(seen, rung) != rung
    }
}

async fn drive(ring: Rc<Ring>, bell: Arc<Bell>) {
    let mut heard = 0;
    ring.quieten(true);
    loop {
        settle(&ring, &bell, &mut heard).await;
        bell.asleep.store(true, Ordering::SeqCst);
        let came = match bell.heard(&mut heard) {
            true => {
                glommio_round().await;
                Ok(1)
            }
            false => ring.wait(Some(LINGER)),
        };
        bell.asleep.store(false, Ordering::SeqCst);
        match came {
            Ok(0) => rest(&ring).await,
            Ok(_) => {}
            Err(error) => {
                log::error!(target: "agent.server", "io_uring refuses to be entered: {error}");
                sleep(RETRY).await;
            }
        }
    }
}

/// Lets tasks run until none has anything to do.
async fn settle(ring: &Ring, bell: &Bell, heard: &mut u64) {
    let mut quiet = 0;
    while quiet < QUIET_ROUNDS {
        if bell.heard(heard) {
            glommio_round().await;
            ring.stir();
        }
        next_round().await;
        // An error shows again, and is said, when the ring is waited for.
        let came = ring.poll().unwrap_or(0);
        let stirred = ring.take_stirred();
        quiet = if stirred || came > 0 { 0 } else { quiet + 1 };
    }
}

/// Sleeps in glommio until something stirs the ring.
async fn rest(ring: &Ring) {
    ring.submit();
    ring.rest();
    ring.quieten(false);
    // What completed while the event was silent announced itself to nobody.
    if ring.poll().unwrap_or(0) == 0 {
        poll_fn(|cx| {
            if ring.take_stirred() {
                return Poll::Ready(());
            }
            ring.park(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
    ring.quieten(true);
}

/// Ends when all tasks that can run now have run.
async fn next_round() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Ends when glommio has looked at its timers, channels and rings.
async fn glommio_round() {
    let mut timer = Timer::new(INSTANT);
    let mut waited = false;
    poll_fn(|cx| {
        // One that is over at its first look has waited for nothing.
        while Pin::new(&mut timer).poll(cx).is_ready() {
            if waited {
                return Poll::Ready(());
            }
            timer = Timer::new(INSTANT);
        }
        waited = true;
        Poll::Pending
    })
    .await;
}

/// Stirs the ring when its event rings.
async fn listen(ring: Rc<Ring>, signal: OwnedFd) {
    let signal = signal_file(signal);
    loop {
        match signal.read_at(0, 8).await {
            Ok(read) if read.len() == 8 => ring.stir(),
            other => {
                // Who stopped listening would hang the server.
                log::error!(target: "agent.server", "waiting for io_uring's event failed: {other:?}");
                sleep(RETRY).await;
                ring.stir();
            }
        }
    }
}

fn signal_file(fd: OwnedFd) -> BufferedFile {
    // SAFETY: the descriptor is an open eventfd, and its ownership passes to the file.
    unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) }
}

/// Silences the bell. That it rang has ended the sleep in the ring.
async fn hear(ring: Rc<Ring>, bell: Arc<Bell>) {
    let mut readiness = Readiness::new(ring, Interest::Read);
    loop {
        readiness.ready(bell.event.as_raw_fd()).await;
        bell.event.wait();
    }
}

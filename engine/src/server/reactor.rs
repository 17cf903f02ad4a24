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

/// Rounds after which what is queued is handed over although tasks still run. An event usually
/// takes four (a reader, a turn, what it answers, and the look whether that is all), and what is
/// queued then goes along with the sleep.
const ROUNDS_UNSENT: u32 = 8;

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
    let (mut quiet, mut rounds) = (0, 0);
    while quiet < QUIET_ROUNDS {
        rounds += 1;
        if rounds > ROUNDS_UNSENT {
            ring.submit();
        }
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

/// What a task awaits that has more to do: all others that can run now run first, and the sockets
/// are looked at. (glommio's own `yield_task_queue_now` lets no socket in, and its `sleep(0)` does
/// not wait at all.)
pub async fn let_others_run() {
    if let Ok(ring) = ring() {
        // Or the driver would take it that nothing is left to run.
        ring.stir();
    }
    next_round().await;
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
        bell.event.silence();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, os::unix::net::UnixStream};

    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    use glommio::{LocalExecutorBuilder, Placement};
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::server::{
        lanes::{Lanes, Parcel, mesh},
        stream::Stream,
    };

    fn on_executor<T: Send + 'static, F: Future<Output = T> + 'static>(
        run: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(run)
            .unwrap()
            .join()
            .unwrap()
    }

    fn streams() -> (Stream, Stream) {
        let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        (Stream::new(near).unwrap(), Stream::new(far).unwrap())
    }

    async fn echo(mut stream: Stream) {
        let mut buf = [0; 64];
        while let Ok(read) = stream.read(&mut buf).await {
            if read == 0 || stream.write_all(&buf[..read]).await.is_err() {
                return;
            }
        }
    }

    #[test]
    fn tasks_talk_through_streams_until_one_ends() {
        on_executor(|| async {
            let (mut near, far) = streams();
            let echo = glommio::spawn_local(echo(far));
            for round in 0..1000u32 {
                near.write_all(&round.to_ne_bytes()).await.unwrap();
                let mut back = [0; 4];
                near.read_exact(&mut back).await.unwrap();
                assert_eq!(back, round.to_ne_bytes());
            }
            drop(near);
            echo.await;
        });
    }

    /// A task that only works, and asks for others to run in between, kept the sockets waiting.
    #[test]
    fn a_task_with_much_to_do_lets_the_sockets_in() {
        on_executor(|| async {
            let (mut near, far) = streams();
            glommio::spawn_local(echo(far)).detach();
            let over = Rc::new(Cell::new(false));
            let worker = Rc::clone(&over);
            let worker = glommio::spawn_local(async move {
                // Ends only by the echo.
                while !worker.get() {
                    let_others_run().await;
                }
            });
            near.write_all(b"x").await.unwrap();
            near.read_exact(&mut [0]).await.unwrap();
            over.set(true);
            worker.await;
        });
    }

    /// More than a socket's buffer holds: the writer waits for the reader.
    #[test]
    fn a_writer_waits_for_room() {
        on_executor(|| async {
            let (mut near, mut far) = streams();
            let bytes: Vec<u8> = (0..8u32 << 20).map(|at| (at % 251) as u8).collect();
            let sent = bytes.clone();
            let writer = glommio::spawn_local(async move { near.write_all(&sent).await.unwrap() });
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            writer.await;
            assert!(received == bytes);
        });
    }

    /// The sleep in the ring must not keep glommio from its timers, however busy the sockets are.
    #[test]
    fn timers_fire_while_sockets_are_busy() {
        on_executor(|| async {
            let (mut near, far) = streams();
            glommio::spawn_local(echo(far)).detach();
            let over = Rc::new(Cell::new(false));
            let timer = Rc::clone(&over);
            glommio::spawn_local(async move {
                for _ in 0..5 {
                    sleep(Duration::from_millis(2)).await;
                }
                timer.set(true);
            })
            .detach();
            // Ends only by the timer.
            while !over.get() {
                near.write_all(b"x").await.unwrap();
                near.read_exact(&mut [0]).await.unwrap();
            }
        });
    }

    /// An executor that rests is woken by its sockets through the ring's event.
    #[test]
    fn a_resting_executor_hears_its_sockets() {
        let (near, far) = UnixStream::pair().unwrap();
        let echoing = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move { echo(Stream::new(far.into()).unwrap()).await })
            .unwrap();
        let mut near = near;
        near.set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        for round in 0..20u8 {
            // Longer than it lingers.
            std::thread::sleep(LINGER * 3);
            std::io::Write::write_all(&mut near, &[round]).unwrap();
            let mut back = [0];
            std::io::Read::read_exact(&mut near, &mut back).unwrap();
            assert_eq!(back, [round]);
        }
        drop(near);
        echoing.join().unwrap();
    }

    #[test]
    fn a_bell_is_heard_once_and_ends_a_sleep() {
        let bell = Bell::new().unwrap();
        let mut seen = 0;
        assert!(!bell.heard(&mut seen));
        bell.ring();
        bell.ring();
        assert!(bell.heard(&mut seen) && !bell.heard(&mut seen));
        bell.asleep.store(true, Ordering::SeqCst);
        bell.ring();
        // Would block if it had not been rung; the two before found nobody asleep.
        bell.event.wait();
        assert!(bell.heard(&mut seen));
    }

    /// Messages between executors arrive although glommio does not know where they sleep.
    #[test]
    fn executors_answer_each_other_while_busy_and_at_rest() {
        let mut ends = mesh(2).unwrap();
        let (second, first) = (ends.pop().unwrap(), ends.pop().unwrap());
        let side = |ends: crate::server::lanes::Ends, begins: bool| {
            LocalExecutorBuilder::new(Placement::Unbound)
                .spawn(move || async move {
                    start(ends.bell()).unwrap();
                    let (lanes, inbound) = Lanes::connect(ends).await;
                    let to = 1 - lanes.index();
                    for round in 0..500 {
                        if begins {
                            if round % 100 == 0 {
                                sleep(LINGER * 3).await;
                            }
                            assert!(lanes.send(to, Parcel::Refuse(None)).await);
                        }
                        inbound[0].recv().await.unwrap();
                        if !begins {
                            assert!(lanes.send(to, Parcel::Refuse(None)).await);
                        }
                    }
                })
                .unwrap()
        };
        let (first, second) = (side(first, true), side(second, false));
        first.join().unwrap();
        second.join().unwrap();
    }
}

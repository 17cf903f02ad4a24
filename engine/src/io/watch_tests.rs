//! Watches on real sockets: readiness, its end, and the kernel's hold on what is watched.

use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
    time::Duration,
};

use super::*;
use crate::io::ring::SUBMISSIONS;

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn counter() -> (Arc<Count>, Waker) {
    let count = Arc::<Count>::default();
    (Arc::clone(&count), count.into())
}

#[test]
fn a_watch_fires_once_and_wakes_whoever_asked_last() {
    let ring = Ring::open().unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    let mut readiness = Readiness::new(Rc::clone(&ring), Interest::Read);
    let ((first, first_waker), (last, last_waker)) = (counter(), counter());
    let fd = far.as_raw_fd();
    for waker in [&first_waker, &last_waker] {
        let polled = readiness.poll(fd, &mut Context::from_waker(waker));
        assert!(polled.is_pending());
    }
    assert_eq!(ring.wait(Some(Duration::from_millis(1))).unwrap(), 0);
    assert!(readiness.is_armed());
    near.write_all(b"x").unwrap();
    assert_eq!(ring.wait(PATIENCE).unwrap(), 1);
    assert_eq!((first.get(), last.get()), (0, 1));
    assert!(!readiness.is_armed());
    let cx = &mut Context::from_waker(&last_waker);
    assert!(readiness.poll(fd, cx).is_ready());
    // The next question arms it anew; there still is something to read.
    assert!(readiness.poll(fd, cx).is_pending());
    assert_eq!(ring.wait(PATIENCE).unwrap(), 1);
    assert!(readiness.poll(fd, cx).is_ready());
}

#[test]
fn the_end_of_a_connection_is_readiness() {
    let ring = Ring::open().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let mut readiness = Readiness::new(Rc::clone(&ring), Interest::Read);
    let (count, waker) = counter();
    let polled = readiness.poll(far.as_raw_fd(), &mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(near);
    assert_eq!(ring.wait(PATIENCE).unwrap(), 1);
    assert_eq!(count.get(), 1);
}

/// The kernel keeps a watched file open: a connection that was dropped while somebody waited for
/// it would never have ended for its peer.
#[test]
fn a_dropped_watch_lets_the_connection_end() {
    for handed_over in [false, true] {
        let ring = Ring::open().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut readiness = Readiness::new(Rc::clone(&ring), Interest::Read);
        let (count, waker) = counter();
        let polled = readiness.poll(far.as_raw_fd(), &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        if handed_over {
            ring.submit();
        }
        drop((readiness, far));
        // The watch and its cancellation are both answered.
        let mut answers = 0;
        while answers < 2 {
            answers += ring.wait(PATIENCE).unwrap();
        }
        near.set_read_timeout(PATIENCE).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap(), 0, "the end");
        assert_eq!(count.get(), 0, "nobody is woken for it");
    }
}

#[test]
fn a_slot_is_used_again_only_after_the_kernel_let_go_of_it() {
    let ring = Ring::open().unwrap();
    let (_near, far) = UnixStream::pair().unwrap();
    let (_, waker) = counter();
    let cx = &mut Context::from_waker(&waker);
    let watch = |cx: &mut Context<'_>| {
        let mut readiness = Readiness::new(Rc::clone(&ring), Interest::Read);
        assert!(readiness.poll(far.as_raw_fd(), cx).is_pending());
        readiness
    };
    let first = watch(cx);
    let slot = first.slot;
    drop(first);
    let second = watch(cx);
    assert_ne!(second.slot, slot);
    let mut answers = 0;
    while answers < 2 {
        answers += ring.wait(PATIENCE).unwrap();
    }
    assert_eq!(watch(cx).slot, slot);
}

/// Reaches `SUBMISSIONS`: what does not fit goes to the kernel at once.
#[test]
fn more_watches_than_submissions() {
    let ring = Ring::open().unwrap();
    let (count, waker) = counter();
    let number = SUBMISSIONS as usize * 2 + 3;
    let mut watches: Vec<_> = (0..number)
        .map(|_| {
            let (near, far) = UnixStream::pair().unwrap();
            let readiness = Readiness::new(Rc::clone(&ring), Interest::Write);
            (near, far, readiness)
        })
        .collect();
    for (_, far, readiness) in &mut watches {
        let polled = readiness.poll(far.as_raw_fd(), &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    let mut answers = 0;
    while answers < number {
        answers += ring.wait(PATIENCE).unwrap();
    }
    assert_eq!(count.get(), number);
}

#[test]
fn the_event_announces_what_nobody_looks_for_and_is_silent_otherwise() {
    let ring = Ring::open().unwrap();
    let mut event = std::fs::File::from(ring.eventfd().unwrap());
    let is_rung = |event: &std::fs::File| {
        let mut poll = libc::pollfd {
            fd: event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, alive across the call.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    };
    let (mut near, far) = UnixStream::pair().unwrap();
    let (_, waker) = counter();
    for quiet in [true, false] {
        ring.quieten(quiet);
        let mut readiness = Readiness::new(Rc::clone(&ring), Interest::Read);
        let polled = readiness.poll(far.as_raw_fd(), &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        ring.submit();
        near.write_all(b"x").unwrap();
        assert_eq!(is_rung(&event), !quiet);
        assert_eq!(ring.poll().unwrap(), 1);
        (&far).read_exact(&mut [0]).unwrap();
    }
    event.read_exact(&mut [0; 8]).unwrap();
}

/// Waking a task may be what drops it, and its watches with it.
#[test]
fn a_waker_may_drop_watches() {
    struct Owner(std::sync::Mutex<Option<SendReadiness>>);
    struct SendReadiness {
        _kept: Readiness,
    }
    // SAFETY: never leaves this thread; `Wake` wants it all the same.
    unsafe impl Send for SendReadiness {}
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    let ring = Ring::open().unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    let mut other = Readiness::new(Rc::clone(&ring), Interest::Read);
    let (_, waker) = counter();
    let (_silent, silent_far) = UnixStream::pair().unwrap();
    let polled = other.poll(silent_far.as_raw_fd(), &mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let owner = Arc::new(Owner(Some(SendReadiness { _kept: other }).into()));
    let mut readiness = Readiness::new(Rc::clone(&ring), Interest::Read);
    let waker = Waker::from(Arc::clone(&owner));
    let polled = readiness.poll(far.as_raw_fd(), &mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    near.write_all(b"x").unwrap();
    assert_eq!(ring.wait(PATIENCE).unwrap(), 1);
    assert!(owner.0.lock().unwrap().is_none());
}

//! How does a server learn that it is to stop?
//!
//! Signals are blocked in every thread before any is started, because one that arrives while an
//! executor sleeps can panic it. One plain thread waits for them with `sigwait` and adds to an
//! eventfd, which an executor awaits like any file.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

/// The signals that are taken.
const TAKEN: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// The process's signals, as a file descriptor that becomes readable.
///
/// Made once, on the main thread, before any other thread is started: threads inherit what is
/// blocked. Reading 8 bytes from the descriptor takes the signals so far that end a server;
/// [`SignalFd::last`] says which came last. SIGHUP, which has it read its configuration again, has a
/// descriptor of its own.
#[derive(Debug)]
pub struct SignalFd {
    eventfd: OwnedFd,
    hangups: OwnedFd,
    last: Arc<AtomicI32>,
}

impl SignalFd {
    /// Blocks SIGINT, SIGTERM and SIGHUP in this thread and those it starts, and takes them from
    /// now on.
    pub fn new() -> io::Result<Self> {
        let set = signal_set();
        // SAFETY: `set` is initialised; a null pointer asks for no previous mask.
        let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
        if blocked != 0 {
            return Err(io::Error::from_raw_os_error(blocked));
        }
        let (eventfd, hangups) = (eventfd(0)?, eventfd(libc::EFD_NONBLOCK)?);
        let last = Arc::new(AtomicI32::new(0));
        let (writer, noted) = (eventfd.try_clone()?, last.clone());
        let hangup_writer = hangups.try_clone()?;
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || wait(&writer, &hangup_writer, &noted))?;
        Ok(Self {
            eventfd,
            hangups,
            last,
        })
    }

    /// A descriptor of its own for one reader: 8 bytes, blocking until a signal has come. For
    /// glommio: `BufferedFile::from_raw_fd(fd.into_raw_fd())` and `read_at(0, 8)`.
    pub fn reader(&self) -> io::Result<OwnedFd> {
        self.eventfd.try_clone()
    }

    /// A descriptor of its own for one reader of SIGHUPs: readable, 8 bytes, when one has come;
    /// never blocks.
    pub fn hangups(&self) -> io::Result<OwnedFd> {
        self.hangups.try_clone()
    }

    /// The last signal that ends a server: `libc::SIGINT` or `SIGTERM`; `None` before the first.
    pub fn last(&self) -> Option<i32> {
        Some(self.last.load(Ordering::Acquire)).filter(|signal| *signal != 0)
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

fn signal_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set; the signals are valid ones.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in TAKEN {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

fn eventfd(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | flags) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` was just opened and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn wait(eventfd: &OwnedFd, hangups: &OwnedFd, last: &AtomicI32) {
    let set = signal_set();
    loop {
        let mut signal = 0;
        // SAFETY: both point to valid values of their types.
        if unsafe { libc::sigwait(&set, &mut signal) } != 0 {
            continue;
        }
        let told = match signal {
            libc::SIGHUP => hangups,
            signal => {
                last.store(signal, Ordering::Release);
                eventfd
            }
        };
        let one = 1u64.to_ne_bytes();
        // SAFETY: 8 bytes from a valid buffer, as an eventfd takes them.
        unsafe { libc::write(told.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

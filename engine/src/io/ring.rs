//! What does an executor's thread sleep in while it is busy?
//!
//! One io_uring per executor, made and used on its thread (`IORING_SETUP_SINGLE_ISSUER |
//! DEFER_TASKRUN`): the log's writes complete in it, and the sockets of frames and of HTTP are
//! watched by it. One `io_uring_enter` submits all that has gathered and sleeps until something
//! happens; glommio's own reactor needs about ten for the same, which on a replicated commit costs
//! more than the disk does. Whoever drives the ring (`server::reactor`) sleeps in glommio only once
//! nothing has happened for a while; an [`Event`] rings then.
//!
//! Invariants: a completion reaches whoever submitted it, told apart by the upper bits of its user
//! data; nothing is ever awaited here without the queued submissions having been handed over.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    sync::atomic::{Ordering, fence},
    task::{Context, Poll, Waker},
    time::Duration,
};

use io_uring::{IoUring, Submitter, squeue, types};

use super::{event::Event, watch::Watches};

/// Submissions gathered between two calls; more cause a call of their own.
pub(super) const SUBMISSIONS: u32 = 256;
/// Completions that wait to be looked at; the kernel keeps what does not fit.
const COMPLETIONS: u32 = 2048;

/// Whose completion it is: the upper two bits of its user data.
const OWNER_SHIFT: u32 = 62;

/// Who submits to the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The log's reads and writes.
    Log = 0,
    /// A watched descriptor.
    Watch = 1,
    /// Nobody wants to know.
    Nobody = 2,
}

impl Owner {
    /// User data for an operation of this owner.
    pub(super) fn tag(self, id: usize) -> u64 {
        (self as u64) << OWNER_SHIFT | id as u64
    }

    fn of(user_data: u64) -> (Self, usize) {
        let id = (user_data & ((1 << OWNER_SHIFT) - 1)) as usize;
        match user_data >> OWNER_SHIFT {
            0 => (Self::Log, id),
            1 => (Self::Watch, id),
            _ => (Self::Nobody, id),
        }
    }
}

/// An executor's ring. Used on the thread that made it, and dropped there.
pub struct Ring {
    uring: RefCell<IoUring>,
    event: Event,
    /// The kernel has no single-issuer rings with deferred work (before 6.1).
    plain: bool,
    pub(super) watches: RefCell<Watches>,
    /// Completions of the log's operations, by id.
    log_done: RefCell<Vec<(usize, i32)>>,
    log_waker: RefCell<Option<Waker>>,
    /// Scratch for [`Self::route`].
    wakers: Cell<Vec<Waker>>,
    /// Whoever drives the ring and found nothing to do.
    driver: RefCell<Option<Waker>>,
    /// Whoever has something to do when nothing else is.
    idler: RefCell<Option<Waker>>,
    rests: Cell<u64>,
    stirred: Cell<bool>,
}

impl Ring {
    /// A ring of this thread.
    ///
    /// # Errors
    /// When the kernel refuses: io_uring may be forbidden, or memory short.
    pub fn open() -> io::Result<Rc<Self>> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS);
        let (uring, plain) = match builder.build(SUBMISSIONS) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (IoUring::new(SUBMISSIONS)?, true)
            }
            uring => (uring?, false),
        };
        let event = Event::new()?;
        uring.submitter().register_eventfd(event.as_raw_fd())?;
        Ok(Rc::new(Self {
            uring: RefCell::new(uring),
            event,
            plain,
            watches: RefCell::default(),
            log_done: RefCell::default(),
            log_waker: RefCell::default(),
            wakers: Cell::default(),
            driver: RefCell::default(),
            idler: RefCell::default(),
            rests: Cell::new(0),
            stirred: Cell::new(false),
        }))
    }

    /// Whether the kernel lacks single-issuer rings with deferred work (Linux 6.1).
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// A descriptor that becomes readable (8 bytes) when something has completed, unless
    /// [quiet](Self::quieten).
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn eventfd(&self) -> io::Result<OwnedFd> {
        Ok(self.event.share()?.into_fd())
    }

    /// Whether the event stays silent: it does while the ring is looked at anyway.
    pub fn quieten(&self, quiet: bool) {
        let mut uring = self.uring.borrow_mut();
        let completions = uring.completion();
        if quiet {
            completions.disable_eventfd();
        } else {
            completions.enable_eventfd();
        }
        // The kernel says first that there is work and then looks whether it may ring; we allow it
        // to ring and then look for work. One of the two must see the other.
        fence(Ordering::SeqCst);
    }

    /// Runs registrations of files and buffers.
    pub(super) fn with_submitter<T>(&self, act: impl FnOnce(&Submitter<'_>) -> T) -> T {
        act(&self.uring.borrow().submitter())
    }

    /// Queues an operation, to be handed over with the next [`submit`](Self::submit) or
    /// [`wait`](Self::wait).
    ///
    /// # Errors
    /// When the queue is full and the kernel takes nothing.
    ///
    /// # Safety
    /// What the entry refers to stays valid until its completion.
    pub(super) unsafe fn queue(&self, entry: &squeue::Entry) -> io::Result<()> {
        if self.uring.borrow_mut().submission().is_full() {
            self.submit();
        }
        // SAFETY: the caller's promise.
        let pushed = unsafe { self.uring.borrow_mut().submission().push(entry) };
        pushed.map_err(|_| io::Error::other("io_uring takes no submissions"))?;
        self.stir();
        Ok(())
    }

    /// Hands everything queued to the kernel, in one call. When the kernel refuses (no memory), it
    /// stays queued for the next call; if that never succeeds the log's oldest write grows old, and
    /// the server steps down.
    pub fn submit(&self) {
        let mut uring = self.uring.borrow_mut();
        if !uring.submission().is_empty()
            && let Err(error) = uring.submit()
            && error.kind() != io::ErrorKind::Interrupted
        {
            ::log::error!("io_uring refuses submissions: {error}");
        }
    }

    /// Takes what has completed, without waiting, and wakes whoever waits for it. Makes no system
    /// call when nothing has. Returns how many completions there were.
    ///
    /// # Errors
    /// When the kernel refuses to be entered.
    pub fn poll(&self) -> io::Result<usize> {
        let due = {
            let mut uring = self.uring.borrow_mut();
            let submission = uring.submission();
            // A ring without the flag shows its completions as they come.
            submission.taskrun() || submission.cq_overflow()
        };
        if due {
            self.enter(0, None)?;
        }
        Ok(self.route())
    }

    /// Hands over what is queued and sleeps until something completes or `timeout` has passed.
    /// Returns how many completions there were.
    ///
    /// # Errors
    /// When the kernel refuses to be entered.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<usize> {
        self.enter(1, timeout)?;
        Ok(self.route())
    }

    fn enter(&self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let span = timeout.map(types::Timespec::from);
        let mut args = types::SubmitArgs::new();
        if let Some(span) = &span {
            args = args.timespec(span);
        }
        match self
            .uring
            .borrow()
            .submitter()
            .submit_with_args(want, &args)
        {
            // Time is up; a signal; more completed than there is room for, which is taken next.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            entered => entered.map(|_| ()),
        }
    }

    /// Sorts the completions by owner.
    fn route(&self) -> usize {
        let mut count = 0;
        let mut log_done = false;
        let mut wakers = self.wakers.take();
        for completion in self.uring.borrow_mut().completion() {
            count += 1;
            match Owner::of(completion.user_data()) {
                (Owner::Log, id) => {
                    let result = completion.result();
                    self.log_done.borrow_mut().push((id, result));
                    log_done = true;
                }
                (Owner::Watch, id) => wakers.extend(self.watches.borrow_mut().fired(id)),
                (Owner::Nobody, _) => {}
            }
        }
        // Nothing is borrowed here any more: to wake a task that has ended may drop it, and with it
        // its watches.
        wakers.drain(..).for_each(Waker::wake);
        self.wakers.set(wakers);
        if log_done {
            self.wake_log();
        }
        count
    }

    /// The log's operations have answers.
    pub(super) fn wake_log(&self) {
        self.stir();
        let waker = self.log_waker.take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Takes the completions of the log's operations: id and result.
    pub(super) fn take_log_done(&self, into: &mut Vec<(usize, i32)>) {
        into.append(&mut self.log_done.borrow_mut());
    }

    /// Whether operations of the log have completed; if not, `waker` is woken when one has.
    pub(super) fn poll_log_done(&self, waker: &Waker) -> bool {
        let ready = !self.log_done.borrow().is_empty();
        if !ready {
            *self.log_waker.borrow_mut() = Some(waker.clone());
        }
        ready
    }

    /// Something of this executor is under way: whoever drives the ring looks again before it
    /// sleeps.
    pub fn stir(&self) {
        self.stirred.set(true);
        let driver = self.driver.take();
        driver.into_iter().for_each(Waker::wake);
    }

    /// Whether it was stirred since the last look.
    pub fn take_stirred(&self) -> bool {
        self.stirred.take()
    }

    /// Ready when the executor has come to rest since `rests` was last set; sets it.
    pub fn poll_rest(&self, rests: &mut u64, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(rests, self.rests.get()) != self.rests.get() {
            return Poll::Ready(());
        }
        *self.idler.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The driver found nothing to do for a while.
    pub fn rest(&self) {
        self.rests.set(self.rests.get() + 1);
        let idler = self.idler.take();
        idler.into_iter().for_each(Waker::wake);
    }

    /// The driver sleeps; it is woken with the next [`stir`](Self::stir).
    pub fn park(&self, driver: Waker) {
        *self.driver.borrow_mut() = Some(driver);
    }
}

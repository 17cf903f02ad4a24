//! When is a descriptor ready?
//!
//! [`Readiness`] is one direction of one descriptor on the executor's ring: a one-shot
//! `IORING_OP_POLL_ADD`, armed when somebody waits, and the waker of whoever does.
//!
//! Invariant: a watch that is dropped while it is armed is cancelled, since the kernel holds the
//! descriptor's file open for it; its slot is used again only after the kernel has let go of it.

use std::{
    os::fd::RawFd,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use io_uring::{opcode, types};

use super::ring::{Owner, Ring};

/// All watches of a ring.
#[derive(Default)]
pub(super) struct Watches {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

enum Slot {
    Free,
    Armed(Option<Waker>),
    Fired,
    /// Nobody waits any more; the kernel has not answered yet.
    Forgotten,
}

impl Watches {
    fn keep(&mut self, waker: Waker) -> usize {
        let slot = Slot::Armed(Some(waker));
        match self.free.pop() {
            Some(id) => {
                self.slots[id] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    fn release(&mut self, id: usize) {
        self.slots[id] = Slot::Free;
        self.free.push(id);
    }

    /// The kernel has answered: gives whom to wake.
    pub(super) fn fired(&mut self, id: usize) -> Option<Waker> {
        match std::mem::replace(&mut self.slots[id], Slot::Fired) {
            // An error also means that an attempt will tell.
            Slot::Armed(waker) => waker,
            Slot::Forgotten => {
                self.release(id);
                None
            }
            Slot::Free | Slot::Fired => unreachable!("a one-shot poll is answered once"),
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the end.
    Read,
    /// Room to write, or the end.
    Write,
}

impl Interest {
    fn flags(self) -> u32 {
        let flags = match self {
            Self::Read => libc::POLLIN | libc::POLLRDHUP,
            Self::Write => libc::POLLOUT,
        };
        flags as u32
    }
}

/// One direction of a descriptor, watched when asked to.
pub struct Readiness {
    ring: Rc<Ring>,
    interest: Interest,
    slot: Option<usize>,
}

impl Readiness {
    /// Nothing is watched yet.
    pub fn new(ring: Rc<Ring>, interest: Interest) -> Self {
        Self {
            ring,
            interest,
            slot: None,
        }
    }

    /// Whether the kernel is watching and has not answered: an attempt would be in vain.
    pub fn is_armed(&self) -> bool {
        self.slot.is_some_and(|id| {
            let watches = self.ring.watches.borrow();
            matches!(watches.slots[id], Slot::Armed(_))
        })
    }

    /// Ready when the descriptor has become ready since the watch was armed; arms it first if it
    /// is not. `Ready` is no promise: attempt, and ask again when it would block.
    pub fn poll(&mut self, fd: RawFd, cx: &mut Context<'_>) -> Poll<()> {
        let Some(id) = self.slot else {
            return self.arm(fd, cx);
        };
        let mut watches = self.ring.watches.borrow_mut();
        match &mut watches.slots[id] {
            Slot::Armed(waker) => {
                if waker
                    .as_ref()
                    .is_none_or(|known| !known.will_wake(cx.waker()))
                {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            _ => {
                watches.release(id);
                self.slot = None;
                Poll::Ready(())
            }
        }
    }

    /// Waits until `fd` is ready.
    pub async fn ready(&mut self, fd: RawFd) {
        std::future::poll_fn(|cx| self.poll(fd, cx)).await;
    }

    fn arm(&mut self, fd: RawFd, cx: &mut Context<'_>) -> Poll<()> {
        let id = self.ring.watches.borrow_mut().keep(cx.waker().clone());
        let entry = opcode::PollAdd::new(types::Fd(fd), self.interest.flags())
            .build()
            .user_data(Owner::Watch.tag(id));
        // SAFETY: the entry refers to no memory. A descriptor that is closed before the kernel
        // sees the entry is cancelled right behind it.
        if unsafe { self.ring.queue(&entry) }.is_err() {
            // The caller's attempt tells, and it asks again; better busy than deaf.
            self.ring.watches.borrow_mut().release(id);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.slot = Some(id);
        Poll::Pending
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        let Some(id) = self.slot.take() else { return };
        let mut watches = self.ring.watches.borrow_mut();
        if !matches!(watches.slots[id], Slot::Armed(_)) {
            return watches.release(id);
        }
        watches.slots[id] = Slot::Forgotten;
        drop(watches);
        let entry = opcode::PollRemove::new(Owner::Watch.tag(id))
            .build()
            .user_data(Owner::Nobody.tag(0));
        // SAFETY: the entry refers to no memory.
        if unsafe { self.ring.queue(&entry) }.is_err() {
            ::log::error!("io_uring takes no submissions: a closed connection lingers");
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

//! How does a completion wake a sleeping executor?
//!
//! Through an eventfd: the kernel rings it for the log's ring, the background lane for its own
//! answers, and the executor awaits one read of it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// An eventfd. Blocking, so that a ring can await it.
#[derive(Debug)]
pub struct Event {
    fd: OwnedFd,
}

impl Event {
    /// A new one, silent.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// Another handle of the same event.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn share(&self) -> io::Result<Self> {
        let fd = self.fd.try_clone()?;
        Ok(Self { fd })
    }

    /// Gives up the handle, to somebody who awaits it in a ring of their own and then closes it.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Rings: whoever waits wakes.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. It can fail only when 2^64 - 2 rings are unread.
        let _ = unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Silences it, if it was rung; never waits.
    pub fn silence(&self) {
        let mut count = [0u8; 8];
        let part = libc::iovec {
            iov_base: count.as_mut_ptr().cast(),
            iov_len: count.len(),
        };
        // SAFETY: one range of eight writable bytes. `EAGAIN` says that nobody rang.
        let _ = unsafe {
            libc::preadv2(
                self.fd.as_raw_fd(),
                &raw const part,
                1,
                -1,
                libc::RWF_NOWAIT,
            )
        };
    }

    /// Waits until it was rung, and silences it. Blocking.
    pub fn wait(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes. An interrupted wait is a spurious wake-up, which every
        // caller must stand anyway.
        let _ = unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for Event {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_rung(event: &Event) -> bool {
        let mut poll = libc::pollfd {
            fd: event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, alive across the call.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn it_is_silenced_without_waiting_whether_it_was_rung_or_not() {
        let event = Event::new().unwrap();
        event.silence();
        assert!(!is_rung(&event));
        event.ring();
        event.share().unwrap().ring();
        assert!(is_rung(&event));
        event.silence();
        assert!(!is_rung(&event));
    }
}

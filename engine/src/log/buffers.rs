//! Where do batch buffers come from?
//!
//! From those that came back: a ring registers a few with the kernel once
//! ([`give_buffers`](super::Log::give_buffers)) and they go round for ever. A batch that outgrows
//! them moves to a longer buffer, of which a few are kept too.
//!
//! Invariant: a registered buffer is never dropped while the log lives.

use crate::io::AlignedBuf;

/// Length of a buffer that is made when none is free, bytes.
pub const BUFFER_BYTES: usize = 128 * 1024;
/// How many unregistered buffers are kept.
const SPARE_MAX: usize = 4;

/// Free buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: Vec<AlignedBuf>,
}

impl Buffers {
    pub fn give(&mut self, buf: AlignedBuf) {
        let spare = self.free.iter().filter(|buf| buf.slot().is_none()).count();
        if buf.slot().is_some() || spare < SPARE_MAX {
            self.free.push(buf);
        }
    }

    /// A buffer of at least `bytes`; its contents are whatever they were. The shortest that
    /// will do, and a registered one before another.
    pub fn take(&mut self, bytes: usize) -> AlignedBuf {
        let fit = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, buf)| buf.len() >= bytes);
        let best = fit.min_by_key(|(_, buf)| (buf.len(), buf.slot().is_none()));
        match best.map(|(no, _)| no) {
            Some(no) => self.free.swap_remove(no),
            None => AlignedBuf::new(bytes.next_power_of_two().max(BUFFER_BYTES)),
        }
    }
}

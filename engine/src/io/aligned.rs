//! Where do bytes wait for direct I/O?
//!
//! `O_DIRECT` wants the address, the offset and the length of a transfer aligned; a `Vec<u8>`
//! promises only the length. [`AlignedBuf`] is a fixed-size, zero-initialised allocation at a
//! multiple of [`BLOCK_BYTES`]. It may carry a *slot*: the number under which a ring has
//! registered its memory, so that the kernel need not pin the pages anew for each write.
//!
//! Invariant: the memory never moves and lives as long as the value, so a kernel that holds the
//! address of a buffer that is kept alive holds a valid address.

use std::{
    alloc::{self, Layout},
    fmt,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice,
};

use super::BLOCK_BYTES;

/// A fixed-size byte buffer whose address and length are multiples of [`BLOCK_BYTES`].
pub struct AlignedBuf {
    start: NonNull<u8>,
    bytes: usize,
    slot: Option<u16>,
}

// SAFETY: the buffer owns its memory exclusively, like a `Box<[u8]>`.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A zeroed buffer of at least `bytes` bytes, rounded up to whole blocks (at least one).
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Self::layout(bytes);
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            alloc::handle_alloc_error(layout)
        };
        Self {
            start,
            bytes,
            slot: None,
        }
    }

    /// The same buffer, named by the number under which a ring has registered its memory.
    pub fn with_slot(mut self, slot: u16) -> Self {
        self.slot = Some(slot);
        self
    }

    /// The ring's number for this memory; `None` when it is not registered.
    pub fn slot(&self) -> Option<u16> {
        self.slot
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, BLOCK_BYTES).expect("a buffer is far below isize::MAX")
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with exactly this layout, and freed only here.
        unsafe { alloc::dealloc(self.start.as_ptr(), Self::layout(self.bytes)) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `bytes` initialised bytes begin at `start`, owned by `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuf")
            .field("bytes", &self.bytes)
            .field("slot", &self.slot)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_length_are_whole_blocks() {
        for bytes in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let mut buf = AlignedBuf::new(bytes);
            assert_eq!(buf.as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(buf.len() % BLOCK_BYTES, 0);
            assert!(buf.len() >= bytes.max(1));
            assert!(buf.iter().all(|byte| *byte == 0));
            buf.fill(7);
            assert!(buf.iter().all(|byte| *byte == 7));
        }
    }
}

//! What is the cheapest durable write?
//!
//! One `pwritev2` with `RWF_DSYNC` and `O_DIRECT` at the next offset of a file that was filled
//! with zeros and flushed before: neither its size nor its extents change, so the file system's
//! journal has no part in it. The file is used round and round.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Context, Error, Result};

const BLOCK_BYTES: usize = 4096;
/// Size of the pre-written file, at least; always room for [`WRITES_AT_ONCE_MAX`] writes.
const FILE_BYTES_MIN: usize = 64 << 20;
/// Most waiting writes that one system call makes durable.
pub const WRITES_AT_ONCE_MAX: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// A pre-written file and the buffer that is written to it.
pub struct Device {
    file: File,
    file_bytes: usize,
    write_bytes: usize,
    offset: usize,
    buffer: Vec<Block>,
}

impl Device {
    /// Creates and fills the file. Fails on a file system without direct I/O.
    pub fn create(path: &Path, write_bytes: usize) -> Result<Self> {
        if write_bytes == 0 || !write_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(Error::Usage(format!(
                "--payload must be a multiple of {BLOCK_BYTES}: direct I/O writes whole blocks"
            )));
        }
        let at_once = write_bytes * WRITES_AT_ONCE_MAX;
        let file_bytes = FILE_BYTES_MIN
            .next_multiple_of(write_bytes)
            .max(2 * at_once);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .map_err(|e| match e.raw_os_error() {
                Some(libc::EINVAL) => Error::Environment(format!(
                    "{}: this file system has no direct I/O; pass --data-dir on ext4 or xfs",
                    path.display()
                )),
                _ => Error::Io {
                    what: format!("create {}", path.display()),
                    source: e,
                },
            })?;
        let mut device = Self {
            file,
            file_bytes,
            write_bytes,
            offset: 0,
            buffer: vec![Block([0; BLOCK_BYTES]); (1 << 20) / BLOCK_BYTES],
        };
        device
            .fill()
            .context(|| format!("fill {} with zeros", path.display()))?;
        device.buffer = vec![Block([0xc5; BLOCK_BYTES]); at_once / BLOCK_BYTES];
        Ok(device)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.file_bytes {
            let n = (self.file_bytes - at).min(1 << 20);
            self.pwrite(n, at, 0)?;
            at += n;
        }
        self.file.sync_all()
    }

    /// Makes `writes` (at most [`WRITES_AT_ONCE_MAX`]) payloads durable with one system call.
    pub fn write(&mut self, writes: usize) -> Result<()> {
        let bytes = self.write_bytes * writes;
        if self.offset + bytes > self.file_bytes {
            self.offset = 0;
        }
        self.pwrite(bytes, self.offset, libc::RWF_DSYNC)
            .context(|| "floor: durable write".into())?;
        self.offset += bytes;
        Ok(())
    }

    fn pwrite(&self, bytes: usize, offset: usize, flags: i32) -> io::Result<()> {
        assert!(bytes <= self.buffer.len() * BLOCK_BYTES);
        let iov = libc::iovec {
            iov_base: self.buffer.as_ptr() as *mut libc::c_void,
            iov_len: bytes,
        };
        // SAFETY: the iovec points at `bytes` initialised bytes of `self.buffer`, which the
        // kernel only reads, and which outlive the blocking call.
        let n = unsafe { libc::pwritev2(self.file.as_raw_fd(), &iov, 1, offset as i64, flags) };
        match n {
            -1 => Err(io::Error::last_os_error()),
            n if n as usize == bytes => Ok(()),
            n => Err(io::Error::other(format!("wrote {n} of {bytes} bytes"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scratch directory where the build lies: on a disk, where /tmp may be memory.
    fn on_disk() -> tempfile::TempDir {
        tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
    }

    #[test]
    fn writes_wrap_round_and_never_grow_the_file() {
        let dir = on_disk();
        let path = dir.path().join("f");
        let mut device = Device::create(&path, 1 << 20).unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        for _ in 0..9 {
            device.write(WRITES_AT_ONCE_MAX).unwrap();
        }
        assert!(device.offset <= device.file_bytes);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    }

    #[test]
    fn a_payload_that_is_not_whole_blocks_is_refused() {
        let dir = on_disk();
        for bytes in [0, 100, 4097] {
            let text = Device::create(&dir.path().join("f"), bytes)
                .err()
                .unwrap()
                .to_string();
            assert!(text.contains("--payload"), "{text}");
        }
    }
}

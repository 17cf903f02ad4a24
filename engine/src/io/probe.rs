//! Which durable writes can this filesystem do?
//!
//! The fast way is one request per batch: a direct write that is durable when it completes
//! (`O_DIRECT` and `RWF_DSYNC`). Not every filesystem has both, and a log write must never be
//! tried twice, so a scratch file answers the question before the first one.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use super::{AlignedBuf, BLOCK_BYTES};

const SCRATCH: &str = "probe.tmp";

/// How log writes are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WritePath {
    /// Past the page cache; otherwise buffered.
    pub direct: bool,
    /// Durable when the write completes; otherwise a flush follows each write.
    pub dsync: bool,
}

impl WritePath {
    /// What the fast way would need and the filesystem lacks.
    pub fn missing(self) -> Option<&'static str> {
        match (self.direct, self.dsync) {
            (true, true) => None,
            (false, true) => Some("direct I/O (O_DIRECT)"),
            (true, false) => Some("durable writes (RWF_DSYNC)"),
            (false, false) => Some("direct I/O (O_DIRECT) and durable writes (RWF_DSYNC)"),
        }
    }
}

/// Tries durable writes in the directory.
///
/// # Errors
/// When not even a plain file can be written there.
pub fn probe(dir: &Path) -> io::Result<WritePath> {
    let path = dir.join(SCRATCH);
    let tried = try_direct(&path).and_then(|direct| {
        let file = match direct {
            Some(file) => (file, true),
            None => (options().open(&path)?, false),
        };
        let dsync = try_dsync(&file.0)?;
        Ok(WritePath {
            direct: file.1,
            dsync,
        })
    });
    let tried = match tried {
        Err(error) if is_full(&error) => Ok(WritePath {
            direct: true,
            dsync: true,
        }),
        tried => tried,
    };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => tried,
    }
}

/// A full disk says nothing about what it can do, and a server must start on one.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options
}

fn try_direct(path: &Path) -> io::Result<Option<File>> {
    match options().custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

fn try_dsync(file: &File) -> io::Result<bool> {
    let block = AlignedBuf::new(BLOCK_BYTES);
    let part = libc::iovec {
        iov_base: block.as_ptr().cast_mut().cast(),
        iov_len: block.len(),
    };
    // SAFETY: one vector of readable bytes, alive across the call; the descriptor is open.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), &part, 1, 0, libc::RWF_DSYNC) };
    if written >= 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS) => Ok(false),
        _ if is_full(&error) => Ok(true),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scratch_file_goes_and_the_answer_is_consistent() {
        let place = tempfile::tempdir().unwrap();
        let path = probe(place.path()).unwrap();
        assert_eq!(path, probe(place.path()).unwrap());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        assert!(probe(&place.path().join("none")).is_err());
    }
}

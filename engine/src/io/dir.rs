//! A real directory as a [`Disk`].
//!
//! Plain blocking file operations: for recovery, offline tools and the background lane, never on
//! an executor that serves. Files are opened for each call: these paths move megabytes at a time.
//!
//! Whole aligned blocks, which is how segments are formatted, are written past the page cache: a
//! cached segment would have to be evicted page by page under the log's direct writes, and
//! flushing 64 MiB at once would hold up a commit. Reads go through the cache, for its readahead
//! (three times as fast for a recovery; the kernel keeps both views coherent).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use super::{BLOCK_BYTES, Disk};

/// A directory on a real file system.
#[derive(Clone, Debug)]
pub struct Dir {
    path: PathBuf,
}

impl Dir {
    /// An existing directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !fs::metadata(path)?.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "not a directory",
            ));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where a file of this name lies.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn writable(&self, name: &str, direct: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        if direct {
            options.custom_flags(libc::O_DIRECT);
        }
        options.open(self.path_of(name))
    }
}

impl Disk for Dir {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                files.push((name, meta.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        File::open(self.path_of(name))?.read_exact_at(buf, offset)
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if is_aligned(offset, bytes) {
            match self.writable(name, true) {
                Ok(file) => return file.write_all_at(bytes, offset),
                // This filesystem has no direct I/O.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        self.writable(name, false)?.write_all_at(bytes, offset)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path_of(name))?;
        file.sync_all()
    }

    fn drop_cached(&self, name: &str) -> io::Result<()> {
        let file = File::open(self.path_of(name))?;
        // SAFETY: a descriptor that `file` owns, and no pointers.
        let code =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        match code {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path_of(from), self.path_of(to))?;
        self.sync_dir()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path_of(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_dir(),
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn is_aligned(offset: u64, bytes: &[u8]) -> bool {
    let whole = |number: usize| number.is_multiple_of(BLOCK_BYTES);
    !bytes.is_empty()
        && whole(offset as usize)
        && whole(bytes.len())
        && whole(bytes.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_directory_keeps_the_promises_of_a_disk() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open(place.path()).unwrap();
        dir.write_at("x", 4090, b"across").unwrap();
        dir.write_at("x", 0, b"begin").unwrap();
        dir.sync("x").unwrap();
        let mut back = [0; 6];
        dir.read_at("x", 4090, &mut back).unwrap();
        assert_eq!(&back, b"across");
        assert_eq!(
            dir.read_at("x", 4091, &mut back).unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
        assert_eq!(
            dir.read_at("none", 0, &mut back).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        dir.write_at("y", 0, b"other").unwrap();
        let mut block = crate::io::AlignedBuf::new(BLOCK_BYTES);
        block.fill(7);
        dir.write_at("x", 0, &block).unwrap();
        dir.read_at("x", 4090, &mut back).unwrap();
        assert_eq!(&back, &[7, 7, 7, 7, 7, 7], "both views are one");
        dir.write_at("x", 4090, b"across").unwrap();
        dir.sync("x").unwrap();
        dir.drop_cached("x").unwrap();
        dir.read_at("x", 4090, &mut back).unwrap();
        assert_eq!(&back, b"across", "what is on the device is not dropped");
        assert!(dir.drop_cached("none").is_err());
        dir.rename("x", "y").unwrap();
        assert_eq!(dir.list().unwrap(), [("y".to_owned(), 4096)]);
        assert_eq!(
            (dir.length("x").unwrap(), dir.length("y").unwrap()),
            (None, Some(4096))
        );
        dir.remove("y").unwrap();
        dir.remove("y").unwrap();
        assert_eq!(dir.sync("y").unwrap_err().kind(), ErrorKind::NotFound);
        dir.sync_dir().unwrap();
        assert_eq!(dir.list().unwrap(), []);
        assert!(Dir::open(&place.path().join("none")).is_err());
        fs::write(place.path().join("file"), b"x").unwrap();
        assert!(Dir::open(&place.path().join("file")).is_err());
    }
}

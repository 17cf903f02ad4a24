//! A real directory as a [`Disk`].
//!
//! Plain blocking file operations: for recovery, offline tools and the background lane, never on
//! an executor that serves. Files are opened for each call: these paths move megabytes at a time.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::Disk;

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

    fn writable(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path_of(name))
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
        self.writable(name)?.write_all_at(bytes, offset)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.writable(name)?.sync_all()
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
        dir.rename("x", "y").unwrap();
        assert_eq!(dir.list().unwrap(), [("y".to_owned(), 4096)]);
        assert_eq!(
            (dir.length("x").unwrap(), dir.length("y").unwrap()),
            (None, Some(4096))
        );
        dir.remove("y").unwrap();
        dir.remove("y").unwrap();
        dir.sync_dir().unwrap();
        assert_eq!(dir.list().unwrap(), []);
        assert!(Dir::open(&place.path().join("none")).is_err());
        fs::write(place.path().join("file"), b"x").unwrap();
        assert!(Dir::open(&place.path().join("file")).is_err());
    }
}

//! File work that may take long: preparing segments, and images.
//!
//! One plain thread does it in order, so that no executor ever waits for a file system. Requests
//! go in by a channel, answers come back by another; an eventfd says that there are some.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use bytes::Bytes;

use super::{Dir, Disk, FileDone, FileOp, LogDone, LogOp, prepare_segment};

enum Work {
    Log(LogOp),
    File(FileOp),
}

/// An answer of the lane.
#[derive(Debug)]
pub enum BackgroundDone {
    /// To a [`LogOp::Prepare`] or [`LogOp::Remove`].
    Log(LogDone),
    /// To a [`FileOp`].
    File(FileDone),
}

/// The background thread of one executor. It ends when the lane is dropped.
#[derive(Debug)]
pub struct BackgroundLane {
    requests: Sender<Work>,
    answers: Receiver<BackgroundDone>,
    signal: OwnedFd,
}

impl BackgroundLane {
    /// Starts the thread: segments lie in `log`, images in `images`.
    pub fn start(log: &Path, images: &Path) -> io::Result<Self> {
        // SAFETY: no pointers are passed.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just opened and has no other owner.
        let signal = unsafe { OwnedFd::from_raw_fd(raw) };
        let (requests, inbox) = channel();
        let (outbox, answers) = channel();
        let worker = Worker { log: Dir::open(log)?, images: images.to_owned(), signal: signal.try_clone()? };
        thread::Builder::new().name("curia-files".to_owned()).spawn(move || worker.run(&inbox, &outbox))?;
        Ok(Self { requests, answers, signal })
    }

    /// Asks for a segment to be prepared or removed.
    pub fn log(&self, op: LogOp) {
        // The thread lives as long as this lane does.
        let _ = self.requests.send(Work::Log(op));
    }

    /// Asks for a file operation.
    pub fn file(&self, op: FileOp) {
        let _ = self.requests.send(Work::File(op));
    }

    /// A descriptor that becomes readable (8 bytes) when there are answers.
    pub fn eventfd(&self) -> io::Result<OwnedFd> {
        self.signal.try_clone()
    }

    /// Takes the answers so far.
    pub fn reap(&self, done: &mut Vec<BackgroundDone>) {
        done.extend(self.answers.try_iter());
    }
}

struct Worker {
    log: Dir,
    images: PathBuf,
    signal: OwnedFd,
}

impl Worker {
    fn run(&self, inbox: &Receiver<Work>, outbox: &Sender<BackgroundDone>) {
        for work in inbox {
            let done = match work {
                Work::Log(op) => BackgroundDone::Log(self.segment(op)),
                Work::File(op) => BackgroundDone::File(self.image(op)),
            };
            if outbox.send(done).is_err() {
                return;
            }
            let one = 1u64.to_ne_bytes();
            // SAFETY: writes 8 bytes from a local to a descriptor that is owned here.
            unsafe { libc::write(self.signal.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    fn segment(&self, op: LogOp) -> LogDone {
        match op {
            LogOp::Prepare { segment, recycle, bytes, key, token } => {
                let result = prepare_segment(&self.log, segment, recycle, bytes, key);
                let formatted_bytes = *result.as_ref().unwrap_or(&0);
                LogDone { token, buf: None, result: result.map(|_| ()), formatted_bytes }
            }
            LogOp::Remove { segment, token } => {
                let result = self.log.remove(&segment.file_name());
                LogDone { token, buf: None, result, formatted_bytes: 0 }
            }
            LogOp::Write { token, .. } | LogOp::Read { token, .. } => {
                let result = Err(io::Error::other("an operation for the ring, not the background lane"));
                LogDone { token, buf: None, result, formatted_bytes: 0 }
            }
        }
    }

    fn image(&self, op: FileOp) -> FileDone {
        let none = |result: io::Result<()>| result.map(|()| Bytes::new());
        match op {
            FileOp::Write { name, offset, bytes, token } => {
                FileDone { token, result: none(self.write(&name, offset, &bytes)) }
            }
            FileOp::Publish { from, to, token } => FileDone { token, result: none(self.publish(&from, &to)) },
            FileOp::Read { name, offset, length, token } => {
                FileDone { token, result: self.read(&name, offset, length) }
            }
            FileOp::Remove { name, token } => FileDone { token, result: none(remove(&self.images, &name)) },
        }
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut open = OpenOptions::new();
        // The first piece begins the file anew: what an earlier attempt left must not stay behind it.
        open.write(true).create(true).truncate(offset == 0);
        let file = open.open(self.images.join(name))?;
        file.write_all_at(bytes, offset)
    }

    fn publish(&self, from: &str, to: &str) -> io::Result<()> {
        let from = self.images.join(from);
        OpenOptions::new().write(true).open(&from)?.sync_all()?;
        fs::rename(&from, self.images.join(to))?;
        File::open(&self.images)?.sync_all()
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = File::open(self.images.join(name))?;
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(bytes.into())
    }
}

fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(dir)?.sync_all(),
    }
}

//! File work that may take long: preparing segments, and images.
//!
//! One plain thread does it in order, so that no executor ever waits for a file system. Requests
//! go in by a channel, answers come back by another; an eventfd says that there are some.
//!
//! Invariant: answers come in the order of the requests, one each, also for what was asked just
//! before the lane is dropped.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{self, JoinHandle},
};

use bytes::Bytes;

use super::{Dir, FileDone, FileOp, LogDone, LogOp, event::Event, perform};

/// Requests that wait at most. The log has one under way and each shard's image work a few; one
/// who asks for more waits for the lane.
pub const LANE_OPS_MAX: usize = 256;

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

/// The background thread of one executor. Dropping the lane waits until all requests are done.
#[derive(Debug)]
pub struct BackgroundLane {
    requests: Option<SyncSender<Work>>,
    answers: Receiver<BackgroundDone>,
    event: Event,
    thread: Option<JoinHandle<()>>,
}

impl BackgroundLane {
    /// Starts the thread: segments lie in `log`, images in `images`.
    ///
    /// # Errors
    /// When `log` is not a directory, or no thread can be started.
    pub fn start(log: &Path, images: &Path) -> io::Result<Self> {
        let event = Event::new()?;
        let (requests, inbox) = sync_channel(LANE_OPS_MAX);
        let (outbox, answers) = channel();
        let worker = Worker {
            log: Dir::open(log)?,
            images: images.to_owned(),
            event: event.share()?,
        };
        let thread = thread::Builder::new()
            .name("curia-files".to_owned())
            .spawn(move || worker.run(&inbox, &outbox))?;
        Ok(Self {
            requests: Some(requests),
            answers,
            event,
            thread: Some(thread),
        })
    }

    /// Asks for a segment to be prepared or removed.
    pub fn log(&self, op: LogOp) {
        self.send(Work::Log(op));
    }

    /// Asks for a file operation.
    pub fn file(&self, op: FileOp) {
        self.send(Work::File(op));
    }

    fn send(&self, work: Work) {
        let requests = self
            .requests
            .as_ref()
            .expect("taken only when the lane is dropped");
        requests
            .send(work)
            .expect("the thread lives as long as the lane");
    }

    /// An event that rings when there are answers.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn signal(&self) -> io::Result<Event> {
        self.event.share()
    }

    /// Takes the answers so far.
    pub fn reap(&self, done: &mut Vec<BackgroundDone>) {
        done.extend(self.answers.try_iter());
    }
}

impl Drop for BackgroundLane {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

struct Worker {
    log: Dir,
    images: PathBuf,
    event: Event,
}

impl Worker {
    fn run(&self, inbox: &Receiver<Work>, outbox: &Sender<BackgroundDone>) {
        for work in inbox {
            let done = match work {
                Work::Log(op) => BackgroundDone::Log(perform(&self.log, op)),
                Work::File(op) => BackgroundDone::File(self.image(op)),
            };
            if outbox.send(done).is_err() {
                return;
            }
            self.event.ring();
        }
    }

    fn image(&self, op: FileOp) -> FileDone {
        let none = |result: io::Result<()>| result.map(|()| Bytes::new());
        match op {
            FileOp::Write {
                name,
                offset,
                bytes,
                token,
            } => FileDone {
                token,
                result: none(self.write(&name, offset, &bytes)),
            },
            FileOp::Publish { from, to, token } => FileDone {
                token,
                result: none(self.publish(&from, &to)),
            },
            FileOp::Read {
                name,
                offset,
                length,
                token,
            } => FileDone {
                token,
                result: self.read(&name, offset, length),
            },
            FileOp::Remove { name, token } => FileDone {
                token,
                result: none(remove(&self.images, &name)),
            },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{SectorKey, SegmentNo};

    fn lane(place: &Path) -> (BackgroundLane, Event) {
        let lane = BackgroundLane::start(place, place).unwrap();
        let event = lane.event.share().unwrap();
        (lane, event)
    }

    #[test]
    fn requests_are_done_in_order_and_each_is_answered() {
        let place = tempfile::tempdir().unwrap();
        let (lane, event) = lane(place.path());
        let name = || "image.new".to_owned();
        let bytes = Bytes::from(vec![5; 10_000]);
        lane.file(FileOp::Write {
            name: name(),
            offset: 0,
            bytes,
            token: 1,
        });
        lane.file(FileOp::Publish {
            from: name(),
            to: "image".into(),
            token: 2,
        });
        let read = |offset, token| FileOp::Read {
            name: "image".into(),
            offset,
            length: 9000,
            token,
        };
        lane.file(read(0, 3));
        lane.file(read(9000, 4));
        lane.file(FileOp::Remove {
            name: "image".into(),
            token: 5,
        });
        lane.file(read(0, 6));
        let (segment, key) = (SegmentNo(1), SectorKey(1));
        lane.log(LogOp::Prepare {
            segment,
            recycle: None,
            bytes: 65536,
            key,
            token: 7,
        });
        lane.log(LogOp::Prepare {
            segment: SegmentNo(2),
            recycle: Some(segment),
            bytes: 65536,
            key,
            token: 8,
        });
        lane.log(LogOp::Remove {
            segment: SegmentNo(2),
            token: 9,
        });
        let mut done = Vec::new();
        while done.len() < 9 {
            event.wait();
            lane.reap(&mut done);
        }
        let answers: Vec<_> = done
            .into_iter()
            .map(|done| match done {
                BackgroundDone::File(done) => {
                    (done.token, done.result.map(|bytes| bytes.len()).ok())
                }
                BackgroundDone::Log(done) => (
                    done.token,
                    done.result.ok().map(|()| done.formatted_bytes as usize),
                ),
            })
            .collect();
        let lengths = [
            Some(0),
            Some(0),
            Some(9000),
            Some(1000),
            Some(0),
            None,
            Some(65536),
            Some(0),
            Some(0),
        ];
        assert_eq!(answers, (1..=9).zip(lengths).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_first_piece_begins_the_file_anew() {
        let place = tempfile::tempdir().unwrap();
        let (lane, event) = lane(place.path());
        for bytes in [&b"a longer attempt that was cut short"[..], b"short"] {
            lane.file(FileOp::Write {
                name: "x".into(),
                offset: 0,
                bytes: Bytes::from_static(bytes),
                token: 1,
            });
        }
        let mut done = Vec::new();
        while done.len() < 2 {
            event.wait();
            lane.reap(&mut done);
        }
        assert_eq!(fs::read(place.path().join("x")).unwrap(), b"short");
    }

    #[test]
    fn more_requests_than_lane_ops_max_wait_and_a_dropped_lane_finishes_them() {
        let place = tempfile::tempdir().unwrap();
        let (lane, _event) = lane(place.path());
        for offset in 0..2 * LANE_OPS_MAX as u64 {
            lane.file(FileOp::Write {
                name: "x".into(),
                offset,
                bytes: Bytes::from_static(b"y"),
                token: offset,
            });
        }
        drop(lane);
        assert_eq!(
            fs::read(place.path().join("x")).unwrap().len(),
            2 * LANE_OPS_MAX
        );
    }
}

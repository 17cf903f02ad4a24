//! How do a log's writes reach the device?
//!
//! Through the executor's [`Ring`]: one submission and one completion per batch, a direct write with
//! `RWF_DSYNC` from a registered buffer into a registered file.
//!
//! What the machine lacks is done without: each with one warning and a flag for the metrics
//! ([`Fallbacks`]); `require_direct` refuses instead.
//!
//! Invariants: a buffer stays in the ring's hands from submission to completion, whatever
//! happens, also when the ring is dropped; a failed write is answered as failed and never tried
//! again here.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
    task::{Context, Poll},
};

use io_uring::{opcode, squeue, types};

use super::{
    AlignedBuf, LogDone, LogOp, SegmentNo,
    probe::{WritePath, probe},
    ring::{Owner, Ring},
};

/// Segment files that are open at the same time.
const OPEN_SEGMENTS_MAX: usize = 8;

/// Buffers registered with the kernel, and their length in bytes: what most batches need. Few,
/// since all servers of one user share its `memlock` limit.
const REGISTERED_BUFFERS: u16 = 3;
const REGISTERED_BUFFER_BYTES: usize = 128 * 1024;

/// How the ring is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingOptions {
    /// Refuse anything but direct writes with `RWF_DSYNC` (`log.require_direct`).
    pub require_direct: bool,
}

/// What is done another way than the fastest; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fallbacks {
    /// The filesystem has no `O_DIRECT`: writes are buffered.
    pub buffered: bool,
    /// It has no `RWF_DSYNC`: each write is followed by a flush.
    pub separate_flush: bool,
    /// Buffers could not be registered (`memlock`): the kernel pins them per write.
    pub unregistered_buffers: bool,
    /// Files could not be registered.
    pub unregistered_files: bool,
    /// The kernel has no single-issuer rings with deferred work (before 6.1).
    pub plain_ring: bool,
}

/// Why the ring was not opened.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The directory cannot be written.
    #[error("log: cannot write in {dir}: {source}")]
    Directory {
        /// The log directory.
        dir: PathBuf,
        /// What the filesystem reports.
        source: io::Error,
    },
    /// `require_direct`, and the filesystem cannot.
    #[error(
        "log: the filesystem of {dir} does not support {missing}, and log.require_direct is set; use ext4 or xfs, or unset it"
    )]
    NotDirect {
        /// The log directory.
        dir: PathBuf,
        /// What it lacks.
        missing: &'static str,
    },
}

/// An op that the kernel has.
#[derive(Debug)]
struct Flight {
    segment: SegmentNo,
    token: u64,
    buf: AlignedBuf,
    length: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    /// The flush after a write, where the write cannot be durable by itself.
    Flush,
}

/// A registered, open segment file.
#[derive(Debug)]
struct Segment {
    no: SegmentNo,
    file: File,
}

/// The log's part of an executor's ring. Used on the thread that made it, and dropped there.
pub struct LogRing {
    ring: Rc<Ring>,
    dir: PathBuf,
    path: WritePath,
    fallbacks: Fallbacks,
    warnings: Vec<String>,
    /// Open segments, by slot of the ring's file table.
    segments: Vec<Option<Segment>>,
    /// Slots in the order of their last use, the latest last.
    used: VecDeque<usize>,
    flights: Vec<Option<Flight>>,
    in_flight: usize,
    /// Ops that failed before they reached the kernel.
    refused: Vec<LogDone>,
    /// Scratch for [`Self::reap`].
    completions: Vec<(usize, i32)>,
}

impl LogRing {
    /// The segments in `dir` on this thread's `ring`, and the buffers that it has registered, to be
    /// given to the log.
    ///
    /// # Errors
    /// [`RingError`]; each says what to do.
    pub fn open(
        ring: Rc<Ring>,
        dir: &Path,
        options: RingOptions,
    ) -> Result<(Self, Vec<AlignedBuf>), RingError> {
        let path = probe(dir).map_err(|source| RingError::Directory {
            dir: dir.to_owned(),
            source,
        })?;
        Self::open_with(ring, dir, path, options)
    }

    /// As [`open`](Self::open), with the write path chosen instead of probed.
    fn open_with(
        ring: Rc<Ring>,
        dir: &Path,
        path: WritePath,
        options: RingOptions,
    ) -> Result<(Self, Vec<AlignedBuf>), RingError> {
        let mut fallbacks = Fallbacks::default();
        let mut warnings = Vec::new();
        if let Some(missing) = path.missing() {
            if options.require_direct {
                let dir = dir.to_owned();
                return Err(RingError::NotDirect { dir, missing });
            }
            warnings.push(format!(
                "the filesystem lacks {missing}: log writes are safe but slower"
            ));
            fallbacks.buffered = !path.direct;
            fallbacks.separate_flush = !path.dsync;
        }
        if ring.is_plain() {
            warnings.push("this kernel has no single-issuer rings (Linux 6.1): log writes are safe but slower".into());
            fallbacks.plain_ring = true;
        }
        let registered = ring
            .with_submitter(|submitter| submitter.register_files_sparse(OPEN_SEGMENTS_MAX as u32));
        if let Err(error) = registered {
            warnings.push(format!(
                "segment files could not be registered ({error}): log writes are safe but slower"
            ));
            fallbacks.unregistered_files = true;
        }
        let buffers = register_buffers(&ring, &mut fallbacks, &mut warnings);
        let ring = Self {
            ring,
            dir: dir.to_owned(),
            path,
            fallbacks,
            warnings,
            segments: (0..OPEN_SEGMENTS_MAX).map(|_| None).collect(),
            used: (0..OPEN_SEGMENTS_MAX).collect(),
            flights: Vec::new(),
            in_flight: 0,
            refused: Vec::new(),
            completions: Vec::new(),
        };
        Ok((ring, buffers))
    }

    /// What is not done the fastest way, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What is not done the fastest way.
    pub fn fallbacks(&self) -> Fallbacks {
        self.fallbacks
    }

    /// Ops not yet answered: while there are any, polling makes sense.
    pub fn in_flight(&self) -> usize {
        self.in_flight + self.refused.len()
    }

    /// Puts a write or a read into the submission queue; [`flush`](Self::flush) hands it over.
    ///
    /// # Panics
    /// For other ops, which are the background lane's.
    pub fn submit(&mut self, op: LogOp) {
        let (segment, offset, buf, length, token, kind) = match op {
            LogOp::Write {
                segment,
                offset,
                buf,
                length,
                token,
            } => (segment, offset, buf, length, token, Kind::Write),
            LogOp::Read {
                segment,
                offset,
                buf,
                length,
                token,
            } => (segment, offset, buf, length, token, Kind::Read),
            LogOp::Prepare { .. } | LogOp::Remove { .. } => {
                panic!("the background lane does this: {op:?}")
            }
        };
        let slot = match self.slot(segment) {
            Ok(slot) => slot,
            Err(error) => return self.refuse(token, buf, error),
        };
        let flight = Flight {
            segment,
            token,
            buf,
            length,
            kind,
        };
        let entry = self.entry(slot, &flight, offset);
        self.push(flight, entry);
    }

    /// Hands everything submitted to the kernel, in one call.
    pub fn flush(&self) {
        self.ring.submit();
    }

    /// Adds the answers of completed ops to `done`. Never waits.
    pub fn reap(&mut self, done: &mut Vec<LogDone>) {
        done.append(&mut self.refused);
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.take_log_done(&mut completions);
        for (id, result) in completions.drain(..) {
            self.complete(id, result, done);
        }
        self.completions = completions;
    }

    /// Ready when [`reap`](Self::reap) has something to give; the task is woken when it will.
    pub fn poll_done(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.refused.is_empty() || self.ring.poll_log_done(cx.waker()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// As [`reap`](Self::reap), but waits until there is at least one answer, if any is
    /// outstanding. For shutdown and tests.
    pub fn wait(&mut self, done: &mut Vec<LogDone>) {
        self.reap(done);
        while done.is_empty() && self.in_flight() > 0 {
            if let Err(error) = self.ring.wait(None) {
                ::log::error!("log: io_uring refuses to be entered: {error}");
                return;
            }
            self.reap(done);
        }
    }

    /// Closes a segment's file, since it goes or gets another name. Nothing of it is in flight.
    pub fn forget(&mut self, segment: SegmentNo) {
        for slot in 0..self.segments.len() {
            if self.segments[slot]
                .as_ref()
                .is_some_and(|open| open.no == segment)
            {
                self.close(slot);
            }
        }
    }

    fn complete(&mut self, id: usize, result: i32, done: &mut Vec<LogDone>) {
        let flight = self.flights[id]
            .take()
            .expect("a completion has its flight");
        self.in_flight -= 1;
        let result = outcome(&flight, result);
        if result.is_ok() && flight.kind == Kind::Write && !self.path.dsync {
            self.flush_file(flight);
            return self.flush();
        }
        done.push(LogDone {
            token: flight.token,
            buf: Some(flight.buf),
            result,
            formatted_bytes: 0,
        });
    }

    /// The write is complete but not durable.
    fn flush_file(&mut self, flight: Flight) {
        match self.slot(flight.segment) {
            Err(error) => self.refuse(flight.token, flight.buf, error),
            Ok(slot) => {
                let flags = types::FsyncFlags::DATASYNC;
                let entry = match self.target(slot) {
                    Target::Fixed(slot) => opcode::Fsync::new(slot).flags(flags).build(),
                    Target::Fd(fd) => opcode::Fsync::new(fd).flags(flags).build(),
                };
                let kind = Kind::Flush;
                self.push(Flight { kind, ..flight }, entry);
            }
        }
    }

    fn refuse(&mut self, token: u64, buf: AlignedBuf, error: io::Error) {
        self.refused.push(LogDone {
            token,
            buf: Some(buf),
            result: Err(error),
            formatted_bytes: 0,
        });
        self.ring.wake_log();
    }

    fn entry(&self, slot: usize, flight: &Flight, offset: u64) -> squeue::Entry {
        let (start, length) = (flight.buf.as_ptr(), flight.length as u32);
        debug_assert!(flight.length <= flight.buf.len());
        let flags = if self.path.dsync { libc::RWF_DSYNC } else { 0 };
        let registered = flight.buf.slot();
        match (flight.kind, self.target(slot), registered) {
            (Kind::Read, Target::Fixed(file), _) => {
                opcode::Read::new(file, start.cast_mut(), length)
                    .offset(offset)
                    .build()
            }
            (Kind::Read, Target::Fd(file), _) => opcode::Read::new(file, start.cast_mut(), length)
                .offset(offset)
                .build(),
            (_, Target::Fixed(file), Some(no)) => opcode::WriteFixed::new(file, start, length, no)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            (_, Target::Fd(file), Some(no)) => opcode::WriteFixed::new(file, start, length, no)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            (_, Target::Fixed(file), None) => opcode::Write::new(file, start, length)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            (_, Target::Fd(file), None) => opcode::Write::new(file, start, length)
                .offset(offset)
                .rw_flags(flags)
                .build(),
        }
    }

    fn keep(&mut self, flight: Flight) -> usize {
        self.in_flight += 1;
        let free = self.flights.iter().position(Option::is_none);
        let id = free.unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() - 1
        });
        self.flights[id] = Some(flight);
        id
    }

    /// Queues the op's entry and keeps its buffer until it is answered.
    fn push(&mut self, flight: Flight, entry: squeue::Entry) {
        let id = self.keep(flight);
        let entry = entry.user_data(Owner::Log.tag(id));
        // SAFETY: the entry's buffer is in `flights` until its completion, its file is open
        // until no flight uses it.
        if let Err(error) = unsafe { self.ring.queue(&entry) } {
            let flight = self.flights[id].take().expect("it was just kept");
            self.in_flight -= 1;
            self.refuse(flight.token, flight.buf, error);
        }
    }

    fn target(&self, slot: usize) -> Target {
        if self.fallbacks.unregistered_files {
            let open = self.segments[slot]
                .as_ref()
                .expect("the slot was just filled");
            Target::Fd(types::Fd(open.file.as_raw_fd()))
        } else {
            Target::Fixed(types::Fixed(slot as u32))
        }
    }

    /// The slot of a segment's file, which is opened if need be.
    fn slot(&mut self, segment: SegmentNo) -> io::Result<usize> {
        let is_open = |open: &Option<Segment>| open.as_ref().is_some_and(|open| open.no == segment);
        let slot = match self.segments.iter().position(is_open) {
            Some(slot) => slot,
            None => self.open_segment(segment)?,
        };
        self.used.retain(|used| *used != slot);
        self.used.push_back(slot);
        Ok(slot)
    }

    fn open_segment(&mut self, segment: SegmentNo) -> io::Result<usize> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.path.direct {
            options.custom_flags(libc::O_DIRECT);
        }
        let file = options.open(self.dir.join(segment.file_name()))?;
        let busy = |no: SegmentNo| {
            self.flights
                .iter()
                .flatten()
                .any(|flight| flight.segment == no)
        };
        let idle = self.used.iter().copied().find(|slot| {
            let open = self.segments[*slot].as_ref();
            open.is_none_or(|open| !busy(open.no))
        });
        let slot = idle.ok_or_else(|| io::Error::other("too many segments in use at once"))?;
        self.close(slot);
        if !self.fallbacks.unregistered_files {
            self.ring.with_submitter(|submitter| {
                submitter.register_files_update(slot as u32, &[file.as_raw_fd()])
            })?;
        }
        self.segments[slot] = Some(Segment { no: segment, file });
        Ok(slot)
    }

    fn close(&mut self, slot: usize) {
        if self.segments[slot].take().is_some() && !self.fallbacks.unregistered_files {
            // A slot that stays filled only keeps the old file open until it is used again.
            let _ = self
                .ring
                .with_submitter(|submitter| submitter.register_files_update(slot as u32, &[-1]));
        }
    }
}

enum Target {
    Fixed(types::Fixed),
    Fd(types::Fd),
}

impl Drop for LogRing {
    /// Waits for what the kernel still has, since it writes from and into our buffers.
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.in_flight() > 0 {
            self.wait(&mut done);
            if done.is_empty() {
                // Leaked on purpose: the kernel may still use the memory.
                std::mem::forget(std::mem::take(&mut self.flights));
                return;
            }
            done.clear();
        }
    }
}

fn register_buffers(
    ring: &Ring,
    fallbacks: &mut Fallbacks,
    warnings: &mut Vec<String>,
) -> Vec<AlignedBuf> {
    let slots = 0..REGISTERED_BUFFERS;
    let buffers: Vec<_> = slots
        .map(|slot| AlignedBuf::new(REGISTERED_BUFFER_BYTES).with_slot(slot))
        .collect();
    let part = |buf: &AlignedBuf| libc::iovec {
        iov_base: buf.as_ptr().cast_mut().cast(),
        iov_len: buf.len(),
    };
    let parts: Vec<_> = buffers.iter().map(part).collect();
    // SAFETY: the ranges are valid. The kernel pins their pages; each later use names a buffer
    // that is alive, in the ring's hands, so a freed one is never written from.
    match ring.with_submitter(|submitter| unsafe { submitter.register_buffers(&parts) }) {
        Ok(()) => buffers,
        Err(error) => {
            warnings.push(format!(
                "log buffers could not be registered ({error}; raise the memlock limit by {} KiB): each write costs a few µs more",
                usize::from(REGISTERED_BUFFERS) * REGISTERED_BUFFER_BYTES / 1024
            ));
            fallbacks.unregistered_buffers = true;
            Vec::new()
        }
    }
}

fn outcome(flight: &Flight, result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    let moved = result as usize;
    match flight.kind {
        Kind::Flush => Ok(()),
        _ if moved == flight.length => Ok(()),
        Kind::Write => Err(io::Error::new(
            io::ErrorKind::WriteZero,
            format!("short write: {moved} of {} bytes", flight.length),
        )),
        Kind::Read => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("short read: {moved} of {} bytes", flight.length),
        )),
    }
}

#[cfg(test)]
#[path = "log_ring_tests.rs"]
mod tests;

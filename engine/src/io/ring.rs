//! The log's device: its own io_uring, on the executor's thread.
//!
//! A durable write is one submission, `WRITE_FIXED` with `RWF_DSYNC` into a formatted segment
//! opened with `O_DIRECT`: one completion, one device flush, no file metadata. What the kernel or
//! the file system lacks is done without, each with one warning: registered buffers, then
//! `RWF_DSYNC` (a write followed by `FSYNC`), then `O_DIRECT`.
//!
//! Completions raise an eventfd that the executor awaits. The ring defers its task work
//! (`DEFER_TASKRUN`), so [`LogRing::reap`] enters the kernel once to have it done.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use io_uring::{IoUring, opcode, types};

use super::{AlignedBuf, BLOCK_BYTES, LogDone, LogOp, SegmentNo};

/// Operations in flight at most; the log keeps far below.
const RING_ENTRIES: u32 = 64;
/// Segment files held open at most.
const OPEN_FILES_MAX: usize = 16;
/// Buffers registered with the kernel, and their size in bytes: what most batches need.
const REGISTERED_BUFFERS: usize = 4;
/// See [`REGISTERED_BUFFERS`]. Small, because all servers of one user share its `memlock` limit.
const REGISTERED_BUFFER_BYTES: usize = 128 << 10;

/// How the ring is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingOptions {
    /// Refuse to start without direct I/O and `RWF_DSYNC` (`log.require_direct`).
    pub require_direct: bool,
}

#[derive(Debug)]
struct InFlight {
    token: u64,
    buf: AlignedBuf,
    length: usize,
    segment: SegmentNo,
    /// A write whose flush is a second operation.
    flush_follows: bool,
}

/// An executor's ring for log I/O.
pub struct LogRing {
    ring: IoUring,
    path: PathBuf,
    signal: OwnedFd,
    files: BTreeMap<SegmentNo, File>,
    in_flight: BTreeMap<u64, InFlight>,
    refused: Vec<LogDone>,
    next: u64,
    direct: bool,
    dsync: bool,
    queued: bool,
    warnings: Vec<String>,
}

impl LogRing {
    /// Opens the ring for segment files in `path`, on the thread that will use it. Returns the
    /// buffers that were registered, for the log to use first.
    pub fn open(path: &Path, options: RingOptions) -> io::Result<(Self, Vec<AlignedBuf>)> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(RING_ENTRIES)?;
        // SAFETY: no pointers are passed.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just opened and has no other owner.
        let signal = unsafe { OwnedFd::from_raw_fd(raw) };
        ring.submitter().register_eventfd(signal.as_raw_fd())?;
        let (direct, dsync) = probe(path)?;
        let mut warnings = Vec::new();
        if !direct || !dsync {
            let lacking = match (direct, dsync) {
                (false, true) => "direct I/O (O_DIRECT)",
                (true, false) => "durable writes (RWF_DSYNC)",
                _ => "direct I/O (O_DIRECT) and durable writes (RWF_DSYNC)",
            };
            if options.require_direct {
                let why = format!("the file system lacks {lacking}, which log.require_direct demands");
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            warnings.push(format!("the file system lacks {lacking}: log writes are safe but slower"));
        }
        let mut ring = Self {
            ring,
            path: path.to_owned(),
            signal,
            files: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            refused: Vec::new(),
            next: 0,
            direct,
            dsync,
            queued: false,
            warnings,
        };
        let buffers = ring.register_buffers();
        Ok((ring, buffers))
    }

    fn register_buffers(&mut self) -> Vec<AlignedBuf> {
        let buffers: Vec<AlignedBuf> =
            (0..REGISTERED_BUFFERS).map(|_| AlignedBuf::new(REGISTERED_BUFFER_BYTES)).collect();
        let vectors: Vec<libc::iovec> = buffers
            .iter()
            .map(|buf| libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() })
            .collect();
        // SAFETY: the buffers never move, and the log keeps them as long as this ring is used: a
        // buffer that is freed early is unpinned by the kernel only when the ring closes.
        match unsafe { self.ring.submitter().register_buffers(&vectors) } {
            Ok(()) => (0u16..).zip(buffers).map(|(slot, buf)| buf.with_slot(slot)).collect(),
            Err(error) => {
                self.warnings.push(format!(
                    "log buffers could not be registered ({error}; raise the memlock limit): each write costs a few µs more"
                ));
                Vec::new()
            }
        }
    }

    /// What is done without, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A descriptor that becomes readable (8 bytes) when operations have completed.
    pub fn eventfd(&self) -> io::Result<OwnedFd> {
        self.signal.try_clone()
    }

    /// Queues a write or a read; it starts with the next [`Self::flush`].
    pub fn submit(&mut self, op: LogOp) {
        match op {
            LogOp::Write { segment, offset, buf, length, token } => {
                assert!(length <= buf.len() && length % BLOCK_BYTES == 0, "a write of whole blocks of its buffer");
                let flush_follows = !self.dsync;
                let flight = InFlight { token, buf, length, segment, flush_follows };
                self.start(flight, offset, true);
            }
            LogOp::Read { segment, offset, buf, length, token } => {
                assert!(length <= buf.len(), "a read into its buffer");
                let flight = InFlight { token, buf, length, segment, flush_follows: false };
                self.start(flight, offset, false);
            }
            other => unreachable!("{other:?} is for the background lane"),
        }
    }

    fn start(&mut self, flight: InFlight, offset: u64, write: bool) {
        let fd = match self.file(flight.segment) {
            Ok(fd) => types::Fd(fd),
            Err(error) => return self.refuse(flight, error),
        };
        let (start, length) = (flight.buf.as_ptr(), flight.length as u32);
        let flags = if self.dsync { libc::RWF_DSYNC } else { 0 };
        let entry = match (write, flight.buf.slot()) {
            (true, Some(slot)) => {
                opcode::WriteFixed::new(fd, start, length, slot).offset(offset).rw_flags(flags).build()
            }
            (true, None) => opcode::Write::new(fd, start, length).offset(offset).rw_flags(flags).build(),
            (false, _) => opcode::Read::new(fd, start.cast_mut(), length).offset(offset).build(),
        };
        self.next += 1;
        let entry = entry.user_data(self.next);
        // SAFETY: the buffer is kept in `in_flight` until its completion, and never moves.
        if let Err(error) = unsafe { self.ring.submission().push(&entry) } {
            return self.refuse(flight, io::Error::other(error.to_string()));
        }
        self.queued = true;
        self.in_flight.insert(self.next, flight);
    }

    fn refuse(&mut self, flight: InFlight, error: io::Error) {
        self.refused.push(LogDone { token: flight.token, buf: Some(flight.buf), result: Err(error), formatted_bytes: 0 });
        // An answer that needs no kernel: wake the reader by hand.
        let one = 1u64.to_ne_bytes();
        // SAFETY: writes 8 bytes from a local to a descriptor that this ring owns.
        unsafe { libc::write(self.signal.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn file(&mut self, segment: SegmentNo) -> io::Result<i32> {
        if !self.files.contains_key(&segment) {
            let busy = |no: &SegmentNo| self.in_flight.values().any(|flight| flight.segment == *no);
            if self.files.len() >= OPEN_FILES_MAX
                && let Some(oldest) = self.files.keys().copied().find(|no| !busy(no))
            {
                self.files.remove(&oldest);
            }
            let mut open = OpenOptions::new();
            open.read(true).write(true);
            if self.direct {
                open.custom_flags(libc::O_DIRECT);
            }
            let file = open.open(self.path.join(segment.file_name()))?;
            self.files.insert(segment, file);
        }
        Ok(self.files[&segment].as_raw_fd())
    }

    /// Starts everything queued, in one system call.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.queued) {
            // An error here (EAGAIN, EBUSY) leaves entries queued; the next flush takes them.
            if self.ring.submit().is_err() {
                self.queued = true;
            }
        }
    }

    /// Operations not yet answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len() + self.refused.len()
    }

    /// Takes what has completed.
    pub fn reap(&mut self, done: &mut Vec<LogDone>) {
        done.append(&mut self.refused);
        // DEFER_TASKRUN: completions appear only when this thread asks for them.
        // SAFETY: no pointers are passed.
        let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, 1, None) };
        if let Err(error) = entered {
            log::debug!("entering the log's ring: {error}");
        }
        let completions: Vec<(u64, i32)> =
            self.ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        for (key, result) in completions {
            let Some(flight) = self.in_flight.remove(&key) else { continue };
            self.complete(flight, result, done);
        }
        self.flush();
    }

    fn complete(&mut self, mut flight: InFlight, result: i32, done: &mut Vec<LogDone>) {
        if flight.flush_follows && result == flight.length as i32 {
            // Only reached without RWF_DSYNC: durable once the flush has completed too.
            flight.flush_follows = false;
            flight.length = 0;
            let fd = types::Fd(self.files[&flight.segment].as_raw_fd());
            self.next += 1;
            let entry = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build().user_data(self.next);
            // SAFETY: the operation refers to no memory.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.queued = true;
                self.in_flight.insert(self.next, flight);
            } else {
                self.refuse(flight, io::Error::other("the log's ring is full"));
            }
            return;
        }
        let result = match result {
            n if n < 0 => Err(io::Error::from_raw_os_error(-n)),
            n if n as usize == flight.length => Ok(()),
            n => Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("{n} bytes of {} were transferred", flight.length),
            )),
        };
        done.push(LogDone { token: flight.token, buf: Some(flight.buf), result, formatted_bytes: 0 });
    }
}

impl Drop for LogRing {
    fn drop(&mut self) {
        // The kernel may still read from buffers in flight: they must outlive it.
        while !self.in_flight.is_empty() {
            if self.ring.submit_and_wait(1).is_err() {
                std::mem::forget(std::mem::take(&mut self.in_flight));
                return;
            }
            let keys: Vec<u64> = self.ring.completion().map(|entry| entry.user_data()).collect();
            for key in keys {
                self.in_flight.remove(&key);
            }
        }
    }
}

/// Whether files here can be opened with `O_DIRECT`, and written with `RWF_DSYNC`.
fn probe(path: &Path) -> io::Result<(bool, bool)> {
    let name = path.join("probe.tmp");
    let mut direct = OpenOptions::new();
    direct.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let (file, is_direct) = match direct.open(&name) {
        Ok(file) => (file, true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            (OpenOptions::new().write(true).create(true).truncate(true).open(&name)?, false)
        }
        Err(error) => return Err(error),
    };
    let block = AlignedBuf::new(BLOCK_BYTES);
    let vector = libc::iovec { iov_base: block.as_ptr().cast_mut().cast(), iov_len: block.len() };
    // SAFETY: one vector over a live buffer, written to a file that is owned here.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const vector, 1, 0, libc::RWF_DSYNC) };
    let dsync = written == BLOCK_BYTES as isize;
    let error = io::Error::last_os_error();
    std::fs::remove_file(&name)?;
    if !dsync && error.kind() == io::ErrorKind::StorageFull {
        // A full disk says nothing about what it can do.
        return Ok((is_direct, true));
    }
    Ok((is_direct, dsync))
}

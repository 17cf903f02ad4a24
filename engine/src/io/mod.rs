//! What does the engine need from the machine, so that a simulator can stand in for it?
//!
//! Three things: blocking file operations ([`Disk`], at start-up and on the background lane),
//! durable log writes that complete later ([`LogOp`] → [`LogDone`]), and buffers that direct I/O
//! accepts ([`AlignedBuf`]). Time is always passed in as nanoseconds; sockets live in `server`.

use std::{fmt, io};

mod aligned;
mod background;
mod dir;
pub mod event;
mod log_ring;
pub mod mem;
mod perform;
mod probe;
mod replace;
mod ring;
pub mod sector;
mod watch;

pub use aligned::AlignedBuf;
pub use background::{BackgroundDone, BackgroundLane, LANE_OPS_MAX};
pub use dir::Dir;
pub use log_ring::{Fallbacks, LogRing, RingError, RingOptions};
pub use perform::perform;
pub use replace::replace_file;
pub use ring::Ring;
pub use sector::SectorKey;
pub use watch::{Interest, Readiness};

/// Direct I/O unit in bytes: offsets, lengths and addresses of log writes are multiples of it.
pub const BLOCK_BYTES: usize = 4096;
/// How much of a new segment is formatted and written at a time, bytes.
const FORMAT_PIECE_BYTES: usize = 1024 * 1024;

/// One directory of files, by name. Blocking: used by recovery before a server serves, by the
/// offline tools, and on the background lane. Production: [`dir::Dir`]; in memory: [`mem::MemDisk`].
pub trait Disk {
    /// Names and lengths of all files, in name order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Reads exactly `buf.len()` bytes at `offset`; `UnexpectedEof` past the end.
    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, creating the file if need be. Not yet durable.
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written to the file durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Renames over an existing file and makes the directory durable.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file and makes the directory durable; no error when it does not exist.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Drops what a cache holds of the file and need not write: reads that follow come from the
    /// device. After a flush that failed, the kernel shows pages that it neither has written nor
    /// ever will.
    fn drop_cached(&self, name: &str) -> io::Result<()> {
        let _ = name;
        Ok(())
    }
    /// Makes the directory's entries durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Length of a file in bytes; `None` when it does not exist.
    fn length(&self, name: &str) -> io::Result<Option<u64>> {
        let files = self.list()?;
        Ok(files
            .into_iter()
            .find(|file| file.0 == name)
            .map(|file| file.1))
    }
}

/// Number of a log segment file, from 1; never used again within a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNo(pub u64);

impl SegmentNo {
    /// No log ever comes so far; a file that says so is none of a log's, and one more is a number.
    pub const MAX: Self = Self(1 << 62);

    /// Name of its file in the log's directory.
    pub fn file_name(self) -> String {
        format!("{:016x}.segment", self.0)
    }

    /// The segment that a file of this name is; `None` for any other file.
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".segment")?;
        let no = u64::from_str_radix(digits, 16).ok()?;
        (Self(no) <= Self::MAX && Self(no).file_name() == name).then_some(Self(no))
    }

    /// The segment after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SegmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes segment `segment` exist at full length and durable under its name, blocking. The file of
/// `recycle` becomes it when it has the right length; otherwise a new one is formatted under a
/// temporary name first, so that a crash never leaves half a segment. Returns the bytes written.
///
/// A recycled file keeps the contents of its old life, which batch headers and stamps tell apart.
///
/// # Errors
/// What the disk reports; running out of space is `StorageFull`. What was written so far is
/// removed again, so that a retry finds the space it needs.
pub fn prepare_segment(
    disk: &dyn Disk,
    segment: SegmentNo,
    recycle: Option<SegmentNo>,
    bytes: u64,
    key: SectorKey,
) -> io::Result<u64> {
    let name = segment.file_name();
    if let Some(freed) = recycle.map(SegmentNo::file_name) {
        if disk.length(&freed)? == Some(bytes) {
            disk.rename(&freed, &name)?;
            return Ok(0);
        }
        disk.remove(&freed)?;
    }
    let temporary = format!("{name}.new");
    let formatted = format_file(disk, &temporary, bytes, key)
        .and_then(|()| disk.sync(&temporary))
        .and_then(|()| disk.rename(&temporary, &name));
    if let Err(error) = formatted {
        // The first error is the one that says what went wrong; a leftover is overwritten later.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    Ok(bytes)
}

fn format_file(disk: &dyn Disk, name: &str, bytes: u64, key: SectorKey) -> io::Result<()> {
    let mut piece = AlignedBuf::new(FORMAT_PIECE_BYTES.min(bytes as usize));
    let mut offset = 0;
    while offset < bytes {
        let length = piece.len().min((bytes - offset) as usize);
        let first = offset / sector::SECTOR_BYTES as u64;
        sector::format_blank(&mut piece[..length], key, first);
        disk.write_at(name, offset, &piece[..length])?;
        offset += length as u64;
    }
    Ok(())
}

/// What the log asks of its device. Every op is answered by exactly one [`LogDone`], in any order.
#[derive(Debug)]
pub enum LogOp {
    /// Writes `buf[..length]` and makes it durable. The buffer comes back in the answer.
    Write {
        /// The segment file.
        segment: SegmentNo,
        /// Where in it; a multiple of [`BLOCK_BYTES`].
        offset: u64,
        /// What; `length` bytes of it, a multiple of [`BLOCK_BYTES`].
        buf: AlignedBuf,
        /// How much of `buf`.
        length: usize,
        /// Returned in the answer.
        token: u64,
    },
    /// Reads `length` bytes into `buf`.
    Read {
        /// The segment file.
        segment: SegmentNo,
        /// Where; a multiple of [`BLOCK_BYTES`].
        offset: u64,
        /// Into what.
        buf: AlignedBuf,
        /// How much; a multiple of [`BLOCK_BYTES`].
        length: usize,
        /// Returned in the answer.
        token: u64,
    },
    /// Background lane: makes segment `segment` exist at full length, formatted or recycled
    /// from `recycle`, durable, under its name (see [`prepare_segment`]).
    Prepare {
        /// The segment to be.
        segment: SegmentNo,
        /// A freed segment whose file becomes it.
        recycle: Option<SegmentNo>,
        /// Its length, bytes.
        bytes: u64,
        /// What its blank sectors are formatted with.
        key: SectorKey,
        /// Returned in the answer.
        token: u64,
    },
    /// Background lane: removes a freed segment that is not needed for recycling.
    Remove {
        /// The freed segment.
        segment: SegmentNo,
        /// Returned in the answer.
        token: u64,
    },
}

/// Answer to a [`LogOp`].
#[derive(Debug)]
pub struct LogDone {
    /// The op's token.
    pub token: u64,
    /// The op's buffer, for reuse; for a read, what was read.
    pub buf: Option<AlignedBuf>,
    /// Whether all of it happened. A short write is an error.
    pub result: io::Result<()>,
    /// Bytes written to format a segment; 0 for one that was recycled, and for other ops.
    pub formatted_bytes: u64,
}

/// Background file work outside the log: images. Run in order, each answered by one [`FileDone`].
#[derive(Debug)]
pub enum FileOp {
    /// Writes bytes into a file, creating it.
    Write {
        /// File name in the data directory's `images` folder.
        name: String,
        /// Where.
        offset: u64,
        /// What.
        bytes: bytes::Bytes,
        /// Returned in the answer.
        token: u64,
    },
    /// Makes `from` durable, renames it to `to`, makes the directory durable.
    Publish {
        /// Temporary name.
        from: String,
        /// Final name.
        to: String,
        /// Returned in the answer.
        token: u64,
    },
    /// Reads a piece.
    Read {
        /// File name.
        name: String,
        /// Where.
        offset: u64,
        /// How much; less is returned at the end of the file.
        length: usize,
        /// Returned in the answer.
        token: u64,
    },
    /// Removes a file.
    Remove {
        /// File name.
        name: String,
        /// Returned in the answer.
        token: u64,
    },
}

/// Answer to a [`FileOp`].
#[derive(Debug)]
pub struct FileDone {
    /// The op's token.
    pub token: u64,
    /// What was read; empty for other ops.
    pub result: io::Result<bytes::Bytes>,
}

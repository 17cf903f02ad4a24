//! Which writes does a disk lose when its power goes?
//!
//! Those since its last flush, any of them, and of the last ones perhaps only some sectors. So a
//! disk is emulated by a file that remembers what was written and not flushed. The file is served
//! by FUSE from this process; a loop device on top of it makes a block device, on which an ordinary
//! file system lies. (The host has no device-mapper, and submissions of io_uring cannot be
//! intercepted in the process.) The kernel's page cache, the file system's journal and the servers'
//! own flushes are thus all tried as they are; only the platter is ours.
//!
//! Invariant: after a power cut the disk holds every write that was flushed, and of each other
//! sector either what was flushed or what was written later.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};

use super::dice::Dice;
use crate::{Context, Result};

/// What a drive writes whole or not at all, bytes.
const SECTOR_BYTES: usize = 512;
/// When more than this is waiting for a flush, the oldest writes reach the platter by themselves,
/// as they may at any time.
const WAITING_BYTES_MAX: usize = 32 << 20;
const FILE: u64 = 2;
const NAME: &str = "disk";
const TTL: Duration = Duration::from_secs(1);

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Writes that waited for a flush.
    pub waiting: usize,
    /// Of these, lost.
    pub lost: usize,
    /// Of these, torn.
    pub torn: usize,
}

/// A disk with a cache that forgets.
#[derive(Debug)]
pub struct Platter {
    /// What is read.
    now: Vec<u8>,
    /// What a power cut leaves in any case.
    safe: Vec<u8>,
    waiting: Vec<(usize, Box<[u8]>)>,
    waiting_bytes: usize,
    flushes: u64,
    armed: bool,
    off: bool,
}

impl Platter {
    /// One of zeros.
    pub fn new(bytes: usize) -> Self {
        Self {
            now: vec![0; bytes],
            safe: vec![0; bytes],
            waiting: Vec::new(),
            waiting_bytes: 0,
            flushes: 0,
            armed: false,
            off: false,
        }
    }

    /// What is there; `None` without power or beyond the end.
    pub fn read(&self, offset: usize, bytes: usize) -> Option<&[u8]> {
        let end = offset.checked_add(bytes)?.min(self.now.len());
        self.now.get(offset..end).filter(|_| !self.off)
    }

    /// Writes into the cache; false without power or beyond the end.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let end = offset.checked_add(bytes.len());
        let Some(end) = end.filter(|end| *end <= self.now.len() && !self.off) else {
            return false;
        };
        self.now[offset..end].copy_from_slice(bytes);
        self.waiting.push((offset, bytes.into()));
        self.waiting_bytes += bytes.len();
        while self.waiting_bytes > WAITING_BYTES_MAX {
            let (offset, bytes) = self.waiting.remove(0);
            self.waiting_bytes -= bytes.len();
            self.safe[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        true
    }

    /// Everything written is safe; false without power.
    pub fn flush(&mut self) -> bool {
        self.off |= self.armed && !self.waiting.is_empty();
        if self.off {
            return false;
        }
        for (offset, bytes) in self.waiting.drain(..) {
            self.safe[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        self.waiting_bytes = 0;
        self.flushes += 1;
        true
    }

    /// The power goes with the next flush that has something to do, instead of it: that is when most
    /// is at stake, and a moment too short to be met by chance.
    pub fn arm(&mut self) {
        self.armed = true;
    }

    /// From now on nothing is read, written or flushed.
    pub fn cut(&mut self) {
        self.off = true;
    }

    /// Power comes back; of what waited for a flush, chance decides.
    pub fn restore(&mut self, dice: &mut Dice) -> Loss {
        let mut loss = Loss {
            waiting: self.waiting.len(),
            ..Loss::default()
        };
        // None, all, or each for itself.
        let mood = dice.below(4);
        for (offset, bytes) in self.waiting.drain(..) {
            let kept = match mood {
                0 => 0,
                1 => bytes.len(),
                _ => [0, bytes.len(), usize::MAX][dice.below(3)],
            };
            let mut whole = true;
            for (nth, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                let at = nth * SECTOR_BYTES;
                let keep = match kept {
                    usize::MAX => dice.once_in(2),
                    kept => at < kept,
                };
                whole &= keep;
                if keep {
                    self.safe[offset + at..offset + at + sector.len()].copy_from_slice(sector);
                }
            }
            match kept {
                0 => loss.lost += 1,
                usize::MAX if !whole => loss.torn += 1,
                _ => {}
            }
        }
        self.waiting_bytes = 0;
        self.now.copy_from_slice(&self.safe);
        (self.off, self.armed) = (false, false);
        loss
    }
}

/// A platter that is mounted as a file.
#[derive(Debug)]
pub struct Recorder {
    platter: Arc<Mutex<Platter>>,
    file: PathBuf,
    _session: BackgroundSession,
}

fn locked(platter: &Mutex<Platter>) -> MutexGuard<'_, Platter> {
    platter
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Recorder {
    /// Mounts one at `directory`, which is made.
    pub fn mount(directory: &Path, bytes: usize) -> Result<Self> {
        let what = || format!("mount a recording disk at {}", directory.display());
        std::fs::create_dir_all(directory).context(what)?;
        let platter = Arc::new(Mutex::new(Platter::new(bytes)));
        let served = Served {
            platter: platter.clone(),
            bytes: bytes as u64,
        };
        let session = fuser::spawn_mount(served, directory, &Config::default()).context(what)?;
        Ok(Self {
            platter,
            file: directory.join(NAME),
            _session: session,
        })
    }

    /// The file that is the disk.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The power goes with the next flush.
    pub fn arm(&self) {
        locked(&self.platter).arm();
    }

    /// Cuts the power.
    pub fn cut(&self) {
        locked(&self.platter).cut();
    }

    /// Gives it back.
    pub fn restore(&self, dice: &mut Dice) -> Loss {
        locked(&self.platter).restore(dice)
    }

    /// Flushes so far.
    pub fn flushes(&self) -> u64 {
        locked(&self.platter).flushes
    }
}

/// The file system of one file.
struct Served {
    platter: Arc<Mutex<Platter>>,
    bytes: u64,
}

impl Served {
    fn attributes(&self, inode: u64) -> FileAttr {
        let is_file = inode == FILE;
        FileAttr {
            ino: INodeNo(inode),
            size: if is_file { self.bytes } else { 0 },
            blocks: if is_file { self.bytes / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if is_file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        locked(&self.platter)
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match parent == INodeNo::ROOT && name == NAME {
            true => reply.entry(&TTL, &self.attributes(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Without `FOPEN_KEEP_CACHE` the kernel forgets what it knew of the file.
        reply.opened(FileHandle(0), fuser::FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.platter().read(offset as usize, size as usize) {
            Some(bytes) => reply.data(bytes),
            None => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.platter().write(offset as usize, data) {
            true => reply.written(data.len() as u32),
            false => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A file was closed: that makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.platter().flush() {
            true => reply.ok(),
            false => reply.error(Errno::EIO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever chance decides: what was flushed is there, and each other sector is old or new.
    #[test]
    fn a_power_cut_loses_only_what_was_not_flushed() {
        let mut losses = Loss::default();
        for seed in 0..200 {
            let mut dice = Dice::new(seed, 0);
            let mut platter = Platter::new(64 * SECTOR_BYTES);
            assert!(platter.write(0, &[1; 8 * SECTOR_BYTES]));
            assert!(platter.flush());
            assert!(platter.write(4 * SECTOR_BYTES, &[2; 4 * SECTOR_BYTES]));
            assert!(platter.write(40 * SECTOR_BYTES, &[3; SECTOR_BYTES]));
            platter.cut();
            assert!(!platter.write(0, &[9; SECTOR_BYTES]) && !platter.flush());
            assert!(platter.read(0, 1).is_none());
            let loss = platter.restore(&mut dice);
            assert_eq!(loss.waiting, 2);
            losses.lost += loss.lost;
            losses.torn += loss.torn;
            let now = platter.read(0, 64 * SECTOR_BYTES).unwrap();
            assert!(now[..4 * SECTOR_BYTES].iter().all(|byte| *byte == 1));
            for sector in now.chunks(SECTOR_BYTES) {
                assert!(
                    sector.iter().all(|byte| *byte == sector[0]),
                    "torn in a sector"
                );
            }
            assert!([0, 3].contains(&now[40 * SECTOR_BYTES]));
        }
        assert!(losses.lost > 20 && losses.torn > 20, "{losses:?}");
    }

    #[test]
    fn an_armed_disk_loses_power_at_its_next_flush() {
        let mut platter = Platter::new(8 * SECTOR_BYTES);
        platter.arm();
        assert!(platter.flush(), "nothing was at stake");
        assert!(platter.write(0, &[1; SECTOR_BYTES]));
        assert!(!platter.flush() && platter.read(0, 1).is_none());
        assert_eq!(platter.restore(&mut Dice::new(1, 1)).waiting, 1);
        assert!(platter.flush() && platter.read(0, 1).is_some());
    }

    #[test]
    fn a_cache_that_is_full_writes_by_itself() {
        let mut platter = Platter::new(1 << 20);
        for _ in 0..WAITING_BYTES_MAX >> 19 {
            assert!(platter.write(0, &vec![7; 1 << 20]));
        }
        assert!(platter.waiting_bytes <= WAITING_BYTES_MAX);
        assert_eq!(platter.safe[0], 7);
    }
}

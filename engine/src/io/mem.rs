//! What would a disk do that forgets, tears, fails and rots, and that remembers the truth?
//!
//! [`MemDisk`] is a directory in memory for tests and simulation. Until a file is made durable,
//! each 512-byte sector written since may or may not survive a [`crash`](MemDisk::crash), each
//! on its own; a name survives once the directory was made durable. Any operation can be made
//! to fail, space can run out, places can become unreadable and bits can flip.
//!
//! It answers log ops too: an op that was [`executed`](MemDisk::execute) is durable, one that was
//! only [begun](MemDisk::begin) is torn by a crash.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, ErrorKind},
    ops::Range,
};

use super::{AlignedBuf, Disk, LogDone, LogOp, SegmentNo, perform, sector::SECTOR_BYTES};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this `errno`, and without effect.
    Errno(i32),
    /// A write stops half-way and fails; other operations fail with `EIO`.
    Short,
}

/// A write that was issued and not answered.
#[derive(Debug)]
pub struct Begun {
    segment: SegmentNo,
    range: Range<usize>,
    buf: AlignedBuf,
    token: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    /// What the sectors written since the last sync held before; shorter at the end of the file.
    before: BTreeMap<usize, Vec<u8>>,
    durable_length: usize,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    next_id: u64,
    operations: u64,
    fault: Option<(u64, Fault)>,
    capacity: Option<u64>,
    unreadable: Vec<(String, Range<u64>)>,
}

/// A directory in memory. A clone is an independent copy of everything.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    state: RefCell<State>,
}

impl File {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        for sector in at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            let held = range.start.min(self.now.len())..range.end.min(self.now.len());
            let now = &self.now;
            self.before
                .entry(sector)
                .or_insert_with(|| now[held].to_vec());
        }
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[at..end].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        self.before.clear();
        self.durable_length = self.now.len();
    }

    fn sync_range(&mut self, range: &Range<usize>) {
        self.before
            .retain(|sector, _| !range.contains(&(sector * SECTOR_BYTES)));
        self.durable_length = self.durable_length.max(range.end);
    }

    fn crash(&mut self, draw: &mut dyn FnMut() -> u64) {
        let before = std::mem::take(&mut self.before);
        let mut length = self.durable_length;
        let mut lost = Vec::new();
        // Nothing survives, everything does, what lies before or behind some point, or each
        // sector falls on its own.
        let mode = draw() % 5;
        let (first, last) = (before.keys().next(), before.keys().next_back());
        let (first, last) = (*first.unwrap_or(&0) as u64, *last.unwrap_or(&0) as u64);
        let point = (first + draw() % (last - first + 1)) as usize;
        for (sector, bytes) in before {
            let survives = match mode {
                0 => false,
                1 => true,
                2 => sector < point,
                3 => sector >= point,
                _ => draw().is_multiple_of(2),
            };
            if survives {
                length = length.max(((sector + 1) * SECTOR_BYTES).min(self.now.len()));
            } else {
                lost.push((sector, bytes));
            }
        }
        for (sector, bytes) in lost {
            let end = ((sector + 1) * SECTOR_BYTES).min(self.now.len());
            self.now[sector * SECTOR_BYTES..end].fill(0);
            self.now[sector * SECTOR_BYTES..][..bytes.len()].copy_from_slice(&bytes);
        }
        self.now.truncate(length);
        self.durable_length = length;
    }
}

impl State {
    /// Counts an operation; fails when it is the one that should.
    fn operation(&mut self) -> Result<(), Fault> {
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if at == self.operations => Err(fault),
            _ => Ok(()),
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let id = self.names.get(name).ok_or_else(|| not_found(name))?;
        Ok(self.files.get_mut(id).expect("names point to files"))
    }

    fn sync_dir(&mut self) {
        self.durable_names = self.names.clone();
        let names = &self.names;
        self.files
            .retain(|id, _| names.values().any(|named| named == id));
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.operation().err();
        if let Some(Fault::Errno(errno)) = fault {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let bytes = if fault.is_some() {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        let end = offset + bytes.len() as u64;
        if !self.names.contains_key(name) {
            self.next_id += 1;
            self.names.insert(name.to_owned(), self.next_id);
            self.files.insert(self.next_id, File::default());
        }
        let used: u64 = self.files.values().map(|file| file.now.len() as u64).sum();
        let length = self.file(name)?.now.len() as u64;
        if self
            .capacity
            .is_some_and(|capacity| used + end.saturating_sub(length) > capacity)
        {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.file(name)?.write(offset as usize, bytes);
        // A device replaces a bad sector when it is written.
        self.unreadable
            .retain(|(file, range)| file != name || range.start < offset || range.end > end);
        match fault {
            Some(_) => Err(io::Error::new(ErrorKind::WriteZero, "short write")),
            None => Ok(()),
        }
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, name.to_owned())
}

fn errno(fault: Fault) -> io::Error {
    match fault {
        Fault::Errno(errno) => io::Error::from_raw_os_error(errno),
        Fault::Short => io::Error::from_raw_os_error(libc::EIO),
    }
}

impl MemDisk {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The power fails: what was not durable survives or not, sector by sector, name by name.
    pub fn crash(&self, draw: &mut dyn FnMut() -> u64) {
        let state = &mut *self.state.borrow_mut();
        let all_names = draw().is_multiple_of(2);
        if !all_names {
            state.names = state.durable_names.clone();
        }
        state.files.values_mut().for_each(|file| file.crash(draw));
        state.sync_dir();
        state.fault = None;
    }

    /// The `nth` operation from now on (from 1) fails.
    pub fn fail_at(&self, nth: u64, fault: Fault) {
        let state = &mut *self.state.borrow_mut();
        state.fault = Some((state.operations + nth, fault));
    }

    /// A failure that was to come does not.
    pub fn fail_never(&self) {
        self.state.borrow_mut().fault = None;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state.borrow().operations
    }

    /// Bytes that all files together may have; beyond it writes fail with `ENOSPC`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.borrow_mut().capacity = bytes;
    }

    /// Reads that touch this range of the file fail with `EIO`.
    pub fn make_unreadable(&self, name: &str, range: Range<u64>) {
        self.state
            .borrow_mut()
            .unreadable
            .push((name.to_owned(), range));
    }

    /// All ranges can be read again.
    pub fn make_readable(&self) {
        self.state.borrow_mut().unreadable.clear();
    }

    /// Flips one bit of a file.
    pub fn flip(&self, name: &str, bit: u64) {
        self.edit(name, |bytes| bytes[(bit / 8) as usize] ^= 1 << (bit % 8));
    }

    /// Changes a file behind everybody's back, durably.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let state = &mut *self.state.borrow_mut();
        let file = state.file(name).expect("the file exists");
        change(&mut file.now);
        file.sync();
    }

    /// Contents of a file.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = &mut *self.state.borrow_mut();
        state.file(name).expect("the file exists").now.clone()
    }

    /// Does all of a log op, durably.
    pub fn execute(&self, op: LogOp) -> LogDone {
        match op {
            LogOp::Write { .. } => self.finish(self.begin(op)),
            op => perform(self, op),
        }
    }

    /// Issues a write: from now on a crash leaves any part of it.
    ///
    /// # Panics
    /// When the op is not a write.
    pub fn begin(&self, op: LogOp) -> Result<Begun, LogDone> {
        let LogOp::Write {
            segment,
            offset,
            buf,
            length,
            token,
        } = op
        else {
            panic!("only a write is begun: {op:?}");
        };
        let state = &mut *self.state.borrow_mut();
        let name = segment.file_name();
        let written = match state.file(&name).map(|file| file.now.len() as u64) {
            Ok(bytes) if offset + length as u64 <= bytes => {
                state.write(&name, offset, &buf[..length])
            }
            Ok(_) => panic!("a log write beyond its segment"),
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => Ok(Begun {
                segment,
                range: offset as usize..offset as usize + length,
                buf,
                token,
            }),
            Err(error) => Err(LogDone {
                token,
                buf: Some(buf),
                result: Err(error),
                formatted_bytes: 0,
            }),
        }
    }

    /// The write is durable.
    pub fn finish(&self, begun: Result<Begun, LogDone>) -> LogDone {
        match begun {
            Ok(begun) => {
                let state = &mut *self.state.borrow_mut();
                if let Ok(file) = state.file(&begun.segment.file_name()) {
                    file.sync_range(&begun.range);
                }
                LogDone {
                    token: begun.token,
                    buf: Some(begun.buf),
                    result: Ok(()),
                    formatted_bytes: 0,
                }
            }
            Err(done) => done,
        }
    }
}

impl Disk for MemDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = &mut *self.state.borrow_mut();
        state.operation().map_err(errno)?;
        let names = state.names.iter();
        Ok(names
            .map(|(name, id)| (name.clone(), state.files[id].now.len() as u64))
            .collect())
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.operation().map_err(errno)?;
        let end = offset + buf.len() as u64;
        let bad = state
            .unreadable
            .iter()
            .any(|(file, range)| file == name && range.start < end && offset < range.end);
        if bad {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let file = state.file(name)?;
        let bytes = file.now.get(offset as usize..end as usize);
        buf.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.state.borrow_mut().write(name, offset, bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.operation().map_err(errno)?;
        state.file(name)?.sync();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.operation().map_err(errno)?;
        let id = state.names.remove(from).ok_or_else(|| not_found(from))?;
        state.names.insert(to.to_owned(), id);
        state.sync_dir();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.operation().map_err(errno)?;
        state.names.remove(name);
        state.sync_dir();
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.operation().map_err(errno)?;
        state.sync_dir();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_is_durable_and_some_of_the_rest() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..200u64 {
            let disk = MemDisk::new();
            disk.write_at("a", 0, &[1; 2048]).unwrap();
            disk.sync("a").unwrap();
            disk.sync_dir().unwrap();
            disk.write_at("a", 512, &[2; 1024]).unwrap();
            disk.write_at("b", 0, &[3; 512]).unwrap();
            let mut state = seed;
            disk.crash(&mut || {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                state >> 33
            });
            let a = disk.contents("a");
            assert_eq!((a.len(), a[0], a[2047]), (2048, 1, 1));
            match (a[512], a[1024]) {
                (2, 2) => kept += 1,
                (1, 1) => lost += 1,
                _ => torn += 1,
            }
            assert!(
                a.chunks(512)
                    .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
            );
        }
        assert!(kept > 20 && lost > 20 && torn > 20, "{kept} {lost} {torn}");
    }

    #[test]
    fn faults_strike_the_nth_operation_only() {
        let disk = MemDisk::new();
        disk.fail_at(2, Fault::Errno(libc::EIO));
        disk.write_at("a", 0, b"x").unwrap();
        assert_eq!(disk.sync("a").unwrap_err().raw_os_error(), Some(libc::EIO));
        disk.sync("a").unwrap();
        disk.set_capacity(Some(4));
        assert_eq!(
            disk.write_at("a", 2, b"abc").unwrap_err().raw_os_error(),
            Some(libc::ENOSPC)
        );
        disk.write_at("a", 2, b"ab").unwrap();
    }
}

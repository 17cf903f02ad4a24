//! What would a disk do that forgets, tears, fails and rots, and that remembers the truth?
//!
//! [`MemDisk`] is a directory in memory for tests and simulation. Until a file is made durable,
//! each write since, and each 512-byte sector of it, may or may not survive a
//! [`crash`](MemDisk::crash); names survive in the order in which they were made, up to some
//! point, and all of them once the directory was made durable. Any operation can be made to fail,
//! space can run out, places can become unreadable and bits can flip.
//!
//! It answers log ops too: an op that was [`executed`](MemDisk::execute) is durable, one that was
//! only [begun](MemDisk::begin) is torn by a crash.
//!
//! A copy shares its bytes with the original and costs about a microsecond, so a disk can
//! [`record`](MemDisk::record) itself at every write, flush, rename and removal: each such
//! *moment* is a disk of its own, to crash in every way.

mod file;
mod names;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, ErrorKind},
    ops::Range,
};

use super::{AlignedBuf, Disk, LogDone, LogOp, SegmentNo, perform};
use file::File;
use names::{NameChange, Names};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this `errno`, and without effect.
    Errno(i32),
    /// With this `errno`, although all of it happened; a write is not durable.
    Late(i32),
    /// With this `errno`: what was written is seen until the power fails, and neither durable nor
    /// ever flushed. So a kernel treats pages that it could not write (and calls the next flush a
    /// success).
    Lost(i32),
    /// A write stops half-way and fails; other operations fail with `EIO`.
    Short,
}

/// What a power cut leaves of the writes that are not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Each write is there or not.
    SomeWrites,
    /// Of each file all writes before some one, and sectors of that one.
    TornOne,
    /// Sectors of any of them.
    Torn,
}

impl Survival {
    /// Every way.
    pub const ALL: [Survival; 5] = [
        Self::Nothing,
        Self::Everything,
        Self::SomeWrites,
        Self::TornOne,
        Self::Torn,
    ];
}

/// A write that was issued and not answered.
#[derive(Debug)]
pub struct Begun {
    segment: SegmentNo,
    range: Range<usize>,
    buf: AlignedBuf,
    token: u64,
}

impl Begun {
    /// The token of the op.
    pub fn token(&self) -> u64 {
        self.token
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    files: BTreeMap<u64, File>,
    names: Names,
    durable_names: Names,
    name_changes: Vec<NameChange>,
    next_id: u64,
    operations: u64,
    fault: Option<(u64, Fault)>,
    struck: bool,
    capacity: Option<u64>,
    unreadable: Vec<(String, Range<u64>)>,
}

/// A directory in memory. A clone is an independent copy of everything but its recording.
#[derive(Debug, Default)]
pub struct MemDisk {
    state: RefCell<State>,
    moments: RefCell<Option<Vec<State>>>,
}

impl Clone for MemDisk {
    fn clone(&self) -> Self {
        Self::of(self.state.borrow().clone())
    }
}

impl State {
    /// Counts an operation; fails when it is the one that should.
    fn operation(&mut self) -> Result<(), Fault> {
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if at == self.operations => {
                self.struck = true;
                Err(fault)
            }
            _ => Ok(()),
        }
    }

    /// An operation that either happens or does not: whether it does, and what it answers.
    fn plain_operation(&mut self) -> (bool, io::Result<()>) {
        match self.operation() {
            Ok(()) => (true, Ok(())),
            Err(fault) => (matches!(fault, Fault::Late(_)), Err(error_of(fault))),
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let id = self.names.get(name).ok_or_else(|| not_found(name))?;
        Ok(self.files.get_mut(id).expect("names point to files"))
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn sync_dir(&mut self) {
        self.durable_names = self.names.clone();
        self.name_changes.clear();
        let names = &self.names;
        self.files
            .retain(|id, _| names.values().any(|named| named == id));
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.operation().err();
        if let Some(fault @ Fault::Errno(_)) = fault {
            return Err(error_of(fault));
        }
        let bytes = if fault == Some(Fault::Short) {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        let end = offset + bytes.len() as u64;
        if !self.names.contains_key(name) {
            self.next_id += 1;
            let (name, id) = (name.to_owned(), self.next_id);
            self.change_names(NameChange::Link { name, id });
            self.files.insert(id, File::default());
        }
        let used: u64 = self.files.values().map(|file| file.now.len() as u64).sum();
        let length = self.file(name)?.now.len() as u64;
        if self
            .capacity
            .is_some_and(|capacity| used + end.saturating_sub(length) > capacity)
        {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let file = self.file(name)?;
        file.write(offset as usize, bytes);
        if let Some(Fault::Lost(_)) = fault {
            file.lose();
        }
        // A device replaces a bad sector when it is written.
        self.unreadable
            .retain(|(file, range)| file != name || range.start < offset || range.end > end);
        match fault {
            Some(Fault::Short) => Err(io::Error::new(ErrorKind::WriteZero, "short write")),
            Some(fault) => Err(error_of(fault)),
            None => Ok(()),
        }
    }

    fn crash(&mut self, survival: Survival, draw: &mut dyn FnMut() -> u64) {
        let changes = self.name_changes.len() as u64;
        let kept = match survival {
            Survival::Nothing => 0,
            Survival::Everything => changes,
            _ => draw() % (changes + 1),
        };
        let mut names = self.durable_names.clone();
        for change in &self.name_changes[..kept as usize] {
            change.apply(&mut names);
        }
        self.names = names;
        self.files
            .values_mut()
            .for_each(|file| file.crash(survival, draw));
        self.sync_dir();
        self.fault = None;
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, name.to_owned())
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Errno(errno) | Fault::Late(errno) | Fault::Lost(errno) => {
            io::Error::from_raw_os_error(errno)
        }
        Fault::Short => io::Error::from_raw_os_error(libc::EIO),
    }
}

impl MemDisk {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    fn of(state: State) -> Self {
        Self {
            state: RefCell::new(state),
            moments: RefCell::new(None),
        }
    }

    /// The power fails: what was not durable survives or not, in a way that is drawn.
    pub fn crash(&self, draw: &mut dyn FnMut() -> u64) {
        let survival = Survival::ALL[(draw() % Survival::ALL.len() as u64) as usize];
        self.crash_as(survival, draw);
    }

    /// The power fails, and this much survives of what was not durable.
    pub fn crash_as(&self, survival: Survival, draw: &mut dyn FnMut() -> u64) {
        self.state.borrow_mut().crash(survival, draw);
    }

    /// Writes and names that are not durable.
    pub fn pending(&self) -> usize {
        let state = self.state.borrow();
        let writes: usize = state.files.values().map(File::pending).sum();
        writes + state.name_changes.len()
    }

    /// From now on a copy is kept after every change; what was recorded before is dropped.
    pub fn record(&self) {
        *self.moments.borrow_mut() = Some(vec![self.state.borrow().clone()]);
    }

    /// How many moments are recorded; the first is the one at which recording began.
    pub fn moments(&self) -> usize {
        self.moments.borrow().as_ref().map_or(0, Vec::len)
    }

    /// Ends the recording and returns the moments in order.
    pub fn take_moments(&self) -> Vec<MemDisk> {
        let moments = self.moments.borrow_mut().take().unwrap_or_default();
        moments.into_iter().map(Self::of).collect()
    }

    fn moment(&self, state: &State) {
        if let Some(moments) = &mut *self.moments.borrow_mut() {
            moments.push(state.clone());
        }
    }

    /// The `nth` operation from now on (from 1) fails.
    pub fn fail_at(&self, nth: u64, fault: Fault) {
        let state = &mut *self.state.borrow_mut();
        state.fault = Some((state.operations + nth, fault));
        state.struck = false;
    }

    /// Whether the fault that was asked for last has struck.
    pub fn struck(&self) -> bool {
        self.state.borrow().struck
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

    /// Flips one bit of a file, durably.
    pub fn flip(&self, name: &str, bit: u64) {
        let state = &mut *self.state.borrow_mut();
        let file = state.file(name).expect("the file exists");
        file.now.flip(bit);
        file.settle();
    }

    /// Changes a file behind everybody's back, durably.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let state = &mut *self.state.borrow_mut();
        let file = state.file(name).expect("the file exists");
        let mut bytes = file.now.to_vec();
        change(&mut bytes);
        file.now.resize(bytes.len());
        file.now.write(0, &bytes);
        file.settle();
    }

    /// Contents of a file.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let state = &mut *self.state.borrow_mut();
        state.file(name).expect("the file exists").now.to_vec()
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
        self.moment(state);
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
                self.moment(state);
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
        state.plain_operation().1?;
        let names = state.names.iter();
        Ok(names
            .map(|(name, id)| (name.clone(), state.files[id].now.len() as u64))
            .collect())
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.plain_operation().1?;
        let end = offset + buf.len() as u64;
        let bad = state
            .unreadable
            .iter()
            .any(|(file, range)| file == name && range.start < end && offset < range.end);
        if bad {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        match state.file(name)?.now.read(offset as usize, buf) {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let result = state.write(name, offset, bytes);
        self.moment(state);
        result
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        match state.operation() {
            Ok(()) | Err(Fault::Late(_)) => state.file(name)?.sync(),
            Err(Fault::Lost(_)) => state.file(name)?.lose(),
            Err(_) => {}
        }
        let result = match state.fault.filter(|fault| fault.0 == state.operations) {
            Some((_, fault)) => Err(error_of(fault)),
            None => Ok(()),
        };
        self.moment(state);
        result
    }

    fn drop_cached(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.plain_operation().1?;
        state.file(name)?.drop_cached();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        {
            let state = &mut *self.state.borrow_mut();
            let (happens, result) = state.plain_operation();
            if happens {
                state.names.get(from).ok_or_else(|| not_found(from))?;
                let (from, to) = (from.to_owned(), to.to_owned());
                state.change_names(NameChange::Rename { from, to });
            }
            self.moment(state);
            result?;
        }
        self.sync_dir()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        {
            let state = &mut *self.state.borrow_mut();
            let (happens, result) = state.plain_operation();
            if happens && state.names.contains_key(name) {
                let name = name.to_owned();
                state.change_names(NameChange::Unlink { name });
            }
            self.moment(state);
            result?;
        }
        self.sync_dir()
    }

    fn sync_dir(&self) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let (happens, result) = state.plain_operation();
        if happens {
            state.sync_dir();
        }
        self.moment(state);
        result
    }
}

#[cfg(test)]
mod tests;

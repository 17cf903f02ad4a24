//! How are segments read from end to end in bounded memory?
//!
//! Through one window that slides forward. What cannot be read (a read error, a file that is too
//! short) is filled with a pattern that fails every check: to the log, a sector that the device
//! will not give back is a damaged sector, no more and no less. Other failures (no permission, no
//! file descriptor) say nothing about the bytes and are errors.

use std::{collections::BTreeMap, io};

use crate::io::{
    AlignedBuf, BLOCK_BYTES, Disk, SectorKey, SegmentNo,
    sector::{self, SECTOR_BYTES, Stamp, Verified},
};

use super::{LogError, format::Place};

/// How much is read at a time, bytes; a longer batch is read whole.
const WINDOW_BYTES: u64 = 2 * 1024 * 1024;
const UNREADABLE: u8 = 0xA5;

/// The segment files of a log, readable at any place.
pub(super) struct Scan<'a> {
    disk: &'a dyn Disk,
    pub key: SectorKey,
    /// Existing segment files and their lengths.
    pub files: BTreeMap<SegmentNo, u64>,
    window: AlignedBuf,
    start: Place,
    filled: usize,
    pub bytes_read: u64,
}

impl<'a> Scan<'a> {
    pub fn new(disk: &'a dyn Disk, key: SectorKey) -> Result<Self, LogError> {
        let files = disk
            .list()
            .map_err(LogError::io("list", "the log directory"))?;
        let segments = files
            .into_iter()
            .filter_map(|(name, length)| Some((SegmentNo::parse(&name)?, length)));
        let files: BTreeMap<_, _> = segments.collect();
        for segment in files.keys() {
            let name = segment.file_name();
            disk.drop_cached(&name)
                .map_err(LogError::io("drop the cached pages of", name))?;
        }
        let longest = files.values().copied().max().unwrap_or(0);
        Ok(Self {
            disk,
            key,
            files,
            window: AlignedBuf::new(longest.min(WINDOW_BYTES) as usize),
            start: Place::default(),
            filled: 0,
            bytes_read: 0,
        })
    }

    /// Whether the file has a block at this place.
    pub fn has(&self, place: Place, bytes: u64) -> bool {
        let length = self.files.get(&place.segment);
        length.is_some_and(|length| place.offset + bytes <= *length)
    }

    /// `bytes` bytes from `place` on, whole blocks; what cannot be read does not verify.
    pub fn read(&mut self, place: Place, bytes: usize) -> Result<&[u8], LogError> {
        let held = place.segment == self.start.segment
            && place.offset >= self.start.offset
            && place.offset + bytes as u64 <= self.start.offset + self.filled as u64;
        if !held {
            self.load(place, bytes)?;
        }
        let at = (place.offset - self.start.offset) as usize;
        Ok(&self.window[at..at + bytes])
    }

    /// The `no`-th sector from `place` on.
    pub fn sector(&mut self, place: Place, no: usize) -> Result<Option<Verified>, LogError> {
        let at = no * SECTOR_BYTES / BLOCK_BYTES * BLOCK_BYTES;
        let block = Place {
            segment: place.segment,
            offset: place.offset + at as u64,
        };
        let key = self.key;
        let within = no * SECTOR_BYTES - at;
        let bytes = &self.read(block, BLOCK_BYTES)?[within..within + SECTOR_BYTES];
        Ok(sector::verify(
            bytes,
            key,
            (block.offset + within as u64) / SECTOR_BYTES as u64,
        ))
    }

    fn load(&mut self, place: Place, bytes: usize) -> Result<(), LogError> {
        if bytes > self.window.len() {
            self.window = AlignedBuf::new(bytes);
        }
        let length = self.files.get(&place.segment).copied().unwrap_or(0);
        let there = length
            .saturating_sub(place.offset)
            .min(self.window.len() as u64) as usize;
        let there = there / BLOCK_BYTES * BLOCK_BYTES;
        self.start = place;
        self.filled = there.max(bytes);
        self.window[there..self.filled.max(there)].fill(UNREADABLE);
        self.bytes_read += there as u64;
        let name = place.segment.file_name();
        match self
            .disk
            .read_at(&name, place.offset, &mut self.window[..there])
        {
            Ok(()) => Ok(()),
            Err(error) if is_unreadable(&error) => self.load_blocks(&name, place.offset, there),
            Err(error) => {
                self.filled = 0;
                Err(LogError::io("read", name)(error))
            }
        }
    }

    /// Block by block, so that one bad block does not hide its neighbours.
    fn load_blocks(&mut self, name: &str, offset: u64, there: usize) -> Result<(), LogError> {
        for (no, block) in self.window[..there].chunks_mut(BLOCK_BYTES).enumerate() {
            match self
                .disk
                .read_at(name, offset + (no * BLOCK_BYTES) as u64, block)
            {
                Ok(()) => {}
                Err(error) if is_unreadable(&error) => block.fill(UNREADABLE),
                Err(error) => return Err(LogError::io("read", name)(error)),
            }
        }
        Ok(())
    }
}

/// Whether the error says that these bytes cannot be had, rather than that we may not ask.
fn is_unreadable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
        || matches!(
            error.raw_os_error(),
            Some(
                libc::EIO
                    | libc::EREMOTEIO
                    | libc::EILSEQ
                    | libc::ENODATA
                    | libc::EUCLEAN
                    | libc::EBADMSG
            )
        )
}

/// Whether a sector was written after the last accepted batch.
pub(super) fn is_newer(sector: Option<Verified>, last: Stamp) -> bool {
    sector.is_some_and(|sector| sector.stamp > last)
}

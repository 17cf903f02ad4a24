//! The last resort of a server that has no peers.
//!
//! `curia log repair --cut-tail` ends the log where something is missing, so that it opens
//! again. Everything from there on is gone from the log, which may have been acknowledged: so it
//! is kept aside first, byte for byte, and the operator is told. Where several places are
//! damaged the log is cut at the latest one before which nothing is missing.
//!
//! Each step can be interrupted and run again: copies are durable before anything is
//! overwritten, and segments are set aside by renaming, the last first.

use crate::io::{
    BLOCK_BYTES, Disk, SegmentNo, prepare_segment,
    sector::{self, SECTOR_BYTES},
};

use super::{
    CorruptAt, LogConfig, LogError, LogIdentity,
    format::Place,
    recovery::{Found, find, walk_until},
};

/// How much is copied at a time, bytes.
const PIECE_BYTES: usize = 1024 * 1024;

/// What was cut off a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where the log ends now, and what was found there.
    pub at: CorruptAt,
    /// Files in the log's directory that keep what was cut off.
    pub kept: Vec<String>,
    /// Entries that the log still has.
    pub entries: u64,
}

/// Cuts the log where something is missing. `None`: nothing is, and nothing was changed.
///
/// # Errors
/// [`LogError::Undecided`] when no cut makes the log whole; otherwise as
/// [`Log::recover`](super::Log::recover).
pub fn repair_cut_tail(
    disk: &dyn Disk,
    config: &LogConfig,
    identity: LogIdentity,
) -> Result<Option<Cut>, LogError> {
    let found = find(disk, identity)?;
    let Some(missing) = found.missing() else {
        return Ok(None);
    };
    let Some((place, at)) = cut_place(disk, identity, &found)? else {
        return Err(LogError::Undecided { at: missing });
    };
    let mut kept = set_later_segments_aside(disk, &found, place)?;
    kept.extend(end_segment(disk, config, identity, &found, place)?);
    let after = find(disk, identity)?;
    match after.missing() {
        Some(at) => Err(LogError::Undecided { at }),
        None => Ok(Some(Cut {
            at,
            kept,
            entries: after.report.entries,
        })),
    }
}

/// The latest loss before which nothing is missing.
fn cut_place(
    disk: &dyn Disk,
    identity: LogIdentity,
    found: &Found,
) -> Result<Option<(Place, CorruptAt)>, LogError> {
    for (place, at) in found.losses.iter().rev() {
        let before = walk_until(disk, identity, Some(*place), &mut |_| Ok(()))?;
        // A log of nothing would not be this server's log.
        if before.missing().is_none() && before.report.batches > 0 {
            return Ok(Some((*place, at.clone())));
        }
    }
    Ok(None)
}

fn set_later_segments_aside(
    disk: &dyn Disk,
    found: &Found,
    place: Place,
) -> Result<Vec<String>, LogError> {
    let mut kept = Vec::new();
    for segment in found
        .files
        .keys()
        .rev()
        .take_while(|no| **no > place.segment)
    {
        let name = segment.file_name();
        let aside = unused_name(disk, &format!("{name}.cut"))?;
        disk.rename(&name, &aside)
            .map_err(LogError::io("rename", name))?;
        kept.push(aside);
    }
    Ok(kept)
}

/// Makes everything from the place on blank, as if it had never been written.
fn end_segment(
    disk: &dyn Disk,
    config: &LogConfig,
    identity: LogIdentity,
    found: &Found,
    place: Place,
) -> Result<Option<String>, LogError> {
    let name = place.segment.file_name();
    let Some(length) = found.files.get(&place.segment).copied() else {
        prepare_segment(
            disk,
            place.segment,
            None,
            config.segment_bytes,
            identity.key(),
        )
        .map_err(LogError::io("create", name))?;
        return Ok(None);
    };
    let aside = unused_name(disk, &format!("{name}.{}.cut", place.offset))?;
    copy_aside(disk, &name, place.offset..length, &aside)?;
    let end = length
        .next_multiple_of(BLOCK_BYTES as u64)
        .max(config.segment_bytes);
    blank(disk, identity, place.segment, place.offset..end)?;
    Ok(Some(aside))
}

fn copy_aside(
    disk: &dyn Disk,
    name: &str,
    range: std::ops::Range<u64>,
    aside: &str,
) -> Result<(), LogError> {
    let mut piece = vec![0; PIECE_BYTES];
    for offset in range.clone().step_by(PIECE_BYTES) {
        let length = (range.end - offset).min(PIECE_BYTES as u64) as usize;
        read_what_can_be_read(disk, name, offset, &mut piece[..length]);
        disk.write_at(aside, offset - range.start, &piece[..length])
            .map_err(LogError::io("write", aside))?;
    }
    if range.is_empty() {
        disk.write_at(aside, 0, &[])
            .map_err(LogError::io("write", aside))?;
    }
    disk.sync(aside).map_err(LogError::io("flush", aside))?;
    disk.sync_dir()
        .map_err(LogError::io("flush", "the log directory"))
}

/// Sector by sector where it must be; what the device does not give back is kept as zeros.
fn read_what_can_be_read(disk: &dyn Disk, name: &str, offset: u64, piece: &mut [u8]) {
    if disk.read_at(name, offset, piece).is_ok() {
        return;
    }
    for (no, sector) in piece.chunks_mut(SECTOR_BYTES).enumerate() {
        if disk
            .read_at(name, offset + (no * SECTOR_BYTES) as u64, sector)
            .is_err()
        {
            sector.fill(0);
        }
    }
}

/// From the end towards the place: until the last piece is written, the damage is still found.
fn blank(
    disk: &dyn Disk,
    identity: LogIdentity,
    segment: SegmentNo,
    range: std::ops::Range<u64>,
) -> Result<(), LogError> {
    let name = segment.file_name();
    let mut pieces: Vec<u64> = range.clone().step_by(PIECE_BYTES).collect();
    let mut piece = vec![0; PIECE_BYTES];
    while let Some(offset) = pieces.pop() {
        let length = (range.end - offset).min(PIECE_BYTES as u64) as usize;
        sector::format_blank(
            &mut piece[..length],
            identity.key(),
            offset / SECTOR_BYTES as u64,
        );
        disk.write_at(&name, offset, &piece[..length])
            .map_err(LogError::io("write", &name))?;
        disk.sync(&name).map_err(LogError::io("flush", &name))?;
    }
    Ok(())
}

fn unused_name(disk: &dyn Disk, wanted: &str) -> Result<String, LogError> {
    let mut name = wanted.to_owned();
    for attempt in 2.. {
        let taken = disk
            .length(&name)
            .map_err(LogError::io("look for", &name))?;
        if taken.is_none() {
            break;
        }
        name = format!("{wanted}.{attempt}");
    }
    Ok(name)
}

//! What is in a log, and is it whole? Offline.
//!
//! `curia log inspect` walks exactly as recovery does and prints what it sees: each batch with
//! its place and verdict, each record if asked for, each shard's state at the end, the files.
//! It changes nothing, and it must not run beside a server that writes.

use std::io::{self, Write};

use crate::io::{Disk, SegmentNo};

use super::{
    CorruptAt, LogError, LogIdentity, Verdict,
    format::{
        BatchHeader, CheckpointBody, FLAG_CLOSES, FLAG_MARK, RecordHeader, RecordKind, Records,
    },
    gapped::GapReader,
    recovery::{Found, Seen, walk_until},
};

/// What an inspection found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Whole batches.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Places that are damaged, with those that hold nothing needed.
    pub corrupt: Vec<CorruptAt>,
    /// Where the log ends; `None` when that cannot be decided.
    pub end: Option<CorruptAt>,
    /// What a lone server would refuse to start for.
    pub missing: Option<CorruptAt>,
}

impl Inspection {
    /// Whether every byte that the log holds is as it was written.
    pub fn is_sound(&self) -> bool {
        self.corrupt.is_empty() && self.missing.is_none()
    }
}

/// Prints and verifies the log in `disk`; `records`: every record too. The exit status of the
/// command is [`Inspection::is_sound`].
///
/// # Errors
/// As [`Log::recover`](super::Log::recover), where nothing can be walked at all; and what writing
/// to `out` reports.
pub fn inspect(
    disk: &dyn Disk,
    identity: LogIdentity,
    records: bool,
    out: &mut dyn Write,
) -> Result<Inspection, LogError> {
    let printed = |result: io::Result<()>| result.map_err(LogError::io("write", "the output"));
    let mut segment = None;
    let found = walk_until(disk, identity, None, &mut |seen| {
        printed(match seen {
            Seen::Batch(header, bytes, verdict) => {
                print_batch(header, bytes, verdict, records, &mut segment, out)
            }
            Seen::Lost(at) => writeln!(out, "!! {at}"),
            Seen::End(at) => writeln!(out, "-- {at}"),
        })
    })?;
    printed(print_shards(&found, out))?;
    printed(print_files(&found, out))?;
    let inspection = Inspection {
        batches: found.report.batches,
        entries: found.report.entries,
        corrupt: found.report.corrupt.clone(),
        end: found.report.end.clone(),
        missing: found.missing(),
    };
    printed(print_summary(&inspection, out))?;
    Ok(inspection)
}

fn print_batch(
    header: &BatchHeader,
    bytes: &[u8],
    verdict: Verdict,
    records: bool,
    segment: &mut Option<SegmentNo>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let place = header.place;
    if segment.replace(place.segment) != Some(place.segment) {
        writeln!(out, "{}", place.segment.file_name())?;
    }
    let mut flags = String::new();
    for (bit, name) in [(FLAG_MARK, " mark"), (FLAG_CLOSES, " closes")] {
        if header.flags & bit != 0 {
            flags.push_str(name);
        }
    }
    writeln!(
        out,
        "  offset {:>9}  lsn {:>8}  incarnation {}  bytes {:>8}  records {:>5}  durable {:>8}  oldest {}{flags}  {verdict}",
        place.offset,
        header.stamp.lsn,
        header.stamp.incarnation,
        header.disk_bytes(),
        header.records,
        header.durable,
        header.oldest,
    )?;
    if records {
        for (record, body) in Records::new(bytes, header).flatten() {
            print_record(&record, body, out)?;
        }
    }
    Ok(())
}

fn print_record(
    record: &RecordHeader,
    mut body: GapReader<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let RecordHeader {
        shard,
        term,
        index,
        prev,
        length,
        sub,
        ..
    } = record;
    match record.kind {
        RecordKind::Entry => writeln!(
            out,
            "    shard {shard} entry {index} term {term} after term {prev} kind {sub} bytes {length}"
        ),
        RecordKind::Fill => {
            writeln!(
                out,
                "    shard {shard} entry {index} term {term} restored kind {sub} bytes {length}"
            )
        }
        RecordKind::HardState => writeln!(
            out,
            "    shard {shard} hard state term {term} vote {prev} commit {index}{}",
            doubt(*sub)
        ),
        RecordKind::Checkpoint => {
            let mut bytes = Vec::new();
            body.append_to(&mut bytes, *length as usize);
            let body = CheckpointBody::decode(&bytes).unwrap_or_default();
            writeln!(
                out,
                "    shard {shard} checkpoint term {term} vote {prev} commit {index} snapshot {}/{} last {}/{} configuration {} bytes{}",
                body.snapshot_index,
                body.snapshot_term,
                body.last_index,
                body.last_term,
                body.configuration.len(),
                doubt(*sub)
            )
        }
        RecordKind::SegmentHead => writeln!(out, "    segment head, {index} bytes"),
    }
}

fn doubt(bits: u8) -> &'static str {
    if bits == 0 { "" } else { " IN DOUBT" }
}

fn print_shards(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    for (shard, index) in found.replay.shards.iter() {
        let state = index.hard_state;
        writeln!(
            out,
            "shard {shard}: entries {}..={} snapshot {}/{} term {} vote {} commit {}{}",
            index.first_index(),
            index.last_index(),
            index.snapshot_index,
            index.snapshot_term,
            state.term,
            state.vote,
            state.commit,
            doubt(index.doubt_bits())
        )?;
        for gap in index.gaps() {
            let last = gap.last.map_or("?".to_owned(), |last| last.to_string());
            writeln!(
                out,
                "shard {shard}: entries {}..={last} are missing",
                gap.first
            )?;
        }
    }
    Ok(())
}

fn print_files(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    let end = found.end.map_or(found.newest_segment, |end| end.segment);
    for (segment, bytes) in &found.files {
        let role = match segment {
            segment if *segment < found.oldest => "free",
            segment if *segment > end => "prepared",
            _ => "live",
        };
        writeln!(out, "{}  {bytes} bytes  {role}", segment.file_name())?;
    }
    Ok(())
}

fn print_summary(inspection: &Inspection, out: &mut dyn Write) -> io::Result<()> {
    let Inspection {
        batches,
        entries,
        corrupt,
        missing,
        ..
    } = inspection;
    writeln!(
        out,
        "{batches} batches, {entries} entries, {} damaged places",
        corrupt.len()
    )?;
    for at in corrupt {
        writeln!(out, "damaged: {at}")?;
    }
    match missing {
        None if corrupt.is_empty() => writeln!(out, "the log is whole"),
        None => writeln!(out, "nothing that is needed is missing"),
        Some(at) => writeln!(
            out,
            "something is missing, from {at}: peers can restore it; a server without peers will not start"
        ),
    }
}

//! Torn, corrupt, or simply the end?
//!
//! Recovery walks the log batch by batch. Where the next batch must begin (the place is always
//! determined: the block after the last batch, or the start of the next segment when that batch
//! *closes* its segment) it gathers evidence, and [`judge`] turns the evidence into a verdict.
//! This table is the contract; it has a test per row, and nothing else decides.
//!
//! The rule behind every row: *a batch may be dropped only if it cannot have been acknowledged.*
//! An acknowledged batch has every one of its sectors on disk. So an intact older sector in the
//! place of a newer one proves that the write did not finish, unless a later batch names it
//! durable; a damaged sector proves nothing, and where nothing is proven nothing is dropped.
//!
//! | # | sector at the place    | rest of the batch            | later batches      | verdict |
//! |---|------------------------|------------------------------|--------------------|---------|
//! | 1 | next batch's header    | all its sectors current      | any                | whole |
//! | 2 | next batch's header    | damage only after its records| any                | whole, damage reported |
//! | 3 | next batch's header    | damage within its records    | any                | corrupt: damaged |
//! | 4 | next batch's header    | sectors of a later batch of the same incarnation | any | corrupt: overwritten |
//! | 5 | next batch's header    | current, but records make no sense | any          | corrupt: malformed |
//! | 6 | next batch's header    | current, but chained to another predecessor | any | spliced: refuse |
//! | 7 | next batch's header    | sectors missing (older or a later start's)  | one names it durable | corrupt: lost write |
//! | 8 | next batch's header    | sectors missing              | none names it      | torn |
//! | 9 | older, or blank        |                              | one names it durable | corrupt: lost write |
//! |10 | older, or blank        |                              | some, none names it | torn |
//! |11 | older, or blank        |                              | nothing newer      | end |
//! |12 | a newer batch's sector, not the next one's header |   | any                | corrupt: out of place |
//! |13 | whole, but written for another place |                | any                | corrupt: misdirected |
//! |14 | damaged or unreadable  |                              | any                | corrupt: damaged |
//! |15 | no such file           |                              | any                | corrupt: missing segment |

use std::fmt;

/// What the sector at the place of the next batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The whole header of the batch with the next number.
    Next(Body),
    /// Whole, and older than the last accepted batch: blank, or of the file's earlier life, or of
    /// a torn batch that an earlier recovery dropped.
    Older,
    /// Whole and newer, but not the header of the batch that belongs here.
    OutOfPlace,
    /// Whole, but the header says that it was written for another place.
    Misdirected,
    /// Its check fails, or it cannot be read.
    Damaged,
    /// The segment file does not exist.
    Missing,
}

/// What the rest of a batch is whose header is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// All sectors belong to the batch, and the records parse.
    Whole,
    /// All sectors that carry records are whole; one of the padding is not.
    PaddingDamaged,
    /// A sector that carries records is damaged or unreadable.
    Damaged,
    /// A sector belongs to a later batch of the same incarnation, which never writes here.
    Overwritten,
    /// All sectors are whole, but the records contradict themselves.
    Malformed,
    /// Whole, but it continues another predecessor.
    Spliced,
    /// No sector is damaged, but some were never written, or were overwritten by the torn attempt
    /// of a later start.
    Unfinished,
}

/// What lies after the place of the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    /// No sector newer than the last accepted batch.
    Nothing,
    /// Newer sectors, but no batch header that names the batch in question durable.
    Unnamed,
    /// A batch header that names it durable.
    Names,
}

/// What recovery makes of a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A batch; it counts.
    Whole,
    /// A batch; it counts. Some of its padding is damaged, which holds nothing.
    WholePaddingDamaged,
    /// The log ends here.
    End,
    /// A write that did not finish and was not acknowledged; it and what follows are dropped.
    Torn,
    /// Something that was or may have been acknowledged cannot be read. Its place is kept.
    Corrupt(Cause),
    /// A whole batch of another history. Nothing can be decided; the log is not opened.
    Spliced,
}

/// Why a place is corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A checksum fails, or the device reports a read error.
    Damaged,
    /// Older bytes where a batch was durable: the device lost a write.
    LostWrite,
    /// A later batch wrote over it.
    Overwritten,
    /// All checksums pass, but the records make no sense.
    Malformed,
    /// A batch that does not belong here.
    OutOfPlace,
    /// A batch that was meant for another place.
    Misdirected,
    /// A segment file that the log knows of does not exist.
    MissingSegment,
}

/// The table at the head of this file.
pub(super) fn judge(head: Head, later: Later) -> Verdict {
    match (head, later) {
        (Head::Older, Later::Names) if mutant!(LostWriteIsTheEnd) => Verdict::End,
        (Head::Next(Body::Whole), _) => Verdict::Whole,
        (Head::Next(Body::PaddingDamaged), _) => Verdict::WholePaddingDamaged,
        (Head::Next(Body::Damaged), _) => Verdict::Corrupt(Cause::Damaged),
        (Head::Next(Body::Overwritten), _) => Verdict::Corrupt(Cause::Overwritten),
        (Head::Next(Body::Malformed), _) => Verdict::Corrupt(Cause::Malformed),
        (Head::Next(Body::Spliced), _) => Verdict::Spliced,
        (Head::Next(Body::Unfinished), Later::Names) => Verdict::Corrupt(Cause::LostWrite),
        (Head::Next(Body::Unfinished), Later::Unnamed | Later::Nothing) => Verdict::Torn,
        (Head::Older, Later::Names) => Verdict::Corrupt(Cause::LostWrite),
        (Head::Older, Later::Unnamed) => Verdict::Torn,
        (Head::Older, Later::Nothing) => Verdict::End,
        (Head::OutOfPlace, _) => Verdict::Corrupt(Cause::OutOfPlace),
        (Head::Misdirected, _) => Verdict::Corrupt(Cause::Misdirected),
        (Head::Damaged, _) => Verdict::Corrupt(Cause::Damaged),
        (Head::Missing, _) => Verdict::Corrupt(Cause::MissingSegment),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("whole"),
            Self::WholePaddingDamaged => f.write_str("whole (padding damaged)"),
            Self::End => f.write_str("end of log"),
            Self::Torn => f.write_str("torn write, never acknowledged"),
            Self::Corrupt(cause) => write!(f, "corrupt: {cause}"),
            Self::Spliced => f.write_str("a batch that continues another history"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "checksum mismatch or read error",
            Self::LostWrite => "older bytes in the place of a batch that was durable (lost write)",
            Self::Overwritten => "overwritten by a later batch",
            Self::Malformed => "records contradict themselves",
            Self::OutOfPlace => "a batch that does not belong here",
            Self::Misdirected => "a batch that was written for another place (misdirected write)",
            Self::MissingSegment => "the segment file is missing",
        })
    }
}

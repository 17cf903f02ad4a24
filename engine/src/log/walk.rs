//! Batch by batch, what is there?
//!
//! [`Walk`] goes from one determined place to the next, gathers the evidence that
//! [`judge`] wants, and says what to make of it. It knows positions and headers, not shards:
//! recovery, inspection and repair are three listeners to the same walk.
//!
//! After something corrupt the walk goes on only at a batch of a run that *names the lost one
//! durable*. A later batch that does not may be the remains of writes that an earlier recovery
//! has dropped; taking it for the continuation would bring back what was never acknowledged.

use crate::io::{
    BLOCK_BYTES, Disk, SegmentNo,
    sector::{self, SECTOR_BYTES, Stamp},
};

use super::{
    CorruptAt, LogError, LogIdentity,
    format::{
        BatchHeader, CheckpointBody, FORMAT_VERSION, HEADER_BYTES, NotAHeader, Place, RecordKind,
        Records, fold,
    },
    gapped::physical,
    scan::{Scan, is_newer},
    verdict::{Body, Cause, Head, Later, Verdict, judge},
};

const SECTORS_PER_BLOCK: usize = BLOCK_BYTES / SECTOR_BYTES;

/// One step of the walk.
#[derive(Debug)]
pub(super) enum Step {
    /// A batch that counts; its bytes are [`Walk::batch`].
    Batch {
        header: BatchHeader,
        padding_damaged: bool,
    },
    /// The log ends here, by an end or by a torn write.
    End { at: CorruptAt, place: Place },
    /// Something corrupt.
    Lost(Lost),
}

/// Something that was or may have been acknowledged and cannot be read.
#[derive(Debug)]
pub(super) struct Lost {
    pub at: CorruptAt,
    pub place: Place,
    /// The header of what was lost, when it is whole and all that was lost.
    pub header: Option<BatchHeader>,
    /// Whether the walk goes on behind it.
    pub resumes: bool,
}

/// What look-ahead found behind a place.
#[derive(Debug, Default)]
struct Ahead {
    newer: bool,
    resume: Option<BatchHeader>,
}

/// A walk through a log.
pub(super) struct Walk<'a> {
    pub scan: Scan<'a>,
    identity: LogIdentity,
    place: Place,
    /// Of the last accepted batch.
    last: Stamp,
    /// Number of the next batch; `None` at the first.
    expect: Option<u64>,
    /// Digest of the last batch, when it is known.
    pub digest: Option<u64>,
    /// The newest stamp seen anywhere.
    pub newest_incarnation: u32,
    pub newest_lsn: u64,
    /// The last segment that holds anything newer than the last accepted batch.
    pub newest_segment: SegmentNo,
    current: Option<(Place, usize)>,
}

impl<'a> Walk<'a> {
    /// From the first segment that may be needed on.
    pub fn new(disk: &'a dyn Disk, identity: LogIdentity) -> Result<Self, LogError> {
        let mut scan = Scan::new(disk, identity.key())?;
        let start = first_needed(&mut scan, &identity)?;
        Ok(Self {
            scan,
            identity,
            place: Place {
                segment: start,
                offset: 0,
            },
            last: Stamp::BLANK,
            expect: None,
            digest: None,
            newest_incarnation: 0,
            newest_lsn: 0,
            newest_segment: start,
            current: None,
        })
    }

    /// Where the next step looks.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Number of the batch that would come next.
    pub fn next_lsn(&self) -> u64 {
        self.expect.unwrap_or(1)
    }

    /// The bytes of the batch that the last step accepted.
    pub fn batch(&mut self) -> Result<&[u8], LogError> {
        let (place, bytes) = self.current.expect("the last step was a batch");
        self.scan.read(place, bytes)
    }

    /// The next step. After [`Step::End`], or a loss that does not resume, there is none.
    pub fn step(&mut self) -> Result<Step, LogError> {
        let place = self.place;
        let (head, header, digest) = self.examine()?;
        let certain = matches!(head, Head::Next(Body::Whole | Body::PaddingDamaged));
        let ahead = if certain {
            Ahead::default()
        } else {
            self.look_ahead(header.as_ref())?
        };
        let later = match (&ahead.resume, ahead.newer) {
            (Some(_), _) => Later::Names,
            // Only segment 1 may be empty: a higher number says that there were lower ones.
            _ if self.expect.is_none() && place.segment > SegmentNo(1) => Later::Names,
            (None, true) => Later::Unnamed,
            (None, false) => Later::Nothing,
        };
        let verdict = judge(head, later);
        let at = CorruptAt {
            file: place.segment.file_name(),
            offset: place.offset,
            verdict,
        };
        match verdict {
            Verdict::Whole | Verdict::WholePaddingDamaged => {
                let header = header.expect("judged by its header");
                self.accept(&header, digest);
                let padding_damaged = verdict == Verdict::WholePaddingDamaged;
                Ok(Step::Batch {
                    header,
                    padding_damaged,
                })
            }
            Verdict::Corrupt(_) if mutant!(CutOnCorruption) => Ok(Step::End { at, place }),
            Verdict::End | Verdict::Torn => Ok(Step::End { at, place }),
            Verdict::Spliced => Err(LogError::Spliced(at)),
            Verdict::Corrupt(_) => self.lose(at, header, ahead).map(Step::Lost),
        }
    }

    fn accept(&mut self, header: &BatchHeader, digest: Option<u64>) {
        self.current = Some((header.place, header.disk_bytes() as usize));
        self.place = header.next_place();
        self.last = header.stamp;
        self.expect = Some(header.stamp.lsn + 1);
        self.digest = digest;
        self.note(header.stamp, header.place.segment);
    }

    fn note(&mut self, stamp: Stamp, segment: SegmentNo) {
        self.newest_incarnation = self.newest_incarnation.max(stamp.incarnation);
        self.newest_lsn = self.newest_lsn.max(stamp.lsn);
        self.newest_segment = self.newest_segment.max(segment);
    }

    fn lose(
        &mut self,
        at: CorruptAt,
        header: Option<BatchHeader>,
        ahead: Ahead,
    ) -> Result<Lost, LogError> {
        let place = self.place;
        let resumes = ahead.resume.is_some();
        let alone = match (&header, &ahead.resume) {
            (None, _) => false,
            // The first head is all that is known of what came before it.
            _ if self.expect.is_none() => false,
            (Some(header), Some(resume)) => header.stamp.lsn + 1 == resume.stamp.lsn,
            (Some(header), None) => !ahead.newer && self.has_older_sector(header.next_place())?,
        };
        self.digest = None;
        if let Some(resume) = &ahead.resume {
            self.place = resume.place;
            self.expect = Some(resume.stamp.lsn);
        }
        Ok(Lost {
            at,
            place,
            header: header.filter(|_| alone),
            resumes,
        })
    }

    /// What is at the place of the next batch: the evidence, the header if it is whole, the
    /// digest if all of it is.
    fn examine(&mut self) -> Result<(Head, Option<BatchHeader>, Option<u64>), LogError> {
        let place = self.place;
        if !self.scan.files.contains_key(&place.segment) {
            return Ok((Head::Missing, None, None));
        }
        let head = match self.scan.sector(place, 0)? {
            None if self.has_older_sector(place)? => Head::Older,
            None if self.is_misdirected(place)? => Head::Misdirected,
            None => Head::Damaged,
            Some(sector) if sector.stamp <= self.last => Head::Older,
            Some(sector) if !sector.head => Head::OutOfPlace,
            Some(sector) => {
                let header = decode(&mut self.scan, &self.identity, place)?;
                let expected = self.expect.is_none_or(|lsn| lsn == header.stamp.lsn);
                if header.place != place {
                    Head::Misdirected
                } else if header.stamp != sector.stamp || !expected {
                    Head::OutOfPlace
                } else {
                    let (body, digest) = self.body(&header)?;
                    return Ok((Head::Next(body), Some(header), digest));
                }
            }
        };
        Ok((head, None, None))
    }

    /// Whether an intact sector of the block proves that no write of the whole block finished.
    fn has_older_sector(&mut self, place: Place) -> Result<bool, LogError> {
        for no in 0..SECTORS_PER_BLOCK {
            let sector = self.scan.sector(place, no)?;
            if sector.is_some_and(|sector| sector.stamp <= self.last) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A sector that does not verify here, but does at the place that it names.
    fn is_misdirected(&mut self, place: Place) -> Result<bool, LogError> {
        let key = self.scan.key;
        let sector = &self.scan.read(place, BLOCK_BYTES)?[..SECTOR_BYTES];
        let Ok(header) = BatchHeader::decode(sector) else {
            return Ok(false);
        };
        let home = header.place.offset / SECTOR_BYTES as u64;
        Ok(sector::verify(sector, key, home).is_some())
    }

    fn body(&mut self, header: &BatchHeader) -> Result<(Body, Option<u64>), LogError> {
        let place = header.place;
        let bytes = header.disk_bytes();
        if !self.scan.has(place, bytes) {
            return Ok((Body::Damaged, None));
        }
        let key = self.scan.key;
        let expected_digest = self.digest;
        let batch = self.scan.read(place, bytes as usize)?;
        let records_end = physical(HEADER_BYTES + header.record_bytes as usize);
        let (mut unfinished, mut overwritten, mut damaged, mut padding) =
            (false, false, false, false);
        let mut digest = 0;
        let first = place.offset / SECTOR_BYTES as u64;
        for (no, bytes) in batch.chunks_exact(SECTOR_BYTES).enumerate() {
            match sector::verify(bytes, key, first + no as u64) {
                None if no * SECTOR_BYTES >= records_end => padding = true,
                None => damaged = true,
                Some(sector) if sector.stamp == header.stamp => digest = fold(digest, sector.check),
                Some(sector)
                    if sector.stamp.incarnation == header.stamp.incarnation
                        && sector.stamp.lsn > header.stamp.lsn =>
                {
                    overwritten = true;
                }
                Some(_) => unfinished = true,
            }
        }
        // The first batch after a start does not know a predecessor whose padding was damaged.
        let unknown =
            header.previous_digest == 0 && header.stamp.incarnation > self.last.incarnation;
        let chained =
            unknown || expected_digest.is_none_or(|digest| digest == header.previous_digest);
        let body = match () {
            () if unfinished => Body::Unfinished,
            () if overwritten => Body::Overwritten,
            () if damaged => Body::Damaged,
            () if !chained => Body::Spliced,
            () if !is_well_formed(batch, header) => Body::Malformed,
            () if padding => Body::PaddingDamaged,
            () => Body::Whole,
        };
        Ok((body, (body == Body::Whole).then_some(digest)))
    }

    /// Everything behind the place of the next batch, up to a batch that names it durable.
    fn look_ahead(&mut self, header: Option<&BatchHeader>) -> Result<Ahead, LogError> {
        let mut ahead = Ahead::default();
        let mut run: Option<(BatchHeader, BatchHeader)> = None;
        let own = header.map(|header| header.stamp);
        let files: Vec<_> = self
            .scan
            .files
            .range(self.place.segment..)
            .map(|(no, bytes)| (*no, *bytes))
            .collect();
        for (segment, bytes) in files {
            let mut offset = if segment == self.place.segment {
                self.place.offset
            } else {
                0
            };
            while offset + BLOCK_BYTES as u64 <= bytes {
                let place = Place { segment, offset };
                offset += BLOCK_BYTES as u64;
                let heads = self.look_at_block(place, own, &mut ahead)?;
                if !heads || place == self.place {
                    continue;
                }
                let header = decode(&mut self.scan, &self.identity, place)?;
                if header.place != place {
                    continue;
                }
                let continues = run.as_ref().is_some_and(|(_, before)| {
                    before.next_place() == place
                        && before.stamp.incarnation == header.stamp.incarnation
                        && before.stamp.lsn + 1 == header.stamp.lsn
                });
                let first = match run.take() {
                    Some((first, _)) if continues => first,
                    _ => header.clone(),
                };
                let lost = self
                    .expect
                    .unwrap_or_else(|| first.stamp.lsn.saturating_sub(1).max(1));
                if header.durable >= lost && first.stamp.lsn > lost {
                    ahead.resume = Some(first);
                    return Ok(ahead);
                }
                run = Some((first, header));
            }
        }
        Ok(ahead)
    }

    /// Notes what is newer in a block, and not of the batch in question itself; whether it begins
    /// with a newer head.
    fn look_at_block(
        &mut self,
        place: Place,
        own: Option<Stamp>,
        ahead: &mut Ahead,
    ) -> Result<bool, LogError> {
        let mut heads = false;
        for no in 0..SECTORS_PER_BLOCK {
            let sector = self.scan.sector(place, no)?;
            if !is_newer(sector, self.last) {
                continue;
            }
            let sector = sector.expect("a newer sector is whole");
            ahead.newer |= Some(sector.stamp) != own;
            heads |= no == 0 && sector.head;
            self.note(sector.stamp, place.segment);
        }
        Ok(heads)
    }
}

/// The header at a place whose first sector is whole and a head.
fn decode(
    scan: &mut Scan<'_>,
    identity: &LogIdentity,
    place: Place,
) -> Result<BatchHeader, LogError> {
    let file = place.segment.file_name();
    match BatchHeader::decode(&scan.read(place, BLOCK_BYTES)?[..SECTOR_BYTES]) {
        Ok(header) if header.log_id == identity.log_id => Ok(header),
        Ok(header) => Err(LogError::Foreign {
            file,
            found: header.log_id,
            expected: identity.log_id,
        }),
        Err(NotAHeader::Version(found)) => Err(LogError::Version {
            file,
            found,
            supported: FORMAT_VERSION,
        }),
        Err(NotAHeader::Magic) => Err(LogError::Corrupt(CorruptAt {
            file,
            offset: place.offset,
            verdict: Verdict::Corrupt(Cause::Malformed),
        })),
    }
}

fn is_well_formed(batch: &[u8], header: &BatchHeader) -> bool {
    Records::new(batch, header).all(|record| {
        record.is_some_and(|(record, mut body)| match record.kind {
            RecordKind::Checkpoint => {
                let mut bytes = Vec::new();
                body.append_to(&mut bytes, record.length as usize);
                CheckpointBody::decode(&bytes).is_some()
            }
            RecordKind::HardState | RecordKind::SegmentHead => record.length == 0,
            RecordKind::Entry | RecordKind::Fill => record.index > 0 && record.term > 0,
        })
    })
}

/// The first segment that may hold something needed: what the newest head says that a later one
/// proves durable. Without such a pair all files are walked.
fn first_needed(scan: &mut Scan<'_>, identity: &LogIdentity) -> Result<SegmentNo, LogError> {
    let files: Vec<SegmentNo> = scan.files.keys().copied().collect();
    let Some(lowest) = files.first().copied() else {
        return Err(LogError::Empty);
    };
    let mut later: Option<BatchHeader> = None;
    let mut foreign = None;
    for segment in files.into_iter().rev() {
        let place = Place { segment, offset: 0 };
        match scan.sector(place, 0)? {
            Some(sector) if sector.head => {
                let header = decode(scan, identity, place)?;
                if header.place != place {
                    continue;
                }
                if later.is_some_and(|later| later.durable >= header.stamp.lsn) {
                    return Ok(header.oldest.max(lowest));
                }
                later = Some(header);
            }
            Some(_) => {}
            None => foreign = foreign.or(foreign_id(scan, identity, place)?),
        }
    }
    match (later, foreign) {
        (None, Some(found)) => Err(LogError::Foreign {
            file: lowest.file_name(),
            found,
            expected: identity.log_id,
        }),
        _ => Ok(lowest),
    }
}

/// Another log's sectors look damaged, since its key differs; the reason deserves to be named.
/// An id that differs in a few bits only is damage.
fn foreign_id(
    scan: &mut Scan<'_>,
    identity: &LogIdentity,
    place: Place,
) -> Result<Option<u64>, LogError> {
    let sector = &scan.read(place, BLOCK_BYTES)?[..SECTOR_BYTES];
    let header = BatchHeader::decode(sector).ok();
    Ok(header
        .map(|header| header.log_id)
        .filter(|id| (id ^ identity.log_id).count_ones() >= 8))
}

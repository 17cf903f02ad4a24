//! The verdict table, row by row: what recovery makes of it, with peers and alone.

use super::*;
use crate::io::{
    BLOCK_BYTES, SegmentNo,
    sector::{self, SECTOR_BYTES, Stamp},
};
use crate::log::{
    format::RECORD_HEADER_BYTES,
    verdict::{Body, Head, Later, judge},
};

const BLOCK: u64 = BLOCK_BYTES as u64;

fn first() -> String {
    SegmentNo(1).file_name()
}

/// A log of `count` batches of one entry each, one block each; batch n is in block n - 1.
fn batches(count: u64) -> Rig {
    let mut rig = Rig::new(small());
    rig.log.put_hard_state(S0, hard_state(1, 7, 0), true);
    for index in 1..=count {
        rig.append(S0, index, 1, &data(index, 1, 900));
        rig.run();
    }
    rig
}

/// Replaces whole sectors, without making them right.
fn put_sectors(disk: &MemDisk, at: u64, bytes: &[u8]) {
    disk.edit(&first(), |file| {
        file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes)
    });
}

fn sectors(disk: &MemDisk, at: u64, count: usize) -> Vec<u8> {
    disk.contents(&first())[at as usize..at as usize + count * SECTOR_BYTES].to_vec()
}

/// What the place held before anything was written.
fn blank(at: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count * SECTOR_BYTES];
    sector::format_blank(&mut bytes, IDENTITY.key(), at / SECTOR_BYTES as u64);
    bytes
}

/// Changes one sector and makes its stamp and check right again.
fn reseal(disk: &MemDisk, at: u64, stamp: Stamp, head: bool, change: impl FnOnce(&mut [u8])) {
    let mut bytes = sectors(disk, at, 1);
    change(&mut bytes);
    sector::seal(
        &mut bytes,
        IDENTITY.key(),
        at / SECTOR_BYTES as u64,
        stamp,
        head,
    );
    put_sectors(disk, at, &bytes);
}

fn stamp(lsn: u64) -> Stamp {
    Stamp {
        incarnation: 1,
        lsn,
    }
}

/// Recovers with peers; returns what is believed of shard 0.
fn with_peers(disk: &MemDisk) -> (Rig, Recovered) {
    Rig::reopen(disk.clone(), small(), false).unwrap()
}

fn refused_alone(disk: &MemDisk, offset: u64, cause: Cause) {
    let error = Rig::reopen(disk.clone(), small(), true)
        .err()
        .expect("a lone server refuses");
    let LogError::Undecided { at } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (at.file.as_str(), at.offset, at.verdict),
        (first().as_str(), offset, Verdict::Corrupt(cause))
    );
    let text = error.to_string();
    assert!(
        text.contains("curia log repair --cut-tail") && text.contains(&first()),
        "{text}"
    );
}

/// Batch 3 of five is corrupt: entry 3 is a gap that a peer can prove, the rest stays.
fn corrupt_in_the_middle(disk: &MemDisk, cause: Cause) {
    refused_alone(disk, 2 * BLOCK, cause);
    let (mut rig, recovered) = with_peers(disk);
    let at = CorruptAt {
        file: first(),
        offset: 2 * BLOCK,
        verdict: Verdict::Corrupt(cause),
    };
    assert_eq!(recovered.report.corrupt, [at]);
    let shard = &recovered.shards[&S0];
    assert_eq!(
        (shard.last_index, shard.checkpoint.hard_state.vote),
        (Index(5), 7)
    );
    assert_eq!(shard.gaps.len(), 1);
    let gap = shard.gaps[0];
    assert_eq!(
        (gap.last, gap.next),
        (Some(Index(3)), Some((Index(4), Term(1))))
    );
    assert!(gap.first <= Index(3));
    assert!(matches!(
        rig.log.read_blocking(&rig.disk, S0, Index(3), Index(5), 1),
        Err(LogError::InGap {
            index: Index(3),
            ..
        })
    ));
    assert_eq!(rig.range(S0, 4, 5).len(), 2);
    restore(&mut rig, gap);
    settle(&mut rig);
    let (rig, recovered) = Rig::reopen(rig.disk, small(), true).unwrap();
    assert!(recovered.shards[&S0].gaps.is_empty());
    assert_eq!(
        rig.entries(S0),
        (1..=5).map(|i| (i, 1, data(i, 1, 900))).collect::<Vec<_>>()
    );
}

fn restore(rig: &mut Rig, gap: Gap) {
    for index in gap.first.0..=gap.last.unwrap().0 {
        let data = bytes::Bytes::from(data(index, 1, 900));
        rig.log.fill_gap(
            S0,
            &[Entry {
                index: Index(index),
                term: Term(1),
                kind: 0,
                data,
            }],
        );
    }
    rig.run();
    assert_eq!(
        rig.log
            .gaps(S0)
            .iter()
            .filter(|gap| gap.last.is_some())
            .count(),
        0
    );
}

fn settle(rig: &mut Rig) {
    if rig.log.hard_state_in_doubt(S0) {
        rig.log.settle_hard_state(S0);
        rig.run();
    }
}

/// Batch 3, the last one, is corrupt: what it held is in doubt until settled, also after
/// restarts, and is never written over.
fn corrupt_at_the_tail(disk: &MemDisk, cause: Cause) {
    refused_alone(disk, 2 * BLOCK, cause);
    let before = sectors(disk, 2 * BLOCK, 8);
    let (mut rig, recovered) = with_peers(disk);
    assert_eq!(recovered.report.end, None);
    for _ in 0..2 {
        let shard = &rig.log.gaps(S0);
        assert_eq!(shard.last().unwrap().last, None);
        assert!(rig.log.hard_state_in_doubt(S0));
        assert_eq!(rig.log.last_index(S0), Index(2));
        // Work goes on, but the doubt stays.
        rig.log.put_hard_state(S0, hard_state(1, 7, 2), true);
        rig.run();
        rig = Rig::reopen(rig.disk, small(), false).unwrap().0;
    }
    rig.append(S0, 3, 1, &data(3, 1, 900));
    rig.log.settle_hard_state(S0);
    rig.run();
    assert_eq!(
        sectors(&rig.disk, 2 * BLOCK, 8),
        before,
        "the place is kept"
    );
    let (rig, recovered) = Rig::reopen(rig.disk, small(), true).unwrap();
    assert!(!recovered.shards[&S0].hard_state_in_doubt && recovered.shards[&S0].gaps.is_empty());
    assert_eq!(rig.entries(S0).len(), 3);
}

/// Batch 3, the last one, was not acknowledged: it goes, and its place is used again.
fn torn_at_the_tail(disk: &MemDisk, verdict: Verdict) {
    let (mut rig, recovered) = Rig::reopen(disk.clone(), small(), true).unwrap();
    let end = recovered.report.end.unwrap();
    assert_eq!((end.offset, end.verdict), (2 * BLOCK, verdict));
    assert_eq!(recovered.shards[&S0].last_index, Index(2));
    assert_eq!(recovered.report.corrupt, []);
    rig.append(S0, 3, 2, &data(3, 2, 900));
    rig.run();
    let (rig, _) = rig.restart();
    assert_eq!(rig.entries(S0)[2], (3, 2, data(3, 2, 900)));
}

#[test]
fn the_table_covers_every_combination() {
    use Verdict::{Corrupt, End, Spliced, Torn, Whole, WholePaddingDamaged};
    let rows = [
        (Head::Next(Body::Whole), [Whole; 3]),
        (Head::Next(Body::PaddingDamaged), [WholePaddingDamaged; 3]),
        (Head::Next(Body::Damaged), [Corrupt(Cause::Damaged); 3]),
        (
            Head::Next(Body::Overwritten),
            [Corrupt(Cause::Overwritten); 3],
        ),
        (Head::Next(Body::Malformed), [Corrupt(Cause::Malformed); 3]),
        (Head::Next(Body::Spliced), [Spliced; 3]),
        (
            Head::Next(Body::Unfinished),
            [Torn, Torn, Corrupt(Cause::LostWrite)],
        ),
        (Head::Older, [End, Torn, Corrupt(Cause::LostWrite)]),
        (Head::OutOfPlace, [Corrupt(Cause::OutOfPlace); 3]),
        (Head::Misdirected, [Corrupt(Cause::Misdirected); 3]),
        (Head::Damaged, [Corrupt(Cause::Damaged); 3]),
        (Head::Missing, [Corrupt(Cause::MissingSegment); 3]),
    ];
    for (head, verdicts) in rows {
        for (later, verdict) in [Later::Nothing, Later::Unnamed, Later::Names]
            .into_iter()
            .zip(verdicts)
        {
            assert_eq!(judge(head, later), verdict, "{head:?} {later:?}");
        }
    }
}

#[test]
fn row_1_whole() {
    let (rig, recovered) = batches(5).restart();
    assert_eq!(recovered.report.batches, 5);
    assert_eq!(rig.entries(S0).len(), 5);
}

#[test]
fn row_2_damage_in_padding_is_reported_and_harmless() {
    for batch in [3, 5] {
        let rig = batches(5);
        rig.disk
            .flip(&first(), ((batch - 1) * BLOCK + 5 * 512 + 100) * 8);
        let (mut rig, recovered) = Rig::reopen(rig.disk, small(), true).unwrap();
        let at = CorruptAt {
            file: first(),
            offset: (batch - 1) * BLOCK,
            verdict: Verdict::WholePaddingDamaged,
        };
        assert_eq!(recovered.report.corrupt, [at]);
        rig.append(S0, 6, 1, &data(6, 1, 900));
        rig.run();
        let (rig, _) = rig.restart();
        assert_eq!(rig.entries(S0).len(), 6);
    }
}

#[test]
fn row_3_damage_within_records() {
    let rig = batches(5);
    rig.disk.flip(&first(), (2 * BLOCK + 512 + 100) * 8);
    corrupt_in_the_middle(&rig.disk, Cause::Damaged);
    let rig = batches(3);
    rig.disk.flip(&first(), (2 * BLOCK + 512 + 100) * 8);
    corrupt_at_the_tail(&rig.disk, Cause::Damaged);
}

#[test]
fn row_4_overwritten_by_a_later_batch() {
    let rig = batches(5);
    reseal(&rig.disk, 2 * BLOCK + 512, stamp(4), false, |_| {});
    corrupt_in_the_middle(&rig.disk, Cause::Overwritten);
    let rig = batches(3);
    reseal(&rig.disk, 2 * BLOCK + 512, stamp(4), false, |_| {});
    corrupt_at_the_tail(&rig.disk, Cause::Overwritten);
}

#[test]
fn row_5_records_that_make_no_sense() {
    let nonsense = |disk: &MemDisk, field: usize| {
        reseal(disk, 2 * BLOCK, stamp(3), true, |sector| {
            sector[104 + field] ^= 0x55
        });
    };
    for field in [0, 6] {
        let rig = batches(5);
        nonsense(&rig.disk, field);
        corrupt_in_the_middle(&rig.disk, Cause::Malformed);
    }
    let rig = batches(3);
    nonsense(&rig.disk, 6);
    corrupt_at_the_tail(&rig.disk, Cause::Malformed);
    assert_eq!(RECORD_HEADER_BYTES, 32);
}

#[test]
fn row_6_a_batch_of_another_history_is_refused_by_everyone() {
    let rig = batches(2);
    let mut other = Rig::reopen(rig.disk.clone(), small(), true).unwrap().0;
    let mut one = Rig::reopen(rig.disk, small(), true).unwrap().0;
    one.append(S0, 3, 1, b"one history");
    one.run();
    one.append(S0, 4, 1, b"goes on");
    one.run();
    other.append(S0, 3, 1, b"another");
    other.run();
    other.append(S0, 4, 1, b"goes on");
    other.run();
    let block = sectors(&other.disk, 3 * BLOCK, 8);
    put_sectors(&one.disk, 3 * BLOCK, &block);
    for lone in [false, true] {
        let error = Rig::reopen(one.disk.clone(), small(), lone).err().unwrap();
        assert!(
            matches!(&error, LogError::Spliced(at) if at.offset == 3 * BLOCK),
            "{error}"
        );
    }
}

#[test]
fn rows_7_and_8_sectors_missing() {
    // Named durable by what follows: the device lost a write.
    let rig = batches(5);
    put_sectors(&rig.disk, 2 * BLOCK + 512, &blank(2 * BLOCK + 512, 3));
    corrupt_in_the_middle(&rig.disk, Cause::LostWrite);
    // Named by nothing: torn.
    let rig = batches(3);
    put_sectors(&rig.disk, 2 * BLOCK + 512, &blank(2 * BLOCK + 512, 3));
    torn_at_the_tail(&rig.disk, Verdict::Torn);
    // Torn and damaged: an intact older sector still proves that it did not finish.
    let rig = batches(3);
    put_sectors(&rig.disk, 2 * BLOCK + 512, &blank(2 * BLOCK + 512, 1));
    rig.disk.flip(&first(), (2 * BLOCK + 1024) * 8);
    torn_at_the_tail(&rig.disk, Verdict::Torn);
}

#[test]
fn rows_7_and_9_a_mark_makes_a_lost_tail_visible() {
    for from in [0, 512] {
        let mut rig = batches(3);
        rig.now = 200_000_000;
        rig.run();
        put_sectors(
            &rig.disk,
            2 * BLOCK + from,
            &blank(2 * BLOCK + from, (8 - from / 512) as usize),
        );
        refused_alone(&rig.disk, 2 * BLOCK, Cause::LostWrite);
        let (rig, recovered) = with_peers(&rig.disk);
        assert_eq!(recovered.report.batches, 3, "the mark itself counts");
        assert!(rig.log.hard_state_in_doubt(S0));
    }
}

#[test]
fn row_9_a_whole_batch_lost() {
    let rig = batches(5);
    put_sectors(&rig.disk, 2 * BLOCK, &blank(2 * BLOCK, 8));
    corrupt_in_the_middle(&rig.disk, Cause::LostWrite);
}

#[test]
fn row_10_followers_in_flight_are_dropped_with_a_torn_batch() {
    let config = LogConfig {
        segment_bytes: 1024 * 1024,
        batch_bytes_max: 128 * 1024,
        log_bytes_max: 16 * 1024 * 1024,
        ..small()
    };
    for header_written in [false, true] {
        let mut rig = Rig::new(config.clone());
        rig.append(S0, 1, 1, b"durable");
        rig.run();
        rig.append(S0, 2, 1, &data(2, 1, 70_000));
        let mut writes = rig.ops();
        rig.append(S0, 3, 1, &data(3, 1, 70_000));
        writes.extend(rig.ops());
        assert_eq!(writes.len(), 2);
        let first_write = writes.remove(0);
        if header_written {
            let LogOp::Write { buf, .. } = &first_write else {
                panic!()
            };
            put_sectors(&rig.disk, BLOCK, &buf[..512]);
        }
        rig.disk.execute(writes.remove(0));
        let (mut rig, recovered) = Rig::reopen(rig.disk, config.clone(), true).unwrap();
        assert_eq!(recovered.report.end.unwrap().verdict, Verdict::Torn);
        assert_eq!(recovered.shards[&S0].last_index, Index(1));
        // A shorter batch in the same place must not be followed by the remains.
        rig.append(S0, 2, 2, b"short");
        rig.run();
        let (rig, recovered) = Rig::reopen(rig.disk, config.clone(), true).unwrap();
        assert_eq!(recovered.shards[&S0].last_index, Index(2));
        // Nor when that batch is damaged: the remains name nothing durable.
        rig.disk.flip(&first(), BLOCK * 8);
        let (_, recovered) = Rig::reopen(rig.disk, config.clone(), false).unwrap();
        assert_eq!(recovered.shards[&S0].last_index, Index(1));
        assert!(recovered.shards[&S0].hard_state_in_doubt);
    }
}

#[test]
fn row_11_the_end_also_with_rot_in_unused_space() {
    let rig = batches(2);
    for bit in [2 * BLOCK * 8, (2 * BLOCK + 600) * 8, 5 * BLOCK * 8] {
        rig.disk.flip(&first(), bit);
    }
    torn_at_the_tail(&rig.disk, Verdict::End);
}

#[test]
fn row_12_a_newer_sector_where_the_next_batch_should_begin() {
    let rig = batches(2);
    reseal(&rig.disk, 2 * BLOCK, stamp(9), false, |_| {});
    corrupt_at_the_tail(&rig.disk, Cause::OutOfPlace);
    // A batch is missing in between.
    let rig = batches(3);
    reseal(&rig.disk, 2 * BLOCK, stamp(4), true, |sector| {
        sector[40] = 4
    });
    corrupt_at_the_tail(&rig.disk, Cause::OutOfPlace);
}

#[test]
fn row_13_a_misdirected_write() {
    let rig = batches(5);
    let block = sectors(&rig.disk, 4 * BLOCK, 8);
    put_sectors(&rig.disk, 2 * BLOCK, &block);
    corrupt_in_the_middle(&rig.disk, Cause::Misdirected);
    // To the right offset of the wrong file.
    let rig = batches(3);
    reseal(&rig.disk, 2 * BLOCK, stamp(3), true, |sector| {
        sector[24] = 2
    });
    corrupt_at_the_tail(&rig.disk, Cause::Misdirected);
}

#[test]
fn row_14_damaged_unreadable_zeroed_or_truncated() {
    let rig = batches(5);
    rig.disk.flip(&first(), 2 * BLOCK * 8);
    corrupt_in_the_middle(&rig.disk, Cause::Damaged);
    let rig = batches(3);
    rig.disk.flip(&first(), (2 * BLOCK + 505) * 8);
    corrupt_at_the_tail(&rig.disk, Cause::Damaged);
    // Zeros are not the end of the log.
    let rig = batches(3);
    put_sectors(&rig.disk, 2 * BLOCK, &[0; BLOCK_BYTES]);
    corrupt_at_the_tail(&rig.disk, Cause::Damaged);
    // A read error is a bad checksum.
    let rig = batches(5);
    rig.disk.make_unreadable(&first(), 2 * BLOCK..3 * BLOCK);
    let at = Rig::reopen(rig.disk.clone(), small(), true).err().unwrap();
    assert!(matches!(at, LogError::Undecided { at } if at.offset == 2 * BLOCK));
    let (_, recovered) = with_peers(&rig.disk);
    assert_eq!(recovered.shards[&S0].gaps[0].last, Some(Index(3)));
    // So is a file that became shorter.
    let rig = batches(3);
    rig.disk
        .edit(&first(), |file| file.truncate(2 * BLOCK_BYTES));
    refused_alone(&rig.disk, 2 * BLOCK, Cause::Damaged);
    // The first batch of all.
    let rig = batches(3);
    rig.disk.flip(&first(), 8 * 100);
    refused_alone(&rig.disk, 0, Cause::Damaged);
    let (_, recovered) = with_peers(&rig.disk);
    assert_eq!(recovered.report.batches, 2);
    assert!(
        recovered.shards[&S0].hard_state_in_doubt,
        "its vote was only in the first batch"
    );
}

#[test]
fn row_15_a_missing_segment() {
    let mut rig = Rig::new(small());
    for index in 1..=40 {
        rig.append(S0, index, 1, &data(index, 1, 900));
        rig.run();
    }
    assert!(rig.log.stats().segments_live >= 3);
    let refuse = |gone: &[u64]| {
        let disk = rig.disk.clone();
        for no in gone {
            crate::io::Disk::remove(&disk, &SegmentNo(*no).file_name()).unwrap();
        }
        let error = Rig::reopen(disk.clone(), small(), true)
            .err()
            .expect("refused");
        assert!(
            matches!(&error, LogError::Undecided { .. }),
            "{gone:?}: {error}"
        );
        Rig::reopen(disk, small(), false).unwrap().1
    };
    let recovered = refuse(&[2]);
    assert_eq!(
        recovered.report.corrupt[0].verdict,
        Verdict::Corrupt(Cause::MissingSegment)
    );
    assert_eq!(
        recovered.shards[&S0].gaps.len(),
        1,
        "the entries of the missing segment"
    );
    assert!(recovered.shards[&S0].last_index == Index(40));
    let recovered = refuse(&[1]);
    assert_eq!(recovered.shards[&S0].gaps[0].first, Index(1));
    // The newest ones: the close of the segment before says that there was another.
    let recovered = refuse(&[3, 4]);
    assert!(recovered.shards[&S0].hard_state_in_doubt);
    refuse(&[1, 2, 3]);
}

#[test]
fn a_lost_batch_that_may_have_replaced_entries_puts_them_in_doubt() {
    // Entries 3 and 4 of term 1 are replaced by a batch that is then lost, but for its
    // successor: keeping the old ones would be a silent divergence.
    for damaged_header in [false, true] {
        let mut rig = Rig::new(small());
        rig.log.put_hard_state(S0, hard_state(1, 7, 2), true);
        for index in 1..=4 {
            rig.append(S0, index, 1, &data(index, 1, 900));
        }
        rig.run();
        rig.log.put_hard_state(S0, hard_state(2, 7, 2), true);
        rig.append(S0, 3, 2, &data(3, 2, 900));
        rig.append(S0, 4, 2, &data(4, 2, 900));
        rig.run();
        rig.append(S0, 5, 2, &data(5, 2, 900));
        rig.run();
        let sector = if damaged_header { 0 } else { 1 };
        rig.disk.flip(&first(), (BLOCK + sector * 512 + 9) * 8);
        let (rig, recovered) = with_peers(&rig.disk);
        let gaps = &recovered.shards[&S0].gaps;
        assert_eq!(gaps[0].first, Index(3), "above the last commit");
        assert_eq!(
            (gaps[0].last, gaps[0].next),
            (Some(Index(4)), Some((Index(5), Term(2))))
        );
        assert_eq!(rig.range(S0, 1, 2).len(), 2);
    }
}

#[test]
fn log_matching_proves_that_a_lost_batch_held_nothing_of_a_shard() {
    let mut rig = Rig::new(small());
    rig.append(S0, 1, 1, b"x");
    rig.append(S1, 1, 1, b"x");
    rig.run();
    rig.append(S1, 2, 1, b"lost");
    rig.run();
    rig.append(S0, 2, 1, b"y");
    rig.append(S1, 3, 1, b"y");
    rig.log.put_hard_state(S0, hard_state(1, 1, 1), true);
    rig.log.put_hard_state(S1, hard_state(1, 1, 1), true);
    rig.run();
    rig.disk.flip(&first(), (BLOCK + 9) * 8);
    let (_, recovered) = with_peers(&rig.disk);
    assert_eq!(recovered.shards[&S0].gaps, []);
    assert!(
        !recovered.shards[&S0].hard_state_in_doubt && !recovered.shards[&S1].hard_state_in_doubt
    );
    let gap = Gap {
        first: Index(2),
        last: Some(Index(2)),
        next: Some((Index(3), Term(1))),
    };
    assert_eq!(
        recovered.shards[&S1].gaps,
        [Gap {
            first: recovered.shards[&S1].gaps[0].first,
            ..gap
        }]
    );
}

#[test]
fn another_log_and_a_newer_format_are_refused_by_name() {
    let rig = batches(2);
    let other = LogIdentity {
        log_id: !IDENTITY.log_id,
        ..IDENTITY
    };
    let error = Log::recover(&rig.disk, small(), other, false).unwrap_err();
    assert!(
        matches!(error, LogError::Foreign { found, .. } if found == IDENTITY.log_id),
        "{error}"
    );
    reseal(&rig.disk, 0, stamp(1), true, |sector| sector[8] = 2);
    let error = Log::recover(&rig.disk, small(), IDENTITY, false).unwrap_err();
    assert!(
        matches!(error, LogError::Version { found: 2, .. }),
        "{error}"
    );
}

#[test]
fn a_batch_copied_into_a_value_is_not_believed() {
    // The value holds the exact bytes of a later batch, at every alignment that it could have.
    let mut rig = Rig::new(LogConfig {
        batch_bytes_max: 32 * 1024,
        ..small()
    });
    rig.append(S0, 1, 1, b"x");
    rig.run();
    let mut ahead = Rig::reopen(rig.disk.clone(), small(), true).unwrap().0;
    for index in 2..=6 {
        ahead.append(S0, index, 9, b"forged");
        ahead.run();
    }
    let forged = ahead.disk.contents(&first())[2 * BLOCK_BYTES..6 * BLOCK_BYTES].to_vec();
    for shift in 0..600 {
        let mut rig = Rig::reopen(rig.disk.clone(), small(), true).unwrap().0;
        let mut value = vec![0; shift];
        value.extend_from_slice(&forged);
        value.truncate(rig.log.config().entry_bytes_max());
        rig.append(S0, 2, 1, &value);
        rig.run();
        // The batch with the value is damaged, so that recovery looks for what follows it.
        rig.disk.flip(&first(), (BLOCK + 3) * 8);
        let (_, recovered) = with_peers(&rig.disk);
        assert_eq!(recovered.shards[&S0].last_index, Index(1), "shift {shift}");
        assert_eq!(recovered.report.batches, 1);
    }
}

/// Headers and file names whose segment had the last number of all were believed, and the segment after
/// it was counted: an overflow where overflows are checked, and segment 0 where not. (Fuzz target
/// `log_bytes`, which seals what it writes.)
#[test]
fn numbers_that_no_log_comes_to_are_none_of_a_logs() {
    let last = SegmentNo(u64::MAX);
    assert_eq!(SegmentNo::parse(&last.file_name()), None);
    assert_eq!(
        SegmentNo::parse(&SegmentNo::MAX.file_name()),
        Some(SegmentNo::MAX)
    );
    for (at, name) in [
        (24, "segment"),
        (40, "lsn"),
        (64, "durable"),
        (72, "oldest"),
    ] {
        let rig = batches(5);
        reseal(&rig.disk, 2 * BLOCK, stamp(3), true, |sector| {
            sector[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        });
        for lone in [true, false] {
            let opened = Rig::reopen(rig.disk.clone(), small(), lone);
            let error = opened
                .err()
                .expect("sealed nonsense is refused")
                .to_string();
            assert!(error.contains(&first()), "{name}: {error}");
        }
    }
}

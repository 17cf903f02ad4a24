//! `curia log inspect` and `curia log repair --cut-tail`, as functions.

use super::*;
use crate::{
    io::{Disk, SegmentNo, mem::Fault},
    log::{inspect, repair_cut_tail},
};

fn filled(entries: u64) -> Rig {
    let mut rig = Rig::new(small());
    rig.log
        .put_checkpoint(S0, checkpoint(hard_state(1, 7, 0), 0, 0));
    for index in 1..=entries {
        rig.append(S0, index, 1, &data(index, 1, 900));
        rig.run();
    }
    rig
}

fn inspected(disk: &MemDisk, records: bool) -> (Inspection, String) {
    let mut out = Vec::new();
    let inspection = inspect(disk, IDENTITY, records, &mut out).unwrap();
    (inspection, String::from_utf8(out).unwrap())
}

#[test]
fn inspect_prints_what_is_there_and_changes_nothing() {
    let mut rig = filled(20);
    rig.log.put_hard_state(S0, hard_state(2, 8, 20), true);
    rig.run();
    rig.now = 1_000_000_000;
    rig.run();
    let before: Vec<_> = rig.disk.list().unwrap();
    let (inspection, text) = inspected(&rig.disk, true);
    assert!(inspection.is_sound());
    assert_eq!(inspection.entries, 20);
    for line in [
        "0000000000000002.segment\n",
        "    shard 0 entry 7 term 1 after term 1 kind 0 bytes 900\n",
        "    shard 0 hard state term 2 vote 8 commit 20\n",
        "    segment head, 65536 bytes\n",
        " closes  whole\n",
        " mark  whole\n",
        "shard 0: entries 1..=20 snapshot 0/0 term 2 vote 8 commit 20\n",
        "0000000000000003.segment  65536 bytes  prepared\n",
        "the log is whole\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(rig.disk.list().unwrap(), before);
    assert!(!inspected(&rig.disk, false).1.contains("entry 7"));
}

#[test]
fn inspect_locates_damage() {
    let rig = filled(5);
    let name = SegmentNo(1).file_name();
    rig.disk.flip(&name, (2 * 4096 + 700) * 8);
    let (inspection, text) = inspected(&rig.disk, false);
    assert!(!inspection.is_sound());
    assert_eq!(inspection.missing.as_ref().unwrap().offset, 8192);
    for line in [
        "!! 0000000000000001.segment at offset 8192: corrupt: checksum mismatch or read error\n",
        "shard 0: entries 3..=3 are missing\n",
        "1 damaged places\n",
        "something is missing, from 0000000000000001.segment at offset 8192",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let other = LogIdentity {
        log_id: !1,
        salt: 1,
    };
    assert!(matches!(
        inspect(&rig.disk, other, false, &mut Vec::new()),
        Err(LogError::Foreign { .. })
    ));
}

#[test]
fn repair_changes_nothing_that_is_whole() {
    let rig = filled(5);
    let name = SegmentNo(1).file_name();
    let before = rig.disk.contents(&name);
    assert_eq!(
        repair_cut_tail(&rig.disk, &small(), IDENTITY).unwrap(),
        None
    );
    // Damaged padding is no reason to cut.
    rig.disk.flip(&name, (2 * 4096 + 3000) * 8);
    assert_eq!(
        repair_cut_tail(&rig.disk, &small(), IDENTITY).unwrap(),
        None
    );
    rig.disk.flip(&name, (2 * 4096 + 3000) * 8);
    assert_eq!(rig.disk.contents(&name), before);
}

#[test]
fn repair_cuts_where_something_is_missing_and_keeps_the_bytes() {
    // In the middle of a segment, with two more behind it.
    let rig = filled(40);
    let name = SegmentNo(2).file_name();
    let offset = 5 * 4096;
    rig.disk.flip(&name, (offset + 700) * 8);
    let segment = rig.disk.contents(&name);
    assert!(Rig::reopen(rig.disk.clone(), small(), true).is_err());
    let cut = repair_cut_tail(&rig.disk, &small(), IDENTITY)
        .unwrap()
        .unwrap();
    assert_eq!(
        (cut.at.file.as_str(), cut.at.offset),
        (name.as_str(), offset)
    );
    assert_eq!(cut.kept.len(), 3);
    let aside = cut.kept.last().unwrap();
    assert_eq!(rig.disk.contents(aside), segment[offset as usize..]);
    let (mut rig, recovered) = rig.restart();
    let last = recovered.shards[&S0].last_index.0;
    assert_eq!((last, cut.entries), (21, 21));
    for index in last + 1..last + 60 {
        rig.append(S0, index, 2, &data(index, 2, 900));
        rig.run();
    }
    let (rig, _) = rig.restart();
    assert_eq!(rig.entries(S0).len(), last as usize + 59);
}

#[test]
fn repair_of_missing_truncated_and_unreadable_segments() {
    let rig = filled(40);
    let name = |no| SegmentNo(no).file_name();
    let check = |disk: MemDisk, entries: std::ops::Range<u64>| {
        let cut = repair_cut_tail(&disk, &small(), IDENTITY).unwrap().unwrap();
        disk.make_readable();
        let (mut rig, recovered) = Rig::reopen(disk, small(), true).unwrap();
        assert!(
            entries.contains(&recovered.shards[&S0].last_index.0),
            "{cut:?}"
        );
        let next = recovered.shards[&S0].last_index.0 + 1;
        rig.append(S0, next, 5, b"goes on");
        rig.run();
        rig.restart();
    };
    let disk = rig.disk.clone();
    disk.remove(&name(2)).unwrap();
    check(disk, 14..18);
    let disk = rig.disk.clone();
    disk.edit(&name(2), |file| file.truncate(3 * 4096 + 100));
    check(disk, 17..20);
    let disk = rig.disk.clone();
    disk.make_unreadable(&name(3), 0..4096);
    check(disk, 30..34);
    // Without its first head nothing would be left: refused, and nothing is touched.
    let disk = rig.disk.clone();
    disk.flip(&name(1), 800);
    let before = disk.contents(&name(1));
    assert!(matches!(
        repair_cut_tail(&disk, &small(), IDENTITY),
        Err(LogError::Undecided { .. })
    ));
    assert_eq!(disk.contents(&name(1)), before);
}

#[test]
fn an_interrupted_repair_is_run_again() {
    let rig = filled(40);
    rig.disk
        .flip(&SegmentNo(2).file_name(), (5 * 4096 + 700) * 8);
    let whole = rig.disk.clone();
    let before = whole.operations();
    repair_cut_tail(&whole, &small(), IDENTITY).unwrap();
    let operations = whole.operations() - before;
    for nth in 1..=operations {
        let disk = rig.disk.clone();
        disk.fail_at(nth, Fault::Errno(libc::ENOSPC));
        let first = repair_cut_tail(&disk, &small(), IDENTITY);
        let mut rng = Rng(nth);
        disk.crash(&mut || rng.next());
        let again = repair_cut_tail(&disk, &small(), IDENTITY).unwrap();
        assert!(
            first.is_ok() || again.is_some() || Rig::reopen(disk.clone(), small(), true).is_ok()
        );
        let (_, recovered) = Rig::reopen(disk, small(), true).unwrap();
        assert_eq!(
            recovered.shards[&S0].last_index,
            Index(21),
            "operation {nth}"
        );
    }
}

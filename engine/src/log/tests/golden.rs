//! The bytes on disk, version 1. A log written today must be readable by every later version, so
//! a change of these bytes is a new format version with a golden file of its own.

use std::{fs, path::PathBuf};

use super::*;
use crate::io::{Disk, SegmentNo};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/log/segment-v1.bin")
}

/// One of everything: head, checkpoint, hard states, entries of two shards, a conflict, a batch
/// of several blocks, a fill, a mark.
fn one_of_everything() -> Rig {
    let mut rig = Rig::new(small());
    rig.log
        .put_checkpoint(S0, checkpoint(hard_state(3, 11, 100), 100, 2));
    rig.log
        .put_checkpoint(S1, checkpoint(hard_state(0, 0, 0), 0, 0));
    rig.append(S0, 101, 3, &data(101, 3, 40));
    rig.run();
    rig.log.put_hard_state(S1, hard_state(5, 12, 0), true);
    for index in 1..=6 {
        rig.append(S1, index, 5, &data(index, 5, 900));
        rig.append(S0, 101 + index, 3, &data(101 + index, 3, 100));
    }
    rig.log.put_hard_state(S0, hard_state(3, 11, 103), false);
    rig.run();
    rig.append(S1, 4, 6, &data(4, 6, 10));
    rig.run();
    rig.now = 1_000_000_000;
    rig.run();
    rig
}

#[test]
fn the_bytes_are_those_of_format_version_1() {
    let rig = one_of_everything();
    let mut bytes = rig.disk.contents(&SegmentNo(1).file_name());
    bytes.truncate(rig.log.tail.offset as usize);
    if std::env::var("LOG_GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::create_dir_all(path().parent().unwrap()).unwrap();
        fs::write(path(), &bytes).unwrap();
    }
    let golden = fs::read(path()).expect("LOG_GOLDEN=write makes it");
    assert_eq!(FORMAT_VERSION, 1);
    let differs = bytes.iter().zip(&golden).position(|(a, b)| a != b);
    assert_eq!(
        (differs, bytes.len()),
        (None, golden.len()),
        "the format changed without a new version"
    );
}

#[test]
fn the_golden_segment_is_read_back() {
    let golden = fs::read(path()).expect("LOG_GOLDEN=write makes it");
    let disk = MemDisk::new();
    let name = SegmentNo(1).file_name();
    crate::io::prepare_segment(&disk, SegmentNo(1), None, 64 * 1024, IDENTITY.key()).unwrap();
    disk.write_at(&name, 0, &golden).unwrap();
    let (rig, recovered) = Rig::reopen(disk, small(), true).unwrap();
    assert_eq!(recovered.report.batches, 4);
    let shard = &recovered.shards[&S0];
    assert_eq!(shard.checkpoint, checkpoint(hard_state(3, 11, 103), 100, 2));
    assert_eq!(
        (shard.first_index, shard.last_index),
        (Index(101), Index(107))
    );
    assert_eq!(
        recovered.shards[&S1].checkpoint.hard_state,
        hard_state(5, 12, 0)
    );
    let entries = rig.entries(S1);
    let expected = [(1, 5, 900), (2, 5, 900), (3, 5, 900), (4, 6, 10)];
    assert_eq!(
        entries,
        expected.map(|(index, term, bytes)| (index, term, data(index, term, bytes)))
    );
}

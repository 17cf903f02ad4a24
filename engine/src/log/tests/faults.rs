//! Every operation fails once; space runs out and returns.

use super::*;
use crate::io::{LogDone, SegmentNo, mem::Fault};

/// A scripted run over several segments with checkpoints; stops at the first refusal. Returns
/// what was acknowledged of shard 0, and whether anything failed.
fn script(rig: &mut Rig) -> (u64, bool) {
    let mut acknowledged = 0;
    for index in 1..=60u64 {
        if rig.log.space() != Space::Ok {
            return (acknowledged, true);
        }
        rig.append(S0, index, 1, &data(index, 1, 2500));
        if index % 20 == 0 {
            rig.log
                .put_checkpoint(S0, checkpoint(hard_state(1, 3, index), index - 10, 1));
        }
        let lsn = rig.log.open_lsn();
        loop {
            let ops = rig.ops();
            if ops.is_empty() {
                break;
            }
            for op in ops {
                let done = rig.disk.execute(op);
                if rig.log.done(rig.now, done).is_err() {
                    return (acknowledged, true);
                }
            }
        }
        if rig.log.durable_lsn() >= lsn {
            acknowledged = index;
        }
    }
    (acknowledged, false)
}

#[test]
fn the_nth_operation_fails_for_every_n_and_nothing_acknowledged_is_lost() {
    let mut untouched = Rig::new(small());
    let before = untouched.disk.operations();
    assert_eq!(script(&mut untouched), (60, false));
    let operations = untouched.disk.operations() - before;
    assert!(operations > 70, "{operations}");
    let faults = [
        Fault::Errno(libc::EIO),
        Fault::Errno(libc::ENOSPC),
        Fault::Short,
    ];
    let (mut died, mut went_on) = (0, 0);
    for nth in 1..=operations {
        for fault in faults {
            for power_fails in [false, true] {
                let mut rig = Rig::new(small());
                rig.disk.fail_at(nth, fault);
                let (acknowledged, failed) = script(&mut rig);
                if rig.log.failure().is_some() {
                    died += 1;
                    assert!(rig.ops().is_empty(), "a dead log issues nothing");
                } else {
                    went_on += 1;
                    assert!(!failed || rig.log.space() != Space::Ok);
                }
                let mut rng = Rng(nth);
                if power_fails {
                    rig.disk.crash(&mut || rng.next());
                }
                let (rig, recovered) = Rig::reopen(rig.disk, small(), true).unwrap();
                let last = recovered
                    .shards
                    .get(&S0)
                    .map_or(0, |shard| shard.last_index.0);
                assert!(
                    last >= acknowledged,
                    "operation {nth} {fault:?}: {last} < {acknowledged}"
                );
                for (index, term, bytes) in rig.entries(S0) {
                    assert_eq!(bytes, data(index, term, 2500));
                }
            }
        }
    }
    assert!(died > 100 && went_on > 50, "{died} died, {went_on} went on");
}

#[test]
fn recovery_fails_cleanly_at_every_operation_and_then_succeeds() {
    let mut rig = Rig::new(small());
    script(&mut rig);
    let disk = rig.disk;
    let before = disk.operations();
    Log::recover(&disk.clone(), small(), IDENTITY, true).unwrap();
    let clone = disk.clone();
    Log::recover(&clone, small(), IDENTITY, true).unwrap();
    let operations = clone.operations() - before;
    for nth in 1..=operations {
        for errno in [libc::EMFILE, libc::EACCES] {
            let disk = disk.clone();
            disk.fail_at(nth, Fault::Errno(errno));
            let error = Log::recover(&disk, small(), IDENTITY, true)
                .map(|_| ())
                .unwrap_err();
            assert!(
                matches!(error, LogError::Io { .. }),
                "operation {nth}: {error}"
            );
            let mut rng = Rng(nth);
            disk.crash(&mut || rng.next());
            let (rig, _) = Rig::reopen(disk, small(), true).unwrap();
            assert_eq!(rig.log.last_index(S0), Index(60));
        }
    }
}

#[test]
fn a_full_disk_refuses_entries_keeps_votes_and_resumes_by_itself() {
    let mut rig = Rig::new(small());
    rig.disk.set_capacity(Some(3 * 64 * 1024));
    let mut index = 0;
    while rig.log.space() == Space::Ok {
        index += 1;
        assert!(index < 1000);
        rig.append(S0, index, 1, &data(index, 1, 1000));
        rig.run();
    }
    let Space::Full { why } = rig.log.space() else {
        panic!()
    };
    assert!(
        why.contains("0000000000000004.segment") && why.contains("No space left"),
        "{why}"
    );
    assert_eq!(
        rig.log.durable_lsn(),
        rig.log.open_lsn(),
        "all that was appended is durable"
    );
    assert!(rig.log.failure().is_none());
    // Votes still fit.
    rig.log.put_hard_state(S0, hard_state(9, 4, index), true);
    let lsn = rig.log.open_lsn();
    rig.run();
    assert_eq!(rig.log.durable_lsn(), lsn);
    // Reads go on.
    assert_eq!(rig.entries(S0).len(), index as usize);
    // It tries again at its deadline, not before.
    let failures = rig.log.stats().prepare_failures;
    let deadline = rig.log.next_deadline_ns().unwrap();
    rig.now = deadline - 1;
    rig.run();
    assert_eq!(rig.log.stats().prepare_failures, failures);
    rig.now = deadline;
    rig.run();
    assert_eq!(rig.log.stats().prepare_failures, failures + 1);
    // No mark is written into the reserve.
    rig.now += 10_000_000_000;
    assert_eq!(rig.log.open_lsn(), lsn);
    // Killed and started while full.
    let (mut rig, recovered) = rig.restart();
    assert_eq!(
        recovered.shards[&S0].checkpoint.hard_state,
        hard_state(9, 4, index)
    );
    rig.run();
    assert_ne!(rig.log.space(), Space::Ok);
    rig.disk.set_capacity(None);
    rig.now = rig.log.next_deadline_ns().unwrap();
    rig.run();
    assert_eq!(rig.log.space(), Space::Ok);
    for index in index + 1..index + 100 {
        rig.append(S0, index, 9, &data(index, 9, 1000));
        rig.run();
    }
    assert_eq!(rig.entries(S0).len(), index as usize + 99);
}

#[test]
fn even_the_reserve_ends_and_then_writes_wait_without_harm() {
    let mut rig = Rig::new(small());
    rig.disk.set_capacity(Some(2 * 64 * 1024));
    rig.append(S0, 1, 1, b"pins the first segment");
    let mut term = 0;
    // Votes only, against every advice.
    loop {
        term += 1;
        rig.log.put_hard_state(S0, hard_state(term, 1, 0), true);
        let lsn = rig.log.open_lsn();
        rig.run();
        if rig.log.durable_lsn() < lsn {
            break;
        }
        assert!(term < 100);
    }
    assert!(rig.log.failure().is_none());
    let (mut rig, recovered) = rig.restart();
    assert_eq!(
        recovered.shards[&S0].checkpoint.hard_state.term,
        Term(term - 1)
    );
    rig.disk.set_capacity(None);
    rig.log.put_hard_state(S0, hard_state(term, 1, 0), true);
    let lsn = rig.log.open_lsn();
    rig.now = 1_000_000_000;
    rig.run();
    assert_eq!(rig.log.durable_lsn(), lsn);
}

#[test]
fn the_log_is_bounded_names_who_pins_it_and_is_freed_by_their_snapshots() {
    let config = LogConfig {
        log_bytes_max: 6 * 64 * 1024,
        ..small()
    };
    let mut rig = Rig::new(config.clone());
    rig.append(S1, 1, 1, b"the idle one");
    let mut index = 0;
    while rig.log.space() == Space::Ok {
        index += 1;
        assert!(index < 1000);
        rig.append(S0, index, 1, &data(index, 1, 1000));
        rig.run();
        assert!(rig.log.stats().disk_bytes <= config.log_bytes_max);
    }
    let Space::Full { why } = rig.log.space() else {
        panic!()
    };
    assert!(why.contains("log_bytes_max"), "{why}");
    assert_eq!(rig.log.pinned(), [S0, S1]);
    rig.log
        .put_checkpoint(S0, checkpoint(hard_state(1, 1, index), index, 1));
    rig.run();
    assert_eq!(rig.log.pinned(), [S1]);
    rig.log
        .put_checkpoint(S1, checkpoint(hard_state(1, 1, 1), 1, 1));
    rig.run();
    rig.now = rig.log.next_deadline_ns().unwrap_or(rig.now);
    rig.run();
    assert_eq!(rig.log.space(), Space::Ok);
    assert_eq!(rig.log.pinned(), []);
    assert!(rig.log.stats().segments_live <= 2);
    let (_, recovered) = Rig::reopen(rig.disk, config, true).unwrap();
    assert_eq!(recovered.shards[&S1].first_index, Index(2));
}

#[test]
fn a_failed_write_is_final_and_names_its_place() {
    let mut rig = Rig::new(small());
    rig.append(S0, 1, 1, b"x");
    rig.run();
    rig.append(S0, 2, 1, b"y");
    let mut ops = rig.ops();
    let LogOp::Write { token, buf, .. } = ops.remove(0) else {
        panic!()
    };
    let result = Err(std::io::Error::from_raw_os_error(libc::EIO));
    let failure = rig
        .log
        .done(
            0,
            LogDone {
                token,
                buf: Some(buf),
                result,
                formatted_bytes: 0,
            },
        )
        .unwrap_err();
    assert_eq!(
        (failure.file.clone(), failure.offset),
        (SegmentNo(1).file_name(), 4096)
    );
    assert!(
        failure.to_string().contains("Input/output error"),
        "{failure}"
    );
    assert_eq!(rig.log.failure(), Some(&failure));
    rig.append(S0, 3, 1, b"z");
    rig.now = u64::MAX / 2;
    assert!(rig.ops().is_empty());
    assert_eq!(
        (rig.log.next_deadline_ns(), rig.log.durable_lsn()),
        (None, Lsn(1))
    );
}

#[test]
fn entries_are_refused_before_the_preparation_that_they_would_wait_for_has_failed() {
    // A slow disk was full: a segment was still being formatted when the active one ran out. The
    // entries accepted meanwhile waited for it, it failed, and their clients were never answered.
    let mut rig = Rig::new(small());
    let mut preparation = None;
    let mut index = 0;
    while rig.log.space() == Space::Ok {
        index += 1;
        assert!(index < 1000);
        rig.append(S0, index, 1, &data(index, 1, 1000));
        for op in rig.ops() {
            if matches!(op, LogOp::Prepare { .. }) {
                preparation = Some(op);
            } else {
                let done = rig.disk.execute(op);
                rig.log.done(0, done).unwrap();
            }
        }
    }
    assert_eq!(rig.log.durable_lsn(), rig.log.open_lsn(), "nothing waits");
    let Space::Full { why } = rig.log.space() else {
        panic!()
    };
    assert!(why.contains("still being prepared"), "{why}");
    let done = rig.disk.execute(preparation.unwrap());
    rig.log.done(0, done).unwrap();
    assert_eq!(rig.log.space(), Space::Ok);
}

//! Every operation fails once; space runs out and returns.

use super::*;
use crate::{
    io::{Disk, LogDone, SegmentNo},
    log::proof::{
        Tally, Violation,
        nth::{FAULTS, Script},
    },
};

/// Every N of `1..=last` on two threads.
fn every_nth(
    last: u64,
    one: impl Fn(u64) -> Result<Tally, Violation> + Sync,
) -> Result<Tally, Violation> {
    std::thread::scope(|scope| {
        let part = |first| {
            let one = &one;
            move || {
                let mut tally = Tally::default();
                for nth in (first..=last).step_by(2) {
                    tally += one(nth)?;
                }
                Ok(tally)
            }
        };
        let threads = [scope.spawn(part(1)), scope.spawn(part(2))];
        let mut tally = Tally::default();
        for thread in threads {
            tally += thread.join().unwrap()?;
        }
        Ok(tally)
    })
}

#[test]
fn the_nth_operation_of_writing_fails_for_every_n_and_nothing_acknowledged_is_lost() {
    let script = Script { turns: 440 };
    let operations = script.operations().unwrap();
    assert!(operations >= 500, "{operations}");
    let tally =
        every_nth(500, |nth| script.fail_writing(nth)).unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(tally.get("runs"), 500 * FAULTS.len() as u64);
    assert!(tally.get("died") > 1000, "{tally:?}");
    assert!(tally.get("went on") > 100, "{tally:?}");
}

#[test]
fn the_nth_operation_of_recovery_fails_for_every_n_and_the_next_recovery_succeeds() {
    let script = Script { turns: 440 };
    let left = script.leave().unwrap();
    let mut nth = 0;
    let mut tally = Tally::default();
    loop {
        nth += 1;
        let (struck, more) = left
            .fail_recovering(nth)
            .unwrap_or_else(|broken| panic!("{broken}"));
        tally += more;
        if !struck {
            break;
        }
    }
    assert!(nth > 10, "recovery has only {nth} operations");
    assert!(tally.get("refused") > 2 * nth, "{tally:?}");
}

#[test]
fn recovery_without_descriptors_or_permission_says_so() {
    let disk = Rig::new(small()).disk;
    let before = disk.operations();
    let clone = disk.clone();
    Log::recover(&clone, small(), IDENTITY, true).unwrap();
    for nth in 1..=clone.operations() - before {
        for errno in [libc::EMFILE, libc::EACCES] {
            let disk = disk.clone();
            disk.fail_at(nth, crate::io::mem::Fault::Errno(errno));
            let error = Log::recover(&disk, small(), IDENTITY, true).unwrap_err();
            assert!(
                matches!(error, LogError::Io { .. }),
                "operation {nth}: {error}"
            );
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

/// A disk whose cache cannot be dropped.
struct Cached<'a>(&'a MemDisk);

impl Disk for Cached<'_> {
    fn list(&self) -> std::io::Result<Vec<(String, u64)>> {
        self.0.list()
    }
    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(name, offset, buf)
    }
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_at(name, offset, bytes)
    }
    fn sync(&self, name: &str) -> std::io::Result<()> {
        self.0.sync(name)
    }
    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> std::io::Result<()> {
        self.0.sync_dir()
    }
}

#[test]
fn a_restart_does_not_believe_pages_that_a_failed_flush_left_in_the_cache() {
    // Where the log has no direct I/O its writes go through the page cache. A flush failed, the log
    // died, and the server was started again: the kernel still showed the batch that it had not
    // written, and called the next flush of it a success. Recovery believed the batch, a leader was
    // told that its entry is durable here, and the next power cut took it away.
    for cached in [true, false] {
        let mut rig = Rig::new(small());
        rig.append(S0, 1, 1, b"durable");
        rig.run();
        rig.append(S0, 2, 1, b"seen, and never written");
        rig.disk.fail_at(1, crate::io::mem::Fault::Lost(libc::EIO));
        let write = rig.ops().remove(0);
        let done = rig.disk.execute(write);
        rig.log.done(0, done).unwrap_err();
        let disk = rig.disk;
        let through: &dyn Disk = if cached { &Cached(&disk) } else { &disk };
        let (_, recovered) = Log::recover(through, small(), IDENTITY, true).unwrap();
        let believed = recovered.shards[&S0].last_index;
        disk.crash_as(crate::io::mem::Survival::Everything, &mut || 0);
        let (_, recovered) = Log::recover(&disk, small(), IDENTITY, true).unwrap();
        let there = recovered.shards[&S0].last_index;
        assert_eq!(there, Index(1));
        assert_eq!(believed, Index(if cached { 2 } else { 1 }));
    }
}

//! What goes in comes out: at once, after a restart, across segments and shards.

use super::*;

#[test]
fn entries_and_hard_states_survive_a_restart() {
    let mut rig = Rig::new(small());
    rig.log.put_hard_state(S0, hard_state(1, 7, 0), true);
    let lsn = rig.append(S0, 1, 1, b"one");
    rig.append(S0, 2, 1, b"");
    rig.append(S1, 1, 4, b"other shard");
    assert_eq!(rig.log.durable_lsn(), Lsn(0));
    rig.run();
    assert_eq!(rig.log.durable_lsn(), lsn);
    assert_eq!(rig.log.stats().batches, 1, "one batch, one durable write");
    assert_eq!(rig.log.stats().bytes_submitted, 4096);

    let (rig, recovered) = rig.restart();
    let shard = &recovered.shards[&S0];
    assert_eq!(shard.checkpoint.hard_state, hard_state(1, 7, 0));
    assert_eq!(
        (shard.first_index, shard.last_index, shard.last_term),
        (Index(1), Index(2), Term(1))
    );
    assert!(shard.gaps.is_empty() && !shard.hard_state_in_doubt);
    assert_eq!(recovered.report.incarnation, 2);
    assert_eq!(rig.entries(S0), [(1, 1, b"one".to_vec()), (2, 1, vec![])]);
    assert_eq!(rig.entries(S1), [(1, 4, b"other shard".to_vec())]);
    assert_eq!(rig.log.term(S1, Index(1)), Some(Term(4)));
    assert_eq!(rig.log.term(S1, Index(2)), None);
}

#[test]
fn an_empty_log_recovers_as_one_and_a_missing_one_does_not() {
    let rig = Rig::new(small());
    let (mut rig, recovered) = rig.restart();
    assert_eq!(recovered.shards.len(), 0);
    rig.append(S0, 1, 1, b"x");
    rig.run();
    let (rig, recovered) = rig.restart();
    assert_eq!(recovered.shards[&S0].last_index, Index(1));
    assert!(matches!(
        Log::create(&rig.disk, small(), IDENTITY),
        Err(LogError::Exists { .. })
    ));
    assert!(matches!(
        Log::recover(&MemDisk::new(), small(), IDENTITY, false),
        Err(LogError::Empty)
    ));
}

#[test]
fn a_conflict_truncates_also_within_the_open_batch() {
    let mut rig = Rig::new(small());
    for index in 1..=5 {
        rig.append(S0, index, 1, &data(index, 1, 10));
    }
    rig.append(S0, 3, 2, &data(3, 2, 10));
    rig.append(S0, 4, 2, &data(4, 2, 10));
    rig.run();
    let expected: Vec<_> = [(1, 1), (2, 1), (3, 2), (4, 2)]
        .map(|(i, t)| (i, t, data(i, t, 10)))
        .into();
    assert_eq!(rig.entries(S0), expected);
    rig.append(S0, 2, 3, &data(2, 3, 10));
    rig.run();
    let (rig, _) = rig.restart();
    assert_eq!(
        rig.entries(S0),
        [(1, 1, data(1, 1, 10)), (2, 3, data(2, 3, 10))]
    );
    assert_eq!(rig.log.term(S0, Index(2)), Some(Term(3)));
}

#[test]
fn a_commit_only_hard_state_never_starts_a_batch() {
    let mut rig = Rig::new(small());
    rig.log.put_hard_state(S0, hard_state(1, 7, 0), true);
    rig.append(S0, 1, 1, b"x");
    rig.run();
    rig.log.put_hard_state(S0, hard_state(1, 7, 1), false);
    assert!(rig.ops().is_empty());
    assert_eq!(rig.log.open_lsn(), rig.log.durable_lsn());
    rig.append(S0, 2, 1, b"y");
    rig.run();
    let (mut rig, recovered) = rig.restart();
    assert_eq!(
        recovered.shards[&S0].checkpoint.hard_state,
        hard_state(1, 7, 1)
    );
    // A vote is never only carried along.
    rig.log.put_hard_state(S0, hard_state(2, 9, 1), false);
    assert!(rig.log.open_lsn() > rig.log.durable_lsn());
}

#[test]
fn the_next_batch_gathers_while_one_is_in_flight() {
    let mut rig = Rig::new(small());
    rig.append(S0, 1, 1, b"a");
    let mut first = rig.ops();
    let write = first.remove(0);
    assert!(matches!(write, LogOp::Write { .. }));
    for op in first {
        let done = rig.disk.execute(op);
        rig.log.done(0, done).unwrap();
    }
    for index in 2..=10 {
        rig.append(S0, index, 1, b"b");
    }
    assert!(rig.ops().is_empty(), "small batches wait and gather");
    assert_eq!(rig.log.oldest_write_ns(), Some(0));
    let done = rig.disk.execute(write);
    assert_eq!(rig.log.done(5, done).unwrap(), Progress::Durable(Lsn(1)));
    rig.run();
    assert_eq!(
        (rig.log.durable_lsn(), rig.log.stats().batches),
        (Lsn(2), 2)
    );
    assert_eq!(rig.log.stats().last_batch_entries, 9);
}

#[test]
fn a_second_long_write_may_overtake_and_durability_advances_in_order() {
    let config = LogConfig {
        segment_bytes: 1024 * 1024,
        batch_bytes_max: 128 * 1024,
        log_bytes_max: 16 * 1024 * 1024,
        ..small()
    };
    let mut rig = Rig::new(config);
    let big = vec![7; 70_000];
    rig.append(S0, 1, 1, &big);
    let mut writes: Vec<_> = rig.ops();
    writes.retain(|op| matches!(op, LogOp::Write { .. }));
    rig.append(S0, 2, 1, &big);
    writes.extend(rig.ops());
    assert_eq!(writes.len(), 2);
    rig.append(S0, 3, 1, &big);
    assert!(rig.ops().is_empty(), "two in flight are enough");
    let second = rig.disk.execute(writes.pop().unwrap());
    assert_eq!(rig.log.done(0, second).unwrap(), Progress::Nothing);
    assert_eq!(rig.log.durable_lsn(), Lsn(0));
    let first = rig.disk.execute(writes.pop().unwrap());
    assert_eq!(rig.log.done(0, first).unwrap(), Progress::Durable(Lsn(2)));
}

#[test]
fn an_idle_mark_is_written_once() {
    let mut rig = Rig::new(small());
    rig.append(S0, 1, 1, b"x");
    rig.run();
    assert_eq!(rig.log.next_deadline_ns(), Some(100_000_000));
    rig.now = 99_999_999;
    assert!(rig.ops().is_empty());
    rig.now = 100_000_000;
    rig.run();
    assert_eq!(rig.log.stats().batches, 2);
    assert_eq!(rig.log.next_deadline_ns(), None);
    rig.now = 10_000_000_000;
    assert!(rig.ops().is_empty(), "a mark is not marked");
}

#[test]
fn shutdown_writes_what_is_gathered_then_a_mark_with_the_newest_commit() {
    let mut rig = Rig::new(small());
    rig.append(S0, 1, 1, b"x");
    rig.run();
    rig.append(S0, 2, 1, b"y");
    rig.log.put_hard_state(S0, hard_state(0, 0, 1), false);
    let mut ops = Vec::new();
    rig.log.shutdown_mark(1, &mut ops);
    for op in ops {
        let done = rig.disk.execute(op);
        rig.log.done(1, done).unwrap();
    }
    rig.log.put_hard_state(S0, hard_state(0, 0, 2), false);
    assert!(!rig.log.is_shut_down());
    rig.run();
    assert!(rig.log.is_shut_down());
    let (_, recovered) = rig.restart();
    assert_eq!(recovered.shards[&S0].checkpoint.hard_state.commit, Index(2));
    assert_eq!(recovered.report.batches, 3);
}

#[test]
fn segments_roll_are_freed_by_checkpoints_and_recycled() {
    let mut rig = Rig::new(small());
    rig.log
        .put_checkpoint(S1, checkpoint(hard_state(3, 9, 0), 0, 0));
    for index in 1..=2000u64 {
        rig.append(S0, index, 1, &data(index, 1, 500));
        rig.run();
        if index % 100 == 0 && index > 100 {
            let state = hard_state(1, 2, index);
            rig.log.put_checkpoint(S0, checkpoint(state, index - 50, 1));
            rig.run();
        }
    }
    let stats = rig.log.stats();
    assert!(stats.segments_recycled > 100, "{stats:?}");
    assert!(
        stats.segments_prepared - stats.segments_recycled < 14,
        "{stats:?}"
    );
    assert!(
        stats.disk_bytes <= rig.log.config().log_bytes_max,
        "{stats:?}"
    );
    let (rig, recovered) = rig.restart();
    assert_eq!(recovered.shards[&S0].first_index, Index(1951));
    assert_eq!(
        recovered.shards[&S1].checkpoint.hard_state,
        hard_state(3, 9, 0),
        "an idle shard's vote"
    );
    assert_eq!(
        &recovered.shards[&S1].checkpoint.configuration[..],
        b"members"
    );
    let entries = rig.entries(S0);
    assert_eq!(entries.len(), 50);
    assert!(
        entries
            .iter()
            .all(|(index, term, bytes)| *bytes == data(*index, *term, 500))
    );
}

#[test]
fn an_installed_image_replaces_the_log() {
    let mut rig = Rig::new(small());
    for index in 1..=5 {
        rig.append(S0, index, 1, b"old");
    }
    rig.run();
    rig.log
        .put_checkpoint(S0, checkpoint(hard_state(4, 0, 100), 100, 4));
    rig.append(S0, 101, 4, b"new");
    rig.run();
    let (rig, recovered) = rig.restart();
    assert_eq!(recovered.shards[&S0].first_index, Index(101));
    assert_eq!(rig.entries(S0), [(101, 4, b"new".to_vec())]);
    assert_eq!(rig.log.term(S0, Index(100)), Some(Term(4)));
    // The same index in another term contradicts what the log holds behind it.
    let mut rig = rig;
    rig.log
        .put_checkpoint(S0, checkpoint(hard_state(6, 0, 101), 101, 6));
    assert_eq!(rig.log.last_index(S0), Index(101));
    assert_eq!(rig.log.term(S0, Index(101)), Some(Term(6)));
}

#[test]
fn run_time_reads_are_verified_and_bounded() {
    let mut rig = Rig::new(small());
    for index in 1..=300u64 {
        rig.append(
            S0,
            index,
            1 + index / 100,
            &data(index, 1 + index / 100, 300),
        );
        if index % 7 == 0 {
            rig.run();
        }
    }
    rig.run();
    let mut next = 1;
    while next <= 300 {
        let mut ops = Vec::new();
        let token = rig
            .log
            .start_read(S0, Index(next), Index(300), 10_000, &mut ops)
            .unwrap();
        let LogOp::Read { length, .. } = &ops[0] else {
            panic!()
        };
        assert!(*length <= 36 * 1024, "an extent and its blocks");
        let done = rig.disk.execute(ops.remove(0));
        assert_eq!(rig.log.done(0, done).unwrap(), Progress::Read(token));
        for entry in rig.log.finish_read(token).unwrap() {
            assert_eq!(entry.index.0, next);
            assert_eq!(entry.data, data(next, 1 + next / 100, 300));
            next += 1;
        }
    }
    for (first, expect) in [(0, "compacted"), (301, "not in the durable log")] {
        let error = rig
            .log
            .start_read(S0, Index(first), Index(400), 1, &mut Vec::new());
        assert!(error.unwrap_err().to_string().contains(expect));
    }
    rig.append(S0, 301, 9, b"not durable yet");
    assert!(matches!(
        rig.log
            .start_read(S0, Index(301), Index(301), 1, &mut Vec::new()),
        Err(LogError::Unavailable { .. })
    ));
    rig.disk
        .flip(&crate::io::SegmentNo(1).file_name(), (4096 + 100) * 8);
    let error = rig
        .log
        .read_blocking(&rig.disk, S0, Index(8), Index(8), 1)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "log: corrupt entry: 0000000000000001.segment at offset 4096: corrupt: checksum mismatch or read error"
    );
}

#[test]
fn the_longest_entry_fits_and_a_longer_one_is_refused() {
    let mut rig = Rig::new(small());
    let longest = vec![9; rig.log.config().entry_bytes_max()];
    for index in 1..=20 {
        rig.append(S0, index, 1, &longest);
        rig.append(S1, index, 1, b"small");
    }
    rig.run();
    let (mut rig, _) = rig.restart();
    assert_eq!(rig.entries(S0).len(), 20);
    assert!(rig.entries(S0).iter().all(|entry| entry.2 == longest));
    let longer = vec![9; longest.len() + 1];
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        rig.append(S0, 21, 1, &longer)
    }));
    assert!(refused.is_err());
}

#[test]
fn sizes_that_contradict_each_other_are_refused_by_name() {
    let refuse = |change: fn(&mut LogConfig), name: &str| {
        let mut config = small();
        change(&mut config);
        let error = Log::create(&MemDisk::new(), config, IDENTITY).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    };
    refuse(|c| c.segment_bytes = 4096, "segment_bytes");
    refuse(|c| c.segment_bytes += 1, "segment_bytes");
    refuse(|c| c.batch_bytes_max = 128 * 1024, "batch_bytes_max");
    refuse(|c| c.log_bytes_max = 128 * 1024, "log_bytes_max");
    refuse(|c| c.writes_in_flight_max = 0, "writes_in_flight_max");
}

//! The log on a real directory, through the ring and the background lane, as an executor drives
//! it.

use std::path::Path;

use super::*;
use crate::io::{BackgroundDone, BackgroundLane, Dir, LogRing, Ring, RingOptions, SegmentNo};

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 256 * 1024,
        batch_bytes_max: 64 * 1024,
        log_bytes_max: 8 * 1024 * 1024,
        second_write_bytes_min: 16 * 1024,
        ..LogConfig::default()
    }
}

struct Server {
    log: Log,
    ring: LogRing,
    lane: BackgroundLane,
}

impl Server {
    fn start(mut log: Log, place: &Path) -> Self {
        let (ring, buffers) =
            LogRing::open(Ring::open().unwrap(), place, RingOptions::default()).unwrap();
        let lane = BackgroundLane::start(place, place).unwrap();
        log.give_buffers(buffers);
        Self { log, ring, lane }
    }

    fn submit(&mut self, ops: Vec<LogOp>) -> bool {
        let mut writes = false;
        for op in ops {
            match op {
                LogOp::Write { .. } | LogOp::Read { .. } => {
                    writes = true;
                    self.ring.submit(op);
                }
                LogOp::Prepare { recycle, .. } => {
                    recycle
                        .into_iter()
                        .for_each(|freed| self.ring.forget(freed));
                    self.lane.log(op);
                }
                LogOp::Remove { segment, .. } => {
                    self.ring.forget(segment);
                    self.lane.log(op);
                }
            }
        }
        self.ring.flush();
        writes
    }

    /// One turn: issue, wait for the ring if it has something, take the answers.
    fn turn(&mut self) -> Result<Vec<Progress>, LogFailure> {
        let mut ops = Vec::new();
        self.log.take_ops(0, &mut ops);
        self.submit(ops);
        let (mut done, mut lane) = (Vec::new(), Vec::new());
        if self.ring.in_flight() > 0 {
            self.ring.wait(&mut done);
        } else {
            std::thread::yield_now();
        }
        self.lane.reap(&mut lane);
        for answer in lane {
            let BackgroundDone::Log(answer) = answer else {
                panic!()
            };
            done.push(answer);
        }
        done.into_iter()
            .map(|done| self.log.done(0, done))
            .collect()
    }

    fn wait_for(&mut self, lsn: Lsn) {
        while self.log.durable_lsn() < lsn {
            self.turn().unwrap();
        }
    }

    fn append(&mut self, index: u64) -> Lsn {
        let data = data(index, 1, 300 + (index % 7) as usize * 400);
        self.log.append(
            S0,
            EntryRef {
                index: Index(index),
                term: Term(1),
                kind: 0,
                data: &data,
            },
        );
        self.log.open_lsn()
    }
}

#[test]
fn a_real_directory_keeps_what_was_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let dir = Dir::open(place.path()).unwrap();
    let log = Log::create(&dir, config(), IDENTITY).unwrap();
    let mut server = Server::start(log, place.path());
    for index in 1..=1500u64 {
        let lsn = server.append(index);
        if index % 3 == 0 {
            server.wait_for(lsn);
        }
        if index % 200 == 0 {
            server
                .log
                .put_checkpoint(S0, checkpoint(hard_state(1, 5, index), index - 100, 1));
        }
    }
    let lsn = server.log.open_lsn();
    server.wait_for(lsn);
    let stats = server.log.stats();
    assert!(stats.segments_recycled > 0, "{stats:?}");
    assert!(stats.disk_bytes <= config().log_bytes_max);

    let mut ops = Vec::new();
    let token = server
        .log
        .start_read(S0, Index(1350), Index(1500), 64 * 1024, &mut ops)
        .unwrap();
    server.submit(ops);
    while !server.turn().unwrap().contains(&Progress::Read(token)) {}
    let entries = server.log.finish_read(token).unwrap();
    assert!(entries[0].index == Index(1350) && entries.len() > 10);
    for entry in &entries {
        assert_eq!(entry.data, data(entry.index.0, 1, entry.data.len()));
    }
    drop(server);

    let (log, recovered) = Log::recover(&dir, config(), IDENTITY, true).unwrap();
    let shard = &recovered.shards[&S0];
    assert_eq!(
        (shard.first_index, shard.last_index),
        (Index(1301), Index(1500))
    );
    assert_eq!(shard.checkpoint.hard_state, hard_state(1, 5, 1400));
    let mut next = 1301;
    while next <= 1500 {
        for entry in log
            .read_blocking(&dir, S0, Index(next), Index(1500), 1 << 20)
            .unwrap()
        {
            assert_eq!(entry.data, data(next, 1, 300 + (next % 7) as usize * 400));
            next += 1;
        }
    }
    let mut server = Server::start(log, place.path());
    let lsn = server.append(1501);
    server.wait_for(lsn);
}

#[test]
fn a_segment_that_vanishes_is_a_failure_and_not_a_new_file() {
    let place = tempfile::tempdir().unwrap();
    let dir = Dir::open(place.path()).unwrap();
    let log = Log::create(&dir, config(), IDENTITY).unwrap();
    let file = place.path().join(SegmentNo(1).file_name());
    std::fs::remove_file(&file).unwrap();
    let mut server = Server::start(log, place.path());
    server.append(1);
    let failure = loop {
        if let Err(failure) = server.turn() {
            break failure;
        }
    };
    assert_eq!((failure.lsn, failure.offset), (Lsn(1), 0));
    assert!(!file.exists());
}

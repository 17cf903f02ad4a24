//! Is damage ever believed, or anything whole given up?
//!
//! A script writes a log, ends with a cut of the power or at rest, and damages what lies on the
//! disk. The script knows what was written and what was acknowledged: a lone server that opens has
//! every acknowledged batch, in order, and nothing that was never written; damage that takes
//! something away is refused. With peers, whatever is offered is right, or said to be in doubt.

use std::{collections::BTreeMap, ops::Range, rc::Rc};

use bytes::Bytes;
use engine::{
    io::{Disk, LogDone, LogOp, SegmentNo, mem::Begun, mem::MemDisk},
    log::{
        Checkpoint, EntryRef, Gap, HardState, Log, LogConfig, LogError, LogIdentity, Recovered,
        inspect, repair_cut_tail,
    },
};
use wire::{Index, ShardId, Term};

use crate::feed::Feed;

pub(super) const IDENTITY: LogIdentity = LogIdentity {
    log_id: 0x1122_3344_5566_7788,
    salt: 0x99AA_BBCC_DDEE_FF00,
};
const STEPS_MAX: usize = 60;

pub(super) fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 64 * 1024,
        batch_bytes_max: 16 * 1024,
        log_bytes_max: 16 * 64 * 1024,
        free_segments_max: 2,
        ..LogConfig::default()
    }
}

/// What a shard should be.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shard {
    hard_state: HardState,
    snapshot: (u64, u64),
    /// Term and data; the first is the entry after the snapshot.
    entries: Vec<(u64, Rc<[u8]>)>,
}

impl Shard {
    fn last(&self) -> u64 {
        self.snapshot.0 + self.entries.len() as u64
    }

    fn term(&self, index: u64) -> u64 {
        match index.checked_sub(self.snapshot.0 + 1) {
            Some(at) => self.entries.get(at as usize).map_or(0, |entry| entry.0),
            None => self.snapshot.1,
        }
    }
}

/// A log under way, and the state of every shard as of each batch.
struct Life {
    disk: MemDisk,
    log: Log,
    now_ns: u64,
    shards: BTreeMap<ShardId, Shard>,
    /// By the batch that holds it.
    as_of: BTreeMap<u64, BTreeMap<ShardId, Shard>>,
    begun: Vec<Result<Begun, LogDone>>,
}

/// Lives one log.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let (damages, at_rest) = (feed.below(4), feed.flag());
    let mut life = Life::new();
    let mut damage = Feed::new(feed.bytes(48));
    for _ in 0..STEPS_MAX {
        if feed.is_empty() {
            break;
        }
        life.step(&mut feed);
    }
    match at_rest {
        true => life.end_at_rest(&mut damage, damages),
        false => life.end_by_power_cut(&mut damage),
    }
}

impl Life {
    fn new() -> Self {
        let disk = MemDisk::new();
        let log = Log::create(&disk, config(), IDENTITY).expect("an empty directory");
        let as_of = BTreeMap::from([(0, BTreeMap::new())]);
        Self {
            disk,
            log,
            now_ns: 0,
            shards: BTreeMap::new(),
            as_of,
            begun: Vec::new(),
        }
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        let shard = ShardId(feed.below(2) as u16);
        let kind = feed.below(16);
        let model = self.shards.entry(shard).or_default();
        let last = model.last();
        let term = model.term(last).max(model.hard_state.term.0).max(1);
        match kind {
            0..7 => {
                for index in 1..=1 + feed.below(4) as u64 {
                    let bytes = [0, 20, 300, 900, 4000, 9000][feed.below(6)];
                    self.append(shard, last + index, term, bytes);
                }
            }
            // A conflict: the last entries are replaced.
            7 => {
                let fixed = model.snapshot.0.max(model.hard_state.commit.0);
                if last > fixed {
                    let back = feed.below((last - fixed).min(5) as usize) as u64;
                    self.append(shard, last - back, term + 1, 30);
                }
            }
            8 => {
                let commit = model.hard_state.commit.0.max(model.snapshot.0);
                let commit = commit + feed.below((last.saturating_sub(commit) + 1) as usize) as u64;
                let state = HardState {
                    term: Term(term + feed.below(2) as u64),
                    vote: feed.below(5) as u64,
                    commit: Index(commit),
                };
                model.hard_state = state;
                self.log.put_hard_state(shard, state, true);
                self.note();
            }
            9 if last > model.snapshot.0 => {
                let index =
                    model.snapshot.0 + 1 + feed.below((last - model.snapshot.0) as usize) as u64;
                let term = model.term(index);
                self.checkpoint(shard, index, term);
            }
            // An installed image beyond the log.
            10 => self.checkpoint(shard, last + 1, term),
            11 => self.rest(),
            12 => self.now_ns += 200_000_000,
            _ => self.drive(feed),
        }
    }

    fn append(&mut self, shard: ShardId, index: u64, term: u64, bytes: usize) {
        let mut data = format!("{index}/{term}/{}:", self.as_of.len()).into_bytes();
        data.resize(bytes.max(data.len()), index as u8);
        let entry = EntryRef {
            index: Index(index),
            term: Term(term),
            kind: 0,
            data: &data,
        };
        self.log.append(shard, entry);
        let model = self.shards.entry(shard).or_default();
        model
            .entries
            .truncate((index - model.snapshot.0 - 1) as usize);
        model.entries.push((term, data.into()));
        self.note();
    }

    fn checkpoint(&mut self, shard: ShardId, index: u64, term: u64) {
        let model = self.shards.entry(shard).or_default();
        let checkpoint = Checkpoint {
            hard_state: model.hard_state,
            snapshot_index: Index(index),
            snapshot_term: Term(term),
            configuration: Bytes::from_static(b"members"),
        };
        let keep = model.term(index) == term && index < model.last();
        let drop = match keep {
            true => (index - model.snapshot.0) as usize,
            false => model.entries.len(),
        };
        model.entries.drain(..drop);
        model.snapshot = (index, term);
        self.log.put_checkpoint(shard, checkpoint);
        self.note();
    }

    /// What the last batch carries now is the state as of it.
    fn note(&mut self) {
        self.as_of
            .insert(self.log.open_lsn().0, self.shards.clone());
    }

    fn ops(&mut self) -> Vec<LogOp> {
        let mut ops = Vec::new();
        self.log.take_ops(self.now_ns, &mut ops);
        ops
    }

    /// The device does some of what it was asked for.
    fn drive(&mut self, feed: &mut Feed<'_>) {
        for op in self.ops() {
            if matches!(op, LogOp::Write { .. }) {
                self.begun.push(self.disk.begin(op));
            } else {
                let done = self.disk.execute(op);
                self.log.done(self.now_ns, done).expect("no fault was set");
            }
        }
        for _ in 0..feed.below(4) {
            if !self.begun.is_empty() {
                let begun = self.begun.swap_remove(feed.below(self.begun.len()));
                let done = self.disk.finish(begun);
                self.log.done(self.now_ns, done).expect("no fault was set");
            }
        }
    }

    /// The device does everything.
    fn rest(&mut self) {
        loop {
            for begun in std::mem::take(&mut self.begun) {
                let done = self.disk.finish(begun);
                self.log.done(self.now_ns, done).expect("no fault was set");
            }
            let ops = self.ops();
            if ops.is_empty() {
                return;
            }
            for op in ops {
                let done = self.disk.execute(op);
                self.log.done(self.now_ns, done).expect("no fault was set");
            }
        }
    }

    fn end_by_power_cut(mut self, feed: &mut Feed<'_>) {
        let (acknowledged, opened) = (self.log.durable_lsn().0, self.log.open_lsn().0);
        self.begun.clear();
        self.disk.crash(&mut || u64::from(feed.byte()));
        let (log, recovered) = Log::recover(&self.disk, config(), IDENTITY, true)
            .expect("a power cut damages nothing");
        let last = recovered.report.last_lsn.0;
        assert!(
            (acknowledged..=opened).contains(&last),
            "{acknowledged}, {last}, {opened}"
        );
        assert_eq!(recovered.report.corrupt, []);
        // A mark, which carries nothing, leaves the state of the batch before it.
        let truth = self.as_of.range(..=last).next_back();
        let (_, truth) = truth.expect("there is one as of nothing");
        is_all_there(&self.disk, &log, &recovered, truth);
    }

    fn end_at_rest(mut self, feed: &mut Feed<'_>, damages: usize) {
        self.rest();
        if feed.flag() {
            self.now_ns += 1_000_000_000;
            self.rest();
        }
        for _ in 0..damages {
            damage(&self.disk, feed);
        }
        let alone = self.disk.clone();
        match Log::recover(&alone, config(), IDENTITY, true) {
            Ok((log, recovered)) => is_all_there(&alone, &log, &recovered, &self.shards),
            Err(error) => {
                assert!(damages > 0, "nothing was damaged: {error}");
                after_cutting_the_tail(&alone, &error);
            }
        }
        let with_peers = self.disk.clone();
        if let Ok((log, recovered)) = Log::recover(&with_peers, config(), IDENTITY, false) {
            is_right_or_in_doubt(&with_peers, &log, &recovered, &self.shards);
        }
    }
}

/// Looks, and cuts if it may: then a lone server starts.
pub(super) fn after_cutting_the_tail(disk: &MemDisk, error: &LogError) {
    let _ = inspect(disk, IDENTITY, true, &mut std::io::sink());
    if !matches!(error, LogError::Undecided { .. }) {
        return;
    }
    disk.make_readable();
    if repair_cut_tail(disk, &config(), IDENTITY).is_ok() {
        let opened = Log::recover(disk, config(), IDENTITY, true);
        assert!(opened.is_ok(), "cut, and still refused: {:?}", opened.err());
    }
}

fn damage(disk: &MemDisk, feed: &mut Feed<'_>) {
    let files = disk.list().expect("it is in memory").into_iter();
    let files: Vec<_> = files
        .filter(|(name, bytes)| SegmentNo::parse(name).is_some() && *bytes >= 8192)
        .collect();
    if files.is_empty() {
        return;
    }
    let (name, bytes) = &files[feed.below(files.len())];
    let unit = feed.pick(&[512, 4096]);
    let start = feed.below((*bytes / unit) as usize) as u64 * unit;
    let range = start..(start + unit * (1 + feed.below(3) as u64)).min(*bytes);
    let span: Range<usize> = range.start as usize..range.end as usize;
    match feed.below(6) {
        0..3 => disk.flip(name, start * 8 + feed.below(unit as usize * 8) as u64),
        3 => disk.edit(name, |file| file[span].fill(0)),
        4 => disk.make_unreadable(name, range),
        _ if feed.flag() => disk.edit(name, |file| file.truncate(span.start)),
        _ => disk.remove(name).expect("it is there"),
    }
}

/// A lone server that starts has everything.
fn is_all_there(
    disk: &MemDisk,
    log: &Log,
    recovered: &Recovered,
    truth: &BTreeMap<ShardId, Shard>,
) {
    for (shard, truth) in truth {
        let Some(found) = recovered.shards.get(shard) else {
            assert_eq!(*truth, Shard::default(), "shard {shard} is gone");
            continue;
        };
        assert_eq!(
            found.checkpoint.hard_state, truth.hard_state,
            "shard {shard}"
        );
        assert_eq!(found.last_index.0, truth.last(), "shard {shard}");
        let first = truth.snapshot.0 + 1;
        for (index, entry) in (first..).zip(&truth.entries) {
            assert_eq!(
                read(disk, log, *shard, index),
                *entry,
                "shard {shard}: {index}"
            );
        }
    }
}

fn read(disk: &MemDisk, log: &Log, shard: ShardId, index: u64) -> (u64, Rc<[u8]>) {
    let read = log.read_blocking(disk, shard, Index(index), Index(index), 1);
    let read = read.expect("it is offered");
    (read[0].term.0, read[0].data[..].into())
}

fn is_right_or_in_doubt(
    disk: &MemDisk,
    log: &Log,
    recovered: &Recovered,
    truth: &BTreeMap<ShardId, Shard>,
) {
    for (shard, truth) in truth {
        let Some(found) = recovered.shards.get(shard) else {
            let nothing = truth.entries.is_empty() && truth.snapshot.0 == 0;
            assert!(
                nothing || recovered.report.unlisted_in_doubt,
                "shard {shard} is gone"
            );
            continue;
        };
        let open_end = found.gaps.last().is_some_and(|gap| gap.last.is_none());
        let believed = &found.checkpoint.hard_state;
        assert!(
            *believed == truth.hard_state || found.hard_state_in_doubt,
            "shard {shard}: a stale hard state is believed"
        );
        assert!(
            open_end || found.last_index.0 == truth.last(),
            "shard {shard}: another end is believed"
        );
        let committed_max = truth.hard_state.commit.0.min(believed.commit.0);
        let first = found.first_index.0.max(truth.snapshot.0 + 1);
        for index in first..=found.last_index.0 {
            let holds =
                |gap: &Gap| gap.first.0 <= index && gap.last.is_some_and(|last| index <= last.0);
            if found.gaps.iter().any(holds) {
                continue;
            }
            let offered = read(disk, log, *shard, index);
            let right = truth.entries.get((index - truth.snapshot.0 - 1) as usize);
            assert!(
                right == Some(&offered) || (open_end && index > committed_max),
                "shard {shard} entry {index}: a stale entry is believed"
            );
        }
    }
}

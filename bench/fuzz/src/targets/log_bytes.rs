//! Can any bytes in a log's segments stop recovery other than with an error?
//!
//! A log is written, then sectors of it are overwritten with the fuzzer's bytes and made right
//! again: stamp and check hold, what they hold does not. No checksum stands before the parser then.
//! Recovery, inspection and the repair of a tail may refuse; they may not panic, and what is
//! offered can be read or is refused in words.

use engine::{
    io::{
        Disk,
        mem::MemDisk,
        sector::{self, SECTOR_BYTES, Stamp},
    },
    log::{EntryRef, HardState, Log},
};
use wire::{Index, ShardId, Term};

use super::log_lives::{IDENTITY, after_cutting_the_tail, config};
use crate::feed::Feed;

/// Sectors of the log that edits go to: most of them hold something.
const SECTORS: usize = 64;
const EDITS_MAX: usize = 12;

/// Recovers a log with these edits.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let disk = whole();
    let mut edits = 0;
    while !feed.is_empty() && edits < EDITS_MAX {
        edits += 1;
        edit(&disk, &mut feed);
    }
    for lone in [true, false] {
        let disk = disk.clone();
        match Log::recover(&disk, config(), IDENTITY, lone) {
            Ok((log, recovered)) => {
                for (shard, found) in &recovered.shards {
                    read_all(&disk, &log, *shard, found.first_index, found.last_index);
                }
            }
            Err(error) => after_cutting_the_tail(&disk, &error),
        }
    }
}

fn edit(disk: &MemDisk, feed: &mut Feed<'_>) {
    let no = feed.below(SECTORS);
    let at = no * SECTOR_BYTES;
    let files = disk.list().expect("it is in memory");
    let (name, _) = &files[feed.below(files.len())];
    let key = IDENTITY.key();
    let mut bytes = disk.contents(name)[at..at + SECTOR_BYTES].to_vec();
    let held = sector::verify(&bytes, key, no as u64);
    let from = feed.below(sector::SECTOR_PAYLOAD_BYTES);
    for (byte, new) in bytes[from..sector::SECTOR_PAYLOAD_BYTES]
        .iter_mut()
        .zip(feed.bytes(96))
    {
        *byte = *new;
    }
    let held = held.map_or((Stamp::BLANK, false), |held| (held.stamp, held.head));
    let (stamp, head) = match feed.below(8) {
        0 => (
            Stamp {
                incarnation: feed.below(4) as u32,
                lsn: feed.number(),
            },
            feed.flag(),
        ),
        _ => held,
    };
    sector::seal(&mut bytes, key, no as u64, stamp, head);
    disk.edit(name, |file| {
        file[at..at + SECTOR_BYTES].copy_from_slice(&bytes)
    });
}

fn read_all(disk: &MemDisk, log: &Log, shard: ShardId, first: Index, last: Index) {
    let mut next = first;
    // An index that was forged may be far away.
    for _ in 0..64 {
        if next > last {
            return;
        }
        let read = log.read_blocking(disk, shard, next, last, 16_384);
        next = match read.ok().and_then(|entries| Some(entries.last()?.index)) {
            Some(read) => Index(read.0 + 1),
            None => Index(next.0 + 1),
        };
    }
}

thread_local! {
    static WHOLE: MemDisk = written();
}

/// A copy of a log of two shards in several segments, with everything in it that a log can hold.
fn whole() -> MemDisk {
    WHOLE.with(MemDisk::clone)
}

fn written() -> MemDisk {
    let disk = MemDisk::new();
    let mut log = Log::create(&disk, config(), IDENTITY).expect("an empty directory");
    for index in 1..=24 {
        let data = vec![index as u8; [10, 700, 3000, 6000][index as usize % 4]];
        for shard in [ShardId(0), ShardId(1)] {
            let entry = EntryRef {
                index: Index(index),
                term: Term(1 + index / 10),
                kind: 0,
                data: &data,
            };
            log.append(shard, entry);
        }
        if index % 7 == 0 {
            let state = HardState {
                term: Term(1 + index / 10),
                vote: 3,
                commit: Index(index - 1),
            };
            log.put_hard_state(ShardId(0), state, true);
        }
        log.flush_blocking(&disk, index).expect("no fault was set");
    }
    disk
}

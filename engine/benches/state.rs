//! What do the state store's operations cost at a million keys, beside a plain `BTreeMap`?
//!
//! Keys of 64 bytes with long common prefixes, values of 256 bytes, random order, one thread. The
//! targets are ratios within one run: a get at most 0.4, a batched set with all its indexes at
//! most 1.7 times the map's.
//!
//!     cargo bench -p engine --bench state
//!
//! `CURIA_BENCH_KEYS` sets another number of keys. Resident memory is printed at the start.

use std::{collections::BTreeMap, hint::black_box, ops::Bound, rc::Rc, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use engine::{
    fsm::{Fsm, Outcome},
    shard::{HISTORY_BYTES_DEFAULT, History},
    snapshot::image::{ImageLoader, ImageWriter},
    state::{KvRow, schema::Change},
};
use wire::{ClusterId, Command, Index, KvCommand, KvVerb, ShardId, Term};

const VALUE_BYTES: usize = 256;
const KEY_BYTES: usize = 64;

/// What a plain map would keep of a row.
#[allow(dead_code)] // Only its size matters.
struct Plain {
    value: Rc<[u8]>,
    flags: u64,
    create_index: u64,
    modify_index: u64,
    lock_index: u64,
}

/// Key `n`: 20 services of 50 groups, then numbers.
fn key(n: usize) -> String {
    let key = format!(
        "service/region-eu-west-{:02}/group-{:02}/instances/{:012}/config",
        n % 20,
        n / 20 % 50,
        n
    );
    assert_eq!(key.len(), KEY_BYTES);
    key
}

/// All keys one behind the other, shuffled: reading them is sequential, using them is random.
struct Keys {
    bytes: Vec<u8>,
    next: usize,
}

impl Keys {
    fn new(count: usize) -> Self {
        let mut order: Vec<usize> = (0..count).collect();
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        for at in (1..count).rev() {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            order.swap(at, random as usize % (at + 1));
        }
        Self {
            bytes: order
                .into_iter()
                .flat_map(|n| key(n).into_bytes())
                .collect(),
            next: 0,
        }
    }

    fn next(&mut self) -> &[u8] {
        let at = self.next;
        self.next = (at + KEY_BYTES) % self.bytes.len();
        &self.bytes[at..at + KEY_BYTES]
    }
}

fn set(key: &[u8], salt: u64) -> Bytes {
    let mut value = [0x5a; VALUE_BYTES];
    value[..8].copy_from_slice(&salt.to_le_bytes());
    let kv = KvCommand {
        verb: KvVerb::Set,
        key,
        value: &value,
        flags: 0,
        index: 0,
        session: b"",
    };
    Command::Kv(kv).encode()
}

/// The next run of `size` sets, encoded as they come out of the log.
fn batch(keys: &mut Keys, index: &mut u64, size: usize) -> Vec<(Index, Term, Bytes)> {
    (0..size)
        .map(|_| {
            *index += 1;
            (Index(*index), Term(1), set(keys.next(), *index))
        })
        .collect()
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0.0);
    pages * 4096.0 / 1024.0 / 1024.0
}

struct Filled {
    fsm: Fsm,
    map: BTreeMap<Box<[u8]>, Plain>,
    keys: Keys,
    count: usize,
    index: u64,
    outcomes: Vec<Outcome>,
}

fn plain_value(salt: u64) -> Plain {
    let mut value = [0x5a; VALUE_BYTES];
    value[..8].copy_from_slice(&salt.to_le_bytes());
    Plain {
        value: Rc::from(value),
        flags: 0,
        create_index: 1,
        modify_index: salt,
        lock_index: 0,
    }
}

fn fill(count: usize) -> Filled {
    let mut keys = Keys::new(count);
    let (mut fsm, mut index, mut outcomes) = (Fsm::new(), 0, Vec::new());
    let before = resident_mib();
    for _ in 0..count.div_ceil(1000) {
        fsm.apply_run(&batch(&mut keys, &mut index, 1000), &mut outcomes)
            .expect("known commands");
        outcomes.clear();
    }
    println!(
        "resident: store of {} keys {:.0} MiB",
        fsm.store().kv_len(),
        resident_mib() - before
    );
    let before = resident_mib();
    keys.next = 0;
    let map = (0..count)
        .map(|n| (Box::from(keys.next()), plain_value(n as u64)))
        .collect();
    println!("resident: BTreeMap {:.0} MiB", resident_mib() - before);
    Filled {
        fsm,
        map,
        keys,
        count,
        index,
        outcomes,
    }
}

fn reads(c: &mut Criterion, filled: &mut Filled) {
    let Filled { fsm, map, keys, .. } = filled;
    let mut group = c.benchmark_group("get");
    group.bench_function("btreemap", |b| {
        b.iter(|| map.get(keys.next()).map(|row| black_box(row.value[0])))
    });
    group.bench_function("state", |b| {
        b.iter(|| {
            let (index, row) = fsm.store().kv_get(keys.next());
            black_box((index, row.map(|row| row.value()[0])))
        })
    });
    group.finish();
    let mut group = c.benchmark_group("list");
    for wanted in [10usize, 1000] {
        // A group holds a thousandth of a million keys, numbered by thousands.
        let group_prefix = "service/region-eu-west-00/group-00/instances/".to_owned();
        let prefix = if wanted == 1000 {
            group_prefix
        } else {
            group_prefix + "00000050"
        };
        group.bench_function(format!("btreemap/{wanted}"), |b| {
            b.iter(|| {
                let range =
                    map.range::<[u8], _>((Bound::Included(prefix.as_bytes()), Bound::Unbounded));
                let rows = range
                    .take_while(|(key, _)| key.starts_with(prefix.as_bytes()))
                    .take(wanted);
                rows.map(|(key, row)| usize::from(row.value[0]) + key.len())
                    .sum::<usize>()
            })
        });
        let mut out: Vec<KvRow> = Vec::new();
        group.bench_function(format!("state/{wanted}"), |b| {
            b.iter(|| {
                let mut list = fsm.store().kv_list(prefix.as_bytes(), b"", wanted as u64);
                while list.next_rows(256, 1 << 20, &mut out) {}
                let sum: usize = out
                    .drain(..)
                    .map(|row| usize::from(row.value()[0]) + row.key().len())
                    .sum();
                black_box((list.index(), sum))
            })
        });
    }
    group.bench_function("index of the whole table's prefix", |b| {
        b.iter(|| {
            black_box(
                fsm.store()
                    .kv_list(b"service/region-eu-west-0", b"", 0)
                    .index(),
            )
        })
    });
    group.bench_function("view open and close", |b| {
        b.iter(|| black_box(fsm.store().views()))
    });
    group.finish();
}

fn writes(c: &mut Criterion, filled: &mut Filled) {
    let Filled {
        fsm,
        map,
        keys,
        index,
        outcomes,
        ..
    } = filled;
    let mut group = c.benchmark_group("set");
    group.throughput(Throughput::Elements(1));
    let mut salt = 0;
    group.bench_function("btreemap", |b| {
        b.iter(|| {
            salt += 1;
            map.insert(Box::from(keys.next()), plain_value(salt))
        })
    });
    for size in [1usize, 64, 1024] {
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(format!("state/{size}"), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let run = batch(keys, index, size);
                    let start = std::time::Instant::now();
                    fsm.apply_run(&run, outcomes).expect("known commands");
                    spent += start.elapsed();
                    outcomes.clear();
                }
                spent
            })
        });
    }
    // What each server does besides, so that watches may go on at it; nobody watches.
    for size in [1usize, 64, 1024] {
        let (cluster, applied) = (ClusterId::default(), fsm.applied().0);
        let mut history = History::new(cluster, ShardId(0), applied, HISTORY_BYTES_DEFAULT);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(format!("state/{size} with its history"), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let run = batch(keys, index, size);
                    let start = std::time::Instant::now();
                    let mut changed = |index, changes: &[Change]| history.record(index, changes);
                    fsm.apply_run_watched(&run, outcomes, Some(&mut changed))
                        .expect("known commands");
                    spent += start.elapsed();
                    outcomes.clear();
                }
                spent
            })
        });
    }
    group.throughput(Throughput::Elements(1024));
    let view = fsm.store().views();
    group.bench_function("state/1024 under an open view", |b| {
        b.iter_batched(
            || batch(keys, index, 1024),
            |run| {
                fsm.apply_run(&run, outcomes).expect("known commands");
                outcomes.clear();
            },
            BatchSize::PerIteration,
        )
    });
    drop(view);
    while fsm.release_some(10_000) {}
    group.finish();
}

fn images(c: &mut Criterion, filled: &mut Filled) {
    let Filled { fsm, count, .. } = filled;
    let mut group = c.benchmark_group("image");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(*count as u64));
    let write = || {
        let mut writer =
            ImageWriter::new(fsm.view(), ClusterId::default(), ShardId(0), Bytes::new());
        std::iter::from_fn(move || writer.next_chunk(usize::MAX))
    };
    group.bench_function("write", |b| {
        b.iter(|| write().map(|piece| piece.len()).sum::<usize>())
    });
    let pieces: Vec<Bytes> = write().collect();
    group.bench_function("load", |b| {
        b.iter_with_large_drop(|| {
            let mut loader = ImageLoader::new();
            pieces
                .iter()
                .for_each(|piece| loader.push(piece).expect("whole"));
            loader.finish().expect("whole")
        })
    });
    group.finish();
}

fn main() {
    let count = std::env::var("CURIA_BENCH_KEYS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    let mut filled = fill(count);
    reads(&mut criterion, &mut filled);
    writes(&mut criterion, &mut filled);
    images(&mut criterion, &mut filled);
    criterion.final_summary();
}

//! What do a registration, a transaction and a change that others wait for cost?
//!
//!     cargo bench -p engine --bench records
//!
//! A change is looked up among those who wait for something else (which must cost next to nothing,
//! however many they are), and among those who wait for this very key.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use engine::{
    fsm::{Fsm, catalog::RegisterRequest, records::RecordOp},
    shard::{
        Ticket,
        watch::{Waiter, Watches},
    },
    state::{
        records::{Check, Service},
        schema::Change,
    },
};
use wire::{
    Command, Index, KvCommand, KvVerb, Query, QueryBody, ReadMode, Term, TxnOp, TxnOps, TxnVerb,
    Wait,
};

/// Keys, and nodes, that there are from the start.
const KEYS: u64 = 100_000;
const NODES: u64 = 1_000;
const TXN_OPS: usize = 64;
const WAITERS: u64 = 100_000;

fn key(number: u64) -> Vec<u8> {
    format!("service/group-{:02}/instances/{number:012}", number % 50).into_bytes()
}

fn set(key: &[u8], salt: u64) -> Bytes {
    let value = salt.to_le_bytes().repeat(32);
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

/// One registration of a service with a check; `salt` makes it differ from the one before.
fn register(number: u64, salt: u64) -> Bytes {
    let node = format!("node-{:04}", number % NODES);
    let request = RegisterRequest {
        datacenter: "dc1".into(),
        node: node.clone(),
        address: "10.0.0.1".into(),
        service: Some(Service {
            node: node.clone(),
            id: "web".into(),
            service: "web".into(),
            tags: vec!["primary".into(), format!("v{salt}")],
            port: 8000,
            ..Service::default()
        }),
        check: Some(Check {
            node,
            check_id: "service:web".into(),
            name: "web alive".into(),
            status: "passing".into(),
            service_id: "web".into(),
            ..Check::default()
        }),
        ..RegisterRequest::default()
    };
    RecordOp::Register(request).encode()
}

fn txn(first: u64, salt: u64) -> Bytes {
    let keys: Vec<_> = (first..).take(TXN_OPS).map(key).collect();
    let value = salt.to_le_bytes().repeat(8);
    let ops: Vec<_> = keys
        .iter()
        .map(|key| TxnOp {
            verb: TxnVerb::Kv(KvVerb::Set),
            key,
            value: &value,
            flags: 0,
            index: 0,
            session: b"",
        })
        .collect();
    Command::Txn(TxnOps::new(&ops)).encode()
}

struct Filled {
    fsm: Fsm,
    index: u64,
}

impl Filled {
    fn new() -> Self {
        let mut filled = Self {
            fsm: Fsm::new(),
            index: 0,
        };
        for number in 0..KEYS {
            filled.apply(set(&key(number), 0));
        }
        for number in 0..NODES {
            filled.apply(register(number, 0));
        }
        filled
    }

    fn apply(&mut self, command: Bytes) {
        self.index += 1;
        let entry = [(Index(self.index), Term(1), command)];
        let mut outcomes = Vec::with_capacity(1);
        self.fsm
            .apply_run(&entry, &mut outcomes)
            .expect("known commands");
        black_box(outcomes);
    }

    fn apply_watched(&mut self, command: Bytes, watches: &mut Watches) {
        self.index += 1;
        let entry = [(Index(self.index), Term(1), command)];
        let mut outcomes = Vec::with_capacity(1);
        let nobody_waits = watches.is_empty();
        let mut changed = |_: Index, changes: &[Change]| watches.changed(changes);
        let watch: Option<engine::fsm::Watch<'_>> = match nobody_waits {
            true => None,
            false => Some(&mut changed),
        };
        self.fsm
            .apply_run_watched(&entry, &mut outcomes, watch)
            .expect("known commands");
        black_box(outcomes);
    }
}

fn waiting(count: u64, of: impl Fn(u64) -> Vec<u8>) -> Watches {
    let mut watches = Watches::default();
    for number in 0..count {
        let waiter = Waiter {
            ticket: Ticket(number),
            query: Query {
                mode: ReadMode::Default,
                min_index: Index(0),
                wait: Wait {
                    index: Index(1),
                    ms: 300_000,
                },
                body: QueryBody::KvGet {
                    key: of(number).into(),
                },
            },
            deadline_ns: number,
        };
        watches.park(waiter).expect("it can be watched");
    }
    watches
}

fn commands(c: &mut Criterion, filled: &mut Filled) {
    let mut group = c.benchmark_group("apply");
    let mut number = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("register", |b| {
        b.iter_batched(
            || {
                number += 1;
                register(number, number)
            },
            |command| filled.apply(command),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(TXN_OPS as u64));
    group.bench_function(format!("txn/{TXN_OPS}"), |b| {
        b.iter_batched(
            || {
                number += 1;
                txn(number % (KEYS - TXN_OPS as u64), number)
            },
            |command| filled.apply(command),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn watch(c: &mut Criterion, filled: &mut Filled) {
    let mut group = c.benchmark_group("watch");
    let changed = key(7);
    let mut salt = 0;
    let mut next = || {
        salt += 1;
        set(&key(7), salt)
    };
    for count in [0, 1, WAITERS] {
        let mut others = waiting(count, |number| format!("other/{number}").into_bytes());
        group.bench_function(format!("set beside {count} waiters for other keys"), |b| {
            b.iter_batched(
                &mut next,
                |command| filled.apply_watched(command, &mut others),
                BatchSize::SmallInput,
            );
        });
    }
    for count in [1, WAITERS] {
        group.bench_function(format!("set that wakes {count}"), |b| {
            b.iter_batched(
                || (next(), waiting(count, |_| changed.clone())),
                |(command, mut watches)| {
                    filled.apply_watched(command, &mut watches);
                    let mut woken = 0;
                    while watches.next_woken().is_some() {
                        woken += 1;
                    }
                    assert_eq!(woken, count);
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn main() {
    let mut filled = Filled::new();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    commands(&mut criterion, &mut filled);
    watch(&mut criterion, &mut filled);
    criterion.final_summary();
}

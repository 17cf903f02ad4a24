//! Is every acknowledged write found again, nothing else, and in an order that could have been?
//!
//! Two kinds of load, each with a check that is complete for it:
//!
//! - [`Load`]: every write goes to a key of its own, so a lost one cannot hide behind a later one.
//!   Its fate is *acknowledged*, *refused* (nothing happened) or *unknown*.
//! - [`Clock`]: a number that only grows, written by compare-and-set and read everywhere with
//!   `default` and `consistent`. A read that began after a number was known must not give a
//!   smaller one: for such a register that is linearizability.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use super::http::{Http, NoAnswer, Row};
use super::{check, wait_for};

/// A client gives up after this long: more than the servers hold a request.
const CLIENT_PATIENCE: Duration = Duration::from_secs(15);
/// After a refusal, before the next attempt.
const PAUSE: Duration = Duration::from_millis(20);

/// Under which keys a thread writes. The first segment places them, where there are shards.
fn prefix(thread: usize) -> String {
    format!("load-{thread}/")
}

/// What became of a write, as far as its client can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Acknowledged,
    Unknown,
    Refused,
}

#[derive(Clone, Debug)]
struct Write {
    key: String,
    value: String,
    fate: Fate,
    began: Instant,
    ended: Instant,
}

/// Threads that write unique values to unique keys.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Write>>>,
}

/// Everything that was written.
pub struct History {
    writes: Vec<Write>,
    threads: usize,
}

impl Load {
    /// Starts `threads` of them, each going round the servers. Values are `value_bytes` long or a
    /// little longer.
    pub fn start(servers: &[SocketAddr], threads: usize, value_bytes: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let threads = (0..threads)
            .map(|thread| {
                let (stop, acknowledged, servers) =
                    (stop.clone(), acknowledged.clone(), servers.to_vec());
                thread::spawn(move || write_on(thread, &servers, value_bytes, &stop, &acknowledged))
            })
            .collect();
        Self {
            stop,
            acknowledged,
            threads,
        }
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` further writes are acknowledged.
    pub fn wait_for_more(&self, more: u64) {
        let goal = self.acknowledged() + more;
        wait_for(&format!("{more} more acknowledged writes"), || {
            check(self.acknowledged() >= goal, || {
                format!("{} of {goal}", self.acknowledged())
            })
        });
    }

    /// Ends the threads.
    pub fn finish(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.threads.len();
        let all = self
            .threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a load thread ends well"));
        History {
            writes: all.collect(),
            threads,
        }
    }
}

fn write_on(
    thread: usize,
    servers: &[SocketAddr],
    value_bytes: usize,
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
) -> Vec<Write> {
    let clients: Vec<Http> = servers
        .iter()
        .map(|address| Http::new(*address, CLIENT_PATIENCE))
        .collect();
    let mut writes = Vec::new();
    for (at, number) in (thread..).zip(0u64..) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{}{number:08}", prefix(thread));
        let value = format!("{key}={}", "x".repeat(value_bytes));
        let began = Instant::now();
        // Only if the key is new: a write that is carried out twice says so.
        let answer =
            clients[at % clients.len()].put(&format!("/v1/kv/{key}?cas=0"), value.as_bytes());
        let fate = fate_of(&answer);
        writes.push(Write {
            key,
            value,
            fate,
            began,
            ended: Instant::now(),
        });
        match fate {
            Fate::Acknowledged => {
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Fate::Unknown | Fate::Refused => {
                sleep(PAUSE);
            }
        }
    }
    writes
}

/// What an answer to a write proves. An answer that no server should give ends the test.
fn fate_of(answer: &Result<super::http::Answer, NoAnswer>) -> Fate {
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer::Refused) => return Fate::Refused,
        Err(NoAnswer::Unknown(_)) => return Fate::Unknown,
    };
    match (answer.status, answer.text().trim()) {
        (200, "true") => Fate::Acknowledged,
        (200, "false") => {
            panic!("a key that nobody else writes existed already: the write was carried out twice")
        }
        (500, "No cluster leader") | (429 | 503 | 507, _) => Fate::Refused,
        (500, text) if text.contains("leadership lost while committing log") => Fate::Unknown,
        (500, text) if text.contains("not in the peer set") || text.contains("repaired") => {
            Fate::Refused
        }
        (status, text) => {
            panic!("an answer to a write that no server should give: {status} {text}")
        }
    }
}

impl History {
    /// The prefixes to list for all of it.
    pub fn prefixes(&self) -> Vec<String> {
        (0..self.threads).map(prefix).collect()
    }

    /// How many writes had this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.writes
            .iter()
            .filter(|write| write.fate == fate)
            .count()
    }

    /// Judges the rows that were found when everything was over.
    pub fn check(&self, rows: &[Row]) {
        let found = self.check_contents(rows);
        self.check_order(&found);
    }

    /// The same where each shard counts its own indexes: order is judged within a prefix.
    pub fn check_in_shards(&self, rows: &[Row]) {
        let found = self.check_contents(rows);
        for prefix in self.prefixes() {
            let of_prefix = found
                .iter()
                .filter(|(key, _)| key.starts_with(&prefix))
                .map(|(key, row)| (*key, *row))
                .collect();
            self.check_order(&of_prefix);
        }
    }

    fn check_contents<'r>(&self, rows: &'r [Row]) -> BTreeMap<&'r str, &'r Row> {
        let summary = format!(
            "{} acknowledged, {} unknown, {} refused; {} rows",
            self.count(Fate::Acknowledged),
            self.count(Fate::Unknown),
            self.count(Fate::Refused),
            rows.len()
        );
        let found: BTreeMap<&str, &Row> = rows
            .iter()
            .filter(|row| row.key.starts_with("load-"))
            .map(|row| (row.key.as_str(), row))
            .collect();
        let written: BTreeMap<&str, &Write> = self
            .writes
            .iter()
            .map(|write| (write.key.as_str(), write))
            .collect();
        for (key, write) in &written {
            match (found.get(key), write.fate) {
                (None, Fate::Acknowledged) => {
                    panic!("{key} was acknowledged and is lost ({summary})")
                }
                (Some(_), Fate::Refused) => panic!("{key} was refused and yet written ({summary})"),
                (Some(row), _) => assert!(
                    row.value == write.value.as_bytes(),
                    "{key} holds another value"
                ),
                (None, _) => {}
            }
        }
        for key in found.keys() {
            assert!(
                written.contains_key(key),
                "{key} was never written ({summary})"
            );
        }
        assert!(
            self.count(Fate::Acknowledged) > 0,
            "nothing was acknowledged: the test proves nothing"
        );
        eprintln!("{summary}");
        found
    }

    /// A write that ended before another began has the smaller index.
    fn check_order(&self, found: &BTreeMap<&str, &Row>) {
        let mut ordered: Vec<(u64, &Write)> = self
            .writes
            .iter()
            .filter_map(|write| Some((found.get(write.key.as_str())?.modify_index, write)))
            .collect();
        ordered.sort_by_key(|(index, _)| *index);
        assert!(
            ordered.is_sorted_by(|a, b| a.0 < b.0),
            "two writes share a ModifyIndex"
        );
        let mut latest: Option<&Write> = None;
        for (index, write) in ordered {
            if let Some(before) = latest
                && write.fate == Fate::Acknowledged
                && before.began > write.ended
            {
                panic!(
                    "{} has index {index}, but ended before {} began, whose index is smaller",
                    write.key, before.key
                );
            }
            if latest.is_none_or(|before| write.began > before.began) {
                latest = Some(write);
            }
        }
    }
}

/// A number that only grows, and readers that would notice if it did not.
pub struct Clock {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    known: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    faults: Arc<Mutex<Vec<String>>>,
}

const CLOCK: &str = "/v1/kv/clock";

impl Clock {
    /// One writer, and for each server one reader per mode.
    pub fn start(servers: &[SocketAddr]) -> Self {
        let mut clock = Self {
            stop: Arc::default(),
            threads: Vec::new(),
            known: Arc::default(),
            reads: Arc::default(),
            faults: Arc::default(),
        };
        let (stop, known, all) = (clock.stop.clone(), clock.known.clone(), servers.to_vec());
        clock
            .threads
            .push(thread::spawn(move || wind(&all, &stop, &known)));
        for server in servers {
            for mode in ["", "&consistent"] {
                clock.read_from(*server, mode);
            }
        }
        clock
    }

    fn read_from(&mut self, server: SocketAddr, mode: &'static str) {
        let (stop, known, reads, faults) = (
            self.stop.clone(),
            self.known.clone(),
            self.reads.clone(),
            self.faults.clone(),
        );
        self.threads.push(thread::spawn(move || {
            let http = Http::new(server, CLIENT_PATIENCE);
            while !stop.load(Ordering::Relaxed) {
                let floor = known.load(Ordering::SeqCst);
                let Some((value, _)) = read_clock(&http, mode) else {
                    sleep(PAUSE);
                    continue;
                };
                if value < floor {
                    let fault = format!("{server}{mode} answered {value} to a read that began when {floor} was known");
                    faults.lock().expect("no reader panics").push(fault);
                }
                known.fetch_max(value, Ordering::SeqCst);
                reads.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(1));
            }
        }));
    }

    /// The greatest number known so far.
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::SeqCst)
    }

    /// Waits until the number has grown by `more`.
    pub fn wait_for_more(&self, more: u64) {
        let goal = self.known() + more;
        wait_for(&format!("the clock grows by {more}"), || {
            check(self.known() >= goal, || {
                format!("{} of {goal}", self.known())
            })
        });
    }

    /// Ends the threads and judges.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a clock thread ends well");
        }
        let faults = self.faults.lock().expect("no reader panics");
        assert!(
            faults.is_empty(),
            "{} stale reads: {:?}",
            faults.len(),
            &faults[..faults.len().min(5)]
        );
        let reads = self.reads.load(Ordering::Relaxed);
        assert!(reads > 0, "nothing was read: the test proves nothing");
        eprintln!(
            "clock: {} numbers, {reads} reads",
            self.known.load(Ordering::SeqCst)
        );
    }
}

/// Value and ModifyIndex; zeros while there is none, `None` without an answer.
fn read_clock(http: &Http, mode: &str) -> Option<(u64, u64)> {
    let answer = http.get(&format!("{CLOCK}?dc=dc1{mode}")).ok()?;
    match answer.status {
        404 => Some((0, 0)),
        200 => {
            let row = answer.rows().pop()?;
            let text = String::from_utf8(row.value).expect("a number");
            Some((text.parse().expect("a number"), row.modify_index))
        }
        _ => None,
    }
}

fn wind(servers: &[SocketAddr], stop: &AtomicBool, known: &AtomicU64) {
    let clients: Vec<Http> = servers
        .iter()
        .map(|address| Http::new(*address, CLIENT_PATIENCE))
        .collect();
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let http = &clients[at % clients.len()];
        at += 1;
        let Some((value, index)) = read_clock(http, "&consistent") else {
            sleep(PAUSE);
            continue;
        };
        let next = value.max(known.load(Ordering::SeqCst)) + 1;
        let answer = http.put(&format!("{CLOCK}?cas={index}"), next.to_string().as_bytes());
        if answer.is_ok_and(|answer| answer.is_true()) {
            known.fetch_max(next, Ordering::SeqCst);
        }
    }
}

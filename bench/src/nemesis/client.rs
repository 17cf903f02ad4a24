//! What do clients do, and what do they write down?
//!
//! One thread each, one call at a time, to any server. Keys are of *generations*: after every few
//! faults clients go on to new ones, so that each object has few enough operations to be judged
//! completely. Within a generation there are registers (both protocols), pairs that change in
//! transactions, a tree that is deleted as one, and locks with sessions of their own (HTTP).
//!
//! Invariant: a value is written once, ever; an operation is written down before it is known what
//! becomes of the next.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::dice::Dice;
use super::http::{Http, Mode};
use super::link::Heard;
use super::native::Native;
use crate::judge::{Answer, Call, Operation, Row, Step};

/// Between two calls of a client: faults are to meet many states, not many calls.
const PACE: Duration = Duration::from_millis(6);
/// After a refusal.
const PAUSE: Duration = Duration::from_millis(25);
/// Registers of a generation.
const REGISTERS: usize = 5;
/// Pairs of a generation, and locks.
const PAIRS: usize = 2;
/// Most answers kept that no server should give.
const ODD_MAX: usize = 20;

/// What clients and torment share.
#[derive(Debug)]
pub struct Stage {
    /// Time zero of the round's history.
    pub began: Instant,
    /// Prefix of the round's keys.
    pub prefix: String,
    http: Vec<SocketAddr>,
    native: Vec<SocketAddr>,
    stop: AtomicBool,
    generation: AtomicU64,
    decided: AtomicU64,
    odd: Mutex<Vec<String>>,
}

impl Stage {
    /// For one round.
    pub fn new(prefix: String, http: Vec<SocketAddr>, native: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            prefix,
            http,
            native,
            stop: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            decided: AtomicU64::new(0),
            odd: Mutex::default(),
        })
    }

    /// Clients go on to new keys.
    pub fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls that were decided so far.
    pub fn decided(&self) -> u64 {
        self.decided.load(Ordering::Relaxed)
    }

    /// Answers that no server should give.
    pub fn odd(&self) -> Vec<String> {
        self.odd
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Nanoseconds since time zero.
    pub fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

/// Client threads of one round.
#[derive(Debug)]
pub struct Clients {
    stage: Arc<Stage>,
    threads: Vec<JoinHandle<Vec<Operation>>>,
}

impl Clients {
    /// Starts `count` of them; every third speaks the native protocol.
    pub fn start(stage: &Arc<Stage>, count: usize, seed: u64) -> Self {
        let threads = (0..count).map(|number| {
            let stage = stage.clone();
            std::thread::spawn(move || Client::new(stage, number, seed).run())
        });
        Self {
            threads: threads.collect(),
            stage: stage.clone(),
        }
    }

    /// Ends them; what they wrote down, in the order of the calls.
    pub fn finish(self) -> Vec<Operation> {
        self.stage.stop.store(true, Ordering::Relaxed);
        let records = self.threads.into_iter().flat_map(|thread| {
            // A client that panics is a mistake of this program, and is told as one.
            thread.join().expect("a client thread ends well")
        });
        let mut operations: Vec<Operation> = records.collect();
        operations.sort_by_key(|operation| operation.called_ns);
        operations
    }
}

struct Client {
    stage: Arc<Stage>,
    number: usize,
    dice: Dice,
    http: Vec<Http>,
    native: Option<Native>,
    records: Vec<Operation>,
    generation: u64,
    /// Indexes that this client was shown.
    known: HashMap<String, u64>,
    /// This client's session, and its lock.
    session: Option<String>,
    values: u64,
}

impl Client {
    fn new(stage: Arc<Stage>, number: usize, seed: u64) -> Self {
        Self {
            http: stage
                .http
                .iter()
                .map(|address| Http::new(*address))
                .collect(),
            native: (number % 3 == 2).then(|| Native::new(&stage.native)),
            dice: Dice::new(seed, 100 + number as u64),
            stage,
            number,
            records: Vec::new(),
            generation: 0,
            known: HashMap::new(),
            session: None,
            values: 0,
        }
    }

    fn run(mut self) -> Vec<Operation> {
        while !self.stage.stop.load(Ordering::Relaxed) {
            let generation = self.stage.generation.load(Ordering::Relaxed);
            if generation != self.generation {
                self.leave();
                self.generation = generation;
            }
            let call = match self.native {
                Some(_) => self.on_register(),
                None => match self.dice.below(20) {
                    0..9 => self.on_register(),
                    9..13 => self.on_pair(),
                    13..15 => self.on_tree(),
                    _ => self.on_lock(),
                },
            };
            match self.make(call) {
                true => sleep(PACE),
                false => sleep(PAUSE),
            }
        }
        self.records
    }

    /// Gives back what was held, before going on to other keys.
    fn leave(&mut self) {
        self.known.clear();
        if let Some(session) = self.session.take() {
            self.make(Call::DestroySession { session });
        }
    }

    fn key(&self, rest: &str) -> String {
        format!("{}{}/{rest}", self.stage.prefix, self.generation)
    }

    fn value(&mut self) -> String {
        self.values += 1;
        format!("{}{}-{}", self.stage.prefix, self.number, self.values)
    }

    fn index(&self, key: &str) -> u64 {
        self.known.get(key).copied().unwrap_or(0)
    }

    fn on_register(&mut self) -> Call {
        let register = self.dice.below(REGISTERS);
        let key = self.key(&format!("r{register}"));
        let index = self.index(&key);
        match self.dice.below(16) {
            0..4 => Call::Get { key },
            4..6 => Call::GetStale { key },
            6..10 => Call::Step(Step::Set {
                key,
                value: self.value(),
            }),
            10..14 => Call::Step(Step::Cas {
                key,
                value: self.value(),
                index,
            }),
            14 => Call::Step(Step::Delete { key }),
            _ if index == 0 => Call::Get { key },
            _ => Call::Step(Step::DeleteCas { key, index }),
        }
    }

    fn on_pair(&mut self) -> Call {
        let pair = self.dice.below(PAIRS);
        let (a, b) = (
            self.key(&format!("p{pair}/a")),
            self.key(&format!("p{pair}/b")),
        );
        let index = self.index(&a);
        match self.dice.below(8) {
            0..3 => Call::Txn(vec![Step::Get { key: a }, Step::Get { key: b }]),
            3..5 => Call::Txn(vec![
                Step::Set {
                    key: a,
                    value: self.value(),
                },
                Step::Set {
                    key: b,
                    value: self.value(),
                },
            ]),
            5 | 6 => Call::Txn(vec![
                Step::Cas {
                    key: a.clone(),
                    value: self.value(),
                    index,
                },
                Step::Get { key: a },
                Step::Set {
                    key: b,
                    value: self.value(),
                },
            ]),
            _ => Call::Txn(vec![
                Step::Delete { key: b },
                Step::Set {
                    key: a,
                    value: self.value(),
                },
            ]),
        }
    }

    fn on_tree(&mut self) -> Call {
        let leaf = *self.dice.one_of(&["t/a", "t/b"]);
        let leaf = self.key(leaf);
        match self.dice.below(5) {
            0 | 1 => Call::Get { key: leaf },
            2 | 3 => Call::Step(Step::Set {
                key: leaf,
                value: self.value(),
            }),
            _ => Call::Step(Step::DeleteTree {
                prefix: self.key("t/"),
            }),
        }
    }

    fn on_lock(&mut self) -> Call {
        let key = self.key(&format!("l{}", self.number % PAIRS));
        let Some(session) = self.session.clone() else {
            return Call::CreateSession;
        };
        match self.dice.below(10) {
            0..5 => Call::Step(Step::Acquire {
                key,
                value: self.value(),
                session,
            }),
            5..7 => Call::Step(Step::Release {
                key,
                value: self.value(),
                session,
            }),
            7 | 8 => Call::Get { key },
            _ => {
                self.session = None;
                Call::DestroySession { session }
            }
        }
    }

    /// Makes a call and writes it down; whether it was decided.
    fn make(&mut self, call: Call) -> bool {
        let mode = match self.dice.once_in(2) {
            true => Mode::Consistent,
            false => Mode::Default,
        };
        let called_ns = self.stage.now_ns();
        let heard = match &mut self.native {
            Some(native) => native.call(&call, mode),
            None => {
                let server = self.dice.below(self.http.len());
                self.http[server].call(&call, mode)
            }
        };
        let answered_ns = self.stage.now_ns();
        let decided = matches!(heard, Heard::Answer(_));
        let answer = match heard {
            Heard::Answer(answer) => {
                self.stage.decided.fetch_add(1, Ordering::Relaxed);
                self.learn(&call, &answer);
                Some((answered_ns, answer))
            }
            Heard::Refused => Some((answered_ns, Answer::Refused)),
            Heard::Unknown => None,
            Heard::Odd(what) => {
                let mut odd = self
                    .stage
                    .odd
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if odd.len() < ODD_MAX {
                    odd.push(what);
                }
                None
            }
        };
        let is_read = matches!(call, Call::Get { .. } | Call::GetStale { .. });
        // A read that was not answered says nothing.
        if decided || !is_read {
            self.records.push(Operation {
                client: self.number as u32,
                call,
                called_ns,
                answer,
            });
        }
        decided
    }

    fn learn(&mut self, call: &Call, answer: &Answer) {
        let mut note = |key: &str, row: Option<&Row>| {
            let index = row.map_or(0, |row| row.modify_index);
            self.known.insert(key.to_owned(), index);
        };
        match (call, answer) {
            (Call::Get { key } | Call::GetStale { key }, Answer::Row(row, _)) => {
                note(key, row.as_ref());
            }
            (Call::Txn(steps), Answer::Txn { rows, .. }) => {
                for (step, row) in steps.iter().zip(rows) {
                    if let Step::Get { key } | Step::Set { key, .. } | Step::Cas { key, .. } = step
                    {
                        note(key, row.as_ref());
                    }
                }
            }
            (
                Call::Step(Step::Set { key, .. } | Step::Cas { key, .. }),
                Answer::Done { ok: true, index },
            ) if *index != 0 => {
                self.known.insert(key.clone(), *index);
            }
            (_, Answer::Session { session, .. }) => self.session = Some(session.clone()),
            _ => {}
        }
    }
}

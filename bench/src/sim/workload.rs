//! What do clients ask for, and what does their answer mean?
//!
//! Like faults, kinds of operations are drawn per seed: some worlds know nothing but locks, others
//! nothing but transactions. Keys are few, so that clients meet. Conditions are drawn from what the
//! client saw last, so that they sometimes hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::{
    fsm::{
        TxnRow,
        catalog::RegisterRequest,
        records::RecordOp,
        sessions::{SessionRequest, SessionVerb},
    },
    shard::{ReadBody, Reply, Request},
    state::records::Session,
};
use wire::{
    Command, Failure, FailureKind, Index, KvCommand, KvRowRef, KvVerb, Query, QueryBody, ReadMode,
    TxnOp, TxnOps, TxnVerb, Wait,
};

use super::{draw::Draw, plan::Plan};
use crate::judge::{Answer, Call, Row, Step};

/// The node that sessions belong to.
pub const NODE: &str = "n";

/// Longest value within a transaction, bytes: all of it must fit into one small batch.
const TXN_VALUE_BYTES_MAX: u64 = 512;

/// Longest wait of a blocking query, ms.
const WAIT_MS_MAX: u64 = 300;

/// One client: it asks for one thing at a time.
#[derive(Debug, Default)]
pub struct Client {
    /// Its number in the history; a client that does not know what came of a call is another
    /// one from then on.
    pub number: u32,
    /// Its shard.
    pub shard: u16,
    /// The server that it asks next.
    pub aim: usize,
    /// Sessions that it made.
    pub sessions: Vec<String>,
    /// Indexes that it saw last.
    pub seen: BTreeMap<String, u64>,
}

/// How often which kind of operation is asked for.
#[derive(Clone, Debug)]
pub struct Mix {
    weights: [u64; 12],
    keys: u64,
    value_bytes_max: u64,
    lease_holds: bool,
}

/// A call, and what only its asker knows of it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What.
    pub call: Call,
    /// How fresh a read is to be.
    pub mode: ReadMode,
    /// How long a read is to wait for a change.
    pub wait: Wait,
    /// The id of a session to be made.
    pub session: String,
}

impl Mix {
    /// The mix of a world.
    pub fn draw(draw: &mut Draw, plan: &Plan) -> Self {
        let mut weights = [0; 12];
        for weight in &mut weights {
            *weight = *draw.pick(&[0, 1, 1, 2, 4, 8]);
        }
        // Without writes there is nothing to read, without sessions nothing to lock with.
        weights[0] += 2;
        weights[10] += u64::from(weights[6] > 0);
        Self {
            weights,
            keys: plan.keys,
            value_bytes_max: plan.value_bytes_max,
            lease_holds: plan.lease_holds,
        }
    }

    fn kind(&self, draw: &mut Draw) -> usize {
        let total: u64 = self.weights.iter().sum();
        let mut at = draw.below(total);
        for (kind, weight) in self.weights.iter().enumerate() {
            if at < *weight {
                return kind;
            }
            at -= weight;
        }
        0
    }

    /// What a client asks for as operation `no` of its shard.
    pub fn call(&self, draw: &mut Draw, client: &Client, no: usize) -> Wanted {
        let mut wanted = Wanted {
            call: Call::CreateSession,
            mode: ReadMode::Default,
            wait: Wait::default(),
            session: String::new(),
        };
        let kind = self.kind(draw);
        wanted.call = match kind {
            0..=6 => Call::Step(self.step(draw, client, kind, no, 0, self.value_bytes_max)),
            7 => Call::Txn(self.txn(draw, client, no)),
            8 | 9 => self.read(draw, client, kind == 9, &mut wanted),
            10 => {
                wanted.session = format!("{:08x}-0000-4000-8000-{no:012x}", client.shard);
                Call::CreateSession
            }
            _ => match client.sessions.last() {
                Some(session) => Call::DestroySession {
                    session: session.clone(),
                },
                None => self.read(draw, client, false, &mut wanted),
            },
        };
        wanted
    }

    fn key(&self, draw: &mut Draw) -> String {
        let key = draw.below(self.keys);
        format!("p{}/k{key}", key % 3)
    }

    fn value(draw: &mut Draw, no: usize, step: usize, bytes_max: u64) -> String {
        let padding = draw.below(bytes_max) as usize;
        let mut value = format!("v{no}-{step}:");
        value.extend(std::iter::repeat_n('x', padding));
        value
    }

    fn index(draw: &mut Draw, client: &Client, key: &str) -> u64 {
        match client.seen.get(key) {
            Some(index) if draw.chance(850) => *index,
            _ => draw.below(2) * draw.below(100),
        }
    }

    fn step(
        &self,
        draw: &mut Draw,
        client: &Client,
        kind: usize,
        no: usize,
        at: usize,
        bytes_max: u64,
    ) -> Step {
        let key = self.key(draw);
        let value = Self::value(draw, no, at, bytes_max);
        let session = client.sessions.last().cloned();
        match (kind, session) {
            (1, _) => Step::Cas {
                index: Self::index(draw, client, &key),
                key,
                value,
            },
            (2, _) => Step::Delete { key },
            (3, _) => Step::DeleteCas {
                index: Self::index(draw, client, &key),
                key,
            },
            (4, _) if draw.chance(300) => Step::DeleteTree {
                prefix: match draw.below(8) {
                    0 => String::new(),
                    prefix => format!("p{}/", prefix % 3),
                },
            },
            (5, Some(session)) => Step::Release {
                key,
                value,
                session,
            },
            (6, Some(session)) => Step::Acquire {
                key,
                value,
                session,
            },
            _ => Step::Set { key, value },
        }
    }

    fn txn(&self, draw: &mut Draw, client: &Client, no: usize) -> Vec<Step> {
        let steps = draw.within(1, 4) as usize;
        let bytes_max = self.value_bytes_max.min(TXN_VALUE_BYTES_MAX);
        let mut txn: Vec<Step> = (1..=steps)
            .map(|at| match draw.below(8) {
                7 => Step::Get {
                    key: self.key(draw),
                },
                kind => self.step(draw, client, kind as usize, no, at, bytes_max),
            })
            .collect();
        // One that only reads takes another way.
        if txn.iter().all(|step| matches!(step, Step::Get { .. })) {
            txn.push(self.step(draw, client, 0, no, 0, bytes_max));
        }
        txn
    }

    fn read(&self, draw: &mut Draw, client: &Client, stale: bool, wanted: &mut Wanted) -> Call {
        let key = self.key(draw);
        if draw.chance(200)
            && let Some(seen) = client.seen.get(&key)
        {
            wanted.wait = Wait {
                index: Index(*seen),
                ms: draw.within(1, WAIT_MS_MAX) as u32,
            };
        }
        wanted.mode = match stale {
            true => ReadMode::Stale,
            false => *draw.pick(&[ReadMode::Default, ReadMode::Consistent]),
        };
        // By a leader whose lease is worth nothing, a default read may be old.
        match stale || wanted.mode == ReadMode::Default && !self.lease_holds {
            true => Call::GetStale { key },
            false => Call::Get { key },
        }
    }
}

fn kv<'a>(verb: KvVerb, key: &'a str) -> KvCommand<'a> {
    KvCommand {
        verb,
        key: key.as_bytes(),
        value: b"",
        flags: 0,
        index: 0,
        session: b"",
    }
}

fn command(step: &Step) -> KvCommand<'_> {
    match step {
        Step::Set { key, value } => KvCommand {
            value: value.as_bytes(),
            ..kv(KvVerb::Set, key)
        },
        Step::Cas { key, value, index } => KvCommand {
            index: *index,
            value: value.as_bytes(),
            ..kv(KvVerb::Cas, key)
        },
        Step::Delete { key } => kv(KvVerb::Delete, key),
        Step::DeleteCas { key, index } => KvCommand {
            index: *index,
            ..kv(KvVerb::DeleteCas, key)
        },
        Step::DeleteTree { prefix } => kv(KvVerb::DeleteTree, prefix),
        Step::Acquire {
            key,
            value,
            session,
        } => KvCommand {
            value: value.as_bytes(),
            session: session.as_bytes(),
            ..kv(KvVerb::Lock, key)
        },
        Step::Release {
            key,
            value,
            session,
        } => KvCommand {
            value: value.as_bytes(),
            session: session.as_bytes(),
            ..kv(KvVerb::Unlock, key)
        },
        Step::Get { .. } => unreachable!("a read within a transaction is no command of its own"),
    }
}

fn txn(steps: &[Step]) -> Bytes {
    let ops: Vec<TxnOp<'_>> = steps
        .iter()
        .map(|step| match step {
            Step::Get { key } => TxnOp {
                verb: TxnVerb::Get,
                key: key.as_bytes(),
                value: b"",
                flags: 0,
                index: 0,
                session: b"",
            },
            step => {
                let command = command(step);
                TxnOp {
                    verb: TxnVerb::Kv(command.verb),
                    key: command.key,
                    value: command.value,
                    flags: 0,
                    index: command.index,
                    session: command.session,
                }
            }
        })
        .collect();
    Command::Txn(TxnOps::new(&ops)).encode()
}

fn session(op: SessionVerb, id: &str) -> Bytes {
    let session = Session {
        id: id.to_owned(),
        node: NODE.to_owned(),
        behavior: "release".to_owned(),
        ..Session::default()
    };
    RecordOp::Session(SessionRequest { op, session }).encode()
}

/// Puts the node into the catalog that sessions belong to.
pub fn registration() -> Bytes {
    RecordOp::Register(RegisterRequest {
        datacenter: "dc1".to_owned(),
        node: NODE.to_owned(),
        address: "10.0.0.99".to_owned(),
        ..RegisterRequest::default()
    })
    .encode()
}

impl Wanted {
    /// As a server is asked.
    pub fn request(&self) -> Request {
        match &self.call {
            Call::Get { key } | Call::GetStale { key } => Request::Read(Query {
                mode: self.mode,
                min_index: Index(0),
                wait: self.wait,
                body: QueryBody::KvGet {
                    key: Bytes::copy_from_slice(key.as_bytes()),
                },
            }),
            Call::Step(step) => Request::Write(Command::Kv(command(step)).encode()),
            Call::Txn(steps) => Request::Write(txn(steps)),
            Call::CreateSession => Request::Write(session(SessionVerb::Create, &self.session)),
            Call::DestroySession { session: id } => {
                Request::Write(session(SessionVerb::Destroy, id))
            }
        }
    }

    /// What a reply says. `Err` for one that does not belong to the call.
    pub fn answer(&self, reply: Reply) -> Result<Answer, String> {
        match (&self.call, reply) {
            (Call::Get { .. } | Call::GetStale { .. }, Reply::Read(read)) => match read.body {
                ReadBody::Row(found) => {
                    let found = found.map(|found| row(found.as_ref(), true));
                    Ok(Answer::Row(found, read.index.0))
                }
                other => Err(format!("a read of a key is answered with {other:?}")),
            },
            (Call::Step(_) | Call::DestroySession { .. }, Reply::Written { ok, index }) => {
                Ok(Answer::Done { ok, index: index.0 })
            }
            (Call::CreateSession, Reply::Written { ok: true, index }) => Ok(Answer::Session {
                session: self.session.clone(),
                index: index.0,
            }),
            (Call::Txn(steps), Reply::Txn { index, outcome }) => {
                Ok(txn_answer(steps, index, &outcome))
            }
            (call, reply) => Err(format!("{call:?} is answered with {reply:?}")),
        }
    }

    /// What a failure says, if it is the call's answer: the state machine refused it.
    pub fn refusal(&self, failure: &Failure) -> Option<Answer> {
        (failure.kind == FailureKind::Refused).then_some(Answer::Done {
            ok: false,
            index: 0,
        })
    }
}

fn txn_answer(steps: &[Step], index: Index, outcome: &engine::fsm::TxnOutcome) -> Answer {
    if !outcome.errors.is_empty() {
        let failed = outcome.errors.iter().map(|error| error.op as usize);
        return Answer::RolledBack {
            failed: failed.collect(),
        };
    }
    let mut found = outcome.rows().iter();
    let rows = steps.iter().map(|step| match step {
        Step::Delete { .. } | Step::DeleteCas { .. } | Step::DeleteTree { .. } => None,
        _ => found.next().map(|found| match found {
            TxnRow::Kv {
                row: found,
                with_value,
            } => row(found.as_ref(), *with_value),
            other => unreachable!("a transaction on keys answers with {other:?}"),
        }),
    });
    Answer::Txn {
        rows: rows.collect(),
        index: index.0,
    }
}

/// A row as a history has it.
pub fn row(row: KvRowRef<'_>, with_value: bool) -> Row {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Row {
        value: if with_value {
            text(row.value)
        } else {
            String::new()
        },
        create_index: row.create_index.0,
        modify_index: row.modify_index.0,
        lock_index: row.lock_index,
        session: text(row.session),
    }
}

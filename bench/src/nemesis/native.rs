//! How does a call travel over the native protocol, and what does the answer prove?
//!
//! By the client library that users have, so that its promise is judged as well: a write is never
//! sent twice, and what it calls refused or timed out did not happen.

use std::net::SocketAddr;
use std::time::Duration;

use engine::client::blocking::Client;
use engine::client::{ClientError, ClientOptions, PutOptions, Written};
use wire::{Index, KvRow, ReadMode};

use super::http::Mode;
use super::link::Heard;
use crate::judge::{Answer, Call, Row, Step};

const CONNECT_MAX: Duration = Duration::from_millis(600);
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// A native client that is connected when it is needed.
#[derive(Debug)]
pub struct Native {
    seeds: Vec<SocketAddr>,
    client: Option<Client>,
}

impl Native {
    /// Not connected yet.
    pub fn new(seeds: &[SocketAddr]) -> Self {
        Self {
            seeds: seeds.to_vec(),
            client: None,
        }
    }

    /// Makes a call. Transactions and sessions are for HTTP.
    pub fn call(&mut self, call: &Call, mode: Mode) -> Heard {
        if self.client.is_none() {
            self.client = Client::connect(ClientOptions {
                seeds: self.seeds.clone(),
                name: "nemesis".into(),
                connect_timeout: CONNECT_MAX,
                request_timeout: ANSWER_MAX,
                ..ClientOptions::default()
            })
            .ok();
        }
        let Some(client) = &mut self.client else {
            return Heard::Refused;
        };
        let mode = match (call, mode) {
            (Call::GetStale { .. }, _) => ReadMode::Stale,
            (_, Mode::Default) => ReadMode::Default,
            (_, Mode::Consistent) => ReadMode::Consistent,
        };
        let heard = match call {
            Call::Get { key } | Call::GetStale { key } => {
                let read = client.get(key.as_bytes(), mode);
                read.map(|read| {
                    let index = read.index.0;
                    Heard::Answer(Answer::Row(read.value.as_ref().map(row), index))
                })
            }
            Call::Step(Step::Set { key, value }) => client
                .put(key.as_bytes(), value.as_bytes(), PutOptions::default())
                .map(written),
            Call::Step(Step::Cas { key, value, index }) => client
                .cas(key.as_bytes(), value.as_bytes(), Index(*index))
                .map(written),
            Call::Step(Step::Delete { key }) => client.delete(key.as_bytes()).map(written),
            Call::Step(Step::DeleteCas { key, index }) => client
                .delete_cas(key.as_bytes(), Index(*index))
                .map(written),
            Call::Step(Step::DeleteTree { prefix }) => {
                client.delete_tree(prefix.as_bytes()).map(written)
            }
            other => return Heard::Odd(format!("not for the native client: {other:?}")),
        };
        heard.unwrap_or_else(|error| judge(call, &error))
    }
}

fn written(written: Written) -> Heard {
    Heard::Answer(Answer::Done {
        ok: written.ok,
        index: written.index.0,
    })
}

fn row(row: &KvRow) -> Row {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Row {
        value: text(&row.value),
        create_index: row.create_index.0,
        modify_index: row.modify_index.0,
        lock_index: row.lock_index,
        session: text(&row.session),
    }
}

fn judge(call: &Call, error: &ClientError) -> Heard {
    match error {
        ClientError::OutcomeUnknown(_) => Heard::Unknown,
        ClientError::Timeout { .. } | ClientError::NoServer { .. } => Heard::Refused,
        ClientError::Refused(failure) if is_promise(failure.kind) => Heard::Refused,
        // A damaged server that asks its peers for what it lacks.
        ClientError::Refused(failure) if failure.message.contains("repaired") => Heard::Refused,
        _ => Heard::Odd(format!("{call:?}: {error:?}")),
    }
}

/// Failures that a tormented server may answer with, each of which promises that nothing happened.
fn is_promise(kind: wire::FailureKind) -> bool {
    use wire::FailureKind::{Busy, DiskFull, NoLeader, NotLeader, NotMember, ShuttingDown};
    matches!(
        kind,
        NoLeader | NotLeader | Busy | DiskFull | NotMember | ShuttingDown
    )
}

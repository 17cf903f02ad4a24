//! What may a fuzzer reach of the native client? Only with the feature `fuzzing`.
//!
//! The session of a client without its socket and clock: requests go in with a ticket each, and how
//! each ends comes out.

use std::time::{Duration, Instant};

use wire::{Hello, KvCommand, KvVerb, Query, QueryBody, ReadMode, Wait};

use super::{
    ClientError,
    error::Lost,
    requests::{Encoded, Write},
    session::{Event, Outcome, Session},
};

/// Longest answer that the session takes, bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was answered, or refused.
    Answered,
    /// Nobody knows whether it happened.
    Unknown,
    /// It did not happen, and is to be made again.
    Again,
    /// It did not happen in time.
    TimedOut,
}

/// A client's session.
#[derive(Debug)]
pub struct Conversation {
    session: Session<u32>,
    now: Instant,
}

impl Conversation {
    /// Without a connection.
    pub fn new() -> Self {
        Self {
            session: Session::new(&Hello::default(), ANSWER_BYTES_MAX),
            now: Instant::now(),
        }
    }

    /// Makes a write of a key.
    pub fn put(&mut self, ticket: u32, key: &[u8], wait_ms: u64) {
        let command = KvCommand {
            verb: KvVerb::Set,
            key,
            value: b"value",
            flags: 0,
            index: 0,
            session: b"",
        };
        let deadline = self.now + Duration::from_millis(wait_ms);
        let request = Write::new(command, 1).expect("a short key");
        self.session.make(&request, ticket, self.now, deadline);
    }

    /// Asks for a key.
    pub fn get(&mut self, ticket: u32, key: &[u8], wait_ms: u64) {
        let query = Query {
            mode: ReadMode::Default,
            min_index: wire::Index(0),
            wait: Wait::default(),
            body: QueryBody::KvGet {
                key: key.to_vec().into(),
            },
        };
        let deadline = self.now + Duration::from_millis(wait_ms);
        let request = Encoded::query(&query, 1).expect("a short key");
        self.session.make(&request, ticket, self.now, deadline);
    }

    /// A connection is made.
    pub fn connected(&mut self) {
        self.session.connected();
    }

    /// Bytes to be sent now.
    pub fn to_send(&self) -> &[u8] {
        self.session.to_send()
    }

    /// So many of them left.
    pub fn sent(&mut self, n: usize) {
        self.session.sent(n);
    }

    /// Takes in what a server sent. `Err`: the connection is of no use any more.
    ///
    /// # Errors
    /// Why.
    pub fn received(
        &mut self,
        mut bytes: &[u8],
        ended: &mut Vec<(u32, Ended)>,
    ) -> Result<(), String> {
        while !bytes.is_empty() {
            let space = self.session.space();
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            self.session.received(n, self.now);
            bytes = &bytes[n..];
            loop {
                match self.session.next_event() {
                    Ok(None) => break,
                    Ok(Some(Event::Hello(_))) => self.session.open(),
                    Ok(Some(Event::Ended(ticket, outcome))) => ended.push((ticket, how(&outcome))),
                    Err(lost) => return Err(lost.to_string()),
                }
            }
        }
        Ok(())
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, ended: &mut Vec<(u32, Ended)>) {
        let gone = self.session.disconnected(&Lost::Closed);
        ended.extend(gone.iter().map(|(ticket, outcome)| (*ticket, how(outcome))));
    }

    /// So much time passes.
    pub fn pass(&mut self, ms: u64, ended: &mut Vec<(u32, Ended)>) {
        let after = Duration::from_millis(ms);
        self.now += after;
        let expired = self.session.expire(self.now, after, "the fuzzer");
        ended.extend(expired.iter().map(|(ticket, error)| (*ticket, why(error))));
    }

    /// Nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.session.is_idle()
    }

    /// Whether another server is to be gone to, now.
    pub fn is_drained(&self) -> bool {
        self.session.drained().is_some()
    }
}

impl Default for Conversation {
    fn default() -> Self {
        Self::new()
    }
}

fn how(outcome: &Outcome) -> Ended {
    match outcome {
        Outcome::Reply(_) => Ended::Answered,
        Outcome::Failed(error) => why(error),
        Outcome::Again => Ended::Again,
    }
}

fn why(error: &ClientError) -> Ended {
    match error {
        ClientError::OutcomeUnknown(_) => Ended::Unknown,
        ClientError::Timeout { .. } => Ended::TimedOut,
        _ => Ended::Answered,
    }
}

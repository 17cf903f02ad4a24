//! What does a question about records get for an answer, and whose changes can change it?
//!
//! A [`Question`] is asked of a shard as MessagePack; its answer is the JSON document that Consul's
//! HTTP API gives, made where the state is, so that it travels as it will leave. Each family of
//! tables has a module of questions. A question knows three things: the document, its index
//! (`X-Consul-Index`, by Consul's rules for the endpoint), and its *subject*: the one row, node,
//! service or table whose changes can change the answer. A blocking query waits for its subject,
//! and every applied change names the subjects it [touches](subjects::touched).
//!
//! Invariant: a change that alters a question's document or index touches the question's subject.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wire::{Index, WireError};

use crate::{
    fsm::{
        mixed::{MixedTxn, read_only},
        records::packed,
    },
    state::{
        Tables,
        schema::{Checks, Kvs, Nodes, Services},
        table::TableDef,
    },
};

pub mod agent;
pub mod catalog;
pub mod config;
pub mod sessions;
pub mod subjects;
pub mod txn;

pub use agent::{AgentQuestion, NodeRows};
pub use catalog::CatalogQuestion;
pub use config::ConfigQuestion;
pub use sessions::SessionQuestion;
pub use subjects::Subject;

/// A question about records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Question {
    /// About all that a node has.
    Agent(AgentQuestion),
    /// About nodes, services and checks.
    Catalog(CatalogQuestion),
    /// A transaction that only reads; it never waits.
    Txn(MixedTxn),
    /// About config entries.
    Config(ConfigQuestion),
    /// About sessions.
    Session(SessionQuestion),
}

impl Question {
    /// Reads a question. `Malformed` for one that this build does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        rmp_serde::from_slice(bytes).map_err(|error| WireError::Malformed {
            what: "question",
            why: error.to_string(),
        })
    }

    /// As it travels.
    pub fn encode(&self) -> Bytes {
        packed(self).into()
    }

    /// Whose changes can change the answer.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Agent(question) => question.subject(),
            Self::Catalog(question) => question.subject(),
            Self::Txn(_) => Subject::table(Nodes::ID),
            Self::Config(question) => question.subject(),
            Self::Session(question) => question.subject(),
        }
    }

    /// `X-Consul-Index` of the answer.
    pub fn index(&self, tables: &Tables) -> Index {
        match self {
            Self::Agent(question) => question.index(tables),
            Self::Catalog(question) => question.index(tables),
            Self::Txn(_) => {
                tables.max_index(&[Kvs::NAME, Nodes::NAME, Services::NAME, Checks::NAME])
            }
            Self::Config(question) => question.index(tables),
            Self::Session(question) => question.index(tables),
        }
    }

    /// The document, compact.
    pub fn answer(&self, tables: &Tables) -> Vec<u8> {
        match self {
            Self::Agent(question) => question.answer(tables),
            Self::Catalog(question) => question.answer(tables),
            Self::Txn(ops) => txn::result(&read_only(tables, ops)),
            Self::Config(question) => question.answer(tables),
            Self::Session(question) => question.answer(tables),
        }
    }
}

/// JSON as Go's encoder writes it, compact.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let plain = serde_json::to_vec(value).expect("strings and numbers into memory");
    if !plain
        .iter()
        .any(|byte| matches!(byte, b'<' | b'>' | b'&' | 0xe2))
    {
        return plain;
    }
    // These stand in strings only, and Go escapes them there.
    let text = String::from_utf8(plain).expect("JSON is UTF-8");
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out.into_bytes()
}

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
use wire::{Index, WireError, limits};

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

pub mod acl;
pub mod agent;
pub mod catalog;
pub mod config;
pub mod coordinates;
pub mod queries;
pub mod sessions;
pub mod subjects;
pub mod txn;
pub mod usage;

pub use acl::AclQuestion;
pub use agent::{AgentQuestion, NodeRows};
pub use catalog::CatalogQuestion;
pub use config::ConfigQuestion;
pub use coordinates::CoordinatesQuestion;
pub use queries::QueriesQuestion;
pub use sessions::SessionQuestion;
pub use subjects::Subject;
pub use usage::UsageQuestion;

/// A question about records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Question {
    /// About tokens, policies and roles.
    Acl(AclQuestion),
    /// About all that a node has.
    Agent(AgentQuestion),
    /// About nodes, services and checks.
    Catalog(CatalogQuestion),
    /// A transaction that only reads; it never waits.
    Txn(MixedTxn),
    /// About config entries.
    Config(ConfigQuestion),
    /// About coordinates.
    Coordinates(CoordinatesQuestion),
    /// About prepared queries.
    Queries(QueriesQuestion),
    /// About sessions.
    Session(SessionQuestion),
    /// About how much is registered.
    Usage(UsageQuestion),
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
            Self::Acl(question) => question.subject(),
            Self::Agent(question) => question.subject(),
            Self::Catalog(question) => question.subject(),
            Self::Txn(_) => Subject::table(Nodes::ID),
            Self::Config(question) => question.subject(),
            Self::Coordinates(question) => question.subject(),
            Self::Queries(question) => question.subject(),
            Self::Session(question) => question.subject(),
            Self::Usage(question) => question.subject(),
        }
    }

    /// `X-Consul-Index` of the answer.
    pub fn index(&self, tables: &Tables) -> Index {
        match self {
            Self::Acl(question) => question.index(tables),
            Self::Agent(question) => question.index(tables),
            Self::Catalog(question) => question.index(tables),
            Self::Txn(_) => {
                tables.max_index(&[Kvs::NAME, Nodes::NAME, Services::NAME, Checks::NAME])
            }
            Self::Config(question) => question.index(tables),
            Self::Coordinates(question) => question.index(tables),
            Self::Queries(question) => question.index(tables),
            Self::Session(question) => question.index(tables),
            Self::Usage(question) => question.index(tables),
        }
    }

    /// The document, compact; `Err` for one that would be longer than
    /// [`limits::DOCUMENT_BYTES_MAX`].
    pub fn answer(&self, tables: &Tables) -> Result<Vec<u8>, TooLong> {
        let document = self.document(tables);
        match document.len() > limits::DOCUMENT_BYTES_MAX {
            true => Err(TooLong),
            false => Ok(document),
        }
    }

    /// One that is too long is cut behind the limit.
    fn document(&self, tables: &Tables) -> Vec<u8> {
        match self {
            Self::Acl(question) => question.answer(tables),
            Self::Agent(question) => question.answer(tables),
            Self::Catalog(question) => question.answer(tables),
            Self::Txn(ops) => txn::result(&read_only(tables, ops)),
            Self::Config(question) => question.answer(tables),
            Self::Coordinates(question) => question.answer(tables),
            Self::Queries(question) => question.answer(tables),
            Self::Session(question) => question.answer(tables),
            Self::Usage(question) => question.answer(tables),
        }
    }
}

/// An answer that is longer than a shard may take the time to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the answer is over the limit of {} bytes; ask for less, such as with ?filter=",
    limits::DOCUMENT_BYTES_MAX
)]
pub struct TooLong;

/// A document that stops to grow behind the limit, so that one without end takes no time without end.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        match self.0.len() > limits::DOCUMENT_BYTES_MAX {
            true => Err(std::io::ErrorKind::FileTooLarge.into()),
            false => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// JSON as Go's encoder writes it, compact. One that is too long is cut behind the limit.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bounded = Bounded::default();
    if serde_json::to_writer(&mut bounded, value).is_err() {
        assert!(bounded.0.len() > limits::DOCUMENT_BYTES_MAX, "plain data");
        return bounded.0;
    }
    let Bounded(plain) = bounded;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        Store,
        records::{ConfigEntry, JsonText, RecordRow},
        schema::ConfigEntries,
    };

    #[test]
    fn document_bytes_max_is_reached_and_what_is_longer_is_refused() {
        let list = Question::Config(ConfigQuestion::List {
            kind: "service-defaults".into(),
        });
        let mut store = Store::new();
        let mut put = |number: usize, bytes: usize| {
            let entry = ConfigEntry {
                kind: "service-defaults".into(),
                name: format!("{number:04}"),
                body: JsonText::parse(&format!("{{\"a\":\"{}\"}}", "x".repeat(bytes))).unwrap(),
                ..ConfigEntry::default()
            };
            let mut txn = store.begin();
            txn.put::<ConfigEntries>(RecordRow::new(entry).unwrap())
                .unwrap();
            txn.commit();
            list.answer(store.tables()).map(|document| document.len())
        };
        let piece = 512 * 1024;
        let mut length = 0;
        let mut number = 0;
        while limits::DOCUMENT_BYTES_MAX - length > piece + 4096 {
            number += 1;
            length = put(number, piece).expect("within the limit");
        }
        // The last one fills what is left, to the byte: an empty one shows what it takes itself.
        let with_empty = put(number + 1, 0).expect("within the limit");
        let left = limits::DOCUMENT_BYTES_MAX - with_empty;
        assert_eq!(put(number + 1, left), Ok(limits::DOCUMENT_BYTES_MAX));
        assert_eq!(put(number + 1, left + 1), Err(TooLong));
    }
}

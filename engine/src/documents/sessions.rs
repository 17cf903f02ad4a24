//! What do Consul's session endpoints answer?
//!
//! The index of every answer is that of the whole table, as in Consul; a blocking query still wakes
//! only for its own sessions. A renewal changes nothing that is shown.

use serde::{Deserialize, Serialize};
use wire::Index;

use super::{Subject, json};
use crate::{
    fsm::sessions,
    state::{
        Tables,
        index::Arg,
        records::{ServiceCheck, Session},
        schema::{SESSIONS_NODE, Sessions},
        table::TableDef,
    },
};

/// A question about sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionQuestion {
    /// One session by its id: `GET /v1/session/info/<id>`.
    Info {
        /// The id.
        id: String,
    },
    /// All of a node's: `GET /v1/session/node/<node>`.
    Node {
        /// The node.
        node: String,
    },
    /// All: `GET /v1/session/list`.
    List,
}

/// A session as Consul shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'s> {
    #[serde(rename = "ID")]
    id: &'s str,
    name: &'s str,
    node: &'s str,
    lock_delay: u64,
    behavior: &'s str,
    #[serde(rename = "TTL")]
    ttl: &'s str,
    node_checks: &'s [String],
    service_checks: Option<&'s [ServiceCheck]>,
    create_index: u64,
    modify_index: u64,
}

impl<'s> Shown<'s> {
    fn new(session: &'s Session) -> Self {
        let of_services = &session.service_checks[..];
        Self {
            id: &session.id,
            name: &session.name,
            node: &session.node,
            lock_delay: session.lock_delay,
            behavior: &session.behavior,
            ttl: &session.ttl,
            node_checks: &session.node_checks,
            service_checks: (!of_services.is_empty()).then_some(of_services),
            create_index: session.create_index,
            modify_index: session.modify_index,
        }
    }
}

impl SessionQuestion {
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Info { id } => of_id(id),
            Self::Node { node } => of_node(node),
            Self::List => Subject::table(Sessions::ID),
        }
    }

    pub(super) fn index(&self, tables: &Tables) -> Index {
        tables.max_index(&[Sessions::NAME])
    }

    pub(super) fn answer(&self, tables: &Tables) -> Vec<u8> {
        let mut found = Vec::new();
        match self {
            Self::Info { id } => found.extend(sessions::get(tables, id).cloned()),
            Self::Node { node } => {
                let query: &[Arg<'_>] = &[Arg::Text(node)];
                let all = tables.sessions.find(&SESSIONS_NODE, query, |session| {
                    found.push(session.clone());
                    true
                });
                all.expect("the query fits its index");
            }
            Self::List => {
                let mut cursor = tables.sessions.view().cursor();
                while cursor.scan(|session| {
                    found.push(session.clone());
                    true
                }) {}
            }
        }
        let shown: Vec<_> = found.iter().map(|session| Shown::new(session)).collect();
        json(&shown)
    }
}

/// The subjects of a session that came, went or changed.
pub(super) fn touched(session: &Session, each: &mut dyn FnMut(Subject)) {
    each(Subject::table(Sessions::ID));
    each(of_id(&session.id));
    each(of_node(&session.node));
}

fn of_id(id: &str) -> Subject {
    Subject::named(Sessions::ID, &format!("id/{id}"))
}

fn of_node(node: &str) -> Subject {
    Subject::named(Sessions::ID, &format!("node/{node}"))
}

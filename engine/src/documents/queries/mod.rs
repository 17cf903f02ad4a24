//! What do Consul's endpoints for prepared queries answer?
//!
//! A query is shown as it is kept, with its indexes; the index of an answer is the table's, and a
//! blocking query wakes for its own query, or for any with the list. The secret that a query is
//! executed with is hidden unless its asker manages ACLs, which the question says.
//!
//! [`QueriesQuestion::Explain`] and [`QueriesQuestion::Execute`] find a query by id, by name, or by
//! the longest beginning of the name that a template stands for. They are for the door, which still
//! has to decide what of it may be seen: an [`Explained`] or an [`Executed`](execute), or `null`.
//! They never wait.

mod definition;
mod execute;
mod template;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wire::Index;

use super::{Subject, acl::HIDDEN, json};
use crate::{
    fsm::queries,
    state::{
        RecordRow, Tables,
        records::PreparedQuery,
        schema::{Checks, Nodes, PreparedQueries, Services},
        table::TableDef,
    },
};

pub use definition::{Definition, Dns, Failover, ServiceQuery, Target, Template};
pub use execute::Execution;
pub use template::{NAME_PREFIX_MATCH, TEMPLATE_REGEX_BYTES_MAX, check as check_template};

/// A question about prepared queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueriesQuestion {
    /// One, in a list: `GET /v1/query/<id>`. `null` where there is none.
    Get {
        /// The id.
        id: String,
        /// Secrets are hidden.
        hide_tokens: bool,
    },
    /// All: `GET /v1/query`.
    List {
        /// Secrets are hidden.
        hide_tokens: bool,
    },
    /// What a name stands for: `GET /v1/query/<id or name>/explain`.
    Explain {
        /// The id or name.
        asked: String,
        /// Secrets are hidden.
        hide_tokens: bool,
    },
    /// The instances that it finds: `GET /v1/query/<id or name>/execute`.
    Execute(Execution),
}

/// A query as Consul shows it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    #[serde(flatten)]
    query: Definition,
    create_index: u64,
    modify_index: u64,
}

/// What became of a question that is asked by name.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
enum Resolved<T> {
    /// Why there is no answer.
    Failed(String),
    /// The answer.
    Query(T),
}

/// What the door needs to know of an execution.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WithToken<T> {
    token: String,
    executed: T,
}

/// What the door reads of an answer to [`QueriesQuestion::Explain`] or
/// [`QueriesQuestion::Execute`]; `null` where nothing has the name.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Explained<'a> {
    /// Why there is no answer; empty if there is one.
    pub failed: String,
    /// The query, rendered, or an [`Outcome`].
    #[serde(borrow)]
    pub query: Option<&'a RawValue>,
}

/// An execution's result, and the secret that it was to be executed with.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Outcome<'a> {
    /// The query's own; empty for its asker's.
    pub token: String,
    /// What was found, as Consul shows it.
    #[serde(borrow)]
    pub executed: &'a RawValue,
}

impl From<QueriesQuestion> for super::Question {
    fn from(question: QueriesQuestion) -> Self {
        Self::Queries(question)
    }
}

impl QueriesQuestion {
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Get { id, .. } => of_id(id),
            _ => Subject::table(PreparedQueries::ID),
        }
    }

    pub(super) fn index(&self, tables: &Tables) -> Index {
        const QUERIES: &str = PreparedQueries::NAME;
        match self {
            Self::Execute(_) => {
                tables.max_index(&[QUERIES, Nodes::NAME, Services::NAME, Checks::NAME])
            }
            _ => tables.max_index(&[QUERIES]),
        }
    }

    pub(super) fn answer(&self, tables: &Tables) -> Vec<u8> {
        match self {
            Self::Get { id, hide_tokens } => {
                let found = queries::by_id(tables, id);
                json(&found.map(|row| [shown(row, *hide_tokens)]))
            }
            Self::List { hide_tokens } => {
                let mut found = Vec::new();
                let mut cursor = tables.prepared_queries.view().cursor();
                while cursor.scan(|row| {
                    found.push(shown(row, *hide_tokens));
                    true
                }) {}
                json(&found)
            }
            Self::Explain { asked, hide_tokens } => {
                let explained = resolved(tables, asked).map(|found| {
                    found.map(|(row, query)| {
                        let shown = with_indexes(&row, query, *hide_tokens);
                        Resolved::Query(shown)
                    })
                });
                json(&explained.map(|explained| explained.unwrap_or_else(Resolved::Failed)))
            }
            Self::Execute(how) => execute(tables, how),
        }
    }
}

fn execute(tables: &Tables, how: &Execution) -> Vec<u8> {
    let (_, query) = match resolved(tables, &how.asked) {
        None => return json(&()),
        Some(Err(why)) => return json(&Resolved::<()>::Failed(why)),
        Some(Ok(found)) => found,
    };
    let found = execute::found(tables, &query.service, how);
    json(&Resolved::Query(WithToken {
        token: query.token.clone(),
        executed: execute::Executed::new(&query, how, &found),
    }))
}

/// The query that an id or a name stands for, rendered if it is a template.
fn resolved(
    tables: &Tables,
    asked: &str,
) -> Option<Result<(RecordRow<PreparedQuery>, Definition), String>> {
    let row = queries::resolve(tables, asked)?;
    let rendered = read(&row).and_then(|query| {
        match (row.is_template(), row.id.eq_ignore_ascii_case(asked)) {
            (false, _) => Ok(query),
            (true, true) => Err(
                "prepared query templates can only be resolved up by name, not by ID".to_owned(),
            ),
            (true, false) => template::render(&query, asked),
        }
    });
    Some(rendered.map(|query| (row, query)))
}

fn read(row: &PreparedQuery) -> Result<Definition, String> {
    let id = &row.id;
    Definition::of(row).map_err(|error| format!("prepared query {id} cannot be read: {error}"))
}

fn shown(row: &PreparedQuery, hide_token: bool) -> Shown {
    // One whose body is not of this form was not written through a door of ours; what the state
    // machine understands of it is shown, so that it can be found and deleted.
    let query = read(row).unwrap_or_else(|_| Definition {
        id: row.id.clone(),
        name: row.name.clone(),
        session: row.session.clone(),
        ..Definition::default()
    });
    with_indexes(row, query, hide_token)
}

fn with_indexes(row: &PreparedQuery, mut query: Definition, hide_token: bool) -> Shown {
    if hide_token && !query.token.is_empty() {
        HIDDEN.clone_into(&mut query.token);
    }
    Shown {
        query,
        create_index: row.create_index,
        modify_index: row.modify_index,
    }
}

/// The subjects of a query that came, went or changed.
pub(super) fn touched(query: &PreparedQuery, each: &mut dyn FnMut(Subject)) {
    each(Subject::table(PreparedQueries::ID));
    each(of_id(&query.id));
}

fn of_id(id: &str) -> Subject {
    Subject::named(PreparedQueries::ID, &format!("id/{id}"))
}

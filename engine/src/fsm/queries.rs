//! What becomes of prepared queries?
//!
//! They are kept by id, found by name or, for templates, by the beginning of a name, and die with
//! the session that they are bound to. What a query asks for is not understood here: it is kept as
//! the JSON that the door has checked. Consul: FSM command 7.

use serde::{Deserialize, Serialize};
use wire::{Index, Uuid};

use super::sessions;
use crate::state::{
    Tables, Txn,
    index::Arg,
    records::{PreparedQuery, RecordRow},
    schema::{PREPARED_QUERIES_NAME, PREPARED_QUERIES_TEMPLATE, PreparedQueries},
    tree::Keyed,
};

/// Longest name of a query, bytes: a name that is asked for is looked for by each of its
/// beginnings. Consul has no bound; DNS names have at most 253.
pub const QUERY_NAME_BYTES_MAX: usize = 1024;

/// What a command on prepared queries does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueryVerb {
    /// Makes it.
    Create,
    /// Writes it in the place of the one with its id.
    Update,
    /// Deletes it.
    Delete,
}

/// A command on prepared queries. Consul: `structs.PreparedQueryRequest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct QueryRequest {
    /// What to do.
    pub op: QueryVerb,
    /// The query; its id is all that `Delete` looks at.
    pub query: PreparedQuery,
}

/// A query by its id.
pub fn by_id<'t>(tables: &'t Tables, id: &str) -> Option<&'t RecordRow<PreparedQuery>> {
    let id = Uuid::parse(id)?;
    tables.prepared_queries.get(&id.0)
}

/// A query by its id, its name, or the longest beginning of a name that a template stands for.
pub fn resolve(tables: &Tables, asked: &str) -> Option<RecordRow<PreparedQuery>> {
    if let Some(found) = by_id(tables, asked) {
        return Some(found.clone());
    }
    let queries = &tables.prepared_queries;
    let named = queries.first(&PREPARED_QUERIES_NAME, &[Arg::Text(asked)]);
    if let Some(found) = named.expect("the query fits its index") {
        return (!found.is_template() || found.name.eq_ignore_ascii_case(asked)).then_some(found);
    }
    let ends = asked.char_indices().map(|(at, _)| at).chain([asked.len()]);
    for end in ends.rev().filter(|end| *end <= QUERY_NAME_BYTES_MAX) {
        let found = queries.first(&PREPARED_QUERIES_TEMPLATE, &asked[..end]);
        if let Some(found) = found.expect("the query fits its index") {
            return Some(found);
        }
    }
    None
}

/// Carries out a command at `index`; `Err` is the reason why not.
pub(super) fn apply(
    txn: &mut Txn<'_>,
    index: Index,
    request: &QueryRequest,
) -> Result<bool, String> {
    let query = &request.query;
    let held = by_id(txn.tables(), &query.id).cloned();
    match (request.op, &held) {
        (QueryVerb::Create, Some(_)) => return Err(format!("query {} exists already", query.id)),
        (QueryVerb::Update | QueryVerb::Delete, None) => {
            return Err(format!(
                "Cannot modify non-existent prepared query: '{}'",
                query.id
            ));
        }
        (QueryVerb::Delete, Some(held)) => {
            txn.remove::<PreparedQueries>(held.key());
            txn.touch::<PreparedQueries>(index);
            return Ok(true);
        }
        _ => {}
    }
    let same = held.as_ref().is_some_and(|held| {
        held.body == query.body
            && (&held.name, &held.session, &held.template)
                == (&query.name, &query.session, &query.template)
    });
    if same {
        return Ok(true);
    }
    check(txn.tables(), query)?;
    let query = PreparedQuery {
        create_index: held.map_or(index.0, |held| held.create_index),
        modify_index: index.0,
        ..query.clone()
    };
    let row = RecordRow::new(query).map_err(|error| error.to_string())?;
    txn.put::<PreparedQueries>(row)
        .map_err(|error| error.to_string())?;
    txn.touch::<PreparedQueries>(index);
    Ok(true)
}

/// Whether a query may have its name, and its session exists.
fn check(tables: &Tables, query: &PreparedQuery) -> Result<(), String> {
    let name = &query.name;
    if Uuid::parse(&query.id).is_none() {
        return Err(format!("Missing or bad query ID: '{}'", query.id));
    }
    if name.len() > QUERY_NAME_BYTES_MAX {
        let length = name.len();
        return Err(format!(
            "name of {length} bytes is over the limit of {QUERY_NAME_BYTES_MAX}"
        ));
    }
    let queries = &tables.prepared_queries;
    let other = match (name.is_empty(), query.is_template()) {
        (false, _) => queries.first(&PREPARED_QUERIES_NAME, &[Arg::Text(name)]),
        (true, true) => queries.first(&PREPARED_QUERIES_TEMPLATE, ""),
        (true, false) => Ok(None),
    };
    let other = other.expect("the query fits its index");
    if other.is_some_and(|other| other.id != query.id) {
        return Err(match name.is_empty() {
            true => "a query template with an empty name already exists".to_owned(),
            false => format!("name '{name}' aliases an existing query name"),
        });
    }
    if by_id(tables, name).is_some() {
        return Err(format!("name '{name}' aliases an existing query ID"));
    }
    if !query.session.is_empty() && sessions::get(tables, &query.session).is_none() {
        return Err(format!("invalid session {:?}", query.session));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{
        Store,
        records::{JsonText, QueryTemplate},
    };

    fn query(number: u8, name: &str, template: bool) -> PreparedQuery {
        PreparedQuery {
            id: Uuid([number; 16]).to_string(),
            name: name.into(),
            template: QueryTemplate {
                kind: if template { "name_prefix_match" } else { "" }.into(),
            },
            body: JsonText::parse(&format!("{{\"n\":{number}}}")).unwrap(),
            ..PreparedQuery::default()
        }
    }

    fn run(store: &mut Store, op: QueryVerb, query: PreparedQuery) -> Result<bool, String> {
        let index = Index(store.tables().max_index(&["prepared-queries"]).0 + 1);
        let mut txn = store.begin();
        let done = apply(&mut txn, index, &QueryRequest { op, query });
        match done.is_ok() {
            true => txn.commit(),
            false => drop(txn),
        }
        store.tables().check();
        done
    }

    #[test]
    fn queries_are_found_by_id_name_and_the_longest_template() {
        let mut store = Store::new();
        for made in [
            query(1, "web", false),
            query(2, "geo-", true),
            query(3, "geo-db-", true),
            query(4, "", true),
        ] {
            assert_eq!(run(&mut store, QueryVerb::Create, made), Ok(true));
        }
        let found = |asked: &str| {
            let found = resolve(store.tables(), asked);
            found.map(|query| Uuid::parse(&query.id).unwrap().0[0])
        };
        assert_eq!(found(&Uuid([3; 16]).to_string()), Some(3));
        assert_eq!(found("WEB"), Some(1));
        assert_eq!(found("geo-db-main"), Some(3));
        assert_eq!(found("geo-dbx"), Some(2));
        assert_eq!(found("anything"), Some(4));
    }

    #[test]
    fn names_are_taken_once_and_what_is_not_there_cannot_be_changed() {
        let mut store = Store::new();
        run(&mut store, QueryVerb::Create, query(1, "web", false)).unwrap();
        let taken = "name 'WEB' aliases an existing query name";
        let again = run(&mut store, QueryVerb::Create, query(2, "WEB", false));
        assert_eq!(again, Err(taken.to_owned()));
        let id = Uuid([1; 16]).to_string();
        let aliased = run(&mut store, QueryVerb::Create, query(2, &id, false));
        assert_eq!(
            aliased,
            Err(format!("name '{id}' aliases an existing query ID"))
        );
        let mut bound = query(2, "other", false);
        bound.session = "gone".into();
        assert_eq!(
            run(&mut store, QueryVerb::Create, bound),
            Err("invalid session \"gone\"".to_owned())
        );
        for op in [QueryVerb::Update, QueryVerb::Delete] {
            let why = run(&mut store, op, query(9, "x", false)).unwrap_err();
            assert!(
                why.starts_with("Cannot modify non-existent prepared query: "),
                "{why}"
            );
        }
        // The same again moves nothing; its own name is no hindrance.
        let before = store.tables().max_index(&["prepared-queries"]);
        assert_eq!(
            run(&mut store, QueryVerb::Update, query(1, "web", false)),
            Ok(true)
        );
        assert_eq!(store.tables().max_index(&["prepared-queries"]), before);
        let mut changed = query(1, "web", false);
        changed.body = JsonText::parse("{}").unwrap();
        assert_eq!(run(&mut store, QueryVerb::Update, changed), Ok(true));
        assert_ne!(store.tables().max_index(&["prepared-queries"]), before);
        assert_eq!(
            run(&mut store, QueryVerb::Delete, query(1, "", false)),
            Ok(true)
        );
        assert_eq!(store.tables().prepared_queries.len(), 0);
        run(&mut store, QueryVerb::Create, query(2, "web", false)).unwrap();
    }

    /// Consul's text for it: the name says nothing.
    #[test]
    fn there_is_one_template_for_all_names() {
        let mut store = Store::new();
        run(&mut store, QueryVerb::Create, query(1, "", true)).unwrap();
        let again = run(&mut store, QueryVerb::Create, query(2, "", true));
        let why = "a query template with an empty name already exists";
        assert_eq!(again, Err(why.to_owned()));
        run(&mut store, QueryVerb::Create, query(3, "", false)).unwrap();
        let mut changed = query(1, "", true);
        changed.body = JsonText::parse("{}").unwrap();
        assert_eq!(run(&mut store, QueryVerb::Update, changed), Ok(true));
    }

    #[test]
    fn query_name_bytes_max_is_reached() {
        let mut store = Store::new();
        let longest = "n".repeat(QUERY_NAME_BYTES_MAX);
        run(&mut store, QueryVerb::Create, query(1, &longest, true)).unwrap();
        let why = run(
            &mut store,
            QueryVerb::Create,
            query(2, &format!("{longest}m"), true),
        );
        assert_eq!(
            why,
            Err("name of 1025 bytes is over the limit of 1024".to_owned())
        );
        let found = resolve(store.tables(), &format!("{longest}{longest}"));
        assert_eq!(
            found.map(|found| found.id.clone()),
            Some(query(1, "", true).id)
        );
    }
}

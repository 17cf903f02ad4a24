//! `/v1/query…`: how are prepared queries kept, explained and executed?
//!
//! What can be wrong with a query whatever the state is said here, before the log ([`wanted`]): a
//! query that was let in can be executed. Whether its name is free and its session lives is decided
//! when the command is applied.
//!
//! | request | right |
//! |---|---|
//! | create, change, delete | `query:write` on its name, the old and the new; without a name, knowing the id |
//! | read one, explain | `query:read` on its name; without a name, knowing the id, or `acl:write` to explain |
//! | list | shows what `query:read` allows; those without a name with `acl:write` |
//! | execute | none; shows the instances that the query's own token may see, or else its asker's |
//!
//! A template without a name is of the name that all names begin with. Whose right to change ACLs is
//! not there sees `<hidden>` for a query's token.

mod wanted;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    acl::{Sieve, Sifted, Who},
    call::{Call, Outcome},
    failure::Refusal,
    go_text::parse_int,
    reads::Asked,
    reply::{Content, Meta, Reply},
    sessions::random_uuid,
    txn::Level,
};
use crate::{
    acl::{Access, Resource},
    documents::{
        QueriesQuestion,
        queries::{Definition, Execution, Explained, Outcome as Executed},
    },
    fsm::{
        queries::{QueryRequest, QueryVerb},
        records::RecordOp,
    },
    server::gateway::Gateway,
};

/// Stands before what the state machine has against a command.
const APPLY_FAILED: &str = "raft apply failed: ";

pub(super) async fn answer<G: Gateway>(call: Call<'_, G>, rest: &str) -> Outcome<G> {
    let asked = [("/execute", true), ("/explain", false)]
        .into_iter()
        .find_map(|(end, executes)| Some((rest.strip_suffix(end)?, executes)));
    let allowed: &[Method] = match (asked, rest) {
        (Some(_), _) => &[Method::GET],
        (None, "") => &[Method::GET, Method::POST],
        (None, _) => &[Method::GET, Method::PUT, Method::DELETE],
    };
    if let Some(reply) = call.unless(allowed) {
        return Ok(reply);
    }
    match (asked, &call.parts.method) {
        (Some((asked, true)), _) => execute(call, asked).await,
        (Some((asked, false)), _) => explain(call, asked).await,
        (None, &Method::POST) => create(call).await,
        (None, &Method::PUT) => update(call, rest).await,
        (None, &Method::DELETE) => delete(call, rest).await,
        (None, _) if rest.is_empty() => list(call).await,
        (None, _) => get(call, rest).await,
    }
}

fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "Query not found")
}

// ---------------------------------------------------------------------------------- commands

async fn create<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let body = call.body().await?;
    let mut query = wanted::query(&body)?;
    if !query.id.is_empty() {
        return Err(Refusal::internal(
            "ID must be empty when creating a new prepared query",
        ));
    }
    wanted::check(&query)?;
    query.id = random_uuid()?;
    let index = write(&mut call, QueryVerb::Create, &query).await?;
    let document = serde_json::json!({ "ID": query.id }).to_string();
    let reply = Reply::json(Content::Whole(call.styled(document.into())));
    Ok(reply.index(index))
}

async fn update<G: Gateway>(mut call: Call<'_, G>, id: &str) -> Outcome<G> {
    let body = call.body().await?;
    let mut query = match body.is_empty() {
        true => Definition::default(),
        false => wanted::query(&body)?,
    };
    // The one of the path counts, as in Consul.
    id.clone_into(&mut query.id);
    wanted::check(&query)?;
    let index = write(&mut call, QueryVerb::Update, &query).await?;
    Ok(Reply::new(StatusCode::OK, Content::Empty).index(index))
}

async fn delete<G: Gateway>(mut call: Call<'_, G>, id: &str) -> Outcome<G> {
    let query = Definition {
        id: id.to_owned(),
        ..Definition::default()
    };
    let index = write(&mut call, QueryVerb::Delete, &query).await?;
    Ok(Reply::new(StatusCode::OK, Content::Empty).index(index))
}

/// Has a command carried out; its index.
async fn write<G: Gateway>(
    call: &mut Call<'_, G>,
    op: QueryVerb,
    query: &Definition,
) -> Result<u64, Refusal> {
    let query = query.record();
    let op = RecordOp::PreparedQuery(QueryRequest { op, query });
    match call.write(&op, APPLY_FAILED).await {
        Ok(written) => Ok(written.index.0),
        // Consul finds that out before the log.
        Err(refusal) => Err(match refusal.text.strip_prefix(APPLY_FAILED) {
            Some(why) if why.starts_with("Cannot modify") => Refusal::internal(why.to_owned()),
            _ => refusal,
        }),
    }
}

// --------------------------------------------------------------------------------- questions

/// What decides who may see a query.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Named {
    name: String,
    template: Kind,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    #[serde(rename = "Type")]
    kind: String,
}

impl Named {
    /// The name that rules are asked about, if there is one.
    fn of(query: &[u8]) -> Result<Option<String>, Refusal> {
        let Self { name, template } = read(query)?;
        Ok((!name.is_empty() || !template.kind.is_empty()).then_some(name))
    }
}

fn read<'a, T: Deserialize<'a>>(document: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(document)
        .map_err(|error| Refusal::internal(format!("internal error: {error}")))
}

/// Whether whoever asks sees no secrets.
fn hides(who: &Who) -> bool {
    !who.may(Resource::Acl, b"", Access::Write)
}

/// Asks about queries; whoever asks, by the rights of the moment when the answer leaves.
async fn ask<G: Gateway>(
    call: &mut Call<'_, G>,
    asked: Asked,
    question: impl Fn(bool) -> QueriesQuestion,
) -> Result<(Meta, Bytes, Who), Refusal> {
    let hidden = hides(&call.who().await?);
    let (meta, document) = call.ask(asked, question(hidden).into()).await?;
    let who = call.who_now().await?;
    if hidden || !hides(&who) {
        return Ok((meta, document, who));
    }
    // It may no longer see the secrets that it was to see when it began to wait.
    let (meta, document) = call.ask(asked.at_once(), question(true).into()).await?;
    Ok((meta, document, who))
}

fn reply<G: Gateway>(call: &Call<'_, G>, asked: Asked, meta: Meta, document: Bytes) -> Outcome<G> {
    let reply = Reply::json(Content::Whole(call.styled(document)));
    Ok(reply.meta(meta).level(asked.mode()))
}

async fn list<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let asked = Asked::parse(&call.params)?;
    let question = |hide_tokens| QueriesQuestion::List { hide_tokens };
    let (meta, document, who) = ask(&mut call, asked, question).await?;
    let (document, told) = sift(Sieve::Queries, &who, document)?;
    Ok(reply(&call, asked, meta, document)?.filtered(told))
}

async fn get<G: Gateway>(mut call: Call<'_, G>, id: &str) -> Outcome<G> {
    let mut asked = Asked::parse(&call.params)?;
    // One that is not there is not waited for, since ids are never given anew, nor one that may
    // not be seen.
    if asked.waits() && one(&mut call, asked.at_once(), id).await?.1.is_none() {
        asked = asked.at_once();
    }
    match one(&mut call, asked, id).await? {
        (meta, Some(document)) => reply(&call, asked, meta, document),
        (meta, None) => Ok(Reply::refusal(not_found()).meta(meta)),
    }
}

/// A query that may be seen, in a list; `None` if there is none of this id.
async fn one<G: Gateway>(
    call: &mut Call<'_, G>,
    asked: Asked,
    id: &str,
) -> Result<(Meta, Option<Bytes>), Refusal> {
    let question = |hide_tokens| QueriesQuestion::Get {
        id: id.to_owned(),
        hide_tokens,
    };
    let (meta, document, who) = ask(call, asked, question).await?;
    if document == "null" {
        return Ok((meta, None));
    }
    let [query]: [&RawValue; 1] = read(&document)?;
    if let Some(name) = Named::of(query.get().as_bytes())? {
        who.must(Resource::Query, name.as_bytes(), Access::Read)?;
    }
    Ok((meta, Some(document)))
}

async fn explain<G: Gateway>(mut call: Call<'_, G>, name: &str) -> Outcome<G> {
    let asked = Asked::parse(&call.params)?.at_once();
    limit(&call)?;
    let question = |hide_tokens| QueriesQuestion::Explain {
        asked: name.to_owned(),
        hide_tokens,
    };
    let (meta, document, who) = ask(&mut call, asked, question).await?;
    let Some(query) = found(&document)? else {
        return Ok(Reply::refusal(not_found()).meta(meta));
    };
    match Named::of(query.get().as_bytes())? {
        Some(name) => who.must(Resource::Query, name.as_bytes(), Access::Read)?,
        None => who.must(Resource::Acl, b"", Access::Write)?,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Shown<'a> {
        query: &'a RawValue,
    }
    let shown = crate::documents::json(&Shown { query });
    let document = Level::new(&meta, asked.mode()).told(false).after(&shown);
    reply(&call, asked, meta, document)
}

async fn execute<G: Gateway>(mut call: Call<'_, G>, name: &str) -> Outcome<G> {
    let asked = Asked::parse(&call.params)?.at_once();
    let limit = limit(&call)?;
    let guarded = call.inner.guard.is_some();
    let how = Execution {
        asked: name.to_owned(),
        connect: connect(&call)?,
        near: near(&call),
        agent: call.inner.info.node_name.clone(),
        ip: source_ip(&call),
        // What may not be seen does not count, and is known only here.
        limit: if guarded { 0 } else { limit },
        // Without a random number the order is the same each time, which is no reason to refuse.
        seed: getrandom::u64().unwrap_or(0),
        datacenter: call.inner.info.datacenter.clone(),
    };
    let (meta, document) = call
        .ask(asked, QueriesQuestion::Execute(how).into())
        .await?;
    let Some(outcome) = found(&document)? else {
        return Ok(Reply::refusal(not_found()).meta(meta));
    };
    let Executed { token, executed } = read(outcome.get().as_bytes())?;
    let executed = Bytes::copy_from_slice(executed.get().as_bytes());
    let (executed, told) = match &call.inner.guard {
        None => (executed, false),
        Some(guard) => {
            let who = match &*token {
                "" => call.who().await?,
                secret => guard.bearer_of(&call.inner.gateway, secret).await?,
            };
            let (seen, told) = sift(Sieve::Executed, &who, executed)?;
            (cut(&seen, limit)?, told)
        }
    };
    let document = Level::new(&meta, asked.mode()).told(told).after(&executed);
    Ok(reply(&call, asked, meta, document)?.filtered(told))
}

/// The query or outcome in an answer, if there is one.
fn found(document: &[u8]) -> Result<Option<&RawValue>, Refusal> {
    let explained: Option<Explained<'_>> = read(document)?;
    let Some(Explained { failed, query }) = explained else {
        return Ok(None);
    };
    match failed.is_empty() {
        true => Ok(query),
        false => Err(Refusal::internal(failed)),
    }
}

/// What of a document may be seen, and whether its asker is told that there was more.
fn sift(sieve: Sieve, who: &Who, document: Bytes) -> Result<(Bytes, bool), Refusal> {
    if who.is_anyone() {
        return Ok((document, false));
    }
    let Sifted { json, filtered } = sieve.sift(who, document)?;
    Ok((json, filtered && who.is_told_of_filters()))
}

/// At most `limit` instances of a result; all for 0.
fn cut(executed: &Bytes, limit: u64) -> Result<Bytes, Refusal> {
    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Parts<'a> {
        #[serde(borrow)]
        service: &'a RawValue,
        #[serde(borrow)]
        nodes: Vec<&'a RawValue>,
        #[serde(borrow, rename = "DNS")]
        dns: &'a RawValue,
        #[serde(borrow)]
        datacenter: &'a RawValue,
        #[serde(borrow)]
        peer_name: &'a RawValue,
        failovers: u64,
    }
    if limit == 0 {
        return Ok(executed.clone());
    }
    let mut parts: Parts<'_> = read(executed)?;
    parts
        .nodes
        .truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(crate::documents::json(&parts).into())
}

// -------------------------------------------------------------------------------- parameters

/// `?limit=`; 0 for none. What is negative is none, as in Consul.
fn limit<G: Gateway>(call: &Call<'_, G>) -> Result<u64, Refusal> {
    let given = call.params.limit.as_deref().filter(|text| !text.is_empty());
    let Some(text) = given else {
        return Ok(0);
    };
    let limit = parse_int(text).map_err(|why| Refusal::bad(format!("Bad limit: {why}")))?;
    Ok(u64::try_from(limit).unwrap_or(0))
}

fn connect<G: Gateway>(call: &Call<'_, G>) -> Result<bool, Refusal> {
    match call.params.get("connect").unwrap_or_default() {
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        other => Err(Refusal::bad(format!(
            "Error parsing 'connect' value: strconv.ParseBool: parsing {}: invalid syntax",
            super::go_text::quote(other)
        ))),
    }
}

fn near<G: Gateway>(call: &Call<'_, G>) -> String {
    match call.params.get("near").unwrap_or_default() {
        "_agent" => call.inner.info.node_name.clone(),
        node => node.to_owned(),
    }
}

/// Whom the request is for: the first that it was forwarded for, else who sent it.
fn source_ip<G: Gateway>(call: &Call<'_, G>) -> String {
    let forwarded = call.parts.headers.get("x-forwarded-for");
    let forwarded = forwarded.and_then(|value| value.to_str().ok());
    let first = forwarded.and_then(|list| list.split(',').next()?.trim().parse().ok());
    let ip = first.or_else(|| call.link.client_ip());
    ip.map_or_else(String::new, |ip| ip.to_string())
}

//! `PUT /v1/txn`: how does a list of operations become a transaction, and its result an answer?
//!
//! What is wrong with the request as a whole is a 400 or 413; what is wrong with single operations
//! is a 409 that names each of them, and nothing is changed. A transaction that only reads does not
//! enter the log; it honours `stale` and `consistent` and says how fresh its answer is.

use base64::Engine;
use bytes::Bytes;
use http::{StatusCode, request::Parts};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wire::{
    Command, KvVerb, QueryBody, ReadMode, TxnError, TxnOp, TxnOps, TxnResult, TxnVerb,
    limits::{KEY_BYTES_MAX, SESSION_BYTES_MAX, TXN_OPS_MAX},
};

use super::{
    acl::{self, Who},
    admission::Admitted,
    agent::document,
    body,
    failure::Refusal,
    json::{self, Style},
    link::{Link, Phase},
    mixed,
    params::Params,
    reads,
    reply::{Content, Meta, Reply, level},
    serve::Inner,
};
use crate::acl::{Access, Resource};
use crate::server::{
    gateway::{AnswerBody, Gateway},
    meters::Timed,
};

/// One element of the list. Exactly one kind is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Item<'a> {
    #[serde(alias = "kv", rename = "KV", borrow)]
    kv: Option<KvItem<'a>>,
    #[serde(alias = "node", borrow)]
    node: Option<&'a RawValue>,
    #[serde(alias = "service", borrow)]
    service: Option<&'a RawValue>,
    #[serde(alias = "check", borrow)]
    check: Option<&'a RawValue>,
}

/// Go matches the names of fields in any case, and there are clients that spell them in lower case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase", default)]
#[derive(Default)]
pub(super) struct KvItem<'a> {
    #[serde(alias = "verb", borrow)]
    verb: std::borrow::Cow<'a, str>,
    #[serde(alias = "key", borrow)]
    pub(super) key: std::borrow::Cow<'a, str>,
    #[serde(alias = "value", borrow)]
    value: Option<std::borrow::Cow<'a, str>>,
    #[serde(alias = "flags")]
    pub(super) flags: u64,
    #[serde(alias = "index")]
    pub(super) index: u64,
    #[serde(alias = "session", borrow)]
    pub(super) session: std::borrow::Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed<'a> {
    results: Option<()>,
    errors: Vec<FailedOp<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FailedOp<'a> {
    op_index: u32,
    what: &'a str,
}

/// An operation with its value decoded.
struct Parsed<'a> {
    verb: TxnVerb,
    item: &'a KvItem<'a>,
    value: Vec<u8>,
}

/// Answers one PUT of a transaction.
pub(super) async fn answer<G: Gateway>(
    inner: &Inner<G>,
    link: &Link,
    parts: &Parts,
    body: Incoming,
    admitted: &mut Option<Admitted>,
) -> Result<Reply<G::Rows>, Refusal> {
    let params = Params::parse(parts.uri.query(), &inner.info.datacenter)?;
    let max = inner.limits().txn_bytes_max;
    let announced = body::announced(&body, max)?;
    *admitted = Some(Admitted::new(&inner.load, &inner.limits(), announced)?);
    link.enter(Phase::Body);
    let body = body::read(body, link, max).await?;
    link.enter(Phase::Serving);
    let who = inner.who(parts, &params).await?;
    put(inner, &who, &params, &body).await
}

async fn put<G: Gateway>(
    inner: &Inner<G>,
    who: &Who,
    params: &Params<'_>,
    body: &[u8],
) -> Result<Reply<G::Rows>, Refusal> {
    let style = inner.style(params.pretty);
    let items = parse(body)?;
    if items.iter().any(|item| item.kv.is_none()) {
        return mixed(inner, who, params, &items, style).await;
    }
    let items: Vec<_> = items.into_iter().filter_map(|item| item.kv).collect();
    let mut errors = Vec::new();
    let mut parsed = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let value = decode_value(item, inner.limits().value_bytes_max)?;
        let key = item.key.as_bytes();
        match check(item).and_then(|verb| acl::check_key(who, verb, key).map(|()| verb)) {
            Ok(verb) => parsed.push(Parsed { verb, item, value }),
            Err(what) => errors.push(TxnError {
                op: at as u32,
                what,
            }),
        }
    }
    if !errors.is_empty() {
        return Ok(failed(&errors, style));
    }
    let ops: Vec<_> = parsed.iter().map(Parsed::op).collect();
    let ops = TxnOps::new(&ops);
    let command = Command::Txn(ops).encode();
    if ops.reads_only() {
        let _doing = inner.meter.begin(Timed::TxnRead);
        return read(inner, who, params, command, style).await;
    }
    let doing = inner.meter.begin(Timed::TxnApply);
    let (_, mut result) = inner.gateway.txn(command).await?;
    drop(doing);
    seen(who, &mut result);
    Ok(match result.errors.is_empty() {
        true => Reply::json(Content::Whole(whole(&result, None, style))),
        false => failed(&result.errors, style),
    })
}

/// Leaves out the rows that may not be seen; returns whether there were any.
fn seen(who: &Who, result: &mut TxnResult) -> bool {
    if who.is_anyone() {
        return false;
    }
    let all = result.rows.len();
    let may = |row: &wire::KvRow| who.may(Resource::Key, row.borrow().key, Access::Read);
    result.rows.retain(may);
    result.rows.len() < all
}

async fn read<G: Gateway>(
    inner: &Inner<G>,
    who: &Who,
    params: &Params<'_>,
    command: Bytes,
    style: Style,
) -> Result<Reply<G::Rows>, Refusal> {
    let freshness = params.freshness()?;
    let answer = reads::fresh(&inner.gateway, freshness, QueryBody::Txn(command)).await?;
    let meta = Meta::of(&answer);
    let AnswerBody::Txn(mut result) = answer.body else {
        return Err(Refusal::internal("internal error: rows for a transaction"));
    };
    let filtered = seen(who, &mut result);
    let reply = match result.errors.is_empty() {
        true => Reply::json(Content::Whole(whole(
            &result,
            Some(Level::new(&meta, freshness.mode)),
            style,
        ))),
        false => failed(&result.errors, style),
    };
    Ok(reply
        .meta(meta)
        .filtered(filtered && who.is_told_of_filters()))
}

/// The list of operations, or what is wrong with the request as a whole.
fn parse(body: &[u8]) -> Result<Vec<Item<'_>>, Refusal> {
    let items: Vec<Item<'_>> = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("Failed to parse body: {}", go_error(&error))))?;
    if items.len() > TXN_OPS_MAX {
        let text = format!(
            "Transaction contains too many operations ({} > {TXN_OPS_MAX})",
            items.len()
        );
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let kinds = |item: &Item<'_>| {
        let records = [&item.node, &item.service, &item.check];
        usize::from(item.kv.is_some()) + records.iter().filter(|kind| kind.is_some()).count()
    };
    match items.iter().all(|item| kinds(item) == 1) {
        true => Ok(items),
        false => Err(Refusal::bad(
            "Failed to parse body: an operation is one of KV, Node, Service and Check",
        )),
    }
}

/// A transaction that is about records too.
async fn mixed<G: Gateway>(
    inner: &Inner<G>,
    who: &Who,
    params: &Params<'_>,
    items: &[Item<'_>],
    style: Style,
) -> Result<Reply<G::Rows>, Refusal> {
    let (mut ops, mut errors) = (Vec::with_capacity(items.len()), Vec::new());
    for (at, item) in items.iter().enumerate() {
        let parsed = match item {
            Item {
                node: Some(node), ..
            } => mixed::node(node, &inner.info.datacenter)?,
            Item {
                service: Some(service),
                ..
            } => mixed::service(service)?,
            Item {
                check: Some(check), ..
            } => mixed::check(check)?,
            Item { kv, .. } => {
                let item = kv.as_ref().expect("one of the kinds is given");
                let value = decode_value(item, inner.limits().value_bytes_max)?;
                check(item).map(|verb| mixed::key(verb, item, value))
            }
        };
        match parsed {
            Ok(op) => ops.push(op),
            Err(what) => errors.push(TxnError {
                op: at as u32,
                what,
            }),
        }
    }
    if errors.is_empty() {
        let wrong = acl::check_ops(&inner.gateway, who, &ops).await?;
        let error = |(at, what)| TxnError {
            op: at as u32,
            what,
        };
        errors.extend(wrong.into_iter().map(error));
    }
    match errors.is_empty() {
        true => mixed::put(inner, who, params.freshness()?, ops, style).await,
        false => Ok(failed(&errors, style)),
    }
}

/// As Go says it, where clients may look for it.
fn go_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("unknown field `") {
        Some(rest) => {
            let field = rest.split('`').next().unwrap_or_default();
            format!("json: unknown field \"{field}\"")
        }
        None => text,
    }
}

fn decode_value(item: &KvItem<'_>, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let text = item.value.as_deref().unwrap_or_default();
    let value = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|error| {
            let key = &item.key;
            Refusal::bad(format!(
                "Failed to parse body: value of key {key:?}: {error}"
            ))
        })?;
    if value.len() > bytes_max {
        let text = format!(
            "Value for key {:?} is too large ({} > {bytes_max} bytes)",
            item.key,
            value.len()
        );
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(value)
}

/// What is wrong with one operation whatever the state.
fn check(item: &KvItem<'_>) -> Result<TxnVerb, String> {
    let verb = match &*item.verb {
        "set" => TxnVerb::Kv(KvVerb::Set),
        "cas" => TxnVerb::Kv(KvVerb::Cas),
        "lock" => TxnVerb::Kv(KvVerb::Lock),
        "unlock" => TxnVerb::Kv(KvVerb::Unlock),
        "delete" => TxnVerb::Kv(KvVerb::Delete),
        "delete-tree" => TxnVerb::Kv(KvVerb::DeleteTree),
        "delete-cas" => TxnVerb::Kv(KvVerb::DeleteCas),
        "get" => TxnVerb::Get,
        "get-or-empty" => TxnVerb::GetOrEmpty,
        "get-tree" => TxnVerb::GetTree,
        "check-index" => TxnVerb::CheckIndex,
        "check-session" => TxnVerb::CheckSession,
        "check-not-exists" => TxnVerb::CheckNotExists,
        other => return Err(format!("unknown KV operation: {other}")),
    };
    let prefix = matches!(verb, TxnVerb::Kv(KvVerb::DeleteTree) | TxnVerb::GetTree);
    if item.key.is_empty() && !prefix {
        return Err("Must provide key".to_owned());
    }
    if item.key.len() > KEY_BYTES_MAX {
        return Err(format!(
            "key of {} bytes is over the limit of {KEY_BYTES_MAX}",
            item.key.len()
        ));
    }
    if item.session.len() > SESSION_BYTES_MAX {
        return Err(format!("invalid session {:?}", item.session));
    }
    Ok(verb)
}

/// The command that a body becomes, of a server with the usual limits.
#[cfg(feature = "fuzzing")]
pub(super) fn command(body: &[u8]) -> Result<Bytes, String> {
    use crate::fsm::{mixed::MixedTxn, records::RecordOp};

    let text = |refusal: Refusal| refusal.text.into_owned();
    let items = parse(body).map_err(text)?;
    let mut ops = Vec::with_capacity(items.len());
    for item in &items {
        let parsed = match (item.node, item.service, item.check, &item.kv) {
            (Some(node), ..) => mixed::node(node, "dc1"),
            (_, Some(service), ..) => mixed::service(service),
            (_, _, Some(check), _) => mixed::check(check),
            (.., kv) => {
                let item = kv.as_ref().expect("one of the kinds is given");
                decode_value(item, wire::limits::VALUE_BYTES_MAX)
                    .map(|value| check(item).map(|verb| mixed::key(verb, item, value)))
            }
        };
        ops.push(parsed.map_err(text)??);
    }
    Ok(RecordOp::Txn(MixedTxn { ops }).encode())
}

impl Parsed<'_> {
    fn op(&self) -> TxnOp<'_> {
        TxnOp {
            verb: self.verb,
            key: self.item.key.as_bytes(),
            value: &self.value,
            flags: self.item.flags,
            index: self.item.index,
            session: self.item.session.as_bytes(),
        }
    }
}

fn failed<R: crate::server::gateway::RowStream>(errors: &[TxnError], style: Style) -> Reply<R> {
    let errors = errors.iter().map(|error| FailedOp {
        op_index: error.op,
        what: &error.what,
    });
    let failed = Failed {
        results: None,
        errors: errors.collect(),
    };
    let mut reply = Reply::json(Content::Whole(document(&failed, style)));
    reply.status = StatusCode::CONFLICT;
    reply
}

/// A successful result; one that was only read also says how fresh it is.
fn whole(result: &TxnResult, read: Option<Level>, style: Style) -> Bytes {
    let mut rows = Vec::new();
    for row in &result.rows {
        let mut out = Vec::with_capacity(json::row_size_hint(&row.borrow()));
        json::row(&mut out, Style::Compact, &row.borrow(), true);
        let row = String::from_utf8(out).expect("JSON is text");
        let row = RawValue::from_string(row).expect("a row is JSON");
        rows.push(Row { kv: row });
    }
    let answer = Whole {
        results: rows,
        errors: None,
        read,
    };
    document(&answer, style)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Whole {
    results: Vec<Row>,
    errors: Option<()>,
    #[serde(flatten)]
    read: Option<Level>,
}

#[derive(Serialize)]
struct Row {
    #[serde(rename = "KV")]
    kv: Box<RawValue>,
}

/// Consul's `QueryMeta`, as far as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Level {
    index: u64,
    /// Nanoseconds.
    last_contact: u64,
    known_leader: bool,
    consistency_level: &'static str,
    not_modified: bool,
    backend: u8,
    #[serde(
        rename = "ResultsFilteredByACLs",
        skip_serializing_if = "Option::is_none"
    )]
    results_filtered: Option<bool>,
}

impl Level {
    pub(super) fn new(meta: &Meta, mode: ReadMode) -> Self {
        Self {
            index: meta.index.max(1),
            last_contact: meta.last_contact_ms * 1_000_000,
            known_leader: meta.known_leader,
            consistency_level: level(mode),
            not_modified: false,
            backend: 0,
            results_filtered: None,
        }
    }

    /// The same, which also says whether its asker is told that something was left out.
    pub(super) fn told(self, filtered: bool) -> Self {
        Self {
            results_filtered: Some(filtered),
            ..self
        }
    }

    /// An object, compact, with these fields after its own.
    pub(super) fn after(&self, object: &[u8]) -> Bytes {
        let level = serde_json::to_vec(self).expect("plain numbers");
        [&object[..object.len() - 1], b",", &level[1..]]
            .concat()
            .into()
    }
}

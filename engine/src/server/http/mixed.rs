//! `PUT /v1/txn` with operations on nodes, services or checks: how do they become a command?
//!
//! Consul's JSON for each kind, field names in any case. What is wrong with an operation whatever
//! the state (a verb that there is not) fails the transaction before the log, as for keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use wire::QueryBody;

use super::{
    acl::{Sieve, Sifted, Who},
    catalog::{CheckBody, ServiceBody},
    failure::Refusal,
    json::{self, Style},
    loose::Loose,
    params::Freshness,
    reads,
    reply::{Content, Meta, Reply},
    serve::Inner,
    txn::{KvItem, Level},
};
use crate::{
    documents::{Question, txn::is_failure},
    fsm::{
        catalog::CatalogVerb,
        mixed::{KvOp, MixedOp, MixedTxn},
        records::RecordOp,
    },
    server::{
        gateway::{AnswerBody, Gateway},
        meters::Timed,
    },
    state::records::Node,
};

/// One operation, read or found wrong (Consul's text).
pub(super) type Parsed = Result<MixedOp, String>;

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct NodeItem {
    verb: String,
    node: Loose<NodeBody>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct NodeBody {
    id: String,
    node: String,
    address: String,
    datacenter: String,
    taggedaddresses: BTreeMap<String, String>,
    meta: BTreeMap<String, String>,
    modifyindex: u64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct ServiceItem {
    verb: String,
    node: String,
    service: Loose<ServiceBody>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct CheckItem {
    verb: String,
    check: Loose<CheckBody>,
}

fn read<T: serde::de::DeserializeOwned>(raw: &RawValue) -> Result<T, Refusal> {
    let read: Result<Loose<T>, _> = serde_json::from_str(raw.get());
    read.map(|Loose(item)| item)
        .map_err(|error| Refusal::bad(format!("Failed to parse body: {error}")))
}

/// Consul's verbs of nodes, services and checks.
fn verb(kind: &str, verb: &str) -> Result<CatalogVerb, String> {
    Ok(match verb {
        "get" => CatalogVerb::Get,
        "set" => CatalogVerb::Set,
        "cas" => CatalogVerb::Cas,
        "delete" => CatalogVerb::Delete,
        "delete-cas" => CatalogVerb::DeleteCas,
        other => return Err(format!("unknown {kind} operation: {other}")),
    })
}

pub(super) fn node(raw: &RawValue, datacenter: &str) -> Result<Parsed, Refusal> {
    let NodeItem {
        verb: name,
        node: Loose(body),
    } = read(raw)?;
    let node = Node {
        id: body.id,
        node: body.node,
        address: body.address,
        datacenter: match body.datacenter {
            given if given.is_empty() => datacenter.to_owned(),
            given => given,
        },
        tagged_addresses: body.taggedaddresses,
        meta: body.meta,
        modify_index: body.modifyindex,
        ..Node::default()
    };
    Ok(verb("Node", &name).map(|verb| MixedOp::Node {
        verb,
        node: Box::new(node),
    }))
}

pub(super) fn service(raw: &RawValue) -> Result<Parsed, Refusal> {
    let ServiceItem {
        verb: name,
        node,
        service: Loose(body),
    } = read(raw)?;
    let mut service = body.record();
    service.node = node;
    Ok(verb("Service", &name).map(|verb| MixedOp::Service {
        verb,
        service: Box::new(service),
    }))
}

pub(super) fn check(raw: &RawValue) -> Result<Parsed, Refusal> {
    let CheckItem {
        verb: name,
        check: Loose(body),
    } = read(raw)?;
    Ok(verb("Check", &name).map(|verb| MixedOp::Check {
        verb,
        check: Box::new(body.record()),
    }))
}

/// An operation on a key, once its verb and value were read.
pub(super) fn key(verb: wire::TxnVerb, item: &KvItem<'_>, value: Vec<u8>) -> MixedOp {
    MixedOp::Kv(KvOp {
        verb,
        key: item.key.as_bytes().to_vec(),
        value,
        flags: item.flags,
        index: item.index,
        session: item.session.as_bytes().to_vec(),
    })
}

/// Has a transaction carried out, or answered where it only reads.
pub(super) async fn put<G: Gateway>(
    inner: &Inner<G>,
    who: &Who,
    freshness: Freshness,
    ops: Vec<MixedOp>,
    style: Style,
) -> Result<Reply<G::Rows>, Refusal> {
    let ops = MixedTxn { ops };
    if ops.reads_only() {
        let question = QueryBody::Record(Question::Txn(ops).encode());
        let answer = reads::fresh(&inner.gateway, freshness, question).await?;
        let meta = Meta::of(&answer);
        let AnswerBody::Document(document) = answer.body else {
            return Err(Refusal::internal(
                "internal error: no document for a transaction",
            ));
        };
        let (document, told) = seen(who, document)?;
        let level = Level::new(&meta, freshness.mode);
        let document = with_level(&document, &level);
        return Ok(reply(document, style).meta(meta).filtered(told));
    }
    let _doing = inner.meter.begin(Timed::TxnApply);
    let (_, document) = inner
        .gateway
        .record_with_answer(RecordOp::Txn(ops).encode())
        .await?;
    let (document, told) = seen(who, document)?;
    Ok(reply(document, style).filtered(told))
}

/// What of a result may be seen, and whether its asker is told that there was more.
fn seen(who: &Who, document: Bytes) -> Result<(Bytes, bool), Refusal> {
    if who.is_anyone() {
        return Ok((document, false));
    }
    let Sifted { json, filtered } = Sieve::Results.sift(who, document)?;
    Ok((json, filtered && who.is_told_of_filters()))
}

/// A result of a transaction that only read also says how fresh it is.
fn with_level(document: &Bytes, level: &Level) -> Bytes {
    if is_failure(document) {
        return document.clone();
    }
    level.after(document)
}

fn reply<R: crate::server::gateway::RowStream>(document: Bytes, style: Style) -> Reply<R> {
    let failed = is_failure(&document);
    let mut reply = Reply::json(Content::Whole(json::styled(document, style)));
    if failed {
        reply.status = StatusCode::CONFLICT;
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn operations_are_read_in_consuls_json_and_any_case() {
        let text = r#"{"Verb":"cas","Node":{"Node":"n","address":"10.0.0.1","ModifyIndex":7,"Meta":{"K":"v"}}}"#;
        let Ok(Ok(MixedOp::Node { verb, node: read })) = node(&raw(text), "dc1") else {
            panic!("a node");
        };
        assert_eq!(
            (verb, &*read.node, read.modify_index),
            (CatalogVerb::Cas, "n", 7)
        );
        assert_eq!((&*read.datacenter, &*read.meta["K"]), ("dc1", "v"));
        let text = r#"{"verb":"set","Node":"n","Service":{"ID":"web","Service":"web","Port":80}}"#;
        let Ok(Ok(MixedOp::Service { service: read, .. })) = service(&raw(text)) else {
            panic!("a service");
        };
        assert_eq!((&*read.node, &*read.id, read.port), ("n", "web", 80));
        let text = r#"{"Verb":"delete-cas","Check":{"Node":"n","CheckID":"c","ModifyIndex":3}}"#;
        let Ok(Ok(MixedOp::Check { check: read, .. })) = check(&raw(text)) else {
            panic!("a check");
        };
        assert_eq!((&*read.check_id, read.modify_index), ("c", 3));
        let bad = service(&raw(r#"{"Verb":"lock"}"#)).unwrap();
        assert_eq!(bad, Err("unknown Service operation: lock".to_owned()));
        let bad = check(&raw(r#"{"Verb":1}"#)).unwrap_err();
        assert!(bad.text.starts_with("Failed to parse body: "));
    }

    #[test]
    fn a_result_that_was_read_says_how_fresh_it_is() {
        let meta = Meta {
            index: 9,
            known_leader: true,
            last_contact_ms: 0,
        };
        let level = Level::new(&meta, wire::ReadMode::Stale);
        let document = Bytes::from_static(br#"{"Results":[],"Errors":null}"#);
        let read: serde_json::Value =
            serde_json::from_slice(&with_level(&document, &level)).unwrap();
        assert_eq!(
            (&read["Index"], &read["ConsistencyLevel"]),
            (&9.into(), &"stale".into())
        );
        let failure = Bytes::from_static(br#"{"Results":null,"Errors":[]}"#);
        assert_eq!(with_level(&failure, &level), failure);
    }
}

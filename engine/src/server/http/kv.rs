//! `/v1/kv/<key>`: what do GET, PUT and DELETE of a key mean?
//!
//! Parameters become one wire query or command here, and their answer becomes Consul's shapes.
//! What is decided by the state (does the key exist, does the index match) is not decided here.

use std::{borrow::Cow, rc::Rc};

use bytes::Bytes;
use http::StatusCode;
use wire::{
    Command, Index, KvCommand, KvVerb, QueryBody,
    limits::{KEY_BYTES_MAX, SESSION_BYTES_MAX},
};

use super::{
    failure::Refusal,
    go_text::{parse_uint, quote},
    json,
    link::Link,
    pages::{self, Page},
    params::Params,
    reads::{self, Asked},
    reply::{Content, Meta, Reply},
    rows::{Listing, RowsBody},
    serve::Inner,
    watch::{self, Begin},
};
use crate::server::gateway::{Answer, AnswerBody, Gateway, RowBatch, RowStream};

type Outcome<G> = Result<Reply<<G as Gateway>::Rows>, Refusal>;

fn check_key(key: &[u8], may_be_empty: bool) -> Result<(), Refusal> {
    if key.is_empty() && !may_be_empty {
        return Err(Refusal::bad("Missing key name"));
    }
    if key.len() > KEY_BYTES_MAX {
        let text = format!(
            "Key of {} bytes is too long, max size: {KEY_BYTES_MAX} bytes",
            key.len()
        );
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, text));
    }
    Ok(())
}

fn owned(key: Cow<'_, [u8]>) -> Bytes {
    match key {
        Cow::Borrowed(key) => Bytes::copy_from_slice(key),
        Cow::Owned(key) => key.into(),
    }
}

pub(super) async fn get<G: Gateway>(
    inner: &Inner<G>,
    link: &Link,
    key: Cow<'_, [u8]>,
    params: &Params<'_>,
    asked: Asked,
) -> Outcome<G> {
    let many = params.keys || params.recurse;
    check_key(&key, many)?;
    let page = Page::parse(params, &key)?;
    let prefix_is_root = key.is_empty();
    let key = owned(key);
    let body = if params.keys {
        let separator = params.separator.as_deref().unwrap_or_default();
        let separator = Bytes::copy_from_slice(separator.as_bytes());
        QueryBody::KvKeys {
            prefix: key,
            separator,
            start_after: page.start_after.clone(),
            limit: page.wanted(),
        }
    } else if params.recurse {
        QueryBody::KvList {
            prefix: key,
            start_after: page.start_after.clone(),
            limit: page.wanted(),
        }
    } else {
        QueryBody::KvGet { key }
    };
    let answer = reads::read(&inner.gateway, link, asked, body).await?;
    let meta = Meta::of(&answer);
    let reply = match answer.body {
        AnswerBody::Keys(keys) => names(inner, params, &page, &keys, prefix_is_root),
        AnswerBody::Rows(stream) => rows(inner, params, &page, stream).await?,
        AnswerBody::Status(_)
        | AnswerBody::Txn(_)
        | AnswerBody::Document(_)
        | AnswerBody::Changes(_) => {
            return Err(Refusal::internal("internal error: no rows for a key"));
        }
    };
    Ok(reply.meta(meta))
}

fn names<G: Gateway>(
    inner: &Inner<G>,
    params: &Params<'_>,
    page: &Page,
    mut keys: &[Bytes],
    prefix_is_root: bool,
) -> Reply<G::Rows> {
    if keys.is_empty() && !prefix_is_root && !page.goes_on() {
        return Reply::new(StatusCode::NOT_FOUND, Content::Empty);
    }
    let next = page.cut(&mut keys);
    let style = inner.style(params.pretty);
    let mut out = Vec::with_capacity(keys.iter().map(|key| key.len() + 8).sum::<usize>() + 8);
    out.push(b'[');
    for (at, key) in keys.iter().enumerate() {
        json::string_element(&mut out, style, key, at == 0);
    }
    style.end_array(&mut out, keys.is_empty());
    let reply = Reply::json(Content::Whole(out.into()));
    match next {
        Some(last) => pages::with_next(reply, last),
        None => reply,
    }
}

async fn rows<G: Gateway>(
    inner: &Inner<G>,
    params: &Params<'_>,
    page: &Page,
    mut stream: G::Rows,
) -> Outcome<G> {
    let style = inner.style(params.pretty);
    let Some(first) = next_with_rows(&mut stream).await? else {
        if page.goes_on() {
            let mut out = Vec::from(*b"[");
            style.end_array(&mut out, true);
            return Ok(Reply::json(Content::Whole(out.into())));
        }
        return Ok(Reply::new(StatusCode::NOT_FOUND, Content::Empty));
    };
    if page.is_bounded() {
        return page.rows(stream, first, style).await;
    }
    if !params.recurse {
        let row = first.row(0);
        return Ok(match params.raw {
            true => Reply::raw(Bytes::copy_from_slice(row.value)),
            false => {
                let mut out = Vec::with_capacity(json::row_size_hint(&row));
                out.push(b'[');
                json::row(&mut out, style, &row, true);
                style.end_array(&mut out, false);
                Reply::json(Content::Whole(out.into()))
            }
        });
    }
    // `?raw` means something for exactly one row, also when it was found by prefix.
    let mut second = None;
    if params.raw && first.len() == 1 {
        second = next_with_rows(&mut stream).await?;
        if second.is_none() {
            return Ok(Reply::raw(Bytes::copy_from_slice(first.row(0).value)));
        }
    }
    let mut listing = Listing::new(stream, first, second, style);
    let content = match listing.gather().await? {
        true => Content::Whole(listing.take_piece()),
        false => Content::Rows(RowsBody::new(listing)),
    };
    Ok(Reply::json(content))
}

/// Watches the keys with a prefix.
pub(super) async fn watch<G: Gateway>(
    inner: &Inner<G>,
    link: &Rc<Link>,
    prefix: Cow<'_, [u8]>,
    params: &Params<'_>,
    begin: Begin,
) -> Outcome<G> {
    check_key(&prefix, true)?;
    watch::watch(inner, link, owned(prefix), params, begin).await
}

/// The next batch that has rows.
async fn next_with_rows<R: RowStream>(stream: &mut R) -> Result<Option<R::Batch>, Refusal> {
    while let Some(batch) = stream.next_batch().await {
        let batch = batch?;
        if !batch.is_empty() {
            return Ok(Some(batch));
        }
    }
    Ok(None)
}

/// What a PUT does, decided from its parameters before its body is read.
pub(super) struct Put {
    verb: KvVerb,
    flags: u64,
    index: u64,
    session: Vec<u8>,
}

impl Put {
    pub(super) fn parse(key: &[u8], params: &Params<'_>) -> Result<Self, Refusal> {
        check_key(key, false)?;
        Page::refuse(params)?;
        params.exclusive(&[
            params.cas.is_some(),
            params.acquire.is_some(),
            params.release.is_some(),
        ])?;
        let number = |text: &Option<Cow<'_, str>>| match text {
            Some(text) => parse_uint(text).map_err(Refusal::internal),
            None => Ok(0),
        };
        let flags = number(&params.flags)?;
        let index = number(&params.cas)?;
        let (verb, session) = match (&params.cas, &params.acquire, &params.release) {
            (Some(_), _, _) => (KvVerb::Cas, ""),
            (_, Some(session), _) => (KvVerb::Lock, &**session),
            (_, _, Some(session)) => (KvVerb::Unlock, &**session),
            _ => (KvVerb::Set, ""),
        };
        // No session has such an id, and no command can carry it.
        if session.len() > SESSION_BYTES_MAX {
            let text = format!("raft apply failed: invalid session {}", quote(session));
            return Err(Refusal::internal(text));
        }
        Ok(Self {
            verb,
            flags,
            index,
            session: session.as_bytes().to_vec(),
        })
    }
}

pub(super) async fn put<G: Gateway>(
    inner: &Inner<G>,
    key: &[u8],
    params: &Params<'_>,
    put: Put,
    value: &[u8],
) -> Outcome<G> {
    let Put {
        verb,
        flags,
        index,
        session,
    } = put;
    let command = KvCommand {
        verb,
        key,
        value,
        flags,
        index,
        session: &session,
    };
    write(inner, params, command).await
}

pub(super) async fn delete<G: Gateway>(
    inner: &Inner<G>,
    key: &[u8],
    params: &Params<'_>,
) -> Outcome<G> {
    check_key(key, params.recurse)?;
    Page::refuse(params)?;
    params.exclusive(&[params.recurse, params.cas.is_some()])?;
    let index = match &params.cas {
        Some(text) => parse_uint(text).map_err(Refusal::internal)?,
        None => 0,
    };
    let verb = match (params.recurse, &params.cas) {
        (true, _) => KvVerb::DeleteTree,
        (_, Some(_)) => KvVerb::DeleteCas,
        _ => KvVerb::Delete,
    };
    if verb == KvVerb::DeleteTree {
        inner.within_one_shard(key)?;
    }
    write(
        inner,
        params,
        KvCommand {
            verb,
            key,
            value: b"",
            flags: 0,
            index,
            session: b"",
        },
    )
    .await
}

async fn write<G: Gateway>(
    inner: &Inner<G>,
    params: &Params<'_>,
    command: KvCommand<'_>,
) -> Outcome<G> {
    let shard = inner.gateway.shard_of(command.key);
    let written = inner
        .gateway
        .write(shard, Command::Kv(command).encode())
        .await?;
    Ok(Reply::written(
        written.ok,
        written.index.0,
        inner.style(params.pretty),
    ))
}

impl Meta {
    pub(super) fn of<S>(answer: &Answer<S>) -> Self {
        let Index(index) = answer.index;
        Self {
            index,
            known_leader: answer.known_leader,
            last_contact_ms: answer.last_contact_ms,
        }
    }
}

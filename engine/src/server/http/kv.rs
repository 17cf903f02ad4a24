//! `/v1/kv/<key>`: what do GET, PUT and DELETE of a key mean?
//!
//! Parameters become one wire query or command here, and their answer becomes Consul's shapes.
//! What is decided by the state (does the key exist, does the index match) is not decided here.

use std::{borrow::Cow, rc::Rc};

use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use hyper::body::Incoming;
use wire::{
    Command, Index, KvCommand, KvVerb, QueryBody,
    limits::{KEY_BYTES_MAX, SESSION_BYTES_MAX},
};

use super::{
    acl::Who,
    admission::Admitted,
    body,
    failure::Refusal,
    go_text::{parse_uint, quote},
    json,
    link::{Link, Phase},
    pages::{self, Page},
    params::Params,
    reads::{self, Asked},
    reply::{Content, Meta, Reply},
    rows::{Listing, RowsBody, Seen},
    serve::Inner,
    watch::{self, Begin},
};
use crate::acl::{Access, Resource};
use crate::server::{
    gateway::{Answer, AnswerBody, Gateway, RowBatch, RowStream},
    meters::Timed,
};

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

/// Answers one request about a key, whose method is GET, PUT or DELETE.
pub(super) async fn answer<G: Gateway>(
    inner: &Inner<G>,
    link: &Rc<Link>,
    parts: &Parts,
    body: Incoming,
    admitted: &mut Option<Admitted>,
    key: Cow<'_, [u8]>,
) -> Outcome<G> {
    let params = Params::parse(parts.uri.query(), &inner.info.datacenter)?;
    match parts.method {
        Method::PUT => {
            let put = Put::parse(&key, &params)?;
            let max = inner.limits().value_bytes_max;
            let announced = body::announced(&body, max)?;
            *admitted = Some(Admitted::new(&inner.load, &inner.limits(), announced)?);
            let who = inner.who(parts, &params).await?;
            who.must(Resource::Key, &key, Access::Write)?;
            link.enter(Phase::Body);
            let value = body::read(body, link, max).await?;
            link.enter(Phase::Serving);
            write_value(inner, &key, &params, put, &value).await
        }
        Method::DELETE => {
            *admitted = Some(Admitted::new(&inner.load, &inner.limits(), 0)?);
            let who = inner.who(parts, &params).await?;
            delete(inner, &who, &key, &params).await
        }
        _ if params.watch => {
            let begin = Begin::parse(&params, &parts.headers)?;
            *admitted = Some(Admitted::watching(&inner.load, &inner.limits())?);
            Box::pin(watch(inner, link, parts, key, &params, begin)).await
        }
        _ => {
            let asked = Asked::parse(&params)?;
            *admitted = Some(match asked.waits() {
                true => Admitted::waiting(&inner.load, &inner.limits())?,
                false => Admitted::new(&inner.load, &inner.limits(), 0)?,
            });
            get(inner, link, parts, key, &params, asked).await
        }
    }
}

async fn get<G: Gateway>(
    inner: &Inner<G>,
    link: &Link,
    parts: &Parts,
    key: Cow<'_, [u8]>,
    params: &Params<'_>,
    asked: Asked,
) -> Outcome<G> {
    let many = params.keys || params.recurse;
    check_key(&key, many)?;
    let page = Page::parse(params, &key)?;
    let mut who = inner.who(parts, params).await?;
    may_read(inner, &who, &key, many)?;
    let mut hides = many && !who.may_read_prefix(&key);
    // Of a page with rows left out, only the whole listing says where it ends.
    let wanted = if hides { 0 } else { page.wanted() };
    let prefix_is_root = key.is_empty();
    let key = owned(key);
    let body = if params.keys {
        let separator = params.separator.as_deref().unwrap_or_default();
        let separator = Bytes::copy_from_slice(separator.as_bytes());
        QueryBody::KvKeys {
            prefix: key,
            separator,
            start_after: page.start_after.clone(),
            limit: wanted,
        }
    } else if params.recurse {
        QueryBody::KvList {
            prefix: key,
            start_after: page.start_after.clone(),
            limit: wanted,
        }
    } else {
        QueryBody::KvGet { key }
    };
    // Only whoever may be refused afterwards pays for remembering what was asked.
    let named = inner.guard.is_some().then(|| body.clone());
    let mut answer = reads::read(&inner.gateway, link, asked, body).await?;
    if let Some(mut named) = named
        && asked.waits()
    {
        // Rights may have changed while it waited.
        who = inner.who(parts, params).await?;
        may_read(inner, &who, named_key(&named), many)?;
        hides = many && !who.may_read_prefix(named_key(&named));
        if let QueryBody::KvList { limit, .. } | QueryBody::KvKeys { limit, .. } = &mut named
            && hides
            && *limit > 0
        {
            *limit = 0;
            let all = reads::fresh(&inner.gateway, params.freshness()?, named);
            answer = Box::pin(all).await?;
        }
    }
    let meta = Meta::of(&answer);
    let reply = match answer.body {
        AnswerBody::Keys(mut keys) => {
            let all = keys.len();
            if hides {
                keys.retain(|key| who.may(Resource::Key, key, Access::Read));
            }
            let reply = names(inner, params, &page, &keys, prefix_is_root);
            reply.filtered(keys.len() < all && who.is_told_of_filters())
        }
        AnswerBody::Rows(stream) => rows(inner, params, &page, stream, &who, hides).await?,
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

/// Rows, without those that may not be seen. `hides`: there may be such.
async fn rows<G: Gateway>(
    inner: &Inner<G>,
    params: &Params<'_>,
    page: &Page,
    mut stream: G::Rows,
    who: &Who,
    hides: bool,
) -> Outcome<G> {
    let seen = Seen::new(who, hides);
    let style = inner.style(params.pretty);
    let Some((first, at)) = next_with_rows(&mut stream, &seen).await? else {
        let nothing = match page.goes_on() {
            true => {
                let mut out = Vec::from(*b"[");
                style.end_array(&mut out, true);
                Reply::json(Content::Whole(out.into()))
            }
            false => Reply::new(StatusCode::NOT_FOUND, Content::Empty),
        };
        return Ok(nothing.filtered(seen.is_told()));
    };
    if page.is_bounded() {
        let reply = page.rows(stream, first, style, &seen).await?;
        return Ok(reply.filtered(seen.is_told()));
    }
    if !params.recurse {
        let row = first.row(at);
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
    if params.raw && seen.next(&first, at + 1).is_none() {
        second = next_with_rows(&mut stream, &seen).await?;
        if second.is_none() {
            let raw = Reply::raw(Bytes::copy_from_slice(first.row(at).value));
            return Ok(raw.filtered(seen.is_told()));
        }
    }
    let second = second.map(|(batch, _)| batch);
    let mut listing = Listing::new(stream, first, second, style, seen.clone());
    let content = match listing.gather().await? {
        true => Content::Whole(listing.take_piece()),
        // What follows is not known yet: that something may be left out is said in advance.
        false => {
            seen.say_in_advance();
            Content::Rows(RowsBody::new(listing))
        }
    };
    Ok(Reply::json(content).filtered(seen.is_told()))
}

/// Watches the keys with a prefix.
async fn watch<G: Gateway>(
    inner: &Inner<G>,
    link: &Rc<Link>,
    parts: &Parts,
    prefix: Cow<'_, [u8]>,
    params: &Params<'_>,
    begin: Begin,
) -> Outcome<G> {
    check_key(&prefix, true)?;
    let who = inner.who(parts, params).await?;
    may_read(inner, &who, &prefix, true)?;
    let rights = inner.rights(parts, params);
    watch::watch(inner, link, rights, owned(prefix), params, begin).await
}

/// The next batch that has rows to be seen, and where the first of them is.
async fn next_with_rows<R: RowStream>(
    stream: &mut R,
    seen: &Seen,
) -> Result<Option<(R::Batch, usize)>, Refusal> {
    while let Some(batch) = stream.next_batch().await {
        let batch = batch?;
        if let Some(at) = seen.next(&batch, 0) {
            return Ok(Some((batch, at)));
        }
    }
    Ok(None)
}

/// Refuses a read as a whole. Of many keys, those that may not be seen are left out instead.
fn may_read<G: Gateway>(
    inner: &Inner<G>,
    who: &Who,
    key: &[u8],
    many: bool,
) -> Result<(), Refusal> {
    match &inner.guard {
        None => Ok(()),
        Some(_) if !many => who.must(Resource::Key, key, Access::Read),
        Some(guard) if guard.lists_need_list() => who.must(Resource::Key, key, Access::List),
        Some(_) => Ok(()),
    }
}

/// The key or prefix that a query is about.
fn named_key(query: &QueryBody) -> &[u8] {
    match query {
        QueryBody::KvGet { key } => key,
        QueryBody::KvList { prefix, .. } | QueryBody::KvKeys { prefix, .. } => prefix,
        _ => b"",
    }
}

/// What a PUT does, decided from its parameters before its body is read.
struct Put {
    verb: KvVerb,
    flags: u64,
    index: u64,
    session: Vec<u8>,
}

impl Put {
    fn parse(key: &[u8], params: &Params<'_>) -> Result<Self, Refusal> {
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

async fn write_value<G: Gateway>(
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

async fn delete<G: Gateway>(
    inner: &Inner<G>,
    who: &Who,
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
    match params.recurse {
        true => who.must_write_prefix(key)?,
        false => who.must(Resource::Key, key, Access::Write)?,
    }
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
    let _doing = inner.meter.begin(Timed::KvsApply);
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

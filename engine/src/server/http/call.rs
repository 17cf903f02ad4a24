//! What do all endpoints about records have in common?
//!
//! A [`Call`] is one request to one of them: it is admitted, its body is taken in, its question is
//! read with Consul's headers, its command is committed. What the request means is its family's:
//! each family of endpoints (`/v1/session/…`) has a module, which gets the rest of the path.

use std::{borrow::Cow, cell::Cell, rc::Rc};

use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use hyper::body::Incoming;
use wire::{Failure, FailureKind, QueryBody};

use super::{
    acl::{self, Need, Sieve, Sifted, Who},
    admission::Admitted,
    agent_calls, body, catalog, config, coordinates,
    failure::Refusal,
    json,
    link::{Link, Phase},
    params::Params,
    queries,
    reads::{self, Asked},
    reply::{Content, Meta, Reply},
    routes,
    serve::{Inner, not_allowed},
    sessions,
    streams::Lifeline,
    usage,
};
use crate::{
    documents::Question,
    fsm::{records::RecordOp, sessions::SessionVerb},
    server::{
        gateway::{AnswerBody, Gateway, Written},
        meters::Timed,
    },
};

/// Longest body of a request about records, bytes.
pub(super) const RECORD_BODY_BYTES_MAX: usize = 512 * 1024;

/// A family of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `/v1/acl/`.
    Acl,
    /// `/v1/agent/`.
    Agent,
    /// `/v1/catalog/`.
    Catalog,
    /// `/v1/config/`.
    Config,
    /// `/v1/coordinate/`.
    Coordinate,
    /// `/v1/event/`.
    Event,
    /// `/v1/health/`.
    Health,
    /// `/v1/query`.
    Query,
    /// `/v1/session/`.
    Session,
    /// `/v1/operator/usage`.
    Usage,
}

impl Family {
    const ALL: &[Self] = &[
        Self::Acl,
        Self::Agent,
        Self::Catalog,
        Self::Config,
        Self::Coordinate,
        Self::Event,
        Self::Health,
        Self::Query,
        Self::Session,
        Self::Usage,
    ];

    /// Its name in paths.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Agent => "agent",
            Self::Catalog => "catalog",
            Self::Config => "config",
            Self::Coordinate => "coordinate",
            Self::Event => "event",
            Self::Health => "health",
            Self::Query => "query",
            Self::Session => "session",
            Self::Usage => "operator/usage",
        }
    }

    /// The family of a path below `/v1/`, and what follows its name.
    pub(super) fn of(path: &[u8]) -> Option<(Self, &[u8])> {
        if path == b"operator/usage" {
            return Some((Self::Usage, b""));
        }
        let slash = path.iter().position(|byte| *byte == b'/');
        let (name, rest) = match slash {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (path, &b""[..]),
        };
        let family = Self::ALL
            .iter()
            .find(|family| family.name().as_bytes() == name)?;
        Some((*family, rest))
    }
}

/// The answer to a call.
pub(super) type Outcome<G> = Result<Reply<<G as Gateway>::Rows>, Refusal>;

/// One request about records.
pub(super) struct Call<'c, G: Gateway> {
    pub(super) inner: &'c Inner<G>,
    pub(super) parts: &'c Parts,
    pub(super) params: Params<'c>,
    pub(super) link: &'c Rc<Link>,
    body: Option<Incoming>,
    admitted: &'c mut Option<Admitted>,
    /// What the endpoint needs; nothing with ACLs off.
    need: Need<'c>,
    /// Who asks, once that was looked at.
    who: Option<Who>,
    body_checked: bool,
    /// Once a document was sifted: something was left out, and whoever asks is to know.
    sifted: &'c Cell<Option<bool>>,
}

/// Answers a request to a family of endpoints; `rest` is what follows the family's name.
pub(super) async fn answer<G: Gateway>(
    inner: &Inner<G>,
    link: &Rc<Link>,
    parts: &Parts,
    body: Incoming,
    admitted: &mut Option<Admitted>,
    family: Family,
    rest: &str,
) -> Outcome<G> {
    let Some(methods) = routes::methods_of(family, rest) else {
        return Err(unknown());
    };
    if let Some(reply) = not_allowed(&parts.method, methods) {
        return Ok(reply);
    }
    let sifted = Cell::new(None);
    let need = acl::need_of(&parts.method, family, rest, &inner.info.node_name);
    let mut call = Call {
        need: need.clone(),
        who: None,
        body_checked: false,
        sifted: &sifted,
        inner,
        parts,
        params: Params::parse(parts.uri.query(), &inner.info.datacenter)?,
        link,
        body: Some(body),
        admitted,
    };
    call.check_path().await?;
    // Each in a box of its own: a connection keeps room for its largest answer as long as it
    // lives, and a waiter of one family should not pay for the needs of another.
    let reply = match family {
        Family::Acl => Box::pin(acl::answer(call, rest)).await,
        Family::Agent => Box::pin(agent_calls::answer(call, rest)).await,
        Family::Catalog => Box::pin(catalog::answer(call, rest)).await,
        Family::Coordinate => Box::pin(coordinates::answer(call, rest)).await,
        Family::Event => Box::pin(agent_calls::event(call, rest)).await,
        Family::Health => Box::pin(catalog::health(call, rest)).await,
        Family::Config => Box::pin(config::answer(call, rest)).await,
        Family::Query => Box::pin(queries::answer(call, rest)).await,
        Family::Session => Box::pin(sessions::answer(call, rest)).await,
        Family::Usage => Box::pin(usage::answer(call)).await,
    };
    match (sifted.get(), need) {
        (None, Need::Sieve(sieve)) if inner.guard.is_some() => {
            sift_reply(inner, parts, sieve, reply?).await
        }
        (told, _) => Ok(reply?.filtered(told == Some(true))),
    }
}

/// Leaves out what may not be seen of an answer that did not come through a question, such as
/// what an agent knows of itself.
async fn sift_reply<G: Gateway>(
    inner: &Inner<G>,
    parts: &Parts,
    sieve: Sieve,
    mut reply: Reply<G::Rows>,
) -> Outcome<G> {
    let Content::Whole(body) = &reply.content else {
        return Ok(reply);
    };
    if !matches!(body.first(), Some(b'[' | b'{')) {
        return Ok(reply);
    }
    let params = Params::parse(parts.uri.query(), &inner.info.datacenter)?;
    let who = inner.who(parts, &params).await?;
    let Sifted { json, filtered } = sieve.sift(&who, body.clone())?;
    reply.content = Content::Whole(json);
    Ok(reply.filtered(filtered && who.is_told_of_filters()))
}

impl<G: Gateway> Call<'_, G> {
    /// The answer to a method that the endpoint does not know.
    pub(super) fn unless(&self, allowed: &[Method]) -> Option<Reply<G::Rows>> {
        not_allowed(&self.parts.method, allowed)
    }

    /// The answer to a path that names nothing in its family.
    pub(super) fn unknown(&self) -> Outcome<G> {
        Err(unknown())
    }

    /// Takes in the request's body.
    pub(super) async fn body(&mut self) -> Result<Bytes, Refusal> {
        let inner = self.inner;
        let Some(incoming) = self.body.take() else {
            return Ok(Bytes::new());
        };
        let announced = body::announced(&incoming, RECORD_BODY_BYTES_MAX)?;
        *self.admitted = Some(Admitted::new(&inner.load, &inner.limits(), announced)?);
        self.link.enter(Phase::Body);
        let body = body::read(incoming, self.link, RECORD_BODY_BYTES_MAX).await?;
        self.link.enter(Phase::Serving);
        if matches!(self.need, Need::Body(_) | Need::Query(_)) {
            let who = self.who().await?;
            let (gateway, node) = (&inner.gateway, &inner.info.node_name);
            acl::check_body(gateway, &who, &self.need, node, &body).await?;
            self.body_checked = true;
        }
        Ok(body)
    }

    /// Refuses what the path alone shows to be without right.
    async fn check_path(&mut self) -> Result<(), Refusal> {
        if self.inner.guard.is_none() || self.need == Need::Nothing {
            return Ok(());
        }
        self.admit(false)?;
        let who = self.who().await?;
        let inner = self.inner;
        let node = &inner.info.node_name;
        let checked = acl::check_path(&inner.gateway, &who, &self.need, node).await;
        // What follows is admitted with its own size or wait.
        *self.admitted = None;
        checked
    }

    /// Who asks.
    pub(super) async fn who(&mut self) -> Result<Who, Refusal> {
        if let Some(who) = &self.who {
            return Ok(who.clone());
        }
        let who = self.inner.who(self.parts, &self.params).await?;
        self.who = Some(who.clone());
        Ok(who)
    }

    /// Who asks, by the rights of this moment: for after a wait.
    pub(super) async fn who_now(&mut self) -> Result<Who, Refusal> {
        self.who = None;
        self.who().await
    }

    /// The token that the request brought; empty with ACLs off.
    pub(super) fn brought(&self) -> &str {
        match &self.inner.guard {
            Some(_) => acl::brought(&self.parts.headers, self.params.get("token")).unwrap_or(""),
            None => "",
        }
    }

    /// The token that was shown, or stands for none.
    pub(super) fn secret(&self) -> Cow<'_, str> {
        let param = self.params.get("token");
        match &self.inner.guard {
            Some(guard) => guard.token_of(&self.parts.headers, param),
            None => Cow::Borrowed(""),
        }
    }

    /// What of a document whoever asks may see, with the rights that they have now: those of when
    /// a wait began may be gone, as a whole or in part.
    async fn sifted(&mut self, waited: bool, json: Bytes) -> Result<Bytes, Refusal> {
        if self.inner.guard.is_none() {
            return Ok(json);
        }
        if waited && self.need != Need::Nothing {
            let who = self.who_now().await?;
            let (gateway, node) = (&self.inner.gateway, &self.inner.info.node_name);
            acl::check_path(gateway, &who, &self.need, node).await?;
        }
        let Need::Sieve(sieve) = self.need else {
            return Ok(json);
        };
        let who = self.who().await?;
        let Sifted { json, filtered } = sieve.sift(&who, json)?;
        let told = filtered && who.is_told_of_filters();
        self.sifted.set(Some(told));
        Ok(json)
    }

    /// Takes in the request's body as JSON of this form. Consul's words for what is not.
    pub(super) async fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        let body = self.body().await?;
        serde_json::from_slice(&body)
            .map_err(|error| Refusal::bad(format!("Request decode failed: {error}")))
    }

    /// Asks a question in the mode and with the wait that the request wants. `levels`: say in a
    /// header how consistent the answer is, as Consul's catalog and health endpoints do.
    pub(super) async fn read(&mut self, question: Question, levels: bool) -> Outcome<G> {
        let asked = Asked::parse(&self.params)?;
        let answer = self.ask(asked, question).await?;
        let reply = Reply::json(Content::Whole(self.styled(answer.1))).meta(answer.0);
        Ok(match levels {
            true => reply.level(asked.mode()),
            false => reply,
        })
    }

    /// Asks a question; the compact document and what surrounds it.
    pub(super) async fn ask(
        &mut self,
        asked: Asked,
        question: Question,
    ) -> Result<(Meta, Bytes), Refusal> {
        self.admit(asked.waits())?;
        let body = QueryBody::Record(question.encode());
        let answer = reads::read(&self.inner.gateway, self.link, asked, body).await?;
        let meta = Meta::of(&answer);
        match answer.body {
            AnswerBody::Document(json) => Ok((meta, self.sifted(asked.waits(), json).await?)),
            _ => Err(Refusal::internal(
                "internal error: no document for a question",
            )),
        }
    }

    /// Has a command committed and applied. `said` stands before the reason of a refusal, as
    /// Consul's endpoints differ in it.
    pub(super) async fn write(
        &mut self,
        op: &RecordOp,
        said: &'static str,
    ) -> Result<Written, Refusal> {
        if matches!(self.need, Need::Body(_)) && !self.body_checked {
            return Err(Refusal::internal(
                "internal error: a body that nobody has looked at",
            ));
        }
        self.admit(false)?;
        let _doing = timed(op).map(|what| self.inner.meter.begin(what));
        let written = self.inner.gateway.record(op.encode()).await;
        written.map_err(|failure| refused(failure, said))
    }

    /// A document in the style that was asked for.
    pub(super) fn styled(&self, compact: Bytes) -> Bytes {
        json::styled(compact, self.inner.style(self.params.pretty))
    }

    /// Admits an answer that goes on until somebody leaves, among the watches.
    pub(super) fn admit_watch(&mut self) -> Result<(), Refusal> {
        let (load, limits) = (&self.inner.load, self.inner.limits());
        *self.admitted = None;
        *self.admitted = Some(Admitted::watching(load, &limits)?);
        Ok(())
    }

    /// What such an answer depends on.
    pub(super) fn lifeline(&self) -> Lifeline<G> {
        Lifeline {
            link: Rc::clone(self.link),
            stopping: Rc::clone(&self.inner.stopping),
            rights: self.inner.rights(self.parts, &self.params),
            node: self.inner.info.node_name.clone(),
        }
    }

    pub(super) fn admit(&mut self, waits: bool) -> Result<(), Refusal> {
        let (load, limits) = (&self.inner.load, self.inner.limits());
        if waits {
            *self.admitted = Some(Admitted::waiting(load, &limits)?);
        } else if self.admitted.is_none() {
            *self.admitted = Some(Admitted::new(load, &limits, 0)?);
        }
        Ok(())
    }
}

fn unknown() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "Invalid URL path: not a recognized HTTP API endpoint\n",
    )
}

/// What a command is timed as.
fn timed(op: &RecordOp) -> Option<Timed> {
    Some(match op {
        RecordOp::Register(_) => Timed::CatalogRegister,
        RecordOp::Deregister(_) => Timed::CatalogDeregister,
        RecordOp::Session(request) => match request.op {
            SessionVerb::Renew => Timed::SessionRenew,
            _ => Timed::SessionApply,
        },
        _ => return None,
    })
}

fn refused(failure: Failure, said: &'static str) -> Refusal {
    match failure.kind {
        FailureKind::Refused => Refusal::internal(format!("{said}{}", failure.message)),
        _ => failure.into(),
    }
}

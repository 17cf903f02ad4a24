//! What do all endpoints about records have in common?
//!
//! A [`Call`] is one request to one of them: it is admitted, its body is taken in, its question is
//! read with Consul's headers, its command is committed. What the request means is its family's:
//! each family of endpoints (`/v1/session/…`) has a module, which gets the rest of the path.

use std::cell::Cell;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, request::Parts};
use hyper::body::Incoming;
use wire::{Failure, FailureKind, QueryBody, ReadMode};

use super::{
    acl::{self, Need, Sieve, Sifted, Who},
    admission::Admitted,
    agent_calls, body, catalog, config, coordinates,
    failure::Refusal,
    json,
    link::{Link, Phase},
    params::Params,
    reads::{self, Asked},
    reply::{Content, Meta, Reply},
    routes,
    serve::{Inner, not_allowed},
    sessions,
};
use crate::{
    documents::Question,
    fsm::records::RecordOp,
    server::gateway::{AnswerBody, Gateway, Written},
};

const X_CONSUL_EFFECTIVE_CONSISTENCY: HeaderName =
    HeaderName::from_static("x-consul-effective-consistency");

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
    /// `/v1/session/`.
    Session,
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
        Self::Session,
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
            Self::Session => "session",
        }
    }

    /// The family of a path below `/v1/`, and what follows its name.
    pub(super) fn of(path: &[u8]) -> Option<(Self, &[u8])> {
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
    pub(super) link: &'c Link,
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
    link: &Link,
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
        Family::Session => Box::pin(sessions::answer(call, rest)).await,
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

    /// The token that was shown, or stands for none.
    pub(super) fn secret(&self) -> &str {
        let param = self.params.get("token");
        match &self.inner.guard {
            Some(guard) => guard.token_of(&self.parts.headers, param),
            None => "",
        }
    }

    /// What of a document whoever asks may see, with the rights that they have now: those of when
    /// a wait began may be gone, as a whole or in part.
    async fn sifted(&mut self, waited: bool, json: Bytes) -> Result<Bytes, Refusal> {
        if self.inner.guard.is_none() {
            return Ok(json);
        }
        if waited && self.need != Need::Nothing {
            self.who = None;
            let who = self.who().await?;
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
        let mut reply = Reply::json(Content::Whole(self.styled(answer.1))).meta(answer.0);
        if levels {
            let level = match asked.mode() {
                ReadMode::Default => "leader",
                ReadMode::Consistent => "consistent",
                ReadMode::Stale => "stale",
            };
            let level = HeaderValue::from_static(level);
            reply = reply.header(X_CONSUL_EFFECTIVE_CONSISTENCY, level);
        }
        Ok(reply)
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
        let written = self.inner.gateway.record(op.encode()).await;
        written.map_err(|failure| refused(failure, said))
    }

    /// A document in the style that was asked for.
    pub(super) fn styled(&self, compact: Bytes) -> Bytes {
        json::styled(compact, self.inner.style(self.params.pretty))
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

fn refused(failure: Failure, said: &'static str) -> Refusal {
    match failure.kind {
        FailureKind::Refused => Refusal::internal(format!("{said}{}", failure.message)),
        _ => failure.into(),
    }
}

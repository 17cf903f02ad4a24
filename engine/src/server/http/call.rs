//! What do all endpoints about records have in common?
//!
//! A [`Call`] is one request to one of them: it is admitted, its body is taken in, its question is
//! read with Consul's headers, its command is committed. What the request means is its family's:
//! each family of endpoints (`/v1/session/…`) has a module, which gets the rest of the path.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, request::Parts};
use hyper::body::Incoming;
use wire::{Failure, FailureKind, QueryBody, ReadMode};

use super::{
    admission::Admitted,
    agent_calls, body, catalog, config, coordinates,
    failure::Refusal,
    json,
    link::{Link, Phase},
    params::Params,
    reads::{self, Asked},
    reply::{Content, Meta, Reply},
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
    /// The family of a path below `/v1/`, and what follows its name.
    pub(super) fn of(path: &[u8]) -> Option<(Self, &[u8])> {
        let slash = path.iter().position(|byte| *byte == b'/');
        let (name, rest) = match slash {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (path, &b""[..]),
        };
        let family = match name {
            b"agent" => Self::Agent,
            b"catalog" => Self::Catalog,
            b"config" => Self::Config,
            b"coordinate" => Self::Coordinate,
            b"event" => Self::Event,
            b"health" => Self::Health,
            b"session" => Self::Session,
            _ => return None,
        };
        Some((family, rest))
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
}

/// Answers a request to a family of endpoints; `rest` is what follows the family's name.
pub(super) async fn answer<G: Gateway>(
    inner: &Inner<G>,
    link: &Link,
    parts: &Parts,
    body: Incoming,
    admitted: &mut Option<Admitted>,
    family: Family,
    rest: &[u8],
) -> Outcome<G> {
    let call = Call {
        inner,
        parts,
        params: Params::parse(parts.uri.query(), &inner.info.datacenter)?,
        link,
        body: Some(body),
        admitted,
    };
    let rest = std::str::from_utf8(rest).map_err(|_| Refusal::bad("Path is not UTF-8"))?;
    match family {
        Family::Agent => agent_calls::answer(call, rest).await,
        Family::Catalog => catalog::answer(call, rest).await,
        Family::Coordinate => coordinates::answer(call, rest).await,
        Family::Event => agent_calls::event(call, rest).await,
        Family::Health => catalog::health(call, rest).await,
        Family::Config => config::answer(call, rest).await,
        Family::Session => sessions::answer(call, rest).await,
    }
}

impl<G: Gateway> Call<'_, G> {
    /// The answer to a method that the endpoint does not know.
    pub(super) fn unless(&self, allowed: &[Method]) -> Option<Reply<G::Rows>> {
        not_allowed(&self.parts.method, allowed)
    }

    /// The answer to a path that names nothing in its family.
    pub(super) fn unknown(&self) -> Outcome<G> {
        Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "Invalid URL path: not a recognized HTTP API endpoint\n",
        ))
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
        Ok(body)
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
            AnswerBody::Document(json) => Ok((meta, json)),
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

fn refused(failure: Failure, said: &'static str) -> Refusal {
    match failure.kind {
        FailureKind::Refused => Refusal::internal(format!("{said}{}", failure.message)),
        _ => failure.into(),
    }
}

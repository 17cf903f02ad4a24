//! `/v1/agent/…`, `/v1/event/…`: what is asked of this very server?
//!
//! Registrations go to the server's agent, which is on one executor; what the server says of
//! itself is made here. Statuses and texts are Consul's.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use wire::{QueryBody, ReadMode};

use super::{
    agent,
    call::{Call, Outcome},
    failure::Refusal,
    go_text::quote,
    metrics, monitor,
    params::Freshness,
    reads,
    reply::{Content, Reply},
    serve::Inner,
    sessions::random_uuid,
};
use crate::{
    documents::{AgentQuestion, Question},
    filter::{Filter, Shape, shapes},
    server::{
        agent::{
            events::UserEvent,
            local::{AgentError, CheckDefinition, ServiceDefinition, Status},
            request::{AgentReply, AgentRequest},
            tokens::{TOKEN_BYTES_MAX, TokenKind},
        },
        config::acl::Secret,
        gateway::{Answer, AnswerBody, Gateway},
    },
    shard::reconcile::SERF_HEALTH,
};

const X_CONSUL_CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");

pub(super) async fn answer<G: Gateway>(call: Call<'_, G>, rest: &str) -> Outcome<G> {
    let (name, argument) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = match (name, argument.split('/').next().unwrap_or_default()) {
        (
            "self" | "members" | "metrics" | "version" | "host" | "services" | "checks" | "monitor",
            "",
        )
        | ("health", "service")
        | ("metrics", "stream") => Method::GET,
        ("service", "register" | "deregister" | "maintenance")
        | ("check", "register" | "deregister" | "pass" | "warn" | "fail" | "update")
        | ("maintenance" | "leave", "")
        | ("join" | "force-leave" | "token", _) => Method::PUT,
        ("service", _) => Method::GET,
        _ => return call.unknown(),
    };
    if let Some(reply) = call.unless(&[allowed]) {
        return Ok(reply);
    }
    let (verb, id) = argument.split_once('/').unwrap_or((argument, ""));
    let id = id.to_owned();
    match (name, verb) {
        ("service", "register") => register_service(call).await,
        ("service", "deregister") => {
            required(&id, "Missing service ID")?;
            ask(call, AgentRequest::DeregisterService { id }).await
        }
        ("service", "maintenance") => {
            required(&id, "Missing service ID")?;
            let (on, reason) = maintenance(&call)?;
            ask(call, AgentRequest::MaintainService { id, on, reason }).await
        }
        ("service", _) => service(call, argument).await,
        ("maintenance", _) => {
            let (on, reason) = maintenance(&call)?;
            ask(call, AgentRequest::MaintainNode { on, reason }).await
        }
        ("check", "register") => register_check(call).await,
        ("check", "deregister") => {
            required(&id, "Missing check ID")?;
            ask(call, AgentRequest::DeregisterCheck { id }).await
        }
        ("check", verb) => update_check(call, verb, id).await,
        ("health", _) => health(call, &id).await,
        ("services", _) => listing(call, AgentRequest::Services, &shapes::SERVICE).await,
        ("checks", _) => listing(call, AgentRequest::Checks, &shapes::CHECK).await,
        ("token", _) => set_token(call, argument).await,
        ("metrics", "stream") => metrics::streamed(call),
        ("monitor", _) => monitor::answer(call).await,
        _ => own(call, name).await,
    }
}

fn required(id: &str, missing: &'static str) -> Result<(), Refusal> {
    match id {
        "" => Err(Refusal::bad(missing)),
        _ => Ok(()),
    }
}

/// Asks the agent; its answer as it is.
async fn ask<G: Gateway>(mut call: Call<'_, G>, request: AgentRequest) -> Outcome<G> {
    call.admit(false)?;
    let reply = call.inner.gateway.agent(request).await;
    replied(&call, reply)
}

fn replied<G: Gateway>(call: &Call<'_, G>, reply: AgentReply) -> Outcome<G> {
    match reply {
        AgentReply::Done => Ok(Reply::new(StatusCode::OK, Content::Empty)),
        AgentReply::Document {
            status, json, hash, ..
        } => {
            let mut reply = Reply::json(Content::Whole(call.styled(json)));
            reply.status = StatusCode::from_u16(status).unwrap_or_default();
            if !hash.is_empty() {
                let hash = HeaderValue::try_from(hash).expect("hexadecimal digits");
                reply = reply.header(X_CONSUL_CONTENT_HASH, hash);
            }
            Ok(reply)
        }
        AgentReply::NoService(id) => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("unknown service ID: {id}"),
        )),
        AgentReply::Refused(error) => {
            let status = match error {
                AgentError::Invalid(_) => StatusCode::BAD_REQUEST,
                AgentError::NoTtl(_) => StatusCode::INTERNAL_SERVER_ERROR,
                AgentError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
                AgentError::UnknownService(_)
                | AgentError::UnknownCheck(_)
                | AgentError::NoSuchService(_) => StatusCode::NOT_FOUND,
            };
            Err(Refusal::new(status, error.to_string()))
        }
        AgentReply::NotKept(why) => Err(Refusal::internal(format!(
            "done, but not kept through a restart of this server: {why}; it is tried again"
        ))),
        AgentReply::TokenNotKept(why) => Err(Refusal::internal(format!(
            "failed to persist tokens: {why}; the token was not changed"
        ))),
        AgentReply::Events { .. } => Err(Refusal::internal("internal error: events for a request")),
        AgentReply::Gone => Err(Refusal::internal("this server's agent does not answer")),
    }
}

fn invalid(error: &AgentError) -> Refusal {
    Refusal::bad(error.to_string())
}

async fn register_service<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let body = call.body().await?;
    let mut definition = ServiceDefinition::from_json(&body).map_err(|error| invalid(&error))?;
    definition.bring(call.brought());
    let replace = matches!(
        call.params.get("replace-existing-checks"),
        Some("" | "true")
    );
    let request = AgentRequest::RegisterService {
        definition: Box::new(definition),
        replace,
    };
    ask(call, request).await
}

async fn register_check<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let body = call.body().await?;
    let mut definition = CheckDefinition::from_json(&body).map_err(|error| invalid(&error))?;
    definition.bring(call.brought());
    let definition = Box::new(definition);
    ask(call, AgentRequest::RegisterCheck { definition }).await
}

/// Has this server use another token itself.
async fn set_token<G: Gateway>(mut call: Call<'_, G>, name: &str) -> Outcome<G> {
    if !call.inner.info.acl.enabled {
        let text = "ACL support disabled";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, text));
    }
    let update: Value = call.json().await?;
    let Some(kind) = TokenKind::parse(name) else {
        let text = format!("Token {} is unknown", quote(name));
        return Err(Refusal::new(StatusCode::NOT_FOUND, text));
    };
    let fields = update
        .as_object()
        .ok_or_else(|| Refusal::bad("Request decode failed: it is not an object"))?;
    let token = fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("token"));
    let secret = match token.map(|(_, token)| token) {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) if text.len() <= TOKEN_BYTES_MAX => text,
        Some(Value::String(text)) => {
            let bytes = text.len();
            return Err(Refusal::bad(format!(
                "Token of {bytes} bytes is too long, at most {TOKEN_BYTES_MAX} bytes"
            )));
        }
        Some(_) => return Err(Refusal::bad("Request decode failed: Token is not a string")),
    };
    let secret = Secret::new(secret.to_owned());
    ask(call, AgentRequest::SetToken { kind, secret }).await
}

async fn update_check<G: Gateway>(mut call: Call<'_, G>, verb: &str, id: String) -> Outcome<G> {
    required(&id, "Missing check ID")?;
    let (status, output) = match verb {
        "pass" => (Status::Passing, note(&call)),
        "warn" => (Status::Warning, note(&call)),
        "fail" => (Status::Critical, note(&call)),
        _ => {
            let update: Value = call.json().await?;
            let text = |name: &str| {
                let found = update.as_object().into_iter().flatten();
                let mut found = found.filter(|(known, _)| known.eq_ignore_ascii_case(name));
                let value = found.next().map(|(_, value)| value);
                value.and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let status = text("Status");
            let status = Status::parse(&status)
                .ok_or_else(|| Refusal::bad(format!("Invalid check status: '{status}'")))?;
            (status, text("Output"))
        }
    };
    ask(call, AgentRequest::UpdateCheck { id, status, output }).await
}

fn note<G: Gateway>(call: &Call<'_, G>) -> String {
    call.params.get("note").unwrap_or_default().to_owned()
}

fn maintenance<G: Gateway>(call: &Call<'_, G>) -> Result<(bool, String), Refusal> {
    let Some(enable) = call.params.get("enable") else {
        return Err(Refusal::bad("Missing value for enable"));
    };
    let on = match enable {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
        "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
        other => {
            let text = format!("Invalid value for enable: {}", quote(other));
            return Err(Refusal::bad(text));
        }
    };
    let reason = call.params.get("reason").unwrap_or_default().to_owned();
    Ok((on, reason))
}

/// One service; with `?hash=` once it has another hash. A client that goes away waits no longer.
async fn service<G: Gateway>(mut call: Call<'_, G>, id: &str) -> Outcome<G> {
    required(id, "Missing service ID")?;
    let hash = call.params.get("hash").unwrap_or_default().to_owned();
    let wait_ms = call.params.wait_ms()?;
    call.admit(!hash.is_empty())?;
    let ask = |hash: String| {
        let id = id.to_owned();
        let request = AgentRequest::Service { id, hash, wait_ms };
        call.inner.gateway.agent(request)
    };
    let reply = match hash.is_empty() {
        true => ask(hash).await,
        false => while_connected(&call, ask(hash), || ask(String::new())).await,
    };
    replied(&call, reply)
}

/// Waits as long as the client does, then asks `at_once`: a client that has only closed its sending
/// side cannot be told from one that is gone.
async fn while_connected<G: Gateway, F: Future<Output = AgentReply>>(
    call: &Call<'_, G>,
    waiting: F,
    at_once: impl FnOnce() -> F,
) -> AgentReply {
    let waiting = async { Some(waiting.await) };
    let gone = async {
        call.link.ended().await;
        None
    };
    match futures_lite::FutureExt::or(waiting, gone).await {
        Some(reply) => reply,
        None => at_once().await,
    }
}

/// `/v1/event/…`: user events.
pub(super) async fn event<G: Gateway>(mut call: Call<'_, G>, rest: &str) -> Outcome<G> {
    let (verb, name) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = match verb {
        "fire" => Method::PUT,
        "list" => Method::GET,
        _ => return call.unknown(),
    };
    if let Some(reply) = call.unless(&[allowed]) {
        return Ok(reply);
    }
    match verb {
        "fire" => {
            let name = name.to_owned();
            let payload = call.body().await?;
            let filters = ["node", "service", "tag"].map(|by| call.params.get(by).unwrap_or(""));
            let event = UserEvent::new(random_uuid()?, &name, &payload, filters);
            let event = event.map_err(Refusal::bad)?;
            let document = event.encode();
            let event = Box::new(event);
            match call.inner.gateway.agent(AgentRequest::Fire { event }).await {
                AgentReply::Done => Ok(Reply::json(Content::Whole(call.styled(document.into())))),
                reply => replied(&call, reply),
            }
        }
        _ => events(call).await,
    }
}

async fn events<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let name = call.params.get("name").unwrap_or_default().to_owned();
    let wait_ms = call.params.wait_ms()?;
    // Not a raft index: any number is one.
    let index = call.params.index()?;
    call.admit(index > 0)?;
    let ask = |index: u64| {
        let name = name.clone();
        let request = AgentRequest::Events {
            name,
            index,
            wait_ms,
        };
        call.inner.gateway.agent(request)
    };
    let reply = match index {
        0 => ask(0).await,
        index => while_connected(&call, ask(index), || ask(0)).await,
    };
    match reply {
        AgentReply::Events { index, json } => {
            Ok(Reply::json(Content::Whole(call.styled(json))).index(index))
        }
        reply => replied(&call, reply),
    }
}

/// Rows by id, those that a filter lets through.
async fn listing<G: Gateway>(
    mut call: Call<'_, G>,
    request: AgentRequest,
    shape: &Shape,
) -> Outcome<G> {
    let filter = call.params.get("filter").unwrap_or_default();
    let filter =
        Filter::parse(filter, shape).map_err(|error| Refusal::internal(error.to_string()))?;
    call.admit(false)?;
    let reply = call.inner.gateway.agent(request).await;
    let reply = match reply {
        AgentReply::Document { json, .. } if !filter.is_empty() => AgentReply::Document {
            status: 200,
            json: filtered(&json, &filter),
            word: String::new(),
            hash: String::new(),
        },
        reply => reply,
    };
    replied(&call, reply)
}

/// The members of an object that pass.
fn filtered(json: &[u8], filter: &Filter) -> Bytes {
    let rows: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(json).expect("it was just written");
    let passes = |row: &serde_json::value::RawValue| {
        serde_json::from_str(row.get()).is_ok_and(|row| filter.matches(&row))
    };
    let rows: std::collections::BTreeMap<_, _> =
        rows.into_iter().filter(|(_, row)| passes(row)).collect();
    serde_json::to_vec(&rows)
        .expect("plain data into memory")
        .into()
}

async fn health<G: Gateway>(mut call: Call<'_, G>, rest: &str) -> Outcome<G> {
    let (by, what) = rest.split_once('/').unwrap_or((rest, ""));
    let what = what.to_owned();
    let request = match by {
        "id" => {
            required(&what, "Missing serviceID")?;
            AgentRequest::HealthOf { id: what }
        }
        "name" => {
            required(&what, "Missing service Name")?;
            AgentRequest::HealthNamed { name: what }
        }
        _ => return call.unknown(),
    };
    call.admit(false)?;
    match call.inner.gateway.agent(request).await {
        AgentReply::Document { status, word, .. } if call.params.get("format") == Some("text") => {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            Err(Refusal::new(status, word))
        }
        reply => replied(&call, reply),
    }
}

/// Names of the servers that the catalog shows as dead, as far as this server has heard.
async fn failed<G: Gateway>(inner: &Inner<G>) -> Vec<String> {
    let question = Question::Agent(AgentQuestion::Failed {
        check: SERF_HEALTH.to_owned(),
    });
    let freshness = Freshness {
        mode: ReadMode::Stale,
        max_stale_ms: None,
    };
    let body = QueryBody::Record(question.encode());
    match reads::fresh(&inner.gateway, freshness, body).await {
        Ok(Answer {
            body: AnswerBody::Document(json),
            ..
        }) => serde_json::from_slice(&json).unwrap_or_default(),
        // Without a state to ask nobody is known to be dead.
        _ => Vec::new(),
    }
}

/// What this server says of itself, and what it is told to do.
async fn own<G: Gateway>(mut call: Call<'_, G>, name: &str) -> Outcome<G> {
    call.admit(false)?;
    let inner = call.inner;
    let style = inner.style(call.params.pretty);
    let document = match name {
        "self" => {
            let counts = inner.gateway.agent(AgentRequest::Counts).await;
            let counts = match &counts {
                AgentReply::Document { json, .. } => serde_json::from_slice(json).ok(),
                _ => None,
            };
            let counts = counts.unwrap_or_default();
            agent::this(&inner.info, &inner.gateway.status(), &counts, style)
        }
        "members" => {
            let filter = call.params.get("filter").unwrap_or_default();
            let filter = Filter::parse(filter, &shapes::MEMBER)
                .map_err(|error| Refusal::internal(error.to_string()))?;
            let failed = failed(inner).await;
            agent::members(
                &inner.info,
                &inner.gateway.status(),
                &failed,
                &filter,
                style,
            )
        }
        "version" => agent::version(&inner.info, style),
        "host" => agent::host(style),
        "metrics" => return metrics::answer(&call),
        _ => {
            return Err(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                format!(
                    "{name} is not supported yet: the servers of a cluster are those it was formed \
                     with (-bootstrap-expect, -retry-join)"
                ),
            ));
        }
    };
    Ok(Reply::json(Content::Whole(document)))
}

//! `/v1/session/…`: how is a session asked for, and when is it refused?
//!
//! What depends on the clock or on chance is decided here, before the log: the id, and whether
//! TTL and lock-delay are within their ranges. What depends on the state (is the node there, do its
//! checks pass) is decided when the command is applied.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::{
    call::{Call, Outcome},
    failure::Refusal,
    go_text::{parse_duration, print_duration},
    reads::Asked,
    reply::{Content, Reply},
};
use crate::{
    documents::{Question, SessionQuestion},
    fsm::{
        records::RecordOp,
        sessions::{SessionRequest, SessionVerb},
    },
    server::gateway::Gateway,
    state::records::{ServiceCheck, Session},
};

/// Longest TTL, ns: a day.
pub const TTL_NS_MAX: i64 = 24 * 3600 * 1_000_000_000;
/// Lock-delays given as numbers below this one are seconds (Consul's quirk).
const LOCK_DELAY_SECONDS_BELOW: f64 = 1000.0;
/// Lock-delay of a session that asks for none, ns: 15 s.
const LOCK_DELAY_NS_DEFAULT: u64 = 15 * 1_000_000_000;

pub(super) async fn answer<G: Gateway>(mut call: Call<'_, G>, rest: &str) -> Outcome<G> {
    let (name, argument) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = match name {
        "create" | "destroy" | "renew" => Method::PUT,
        "info" | "list" | "node" => Method::GET,
        _ => return call.unknown(),
    };
    if let Some(reply) = call.unless(&[allowed]) {
        return Ok(reply);
    }
    let missing = |what: &'static str| match argument {
        "" => Err(Refusal::bad(what)),
        given => Ok(given.to_owned()),
    };
    match name {
        "create" => create(call).await,
        "destroy" => {
            let id = missing("Missing session")?;
            let written = write(&mut call, SessionVerb::Destroy, named(id)).await?;
            let style = call.inner.style(call.params.pretty);
            Ok(Reply::written(true, written.index.0, style))
        }
        "renew" => renew(call, missing("Missing session")?).await,
        "info" => {
            let id = missing("Missing session")?;
            call.read(SessionQuestion::Info { id }.into(), false).await
        }
        "node" => {
            let node = missing("Missing node name")?;
            call.read(SessionQuestion::Node { node }.into(), false)
                .await
        }
        _ => call.read(SessionQuestion::List.into(), false).await,
    }
}

impl From<SessionQuestion> for Question {
    fn from(question: SessionQuestion) -> Self {
        Self::Session(question)
    }
}

fn named(id: String) -> Session {
    Session {
        id,
        ..Session::default()
    }
}

async fn write<G: Gateway>(
    call: &mut Call<'_, G>,
    op: SessionVerb,
    session: Session,
) -> Result<crate::server::gateway::Written, Refusal> {
    let op = RecordOp::Session(SessionRequest { op, session });
    call.write(&op, "apply failed: ").await
}

async fn create<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let body = call.body().await?;
    let mut session = parse(&body)?;
    if session.node.is_empty() {
        session.node = call.inner.info.node_name.clone();
    }
    validate(&mut session, call.inner.limits().session_ttl_min)?;
    let id = random_uuid()?;
    session.id = id.clone();
    let written = write(&mut call, SessionVerb::Create, session).await?;
    let document = serde_json::json!({ "ID": id }).to_string();
    let reply = Reply::json(Content::Whole(call.styled(document.into())));
    Ok(reply.index(written.index.0))
}

async fn renew<G: Gateway>(mut call: Call<'_, G>, id: String) -> Outcome<G> {
    let not_found = format!("Session id '{id}' not found");
    let gone = || Refusal::new(StatusCode::NOT_FOUND, not_found.clone());
    let written = write(&mut call, SessionVerb::Renew, named(id.clone())).await?;
    if !written.ok {
        return Err(gone());
    }
    let question = Question::Session(SessionQuestion::Info { id });
    let (_, document) = call.ask(Asked::default(), question).await?;
    // It may have ended since.
    match &document[..] {
        b"[]" => Err(gone()),
        _ => Ok(Reply::json(Content::Whole(call.styled(document)))),
    }
}

/// The body of `create`, as far as clients may give it. Names in any case, as Go reads them.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Wanted {
    node: String,
    name: String,
    behavior: String,
    ttl: String,
    lockdelay: Option<Value>,
    checks: Option<Vec<String>>,
    nodechecks: Option<Vec<String>>,
    servicechecks: Option<Vec<ServiceCheck>>,
}

pub(super) fn parse(body: &[u8]) -> Result<Session, Refusal> {
    let failed = |why: String| Refusal::bad(format!("Request decode failed: {why}"));
    let wanted: Wanted = match body.iter().all(u8::is_ascii_whitespace) {
        true => Wanted::default(),
        false => {
            let object: serde_json::Map<String, Value> =
                serde_json::from_slice(body).map_err(|error| failed(error.to_string()))?;
            let lowered = object
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.to_lowercase(), value))
                .collect();
            serde_json::from_value(Value::Object(lowered))
                .map_err(|error| failed(error.to_string()))?
        }
    };
    let checks = wanted.nodechecks.or(wanted.checks);
    Ok(Session {
        node: wanted.node,
        name: wanted.name,
        behavior: wanted.behavior,
        ttl: wanted.ttl,
        lock_delay: wanted
            .lockdelay
            .map_or(Ok(LOCK_DELAY_NS_DEFAULT), |given| {
                lock_delay_ns(&given).map_err(failed)
            })?,
        node_checks: checks.unwrap_or_else(|| vec!["serfHealth".to_owned()]),
        service_checks: wanted.servicechecks.unwrap_or_default(),
        ..Session::default()
    })
}

/// A lock-delay: a duration as text, or nanoseconds, or, below 1000, seconds.
fn lock_delay_ns(given: &Value) -> Result<u64, String> {
    let ns = match given {
        Value::String(text) => {
            let ns = parse_duration(text).ok_or_else(|| bad_duration(text))?;
            ns as f64
        }
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        other => return Err(format!("LockDelay: {other} is not a duration")),
    };
    if !(0.0..=i64::MAX as f64).contains(&ns) {
        return Err(format!("LockDelay: {given} is out of range"));
    }
    Ok(match ns < LOCK_DELAY_SECONDS_BELOW {
        true => (ns * 1e9) as u64,
        false => ns as u64,
    })
}

fn bad_duration(text: &str) -> String {
    format!("time: invalid duration {}", super::go_text::quote(text))
}

pub(super) fn validate(session: &mut Session, ttl_min: Duration) -> Result<(), Refusal> {
    match &*session.behavior {
        "" => session.behavior = "release".to_owned(),
        "release" | "delete" => {}
        other => {
            return Err(Refusal::internal(format!(
                "Invalid Behavior setting '{other}'"
            )));
        }
    }
    if session.ttl.is_empty() {
        return Ok(());
    }
    let ttl = &session.ttl;
    let ns = parse_duration(ttl).ok_or_else(|| {
        Refusal::internal(format!(
            "Session TTL '{ttl}' invalid: {}",
            bad_duration(ttl)
        ))
    })?;
    let least = ttl_min.as_nanos() as i64;
    if ns != 0 && !(least..=TTL_NS_MAX).contains(&ns) {
        return Err(Refusal::internal(format!(
            "Invalid Session TTL '{ns}', must be between [{}={}]",
            print_duration(least),
            print_duration(TTL_NS_MAX)
        )));
    }
    session.ttl_ms = (ns as u64).div_ceil(1_000_000);
    Ok(())
}

/// A random UUID, version 4, as text.
pub(super) fn random_uuid() -> Result<String, Refusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Refusal::internal(format!("no random number for an id: {error}")))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(wire::Uuid(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_delays_are_texts_nanoseconds_or_small_numbers_of_seconds() {
        let delay = |text: &str| lock_delay_ns(&serde_json::from_str(text).unwrap());
        assert_eq!(delay("\"15s\""), Ok(15_000_000_000));
        assert_eq!(delay("15000000000"), Ok(15_000_000_000));
        assert_eq!(delay("15"), Ok(15_000_000_000));
        assert_eq!(delay("999"), Ok(999_000_000_000));
        assert_eq!(delay("1000"), Ok(1000));
        assert_eq!(delay("0"), Ok(0));
        assert_eq!(delay("\"0s\""), Ok(0));
        for bad in ["\"x\"", "-1", "\"-5s\"", "true", "1e300"] {
            assert!(delay(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_read_in_any_case_and_have_consuls_defaults() {
        let session = parse(b"").unwrap();
        assert_eq!(session.node_checks, ["serfHealth"]);
        assert_eq!(session.lock_delay, LOCK_DELAY_NS_DEFAULT);
        let session = parse(br#"{"name":"a","LOCKDELAY":"5s","checks":[],"Unknown":1}"#).unwrap();
        assert_eq!((&*session.name, session.lock_delay), ("a", 5_000_000_000));
        assert!(session.node_checks.is_empty());
        let session = parse(br#"{"NodeChecks":["a"],"Checks":["b"],"TTL":null}"#).unwrap();
        assert_eq!(session.node_checks, ["a"]);
        for bad in [&b"["[..], b"[]", br#"{"Name":1}"#, br#"{"LockDelay":"x"}"#] {
            assert!(
                parse(bad)
                    .unwrap_err()
                    .text
                    .starts_with("Request decode failed: ")
            );
        }
    }

    #[test]
    fn ttls_and_behaviors_have_consuls_ranges_and_texts() {
        let text = |ttl: &str, behavior: &str| {
            let mut session = Session {
                ttl: ttl.into(),
                behavior: behavior.into(),
                ..Session::default()
            };
            match validate(&mut session, Duration::from_secs(10)) {
                Ok(()) => session.ttl_ms.to_string(),
                Err(refusal) => refusal.text.into_owned(),
            }
        };
        assert_eq!(text("", ""), "0");
        assert_eq!(text("0s", "delete"), "0");
        assert_eq!(text("10s", "release"), "10000");
        assert_eq!(text("24h", "release"), "86400000");
        let range = "must be between [10s=24h0m0s]";
        assert_eq!(
            text("5s", ""),
            format!("Invalid Session TTL '5000000000', {range}")
        );
        assert_eq!(
            text("24h1s", ""),
            format!("Invalid Session TTL '86401000000000', {range}")
        );
        assert_eq!(
            text("abc", ""),
            "Session TTL 'abc' invalid: time: invalid duration \"abc\""
        );
        assert_eq!(text("", "x"), "Invalid Behavior setting 'x'");
    }
}

//! `/v1/config/…`: config entries, which are stored and served as they were written.

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::{
    call::{Call, Outcome},
    failure::Refusal,
    go_text::{parse_uint, quote},
    reads::Asked,
    reply::{Content, Reply},
};
use crate::{
    documents::{ConfigQuestion, Question},
    fsm::{
        config::{ConfigRequest, ConfigVerb},
        records::RecordOp,
    },
    server::gateway::Gateway,
    state::records::{ConfigEntry, JsonText},
};

/// Kinds that Consul knows, and the one name that an entry of the kind can have, if it is so.
const KINDS: &[(&str, Option<&str>)] = &[
    ("service-defaults", None),
    ("proxy-defaults", Some("global")),
    ("service-router", None),
    ("service-splitter", None),
    ("service-resolver", None),
    ("service-intentions", None),
    ("ingress-gateway", None),
    ("terminating-gateway", None),
    ("mesh", Some("mesh")),
    ("exported-services", None),
    ("sameness-group", None),
    ("api-gateway", None),
    ("bound-api-gateway", None),
    ("file-system-certificate", None),
    ("inline-certificate", None),
    ("http-route", None),
    ("tcp-route", None),
    ("jwt-provider", None),
    ("control-plane-request-limit", None),
    ("rate-limit", None),
];

pub(super) async fn answer<G: Gateway>(call: Call<'_, G>, rest: &str) -> Outcome<G> {
    let allowed: &[Method] = match rest {
        "" => &[Method::PUT],
        _ => &[Method::GET, Method::DELETE],
    };
    if let Some(reply) = call.unless(allowed) {
        return Ok(reply);
    }
    let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
    match call.parts.method {
        Method::PUT => put(call).await,
        Method::DELETE => delete(call, kind, name).await,
        _ => get(call, kind, name).await,
    }
}

async fn get<G: Gateway>(mut call: Call<'_, G>, kind: &str, name: &str) -> Outcome<G> {
    known(kind)?;
    let (kind, name) = (kind.to_owned(), name.to_owned());
    if name.is_empty() {
        return call.read(ConfigQuestion::List { kind }.into(), true).await;
    }
    let asked = Asked::parse(&call.params)?;
    let missing = format!(
        "Config entry not found for {} / {}",
        quote(&kind),
        quote(&name)
    );
    let question = ConfigQuestion::Get { kind, name };
    let (meta, document) = call.ask(asked, question.into()).await?;
    if document == "null" {
        let refusal = Refusal::new(StatusCode::NOT_FOUND, missing);
        return Ok(Reply::refusal(refusal).meta(meta));
    }
    Ok(Reply::json(Content::Whole(call.styled(document))).meta(meta))
}

async fn put<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let cas = cas(&call)?;
    let body = call.body().await?;
    let mut entry = parse(&body)?;
    entry.modify_index = cas.unwrap_or(0);
    let op = match cas {
        Some(_) => ConfigVerb::UpsertCas,
        None => ConfigVerb::Upsert,
    };
    let written = write(&mut call, op, entry).await?;
    let style = call.inner.style(call.params.pretty);
    Ok(Reply::written(written.ok, written.index.0, style))
}

async fn delete<G: Gateway>(mut call: Call<'_, G>, kind: &str, name: &str) -> Outcome<G> {
    known(kind)?;
    if name.is_empty() {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "Must provide both a kind and name to delete",
        ));
    }
    let cas = cas(&call)?;
    let entry = ConfigEntry {
        kind: kind.to_owned(),
        name: name.to_owned(),
        modify_index: cas.unwrap_or(0),
        ..ConfigEntry::default()
    };
    let Some(_) = cas else {
        let written = write(&mut call, ConfigVerb::Delete, entry).await?;
        let document = call.styled("{}".into());
        return Ok(Reply::json(Content::Whole(document)).index(written.index.0));
    };
    let written = write(&mut call, ConfigVerb::DeleteCas, entry).await?;
    let style = call.inner.style(call.params.pretty);
    Ok(Reply::written(written.ok, written.index.0, style))
}

async fn write<G: Gateway>(
    call: &mut Call<'_, G>,
    op: ConfigVerb,
    entry: ConfigEntry,
) -> Result<crate::server::gateway::Written, Refusal> {
    let op = RecordOp::ConfigEntry(ConfigRequest { op, entry });
    call.write(&op, "").await
}

fn cas<G: Gateway>(call: &Call<'_, G>) -> Result<Option<u64>, Refusal> {
    let cas = call.params.cas.as_deref();
    cas.map(|text| {
        parse_uint(text).map_err(|error| Refusal::bad(format!("Error parsing cas value: {error}")))
    })
    .transpose()
}

fn known(kind: &str) -> Result<Option<&'static str>, Refusal> {
    let found = KINDS.iter().find(|(known, _)| *known == kind);
    let known = KINDS.iter().map(|(known, _)| *known);
    found.map(|(_, name)| *name).ok_or_else(|| {
        let hint = match crate::server::nearest::nearest(kind, known) {
            Some(known) => format!(" (did you mean {}?)", quote(known)),
            None => String::new(),
        };
        Refusal::bad(format!("invalid config entry kind: {kind}{hint}"))
    })
}

/// An entry as clients write it: an object with `Kind` and `Name`, in Consul's JSON names or those
/// of its configuration files.
pub(super) fn parse(body: &[u8]) -> Result<ConfigEntry, Refusal> {
    let failed = |why: &str| Refusal::bad(format!("Request decoding failed: {why}"));
    let mut object: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| failed(&error.to_string()))?;
    for indexes in ["CreateIndex", "ModifyIndex"] {
        object.remove(indexes);
    }
    let mut text = |name: &'static str| -> Result<String, Refusal> {
        let given = object
            .keys()
            .find(|key| key.eq_ignore_ascii_case(name))
            .cloned();
        let value = given.and_then(|given| object.remove(&given));
        match value {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(failed(&format!("{name}: {other} is not a string"))),
        }
    };
    let (kind, mut name) = (text("Kind")?, text("Name")?);
    if kind.is_empty() {
        return Err(failed(
            "Payload does not contain a kind/Kind key at the top level",
        ));
    }
    match known(&kind).map_err(|refusal| failed(&refusal.text))? {
        Some(only) if name.is_empty() => name = only.to_owned(),
        Some(only) if name != only => {
            return Err(Refusal::internal(format!(
                "invalid name ({}), only {} is supported",
                quote(&name),
                quote(only)
            )));
        }
        _ if name.is_empty() => return Err(Refusal::internal("Name is required")),
        _ => {}
    }
    object.insert("Kind".to_owned(), kind.clone().into());
    object.insert("Name".to_owned(), name.clone().into());
    let text = Value::Object(object).to_string();
    Ok(ConfigEntry {
        kind,
        name,
        body: JsonText::parse(&text).expect("it was written as JSON"),
        ..ConfigEntry::default()
    })
}

impl From<ConfigQuestion> for Question {
    fn from(question: ConfigQuestion) -> Self {
        Self::Config(question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_counted() {
        let counted = crate::fsm::usage::CONFIG_KINDS;
        let mut known: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).collect();
        known.sort_unstable();
        let counted: Vec<_> = counted.iter().map(|kind| kind.name).collect();
        assert_eq!(known, counted);
    }

    #[test]
    fn entries_are_kept_as_they_were_written() {
        let entry =
            parse(br#"{"kind":"service-defaults","Name":"web","Protocol":"http","ModifyIndex":7}"#);
        let entry = entry.unwrap();
        assert_eq!((&*entry.kind, &*entry.name), ("service-defaults", "web"));
        let body = r#"{"Kind":"service-defaults","Name":"web","Protocol":"http"}"#;
        assert_eq!(entry.body.as_str(), body);
        let entry = parse(br#"{"Kind":"proxy-defaults"}"#).unwrap();
        assert_eq!(&*entry.name, "global");
    }

    #[test]
    fn bad_entries_are_refused_in_words() {
        for (body, status, text) in [
            ("[]", 400, "Request decoding failed: "),
            (
                "{}",
                400,
                "Request decoding failed: Payload does not contain a kind",
            ),
            (
                r#"{"Kind":1}"#,
                400,
                "Request decoding failed: Kind: 1 is not a string",
            ),
            (
                r#"{"Kind":"service-default","Name":"a"}"#,
                400,
                "Request decoding failed: invalid config entry kind: service-default (did you mean \"service-defaults\"?)",
            ),
            (r#"{"Kind":"service-defaults"}"#, 500, "Name is required"),
            (
                r#"{"Kind":"mesh","Name":"x"}"#,
                500,
                "invalid name (\"x\"), only \"mesh\" is supported",
            ),
        ] {
            let refusal = parse(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.status.as_u16(), status, "{body}");
            assert!(refusal.text.starts_with(text), "{body}: {}", refusal.text);
        }
    }
}

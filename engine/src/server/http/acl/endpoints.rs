//! `/v1/acl/…`: how are tokens, policies and roles asked for, made and taken away?
//!
//! To see them takes `acl:read`, to change them `acl:write`; only whoever may change them sees
//! others' secrets. One's own token needs no right but its secret. Bootstrap needs no token: it
//! works once, or once more for whoever can write the file `acl-bootstrap-reset` into the data
//! directory of the server that is asked.
//!
//! Auth methods, and with them `login`, are not there, and are refused by name.

use std::path::Path;

use bytes::Bytes;
use http::{Method, StatusCode};
use wire::ReadMode;

use super::{
    super::{
        call::{Call, Outcome},
        failure::Refusal,
        reads::Asked,
        reply::{Content, Reply},
        sessions::random_uuid,
    },
    guard::{Who, ask, forbidden, now_ns},
    ready, wanted,
};
use crate::{
    acl::{Access, GLOBAL_MANAGEMENT, Resource},
    documents::{
        AclQuestion, Question,
        acl::{Duties, View},
    },
    fsm::{
        acl::{Bootstrap, PolicyDelete, PolicySet, RoleDelete, RoleSet, TokenDelete, TokenSet},
        records::RecordOp,
    },
    server::gateway::Gateway,
    state::records::{AclToken, PolicyLink},
};

/// The file that allows one more bootstrap; it holds the index of the last.
pub(super) const RESET_FILE: &str = "acl-bootstrap-reset";

pub(in super::super) async fn answer<G: Gateway>(mut call: Call<'_, G>, rest: &str) -> Outcome<G> {
    if call.inner.guard.is_none() {
        return Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "ACL support disabled",
        ));
    }
    let (kind, argument) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed: &[Method] = match (kind, argument) {
        ("bootstrap", "") => &[Method::PUT],
        (
            "tokens" | "policies" | "roles" | "replication" | "auth-methods" | "binding-rules",
            "",
        ) => &[Method::GET],
        ("token" | "policy" | "role", "") => &[Method::PUT],
        ("token", "self") => &[Method::GET],
        ("token", of) if of.ends_with("/clone") => &[Method::PUT],
        ("policy" | "role", of) if of.starts_with("name/") => &[Method::GET],
        ("token" | "policy" | "role", _) => &[Method::GET, Method::PUT, Method::DELETE],
        ("login" | "logout" | "auth-method" | "binding-rule", _) => {
            return Err(Refusal::internal(
                "auth methods are not supported: make tokens with PUT /v1/acl/token",
            ));
        }
        _ => return call.unknown(),
    };
    if let Some(reply) = call.unless(allowed) {
        return Ok(reply);
    }
    let method = call.parts.method.clone();
    match (kind, argument, method) {
        ("bootstrap", ..) => bootstrap(call).await,
        ("replication", ..) => Ok(Reply::json(Content::Whole(call.styled(NOT_REPLICATING)))),
        ("token", "self", _) => own_token(call).await,
        (kind, argument, method) => {
            let who = call.who().await?;
            match kind {
                "token" | "tokens" => tokens(call, &who, kind, argument, &method).await,
                "policy" | "policies" => policies(call, kind, argument, &method).await,
                "role" | "roles" => roles(call, kind, argument, &method).await,
                _ => {
                    call.body().await?;
                    Ok(Reply::json(Content::Whole(Bytes::from_static(b"[]"))))
                }
            }
        }
    }
}

const NOT_REPLICATING: Bytes = Bytes::from_static(
    b"{\"Enabled\":false,\"Running\":false,\"SourceDatacenter\":\"\",\"ReplicationType\":\"\",\
      \"ReplicatedIndex\":0,\"ReplicatedRoleIndex\":0,\"ReplicatedTokenIndex\":0,\
      \"LastSuccess\":\"0001-01-01T00:00:00Z\",\"LastError\":\"0001-01-01T00:00:00Z\",\
      \"LastErrorMessage\":\"\"}",
);

/// How whoever asks sees tokens.
fn view(who: &Who) -> View {
    View {
        now_ns: now_ns(),
        hide_secrets: !who.may(Resource::Acl, b"", Access::Write),
    }
}

/// Refuses secrets to whom may no longer see them once they are there: an answer may have been
/// waited for.
async fn still_shown<G: Gateway>(call: &mut Call<'_, G>, hidden: bool) -> Result<(), Refusal> {
    let who = call.who().await?;
    match hidden {
        true => Ok(()),
        false => who.must(Resource::Acl, b"", Access::Write),
    }
}

/// All of a token, now.
fn whole() -> View {
    View {
        now_ns: now_ns(),
        hide_secrets: false,
    }
}

/// A document that was asked for, or the 404 of one that is not there.
async fn one<G: Gateway>(
    call: &mut Call<'_, G>,
    question: AclQuestion,
    missing: &'static str,
) -> Outcome<G> {
    let asked = Asked::parse(&call.params)?;
    let (meta, document) = call.ask(asked, question.into()).await?;
    let reply = match &document[..] {
        b"null" => Reply::refusal(Refusal::new(StatusCode::NOT_FOUND, missing)),
        _ => Reply::json(Content::Whole(call.styled(document))),
    };
    Ok(reply.meta(meta))
}

/// What was written, as it is now.
async fn written<G: Gateway>(call: &mut Call<'_, G>, question: AclQuestion) -> Outcome<G> {
    let (_, document) = call.ask(Asked::default(), question.into()).await?;
    match &document[..] {
        b"null" => Err(Refusal::internal(
            "it was deleted as soon as it was written",
        )),
        _ => Ok(Reply::json(Content::Whole(call.styled(document)))),
    }
}

/// `true`, or the 404 of what was not there.
async fn deleted<G: Gateway>(
    call: &mut Call<'_, G>,
    op: RecordOp,
    missing: &'static str,
) -> Outcome<G> {
    let written = call.write(&op, "").await?;
    match written.ok {
        true => {
            let style = call.inner.style(call.params.pretty);
            Ok(Reply::written(true, written.index.0, style))
        }
        false => Err(Refusal::new(StatusCode::NOT_FOUND, missing)),
    }
}

// ------------------------------------------------------------------------------------ bootstrap

async fn bootstrap<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let body = call.body().await?;
    let secret = wanted::bootstrap_secret(&body)?;
    let file = call.inner.info.data_dir.join(RESET_FILE);
    let reset_index = reset_index(&file);
    let question = Question::from(AclQuestion::Duties {
        now_ns: 0,
        initial_management: String::new(),
    });
    let now: Duties = ask(&call.inner.gateway, ReadMode::Default, &question).await?;
    let allowed = now.bootstrapped_index == 0 || reset_index != 0;
    if !allowed {
        let index = now.bootstrapped_index;
        let why = format!("ACL bootstrap no longer allowed (reset index: {index})");
        return Err(forbidden(format!("Permission denied: {why}")));
    }
    ready::wait(&call.inner.gateway, call.inner.info.hold).await?;
    let secret = match secret.is_empty() {
        true => random_uuid()?,
        false => secret,
    };
    let token = management_token(secret.clone(), "Bootstrap Token (Global Management)")?;
    let accessor = token.accessor_id.clone();
    let op = RecordOp::AclBootstrap(Bootstrap { token, reset_index });
    let refused = |refusal: Refusal| match refusal.text.contains("ACL bootstrap no longer allowed")
    {
        true => forbidden(format!("Permission denied: {}", refusal.text)),
        false => refusal,
    };
    call.write(&op, "").await.map_err(refused)?;
    if reset_index != 0
        && let Err(error) = std::fs::remove_file(&file)
    {
        log::warn!(target: "agent.acl", "cannot remove {}: {error}", file.display());
    }
    log::info!(target: "agent.acl", "ACL bootstrap completed");
    let view = whole();
    let question = AclQuestion::Token { accessor, view };
    let (_, document) = call.ask(Asked::default(), question.into()).await?;
    let Some(fields) = document.strip_prefix(b"{") else {
        return Err(Refusal::internal(
            "the token was deleted as soon as it was made",
        ));
    };
    let with_id = [format!("{{\"ID\":\"{secret}\",").as_bytes(), fields].concat();
    Ok(Reply::json(Content::Whole(call.styled(with_id.into()))))
}

/// The index that the file holds; 0 without a file that can be read.
fn reset_index(file: &Path) -> u64 {
    match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().unwrap_or_else(|_| {
            log::error!(target: "agent.acl", "{}: not an index: {text:?}", file.display());
            0
        }),
        Err(_) => 0,
    }
}

/// A token with all rights and this secret.
pub(super) fn management_token(secret: String, description: &str) -> Result<AclToken, Refusal> {
    Ok(AclToken {
        accessor_id: random_uuid()?,
        secret_id: secret,
        description: description.to_owned(),
        policies: vec![PolicyLink {
            id: GLOBAL_MANAGEMENT.id.to_owned(),
            name: String::new(),
        }],
        create_time: now_ns(),
        ..AclToken::default()
    })
}

// --------------------------------------------------------------------------------------- tokens

async fn own_token<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let secret = call.secret().into_owned();
    let view = whole();
    let question = AclQuestion::TokenSelf { secret, view };
    one(&mut call, question, "Supplied token does not exist").await
}

async fn tokens<G: Gateway>(
    mut call: Call<'_, G>,
    who: &Who,
    kind: &str,
    id: &str,
    method: &Method,
) -> Outcome<G> {
    if kind == "tokens" {
        let view = view(who);
        let hidden = view.hide_secrets;
        let param = |name: &str| call.params.get(name).unwrap_or_default().to_owned();
        let question = AclQuestion::Tokens {
            policy: param("policy"),
            role: param("role"),
            auth_method: param("authmethod"),
            service: param("servicename"),
            view,
        };
        let shown = call.read(question.into(), false).await?;
        still_shown(&mut call, hidden).await?;
        return Ok(shown);
    }
    if let Some(id) = id.strip_suffix("/clone") {
        return clone_token(call, id).await;
    }
    match *method {
        Method::PUT => {
            let body = call.body().await?;
            let now_ns = now_ns();
            let create = id.is_empty();
            let mut token = wanted::token(&body, create, now_ns)?;
            if !create && token.accessor_id.is_empty() {
                token.accessor_id = id.to_lowercase();
            }
            if !create && !token.accessor_id.eq_ignore_ascii_case(id) {
                return Err(Refusal::bad(
                    "Token Accessor ID in URL and payload do not match",
                ));
            }
            set_token(call, token, create, now_ns).await
        }
        Method::DELETE => {
            let view = whole();
            let accessor = id.to_owned();
            let question = Question::from(AclQuestion::Token { accessor, view });
            let held: Option<serde_json::Value> =
                ask(&call.inner.gateway, ReadMode::Default, &question).await?;
            let is_own = |held: serde_json::Value| held["SecretID"] == *who.secret();
            if held.is_some_and(is_own) {
                return Err(Refusal::internal(
                    "Deletion of the request's authorization token is not permitted",
                ));
            }
            let ids = vec![id.to_owned()];
            let op = RecordOp::AclTokenDelete(TokenDelete { ids });
            deleted(&mut call, op, "Cannot find token to delete").await
        }
        _ => {
            let accessor = id.to_owned();
            let view = view(who);
            let hidden = view.hide_secrets;
            let question = AclQuestion::Token { accessor, view };
            let missing = "Requested token does not exist: ACL not found";
            let shown = one(&mut call, question, missing).await?;
            still_shown(&mut call, hidden).await?;
            Ok(shown)
        }
    }
}

async fn set_token<G: Gateway>(
    mut call: Call<'_, G>,
    mut token: AclToken,
    create: bool,
    now_ns: u64,
) -> Outcome<G> {
    if create {
        for id in [&mut token.accessor_id, &mut token.secret_id] {
            if id.is_empty() {
                *id = random_uuid()?;
            }
        }
        token.create_time = now_ns;
    }
    let accessor = token.accessor_id.clone();
    let op = RecordOp::AclTokenSet(TokenSet {
        tokens: vec![token],
        create,
        cas: false,
        now_ns,
    });
    call.write(&op, "").await?;
    let view = whole();
    written(&mut call, AclQuestion::Token { accessor, view }).await
}

async fn clone_token<G: Gateway>(mut call: Call<'_, G>, id: &str) -> Outcome<G> {
    let body = call.body().await?;
    let given: serde_json::Value = match body.iter().all(u8::is_ascii_whitespace) {
        true => serde_json::Value::Null,
        false => serde_json::from_slice(&body)
            .map_err(|error| Refusal::bad(format!("Token decoding failed: {error}")))?,
    };
    let view = whole();
    let accessor = id.to_owned();
    let question = Question::from(AclQuestion::Token { accessor, view });
    let held: Option<serde_json::Map<String, serde_json::Value>> =
        ask(&call.inner.gateway, ReadMode::Default, &question).await?;
    let Some(mut copy) = held else {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "Requested token does not exist: ACL not found",
        ));
    };
    if copy.contains_key("AuthMethod") {
        return Err(Refusal::internal(
            "Cannot clone a token created from an auth method",
        ));
    }
    copy.remove("AccessorID");
    copy.remove("SecretID");
    let described = given["Description"]
        .as_str()
        .filter(|text| !text.is_empty());
    if let Some(description) = described {
        copy.insert("Description".to_owned(), description.into());
    }
    let copy = serde_json::Value::Object(copy).to_string();
    let now_ns = now_ns();
    let token = wanted::token(copy.as_bytes(), true, now_ns)?;
    set_token(call, token, true, now_ns).await
}

// ------------------------------------------------------------------------------------- policies

async fn policies<G: Gateway>(
    mut call: Call<'_, G>,
    kind: &str,
    id: &str,
    method: &Method,
) -> Outcome<G> {
    let missing = "Requested policy does not exist: ACL not found";
    if kind == "policies" {
        return call.read(AclQuestion::Policies.into(), false).await;
    }
    if let Some(name) = id.strip_prefix("name/") {
        let name = name.to_owned();
        return one(&mut call, AclQuestion::PolicyByName { name }, missing).await;
    }
    let id = id.to_lowercase();
    match *method {
        Method::PUT => {
            let body = call.body().await?;
            let mut policy = wanted::policy(&body)?;
            let create = id.is_empty();
            if create && !policy.id.is_empty() {
                return Err(Refusal::bad(
                    "Cannot specify the ID when creating a new policy",
                ));
            }
            if !create && !policy.id.is_empty() && policy.id != id {
                return Err(Refusal::bad("Policy ID in URL and payload do not match"));
            }
            policy.id = if create { random_uuid()? } else { id };
            let id = policy.id.clone();
            let policies = vec![policy];
            let op = RecordOp::AclPolicySet(PolicySet { policies, create });
            call.write(&op, "").await?;
            written(&mut call, AclQuestion::Policy { id }).await
        }
        Method::DELETE => {
            let op = RecordOp::AclPolicyDelete(PolicyDelete { ids: vec![id] });
            deleted(&mut call, op, "Cannot find policy to delete").await
        }
        _ => one(&mut call, AclQuestion::Policy { id }, missing).await,
    }
}

// ---------------------------------------------------------------------------------------- roles

async fn roles<G: Gateway>(
    mut call: Call<'_, G>,
    kind: &str,
    id: &str,
    method: &Method,
) -> Outcome<G> {
    let missing = "Requested role does not exist: ACL not found";
    if kind == "roles" {
        let policy = call.params.get("policy").unwrap_or_default().to_owned();
        return call.read(AclQuestion::Roles { policy }.into(), false).await;
    }
    if let Some(name) = id.strip_prefix("name/") {
        let name = name.to_owned();
        return one(&mut call, AclQuestion::RoleByName { name }, missing).await;
    }
    let id = id.to_lowercase();
    match *method {
        Method::PUT => {
            let body = call.body().await?;
            let mut role = wanted::role(&body)?;
            let create = id.is_empty();
            if !role.id.is_empty() && role.id != id {
                return Err(Refusal::bad("Role ID in URL and payload do not match"));
            }
            role.id = if create { random_uuid()? } else { id };
            let id = role.id.clone();
            let roles = vec![role];
            let op = RecordOp::AclRoleSet(RoleSet { roles, create });
            call.write(&op, "").await?;
            written(&mut call, AclQuestion::Role { id }).await
        }
        Method::DELETE => {
            let op = RecordOp::AclRoleDelete(RoleDelete { ids: vec![id] });
            deleted(&mut call, op, "Cannot find role to delete").await
        }
        _ => one(&mut call, AclQuestion::Role { id }, missing).await,
    }
}

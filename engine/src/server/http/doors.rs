//! What may a fuzzer reach of the HTTP layer?
//!
//! Only with the feature `fuzzing`. The functions that turn a client's bytes into meaning, each in
//! public types alone; a refusal is its text.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use super::{
    acl::{self, Body, wanted},
    catalog::{DeregisterBody, RegisterBody},
    config,
    events::Place,
    failure::Refusal,
    json::{self, Style},
    loose::Loose,
    pages::Page,
    params::Params,
    path::{self, Route},
    reads::Asked,
    sessions, txn,
    watch::Begin,
};
use crate::{
    documents::CatalogQuestion,
    fsm::{
        acl::{PolicySet, RoleSet, TokenSet},
        catalog::{self, CoordinatesRequest, DeregisterRequest},
        config::{ConfigRequest, ConfigVerb},
        records::RecordOp,
        sessions::{SessionRequest, SessionVerb},
    },
    server::agent::local::{CheckDefinition, ServiceDefinition},
    state::records::Coordinate,
};

/// What was wrong with a request.
pub type Refused = String;

fn told(refusal: Refusal) -> Refused {
    refusal.text.into_owned()
}

/// Where a client is sent that asks for this path, if it is sent anywhere.
pub fn moved(path: &str) -> Option<String> {
    match path::parse(path) {
        Route::Moved(to) => Some(to),
        _ => None,
    }
}

/// What a token must have for this method and path, in words; of keys and transactions their
/// handlers know.
pub fn need(method: &Method, path: &str) -> String {
    match path::parse(path) {
        Route::Family(family, rest) => format!("{:?}", acl::need_of(method, family, &rest, "n1")),
        Route::Fixed(endpoint) => format!("{:?}", acl::need_of_fixed(endpoint, "n1")),
        other => format!("{other:?}"),
    }
}

/// Reads a query string in every way in which an endpoint does.
///
/// # Errors
/// The first refusal.
pub fn query(query: &str, prefix: &[u8]) -> Result<(), Refused> {
    let params = Params::parse(Some(query), "dc1").map_err(told)?;
    let given = [params.recurse, params.keys, params.raw];
    params.exclusive(&given).map_err(told)?;
    Asked::parse(&params).map_err(told)?;
    Page::parse(&params, prefix).map_err(told)?;
    Ok(())
}

/// Where a watch begins that is asked for so, in words.
///
/// # Errors
/// A refusal.
pub fn watch_begins(query: &str, last_event_id: &[u8]) -> Result<String, Refused> {
    let params = Params::parse(Some(query), "dc1").map_err(told)?;
    let mut headers = HeaderMap::new();
    if let Ok(id) = HeaderValue::from_bytes(last_event_id) {
        headers.insert("last-event-id", id);
    }
    let begin = Begin::parse(&params, &headers).map_err(told)?;
    Ok(format!("{begin:?}"))
}

/// The id of an event, as it is written, of what this text names.
pub fn event_id(text: &str) -> Option<String> {
    Place::parse(text).map(|place| place.to_string())
}

/// A compact document, indented.
pub fn indented(compact: Bytes) -> Bytes {
    json::styled(compact, Style::Pretty)
}

/// A text as it is written in a listing.
pub fn json_text(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    json::string(&mut out, text);
    out
}

/// A body that names things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after their endpoints")]
pub enum Endpoint {
    CatalogRegister,
    CatalogDeregister,
    AgentService,
    AgentCheck,
    Session,
    Config,
    Coordinate,
    Txn,
    AclToken,
    AclPolicy,
    AclRole,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::CatalogRegister,
        Self::CatalogDeregister,
        Self::AgentService,
        Self::AgentCheck,
        Self::Session,
        Self::Config,
        Self::Coordinate,
        Self::Txn,
        Self::AclToken,
        Self::AclPolicy,
        Self::AclRole,
    ];

    fn body(self) -> Option<Body> {
        Some(match self {
            Self::CatalogRegister => Body::Register,
            Self::CatalogDeregister => Body::Deregister,
            Self::AgentService => Body::OwnService,
            Self::AgentCheck => Body::OwnCheck,
            Self::Session => Body::Session,
            Self::Config => Body::ConfigEntry,
            Self::Coordinate => Body::Coordinate,
            Self::Txn | Self::AclToken | Self::AclPolicy | Self::AclRole => return None,
        })
    }
}

/// What a request's body comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The command that is proposed; none for what the agent keeps.
    pub command: Option<Bytes>,
    /// The names that decide whether it may, as its handler reads them.
    pub names: Vec<String>,
}

/// Reads a body as its endpoint's handler does.
///
/// # Errors
/// A refusal.
pub fn read(endpoint: Endpoint, body: &[u8]) -> Result<Read, Refused> {
    let decode = |error: serde_json::Error| error.to_string();
    let proposed = |op: RecordOp, names: Vec<String>| Read {
        command: Some(op.encode()),
        names,
    };
    Ok(match endpoint {
        Endpoint::CatalogRegister => {
            let Loose(body) =
                serde_json::from_slice::<Loose<RegisterBody>>(body).map_err(decode)?;
            let request = body.request();
            catalog::check(&request)?;
            let mut names = vec![request.node.clone(), request.skip_node_update.to_string()];
            if let Some(service) = &request.service {
                names.extend([service.service.clone(), service.id.clone()]);
            }
            let checks = request.check.iter().chain(&request.checks);
            names.extend(checks.map(|check| check.service_id.clone()));
            proposed(RecordOp::Register(request), names)
        }
        Endpoint::CatalogDeregister => {
            let Loose(body) =
                serde_json::from_slice::<Loose<DeregisterBody>>(body).map_err(decode)?;
            let request = DeregisterRequest {
                node: body.node,
                service_id: body.serviceid,
                check_id: body.checkid,
            };
            let names = [&request.node, &request.service_id, &request.check_id];
            let names = names.map(String::clone).into();
            proposed(RecordOp::Deregister(request), names)
        }
        Endpoint::AgentService => {
            let service = ServiceDefinition::from_json(body).map_err(|error| error.to_string())?;
            Read {
                command: None,
                names: vec![service.name, service.id],
            }
        }
        Endpoint::AgentCheck => {
            let check = CheckDefinition::from_json(body).map_err(|error| error.to_string())?;
            Read {
                command: None,
                names: vec![check.id, check.service_id],
            }
        }
        Endpoint::Session => {
            let mut session = sessions::parse(body).map_err(told)?;
            let names = vec![session.node.clone()];
            let ttl_min = std::time::Duration::from_secs(10);
            sessions::validate(&mut session, ttl_min).map_err(told)?;
            session.id = "11111111-2222-3333-4444-555555555555".into();
            let op = SessionVerb::Create;
            proposed(RecordOp::Session(SessionRequest { op, session }), names)
        }
        Endpoint::Config => {
            let entry = config::parse(body).map_err(told)?;
            let names = vec![acl::config_entry(&entry.kind, &entry.name)];
            let op = ConfigVerb::Upsert;
            proposed(RecordOp::ConfigEntry(ConfigRequest { op, entry }), names)
        }
        Endpoint::Coordinate => {
            let update: Coordinate = serde_json::from_slice(body).map_err(decode)?;
            let names = vec![update.node.clone()];
            let updates = vec![update];
            proposed(RecordOp::Coordinates(CoordinatesRequest { updates }), names)
        }
        Endpoint::Txn => Read {
            command: Some(txn::command(body)?),
            names: Vec::new(),
        },
        Endpoint::AclToken => {
            let mut token = wanted::token(body, true, 1 << 60).map_err(told)?;
            if token.accessor_id.is_empty() {
                token.accessor_id = "11111111-2222-3333-4444-555555555555".into();
            }
            let set = TokenSet {
                tokens: vec![token],
                create: true,
                ..TokenSet::default()
            };
            proposed(RecordOp::AclTokenSet(set), Vec::new())
        }
        Endpoint::AclPolicy => {
            let policies = vec![wanted::policy(body).map_err(told)?];
            let create = true;
            let set = PolicySet { policies, create };
            proposed(RecordOp::AclPolicySet(set), Vec::new())
        }
        Endpoint::AclRole => {
            let roles = vec![wanted::role(body).map_err(told)?];
            let create = true;
            let set = RoleSet { roles, create };
            proposed(RecordOp::AclRoleSet(set), Vec::new())
        }
    })
}

/// The names in a body by which the request is judged with ACLs on; `None` where no body is.
///
/// # Errors
/// A refusal.
pub fn judged_by(endpoint: Endpoint, body: &[u8]) -> Option<Result<Vec<String>, Refused>> {
    Some(acl::names_of_body(endpoint.body()?, body).map_err(told))
}

/// Whether a question that was asked over HTTP may be put to a shard.
pub fn may_be_asked(question: &CatalogQuestion) -> bool {
    question.check().is_ok()
}

//! What may be asked of the agent, and what does it answer?
//!
//! Requests come parsed from an HTTP handler, on whichever executor that runs; answers go back as
//! documents. What a request does is decided by [`answer`], which needs nothing but what is
//! registered and the time.

use bytes::Bytes;
use serde::Serialize;

use super::{
    events::{Events, UserEvent},
    local::{
        AgentError, CheckDefinition, CheckRow, Local, Origin, ServiceDefinition, ServiceHealth,
        ServiceRow, Status, worst,
    },
    tokens::TokenKind,
};
use crate::server::config::acl::Secret;

/// One request.
#[derive(Clone, Debug)]
pub enum AgentRequest {
    /// All services, by id.
    Services,
    /// One service. With a hash, its answer waits until it has another one, or so long.
    Service {
        /// Its id.
        id: String,
        /// `?hash=`; empty for none.
        hash: String,
        /// Longest wait, ms.
        wait_ms: u32,
    },
    /// All checks, by id.
    Checks,
    /// How a service is doing.
    HealthOf {
        /// Its id.
        id: String,
    },
    /// How all services of a name are doing.
    HealthNamed {
        /// The name.
        name: String,
    },
    /// Registers a service.
    RegisterService {
        /// What is registered.
        definition: Box<ServiceDefinition>,
        /// Whether its checks that are not named again go.
        replace: bool,
    },
    /// Takes out a service.
    DeregisterService {
        /// Its id.
        id: String,
    },
    /// Turns maintenance of a service on or off.
    MaintainService {
        /// Its id.
        id: String,
        /// On or off.
        on: bool,
        /// Why; empty for a default text.
        reason: String,
    },
    /// Turns maintenance of the node on or off.
    MaintainNode {
        /// On or off.
        on: bool,
        /// Why; empty for a default text.
        reason: String,
    },
    /// Registers a check.
    RegisterCheck {
        /// What is registered.
        definition: Box<CheckDefinition>,
    },
    /// Takes out a check.
    DeregisterCheck {
        /// Its id.
        id: String,
    },
    /// Tells a TTL check its status.
    UpdateCheck {
        /// Its id.
        id: String,
        /// How it is doing.
        status: Status,
        /// What there is to say of that.
        output: String,
    },
    /// How much is registered.
    Counts,
    /// Has the server use another token itself.
    SetToken {
        /// What it is for.
        kind: TokenKind,
        /// Empty: none.
        secret: Secret,
    },
    /// Fires a user event, here and on the servers that can be reached.
    Fire {
        /// The event, without its time.
        event: Box<UserEvent>,
    },
    /// The last user events, once their index is another one than this, or so long after.
    Events {
        /// Of this name; empty for all.
        name: String,
        /// 0 for at once.
        index: u64,
        /// Longest wait, ms.
        wait_ms: u32,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentReply {
    /// It is done, and where it must be, on disk.
    Done,
    /// A document.
    Document {
        /// 200, or what a health endpoint says by its status.
        status: u16,
        /// Compact JSON.
        json: Bytes,
        /// What a health endpoint says in words, for who wants plain text.
        word: String,
        /// `X-Consul-ContentHash`; empty for none.
        hash: String,
    },
    /// User events.
    Events {
        /// `X-Consul-Index`: not a number that grows.
        index: u64,
        /// Compact JSON.
        json: Bytes,
    },
    /// The service of a reading request is not here.
    NoService(String),
    /// It was not done.
    Refused(AgentError),
    /// It was done, but would be forgotten by a restart.
    NotKept(String),
    /// A token could not be kept, and was not changed.
    TokenNotKept(String),
    /// There is nobody to answer.
    Gone,
}

impl AgentReply {
    fn document(status: u16, document: &impl Serialize, word: &str) -> Self {
        let json = serde_json::to_vec(document).expect("plain data into memory");
        Self::Document {
            status,
            json: json.into(),
            word: word.to_owned(),
            hash: String::new(),
        }
    }
}

/// Services and checks of an agent, for `/v1/agent/self`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Counts {
    services: usize,
    checks: usize,
    ttls: usize,
    monitors: usize,
}

/// Events of a name, and their index.
pub fn events_heard(events: &Events, name: &str) -> AgentReply {
    let (index, events) = events.listing(name);
    let json = serde_json::to_vec(&events).expect("plain data into memory");
    AgentReply::Events {
        index,
        json: json.into(),
    }
}

/// Carries out a request at `now_ms`.
pub fn answer(
    local: &mut Local,
    events: &mut Events,
    now_ms: u64,
    datacenter: &str,
    request: AgentRequest,
) -> AgentReply {
    use AgentRequest as Ask;
    let done = match request {
        Ask::Services | Ask::Checks | Ask::Counts => return listing(local, datacenter, &request),
        Ask::Service { id, .. } => {
            let Some(service) = local.services().get(&id) else {
                return AgentReply::NoService(id);
            };
            let (row, hash) = ServiceRow::new(service, datacenter).hashed();
            let json = serde_json::to_vec(&row).expect("plain data into memory");
            return AgentReply::Document {
                status: 200,
                json: json.into(),
                word: String::new(),
                hash,
            };
        }
        Ask::Events { name, .. } => return events_heard(events, &name),
        // Not of what is registered: the agent does it itself.
        Ask::SetToken { .. } => return AgentReply::Done,
        Ask::Fire { event } => {
            if event.concerns(local) {
                events.heard(*event);
            }
            return AgentReply::Done;
        }
        Ask::HealthOf { id } => return health_of(local, datacenter, &id),
        Ask::HealthNamed { name } => return health_named(local, datacenter, &name),
        Ask::RegisterService {
            definition,
            replace,
        } => local.register_service(now_ms, *definition, Origin::Client, replace),
        Ask::DeregisterService { id } => local.deregister_service(&id),
        Ask::MaintainService { id, on, reason } => local.maintain_service(now_ms, &id, on, &reason),
        Ask::MaintainNode { on, reason } => local.maintain_node(now_ms, on, &reason),
        Ask::RegisterCheck { definition } => {
            local.register_check(now_ms, *definition, Origin::Client)
        }
        Ask::DeregisterCheck { id } => local.deregister_check(&id),
        Ask::UpdateCheck { id, status, output } => local.update_ttl(now_ms, &id, status, &output),
    };
    match done {
        Ok(()) => AgentReply::Done,
        Err(error) => AgentReply::Refused(error),
    }
}

fn listing(local: &Local, datacenter: &str, request: &AgentRequest) -> AgentReply {
    use std::collections::BTreeMap;
    match request {
        AgentRequest::Services => {
            let rows: BTreeMap<_, _> = local
                .services()
                .iter()
                .map(|(id, service)| (id, ServiceRow::new(service, datacenter)))
                .collect();
            AgentReply::document(200, &rows, "")
        }
        AgentRequest::Checks => {
            let rows: BTreeMap<_, _> = local
                .checks()
                .iter()
                .map(|(id, check)| (id, CheckRow::new(check, local.node())))
                .collect();
            AgentReply::document(200, &rows, "")
        }
        _ => {
            let checks = local.checks().values();
            let ttl = |kind: &str| kind == "ttl";
            let runs = |kind: &str| matches!(kind, "http" | "tcp");
            let kinds: Vec<&str> = checks.map(|check| check.definition.kind.name()).collect();
            let counts = Counts {
                services: local.services().len(),
                checks: kinds.len(),
                ttls: kinds.iter().filter(|kind| ttl(kind)).count(),
                monitors: kinds.iter().filter(|kind| runs(kind)).count(),
            };
            AgentReply::document(200, &counts, "")
        }
    }
}

fn health_of(local: &Local, datacenter: &str, id: &str) -> AgentReply {
    match local.services().get(id) {
        Some(service) => {
            let health = ServiceHealth::of(local, service, datacenter);
            AgentReply::document(health.code(), &health, health.aggregated_status)
        }
        None => {
            let word = format!("ServiceId {id} not found");
            AgentReply::document(404, &ServiceHealth::missing(), &word)
        }
    }
}

fn health_named(local: &Local, datacenter: &str, name: &str) -> AgentReply {
    let healths: Vec<ServiceHealth<'_>> = local
        .services()
        .values()
        .filter(|service| service.definition.name == name)
        .map(|service| ServiceHealth::of(local, service, datacenter))
        .collect();
    match worst(&healths) {
        Some((code, word)) => AgentReply::document(code, &healths, word),
        None => {
            let word = format!("ServiceName {name} Not Found");
            AgentReply::document(404, &healths, &word)
        }
    }
}

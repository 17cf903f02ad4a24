//! What does a request need, as far as its path tells?
//!
//! One line for each endpoint, after Consul's documentation of it. What is not here is the
//! operator's: an endpoint that somebody forgets to enter is shut, not open.
//!
//! Asked with the parts of the parsed [`Route`] that its handler gets, never with a path: a path can
//! be spelt in many ways (`/v%31/…`), and one that is read twice can be read as two things. Of the
//! other routes keys and transactions are judged by their handlers, key by key and operation by
//! operation; `/` says "curia agent" to everyone; what names nothing says so to everyone.
//!
//! [`Route`]: super::super::path::Route

use std::borrow::Cow;

use http::Method;

use super::{
    super::{call::Family, path::Endpoint},
    sieve::Sieve,
};
use crate::acl::{Access, Resource};

/// What a request needs.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Need<'p> {
    /// Nothing, or its handler asks by itself.
    Nothing,
    /// This.
    Of(Resource, Cow<'p, str>, Access),
    /// Nothing, but what may not be seen is left out of the answer.
    Sieve(Sieve),
    /// What its body is about.
    Body(Body),
    /// To change the sessions of the node that this one belongs to.
    Session(&'p str),
    /// So much of this service, by its id, on this server's node.
    OwnService(&'p str, Access),
    /// To change what this check of this server's node is about.
    OwnCheck(&'p str),
    /// To change this prepared query; and what the body makes of it.
    Query(&'p str),
}

/// What a body is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Body {
    /// `/v1/catalog/register`.
    Register,
    /// `/v1/catalog/deregister`.
    Deregister,
    /// `/v1/agent/service/register`.
    OwnService,
    /// `/v1/agent/check/register`.
    OwnCheck,
    /// `/v1/session/create`.
    Session,
    /// `/v1/config`.
    ConfigEntry,
    /// `/v1/query`.
    Query,
    /// `/v1/coordinate/update`.
    Coordinate,
}

fn of_name<'p>(resource: Resource, name: &'p str, access: Access) -> Need<'p> {
    Need::Of(resource, Cow::Borrowed(name), access)
}

/// What a request to a family of endpoints needs; `rest` is what follows the family's name, decoded,
/// `node` this server's.
pub(in super::super) fn of<'p>(
    method: &Method,
    family: Family,
    rest: &'p str,
    node: &'p str,
) -> Need<'p> {
    // Answered with the names of the methods, and nothing else.
    if *method == Method::OPTIONS {
        return Need::Nothing;
    }
    match family {
        Family::Acl => acl(method, rest),
        Family::Agent => agent(rest, node),
        Family::Catalog => catalog(rest),
        Family::Config => config(method, rest),
        Family::Coordinate => coordinate(rest),
        Family::Event => event(rest),
        Family::Health => health(rest),
        Family::Query => query(method, rest),
        Family::Session => session(rest),
        Family::Usage => of_name(Resource::Operator, "", Access::Read),
    }
}

/// What a request to an endpoint without a variable part needs.
pub(in super::super) fn of_fixed(endpoint: Endpoint, node: &str) -> Need<'_> {
    match endpoint {
        Endpoint::Reload => of_name(Resource::Agent, node, Access::Write),
        Endpoint::StatusLeader | Endpoint::StatusPeers => Need::Nothing,
        Endpoint::RaftConfiguration => of_name(Resource::Operator, "", Access::Read),
    }
}

fn unlisted() -> Need<'static> {
    of_name(Resource::Operator, "", Access::Write)
}

fn acl(method: &Method, rest: &str) -> Need<'static> {
    let (what, _) = rest.split_once('/').unwrap_or((rest, ""));
    match what {
        // One's own: to know its secret is the right.
        "token" if rest == "token/self" => Need::Nothing,
        "tokens" | "token" | "policies" | "policy" | "roles" | "role" | "auth-methods"
        | "binding-rules" => of_name(Resource::Acl, "", by_method(method)),
        // It works once; the others say the same to everyone, and nothing of anyone.
        "bootstrap" | "replication" | "login" | "logout" | "auth-method" | "binding-rule" => {
            Need::Nothing
        }
        _ => unlisted(),
    }
}

fn by_method(method: &Method) -> Access {
    match *method {
        Method::GET => Access::Read,
        _ => Access::Write,
    }
}

fn agent<'p>(rest: &'p str, node: &'p str) -> Need<'p> {
    let (what, argument) = rest.split_once('/').unwrap_or((rest, ""));
    match what {
        "self" | "version" | "metrics" | "monitor" => of_name(Resource::Agent, node, Access::Read),
        "host" => of_name(Resource::Operator, "", Access::Read),
        "join" | "leave" | "token" => of_name(Resource::Agent, node, Access::Write),
        "force-leave" => of_name(Resource::Operator, "", Access::Write),
        "maintenance" => of_name(Resource::Node, node, Access::Write),
        "members" => Need::Sieve(Sieve::Members),
        "services" => Need::Sieve(Sieve::OwnServices),
        "checks" => Need::Sieve(Sieve::OwnChecks),
        "health" => match argument.split_once('/') {
            Some(("service", rest)) => match rest.split_once('/') {
                Some(("name", name)) => of_name(Resource::Service, name, Access::Read),
                Some(("id", id)) => Need::OwnService(id, Access::Read),
                _ => unlisted(),
            },
            _ => unlisted(),
        },
        "service" => match argument.split_once('/').unwrap_or((argument, "")) {
            ("register", "") => Need::Body(Body::OwnService),
            ("deregister" | "maintenance", id) => Need::OwnService(id, Access::Write),
            _ => Need::Sieve(Sieve::OwnService),
        },
        "check" => match argument.split_once('/').unwrap_or((argument, "")) {
            ("register", "") => Need::Body(Body::OwnCheck),
            ("deregister" | "pass" | "warn" | "fail" | "update", id) => Need::OwnCheck(id),
            _ => unlisted(),
        },
        _ => unlisted(),
    }
}

fn catalog(rest: &str) -> Need<'_> {
    let (what, _) = rest.split_once('/').unwrap_or((rest, ""));
    match what {
        "datacenters" => Need::Nothing,
        "register" => Need::Body(Body::Register),
        "deregister" => Need::Body(Body::Deregister),
        "nodes" => Need::Sieve(Sieve::Nodes),
        "services" => Need::Sieve(Sieve::ServiceNames),
        "service" | "connect" => Need::Sieve(Sieve::ServiceRows),
        "node" => Need::Sieve(Sieve::NodeServices),
        "node-services" => Need::Sieve(Sieve::NodeServiceList),
        _ => unlisted(),
    }
}

fn health(rest: &str) -> Need<'_> {
    let (what, _) = rest.split_once('/').unwrap_or((rest, ""));
    match what {
        "node" | "checks" | "state" => Need::Sieve(Sieve::Checks),
        "service" | "connect" | "ingress" => Need::Sieve(Sieve::CheckedServices),
        _ => unlisted(),
    }
}

fn session(rest: &str) -> Need<'_> {
    match rest.split_once('/').unwrap_or((rest, "")) {
        ("create", _) => Need::Body(Body::Session),
        ("destroy" | "renew", id) => Need::Session(id),
        ("info" | "list" | "node", _) => Need::Sieve(Sieve::Sessions),
        _ => unlisted(),
    }
}

fn coordinate(rest: &str) -> Need<'_> {
    match rest.split_once('/').unwrap_or((rest, "")) {
        ("datacenters", _) => Need::Nothing,
        ("nodes", _) => Need::Sieve(Sieve::Nodes),
        ("node", name) => of_name(Resource::Node, name, Access::Read),
        ("update", _) => Need::Body(Body::Coordinate),
        _ => unlisted(),
    }
}

fn event(rest: &str) -> Need<'_> {
    match rest.split_once('/').unwrap_or((rest, "")) {
        ("fire", name) => of_name(Resource::Event, name, Access::Write),
        ("list", _) => Need::Sieve(Sieve::Events),
        _ => unlisted(),
    }
}

fn query<'p>(method: &Method, rest: &'p str) -> Need<'p> {
    match (method, rest) {
        (&Method::POST, "") => Need::Body(Body::Query),
        (&Method::PUT | &Method::DELETE, id) if !id.is_empty() => Need::Query(id),
        // What may be seen depends on the query that is found.
        (&Method::GET, _) => Need::Nothing,
        _ => unlisted(),
    }
}

fn config<'p>(method: &Method, rest: &'p str) -> Need<'p> {
    if rest.is_empty() {
        return Need::Body(Body::ConfigEntry);
    }
    let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
    match (method, name) {
        (&Method::GET, "") => Need::Sieve(Sieve::ConfigEntries),
        (&Method::GET, name) => config_entry(kind, name, Access::Read),
        (_, name) => config_entry(kind, name, Access::Write),
    }
}

/// What it takes to see or change a config entry.
pub(super) fn config_entry<'p>(kind: &str, name: &'p str, access: Access) -> Need<'p> {
    match (kind, access) {
        ("service-defaults" | "service-resolver" | "service-router" | "service-splitter", _) => {
            of_name(Resource::Service, name, access)
        }
        ("ingress-gateway" | "terminating-gateway" | "api-gateway", Access::Read) => {
            of_name(Resource::Service, name, access)
        }
        ("service-intentions", _) => of_name(Resource::Intention, name, access),
        ("proxy-defaults" | "mesh", Access::Read) => Need::Nothing,
        (
            "proxy-defaults"
            | "mesh"
            | "ingress-gateway"
            | "terminating-gateway"
            | "api-gateway"
            | "exported-services"
            | "jwt-provider"
            | "sameness-group",
            _,
        ) => of_name(Resource::Mesh, "", access),
        _ => of_name(Resource::Operator, "", access),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::path::{self, Route},
        *,
    };

    /// What this path needs, by the route that it leads to.
    fn need(method: Method, path: &str) -> Need<'static> {
        match path::parse(path) {
            Route::Family(family, rest) => of(&method, family, rest.leak(), "n1"),
            Route::Fixed(endpoint) => of_fixed(endpoint, "n1"),
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn what_nobody_has_entered_is_the_operators() {
        for path in [
            "/v1/acl/made-up",
            "/v1/agent/made-up",
            "/v1/catalog/made-up",
            "/v1/health/made-up",
            "/v1/session/made-up",
            "/v1/coordinate/made-up",
            "/v1/event/made-up",
            "/v1/agent/health/made-up",
            "/v1/agent/check/made-up",
        ] {
            assert_eq!(need(Method::GET, path), unlisted(), "{path}");
        }
    }

    #[test]
    fn the_table_says_what_consul_documents() {
        for (method, path, expected) in [
            (Method::GET, "/v1/status/leader", Need::Nothing),
            (Method::GET, "/v1/acl/token/self", Need::Nothing),
            (
                Method::GET,
                "/v1/acl/token/x",
                of_name(Resource::Acl, "", Access::Read),
            ),
            (
                Method::PUT,
                "/v1/acl/token",
                of_name(Resource::Acl, "", Access::Write),
            ),
            (
                Method::GET,
                "/v1/agent/self",
                of_name(Resource::Agent, "n1", Access::Read),
            ),
            (
                Method::PUT,
                "/v1/agent/reload",
                of_name(Resource::Agent, "n1", Access::Write),
            ),
            (
                Method::GET,
                "/v1/agent/health/service/name/web",
                of_name(Resource::Service, "web", Access::Read),
            ),
            (
                Method::PUT,
                "/v1/agent/service/deregister/web/1",
                Need::OwnService("web/1", Access::Write),
            ),
            (
                Method::PUT,
                "/v1/agent/check/pass/service:web",
                Need::OwnCheck("service:web"),
            ),
            (Method::PUT, "/v1/session/destroy/x", Need::Session("x")),
            (
                Method::GET,
                "/v1/coordinate/node/n2",
                of_name(Resource::Node, "n2", Access::Read),
            ),
            (
                Method::PUT,
                "/v1/event/fire/deploy",
                of_name(Resource::Event, "deploy", Access::Write),
            ),
            (
                Method::GET,
                "/v1/operator/raft/configuration",
                of_name(Resource::Operator, "", Access::Read),
            ),
            (
                Method::DELETE,
                "/v1/config/service-defaults/web",
                of_name(Resource::Service, "web", Access::Write),
            ),
            (
                Method::GET,
                "/v1/config/proxy-defaults/global",
                Need::Nothing,
            ),
            (
                Method::DELETE,
                "/v1/config/proxy-defaults/global",
                of_name(Resource::Mesh, "", Access::Write),
            ),
        ] {
            assert_eq!(need(method, path), expected, "{path}");
        }
    }
}

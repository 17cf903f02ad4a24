//! Which routes are served, and with which methods?
//!
//! The table of contents of the HTTP API. A request to a family of endpoints is answered only if its
//! route is here (`methods_of` is asked before the family's module), so that nothing is served that
//! the table does not show; the tests hold their own table of what each route does, and to whom,
//! against this one.
//!
//! `{name}` stands for one segment; at the end for all that follows, which may be nothing: the
//! handler says what is missing. Of several that match, the first counts.

use http::Method;

use super::call::Family;

/// A route.
#[derive(Debug)]
pub struct Served {
    /// Its path, with `{names}` for what varies.
    pub pattern: &'static str,
    /// Its methods.
    pub methods: &'static [Method],
}

const GET: &[Method] = &[Method::GET];
const PUT: &[Method] = &[Method::PUT];
const POST: &[Method] = &[Method::POST];
const KEY: &[Method] = &[Method::GET, Method::PUT, Method::DELETE];
const GET_POST: &[Method] = &[Method::GET, Method::POST];
const GET_DELETE: &[Method] = &[Method::GET, Method::DELETE];

const fn at(pattern: &'static str, methods: &'static [Method]) -> Served {
    Served { pattern, methods }
}

/// Every route that is served.
pub static ROUTES: &[Served] = &[
    at("/", GET),
    at("/v1/acl/auth-method", PUT),
    at("/v1/acl/auth-method/{name}", KEY),
    at("/v1/acl/auth-methods", GET),
    at("/v1/acl/binding-rule", PUT),
    at("/v1/acl/binding-rule/{id}", KEY),
    at("/v1/acl/binding-rules", GET),
    at("/v1/acl/bootstrap", PUT),
    at("/v1/acl/login", POST),
    at("/v1/acl/logout", POST),
    at("/v1/acl/policies", GET),
    at("/v1/acl/policy", PUT),
    at("/v1/acl/policy/name/{name}", GET),
    at("/v1/acl/policy/{id}", KEY),
    at("/v1/acl/replication", GET),
    at("/v1/acl/role", PUT),
    at("/v1/acl/role/name/{name}", GET),
    at("/v1/acl/role/{id}", KEY),
    at("/v1/acl/roles", GET),
    at("/v1/acl/token", PUT),
    at("/v1/acl/token/self", GET),
    at("/v1/acl/token/{id}/clone", PUT),
    at("/v1/acl/token/{id}", KEY),
    at("/v1/acl/tokens", GET),
    at("/v1/agent/check/deregister/{id}", PUT),
    at("/v1/agent/check/fail/{id}", PUT),
    at("/v1/agent/check/pass/{id}", PUT),
    at("/v1/agent/check/register", PUT),
    at("/v1/agent/check/update/{id}", PUT),
    at("/v1/agent/check/warn/{id}", PUT),
    at("/v1/agent/checks", GET),
    at("/v1/agent/force-leave/{node}", PUT),
    at("/v1/agent/health/service/id/{id}", GET),
    at("/v1/agent/health/service/name/{name}", GET),
    at("/v1/agent/host", GET),
    at("/v1/agent/join/{address}", PUT),
    at("/v1/agent/leave", PUT),
    at("/v1/agent/maintenance", PUT),
    at("/v1/agent/members", GET),
    at("/v1/agent/metrics", GET),
    at("/v1/agent/metrics/stream", GET),
    at("/v1/agent/monitor", GET),
    at("/v1/agent/reload", PUT),
    at("/v1/agent/self", GET),
    at("/v1/agent/service/deregister/{id}", PUT),
    at("/v1/agent/service/maintenance/{id}", PUT),
    at("/v1/agent/service/register", PUT),
    at("/v1/agent/service/{id}", GET),
    at("/v1/agent/services", GET),
    at("/v1/agent/token/{kind}", PUT),
    at("/v1/agent/version", GET),
    at("/v1/catalog/connect/{service}", GET),
    at("/v1/catalog/datacenters", GET),
    at("/v1/catalog/deregister", PUT),
    at("/v1/catalog/node-services/{node}", GET),
    at("/v1/catalog/node/{node}", GET),
    at("/v1/catalog/nodes", GET),
    at("/v1/catalog/register", PUT),
    at("/v1/catalog/service/{service}", GET),
    at("/v1/catalog/services", GET),
    at("/v1/config", PUT),
    at("/v1/config/{kind}", GET_DELETE),
    at("/v1/coordinate/datacenters", GET),
    at("/v1/coordinate/node/{node}", GET),
    at("/v1/coordinate/nodes", GET),
    at("/v1/coordinate/update", PUT),
    at("/v1/event/fire/{name}", PUT),
    at("/v1/event/list", GET),
    at("/v1/health/checks/{service}", GET),
    at("/v1/health/connect/{service}", GET),
    at("/v1/health/node/{node}", GET),
    at("/v1/health/service/{service}", GET),
    at("/v1/health/state/{state}", GET),
    at("/v1/kv/{key}", KEY),
    at("/v1/operator/raft/configuration", GET),
    at("/v1/operator/usage", GET),
    at("/v1/query", GET_POST),
    at("/v1/query/{name}/execute", GET),
    at("/v1/query/{name}/explain", GET),
    at("/v1/query/{id}", KEY),
    at("/v1/session/create", PUT),
    at("/v1/session/destroy/{id}", PUT),
    at("/v1/session/info/{id}", GET),
    at("/v1/session/list", GET),
    at("/v1/session/node/{node}", GET),
    at("/v1/session/renew/{id}", PUT),
    at("/v1/status/leader", GET),
    at("/v1/status/peers", GET),
    at("/v1/txn", PUT),
];

/// The methods of the route of a family that matches what follows the family's name.
pub(super) fn methods_of(family: Family, rest: &str) -> Option<&'static [Method]> {
    let found = ROUTES.iter().find(|served| {
        let below = served.pattern.strip_prefix("/v1/");
        let below = below.and_then(|below| below.strip_prefix(family.name()));
        below.is_some_and(|below| match below.strip_prefix('/') {
            Some(below) => matches(below, rest),
            None => below.is_empty() && rest.is_empty(),
        })
    });
    found.map(|served| served.methods)
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    let mut wanted = pattern.split('/').peekable();
    while let Some(want) = wanted.next() {
        let varies = want.starts_with('{');
        if varies && wanted.peek().is_none() {
            return true;
        }
        match segments.next() {
            Some(given) if varies && !given.is_empty() => {}
            Some(given) if given == want => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            acl::{Need, need_of, need_of_fixed},
            path::{self, Endpoint, Route},
        },
        *,
    };
    use crate::acl::{Access, Resource};

    /// The path of a route with something in each of its places.
    fn filled(pattern: &str) -> String {
        let segments = pattern.split('/').map(|segment| match segment {
            "{kind}" => "mesh",
            varies if varies.starts_with('{') => "x",
            other => other,
        });
        segments.collect::<Vec<_>>().join("/")
    }

    fn methods(family: Family, rest: &str) -> Vec<&'static str> {
        let found = methods_of(family, rest).unwrap_or_default();
        found.iter().map(Method::as_str).collect()
    }

    #[test]
    fn routes_are_found_by_what_follows_the_family() {
        for (family, rest, found) in [
            (Family::Acl, "token/self", &["GET"][..]),
            (Family::Acl, "token/x/clone", &["PUT"]),
            (Family::Acl, "token/x", &["GET", "PUT", "DELETE"]),
            (Family::Acl, "token", &["PUT"]),
            (Family::Acl, "token/", &["GET", "PUT", "DELETE"]),
            (Family::Acl, "tokens/x", &[]),
            (Family::Agent, "service/register", &["PUT"]),
            (Family::Agent, "service/a/b", &["GET"]),
            (Family::Agent, "service", &["GET"]),
            (Family::Agent, "service/deregister", &["PUT"]),
            (Family::Agent, "services/", &[]),
            (Family::Agent, "", &[]),
            (Family::Config, "", &["PUT"]),
            (Family::Config, "mesh/mesh", &["GET", "DELETE"]),
            (Family::Session, "list", &["GET"]),
            (Family::Session, "made-up", &[]),
        ] {
            assert_eq!(methods(family, rest), found, "{family:?} {rest}");
        }
    }

    /// One that is not would be answered as unknown.
    #[test]
    fn every_route_is_led_to_by_its_own_path() {
        for served in ROUTES {
            let path = filled(served.pattern);
            match path::parse(&path) {
                Route::Family(family, rest) => {
                    let found = methods_of(family, &rest);
                    assert_eq!(found, Some(served.methods), "{path}");
                }
                Route::Fixed(endpoint) => {
                    assert_eq!(served.methods, [endpoint.method()], "{path}");
                }
                Route::Kv(_) => assert_eq!(served.methods, KEY),
                Route::Txn => assert_eq!(served.methods, PUT),
                Route::Root => assert_eq!(served.methods, GET),
                // What else a path may be is not served. A new kind of route goes above, and into
                // the table.
                other @ (Route::Unknown { .. }
                | Route::Moved(_)
                | Route::Unprintable
                | Route::NotText
                | Route::BadEscape(_)) => panic!("{path} is {other:?}"),
            }
        }
        for (path, _) in Endpoint::ALL {
            let mut all = ROUTES.iter();
            assert!(all.any(|served| served.pattern == path), "{path}");
        }
    }

    /// A route that nobody has entered into the table of needs is the operator's alone: safe, and
    /// useless to everyone else.
    #[test]
    fn no_route_was_forgotten_when_needs_were_said() {
        let forgotten = Need::Of(Resource::Operator, "".into(), Access::Write);
        for served in ROUTES {
            let path = filled(served.pattern);
            for method in served.methods {
                let route = path::parse(&path);
                let need = match &route {
                    Route::Family(family, rest) => need_of(method, *family, rest, "n"),
                    Route::Fixed(endpoint) => need_of_fixed(*endpoint, "n"),
                    _ => continue,
                };
                let operators = served.pattern == "/v1/agent/force-leave/{node}";
                assert_eq!(need == forgotten, operators, "{method} {path}");
            }
        }
    }
}

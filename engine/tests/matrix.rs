//! Does every route do what Consul's users expect of it, for everyone who may ask?
//!
//! One table (`matrix/table`) says of each route what it answers when all is well, what is wrong
//! with what it refuses, whether it has consistency modes, what its blocking queries wake for, and
//! which right it takes. The tests below multiply it out: each row × each server × each mode; each
//! row × no token, an unknown one, one for something else, one that may read, one that may write,
//! one that may do everything; each row × every spelling of its path.
//!
//! The engine's own list of routes ([`engine::server::http::ROUTES`]) is what its gate lets in, so a
//! route that is served and not in the table fails [`the_table_knows_every_route`].

mod cluster;
#[path = "matrix/mod.rs"]
mod matrix;

use std::collections::BTreeSet;

use cluster::acl::configured;
use engine::server::http::ROUTES;
use matrix::{World, raw::ask, rows};
use serde_json::json;

/// A row's route must be one that is served, and each served one must have a row.
#[test]
fn the_table_knows_every_route() {
    let served: BTreeSet<(&str, &str)> = ROUTES
        .iter()
        .flat_map(|served| {
            let methods = served.methods.iter();
            methods.map(|method| (method.as_str(), served.pattern))
        })
        .collect();
    let known: BTreeSet<(&str, &str)> = rows().iter().map(|row| row.route).collect();
    let missing: Vec<_> = served.difference(&known).collect();
    assert!(
        missing.is_empty(),
        "served, and without a row in tests/matrix/table: {missing:#?}"
    );
    let gone: Vec<_> = known.difference(&served).collect();
    assert!(
        gone.is_empty(),
        "rows of routes that are not served: {gone:#?}"
    );
}

/// One cluster for the whole matrix: what is multiplied out is the requests, not the servers.
#[test]
fn each_route_does_what_its_row_says() {
    let mut world = World::new();
    world.settle();
    for row in rows() {
        world.is_there(&row);
        world.errors(&row);
        world.modes(&row);
    }
    for row in rows() {
        world.rights(&row);
        world.spellings(&row);
    }
    for row in rows() {
        world.blocking(&row);
        world.ended_rights(&row);
    }
    world.judge();
}

/// Where ACLs are off nobody is asked for a token, a wrong one included, and nothing of the ACL is
/// there.
#[test]
fn without_acls_every_token_is_as_good_as_none() {
    let group = configured(1, &json!({}));
    let server = &group.servers[0];
    let mut wrong = Vec::new();
    for row in rows() {
        // Not the path of what is made for the occasion.
        if row.path.contains('$') || row.only_denied {
            continue;
        }
        let (method, _) = row.route;
        for token in ["", "no-such"] {
            let answer = ask(server, method, row.path, row.body, token);
            let of_acl = ["/v1/acl/", "/v1/agent/token/"]
                .iter()
                .any(|begin| row.path.starts_with(begin));
            let fine = match of_acl {
                true => answer.status == 401 && answer.text() == "ACL support disabled",
                false => !matches!(answer.status, 401 | 403),
            };
            if !fine {
                wrong.push(format!("{method} {}: {answer}", row.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

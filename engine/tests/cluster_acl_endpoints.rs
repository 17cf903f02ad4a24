//! Does every endpoint ask who may? What is allowed, what is refused and in which words, and what is
//! left out of listings.
//!
//! Real servers over HTTP, configured by a file, as users do.

mod cluster;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use cluster::{
    PATIENCE,
    acl::{ROOT, anonymous_lacks, bearer, delete, get, guarded, lacks, put, said},
    http::Answer,
    server::Server,
};
use serde_json::{Value, json};

#[test]
fn keys_are_read_written_and_listed_as_the_rules_say() {
    let group = guarded(1, json!({"enable_key_list_policy": false}));
    let server = &group.servers[0];
    for key in ["app/a", "app/b", "app/secret/x", "other"] {
        assert!(put(server, &format!("/v1/kv/{key}"), ROOT, key).is_true());
    }
    let rules = r#"key_prefix "app/" { policy = "write" } key_prefix "app/secret/" { policy = "deny" }
        key "other" { policy = "read" }"#;
    let secret = bearer(server, "app", rules);
    let t = secret.as_str();
    let denied = |what: &str, key: &str| lacks(server, t, &format!("'key:{what}' on \"{key}\""));
    // Single keys.
    assert_eq!(get(server, "/v1/kv/app/a?raw", t).text(), "app/a");
    assert_eq!(get(server, "/v1/kv/app/none", t).status, 404);
    assert_eq!(
        said(&get(server, "/v1/kv/app/secret/x", t)),
        denied("read", "app/secret/x")
    );
    assert_eq!(said(&get(server, "/v1/kv/else", t)), denied("read", "else"));
    assert!(put(server, "/v1/kv/app/c", t, "1").is_true());
    assert_eq!(
        said(&put(server, "/v1/kv/other", t, "1")),
        denied("write", "other")
    );
    assert_eq!(
        said(&delete(server, "/v1/kv/other", t)),
        denied("write", "other")
    );
    assert!(delete(server, "/v1/kv/app/c", t).is_true());
    assert_eq!(
        said(&get(server, "/v1/kv/app/a", "")),
        anonymous_lacks("'key:read' on \"app/a\"")
    );
    assert_eq!(
        said(&get(server, "/v1/kv/app/a", "no-such")),
        (403, "ACL not found".into())
    );
    // Listings leave out what is hidden, and say so to whom brought a token.
    let told = "x-consul-results-filtered-by-acls";
    let keys =
        |answer: &Answer| -> Vec<String> { answer.rows().into_iter().map(|row| row.key).collect() };
    let list = get(server, "/v1/kv/?recurse", t);
    assert_eq!(keys(&list), ["app/a", "app/b", "other"]);
    assert_eq!(list.header(told), "true");
    let list = get(server, "/v1/kv/app/a?recurse", t);
    assert_eq!((keys(&list).len(), list.header(told)), (1, ""));
    let names = get(server, "/v1/kv/?keys", t);
    assert_eq!(
        (names.json(), names.header(told)),
        (json!(["app/a", "app/b", "other"]), "true")
    );
    let hidden = get(server, "/v1/kv/app/secret/?recurse", t);
    assert_eq!((hidden.status, hidden.header(told)), (404, "true"));
    assert_eq!(
        get(server, "/v1/kv/app/secret/x?raw&recurse", t).status,
        404
    );
    let nobody = get(server, "/v1/kv/?recurse", "");
    assert_eq!((nobody.status, nobody.header(told)), (404, ""));
    // A prefix may be deleted if nothing under it is refused.
    assert_eq!(
        said(&delete(server, "/v1/kv/app/?recurse", t)),
        denied("write", "app/")
    );
    assert!(delete(server, "/v1/kv/app/b?recurse", t).is_true());
    assert_eq!(
        said(&delete(server, "/v1/kv/?recurse", t)),
        lacks(server, t, "'key:write'")
    );
    // Transactions: each operation by itself.
    let ops = json!([
        {"KV": {"Verb": "set", "Key": "app/d", "Value": "MQ=="}},
        {"KV": {"Verb": "set", "Key": "other", "Value": "MQ=="}},
        {"KV": {"Verb": "check-index", "Key": "app/secret/x", "Index": 1}},
        {"KV": {"Verb": "delete-tree", "Key": "app/"}},
    ]);
    let refused = put(server, "/v1/txn", t, ops.to_string());
    assert_eq!(refused.status, 409, "{}", refused.text());
    let errors = refused.json()["Errors"].clone();
    let expected: Vec<Value> = [
        (1, denied("write", "other").1),
        (2, denied("read", "app/secret/x").1),
        (3, denied("write", "app/").1),
    ]
    .into_iter()
    .map(|(at, what)| json!({"OpIndex": at, "What": what}))
    .collect();
    assert_eq!(errors, json!(expected));
    assert_eq!(
        get(server, "/v1/kv/app/d", t).status,
        404,
        "nothing was done"
    );
    let reads = json!([
        {"KV": {"Verb": "get", "Key": "app/a"}},
        {"KV": {"Verb": "get", "Key": "app/secret/x"}},
        {"KV": {"Verb": "get-tree", "Key": "app/"}},
    ]);
    let read = put(server, "/v1/txn", t, reads.to_string());
    let rows = read.json()["Results"].as_array().unwrap().len();
    assert_eq!(
        (read.status, rows, read.header(told)),
        (200, 2, "true"),
        "{}",
        read.text()
    );
    assert_eq!(read.header("x-consul-default-acl-policy"), "deny");
}

#[test]
fn listing_needs_list_where_it_is_so_configured() {
    let group = guarded(1, json!({"enable_key_list_policy": true}));
    let server = &group.servers[0];
    assert!(put(server, "/v1/kv/a/1", ROOT, "1").is_true());
    let reader = bearer(server, "reader", "key_prefix \"a/\" { policy = \"read\" }");
    let lister = bearer(server, "lister", "key_prefix \"a/\" { policy = \"list\" }");
    for path in ["/v1/kv/a/?recurse", "/v1/kv/a/?keys"] {
        let refused = lacks(server, &reader, "'key:list' on \"a/\"");
        assert_eq!(said(&get(server, path, &reader)), refused);
        assert_eq!(get(server, path, &lister).status, 200);
    }
    assert_eq!(get(server, "/v1/kv/a/1", &reader).status, 200);
}

#[test]
fn sessions_and_config_entries_are_guarded_by_their_names() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    let secret = bearer(
        server,
        "p",
        r#"session "n1" { policy = "write" } service "web" { policy = "write" } mesh = "read""#,
    );
    let t = secret.as_str();
    // Sessions: the node counts, whether or not it is there.
    let denied = |what: &str| lacks(server, t, what);
    let create = |token: &str, node: &str| {
        put(
            server,
            "/v1/session/create",
            token,
            json!({ "Node": node }).to_string(),
        )
    };
    assert_eq!(said(&create(t, "n2")), denied("'session:write' on \"n2\""));
    assert_eq!(
        said(&put(server, "/v1/session/create", t, "")),
        denied("'session:write' on \"s1\"")
    );
    let allowed = create(t, "n1");
    assert_eq!(
        said(&allowed),
        (500, "apply failed: Missing node registration".into())
    );
    let twice = put(
        server,
        "/v1/session/create",
        t,
        r#"{"Node": "n1", "node": "n2"}"#,
    );
    assert_eq!(twice.status, 400, "{}", twice.text());
    assert_eq!(get(server, "/v1/session/list", t).json(), json!([]));
    // Config entries.
    let entry = |kind: &str, name: &str| json!({"Kind": kind, "Name": name}).to_string();
    assert!(put(server, "/v1/config", t, entry("service-defaults", "web")).is_true());
    assert_eq!(
        said(&put(
            server,
            "/v1/config",
            t,
            entry("service-defaults", "db")
        )),
        denied("'service:write' on \"db\"")
    );
    assert_eq!(
        said(&put(
            server,
            "/v1/config",
            t,
            entry("proxy-defaults", "global")
        )),
        denied("'mesh:write'")
    );
    assert!(put(server, "/v1/config", ROOT, entry("service-defaults", "db")).is_true());
    let list = get(server, "/v1/config/service-defaults", t);
    let names: Vec<_> = list
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["Name"].clone())
        .collect();
    assert_eq!(names, [json!("web")]);
    assert_eq!(list.header("x-consul-results-filtered-by-acls"), "true");
    assert_eq!(
        get(server, "/v1/config/service-defaults/web", t).status,
        200
    );
    assert_eq!(
        said(&get(server, "/v1/config/service-defaults/db", t)),
        denied("'service:read' on \"db\"")
    );
    assert_eq!(
        said(&delete(server, "/v1/config/service-defaults/db", t)),
        denied("'service:write' on \"db\"")
    );
    assert_eq!(
        delete(server, "/v1/config/service-defaults/web", t).status,
        200
    );
}

#[test]
fn the_agents_and_operators_endpoints_are_guarded() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    let agent = bearer(server, "agent", "agent \"s1\" { policy = \"read\" }");
    let operator = bearer(server, "operator", "operator = \"read\"");
    for path in ["/v1/agent/self", "/v1/agent/metrics", "/v1/agent/version"] {
        assert_eq!(get(server, path, &agent).status, 200, "{path}");
        assert_eq!(
            said(&get(server, path, "")),
            anonymous_lacks("'agent:read' on \"s1\""),
            "{path}"
        );
    }
    let reload = lacks(server, &agent, "'agent:write' on \"s1\"");
    assert_eq!(said(&put(server, "/v1/agent/reload", &agent, "")), reload);
    assert_eq!(put(server, "/v1/agent/reload", ROOT, "").status, 200);
    let path = "/v1/operator/raft/configuration";
    assert_eq!(get(server, path, &operator).status, 200);
    assert_eq!(
        said(&get(server, path, "")),
        anonymous_lacks("'operator:read'")
    );
    for path in ["/v1/status/leader", "/v1/status/peers"] {
        assert_eq!(get(server, path, "").status, 200, "{path}");
    }
}

/// Registers with all rights.
fn register(server: &Server, node: &str, service: &str) {
    let body = json!({
        "Node": node,
        "Address": "10.0.0.1",
        "Service": {"Service": service, "ID": format!("{service}-1"), "Port": 80},
        "Checks": [
            {"Node": node, "CheckID": "alive", "Name": "alive", "Status": "passing"},
            {"Node": node, "CheckID": format!("{service}-up"), "Name": "up", "Status": "passing", "ServiceID": format!("{service}-1")},
        ],
    });
    let done = put(server, "/v1/catalog/register", ROOT, body.to_string());
    assert!(done.is_true(), "{}", done.text());
}

/// The values of a field in the elements of a list, wherever it lies.
fn all(answer: &Answer, path: &[&str]) -> Vec<String> {
    let json = answer.json();
    let list = json
        .as_array()
        .unwrap_or_else(|| panic!("{}", answer.text()));
    let found = list.iter().map(|element| {
        let value = path.iter().fold(element, |value, name| &value[*name]);
        value.as_str().unwrap_or_default().to_owned()
    });
    found.collect()
}

#[test]
fn of_the_catalog_only_what_may_be_seen_is_shown() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    register(server, "n1", "web");
    register(server, "n1", "db");
    register(server, "n2", "web");
    let secret = bearer(
        server,
        "p",
        r#"node "n1" { policy = "read" } service "web" { policy = "read" }"#,
    );
    let t = secret.as_str();
    let told = |answer: &Answer| answer.header("x-consul-results-filtered-by-acls") == "true";
    let see = |path: &str| {
        let answer = get(server, path, t);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer
    };
    for (path, field, expected) in [
        ("/v1/catalog/nodes", &["Node"][..], vec!["n1"]),
        ("/v1/catalog/service/web", &["Node"], vec!["n1"]),
        ("/v1/health/node/n1", &["CheckID"], vec!["alive", "web-up"]),
        ("/v1/health/checks/web", &["Node"], vec!["n1"]),
        (
            "/v1/health/state/passing",
            &["CheckID"],
            vec!["alive", "web-up"],
        ),
        ("/v1/health/service/web", &["Node", "Node"], vec!["n1"]),
    ] {
        let answer = see(path);
        assert_eq!(all(&answer, field), expected, "{path}");
        assert!(told(&answer), "{path}");
        let whole = get(server, path, ROOT);
        assert!(!told(&whole), "{path}");
        assert!(all(&whole, field).len() > expected.len(), "{path}");
        let nobody = get(server, path, "");
        assert_eq!(
            (nobody.text(), told(&nobody)),
            ("[]".into(), false),
            "{path}"
        );
    }
    for path in [
        "/v1/catalog/service/db",
        "/v1/health/service/db",
        "/v1/health/checks/db",
    ] {
        let answer = see(path);
        assert_eq!(
            (answer.text(), told(&answer)),
            ("[]".into(), true),
            "{path}"
        );
    }
    let services = see("/v1/catalog/services");
    assert_eq!(
        (services.json(), told(&services)),
        (json!({"web": []}), true)
    );
    let node = see("/v1/catalog/node/n1");
    let names: Vec<_> = node.json()["Services"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!((names, told(&node)), (vec!["web-1".to_owned()], true));
    let hidden = see("/v1/catalog/node/n2");
    assert_eq!((hidden.text(), told(&hidden)), ("null".into(), true));
    let list = see("/v1/catalog/node-services/n1").json();
    assert_eq!(list["Services"].as_array().unwrap().len(), 1);
    assert_eq!(
        get(server, "/v1/catalog/datacenters", "").json(),
        json!(["dc1"])
    );
    // What is left keeps its bytes.
    let whole = get(server, "/v1/catalog/node/n1", ROOT).json();
    assert_eq!(node.json()["Services"]["web-1"], whole["Services"]["web-1"]);
}

#[test]
fn the_catalog_is_changed_by_those_who_own_what_they_change() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    register(server, "n1", "web");
    register(server, "n1", "db");
    let web = bearer(server, "web", "service \"web\" { policy = \"write\" }");
    let n1 = bearer(server, "n1", "node \"n1\" { policy = \"write\" }");
    let write = |path: &str, token: &str, body: Value| {
        said(&put(
            server,
            &format!("/v1/catalog/{path}"),
            token,
            body.to_string(),
        ))
    };
    let done = (200, "true".to_owned());
    let of_db = lacks(server, &web, "'service:write' on \"db\"");
    let of_n1 = lacks(server, &web, "'node:write' on \"n1\"");
    let n1_db = lacks(server, &n1, "'service:write' on \"db\"");
    let of_n9 = lacks(server, &web, "'node:write' on \"n9\"");
    let service = |name: &str, id: &str| json!({"Node": "n1", "SkipNodeUpdate": true, "Service": {"Service": name, "ID": id}});
    for (token, body, expected) in [
        (&web, service("web", "web-2"), &done),
        (&web, service("db", "db-2"), &of_db),
        // Another's place is not taken by giving it one's own name.
        (&web, service("web", "db-1"), &of_db),
        (&web, json!({"Node": "n1", "Address": "10.9.9.9"}), &of_n1),
        (&n1, json!({"Node": "n1", "Address": "10.0.0.1"}), &done),
        // What is known of the node may be repeated with a service.
        (
            &web,
            json!({"Node": "n1", "Address": "10.0.0.1", "Service": {"Service": "web", "ID": "web-2"}}),
            &done,
        ),
        (
            &web,
            json!({"Node": "n1", "Address": "10.9.9.9", "Service": {"Service": "web", "ID": "web-2"}}),
            &of_n1,
        ),
        (
            &web,
            json!({"Node": "n1", "Address": "10.0.0.1", "NodeMeta": {"a": "b"}, "Service": {"Service": "web", "ID": "web-2"}}),
            &of_n1,
        ),
        // Found by reading: a node that is not there was made for whoever might register the
        // service, as it was not to be updated.
        (
            &web,
            json!({"Node": "n9", "SkipNodeUpdate": true, "Service": {"Service": "web", "ID": "web-9"}}),
            &of_n9,
        ),
        (&n1, service("db", "db-1"), &n1_db),
        (
            &web,
            json!({"Node": "n1", "SkipNodeUpdate": true, "Check": {"Node": "n1", "CheckID": "x", "Name": "x", "ServiceID": "web-1"}}),
            &done,
        ),
        (
            &web,
            json!({"Node": "n1", "SkipNodeUpdate": true, "Check": {"Node": "n1", "CheckID": "y", "Name": "y"}}),
            &of_n1,
        ),
        (
            &web,
            json!({"Node": "n1", "SkipNodeUpdate": true, "Check": {"Node": "n1", "CheckID": "z", "Name": "z", "ServiceID": "db-1"}}),
            &of_db,
        ),
    ] {
        assert_eq!(write("register", token, body.clone()), *expected, "{body}");
    }
    let nobodys = write("register", "", service("web", "web-3"));
    assert_eq!(nobodys, anonymous_lacks("'service:write' on \"web\""));
    for (token, body, expected) in [
        (&web, json!({"Node": "n1", "ServiceID": "db-1"}), &of_db),
        (&web, json!({"Node": "n1", "CheckID": "db-up"}), &of_db),
        (&web, json!({"Node": "n1", "CheckID": "alive"}), &of_n1),
        (&web, json!({"Node": "n1"}), &of_n1),
        (&web, json!({"Node": "n1", "CheckID": "web-up"}), &done),
        (&web, json!({"Node": "n1", "ServiceID": "web-1"}), &done),
        // Whoever may change the node may take out anything of it.
        (&n1, json!({"Node": "n1", "ServiceID": "db-1"}), &done),
        (&n1, json!({"Node": "n1"}), &done),
    ] {
        assert_eq!(
            write("deregister", token, body.clone()),
            *expected,
            "{body}"
        );
    }
}

#[test]
fn sessions_of_nodes_are_seen_and_ended_by_those_who_may() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    register(server, "n1", "web");
    register(server, "n2", "web");
    let t = bearer(server, "p", "session \"n1\" { policy = \"write\" }");
    let create = |token: &str, node: &str| {
        let body = json!({"Node": node, "Checks": []}).to_string();
        put(server, "/v1/session/create", token, body)
    };
    let own = create(&t, "n1").json()["ID"]
        .as_str()
        .expect("an id")
        .to_owned();
    let others = create(ROOT, "n2").json()["ID"]
        .as_str()
        .expect("an id")
        .to_owned();
    let list = get(server, "/v1/session/list", &t);
    assert_eq!(all(&list, &["ID"]), std::slice::from_ref(&own));
    assert_eq!(list.header("x-consul-results-filtered-by-acls"), "true");
    assert_eq!(
        get(server, &format!("/v1/session/info/{others}"), &t).text(),
        "[]"
    );
    assert_eq!(get(server, "/v1/session/node/n2", &t).text(), "[]");
    let refused = lacks(server, &t, "'session:write' on \"n2\"");
    for verb in ["renew", "destroy"] {
        let path = |id: &str| format!("/v1/session/{verb}/{id}");
        assert_eq!(said(&put(server, &path(&others), &t, "")), refused);
        assert_eq!(put(server, &path(&own), &t, "").status, 200);
    }
    assert_eq!(
        all(&get(server, "/v1/session/list", ROOT), &["ID"]),
        [others]
    );
}

#[test]
fn transactions_on_the_catalog_are_guarded_by_operation() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    register(server, "n1", "web");
    register(server, "n1", "db");
    let t = bearer(
        server,
        "p",
        r#"service "web" { policy = "write" } key "k" { policy = "write" }"#,
    );
    let node = json!({"Node": "n1", "Address": "10.0.0.1"});
    let service = |name: &str, id: &str| json!({"ID": id, "Service": name});
    let check = |id: &str, service: &str| json!({"Node": "n1", "CheckID": id, "Name": id, "ServiceID": service});
    let ops = json!([
        {"KV": {"Verb": "set", "Key": "k", "Value": "MQ=="}},
        {"Node": {"Verb": "set", "Node": node}},
        {"Service": {"Verb": "set", "Node": "n1", "Service": service("web", "web-2")}},
        {"Service": {"Verb": "set", "Node": "n1", "Service": service("web", "db-1")}},
        {"Service": {"Verb": "delete", "Node": "n1", "Service": {"ID": "db-1"}}},
        {"Check": {"Verb": "set", "Check": check("new", "web-2")}},
        {"Check": {"Verb": "set", "Check": check("new", "db-1")}},
        {"Check": {"Verb": "delete", "Check": {"Node": "n1", "CheckID": "alive"}}},
        {"Node": {"Verb": "get", "Node": {"Node": "n1"}}},
    ]);
    let refused = put(server, "/v1/txn", &t, ops.to_string());
    assert_eq!(refused.status, 409, "{}", refused.text());
    let of_db = lacks(server, &t, "'service:write' on \"db\"").1;
    let of_n1 = lacks(server, &t, "'node:write' on \"n1\"").1;
    let error = |at: u32, what: &String| json!({"OpIndex": at, "What": what});
    // The sixth would put a check on what the third made one's own.
    assert_eq!(
        refused.json()["Errors"],
        json!([
            error(1, &of_n1),
            error(3, &of_db),
            error(4, &of_db),
            error(7, &of_n1)
        ])
    );
    let ops = json!([
        {"KV": {"Verb": "set", "Key": "k", "Value": "MQ=="}},
        {"Service": {"Verb": "set", "Node": "n1", "Service": service("web", "web-2")}},
        {"Check": {"Verb": "set", "Check": check("new", "web-2")}},
        {"Service": {"Verb": "get", "Node": "n1", "Service": {"ID": "db-1"}}},
        {"Node": {"Verb": "get", "Node": {"Node": "n1"}}},
        {"Check": {"Verb": "delete", "Check": {"Node": "n1", "CheckID": "web-up"}}},
    ]);
    let done = put(server, "/v1/txn", &t, ops.to_string());
    assert_eq!(done.status, 200, "{}", done.text());
    let json = done.json();
    let kinds: Vec<_> = json["Results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r.as_object().unwrap().keys().next().unwrap().clone())
        .collect();
    // The check is the node's too, which may not be seen.
    assert_eq!(kinds, ["KV", "Service"], "{}", done.text());
    assert_eq!(done.header("x-consul-results-filtered-by-acls"), "true");
    let whole = put(
        server,
        "/v1/txn",
        ROOT,
        json!([{"Node": {"Verb": "get", "Node": {"Node": "n1"}}}]).to_string(),
    );
    assert_eq!(whole.json()["Results"].as_array().unwrap().len(), 1);
}

#[test]
fn services_of_the_agent_are_guarded_by_their_names() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    let web = bearer(
        server,
        "web",
        "service \"web\" { policy = \"write\" } node \"s1\" { policy = \"read\" }",
    );
    let t = web.as_str();
    let denied = |what: &str| lacks(server, t, what);
    let of_db = denied("'service:write' on \"db\"");
    let of_node = denied("'node:write' on \"s1\"");
    let register = |token: &str, body: Value| {
        put(
            server,
            "/v1/agent/service/register",
            token,
            body.to_string(),
        )
    };
    assert_eq!(
        said(&register(t, json!({"Name": "db", "ID": "db-1"}))),
        of_db
    );
    assert_eq!(
        register(ROOT, json!({"Name": "db", "ID": "db-1"})).status,
        200
    );
    let ttl = json!({"Name": "web", "ID": "web-1", "Check": {"CheckID": "web-ttl", "TTL": "60s"}});
    assert_eq!(register(t, ttl).status, 200);
    assert_eq!(
        said(&register(t, json!({"Name": "web", "ID": "db-1"}))),
        of_db
    );
    // What it sees.
    let services = get(server, "/v1/agent/services", t);
    let ids: Vec<_> = services
        .json()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(ids, ["web-1"], "{}", services.text());
    assert_eq!(services.header("x-consul-results-filtered-by-acls"), "true");
    assert_eq!(get(server, "/v1/agent/services", "").json(), json!({}));
    let checks = get(server, "/v1/agent/checks", t).json();
    assert!(
        checks.as_object().unwrap().contains_key("web-ttl"),
        "{checks}"
    );
    assert_eq!(get(server, "/v1/agent/service/web-1", t).status, 200);
    let read_db = denied("'service:read' on \"db\"");
    assert_eq!(said(&get(server, "/v1/agent/service/db-1", t)), read_db);
    assert_eq!(
        said(&get(server, "/v1/agent/health/service/name/db", t)),
        read_db
    );
    assert_eq!(
        said(&get(server, "/v1/agent/health/service/id/db-1", t)),
        read_db
    );
    assert_eq!(all(&get(server, "/v1/agent/members", t), &["Name"]), ["s1"]);
    assert_eq!(get(server, "/v1/agent/members", "").json(), json!([]));
    // What it may change.
    assert_eq!(
        put(server, "/v1/agent/check/pass/web-ttl", t, "").status,
        200
    );
    let check = |body: Value| put(server, "/v1/agent/check/register", t, body.to_string());
    assert_eq!(
        check(json!({"Name": "c", "ServiceID": "web-1", "TTL": "60s"})).status,
        200
    );
    assert_eq!(
        said(&check(
            json!({"Name": "d", "ServiceID": "db-1", "TTL": "60s"})
        )),
        of_db
    );
    assert_eq!(said(&check(json!({"Name": "e", "TTL": "60s"}))), of_node);
    let own = json!({"Name": "of-node", "TTL": "60s"}).to_string();
    assert_eq!(
        put(server, "/v1/agent/check/register", ROOT, own).status,
        200
    );
    for verb in ["pass", "warn", "fail", "deregister"] {
        let path = format!("/v1/agent/check/{verb}/of-node");
        assert_eq!(said(&put(server, &path, t, "")), of_node, "{verb}");
    }
    // Nor does a check become one's own by being registered again.
    assert_eq!(
        said(&check(
            json!({"Name": "of-node", "ServiceID": "web-1", "TTL": "60s"})
        )),
        of_node
    );
    for path in [
        "/v1/agent/service/deregister/db-1",
        "/v1/agent/service/maintenance/db-1?enable=true",
    ] {
        assert_eq!(said(&put(server, path, t, "")), of_db);
    }
    assert_eq!(
        said(&put(server, "/v1/agent/maintenance?enable=true", t, "")),
        of_node
    );
    assert_eq!(
        put(server, "/v1/agent/service/deregister/none", t, "").status,
        404
    );
    assert_eq!(
        put(server, "/v1/agent/service/deregister/web-1", t, "").status,
        200
    );
}

/// A watch's events, as name and data.
struct Watch(BufReader<TcpStream>);

impl Watch {
    fn open(server: &Server, path: &str) -> Self {
        let mut stream = TcpStream::connect(server.http_address()).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: curia\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        Self(BufReader::new(stream))
    }

    /// The next event that is no word of progress.
    fn next(&mut self) -> (String, Value) {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).expect("a line") > 0,
                "the watch ended"
            );
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.trim().to_owned();
            }
            match line.strip_prefix("data: ") {
                Some(data) if name != "progress" => {
                    return (name, serde_json::from_str(data).expect("JSON"));
                }
                _ => {}
            }
        }
    }

    /// The next event of this name, by its key.
    fn key(&mut self, name: &str) -> String {
        let (found, data) = self.next();
        assert_eq!(found, name, "{data}");
        data["Key"].as_str().expect("a key").to_owned()
    }
}

#[test]
fn a_watch_tells_what_may_be_seen_at_that_moment() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    let set = |key: &str| assert!(put(server, &format!("/v1/kv/{key}"), ROOT, "1").is_true());
    for key in ["a/1", "b/1", "a/hidden/1"] {
        set(key);
    }
    let rules =
        "key_prefix \"a/\" { policy = \"read\" } key_prefix \"a/hidden/\" { policy = \"deny\" }";
    let secret = bearer(server, "p", rules);
    let mut watch = Watch::open(server, &format!("/v1/kv/?watch&token={secret}"));
    assert_eq!(watch.key("row"), "a/1");
    assert_eq!(watch.next().0, "synced");
    for key in ["b/2", "a/hidden/2", "a/2"] {
        set(key);
    }
    assert_eq!(watch.key("change"), "a/2");
    // Recursive deletes are told if they concern anything that may be seen.
    for prefix in ["b/", "a/hidden/", "a/"] {
        assert!(delete(server, &format!("/v1/kv/{prefix}?recurse"), ROOT).is_true());
    }
    assert_eq!(watch.key("change"), "a/");
    // Other rights count from then on.
    let id = get(server, "/v1/acl/policy/name/p", ROOT).json()["ID"]
        .as_str()
        .unwrap()
        .to_owned();
    let body = json!({"Name": "p", "Rules": "key_prefix \"b/\" { policy = \"read\" }"}).to_string();
    assert_eq!(
        put(server, &format!("/v1/acl/policy/{id}"), ROOT, body).status,
        200
    );
    for key in ["a/3", "b/3"] {
        set(key);
    }
    assert_eq!(watch.key("change"), "b/3");
    // And none any longer once the token is gone.
    let own = get(server, "/v1/acl/token/self", &secret).json();
    let path = format!("/v1/acl/token/{}", own["AccessorID"].as_str().unwrap());
    assert!(delete(server, &path, ROOT).is_true());
    set("b/4");
    assert_eq!(
        watch.next(),
        ("reset".to_owned(), json!({"Reason": "ACL not found"}))
    );
}

#[test]
fn pages_hold_as_many_as_were_asked_for_and_name_nothing_hidden() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    for key in ["a", "h/1", "h/2", "h/3", "k", "z"] {
        assert!(put(server, &format!("/v1/kv/{key}"), ROOT, "1").is_true());
    }
    let rules = "key_prefix \"\" { policy = \"read\" } key_prefix \"h/\" { policy = \"deny\" }";
    let t = bearer(server, "p", rules);
    for (what, next) in [("recurse", "k"), ("keys", "k")] {
        let names = |answer: &Answer| -> Vec<String> {
            let json = answer.json();
            let name = |item: &Value| match item {
                Value::String(name) => name.clone(),
                row => row["Key"].as_str().unwrap().to_owned(),
            };
            json.as_array().unwrap().iter().map(name).collect()
        };
        let first = get(server, &format!("/v1/kv/?{what}&limit=2"), &t);
        assert_eq!(
            (names(&first), first.header("x-curia-next")),
            (vec!["a".to_owned(), "k".to_owned()], next)
        );
        assert_eq!(first.header("x-consul-results-filtered-by-acls"), "true");
        let rest = get(
            server,
            &format!("/v1/kv/?{what}&limit=2&start-after={next}"),
            &t,
        );
        assert_eq!(
            (names(&rest), rest.header("x-curia-next")),
            (vec!["z".to_owned()], "")
        );
    }
}

//! Who may do what, as clients see it: are ACLs off by default, and when they are on, is every
//! request allowed or refused as its token says, on every server?
//!
//! Real servers over HTTP. Servers are configured by a file, as users do.

mod cluster;

use cluster::{
    check,
    frames::{Raw, frame},
    group::Group,
    http::Answer,
    server::Server,
    wait_for,
};
use serde_json::{Value, json};
use wire::{FrameKind, KvCommand, KvVerb, Reply, ReplyBody, Role};

const ROOT: &str = "a1b2c3d4-0000-4000-8000-000000000001";

/// A group with ACLs on, nothing allowed by default, and [`ROOT`] for everything.
fn guarded(size: usize, more: Value) -> Group {
    let mut acl = json!({
        "enabled": true,
        "default_policy": "deny",
        "tokens": {"initial_management": ROOT},
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        acl[name] = value.clone();
    }
    let group = configured(size, &json!({ "acl": acl }));
    for server in &group.servers {
        wait_for("the initial management token", || {
            let answer = server.http().get(&with("/v1/acl/token/self", ROOT));
            let answer = answer.map_err(|why| format!("{why:?}"))?;
            check(answer.status == 200, || answer.text())
        });
    }
    group
}

fn configured(size: usize, config: &Value) -> Group {
    let mut group = Group::empty();
    let file = group.home().join("config.json");
    std::fs::write(&file, config.to_string()).expect("the test's directory is writable");
    for _ in 0..size {
        group.add(size, &[&format!("-config-file={}", file.display())]);
    }
    group.start_all();
    group.wait_for_leader();
    group
}

fn with(path: &str, token: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}token={token}")
}

fn get(server: &Server, path: &str, token: &str) -> Answer {
    server.http().get(&with(path, token)).expect("an answer")
}

fn put(server: &Server, path: &str, token: &str, body: impl AsRef<[u8]>) -> Answer {
    let path = with(path, token);
    server.http().put(&path, body.as_ref()).expect("an answer")
}

fn delete(server: &Server, path: &str, token: &str) -> Answer {
    server.http().delete(&with(path, token)).expect("an answer")
}

fn said(answer: &Answer) -> (u16, String) {
    (answer.status, answer.text())
}

/// A policy with these rules; its id.
fn policy(server: &Server, name: &str, rules: &str) -> String {
    let body = json!({"Name": name, "Rules": rules}).to_string();
    let made = put(server, "/v1/acl/policy", ROOT, body);
    assert_eq!(made.status, 200, "{}", made.text());
    made.json()["ID"].as_str().expect("an id").to_owned()
}

/// A token as it is answered.
fn token(server: &Server, body: Value) -> Value {
    let made = put(server, "/v1/acl/token", ROOT, body.to_string());
    assert_eq!(made.status, 200, "{}", made.text());
    made.json()
}

/// The secret of a new token with these rules.
fn bearer(server: &Server, name: &str, rules: &str) -> String {
    policy(server, name, rules);
    let made = token(server, json!({"Policies": [{"Name": name}]}));
    made["SecretID"].as_str().expect("a secret").to_owned()
}

fn accessor(server: &Server, secret: &str) -> String {
    let own = get(server, "/v1/acl/token/self", secret).json();
    own["AccessorID"].as_str().expect("an id").to_owned()
}

fn lacks(server: &Server, secret: &str, what: &str) -> (u16, String) {
    let id = accessor(server, secret);
    let why = format!("Permission denied: token with AccessorID '{id}' lacks permission {what}");
    (403, why)
}

fn anonymous_lacks(what: &str) -> (u16, String) {
    let why = format!(
        "Permission denied: anonymous token lacks permission {what}. The anonymous token is used \
         implicitly when a request does not specify a token."
    );
    (403, why)
}

#[test]
fn acls_are_off_by_default() {
    let group = Group::formed(1, &[]);
    let server = &group.servers[0];
    for path in ["/v1/acl/tokens", "/v1/acl/policy/x", "/v1/acl/replication"] {
        let answer = get(server, path, "whatever");
        assert_eq!(
            said(&answer),
            (401, "ACL support disabled".into()),
            "{path}"
        );
        assert_eq!(answer.header("x-consul-default-acl-policy"), "allow");
    }
    let refused = put(server, "/v1/acl/bootstrap", "", "");
    assert_eq!(said(&refused), (401, "ACL support disabled".into()));
    assert!(put(server, "/v1/kv/a", "no-such-token", "1").is_true());
}

#[test]
fn bootstrap_works_once_and_again_with_the_file() {
    let group = configured(
        1,
        &json!({"acl": {"enabled": true, "default_policy": "deny"}}),
    );
    let server = &group.servers[0];
    wait_for("built-in policies", || {
        let answer = put(server, "/v1/acl/bootstrap", "", "");
        check(answer.status == 200, || answer.text())?;
        let made = answer.json();
        assert_eq!(made["ID"], made["SecretID"]);
        assert_eq!(made["Description"], "Bootstrap Token (Global Management)");
        assert_eq!(made["Policies"][0]["Name"], "global-management");
        Ok(())
    });
    let (status, why) = said(&put(server, "/v1/acl/bootstrap", "", ""));
    let prefix = "Permission denied: ACL bootstrap no longer allowed (reset index: ";
    assert_eq!(status, 403);
    let index = why.strip_prefix(prefix).unwrap_or_else(|| panic!("{why}"));
    let index: u64 = index.trim_end_matches(')').parse().expect("an index");
    let file = server.data.join("acl-bootstrap-reset");
    std::fs::write(&file, format!("{}\n", index + 1)).unwrap();
    assert_eq!(
        said(&put(server, "/v1/acl/bootstrap", "", "")),
        (
            500,
            format!(
                "Invalid bootstrap reset index (specified {}, reset index: {index})",
                index + 1
            )
        )
    );
    std::fs::write(&file, index.to_string()).unwrap();
    let body = json!({ "BootstrapSecret": ROOT }).to_string();
    let again = put(server, "/v1/acl/bootstrap", "", body);
    assert_eq!(again.json()["SecretID"], ROOT, "{}", again.text());
    assert!(!file.exists());
    assert_eq!(put(server, "/v1/acl/bootstrap", "", "").status, 403);
    assert!(put(server, "/v1/kv/a", ROOT, "1").is_true());
}

#[test]
fn policies_roles_and_tokens_are_kept_as_consul_keeps_them() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    // Policies.
    let rules = "key \"a\" { policy = \"read\" }";
    let body = json!({"Name": "p1", "Description": "d", "Rules": rules}).to_string();
    let made = put(server, "/v1/acl/policy", ROOT, &body);
    let text = made.text();
    let fields = [
        "{\"ID\":\"",
        "\"Name\":\"p1\"",
        "\"Description\":\"d\"",
        "\"Rules\":",
        "\"Hash\":",
        "\"CreateIndex\":",
        "\"ModifyIndex\":",
    ];
    let places: Vec<_> = fields.iter().map(|field| text.find(field)).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{text}"
    );
    assert!(!text.contains("Datacenters"), "{text}");
    let id = made.json()["ID"].as_str().unwrap().to_owned();
    assert_eq!(
        said(&put(server, "/v1/acl/policy", ROOT, &body)),
        (
            500,
            "Invalid Policy: A Policy with Name \"p1\" already exists".into()
        )
    );
    let bad = json!({"Name": "p2", "Rules": "key \"a\" { policy = \"wirte\" }"}).to_string();
    let (status, why) = said(&put(server, "/v1/acl/policy", ROOT, bad));
    assert_eq!(status, 500);
    assert!(
        why.starts_with("Failed to parse ACL rules: key \"a\": policy: \"wirte\""),
        "{why}"
    );
    let by_name = get(server, "/v1/acl/policy/name/p1", ROOT);
    assert_eq!(by_name.json(), made.json());
    assert!(!by_name.header("x-consul-index").is_empty());
    let path = format!("/v1/acl/policy/{id}");
    assert_eq!(get(server, &path, ROOT).json(), made.json());
    let list = get(server, "/v1/acl/policies", ROOT).json();
    let names: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["Name"].clone())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        list.as_array()
            .unwrap()
            .iter()
            .all(|p| p["Datacenters"].is_null() && p["Rules"].is_null())
    );
    let renamed = json!({"Name": "p1b", "Rules": rules}).to_string();
    let renamed = put(server, &path, ROOT, renamed);
    assert_eq!(renamed.json()["Name"], "p1b", "{}", renamed.text());
    assert_eq!(
        said(&get(server, "/v1/acl/policy/name/p1", ROOT)),
        (404, "Requested policy does not exist: ACL not found".into())
    );
    let builtin = "/v1/acl/policy/00000000-0000-0000-0000-000000000001";
    assert_eq!(
        said(&delete(server, builtin, ROOT)),
        (
            500,
            "Delete operation not permitted on the builtin global-management policy".into()
        )
    );
    let emptied = json!({"Name": "global-management", "Rules": ""}).to_string();
    assert_eq!(
        said(&put(server, builtin, ROOT, emptied)),
        (
            500,
            "Changing the Rules for the builtin global-management policy is not permitted".into()
        )
    );
    // Roles.
    let body = json!({"Name": "r1", "Policies": [{"Name": "p1b"}], "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}]});
    let role = put(server, "/v1/acl/role", ROOT, body.to_string()).json();
    assert_eq!(role["Policies"], json!([{"ID": id, "Name": "p1b"}]));
    assert_eq!(get(server, "/v1/acl/role/name/r1", ROOT).json(), role);
    assert_eq!(get(server, "/v1/acl/roles", ROOT).json(), json!([role]));
    assert_eq!(
        get(server, &format!("/v1/acl/roles?policy={id}"), ROOT).json(),
        json!([role])
    );
    let missing = json!({"Name": "r2", "Policies": [{"Name": "nope"}]}).to_string();
    assert_eq!(
        said(&put(server, "/v1/acl/role", ROOT, missing)),
        (500, "No such ACL policy with name \"nope\"".into())
    );
    // Tokens.
    let made = token(
        server,
        json!({"Description": "t", "Policies": [{"Name": "p1b"}], "Roles": [{"Name": "r1"}], "ExpirationTTL": "1h"}),
    );
    let id_of = |token: &Value| token["AccessorID"].as_str().unwrap().to_owned();
    let path = format!("/v1/acl/token/{}", id_of(&made));
    assert_eq!(get(server, &path, ROOT).json(), made);
    assert_eq!(made["Roles"][0]["Name"], "r1");
    assert!(made["ExpirationTime"].as_str().unwrap().ends_with('Z'));
    let secret = made["SecretID"].as_str().unwrap();
    assert_eq!(get(server, "/v1/acl/token/self", secret).json(), made);
    let clone = put(
        server,
        &format!("{path}/clone"),
        ROOT,
        "{\"Description\":\"c\"}",
    )
    .json();
    assert_ne!(clone["SecretID"], made["SecretID"]);
    assert_eq!(
        (&clone["Description"], &clone["Policies"]),
        (&json!("c"), &made["Policies"])
    );
    let changed = json!({"Description": "t2", "Policies": []}).to_string();
    let changed = put(server, &path, ROOT, changed).json();
    assert_eq!(
        (&changed["Description"], &changed["SecretID"]),
        (&json!("t2"), &made["SecretID"])
    );
    assert_eq!(changed["ExpirationTime"], made["ExpirationTime"]);
    assert!(changed["Policies"].is_null());
    assert_eq!(changed["CreateIndex"], made["CreateIndex"]);
    let other = json!({"SecretID": ROOT}).to_string();
    assert_eq!(
        said(&put(server, &path, ROOT, other)),
        (500, "Changing a tokens SecretID is not permitted".into())
    );
    let taken = json!({"SecretID": ROOT}).to_string();
    assert_eq!(
        said(&put(server, "/v1/acl/token", ROOT, taken)),
        (500, "Invalid Token: SecretID is already in use".into())
    );
    let all = get(server, "/v1/acl/tokens", ROOT).json();
    assert_eq!(all.as_array().unwrap().len(), 4);
    let filtered = get(
        server,
        &format!("/v1/acl/tokens?role={}", role["ID"].as_str().unwrap()),
        ROOT,
    )
    .json();
    assert_eq!(filtered, json!([clone]), "the other has it no more");
    // Whoever may only read sees no secrets.
    let reader = bearer(server, "acl-reader", "acl = \"read\"");
    let hidden = get(server, "/v1/acl/tokens", &reader).json();
    assert!(
        hidden
            .as_array()
            .unwrap()
            .iter()
            .all(|token| token["SecretID"] == "<hidden>")
    );
    assert_eq!(get(server, &path, &reader).json()["SecretID"], "<hidden>");
    let refused = lacks(server, &reader, "'acl:write'");
    assert_eq!(said(&put(server, "/v1/acl/token", &reader, "{}")), refused);
    assert_eq!(said(&delete(server, &path, &reader)), refused);
    assert_eq!(
        said(&get(server, "/v1/acl/tokens", "")),
        anonymous_lacks("'acl:read'")
    );
    // Deleting.
    assert_eq!(
        said(&delete(
            server,
            &format!("/v1/acl/token/{}", accessor(server, ROOT)),
            ROOT
        )),
        (
            500,
            "Deletion of the request's authorization token is not permitted".into()
        )
    );
    assert!(delete(server, &path, ROOT).is_true());
    assert_eq!(
        said(&delete(server, &path, ROOT)),
        (404, "Cannot find token to delete".into())
    );
    assert_eq!(
        said(&get(server, &path, ROOT)),
        (404, "Requested token does not exist: ACL not found".into())
    );
    assert!(delete(server, &format!("/v1/acl/policy/{id}"), ROOT).is_true());
    assert!(get(server, "/v1/acl/role/name/r1", ROOT).json()["Policies"].is_null());
    assert_eq!(
        said(&delete(
            server,
            "/v1/acl/token/00000000-0000-0000-0000-000000000002",
            ROOT
        )),
        (
            500,
            "Delete operation not permitted on the anonymous token".into()
        )
    );
    let (status, why) = said(&put(server, "/v1/acl/login", "", "{}"));
    assert_eq!(status, 500);
    assert!(why.starts_with("auth methods are not supported"), "{why}");
}

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
fn a_token_is_taken_from_the_first_place_that_has_one() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    assert!(put(server, "/v1/kv/a", ROOT, "1").is_true());
    let http = server.http();
    let status = |path: &str, name: &str, value: &str| {
        http.get_with(path, name, value).expect("an answer").status
    };
    let none = bearer(server, "none", "");
    assert_eq!(status("/v1/kv/a", "X-Consul-Token", ROOT), 200);
    assert_eq!(
        status("/v1/kv/a", "Authorization", &format!("Bearer {ROOT}")),
        200
    );
    assert_eq!(
        status("/v1/kv/a", "Authorization", &format!("bearer {ROOT}")),
        200
    );
    assert_eq!(
        status("/v1/kv/a", "Authorization", &format!("Basic {ROOT}")),
        403
    );
    assert_eq!(
        status(&with("/v1/kv/a", &none), "X-Consul-Token", ROOT),
        403
    );
    assert_eq!(
        status(&with("/v1/kv/a", ROOT), "X-Consul-Token", &none),
        200
    );
    // The agent's own for those who bring none.
    let group = guarded(
        1,
        json!({"tokens": {"initial_management": ROOT, "default": ROOT}}),
    );
    let server = &group.servers[0];
    assert!(put(server, "/v1/kv/a", "", "1").is_true());
}

#[test]
fn rights_of_the_anonymous_token_and_the_default_policy_count() {
    let group = guarded(1, json!({"default_policy": "allow"}));
    let server = &group.servers[0];
    assert!(put(server, "/v1/kv/a", "", "1").is_true());
    let answer = get(server, "/v1/acl/tokens", "");
    assert_eq!(said(&answer), anonymous_lacks("'acl:read'"));
    assert_eq!(answer.header("x-consul-default-acl-policy"), "allow");
    policy(
        server,
        "private",
        "key_prefix \"private/\" { policy = \"deny\" }",
    );
    let body = json!({"Policies": [{"Name": "private"}]}).to_string();
    let path = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
    assert_eq!(put(server, path, ROOT, body).status, 200);
    let denied = anonymous_lacks("'key:write' on \"private/a\"");
    assert_eq!(said(&put(server, "/v1/kv/private/a", "", "1")), denied);
    assert!(put(server, "/v1/kv/a", "", "2").is_true());
}

#[test]
fn every_server_enforces_and_hears_of_changes() {
    let group = guarded(3, json!({}));
    let leader = &group.servers[group.wait_for_leader()];
    let followers = group.followers();
    let secret = bearer(leader, "p", "key_prefix \"a\" { policy = \"write\" }");
    // At once, everywhere: what a follower does not know yet it asks of the leader.
    for at in &followers {
        let server = &group.servers[*at];
        assert!(put(server, "/v1/kv/a", &secret, "1").is_true());
        let denied = lacks(server, &secret, "'key:write' on \"b\"");
        assert_eq!(said(&put(server, "/v1/kv/b", &secret, "1")), denied);
        // Its own copy of the key may be behind, but not what it knows of rights.
        assert_ne!(get(server, "/v1/kv/a?stale", &secret).status, 403);
        assert_eq!(get(server, "/v1/kv/b?stale", &secret).status, 403);
    }
    // A change of the policy, made at the leader, counts there at once and soon everywhere.
    let id = get(leader, "/v1/acl/policy/name/p", ROOT).json()["ID"]
        .as_str()
        .unwrap()
        .to_owned();
    let body = json!({"Name": "p", "Rules": "key \"b\" { policy = \"write\" }"}).to_string();
    assert_eq!(
        put(leader, &format!("/v1/acl/policy/{id}"), ROOT, body).status,
        200
    );
    assert!(put(leader, "/v1/kv/b", &secret, "1").is_true());
    assert_eq!(put(leader, "/v1/kv/a", &secret, "1").status, 403);
    for at in &followers {
        let server = &group.servers[*at];
        wait_for("a follower that knows the new rules", || {
            let answer = put(server, "/v1/kv/b", &secret, "1");
            check(answer.is_true(), || answer.text())
        });
        assert_eq!(put(server, "/v1/kv/a", &secret, "1").status, 403);
    }
    // So does the end of the token.
    let path = format!("/v1/acl/token/{}", accessor(leader, &secret));
    assert!(delete(leader, &path, ROOT).is_true());
    assert_eq!(
        said(&get(leader, "/v1/kv/b", &secret)),
        (403, "ACL not found".into())
    );
    for at in &followers {
        let server = &group.servers[*at];
        wait_for("a follower that knows of the deletion", || {
            let answer = get(server, "/v1/kv/b?stale", &secret);
            check(said(&answer) == (403, "ACL not found".into()), || {
                answer.text()
            })
        });
    }
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

/// The native protocol shows no token: with ACLs on it would have been a way around them.
#[test]
fn native_clients_are_refused_by_name() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    let mut raw = Raw::introduced(server.server_address(), Role::Client);
    let command = wire::Command::Kv(KvCommand {
        verb: KvVerb::Set,
        key: b"a",
        value: b"1",
        flags: 0,
        index: 0,
        session: b"",
    });
    raw.send(&frame(FrameKind::Propose, 1, command.encode()));
    let answer = raw.next().expect("a connection").expect("an answer");
    let reply = Reply::decode(&answer.payload).expect("a reply");
    let ReplyBody::Failed(failure) = reply.body else {
        panic!("not refused: {reply:?}");
    };
    assert!(
        failure.message.contains("ACLs enabled"),
        "{}",
        failure.message
    );
    assert_eq!(get(server, "/v1/kv/a", ROOT).status, 404);
}

#[test]
fn a_wait_is_answered_by_the_rights_at_its_end() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    assert!(put(server, "/v1/kv/a", ROOT, "1").is_true());
    let secret = bearer(server, "p", "key \"a\" { policy = \"read\" }");
    let now = get(server, "/v1/kv/a", &secret);
    let path = with("/v1/kv/a", &secret);
    let path = format!("{path}&index={}", now.header("x-consul-index"));
    let http = server.http();
    let waiter = std::thread::spawn(move || http.get(&path).expect("an answer"));
    wait_for("a waiter", || {
        let all = get(server, "/v1/agent/metrics", ROOT).json();
        let gauges = all["Gauges"].as_array().unwrap().clone();
        let waiting = gauges
            .iter()
            .any(|g| g["Name"] == "curia.http.requests_waiting" && g["Value"] == 1.0);
        check(waiting, || "nobody waits".to_owned())
    });
    let id = accessor(server, &secret);
    assert!(delete(server, &format!("/v1/acl/token/{id}"), ROOT).is_true());
    assert!(put(server, "/v1/kv/a", ROOT, "2").is_true());
    assert_eq!(said(&waiter.join().unwrap()), (403, "ACL not found".into()));
}

#[test]
fn tokens_outlive_a_restart_and_so_does_their_refusal() {
    let mut group = guarded(1, json!({}));
    let secret = bearer(&group.servers[0], "p", "key \"a\" { policy = \"write\" }");
    group.servers[0].stop();
    group.start_all();
    group.wait_for_leader();
    let server = &group.servers[0];
    wait_for("a server that knows its tokens", || {
        let answer = put(server, "/v1/kv/a", &secret, "1");
        check(answer.is_true(), || answer.text())
    });
    assert_eq!(put(server, "/v1/kv/b", &secret, "1").status, 403);
    let policies = get(server, "/v1/acl/policies", ROOT).json();
    assert_eq!(
        policies.as_array().unwrap().len(),
        3,
        "built-in ones are made once"
    );
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
    let service = |name: &str, id: &str| json!({"Node": "n1", "SkipNodeUpdate": true, "Service": {"Service": name, "ID": id}});
    for (token, body, expected) in [
        (&web, service("web", "web-2"), &done),
        (&web, service("db", "db-2"), &of_db),
        // Another's place is not taken by giving it one's own name.
        (&web, service("web", "db-1"), &of_db),
        (&web, json!({"Node": "n1", "Address": "10.9.9.9"}), &of_n1),
        (&n1, json!({"Node": "n1", "Address": "10.0.0.1"}), &done),
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
    assert_eq!(all(&list, &["ID"]), [own.clone()]);
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

//! Where do rights come from? Are ACLs off by default; are tokens, policies and roles kept as Consul
//! keeps them; and do all servers know of every change?
//!
//! Real servers over HTTP, configured by a file, as users do.

mod cluster;

use cluster::{
    acl::{
        ROOT, accessor, anonymous_lacks, bearer, configured, delete, get, guarded, lacks, policy,
        put, said, token, with,
    },
    check,
    frames::{Raw, frame},
    group::Group,
    wait_for,
};
use engine::{
    fsm::{acl::TokenSet, records::RecordOp},
    state::records::AclToken,
};
use serde_json::{Value, json};
use wire::{FrameKind, KvCommand, KvVerb, Reply, ReplyBody, Role};

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
    // In the first moments of the leader: the policies may be still to come.
    let answer = put(server, "/v1/acl/bootstrap", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let made = answer.json();
    assert_eq!(made["ID"], made["SecretID"]);
    assert_eq!(made["Description"], "Bootstrap Token (Global Management)");
    assert_eq!(made["Policies"][0]["Name"], "global-management");
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
    let method = said(&put(server, "/v1/acl/auth-method", "", "{}"));
    assert_eq!(method.0, 500);
    let why = method.1;
    assert!(why.starts_with("auth methods are not supported"), "{why}");
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

/// A token that ends cannot be made to end soon over HTTP, so one that has ended comes from a time
/// when ACLs were off.
#[test]
fn tokens_that_have_ended_are_refused_and_deleted() {
    let mut group = Group::formed(1, &[]);
    let ended = "b0000000-0000-4000-8000-000000000001";
    let secret = "b0000000-0000-4000-8000-000000000002";
    let token = AclToken {
        accessor_id: ended.to_owned(),
        secret_id: secret.to_owned(),
        expiration_time: 1,
        ..AclToken::default()
    };
    let make = RecordOp::AclTokenSet(TokenSet {
        tokens: vec![token],
        create: true,
        cas: false,
        now_ns: 0,
    });
    let mut raw = Raw::introduced(group.servers[0].server_address(), Role::Client);
    raw.send(&frame(FrameKind::Propose, 1, make.encode()));
    let answer = raw.next().expect("a connection").expect("an answer");
    let reply = Reply::decode(&answer.payload).expect("a reply");
    assert!(
        matches!(reply.body, ReplyBody::Written { ok: true, .. }),
        "{reply:?}"
    );
    drop(raw);
    group.servers[0].stop();
    let config = json!({"acl": {"enabled": true, "tokens": {"initial_management": ROOT}}});
    let file = group.home().join("config.json");
    std::fs::write(&file, config.to_string()).expect("the test's directory is writable");
    let flag = format!("-config-file={}", file.display());
    group.servers[0].flags.push(flag);
    group.start_all();
    group.wait_for_leader();
    let server = &group.servers[0];
    wait_for("its deletion", || {
        assert_eq!(
            get(server, "/v1/kv/a", secret).status,
            403,
            "it ended long ago"
        );
        let log = server.log_text();
        check(log.contains("deleted tokens that have ended: 1"), || {
            "not yet".to_owned()
        })
    });
    let all = get(server, "/v1/acl/tokens", ROOT).json();
    let mut all = all.as_array().unwrap().iter();
    assert!(all.all(|token| token["AccessorID"] != ended));
}

// ---------------------------------------------------------------------- the server's own tokens

fn set_own(
    server: &cluster::server::Server,
    name: &str,
    token: &str,
    secret: &str,
) -> (u16, String) {
    let body = json!({ "Token": secret }).to_string();
    said(&put(
        server,
        &format!("/v1/agent/token/{name}"),
        token,
        body,
    ))
}

#[test]
fn the_servers_own_tokens_change_while_it_runs_under_old_and_new_names() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    let done = (200, String::new());
    let reads = |wanted: u16| assert_eq!(get(server, "/v1/kv/a", "").status, wanted);
    assert!(put(server, "/v1/kv/a", ROOT, "1").is_true());
    reads(403);
    for name in ["default", "acl_token"] {
        assert_eq!(set_own(server, name, ROOT, ROOT), done);
        reads(200);
        assert_eq!(set_own(server, name, ROOT, ""), done);
        reads(403);
    }
    let recovery = "b1b2c3d4-0000-4000-8000-000000000002";
    for name in ["agent_recovery", "agent_master", "acl_agent_master_token"] {
        assert_eq!(
            get(server, "/v1/agent/self", recovery).status,
            403,
            "{name}"
        );
        assert_eq!(set_own(server, name, ROOT, recovery), done);
        assert_eq!(
            get(server, "/v1/agent/self", recovery).status,
            200,
            "{name}"
        );
        assert_eq!(set_own(server, name, ROOT, ""), done);
    }
    for name in [
        "agent",
        "acl_agent_token",
        "replication",
        "acl_replication_token",
        "config_file_service_registration",
        "dns",
    ] {
        assert_eq!(set_own(server, name, ROOT, "x"), done, "{name}");
    }
    assert!(
        !server.data.join("acl-tokens.json").exists(),
        "nobody asked for it"
    );
}

#[test]
fn tokens_of_the_server_that_cannot_be_set_are_refused_in_consuls_words() {
    let group = guarded(1, json!({}));
    let server = &group.servers[0];
    assert_eq!(
        set_own(server, "made-up", ROOT, "x"),
        (404, "Token \"made-up\" is unknown".into())
    );
    let reader = bearer(server, "reader", "agent \"s1\" { policy = \"read\" }");
    assert_eq!(
        set_own(server, "default", &reader, "x"),
        lacks(server, &reader, "'agent:write' on \"s1\"")
    );
    for (body, why) in [
        ("", "Request decode failed: "),
        ("[]", "Request decode failed: "),
        ("{\"Token\": 1}", "Request decode failed: "),
    ] {
        let (status, text) = said(&put(server, "/v1/agent/token/default", ROOT, body));
        assert_eq!(status, 400, "{body}: {text}");
        assert!(text.starts_with(why), "{body}: {text}");
    }
    let long = "x".repeat(513);
    let (status, why) = set_own(server, "default", ROOT, &long);
    assert_eq!((status, &why[..18]), (400, "Token of 513 bytes"));
    assert_eq!(get(server, "/v1/agent/token/default", ROOT).status, 405);
    let group = Group::formed(1, &[]);
    assert_eq!(
        set_own(&group.servers[0], "default", "", "x"),
        (401, "ACL support disabled".into())
    );
}

#[test]
fn the_servers_own_tokens_are_kept_where_the_configuration_says_so() {
    let mut group = guarded(1, json!({"enable_token_persistence": true}));
    let server = &group.servers[0];
    assert!(put(server, "/v1/kv/a", ROOT, "1").is_true());
    assert_eq!(set_own(server, "default", ROOT, ROOT).0, 200);
    let file = server.data.join("acl-tokens.json");
    let text = std::fs::read_to_string(&file).expect("it is kept");
    assert!(text.contains("\"Version\":1"), "{text}");
    group.servers[0].kill();
    group.servers[0].start();
    group.wait_for_leader();
    let server = &group.servers[0];
    wait_for("its own token counts after a kill", || {
        let answer = server
            .http()
            .get("/v1/kv/a")
            .map_err(|why| format!("{why:?}"))?;
        check(answer.status == 200, || answer.text())
    });
    group.servers[0].stop();
    std::fs::write(&file, "{").unwrap();
    let (status, log) = group.servers[0].run_to_its_end();
    assert!(!status.success());
    assert!(
        log.contains("acl-tokens.json: it is not what was written"),
        "{log}"
    );
}

/// The catalog is told with tokens, as they are when it is told. One that comes later counts at
/// once; one that was deleted registers nothing any more.
#[test]
fn the_catalog_is_told_what_the_tokens_of_that_time_allow() {
    let acl = json!({"enabled": true, "default_policy": "deny",
        "tokens": {"initial_management": ROOT}});
    let group = configured(
        1,
        &json!({"acl": acl, "service": {"name": "of-a-file", "port": 1}}),
    );
    let server = &group.servers[0];
    let shown = |path: &str| {
        let answer = server.http().get(&with(path, ROOT));
        let answer = answer.map_err(|why| format!("{why:?}"))?;
        check(answer.status == 200, || answer.text())?;
        Ok::<Value, String>(answer.json())
    };
    wait_for("the leader registers its node", || {
        let node = shown("/v1/catalog/node/s1")?;
        check(node["Services"]["consul"].is_object(), || node.to_string())
    });
    server.wait_for_log("Node info update blocked by ACLs");
    server.wait_for_log("Service registration blocked by ACLs");
    let node = shown("/v1/catalog/node/s1").unwrap();
    assert!(node["Services"]["of-a-file"].is_null(), "{node}");
    assert!(
        node["Node"]["TaggedAddresses"]["lan_ipv4"].is_null(),
        "{node}"
    );

    let done = (200, String::new());
    assert_eq!(set_own(server, "agent", ROOT, ROOT), done);
    wait_for("the agent's token counts at once", || {
        let node = shown("/v1/catalog/node/s1")?;
        let address = &node["Node"]["TaggedAddresses"]["lan_ipv4"];
        check(address.is_string(), || node.to_string())
    });
    let name = "config_file_service_registration";
    assert_eq!(set_own(server, name, ROOT, ROOT), done);
    wait_for("so does the one for files", || {
        let node = shown("/v1/catalog/node/s1")?;
        check(node["Services"]["of-a-file"].is_object(), || {
            node.to_string()
        })
    });

    let owner = bearer(server, "owner", "service \"web\" { policy = \"write\" }");
    let body = json!({"Name": "web", "Check": {"TTL": "1h"}}).to_string();
    let made = put(server, "/v1/agent/service/register", &owner, body);
    assert_eq!(made.status, 200, "{}", made.text());
    let status = || {
        let rows = shown("/v1/health/checks/web")?;
        Ok::<Value, String>(rows[0]["Status"].clone())
    };
    wait_for("its owner's token counts", || {
        let status = status()?;
        check(status == "critical", || status.to_string())
    });
    let id = accessor(server, &owner);
    assert!(delete(server, &format!("/v1/acl/token/{id}"), ROOT).is_true());
    let passed = put(server, "/v1/agent/check/pass/service:web", ROOT, "");
    assert_eq!(passed.status, 200);
    server.wait_for_log("Check registration blocked by ACLs");
    assert_eq!(status().unwrap(), "critical");
}

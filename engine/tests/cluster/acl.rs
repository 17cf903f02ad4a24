//! How are servers with ACLs on started, and asked with a token?

use serde_json::{Value, json};

use super::{check, group::Group, http::Answer, server::Server, wait_for};

/// The initial management token of [`guarded`] servers.
pub const ROOT: &str = "a1b2c3d4-0000-4000-8000-000000000001";

/// A group with ACLs on, nothing allowed by default, and [`ROOT`] for everything.
pub fn guarded(size: usize, more: Value) -> Group {
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

pub fn configured(size: usize, config: &Value) -> Group {
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

pub fn with(path: &str, token: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}token={token}")
}

pub fn get(server: &Server, path: &str, token: &str) -> Answer {
    server.http().get(&with(path, token)).expect("an answer")
}

pub fn put(server: &Server, path: &str, token: &str, body: impl AsRef<[u8]>) -> Answer {
    let path = with(path, token);
    server.http().put(&path, body.as_ref()).expect("an answer")
}

pub fn post(server: &Server, path: &str, token: &str, body: impl AsRef<[u8]>) -> Answer {
    let path = with(path, token);
    server.http().post(&path, body.as_ref()).expect("an answer")
}

pub fn delete(server: &Server, path: &str, token: &str) -> Answer {
    server.http().delete(&with(path, token)).expect("an answer")
}

pub fn said(answer: &Answer) -> (u16, String) {
    (answer.status, answer.text())
}

/// A policy with these rules; its id.
pub fn policy(server: &Server, name: &str, rules: &str) -> String {
    let body = json!({"Name": name, "Rules": rules}).to_string();
    let made = put(server, "/v1/acl/policy", ROOT, body);
    assert_eq!(made.status, 200, "{}", made.text());
    made.json()["ID"].as_str().expect("an id").to_owned()
}

/// A token as it is answered.
pub fn token(server: &Server, body: Value) -> Value {
    let made = put(server, "/v1/acl/token", ROOT, body.to_string());
    assert_eq!(made.status, 200, "{}", made.text());
    made.json()
}

/// The secret of a new token with these rules.
pub fn bearer(server: &Server, name: &str, rules: &str) -> String {
    policy(server, name, rules);
    let made = token(server, json!({"Policies": [{"Name": name}]}));
    made["SecretID"].as_str().expect("a secret").to_owned()
}

pub fn accessor(server: &Server, secret: &str) -> String {
    let own = get(server, "/v1/acl/token/self", secret).json();
    own["AccessorID"].as_str().expect("an id").to_owned()
}

pub fn lacks(server: &Server, secret: &str, what: &str) -> (u16, String) {
    let id = accessor(server, secret);
    let why = format!("Permission denied: token with AccessorID '{id}' lacks permission {what}");
    (403, why)
}

pub fn anonymous_lacks(what: &str) -> (u16, String) {
    let why = format!(
        "Permission denied: anonymous token lacks permission {what}. The anonymous token is used \
         implicitly when a request does not specify a token."
    );
    (403, why)
}

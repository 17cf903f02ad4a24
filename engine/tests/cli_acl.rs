//! `curia acl` against a real server with ACLs on: texts, and what a token may do.

mod cli_support;
mod cluster;

use cli_support::Dev;

/// The value of a line `Name:   value`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .trim()
}

#[test]
fn tokens_policies_and_roles() {
    let dev = Dev::start_with_acls();
    let bootstrap = dev.run(&["acl", "bootstrap"]);
    assert_eq!(bootstrap.code, Some(0), "{}", bootstrap.err);
    let secret = field(&bootstrap.out, "SecretID").to_owned();
    assert!(
        bootstrap
            .out
            .contains("Policies:\n   00000000-0000-0000-0000-000000000001 - global-management\n"),
        "{bootstrap:?}"
    );
    let again = dev.run(&["acl", "bootstrap"]);
    assert!(
        again.err.starts_with(
            "Failed ACL bootstrapping: Unexpected response code: 403 (Permission denied: ACL bootstrap no longer allowed"
        ),
        "{}",
        again.err
    );
    let as_who = |secret: &str, args: &[&str]| {
        let mut command = dev.command(args);
        command.env("CONSUL_HTTP_TOKEN", secret);
        cli_support::finish(command, "")
    };
    let run = |args: &[&str]| as_who(&secret, args);

    let rules = "-rules=key_prefix \"web/\" { policy = \"write\" }";
    let policy = run(&[
        "acl",
        "policy",
        "create",
        "-name=web",
        "-description=d",
        rules,
    ]);
    let id = field(&policy.out, "ID").to_owned();
    policy.says(&format!(
        "ID:           {id}\nName:         web\nDescription:  d\nDatacenters:  \n\
         Rules:\nkey_prefix \"web/\" {{ policy = \"write\" }}\n"
    ));
    assert_eq!(run(&["acl", "policy", "read", "-name=web"]).out, policy.out);
    assert_eq!(
        run(&["acl", "policy", "read", "-id", &id[..8]]).out,
        policy.out
    );
    assert!(run(&["acl", "policy", "list"]).out.contains(&format!(
        "web:\n   ID:           {id}\n   Description:  d\n   Datacenters:"
    )));
    let updated = run(&["acl", "policy", "update", "-name=web", "-description=e"]);
    assert!(
        updated.out.starts_with("Policy updated successfully\nID: "),
        "{updated:?}"
    );
    assert!(updated.out.contains("Description:  e\n") && updated.out.contains("web/"));
    run(&["acl", "policy", "create"]).fails("Missing require '-name' flag");

    let role = run(&["acl", "role", "create", "-name=r", "-policy-name=web"]);
    let role_id = field(&role.out, "ID").to_owned();
    role.says(&format!(
        "ID:           {role_id}\nName:         r\nDescription:  \nPolicies:\n   {id} - web\n"
    ));
    let role = run(&[
        "acl",
        "role",
        "update",
        "-name=r",
        "-service-identity=db:dc1",
    ]);
    assert!(
        role.out.ends_with(&format!(
            "Policies:\n   {id} - web\nService Identities:\n   db (Datacenters: dc1)\n"
        )),
        "{role:?}"
    );

    run(&["acl", "token", "create"]).fails(
        "Cannot create a token without specifying -policy-name, -policy-id, -role-name, -role-id, \
         -service-identity, or -node-identity at least once",
    );
    let token = run(&["acl", "token", "create", "-description=t", "-role-name=r"]);
    let accessor = field(&token.out, "AccessorID").to_owned();
    let theirs = field(&token.out, "SecretID").to_owned();
    assert!(
        token.out.ends_with(&format!("Roles:\n   {role_id} - r\n")),
        "{token:?}"
    );
    as_who(&theirs, &["kv", "put", "web/a", "1"]).says("Success! Data written to: web/a\n");
    let denied = as_who(&theirs, &["kv", "put", "other", "1"]);
    assert!(
        denied.err.starts_with(
            "Error! Failed writing data: Unexpected response code: 403 (Permission denied: "
        ),
        "{}",
        denied.err
    );
    assert_eq!(
        as_who(&theirs, &["acl", "token", "read", "-self"]).out,
        token.out
    );
    let updated = run(&[
        "acl",
        "token",
        "update",
        "-id",
        &accessor[..9],
        "-append-policy-name=global-management",
    ]);
    assert!(
        updated
            .out
            .starts_with("Token updated successfully.\nAccessorID: "),
        "{updated:?}"
    );
    as_who(&theirs, &["kv", "put", "other", "1"]).says("Success! Data written to: other\n");
    let json = run(&["acl", "token", "list", "-format=json"]).out;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json)
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let clone = run(&[
        "acl",
        "token",
        "clone",
        "-accessor-id",
        &accessor,
        "-description=two",
    ]);
    assert!(
        clone.out.starts_with("Token cloned successfully.\n"),
        "{clone:?}"
    );
    assert!(clone.out.contains("Description:      two\n"));

    run(&["acl", "token", "delete", "-accessor-id", &accessor])
        .says(&format!("Token \"{accessor}\" deleted successfully\n"));
    run(&["acl", "role", "delete", "-name=r"])
        .says(&format!("Role \"{role_id}\" deleted successfully\n"));
    run(&["acl", "policy", "delete", "-id", &id])
        .says(&format!("Policy \"{id}\" deleted successfully\n"));
    assert_eq!(run(&["acl", "policy", "read", "-name=web"]).code, Some(1));
    let denied = dev.run(&["acl", "token", "list"]);
    assert!(
        denied.err.starts_with(
            "Failed to retrieve the token list: Unexpected response code: 403 (Permission denied: "
        ),
        "{}",
        denied.err
    );
}

#[test]
fn the_servers_own_tokens_are_set() {
    let dev = Dev::start_with_acls();
    let made = dev.run(&["acl", "bootstrap", "-format=json"]);
    let made: serde_json::Value = serde_json::from_str(&made.out).expect("a token");
    let root = format!("-token={}", made["SecretID"].as_str().unwrap());
    for kind in [
        "agent",
        "default",
        "dns",
        "recovery",
        "replication",
        "master",
    ] {
        // Each another one: the recovery token may set tokens.
        dev.run(&[
            "acl",
            "set-agent-token",
            &root,
            kind,
            &format!("for-{kind}"),
        ])
        .says(&format!("ACL token \"{kind}\" set successfully\n"));
    }
    let unknown = dev.run(&["acl", "set-agent-token", &root, "made-up", "x"]);
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown.err.starts_with("Error: Unknown token type"),
        "{}",
        unknown.err
    );
    let denied = dev.run(&["acl", "set-agent-token", "default", "x"]);
    let why = "Failed to set agent token \"default\": Unexpected response code: 403 (";
    assert!(denied.err.starts_with(why), "{}", denied.err);
}

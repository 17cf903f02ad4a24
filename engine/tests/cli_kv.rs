//! The `curia` binary as a client: outputs, errors and exit codes are Consul's.

mod http_support;

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use http_support::{Server, fake::failure};
use tempfile::TempDir;
use wire::FailureKind;

struct Outcome {
    ok: bool,
    out: String,
    err: String,
}

fn curia_with(env: &[(&str, &str)], stdin: &str, args: &[&str]) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_curia"))
        .args(args)
        .env_remove("CONSUL_HTTP_ADDR")
        .env_remove("CONSUL_HTTP_TOKEN")
        .env_remove("CONSUL_HTTP_SSL")
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().unwrap();
    assert!(code == 0 || code == 1, "exit code {code}");
    Outcome {
        ok: code == 0,
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the binary against `server`.
fn curia(server: &Server, args: &[&str]) -> Outcome {
    curia_with(
        &[("CONSUL_HTTP_ADDR", &server.address.to_string())],
        "",
        args,
    )
}

#[track_caller]
fn says(outcome: &Outcome, out: &str) {
    assert_eq!((outcome.ok, &*outcome.out, &*outcome.err), (true, out, ""));
}

#[track_caller]
fn fails(outcome: &Outcome, err: &str) {
    assert_eq!(
        (outcome.ok, &*outcome.out, outcome.err.trim_end()),
        (false, "", err)
    );
}

#[test]
fn put_get_and_delete() {
    let server = Server::start();
    says(
        &curia(&server, &["kv", "put", "app/colour", "blue"]),
        "Success! Data written to: app/colour\n",
    );
    says(&curia(&server, &["kv", "get", "app/colour"]), "blue\n");
    says(&curia(&server, &["kv", "get", "/app/colour"]), "blue\n");
    says(
        &curia(&server, &["kv", "get", "-base64", "app/colour"]),
        "Ymx1ZQ==\n",
    );
    says(
        &curia(&server, &["kv", "delete", "app/colour"]),
        "Success! Deleted key: app/colour\n",
    );
    fails(
        &curia(&server, &["kv", "get", "app/colour"]),
        "Error! No key exists at: app/colour",
    );
    says(
        &curia(&server, &["kv", "put", "negative", "-5"]),
        "Success! Data written to: negative\n",
    );
    says(&curia(&server, &["kv", "get", "negative"]), "-5\n");
    says(
        &curia(&server, &["kv", "put", "empty"]),
        "Success! Data written to: empty\n",
    );
    says(&curia(&server, &["kv", "get", "empty"]), "\n");
    says(
        &curia(&server, &["kv", "put", "a//b c?", "odd"]),
        "Success! Data written to: a//b c?\n",
    );
    says(&curia(&server, &["kv", "get", "a//b c?"]), "odd\n");
}

#[test]
fn data_comes_from_arguments_files_and_standard_input() {
    let server = Server::start();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("value");
    fs::write(&path, "from a file").unwrap();
    assert!(
        curia(
            &server,
            &["kv", "put", "f", &format!("@{}", path.display())]
        )
        .ok
    );
    says(&curia(&server, &["kv", "get", "f"]), "from a file\n");
    let address = server.address.to_string();
    let piped = curia_with(
        &[],
        "from a pipe",
        &["kv", "put", "-http-addr", &address, "p", "-"],
    );
    says(&piped, "Success! Data written to: p\n");
    says(&curia(&server, &["kv", "get", "p"]), "from a pipe\n");
    assert!(curia(&server, &["kv", "put", "-base64", "b", "aGVsbG8="]).ok);
    says(&curia(&server, &["kv", "get", "b"]), "hello\n");
    let missing = curia(&server, &["kv", "put", "f", "@/nonexistent"]);
    fails(
        &missing,
        "Error! Failed to read file /nonexistent: No such file or directory (os error 2)",
    );
    assert!(
        curia(&server, &["kv", "put", "-base64", "b", "!"])
            .err
            .starts_with("Error! Cannot base64 decode data")
    );
}

#[test]
fn details_and_listings() {
    let server = Server::start();
    for key in ["dir/a", "dir/sub/b", "other"] {
        assert!(curia(&server, &["kv", "put", "-flags=7", key, key]).ok);
    }
    says(
        &curia(&server, &["kv", "get", "-detailed", "dir/a"]),
        "CreateIndex      11\nFlags            7\nKey              dir/a\nLockIndex        0\n\
         ModifyIndex      11\nSession          -\nValue            dir/a\n",
    );
    says(
        &curia(&server, &["kv", "get", "-recurse", "dir"]),
        "dir/a:dir/a\ndir/sub/b:dir/sub/b\n",
    );
    says(
        &curia(&server, &["kv", "get", "-keys", "dir/"]),
        "dir/a\ndir/sub/\n",
    );
    says(
        &curia(&server, &["kv", "get", "-keys", "-separator="]),
        "dir/a\ndir/sub/b\nother\n",
    );
    says(&curia(&server, &["kv", "get", "-recurse", "nothing"]), "");
    let detailed = curia(&server, &["kv", "get", "-recurse", "-detailed", "dir"]);
    assert_eq!(detailed.out.matches("\n\nCreateIndex").count(), 1);
    says(
        &curia(&server, &["kv", "delete", "-recurse", "dir"]),
        "Success! Deleted keys with prefix: dir\n",
    );
    says(&curia(&server, &["kv", "get", "-keys"]), "other\n");
}

#[test]
fn compare_and_set() {
    let server = Server::start();
    says(
        &curia(&server, &["kv", "put", "-cas", "k", "1"]),
        "Success! Data written to: k\n",
    );
    fails(
        &curia(
            &server,
            &["kv", "put", "-cas", "-modify-index=99", "k", "2"],
        ),
        "Error! Did not write to k: CAS failed",
    );
    says(
        &curia(
            &server,
            &["kv", "put", "-cas", "-modify-index=11", "k", "2"],
        ),
        "Success! Data written to: k\n",
    );
    fails(
        &curia(&server, &["kv", "delete", "-cas", "-modify-index=1", "k"]),
        "Error! Did not delete key k: CAS failed",
    );
    says(
        &curia(&server, &["kv", "delete", "-cas", "-modify-index=13", "k"]),
        "Success! Deleted key: k\n",
    );
}

#[test]
fn locks() {
    let session = "11111111-1111-1111-1111-111111111111";
    let server = Server::with(Default::default(), |state| {
        state.sessions.insert(session.into());
    });
    let held = format!("-session={session}");
    says(
        &curia(&server, &["kv", "put", "-acquire", &held, "l", "x"]),
        "Success! Lock acquired on: l\n",
    );
    says(
        &curia(&server, &["kv", "put", "-release", &held, "l", "x"]),
        "Success! Lock released on: l\n",
    );
    fails(
        &curia(&server, &["kv", "put", "-release", &held, "l", "x"]),
        "Error! Did not release lock",
    );
}

#[test]
fn mistakes_are_named_and_exit_1() {
    let server = Server::start();
    for (args, err) in [
        (&["kv", "get"][..], "Error! Missing KEY argument"),
        (&["kv", "get", "/"], "Error! Missing KEY argument"),
        (
            &["kv", "get", "a", "-recurse"],
            "Error! Too many arguments (expected 1, got 2); flags come before KEY",
        ),
        (&["kv", "put"], "Error! Missing KEY argument"),
        (
            &["kv", "put", "a", "b", "c"],
            "Error! Too many arguments (expected 1 or 2, got 3)",
        ),
        (
            &["kv", "put", "-modify-index=5", "a", "b"],
            "Error! Cannot specify -modify-index without -cas",
        ),
        (
            &["kv", "put", "-flags=x", "a", "b"],
            "Error! -flags=x: must be a whole number from 0",
        ),
        (
            &["kv", "put", "-acquire", "a", "b"],
            "Error! Missing -session (required with -acquire and -release)",
        ),
        (&["kv", "delete"], "Error! Missing KEY argument"),
        (&["kv", "delete", "-recurse"], "Error! Missing KEY argument"),
        (
            &["kv", "delete", "-cas", "a"],
            "Error! Must specify -modify-index with -cas",
        ),
        (
            &["kv", "delete", "-modify-index=1", "a"],
            "Error! Cannot specify -modify-index without -cas",
        ),
        (
            &["kv", "delete", "-cas", "-recurse", "-modify-index=1", "a"],
            "Error! Cannot specify both -cas and -recurse",
        ),
        (
            &["kv", "gte", "a"],
            "Error: unknown command \"gte\" of `curia kv`: did you mean get?; see curia kv -help",
        ),
        (
            &["kv", "get", "-recruse", "a"],
            "Error: unknown flag -recruse of `curia kv get` (did you mean -recurse?); see curia kv get -help",
        ),
        (
            &["kv", "get", "-http-addr=https://a:1", "a"],
            "Error: -http-addr (CONSUL_HTTP_ADDR) \"https://a:1\": HTTPS is not supported yet: give HOST:PORT, http://HOST:PORT or unix://PATH",
        ),
        (
            &["log", "repair", "/nonexistent"],
            "Error: /nonexistent does not exist: name a server's data directory, or the folder of a log in it",
        ),
    ] {
        fails(&curia(&server, args), err);
    }
    assert_eq!(server.state().writes, 0);
}

#[test]
fn a_servers_refusal_is_passed_on() {
    let server = Server::start();
    server.state().failure = Some(failure(FailureKind::NoLeader, ""));
    let why = "Unexpected response code: 500 (No cluster leader)";
    fails(
        &curia(&server, &["kv", "get", "a"]),
        &format!("Error querying curia agent: {why}"),
    );
    fails(
        &curia(&server, &["kv", "put", "a", "b"]),
        &format!("Error! Failed writing data: {why}"),
    );
    fails(
        &curia(&server, &["kv", "delete", "a"]),
        &format!("Error! Did not delete key a: {why}"),
    );
    fails(
        &curia(&server, &["operator", "raft", "list-peers"]),
        &format!("Error getting peers: {why}"),
    );
}

#[test]
fn no_server_is_said_with_the_address_and_what_to_do() {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let outcome = curia_with(&[], "", &["kv", "get", "-http-addr", &address, "a"]);
    assert!(!outcome.ok);
    for part in [
        &*format!("http://{address}"),
        "-http-addr=HOST:PORT",
        "CONSUL_HTTP_ADDR",
        "curia agent -dev",
    ] {
        assert!(outcome.err.contains(part), "{}", outcome.err);
    }
}

#[test]
fn peers_are_listed() {
    let server = Server::start();
    let outcome = curia(&server, &["operator", "raft", "list-peers"]);
    let first: Vec<_> = outcome
        .out
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(
        first,
        ["Node", "ID", "Address", "State", "Voter", "RaftProtocol"]
    );
    assert!(
        outcome
            .out
            .lines()
            .nth(1)
            .unwrap()
            .ends_with("127.0.0.2:8300  leader    true   3")
    );
    server.state().failure = Some(failure(FailureKind::NoLeader, ""));
    assert!(curia(&server, &["operator", "raft", "list-peers", "-stale"]).ok);
}

#[test]
fn version_and_help() {
    let version = curia_with(&[], "", &["version"]);
    assert!(
        version.ok && version.out.starts_with("curia v"),
        "{}",
        version.out
    );
    for args in [&["-version"][..], &["--version"], &["-v"]] {
        assert_eq!(curia_with(&[], "", args).out, version.out);
    }
    for args in [
        &["-help"][..],
        &["agent", "-help"],
        &["kv", "put", "--help"],
        &["kv", "-h"],
    ] {
        let help = curia_with(&[], "", args);
        assert!(
            help.ok && help.out.contains("Usage: curia"),
            "{args:?}: {}",
            help.out
        );
    }
    let nothing = curia_with(&[], "", &[]);
    assert!(!nothing.ok && nothing.err.contains("Usage: curia"));
}

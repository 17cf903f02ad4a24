//! `/v1/kv/<key>` over real sockets: shapes, headers, semantics and errors are Consul's.
//!
//! Names that start with `gotcha_` are numbered after the checklist of Consul's behaviour.

mod http_support;

use http_support::{Response, Server, fake::failure};
use serde_json::json;
use wire::{FailureKind, QueryBody, ReadMode};

const JSON: Option<&str> = Some("application/json");
const TEXT: Option<&str> = Some("text/plain; charset=utf-8");

fn indexes(response: &Response) -> [Option<&str>; 3] {
    [
        "X-Consul-Index",
        "X-Consul-Knownleader",
        "X-Consul-Lastcontact",
    ]
    .map(|name| response.header(name))
}

#[test]
fn a_key_is_written_read_and_deleted() {
    let server = Server::start();
    let put = server.put("/v1/kv/app/colour?flags=42", "blue");
    assert_eq!(put.outcome(), (200, "true"));
    assert_eq!(put.header("Content-Type"), JSON);
    assert_eq!(put.header("X-Consul-Index"), Some("11"));
    assert_eq!(put.header("X-Consul-Default-Acl-Policy"), Some("allow"));
    assert_eq!(put.header("Vary"), Some("Accept-Encoding"));

    let get = server.get("/v1/kv/app/colour");
    assert_eq!(
        get.outcome(),
        (
            200,
            r#"[{"LockIndex":0,"Key":"app/colour","Flags":42,"Value":"Ymx1ZQ==","CreateIndex":11,"ModifyIndex":11}]"#
        )
    );
    assert_eq!(get.header("Content-Type"), JSON);
    assert_eq!(indexes(&get), [Some("11"), Some("true"), Some("0")]);

    assert_eq!(server.delete("/v1/kv/app/colour").outcome(), (200, "true"));
    assert_eq!(server.delete("/v1/kv/app/colour").outcome(), (200, "true"));
    assert_eq!(server.get("/v1/kv/app/colour").status, 404);
}

#[test]
fn a_raw_value_is_guarded_against_browsers() {
    let server = Server::start();
    server.put("/v1/kv/bytes", [0, 255, b'<', b'\n']);
    let raw = server.get("/v1/kv/bytes?raw");
    assert_eq!(
        (raw.status, &raw.body[..]),
        (200, &[0, 255, b'<', b'\n'][..])
    );
    assert_eq!(raw.header("Content-Type"), Some("text/plain"));
    assert_eq!(raw.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(raw.header("Content-Security-Policy"), Some("sandbox"));
    assert_eq!(raw.header("Content-Length"), Some("4"));
    assert_eq!(indexes(&raw), [Some("11"), Some("true"), Some("0")]);

    server.put("/v1/kv/bytes2", "x");
    assert_eq!(
        server
            .get("/v1/kv/bytes?recurse&raw")
            .header("Content-Type"),
        JSON
    );
    assert_eq!(
        server.get("/v1/kv/bytes2?recurse&raw").outcome(),
        (200, "x")
    );
}

#[test]
fn an_empty_value_is_null_and_an_empty_raw_body() {
    let server = Server::start();
    server.put("/v1/kv/empty", "");
    assert!(
        server
            .get("/v1/kv/empty")
            .text()
            .contains(r#""Value":null,"#)
    );
    assert_eq!(server.get("/v1/kv/empty?raw").outcome(), (200, ""));
}

#[test]
fn answers_are_indented_when_asked_for_and_in_dev_mode() {
    let server = Server::start();
    assert_eq!(server.put("/v1/kv/a?pretty", "b").text(), "true\n");
    let pretty = server.get("/v1/kv/a?pretty");
    assert!(
        pretty
            .text()
            .starts_with("[\n    {\n        \"LockIndex\": 0,\n"),
        "{}",
        pretty.text()
    );
    assert!(pretty.text().ends_with("\n    }\n]\n"));
    assert_eq!(
        server.get("/v1/kv/?keys&pretty").text(),
        "[\n    \"a\"\n]\n"
    );

    let dev = Server::with(Default::default(), |state| state.info.dev_mode = true);
    assert_eq!(dev.put("/v1/kv/a", "b").text(), "true\n");
    assert_eq!(dev.get("/v1/kv/?keys").text(), "[\n    \"a\"\n]\n");
    assert_eq!(dev.get("/v1/status/leader").text(), "\"127.0.0.2:8300\"\n");
}

#[test]
fn recurse_and_keys_go_by_byte_prefix() {
    let server = Server::start();
    for key in ["dir/a", "dir/b/c", "dirx", "other"] {
        server.put(&format!("/v1/kv/{key}"), key);
    }
    let keys = |target: &str| server.get(target).json();
    assert_eq!(keys("/v1/kv/dir?keys"), json!(["dir/a", "dir/b/c", "dirx"]));
    assert_eq!(
        keys("/v1/kv/dir/?keys&separator=/"),
        json!(["dir/a", "dir/b/"])
    );
    assert_eq!(
        keys("/v1/kv/?keys&separator=/"),
        json!(["dir/", "dirx", "other"])
    );
    let rows = server.get("/v1/kv/dir?recurse");
    assert_eq!(indexes(&rows), [Some("13"), Some("true"), Some("0")]);
    let rows = rows.json();
    let names: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["Key"])
        .collect();
    assert_eq!(names, ["dir/a", "dir/b/c", "dirx"]);
    assert_eq!(
        server
            .get("/v1/kv/?recurse")
            .json()
            .as_array()
            .unwrap()
            .len(),
        4
    );
    let none = server.get("/v1/kv/zzz?recurse");
    assert_eq!(none.outcome(), (404, ""));
}

#[test]
fn cas_writes_only_what_was_read() {
    let server = Server::start();
    assert_eq!(server.put("/v1/kv/k?cas=5", "no").outcome(), (200, "false"));
    let created = server.put("/v1/kv/k?cas=0", "one");
    assert_eq!(created.outcome(), (200, "true"));
    assert_eq!(server.put("/v1/kv/k?cas=0", "no").outcome(), (200, "false"));
    let index = created.header("X-Consul-Index").unwrap();
    assert_eq!(
        server
            .put(&format!("/v1/kv/k?cas={index}"), "two")
            .outcome(),
        (200, "true")
    );
    assert_eq!(server.get("/v1/kv/k?raw").text(), "two");
    assert_eq!(
        server.delete(&format!("/v1/kv/k?cas={index}")).outcome(),
        (200, "false")
    );
    assert_eq!(server.delete("/v1/kv/k?cas=0").outcome(), (200, "false"));
}

#[test]
fn locks_are_acquired_and_released() {
    const A: &str = "11111111-1111-1111-1111-111111111111";
    const B: &str = "22222222-2222-2222-2222-222222222222";
    let server = Server::with(Default::default(), |state| {
        state.sessions.extend([A.to_string(), B.to_string()]);
    });
    assert_eq!(
        server.put(&format!("/v1/kv/l?acquire={A}"), "a").outcome(),
        (200, "true")
    );
    assert_eq!(
        server.put(&format!("/v1/kv/l?acquire={B}"), "b").outcome(),
        (200, "false")
    );
    let row = server.get("/v1/kv/l");
    assert!(
        row.text()
            .contains(&format!(r#""Value":"YQ==","Session":"{A}","CreateIndex""#)),
        "{}",
        row.text()
    );
    assert_eq!(row.json()[0]["LockIndex"], 1);
    assert_eq!(
        server.put(&format!("/v1/kv/l?release={B}"), "b").outcome(),
        (200, "false")
    );
    assert_eq!(
        server
            .put(&format!("/v1/kv/l?release={A}"), "left")
            .outcome(),
        (200, "true")
    );
    assert_eq!(server.get("/v1/kv/l").json()[0].get("Session"), None);
    assert_eq!(
        server
            .put("/v1/kv/l?acquire=33333333-3333-3333-3333-333333333333", "x")
            .outcome(),
        (
            500,
            "raft apply failed: invalid session \"33333333-3333-3333-3333-333333333333\""
        )
    );
    // SESSION_BYTES_MAX: no command can carry more.
    let long = "s".repeat(wire::limits::SESSION_BYTES_MAX + 1);
    let text = format!("raft apply failed: invalid session \"{long}\"");
    assert_eq!(
        server
            .put(&format!("/v1/kv/l?acquire={long}"), "x")
            .outcome(),
        (500, &*text)
    );
}

#[test]
fn gotcha_01_a_miss_is_404_with_an_empty_body_and_index_headers() {
    let server = Server::start();
    server.put("/v1/kv/other", "x");
    let miss = server.get("/v1/kv/none");
    assert_eq!(miss.outcome(), (404, ""));
    assert_eq!(indexes(&miss), [Some("11"), Some("true"), Some("0")]);
    assert_eq!(miss.header("Content-Length"), Some("0"));
    assert_eq!(server.get("/v1/kv/none?keys").outcome(), (404, ""));
    let empty = Server::start();
    assert_eq!(empty.get("/v1/kv/?keys").outcome(), (200, "[]"));
    assert_eq!(empty.get("/v1/kv/?recurse").outcome(), (404, ""));
}

#[test]
fn gotcha_02_an_identical_write_keeps_the_modify_index() {
    let server = Server::start();
    server.put("/v1/kv/k", "same");
    let again = server.put("/v1/kv/k", "same");
    assert_eq!(again.header("X-Consul-Index"), Some("12"));
    let row = server.get("/v1/kv/k");
    assert_eq!(row.header("X-Consul-Index"), Some("11"));
    assert_eq!(row.json()[0]["ModifyIndex"], 11);
}

#[test]
fn gotcha_03_a_plain_put_on_a_locked_key_keeps_the_session_and_zeroes_lock_index() {
    let session = "11111111-1111-1111-1111-111111111111";
    let server = Server::with(Default::default(), |state| {
        state.sessions.insert(session.into());
    });
    server.put(&format!("/v1/kv/l?acquire={session}"), "a");
    server.put("/v1/kv/l", "b");
    let row = server.get("/v1/kv/l").json();
    assert_eq!(
        (&row[0]["Session"], &row[0]["LockIndex"]),
        (&json!(session), &json!(0))
    );
}

#[test]
fn gotcha_05_cas_delete_of_a_missing_key_is_true() {
    assert_eq!(
        Server::start().delete("/v1/kv/none?cas=7").outcome(),
        (200, "true")
    );
}

#[test]
fn gotcha_06_delete_recurse_goes_by_byte_prefix() {
    let server = Server::start();
    for key in ["dir/a", "dirx", "di"] {
        server.put(&format!("/v1/kv/{key}"), "x");
    }
    assert_eq!(server.delete("/v1/kv/dir?recurse").outcome(), (200, "true"));
    assert_eq!(server.get("/v1/kv/?keys").json(), json!(["di"]));
    assert_eq!(server.delete("/v1/kv/?recurse").outcome(), (200, "true"));
    assert_eq!(server.get("/v1/kv/?keys").json(), json!([]));
}

#[test]
fn gotcha_07_unclean_paths_are_redirected() {
    let server = Server::start();
    for (target, location) in [
        ("/v1/kv//a", "/v1/kv/a"),
        ("/v1/kv/a//b?raw", "/v1/kv/a/b?raw"),
        ("/v1/kv/./a", "/v1/kv/a"),
        ("/v1/kv/x/../a", "/v1/kv/a"),
        ("/v1/kv", "/v1/kv/"),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let moved = server.client().request(method, target, &[], b"");
            assert_eq!(
                (moved.status, moved.header("Location")),
                (301, Some(location)),
                "{target}"
            );
        }
    }
    assert_eq!(server.state().writes, 0);
}

#[test]
fn gotcha_08_head_is_not_allowed_anywhere() {
    let server = Server::start();
    for (target, allow) in [
        ("/v1/kv/a", "OPTIONS,GET,PUT,DELETE"),
        ("/v1/status/leader", "OPTIONS,GET"),
        ("/v1/agent/self", "OPTIONS,GET"),
    ] {
        let head = server.client().request("HEAD", target, &[], b"");
        assert_eq!(
            (head.status, head.header("Allow")),
            (405, Some(allow)),
            "{target}"
        );
        let post = server.client().request("POST", target, &[], b"x");
        assert_eq!(post.outcome(), (405, "method POST not allowed"));
        assert_eq!(post.header("Allow"), Some(allow));
        let options = server.client().request("OPTIONS", target, &[], b"");
        assert_eq!(options.outcome(), (200, ""));
        assert_eq!(options.header("Allow"), Some(allow));
    }
}

#[test]
fn gotcha_15_a_body_over_the_limit_is_413_with_both_sizes() {
    let server = Server::start();
    let max = wire::limits::VALUE_BYTES_MAX;
    assert_eq!(
        server.put("/v1/kv/fits", vec![b'x'; max]).outcome(),
        (200, "true")
    );
    let mut client = server.client();
    let refused = client.put("/v1/kv/big", vec![b'x'; max + 1]);
    assert_eq!(
        refused.outcome(),
        (
            413,
            "Request body(524289 bytes) too large, max size: 524288 bytes. See \
             https://developer.hashicorp.com/docs/agent/config/config-files#kv_max_value_size."
        )
    );
    assert_eq!(refused.header("Connection"), Some("close"));
    assert!(client.is_closed());
    assert_eq!(server.get("/v1/kv/big").status, 404);
}

#[test]
fn gotcha_16_a_stale_read_without_a_leader_is_200_and_says_how_old_it_is() {
    let server = Server::start();
    server.put("/v1/kv/k", "v");
    {
        let mut state = server.state();
        state.failure = Some(failure(FailureKind::NoLeader, ""));
        state.known_leader = false;
        state.last_contact_ms = 9696;
    }
    let stale = server.get("/v1/kv/k?stale");
    assert_eq!(stale.status, 200);
    assert_eq!(indexes(&stale), [Some("11"), Some("false"), Some("9696")]);
    let stale = server.get("/v1/kv/k?max_stale=9696ms");
    assert_eq!(stale.status, 200);
    assert_eq!(
        server.get("/v1/kv/k?max_stale=9s").outcome(),
        (500, "No cluster leader")
    );
}

#[test]
fn gotcha_17_without_a_leader_everything_else_is_500() {
    let server = Server::start();
    server.state().failure = Some(failure(FailureKind::NoLeader, "waited 7 s"));
    for answer in [
        server.get("/v1/kv/k"),
        server.get("/v1/kv/k?consistent"),
        server.put("/v1/kv/k", "v"),
        server.delete("/v1/kv/k"),
    ] {
        assert_eq!(answer.outcome(), (500, "No cluster leader"));
    }
}

#[test]
fn gotcha_22_the_index_is_never_0() {
    let empty = Server::start();
    assert_eq!(empty.get("/v1/kv/none").header("X-Consul-Index"), Some("1"));
    assert_eq!(
        empty.get("/v1/kv/?keys").header("X-Consul-Index"),
        Some("1")
    );
}

#[test]
fn gotcha_24_seperator_is_understood() {
    let server = Server::start();
    server.put("/v1/kv/a-b-c", "x");
    assert_eq!(server.get("/v1/kv/?keys&seperator=-").json(), json!(["a-"]));
    let reads = &server.state().reads;
    assert!(matches!(&reads[0].1, QueryBody::KvKeys { separator, .. } if separator == "-"));
}

#[test]
fn gotcha_25_errors_are_plain_text_without_a_newline() {
    let server = Server::start();
    let refused = server.get("/v1/kv/");
    assert_eq!(refused.outcome(), (400, "Missing key name"));
    assert_eq!(refused.header("Content-Type"), TEXT);
}

#[test]
fn gotcha_26_kv_answers_have_no_effective_consistency() {
    let server = Server::start();
    server.put("/v1/kv/k", "v");
    for target in [
        "/v1/kv/k",
        "/v1/kv/k?stale",
        "/v1/kv/k?consistent",
        "/v1/kv/none",
    ] {
        assert_eq!(
            server.get(target).header("X-Consul-Effective-Consistency"),
            None
        );
    }
}

#[test]
fn gotcha_29_an_unknown_outcome_is_not_a_known_failure() {
    let server = Server::start();
    server.state().failure_after = Some(failure(FailureKind::OutcomeUnknown, "lost"));
    let answer = server.put("/v1/kv/k", "v");
    assert_eq!(
        answer.outcome(),
        (
            500,
            "raft apply failed: leadership lost while committing log"
        )
    );
    assert_eq!(server.get("/v1/kv/k?raw").text(), "v");
}

#[test]
fn modes_reach_the_gateway() {
    let server = Server::start();
    for target in [
        "/v1/kv/k",
        "/v1/kv/k?leader",
        "/v1/kv/k?consistent",
        "/v1/kv/k?stale",
        "/v1/kv/k?max_stale=5s",
        "/v1/kv/k?index=5&wait=10ms",
    ] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    let modes: Vec<_> = server.state().reads.iter().map(|(mode, _)| *mode).collect();
    use ReadMode::*;
    assert_eq!(modes, [Default, Default, Consistent, Stale, Stale, Default]);
}

#[test]
fn bad_requests_are_refused_in_consuls_words_and_change_nothing() {
    let server = Server::start();
    let key = "k".repeat(wire::limits::KEY_BYTES_MAX + 1);
    let long_key = format!(
        "Key of {} bytes is too long, max size: 8192 bytes",
        key.len()
    );
    for (method, target, status, text) in [
        ("PUT", "/v1/kv/", 400, "Missing key name"),
        ("DELETE", "/v1/kv/", 400, "Missing key name"),
        (
            "PUT",
            "/v1/kv/k?flags=abc",
            500,
            "strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        (
            "PUT",
            "/v1/kv/k?flags=",
            500,
            "strconv.ParseUint: parsing \"\": invalid syntax",
        ),
        (
            "PUT",
            "/v1/kv/k?flags=-1",
            500,
            "strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            "PUT",
            "/v1/kv/k?cas=18446744073709551616",
            500,
            "strconv.ParseUint: parsing \"18446744073709551616\": value out of range",
        ),
        (
            "DELETE",
            "/v1/kv/k?cas=x",
            500,
            "strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (
            "PUT",
            "/v1/kv/k?release=b&acquire=a",
            400,
            "Conflicting flags: acquire=a&release=b\n",
        ),
        (
            "PUT",
            "/v1/kv/k?cas=1&acquire",
            400,
            "Conflicting flags: acquire=&cas=1\n",
        ),
        (
            "DELETE",
            "/v1/kv/k?recurse&cas=1",
            400,
            "Conflicting flags: cas=1&recurse=\n",
        ),
        (
            "DELETE",
            "/v1/kv/k?recurce",
            400,
            "Unknown query parameter \"recurce\" (did you mean \"recurse\"?)",
        ),
        (
            "PUT",
            "/v1/kv/k?csa=1",
            400,
            "Unknown query parameter \"csa\" (did you mean \"cas\"?)",
        ),
        (
            "GET",
            "/v1/kv/k?stale&consistent",
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        (
            "GET",
            "/v1/kv/k?max_stale=x",
            400,
            "Invalid max_stale value \"x\"",
        ),
        ("GET", "/v1/kv/k?index=x", 400, "Invalid index"),
        ("GET", "/v1/kv/k?wait=10", 400, "Invalid wait time"),
        ("GET", "/v1/kv/k?dc=elsewhere", 500, "No path to datacenter"),
        ("GET", "/v1/kv/%00", 400, ""),
        ("GET", "/v1/kv/a%0ab", 400, ""),
        (
            "GET",
            "/v1/kv/100%",
            400,
            "Invalid URL escape \"%\" in the path",
        ),
        (
            "GET",
            "/v1/nothing",
            404,
            "Invalid URL path: not a recognized HTTP API endpoint\n",
        ),
        (
            "GET",
            "/kv/a",
            404,
            "Invalid URL path: if attempting to target the HTTP API, ensure the path starts with '/v1/'\n",
        ),
        ("PUT", &format!("/v1/kv/{key}"), 414, &long_key),
    ] {
        let answer = server.client().request(method, target, &[], b"");
        assert_eq!(answer.outcome(), (status, text), "{method} {target}");
        assert_eq!(answer.header("Content-Type"), TEXT, "{method} {target}");
    }
    assert_eq!(server.state().writes, 0);
    assert!(server.state().reads.is_empty());
}

#[test]
fn key_bytes_max_is_reached() {
    let server = Server::start();
    let target = format!("/v1/kv/{}", "k".repeat(wire::limits::KEY_BYTES_MAX));
    assert_eq!(server.put(&target, "v").outcome(), (200, "true"));
    assert_eq!(server.get(&(target + "?raw")).text(), "v");
}

#[test]
fn escapes_decode_into_the_key() {
    let server = Server::start();
    server.put("/v1/kv/a%2Fb%20c%C3%A9", "v");
    server.put("/v1/kv/x%2F%2Fy", "v");
    assert_eq!(
        server.get("/v1/kv/?keys").json(),
        json!(["a/b c\u{e9}", "x//y"])
    );
    assert_eq!(server.get("/v1/kv/a/b%20c%c3%a9?raw").text(), "v");
}

#[test]
fn every_failure_of_the_cluster_has_its_status() {
    let server = Server::start();
    for (kind, status, text) in [
        (FailureKind::Busy, 429, "why"),
        (FailureKind::DiskFull, 507, "why"),
        (FailureKind::NotMember, 500, "why"),
        (FailureKind::TooLarge, 413, "why"),
        (FailureKind::ShuttingDown, 503, "why"),
        (FailureKind::SpansShards, 400, "why"),
    ] {
        let mut said = failure(kind, "why");
        said.retry_after_ms = 1500;
        server.state().failure = Some(said);
        for answer in [server.put("/v1/kv/k", "v"), server.get("/v1/kv/k")] {
            assert_eq!(answer.outcome(), (status, text));
            assert_eq!(answer.header("Retry-After"), Some("2"));
        }
    }
}

#[test]
fn what_spans_shards_is_refused_by_name() {
    let server = Server::with(Default::default(), |state| state.info.shards = 4);
    for target in ["/v1/kv/?recurse", "/v1/kv/app?recurse"] {
        assert_eq!(
            server.delete(target).outcome(),
            (
                400,
                "Recursive delete spans shards: with 4 shards the prefix must contain a whole first \
                 segment, such as \"app/\""
            )
        );
    }
    assert_eq!(
        server.delete("/v1/kv/app/?recurse").outcome(),
        (200, "true")
    );
}

//! Does a configuration mean the same in JSON and in HCL?
//!
//! Random configurations are written in both, objects of HCL as blocks or as attributes at random,
//! and must come out as the same [`AgentConfig`], warnings included, or as the same errors.

use std::{ffi::OsString, fmt::Write, fs};

use engine::cli::{AgentConfig, parse_agent};
use proptest::{option::of as some, prelude::*, strategy::ValueTree};
use serde_json::{Map, Value, json};

/// Writes a file in HCL. `dice` decides where there is a choice.
fn hcl(members: &Map<String, Value>, dice: &mut u64) -> String {
    let mut out = String::new();
    body(members, 0, dice, &mut out);
    out
}

fn roll(dice: &mut u64) -> bool {
    *dice = dice.rotate_left(1);
    *dice & 1 == 1
}

fn body(members: &Map<String, Value>, depth: usize, dice: &mut u64, out: &mut String) {
    let indent = "  ".repeat(depth);
    for (key, value) in members {
        if roll(dice) {
            writeln!(out, "{indent}# {key} is next").unwrap();
        }
        match value {
            Value::Object(inner) if is_name(key) && roll(dice) => {
                block(key, inner, depth, dice, out);
            }
            // A list of objects is a block after the other.
            Value::Array(items)
                if is_name(key)
                    && items.len() > 1
                    && items.iter().all(Value::is_object)
                    && roll(dice) =>
            {
                for item in items.iter().filter_map(Value::as_object) {
                    block(key, item, depth, dice, out);
                }
            }
            value => {
                // HCL 1 allows quotes around the key, and here only they do for what is no name.
                let key = match is_name(key) && roll(dice) {
                    true => key.clone(),
                    false => format!("\"{key}\""),
                };
                writeln!(out, "{indent}{key} = {}", expression(value, dice)).unwrap();
            }
        }
    }
}

fn block(key: &str, inner: &Map<String, Value>, depth: usize, dice: &mut u64, out: &mut String) {
    let indent = "  ".repeat(depth);
    writeln!(out, "{indent}{key} {{").unwrap();
    body(inner, depth + 1, dice, out);
    writeln!(out, "{indent}}}").unwrap();
}

fn is_name(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.as_bytes()[0].is_ascii_digit()
}

fn expression(value: &Value, dice: &mut u64) -> String {
    match value {
        // Their texts escape alike, but for slashes and what JSON may leave as it is.
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(key, value)| {
                    let sign = if roll(dice) { "=" } else { ":" };
                    format!("\"{key}\" {sign} {}", expression(value, dice))
                })
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| expression(item, dice)).collect();
            format!("[{}]", items.join(", "))
        }
        value => value.to_string(),
    }
}

fn text() -> impl Strategy<Value = Value> {
    // No control characters, which HCL writes differently.
    "[a-zA-Z0-9 _/.:\"\\\\{}$%#é€-]{0,12}".prop_map(Value::String)
}

fn duration() -> impl Strategy<Value = Value> {
    prop::sample::select(vec!["1s", "250ms", "1h30m", "0s", "90"]).prop_map(Value::from)
}

fn name() -> impl Strategy<Value = Value> {
    "[a-z][a-z0-9-]{0,6}".prop_map(Value::from)
}

fn checked() -> impl Strategy<Value = Value> {
    (name(), duration(), text(), some(0..4i64)).prop_map(
        |(name, ttl, notes, failures)| {
            json!({"name": name, "ttl": ttl, "notes": notes, "failures_before_critical": failures})
        },
    )
}

fn service() -> impl Strategy<Value = Value> {
    let checks = prop::collection::vec(checked(), 0..3);
    let meta = prop::collection::btree_map("[a-z]{1,4}", text(), 0..3);
    (
        name(),
        prop::collection::vec(text(), 0..3),
        0..70_000i64,
        meta,
        checks,
    )
        .prop_map(|(name, tags, port, meta, checks)| {
            json!({
                "name": name, "tags": tags, "port": port, "meta": meta, "checks": checks,
                "weights": {"passing": 2, "warning": 1},
            })
        })
}

/// Some keys, each with a value that is mostly right.
fn config() -> impl Strategy<Value = Value> {
    let first = (
        some(name()),
        some(prop::collection::btree_map(
            "[a-z][a-z0-9_-]{0,5}",
            text(),
            0..4,
        )),
        some((-1..70_000i64, 1..70_000i64)),
        some(prop::collection::vec(service(), 0..3)),
        some(prop::collection::vec(checked(), 0..3)),
        some((any::<bool>(), text(), duration())),
    );
    let second = (
        some(prop::sample::select(vec!["info", "DEBUG", "loud"])),
        some((0..12i64, duration())),
        some(prop::collection::vec(text(), 0..3)),
        some(prop::collection::btree_map(
            "[A-Z][a-z-]{0,5}",
            text(),
            0..3,
        )),
        some(any::<bool>()),
        some(duration()),
    );
    (first, second).prop_map(|(first, second)| {
        let (datacenter, meta, ports, services, checks, acl) = first;
        let (level, performance, filter, headers, ui, ttl) = second;
        let mut file = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                file.insert(key.into(), value);
            }
        };
        put("datacenter", datacenter);
        put("node_meta", meta.map(|meta| json!(meta)));
        put(
            "ports",
            ports.map(|(http, server)| json!({"http": http, "server": server, "dns": 53})),
        );
        put("services", services.map(Value::Array));
        put("checks", checks.map(Value::Array));
        put("acl", acl.map(|(on, token, ttl)| {
            json!({"enabled": on, "token_ttl": ttl, "tokens": {"agent": token, "master": "m"}})
        }));
        put("log_level", level.map(Value::from));
        put("performance", performance.map(|(multiplier, hold)| {
            json!({"raft_multiplier": multiplier, "rpc_hold_timeout": hold})
        }));
        put(
            "telemetry",
            filter.map(|filter| json!({"prefix_filter": filter})),
        );
        put(
            "http_config",
            headers.map(|headers| json!({"response_headers": headers})),
        );
        put("ui", ui.map(Value::from));
        put("session_ttl_min", ttl);
        Value::Object(file)
    })
}

fn read(text: &str, format: &str) -> Result<AgentConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    // The same path for both, so that errors and warnings name the same.
    let path = dir.path().join("file.conf");
    fs::write(&path, text).unwrap();
    let args = [
        "curia",
        "agent",
        "-dev",
        "-node=n",
        &format!("-config-format={format}"),
        "-config-file",
        path.to_str().unwrap(),
    ];
    let place = dir.path().display().to_string();
    let read = parse_agent(args.iter().map(OsString::from));
    let read = read.map_err(|error| error.to_string().replace(&place, ""));
    read.map(|mut config| {
        for warning in &mut config.warnings {
            *warning = warning.replace(&place, "");
        }
        config
    })
}

proptest! {
    #[test]
    fn the_same_configuration_in_json_and_hcl(file in config(), mut dice in any::<u64>()) {
        let Value::Object(members) = &file else { unreachable!() };
        let written = hcl(members, &mut dice);
        let (json, hcl) = (read(&file.to_string(), "json"), read(&written, "hcl"));
        prop_assert_eq!(json, hcl, "{}", written);
    }
}

#[test]
fn most_random_configurations_are_accepted_or_the_comparison_says_little() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut accepted = 0;
    for _ in 0..200 {
        let file = config().new_tree(&mut runner).unwrap().current();
        accepted += usize::from(read(&file.to_string(), "json").is_ok());
    }
    assert!(accepted > 20, "{accepted} of 200");
}

#[test]
fn a_dollar_is_a_dollar_in_both() {
    let both = |text: &str| {
        let json = json!({"node_meta": {"k": text}}).to_string();
        let hcl = format!("node_meta {{\n  k = {}\n}}\n", json!(text));
        let (json, hcl) = (read(&json, "json").unwrap(), read(&hcl, "hcl").unwrap());
        assert_eq!(json.node_meta["k"], text);
        assert_eq!(hcl.node_meta["k"], text);
    };
    both("costs 5$");
    both("${HOME}/x");
    both("a ${b} c ${d}");
    both("say \"${b}\" and \\ twice");
}

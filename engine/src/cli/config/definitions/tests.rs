//! Which definitions are read how, and what each mistake is told.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::server::config::definitions::CheckStatus;

fn read(file: Value) -> (Definitions, Findings) {
    let mut layer = Layer::default();
    layer.set_all(file, &|key| key.to_string());
    let mut out = Findings::default();
    out.errors.append(&mut layer.errors);
    let found = definitions(&layer, &mut out);
    (found, out)
}

#[test]
fn a_service_with_its_checks_in_both_spellings() {
    let files = json!({"services": [{
        "name": "web", "id": "web-1", "port": 8080, "tags": ["a"],
        "meta": {"version": "1"}, "weights": {"passing": 5, "warning": 0},
        "tagged_addresses": {"lan": {"address": "10.0.0.1", "port": 80}},
        "enable_tag_override": true,
        "checks": [
            {"ttl": "1m30s", "status": "passing"},
            {"id": "h", "name": "asks", "http": "http://x/", "interval": "5s", "header": {"A": ["b", "c"]},
             "failures_before_critical": 3, "deregister_critical_service_after": "90m"},
        ],
    }]});
    let api = json!({"services": [{
        "Name": "web", "ID": "web-1", "Port": 8080, "Tags": ["a"],
        "Meta": {"version": "1"}, "Weights": {"Passing": 5, "Warning": 0},
        "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 80}},
        "EnableTagOverride": true,
        "Checks": [
            {"TTL": "1m30s", "Status": "passing"},
            {"CheckID": "h", "Name": "asks", "HTTP": "http://x/", "Interval": "5s", "Header": {"A": ["b", "c"]},
             "FailuresBeforeCritical": 3, "DeregisterCriticalServiceAfter": "90m"},
        ],
    }]});
    let (found, out) = read(files);
    assert!(out.errors.is_empty() && out.warnings.is_empty(), "{out:?}");
    assert_eq!(found.services, read(api).0.services);
    let service = &found.services[0];
    assert_eq!(service.tagged_addresses["lan"], ("10.0.0.1".into(), 80));
    assert_eq!((service.weight_passing, service.weight_warning), (5, 0));
    let [ttl, http] = &service.checks[..] else {
        panic!("two checks")
    };
    assert_eq!(
        (&*ttl.id, &*ttl.name, &*ttl.service_id),
        ("service:web-1:1", "Service 'web' check", "web-1")
    );
    assert_eq!(ttl.status, CheckStatus::Passing);
    assert_eq!(
        ttl.kind,
        CheckKind::Ttl {
            ttl: Duration::from_secs(90)
        }
    );
    assert_eq!(
        (http.failures_before_warning, http.failures_before_critical),
        (3, 3)
    );
    assert_eq!(
        http.deregister_critical_service_after,
        Some(Duration::from_secs(5400))
    );
    let CheckKind::Http {
        method, timeout, ..
    } = &http.kind
    else {
        panic!("an HTTP check")
    };
    assert_eq!((&**method, *timeout), ("GET", CHECK_TIMEOUT));
}

#[test]
fn a_block_is_a_list_of_one_and_names_are_ids() {
    let (found, out) = read(json!({
        "service": [{"name": "db", "check": [{"tcp": "db:5432", "interval": "1s"}], "kind": "typical"}],
        "check": {"name": "mem", "ttl": "10s", "service_id": "db"},
    }));
    assert!(out.errors.is_empty(), "{out:?}");
    assert_eq!(
        out.warnings,
        ["service[0].kind: has no effect on a curia server"]
    );
    assert_eq!(found.services[0].id, "db");
    assert_eq!(found.services[0].checks[0].id, "service:db");
    assert_eq!(found.checks[0].id, "mem");
}

#[test]
fn of_two_services_with_one_id_the_later_counts() {
    let (found, out) = read(json!({"services": [
        {"name": "a", "port": 1}, {"name": "a", "port": 2}, {"name": "a", "id": "b"},
    ]}));
    assert_eq!(
        out.warnings,
        ["services[1]: replaces an earlier service with the id \"a\""]
    );
    let ports: Vec<_> = found.services.iter().map(|s| (&*s.id, s.port)).collect();
    assert_eq!(ports, [("a", 2), ("b", 0)]);
}

#[test]
fn every_mistake_names_its_place() {
    for (file, error) in [
        (
            json!({"service": {"port": 1}}),
            "service: a service needs a name",
        ),
        (json!({"services": ["a"]}), "services[0]: must be an object"),
        (
            json!({"service": {"name": "a", "port": 65536}}),
            "service.port: must be a whole number from 0 to 65535",
        ),
        (
            json!({"service": {"name": "a", "porrt": 1}}),
            "service.porrt: unknown key (did you mean port?)",
        ),
        (
            json!({"service": {"name": "a", "port": 1, "socket_path": "/s"}}),
            "service: port and socket_path exclude each other",
        ),
        (
            json!({"service": {"name": "a", "weights": {"passing": 0}}}),
            "service.weights.passing: must be a whole number from 1 to 65535",
        ),
        (
            json!({"service": {"name": "a", "meta": {"a b": "c"}}}),
            "service.meta: Couldn't load metadata pair ('a b', …): Key contains invalid characters: use letters, digits, '-' and '_'",
        ),
        (
            json!({"service": {"name": "a", "checks": [{"id": "x", "ttl": "1s"}, {"id": "x", "ttl": "1s"}]}}),
            "service.checks[1]: another check of this service has the id \"x\"",
        ),
        (
            json!({"service": {"name": "a", "check": {"args": ["true"], "interval": "1s", "ttl": "1s"}}}),
            "service.check.args: curia runs ttl, http and tcp checks and no others: remove the check, or have whoever runs it tell the result to a ttl check",
        ),
        (
            json!({"check": {"ttl": "1s"}}),
            "check: a check needs a name",
        ),
        (
            json!({"check": {"name": "a"}}),
            "check: TTL must be > 0 for TTL checks; a check needs one of ttl, http and tcp",
        ),
        (
            json!({"check": {"name": "a", "ttl": "10"}}),
            "check.ttl: must be a duration such as \"10s\"",
        ),
        (
            json!({"check": {"name": "a", "ttl": "-1s"}}),
            "check.ttl: must be a duration such as \"10s\"",
        ),
        (
            json!({"check": {"name": "a", "ttl": "1s", "interval": "1s"}}),
            "check: Interval and TTL cannot both be specified",
        ),
        (
            json!({"check": {"name": "a", "tcp": "a:1"}}),
            "check: Interval must be > 0 for HTTP or TCP checks",
        ),
        (
            json!({"check": {"name": "a", "tcp": "a", "interval": "1s"}}),
            "check: tcp: \"a\" is not HOST:PORT",
        ),
        (
            json!({"check": {"name": "a", "http": "a", "interval": "1s"}}),
            "check: http: \"a\" does not begin with http:// or https://",
        ),
        (
            json!({"check": {"name": "a", "http": "http://a", "tcp": "a:1", "interval": "1s"}}),
            "check: a check does one thing: give one of ttl, http and tcp",
        ),
        (
            json!({"check": {"name": "a", "ttl": "1s", "status": "fine"}}),
            "check.status: must be passing, warning or critical",
        ),
        (
            json!({"check": {"name": "a", "ttl": "1s", "failures_before_warning": 2, "failures_before_critical": 1}}),
            "check: failures_before_warning can't be higher than failures_before_critical",
        ),
    ] {
        let (_, out) = read(file.clone());
        let texts: Vec<&str> = out.errors.iter().map(|error| &*error.0).collect();
        assert_eq!(texts, [error], "{file}");
    }
}

#[test]
fn meta_pairs_max_key_bytes_max_and_value_bytes_max_are_reached() {
    let check = |meta: Vec<(String, String)>| {
        let meta: BTreeMap<String, String> = meta.into_iter().collect();
        check_meta(meta.iter())
    };
    let pairs = |count| {
        (0..count)
            .map(|i| (format!("k{i}"), String::new()))
            .collect()
    };
    assert_eq!(check(pairs(META_PAIRS_MAX)), Ok(()));
    assert_eq!(
        check(pairs(META_PAIRS_MAX + 1)).unwrap_err(),
        "cannot contain more than 64 key/value pairs"
    );
    let key = |bytes| vec![("k".repeat(bytes), String::new())];
    assert_eq!(check(key(META_KEY_BYTES_MAX)), Ok(()));
    assert!(
        check(key(META_KEY_BYTES_MAX + 1))
            .unwrap_err()
            .contains("Key is too long")
    );
    let value = |bytes| vec![("k".to_string(), "v".repeat(bytes))];
    assert_eq!(check(value(META_VALUE_BYTES_MAX)), Ok(()));
    assert!(
        check(value(META_VALUE_BYTES_MAX + 1))
            .unwrap_err()
            .contains("Value is too long")
    );
    assert!(
        check(vec![("consul-x".into(), String::new())])
            .unwrap_err()
            .contains("reserved")
    );
    assert_eq!(
        check(vec![(String::new(), String::new())]).unwrap_err(),
        "Key cannot be blank"
    );
}

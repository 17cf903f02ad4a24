//! Examples as Consul's documentation gives them, and the corners of go-bexpr.

use serde_json::{Value, json};

use crate::filter::{Filter, Shape, shapes};

fn holds(shape: &Shape, filter: &str, row: &Value) -> bool {
    assert_eq!(shape.misfits(row), Vec::<String>::new());
    let parsed = Filter::parse(filter, shape).unwrap_or_else(|e| panic!("{filter}: {e}"));
    parsed.matches(row)
}

/// Each filter with whether the row passes.
fn check(shape: &Shape, row: &Value, cases: &[(&str, bool)]) {
    for (filter, expected) in cases {
        assert_eq!(holds(shape, filter, row), *expected, "{filter}");
        // Parentheses and double negation change nothing, negation everything.
        assert_eq!(holds(shape, &format!("({filter})"), row), *expected);
        assert_eq!(
            holds(shape, &format!("not not ( {filter} )"), row),
            *expected
        );
        assert_eq!(holds(shape, &format!("not ({filter})"), row), !*expected);
    }
}

fn health_row() -> Value {
    json!({
        "Node": {
            "ID": "40e4a748-2192-161a-0510-9bf59fe950b5",
            "Node": "foobar",
            "Address": "10.1.10.12",
            "Datacenter": "dc1",
            "TaggedAddresses": {"lan": "10.1.10.12", "wan": "198.18.0.1"},
            "Meta": {"instance_type": "m2.large", "os-version": "12", "empty": ""},
            "CreateIndex": 5,
        },
        "Service": {
            "ID": "redis",
            "Service": "redis",
            "Tags": ["primary", "v1"],
            "Address": "10.1.10.12",
            "TaggedAddresses": {"lan": {"Address": "10.1.10.12", "Port": 8000}},
            "Meta": {"redis_version": "4.0"},
            "Port": 8000,
            "Weights": {"Passing": 10, "Warning": 1},
            "Namespace": "default",
        },
        "Checks": [
            {"Node": "foobar", "CheckID": "service:redis", "Name": "Service 'redis' check",
             "Status": "passing", "ServiceTags": ["primary"]},
            {"Node": "foobar", "CheckID": "serfHealth", "Name": "Serf Health Status",
             "Status": "critical", "ServiceTags": null},
        ],
    })
}

#[test]
fn health_service_rows() {
    check(
        &shapes::HEALTH_SERVICE,
        &health_row(),
        &[
            (r#"Node.Meta.instance_type == "m2.large""#, true),
            (r#"Node.Meta["instance_type"]=="m2.large""#, true),
            (r#"Node.Meta[ `os-version` ] != 12"#, false),
            (r#"Node.Meta.missing == "x""#, false),
            (r#"Node.Meta.missing == """#, false),
            (r#"Node.Meta.empty == """#, true),
            (r#"Node.Meta.missing != "x""#, true),
            (r#"Node.Meta.missing matches "x*""#, false),
            (r#"Node.Meta.missing not matches "x*""#, true),
            (r#"Node.Meta.empty matches "x*""#, true),
            (r#""a" in Node.Meta.missing"#, false),
            (r#""a" not in Node.Meta.missing"#, true),
            ("Node.Meta is not empty", true),
            ("instance_type in Node.Meta", true),
            (r#"Node.Meta contains "os-version""#, true),
            (r#"Node.Meta not contains "nothing""#, true),
            (r#"Node.TaggedAddresses.wan == "198.18.0.1""#, true),
            ("Service.Tags contains primary", true),
            (r#""v1" in Service.Tags and "v2" not in Service.Tags"#, true),
            (r#"Service.Tags not contains "primary""#, false),
            ("Service.Tags is empty", false),
            ("Service.Port == 8000", true),
            (r#"Service.Port != "0x1f40""#, false),
            (r#"Service.Port == "017500""#, true),
            ("Service.TaggedAddresses.lan.Port == 8000", true),
            ("Service.TaggedAddresses.wan.Port == 0", false),
            ("Service.TaggedAddresses.wan.Port != 8000", true),
            ("Service.Weights.Passing == 10", true),
            // Fields that are left out are empty.
            (r#"Service.Kind == """#, true),
            ("Service.EnableTagOverride == false", true),
            ("Service.EnableTagOverride != T", true),
            ("Service.Connect.Native == false", true),
            ("Service.Proxy.Upstreams is empty", true),
            ("Service.Proxy.Expose.Checks == true", false),
            // A part of a string.
            (r#""10.1." in Service.Address"#, true),
            (r#"Service.Address matches "^10[.]1[.]10[.]\\d+$""#, true),
            ("Service.Address matches `^10\\.1\\.10\\.\\d+$`", true),
            ("Service.Service not matches `^post`", true),
            // Lists of structs: any of them.
            (r#"Checks.Status == "passing""#, true),
            (r#"Checks.Status == "critical""#, true),
            (r#"Checks.Status == "warning""#, false),
            (r#"Checks.Status != "passing""#, true),
            ("Checks.ServiceTags is empty", true),
            ("Checks.ServiceTags is not empty", true),
            ("Checks.ServiceTags contains primary", true),
            ("Checks is not empty", true),
            (r#"Checks.CheckID matches "^serf""#, true),
        ],
    );
    let mut bare = health_row();
    bare["Checks"] = json!([]);
    check(
        &shapes::HEALTH_SERVICE,
        &bare,
        &[
            ("Checks is empty", true),
            (r#"Checks.Status == "passing""#, false),
            // None of them differs, since there is none.
            (r#"Checks.Status != "passing""#, false),
        ],
    );
}

#[test]
fn a_key_of_a_map_that_is_there_but_null_is_empty_text() {
    let row = json!({"Node": "n", "Meta": {"a": null}});
    check(
        &shapes::NODE,
        &row,
        &[(r#"Meta.a == """#, true), ("a in Meta", true)],
    );
}

#[test]
fn and_binds_tighter_than_or_and_not_tighter_than_both() {
    let row = json!({"Node": "n"});
    for a in [false, true] {
        for b in [false, true] {
            for c in [false, true] {
                let term = |holds: bool| if holds { "Node == n" } else { "Node != n" };
                let (x, y, z) = (term(a), term(b), term(c));
                let cases = [
                    (format!("{x} or {y} and {z}"), a || b && c),
                    (format!("{x} and {y} or {z}"), a && b || c),
                    (format!("not {x} and {y}"), !a && b),
                    (format!("not {x} or {y}"), !a || b),
                    (format!("({x} or {y}) and {z}"), (a || b) && c),
                    (format!("{x} and not ({y} or {z})"), a && !(b || c)),
                    (format!("not(\t{x}\nor {y})and {z}"), !(a || b) && c),
                ];
                for (filter, expected) in cases {
                    assert_eq!(holds(&shapes::NODE, &filter, &row), expected, "{filter}");
                }
            }
        }
    }
}

#[test]
fn values_may_be_bare_words_numbers_quoted_or_raw() {
    for (value, filter) in [
        ("foo", "Node == foo"),
        ("foo.bar", "Node == foo.bar"),
        ("foo.a b", r#"Node == foo["a b"]"#),
        ("in", "Node == in"),
        ("not", "Node == not"),
        ("12", "Node == 12"),
        ("-0.50", "Node == -0.50"),
        (r"a\b", r"Node == `a\b`"),
        (
            "a\\\t\"\u{e9}\u{1f600}A!",
            r#"Node == "a\\\t\"\u00e9\U0001F600\x41\041""#,
        ),
        ("", r#"Node == """#),
        ("é", "Node == \"é\""),
    ] {
        let row = json!({ "Node": value });
        assert!(holds(&shapes::NODE, filter, &row), "{filter}");
        let other = json!({ "Node": format!("{value}x") });
        assert!(!holds(&shapes::NODE, filter, &other), "{filter}");
    }
}

#[test]
fn the_other_endpoints() {
    check(
        &shapes::NODE,
        &json!({"Node": "t2.320", "ID": "x", "Datacenter": "dc1", "Meta": {"a": "b"}}),
        &[
            ("Meta.a == b", true),
            ("Datacenter == dc1 and Node matches `^t2`", true),
        ],
    );
    check(
        &shapes::CATALOG_SERVICE,
        &json!({"Node": "n", "ServiceName": "web", "ServicePort": 80, "ServiceTags": [],
                "NodeMeta": {"rack": "7"}, "ServiceMeta": null}),
        &[
            ("ServiceName == web and ServicePort == 80", true),
            ("ServiceTags is empty", true),
            ("NodeMeta.rack == 7", true),
            ("ServiceMeta is empty", true),
        ],
    );
    check(
        &shapes::SERVICE,
        &json!({"ID": "w1", "Service": "web", "Tags": ["a"], "Meta": {}, "Port": 80,
                "Proxy": {"Upstreams": [{"DestinationName": "db", "LocalBindPort": 1}]}}),
        &[
            (r#"Service == "web""#, true),
            ("Meta is empty", true),
            ("Proxy.Upstreams.DestinationName == db", true),
        ],
    );
    check(
        &shapes::CHECK,
        &json!({"CheckID": "c", "Status": "critical", "Type": "ttl", "ExposedPort": 0}),
        &[
            ("Status != passing and Type == ttl", true),
            ("CheckID == d", false),
        ],
    );
    check(
        &shapes::MEMBER,
        &json!({"Name": "s1", "Addr": "127.0.0.1", "Port": 8301, "Status": 1,
                "Tags": {"role": "consul", "dc": "dc1"}}),
        &[
            ("Status == 1 and Tags.role == consul", true),
            (r#"Tags.segment == """#, false),
        ],
    );
    check(
        &shapes::CONFIG_ENTRY,
        &json!({"Kind": "service-defaults", "Name": "web", "Protocol": "http"}),
        &[("Name == web and Protocol == http", true)],
    );
}

#[test]
fn no_expression_lets_everything_through() {
    let filter = Filter::parse("", &shapes::NODE).unwrap();
    assert!(filter.is_empty() && filter.matches(&json!({})));
    assert!(
        !Filter::parse("Node == n", &shapes::NODE)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn rows_that_do_not_fit_are_named() {
    let row = json!({"Node": {"Meta": {"a": 1}, "ID": 2}, "Checks": [{"Status": 1}], "Service": 3});
    assert_eq!(
        shapes::HEALTH_SERVICE.misfits(&row),
        ["Checks.Status", "Node.ID", "Node.Meta.a", "Service"]
    );
}

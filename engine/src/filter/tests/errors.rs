//! Bad expressions are refused with what is wrong, where, in Consul's words where it has them.

use crate::filter::{Filter, shapes};

const BEGINNING: &str = "Failed to create boolean expression evaluator: ";

fn error(filter: &str) -> String {
    let error = Filter::parse(filter, &shapes::HEALTH_SERVICE)
        .map(|_| ())
        .expect_err(filter)
        .to_string();
    let rest = error.strip_prefix(BEGINNING).expect("Consul's beginning");
    rest.to_owned()
}

#[test]
fn what_rows_do_not_have() {
    for (filter, text) in [
        ("Nodex == 1", r#"Selector "Nodex" is not valid"#),
        ("Node.Foo.Bar == 1", r#"Selector "Node.Foo" is not valid"#),
        ("node.Node == 1", r#"Selector "node" is not valid"#),
        (
            "1 in Service.Tags.a",
            r#"Selector "Service.Tags.a" is not valid"#,
        ),
        (
            "Node.Meta.a.b is empty",
            r#"Selector "Node.Meta.a.b" is not valid"#,
        ),
        ("Checks.Nope == 1", r#"Selector "Checks.Nope" is not valid"#),
        (
            "Service.ModifyIndex == 1",
            r#"Selector "Service.ModifyIndex" is not valid"#,
        ),
    ] {
        assert_eq!(error(filter), text, "{filter}");
    }
}

#[test]
fn what_a_type_does_not_have() {
    for (filter, operator, selector) in [
        ("Service.Tags == a", "Equal", "Service.Tags"),
        ("Service.Tags != a", "Not Equal", "Service.Tags"),
        ("Service.Tags matches a", "Matches", "Service.Tags"),
        ("Service.Meta not matches a", "Not Matches", "Service.Meta"),
        ("Service.Port is empty", "Is Empty", "Service.Port"),
        ("Service.ID is not empty", "Is Not Empty", "Service.ID"),
        ("8 in Service.Port", "In", "Service.Port"),
        (
            "Service.EnableTagOverride not contains t",
            "Not In",
            "Service.EnableTagOverride",
        ),
        ("Service == web", "Equal", "Service"),
        ("web in Checks", "In", "Checks"),
    ] {
        let text = format!("Invalid match operator {operator:?} for selector {selector:?}");
        assert_eq!(error(filter), text, "{filter}");
    }
}

#[test]
fn values_that_a_type_does_not_have() {
    let int = |value: &str, why: &str| {
        format!(
            "Failed to coerce value {value:?} for selector \"Service.Port\": \
             strconv.ParseInt: parsing {value:?}: {why}"
        )
    };
    for (filter, value, why) in [
        ("Service.Port == http", "http", "invalid syntax"),
        ("Service.Port == 8.5", "8.5", "invalid syntax"),
        (r#"Service.Port == """#, "", "invalid syntax"),
        (r#"Service.Port == "09""#, "09", "invalid syntax"),
        (r#"Service.Port == "0x""#, "0x", "invalid syntax"),
        (r#"Service.Port == "--1""#, "--1", "invalid syntax"),
        (
            "Service.Port == 9223372036854775808",
            "9223372036854775808",
            "value out of range",
        ),
    ] {
        assert_eq!(error(filter), int(value, why), "{filter}");
    }
    for bounds in ["9223372036854775807", "-9223372036854775808"] {
        let filter = format!("Service.Port == {bounds}");
        assert!(Filter::parse(&filter, &shapes::HEALTH_SERVICE).is_ok());
    }
    assert_eq!(
        error("Service.EnableTagOverride == yes"),
        "Failed to coerce value \"yes\" for selector \"Service.EnableTagOverride\": \
         strconv.ParseBool: parsing \"yes\": invalid syntax"
    );
    assert_eq!(
        error("Service.ID matches `a(b`"),
        "Failed to compile regular expression \"a(b\": unclosed group"
    );
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    let operators = "an operator (==, !=, [not] in, [not] contains, [not] matches, is [not] empty)";
    for (filter, text) in [
        (
            " ",
            "1:2 (1): expected a selector or a value, found the end".to_owned(),
        ),
        (
            "Node.ID",
            format!("1:8 (7): expected {operators}, found the end"),
        ),
        ("Node.ID = 1", "1:9 (8): equality is \"==\"".to_owned()),
        (
            "Node.ID ==",
            "1:11 (10): expected a value, found the end".to_owned(),
        ),
        ("Node.ID == and", "".to_owned()),
        (
            "Node.ID == 1 and",
            "1:17 (16): expected a selector or a value, found the end".to_owned(),
        ),
        (
            "Node.ID == 1 Node.ID == 2",
            "1:14 (13): expected \"and\", \"or\" or the end, found \"Node.ID\"".to_owned(),
        ),
        (
            "(Node.ID == 1",
            "1:14 (13): expected \"and\", \"or\" or a closing parenthesis, found the end"
                .to_owned(),
        ),
        (
            "Node.ID == 1)",
            "1:13 (12): expected \"and\", \"or\" or the end, found a closing parenthesis"
                .to_owned(),
        ),
        (
            "()",
            "1:2 (1): expected a selector or a value, found a closing parenthesis".to_owned(),
        ),
        (
            "\"a\" == Node.ID",
            "1:5 (4): expected \"in\" or \"not in\" after a value, found \"==\"".to_owned(),
        ),
        (
            "1 in \"a\"",
            "1:6 (5): expected a selector after \"in\", found the value \"a\"".to_owned(),
        ),
        (
            "Node.ID is full",
            "1:12 (11): expected \"empty\" or \"not empty\" after \"is\", found \"full\""
                .to_owned(),
        ),
        (
            "Node.ID not == 1",
            format!("1:13 (12): expected {operators}, found \"==\""),
        ),
        (
            "Node.ID == \"a",
            "1:12 (11): a string that is not terminated".to_owned(),
        ),
        (
            "Node.ID == `a",
            "1:12 (11): a string that is not terminated".to_owned(),
        ),
        (
            "Node.ID == \"a\nb\"",
            "1:12 (11): a string that is not terminated".to_owned(),
        ),
        (
            "Node.ID == \"\\q\"",
            "1:13 (12): not one of Go's escapes; \\\\ is a backslash".to_owned(),
        ),
        (
            "Node.ID == \"\\xff\"",
            "1:13 (12): not one of Go's escapes; \\\\ is a backslash".to_owned(),
        ),
        (
            "Node.ID == \"\\u+041\"",
            "1:13 (12): not one of Go's escapes; \\\\ is a backslash".to_owned(),
        ),
        (
            "Node.ID == \"\\",
            "1:13 (12): not one of Go's escapes; \\\\ is a backslash".to_owned(),
        ),
        (
            "Node.ID == 12abc",
            "1:12 (11): \"12abc\" is not a number; other values need quotes".to_owned(),
        ),
        (
            "Node.ID == 012",
            "1:12 (11): \"012\" is not a number; other values need quotes".to_owned(),
        ),
        (
            "Node.ID == 1.",
            "1:12 (11): \"1.\" is not a number; other values need quotes".to_owned(),
        ),
        (
            "Node.ID == 'a'",
            "1:12 (11): strings stand in \"double quotes\" or `back ticks`".to_owned(),
        ),
        (
            "Node.Meta.os-version == 1",
            "1:13 (12): '-' cannot stand in a name: select with [\"…\"], and put values in quotes"
                .to_owned(),
        ),
        (
            "Node.Meta. == 1",
            "1:11 (10): a name begins with a letter: select other keys with [\"…\"]".to_owned(),
        ),
        (
            "Node.Meta[a] == 1",
            "1:11 (10): an index is a string: [\"…\"]".to_owned(),
        ),
        (
            "Node.Meta[\"a\" == 1",
            "1:10 (9): an index that is not closed by \"]\"".to_owned(),
        ),
        (
            "Node.ID == 1 & Node.ID == 2",
            "1:14 (13): '&' cannot stand here; values with it need quotes".to_owned(),
        ),
        // Lines, and columns in characters.
        (
            "Node.ID == \"é\" and\n Node.ID == ü",
            "2:13 (32): 'ü' cannot stand here; values with it need quotes".to_owned(),
        ),
    ] {
        if text.is_empty() {
            // A keyword is a value where a value is expected, as in go-bexpr.
            assert!(Filter::parse(filter, &shapes::HEALTH_SERVICE).is_ok());
        } else {
            assert_eq!(error(filter), text, "{filter}");
        }
    }
}

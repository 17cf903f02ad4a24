//! Each bound of an expression is reached, and what is beyond it is refused.

use crate::filter::{
    FILTER_BYTES_MAX, FILTER_NESTING_MAX, FILTER_REGEX_BYTES_MAX, FILTER_REGEX_NESTING_MAX,
    FILTER_REGEXES_MAX, Filter, FilterError, shapes::NODE,
};

#[test]
fn length() {
    let of_length = |bytes: usize| {
        let frame = "Node == ``".len();
        let text = format!("Node == `{}`", "x".repeat(bytes - frame));
        assert_eq!(text.len(), bytes);
        Filter::parse(&text, &NODE)
    };
    assert!(of_length(FILTER_BYTES_MAX).is_ok());
    let error = of_length(FILTER_BYTES_MAX + 1).unwrap_err();
    let bytes = FILTER_BYTES_MAX + 1;
    assert_eq!(error, FilterError::TooLong { bytes });
    assert!(
        error
            .to_string()
            .ends_with("it has 16385 bytes, and 16384 are the most")
    );
}

#[test]
fn nesting() {
    let nested = |depth: usize| {
        let text = format!("{}Node == n{}", "not (".repeat(depth), ")".repeat(depth));
        Filter::parse(&text, &NODE)
    };
    let deepest = nested(FILTER_NESTING_MAX).unwrap();
    assert!(deepest.matches(&serde_json::json!({"Node": "n"})));
    let error = nested(FILTER_NESTING_MAX + 1).unwrap_err();
    assert!(
        matches!(error, FilterError::TooDeep { at } if at.offset == 5 * 64 + 4),
        "{error}"
    );
}

#[test]
fn what_does_not_nest_is_bounded_by_the_length_only() {
    let row = serde_json::json!({"Node": "n"});
    let nots = format!("{}Node == n", "not ".repeat(4000));
    assert!(Filter::parse(&nots, &NODE).unwrap().matches(&row));
    for word in [" and ", " or "] {
        let chain = vec!["Node==n"; 1300].join(word);
        assert!(Filter::parse(&chain, &NODE).unwrap().matches(&row));
    }
    let siblings = vec!["(Node==n)"; 1000].join(" or ");
    assert!(Filter::parse(&siblings, &NODE).unwrap().matches(&row));
    let deep = format!("Meta{} == 1", ".a".repeat(8000));
    assert!(matches!(
        Filter::parse(&deep, &NODE),
        Err(FilterError::Selector { selector }) if selector == "Meta.a.a"
    ));
    for unfinished in ["(", "not ", "a.", "Meta[\"a\"]", "\"\\", "Node == 1 or "] {
        let text = unfinished.repeat(FILTER_BYTES_MAX / unfinished.len());
        assert!(Filter::parse(&text, &NODE).is_err(), "{unfinished}");
    }
}

#[test]
fn regular_expressions() {
    let several = |count: usize| Filter::parse(&vec!["Node matches a"; count].join(" or "), &NODE);
    assert!(several(FILTER_REGEXES_MAX).is_ok());
    assert_eq!(
        several(FILTER_REGEXES_MAX + 1).unwrap_err(),
        FilterError::TooManyRegexes
    );
    let error = Filter::parse("Node matches `(?:\\w{100}){100}`", &NODE).unwrap_err();
    let text = format!("compiled it takes more than {FILTER_REGEX_BYTES_MAX} bytes");
    assert!(error.to_string().ends_with(&text), "{error}");
    let nested = |depth: usize| {
        let regex = format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        Filter::parse(&format!("Node matches `{regex}`"), &NODE)
    };
    assert!(nested(FILTER_REGEX_NESTING_MAX as usize).is_ok());
    let error = nested(FILTER_REGEX_NESTING_MAX as usize + 1).unwrap_err();
    assert!(error.to_string().contains("nest"), "{error}");
}

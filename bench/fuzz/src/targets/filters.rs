//! Does an expression mean what its parts mean?
//!
//! The text of a filter, for each shape of rows. What is understood must hold of each row as its
//! parts do: `not (E)` where E does not, `(E) and (E)`, `(E) or (E)` and `((E))` where E does; and
//! blanks around it change nothing.

use std::sync::OnceLock;

use engine::filter::{FILTER_BYTES_MAX, Filter, Shape, shapes};
use serde_json::{Value, json};

use crate::feed::Feed;

const SHAPES: [&Shape; 5] = [
    &shapes::NODE,
    &shapes::CATALOG_SERVICE,
    &shapes::SERVICE,
    &shapes::HEALTH_SERVICE,
    &shapes::CHECK,
];

/// Filters rows.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let shape = feed.pick(&SHAPES);
    let Ok(text) = std::str::from_utf8(feed.rest()) else {
        return;
    };
    let filter = match Filter::parse(text, shape) {
        Ok(filter) => filter,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    if filter.is_empty() || text.len() > FILTER_BYTES_MAX / 3 {
        return;
    }
    let variants = [
        (format!("not ({text}\n)"), true),
        (format!("({text}\n) and ({text}\n)"), false),
        (format!("({text}\n) or ({text}\n)"), false),
        (format!("(({text}\n))"), false),
        (format!(" \t{text}\r\n"), false),
        (format!("not not not ({text}\n)"), true),
    ];
    for (variant, negated) in variants {
        // Twice as many regular expressions, or one parenthesis deeper, may be too many.
        let Ok(other) = Filter::parse(&variant, shape) else {
            continue;
        };
        for row in rows() {
            assert_eq!(
                filter.matches(row),
                other.matches(row) != negated,
                "{text:?} and {variant:?} of {row}"
            );
        }
    }
}

/// Rows of all shapes; a filter takes what does not fit its shape for empty.
fn rows() -> &'static [Value] {
    static ROWS: OnceLock<Vec<Value>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let node = json!({"ID": "11111111-2222-3333-4444-555555555555", "Node": "n1",
            "Address": "10.0.0.1", "Datacenter": "dc1", "TaggedAddresses": {"lan": "10.0.0.1"},
            "Meta": {"rack": "7", "a.b": ""}, "CreateIndex": 3});
        let service = json!({"ID": "web1", "Service": "web", "Tags": ["v1", "V2"], "Port": 80,
            "Meta": {"k": "v"}, "Weights": {"Passing": 1, "Warning": 1}, "Address": "",
            "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 80}},
            "EnableTagOverride": true, "Proxy": {"Upstreams": [{"DestinationName": "db",
            "LocalBindPort": 9000}, {"DestinationName": "cache"}]}, "Connect": {"Native": true}});
        let check = json!({"Node": "n1", "CheckID": "c", "Name": "alive", "Status": "passing",
            "Output": "\u{e9}\n", "ServiceID": "web1", "ServiceName": "web",
            "ServiceTags": ["v1"], "Notes": null});
        let row = json!({"Node": "n1", "ServiceName": "web", "ServiceTags": ["v1"],
            "ServicePort": 80, "ServiceMeta": {"k": "v"}, "NodeMeta": {"rack": "7"}});
        vec![
            json!({"Node": node, "Service": service, "Checks": [check, {"Status": "critical"}]}),
            node,
            service,
            check,
            row,
            json!({}),
            json!(null),
        ]
    })
}

//! Do paths, query strings, event ids and Go's little languages mean one thing only?
//!
//! `{what, text}`. A clean path is not redirected again; what is read and written again stays as it
//! is; what a text means is what the standard library, or plain arithmetic, makes of it.

use engine::server::http::{
    doors,
    go_text::{is_print, parse_duration, parse_uint, print_duration, quote},
};

use crate::feed::Feed;

const METHODS: [http::Method; 4] = [
    http::Method::GET,
    http::Method::PUT,
    http::Method::DELETE,
    http::Method::OPTIONS,
];

/// Reads a text.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let (what, method) = (feed.below(6), feed.below(4));
    if what == 5 {
        strings(feed.rest());
        return;
    }
    let Ok(text) = std::str::from_utf8(feed.rest()) else {
        return;
    };
    match what {
        0 => {
            if let Some(to) = doors::moved(text) {
                assert!(to.starts_with('/'), "{text:?} to {to:?}");
                assert_eq!(
                    doors::moved(&to).filter(|_| to != "/v1/kv"),
                    None,
                    "{text:?}"
                );
            }
            // What an escape hides is not shown to whoever judges by the path.
            assert!(!doors::need(&METHODS[method], text).is_empty());
        }
        1 => {
            let first = doors::query(text, b"a/");
            assert_eq!(first, doors::query(text, b"a/"));
        }
        2 => {
            if let Some(id) = doors::event_id(text) {
                assert_eq!(id, text);
            }
            let (query, id) = text.split_once(' ').unwrap_or((text, ""));
            let _ = doors::watch_begins(query, id.as_bytes());
        }
        3 => {
            if let Some(ns) = parse_duration(text) {
                let printed = print_duration(ns);
                assert_eq!(parse_duration(&printed), Some(ns), "{text:?}: {printed:?}");
            }
        }
        _ => {
            let whole = text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
            assert_eq!(parse_uint(text).ok(), whole, "{text:?}");
            let quoted = quote(text);
            assert!(quoted.starts_with('"') && quoted.ends_with('"'));
            assert!(quoted.chars().all(is_print), "{quoted:?}");
        }
    }
}

/// A text as it is written in a listing, and a document that is indented.
fn strings(bytes: &[u8]) {
    let written = doors::json_text(bytes);
    let read: String = serde_json::from_slice(&written).expect("it is JSON");
    let mut expected = String::new();
    for chunk in bytes.utf8_chunks() {
        expected.push_str(chunk.valid());
        chunk
            .invalid()
            .iter()
            .for_each(|_| expected.push('\u{fffd}'));
    }
    assert_eq!(read, expected);
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
        let compact = serde_json::to_vec(&value).expect("a value");
        let indented = doors::indented(compact.clone().into());
        let again: serde_json::Value = serde_json::from_slice(&indented).expect("it is JSON");
        // Not to `value`: what is read of a number of many digits may differ in its last bit.
        let plain: serde_json::Value = serde_json::from_slice(&compact).expect("it is JSON");
        assert_eq!(again, plain);
        assert!(indented.ends_with(b"\n"));
    }
}

//! Is a configuration file understood or refused, and is a tree the same tree in HCL and in JSON?
//!
//! `{what, text}`: a file in JSON, a file in HCL, or a JSON tree that is written in HCL and read.

use engine::cli::doors;
use serde_json::Value;

use crate::feed::Feed;

/// Reads a file.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let what = feed.below(3);
    let Ok(text) = std::str::from_utf8(feed.rest()) else {
        return;
    };
    match what {
        0 | 1 => {
            let first = doors::configuration(text, what == 1);
            assert_eq!(first, doors::configuration(text, what == 1));
            if let Err(errors) = first {
                assert!(!errors.is_empty() && errors.iter().all(|error| !error.is_empty()));
            }
        }
        _ => {
            let Ok(Value::Object(members)) = serde_json::from_str(text) else {
                return;
            };
            let mut out = String::new();
            for (key, value) in &members {
                if !is_name(key) || !can_be_written(value) {
                    return;
                }
                out.push_str(&format!("{key} = "));
                write(value, &mut out);
                out.push('\n');
            }
            let read = doors::hcl(&out).unwrap_or_else(|error| panic!("{out}: {error}"));
            assert_eq!(read, Value::Object(members), "{out}");
        }
    }
}

fn is_name(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Not everything is: the two characters that the reader keeps for itself, numbers that the two
/// languages round in their own ways, and what is nested more than anyone does.
fn can_be_written(value: &Value) -> bool {
    fn at(value: &Value, depth: usize) -> bool {
        let text = |text: &str| !text.contains(['\u{f8f0}', '\u{f8f1}']);
        match value {
            Value::String(value) => text(value),
            Value::Number(number) => number.is_i64() || number.is_u64(),
            Value::Array(items) => depth > 0 && items.iter().all(|item| at(item, depth - 1)),
            Value::Object(members) => {
                depth > 0
                    && members
                        .iter()
                        .all(|(key, value)| text(key) && at(value, depth - 1))
            }
            _ => true,
        }
    }
    at(value, 16)
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(item, out);
                out.push_str(", ");
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push_str("{\n");
            for (key, value) in members {
                text(key, out);
                out.push_str(" = ");
                write(value, out);
                out.push('\n');
            }
            out.push('}');
        }
        Value::String(value) => text(value, out),
        value => out.push_str(&value.to_string()),
    }
}

fn text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

//! How is a KV row written, byte for byte as Consul writes it?
//!
//! By hand into one buffer: these rows are nearly all that the server ever answers, and going
//! through a serializer costs more than everything else the HTTP layer does for a request.
//! A property test holds this to `serde_json`. Strings are escaped as Go's `encoding/json` does,
//! which also escapes `<`, `>` and `&`.

use base64::Engine;
use bytes::Bytes;
use wire::KvRowRef;

/// Compact, or indented by four spaces with a newline at the end (`?pretty`, `-dev`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Compact,
    Pretty,
}

const INDENT: &[u8] = b"    ";

impl Style {
    /// What opens an element of a top-level array.
    fn element(self, out: &mut Vec<u8>, first: bool) {
        if !first {
            out.push(b',');
        }
        if self == Style::Pretty {
            out.push(b'\n');
            out.extend_from_slice(INDENT);
        }
    }

    /// Ends a top-level array of which `empty` says whether it has elements.
    pub(super) fn end_array(self, out: &mut Vec<u8>, empty: bool) {
        if self == Style::Pretty && !empty {
            out.push(b'\n');
        }
        out.push(b']');
        self.end(out);
    }

    /// Ends a document.
    pub(super) fn end(self, out: &mut Vec<u8>) {
        if self == Style::Pretty {
            out.push(b'\n');
        }
    }

    /// `"Name":` of a member of an object that is an element of the top-level array.
    fn member(self, out: &mut Vec<u8>, name: &[u8], first: bool) {
        if !first {
            out.push(b',');
        }
        if self == Style::Pretty {
            out.push(b'\n');
            out.extend_from_slice(INDENT);
            out.extend_from_slice(INDENT);
        }
        out.push(b'"');
        out.extend_from_slice(name);
        out.extend_from_slice(if self == Style::Pretty {
            b"\": "
        } else {
            b"\":"
        });
    }

    fn end_object(self, out: &mut Vec<u8>) {
        if self == Style::Pretty {
            out.push(b'\n');
            out.extend_from_slice(INDENT);
        }
        out.push(b'}');
    }
}

/// About how many bytes [`row`] will write.
pub(super) fn row_size_hint(row: &KvRowRef<'_>) -> usize {
    192 + row.key.len() + row.value.len().div_ceil(3) * 4 + row.session.len()
}

/// Writes one row as an element of an array.
pub(super) fn row(out: &mut Vec<u8>, style: Style, row: &KvRowRef<'_>, first: bool) {
    style.element(out, first);
    out.push(b'{');
    row_members(out, style, row);
    style.end_object(out);
}

/// Writes what stands between the braces of a row.
pub(super) fn row_members(out: &mut Vec<u8>, style: Style, row: &KvRowRef<'_>) {
    style.member(out, b"LockIndex", true);
    number(out, row.lock_index);
    style.member(out, b"Key", false);
    string(out, row.key);
    style.member(out, b"Flags", false);
    number(out, row.flags);
    style.member(out, b"Value", false);
    value(out, row.value);
    if !row.session.is_empty() {
        style.member(out, b"Session", false);
        string(out, row.session);
    }
    style.member(out, b"CreateIndex", false);
    number(out, row.create_index.0);
    style.member(out, b"ModifyIndex", false);
    number(out, row.modify_index.0);
}

/// Writes a string as an element of an array.
pub(super) fn string_element(out: &mut Vec<u8>, style: Style, text: &[u8], first: bool) {
    style.element(out, first);
    string(out, text);
}

/// Writes a value: Base64 in quotes, or `null` when it is empty.
fn value(out: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    out.push(b'"');
    let start = out.len();
    out.resize(start + value.len().div_ceil(3) * 4, 0);
    let written = base64::engine::general_purpose::STANDARD
        .encode_slice(value, &mut out[start..])
        .expect("four characters for every three bytes begun");
    out.truncate(start + written);
    out.push(b'"');
}

/// Writes a string in quotes, escaped as Go does. Bytes that are not UTF-8 become U+FFFD each.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let plain =
        |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&');
    if text.iter().all(plain) {
        out.extend_from_slice(text);
    } else {
        for chunk in text.utf8_chunks() {
            chunk.valid().chars().for_each(|c| char(out, c));
            chunk
                .invalid()
                .iter()
                .for_each(|_| out.extend_from_slice(b"\\ufffd"));
        }
    }
    out.push(b'"');
}

fn char(out: &mut Vec<u8>, c: char) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
            let code = c as u32 as usize;
            out.extend_from_slice(b"\\u");
            out.extend([12, 8, 4, 0].map(|shift| HEX[(code >> shift) & 15]));
            return;
        }
        c => {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// A compact document in the style that was asked for: indented as Go's `json.Indent`.
pub(super) fn styled(compact: Bytes, style: Style) -> Bytes {
    if style == Style::Compact {
        return compact;
    }
    let mut out = Vec::with_capacity(compact.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        (0..depth).for_each(|_| out.extend_from_slice(INDENT));
    };
    for (at, byte) in compact.iter().copied().enumerate() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if !matches!(compact.get(at + 1), Some(b'}' | b']')) {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                if !matches!(
                    at.checked_sub(1).map(|before| compact[before]),
                    Some(b'{' | b'[')
                ) {
                    depth -= 1;
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    style.end(&mut out);
    out.into()
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use wire::Index;

    use super::*;

    fn array(style: Style, rows: &[KvRowRef<'_>]) -> Vec<u8> {
        let mut out = vec![b'['];
        for (at, one) in rows.iter().enumerate() {
            row(&mut out, style, one, at == 0);
        }
        style.end_array(&mut out, rows.is_empty());
        out
    }

    #[test]
    fn documents_are_indented_as_go_does() {
        let value = json!({"a": [1, {"b": "x,{\"}:\\"}], "c": [], "d": {}, "e": null, "f": "\\\""});
        let compact = serde_json::to_vec(&value).unwrap();
        assert_eq!(styled(compact.clone().into(), Style::Compact), compact);
        let pretty = styled(compact.into(), Style::Pretty);
        let mut expected = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut expected, formatter);
        serde::Serialize::serialize(&value, &mut serializer).unwrap();
        expected.push(b'\n');
        assert_eq!(pretty, expected);
    }

    fn sample() -> KvRowRef<'static> {
        KvRowRef {
            key: b"a/b",
            value: b"v1!",
            flags: 42,
            create_index: Index(11),
            modify_index: Index(12),
            lock_index: 1,
            session: b"",
        }
    }

    #[test]
    fn a_row_is_written_as_consul_writes_it() {
        assert_eq!(
            String::from_utf8(array(Style::Compact, &[sample()])).unwrap(),
            r#"[{"LockIndex":1,"Key":"a/b","Flags":42,"Value":"djEh","CreateIndex":11,"ModifyIndex":12}]"#
        );
        let held = KvRowRef {
            session: b"adf4238a",
            value: b"",
            ..sample()
        };
        assert_eq!(
            String::from_utf8(array(Style::Pretty, &[held])).unwrap(),
            "[\n    {\n        \"LockIndex\": 1,\n        \"Key\": \"a/b\",\n        \"Flags\": 42,\n        \
             \"Value\": null,\n        \"Session\": \"adf4238a\",\n        \"CreateIndex\": 11,\n        \
             \"ModifyIndex\": 12\n    }\n]\n"
        );
        assert_eq!(array(Style::Pretty, &[]), b"[]\n");
        assert_eq!(array(Style::Compact, &[]), b"[]");
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = Vec::new();
        string(
            &mut out,
            b"<a&b>\"\\\x08\x0c\n\r\t\x01\x7f\xff\xc3\xa9\xe2\x80\xa8",
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\"\\u003ca\\u0026b\\u003e\\\"\\\\\\b\\f\\n\\r\\t\\u0001\x7f\\ufffd\u{e9}\\u2028\""
        );
    }

    proptest! {
        /// serde_json reads back what was written, in both styles, for any bytes.
        #[test]
        fn rows_read_back_as_serde_json_reads_them(
            key in prop_oneof![
                any::<String>().prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..40),
            ],
            value in proptest::collection::vec(any::<u8>(), 0..100),
            session in "[a-f0-9-]{0,36}",
            numbers in any::<[u64; 4]>(),
            count in 0usize..4,
        ) {
            let row = KvRowRef {
                key: &key,
                value: &value,
                flags: numbers[0],
                create_index: Index(numbers[1]),
                modify_index: Index(numbers[2]),
                lock_index: numbers[3],
                session: session.as_bytes(),
            };
            let mut text = String::new();
            for chunk in key.utf8_chunks() {
                text.push_str(chunk.valid());
                chunk.invalid().iter().for_each(|_| text.push('\u{fffd}'));
            }
            let mut expected = json!({
                "LockIndex": numbers[3],
                "Key": text,
                "Flags": numbers[0],
                "Value": base64::engine::general_purpose::STANDARD.encode(&value),
                "CreateIndex": numbers[1],
                "ModifyIndex": numbers[2],
            });
            if value.is_empty() {
                expected["Value"] = Value::Null;
            }
            if !session.is_empty() {
                expected["Session"] = json!(session);
            }
            for style in [Style::Compact, Style::Pretty] {
                let written = array(style, &vec![row; count]);
                let read: Value = serde_json::from_slice(&written).unwrap();
                prop_assert_eq!(read, Value::Array(vec![expected.clone(); count]));
            }
        }
    }
}

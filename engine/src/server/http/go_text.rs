//! How does Go read and print numbers, durations and strings?
//!
//! Consul's parameters are read by Go's `strconv` and `time.ParseDuration`, and its error texts
//! come from there; clients match on them.

use std::fmt::Write;

/// Nanoseconds of Go's duration units.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// `strconv.ParseUint(text, 10, 64)`, with its error text.
pub fn parse_uint(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let why = match text.parse() {
        Ok(number) if digits => return Ok(number),
        _ if digits => "value out of range",
        _ => "invalid syntax",
    };
    Err(format!("strconv.ParseUint: parsing {}: {why}", quote(text)))
}

/// `strconv.Atoi(text)`, with its error text.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let why = match text.parse() {
        Ok(number) if is_number => return Ok(number),
        _ if is_number => "value out of range",
        _ => "invalid syntax",
    };
    Err(format!("strconv.Atoi: parsing {}: {why}", quote(text)))
}

/// `time.ParseDuration(text)`: signed decimal numbers with units, such as `1m30s` or `1.5h`.
/// In nanoseconds; `None` for what Go refuses.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        if !number.bytes().any(|b| b.is_ascii_digit()) {
            return None;
        }
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        nanos += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    let nanos = sign * nanos;
    (nanos.abs() < i64::MAX as f64).then_some(nanos as i64)
}

/// `time.Duration.String()`: `1m30s`, `1.5s`, `24h0m0s`, `150ms`.
pub fn print_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = |unit: u64| {
        let text = format!(
            "{}.{:0width$}",
            nanos / unit,
            nanos % unit,
            width = unit.ilog10() as usize
        );
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let text = match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(1_000) + "\u{b5}s",
        1_000_000..1_000_000_000 => fraction(1_000_000) + "ms",
        _ => {
            let seconds = nanos / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = nanos - (hours * 3600 + minutes * 60) * 1_000_000_000;
            let rest = format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000);
            let rest = rest.trim_end_matches('0').trim_end_matches('.');
            match (hours, minutes) {
                (0, 0) => format!("{rest}s"),
                (0, _) => format!("{minutes}m{rest}s"),
                _ => format!("{hours}h{minutes}m{rest}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// Go's `%q`: double quotes, with Go's escapes.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_print(c) => out.push(c),
            c if (c as u32) < 0x80 => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if (c as u32) < 0x1_0000 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => {
                let _ = write!(out, "\\U{:08x}", c as u32);
            }
        }
    }
    out.push('"');
    out
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
/// Rust's debug escapes are drawn from the same list; a mark is only escaped when it comes first.
pub fn is_print(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    let mut text = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..length]).is_ok_and(|text| text.escape_debug().count() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (150_000_000, "150ms"),
            (1_500_000_000, "1.5s"),
            (10_000_000_000, "10s"),
            (90_000_000_000, "1m30s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (86_400_000_000_000, "24h0m0s"),
            (-5_000_000_000, "-5s"),
        ] {
            assert_eq!(print_duration(nanos), text);
            assert_eq!(parse_duration(text), Some(nanos));
        }
    }

    #[test]
    fn numbers_are_refused_in_gos_words() {
        assert_eq!(parse_uint("18446744073709551615"), Ok(u64::MAX));
        for (text, error) in [
            ("abc", r#"strconv.ParseUint: parsing "abc": invalid syntax"#),
            ("", r#"strconv.ParseUint: parsing "": invalid syntax"#),
            ("-1", r#"strconv.ParseUint: parsing "-1": invalid syntax"#),
            ("+1", r#"strconv.ParseUint: parsing "+1": invalid syntax"#),
            (
                "18446744073709551616",
                r#"strconv.ParseUint: parsing "18446744073709551616": value out of range"#,
            ),
            (
                "a\"\n\u{7}",
                r#"strconv.ParseUint: parsing "a\"\n\x07": invalid syntax"#,
            ),
        ] {
            assert_eq!(parse_uint(text), Err(error.to_string()));
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("10s", Some(10_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("300ms", Some(300_000_000)),
            ("-2us", Some(-2_000)),
            ("+5ns", Some(5)),
            (".5s", Some(500_000_000)),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1d", None),
            ("1.2.3s", None),
            ("10 s", None),
            ("9999999999h", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text:?}");
        }
    }

    #[test]
    fn printable_is_what_go_calls_printable() {
        for c in [
            'a',
            ' ',
            '~',
            '\u{e9}',
            '\u{4e2d}',
            '\u{1f600}',
            '\u{301}',
            '\u{fffd}',
        ] {
            assert!(is_print(c), "{c:?}");
        }
        for c in [
            '\0', '\n', '\u{7f}', '\u{a0}', '\u{200b}', '\u{2028}', '\u{feff}', '\u{e000}',
        ] {
            assert!(!is_print(c), "{c:?}");
        }
    }
}

//! How does Go read and print numbers, durations and strings?
//!
//! Consul's parameters are read by Go's `strconv` and `time.ParseDuration`, and its error texts
//! come from there; clients match on them.

use std::fmt::Write;

/// Nanoseconds of Go's duration units.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
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
/// In nanoseconds; `None` for what Go refuses. Whole numbers are exact, as Go's.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0_u64;
    while !rest.is_empty() {
        let (whole, tail) = split_digits(rest);
        let (fraction, tail) = match tail.strip_prefix('.') {
            Some(tail) => split_digits(tail),
            None => ("", tail),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let whole: u64 = match whole {
            "" => 0,
            digits => digits.parse().ok()?,
        };
        let one = whole
            .checked_mul(scale)?
            .checked_add(part_of(fraction, scale))?;
        nanos = nanos.checked_add(one)?;
        rest = tail;
    }
    match negative {
        true => 0_i64.checked_sub_unsigned(nanos),
        false => nanos.try_into().ok(),
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(length)
}

/// So much of a unit of `scale` nanoseconds as the digits behind a point say, rounded down. The
/// first 18 count, far beyond a nanosecond.
fn part_of(digits: &str, scale: u64) -> u64 {
    let counted = &digits[..digits.len().min(18)];
    let numerator = counted
        .bytes()
        .fold(0, |sum: u128, digit| 10 * sum + u128::from(digit - b'0'));
    let part = numerator * u128::from(scale) / 10_u128.pow(counted.len() as u32);
    u64::try_from(part).expect("less than the unit")
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

    /// Read as floating-point numbers, `1.000001ms` was 1,000,000 ns, `1.001s` a nanosecond short,
    /// and the longest durations that Go has were refused or rounded. (Fuzz target `http_lines`,
    /// which reads what was printed: `0000000000001000001ns`.)
    #[test]
    fn durations_are_exact() {
        for (text, nanos) in [
            ("0000000000001000001ns", Some(1_000_001)),
            ("1.000001ms", Some(1_000_001)),
            ("1.001s", Some(1_001_000_000)),
            ("4.35s", Some(4_350_000_000)),
            ("0.1234567891234567891234h", Some(444_444_440_844)),
            ("9007199254740993ns", Some(9_007_199_254_740_993)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("9223372036854775808ns", None),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("-9223372036854775809ns", None),
            ("99999999999999999999999s", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text:?}");
        }
        for nanos in [i64::MAX, i64::MIN, -1, 1_000_001, 3_599_999_999_999] {
            assert_eq!(parse_duration(&print_duration(nanos)), Some(nanos));
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

//! When does a token end?
//!
//! Clients say how long it lives, or until when; what is kept is the time. It lives at least a
//! minute, and at most as long as the number can say.

use serde_json::Value;

use super::super::{
    failure::Refusal,
    go_text::{parse_duration, print_duration, quote},
};

/// Shortest life of a token, ns: a minute.
pub(super) const EXPIRES_NS_MIN: i64 = 60 * 1_000_000_000;

/// The time, ns since 1970, that a token with this `ExpirationTime` and `ExpirationTTL` ends at; 0
/// for none. `now_ns`: it is new, and must live long enough.
pub(super) fn ends(time: &str, ttl: Option<&Value>, now_ns: Option<u64>) -> Result<u64, Refusal> {
    let refuse = |why: String| Err(Refusal::internal(why));
    let ttl = ttl.map_or(Ok(0), ttl_ns)?;
    if ttl < 0 {
        let ttl = print_duration(ttl);
        return refuse(format!("Token Expiration TTL '{ttl}' should be > 0"));
    }
    let at = match time.is_empty() || time.starts_with("0001-01-01T00:00:00") {
        true => None,
        false => Some(parse_rfc3339(time).ok_or_else(|| {
            let why = format!("ExpirationTime: {} is not a time", quote(time));
            Refusal::bad(format!("Token decoding failed: {why}"))
        })?),
    };
    let Some(now_ns) = now_ns else {
        return Ok(at.unwrap_or(0));
    };
    let at = match (ttl, at) {
        (0, None) => return Ok(0),
        (0, Some(at)) => at,
        (_, Some(_)) => {
            return refuse(
                "Token Expiration TTL and Expiration Time cannot both be set".to_owned(),
            );
        }
        (ttl, None) => now_ns.saturating_add(ttl as u64),
    };
    let Some(left) = at.checked_sub(now_ns) else {
        return refuse("ExpirationTime cannot be before CreateTime".to_owned());
    };
    let left = i64::try_from(left).unwrap_or(i64::MAX);
    if left < EXPIRES_NS_MIN {
        return refuse(format!(
            "ExpirationTime cannot be less than {} in the future (was {})",
            print_duration(EXPIRES_NS_MIN),
            print_duration(left)
        ));
    }
    Ok(at)
}

/// A duration as text, or as nanoseconds.
fn ttl_ns(given: &Value) -> Result<i64, Refusal> {
    let failed = |why: String| Refusal::bad(format!("Token decoding failed: {why}"));
    match given {
        Value::String(text) if text.is_empty() => Ok(0),
        Value::String(text) => parse_duration(text)
            .ok_or_else(|| failed(format!("time: invalid duration {}", quote(text)))),
        Value::Number(number) => number
            .as_i64()
            .ok_or_else(|| failed(format!("ExpirationTTL: {number} is out of range"))),
        other => Err(failed(format!("ExpirationTTL: {other} is not a duration"))),
    }
}

/// A time with its offset from UTC, as ns since 1970.
fn parse_rfc3339(text: &str) -> Option<u64> {
    let (utc, offset_s) = match text.strip_suffix('Z') {
        Some(utc) => (utc, 0),
        None => {
            let (utc, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let sign = match offset.as_bytes()[0] {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = offset[1..].split_once(':')?;
            let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
            (utc, sign * (hours * 3600 + minutes * 60))
        }
    };
    let time = humantime::parse_rfc3339(&format!("{utc}Z")).ok()?;
    let ns = time.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos();
    let ns = i128::try_from(ns).ok()? - i128::from(offset_s) * 1_000_000_000;
    u64::try_from(ns).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_have_an_offset() {
        let utc = parse_rfc3339("2030-01-02T03:04:05.5Z");
        assert!(utc.is_some());
        assert_eq!(parse_rfc3339("2030-01-02T05:04:05.5+02:00"), utc);
        assert_eq!(parse_rfc3339("2030-01-01T22:34:05.5-04:30"), utc);
        for bad in [
            "",
            "x",
            "2030-01-02",
            "2030-01-02T03:04:05",
            "2030-01-02T03:04:05*02:00",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}

//! Durations on the command line, as Go writes them: `300ms`, `1m30s`, `0`.

use std::time::Duration;

use crate::server::http::go_text;

/// Reads a duration from zero up; `None` for what is none, or below.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let nanos = go_text::parse_duration(text)?;
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse("0"), Some(Duration::ZERO));
        for wrong in ["", "5", "-1s", "1 s", "soon"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}

//! How does a line of the log look?
//!
//! As Consul's, which operators' tools parse:
//!
//! ```text
//! 2026-01-31T12:00:00.123Z [INFO]  agent.server.raft: message: key=value
//! {"@level":"info","@message":"message: key=value","@module":"agent.server.raft","@timestamp":"…"}
//! ```
//!
//! The module is the `log` crate's target. One record is one line, whatever a client's text holds.

use std::time::SystemTime;

use log::{Level, LevelFilter, Record};
use serde_json::json;

/// In which form lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON object each, as Consul's `logjson`.
    Json,
}

/// Reads a level as Consul does: `trace`, `debug`, `info`, `warn` (`warning`), `err` (`error`),
/// either case. `None` for anything else.
pub fn parse_level(text: &str) -> Option<LevelFilter> {
    Some(match text.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::Trace,
        "debug" => LevelFilter::Debug,
        "info" => LevelFilter::Info,
        "warn" | "warning" => LevelFilter::Warn,
        "err" | "error" => LevelFilter::Error,
        _ => return None,
    })
}

/// The line of a record, with its line feed.
pub fn line(form: Form, record: &Record<'_>, now: SystemTime) -> String {
    // `engine::server::raft` is Consul's `agent.server.raft`.
    let module = match record.target().strip_prefix("engine") {
        Some(path) => format!("agent{}", path.replace("::", ".")),
        None => record.target().to_string(),
    };
    let message = record.args().to_string();
    match form {
        Form::Text => {
            let time = humantime::format_rfc3339_millis(now);
            let level = bracketed(record.level());
            let message = message.replace('\n', "\\n");
            format!("{time} {level} {module}: {message}\n")
        }
        Form::Json => {
            let line = json!({
                "@level": record.level().as_str().to_ascii_lowercase(),
                "@message": message,
                "@module": module,
                "@timestamp": humantime::format_rfc3339_micros(now).to_string(),
            });
            format!("{line}\n")
        }
    }
}

fn bracketed(level: Level) -> &'static str {
    match level {
        Level::Error => "[ERROR]",
        Level::Warn => "[WARN] ",
        Level::Info => "[INFO] ",
        Level::Debug => "[DEBUG]",
        Level::Trace => "[TRACE]",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn written(form: Form, level: Level, target: &str, text: &str) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        line(
            form,
            &Record::builder()
                .level(level)
                .target(target)
                .args(format_args!("{text}"))
                .build(),
            now,
        )
    }

    #[test]
    fn lines_look_like_consuls() {
        let raft = "agent.server.raft";
        assert_eq!(
            written(Form::Text, Level::Info, raft, "election won: term=2"),
            "2023-11-14T22:13:20.123Z [INFO]  agent.server.raft: election won: term=2\n"
        );
        assert_eq!(
            written(Form::Text, Level::Error, "engine::server::http", "a\nb"),
            "2023-11-14T22:13:20.123Z [ERROR] agent.server.http: a\\nb\n"
        );
        assert_eq!(
            written(Form::Json, Level::Warn, raft, "a \"b\"\nc"),
            "{\"@level\":\"warn\",\"@message\":\"a \\\"b\\\"\\nc\",\"@module\":\"agent.server.raft\",\
             \"@timestamp\":\"2023-11-14T22:13:20.123000Z\"}\n"
        );
    }

    #[test]
    fn levels_are_consuls() {
        for (text, level) in [
            ("TRACE", Some(LevelFilter::Trace)),
            ("err", Some(LevelFilter::Error)),
            ("warning", Some(LevelFilter::Warn)),
            ("loud", None),
            ("", None),
        ] {
            assert_eq!(parse_level(text), level, "{text}");
        }
    }
}

//! How does a log line look?
//!
//! As Consul's: `2026-01-31T12:00:00.123Z [INFO]  agent.server.raft: message: key=value`. The
//! module is the `log` crate's target; lines go to standard output in one write each.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use log::{Level, LevelFilter, Log, Metadata, Record};

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

/// Starts logging to standard output at `level`. Later calls only change the level.
pub fn start(level: LevelFilter) {
    // An error means that a logger is there already, which is this one.
    let _ = log::set_logger(&Logger);
    log::set_max_level(level);
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && !is_chatter(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(record, SystemTime::now());
            // Nobody is left to tell when standard output is gone.
            let _ = io::stdout().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {
        let _ = io::stdout().flush();
    }
}

/// Libraries' own words below warnings.
fn is_chatter(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().starts_with("agent") || metadata.target().starts_with("engine");
    !ours && metadata.level() > Level::Warn
}

fn line(record: &Record<'_>, now: SystemTime) -> String {
    let level = match record.level() {
        Level::Error => "[ERROR]",
        Level::Warn => "[WARN] ",
        Level::Info => "[INFO] ",
        Level::Debug => "[DEBUG]",
        Level::Trace => "[TRACE]",
    };
    let time = humantime::format_rfc3339_millis(now);
    // `engine::server::raft` is Consul's `agent.server.raft`.
    let target = match record.target().strip_prefix("engine") {
        Some(path) => format!("agent{}", path.replace("::", ".")),
        None => record.target().to_string(),
    };
    // One record is one line, whatever a client's text contains.
    let text = record.args().to_string().replace('\n', "\\n");
    format!("{time} {level} {target}: {text}\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_look_like_consuls() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let write = |level, target, text: &str| {
            line(
                &Record::builder()
                    .level(level)
                    .target(target)
                    .args(format_args!("{text}"))
                    .build(),
                now,
            )
        };
        assert_eq!(
            write(Level::Info, "agent.server.raft", "election won: term=2"),
            "2023-11-14T22:13:20.123Z [INFO]  agent.server.raft: election won: term=2\n"
        );
        assert_eq!(
            write(Level::Error, "engine::server::http", "a\nb"),
            "2023-11-14T22:13:20.123Z [ERROR] agent.server.http: a\\nb\n"
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

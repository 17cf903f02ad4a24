//! Where do log lines go?
//!
//! To standard output in one write each, in Consul's form, and to whoever reads along
//! ([`monitor`]).

use std::{
    io::{self, Write},
    time::SystemTime,
};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::server::monitor::{self, Form};

/// Starts logging to standard output at `level`. Later calls only change the level.
pub fn start(level: LevelFilter) {
    // An error means that a logger is there already, which is this one.
    let _ = log::set_logger(&Logger);
    monitor::set_level(level);
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && !is_chatter(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = SystemTime::now();
        if monitor::is_own(record.level()) {
            let line = monitor::line(Form::Text, record, now);
            // Nobody is left to tell when standard output is gone.
            let _ = io::stdout().lock().write_all(line.as_bytes());
        }
        monitor::tell(record, now);
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

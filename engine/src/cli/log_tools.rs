//! `curia log inspect` and `curia log repair`: the logs of a stopped server.
//!
//! Given a data directory, they take every log in it; given one log's folder, that one. The
//! directory's lock is held meanwhile: neither may run beside a server that writes.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{CliError, flags::LogRepair};
use crate::{
    cluster::identity::{DataDir, Identity, log_path, take_lock},
    io::Dir,
    log::{self, LogConfig, LogIdentity},
};

/// A stopped server's logs, and its directory's lock.
struct Stopped {
    identity: Identity,
    /// Lane and folder of each log that was asked for.
    logs: Vec<(u16, PathBuf)>,
    _lock: File,
}

/// Prints and verifies a log. An error when it is not sound.
pub(super) fn inspect(dir: &Path) -> Result<(), CliError> {
    let stopped = Stopped::open(dir)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut damaged = Vec::new();
    for (lane, path) in &stopped.logs {
        let failed = failed(path);
        let disk = Dir::open(path).map_err(&failed)?;
        let inspection = log::inspect(&disk, stopped.name(*lane), true, &mut out)
            .map_err(|error| failed(io::Error::other(error)))?;
        damaged.extend(
            inspection
                .corrupt
                .iter()
                .map(|at| format!("{}: {at}", path.display())),
        );
    }
    out.flush().map_err(failed(dir))?;
    if damaged.is_empty() {
        return Ok(());
    }
    Err(CliError(format!(
        "Error: the log is damaged:\n  {}\nA server with living peers repairs itself from them when \
         it starts; for a lone one there is `curia log repair -cut-tail`",
        damaged.join("\n  ")
    )))
}

/// Cuts a log where it cannot be decided.
pub(super) fn repair(flags: &LogRepair) -> Result<(), CliError> {
    if !flags.cut_tail {
        check_dir(&flags.dir)?;
        return Err(CliError(
            "Error: say what to repair: -cut-tail cuts the log where its end cannot be decided. \
             Acknowledged entries may be lost by it; a server with living peers repairs itself from \
             them and needs no tool"
                .into(),
        ));
    }
    let stopped = Stopped::open(&flags.dir)?;
    for (lane, path) in &stopped.logs {
        let failed = failed(path);
        let disk = Dir::open(path).map_err(&failed)?;
        let cut = log::repair_cut_tail(&disk, &LogConfig::default(), stopped.name(*lane))
            .map_err(|error| failed(io::Error::other(error)))?;
        match cut {
            None => println!(
                "{}: nothing is missing; nothing was changed",
                path.display()
            ),
            Some(cut) => println!(
                "{}: cut at {}; {} entries are left; what was cut is kept in {}",
                path.display(),
                cut.at,
                cut.entries,
                cut.kept.join(", ")
            ),
        }
    }
    Ok(())
}

impl Stopped {
    fn open(dir: &Path) -> Result<Self, CliError> {
        check_dir(dir)?;
        let own = dir.join("identity.json").exists();
        let data = match (own, dir.parent()) {
            (true, _) => dir,
            (false, Some(parent)) if parent.join("identity.json").exists() => parent,
            _ => {
                return Err(CliError(format!(
                    "Error: {} is neither a curia data directory nor a log in one: there is no identity.json",
                    dir.display()
                )));
            }
        };
        let lock = take_lock(data).map_err(|error| CliError(format!("Error: {error}")))?;
        let identity = DataDir::peek(data).map_err(|error| CliError(format!("Error: {error}")))?;
        let logs = (0..identity.logs.len() as u16)
            .map(|lane| (lane, log_path(data, lane)))
            .filter(|(_, path)| own || path.file_name() == dir.file_name())
            .collect();
        Ok(Self {
            identity,
            logs,
            _lock: lock,
        })
    }

    fn name(&self, lane: u16) -> LogIdentity {
        let name = &self.identity.logs[usize::from(lane)];
        LogIdentity {
            log_id: name.id,
            salt: name.salt,
        }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> CliError {
    let path = path.display().to_string();
    move |error| CliError(format!("Error: {path}: {error}"))
}

fn check_dir(dir: &Path) -> Result<(), CliError> {
    if dir.is_dir() {
        return Ok(());
    }
    let what = if dir.exists() {
        "is not a directory"
    } else {
        "does not exist"
    };
    Err(CliError(format!(
        "Error: {} {what}: name the data directory of a stopped server, or a log in it",
        dir.display()
    )))
}

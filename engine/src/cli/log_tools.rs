//! `curia log inspect` and `curia log repair`: the logs of a stopped server.
//!
//! Both take a data directory, or the folder of one log in it, and hold the directory's lock
//! while they run, so that a server can never be writing at the same time.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{CliError, flags::LogRepair};
use crate::{
    cluster::identity::{DataDir, LogName, log_path},
    io::Dir,
    log::{self, Cut, LogConfig, LogIdentity},
};

/// A log and whose it is.
struct Found {
    path: PathBuf,
    identity: LogIdentity,
}

/// Prints and verifies logs. An error when one of them is damaged.
pub(super) fn inspect(dir: &Path) -> Result<(), CliError> {
    let (_lock, logs) = find(dir)?;
    let mut out = io::stdout().lock();
    let mut damaged = Vec::new();
    for found in &logs {
        let shown = writeln!(out, "log {}", found.path.display());
        shown.map_err(|error| in_path(&found.path)(&error))?;
        let disk = Dir::open(&found.path).map_err(|error| in_path(&found.path)(&error))?;
        let inspection = log::inspect(&disk, found.identity, true, &mut out)
            .map_err(|error| in_path(&found.path)(&error))?;
        if !inspection.is_sound() {
            damaged.push(found.path.display().to_string());
        }
    }
    if damaged.is_empty() {
        return Ok(());
    }
    Err(CliError(format!("Error: damaged: {}", damaged.join(", "))))
}

/// Cuts logs where they cannot be decided.
pub(super) fn repair(flags: &LogRepair) -> Result<(), CliError> {
    let (_lock, logs) = find(&flags.dir)?;
    if !flags.cut_tail {
        return Err(CliError(
            "Error: say what to repair: -cut-tail cuts the log where its end cannot be decided. \
             Acknowledged entries may be lost by it; a server with living peers repairs itself from \
             them and needs no tool"
                .into(),
        ));
    }
    for found in &logs {
        let disk = Dir::open(&found.path).map_err(|error| in_path(&found.path)(&error))?;
        let cut = log::repair_cut_tail(&disk, &LogConfig::default(), found.identity)
            .map_err(|error| in_path(&found.path)(&error))?;
        match cut {
            None => println!(
                "{}: nothing is missing; nothing was changed",
                found.path.display()
            ),
            Some(cut) => print_cut(&found.path, &cut),
        }
    }
    Ok(())
}

fn print_cut(path: &Path, cut: &Cut) {
    println!(
        "{}: the log now ends at {}; {} entries remain. What came after is no longer part of it",
        path.display(),
        cut.at,
        cut.entries
    );
    for kept in &cut.kept {
        println!("  kept aside: {}", path.join(kept).display());
    }
}

/// The logs that a path means, and the lock of their data directory.
fn find(dir: &Path) -> Result<(File, Vec<Found>), CliError> {
    check_dir(dir)?;
    let dir = dir.canonicalize().map_err(|error| in_path(dir)(&error))?;
    let is_data_dir = dir.join("identity.json").exists();
    let data_dir = match (is_data_dir, dir.parent()) {
        (true, _) => dir.as_path(),
        (false, Some(parent)) => parent,
        (false, None) => dir.as_path(),
    };
    let held = DataDir::hold(data_dir).map_err(|error| CliError(format!("Error: {error}")))?;
    let (lock, identity) = held;
    let found = |(no, name): (usize, &LogName)| Found {
        path: log_path(data_dir, no as u16),
        identity: LogIdentity {
            log_id: name.id,
            salt: name.salt,
        },
    };
    let mut logs: Vec<Found> = identity.logs.iter().enumerate().map(found).collect();
    if !is_data_dir {
        logs.retain(|log| log.path == dir);
    }
    if logs.is_empty() {
        return Err(CliError(format!(
            "Error: {} is not a log of the data directory {}",
            dir.display(),
            data_dir.display()
        )));
    }
    Ok((lock, logs))
}

fn in_path(path: &Path) -> impl Fn(&dyn std::fmt::Display) -> CliError {
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
        "Error: {} {what}: name a server's data directory, or the folder of a log in it",
        dir.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{EntryRef, Log};
    use wire::{Index, ShardId, Term};

    /// A data directory with one log of twenty entries.
    fn data_dir(path: &Path) -> PathBuf {
        let data = DataDir::open(path, None, "dc1", 1).unwrap();
        let log_dir = data.log_path(0);
        std::fs::create_dir_all(&log_dir).unwrap();
        let name = &data.identity().logs[0];
        let identity = LogIdentity {
            log_id: name.id,
            salt: name.salt,
        };
        let disk = Dir::open(&log_dir).unwrap();
        let config = LogConfig {
            segment_bytes: 1 << 20,
            ..LogConfig::default()
        };
        let mut log = Log::create(&disk, config, identity).unwrap();
        for index in 1..=20 {
            let entry = EntryRef {
                index: Index(index),
                term: Term(1),
                kind: 0,
                data: &[7; 2000],
            };
            log.append(ShardId(0), entry);
            log.flush_blocking(&disk, 0).unwrap();
        }
        log_dir
    }

    fn repair_with(dir: &Path, cut_tail: bool) -> Result<(), CliError> {
        let dir = dir.to_owned();
        repair(&LogRepair { cut_tail, dir })
    }

    #[test]
    fn a_damaged_log_is_reported_cut_and_whole_again() {
        let place = tempfile::tempdir().unwrap();
        let log_dir = data_dir(place.path());
        inspect(place.path()).unwrap();
        inspect(&log_dir).unwrap();
        let segment = log_dir.join("0000000000000001.segment");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[10 * 4096 + 1000] ^= 1;
        std::fs::write(&segment, &bytes).unwrap();
        let error = inspect(&log_dir).unwrap_err();
        assert!(error.0.contains("damaged"), "{}", error.0);
        assert!(
            repair_with(&log_dir, false)
                .unwrap_err()
                .0
                .contains("-cut-tail")
        );
        repair_with(&log_dir, true).unwrap();
        inspect(place.path()).unwrap();
        let kept: Vec<_> = std::fs::read_dir(&log_dir)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.ends_with(".cut"))
            .collect();
        assert_eq!(
            kept.len(),
            2,
            "the cut bytes and the segment after: {kept:?}"
        );
    }

    #[test]
    fn a_directory_in_use_or_of_something_else_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let log_dir = data_dir(place.path());
        let held = DataDir::open(place.path(), None, "dc1", 1).unwrap();
        for dir in [place.path(), &log_dir] {
            let error = inspect(dir).unwrap_err();
            assert!(error.0.contains("in use"), "{}", error.0);
        }
        drop(held);
        std::fs::create_dir(place.path().join("other")).unwrap();
        let error = inspect(&place.path().join("other")).unwrap_err();
        assert!(error.0.contains("is not a log of"), "{}", error.0);
        assert!(
            inspect(&place.path().join("none"))
                .unwrap_err()
                .0
                .contains("does not exist")
        );
    }
}

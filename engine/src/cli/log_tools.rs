//! `curia log inspect` and `curia log repair`: the log of a stopped server.

use std::path::Path;

use super::{CliError, flags::LogRepair};

/// Prints and verifies a log.
pub(super) fn inspect(dir: &Path) -> Result<(), CliError> {
    check_dir(dir)?;
    Err(CliError(format!(
        "Error: cannot inspect {}: this build has no log tools yet",
        dir.display()
    )))
}

/// Cuts a log where it cannot be decided.
pub(super) fn repair(flags: &LogRepair) -> Result<(), CliError> {
    check_dir(&flags.dir)?;
    if !flags.cut_tail {
        return Err(CliError(
            "Error: say what to repair: -cut-tail cuts the log where its end cannot be decided. \
             Acknowledged entries may be lost by it; a server with living peers repairs itself from \
             them and needs no tool"
                .into(),
        ));
    }
    Err(CliError(format!(
        "Error: cannot repair {}: this build has no log tools yet",
        flags.dir.display()
    )))
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
        "Error: {} {what}: name the directory of a server's log",
        dir.display()
    )))
}

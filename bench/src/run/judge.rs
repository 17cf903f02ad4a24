//! `curia-bench judge`: is this history possible?
//!
//! Reads what `nemesis` (or whoever writes the same JSON lines) kept, and lets every judge read it.

use std::path::PathBuf;

use clap::Args;

use crate::judge;
use crate::{Error, Result};

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    /// The history, as JSON lines.
    file: PathBuf,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let history = judge::file::read(&options.file)?;
    let findings = judge::all(&history);
    println!(
        "{} operations, {} objects, {} undecided, {} violations",
        history.operations.len(),
        findings.objects,
        findings.undecided.len(),
        findings.violations.len()
    );
    for line in &findings.undecided {
        println!("{line}");
    }
    match (
        findings.violations.is_empty(),
        findings.undecided.is_empty(),
    ) {
        (true, true) => Ok(()),
        (true, false) => Err(Error::Environment(
            "not everything could be decided within the bounds".into(),
        )),
        (false, _) => Err(Error::Violation(findings.violations.join("\n"))),
    }
}

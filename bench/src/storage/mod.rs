//! Does the storage keep its promises, over millions of disks that only chance can draw?
//!
//! The engine's own proofs ([`engine::log::proof`], [`engine::snapshot::proof`]), which its tests
//! run for seconds, run here for as long as is wanted: on every core, with a progress bar, and with
//! a report. A promise that is broken ends the run with the seed, bit or operation that shows it
//! again. Nothing here touches a real disk.

mod crowd;

pub use crowd::{Crowd, Part};

use std::path::{Path, PathBuf};

use clap::Args;
use engine::log::proof::{Tally, Violation};
use serde_json::json;

use crate::machine::Machine;
use crate::report::{Report, table::Table};
use crate::volume::Volume;
use crate::{Error, Result};

/// What all proofs of storage take.
#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Threads [default: one for each core].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Where reports are written.
    #[arg(long, default_value = "perf-reports")]
    report_dir: PathBuf,
    /// Write no report.
    #[arg(long)]
    no_report: bool,
}

impl Common {
    /// How many threads.
    pub fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        self.threads.unwrap_or(cores).clamp(1, 1024)
    }

    /// Prints what was counted in each part, with its seconds, and writes the report.
    ///
    /// # Errors
    /// When the report cannot be written.
    pub fn report(&self, kind: &'static str, parts: &[Part], notes: &[String]) -> Result<()> {
        let machine = Machine::describe(&Volume::of(Path::new("."))?);
        let mut report = Report::new(kind, machine);
        report.about("Disks are in memory: nothing here depends on the real one.");
        let mut table = Table::new("Counted", &["proof", "count", "number"]);
        for part in parts {
            for (name, number) in &part.tally.0 {
                table.row(vec![part.name.into(), (*name).into(), number.to_string()]);
            }
            let seconds = part.busy.as_secs().to_string();
            table.row(vec![part.name.into(), "thread seconds".into(), seconds]);
            let counts: serde_json::Map<String, serde_json::Value> = part
                .tally
                .0
                .iter()
                .map(|(name, number)| ((*name).to_owned(), json!(number)))
                .collect();
            report.raw(&json!({
                "proof": part.name,
                "thread_seconds": part.busy.as_secs_f64(),
                "counts": counts,
            }));
        }
        report.table(table);
        for note in notes {
            report.note(note.clone());
        }
        match self.no_report {
            true => Ok(()),
            false => report.write(&self.report_dir).map(|_| ()),
        }
    }
}

/// A broken promise as the error of a run, with the command that shows it again.
pub fn broken(violation: &Violation, again: &str) -> Error {
    Error::Violation(format!("{violation}; shown again by: {again}"))
}

/// Adds up.
pub fn sum(parts: &[Part], name: &str) -> u64 {
    let count = |tally: &Tally| tally.get(name);
    parts.iter().map(|part| count(&part.tally)).sum()
}

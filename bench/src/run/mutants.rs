//! `curia-bench mutants`: does the simulator find every fault that is planted for it?
//!
//! For each mutant of `engine::mutant` it runs seed after seed until one fails. A seed that fails
//! without the mutant as well has found something else, which is worse, and does not count: each
//! finding is tried again on the same seed without the mutant. Before all that a control run must
//! find nothing. Mutants exist only in a build with `--features mutants`.
//!
//! A mutant that makes a server turn for ever must not hold up the others: each mutant's seeds run
//! on a thread of their own, and a seed without an end is a finding too.

use clap::Args;

use crate::{Error, Result};

#[cfg(feature = "mutants")]
mod hunt;
#[cfg(feature = "mutants")]
mod tell;

/// Options of the sub-command.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only these mutants, by name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only so many of them, drawn by `--seed`.
    #[arg(long)]
    sample: Option<usize>,
    /// What `--sample` draws by.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Most seeds of the simulator for each mutant.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Longest time for each mutant, seconds; a hunt that ends by it is told as such.
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Operations of clients in each seed.
    #[arg(long, default_value_t = 1000)]
    operations: u64,
    /// Seeds of the control run without a mutant.
    #[arg(long, default_value_t = 100)]
    control: u64,
    /// Mutants at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Says everything that goes on in the last seed: with `--only` and `--first`.
    #[arg(long)]
    tell: bool,
    /// Succeeds although a mutant was not found: to measure where the harness stands.
    #[arg(long)]
    survey: bool,
    /// Where the report is written, in the folder `reliability`.
    #[arg(long, default_value = "perf-reports")]
    report_dir: std::path::PathBuf,
    /// Write no report.
    #[arg(long)]
    no_report: bool,
}

/// Runs it.
#[cfg(not(feature = "mutants"))]
pub fn run(_: &Options) -> Result<()> {
    Err(Error::Usage(
        "this build has no mutants: build with `cargo build -p bench --features mutants`".into(),
    ))
}

/// Runs it.
#[cfg(feature = "mutants")]
pub fn run(options: &Options) -> Result<()> {
    let mutants = hunt::chosen(options)?;
    // What panics is told in the table.
    hunt::remember_panics();
    let control = hunt::control(options);
    println!("{}", tell::control(&control));
    let hunts = hunt::all(options, &mutants);
    tell::table(&hunts);
    if !options.no_report {
        tell::write(options, &control, &hunts)?;
    }
    let lost: Vec<&str> = hunts
        .iter()
        .filter(|hunt| hunt.found.is_none())
        .map(|hunt| hunt.mutant.name())
        .collect();
    if let Some((seed, why)) = control.failures.first() {
        return Err(Error::Violation(format!(
            "{} of {} seeds fail without any mutant; SEED={seed}: {why}",
            control.failures.len(),
            control.seeds
        )));
    }
    if !lost.is_empty() && !options.survey {
        return Err(Error::Violation(format!(
            "{} of {} mutants live: {}",
            lost.len(),
            hunts.len(),
            lost.join(", ")
        )));
    }
    Ok(())
}

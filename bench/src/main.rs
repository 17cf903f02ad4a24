//! `curia-bench`: a table of modes.

use std::process::ExitCode;

use bench::{floor, guard, run};
use clap::{Parser, Subcommand};

/// Measures curia: what a commit costs, how long it takes, and whether it is still there.
#[derive(Parser)]
#[command(name = "curia-bench", version)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// The deployment table: latency, cost and proof for each cluster size.
    CommitLatency(run::latency::Options),
    /// The physical limit of this host, with no engine code.
    Floor(run::floor::Options),
    /// curia and a peer in turns on the same ladder.
    Compare(run::compare::Options),
    /// Memory of a million keys, and the time of a restart.
    Memory(run::memory::Options),
    /// Time without writes after the leader is killed.
    Failover(run::failover::Options),
    /// Two builds of curia in turns on the same load.
    Pairs(run::pairs::Options),
    /// What blocking queries cost while they wait.
    Waiters(run::waiters::Options),
    /// How long a start and a stop take.
    Starts(run::starts::Options),
    /// Proof of storage: power cuts at every write boundary.
    Images(run::images::Options),
    /// Proof of storage: every bit of a log and of an image flipped.
    Flips(run::flips::Options),
    /// Proof of storage: the N-th operation fails, for every N.
    NthFault(run::nth_fault::Options),
    /// Real servers killed, cut off, slowed and damaged; histories judged.
    Nemesis(run::nemesis::Options),
    /// Judges a history that was kept.
    Judge(run::judge::Options),
    /// A short run that checks correctness, for CI.
    Smoke(run::smoke::Options),
    /// Whole clusters in virtual time, under faults of every kind, by seed.
    Simulate(run::simulate::Options),
    /// Whether the simulator finds the faults that are planted for it.
    Mutants(run::mutants::Options),
    /// One server of the floor; started by `floor`.
    #[command(hide = true)]
    FloorServer(floor::ServerOptions),
}

fn main() -> ExitCode {
    let mode = Cli::parse().mode;
    guard::install();
    let result = match &mode {
        Mode::CommitLatency(options) => run::latency::run(options),
        Mode::Floor(options) => run::floor::run(options),
        Mode::Compare(options) => run::compare::run(options),
        Mode::Memory(options) => run::memory::run(options),
        Mode::Failover(options) => run::failover::run(options),
        Mode::Pairs(options) => run::pairs::run(options),
        Mode::Waiters(options) => run::waiters::run(options),
        Mode::Starts(options) => run::starts::run(options),
        Mode::Images(options) => run::images::run(options),
        Mode::Flips(options) => run::flips::run(options),
        Mode::NthFault(options) => run::nth_fault::run(options),
        Mode::Nemesis(options) => run::nemesis::run(options),
        Mode::Judge(options) => run::judge::run(options),
        Mode::Smoke(options) => run::smoke::run(options),
        Mode::Simulate(options) => run::simulate::run(options),
        Mode::Mutants(options) => run::mutants::run(options),
        Mode::FloorServer(options) => floor::serve(options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("curia-bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

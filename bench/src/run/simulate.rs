//! `curia-bench simulate`: many seeds, each a cluster in virtual time under faults of every kind.
//!
//! One thread per job, each with its own seeds. The first failing seed is made smaller and printed
//! with the command that replays it; see [`crate::sim`].

use std::{
    cell::RefCell,
    fmt::Write as _,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    Context, Error, Result,
    machine::Machine,
    sim::{self, Counts, Fault, Outcome, Wish, shrink},
    volume::Volume,
};

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    /// How many seeds, from `--first` on.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only this seed, twice: it must be the same both times.
    #[arg(long)]
    seed: Option<u64>,
    /// Operations of clients in each seed.
    #[arg(long, default_value_t = 1000)]
    operations: u64,
    /// Servers, from 1 to 7 [default: as the seed draws].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=7))]
    servers: Option<u8>,
    /// Threads, each with its own seeds [default: as many as there are cores]
    #[arg(long, default_value_t = cores(), hide_default_value = true)]
    jobs: usize,
    /// Faults that do not exist in any seed.
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Fault>,
    /// Directory for a report of the run, e.g. perf-reports/reliability.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Say on the error output what goes on.
    #[arg(long)]
    tell: bool,
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Failures shown at the end.
const SHOWN_MAX: usize = 20;

/// What all seeds came to.
#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    operations: u64,
    answered: u64,
    counts: Counts,
    failures: Vec<(u64, String)>,
}

impl Totals {
    fn add(&mut self, seed: u64, result: std::result::Result<Outcome, String>) {
        self.seeds += 1;
        match result {
            Ok(outcome) => {
                self.operations += outcome.operations;
                self.answered += outcome.answered;
                self.counts.add(&outcome.counts);
            }
            Err(why) => self.failures.push((seed, why)),
        }
    }
}

impl Options {
    fn wish(&self, seed: u64) -> Wish {
        Wish {
            seed,
            operations: self.operations,
            servers: self.servers.map(usize::from),
            without: self.without.clone(),
            tell: self.tell,
        }
    }
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    if let Some(seed) = options.seed {
        return replay(&options.wish(seed));
    }
    let began = Instant::now();
    let next = AtomicU64::new(options.first);
    let end = options.first + options.seeds;
    let totals = Mutex::new(Totals::default());
    let bar = ProgressBar::new(options.seeds);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds {per_sec} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let result = attempt(&options.wish(seed));
                    let mut totals = totals.lock().expect("no seed holds it while it runs");
                    if let Err(why) = &result {
                        bar.println(format!("SEED={seed}: {why}"));
                    }
                    totals.add(seed, result);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let totals = totals.into_inner().expect("all jobs ended");
    conclude(options, &totals, began.elapsed().as_secs_f64())
}

thread_local! {
    /// How the seed under way on this thread is run alone.
    static UNDER_WAY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A release build ends at a panic: what it was doing is said before.
fn tell_of_panics() {
    static ONCE: Once = Once::new();
    if cfg!(panic = "unwind") {
        return;
    }
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            usual(info);
            UNDER_WAY.with_borrow(|command| eprintln!("replay: {command}"));
        }));
    });
}

/// Runs a seed; a panic of the code under test is a failure like any other.
pub(super) fn attempt(wish: &Wish) -> std::result::Result<Outcome, String> {
    tell_of_panics();
    UNDER_WAY.set(shrink::command(wish));
    catch_unwind(AssertUnwindSafe(|| sim::run(wish))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a message")))
    })
}

fn replay(wish: &Wish) -> Result<()> {
    let first = attempt(wish).map_err(Error::Violation)?;
    let second = attempt(wish).map_err(Error::Violation)?;
    if first.digest != second.digest {
        return Err(Error::Violation(format!(
            "SEED={}: two runs of this seed differ: the simulator is not deterministic",
            wish.seed
        )));
    }
    println!("SEED={}: {first:?}", wish.seed);
    println!("{:#?}", sim::Plan::draw(wish));
    Ok(())
}

fn conclude(options: &Options, totals: &Totals, seconds: f64) -> Result<()> {
    let text = summary(options, totals, seconds);
    println!("{text}");
    if let Some(directory) = &options.report {
        write_report(directory, options, &text)?;
    }
    let Some((seed, why)) = totals.failures.first() else {
        return Ok(());
    };
    for (seed, why) in totals.failures.iter().take(SHOWN_MAX) {
        println!("SEED={seed}: {why}");
    }
    println!("Making seed {seed} smaller…");
    let wish = options.wish(*seed);
    let (least, why) = shrink::shrink(&wish, why.clone(), |wish| attempt(wish).err());
    Err(Error::Violation(format!(
        "{} of {} seeds failed; SEED={seed} COMMIT={}: {why}\nreplay: {}\nin full: {}",
        totals.failures.len(),
        totals.seeds,
        commit(),
        shrink::command(&least),
        shrink::command(&wish),
    )))
}

fn summary(options: &Options, totals: &Totals, seconds: f64) -> String {
    let Totals {
        seeds,
        operations,
        answered,
        counts,
        failures,
    } = totals;
    let rate = *seeds as f64 / seconds;
    let mut text = String::new();
    let rows = [
        ("seeds", seeds.to_string()),
        ("seeds that broke a promise", failures.len().to_string()),
        ("operations", operations.to_string()),
        ("… of which answered", answered.to_string()),
        ("answers judged", counts.judged.to_string()),
        (
            "faults (lost messages among them)",
            counts.faults.to_string(),
        ),
        ("starts after a crash or stop", counts.restarts.to_string()),
        ("images installed", counts.installs.to_string()),
        ("logs repaired", counts.repairs.to_string()),
        (
            "refusals to start after damage",
            counts.refusals.to_string(),
        ),
        ("events", counts.events.to_string()),
        ("turns", counts.turns.to_string()),
        (
            "virtual time, s",
            (counts.virtual_ns / 1_000_000_000).to_string(),
        ),
        ("time, s", format!("{seconds:.1}")),
        (
            "seeds per second",
            format!("{rate:.1} on {} thread(s)", options.jobs),
        ),
    ];
    for (what, how_many) in rows {
        let _ = writeln!(text, "| {what} | {how_many} |");
    }
    text
}

/// The commit that this was built from or runs in, if git knows.
fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    let text = output.ok().filter(|output| output.status.success());
    text.map_or("unknown".to_owned(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

fn write_report(directory: &Path, options: &Options, summary: &str) -> Result<()> {
    std::fs::create_dir_all(directory).context(|| format!("create {}", directory.display()))?;
    let machine = Machine::describe(&Volume::of(directory)?);
    let build = match cfg!(debug_assertions) {
        true => "with debug assertions",
        false => "release",
    };
    let last = options.first + options.seeds - 1;
    let text = format!(
        "# Simulator: seeds {} to {last}\n\nCommit {}, {build}. Machine: {machine:?}\n\n    curia-bench simulate --first {} --seeds {} --operations {} --jobs {}\n\n| | |\n|---|---|\n{summary}",
        options.first,
        commit(),
        options.first,
        options.seeds,
        options.operations,
        options.jobs
    );
    let path = directory.join(format!("simulate-{}-{last}.md", options.first));
    std::fs::write(&path, text).context(|| format!("write {}", path.display()))?;
    println!("Report: {}", path.display());
    Ok(())
}

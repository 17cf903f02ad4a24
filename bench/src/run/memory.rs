//! `curia-bench memory`: how much memory do a million keys take, and how long is a restart?
//!
//! Loads every key once, reads each server's resident memory, then kills all servers at once
//! (`kill -9`) and starts them on the same data. The time runs from the first kill to the first
//! acknowledged write: process ends, starts, recovery, election and first contact included.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{Common, Measured, Progress, ShapeOptions, Sizes};
use crate::load::{Consistency, Flow, Op, Prober, Rung, Until, Watch};
use crate::process::resident_bytes;
use crate::report::table::{Table, number};
use crate::subject::{Protocol, Subject};
use crate::{Error, Result};

/// How long a cluster may take after the kill until it acknowledges a write.
const RESTART_MAX: Duration = Duration::from_secs(300);
/// Length of the attempts, between which it is seen whether all servers still run.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Memory is read this long after the last write, when transient buffers are gone.
const SETTLE: Duration = Duration::from_secs(2);

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    measured: Measured,
    #[command(flatten)]
    shape: ShapeOptions,
    /// Keys to load (instead of --keys).
    #[arg(long, default_value_t = 1_000_000)]
    load: usize,
    /// Cluster sizes.
    #[arg(long, default_value = "1,3")]
    servers: Sizes,
    /// How the keys are written.
    #[arg(long, value_enum, default_value = "native")]
    protocol: Protocol,
}

#[derive(Serialize)]
struct Row {
    subject: String,
    servers: usize,
    keys: usize,
    load_rate: f64,
    resident_bytes: Vec<u64>,
    restart_s: f64,
    found: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let product = options.measured.product()?;
    let site = options.common.site()?;
    let mut shape = options.shape.shape();
    shape.keys = options.load;
    let mut report = options.common.report("memory", &site);
    let title = format!(
        "{} keys of {} + {} bytes",
        number(shape.keys as f64),
        shape.key_bytes,
        shape.value_bytes
    );
    let mut table = Table::new(
        title,
        &[
            "product",
            "servers",
            "written per s",
            "resident MiB per server",
            "most MiB",
            "kill -9 of all to first write s",
            "keys found",
        ],
    );
    let mut progress = Progress::new();
    for &servers in &options.servers.0 {
        progress.say(format!("{servers} servers: load"));
        let mut subject = Subject::start(
            product.clone(),
            options.protocol,
            servers,
            shape,
            &site.place(),
        )?;
        let load_rate = subject.fill(&mut progress)?.rate();
        std::thread::sleep(SETTLE);
        let resident: Result<Vec<u64>> = subject
            .cluster()
            .pids()
            .into_iter()
            .map(resident_bytes)
            .collect();
        progress.say(format!("{servers} servers: kill and restart"));
        let restart_s = restart(&mut subject)?;
        progress.say(format!("{servers} servers: read everything back"));
        let leader = subject.aim_at_leader()?;
        let row = Row {
            subject: subject.label(),
            servers,
            keys: shape.keys,
            load_rate,
            resident_bytes: resident?,
            restart_s,
            found: subject.verify(leader)?,
        };
        table.row(cells(&row));
        report.raw(&row);
    }
    progress.clear();
    report.table(table);
    options.common.finish(&report)
}

fn cells(row: &Row) -> Vec<String> {
    let mib = |bytes: u64| number(bytes as f64 / (1 << 20) as f64);
    let each: Vec<String> = row.resident_bytes.iter().map(|b| mib(*b)).collect();
    vec![
        row.subject.clone(),
        row.servers.to_string(),
        number(row.load_rate),
        each.join(" "),
        mib(row.resident_bytes.iter().copied().max().unwrap_or(0)),
        number(row.restart_s),
        row.found.to_string(),
    ]
}

/// Ends at the first acknowledgement.
struct UntilFirst {
    deadline: Instant,
    first: Option<Instant>,
    prober: Prober,
}

impl UntilFirst {
    fn over(&self) -> bool {
        self.first.is_some() || Instant::now() > self.deadline
    }
}

impl Watch for UntilFirst {
    fn reserve(&self) -> usize {
        self.prober.reserve()
    }
    fn tick(&mut self, _: u64) -> Flow {
        match self.over() {
            true => Flow::Stop,
            false => self.prober.tick(),
        }
    }
    fn acknowledged(&mut self, _: Instant, now: Instant) {
        self.first.get_or_insert(now);
    }
}

/// Kills all servers, starts them, and returns the seconds until a write was acknowledged.
fn restart(subject: &mut Subject) -> Result<f64> {
    let all = subject.cluster().running();
    let started = Instant::now();
    for position in &all {
        subject.cluster().kill(*position);
    }
    for position in &all {
        subject.cluster().start_server(*position)?;
    }
    let mut watch = UntilFirst {
        deadline: started + RESTART_MAX,
        first: None,
        prober: Prober::new(),
    };
    subject.aim(&all);
    let rung = Rung {
        op: Op::Put,
        consistency: Consistency::Default,
        in_flight: all.len(),
        until: Until::Time(ATTEMPT),
    };
    let mut last = None;
    while !watch.over() {
        subject.cluster().check_alive()?;
        // Until they listen there is no connection to be had; that is part of the time.
        if let Err(e) = subject.drive(&rung, &mut watch) {
            last = Some(e);
        }
    }
    match watch.first {
        Some(first) => Ok((first - started).as_secs_f64()),
        None => {
            let why = last.map_or_else(|| "no answer".into(), |e: Error| e.to_string());
            let what = format!("no write acknowledged within {RESTART_MAX:?} of a restart: {why}");
            Err(subject.cluster().failure(&what))
        }
    }
}

//! `curia-bench floor`: what would a commit cost here if there were no product at all?

use clap::Args;
use serde::Serialize;

use super::{Common, Progress, Site, Sizes};
use crate::counters::Cost;
use crate::floor::{Floor, Load};
use crate::load::new_histogram;
use crate::process::ProcessSample;
use crate::quorum::{quorum, tolerance};
use crate::report::row::Percentiles;
use crate::report::table::{DASH, Table, number};
use crate::{Error, Result};

/// Rounds before anything is recorded.
const WARM_UP_ROUNDS: u64 = 50;

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Cluster sizes.
    #[arg(long, default_value = "1-7")]
    servers: Sizes,
    /// Rounds to measure, with and without the client.
    #[arg(long, default_value_t = 3000)]
    samples: u64,
    /// Bytes of each durable write, a multiple of 4096.
    #[arg(long, default_value_t = 4096)]
    payload: usize,
    /// Bytes of the request and of what goes to each follower.
    #[arg(long, default_value_t = 384)]
    message: usize,
    /// Commits that one round carries: only multiplies the printed rate, so pass sizes to match
    /// (256 commits of 64 + 256 bytes: --payload 106496 --message 98304 --batch 256).
    #[arg(long, default_value_t = 1)]
    batch: u64,
    /// Turns that the sizes take with each other.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
}

#[derive(Serialize)]
struct Row {
    servers: usize,
    hop: bool,
    batch: u64,
    #[serde(flatten)]
    latency: Percentiles,
    commits_per_s: f64,
    cpu_ns: u64,
    flushes: Option<u64>,
}

/// One size's latencies and costs, gathered over turns.
struct Gathered {
    latency: hdrhistogram::Histogram<u64>,
    cost: Cost,
}

impl Gathered {
    fn new() -> Self {
        let cost = Cost {
            flushes: Some(0),
            ..Cost::default()
        };
        Self {
            latency: new_histogram(),
            cost,
        }
    }

    fn add(&mut self, floor: &mut Floor, site: &Site, rounds: u64, hop: bool) -> Result<()> {
        let cpu = |floor: &Floor| -> Result<u64> {
            let samples: Result<Vec<_>> = floor.pids().into_iter().map(ProcessSample::of).collect();
            Ok(samples?.iter().map(|s| s.cpu_ns).sum())
        };
        let (cpu_before, disk_before) = (cpu(floor)?, site.volume.sample());
        match hop {
            true => floor.with_client(rounds, &mut self.latency)?,
            false => floor.without_client(rounds, &mut self.latency)?,
        }
        let disk = disk_before.zip(site.volume.sample());
        self.cost.cpu_ns += cpu(floor)? - cpu_before;
        self.cost.flushes = self
            .cost
            .flushes
            .zip(disk)
            .map(|(sum, (before, after))| sum + after.flushes - before.flushes);
        Ok(())
    }
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    if options.samples == 0 || options.rounds == 0 || options.batch == 0 {
        return Err(Error::Usage(
            "--samples, --rounds and --batch must be at least 1".into(),
        ));
    }
    let site = options.common.site()?;
    let mut report = options.common.report("floor", &site);
    let mut table = Table::new(
        "Physical floor: durable write ∥ one round trip to a quorum, no engine code",
        &[
            "servers",
            "quorum",
            "may fail",
            "client hop",
            "per s",
            "p50",
            "p90",
            "p99",
            "p99.9",
            "max ms",
            "CPU s/1000",
            "flushes",
        ],
    );
    let mut progress = Progress::new();
    for &servers in &options.servers.0 {
        progress.say(format!("floor of {servers} servers"));
        let load = Load {
            write_bytes: options.payload,
            message_bytes: options.message,
        };
        let mut floor = Floor::start(servers, site.network(), site.data_dir(), load)?;
        floor.with_client(WARM_UP_ROUNDS, &mut new_histogram())?;
        let mut gathered = [Gathered::new(), Gathered::new()];
        for _ in 0..options.rounds {
            let rounds = options.samples.div_ceil(options.rounds);
            for (hop, gathered) in [true, false].into_iter().zip(&mut gathered) {
                gathered.add(&mut floor, &site, rounds, hop)?;
            }
        }
        drop(floor);
        for (hop, gathered) in [true, false].into_iter().zip(gathered) {
            let row = row(servers, hop, options.batch, &gathered);
            table.row(cells(&row));
            report.raw(&row);
            let hop = if hop { "client" } else { "leader" };
            report.histogram(
                format!("floor-{hop}-n{servers}-b{}", options.batch),
                &gathered.latency,
            );
        }
    }
    progress.clear();
    report.table(table);
    report.note(format!(
        "Each write {} bytes, each message {} bytes, {} commit(s) a round, one round at a time; `per s` \
         counts commits.",
        options.payload, options.message, options.batch
    ));
    options.common.finish(&report)
}

fn row(servers: usize, hop: bool, batch: u64, gathered: &Gathered) -> Row {
    let latency = Percentiles::of(&gathered.latency);
    // One round at a time: the rate follows from the mean.
    let commits_per_s = batch as f64 * 1e9 / gathered.latency.mean().max(1.0);
    Row {
        servers,
        hop,
        batch,
        latency,
        commits_per_s,
        cpu_ns: gathered.cost.cpu_ns,
        flushes: gathered.cost.flushes,
    }
}

fn cells(row: &Row) -> Vec<String> {
    let commits = (row.latency.count * row.batch) as f64;
    let mut cells = vec![
        row.servers.to_string(),
        quorum(row.servers).to_string(),
        tolerance(row.servers).to_string(),
        if row.hop { "yes" } else { "no" }.to_string(),
        number(row.commits_per_s),
    ];
    cells.extend(row.latency.cells());
    cells.push(number(row.cpu_ns as f64 / 1e6 / commits));
    cells.push(
        row.flushes
            .map_or_else(|| DASH.into(), |n| number(n as f64 / commits)),
    );
    cells
}

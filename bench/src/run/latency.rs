//! `curia-bench commit-latency`: the deployment table, measured.
//!
//! For each cluster size: start it, fill the key space, let the log reach recycled segments, then
//! climb the ladder. The rung with one request in flight takes turns with the physical floor, so
//! that their ratio is of one moment. Then the table is proved, and everything that was
//! acknowledged all along is read back.

use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;

use super::prove::{self, Proof};
use super::{Common, LadderOptions, Measured, Progress, ShapeOptions, Site, Sizes};
use crate::Result;
use crate::cluster::{Product, curia};
use crate::floor::{Floor, Load as FloorLoad};
use crate::load::{Consistency, Op, Rung, Until, new_histogram};
use crate::report::Report;
use crate::report::row::{Row, ladder};
use crate::report::table::number;
use crate::subject::{Protocol, Slice, Subject};

/// Requests in flight while the log is driven into recycled segments.
const CONDITION_IN_FLIGHT: usize = 256;
/// Floor rounds for each turn.
const FLOOR_ROUNDS: u64 = 500;

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    measured: Measured,
    #[command(flatten)]
    shape: ShapeOptions,
    #[command(flatten)]
    ladder: LadderOptions,
    /// Cluster sizes.
    #[arg(long, default_value = "1-7")]
    servers: Sizes,
    /// How requests travel; several are measured one after the other on the same cluster.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "native")]
    protocol: Vec<Protocol>,
    /// Take turns with the physical floor at one request in flight.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true, num_args = 0..=1,
          default_missing_value = "true", value_name = "BOOL")]
    with_floor: bool,
    /// Kill servers and show what still commits and what does not.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true, num_args = 0..=1,
          default_missing_value = "true", value_name = "BOOL")]
    prove: bool,
    #[command(flatten)]
    proof: prove::ProofOptions,
    /// At most this long writing until new segments are recycled ones instead of zero-filled.
    #[arg(long, default_value_t = 30.0)]
    condition_seconds: f64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    options.ladder.check()?;
    let product = options.measured.product()?;
    let site = options.common.site()?;
    let mut report = options.common.report("commit-latency", &site);
    let mut progress = Progress::new();
    let mut rows = Vec::new();
    let mut proofs = Vec::new();
    for &servers in &options.servers.0 {
        progress.say(format!("{servers} servers: start"));
        let (shape, place) = (options.shape.shape(), site.place());
        let mut subject =
            Subject::start(product.clone(), options.protocol[0], servers, shape, &place)?;
        subject.fill(&mut progress)?;
        condition(options, servers, &mut subject, &mut progress, &mut report)?;
        for &protocol in &options.protocol {
            subject.switch(protocol)?;
            for row in climb(
                options,
                &site,
                servers,
                &mut subject,
                &mut progress,
                &mut report,
            )? {
                progress.line(format!(
                    "{servers} servers, {}, {} in flight: {}/s, p50 {} ms {}",
                    row.subject,
                    row.in_flight,
                    number(row.rate),
                    number(row.latency.p50_ns as f64 / 1e6),
                    row.remarks()
                ));
                rows.push(row);
            }
        }
        progress.say(format!("{servers} servers: read everything back"));
        let leader = subject.aim_at_leader()?;
        let found = subject.verify(leader)?;
        progress.line(format!(
            "{servers} servers: all {found} acknowledged keys found"
        ));
        if options.prove {
            proofs.push(prove::prove(&mut subject, &options.proof, &mut progress)?);
        }
    }
    progress.clear();
    report.table(ladder("Commit latency by cluster size", &rows));
    if !proofs.is_empty() {
        report.table(prove::table(&proofs));
    }
    for proof in &proofs {
        report.raw(proof);
    }
    notes(options, &rows, &proofs, &mut report);
    options.common.finish(&report)
}

fn notes(options: &Options, rows: &[Row], proofs: &[Proof], report: &mut Report) {
    report.note(
        "Per success, all servers together: CPU from the process clocks, flushes and disk bytes from the \
         disk's own counters (whoever caused them), log bytes and zero-fill from the log writers.",
    );
    if options.with_floor {
        report.note(format!(
            "The floor includes the client's hop and took turns with the rung of one in flight: {} turns.",
            options.ladder.rounds
        ));
    }
    if !proofs.is_empty() {
        report.note("Every acknowledged write was read back after the ladder and after the kills.");
    }
    for row in rows.iter().filter(|row| !row.errors.is_empty()) {
        report.note(format!("{}: failures {:?}", row.tag(), row.errors));
    }
}

/// Climbs the ladder on one cluster.
fn climb(
    options: &Options,
    site: &Site,
    servers: usize,
    subject: &mut Subject,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &in_flight in &options.ladder.in_flight {
        subject.aim_at_leader()?;
        let label = subject.label();
        progress.say(format!("{servers} servers, {label}, {in_flight} in flight"));
        let rung = options.ladder.slice(in_flight, 1);
        subject.warm_up(&rung, options.ladder.warm_up)?;
        let mut floor_latency = None;
        let slice = match in_flight == 1 && options.with_floor && options.ladder.op == Op::Put {
            true => {
                let (slice, floor) = in_turns(options, site, servers, subject, progress)?;
                report.histogram(
                    format!("floor-for-{}-n{servers}", label.replace(' ', "-")),
                    &floor,
                );
                floor_latency = Some(floor);
                slice
            }
            false => subject.measure(&rung, progress)?,
        };
        let mut row = Row::new(label, servers, &rung, options.shape.shape(), &slice);
        row.floor_p50_ns = floor_latency.map(|floor| floor.value_at_quantile(0.5));
        report.raw(&row);
        report.histogram(row.tag(), &slice.outcome.latency);
        rows.push(row);
    }
    Ok(rows)
}

/// The rung of one in flight, in turns with the floor of the same size.
fn in_turns(
    options: &Options,
    site: &Site,
    servers: usize,
    subject: &mut Subject,
    progress: &mut Progress,
) -> Result<(Slice, Histogram<u64>)> {
    let shape = options.shape.shape();
    let message_bytes = shape.key_bytes + shape.value_bytes + 64;
    let load = FloorLoad {
        write_bytes: (message_bytes + 128).next_multiple_of(4096),
        message_bytes,
    };
    let mut floor = Floor::start(servers, site.network(), site.data_dir(), load)?;
    floor.with_client(FLOOR_ROUNDS / 5, &mut new_histogram())?;
    let rung = options.ladder.slice(1, options.ladder.rounds);
    let mut latency = new_histogram();
    let mut sum = Slice::default();
    for _ in 0..options.ladder.rounds {
        floor.with_client(FLOOR_ROUNDS, &mut latency)?;
        sum.merge(&subject.measure(&rung, progress)?);
    }
    Ok((sum, latency))
}

/// Writes until the log's new segments are recycled ones: until a second of writing adds no
/// zero-fill. Without the metric there is nothing to go by, and nothing is done.
fn condition(
    options: &Options,
    servers: usize,
    subject: &mut Subject,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<()> {
    let started = Instant::now();
    let limit = Duration::from_secs_f64(options.condition_seconds.clamp(0.0, 3600.0));
    let mut filled = zero_fill(subject);
    if filled.is_none() || limit.is_zero() {
        return Ok(());
    }
    progress.say(format!(
        "{servers} servers: write until segments are recycled"
    ));
    let rung = Rung {
        op: Op::Put,
        consistency: Consistency::Default,
        in_flight: CONDITION_IN_FLIGHT,
        until: Until::Time(Duration::from_secs(2)),
    };
    while started.elapsed() < limit {
        subject.drive(&rung, progress)?;
        let now = zero_fill(subject);
        if now == filled {
            return Ok(());
        }
        filled = now;
    }
    report.note(format!(
        "{servers} servers: segments were still being zero-filled after {:.0} s of writing \
         (--condition-seconds); the zero-fill column says how much.",
        limit.as_secs_f64()
    ));
    Ok(())
}

fn zero_fill(subject: &mut Subject) -> Option<u64> {
    let cluster = subject.cluster();
    if !matches!(cluster.product(), Product::Curia(_)) {
        return None;
    }
    let each = cluster.running().into_iter().map(|position| {
        let metrics = curia::metrics(&cluster.nodes()[position], Duration::from_secs(2)).ok()?;
        metrics
            .get("curia.log.zero_fill_bytes")
            .map(|bytes| bytes as u64)
    });
    each.sum()
}

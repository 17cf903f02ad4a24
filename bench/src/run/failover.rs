//! `curia-bench failover`: how long is nothing written after the leader is killed?
//!
//! Under load on all servers the leader gets `kill -9`. The time runs from just before the kill
//! to the first acknowledgement of a write that was sent after it: an answer to an earlier write
//! might have been on its way. Requests that died with the leader occupy their slots until they
//! time out, so from the kill on a new one is added every few milliseconds. Then the server is started again, the cluster becomes whole, and
//! the next leader dies. At the end every acknowledged write is read back.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::{Common, Measured, Progress, ShapeOptions};
use crate::cluster::Cluster;
use crate::load::{Consistency, Flow, Op, Prober, Rung, Until, Watch, new_histogram};
use crate::report::row::Percentiles;
use crate::report::table::{Table, ms, number};
use crate::subject::{Protocol, Subject};
use crate::{Error, Result};

/// Load before each kill.
const BEFORE_KILL: Duration = Duration::from_millis(700);
/// How long a failover may take.
const FAILOVER_MAX: Duration = Duration::from_secs(30);
/// A restarted server gets this long to settle before the next kill.
const SETTLE: Duration = Duration::from_millis(1500);

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    measured: Measured,
    #[command(flatten)]
    shape: ShapeOptions,
    /// Cluster size, at least 3.
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// Leaders to kill.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Requests in flight, over all servers.
    #[arg(long, default_value_t = 48)]
    in_flight: usize,
    /// How requests travel.
    #[arg(long, value_enum, default_value = "native")]
    protocol: Protocol,
}

#[derive(Serialize)]
struct Row {
    subject: String,
    servers: usize,
    kills: u32,
    in_flight: usize,
    gaps_ms: Vec<f64>,
    #[serde(flatten)]
    gap: Percentiles,
    unknown_outcomes: u64,
    found: u64,
}

/// Kills the leader in the middle of a rung and waits for the first acknowledgement after it.
struct Assassin<'a> {
    kill: &'a mut dyn FnMut(),
    started: Instant,
    killed_at: Option<Instant>,
    gap: Option<Duration>,
    prober: Prober,
}

impl Watch for Assassin<'_> {
    fn reserve(&self) -> usize {
        self.prober.reserve()
    }
    fn tick(&mut self, _: u64) -> Flow {
        match self.killed_at {
            None if self.started.elapsed() < BEFORE_KILL => return Flow::Continue,
            None => {
                let now = Instant::now();
                (self.kill)();
                self.killed_at = Some(now);
            }
            Some(at) if self.gap.is_some() || at.elapsed() > FAILOVER_MAX => return Flow::Stop,
            Some(_) => {}
        }
        self.prober.tick()
    }
    fn acknowledged(&mut self, sent: Instant, now: Instant) {
        if let Some(killed_at) = self.killed_at.filter(|at| sent >= *at) {
            self.gap.get_or_insert(now - killed_at);
        }
    }
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    if options.servers < 3 {
        return Err(Error::Usage(
            "--servers must be at least 3: fewer survive no failure".into(),
        ));
    }
    if options.kills == 0 || options.in_flight == 0 {
        return Err(Error::Usage(
            "--kills and --in-flight must be at least 1".into(),
        ));
    }
    let product = options.measured.product()?;
    let site = options.common.site()?;
    let mut report = options.common.report("failover", &site);
    let mut progress = Progress::new();
    progress.say("start");
    let shape = options.shape.shape();
    let mut subject = Subject::start(
        product,
        options.protocol,
        options.servers,
        shape,
        &site.place(),
    )?;
    subject.fill(&mut progress)?;
    let mut gaps = new_histogram();
    let mut gaps_ms = Vec::new();
    let mut unknown_outcomes = 0;
    for n in 1..=options.kills {
        progress.say(format!("kill {n} of {}", options.kills));
        let (gap, unknown) = one_kill(&mut subject, options)?;
        gaps.saturating_record(gap.as_nanos() as u64);
        gaps_ms.push(gap.as_secs_f64() * 1e3);
        unknown_outcomes += unknown;
        progress.line(format!(
            "kill {n}: first write after {} ms",
            ms(gap.as_nanos() as u64)
        ));
    }
    progress.say("read everything back");
    let leader = subject.aim_at_leader()?;
    let found = subject.verify(leader)?;
    progress.clear();
    let row = Row {
        subject: subject.label(),
        servers: options.servers,
        kills: options.kills,
        in_flight: options.in_flight,
        gaps_ms,
        gap: Percentiles::of(&gaps),
        unknown_outcomes,
        found,
    };
    let mut table = Table::new(
        "Leader killed under load: time to the first acknowledged write sent after the kill",
        &[
            "product",
            "servers",
            "kills",
            "in flight",
            "median s",
            "p90 s",
            "max s",
            "unknown outcomes",
            "keys found",
        ],
    );
    let seconds = |ns: u64| number(ns as f64 / 1e9);
    table.row(vec![
        row.subject.clone(),
        row.servers.to_string(),
        row.kills.to_string(),
        row.in_flight.to_string(),
        seconds(row.gap.p50_ns),
        seconds(row.gap.p90_ns),
        seconds(row.gap.max_ns),
        row.unknown_outcomes.to_string(),
        format!("all {}", row.found),
    ]);
    report.table(table);
    report.histogram(
        format!("failover-{}-n{}", options.protocol.name(), options.servers),
        &gaps,
    );
    report.raw(&row);
    options.common.finish(&report)
}

/// One kill, and the cluster whole again. Returns the gap and how many writes had no answer.
fn one_kill(subject: &mut Subject, options: &Options) -> Result<(Duration, u64)> {
    let leader = subject.aim_at_leader()?;
    let all = subject.cluster().running();
    subject.aim(&all);
    let pid = pid_of(subject.cluster(), leader);
    let mut assassin = Assassin {
        // The guard learns of it below: it stays the one that reaps.
        // SAFETY: a plain system call on a child that has not been reaped.
        kill: &mut || unsafe {
            libc::kill(pid, libc::SIGKILL);
        },
        started: Instant::now(),
        killed_at: None,
        gap: None,
        prober: Prober::new(),
    };
    let rung = Rung {
        op: Op::Put,
        consistency: Consistency::Default,
        in_flight: options.in_flight,
        until: Until::Time(BEFORE_KILL + FAILOVER_MAX),
    };
    let outcome = subject.drive(&rung, &mut assassin)?;
    let gap = assassin.gap;
    subject.cluster().kill(leader);
    let Some(gap) = gap else {
        let what = format!(
            "no write acknowledged within {FAILOVER_MAX:?} of the leader's death: {:?}",
            outcome.errors
        );
        return Err(subject.cluster().failure(&what));
    };
    subject.cluster().start_server(leader)?;
    subject.cluster().wait_ready()?;
    std::thread::sleep(SETTLE);
    Ok((gap, outcome.failed()))
}

fn pid_of(cluster: &Cluster, position: usize) -> i32 {
    let running = cluster.running();
    let at = running
        .iter()
        .position(|p| *p == position)
        .expect("the leader runs");
    cluster.pids()[at]
}

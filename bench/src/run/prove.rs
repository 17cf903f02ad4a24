//! Is the deployment table true of this product?
//!
//! The columns "quorum" and "may fail" are claims. With as many servers killed as may fail, the
//! leader among them, writes must still be acknowledged; with one more, none may be, for a stated
//! time, whichever server is asked; when they return, writes must work again, and every write
//! that was ever acknowledged must be there: through the leader, and in each server's own copy.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::Progress;
use crate::load::{Consistency, Flow, Op, Outcome, Prober, Rung, Until, Watch};
use crate::quorum::{quorum, tolerance};
use crate::report::table::{DASH, Table, number};
use crate::subject::Subject;
use crate::{Error, Result};

/// Writes acknowledged in each phase in which they must be.
const WRITES: u64 = 200;
/// Requests in flight in those phases.
const IN_FLIGHT: usize = 8;
/// Length of the attempts, between which it is seen whether all servers still run.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a cluster that must commit may take until it does.
const COMMIT_MAX: Duration = Duration::from_secs(30);

/// Options of the proof.
#[derive(Args, Debug, Clone)]
pub struct ProofOptions {
    /// Seconds for which nothing may be acknowledged without a quorum.
    #[arg(long, default_value_t = 3.0)]
    pub silent_seconds: f64,
}

/// What was shown for one cluster size.
#[derive(Clone, Debug, Serialize)]
pub struct Proof {
    /// Cluster size.
    pub servers: usize,
    /// From the last of the tolerated kills to the first acknowledged write, ms; `None` where no
    /// failure is tolerated.
    pub tolerated_first_commit_ms: Option<f64>,
    /// How long nothing was acknowledged with one more server killed, s.
    pub silent_s: f64,
    /// Writes tried meanwhile.
    pub silent_attempts: u64,
    /// Writes acknowledged meanwhile; anything but 0 ends the run with an error.
    pub silent_acknowledged: u64,
    /// From the restart of the killed servers to the first acknowledged write, ms.
    pub recovered_first_commit_ms: f64,
    /// Acknowledged keys found at the end, through the leader and on every server.
    pub found: u64,
}

/// Kills, restarts and checks. The cluster runs whole again afterwards.
pub fn prove(
    subject: &mut Subject,
    options: &ProofOptions,
    progress: &mut Progress,
) -> Result<Proof> {
    let servers = subject.cluster().nodes().len();
    let may_fail = tolerance(servers);
    progress.say(format!("{servers} servers: prove, all alive"));
    let leader = subject.aim_at_leader()?;
    commits(subject, "with all servers alive")?;
    // The leader dies first: a follower's death would prove less.
    let order: Vec<usize> = (0..servers).map(|i| (leader + i) % servers).collect();

    let mut tolerated_first_commit_ms = None;
    if may_fail > 0 {
        progress.say(format!("{servers} servers: prove, {may_fail} killed"));
        for &victim in &order[..may_fail] {
            subject.cluster().kill(victim);
        }
        subject.aim(&order[may_fail..]);
        let what = format!(
            "with {may_fail} of {servers} killed, which a quorum of {} survives",
            quorum(servers)
        );
        tolerated_first_commit_ms = Some(commits(subject, &what)?);
    }

    progress.say(format!("{servers} servers: prove, {} killed", may_fail + 1));
    subject.cluster().kill(order[may_fail]);
    let alive = &order[may_fail + 1..];
    let (silent_s, silent) = silence(subject, alive, options)?;

    progress.say(format!("{servers} servers: prove, all back"));
    for &victim in &order[..=may_fail] {
        subject.cluster().start_server(victim)?;
    }
    subject.aim(&order);
    let recovered_first_commit_ms = commits(subject, "after every killed server returned")?;
    let leader = subject.aim_at_leader()?;
    let found = subject.verify(leader)?;
    for position in 0..servers {
        subject.verify_own_copy(position)?;
    }
    progress.line(format!(
        "{servers} servers: proved; all {found} acknowledged keys found on every server"
    ));
    Ok(Proof {
        servers,
        tolerated_first_commit_ms,
        silent_s,
        silent_attempts: silent.succeeded() + silent.failed(),
        silent_acknowledged: silent.succeeded(),
        recovered_first_commit_ms,
        found,
    })
}

/// Notes the first acknowledgement, and stops after enough of them.
struct FirstCommit {
    started: Instant,
    first: Option<Duration>,
    acknowledged: u64,
    prober: Prober,
}

impl FirstCommit {
    fn over(&self) -> bool {
        self.acknowledged >= WRITES || self.started.elapsed() > COMMIT_MAX
    }
}

impl Watch for FirstCommit {
    fn reserve(&self) -> usize {
        self.prober.reserve()
    }
    fn tick(&mut self, _: u64) -> Flow {
        match (self.over(), self.first) {
            (true, _) => Flow::Stop,
            (false, None) => self.prober.tick(),
            (false, Some(_)) => Flow::Continue,
        }
    }
    fn acknowledged(&mut self, _: Instant, now: Instant) {
        self.acknowledged += 1;
        self.first.get_or_insert(now - self.started);
    }
}

/// Writes until enough are acknowledged; returns milliseconds until the first was.
fn commits(subject: &mut Subject, when: &str) -> Result<f64> {
    let mut watch = FirstCommit {
        started: Instant::now(),
        first: None,
        acknowledged: 0,
        prober: Prober::new(),
    };
    let rung = writes(IN_FLIGHT, Until::Time(ATTEMPT));
    // While servers come and go nobody may be listening for a moment: try again.
    let mut errors = Outcome::default();
    while !watch.over() {
        subject.cluster().check_alive()?;
        match subject.drive(&rung, &mut watch) {
            Ok(outcome) => errors.merge(&outcome),
            Err(e) => errors.failure(&e.to_string()),
        }
    }
    match watch.first {
        Some(first) if watch.acknowledged >= WRITES => Ok(first.as_secs_f64() * 1e3),
        _ => {
            let what = format!(
                "{when}: {} writes acknowledged within {COMMIT_MAX:?}, {WRITES} wanted; failures {:?}",
                watch.acknowledged, errors.errors
            );
            Err(subject.cluster().failure(&what))
        }
    }
}

/// Writes through every living server for the stated time: not one may be acknowledged.
fn silence(
    subject: &mut Subject,
    alive: &[usize],
    options: &ProofOptions,
) -> Result<(f64, Outcome)> {
    let limit = Duration::from_secs_f64(options.silent_seconds.clamp(0.1, 3600.0));
    let started = Instant::now();
    if alive.is_empty() {
        // Every server is dead; there is nobody who could acknowledge.
        return Ok((0.0, Outcome::default()));
    }
    subject.aim(alive);
    let rung = writes(IN_FLIGHT.max(alive.len()), Until::Time(limit));
    let mut sum = Outcome::default();
    while started.elapsed() < limit {
        let outcome = subject.drive(&rung, &mut crate::load::Unwatched)?;
        sum.merge(&outcome);
        if outcome.succeeded() > 0 {
            return Err(Error::Violation(format!(
                "{} writes were acknowledged by {} of {} servers, fewer than a quorum",
                outcome.succeeded(),
                alive.len(),
                subject.cluster().nodes().len()
            )));
        }
    }
    Ok((started.elapsed().as_secs_f64(), sum))
}

fn writes(in_flight: usize, until: Until) -> Rung {
    Rung {
        op: Op::Put,
        consistency: Consistency::Default,
        in_flight,
        until,
    }
}

/// The proofs as a table.
pub fn table(proofs: &[Proof]) -> Table {
    let mut table = Table::new(
        "The table proved: kill -9, leader first",
        &[
            "servers",
            "quorum",
            "killed",
            "first commit ms",
            "one more killed: commits",
            "for s",
            "attempts",
            "all back: first commit ms",
            "acknowledged keys found on every server",
        ],
    );
    for proof in proofs {
        table.row(vec![
            proof.servers.to_string(),
            quorum(proof.servers).to_string(),
            tolerance(proof.servers).to_string(),
            proof
                .tolerated_first_commit_ms
                .map_or_else(|| DASH.into(), number),
            proof.silent_acknowledged.to_string(),
            number(proof.silent_s),
            proof.silent_attempts.to_string(),
            number(proof.recovered_first_commit_ms),
            format!("all {}", proof.found),
        ]);
    }
    table
}

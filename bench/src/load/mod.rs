//! What is asked of the servers, how fast, and how do we know what they promised?
//!
//! Closed loop: `in_flight` slots, each with one request outstanding, sending the next when the
//! answer is there. A rung starts with every slot idle and ends when the last answer has come, so
//! that counters read before and after belong to exactly these requests. Requests sent are all
//! recorded, also those answered after the clock ran out: leaving out the slow ones at the end
//! would flatter the tail. (A closed loop does hide queueing that an open one would show: while
//! the servers stall, nobody new arrives. The maximum is printed for that reason.)

mod connection;
mod frames;
mod grpc;
mod http;
mod ledger;
mod mux;
mod session;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;

pub use frames::Frames;
pub use grpc::EtcdGrpc;
pub use http::{Dialect, Http};
pub use ledger::{Ledger, Shape, Ticket};
pub use mux::Mux;
pub use session::{Event, Session, Sessions, Verdict};

use crate::Result;

/// Longest latency the histograms hold, nanoseconds; longer ones are recorded as this.
pub const LATENCY_NS_MAX: u64 = 120_000_000_000;

/// Answers later than this after the end of a rung count as outcome unknown.
pub const DRAIN_MAX: Duration = Duration::from_secs(15);

/// An empty latency histogram: nanoseconds, 3 significant digits.
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid")
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Write a new value.
    Put,
    /// Read one key.
    Get,
}

/// How exact a read must be (Consul's modes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// From the leader under its lease.
    #[default]
    Default,
    /// Confirmed by a quorum round.
    Consistent,
    /// From any server, at once.
    Stale,
}

/// When a rung stops sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After this long.
    Time(Duration),
    /// After this many requests.
    Requests(u64),
}

/// One step of the ladder.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// What each request does.
    pub op: Op,
    /// For reads.
    pub consistency: Consistency,
    /// Requests outstanding at any time.
    pub in_flight: usize,
    /// When to stop sending.
    pub until: Until,
}

/// What came of a rung.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Latency of every request that succeeded, nanoseconds.
    pub latency: Histogram<u64>,
    /// From the first request sent to the last answer.
    pub elapsed: Duration,
    /// What failed, by reason, and how often.
    pub errors: BTreeMap<String, u64>,
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            latency: new_histogram(),
            elapsed: Duration::ZERO,
            errors: BTreeMap::new(),
        }
    }
}

impl Outcome {
    /// Requests that succeeded.
    pub fn succeeded(&self) -> u64 {
        self.latency.len()
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Successes per second.
    pub fn rate(&self) -> f64 {
        self.succeeded() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Records one success.
    pub fn success(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(ns.max(1));
    }

    /// Records one failure.
    pub fn failure(&mut self, reason: &str) {
        match self.errors.get_mut(reason) {
            Some(n) => *n += 1,
            None => {
                self.errors.insert(reason.to_owned(), 1);
            }
        }
    }

    /// Adds another slice of the same rung.
    pub fn merge(&mut self, other: &Outcome) {
        self.latency
            .add(&other.latency)
            .expect("all histograms have the same bounds");
        self.elapsed += other.elapsed;
        for (reason, n) in &other.errors {
            *self.errors.entry(reason.clone()).or_default() += n;
        }
    }
}

/// What a watcher wants to happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Send no more; the rung ends when the last answer is there.
    Stop,
    /// Go on with one request more in flight, as long as there are slots in reserve.
    AddSlot,
}

/// Somebody who follows a rung while it runs.
pub trait Watch {
    /// Slots beyond the rung's own that [`Flow::AddSlot`] may bring in. They are for rungs in
    /// which servers die: requests that a dying server swallowed occupy their slots until they
    /// time out, and the moment at which service resumes would go unseen.
    fn reserve(&self) -> usize {
        0
    }
    /// Called every few milliseconds with the number of requests done.
    fn tick(&mut self, done: u64) -> Flow {
        let _ = done;
        Flow::Continue
    }
    /// A request sent at `sent` was acknowledged at `now`.
    fn acknowledged(&mut self, sent: Instant, now: Instant) {
        let _ = (sent, now);
    }
}

/// Brings in one new request every so often, to see when service resumes.
#[derive(Debug)]
pub struct Prober {
    added: Option<Instant>,
}

/// Pause between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// Most probes of one rung: 8 seconds of them, longer than any product here holds a request.
const PROBES_MAX: usize = 400;

impl Prober {
    /// Starts with the next tick.
    pub fn new() -> Self {
        Self { added: None }
    }

    /// Slots to hold in reserve.
    pub fn reserve(&self) -> usize {
        PROBES_MAX
    }

    /// A probe if one is due.
    pub fn tick(&mut self) -> Flow {
        let now = Instant::now();
        if self.added.is_some_and(|at| now - at < PROBE_EVERY) {
            return Flow::Continue;
        }
        self.added = Some(now);
        Flow::AddSlot
    }
}

impl Default for Prober {
    fn default() -> Self {
        Self::new()
    }
}

/// Nobody watches.
pub struct Unwatched;
impl Watch for Unwatched {}

/// A load generator over one protocol.
pub trait Load {
    /// Runs one rung to its end. What was acknowledged is in the ledger, what failed in the
    /// outcome; `Err` only when no load can be generated at all (nobody accepts connections).
    fn run(&mut self, rung: &Rung, ledger: &mut Ledger, watch: &mut dyn Watch) -> Result<Outcome>;

    /// Servers (by position) to send to from now on.
    fn aim(&mut self, targets: &[usize]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_slices_is_the_same_as_recording_all_in_one() {
        let (mut a, mut b, mut whole) =
            (Outcome::default(), Outcome::default(), Outcome::default());
        for i in 1..=1000u64 {
            let latency = Duration::from_micros(i * i);
            whole.success(latency);
            if i % 3 == 0 { &mut a } else { &mut b }.success(latency);
        }
        a.failure("503");
        b.failure("503");
        b.failure("reset");
        a.merge(&b);
        for q in [0.5, 0.9, 0.99, 0.999, 1.0] {
            assert_eq!(
                a.latency.value_at_quantile(q),
                whole.latency.value_at_quantile(q)
            );
        }
        assert_eq!(a.succeeded(), 1000);
        assert_eq!((a.failed(), a.errors["503"]), (3, 2));
    }

    #[test]
    fn a_latency_over_the_bound_is_kept_as_the_bound() {
        let mut outcome = Outcome::default();
        outcome.success(Duration::from_secs(100_000));
        outcome.success(Duration::ZERO);
        assert_eq!(outcome.succeeded(), 2);
        assert!(outcome.latency.max() >= LATENCY_NS_MAX);
    }
}

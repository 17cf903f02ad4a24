//! Which figures belong to one rung, and under which names?

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::table::{DASH, Table, ms, number, optional};
use crate::counters::Cost;
use crate::load::{Consistency, Op};
use crate::quorum::{quorum, tolerance};
use crate::subject::Slice;

/// Latency percentiles, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Number of latencies.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Largest.
    pub max_ns: u64,
}

impl Percentiles {
    /// Reads them off.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |q| histogram.value_at_quantile(q);
        Self {
            count: histogram.len(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: histogram.max(),
        }
    }

    /// The five latency cells, milliseconds.
    pub fn cells(&self) -> [String; 5] {
        match self.count {
            0 => [(); 5].map(|()| DASH.into()),
            _ => [
                self.p50_ns,
                self.p90_ns,
                self.p99_ns,
                self.p999_ns,
                self.max_ns,
            ]
            .map(ms),
        }
    }
}

/// All figures of one rung.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Product and protocol.
    pub subject: String,
    /// What each request did.
    pub op: Op,
    /// For reads.
    pub consistency: Consistency,
    /// Cluster size.
    pub servers: usize,
    /// Servers that must agree.
    pub quorum: usize,
    /// Servers that may fail.
    pub tolerance: usize,
    /// Requests in flight.
    pub in_flight: usize,
    /// Length of the keys, bytes.
    pub key_bytes: usize,
    /// Length of the values, bytes.
    pub value_bytes: usize,
    /// Seconds from the first request to the last answer.
    pub elapsed_s: f64,
    /// Successes per second.
    pub rate: f64,
    /// Latencies of the successes.
    #[serde(flatten)]
    pub latency: Percentiles,
    /// What it cost all servers together.
    pub cost: Cost,
    /// Failures by reason.
    pub errors: BTreeMap<String, u64>,
    /// Median of the physical floor measured in turns with this rung, nanoseconds.
    pub floor_p50_ns: Option<u64>,
}

/// Columns of [`Row::cells`].
pub const COLUMNS: &[&str] = &[
    "product",
    "servers",
    "quorum",
    "may fail",
    "in flight",
    "op",
    "per s",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "max ms",
    "CPU s/1000",
    "flushes",
    "log bytes",
    "zero-fill",
    "disk bytes",
    "switches",
    "elections",
    "floor p50",
    "× floor",
    "remarks",
];

impl Row {
    /// The figures of one rung on `servers` servers.
    pub fn new(
        subject: String,
        servers: usize,
        rung: &crate::load::Rung,
        shape: crate::load::Shape,
        slice: &Slice,
    ) -> Self {
        Self {
            subject,
            op: rung.op,
            consistency: rung.consistency,
            servers,
            quorum: quorum(servers),
            tolerance: tolerance(servers),
            in_flight: rung.in_flight,
            key_bytes: shape.key_bytes,
            value_bytes: shape.value_bytes,
            elapsed_s: slice.outcome.elapsed.as_secs_f64(),
            rate: slice.outcome.rate(),
            latency: Percentiles::of(&slice.outcome.latency),
            cost: slice.cost.unwrap_or_default(),
            errors: slice.outcome.errors.clone(),
            floor_p50_ns: None,
        }
    }

    /// Name of its histogram.
    pub fn tag(&self) -> String {
        let op = match self.op {
            Op::Put => "put".into(),
            Op::Get => format!("get-{:?}", self.consistency).to_lowercase(),
        };
        format!(
            "{}-{op}-n{}-c{}",
            self.subject.replace(' ', "-"),
            self.servers,
            self.in_flight
        )
    }

    /// A figure per success; `None` if it was not measured.
    pub fn per_success(&self, total: Option<u64>) -> Option<f64> {
        let n = self.latency.count;
        total.filter(|_| n > 0).map(|total| total as f64 / n as f64)
    }

    /// CPU seconds of all servers per 1,000 successes.
    pub fn cpu_s_per_1000(&self) -> Option<f64> {
        self.per_success(Some(self.cost.cpu_ns)).map(|ns| ns / 1e6)
    }

    /// How many times the floor's median this one's is.
    pub fn floor_ratio(&self) -> Option<f64> {
        let floor = self.floor_p50_ns.filter(|ns| *ns > 0)?;
        Some(self.latency.p50_ns as f64 / floor as f64)
    }

    /// The cells under [`COLUMNS`].
    pub fn cells(&self) -> Vec<String> {
        let [p50, p90, p99, p999, max] = self.latency.cells();
        let op = match self.op {
            Op::Put => "put".into(),
            Op::Get => format!("get {:?}", self.consistency).to_lowercase(),
        };
        vec![
            self.subject.clone(),
            self.servers.to_string(),
            self.quorum.to_string(),
            self.tolerance.to_string(),
            self.in_flight.to_string(),
            op,
            number(self.rate),
            p50,
            p90,
            p99,
            p999,
            max,
            optional(self.cpu_s_per_1000()),
            optional(self.per_success(self.cost.flushes)),
            optional(self.per_success(self.cost.log_bytes)),
            optional(self.per_success(self.cost.zero_fill_bytes)),
            optional(self.per_success(self.cost.disk_bytes)),
            optional(self.per_success(Some(self.cost.context_switches))),
            self.cost
                .elections
                .map_or_else(|| DASH.into(), |n| n.to_string()),
            self.floor_p50_ns.map_or_else(|| DASH.into(), ms),
            optional(self.floor_ratio()),
            self.remarks(),
        ]
    }

    /// What makes the row not comparable; empty for a clean one.
    pub fn remarks(&self) -> String {
        let mut remarks = Vec::new();
        if self.cost.elections.is_some_and(|n| n > 0) {
            remarks.push("UNPLANNED ELECTION".to_owned());
        }
        let failed: u64 = self.errors.values().sum();
        if failed > 0 {
            remarks.push(format!("{failed} FAILED"));
        }
        remarks.join(", ")
    }
}

/// A table of rows.
pub fn ladder(title: impl Into<String>, rows: &[Row]) -> Table {
    let mut table = Table::new(title, COLUMNS);
    for row in rows {
        table.row(row.cells());
    }
    table.drop_empty_columns();
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Outcome, Rung, Shape, Until};
    use std::time::Duration;

    fn row(elections: u64, failures: u64) -> Row {
        let mut outcome = Outcome::default();
        for _ in 0..1000 {
            outcome.success(Duration::from_micros(260));
        }
        for _ in 0..failures {
            outcome.failure("503");
        }
        outcome.elapsed = Duration::from_secs(2);
        let cost = Cost {
            cpu_ns: 15_000_000,
            flushes: Some(3000),
            elections: Some(elections),
            ..Cost::default()
        };
        let rung = Rung {
            op: Op::Put,
            consistency: Consistency::Default,
            in_flight: 256,
            until: Until::Requests(1),
        };
        let shape = Shape {
            key_bytes: 64,
            value_bytes: 256,
            keys: 1,
        };
        let slice = Slice {
            outcome,
            cost: Some(cost),
        };
        let mut row = Row::new("curia http".into(), 3, &rung, shape, &slice);
        row.floor_p50_ns = Some(200_000);
        row
    }

    #[test]
    fn figures_are_per_success() {
        let row = row(0, 0);
        assert_eq!(row.rate, 500.0);
        assert_eq!(row.cpu_s_per_1000(), Some(0.015));
        assert_eq!(row.per_success(row.cost.flushes), Some(3.0));
        assert_eq!(row.per_success(row.cost.log_bytes), None);
        assert!((row.floor_ratio().unwrap() - 1.3).abs() < 0.01);
        assert_eq!((row.quorum, row.tolerance), (2, 1));
        assert_eq!(row.tag(), "curia-http-put-n3-c256");
        assert_eq!(row.remarks(), "");
        let text = ladder("", &[row]).render();
        assert!(!text.contains("zero-fill"), "unmeasured columns go: {text}");
    }

    #[test]
    fn a_row_with_an_election_or_failures_is_marked() {
        assert_eq!(row(1, 2).remarks(), "UNPLANNED ELECTION, 2 FAILED");
    }
}

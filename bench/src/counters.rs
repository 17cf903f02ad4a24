//! What did a slice of load cost, summed over all servers and the disk?
//!
//! Counters are read while no request is outstanding, before and after; the difference belongs to
//! the requests between. Reading them costs the servers something too (a metrics request each),
//! so the order is: metrics, then the kernel's counters; load; the kernel's counters, then metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::Result;
use crate::cluster::{Cluster, Product, curia};
use crate::process::ProcessSample;
use crate::volume::{DiskSample, Volume};

/// Servers publish their gauges a few times a second: read sooner, they are of the past.
const METRICS_SETTLE: Duration = Duration::from_millis(250);
const METRICS_MAX: Duration = Duration::from_secs(5);

/// All counters of a cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    processes: BTreeMap<i32, ProcessSample>,
    disk: Option<DiskSample>,
    log: LogCounters,
    term: Option<u64>,
}

/// What the log writers of all servers say, summed. `None` where a server does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct LogCounters {
    batches: Option<u64>,
    submitted_bytes: Option<u64>,
    zero_fill_bytes: Option<u64>,
    elections: Option<u64>,
}

/// The difference of two moments. `None`: this could not be measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// CPU time of all servers, nanoseconds.
    pub cpu_ns: u64,
    /// Context switches of all tasks of all servers.
    pub context_switches: u64,
    /// Flushes that the disk completed.
    pub flushes: Option<u64>,
    /// Bytes that the disk wrote, whoever caused it.
    pub disk_bytes: Option<u64>,
    /// Bytes that the servers sent to the block layer, by the kernel's count.
    pub block_layer_bytes: u64,
    /// Batches that the log writers made durable.
    pub log_batches: Option<u64>,
    /// Bytes that the log writers submitted.
    pub log_bytes: Option<u64>,
    /// Bytes of zeros that prepared new segments.
    pub zero_fill_bytes: Option<u64>,
    /// Elections: terms begun, or campaigns counted by the servers if those are more.
    pub elections: Option<u64>,
}

impl Counters {
    /// Reads everything, metrics first: for the start of a slice.
    pub fn before(cluster: &Cluster, volume: &Volume) -> Result<Self> {
        let mut counters = Self::default();
        counters.ask_servers(cluster);
        counters.ask_kernel(cluster, volume)?;
        Ok(counters)
    }

    /// Reads everything, metrics last: for the end of a slice.
    pub fn after(cluster: &Cluster, volume: &Volume) -> Result<Self> {
        let mut counters = Self::default();
        counters.ask_kernel(cluster, volume)?;
        counters.ask_servers(cluster);
        Ok(counters)
    }

    fn ask_kernel(&mut self, cluster: &Cluster, volume: &Volume) -> Result<()> {
        self.disk = volume.sample();
        for pid in cluster.pids() {
            self.processes.insert(pid, ProcessSample::of(pid)?);
        }
        Ok(())
    }

    fn ask_servers(&mut self, cluster: &Cluster) {
        self.term = cluster.term();
        if !matches!(cluster.product(), Product::Curia(_)) {
            return;
        }
        std::thread::sleep(METRICS_SETTLE);
        let mut sum = LogCounters {
            batches: Some(0),
            submitted_bytes: Some(0),
            zero_fill_bytes: Some(0),
            elections: Some(0),
        };
        for position in cluster.running() {
            let metrics =
                curia::metrics(&cluster.nodes()[position], METRICS_MAX).unwrap_or_default();
            let add = |total: &mut Option<u64>, name: &str| {
                *total = total.zip(metrics.get(name)).map(|(a, b)| a + b as u64);
            };
            add(&mut sum.batches, "curia.log.batches");
            add(&mut sum.submitted_bytes, "curia.log.bytes_submitted");
            add(&mut sum.zero_fill_bytes, "curia.log.zero_fill_bytes");
            add(&mut sum.elections, "curia.raft.elections");
        }
        self.log = sum;
    }

    /// What happened since `earlier`.
    pub fn since(&self, earlier: &Self) -> Cost {
        let delta = |now: Option<u64>, then: Option<u64>| {
            now.zip(then).map(|(now, then)| now.saturating_sub(then))
        };
        let disk = |f: fn(&DiskSample) -> u64| {
            delta(self.disk.as_ref().map(f), earlier.disk.as_ref().map(f))
        };
        let mut cost = Cost {
            flushes: disk(|d| d.flushes),
            disk_bytes: disk(|d| d.written_bytes),
            log_batches: delta(self.log.batches, earlier.log.batches),
            log_bytes: delta(self.log.submitted_bytes, earlier.log.submitted_bytes),
            zero_fill_bytes: delta(self.log.zero_fill_bytes, earlier.log.zero_fill_bytes),
            elections: delta(self.term, earlier.term)
                .max(delta(self.log.elections, earlier.log.elections)),
            ..Cost::default()
        };
        let nothing = ProcessSample::default();
        for (pid, now) in &self.processes {
            let then = earlier.processes.get(pid).unwrap_or(&nothing);
            cost.cpu_ns += now.cpu_ns - then.cpu_ns;
            cost.context_switches += now.switches_since(then);
            cost.block_layer_bytes += now.write_bytes - then.write_bytes;
        }
        cost
    }
}

impl Cost {
    /// Adds another slice's cost; what either could not measure stays unmeasured.
    pub fn merge(&mut self, other: &Self) {
        let add = |a: &mut Option<u64>, b: Option<u64>| *a = a.zip(b).map(|(a, b)| a + b);
        self.cpu_ns += other.cpu_ns;
        self.context_switches += other.context_switches;
        self.block_layer_bytes += other.block_layer_bytes;
        add(&mut self.flushes, other.flushes);
        add(&mut self.disk_bytes, other.disk_bytes);
        add(&mut self.log_batches, other.log_batches);
        add(&mut self.log_bytes, other.log_bytes);
        add(&mut self.zero_fill_bytes, other.zero_fill_bytes);
        add(&mut self.elections, other.elections);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(cpu_ns: u64, flushes: u64, submitted: Option<u64>, term: u64) -> Counters {
        let process = ProcessSample {
            cpu_ns,
            ..Default::default()
        };
        Counters {
            processes: BTreeMap::from([(1, process.clone()), (2, process)]),
            disk: Some(DiskSample {
                flushes,
                ..Default::default()
            }),
            log: LogCounters {
                submitted_bytes: submitted,
                ..Default::default()
            },
            term: Some(term),
        }
    }

    #[test]
    fn costs_are_summed_over_servers_and_unmeasured_is_not_zero() {
        let a = counters(100, 5, Some(1000), 3);
        let b = counters(400, 11, Some(9192), 3);
        let cost = b.since(&a);
        assert_eq!(cost.cpu_ns, 600);
        assert_eq!(cost.flushes, Some(6));
        assert_eq!(cost.log_bytes, Some(8192));
        assert_eq!(cost.zero_fill_bytes, None);
        assert_eq!(cost.elections, Some(0));
        assert_eq!(
            counters(1, 5, None, 4)
                .since(&counters(1, 5, Some(1), 3))
                .log_bytes,
            None
        );
    }

    #[test]
    fn slices_add_up_and_one_without_a_figure_takes_it_from_the_sum() {
        let mut sum = counters(400, 11, Some(9192), 4).since(&counters(100, 5, Some(1000), 3));
        sum.merge(&counters(500, 12, Some(9193), 4).since(&counters(400, 11, Some(9192), 4)));
        assert_eq!(
            (sum.cpu_ns, sum.flushes, sum.log_bytes),
            (800, Some(7), Some(8193))
        );
        assert_eq!(sum.elections, Some(1));
        sum.merge(&Cost::default());
        assert_eq!(sum.flushes, None);
    }
}

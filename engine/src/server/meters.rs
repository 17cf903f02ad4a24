//! How often and how fast does this server do what it is asked for?
//!
//! Times and counts under Consul's names, of the server that was asked (Consul: of the leader, to
//! which it was forwarded). Each executor writes to a block of its own, without a lock and without
//! sharing a cache line; whoever reads adds the blocks up. Every [`INTERVAL`], one task of the first
//! executor closes an interval, which is what `/v1/agent/metrics` tells, as Consul's in-memory sink
//! does; Prometheus is told the totals.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use glommio::timer::sleep;

/// How long an interval is. Consul: 10 s.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// A key was written or deleted.
    KvsApply,
    /// A transaction that writes.
    TxnApply,
    /// A transaction that reads.
    TxnRead,
    /// A session was created or destroyed.
    SessionApply,
    /// A session was renewed.
    SessionRenew,
    /// A node, service or check was registered.
    CatalogRegister,
    /// A node, service or check was deregistered.
    CatalogDeregister,
}

/// [`Timed`] by its number, with Consul's names.
pub const TIMED: [&str; 7] = [
    "consul.kvs.apply",
    "consul.txn.apply",
    "consul.txn.read",
    "consul.session.apply",
    "consul.session.renew",
    "consul.catalog.register",
    "consul.catalog.deregister",
];

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A request to the API.
    Request,
    /// One that was answered with a status from 500.
    RequestError,
}

/// [`Counted`] by its number, with Consul's names.
pub const COUNTED: [&str; 2] = ["consul.rpc.request", "consul.rpc.request_error"];

/// Times of one kind, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Their sum, µs.
    pub sum_us: u64,
    /// The sum of their squares, µs²; may wrap.
    pub squares_us2: u64,
    /// The shortest, µs; 0 without any.
    pub min_us: u64,
    /// The longest, µs.
    pub max_us: u64,
}

impl Times {
    fn since(self, before: Self) -> Self {
        Self {
            count: self.count - before.count,
            sum_us: self.sum_us - before.sum_us,
            squares_us2: self.squares_us2.wrapping_sub(before.squares_us2),
            ..self
        }
    }

    /// Mean, ms.
    pub fn mean_ms(&self) -> f64 {
        match self.count {
            0 => 0.0,
            count => self.sum_us as f64 / count as f64 / 1e3,
        }
    }

    /// Standard deviation of a sample, ms.
    pub fn deviation_ms(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let (count, sum) = (self.count as f64, self.sum_us as f64);
        let squares = self.squares_us2 as f64 - sum * sum / count;
        (squares.max(0.0) / (count - 1.0)).sqrt() / 1e3
    }
}

/// Everything that was measured in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// By [`Timed`].
    pub times: [Times; TIMED.len()],
    /// By [`Counted`].
    pub counts: [u64; COUNTED.len()],
}

impl Figures {
    fn since(&self, before: &Self) -> Self {
        let mut figures = *self;
        for (now, before) in figures.times.iter_mut().zip(&before.times) {
            *now = now.since(*before);
        }
        for (now, before) in figures.counts.iter_mut().zip(&before.counts) {
            *now -= before;
        }
        figures
    }
}

/// The last whole interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// When it began.
    pub begun: SystemTime,
    /// What was measured in it.
    pub figures: Figures,
}

/// One executor's part, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Block {
    times: [Cells; TIMED.len()],
    counts: [AtomicU64; COUNTED.len()],
}

#[derive(Debug, Default)]
struct Cells {
    count: AtomicU64,
    sum_us: AtomicU64,
    squares_us2: AtomicU64,
    /// Of this interval; `u64::MAX - min`, so that 0 stands for none.
    min_left_us: AtomicU64,
    max_us: AtomicU64,
}

/// A number that one thread writes: no other may come between.
fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

/// What one executor writes to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Meter {
    meters: Arc<Meters>,
    executor: usize,
}

impl Default for Meter {
    fn default() -> Self {
        Meters::new(1).of(0)
    }
}

impl Meter {
    /// Something was done; it had begun at `begun`.
    pub fn time(&self, what: Timed, begun: Instant) {
        let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let cells = &self.block().times[what as usize];
        add(&cells.count, 1);
        add(&cells.sum_us, us);
        add(&cells.squares_us2, us.wrapping_mul(us));
        cells.min_left_us.fetch_max(u64::MAX - us, Relaxed);
        cells.max_us.fetch_max(us, Relaxed);
    }

    /// Something is done from now on until what is given back is dropped.
    pub fn begin(&self, what: Timed) -> Doing<'_> {
        Doing {
            meter: self,
            what,
            begun: Instant::now(),
        }
    }

    /// Something has happened.
    pub fn count(&self, what: Counted) {
        add(&self.block().counts[what as usize], 1);
    }

    /// Those of the whole server.
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    fn block(&self) -> &Block {
        &self.meters.blocks[self.executor]
    }
}

/// Something that is being done.
#[must_use]
pub struct Doing<'m> {
    meter: &'m Meter,
    what: Timed,
    begun: Instant,
}

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        self.meter.time(self.what, self.begun);
    }
}

/// What a server measures.
#[derive(Debug)]
pub struct Meters {
    blocks: Box<[Block]>,
    last: Mutex<Interval>,
}

impl Meters {
    /// Of a server with so many executors.
    pub fn new(executors: u16) -> Arc<Self> {
        Arc::new(Self {
            blocks: (0..executors.max(1)).map(|_| Block::default()).collect(),
            last: Mutex::new(Interval {
                begun: SystemTime::now(),
                figures: Figures::default(),
            }),
        })
    }

    /// What this executor writes to.
    pub fn of(self: &Arc<Self>, executor: u16) -> Meter {
        Meter {
            meters: Arc::clone(self),
            executor: usize::from(executor).min(self.blocks.len() - 1),
        }
    }

    /// Everything since the start; shortest and longest are of the running interval.
    pub fn totals(&self) -> Figures {
        self.sum(|cell| cell.load(Relaxed))
    }

    /// The last whole interval.
    pub fn last(&self) -> Interval {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sum(&self, bound: impl Fn(&AtomicU64) -> u64) -> Figures {
        let mut figures = Figures::default();
        for block in &self.blocks {
            for (times, cells) in figures.times.iter_mut().zip(&block.times) {
                times.count += cells.count.load(Relaxed);
                times.sum_us += cells.sum_us.load(Relaxed);
                times.squares_us2 =
                    (times.squares_us2).wrapping_add(cells.squares_us2.load(Relaxed));
                // As the cells hold it, until all were looked at.
                times.min_us = times.min_us.max(bound(&cells.min_left_us));
                times.max_us = times.max_us.max(bound(&cells.max_us));
            }
            for (count, cell) in figures.counts.iter_mut().zip(&block.counts) {
                *count += cell.load(Relaxed);
            }
        }
        for times in &mut figures.times {
            times.min_us = match times.min_us {
                0 => 0,
                left => u64::MAX - left,
            };
        }
        figures
    }

    /// Closes the interval that began at `begun`, where there was `before`; the totals now.
    fn close(&self, begun: SystemTime, before: &Figures) -> Figures {
        let now = self.sum(|cell| cell.swap(0, Relaxed));
        let interval = Interval {
            begun,
            figures: now.since(before),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = interval;
        now
    }

    /// Closes intervals for ever.
    pub async fn run(self: Arc<Self>) {
        let mut before = Figures::default();
        loop {
            let begun = SystemTime::now();
            sleep(INTERVAL).await;
            before = self.close(begun, &before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ago(us: u64) -> Instant {
        Instant::now() - Duration::from_micros(us)
    }

    #[test]
    fn an_interval_holds_what_came_in_it_from_all_executors() {
        let meters = Meters::new(2);
        let (first, second) = (meters.of(0), meters.of(1));
        first.time(Timed::KvsApply, ago(1_000));
        second.time(Timed::KvsApply, ago(3_000));
        second.count(Counted::Request);
        let epoch = SystemTime::UNIX_EPOCH;
        let before = meters.close(epoch, &Figures::default());
        let times = meters.last().figures.times[Timed::KvsApply as usize];
        assert_eq!(times.count, 2);
        assert!((1_000..3_000).contains(&times.min_us), "{times:?}");
        assert!(times.max_us >= 3_000 && times.mean_ms() >= 2.0, "{times:?}");
        assert!(times.deviation_ms() > 0.0);
        assert_eq!(meters.last().figures.counts, [1, 0]);
        first.time(Timed::KvsApply, ago(9_000));
        let now = meters.close(epoch, &before);
        let times = meters.last().figures.times[Timed::KvsApply as usize];
        assert_eq!(times.count, 1);
        assert!(times.min_us >= 9_000, "the shortest of before is gone");
        assert_eq!(now.times[Timed::KvsApply as usize].count, 3);
        meters.close(epoch, &now);
        assert_eq!(meters.last().figures, Figures::default());
    }
}

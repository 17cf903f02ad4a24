//! What is one simulated server made of?
//!
//! The shipped [`Core`] on a disk in memory, an inbox, and a clock of its own. Its clock is like
//! `CLOCK_BOOTTIME`: it never goes back while the server runs, counts pauses, drifts, and begins
//! anew when the power failed.

use std::collections::BTreeMap;

use engine::{
    consensus::Configuration,
    io::{Disk, FileDone, FileOp, LogDone, LogOp, mem::Begun, mem::MemDisk},
    log::{Log, LogConfig, LogIdentity, Recovered},
    shard::{Core, CoreConfig, Event, ImageConfig, ShardSettings, bootstrap_log, open_shards},
};
use wire::{ClusterId, Member, ServerId, ShardId, Uuid};

use super::{
    atlas::{Pasts, Ward},
    plan::{ELECTION_TICKS, MS, Plan, TICK_NS},
};
use crate::judge::Row;

/// Name of the simulated cluster.
pub const CLUSTER: ClusterId = Uuid([9; 16]);

/// A write to the log that was issued; a crash tears it.
pub type Writing = Result<Begun, LogDone>;

/// One server.
pub struct Server {
    /// Where its log lies.
    pub log_disk: MemDisk,
    /// Where its images lie.
    pub image_disk: MemDisk,
    /// The shipped code, while it runs.
    pub core: Option<Core>,
    /// What has happened to it since its last turn.
    pub inbox: Vec<Event>,
    /// Which start this is; what was meant for an earlier one is dropped.
    pub boot: u32,
    /// Whether a turn is due.
    pub turn_is_due: bool,
    /// It stands still until then, ns of true time.
    pub paused_until_ns: u64,
    /// When the background lane has done all it was given, ns of true time.
    pub lane_free_ns: u64,
    /// Nothing is answered by its disk until then, ns of true time.
    pub stalled_until_ns: u64,
    /// Whether it is shutting down in order.
    pub stopping: bool,
    /// How many operations on its disks are going to fail, so that it may stop, or fail to start.
    pub faults_due: u32,
    /// Whether its log's disk has no space.
    pub is_full: bool,
    /// Whether a storage fault has struck here: what it left may be found much later.
    pub damaged: bool,
    /// It refused to start after a storage fault, and waits for an operator.
    pub refuses: bool,
    /// The repair under way.
    pub ward: Option<Box<Ward>>,
    /// The last writes to its log.
    pub pasts: Pasts,
    clock: Clock,
}

/// A clock that drifts: `zero + (now - since) × (1 + ppm ÷ 10⁶)`.
#[derive(Clone, Copy, Debug)]
struct Clock {
    zero_ns: u64,
    since_ns: u64,
    ppm: i64,
}

impl Clock {
    fn read(&self, now_ns: u64) -> u64 {
        let passed = i128::from(now_ns - self.since_ns);
        let drifted = passed + passed * i128::from(self.ppm) / 1_000_000;
        self.zero_ns + drifted as u64
    }
}

/// Raft id of a server.
pub fn raft_id(at: usize) -> ServerId {
    ServerId(at as u64 + 1)
}

/// The server with this raft id.
pub fn place_of(id: ServerId) -> usize {
    id.0 as usize - 1
}

/// Address of a server, as failures name it.
pub fn address(at: usize) -> String {
    format!("10.0.0.{at}:8300")
}

/// The server at an address.
pub fn place_at(address: &str) -> Option<usize> {
    let rest = address.strip_prefix("10.0.0.")?;
    rest.strip_suffix(":8300")?.parse().ok()
}

/// All shards of the plan.
pub fn shards(plan: &Plan) -> Vec<ShardId> {
    (0..plan.shards).map(ShardId).collect()
}

/// The peer set.
pub fn configuration(plan: &Plan) -> Configuration {
    let members = (0..plan.servers).map(|at| Member {
        raft_id: raft_id(at),
        node_id: Uuid([at as u8 + 1; 16]),
        name: format!("s{at}"),
        address: address(at),
        voter: true,
        leader: false,
    });
    Configuration::new(CLUSTER, plan.shards, members.collect())
}

fn identity(at: usize) -> LogIdentity {
    LogIdentity {
        log_id: at as u64 + 1,
        salt: 77 + at as u64,
    }
}

fn log_config(plan: &Plan) -> LogConfig {
    let limits = &plan.limits;
    LogConfig {
        segment_bytes: limits.segment_bytes,
        batch_bytes_max: limits.batch_bytes_max,
        log_bytes_max: limits.log_bytes_max,
        writes_in_flight_max: limits.writes_in_flight_max,
        second_write_bytes_min: limits.second_write_bytes_min,
        idle_mark_ns: 20 * MS,
        prepare_retry_ns: 50 * MS,
        ..LogConfig::default()
    }
}

impl Server {
    /// A server whose log was made with its cluster, and which does not run yet.
    pub fn new(at: usize, plan: &Plan, clock_ns: u64) -> Self {
        let log_disk = MemDisk::new();
        let mut log = Log::create(&log_disk, log_config(plan), identity(at))
            .expect("an empty disk takes a log");
        bootstrap_log(&mut log, &shards(plan), &configuration(plan));
        log.flush_blocking(&log_disk, 0).expect("nothing fails yet");
        Self {
            log_disk,
            image_disk: MemDisk::new(),
            core: None,
            inbox: Vec::new(),
            boot: 0,
            turn_is_due: false,
            paused_until_ns: 0,
            lane_free_ns: 0,
            stalled_until_ns: 0,
            stopping: false,
            faults_due: 0,
            is_full: false,
            damaged: false,
            refuses: false,
            ward: None,
            pasts: Pasts::default(),
            clock: Clock {
                zero_ns: clock_ns,
                since_ns: 0,
                ppm: plan.drift_ppm[at],
            },
        }
    }

    /// Its clock at a true time.
    pub fn clock_ns(&self, now_ns: u64) -> u64 {
        self.clock.read(now_ns)
    }

    /// Its clock goes forward at once by so much.
    pub fn jump(&mut self, by_ns: u64) {
        self.clock.zero_ns += by_ns;
    }

    /// Reads the log back, as a start does first.
    pub fn recover(&self, at: usize, plan: &Plan) -> Result<(Log, Recovered), String> {
        Log::recover(
            &self.log_disk,
            log_config(plan),
            identity(at),
            plan.servers == 1,
        )
        .map_err(|error| error.to_string())
    }

    /// Opens the shards of a log that is whole, and runs from now on.
    pub fn open(
        &mut self,
        at: usize,
        plan: &Plan,
        now_ns: u64,
        log: Log,
        recovered: &Recovered,
    ) -> Result<(), String> {
        let limits = &plan.limits;
        let settings = ShardSettings {
            id: raft_id(at),
            cluster_id: CLUSTER,
            tick_ns: TICK_NS,
            heartbeat_ticks: 2,
            election_ticks: ELECTION_TICKS,
            seed: plan.seed ^ u64::from(self.boot) << 32,
            cache_bytes_max: limits.cache_bytes_max,
            uncommitted_bytes_max: limits.uncommitted_bytes_max,
            restarted: self.boot > 1,
            images: ImageConfig {
                threshold_bytes: limits.image_threshold_bytes,
                threshold_entries: limits.image_threshold_entries,
                interval_ns: 100 * MS,
                slice_bytes: limits.slice_bytes,
                idle_ns_max: 200 * MS,
            },
            trailing_entries_max: limits.trailing_entries_max,
            history_bytes_max: limits.history_bytes_max,
        };
        let clock_ns = self.clock_ns(now_ns);
        let mut members: BTreeMap<_, _> = open_shards(
            &settings,
            &shards(plan),
            &log,
            recovered,
            &self.log_disk,
            &self.image_disk,
            clock_ns,
        )
        .map_err(|error| error.to_string())?;
        if let (true, Some(system)) = (plan.keeps_servers, members.get_mut(&ShardId(0))) {
            system.keep_servers("dc1");
        }
        let config = CoreConfig {
            tick_ns: TICK_NS,
            election_ticks: ELECTION_TICKS as u64,
        };
        self.core = Some(Core::new(config, log, members, clock_ns));
        self.stopping = false;
        Ok(())
    }

    /// The power fails: what was not durable is lost or torn, and the clock begins anew.
    pub fn lose_power(&mut self, now_ns: u64, draw: &mut dyn FnMut() -> u64) {
        self.kill();
        self.faults_due = 0;
        self.log_disk.crash(draw);
        self.image_disk.crash(draw);
        if draw().is_multiple_of(2) {
            (self.clock.zero_ns, self.clock.since_ns) = (1 + draw() % (100 * MS), now_ns);
        }
    }

    /// All keys of a shard, as this server has them.
    pub fn rows(&self, shard: ShardId) -> BTreeMap<String, Row> {
        let mut rows = BTreeMap::new();
        let member = self.core.as_ref().and_then(|core| core.member(shard));
        let Some(member) = member else {
            return rows;
        };
        let mut list = member.fsm().store().kv_list(b"", b"", 0);
        let mut more = true;
        while more {
            let mut found = Vec::new();
            more = list.next_rows(100, usize::MAX, &mut found);
            rows.extend(found.iter().map(|found| {
                let key = String::from_utf8_lossy(found.key()).into_owned();
                (key, super::workload::row(found.as_ref(), true))
            }));
        }
        rows
    }

    /// Whether what went wrong may be a planted fault, of which there is one less then.
    pub fn is_excused(&mut self) -> bool {
        let excused = self.faults_due > 0;
        self.faults_due = self.faults_due.saturating_sub(1);
        excused
    }

    /// Remembers a write that is about to be issued, so that it can be lost later.
    pub fn remember(&mut self, op: &LogOp) {
        if let LogOp::Write {
            segment,
            offset,
            length,
            token,
            ..
        } = op
        {
            let mut before = vec![0; *length];
            let read = self
                .log_disk
                .read_at(&segment.file_name(), *offset, &mut before);
            if read.is_ok() {
                self.pasts.issue(*token, *segment, *offset, before);
            }
        }
    }

    /// The process ends at once; what it wrote is in the kernel's hands.
    pub fn kill(&mut self) {
        self.core = None;
        self.ward = None;
        self.pasts.clear();
        self.inbox.clear();
        self.turn_is_due = false;
        self.paused_until_ns = 0;
        self.stopping = false;
        self.boot += 1;
    }
}

/// Carries out a background operation on images, as the lane does.
pub fn perform_file(disk: &MemDisk, op: FileOp) -> FileDone {
    let none = |result: std::io::Result<()>| result.map(|()| bytes::Bytes::new());
    match op {
        FileOp::Write {
            name,
            offset,
            bytes,
            token,
        } => {
            // As the background lane does: the first piece begins the file anew.
            let begun = match offset {
                0 => disk.remove(&name),
                _ => Ok(()),
            };
            FileDone {
                token,
                result: none(begun.and_then(|()| disk.write_at(&name, offset, &bytes))),
            }
        }
        FileOp::Publish { from, to, token } => FileDone {
            token,
            result: none(disk.sync(&from).and_then(|()| disk.rename(&from, &to))),
        },
        FileOp::Read {
            name,
            offset,
            length,
            token,
        } => {
            let read = || {
                let total = disk.length(&name)?.unwrap_or(0);
                let mut bytes = vec![0; length.min(total.saturating_sub(offset) as usize)];
                disk.read_at(&name, offset, &mut bytes)?;
                Ok(bytes.into())
            };
            FileDone {
                token,
                result: read(),
            }
        }
        FileOp::Remove { name, token } => FileDone {
            token,
            result: none(disk.remove(&name)),
        },
    }
}

/// Begins a write, or carries out any other operation on the log.
pub fn begin(disk: &MemDisk, op: LogOp) -> Writing {
    match op {
        LogOp::Write { .. } => disk.begin(op),
        other => Err(disk.execute(other)),
    }
}

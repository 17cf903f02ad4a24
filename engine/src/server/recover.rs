//! From a data directory to shards that can serve.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use wire::{ServerId, ShardId};

use super::{
    config::AgentConfig,
    devices::RealDevices,
    executor::Place,
    repair::{Ward, is_damaged, repair},
    shell::{Shell, now_ns},
    start::in_dir,
};
use crate::{
    cluster::identity::{log_path, random_u64},
    consensus::Configuration,
    io::{BackgroundLane, Dir, Disk, LogRing, RingOptions},
    log::{Log, LogConfig, LogIdentity, Recovered},
    shard::{Core, CoreConfig, ImageConfig, Member, ShardSettings, bootstrap_log, open_shards},
};

/// Length of a raft tick with multiplier 1.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Least ticks before an election: half a second with multiplier 1.
const ELECTION_TICKS: usize = 10;
/// Entries kept in memory for followers that are a little behind, bytes per shard.
const ENTRY_CACHE_BYTES: usize = 16 << 20;
/// Payload proposed and not yet committed, bytes per shard.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// Length of a raft tick under this configuration.
pub fn tick(config: &AgentConfig) -> Duration {
    TICK * u32::from(config.raft.multiplier)
}

/// The shards that live on an executor's log.
pub fn shards_of(index: u16, logs: u16, shards: u16) -> Vec<ShardId> {
    (index..shards)
        .step_by(usize::from(logs))
        .map(ShardId)
        .collect()
}

fn log_config(config: &AgentConfig) -> LogConfig {
    LogConfig {
        segment_bytes: config.log.segment_bytes,
        ..LogConfig::default()
    }
}

pub(super) fn image_config(config: &AgentConfig, id: ServerId) -> ImageConfig {
    // Between once and twice the interval, as Consul's, and each server at its own pace: or all
    // would write their images at the same time.
    let stretch = 1.0 + (id.0 % 1024) as f64 / 1024.0;
    ImageConfig {
        threshold_entries: config.raft.snapshot_threshold,
        interval_ns: config.raft.snapshot_interval.mul_f64(stretch).as_nanos() as u64,
        ..ImageConfig::default()
    }
}

fn log_identity(place: &Place, index: u16) -> LogIdentity {
    let name = &place.identity.logs[usize::from(index)];
    LogIdentity {
        log_id: name.id,
        salt: name.salt,
    }
}

/// Makes the logs of a server that joins its first cluster, with each shard's first checkpoint.
/// What a start that was cut short left there is removed: the directory names no cluster yet.
pub fn create_logs(
    config: &AgentConfig,
    place: &Place,
    configuration: &Configuration,
) -> Result<(), String> {
    std::fs::create_dir_all(place.images_path()).map_err(in_dir(&place.path))?;
    for index in 0..place.logs() {
        create_log(config, place, index, configuration)?;
    }
    std::fs::File::open(&place.path)
        .and_then(|dir| dir.sync_all())
        .map_err(in_dir(&place.path))
}

fn create_log(
    config: &AgentConfig,
    place: &Place,
    index: u16,
    configuration: &Configuration,
) -> Result<(), String> {
    let path = log_path(&place.path, index);
    let io = in_dir(&path);
    match std::fs::remove_dir_all(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    std::fs::create_dir_all(&path).map_err(in_dir(&path))?;
    let disk = Dir::open(&path).map_err(in_dir(&path))?;
    let mut log = Log::create(&disk, log_config(config), log_identity(place, index))
        .map_err(in_dir(&path))?;
    let shards = shards_of(index, place.logs(), configuration.shards);
    bootstrap_log(&mut log, &shards, configuration);
    log.flush_blocking(&disk, now_ns()).map_err(in_dir(&path))
}

/// A recovered log, not yet served from.
pub struct Opened {
    index: u16,
    log: Log,
    recovered: Recovered,
    disk: Dir,
    path: PathBuf,
    /// The peer set that the cluster was formed with.
    bootstrap: Option<Configuration>,
}

impl Opened {
    /// Recovers the log of executor `index`.
    pub fn recover(config: &AgentConfig, place: &Place, index: u16) -> Result<Self, String> {
        let path = log_path(&place.path, index);
        let began = Instant::now();
        let disk = Dir::open(&path).map_err(in_dir(&path))?;
        let bootstrap = place
            .identity
            .bootstrap()
            .and_then(|bytes| Configuration::decode(&bytes).ok());
        let lone = bootstrap
            .as_ref()
            .is_none_or(|configuration| configuration.members.len() == 1);
        let (log, recovered) =
            Log::recover(&disk, log_config(config), log_identity(place, index), lone)
                .map_err(in_dir(&path))?;
        log::info!(
            target: "agent.server.log",
            "log recovered: batches={} entries={} bytes={} segments={} took_ms={}",
            recovered.report.batches, recovered.report.entries, recovered.report.bytes_read,
            recovered.report.segments, began.elapsed().as_millis()
        );
        for place in &recovered.report.corrupt {
            log::error!(target: "agent.server.log", "corrupt record: {place}");
        }
        Ok(Self {
            index,
            log,
            recovered,
            disk,
            path,
            bootstrap,
        })
    }

    /// The peer set as the log has it.
    pub fn configuration(&self) -> Result<Configuration, String> {
        let missing = || {
            format!(
                "{}: the log holds no shard: the data directory is not whole",
                self.path.display()
            )
        };
        let found = self.recovered.shards.values().next().ok_or_else(missing)?;
        let encoded = &found.checkpoint.configuration;
        // Where the record that held it is damaged, the cluster's first one serves for the repair.
        let lost = encoded.is_empty().then(|| self.bootstrap.clone()).flatten();
        if let Some(configuration) = lost {
            return Ok(configuration);
        }
        Configuration::decode(encoded).map_err(|error| {
            format!(
                "{}: its configuration cannot be read: {error}",
                self.path.display()
            )
        })
    }

    /// Whether opening its shards waits for a repair.
    pub fn is_damaged(&self) -> bool {
        is_damaged(&self.recovered)
    }

    /// Repairs the log if it is damaged, opens its shards, and starts the devices.
    pub async fn into_core(
        mut self,
        config: &AgentConfig,
        place: &Place,
        configuration: &Configuration,
        restarted: bool,
        shell: &Rc<Shell>,
        stopping: &Rc<Cell<bool>>,
    ) -> Result<(Core, RealDevices), String> {
        let id = place.identity.server_id();
        let images_path = place.images_path();
        let images = Dir::open(&images_path).map_err(in_dir(&images_path))?;
        let ward = Ward {
            own: id,
            configuration,
            log_disk: &self.disk,
            image_disk: &images,
            shell,
            stopping,
        };
        repair(&mut self.log, &mut self.recovered, ward).await?;
        let settings = ShardSettings {
            id,
            cluster_id: configuration.cluster_id,
            tick_ns: tick(config).as_nanos() as u64,
            heartbeat_ticks: HEARTBEAT_TICKS,
            election_ticks: ELECTION_TICKS,
            seed: random_u64(),
            cache_bytes_max: ENTRY_CACHE_BYTES,
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            restarted,
            trailing_entries_max: config.raft.trailing_logs,
            images: image_config(config, id),
            history_bytes_max: config.watch_history_bytes,
        };
        let began = Instant::now();
        let mut members = self.open_members(&settings, place, configuration, &images)?;
        if let Some(system) = members.get_mut(&ShardId(0)) {
            system.keep_servers(&config.datacenter);
        }
        log::info!(target: "agent.server", "state replayed: took_ms={}", began.elapsed().as_millis());
        let options = RingOptions {
            require_direct: config.log.require_direct,
        };
        let (ring, buffers) = LogRing::open(Rc::clone(shell.ring()), &self.path, options)
            .map_err(in_dir(&self.path))?;
        for warning in ring.warnings() {
            log::warn!(target: "agent.server.log", "{warning}");
        }
        self.log.give_buffers(buffers);
        let lane = BackgroundLane::start(&self.path, &images_path).map_err(in_dir(&self.path))?;
        let devices = RealDevices::start(shell, ring, lane, config.log.completion)
            .map_err(in_dir(&self.path))?;
        let core_config = CoreConfig {
            tick_ns: settings.tick_ns,
            election_ticks: ELECTION_TICKS as u64,
        };
        Ok((Core::new(core_config, self.log, members, now_ns()), devices))
    }

    fn open_members(
        &self,
        settings: &ShardSettings,
        place: &Place,
        configuration: &Configuration,
        images: &dyn Disk,
    ) -> Result<BTreeMap<ShardId, Member>, String> {
        let shards = shards_of(self.index, place.logs(), configuration.shards);
        open_shards(
            settings,
            &shards,
            &self.log,
            &self.recovered,
            &self.disk,
            images,
            now_ns(),
        )
        .map_err(in_dir(&place.path))
    }
}

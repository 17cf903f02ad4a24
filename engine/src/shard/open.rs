//! How does a server's state come back from its data directory?
//!
//! Recovery has scanned the log; here each shard's image is loaded, the log behind it replayed
//! up to the stored commit index, and raft opened on the rest. Memory stays bounded: entries
//! are read in pieces, applied, and leave the cache again.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::HardState as RaftHardState;
use wire::{ClusterId, Index, ServerId, ShardId, Term};

use super::{
    history::History,
    images::{ImageConfig, Images},
    member::{ENTRY_LOG_OVERHEAD_BYTES, Member, raft_entry},
};
use crate::{
    consensus::{Configuration, EntryStore, Replica, ReplicaConfig},
    fsm::{Fsm, FsmError, Outcome},
    io::Disk,
    log::{Checkpoint, HardState, Log, LogError, Recovered, RecoveredShard},
    snapshot::{
        image::{ImageError, ImageLoader},
        names::{ImageName, TEMPORARY_SUFFIX, is_temporary},
    },
    state::schema::Change,
};

/// Payload read and replayed at a time, bytes.
const REPLAY_PIECE_BYTES: usize = 4 << 20;
/// Bytes of an image read at a time.
const IMAGE_PIECE_BYTES: usize = 1 << 20;
/// Where every shard's log begins: the configuration stands in an entry that nobody wrote.
pub const FIRST_INDEX: Index = Index(1);
/// Its term.
pub const FIRST_TERM: Term = Term(1);

/// Why a shard cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The image that the log's checkpoint names.
    #[error(
        "image {name}: {error}; restore the file, or empty the data directory so that the server rejoins as a new one"
    )]
    Image {
        /// File name.
        name: String,
        /// What is wrong.
        error: ImageError,
    },
    /// A file could not be read.
    #[error("{name}: {error}")]
    Io {
        /// File name.
        name: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The state machine refused an entry.
    #[error(transparent)]
    Fsm(#[from] FsmError),
    /// A configuration could not be read.
    #[error("shard {shard}: its configuration cannot be read: {error}")]
    Configuration {
        /// The shard.
        shard: ShardId,
        /// Why.
        error: wire::WireError,
    },
    /// The log does not know a shard that it must.
    #[error("shard {0} is missing from the log: the data directory is not whole")]
    Missing(ShardId),
}

/// Everything opened for one executor.
pub type OpenedShard = BTreeMap<ShardId, Member>;

/// Puts the first checkpoint of each shard into a fresh log; the caller makes it durable.
pub fn bootstrap_log(log: &mut Log, shards: &[ShardId], configuration: &Configuration) {
    for shard in shards {
        log.put_checkpoint(
            *shard,
            Checkpoint {
                hard_state: HardState {
                    term: FIRST_TERM,
                    vote: 0,
                    commit: FIRST_INDEX,
                },
                snapshot_index: FIRST_INDEX,
                snapshot_term: FIRST_TERM,
                configuration: configuration.encode(),
            },
        );
    }
}

/// What every shard of a server is opened with.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// This server's raft id.
    pub id: ServerId,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Length of a tick, ns.
    pub tick_ns: u64,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Least ticks before an election.
    pub election_ticks: usize,
    /// Seed of election timeouts.
    pub seed: u64,
    /// Bound of each shard's entry cache, bytes.
    pub cache_bytes_max: usize,
    /// Entries kept in memory behind an image, at most (`raft_trailing_logs`); the cache's bound
    /// in bytes holds as well.
    pub trailing_entries_max: u64,
    /// Bound of what is proposed and uncommitted, bytes.
    pub uncommitted_bytes_max: u64,
    /// Whether the server held raft state before.
    pub restarted: bool,
    /// Images.
    pub images: ImageConfig,
    /// Bytes of changes that each shard remembers for watches; 0 for none.
    pub history_bytes_max: usize,
}

/// Opens the shards of one executor.
pub fn open_shards(
    settings: &ShardSettings,
    shards: &[ShardId],
    log: &Log,
    recovered: &Recovered,
    log_disk: &dyn Disk,
    image_disk: &dyn Disk,
    now_ns: u64,
) -> Result<OpenedShard, OpenError> {
    let mut opened = OpenedShard::new();
    let images = remove_leftovers(shards, image_disk, recovered)?;
    for shard in shards {
        let found = recovered
            .shards
            .get(shard)
            .ok_or(OpenError::Missing(*shard))?;
        let kept = images
            .iter()
            .filter(|(name, _)| name.shard == *shard)
            .copied()
            .collect();
        let member = open_shard(
            settings, *shard, log, found, log_disk, image_disk, kept, now_ns,
        )?;
        opened.insert(*shard, member);
    }
    Ok(opened)
}

#[allow(clippy::too_many_arguments)]
fn open_shard(
    settings: &ShardSettings,
    shard: ShardId,
    log: &Log,
    found: &RecoveredShard,
    log_disk: &dyn Disk,
    image_disk: &dyn Disk,
    kept: Vec<(ImageName, u64)>,
    now_ns: u64,
) -> Result<Member, OpenError> {
    let checkpoint = &found.checkpoint;
    let configuration = Configuration::decode(&checkpoint.configuration)
        .map_err(|error| OpenError::Configuration { shard, error })?;
    let mut fsm = load_image(shard, checkpoint, image_disk)?;
    let mut store = EntryStore::new(
        raft_hard_state(&checkpoint.hard_state, found),
        configuration.conf_state(),
        checkpoint.snapshot_index,
        checkpoint.snapshot_term,
        settings.cache_bytes_max,
        settings.trailing_entries_max,
    );
    let (image_index, _) = fsm.applied();
    let (cluster, bytes_max) = (settings.cluster_id, settings.history_bytes_max);
    let mut history = History::new(cluster, shard, image_index, bytes_max);
    let replayed_bytes = replay(
        shard,
        log,
        found,
        log_disk,
        &mut fsm,
        &mut history,
        &mut store,
    )?;
    let applied = fsm.applied().0;
    if let Some((name, _)) = kept.last() {
        store.offer_image(
            crate::consensus::ImageDescriptor {
                index: name.index,
                term: name.term,
                configuration: checkpoint.configuration.clone(),
            },
            configuration.conf_state(),
        );
    }
    let config = ReplicaConfig {
        id: settings.id,
        shard,
        tick_ns: settings.tick_ns,
        heartbeat_ticks: settings.heartbeat_ticks,
        election_ticks: settings.election_ticks,
        seed: settings.seed,
        uncommitted_bytes_max: settings.uncommitted_bytes_max,
        restarted: settings.restarted,
    };
    let replica = Replica::new(config, configuration, store, applied, now_ns);
    let mut images = Images::new(shard, settings.cluster_id, settings.images.clone(), kept);
    // What was replayed counts towards the next image, or a server that restarts often never makes one.
    images.count_applied(applied.0 - checkpoint.snapshot_index.0, replayed_bytes);
    Ok(Member::new(shard, replica, fsm, history, images))
}

fn load_image(shard: ShardId, checkpoint: &Checkpoint, disk: &dyn Disk) -> Result<Fsm, OpenError> {
    if checkpoint.snapshot_index == FIRST_INDEX {
        let mut fsm = Fsm::new();
        let first: [(Index, Term, &[u8]); 1] = [(FIRST_INDEX, FIRST_TERM, &[])];
        fsm.apply_run(&first, &mut Vec::<Outcome>::new())?;
        return Ok(fsm);
    }
    let name = ImageName {
        shard,
        index: checkpoint.snapshot_index,
        term: checkpoint.snapshot_term,
    };
    let file = name.file_name();
    let io = |error| OpenError::Io {
        name: file.clone(),
        error,
    };
    let damaged = |error| OpenError::Image {
        name: file.clone(),
        error,
    };
    let length = disk
        .list()
        .map_err(io)?
        .into_iter()
        .find_map(|(found, length)| (found == file).then_some(length))
        .ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))?;
    let mut loader = ImageLoader::new();
    let mut offset = 0;
    while offset < length {
        let mut piece = vec![0; IMAGE_PIECE_BYTES.min((length - offset) as usize)];
        disk.read_at(&file, offset, &mut piece).map_err(io)?;
        loader.push(&piece).map_err(damaged)?;
        offset += piece.len() as u64;
    }
    loader.finish().map(|(fsm, _)| fsm).map_err(damaged)
}

/// Replays the log behind the image: everything into the entry store, what is known to be
/// committed into the state machine, whose changes go into the history. Returns the bytes replayed.
fn replay(
    shard: ShardId,
    log: &Log,
    found: &RecoveredShard,
    disk: &dyn Disk,
    fsm: &mut Fsm,
    history: &mut History,
    store: &mut EntryStore,
) -> Result<u64, OpenError> {
    let mut bytes = 0;
    let commit = found.checkpoint.hard_state.commit;
    let mut next = found.first_index;
    let mut outcomes = Vec::new();
    while next <= found.last_index {
        let entries = log.read_blocking(disk, shard, next, found.last_index, REPLAY_PIECE_BYTES)?;
        let Some(last) = entries.last().map(|entry| entry.index) else {
            break;
        };
        bytes += entries
            .iter()
            .map(|entry| entry.data.len() as u64 + ENTRY_LOG_OVERHEAD_BYTES)
            .sum::<u64>();
        let mut entries = entries;
        let committed = entries.partition_point(|entry| entry.index <= commit);
        if mutant!(UncommittedDroppedAtStart) {
            entries.truncate(committed);
        }
        let run: Vec<(Index, Term, &Bytes)> = entries[..committed]
            .iter()
            .map(|entry| (entry.index, entry.term, &entry.data))
            .collect();
        if !run.is_empty() {
            outcomes.clear();
            let mut changed = |index, changes: &[Change]| history.record(index, changes);
            fsm.apply_run_watched(&run, &mut outcomes, Some(&mut changed))?;
        }
        let entries: Vec<_> = entries.into_iter().map(raft_entry).collect();
        store.append(&entries);
        store.shrink_cache(fsm.applied().0.0);
        next = Index(last.0 + 1);
    }
    Ok(bytes)
}

/// Removes images of these shards that no checkpoint names: unfinished ones, and finished ones
/// whose checkpoint never became durable. Returns what is kept, oldest first. The folder holds the
/// images of other executors' shards as well, which are theirs to judge.
fn remove_leftovers(
    shards: &[ShardId],
    disk: &dyn Disk,
    recovered: &Recovered,
) -> Result<Vec<(ImageName, u64)>, OpenError> {
    let mut kept = Vec::new();
    for (file, length) in disk.list().map_err(|error| OpenError::Io {
        name: "images".to_owned(),
        error,
    })? {
        let bare = file.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(&file);
        let Some(name) = ImageName::parse(bare).filter(|name| shards.contains(&name.shard)) else {
            continue;
        };
        let vouched_for = recovered.shards.get(&name.shard).is_some_and(|found| {
            (
                found.checkpoint.snapshot_index,
                found.checkpoint.snapshot_term,
            ) == (name.index, name.term)
        });
        if vouched_for && !is_temporary(&file) {
            kept.push((name, length));
        } else {
            disk.remove(&file).map_err(|error| OpenError::Io {
                name: file.clone(),
                error,
            })?;
        }
    }
    kept.sort();
    Ok(kept)
}

/// The commit index is clamped to what the log holds: raft-rs aborts on one beyond it.
fn raft_hard_state(state: &HardState, found: &RecoveredShard) -> RaftHardState {
    let mut out = RaftHardState::default();
    let known = match mutant!(TermForgottenAtStart) {
        true => 0,
        false => state.term.0,
    };
    out.term = known.max(found.last_term.0);
    out.vote = if out.term == known { state.vote } else { 0 };
    let commit = match mutant!(AllCommittedAtStart) {
        true => found.last_index,
        false => state.commit,
    };
    out.commit = commit
        .clamp(found.checkpoint.snapshot_index, found.last_index)
        .0;
    out
}

//! What does a peer get whose log was damaged?
//!
//! It asks for the entries that a corrupt record held. They are given only where they are
//! provably the same ones: the asker names the entry behind the gap, and a log that holds an
//! entry with that index and term holds the asker's entries before it (log matching, Raft paper
//! §5.3). For a damaged tail there is no such entry; then only the leader answers, and with all
//! it has: whatever the asker ever acknowledged to it is among that. What is no longer in this
//! log is in its image, of which the name is given instead: all servers agree on what an image
//! holds.

use raft::{GetEntriesContext, Storage, eraftpb::Entry};
use wire::{EntriesChunk, EntriesFetch, Index, ServerId, ShardId, WireEntry, limits};

use super::event::{Effects, Transfer};
use crate::{consensus::Replica, log::Log, snapshot::names::ImageName};

/// Answers to damaged peers that wait for the disk, of one shard.
#[derive(Debug, Default)]
pub struct Repairs {
    reading: Vec<(u64, ServerId, EntriesChunk)>,
}

impl Repairs {
    /// Answers at once from memory, or starts the read that the answer waits for. `image`: what is
    /// wanted is in this one and no longer in the log.
    #[allow(clippy::too_many_arguments)]
    pub fn serve(
        &mut self,
        shard: ShardId,
        from: ServerId,
        fetch: &EntriesFetch,
        replica: &Replica,
        image: Option<ImageName>,
        log: &mut Log,
        effects: &mut Effects,
    ) {
        let mut chunk = EntriesChunk {
            term: replica.term(),
            commit: replica.commit(),
            last_index: last_index(replica),
            leader: replica.is_leader(),
            ..EntriesChunk::default()
        };
        let last = match provable(fetch, replica) {
            Ok(last) => last,
            Err(refusal) => {
                chunk.refused = true;
                chunk.reason = refusal.to_string();
                chunk.other_history = refusal == Refusal::OtherHistory;
                if let Some(image) = image {
                    (chunk.image_index, chunk.image_term) = (image.index, image.term);
                }
                effects
                    .transfers
                    .push((from, shard, Transfer::EntriesChunk(chunk)));
                return;
            }
        };
        if fetch.first > last {
            // Also where this server only believes that it leads, and the asker is ahead of it.
            effects
                .transfers
                .push((from, shard, Transfer::EntriesChunk(chunk)));
            return;
        }
        let bytes_max = limits::APPEND_BYTES_MAX as u64;
        let cached = replica.store().entries(
            fetch.first.0,
            last.0 + 1,
            bytes_max,
            GetEntriesContext::empty(false),
        );
        if let Ok(entries) = cached {
            chunk.entries = entries.iter().map(wire_entry).collect();
            effects
                .transfers
                .push((from, shard, Transfer::EntriesChunk(chunk)));
        } else {
            match log.start_read(
                shard,
                fetch.first,
                last,
                bytes_max as usize,
                &mut effects.log,
            ) {
                Ok(token) => self.reading.push((token, from, chunk)),
                Err(error) => {
                    chunk.refused = true;
                    chunk.reason = error.to_string();
                    effects
                        .transfers
                        .push((from, shard, Transfer::EntriesChunk(chunk)));
                }
            }
        }
    }

    /// A log read ended; true if an answer here waited for it.
    pub fn read(
        &mut self,
        shard: ShardId,
        token: u64,
        log: &mut Log,
        effects: &mut Effects,
    ) -> bool {
        let Some(at) = self.reading.iter().position(|(mine, ..)| *mine == token) else {
            return false;
        };
        let (_, to, mut chunk) = self.reading.swap_remove(at);
        match log.finish_read(token) {
            Ok(entries) => {
                chunk.entries = entries
                    .into_iter()
                    .map(|entry| WireEntry {
                        index: entry.index,
                        term: entry.term,
                        kind: u32::from(entry.kind),
                        data: entry.data,
                    })
                    .collect();
            }
            Err(error) => {
                chunk.refused = true;
                chunk.reason = error.to_string();
            }
        }
        effects
            .transfers
            .push((to, shard, Transfer::EntriesChunk(chunk)));
        true
    }
}

/// Why nothing may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("this server's log begins at {0}")]
    Compacted(Index),
    #[error("this server's log does not hold the entry behind the gap")]
    OtherHistory,
    #[error("only the leader can say what a damaged tail held")]
    NotLeader,
}

/// The last index that may be given, or why nothing may.
fn provable(fetch: &EntriesFetch, replica: &Replica) -> Result<Index, Refusal> {
    let store = replica.store();
    if fetch.first < store.first() {
        return Err(Refusal::Compacted(store.first()));
    }
    if fetch.next_index.0 != 0 {
        let term = store.term_of(fetch.next_index.0);
        return if term == Some(fetch.next_term.0) {
            Ok(fetch.last.min(Index(fetch.next_index.0 - 1)))
        } else {
            Err(Refusal::OtherHistory)
        };
    }
    if !replica.is_leader() {
        return Err(Refusal::NotLeader);
    }
    Ok(last_index(replica))
}

/// The last entry that may be read. What this very turn has added is not below raft yet; no peer
/// can have acknowledged it.
fn last_index(replica: &Replica) -> Index {
    replica.last_index().min(replica.store().last())
}

fn wire_entry(entry: &Entry) -> WireEntry {
    WireEntry {
        index: Index(entry.index),
        term: wire::Term(entry.term),
        kind: entry.get_entry_type() as u32,
        data: entry.data.clone(),
    }
}

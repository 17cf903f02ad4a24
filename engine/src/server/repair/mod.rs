//! How does a server whose log was damaged get back what it lost, before it takes part again?
//!
//! A shard with a gap, or whose newest vote may be lost, does not start: it neither votes nor
//! acknowledges. Until it is whole, the executor that it lives on asks the other servers, again
//! and again ([`patient`] says for what, and why that is enough). Nothing else happens on that
//! executor meanwhile: its clients are told why, raft messages for its shards are dropped.

mod image;
pub mod patient;
#[cfg(test)]
mod tests;

use std::{cell::Cell, rc::Rc, time::Duration};

use futures_lite::FutureExt;
use glommio::timer::sleep;
use wire::{Frame, FrameKind, RequestId, ServerId, ShardId};

use super::shell::{Shell, now_ns};
use crate::{
    consensus::Configuration,
    io::Disk,
    log::{Log, Recovered},
    shard::Event,
};
use patient::{Letter, Patient, Question};

/// A question is asked again when no answer was of use for so long.
const ROUND: Duration = Duration::from_millis(200);
/// The state of the repair is said again after so many rounds without a useful answer.
const SAY_AGAIN_ROUNDS: u32 = 25;
/// What clients of a server under repair are told.
pub const REFUSAL: &str =
    "this server's log is damaged and being repaired from its peers; ask another server";

/// What a repair works on, and with.
pub struct Ward<'a> {
    /// This server.
    pub own: ServerId,
    /// Its cluster.
    pub configuration: &'a Configuration,
    /// Where the log lies.
    pub log_disk: &'a dyn Disk,
    /// Where images lie.
    pub image_disk: &'a dyn Disk,
    /// The executor that the log is of: its links, and its mailbox.
    pub shell: &'a Rc<Shell>,
    /// Whether the server is to stop.
    pub stopping: &'a Rc<Cell<bool>>,
}

/// Whether a log needs repair before its shards may be opened.
pub fn is_damaged(recovered: &Recovered) -> bool {
    damaged(recovered).next().is_some()
}

fn damaged(recovered: &Recovered) -> impl Iterator<Item = ShardId> {
    recovered
        .shards
        .iter()
        .filter(|(_, shard)| {
            !shard.gaps.is_empty() || shard.hard_state_in_doubt && !mutant!(DoubtForgotten)
        })
        .map(|(shard, _)| *shard)
}

/// Repairs every shard of a log that needs it; returns at once when none does.
pub async fn repair(
    log: &mut Log,
    recovered: &mut Recovered,
    ward: Ward<'_>,
) -> Result<(), String> {
    let damaged: Vec<ShardId> = damaged(recovered).collect();
    if damaged.is_empty() {
        return Ok(());
    }
    log::error!(
        target: "agent.server.log",
        "the log is damaged; {} shard(s) will be repaired from the peers before this server takes part", damaged.len()
    );
    ward.shell.refuse(Some(REFUSAL.to_owned()));
    let mut mailbox = Mailbox::new(ward.shell);
    for shard in damaged {
        ward.repair_shard(shard, log, &mut mailbox).await?;
        recovered
            .shards
            .extend(log.recovered(shard).map(|found| (shard, found)));
        log::info!(target: "agent.server.log", "repaired: shard={shard} last_index={}", log.last_index(shard));
    }
    ward.shell.refuse(None);
    Ok(())
}

impl Ward<'_> {
    async fn repair_shard(
        &self,
        shard: ShardId,
        log: &mut Log,
        mailbox: &mut Mailbox<'_>,
    ) -> Result<(), String> {
        let mut patient = Patient::new(shard, self.own, self.configuration, log);
        let mut silent_rounds = 0;
        self.flush(log)?;
        while !patient.is_whole(log) {
            if self.stopping.get() {
                return Err("stopped while the log was being repaired".to_owned());
            }
            self.ask(shard, &patient.question(log));
            let answered = async {
                loop {
                    let mut useful = false;
                    for (from, letter) in mailbox.letters(shard).await {
                        useful |= patient.take(log, self.image_disk, from, letter)?;
                        self.flush(log)?;
                    }
                    if useful {
                        return Ok::<bool, String>(true);
                    }
                }
            };
            let silence = async {
                sleep(ROUND).await;
                Ok(false)
            };
            if answered.or(silence).await? {
                continue;
            }
            patient.round_over(self.image_disk)?;
            silent_rounds += 1;
            if silent_rounds % SAY_AGAIN_ROUNDS == 0 {
                log::warn!(target: "agent.server.log", "still repairing: {}", patient.describe(log));
            }
        }
        Ok(())
    }

    fn flush(&self, log: &mut Log) -> Result<(), String> {
        log.flush_blocking(self.log_disk, now_ns())
            .map_err(|error| error.to_string())
    }

    fn ask(&self, shard: ShardId, question: &Question) {
        let everyone = || self.configuration.voters().map(|member| member.raft_id);
        let (kind, payload, to): (_, _, Vec<ServerId>) = match question {
            Question::Entries(fetch) => (
                FrameKind::EntriesFetch,
                fetch.encode(),
                everyone().filter(|id| *id != self.own).collect(),
            ),
            Question::Image(from, fetch) => (FrameKind::ImageFetch, fetch.encode(), vec![*from]),
        };
        let frame = Frame {
            kind,
            shard,
            request: RequestId(0),
            flags: 0,
            payload,
            blob: bytes::Bytes::new(),
        };
        for to in to {
            self.shell.links.send(to, |out| frame.encode(out));
        }
        self.shell.links.flush();
    }
}

/// What arrives for the shards of an executor that does not serve yet.
struct Mailbox<'a> {
    shell: &'a Rc<Shell>,
    /// What the executor must see once it serves.
    kept: Vec<Event>,
}

impl<'a> Mailbox<'a> {
    fn new(shell: &'a Rc<Shell>) -> Self {
        Self {
            shell,
            kept: Vec::new(),
        }
    }

    /// Waits for answers of peers about a shard. Everything else that peers send is dropped, as a
    /// network would.
    async fn letters(&mut self, wanted: ShardId) -> Vec<(ServerId, Letter)> {
        let mut events = Vec::new();
        self.shell.gathered(&mut events).await;
        let mut letters = Vec::new();
        for event in events {
            match event {
                Event::EntriesChunk { from, shard, chunk } if shard == wanted => {
                    letters.push((from, Letter::Entries(chunk)));
                }
                Event::ImageChunk {
                    from,
                    shard,
                    chunk,
                    bytes,
                } if shard == wanted => letters.push((from, Letter::Image(chunk, bytes))),
                // Each request is answered exactly once; no more come while they are refused.
                Event::Request { .. } | Event::Shutdown => self.kept.push(event),
                _ => {}
            }
        }
        letters
    }
}

impl Drop for Mailbox<'_> {
    fn drop(&mut self) {
        for event in self.kept.drain(..) {
            self.shell.post(event);
        }
    }
}

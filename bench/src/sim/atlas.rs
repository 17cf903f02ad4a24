//! What may be destroyed, and how does a server that lost something get it back?
//!
//! The *fault atlas* (TigerBeetle's word): storage faults strike fewer servers at a time than make
//! a majority, so that of everything that was acknowledged a good copy is left somewhere, and the
//! cluster must stay right and come back whole. Which servers these are is settled for a whole run: a
//! misdirected write may be found long after. A lone server is never damaged: nobody could help it.
//! And none is while another one repairs itself: two servers whose votes are in doubt at the same time
//! wait for each other until an operator decides (`perf-reports/reliability/TRACK.md`).
//!
//! One more thing is spared, because the log's README names it as a limit: the write at the very
//! tail, which nothing yet names durable, is not lost behind the server's back.
//!
//! A damaged server asks its peers as in production: the questions and answers are those of
//! [`Patient`], only the mailbox is the simulator's.

use std::collections::VecDeque;

use engine::{
    io::{Disk, SegmentNo},
    log::{Log, Recovered},
    server::repair::patient::{Letter, Patient, Question},
    shard::Transfer,
};
use wire::{ServerId, ShardId};

use super::{
    plan::{Fault, MS},
    recorder::Broken,
    server::{Server, configuration, raft_id},
    world::{Happening, Parcel, World},
};

/// Between two rounds of questions of a damaged server, ns.
const ROUND_NS: u64 = 20 * MS;
/// Writes that are remembered, so that they can be lost.
const REMEMBERED_WRITES: usize = 16;
/// A sector, bytes.
const SECTOR_BYTES: usize = 512;

/// A write to a log that was acknowledged.
#[derive(Debug)]
pub struct Past {
    segment: SegmentNo,
    offset: usize,
    before: Vec<u8>,
    /// Place of its issue and of its completion in the order of both.
    issued: u64,
    completed: u64,
}

/// The last writes to a log.
#[derive(Debug, Default)]
pub struct Pasts {
    order: u64,
    issued: VecDeque<(u64, Past)>,
    done: VecDeque<Past>,
}

impl Pasts {
    /// A write with this token is issued over `before`.
    pub fn issue(&mut self, token: u64, segment: SegmentNo, offset: u64, before: Vec<u8>) {
        self.order += 1;
        let past = Past {
            segment,
            offset: offset as usize,
            before,
            issued: self.order,
            completed: 0,
        };
        self.issued.push_back((token, past));
    }

    /// A write was acknowledged.
    pub fn complete(&mut self, token: u64) {
        self.order += 1;
        let Some(at) = self.issued.iter().position(|(mine, _)| *mine == token) else {
            return;
        };
        if let Some((_, mut past)) = self.issued.remove(at) {
            past.completed = self.order;
            self.done.push_back(past);
        }
        while self.done.len() > REMEMBERED_WRITES {
            self.done.pop_front();
        }
    }

    /// The process is gone.
    pub fn clear(&mut self) {
        self.issued.clear();
    }

    /// How many of the acknowledged writes a later one names durable.
    fn named(&self) -> usize {
        let newest = self.done.iter().map(|past| past.issued).max().unwrap_or(0);
        self.done
            .iter()
            .take_while(|past| past.completed < newest)
            .count()
    }
}

/// A server that repairs its log.
pub struct Ward {
    log: Log,
    recovered: Recovered,
    /// Shards that are still to be repaired, the present one first.
    shards: VecDeque<ShardId>,
    patient: Patient,
}

impl World {
    /// A storage fault strikes a server, which is down then, if the atlas allows for it.
    pub(super) fn damage(&mut self, at: usize, kind: Fault) {
        let damaged = self.servers.iter().filter(|server| server.damaged).count();
        let is_hurt = |server: &Server| server.damaged && server.core.is_none();
        let others_hurt = (0..self.servers.len()).any(|o| o != at && is_hurt(&self.servers[o]));
        if others_hurt
            || damaged >= (self.servers.len() - 1) / 2 && !self.servers[at].damaged
            || self.servers.len() < 3
        {
            return;
        }
        self.servers[at].damaged = true;
        let for_ns = self.nemesis.draw.spread(MS, 200 * MS);
        self.crash(at, for_ns);
        match kind {
            Fault::LostWrite => self.lose_write(at, false),
            Fault::Misdirected => self.lose_write(at, true),
            _ => self.corrupt(at),
        }
    }

    /// Flips a bit in some sectors.
    fn corrupt(&mut self, at: usize) {
        let draw = &mut self.nemesis.draw;
        let server = &self.servers[at];
        let Ok(files) = server.log_disk.list() else {
            return;
        };
        let segments = files
            .into_iter()
            .filter(|(name, _)| name.ends_with(".segment"));
        let segments: Vec<(String, u64)> = segments.collect();
        for _ in 0..draw.within(1, 4) {
            let past = match server.pasts.done.is_empty() || draw.chance(400) {
                true => None,
                false => Some(draw.below(server.pasts.done.len() as u64) as usize),
            };
            let (name, byte) = match past.map(|past| &server.pasts.done[past]) {
                Some(past) => (
                    past.segment.file_name(),
                    past.offset as u64 + draw.below(past.before.len() as u64),
                ),
                None => {
                    let (name, bytes) = draw.pick(&segments);
                    (name.clone(), draw.below(*bytes))
                }
            };
            if segments.iter().any(|(known, _)| *known == name) {
                server.log_disk.flip(&name, byte * 8 + draw.below(8));
            }
        }
    }

    /// A write that was acknowledged is not there; `misdirected`: it is somewhere else.
    fn lose_write(&mut self, at: usize, misdirected: bool) {
        let draw = &mut self.nemesis.draw;
        let server = &self.servers[at];
        let named = server.pasts.named();
        if named == 0 {
            return;
        }
        let past = &server.pasts.done[draw.below(named as u64) as usize];
        let name = past.segment.file_name();
        if !matches!(server.log_disk.length(&name), Ok(Some(_))) {
            return;
        }
        let range = past.offset..past.offset + past.before.len();
        let sectors = (past.before.len() / SECTOR_BYTES) as u64;
        let all = misdirected || draw.chance(500);
        let lost: Vec<bool> = (0..sectors).map(|_| all || draw.chance(500)).collect();
        let elsewhere = draw.next() as usize;
        server.log_disk.edit(&name, |bytes| {
            let written = bytes[range.clone()].to_vec();
            for (sector, _) in lost.iter().enumerate().filter(|(_, lost)| **lost) {
                let held = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                let place = range.start + held.start..range.start + held.end;
                bytes[place].copy_from_slice(&past.before[held]);
            }
            if misdirected {
                let blocks = (bytes.len() - written.len()) / 4096 + 1;
                let to = elsewhere % blocks * 4096;
                bytes[to..to + written.len()].copy_from_slice(&written);
            }
        });
    }

    /// A server whose log is damaged repairs it before it takes part.
    pub(super) fn admit(
        &mut self,
        at: usize,
        mut log: Log,
        recovered: Recovered,
    ) -> Result<(), Broken> {
        if !self.servers[at].damaged {
            return Err(format!(
                "server {at} finds its log damaged, and nothing has damaged it: {:?}",
                recovered.report.corrupt
            ));
        }
        self.counts.repairs += 1;
        self.tell(|| format!("server {at} repairs its log"));
        let shards: VecDeque<ShardId> = recovered
            .shards
            .iter()
            .filter(|(_, shard)| !shard.gaps.is_empty() || shard.hard_state_in_doubt)
            .map(|(shard, _)| *shard)
            .collect();
        let patient = Patient::new(shards[0], raft_id(at), &configuration(&self.plan), &mut log);
        self.servers[at].ward = Some(Box::new(Ward {
            log,
            recovered,
            shards,
            patient,
        }));
        self.flush(at)?;
        self.round(at)
    }

    /// Asks the peers, and again after a while.
    pub(super) fn round(&mut self, at: usize) -> Result<(), Broken> {
        let server = &mut self.servers[at];
        let boot = server.boot;
        let Some(ward) = &mut server.ward else {
            return Ok(());
        };
        ward.patient.round_over(&server.image_disk)?;
        let said = match self.plan.tell {
            true => ward.patient.describe(&ward.log),
            false => String::new(),
        };
        self.tell(|| format!("server {at} is under repair: {said}"));
        self.queue
            .at(self.now_ns + ROUND_NS, Happening::Round(at, boot));
        self.inquire(at);
        Ok(())
    }

    fn inquire(&mut self, at: usize) {
        let Some(ward) = &self.servers[at].ward else {
            return;
        };
        let shard = ward.shards[0];
        match ward.patient.question(&ward.log) {
            Question::Entries(fetch) => {
                for to in (0..self.servers.len()).filter(|to| *to != at) {
                    let parcel = Parcel::EntriesFetch(fetch.clone());
                    self.send(at, raft_id(to), shard, parcel);
                }
            }
            Question::Image(from, fetch) => {
                let parcel = Parcel::Transfer(Transfer::ImageFetch(fetch));
                self.send(at, from, shard, parcel);
            }
        }
    }

    fn flush(&mut self, at: usize) -> Result<(), Broken> {
        let clock_ns = self.servers[at].clock_ns(self.now_ns);
        let server = &mut self.servers[at];
        let Some(ward) = &mut server.ward else {
            return Ok(());
        };
        let flushed = ward.log.flush_blocking(&server.log_disk, clock_ns);
        let Err(failure) = flushed else {
            return Ok(());
        };
        // As the process does, it stops and says why; somebody starts it again.
        if !server.is_full && !server.is_excused() {
            return Err(format!("server {at} cannot flush its repair: {failure}"));
        }
        self.tell(|| format!("server {at} stops its repair: {failure}"));
        self.servers[at].kill();
        let boot = self.servers[at].boot;
        self.queue
            .at(self.now_ns + ROUND_NS, Happening::Start(at, boot));
        Ok(())
    }

    /// Something arrives at a server that does not serve.
    pub(super) fn arrive_at_patient(
        &mut self,
        from: ServerId,
        at: usize,
        shard: ShardId,
        parcel: Parcel,
    ) -> Result<(), Broken> {
        let server = &mut self.servers[at];
        let Some(ward) = server.ward.as_mut().filter(|ward| ward.shards[0] == shard) else {
            return Ok(());
        };
        let letter = match parcel {
            Parcel::Transfer(Transfer::EntriesChunk(chunk)) => Letter::Entries(chunk),
            Parcel::Transfer(Transfer::ImageChunk(chunk, bytes)) => Letter::Image(chunk, bytes),
            // As a network would, it drops the rest.
            _ => return Ok(()),
        };
        let said = match self.plan.tell {
            true => format!("{letter:?}"),
            false => String::new(),
        };
        let images = &server.image_disk;
        let useful = ward.patient.take(&mut ward.log, images, from, letter)?;
        let whole = ward.patient.is_whole(&ward.log);
        self.tell(|| format!("server {at}, useful: {useful}, whole: {whole}: {said}"));
        self.flush(at)?;
        if self.servers[at].ward.is_none() {
            return Ok(());
        }
        if whole {
            return self.next_shard(at);
        }
        if useful {
            self.inquire(at);
        }
        Ok(())
    }

    fn next_shard(&mut self, at: usize) -> Result<(), Broken> {
        let Some(mut ward) = self.servers[at].ward.take() else {
            return Ok(());
        };
        if let Some(shard) = ward.shards.pop_front()
            && let Some(found) = ward.log.recovered(shard)
        {
            ward.recovered.shards.insert(shard, found);
        }
        let Some(next) = ward.shards.front() else {
            let Ward { log, recovered, .. } = *ward;
            return self.open(at, log, &recovered);
        };
        let configuration = configuration(&self.plan);
        ward.patient = Patient::new(*next, raft_id(at), &configuration, &mut ward.log);
        self.servers[at].ward = Some(ward);
        self.flush(at)?;
        self.inquire(at);
        Ok(())
    }
}

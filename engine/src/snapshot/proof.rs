//! Is an image there in whole or not at all, and is every flipped bit of one noticed?
//!
//! Images are written as a shard does it: pieces into a file with a temporary name while the state
//! moves on, then a flush, the final name, the checkpoint in the log, and only then the removal of
//! the image before. Some are installed: taken from a server that is ahead. At every write boundary
//! of this the power fails in every way; then the log is recovered, the image that it names is
//! loaded, the entries behind it are applied, and the state must be the one of some index between
//! what was acknowledged and what was appended. A file with a final name must be a whole image,
//! whenever it is looked at.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use wire::{ClusterId, Command, Index, KvCommand, KvVerb, ShardId, Term};

use super::{
    image::{ImageError, ImageLoader, ImageMeta, ImageWriter},
    names::ImageName,
};
use crate::{
    fsm::Fsm,
    io::{
        Disk,
        mem::{MemDisk, Survival},
    },
    log::proof::{Rig, Rng, Tally, Violation, checkpoint, ensure, hard_state, life::Fact, small},
};

const CLUSTER: ClusterId = wire::Uuid([0xc1; 16]);
const SHARD: ShardId = ShardId(0);
const TERM: u64 = 2;

fn command(key: &[u8], value: &[u8], verb: KvVerb) -> Bytes {
    let kv = KvCommand {
        verb,
        key,
        value,
        flags: value.len() as u64,
        index: 0,
        session: b"",
    };
    Command::Kv(kv).encode()
}

fn apply(fsm: &mut Fsm, index: u64, bytes: Bytes) -> Result<(), String> {
    let run = [(Index(index), Term(TERM), bytes)];
    fsm.apply_run(&run, &mut Vec::new())
        .map_err(|error| format!("entry {index}: {error:?}"))
}

fn load(bytes: &[u8]) -> Result<(Fsm, ImageMeta), ImageError> {
    let mut loader = ImageLoader::new();
    loader.push(bytes)?;
    loader.finish()
}

fn writer(fsm: &Fsm) -> ImageWriter {
    ImageWriter::new(fsm.view(), CLUSTER, SHARD, Bytes::from_static(b"voters: 1"))
}

/// An image, and where its parts begin.
#[derive(Clone, Debug)]
pub struct ImageTarget {
    bytes: Vec<u8>,
    parts: Vec<u64>,
}

impl ImageTarget {
    /// An image of at least so many bytes, in chunks of about 16 KiB.
    ///
    /// # Panics
    /// When the state machine refuses a write.
    pub fn new(bytes: u64) -> Self {
        let mut fsm = Fsm::new();
        let mut index = 0;
        while index * 4096 < bytes {
            index += 1;
            let value = vec![index as u8; 4096];
            let key = format!("key/{index:08}");
            apply(
                &mut fsm,
                index,
                command(key.as_bytes(), &value, KvVerb::Set),
            )
            .expect("a write");
        }
        let mut writer = writer(&fsm);
        let mut target = Self {
            bytes: Vec::new(),
            parts: Vec::new(),
        };
        while let Some(piece) = writer.next_chunk(16 * 1024) {
            target.parts.push(target.bytes.len() as u64);
            target.bytes.extend_from_slice(&piece);
        }
        target
    }

    /// Bits of the image.
    pub fn bits(&self) -> u64 {
        self.bytes.len() as u64 * 8
    }

    /// Flips each of these bits on its own.
    ///
    /// Counts: `flips`, of which `located` (the error names the part that the bit is in) and
    /// `length` (a length became longer than the image, which then ends too early).
    ///
    /// # Errors
    /// The first flip that went unnoticed, or was found elsewhere.
    pub fn flip_each(&self, bits: Range<u64>, each: &mut dyn FnMut()) -> Result<Tally, Violation> {
        let mut tally = Tally::default();
        let mut bytes = self.bytes.clone();
        for bit in bits {
            let at = (bit / 8) as usize;
            bytes[at] ^= 1 << (bit % 8);
            let judged = self.judge(&bytes, at as u64, &mut tally);
            judged.map_err(|what| Violation {
                at: format!("bit {bit} of the image"),
                what,
            })?;
            bytes[at] ^= 1 << (bit % 8);
            each();
        }
        Ok(tally)
    }

    fn judge(&self, bytes: &[u8], at: u64, tally: &mut Tally) -> Result<(), String> {
        tally.add("flips", 1);
        let part = *self.parts.iter().rfind(|part| **part <= at).expect("0");
        let error = match load(bytes) {
            Ok(_) => return Err("it went unnoticed".to_owned()),
            Err(error) => error,
        };
        let named = match &error {
            ImageError::Checksum { offset, .. } | ImageError::Malformed { offset, .. } => *offset,
            ImageError::NotAnImage | ImageError::Version { .. } => 0,
            ImageError::Truncated { .. } => {
                tally.add("length", 1);
                return Ok(());
            }
            _ => return Err(format!("it was taken for something else: {error}")),
        };
        ensure!(named == part, "it is in the part at {part}, and: {error}");
        tally.add("located", 1);
        Ok(())
    }
}

/// A server that writes images, and the truth.
struct Server {
    rng: Rng,
    rig: Rig,
    fsm: Fsm,
    /// State digests by index.
    digests: BTreeMap<u64, u64>,
    facts: Vec<Fact>,
    acknowledged: u64,
    image: Option<ImageName>,
}

/// All crashes of a server that writes and installs images.
///
/// Counts: `boundaries`, `images` (disks recovered and compared, those of a crash within recovery
/// included), `loaded` (image files that were loaded), `installed`.
///
/// # Errors
/// The first broken promise.
pub fn every_crash_of(seed: u64) -> Result<Tally, Violation> {
    let violation = |what| Violation {
        at: format!("image seed {seed}"),
        what,
    };
    let mut tally = Tally::default();
    let mut server = Server {
        rng: Rng(seed),
        rig: Rig::new(small()),
        fsm: Fsm::new(),
        digests: BTreeMap::from([(0, Fsm::new().digest())]),
        facts: Vec::new(),
        acknowledged: 0,
        image: None,
    };
    server.rig.disk.record();
    for _ in 0..4 {
        server.live(&mut tally).map_err(violation)?;
    }
    server.crash_everywhere(&mut tally).map_err(violation)?;
    Ok(tally)
}

impl Server {
    fn live(&mut self, tally: &mut Tally) -> Result<(), String> {
        for _ in 0..1 + self.rng.below(6) {
            self.write()?;
        }
        if self.rng.below(3) == 0 {
            tally.add("installed", 1);
            return self.install();
        }
        let mut writer = writer(&self.fsm);
        let budget = 200 + self.rng.below(3000) as usize;
        let (temporary, mut at) = (name_of(writer.meta()).temporary_name(), 0);
        while let Some(piece) = writer.next_chunk(budget) {
            self.put(&temporary, at, &piece);
            at += piece.len() as u64;
            if self.rng.below(2) == 0 {
                self.write()?;
            }
        }
        let meta = writer.meta().clone();
        self.publish(&meta);
        Ok(())
    }

    /// An acknowledged write.
    fn write(&mut self) -> Result<(), String> {
        let index = self.fsm.applied().0.0 + 1;
        let bytes = self.random_command();
        self.rig.append(SHARD, index, TERM, &bytes);
        apply(&mut self.fsm, index, bytes)?;
        self.digests.insert(index, self.fsm.digest());
        self.rig.run();
        self.acknowledge(index);
        Ok(())
    }

    fn random_command(&mut self) -> Bytes {
        let key = format!("k/{}", self.rng.below(20));
        let value = vec![self.rng.next() as u8; self.rng.below(700) as usize];
        match self.rng.below(8) {
            0 => command(key.as_bytes(), b"", KvVerb::Delete),
            1 => command(b"k/1", b"", KvVerb::DeleteTree),
            _ => command(key.as_bytes(), &value, KvVerb::Set),
        }
    }

    /// What the last operations made is judged by what was acknowledged before them, but for the
    /// last of them.
    fn acknowledge(&mut self, index: u64) {
        let opened = *self.digests.keys().next_back().expect("0 is there");
        let acknowledged = self.acknowledged;
        let moments = self.rig.disk.moments();
        let before = Fact {
            acknowledged,
            opened,
        };
        self.facts.resize(moments.saturating_sub(1), before);
        self.facts.push(Fact {
            acknowledged: index,
            opened,
        });
        self.acknowledged = index;
    }

    fn put(&mut self, name: &str, at: u64, piece: &[u8]) {
        self.rig
            .disk
            .write_at(name, at, piece)
            .expect("no fault is set");
    }

    /// The image gets its name, then the log begins behind it, then the one before it goes.
    fn publish(&mut self, meta: &ImageMeta) {
        let name = name_of(meta);
        let disk = &self.rig.disk;
        let published = disk
            .sync(&name.temporary_name())
            .and_then(|()| disk.rename(&name.temporary_name(), &name.file_name()));
        published.expect("no fault is set");
        let state = hard_state(TERM, 1, meta.index.0);
        self.rig
            .log
            .put_checkpoint(SHARD, checkpoint(state, meta.index.0, meta.term.0));
        self.rig.run();
        if let Some(old) = self.image.replace(name).filter(|old| *old != name) {
            self.rig
                .disk
                .remove(&old.file_name())
                .expect("no fault is set");
        }
        self.acknowledge(self.fsm.applied().0.0);
    }

    /// An image of a server that is ahead.
    fn install(&mut self) -> Result<(), String> {
        let mut own = writer(&self.fsm);
        let pieces: Vec<Bytes> = std::iter::from_fn(|| own.next_chunk(usize::MAX)).collect();
        let (mut leader, _) = load(&pieces.concat()).map_err(|error| error.to_string())?;
        for _ in 0..1 + self.rng.below(5) {
            let (index, bytes) = (leader.applied().0.0 + 1, self.random_command());
            apply(&mut leader, index, bytes)?;
        }
        let mut writer = writer(&leader);
        let temporary = name_of(writer.meta()).temporary_name();
        let mut at = 0;
        while let Some(piece) = writer.next_chunk(500) {
            self.put(&temporary, at, &piece);
            at += piece.len() as u64;
        }
        // It has not been here in between: only the image's own index is one of its states.
        self.digests.insert(leader.applied().0.0, leader.digest());
        self.fsm = leader;
        let meta = writer.meta().clone();
        self.publish(&meta);
        Ok(())
    }

    fn crash_everywhere(mut self, tally: &mut Tally) -> Result<(), String> {
        let moments = self.rig.disk.take_moments();
        tally.add("boundaries", moments.len() as u64);
        let facts = std::mem::take(&mut self.facts);
        for (no, (moment, fact)) in moments.iter().zip(facts).enumerate() {
            for survival in Survival::ALL {
                let crashed = self.crash_at(moment, survival, fact, tally);
                crashed.map_err(|what| format!("boundary {no}, {survival:?}: {what}"))?;
                if moment.pending() == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    fn crash_at(
        &mut self,
        moment: &MemDisk,
        survival: Survival,
        fact: Fact,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let image = moment.clone();
        let rng = &mut self.rng;
        image.crash_as(survival, &mut || rng.next());
        image.record();
        let disk = self.judge(image, fact, tally)?;
        let moments = disk.take_moments();
        let again = moments[self.rng.below(moments.len() as u64) as usize].clone();
        let rng = &mut self.rng;
        again.crash(&mut || rng.next());
        self.judge(again, fact, tally)
            .map_err(|what| format!("and again within recovery: {what}"))?;
        Ok(())
    }

    /// Starts from what is there.
    fn judge(&self, disk: MemDisk, fact: Fact, tally: &mut Tally) -> Result<MemDisk, String> {
        tally.add("images", 1);
        let files = disk.list().map_err(|error| error.to_string())?;
        let mut images = BTreeMap::new();
        for (file, _) in files {
            let Some(name) = ImageName::parse(&file) else {
                continue;
            };
            let (fsm, meta) = load(&disk.contents(&file))
                .map_err(|error| format!("{file} has its final name, and: {error}"))?;
            ensure!(name_of(&meta) == name, "{file} is another image: {meta:?}");
            tally.add("loaded", 1);
            images.insert(name.index.0, fsm);
        }
        let (rig, recovered) = Rig::reopen(disk, small(), true)
            .map_err(|error| format!("the log does not open: {error}"))?;
        let mut fsm = Fsm::new();
        let mut last = 0;
        if let Some(shard) = recovered.shards.get(&SHARD) {
            let at = shard.checkpoint.snapshot_index.0;
            if at > 0 {
                fsm = images.remove(&at).ok_or_else(|| {
                    format!("the log begins behind an image at {at} that is gone")
                })?;
            }
            last = shard.last_index.0;
            let entries = rig
                .read(SHARD, at + 1, last)
                .map_err(|error| error.to_string())?;
            for (index, _, data) in entries {
                apply(&mut fsm, index, data)?;
            }
        }
        ensure!(
            (fact.acknowledged..=fact.opened).contains(&last),
            "the state is of index {last}, and {} was acknowledged of {}",
            fact.acknowledged,
            fact.opened
        );
        ensure!(
            self.digests.get(&last) == Some(&fsm.digest()),
            "the state at index {last} is another one"
        );
        Ok(rig.disk)
    }
}

fn name_of(meta: &ImageMeta) -> ImageName {
    ImageName {
        shard: meta.shard,
        index: meta.index,
        term: meta.term,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_whole_or_absent_at_every_crash() {
        let mut tally = Tally::default();
        for seed in 0..40 {
            tally += every_crash_of(seed).unwrap_or_else(|broken| panic!("{broken}"));
        }
        assert!(tally.get("images") > 5_000, "{tally:?}");
        assert!(tally.get("loaded") > 2_000, "{tally:?}");
        assert!(tally.get("installed") > 20, "{tally:?}");
    }

    #[test]
    fn every_flipped_bit_of_an_image_is_placed() {
        let target = ImageTarget::new(12 * 1024);
        let tally = target
            .flip_each(0..target.bits(), &mut || {})
            .unwrap_or_else(|broken| panic!("{broken}"));
        assert!(tally.get("flips") > 12 * 1024 * 8, "{tally:?}");
        assert!(
            tally.get("located") > tally.get("flips") * 99 / 100,
            "{tally:?}"
        );
    }
}

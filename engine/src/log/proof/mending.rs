//! What may a damaged log offer, and does it stay mended?
//!
//! A log that lost something opens with peers: what it offers is right, or it says that it is in
//! doubt. Then its leader gives it what it misses. Also in the middle of that the power may fail,
//! at every write boundary: what was given and acknowledged is not missing again, and a doubt that
//! was settled is not raised again.

use wire::{Index, ShardId, Term};

use super::{
    Rig, Rng, Tally, Violation, checkpoint, ensure,
    life::{Commit, Life, Models, ShardModel, equals, is_same},
};
use crate::{
    io::{
        Disk, SegmentNo,
        mem::{MemDisk, Survival},
        sector::SECTOR_BYTES,
    },
    log::{Entry, Gap, LogConfig, Recovered},
};

/// Whether what recovery offers is right, or in doubt.
///
/// # Errors
/// What it believes and should not.
pub fn offers_the_truth(models: &Models, rig: &Rig, recovered: &Recovered) -> Result<(), String> {
    for (shard, truth) in models {
        let Some(found) = recovered.shards.get(shard) else {
            let nothing = truth.entries.is_empty() && truth.snapshot.0 == 0;
            ensure!(
                nothing || recovered.report.unlisted_in_doubt,
                "shard {shard} is gone"
            );
            continue;
        };
        let open_end = found.gaps.last().is_some_and(|gap| gap.last.is_none());
        ensure!(
            is_same(
                found.checkpoint.hard_state,
                truth.hard_state,
                Commit::MayLag
            ) || found.hard_state_in_doubt,
            "shard {shard}: a stale hard state is believed"
        );
        ensure!(
            open_end || found.hard_state_in_doubt || found.last_index.0 == truth.last(),
            "shard {shard}: entry {} is believed to be the last, not {}",
            found.last_index,
            truth.last()
        );
        let certain = truth
            .hard_state
            .commit
            .0
            .min(found.checkpoint.hard_state.commit.0);
        let first = found.first_index.0.max(truth.snapshot.0 + 1);
        for index in first..=found.last_index.0 {
            if found.gaps.iter().any(|gap| is_in(gap, index)) {
                continue;
            }
            let read = rig
                .read(*shard, index, index)
                .map_err(|error| error.to_string())?;
            let offered = (read[0].1, read[0].2.clone());
            let right = truth.entry(index) == Some(&offered);
            ensure!(
                right || (open_end && index > certain),
                "shard {shard} entry {index}: a stale entry is believed"
            );
        }
    }
    Ok(())
}

fn is_in(gap: &Gap, index: u64) -> bool {
    gap.first.0 <= index && gap.last.is_some_and(|last| index <= last.0)
}

/// Gives a log what it misses, as a leader that has all of it does; `step` is called after each
/// shard's part.
pub fn mend(rig: &mut Rig, models: &Models, step: &mut dyn FnMut(&mut Rig)) {
    for (shard, truth) in models {
        mend_shard(rig, *shard, truth, step);
        step(rig);
    }
    // Work goes on: until something is written the log has had no occasion to list all its shards
    // again, and could not tell whether one was lost as a whole.
    if let Some(shard) = models.keys().next() {
        let state = rig.log.hard_state(*shard);
        rig.log.put_hard_state(*shard, state, true);
        step(rig);
    }
}

fn mend_shard(rig: &mut Rig, shard: ShardId, truth: &ShardModel, step: &mut dyn FnMut(&mut Rig)) {
    let known = rig.log.recovered(shard);
    let snapshot = known.map(|known| known.checkpoint.snapshot_index.0);
    // A shard of which nothing is known, or whose image is newer than all that is known.
    if snapshot.is_none_or(|at| at < truth.snapshot.0) && *truth != ShardModel::default() {
        // The lost batches may have held all of it, its vote too.
        if snapshot.is_none() {
            rig.log.doubt_hard_state(shard);
        }
        let (index, term) = truth.snapshot;
        rig.log
            .put_checkpoint(shard, checkpoint(truth.hard_state, index, term));
    }
    for gap in rig.log.gaps(shard) {
        let Some(last) = gap.last else { continue };
        let missing: Vec<Entry> = (gap.first.0..=last.0)
            .filter_map(|index| entry_of(truth, index))
            .collect();
        rig.log.fill_gap(shard, &missing);
        step(rig);
    }
    // What is left of a history that was replaced goes; what came after it is appended.
    let first = rig.log.first_index(shard).0;
    let agrees =
        |rig: &Rig, index: u64| rig.log.term(shard, Index(index)) == Some(Term(truth.term(index)));
    let differs = (first..=rig.log.last_index(shard).0).find(|index| !agrees(rig, *index));
    if let Some(index) = differs {
        rig.log.cut(shard, Index(index));
    }
    for index in rig.log.last_index(shard).0 + 1..=truth.last() {
        let (term, data) = truth.entry(index).expect("it is behind the snapshot");
        rig.append(shard, index, *term, data);
        step(rig);
    }
    // Last: until then the log may be shorter than what this server once acknowledged.
    if rig.log.hard_state_in_doubt(shard) {
        rig.log.put_hard_state(shard, truth.hard_state, true);
        rig.log.settle_hard_state(shard);
        step(rig);
    }
}

fn entry_of(truth: &ShardModel, index: u64) -> Option<Entry> {
    let (term, data) = truth.entry(index)?;
    Some(Entry {
        index: Index(index),
        term: Term(*term),
        kind: 0,
        data: data.clone(),
    })
}

/// What must hold of a log that is being mended.
#[derive(Clone, Debug, Default)]
struct Given {
    /// Entries that were given and are durable, or were never missing.
    whole: Vec<(ShardId, u64)>,
    /// Shards of which a doubt was settled. One that never was in doubt may yet come into it: a torn
    /// write behind the damage takes away the proof that nothing of the shard was lost.
    settled: Vec<ShardId>,
}

impl Given {
    fn of(rig: &Rig, models: &Models, doubted: &[ShardId]) -> Self {
        let mut given = Self::default();
        for (shard, truth) in models {
            let Some(known) = rig.log.recovered(*shard) else {
                continue;
            };
            if !known.hard_state_in_doubt && doubted.contains(shard) {
                given.settled.push(*shard);
            }
            let first = known.first_index.0.max(truth.snapshot.0 + 1);
            // What is left of a replaced history goes sooner or later.
            let right =
                |index: &u64| rig.log.term(*shard, Index(*index)) == Some(Term(truth.term(*index)));
            let whole = (first..=known.last_index.0.min(truth.last()))
                .filter(|index| !known.gaps.iter().any(|gap| is_in(gap, *index)))
                .filter(right);
            given.whole.extend(whole.map(|index| (*shard, index)));
        }
        given
    }

    fn holds(&self, recovered: &Recovered) -> Result<(), String> {
        for shard in &self.settled {
            let doubt = recovered.shards.get(shard).map(|s| s.hard_state_in_doubt);
            ensure!(doubt == Some(false), "shard {shard} is in doubt again");
        }
        for (shard, index) in &self.whole {
            let found = recovered.shards.get(shard).filter(|found| {
                found.last_index.0 >= *index && !found.gaps.iter().any(|gap| is_in(gap, *index))
            });
            ensure!(
                found.is_some(),
                "shard {shard} entry {index} is missing again"
            );
        }
        Ok(())
    }
}

/// A life at rest is damaged in one place, recovered with peers and mended; the power fails at
/// every boundary of that, and the rest is mended then.
///
/// Counts: `images`, `mended lives`, and `harmless` damage.
///
/// # Errors
/// The first broken promise.
pub fn every_crash_while_mending(seed: u64) -> Result<Tally, Violation> {
    let violation = |what| Violation {
        at: format!("mending seed {seed}"),
        what,
    };
    let mut life = Life::new(seed);
    for _ in 0..60 {
        life.act();
        if life.rng.below(3) > 0 {
            life.rig.run();
        }
    }
    life.rig.now += 1_000_000_000;
    life.rig.run();
    // A commit index that no batch took along is not in the log.
    life.recorder.cut(life.rig.log.open_lsn().0);
    let mut rng = Rng(!seed);
    damage(&life.rig, &mut rng);
    let mut tally = Tally::default();
    let models = life.recorder.now;
    mend_and_crash(&life.rig.disk, &life.config, &models, &mut rng, &mut tally)
        .map_err(violation)?;
    Ok(tally)
}

/// One sector of the live log no longer verifies.
fn damage(rig: &Rig, rng: &mut Rng) {
    let (oldest, tail) = (rig.log.oldest, rig.log.tail);
    let segment = SegmentNo(oldest.0 + rng.below(tail.segment.0 - oldest.0 + 1));
    let length = rig
        .disk
        .length(&segment.file_name())
        .expect("no fault is set");
    let end = match segment == tail.segment {
        true => tail.offset.max(1),
        false => length.expect("a live segment exists"),
    };
    let sector = rng.below(end.div_ceil(SECTOR_BYTES as u64));
    let bit = sector * SECTOR_BYTES as u64 * 8 + rng.below(SECTOR_BYTES as u64 * 8);
    rig.disk.flip(&segment.file_name(), bit);
}

fn mend_and_crash(
    disk: &MemDisk,
    config: &LogConfig,
    models: &Models,
    rng: &mut Rng,
    tally: &mut Tally,
) -> Result<(), String> {
    let open = |disk: MemDisk| {
        Rig::reopen(disk, config.clone(), false)
            .map_err(|error| format!("it does not open with peers: {error}"))
    };
    let (mut rig, recovered) = open(disk.clone())?;
    offers_the_truth(models, &rig, &recovered)?;
    if recovered.report.corrupt.is_empty() {
        tally.add("harmless", 1);
        return Ok(());
    }
    tally.add("mended lives", 1);
    let in_doubt = recovered.shards.iter().filter(|s| s.1.hard_state_in_doubt);
    let doubted: Vec<ShardId> = in_doubt.map(|(shard, _)| *shard).collect();
    rig.disk.record();
    let mut facts: Vec<Given> = vec![Given::of(&rig, models, &doubted)];
    mend(&mut rig, models, &mut |rig| {
        // Until the step is durable only what was whole before must be.
        rig.run();
        let before = facts.last().cloned().unwrap_or_default();
        facts.resize(rig.disk.moments() - 1, before);
        facts.push(Given::of(rig, models, &doubted));
    });
    for (no, (moment, given)) in rig.disk.take_moments().iter().zip(&facts).enumerate() {
        for survival in Survival::ALL {
            let image = moment.clone();
            image.crash_as(survival, &mut || rng.next());
            tally.add("images", 1);
            let judged = open(image).and_then(|(mut rig, recovered)| {
                offers_the_truth(models, &rig, &recovered)?;
                given.holds(&recovered)?;
                mend(&mut rig, models, &mut |rig| rig.run());
                let (rig, recovered) = Rig::reopen(rig.disk, config.clone(), true)
                    .map_err(|error| format!("mended, and refused: {error}"))?;
                equals(models, &rig, &recovered, Commit::MayLag)
            });
            judged.map_err(|what| format!("boundary {no}, {survival:?}: {what}"))?;
        }
    }
    Ok(())
}

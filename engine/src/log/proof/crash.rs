//! Does every disk that a power cut can leave recover to what was acknowledged?
//!
//! At every write boundary of a life (each write begun, each flush, each file made, renamed or
//! removed) the disk is taken as it is then, and the power fails in every way of [`Survival`]; or
//! only the process dies, and all that was written reads back although nobody flushed it. A lone
//! server must open each, without a doubt, and find the recorded log up to some batch that is
//! neither below the last acknowledged one nor beyond the last one issued: nothing lost, nothing
//! phantom, nothing reordered. Then the power fails again at a boundary of that recovery; and some
//! of the recovered logs live on, in the torn places, through further crashes.

use std::collections::BTreeMap;

use super::{
    Rig, Rng, Tally, Violation, ensure,
    life::{Commit, Fact, Life, Models, Recorder, equals},
};
use crate::{
    io::mem::{MemDisk, Survival},
    log::{LogConfig, Verdict},
};

/// Of so many recovered logs one lives on.
const LIVES_ON: u64 = 32;
/// Steps of a life before it is recorded, at most: over several segments.
const STEPS_BEFORE: u64 = 120;
/// Steps that are recorded.
const STEPS: u64 = 40;
/// Steps of a life that goes on after a crash.
const STEPS_AFTER: u64 = 6;
/// So often may a life go on.
const DEPTH: u32 = 3;

/// How a server ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The process dies; the kernel and the device still have everything.
    Killed,
    /// The power fails.
    Power(Survival),
}

/// All crashes of the life of a seed; stops early once `images_max` disks were recovered.
///
/// Counts: `images` (disks recovered and compared), of which `within recovery` and `after a
/// recovery`; `boundaries`; `torn`, `ended` (verdicts at the end of the log); `segments recycled`.
///
/// # Errors
/// The first broken promise.
pub fn every_crash_of(seed: u64, images_max: u64) -> Result<Tally, Violation> {
    let mut life = Life::new(seed);
    let before = life.rng.below(STEPS_BEFORE);
    live(&mut life, before);
    life.record();
    live(&mut life, STEPS);
    every_crash(seed, life, images_max)
}

/// All crashes of a life that was recorded.
pub(in crate::log) fn every_crash(
    seed: u64,
    mut life: Life,
    images_max: u64,
) -> Result<Tally, Violation> {
    let mut explorer = Explorer {
        rng: Rng(!seed),
        images_max,
        tally: Tally::default(),
    };
    let explored = explorer.explore(&mut life, DEPTH);
    explored.map_err(|what| Violation {
        at: format!("seed {seed}"),
        what,
    })?;
    Ok(explorer.tally)
}

fn live(life: &mut Life, steps: u64) {
    for _ in 0..steps {
        life.act();
        if life.rng.below(3) > 0 {
            life.drive();
        }
    }
}

struct Explorer {
    rng: Rng,
    images_max: u64,
    tally: Tally,
}

/// What a life was, to judge its disks by.
struct Past {
    config: LogConfig,
    recorder: Recorder,
    as_of: BTreeMap<u64, Models>,
}

/// A disk that was recovered.
struct Opened {
    rig: Rig,
    last: u64,
    /// The disk at each boundary of the recovery.
    moments: Vec<MemDisk>,
}

impl Explorer {
    /// Crashes the recorded life at each of its moments, in every way.
    fn explore(&mut self, life: &mut Life, depth: u32) -> Result<(), String> {
        let moments = life.rig.disk.take_moments();
        let facts = std::mem::take(&mut life.facts);
        let stats = life.rig.log.stats();
        self.tally.add("segments recycled", stats.segments_recycled);
        self.tally.add("boundaries", moments.len() as u64);
        let mut past = Past {
            config: life.config.clone(),
            recorder: std::mem::take(&mut life.recorder),
            as_of: BTreeMap::new(),
        };
        for (no, (disk, fact)) in moments.into_iter().zip(facts).enumerate() {
            for end in ends(disk.pending()) {
                let explored = self.end(&disk, fact, end, &mut past, depth);
                explored.map_err(|what| format!("boundary {no}, {end:?}: {what}"))?;
                if self.tally.get("images") >= self.images_max {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One end at one moment, a second one while recovering from it, and the life after it.
    fn end(
        &mut self,
        disk: &MemDisk,
        fact: Fact,
        end: End,
        past: &mut Past,
        depth: u32,
    ) -> Result<(), String> {
        let image = self.image(disk, end);
        let opened = self.open(image, fact, past)?;
        if depth < DEPTH {
            self.tally.add("after a recovery", 1);
        }
        let at = self.rng.below(opened.moments.len() as u64) as usize;
        // Once recovery is through, all that it believed must stay.
        let settled = Fact {
            acknowledged: opened.last,
            opened: opened.last,
        };
        let fact = match at + 1 == opened.moments.len() {
            true => settled,
            false => fact,
        };
        let again = End::Power(Survival::ALL[self.rng.below(5) as usize]);
        let image = self.image(&opened.moments[at], again);
        self.open(image, fact, past)
            .map_err(|what| format!("then {again:?} at boundary {at} of its recovery: {what}"))?;
        self.tally.add("within recovery", 1);
        if depth > 0 && self.rng.below(LIVES_ON) == 0 {
            let mut recorder = past.recorder.clone();
            recorder.cut(opened.last);
            let mut life = Life::resume(Rng(self.rng.next()), opened.rig, recorder);
            life.record();
            live(&mut life, STEPS_AFTER);
            self.explore(&mut life, depth - 1)
                .map_err(|what| format!("then it lived on: {what}"))?;
        }
        Ok(())
    }

    fn image(&mut self, disk: &MemDisk, end: End) -> MemDisk {
        let image = disk.clone();
        if let End::Power(survival) = end {
            let rng = &mut self.rng;
            image.crash_as(survival, &mut || rng.next());
        }
        image
    }

    /// Recovers, as a server without peers, and compares.
    fn open(&mut self, image: MemDisk, fact: Fact, past: &mut Past) -> Result<Opened, String> {
        self.tally.add("images", 1);
        image.record();
        let (rig, recovered) = Rig::reopen(image, past.config.clone(), true)
            .map_err(|error| format!("it does not open: {error}"))?;
        let last = recovered.report.last_lsn.0;
        let Fact {
            acknowledged,
            opened,
        } = fact;
        ensure!(
            last >= acknowledged,
            "batch {acknowledged} was acknowledged, and only {last} are there"
        );
        ensure!(last <= opened, "batch {last} of {opened} is a phantom");
        let corrupt = &recovered.report.corrupt;
        ensure!(corrupt.is_empty(), "taken for damage: {corrupt:?}");
        match recovered.report.end.as_ref().map(|end| end.verdict) {
            Some(Verdict::Torn) => self.tally.add("torn", 1),
            Some(Verdict::End) => self.tally.add("ended", 1),
            other => return Err(format!("the end is {other:?}")),
        }
        let recorder = &past.recorder;
        let models = past
            .as_of
            .entry(last)
            .or_insert_with(|| recorder.as_of(last));
        equals(models, &rig, &recovered, Commit::Exact)
            .map_err(|what| format!("as of batch {last}: {what}"))?;
        let moments = rig.disk.take_moments();
        Ok(Opened { rig, last, moments })
    }
}

/// The ways to end with so much that is not durable.
fn ends(pending: usize) -> Vec<End> {
    let power = |survivals: &[Survival]| survivals.iter().map(|s| End::Power(*s)).collect();
    if pending == 0 {
        return power(&[Survival::Everything]);
    }
    let mut ends: Vec<End> = power(&Survival::ALL);
    // Those with chance in them, once more.
    ends.extend(power(&[Survival::TornOne, Survival::Torn]));
    if pending > 1 {
        ends.push(End::Power(Survival::SomeWrites));
    }
    ends.push(End::Killed);
    ends
}

//! Crash images: what the power can leave at each write boundary, recovered and compared.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{
    io::mem::Fault,
    log::proof::{
        Tally,
        crash::{every_crash, every_crash_of},
        life::{Commit, Life, equals},
        mending::every_crash_while_mending,
    },
};

/// Runs seeds on two threads until `enough`, or only the one that is to be replayed.
fn seeds(
    enough: impl Fn(&Tally) -> bool + Sync,
    one: impl Fn(u64) -> Tally + Sync,
    replayed: &mut bool,
) -> Tally {
    if let Some(seed) = from_environment("LOG_SEED") {
        *replayed = true;
        return one(seed);
    }
    let next = AtomicU64::new(0);
    let total = std::sync::Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !enough(&total.lock().unwrap()) {
                    let tally = one(next.fetch_add(1, Ordering::Relaxed));
                    *total.lock().unwrap() += tally;
                }
            });
        }
    });
    total.into_inner().unwrap()
}

#[test]
fn a_hundred_thousand_crash_images_recover_to_what_was_acknowledged() {
    let images = from_environment("LOG_IMAGES").unwrap_or(100_000);
    let mut replayed = false;
    let tally = seeds(
        |tally| tally.get("images") >= images,
        |seed| every_crash_of(seed, u64::MAX).unwrap_or_else(|broken| panic!("{broken}")),
        &mut replayed,
    );
    if replayed {
        return;
    }
    let at_least = |name, least| {
        assert!(tally.get(name) >= least, "{name} of {tally:?}");
    };
    at_least("images", images);
    at_least("within recovery", images / 4);
    at_least("after a recovery", images / 20);
    at_least("torn", images / 20);
    at_least("ended", images / 20);
    at_least("segments recycled", 20);
}

#[test]
fn a_log_that_is_being_mended_survives_a_crash_at_every_boundary() {
    let mut replayed = false;
    let tally = seeds(
        |tally| tally.get("images") >= 5_000,
        |seed| every_crash_while_mending(seed).unwrap_or_else(|broken| panic!("{broken}")),
        &mut replayed,
    );
    assert!(replayed || tally.get("mended lives") > 20, "{tally:?}");
}

#[test]
fn the_judge_finds_an_acknowledgement_before_the_flush() {
    let found = (0..20).any(|seed| {
        let mut life = Life::new(seed);
        life.acknowledge_early = true;
        life.record();
        for _ in 0..20 {
            life.act();
            life.drive();
        }
        let judged = every_crash(seed, life, 2_000);
        judged.is_err_and(|broken| broken.what.contains("was acknowledged, and only"))
    });
    assert!(found);
}

/// Lives through so many crashes in a row, some of them with a failing recovery before the one
/// that succeeds; returns how many batches were issued.
fn long_life(seed: u64, crashes: u64) -> u64 {
    let mut life = Life::new(seed);
    let mut issued = 0;
    for _ in 0..crashes {
        for _ in 0..life.rng.below(80) {
            life.act();
            if life.rng.below(3) > 0 {
                life.drive();
            }
        }
        issued += life.issued;
        life = crash(life);
    }
    issued
}

fn crash(life: Life) -> Life {
    let (acknowledged, opened) = (life.rig.log.durable_lsn().0, life.rig.log.open_lsn().0);
    let (disk, config, mut rng) = (life.rig.disk, life.config, life.rng);
    // Only the process dies: then everything that was begun reads back, and from then on it
    // must stay, although nobody had flushed it.
    if rng.below(3) > 0 {
        disk.crash(&mut || rng.next());
    }
    while rng.below(4) == 0 {
        disk.fail_at(1 + rng.below(40), Fault::Errno(libc::EIO));
        let _ = Log::recover(&disk, config.clone(), IDENTITY, false);
        disk.crash(&mut || rng.next());
    }
    let (rig, recovered) = Rig::reopen(disk, config, true).unwrap();
    let last = recovered.report.last_lsn.0;
    assert!(
        (acknowledged..=opened).contains(&last),
        "{last} of {acknowledged}..={opened}"
    );
    assert_eq!(recovered.report.corrupt, []);
    let mut recorder = life.recorder;
    recorder.cut(last);
    equals(&recorder.now, &rig, &recovered, Commit::Exact).unwrap();
    Life::resume(rng, rig, recorder)
}

#[test]
fn long_lives_lose_nothing_and_invent_nothing() {
    let seeds = from_environment("LOG_SEEDS").unwrap_or(300);
    let first = from_environment("LOG_SEED");
    let mut issued = 0;
    for seed in first.map_or(0..seeds, |seed| seed..seed + 1) {
        let lived = std::panic::catch_unwind(|| long_life(seed, 12));
        issued += lived.unwrap_or_else(|panic| {
            eprintln!("replay with: LOG_SEED={seed} cargo test -p engine --lib log::tests::crash");
            std::panic::resume_unwind(panic);
        });
    }
    assert!(
        first.is_some() || issued > 20 * seeds,
        "the lives were too quiet: {issued} batches"
    );
}

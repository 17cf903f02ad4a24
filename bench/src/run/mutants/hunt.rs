//! How is one mutant hunted down?

use std::{
    cell::RefCell,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use engine::mutant::{self, Mutant};

use super::Options;
use crate::{
    Error, Result,
    run::simulate,
    sim::{Wish, draw::Draw},
};

/// A seed that takes longer than this never ends, s.
const PATIENCE: Duration = Duration::from_secs(120);

/// A seed that shows a mutant.
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// Which promise was seen to be broken.
    pub why: String,
}

/// What became of a hunt.
pub struct Hunt {
    /// Who was hunted.
    pub mutant: Mutant,
    /// Where it was found.
    pub found: Option<Found>,
    /// Seeds that were run with it.
    pub seeds: u64,
    /// Seeds that failed, but failed without it as well.
    pub unsound: u64,
    /// How long it took, wall clock.
    pub took: Duration,
}

/// What the seeds come to without a mutant.
#[derive(Default)]
pub struct Control {
    /// How many were run.
    pub seeds: u64,
    /// Operations in them.
    pub operations: u64,
    /// Those that failed.
    pub failures: Vec<(u64, String)>,
    /// How long it took, wall clock.
    pub took: Duration,
}

/// What a hunt's thread tells of a seed.
enum Word {
    Passed,
    Unsound,
    Found(Found),
}

/// The mutants that the options name.
pub fn chosen(options: &Options) -> Result<Vec<Mutant>> {
    let known = |name: &String| {
        let mut all = Mutant::ALL.iter().copied();
        all.find(|mutant| mutant.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                let names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
                Error::Usage(format!(
                    "there is no mutant {name:?}; there are {}",
                    names.join(", ")
                ))
            })
    };
    let mut mutants = match options.only.is_empty() {
        true => Mutant::ALL.to_vec(),
        false => options.only.iter().map(known).collect::<Result<_>>()?,
    };
    if let Some(sample) = options.sample {
        let mut draw = Draw::new(options.seed, 0);
        while mutants.len() > sample {
            mutants.swap_remove(draw.below(mutants.len() as u64) as usize);
        }
    }
    Ok(mutants)
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics of the code under test are findings: where they come from is kept, nothing is printed.
pub fn remember_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|place| {
            let file = place.file().rsplit('/').next().unwrap_or_default();
            format!("{file}:{}", place.line())
        });
        PLACE.set(place.unwrap_or_default());
    }));
}

fn wish(options: &Options, seed: u64) -> Wish {
    Wish {
        tell: options.tell,
        ..Wish::of(seed, options.operations)
    }
}

/// Runs a seed with a mutant, or without.
fn attempt(
    options: &Options,
    mutant: Option<Mutant>,
    seed: u64,
) -> std::result::Result<u64, String> {
    mutant::choose(mutant);
    let result = simulate::attempt(&wish(options, seed));
    mutant::choose(None);
    let place = PLACE.take();
    match result {
        Ok(outcome) => Ok(outcome.operations),
        Err(why) if place.is_empty() => Err(why),
        Err(why) => Err(format!("{why} [{place}]")),
    }
}

/// Runs the first seeds without a mutant.
pub fn control(options: &Options) -> Control {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let control = Mutex::new(Control::default());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if at >= options.control {
                        break;
                    }
                    let seed = options.first + at;
                    let result = attempt(options, None, seed);
                    let mut control = control.lock().expect("no seed holds it while it runs");
                    control.seeds += 1;
                    match result {
                        Ok(operations) => control.operations += operations,
                        Err(why) => control.failures.push((seed, why)),
                    }
                }
            });
        }
    });
    let mut control = control.into_inner().expect("all jobs ended");
    control.took = began.elapsed();
    control.failures.sort();
    control
}

/// Hunts all of them, so many at a time.
pub fn all(options: &Options, mutants: &[Mutant]) -> Vec<Hunt> {
    let next = AtomicUsize::new(0);
    let hunts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let hunt = hunt(options, *mutant);
                    println!("{}", super::tell::line(&hunt));
                    hunts.lock().expect("nobody panics with it").push(hunt);
                }
            });
        }
    });
    let mut hunts = hunts.into_inner().expect("all jobs ended");
    hunts.sort_by_key(|hunt| hunt.mutant);
    hunts
}

impl Hunt {
    /// The seed under way has no end: is that the mutant's doing? Its thread is lost either way, so
    /// that the hunt is over.
    fn judge_endless(&mut self, options: &Options) {
        let seed = options.first + self.seeds;
        self.seeds += 1;
        let (tell, told) = mpsc::channel();
        let theirs = options.clone();
        std::thread::spawn(move || {
            let _ = tell.send(attempt(&theirs, None, seed).is_ok());
        });
        match told.recv_timeout(PATIENCE) {
            Ok(true) => {
                let why = format!("no end: the seed takes more than {} s", PATIENCE.as_secs());
                self.found = Some(Found { seed, why });
            }
            Ok(false) | Err(_) => self.unsound += 1,
        }
    }
}

fn hunt(options: &Options, mutant: Mutant) -> Hunt {
    let began = Instant::now();
    let (tell, told) = mpsc::sync_channel(0);
    let theirs = options.clone();
    // Not joined: it may never end.
    std::thread::spawn(move || {
        for seed in theirs.first..theirs.first + theirs.seeds {
            let word = match attempt(&theirs, Some(mutant), seed) {
                Ok(_) => Word::Passed,
                Err(_) if attempt(&theirs, None, seed).is_err() => Word::Unsound,
                Err(why) => Word::Found(Found { seed, why }),
            };
            // Nobody listens any longer once it was found, or its time is over.
            if tell.send(word).is_err() {
                break;
            }
        }
    });
    let mut hunt = Hunt {
        mutant,
        found: None,
        seeds: 0,
        unsound: 0,
        took: Duration::ZERO,
    };
    while hunt.found.is_none() && began.elapsed() < Duration::from_secs(options.seconds) {
        let word = match told.recv_timeout(PATIENCE) {
            Ok(word) => word,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                hunt.judge_endless(options);
                break;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        };
        hunt.seeds += 1;
        match word {
            Word::Passed => {}
            Word::Unsound => hunt.unsound += 1,
            Word::Found(found) => hunt.found = Some(found),
        }
    }
    hunt.took = began.elapsed();
    hunt
}

//! Is the simulator itself to be trusted?

use super::*;

/// Everything hangs on it: a failure that cannot be had again cannot be understood.
#[test]
fn the_same_seed_twice_is_the_same_run() {
    for seed in 1..=12 {
        let wish = Wish::of(seed, 150);
        let [first, second] =
            [0, 1].map(|_| run(&wish).unwrap_or_else(|why| panic!("SEED={seed}: {why}")));
        assert_eq!(first.digest, second.digest, "SEED={seed}");
        assert_eq!(first.counts.events, second.counts.events, "SEED={seed}");
    }
}

#[test]
fn other_seeds_are_other_runs() {
    let digest = |seed| run(&Wish::of(seed, 50)).map(|outcome| outcome.digest);
    assert_ne!(digest(1), digest(2));
}

/// A simulator in which nothing happens finds nothing.
#[test]
fn a_few_seeds_crash_lose_install_and_repair() {
    let mut counts = Counts::default();
    let (mut operations, mut answered) = (0, 0);
    for seed in 1..=60 {
        let wish = Wish::of(seed, 100);
        let outcome = run(&wish).unwrap_or_else(|why| panic!("SEED={seed}: {why}"));
        counts.add(&outcome.counts);
        operations += outcome.operations;
        answered += outcome.answered;
    }
    assert_eq!(operations, 6000);
    assert!(answered > operations / 2, "only {answered} were answered");
    assert!(counts.judged > operations / 3, "{counts:?}");
    assert!(counts.restarts > 50, "{counts:?}");
    assert!(counts.faults > 1000, "{counts:?}");
    assert!(counts.repairs > 5, "{counts:?}");
    assert!(counts.installs > 0, "{counts:?}");
}

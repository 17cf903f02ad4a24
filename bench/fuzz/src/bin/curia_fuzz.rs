//! The coverage-guided fuzzer: libFuzzer around the target that `FUZZ_TARGET` names.
//!
//! `scripts/fuzz` builds it with coverage and starts it.

#![no_main]

use std::sync::LazyLock;

use fuzz::targets::{TARGETS, Target, find};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    find(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        panic!("FUZZ_TARGET={name:?}: choose one of {}", names.join(", "));
    })
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));

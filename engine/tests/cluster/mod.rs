//! How are real servers started, tormented and judged from outside?
//!
//! Every test has loopback addresses and a directory on the real disk of its own, so tests run in
//! parallel. Servers are `curia` processes as a user starts them; nothing of the engine is linked
//! into what judges them but the frame format. A failing test prints the ends of its servers'
//! logs and leaves their data directories in place.
//!
//! Invariant: processes are started by the test's own thread (they die with it) and ended only by
//! their own ids.

// Each test binary uses a part of this.
#![allow(dead_code)]

pub mod acl;
pub mod frames;
pub mod group;
pub mod http;
pub mod load;
pub mod mounts;
pub mod network;
pub mod server;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a loaded machine may take for what an idle one does at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `check` gives something; panics with its last word when patience is over.
pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check() {
            Ok(found) => return found,
            Err(why) if Instant::now() > deadline => {
                panic!("{what}: not within {PATIENCE:?}: {why}")
            }
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
}

/// Turns a condition into what [`wait_for`] takes.
pub fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

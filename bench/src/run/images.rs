//! `curia-bench images`: what can the power leave, and what does recovery make of it?
//!
//! Each seed is a life of a log, a damaged log that is mended, and a server that writes images;
//! at every write boundary of each the power fails in every way, and again within the recovery.

use clap::Args;
use engine::{
    log::proof::{crash, mending},
    snapshot::proof,
};

use crate::Result;
use crate::storage::{Common, Crowd, broken, sum};

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Crash images to recover and compare, at least; a seed that was begun is finished.
    #[arg(long, default_value_t = 100_000)]
    images: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let crowd = Crowd::new(options.common.threads(), options.images, "crash images");
    let worked = crowd.work(options.seed, |seed| {
        if crowd.position() >= options.images {
            return Ok(false);
        }
        let log = crowd.prove("power cuts of a log", || {
            crash::every_crash_of(seed, u64::MAX)
        })?;
        crowd.advance(log.get("images"));
        let mended = crowd.prove("power cuts while mending", || {
            mending::every_crash_while_mending(seed)
        })?;
        crowd.advance(mended.get("images"));
        let images = crowd.prove("power cuts of images", || proof::every_crash_of(seed))?;
        crowd.advance(images.get("images"));
        let mut seeds = engine::log::proof::Tally::default();
        seeds.add("seeds", 1);
        crowd.prove("all", || Ok(seeds))?;
        Ok(true)
    });
    worked.map_err(|(seed, violation)| {
        let again = format!("curia-bench images --images 1 --threads 1 --seed {seed}");
        broken(&violation, &again)
    })?;
    let parts = crowd.finish();
    let notes = [format!(
        "{} crash images recovered and compared, seeds {} to {}: nothing acknowledged was lost, nothing unwritten appeared.",
        sum(&parts, "images"),
        options.seed,
        (options.seed + sum(&parts, "seeds")).saturating_sub(1),
    )];
    options.common.report("reliability/images", &parts, &notes)
}

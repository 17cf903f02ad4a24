//! `curia-bench flips`: is every flipped bit noticed, placed, and mended by peers?

use std::sync::Mutex;

use clap::Args;
use engine::{log::proof::flips::Target, snapshot::proof::ImageTarget};

use crate::storage::{Common, Crowd, broken, sum};
use crate::{Error, Result};

/// Bits that a thread takes at a time.
const RANGE_BITS: u64 = 4096;

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Bytes of the log, and of the image: every bit of both is flipped.
    #[arg(long, default_value_t = 64 * 1024)]
    bytes: u64,
    /// Every so-manieth flip of the log is mended from a peer and compared, 1 for all.
    #[arg(long, default_value_t = 1)]
    mend_every: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    if options.bytes == 0 || options.mend_every == 0 || options.bytes > 1 << 30 {
        let why = "--bytes must be 1 to 1073741824, --mend-every at least 1";
        return Err(Error::Usage(why.to_owned()));
    }
    let (log, image) = (Target::new(options.bytes), ImageTarget::new(options.bytes));
    let (log_bits, total) = (log.bits(), log.bits() + image.bits());
    // A disk in memory belongs to one thread; a copy of it costs next to nothing.
    let log = Mutex::new(log);
    let crowd = Crowd::new(options.common.threads(), total, "flipped bits");
    let worked = crowd.work(0, |range| {
        let first = range * RANGE_BITS;
        let part = |bits: u64, before: u64| {
            let at = |bit: u64| bit.saturating_sub(before).min(bits);
            at(first)..at(first + RANGE_BITS)
        };
        let bits = part(log_bits, 0);
        if !bits.is_empty() {
            let log = log.lock().expect("copied and no more").clone();
            crowd.prove("bits of a log", || {
                log.flip_each(bits, options.mend_every, &mut || crowd.advance(1))
            })?;
        }
        let bits = part(image.bits(), log_bits);
        if !bits.is_empty() {
            crowd.prove("bits of an image", || {
                image.flip_each(bits, &mut || crowd.advance(1))
            })?;
        }
        Ok(first + RANGE_BITS < total)
    });
    worked.map_err(|(_, violation)| {
        let again = format!("curia-bench flips --bytes {}", options.bytes);
        broken(&violation, &again)
    })?;
    let parts = crowd.finish();
    let notes = [format!(
        "{} of {total} bits flipped, each on its own: each was noticed, none was taken for the end of the log; {} logs were mended from a peer and compared.",
        sum(&parts, "flips"),
        sum(&parts, "mended"),
    )];
    options.common.report("reliability/flips", &parts, &notes)
}

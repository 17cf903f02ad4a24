//! `curia-bench nth-fault`: what if the N-th operation fails, for every N of a script?

use clap::Args;
use engine::log::proof::nth::Script;

use crate::Result;
use crate::storage::{Common, Crowd, broken, sum};

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Turns of the script; each writes at least one batch.
    #[arg(long, default_value_t = 2000)]
    turns: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let script = Script {
        turns: options.turns,
    };
    let fails = |violation| {
        broken(
            &violation,
            &format!("curia-bench nth-fault --turns {}", options.turns),
        )
    };
    let operations = script.operations().map_err(fails)?;
    let left = script.leave().map_err(fails)?;
    let crowd = Crowd::new(options.common.threads(), operations, "failing operations");
    crowd
        .work(1, |nth| {
            if nth > operations {
                return Ok(false);
            }
            crowd.prove("writing", || script.fail_writing(nth))?;
            crowd.advance(1);
            Ok(true)
        })
        .map_err(|(_, violation)| fails(violation))?;
    let mut nth = 0;
    loop {
        nth += 1;
        let mut struck = false;
        crowd
            .prove("recovery", || {
                let (strikes, tally) = left.fail_recovering(nth)?;
                struck = strikes;
                Ok(tally)
            })
            .map_err(fails)?;
        if !struck {
            break;
        }
    }
    let parts = crowd.finish();
    let notes = [format!(
        "each of {operations} operations of writing and {} of recovery failed in four ways (EIO, ENOSPC, EIO after it happened, half of it), then the process was killed or the power failed in five ways: {} recoveries, nothing acknowledged was lost.",
        nth - 1,
        sum(&parts, "recoveries"),
    )];
    options
        .common
        .report("reliability/nth-fault", &parts, &notes)
}

//! `curia-bench smoke`: does everything hang together? For CI: seconds, not minutes.
//!
//! Three servers, each protocol, writes and all kinds of reads, then everything acknowledged is
//! read back from every server. Asserts correctness only: figures of a busy CI machine mean
//! nothing, so none is judged. They are printed for the curious.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Common, CuriaBinary, Progress, ShapeOptions};
use crate::load::{Consistency, Op, Rung, Until};
use crate::report::row::{Row, ladder};
use crate::subject::{Protocol, Subject};
use crate::{Error, Result};

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    curia: CuriaBinary,
    #[command(flatten)]
    shape: ShapeOptions,
    /// Cluster size.
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// Protocols, each tried in turn.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "native,http")]
    protocol: Vec<Protocol>,
    /// Seconds for each protocol and operation.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
}

/// Requests in flight.
const IN_FLIGHT: usize = 16;

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let product = options.curia.product()?;
    let site = options.common.site()?;
    let mut progress = Progress::new();
    progress.say("start");
    let shape = options.shape.shape();
    let protocols = &options.protocol;
    let mut subject = Subject::start(product, protocols[0], options.servers, shape, &site.place())?;
    subject.fill(&mut progress)?;
    let mut rows = Vec::new();
    for &protocol in protocols {
        subject.switch(protocol)?;
        let reads = Consistency::value_variants().iter().map(|c| (Op::Get, *c));
        for (op, consistency) in [(Op::Put, Consistency::Default)].into_iter().chain(reads) {
            progress.say(format!("{} {op:?} {consistency:?}", protocol.name()));
            let rung = Rung {
                op,
                consistency,
                in_flight: IN_FLIGHT,
                until: Until::Time(Duration::from_secs_f64(options.seconds.clamp(0.05, 600.0))),
            };
            let slice = subject.measure(&rung, &mut progress)?;
            rows.push(Row::new(
                subject.label(),
                options.servers,
                &rung,
                shape,
                &slice,
            ));
        }
    }
    let leader = subject.aim_at_leader()?;
    let found = subject.verify(leader)?;
    for position in 0..options.servers {
        subject.verify_own_copy(position)?;
    }
    progress.clear();
    println!("{}", ladder("Smoke run", &rows).render());
    for row in &rows {
        if row.latency.count == 0 || !row.errors.is_empty() {
            let what = format!(
                "{}: {} succeeded, failures {:?}",
                row.tag(),
                row.latency.count,
                row.errors
            );
            return Err(Error::Server(what));
        }
    }
    println!("All {found} acknowledged keys found on every server.");
    Ok(())
}

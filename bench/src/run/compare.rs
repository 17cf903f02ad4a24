//! `curia-bench compare`: how many times faster, dearer or slower than a peer, on one ladder?
//!
//! Both clusters run at the same time and take turns in slices: hosts drift, so only ratios of
//! neighbouring slices mean anything. While one is measured the other only sends heartbeats.

use std::process::Command;

use clap::Args;

use super::{Common, CuriaBinary, LadderOptions, Peer, PeerBinary, Progress, ShapeOptions, Sizes};
use crate::Result;
use crate::cluster::Product;
use crate::load::Op;
use crate::report::row::{Row, ladder};
use crate::report::table::{Table, number, optional};
use crate::subject::{Place, Protocol, Slice, Subject};

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    curia: CuriaBinary,
    #[command(flatten)]
    shape: ShapeOptions,
    #[command(flatten)]
    ladder: LadderOptions,
    /// Cluster sizes.
    #[arg(long, default_value = "3")]
    servers: Sizes,
    /// The peer.
    #[arg(long, value_enum, default_value = "etcd")]
    peer: Peer,
    #[command(flatten)]
    peer_binary: PeerBinary,
    /// How curia is spoken to.
    #[arg(long, value_enum, default_value = "native")]
    protocol: Protocol,
    /// How the peer is spoken to.
    #[arg(long, value_enum, default_value = "native")]
    peer_protocol: Protocol,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    options.ladder.check()?;
    let curia = options.curia.product()?;
    let peer = options.peer_binary.product(options.peer)?;
    let site = options.common.site()?;
    let mut report = options.common.report("compare", &site);
    let mut progress = Progress::new();
    let mut pairs = Vec::new();
    for &servers in &options.servers.0 {
        progress.say(format!("{servers} servers each: start"));
        let place = site.place();
        // The peer on a block of its own: ports may coincide.
        let [a, b, c] = place.network;
        let beside = Place {
            network: [a, b ^ 1, c],
            ..place
        };
        let shape = options.shape.shape();
        let mut ours = Subject::start(curia.clone(), options.protocol, servers, shape, &place)?;
        let mut theirs =
            Subject::start(peer.clone(), options.peer_protocol, servers, shape, &beside)?;
        for subject in [&mut ours, &mut theirs] {
            progress.say(format!("{servers} servers: fill {}", subject.label()));
            subject.fill(&mut progress)?;
        }
        for &in_flight in &options.ladder.in_flight {
            let (a, b) = in_turns(options, in_flight, &mut ours, &mut theirs, &mut progress)?;
            let rung = options.ladder.slice(in_flight, 1);
            let ours = Row::new(ours.label(), servers, &rung, shape, &a);
            let theirs = Row::new(theirs.label(), servers, &rung, shape, &b);
            for (row, slice) in [(&ours, &a), (&theirs, &b)] {
                report.raw(row);
                report.histogram(row.tag(), &slice.outcome.latency);
            }
            progress.line(format!(
                "{servers} servers, {in_flight} in flight: {}/s against {}/s",
                number(ours.rate),
                number(theirs.rate)
            ));
            pairs.push((ours, theirs));
        }
        for subject in [&mut ours, &mut theirs] {
            progress.say(format!("read back {}", subject.label()));
            let leader = subject.aim_at_leader()?;
            subject.verify(leader)?;
        }
    }
    progress.clear();
    let (ours, theirs): (Vec<Row>, Vec<Row>) = pairs.iter().cloned().unzip();
    for rows in [&ours, &theirs] {
        report.table(ladder(rows[0].subject.clone(), rows));
    }
    report.table(ratios(&pairs));
    report.note(version(&peer));
    report.note(format!(
        "Taken in turns, {} slices for each rung, both clusters running; every acknowledged write of \
         both was read back.",
        options.ladder.rounds
    ));
    report.note(options.peer_protocol.remark_on(&peer));
    options.common.finish(&report)
}

fn in_turns(
    options: &Options,
    in_flight: usize,
    ours: &mut Subject,
    theirs: &mut Subject,
    progress: &mut Progress,
) -> Result<(Slice, Slice)> {
    let rung = options.ladder.slice(in_flight, options.ladder.rounds);
    for subject in [&mut *ours, &mut *theirs] {
        progress.say(format!(
            "{}, {in_flight} in flight: warm up",
            subject.label()
        ));
        subject.aim_at_leader()?;
        subject.warm_up(&rung, options.ladder.warm_up)?;
    }
    let mut sums = (Slice::default(), Slice::default());
    for _ in 0..options.ladder.rounds {
        for (subject, sum) in [(&mut *ours, &mut sums.0), (&mut *theirs, &mut sums.1)] {
            progress.say(format!("{}, {in_flight} in flight", subject.label()));
            // The other one's flushes and page writes should not fall into this slice.
            std::thread::sleep(std::time::Duration::from_millis(50));
            sum.merge(&subject.measure(&rung, progress)?);
        }
    }
    Ok(sums)
}

fn ratios(pairs: &[(Row, Row)]) -> Table {
    let names = pairs
        .first()
        .map(|(a, b)| (a.subject.clone(), b.subject.clone()));
    let (ours, theirs) = names.unwrap_or_default();
    let mut table = Table::new(
        format!("{ours} ÷ {theirs}: above 1 more, below 1 less"),
        &[
            "servers",
            "in flight",
            "op",
            "per s",
            "p50",
            "p99",
            "max",
            "CPU per op",
            "disk bytes per op",
            "flushes per op",
            "switches per op",
        ],
    );
    for (a, b) in pairs {
        let of = |a: Option<f64>, b: Option<f64>| {
            optional(a.zip(b).filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b))
        };
        let ns = |a: u64, b: u64| of(Some(a as f64), Some(b as f64));
        let per = |f: fn(&Row) -> Option<u64>| of(a.per_success(f(a)), b.per_success(f(b)));
        table.row(vec![
            a.servers.to_string(),
            a.in_flight.to_string(),
            if a.op == Op::Put { "put" } else { "get" }.into(),
            of(Some(a.rate), Some(b.rate)),
            ns(a.latency.p50_ns, b.latency.p50_ns),
            ns(a.latency.p99_ns, b.latency.p99_ns),
            ns(a.latency.max_ns, b.latency.max_ns),
            of(a.cpu_s_per_1000(), b.cpu_s_per_1000()),
            per(|r| r.cost.disk_bytes),
            per(|r| r.cost.flushes),
            per(|r| Some(r.cost.context_switches)),
        ]);
    }
    table
}

fn version(product: &Product) -> String {
    let (Product::Etcd(binary) | Product::Curia(binary)) = product;
    let output = Command::new(binary).arg("--version").output();
    let text = output
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    match text.lines().next() {
        Some(line) => format!("Peer: {line}."),
        None => format!(
            "Peer: {}, version unknown: it does not answer --version.",
            product.name()
        ),
    }
}

//! `curia-bench waiters`: what does a blocking query cost while it waits?
//!
//! Parks many on the leader, over native connections and over HTTP (one connection each), each on a
//! key of its own that does not exist; reads the leader's resident memory before and after; and
//! writes other keys, before, while they wait, and after they have gone, in turns.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use clap::Args;
use serde::Serialize;
use wire::{
    Frame, FrameKind, Hello, Index, Query, QueryBody, ReadMode, RequestId, Role, ShardId, Wait,
    limits,
};

use super::{Common, CuriaBinary, Progress, ShapeOptions};
use crate::cluster::curia;
use crate::load::{Consistency, Op, Rung, Until, Unwatched};
use crate::process::resident_bytes;
use crate::report::table::{Table, number};
use crate::subject::{Protocol, Subject};
use crate::{Context, Result};

/// How long the servers may take to park them all, or to see that all have gone.
const PARK_MAX: Duration = Duration::from_secs(120);
/// How long a client may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Memory is read this long after the last of them was parked.
const SETTLE: Duration = Duration::from_secs(2);

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    curia: CuriaBinary,
    #[command(flatten)]
    shape: ShapeOptions,
    /// Servers.
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// Waiters over native connections.
    #[arg(long, default_value_t = 100_000)]
    native: usize,
    /// Native connections that share them.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Waiters over HTTP, each with a connection of its own; bounded by the number of descriptors
    /// that this process and the server may have.
    #[arg(long, default_value_t = 19_500)]
    http: usize,
    /// Writes in flight.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Seconds of each turn of writes.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Turns without waiters and with them.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Serialize)]
struct Row {
    waiters: String,
    count: usize,
    bytes_each: f64,
    without_per_s: f64,
    with_per_s: f64,
    ratio: f64,
    ratios: Vec<f64>,
}

/// Clients that wait; gone when it is dropped.
struct Parked(Vec<TcpStream>);

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let site = options.common.site()?;
    let mut report = options.common.report("waiters", &site);
    let mut progress = Progress::new();
    let mut table = Table::new(
        format!(
            "blocking queries that wait on the leader of {} servers",
            options.servers
        ),
        &[
            "waiters",
            "number",
            "bytes each, resident",
            "writes per s without",
            "with them",
            "median ratio",
        ],
    );
    let kinds = [
        (Protocol::Native, options.native),
        (Protocol::Http, options.http),
    ];
    for (protocol, count) in kinds.into_iter().filter(|(_, count)| *count > 0) {
        // Servers of their own: memory that the first kind left behind is not the second's.
        let mut subject = Subject::start(
            options.curia.product()?,
            Protocol::Native,
            options.servers,
            options.shape.shape(),
            &site.place(),
        )?;
        subject.fill(&mut progress)?;
        let row = measure(options, &mut subject, protocol, count, &mut progress)?;
        table.row(cells(&row));
        report.raw(&row);
    }
    progress.clear();
    report.table(table);
    options.common.finish(&report)
}

fn measure(
    options: &Options,
    subject: &mut Subject,
    protocol: Protocol,
    count: usize,
    progress: &mut Progress,
) -> Result<Row> {
    let leader = subject.aim_at_leader()?;
    let rung = Rung {
        op: Op::Put,
        consistency: Consistency::Default,
        in_flight: options.in_flight,
        until: Until::Time(Duration::from_secs_f64(options.seconds)),
    };
    subject.warm_up(&rung, options.seconds)?;
    let (mut without, mut with, mut bytes_each) = (Vec::new(), Vec::new(), 0.0);
    for round in 0..options.rounds.max(1) {
        progress.say(format!("{count} {}: round {}", protocol.name(), round + 1));
        without.push(subject.drive(&rung, &mut Unwatched)?.rate());
        let pid = subject.cluster().pids()[leader];
        std::thread::sleep(SETTLE);
        let before = resident_bytes(pid)?;
        let parked = park(options, subject, leader, protocol, count)?;
        std::thread::sleep(SETTLE);
        if round == 0 {
            // Later rounds find the room that the first left behind.
            bytes_each = (resident_bytes(pid)? as f64 - before as f64) / count as f64;
        }
        with.push(subject.drive(&rung, &mut Unwatched)?.rate());
        drop(parked);
        await_waiters(subject, leader, 0)?;
    }
    let mut ratios: Vec<f64> = with.iter().zip(&without).map(|(w, o)| w / o).collect();
    ratios.sort_by(f64::total_cmp);
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    Ok(Row {
        waiters: protocol.name().to_owned(),
        count,
        bytes_each,
        without_per_s: mean(&without),
        with_per_s: mean(&with),
        ratio: ratios[ratios.len() / 2],
        ratios,
    })
}

fn park(
    options: &Options,
    subject: &mut Subject,
    leader: usize,
    protocol: Protocol,
    count: usize,
) -> Result<Parked> {
    let node = &subject.cluster().nodes()[leader];
    let (native, http) = (node.at(curia::SERVER_PORT), node.at(curia::HTTP_PORT));
    let parked = match protocol {
        Protocol::Native => park_native(native, count, options.connections.max(1))?,
        Protocol::Http => park_http(http, count)?,
    };
    await_waiters(subject, leader, count)?;
    Ok(parked)
}

fn park_native(address: SocketAddr, count: usize, connections: usize) -> Result<Parked> {
    let mut streams = Vec::new();
    for connection in 0..connections {
        let mut stream = connect(address)?;
        let mut out = BytesMut::new();
        let hello = Hello {
            protocol: limits::PROTOCOL_VERSION,
            role: Role::Client,
            name: "curia-bench".into(),
            ..Hello::default()
        };
        push(FrameKind::Hello, 0, hello.encode(), &mut out);
        for number in (connection..count).step_by(connections) {
            let query = Query {
                mode: ReadMode::Default,
                min_index: Index(0),
                wait: Wait {
                    index: Index(limits::INDEX_MAX),
                    ms: limits::WAIT_MS_MAX,
                },
                body: QueryBody::KvGet {
                    key: key(number).into(),
                },
            };
            push(
                FrameKind::Query,
                number as u64 + 1,
                query.encode(),
                &mut out,
            );
        }
        stream
            .write_all(&out)
            .context(|| format!("{address}: asking"))?;
        streams.push(stream);
    }
    Ok(Parked(streams))
}

fn park_http(address: SocketAddr, count: usize) -> Result<Parked> {
    let mut streams = Vec::new();
    for number in 0..count {
        let mut stream = connect(address)?;
        let request = format!(
            "GET /v1/kv/{}?index={}&wait=10m HTTP/1.1\r\nHost: {address}\r\n\r\n",
            key(number),
            limits::INDEX_MAX
        );
        stream
            .write_all(request.as_bytes())
            .context(|| format!("{address}: asking"))?;
        streams.push(stream);
    }
    Ok(Parked(streams))
}

fn key(number: usize) -> String {
    format!("waiters/of/keys/that/do/not/exist/{number:08}")
}

fn push(kind: FrameKind, request: u64, payload: Bytes, out: &mut BytesMut) {
    let frame = Frame {
        kind,
        shard: ShardId(0),
        request: RequestId(request),
        flags: 0,
        payload,
        blob: Bytes::new(),
    };
    frame.encode(out);
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect_timeout(&address, CONNECT_MAX).context(|| {
        format!("{address}: connecting (is the bound on open files high enough? see `ulimit -n`)")
    })
}

/// Waits until so many wait.
fn await_waiters(subject: &mut Subject, leader: usize, count: usize) -> Result<()> {
    let node = subject.cluster().nodes()[leader].clone();
    let deadline = Instant::now() + PARK_MAX;
    loop {
        let waiting = curia::metrics(&node, CONNECT_MAX)?
            .get("curia.waiters")
            .unwrap_or(-1.0);
        if waiting == count as f64 {
            return Ok(());
        }
        if Instant::now() > deadline {
            let what = format!("{waiting} wait after {PARK_MAX:?}, and not {count}");
            return Err(subject.cluster().failure(&what));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        for stream in &mut self.0 {
            // Whoever was refused has an answer by now; the others have none.
            let _ = stream.set_nonblocking(true);
            let _ = stream.read(&mut [0; 512]);
        }
    }
}

fn cells(row: &Row) -> Vec<String> {
    vec![
        row.waiters.clone(),
        row.count.to_string(),
        number(row.bytes_each),
        number(row.without_per_s),
        number(row.with_per_s),
        format!("{:.3}", row.ratio),
    ]
}

//! `curia-bench starts`: how long after its start does a server serve, and how long after the
//! signal is it gone?
//!
//! Test suites of client libraries start a server, wait for `/v1/status/leader`, and stop it with
//! SIGINT. Here each is done again and again, for `agent -dev` and for a lone server that finds its
//! data: from just before the process is made to the first 200 that names a leader; and from the
//! signal to the end of the process, while many clients have blocking queries open. A stop must be
//! a clean one: another exit status, or a server that does not end, fails the run.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Common, CuriaBinary, Progress};
use crate::cluster::{Product, curia};
use crate::guard::{ChildGuard, Scratch};
use crate::http;
use crate::load::new_histogram;
use crate::report::table::{Table, ms};
use crate::{Context, Error, Result};

/// How long a server may take to serve, or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at either.
const LOOK: Duration = Duration::from_millis(1);
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    curia: CuriaBinary,
    /// Starts of each kind.
    #[arg(long, default_value_t = 30)]
    starts: u32,
    /// Blocking queries that wait when the signal comes, each on a connection of its own.
    #[arg(long, default_value_t = 1000)]
    waiters: usize,
    /// Keys that the lone server has.
    #[arg(long, default_value_t = 10_000)]
    keys: usize,
}

/// How a server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// `agent -dev`: nothing is there before, nothing after.
    Dev,
    /// `agent -server -bootstrap` with its data.
    Lone,
}

impl Kind {
    fn says(self) -> &'static str {
        match self {
            Self::Dev => "agent -dev",
            Self::Lone => "lone server with its data",
        }
    }
}

#[derive(Serialize)]
struct Row {
    kind: Kind,
    starts: u32,
    waiters: usize,
    keys: usize,
    serving_ms: Vec<f64>,
    gone_ms: Vec<f64>,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    if options.starts == 0 {
        return Err(Error::Usage("--starts must be at least 1".into()));
    }
    raise_descriptor_limit();
    let Product::Curia(binary) = options.curia.product()? else {
        return Err(Error::Usage("only curia is started here".into()));
    };
    let site = options.common.site()?;
    let mut report = options.common.report("starts", &site);
    let mut progress = Progress::new();
    let mut table = Table::new(
        "From the start to the first answer that names a leader; from SIGINT to the process's end \
         while blocking queries wait",
        &[
            "server",
            "starts",
            "waiters",
            "serving, median ms",
            "serving, max ms",
            "gone, median ms",
            "gone, max ms",
        ],
    );
    let [a, b, c] = site.network();
    for (number, kind) in [Kind::Dev, Kind::Lone].into_iter().enumerate() {
        let scratch = Scratch::create(site.data_dir(), "starts", site.keep_data)?;
        let lot = Lot {
            binary: &binary,
            kind,
            ip: Ipv4Addr::new(a, b, c, 1 + number as u8),
            home: scratch.path(),
        };
        if kind == Kind::Lone {
            progress.say("make the data");
            lot.fill(options.keys)?;
        }
        let (mut serving, mut gone) = (Times::new(), Times::new());
        for n in 1..=options.starts {
            progress.say(format!("{}: start {n} of {}", kind.says(), options.starts));
            let (mut server, started) = lot.start()?;
            serving.add(started);
            gone.add(lot.stop(&mut server, options.waiters)?);
        }
        table.row(vec![
            kind.says().into(),
            options.starts.to_string(),
            options.waiters.to_string(),
            ms(serving.all.value_at_quantile(0.5)),
            ms(serving.all.max()),
            ms(gone.all.value_at_quantile(0.5)),
            ms(gone.all.max()),
        ]);
        let name = kind.says().replace(' ', "-");
        report.histogram(format!("{name}-serving"), &serving.all);
        report.histogram(format!("{name}-gone"), &gone.all);
        report.raw(&Row {
            kind,
            starts: options.starts,
            waiters: options.waiters,
            keys: if kind == Kind::Lone { options.keys } else { 0 },
            serving_ms: serving.ms,
            gone_ms: gone.ms,
        });
    }
    progress.clear();
    report.table(table);
    report.note(format!(
        "The server is looked at every {} ms, over a new connection each time.",
        LOOK.as_millis()
    ));
    options.common.finish(&report)
}

struct Times {
    all: Histogram<u64>,
    ms: Vec<f64>,
}

impl Times {
    fn new() -> Self {
        Self {
            all: new_histogram(),
            ms: Vec::new(),
        }
    }

    fn add(&mut self, time: Duration) {
        self.all.saturating_record(time.as_nanos() as u64);
        self.ms.push(time.as_secs_f64() * 1e3);
    }
}

/// Servers of one kind, one after the other.
struct Lot<'a> {
    binary: &'a Path,
    kind: Kind,
    ip: Ipv4Addr,
    home: &'a Path,
}

impl Lot<'_> {
    fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip.into(), curia::HTTP_PORT)
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(self.binary);
        command
            .arg("agent")
            .arg("-node=one")
            .arg(format!("-bind={}", self.ip))
            .arg(format!("-client={}", self.ip))
            .env("TMPDIR", self.home);
        match self.kind {
            Kind::Dev => command.arg("-dev"),
            Kind::Lone => command
                .arg("-server")
                .arg("-bootstrap")
                .arg(format!("-data-dir={}", self.home.join("data").display())),
        };
        let log = self.home.join("log");
        let output = File::options().create(true).append(true).open(&log);
        let output = output.context(|| format!("create {}", log.display()))?;
        let errors = output.try_clone();
        let errors = errors.context(|| "duplicate a descriptor".into())?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        Ok(command)
    }

    /// Starts one; how long until it named a leader.
    fn start(&self) -> Result<(ChildGuard, Duration)> {
        let mut command = self.command()?;
        let begun = Instant::now();
        let mut server = ChildGuard::spawn(&mut command)
            .context(|| format!("start {}", self.binary.display()))?;
        let request = http::get("/v1/status/leader", self.http());
        loop {
            let answer = http::fetch(self.http(), &request, ANSWER_MAX);
            let took = begun.elapsed();
            let names_one = |body: &[u8]| body.trim_ascii().len() > 2;
            if answer.is_ok_and(|answer| answer.status == 200 && names_one(&answer.body)) {
                return Ok((server, took));
            }
            if server.ended().is_some() || took > PATIENCE {
                return Err(self.failure(&format!("it did not serve within {took:?}")));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends one while so many wait; how long until it was gone.
    fn stop(&self, server: &mut ChildGuard, waiters: usize) -> Result<Duration> {
        let _waiting = self.park(waiters)?;
        let begun = Instant::now();
        // SAFETY: a plain system call on a child that has not been reaped.
        unsafe { libc::kill(server.pid(), libc::SIGINT) };
        loop {
            let status = server.ended();
            let took = begun.elapsed();
            match status {
                Some(status) if status.success() => return Ok(took),
                Some(status) => return Err(self.failure(&format!("it ended with {status}"))),
                None if took > PATIENCE => return Err(self.failure("it did not end")),
                None => std::thread::sleep(LOOK),
            }
        }
    }

    /// Blocking queries on keys that are not there, once the server knows of them all.
    fn park(&self, waiters: usize) -> Result<Vec<TcpStream>> {
        let address = self.http();
        let one = |number: usize| {
            let mut socket = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
            let path = format!("/v1/kv/none/{number}?index=1000000000&wait=10m");
            socket.write_all(&http::get(&path, address))?;
            Ok(socket)
        };
        let parked: std::io::Result<Vec<TcpStream>> = (0..waiters).map(one).collect();
        let parked = parked.context(|| {
            format!("open {waiters} connections (fewer with --waiters, or raise `ulimit -n`)")
        })?;
        let begun = Instant::now();
        loop {
            let metrics = curia::metrics_at(address, ANSWER_MAX)?;
            let waiting = metrics.get("curia.waiters").unwrap_or(0.0) as usize;
            if waiting >= waiters {
                return Ok(parked);
            }
            if begun.elapsed() > PATIENCE {
                return Err(self.failure(&format!("{waiting} of {waiters} queries wait")));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Makes the data that later starts find.
    fn fill(&self, keys: usize) -> Result<()> {
        let (mut server, _) = self.start()?;
        let mut connection = http::Connection::open(self.http(), ANSWER_MAX)?;
        for key in 0..keys {
            let put = http::request("PUT", &format!("/v1/kv/k/{key}"), self.http(), &[b'v'; 256]);
            let answer = connection.exchange(&put)?;
            if answer.status != 200 {
                return Err(self.failure(&format!("a write was answered with {}", answer.status)));
            }
        }
        drop(connection);
        self.stop(&mut server, 0).map(drop)
    }

    fn failure(&self, what: &str) -> Error {
        let log = std::fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        Error::Server(format!(
            "{}: {what}; its last words:\n{last}",
            self.kind.says()
        ))
    }
}

/// Lets this process have a connection for each waiter.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the pointed-to local, and then reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            // Refused, connecting says so.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

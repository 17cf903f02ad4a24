//! What do all sub-commands share: where to run, what to write, how to show progress?

pub mod compare;
pub mod failover;
pub mod flips;
pub mod floor;
pub mod images;
pub mod judge;
pub mod latency;
pub mod memory;
pub mod mutants;
pub mod nemesis;
pub mod nth_fault;
pub mod pairs;
pub mod prove;
pub mod simulate;
pub mod smoke;
pub mod starts;
pub mod waiters;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cluster::{Product, own_network, parse_network};
use crate::load::{Consistency, Flow, Op, Rung, Shape, Until, Watch};
use crate::machine::Machine;
use crate::report::Report;
use crate::subject::Place;
use crate::volume::Volume;
use crate::{Context, Error, Result};

/// Options of every sub-command.
#[derive(Args, Debug, Clone)]
pub struct Common {
    /// Directory on the disk to measure; scratch directories are made and removed in it
    /// [default: bench-data beside this executable].
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Leave the scratch directories behind.
    #[arg(long)]
    keep_data: bool,
    /// Measure on a memory file system all the same: no figure of a disk will come of it.
    #[arg(long)]
    allow_tmpfs: bool,
    /// Where reports are written.
    #[arg(long, default_value = "perf-reports")]
    report_dir: PathBuf,
    /// Write no report.
    #[arg(long)]
    no_report: bool,
    /// Loopback block for the servers, e.g. 127.7.1 [default: from the process id].
    #[arg(long, value_parser = parse_network)]
    network: Option<[u8; 3]>,
}

/// A directory that was checked, and the rest of the place.
#[derive(Debug)]
pub struct Site {
    data_dir: PathBuf,
    network: [u8; 3],
    keep_data: bool,
    /// What the data lies on.
    pub volume: Volume,
}

impl Common {
    /// Creates and checks the data directory.
    pub fn site(&self) -> Result<Site> {
        let data_dir = match &self.data_dir {
            Some(dir) => dir.clone(),
            None => beside_us("bench-data")?,
        };
        // Judged before anything is made: a refused place is left as it was.
        let absolute = std::path::absolute(&data_dir).context(|| "resolve --data-dir".into())?;
        let existing = absolute.ancestors().find(|dir| dir.is_dir());
        let volume = Volume::of(existing.unwrap_or(Path::new("/")))?;
        if !self.allow_tmpfs {
            volume.require_disk(&data_dir)?;
        }
        std::fs::create_dir_all(&data_dir).context(|| {
            format!(
                "create the data directory {} (pass --data-dir)",
                data_dir.display()
            )
        })?;
        Ok(Site {
            data_dir,
            network: self.network.unwrap_or_else(own_network),
            keep_data: self.keep_data,
            volume,
        })
    }

    /// Starts a report.
    pub fn report(&self, kind: &'static str, site: &Site) -> Report {
        let mut report = Report::new(kind, Machine::describe(&site.volume));
        if cfg!(debug_assertions) {
            report.note(
                "Built with debug assertions: build with --release before comparing figures.",
            );
        }
        report
    }

    /// Writes the report unless that was declined.
    pub fn finish(&self, report: &Report) -> Result<()> {
        match self.no_report {
            true => Ok(()),
            false => report.write(&self.report_dir).map(|_| ()),
        }
    }
}

impl Site {
    /// For [`crate::subject::Subject::start`].
    pub fn place(&self) -> Place<'_> {
        Place {
            data_dir: &self.data_dir,
            network: self.network,
            keep_data: self.keep_data,
        }
    }

    /// The checked data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The address block.
    pub fn network(&self) -> [u8; 3] {
        self.network
    }
}

/// Which `curia` executable is measured.
#[derive(Args, Debug, Clone)]
pub struct CuriaBinary {
    /// The curia executable [default: the one beside this executable].
    #[arg(long)]
    curia: Option<PathBuf>,
}

impl CuriaBinary {
    /// The product, if its executable exists.
    pub fn product(&self) -> Result<Product> {
        let path = match &self.curia {
            Some(path) => path.clone(),
            None => beside_us("curia")?,
        };
        if !path.is_file() {
            return Err(Error::Usage(format!(
                "there is no curia executable at {}: run `cargo build --release`, or pass --curia PATH",
                path.display()
            )));
        }
        Ok(Product::Curia(path))
    }
}

/// Which peers can be measured as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// etcd, 3.4 or later.
    Etcd,
}

/// Which executable of the peer is measured.
#[derive(Args, Debug, Clone)]
pub struct PeerBinary {
    /// The peer's executable [default: found on PATH].
    #[arg(long)]
    peer_binary: Option<PathBuf>,
}

impl PeerBinary {
    /// The peer, if its executable exists.
    pub fn product(&self, peer: Peer) -> Result<Product> {
        let Peer::Etcd = peer;
        match &self.peer_binary {
            Some(path) if path.is_file() => Ok(Product::Etcd(path.clone())),
            Some(path) => Err(Error::Usage(format!(
                "--peer-binary {}: there is no such file",
                path.display()
            ))),
            None => on_path("etcd").map(Product::Etcd).ok_or_else(|| {
                Error::Usage(
                    "etcd is not installed: `apt-get install etcd-server` (then stop its service: \
                     `systemctl stop etcd`), or pass --peer-binary PATH"
                        .into(),
                )
            }),
        }
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// curia, or a peer in its place.
#[derive(Args, Debug, Clone)]
pub struct Measured {
    #[command(flatten)]
    curia: CuriaBinary,
    /// Measure this peer instead of curia.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    #[command(flatten)]
    binary: PeerBinary,
}

impl Measured {
    /// The product, if its executable exists.
    pub fn product(&self) -> Result<Product> {
        match self.peer {
            Some(peer) => self.binary.product(peer),
            None => self.curia.product(),
        }
    }
}

/// Sizes of keys and values.
#[derive(Args, Debug, Clone)]
pub struct ShapeOptions {
    /// Length of the keys.
    #[arg(long, default_value_t = 64)]
    key_bytes: usize,
    /// Length of the values.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Number of different keys.
    #[arg(long, default_value_t = 16_384)]
    keys: usize,
}

impl ShapeOptions {
    /// The shape.
    pub fn shape(&self) -> Shape {
        Shape {
            key_bytes: self.key_bytes,
            value_bytes: self.value_bytes,
            keys: self.keys,
        }
    }
}

/// The ladder of concurrencies.
#[derive(Args, Debug, Clone)]
pub struct LadderOptions {
    /// Requests in flight, rung by rung.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256,1024")]
    pub in_flight: Vec<usize>,
    /// Seconds for each rung.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Requests for each rung, instead of seconds.
    #[arg(long, conflicts_with = "seconds")]
    pub requests: Option<u64>,
    /// Seconds of the same load before each rung is measured.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Slices that a rung is cut into, to take turns with what it is compared to.
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// What each request does.
    #[arg(long, value_enum, default_value = "put")]
    pub op: Op,
    /// How exact reads are.
    #[arg(long, value_enum, default_value = "default")]
    pub consistency: Consistency,
}

impl LadderOptions {
    /// Refuses what cannot be run.
    pub fn check(&self) -> Result<()> {
        let fault = if self.in_flight.is_empty() || self.in_flight.contains(&0) {
            "--in-flight takes numbers from 1, e.g. --in-flight 1,256"
        } else if self.in_flight.iter().any(|n| *n > IN_FLIGHT_MAX) {
            "--in-flight takes at most 10000: each is a connection over HTTP"
        } else if self.rounds == 0 {
            "--rounds must be at least 1"
        } else if !(self.seconds > 0.0 && self.seconds <= 86_400.0) {
            "--seconds must be above 0 and at most a day"
        } else if !(0.0..=3600.0).contains(&self.warm_up) {
            "--warm-up must be between 0 and 3600 seconds"
        } else {
            return Ok(());
        };
        Err(Error::Usage(fault.into()))
    }

    /// One of `rounds` slices of a rung.
    pub fn slice(&self, in_flight: usize, rounds: u32) -> Rung {
        Rung {
            op: self.op,
            consistency: self.consistency,
            in_flight,
            until: match self.requests {
                Some(n) => Until::Requests(n.div_ceil(u64::from(rounds))),
                None => Until::Time(Duration::from_secs_f64(self.seconds / f64::from(rounds))),
            },
        }
    }
}

/// Most requests in flight that a rung may ask for.
pub const IN_FLIGHT_MAX: usize = 10_000;

/// Reads `1,3,5` or `1-7`.
pub fn parse_servers(text: &str) -> std::result::Result<Vec<usize>, String> {
    let number = |t: &str| {
        t.trim()
            .parse::<usize>()
            .ok()
            .filter(|n| (1..=99).contains(n))
    };
    let sizes: Option<Vec<Vec<usize>>> = text
        .split(',')
        .map(|part| match part.split_once('-') {
            Some((from, to)) => Some((number(from)?..=number(to)?).collect()),
            None => Some(vec![number(part)?]),
        })
        .collect();
    match sizes.map(|s| s.concat()) {
        Some(sizes) if !sizes.is_empty() => Ok(sizes),
        _ => Err("cluster sizes from 1 to 99, e.g. 3 or 1,3,5 or 1-7".into()),
    }
}

/// A list of cluster sizes, as clap wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(pub Vec<usize>);

impl std::str::FromStr for Sizes {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        parse_servers(text).map(Self)
    }
}

fn beside_us(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context(|| "find our own executable".into())?;
    Ok(own.with_file_name(name))
}

/// A spinner with what is being done and how far it is. Nothing is drawn without a terminal.
pub struct Progress {
    bar: ProgressBar,
    shown: std::time::Instant,
    what: String,
}

impl Progress {
    /// Starts one.
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {wide_msg}")
            .expect("a constant template");
        Self {
            bar: ProgressBar::new_spinner().with_style(style),
            shown: std::time::Instant::now(),
            what: String::new(),
        }
    }

    /// Says what happens from now on.
    pub fn say(&mut self, what: impl Into<String>) {
        self.what = what.into();
        self.bar.set_message(self.what.clone());
        self.bar.tick();
    }

    /// Prints a line that stays.
    pub fn line(&self, text: impl AsRef<str>) {
        match self.bar.is_hidden() {
            true => println!("{}", text.as_ref()),
            false => self.bar.println(text),
        }
    }

    /// Takes the spinner away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch for Progress {
    fn tick(&mut self, done: u64) -> Flow {
        if self.shown.elapsed() > Duration::from_millis(200) {
            self.shown = std::time::Instant::now();
            self.bar.set_message(format!("{} · {done} done", self.what));
            self.bar.tick();
        }
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_is_found_on_the_path_or_not_at_all() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no-such-program-as-this").is_none());
    }

    #[test]
    fn cluster_sizes_are_lists_and_ranges() {
        assert_eq!(parse_servers("3"), Ok(vec![3]));
        assert_eq!(parse_servers("1,3, 5"), Ok(vec![1, 3, 5]));
        assert_eq!(parse_servers("1-3,7"), Ok(vec![1, 2, 3, 7]));
        for bad in ["", "0", "x", "3-1", "1,,2", "100", "-"] {
            assert!(parse_servers(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_rung_is_cut_into_equal_slices() {
        let mut ladder = LadderOptions {
            in_flight: vec![1],
            seconds: 5.0,
            requests: None,
            warm_up: 1.0,
            rounds: 5,
            op: Op::Put,
            consistency: Consistency::Default,
        };
        assert_eq!(
            ladder.slice(1, 5).until,
            Until::Time(Duration::from_secs(1))
        );
        ladder.requests = Some(101);
        assert_eq!(ladder.slice(1, 5).until, Until::Requests(21));
        ladder.check().unwrap();
        ladder.in_flight = vec![0];
        assert!(
            ladder
                .check()
                .unwrap_err()
                .to_string()
                .contains("--in-flight")
        );
    }
}

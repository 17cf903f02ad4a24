//! How are the tormented processes started, ended and found alive?
//!
//! They are `curia agent` processes as a user starts them, on loopback addresses, with limits so
//! small that images, compaction and new segments happen all the time. Their output is appended to
//! one file each, which is kept with the data when a run fails.
//!
//! Invariant: a server that ends by itself is never taken for one that was killed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::disk::Disk;
use crate::cluster::{Node, Status, curia};
use crate::guard::ChildGuard;
use crate::{Context, Error, Result};

/// Small limits, so that everything that happens rarely happens often.
const SMALL_LIMITS: [&str; 6] = [
    "-set=raft_snapshot_threshold=200",
    "-set=raft_snapshot_interval=200ms",
    "-set=raft_trailing_logs=30",
    "-set=log.segment_mb=1",
    // Who cannot reach a leader says so soon, or clients would spend the run waiting.
    "-set=performance.rpc_hold_timeout=1s",
    "-log-level=info",
];
/// How long the kernel may take to free a killed server's addresses: its io_uring instances are
/// ended in the background.
const ADDRESSES_FREE_MAX: Duration = Duration::from_secs(5);
const PROBE_MAX: Duration = Duration::from_secs(2);
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// One server's place, and its process while it has one.
#[derive(Debug)]
pub struct Server {
    /// Goes first: a disk is unmounted when nobody uses it.
    child: Option<ChildGuard>,
    paused: bool,
    /// Position, address and data directory.
    pub node: Node,
    /// What its data lies on; `None` for the host's file system.
    pub disk: Option<Disk>,
    /// Its monotonic clocks are this many seconds ahead, from its next start on.
    pub ahead_s: u64,
}

/// All of them.
#[derive(Debug)]
pub struct Servers {
    binary: PathBuf,
    home: PathBuf,
    nodes: Vec<Node>,
    all: Vec<Server>,
}

impl Servers {
    /// Places for `count` servers under `home`; none is started. A disk is asked for each.
    pub fn new(
        binary: &Path,
        home: &Path,
        network: [u8; 3],
        count: usize,
        mut disk: impl FnMut(&Path) -> Result<Option<Disk>>,
    ) -> Result<Self> {
        let [a, b, c] = network;
        let mut all = Vec::new();
        for position in 0..count {
            let place = home.join(format!("node-{}", position + 1));
            fs::create_dir_all(&place).context(|| format!("create {}", place.display()))?;
            let disk = disk(&place)?;
            let data = place.join("disk");
            fs::create_dir_all(&data).context(|| format!("create {}", data.display()))?;
            let node = Node {
                position,
                ip: Ipv4Addr::new(a, b, c, 1 + position as u8),
                data_dir: place.join("disk").join("data"),
            };
            all.push(Server {
                node,
                disk,
                ahead_s: 0,
                child: None,
                paused: false,
            });
        }
        Ok(Self {
            binary: binary.to_owned(),
            home: home.to_owned(),
            nodes: all.iter().map(|server| server.node.clone()).collect(),
            all,
        })
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// One place.
    pub fn at(&mut self, position: usize) -> &mut Server {
        &mut self.all[position]
    }

    /// Its address.
    pub fn ip(&self, position: usize) -> Ipv4Addr {
        self.nodes[position].ip
    }

    /// Where HTTP is spoken.
    pub fn http(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|n| n.at(curia::HTTP_PORT)).collect()
    }

    /// Where frames are spoken.
    pub fn native(&self) -> Vec<SocketAddr> {
        self.nodes
            .iter()
            .map(|n| n.at(curia::SERVER_PORT))
            .collect()
    }

    /// Starts one that does not run.
    pub fn start(&mut self, position: usize) -> Result<()> {
        if self.all[position].child.is_some() {
            return Ok(());
        }
        let log = self.log(position);
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .context(|| format!("open {}", log.display()))?;
        let errors = output
            .try_clone()
            .context(|| "duplicate a descriptor".into())?;
        let mut command = self.command(position);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = ChildGuard::spawn(&mut command)
            .context(|| format!("start {}", command.get_program().to_string_lossy()))?;
        let server = &mut self.all[position];
        (server.child, server.paused) = (Some(child), false);
        Ok(())
    }

    fn command(&self, position: usize) -> Command {
        let server = &self.all[position];
        let mut plain = curia::command(&self.binary, &server.node, &self.nodes);
        plain.args(SMALL_LIMITS).env("RUST_BACKTRACE", "1");
        if server.ahead_s == 0 {
            return plain;
        }
        let ahead = server.ahead_s.to_string();
        let mut command = Command::new("unshare");
        // It becomes the server: the process stays the one that is watched and killed.
        command
            .args(["--time", "--boottime", &ahead, "--monotonic", &ahead])
            .arg(plain.get_program())
            .args(plain.get_args())
            .env("RUST_BACKTRACE", "1");
        command
    }

    /// `kill -9` of several at once; returns how many of them ran. `Err` if one of them had ended
    /// by itself.
    pub fn kill(&mut self, positions: &[usize]) -> Result<usize> {
        self.check_alive()?;
        Ok(self.kill_after_power_cut(positions))
    }

    /// The same of servers whose disks are gone: those may have ended because of that.
    pub fn kill_after_power_cut(&mut self, positions: &[usize]) -> usize {
        for &position in positions {
            self.signal(position, libc::SIGKILL);
        }
        let ran = positions.iter().filter(|at| self.is_running(**at)).count();
        for &position in positions {
            self.all[position].child = None;
            self.all[position].paused = false;
        }
        let deadline = Instant::now() + ADDRESSES_FREE_MAX;
        for &position in positions {
            for port in [curia::HTTP_PORT, curia::SERVER_PORT] {
                let address = self.nodes[position].at(port);
                while TcpListener::bind(address).is_err() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        ran
    }

    /// SIGSTOP.
    pub fn pause(&mut self, position: usize) {
        self.signal(position, libc::SIGSTOP);
        self.all[position].paused = self.is_running(position);
    }

    /// SIGCONT to all that are paused.
    pub fn resume(&mut self) {
        for position in 0..self.count() {
            if std::mem::take(&mut self.all[position].paused) {
                self.signal(position, libc::SIGCONT);
            }
        }
    }

    fn signal(&self, position: usize, signal: i32) {
        if let Some(child) = &self.all[position].child {
            // SAFETY: a plain system call on our own child, which is not reaped while we hold it.
            unsafe { libc::kill(child.pid(), signal) };
        }
    }

    /// Whether it was started and not killed.
    pub fn is_running(&self, position: usize) -> bool {
        self.all[position].child.is_some()
    }

    /// Process id of one that runs.
    pub fn pid(&self, position: usize) -> Option<i32> {
        self.all[position].child.as_ref().map(ChildGuard::pid)
    }

    /// `Err` with its last words if one has ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        for position in 0..self.count() {
            let child = self.all[position].child.as_mut();
            if let Some(status) = child.and_then(ChildGuard::ended) {
                let words = self.last_words(position);
                return Err(Error::Violation(format!(
                    "node-{} ended by itself with {status}; it said last:\n{words}",
                    position + 1
                )));
            }
        }
        Ok(())
    }

    /// The end of what a server said.
    pub fn last_words(&self, position: usize) -> String {
        const LINES: usize = 12;
        let text = fs::read(self.log(position)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Starts one, and waits until it has opened its log and its state, or has ended by itself: then true. That it
    /// answers proves nothing: it does so while it still reads them.
    pub fn start_ends(&mut self, position: usize, patience: Duration) -> Result<bool> {
        let said = |servers: &Self| servers.said(position, ": serving: cluster=");
        let (deadline, before) = (Instant::now() + patience, said(self));
        self.start(position)?;
        while Instant::now() < deadline && said(self) == before {
            let child = self.all[position].child.as_mut();
            if child.and_then(ChildGuard::ended).is_some() {
                self.all[position].child = None;
                return Ok(true);
            }
            std::thread::sleep(PROBE_EVERY);
        }
        Ok(false)
    }

    /// How often a server has said something.
    pub fn said(&self, position: usize, what: &str) -> usize {
        let text = fs::read(self.log(position)).unwrap_or_default();
        String::from_utf8_lossy(&text).matches(what).count()
    }

    fn log(&self, position: usize) -> PathBuf {
        self.home.join(format!("node-{}.output", position + 1))
    }

    /// What one says now.
    pub fn status(&self, position: usize) -> Result<Status> {
        curia::status(&self.nodes[position], &self.nodes, PROBE_MAX)
    }

    /// Who leads, by the word of any that runs; for choosing victims, not for judging.
    pub fn leader(&self) -> Option<usize> {
        (0..self.count())
            .filter(|at| self.is_running(*at) && !self.all[*at].paused)
            .find_map(|at| self.status(at).ok()?.leader)
    }

    /// Waits until all name the same leader.
    pub fn wait_agreed(&mut self, patience: Duration) -> Result<usize> {
        let deadline = Instant::now() + patience;
        loop {
            self.check_alive()?;
            let named: Vec<Result<Status>> = (0..self.count()).map(|at| self.status(at)).collect();
            let leaders: Vec<Option<usize>> = named
                .iter()
                .map(|status| status.as_ref().ok()?.leader)
                .collect();
            if let Some(leader) = leaders[0]
                && leaders.iter().all(|other| *other == Some(leader))
            {
                return Ok(leader);
            }
            if Instant::now() > deadline {
                let words: Vec<String> = (0..self.count())
                    .map(|at| format!("--- node-{}:\n{}", at + 1, self.last_words(at)))
                    .collect();
                return Err(Error::Violation(format!(
                    "no leader that all agree on within {patience:?} of the end of all faults: {named:?}\n{}",
                    words.join("\n")
                )));
            }
            std::thread::sleep(PROBE_EVERY);
        }
    }
}

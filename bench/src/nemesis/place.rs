//! Where do servers live that may be cut off from each other?
//!
//! This process moves into a network and a mount namespace of its own, and with it every process
//! and thread that it starts from then on. Loopback of the machine is not touched, and whatever is
//! mounted goes when the last process goes, however it ends. Within, routing rules drop what goes
//! from one address to another, and an htb queue makes some of it wait. Loss is made of cuts that
//! come and go within some tens of milliseconds, since neither netem nor packet actions can be
//! had everywhere.
//!
//! Invariant: what is not possible on a host is found out here, once, by trying it.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::faults::Need;
use crate::{Context, Result};

/// Rate of a link under [`Place::narrow`]: a heartbeat waits some milliseconds, a batch of entries
/// long enough to matter.
const NARROW_RATE: &str = "192kbit";

/// The namespaces, and what can be done in them.
#[derive(Debug)]
pub struct Place {
    network: bool,
    mounts: bool,
    queues: bool,
    cuts: Vec<(Ipv4Addr, Ipv4Addr)>,
    narrow: bool,
}

impl Place {
    /// Moves this thread, and what it starts, into namespaces of its own.
    pub fn enter() -> Self {
        let network = unshare(libc::CLONE_NEWNET).and_then(|()| prepare_network());
        let mounts = unshare(libc::CLONE_NEWNS)
            .and_then(|()| tool("mount", &["--make-rprivate", "/"]).map(drop));
        let mut place = Self {
            network: said("network namespace", network),
            mounts: said("mount namespace", mounts),
            queues: false,
            cuts: Vec::new(),
            narrow: false,
        };
        if place.network {
            let probe = Ipv4Addr::new(127, 255, 255, 1);
            let tried = place.narrow(probe, probe).and_then(|()| place.heal());
            place.queues = said(
                "queues (tc htb)",
                tried.map_err(|e| io::Error::other(e.to_string())),
            );
        }
        place
    }

    /// The same place, for the next servers: its faults are over.
    pub fn again(&self) -> Self {
        Self {
            cuts: Vec::new(),
            narrow: false,
            ..*self
        }
    }

    /// No namespaces at all.
    pub fn bare() -> Self {
        Self {
            network: false,
            mounts: false,
            queues: false,
            cuts: Vec::new(),
            narrow: false,
        }
    }

    /// Whether a need of this kind can be met.
    pub fn meets(&self, need: Need) -> bool {
        match need {
            Need::Nothing => true,
            Need::Network => self.network,
            Need::Queues => self.queues,
            Need::Disk => self.mounts && Path::new("/dev/loop-control").exists(),
            Need::Throttle => {
                self.meets(Need::Disk) && Path::new(super::disk::THROTTLE_GROUPS).is_dir()
            }
            Need::Time => said_once(tool("unshare", &["--time", "--boottime", "86400", "true"])),
            Need::Recorder => self.meets(Need::Disk) && Path::new("/dev/fuse").exists(),
        }
    }

    /// What servers live in, for the report.
    pub fn describe(&self) -> &'static str {
        match (self.network, self.mounts) {
            (true, true) => "network and mount namespaces of its own",
            (true, false) => "a network namespace of its own",
            (false, true) => "loopback addresses of the host, and a mount namespace",
            (false, false) => "loopback addresses of the host",
        }
    }

    /// Drops what goes from one to the other; what comes back passes.
    pub fn cut(&mut self, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        if !self.cuts.contains(&(from, to)) {
            rule("add", from, to).context(|| format!("cut {from} off from {to}"))?;
            self.cuts.push((from, to));
        }
        Ok(())
    }

    /// Lets it pass again.
    pub fn mend(&mut self, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        if let Some(at) = self.cuts.iter().position(|cut| *cut == (from, to)) {
            self.cuts.swap_remove(at);
            rule("del", from, to).context(|| format!("connect {from} with {to} again"))?;
        }
        Ok(())
    }

    /// Makes what goes from one to the other wait in a narrow queue.
    pub fn narrow(&mut self, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        let what = || format!("narrow the way from {from} to {to}");
        if !self.narrow {
            tool(
                "tc",
                &["qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb"],
            )
            .context(what)?;
            self.narrow = true;
            let class = [
                "class",
                "add",
                "dev",
                "lo",
                "parent",
                "1:",
                "classid",
                "1:10",
                "htb",
                "rate",
                NARROW_RATE,
            ];
            tool("tc", &class).context(what)?;
        }
        let (from, to) = (from.to_string(), to.to_string());
        let filter = [
            "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip", "u32", "match", "ip",
            "src", &from, "match", "ip", "dst", &to, "flowid", "1:10",
        ];
        tool("tc", &filter).map(drop).context(what)
    }

    /// Everybody hears everybody again, at once.
    pub fn heal(&mut self) -> Result<()> {
        for (from, to) in std::mem::take(&mut self.cuts) {
            rule("del", from, to).context(|| format!("connect {from} with {to} again"))?;
        }
        if std::mem::take(&mut self.narrow) {
            tool("tc", &["qdisc", "del", "dev", "lo", "root"])
                .map(drop)
                .context(|| "widen all ways again".into())?;
        }
        Ok(())
    }

    /// How many cuts are in force.
    pub fn cuts(&self) -> usize {
        self.cuts.len()
    }
}

fn said(what: &str, tried: io::Result<()>) -> bool {
    tried
        .inspect_err(|error| eprintln!("not possible here: {what}: {error}"))
        .is_ok()
}

fn said_once(tried: io::Result<String>) -> bool {
    said("time namespace", tried.map(drop))
}

fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: takes no pointers; only this thread, and what it starts, sees other namespaces.
    match unsafe { libc::unshare(flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn prepare_network() -> io::Result<()> {
    tool("ip", &["link", "set", "lo", "up"])?;
    // Local addresses are looked up first by default; ours must come before that.
    tool("ip", &["rule", "add", "pref", "100", "lookup", "local"])?;
    tool("ip", &["rule", "del", "pref", "0"]).map(drop)
}

fn rule(what: &str, from: Ipv4Addr, to: Ipv4Addr) -> io::Result<()> {
    let (from, to) = (from.to_string(), to.to_string());
    let rule = [
        "rule",
        what,
        "pref",
        "50",
        "from",
        &from,
        "to",
        &to,
        "blackhole",
    ];
    tool("ip", &rule).map(drop)
}

/// Runs a tool of the system to its end; what it printed.
pub(super) fn tool(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!(
            "{program} {}: {said}",
            arguments.join(" ")
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A file of the kernel's that takes what is written to it as a command.
pub(super) fn tell_kernel(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("write {text:?} to {}", path.display()))
}

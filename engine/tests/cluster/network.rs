//! How do servers come to not hear each other?
//!
//! The test's thread moves into a network namespace of its own, and with it every process and
//! thread it starts; there, routing rules drop what goes from one address to another. Loopback of
//! the machine is not touched. It needs the right to make namespaces; where that is missing the
//! test says loudly that it tested nothing.

use std::{cell::RefCell, io, net::IpAddr, process::Command};

/// The network of one test.
pub struct Network {
    cuts: RefCell<Vec<(IpAddr, IpAddr)>>,
}

impl Network {
    /// Moves this thread into a network of its own.
    pub fn enter() -> Option<Self> {
        // SAFETY: takes no pointers; only this thread's view of the network changes.
        let made = match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
            0 => prepare(),
            _ => Err(io::Error::last_os_error()),
        };
        made.inspect_err(|error| eprintln!("NOT TESTED: no network namespace here: {error}"))
            .ok()?;
        Some(Self {
            cuts: RefCell::default(),
        })
    }

    /// Drops what goes from one to the other; what comes back passes.
    pub fn cut_one_way(&self, from: IpAddr, to: IpAddr) {
        if self.cuts.borrow().contains(&(from, to)) {
            return;
        }
        rule("add", from, to).expect("a rule can be added");
        self.cuts.borrow_mut().push((from, to));
    }

    /// Drops what goes between them.
    pub fn cut(&self, one: IpAddr, other: IpAddr) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Everybody hears everybody again.
    pub fn heal(&self) {
        for (from, to) in self.cuts.borrow_mut().drain(..) {
            rule("del", from, to).expect("the rule is there");
        }
    }
}

fn prepare() -> io::Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    // Local addresses are looked up first by default; ours must come before that.
    ip(&["rule", "add", "pref", "100", "lookup", "local"])?;
    ip(&["rule", "del", "pref", "0"])
}

fn rule(what: &str, from: IpAddr, to: IpAddr) -> io::Result<()> {
    let (from, to) = (from.to_string(), to.to_string());
    ip(&[
        "rule",
        what,
        "pref",
        "50",
        "from",
        &from,
        "to",
        &to,
        "blackhole",
    ])
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
    }
}

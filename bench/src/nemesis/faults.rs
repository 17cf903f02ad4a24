//! What can be done to servers?

use clap::ValueEnum;
use serde::Serialize;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// `kill -9` of a set of servers, up to all of them.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Pause,
    /// Two servers do not hear each other, or one hears nobody and is not heard.
    Cut,
    /// One server does not hear another, which hears it; deaf and mute servers.
    OneWay,
    /// Packets between two servers are lost in bursts of some tens of milliseconds.
    Loss,
    /// Packets from one server to another wait in a narrow queue.
    Delay,
    /// A server's disk takes some hundred KiB a second.
    Throttle,
    /// A server's disk is full.
    Full,
    /// A server starts with its monotonic clocks days ahead of the others'.
    Clock,
    /// A server starts with an empty data directory; it gets its own back later.
    Wipe,
    /// Bits of a stopped server's log or images are flipped.
    Rot,
    /// A server's machine loses power: what was written and not flushed is lost, kept or torn, at
    /// random.
    Power,
}

/// What a fault needs from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// A network namespace, and `ip`.
    Network,
    /// `tc` with htb in it.
    Queues,
    /// A mount namespace, loop devices and ext4.
    Disk,
    /// That, and cgroup v1 `blkio.throttle`.
    Throttle,
    /// Time namespaces (`unshare --time`).
    Time,
    /// That of `Disk`, and FUSE.
    Recorder,
}

impl Fault {
    /// All, in the order of the table above.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Its name on the command line and in reports.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it needs.
    pub fn need(self) -> Need {
        match self {
            Self::Kill | Self::Pause | Self::Wipe | Self::Rot => Need::Nothing,
            Self::Cut | Self::OneWay | Self::Loss => Need::Network,
            Self::Delay => Need::Queues,
            Self::Full => Need::Disk,
            Self::Throttle => Need::Throttle,
            Self::Clock => Need::Time,
            Self::Power => Need::Recorder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_documentation() {
        let names: Vec<String> = Fault::all().iter().map(|fault| fault.name()).collect();
        assert_eq!(
            names.join(","),
            "kill,pause,cut,one-way,loss,delay,throttle,full,clock,wipe,rot,power"
        );
    }
}

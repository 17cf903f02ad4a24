//! Which machine, kernel and commit does a figure belong to?
//!
//! Enough to judge and repeat a measurement, and nothing that names a host or a place on it:
//! reports are published.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::volume::Volume;

/// What a report says about where it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// CPU model as the kernel names it.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cores: usize,
    /// Total memory, MiB.
    pub memory_mib: u64,
    /// `Linux` and its release.
    pub kernel: String,
    /// Whether a hypervisor is underneath, which makes waking an idle CPU expensive.
    pub virtualised: bool,
    /// File system and device of the data.
    pub data_on: String,
    /// Git commit of the working tree, short, with `-dirty` when it had changes.
    pub commit: String,
}

impl Machine {
    /// Looks around.
    pub fn describe(volume: &Volume) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: cpuinfo_field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            memory_mib: meminfo_kib(&meminfo, "MemTotal").unwrap_or(0) / 1024,
            kernel: format!("Linux {}", release.trim()),
            virtualised: cpuinfo_field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|f| f == "hypervisor")),
            data_on: volume.describe(),
            commit: commit(),
        }
    }
}

fn cpuinfo_field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn meminfo_kib(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(':')?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

/// Short commit of the working tree we run in, or `unknown` outside of one.
fn commit() -> String {
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).output().ok()?;
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".into();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => hash,
        _ => format!("{hash}-dirty"),
    }
}

/// Today, UTC, `YYYY-MM-DD`.
pub fn today() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    now[..10].to_owned()
}

/// The command line for a report: paths are cut to their last component, because a report says
/// on which file system data lay and not where.
pub fn command_line(args: impl Iterator<Item = String>) -> String {
    let cut = |arg: String| {
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (format!("{flag}="), value.to_owned()),
            None => (String::new(), arg),
        };
        let shown = match value.rsplit_once('/') {
            Some((_, name)) if value.starts_with(['/', '.', '~']) || value.contains('/') => {
                name.to_owned()
            }
            _ => value,
        };
        format!("{flag}{shown}")
    };
    args.map(cut).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_the_command_line_keep_only_their_last_component() {
        let args = [
            "/home/x/target/release/curia-bench",
            "floor",
            "--data-dir",
            "/secret/place/d1",
            "--curia=/secret/curia",
            "--servers",
            "1,3",
        ];
        let shown = command_line(args.iter().map(|s| s.to_string()));
        assert_eq!(
            shown,
            "curia-bench floor --data-dir d1 --curia=curia --servers 1,3"
        );
    }

    #[test]
    fn cpu_and_memory_lines_are_read_by_name() {
        let cpu = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu vme hypervisor\n";
        assert_eq!(cpuinfo_field(cpu, "model name").unwrap(), "AMD EPYC");
        assert_eq!(cpuinfo_field(cpu, "model"), None);
        assert_eq!(
            meminfo_kib("MemTotal:       25165824 kB\nMemFree: 1 kB\n", "MemTotal"),
            Some(25_165_824)
        );
    }

    #[test]
    fn today_is_a_date() {
        let day = today();
        assert_eq!(day.len(), 10);
        assert!(
            day.split('-').all(|part| part.parse::<u32>().is_ok()),
            "{day}"
        );
    }
}

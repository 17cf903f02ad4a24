//! What has a server process cost so far?
//!
//! CPU comes from the process's CPU-time clock (`clock_getcpuclockid(3)`): nanoseconds, of all
//! its threads and kernel io workers, those that have ended included. `/proc/PID/stat` counts the
//! same in ticks of 10 ms, too coarse for a thousand commits; summing `/proc/PID/task/*/schedstat`
//! forgets threads that ended. Context switches exist only per task, so a task that ended
//! between two samples takes its switches with it: fine for servers, whose threads stay.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{Context, Error, Result};

/// Counters of one process since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSample {
    /// CPU time, nanoseconds.
    pub cpu_ns: u64,
    /// Voluntary and involuntary context switches by task id.
    pub switches: BTreeMap<i32, u64>,
    /// Bytes it caused to be sent to the block layer (`write_bytes` of `/proc/PID/io`).
    pub write_bytes: u64,
}

impl ProcessSample {
    /// Reads the counters of `pid`. Fails once the process is gone.
    pub fn of(pid: i32) -> Result<Self> {
        Ok(Self {
            cpu_ns: cpu_ns(pid)?,
            switches: switches(pid)?,
            write_bytes: field(&read(pid, "io")?, "write_bytes").unwrap_or(0),
        })
    }

    /// Context switches since `earlier`, over the tasks alive now.
    pub fn switches_since(&self, earlier: &Self) -> u64 {
        self.switches
            .iter()
            .map(|(task, now)| now - earlier.switches.get(task).copied().unwrap_or(0).min(*now))
            .sum()
    }
}

/// Resident memory of `pid` in bytes (`VmRSS`).
pub fn resident_bytes(pid: i32) -> Result<u64> {
    let status = read(pid, "status")?;
    field(&status, "VmRSS")
        .map(|kib| kib * 1024)
        .ok_or_else(|| {
            Error::Server(format!(
                "process {pid} has ended: its memory cannot be read"
            ))
        })
}

fn cpu_ns(pid: i32) -> Result<u64> {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both pointers are to live locals of the right type.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid, &mut clock) != 0
            || libc::clock_gettime(clock, &mut time) != 0
    };
    if failed {
        return Err(Error::Server(format!(
            "process {pid} has ended: its CPU time cannot be read"
        )));
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn switches(pid: i32) -> Result<BTreeMap<i32, u64>> {
    let dir = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&dir).context(|| format!("list the tasks of process {pid}"))?;
    let mut found = BTreeMap::new();
    for task in tasks.flatten() {
        let Some(id) = task.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // A task that ended since the listing has no switches to tell.
        if let Ok(status) = fs::read_to_string(task.path().join("status")) {
            found.insert(id, switches_in(&status));
        }
    }
    Ok(found)
}

fn switches_in(status: &str) -> u64 {
    field(status, "voluntary_ctxt_switches").unwrap_or(0)
        + field(status, "nonvoluntary_ctxt_switches").unwrap_or(0)
}

/// The number behind `name:` at the start of a line of a `/proc` file.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(':')?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

fn read(pid: i32, file: &str) -> Result<String> {
    let path = Path::new("/proc").join(pid.to_string()).join(file);
    fs::read_to_string(&path).context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tcuria\nVmPeak:\t  99999 kB\nVmRSS:\t    3060 kB\nThreads:\t2\n\
                          voluntary_ctxt_switches:\t120\nnonvoluntary_ctxt_switches:\t7\n";

    #[test]
    fn fields_are_found_by_whole_name() {
        assert_eq!(field(STATUS, "VmRSS"), Some(3060));
        assert_eq!(field(STATUS, "Vm"), None);
        assert_eq!(field(STATUS, "RSS"), None);
        assert_eq!(
            switches_in(STATUS),
            127,
            "voluntary is not a suffix match of nonvoluntary"
        );
        let io = "rchar: 1\nwchar: 2\nread_bytes: 3\nwrite_bytes: 4096\ncancelled_write_bytes: 9\n";
        assert_eq!(field(io, "write_bytes"), Some(4096));
    }

    #[test]
    fn switches_count_new_tasks_whole_and_ended_tasks_not() {
        let earlier = ProcessSample {
            switches: BTreeMap::from([(1, 10), (2, 50)]),
            ..Default::default()
        };
        let later = ProcessSample {
            switches: BTreeMap::from([(1, 15), (3, 4)]),
            ..Default::default()
        };
        assert_eq!(later.switches_since(&earlier), 9);
    }

    #[test]
    fn our_own_process_can_be_sampled_and_time_moves_on() {
        let pid = std::process::id() as i32;
        let before = ProcessSample::of(pid).unwrap();
        let mut x = 1u64;
        for i in 0..5_000_000u64 {
            x = std::hint::black_box(x.wrapping_mul(i | 1));
        }
        let after = ProcessSample::of(pid).unwrap();
        assert!(after.cpu_ns > before.cpu_ns);
        assert!(resident_bytes(pid).unwrap() > 100_000);
    }

    #[test]
    fn a_process_that_never_was_is_an_error() {
        assert!(ProcessSample::of(i32::MAX - 1).is_err());
    }
}

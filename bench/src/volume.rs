//! Where does the data really lie, and how often was that disk flushed?
//!
//! A commit latency measured on tmpfs is a measurement of nothing: there is no disk to wait for.
//! So the file system is looked at first, and the flushes of a run are counted where they cannot
//! be talked away: in `/proc/diskstats` of the whole device (partitions do not count flushes).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Context, Error, Result};

/// What a directory is stored on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// File system type as mounted, e.g. `ext4`.
    pub filesystem: String,
    /// Whole-disk device name, e.g. `vda`; `None` where there is none (tmpfs, overlay).
    pub device: Option<String>,
}

/// Counters of a disk since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSample {
    /// Writes completed (flushes included, as the kernel counts).
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Flush requests completed.
    pub flushes: u64,
}

impl Volume {
    /// Looks up what `dir` (which exists) is stored on.
    pub fn of(dir: &Path) -> Result<Self> {
        let meta = fs::metadata(dir).context(|| format!("look at {}", dir.display()))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .context(|| "read /proc/self/mountinfo".into())?;
        let real = fs::canonicalize(dir).context(|| format!("resolve {}", dir.display()))?;
        let mount = mount_of(&mounts, &real);
        let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
        let device = device_name(major, minor).or_else(|| {
            // btrfs and overlays have anonymous device numbers; the mount source may be a disk.
            let source = PathBuf::from(&mount.as_ref()?.source);
            let rdev = fs::metadata(source).ok()?.rdev();
            device_name(libc::major(rdev), libc::minor(rdev))
        });
        Ok(Self {
            filesystem: mount.map_or_else(|| "unknown".into(), |m| m.filesystem),
            device,
        })
    }

    /// Refuses memory-backed file systems, on which there is nothing to measure.
    pub fn require_disk(&self, dir: &Path) -> Result<()> {
        if matches!(self.filesystem.as_str(), "tmpfs" | "ramfs" | "devtmpfs") {
            return Err(Error::Environment(format!(
                "{} is on {}, which is memory: no commit latency can be measured there. Pass \
                 --data-dir on a real disk, or --allow-tmpfs if you know what the figures mean.",
                dir.display(),
                self.filesystem
            )));
        }
        Ok(())
    }

    /// The disk's counters now; `None` where there is no disk to ask.
    pub fn sample(&self) -> Option<DiskSample> {
        let stats = fs::read_to_string("/proc/diskstats").ok()?;
        disk_sample(&stats, self.device.as_deref()?)
    }

    /// For reports: `ext4 on vda`.
    pub fn describe(&self) -> String {
        match &self.device {
            Some(device) => format!("{} on {device}", self.filesystem),
            None => format!("{}, no block device of its own", self.filesystem),
        }
    }
}

struct Mount {
    filesystem: String,
    source: String,
}

/// The mount that holds the absolute path `dir`: the longest mount point that is a prefix of it,
/// and of two at the same place the later, which hides the earlier.
fn mount_of(mountinfo: &str, dir: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mountinfo.lines() {
        let (Some(point), Some((_, tail))) = (line.split(' ').nth(4), line.split_once(" - "))
        else {
            continue;
        };
        let point = unescape(point);
        let mut tail = tail.split(' ');
        let (Some(filesystem), Some(source)) = (tail.next(), tail.next()) else {
            continue;
        };
        if dir.starts_with(&point) && best.as_ref().is_none_or(|(n, _)| point.len() >= *n) {
            let mount = Mount {
                filesystem: filesystem.into(),
                source: unescape(source),
            };
            best = Some((point.len(), mount));
        }
    }
    best.map(|(_, mount)| mount)
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// Name of the whole disk behind a device number; a partition is resolved to its disk.
fn device_name(major: u32, minor: u32) -> Option<String> {
    let link = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let disk = if link.join("partition").exists() {
        link.parent()?.to_path_buf()
    } else {
        link
    };
    Some(disk.file_name()?.to_str()?.to_owned())
}

/// One device's line of `/proc/diskstats` (Documentation/admin-guide/iostats.rst: field 5 is
/// writes completed, 7 sectors of 512 bytes written, 16 flushes; since Linux 5.5).
fn disk_sample(diskstats: &str, device: &str) -> Option<DiskSample> {
    diskstats.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(2);
        if fields.next()? != device {
            return None;
        }
        let n: Vec<u64> = fields.map_while(|f| f.parse().ok()).collect();
        Some(DiskSample {
            writes: *n.get(4)?,
            written_bytes: n.get(6)? * 512,
            flushes: *n.get(15)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISKSTATS: &str = "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n \
        254       0 vda 15421 5950 4913338 11995 6057 35419 11086432 27030 0 5636 39433 5209 47 276552 406 36 1\n \
        254       1 vda1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 0 0\n";

    #[test]
    fn the_flush_counter_is_the_sixteenth_number_of_the_right_device() {
        let sample = disk_sample(DISKSTATS, "vda").unwrap();
        assert_eq!(
            sample,
            DiskSample {
                writes: 6057,
                written_bytes: 11_086_432 * 512,
                flushes: 36
            }
        );
        assert_eq!(disk_sample(DISKSTATS, "vda1").unwrap().writes, 5);
        assert_eq!(disk_sample(DISKSTATS, "vd"), None);
    }

    #[test]
    fn a_kernel_before_5_5_has_no_flush_counter_and_that_is_not_zero() {
        let old = " 8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n";
        assert_eq!(disk_sample(old, "sda"), None);
    }

    #[test]
    fn the_longest_and_latest_mount_wins() {
        let info = "21 1 254:0 / / rw - ext4 /dev/root rw\n\
                    22 21 0:5 / /mnt/a\\040b rw,x shared:1 - tmpfs tmpfs rw\n\
                    23 21 0:6 / /mnt rw - xfs /dev/sdb rw\n\
                    24 21 0:7 / /mnt rw - btrfs /dev/sdc rw\n";
        let fs = |dir: &str| mount_of(info, Path::new(dir)).unwrap().filesystem;
        assert_eq!(fs("/data"), "ext4");
        assert_eq!(fs("/mnt/a b/c"), "tmpfs");
        assert_eq!(fs("/mnt/a"), "btrfs");
        assert_eq!(fs("/mntx"), "ext4", "prefixes are by path component");
    }

    #[test]
    fn tmpfs_is_refused_by_name() {
        let memory = Volume {
            filesystem: "tmpfs".into(),
            device: None,
        };
        let text = memory
            .require_disk(Path::new("/x"))
            .unwrap_err()
            .to_string();
        assert!(text.contains("/x") && text.contains("--data-dir"), "{text}");
        let disk = Volume {
            filesystem: "ext4".into(),
            device: Some("vda".into()),
        };
        disk.require_disk(Path::new("/x")).unwrap();
    }
}

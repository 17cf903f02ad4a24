//! How does a server get a disk that fills, slows down and loses power?
//!
//! An ext4 of some MiB on a loop device, whose file is an ordinary one or a [`Recorder`]'s. It is
//! filled with ballast, slowed by the block I/O controller (cgroup v1, which works with direct
//! I/O), and unplugged by its recorder. A server without such a disk lies on the host's.
//!
//! Invariant: at the end the file system is unmounted and its loop device free, also when a step
//! in between failed.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::dice::Dice;
use super::place::{tell_kernel, tool};
use super::recorder::{Loss, Recorder};
use crate::{Context, Error, Result};

/// Size of a disk: a server's log, two images and what it wants to keep free.
pub const DISK_BYTES: usize = 80 << 20;
/// Left free by [`Disk::fill`], bytes.
const LEFT_FREE_BYTES: u64 = 64 << 10;
/// Bytes a second of a throttled disk.
const THROTTLE_BPS: u32 = 300_000;
/// Where groups for slow disks are made.
pub const THROTTLE_GROUPS: &str = "/sys/fs/cgroup/blkio";
/// How long the kernel may hold on to a file system whose last user was killed.
const UNMOUNT_MAX: Duration = Duration::from_secs(20);

/// A mounted disk.
#[derive(Debug)]
pub struct Disk {
    mount: PathBuf,
    /// Empty while it is unplugged.
    device: String,
    image: PathBuf,
    recorder: Option<Recorder>,
    group: Option<PathBuf>,
}

impl Disk {
    /// Makes and mounts one at `place`/disk. Only a recording one can lose power.
    pub fn create(place: &Path, recording: bool) -> Result<Self> {
        let (recorder, image) = match recording {
            true => {
                let recorder = Recorder::mount(&place.join("recorder"), DISK_BYTES)?;
                let file = recorder.file().to_owned();
                (Some(recorder), file)
            }
            false => {
                let image = place.join("disk.image");
                let made = File::create(&image).and_then(|file| file.set_len(DISK_BYTES as u64));
                made.context(|| format!("create {}", image.display()))?;
                (None, image)
            }
        };
        let mount = place.join("disk");
        fs::create_dir_all(&mount).context(|| format!("create {}", mount.display()))?;
        let mut disk = Self {
            mount,
            device: String::new(),
            image,
            recorder,
            group: None,
        };
        disk.attach()?;
        let made = tool(
            "mkfs.ext4",
            &["-q", "-m", "0", "-J", "size=4", &disk.device],
        );
        made.context(|| "make a file system".into())?;
        disk.mount()?;
        Ok(disk)
    }

    fn attach(&mut self) -> Result<()> {
        let image = self.image.display().to_string();
        let found = tool("losetup", &["--find", "--show", &image]);
        self.device = found.context(|| format!("attach {image} to a loop device"))?;
        Ok(())
    }

    fn mount(&self) -> Result<()> {
        let to = self.mount.display().to_string();
        let mounted = tool("mount", &["-t", "ext4", &self.device, &to]);
        mounted.context(|| format!("mount {} at {to}", self.device))?;
        // The loop device goes by itself when it is unmounted, however that comes about.
        tool("losetup", &["--detach", &self.device])
            .map(drop)
            .context(|| format!("let go of {}", self.device))
    }

    /// Unmounts and detaches; waits for a kernel that still ends a killed process's I/O.
    fn detach(&mut self) -> Result<()> {
        if self.device.is_empty() {
            return Ok(());
        }
        let to = self.mount.display().to_string();
        let deadline = Instant::now() + UNMOUNT_MAX;
        loop {
            match tool("umount", &[&to]) {
                Ok(_) => break,
                Err(error) if error.to_string().contains("not mounted") => break,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context(|| format!("unmount {to}"));
                }
                Err(_) => sleep(Duration::from_millis(10)),
            }
        }
        let device = std::mem::take(&mut self.device);
        let backing = format!("/sys/block/{}/loop", device.trim_start_matches("/dev/"));
        while Path::new(&backing).exists() {
            if Instant::now() > deadline {
                let what = format!("{device} is not free {UNMOUNT_MAX:?} after it was unmounted");
                return Err(Error::Environment(what));
            }
            // One that never was mounted is still attached.
            let _ = tool("losetup", &["--detach", &device]);
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether it can lose power.
    pub fn can_lose_power(&self) -> bool {
        self.recorder.is_some()
    }

    /// Its power will go with its next flush.
    pub fn arm_power_cut(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.arm();
        }
    }

    /// Cuts its power: nothing more reaches it. The server is to be killed now.
    pub fn cut_power(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.cut();
        }
    }

    /// Gives power back after its server was killed, and mounts what is left.
    pub fn restore_power(&mut self, dice: &mut Dice) -> Result<Loss> {
        self.detach()?;
        let loss = match &self.recorder {
            Some(recorder) => recorder.restore(dice),
            None => Loss::default(),
        };
        self.attach()?;
        self.mount()?;
        Ok(loss)
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Takes nearly all the space that is left.
    pub fn fill(&self) -> Result<()> {
        let path = self.ballast();
        let what = || format!("fill {}", self.mount.display());
        let file = File::create(&path).context(what)?;
        let free = free_bytes(&file).context(what)?;
        let bytes = free.saturating_sub(LEFT_FREE_BYTES) as i64;
        if bytes > 0 {
            // SAFETY: the descriptor is open; the call takes no pointers. If it fails because
            // somebody took the space meanwhile, the disk is as full as it was to be.
            unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) };
        }
        Ok(())
    }

    /// Gives the space back.
    pub fn make_room(&self) -> Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("make room on {}", self.mount.display()))
            }
            _ => Ok(()),
        }
    }

    /// Slows it down for one process.
    pub fn throttle(&mut self, pid: i32) -> Result<()> {
        let number = self.device.trim_start_matches("/dev/loop");
        let name = format!("curia-nemesis-{}-{number}", std::process::id());
        let group = Path::new(THROTTLE_GROUPS).join(name);
        fs::create_dir_all(&group).context(|| format!("create {}", group.display()))?;
        self.group = Some(group.clone());
        let limit = format!("7:{number} {THROTTLE_BPS}");
        tell_kernel(&group.join("blkio.throttle.write_bps_device"), &limit)?;
        tell_kernel(&group.join("cgroup.procs"), &pid.to_string())
    }

    /// Lets it run at full speed; `pid` is the process if it still runs.
    pub fn release(&mut self, pid: Option<i32>) -> Result<()> {
        let Some(group) = self.group.take() else {
            return Ok(());
        };
        let number = self.device.trim_start_matches("/dev/loop");
        // 0 takes the limit away, also for what waits already.
        tell_kernel(
            &group.join("blkio.throttle.write_bps_device"),
            &format!("7:{number} 0"),
        )?;
        if let Some(pid) = pid {
            tell_kernel(
                &Path::new(THROTTLE_GROUPS).join("cgroup.procs"),
                &pid.to_string(),
            )?;
        }
        // It goes when the kernel has forgotten its last member; if not now, nothing is lost.
        let _ = fs::remove_dir(&group);
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.release(None);
        if let Err(error) = self.detach() {
            eprintln!("not cleaned up: {error}");
        }
    }
}

fn free_bytes(file: &File) -> std::io::Result<u64> {
    // SAFETY: all zeros is a valid statvfs.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and the pointer is to a live local of the right type.
    match unsafe { libc::fstatvfs(file.as_raw_fd(), &mut found) } {
        0 => Ok(found.f_bavail * found.f_bsize),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A run without small disks cannot be asked for what needs them.
pub fn needed(disk: &mut Option<Disk>) -> Result<&mut Disk> {
    disk.as_mut()
        .ok_or_else(|| Error::Environment("this server lies on the host's disk".into()))
}

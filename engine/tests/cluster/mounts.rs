//! File systems of a few MiB that can be filled, frozen and broken.
//!
//! They need the right to mount. Where it is missing, the test that asks is told so and says
//! loudly that it tested nothing.

use std::{
    ffi::{CStr, CString},
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process::Command,
};

const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

/// A mounted file system; unmounted at the end.
pub struct SmallDisk {
    path: PathBuf,
    /// Where its blocks lie, for ext4 on a loop device.
    backing: Option<Backing>,
}

struct Backing {
    device: String,
    image: PathBuf,
    /// The file system that the image lies on.
    below: Option<Box<SmallDisk>>,
}

impl SmallDisk {
    /// A tmpfs.
    pub fn tmpfs(path: PathBuf, mib: usize) -> Option<Self> {
        let mounted = mount(c"tmpfs", c"tmpfs", &path, &format!("size={mib}m"));
        loudly(mounted.map(|()| Self {
            path,
            backing: None,
        }))
    }

    /// An ext4 on a loop device.
    pub fn ext4(path: PathBuf, mib: usize) -> Option<Self> {
        let image = path.with_extension("image");
        loudly(on_loop(path, image, mib, None))
    }

    /// An ext4 on a loop device whose own disk can be taken away ([`SmallDisk::break_down`]).
    pub fn fragile(path: PathBuf, mib: usize) -> Option<Self> {
        let below = Self::tmpfs(path.with_extension("below"), mib + 16)?;
        let image = below.path.join("image");
        loudly(on_loop(path, image, mib, Some(Box::new(below))))
    }

    /// A directory on it.
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Takes this much of its space until [`SmallDisk::make_room`].
    pub fn take_space(&self, mib: usize) {
        fs::write(self.ballast(), vec![1; mib << 20]).expect("the ballast fits");
    }

    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("the ballast is there");
    }

    /// From now on writes hang.
    pub fn freeze(&self) {
        self.ioctl(FIFREEZE)
            .expect("a mounted file system can be frozen");
    }

    /// Writes go on.
    pub fn thaw(&self) {
        self.ioctl(FITHAW)
            .expect("a frozen file system can be thawed");
    }

    fn ioctl(&self, request: libc::c_ulong) -> io::Result<()> {
        let root = File::open(&self.path)?;
        // SAFETY: the descriptor is open; these requests take no argument.
        ok(unsafe { libc::ioctl(root.as_raw_fd(), request as _, 0) })
    }

    /// From now on every write of its blocks fails: their places are given back, and the disk
    /// below has no others.
    pub fn break_down(&self) {
        let backing = self
            .backing
            .as_ref()
            .expect("only a fragile disk breaks down");
        let below = backing
            .below
            .as_ref()
            .expect("only a fragile disk breaks down");
        let image = File::options()
            .write(true)
            .open(&backing.image)
            .expect("the image is there");
        let length = image.metadata().expect("the image is there").len();
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: the descriptor is open; the call takes no pointers.
        ok(unsafe { libc::fallocate(image.as_raw_fd(), mode, 0, length as i64) })
            .expect("tmpfs can punch holes");
        let filled = fs::write(below.ballast(), vec![1; 1 << 30]);
        assert!(filled.is_err(), "the disk below is full now");
    }
}

fn on_loop(
    path: PathBuf,
    image: PathBuf,
    mib: usize,
    below: Option<Box<SmallDisk>>,
) -> io::Result<SmallDisk> {
    File::create(&image)?.set_len((mib as u64) << 20)?;
    let image_name = image.to_string_lossy().into_owned();
    let device = run("losetup", &["--find", "--show", &image_name])?;
    let backing = Backing {
        device: device.clone(),
        image,
        below,
    };
    let disk = SmallDisk {
        path,
        backing: Some(backing),
    };
    run("mkfs.ext4", &["-q", "-m", "0", &device])?;
    let source = CString::new(device).expect("a device has no 0 in its name");
    mount(&source, c"ext4", &disk.path, "")?;
    Ok(disk)
}

fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("{program}: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn mount(source: &CStr, kind: &CStr, path: &Path, options: &str) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let target = c_path(path);
    let options = CString::new(options).expect("options have no 0");
    // SAFETY: all pointers are to strings that end in 0 and live through the call.
    ok(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    })
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path has no 0")
}

fn ok(result: i32) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn loudly(disk: io::Result<SmallDisk>) -> Option<SmallDisk> {
    disk.inspect_err(|error| eprintln!("NOT TESTED: no small file system here: {error}"))
        .ok()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Frozen by a test that failed, it would keep its server's process for ever.
        let _ = self.ioctl(FITHAW);
        let target = c_path(&self.path);
        // SAFETY: the pointer is to a string that ends in 0 and lives through the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        if let Some(backing) = &self.backing {
            let _ = run("losetup", &["--detach", &backing.device]);
        }
    }
}

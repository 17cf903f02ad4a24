//! Who cleans up when a run ends in a way nobody planned?
//!
//! Child processes and scratch directories are registered the moment they exist. They go when
//! their guard is dropped; on SIGINT, SIGTERM and SIGHUP, which one thread waits for; and on a
//! panic, by a hook, because release builds abort instead of unwinding. Should all of that fail
//! (SIGKILL), the kernel kills the children: each asks for it with `PR_SET_PDEATHSIG` before it
//! becomes the server. That signal follows the *thread* that started the child, so children are
//! started only from threads that live as long as they.
//!
//! Invariant: only processes started here are ever signalled, and a pid is forgotten under the
//! same lock under which it is reaped, so it cannot have passed to somebody else.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, Once};

use crate::{Context, Result};

#[derive(Default)]
struct Registry {
    pids: Vec<i32>,
    dirs: Vec<PathBuf>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    pids: Vec::new(),
    dirs: Vec::new(),
});

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Arranges for clean-up on signals and panics. Call first in `main`, before any thread starts,
/// so that every thread inherits the blocked signals.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            previous(info);
            // The panicking thread may hold the lock: then the kernel's death signal does it.
            if let Ok(mut registry) = REGISTRY.try_lock() {
                sweep(&mut registry);
            }
        }));
        let signals = termination_signals();
        // SAFETY: the set is initialised; only this thread's mask changes.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut()) };
        std::thread::spawn(move || {
            let mut signal = 0;
            // SAFETY: both pointers are to live locals.
            if unsafe { libc::sigwait(&signals, &mut signal) } == 0 {
                // Held to the end: nobody who finds the servers dead gets to tell it as news.
                let mut registry = registry();
                sweep(&mut registry);
                // SAFETY: ends the process without running destructors, which is intended:
                // everything that must not outlive us is gone.
                unsafe { libc::_exit(128 + signal) };
            }
        });
    });
}

fn termination_signals() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

fn sweep(registry: &mut Registry) {
    for pid in &registry.pids {
        // SAFETY: a plain system call; the pid is ours and not yet reaped, see the head.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
    for pid in registry.pids.drain(..) {
        // Only when it is gone does it make no more files where we are about to remove them.
        // SAFETY: a plain system call on our own child; no status is asked for.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
    for dir in registry.dirs.drain(..) {
        let _ = fs::remove_dir_all(dir);
    }
}

/// A child process that is killed when this is dropped.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    reaped: Option<ExitStatus>,
}

impl ChildGuard {
    /// Starts `command`, to die with the calling thread.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let parent = std::process::id() as libc::pid_t;
        // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls.
        unsafe {
            command.pre_exec(move || {
                let mut none: libc::sigset_t = std::mem::zeroed();
                libc::sigemptyset(&mut none);
                libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The parent may have died before the line above took effect.
                if libc::getppid() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
        let mut registry = registry();
        let child = command.spawn()?;
        registry.pids.push(child.id() as i32);
        Ok(Self {
            child,
            reaped: None,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.reaped.is_none() {
            let mut registry = registry();
            if let Ok(Some(status)) = self.child.try_wait() {
                registry.pids.retain(|pid| *pid != self.child.id() as i32);
                self.reaped = Some(status);
            }
        }
        self.reaped
    }

    /// `kill -9`, and waits until the kernel has taken it down (its ports and locks are free).
    pub fn kill(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let mut registry = registry();
        let _ = self.child.kill();
        if let Ok(status) = self.child.wait() {
            self.reaped = Some(status);
        }
        registry.pids.retain(|pid| *pid != self.child.id() as i32);
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory that is removed when this is dropped, unless it is to be kept.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Creates `parent/name-<pid>-<n>`; `parent` is created too and stays.
    pub fn create(parent: &Path, name: &str, keep: bool) -> Result<Self> {
        fs::create_dir_all(parent).context(|| {
            format!(
                "create the data directory {} (pass another --data-dir)",
                parent.display()
            )
        })?;
        let pid = std::process::id();
        for n in 0.. {
            let path = parent.join(format!("{name}-{pid}-{n}"));
            match fs::create_dir(&path) {
                Ok(()) => {
                    if !keep {
                        registry().dirs.push(path.clone());
                    }
                    return Ok(Self { path, keep });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).context(|| format!("create {}", path.display())),
            }
        }
        unreachable!("the loop has no end")
    }

    /// Leaves it behind after all.
    pub fn keep(&mut self) {
        self.keep = true;
        registry().dirs.retain(|dir| *dir != self.path);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept: {}", self.path.display());
            return;
        }
        registry().dirs.retain(|dir| *dir != self.path);
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn sleeper() -> ChildGuard {
        ChildGuard::spawn(Command::new("sleep").arg("600").stdout(Stdio::null())).unwrap()
    }

    #[test]
    fn dropping_the_guard_kills_and_forgets_the_child() {
        let guard = sleeper();
        let pid = guard.pid();
        assert!(registry().pids.contains(&pid));
        drop(guard);
        assert!(!registry().pids.contains(&pid));
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "reaped, not a zombie"
        );
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let mut guard = std::thread::spawn(sleeper).join().unwrap();
        let status = guard.child.wait().unwrap();
        assert!(!status.success(), "the kernel's death signal ended it");
    }

    #[test]
    fn killing_twice_and_killing_an_ended_child_are_harmless() {
        let mut guard = ChildGuard::spawn(&mut Command::new("true")).unwrap();
        guard.child.wait().unwrap();
        guard.kill();
        guard.kill();
        assert!(guard.ended().is_some());
    }

    #[test]
    fn scratch_directories_go_and_kept_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let gone = Scratch::create(parent.path(), "a", false).unwrap();
        let gone_path = gone.path().to_owned();
        drop(gone);
        assert!(!gone_path.exists());
        let kept = Scratch::create(parent.path(), "a", true).unwrap();
        let kept_path = kept.path().to_owned();
        drop(kept);
        assert!(kept_path.exists());
    }
}

//! How does a command run another one, pass signals on to it, and learn that it has ended?
//!
//! `curia lock` and `curia watch` sleep on one channel of [`Event`]s; plain threads feed it. A child
//! is waited for without being reaped, so that its process id stays its own until the main thread,
//! which alone sends signals, has heard of the end.

use std::{
    env, io,
    os::unix::process::CommandExt,
    process::{self, Command, ExitStatus},
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group,
        set_parent_process_death_signal, test_kill_process_group, waitid,
    },
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::Signals,
};

use super::CliError;

/// Between two looks at whether a group is gone, of which nobody tells.
const GROUP_POLL: Duration = Duration::from_millis(20);

/// What happens while a command runs; `T` is the command's own.
#[derive(Debug)]
pub(super) enum Event<T> {
    /// This process was sent a signal.
    Signal(i32),
    /// The child has ended, and waits to be reaped.
    ChildEnded,
    /// The command's own news.
    News(T),
}

/// Whether a signal asks this process to end.
pub(super) fn ends(signal: i32) -> bool {
    [SIGINT, SIGTERM, SIGQUIT, SIGHUP].contains(&signal)
}

/// Takes the signals that children are to hear of, from now on.
pub(super) fn take_signals<T: Send + 'static>(events: Sender<Event<T>>) -> Result<(), CliError> {
    let taken = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];
    let mut signals = Signals::new(taken)
        .map_err(|error| CliError(format!("Error: cannot take signals: {error}")))?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                break;
            }
        }
    });
    Ok(())
}

/// The command line of a child: through `$SHELL -c` as Consul runs it, or as it stands.
pub(super) fn command(args: &[String], shell: bool) -> Command {
    let shell_path = || {
        let chosen = env::var_os("SHELL").filter(|shell| !shell.is_empty());
        chosen.unwrap_or_else(|| "/bin/sh".into())
    };
    match args {
        [program, rest @ ..] if !shell => {
            let mut command = Command::new(program);
            command.args(rest);
            command
        }
        _ => {
            let mut command = Command::new(shell_path());
            command.arg("-c").arg(args.join(" "));
            command
        }
    }
}

/// A running child.
pub(super) struct Child {
    process: process::Child,
    pid: Pid,
    group: bool,
}

impl Child {
    /// Starts `command`; its end becomes an event. With `group` the child leads a process group of
    /// its own, and signals reach what it has started too. Called on the main thread: should this
    /// process be killed, the kernel sends SIGTERM to the child when the thread that started it ends.
    pub(super) fn start<T: Send + 'static>(
        mut command: Command,
        group: bool,
        events: Sender<Event<T>>,
    ) -> io::Result<Self> {
        if group {
            command.process_group(0);
        }
        // SAFETY: between fork and exec, one system call that allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let process = command.spawn()?;
        let pid = Pid::from_child(&process);
        thread::spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
            let _ = events.send(Event::ChildEnded);
        });
        Ok(Self {
            process,
            pid,
            group,
        })
    }

    /// The child's standard input, if it was piped and is taken for the first time.
    pub(super) fn take_stdin(&mut self) -> Option<process::ChildStdin> {
        self.process.stdin.take()
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal to the child, or to its group.
    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        match self.group {
            true => kill_process_group(self.pid, signal)?,
            false => kill_process(self.pid, signal)?,
        }
        Ok(())
    }

    /// Sees the rest of the child's group off, once [`Event::ChildEnded`] has told of the child's own
    /// end: what a shell had started may still be tidying up. What is there at `until` is killed.
    pub(super) fn reap_group(mut self, until: Instant) -> io::Result<()> {
        self.process.wait()?;
        while self.group && test_kill_process_group(self.pid).is_ok() {
            if Instant::now() >= until {
                return Ok(kill_process_group(self.pid, Signal::KILL)?);
            }
            thread::sleep(GROUP_POLL);
        }
        Ok(())
    }

    /// How the child ended, once [`Event::ChildEnded`] has told that it did.
    pub(super) fn reap(mut self) -> io::Result<ExitStatus> {
        self.process.wait()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_signal_reaches_the_grandchildren_of_a_group() {
        let (events, news) = mpsc::channel::<Event<()>>();
        let line = ["sleep 600 & wait".to_string()];
        let child = Child::start(command(&line, true), true, events).unwrap();
        let group = child.pid;
        child.signal(SIGTERM).unwrap();
        assert!(matches!(news.recv(), Ok(Event::ChildEnded)));
        assert!(!child.reap().unwrap().success());
        // The group is gone when its last member is; killed, they are at most zombies of init's.
        let mut tries = 0;
        while test_kill_process_group(group).is_ok() {
            tries += 1;
            assert!(tries < 2000, "the sleeper lives on");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn without_a_shell_arguments_stay_apart() {
        let args = ["printf".to_string(), "%s.".into(), "a b".into()];
        assert_eq!(command(&args, false).output().unwrap().stdout, b"a b.");
        let args = ["echo".to_string(), "a;".into(), "echo b".into()];
        assert_eq!(command(&args, true).output().unwrap().stdout, b"a\nb\n");
    }
}

//! `curia lock`: runs a command while it holds a lock, and ends it when the lock is gone.
//!
//! Keys, flags and sessions are those of Consul's lock library, so that its contenders and these
//! exclude each other. One thread waits for the lock and then watches its key, one keeps the
//! session; the main thread sleeps until one of them, the child or a signal has news. Whatever
//! happens, the child does not outlive the lock by more than [`GRACE`], which is far below the
//! lock-delay that keeps others out.

mod mutex;
mod semaphore;
mod session;
mod store;

use std::{
    process::{ExitCode, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use clap::{ArgAction, Args};
use signal_hook::consts::{SIGKILL, SIGTERM};

use self::{
    mutex::Mutex,
    semaphore::Semaphore,
    session::Session,
    store::{Failure, Look, Store},
};
use super::{
    CliError,
    child::{self, Child, Event},
    client::Client,
    durations,
    flags::ClientFlags,
    output::say,
};

/// How long a child may take to end by itself, after SIGTERM and before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Between a look at the held lock that failed and the next.
const MONITOR_RETRY: Duration = Duration::from_secs(1);
/// Longest wait of one look at the held lock; short enough to notice a connection that hangs.
const MONITOR_WAIT: Duration = Duration::from_secs(60);

/// Runs a command while holding a lock.
///
///   curia lock service/web/deploy ./deploy.sh
///   curia lock -n=3 batch/workers ./work --queue=low    (up to 3 at a time)
///   curia lock -timeout=10s -child-exit-code nightly 'backup && prune'
///
/// The lock is the key PREFIX/.lock, held by a session with a TTL of 15s; contenders that use
/// Consul's lock library, in Consul's command line or elsewhere, share it. The command runs
/// with CONSUL_LOCK_HELD=true. When it ends, the lock is released and the key deleted if nobody
/// else wants it.
///
/// If the lock is lost the command is sent SIGTERM, and SIGKILL 5 seconds later. Signals that
/// this command is sent go to the child; one that asks to end (SIGINT, SIGTERM, SIGHUP,
/// SIGQUIT) is followed by SIGTERM and SIGKILL, 5 seconds apart, and then the lock is released.
/// The child leads a process group of its own and signals reach all of it, unless -pass-stdin
/// keeps it at the terminal.
///
/// Exit code: 0 when the lock was held and the command has ended, whatever its own exit code
/// was (2 with -child-exit-code if it failed); 1 when the lock was not obtained, or was lost.
#[derive(Args, Debug, Default)]
#[command(verbatim_doc_comment)]
pub(super) struct LockFlags {
    /// How many may hold the lock at a time; above 1 it is a semaphore, and all contenders must
    /// give the same number
    #[arg(long = "n", value_name = "N", default_value = "1")]
    limit: String,
    /// Name of the session [default: made of the command and the prefix]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    name: String,
    /// Gives up when the lock was not obtained after this time, such as 10s or 3m [default: waits
    /// without end]
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        hide_default_value = true
    )]
    timeout: String,
    /// Old name of -timeout
    #[arg(long = "try", value_name = "DURATION", hide = true)]
    attempt: Option<String>,
    /// How many failed looks at the held lock in a row to ride out, one second apart
    #[arg(long, value_name = "N", default_value = "3")]
    monitor_retry: String,
    /// Exits with 2 if the command failed
    #[arg(long)]
    child_exit_code: bool,
    /// Gives standard input to the command
    #[arg(long)]
    pass_stdin: bool,
    /// Says what happens
    #[arg(long)]
    verbose: bool,
    /// Runs the command in a shell: $SHELL, or /bin/sh
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_possible_values = true, value_name = "BOOL")]
    shell: bool,
    /// Prefix of the lock's keys, and the command to run
    #[arg(value_name = "PREFIX COMMAND", allow_hyphen_values = true)]
    args: Vec<String>,
    #[command(flatten)]
    client: ClientFlags,
}

/// What threads tell the main one.
#[derive(Debug)]
enum News {
    /// The wait for the lock is over: it is held, or the time is up.
    Acquired(Result<bool, CliError>),
    /// The lock is no longer ours, or may not be.
    Lost(String),
}

/// What became of the lock's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cleanup {
    Done,
    /// Others use them.
    InUse,
}

/// The two kinds of lock.
#[derive(Clone)]
enum Lock {
    Mutex(Mutex),
    Semaphore(Semaphore),
}

impl Lock {
    fn new(wanted: &Wanted, client: &Client, session: String) -> Self {
        let (store, prefix) = (
            Store {
                client: client.clone(),
            },
            wanted.prefix.clone(),
        );
        // The same key for both, so that mixed use of a prefix is noticed.
        let key = format!("{prefix}/.lock");
        match wanted.limit {
            1 => Self::Mutex(Mutex {
                store,
                key,
                session,
            }),
            limit => Self::Semaphore(Semaphore {
                store,
                prefix,
                key,
                session,
                limit,
            }),
        }
    }

    fn acquire(&self, patience: Option<Duration>) -> Result<bool, CliError> {
        match self {
            Self::Mutex(mutex) => mutex.acquire(patience),
            Self::Semaphore(semaphore) => semaphore.acquire(patience),
        }
    }

    fn held(&self, look: Look) -> Result<(bool, u64), Failure> {
        match self {
            Self::Mutex(mutex) => mutex.held(look),
            Self::Semaphore(semaphore) => semaphore.held(look),
        }
    }

    fn release(&self) -> Result<(), CliError> {
        match self {
            Self::Mutex(mutex) => mutex.release(),
            Self::Semaphore(semaphore) => semaphore.release(),
        }
    }

    fn clean_up(&self) -> Result<Cleanup, CliError> {
        match self {
            Self::Mutex(mutex) => mutex.clean_up(),
            Self::Semaphore(semaphore) => semaphore.clean_up(),
        }
    }

    /// Returns when the lock is lost, and why. `retries` failed looks in a row are ridden out.
    fn monitor(&self, retries: u32) -> String {
        let mut look = Look {
            index: 0,
            wait: MONITOR_WAIT,
            consistent: true,
        };
        let mut left = retries;
        loop {
            match self.held(look) {
                Ok((true, index)) => {
                    look.index = index;
                    left = retries;
                }
                Ok((false, _)) => return "it is no longer held by this session".into(),
                Err(failure) if failure.passing && left > 0 => {
                    left -= 1;
                    look.index = 0;
                    thread::sleep(MONITOR_RETRY);
                }
                Err(failure) => return failure.why,
            }
        }
    }
}

/// The command line, checked.
struct Wanted {
    prefix: String,
    limit: u64,
    name: String,
    patience: Option<Duration>,
    monitor_retries: u32,
}

impl Wanted {
    fn new(flags: &LockFlags) -> Result<Self, CliError> {
        let fail = |text: &str| Err(CliError(text.into()));
        let Ok(limit @ 1..) = flags.limit.parse::<u64>() else {
            return fail("Lock holder limit must be positive");
        };
        let [prefix, command @ ..] = &flags.args[..] else {
            return fail("Key prefix and child command must be specified");
        };
        if command.is_empty() {
            return fail("Key prefix and child command must be specified");
        }
        let prefix = prefix.trim_matches('/').to_owned();
        if prefix.is_empty() {
            return fail("Key prefix must not be empty");
        }
        let timeout = flags.attempt.as_ref().unwrap_or(&flags.timeout);
        let Some(timeout) = durations::parse(timeout) else {
            return fail("Timeout must be positive, such as 10s or 1m30s");
        };
        let Ok(monitor_retries) = flags.monitor_retry.parse() else {
            return fail("Number for 'monitor-retry' must be >= 0");
        };
        let name = match &*flags.name {
            "" => format!("Consul lock for '{}' at '{prefix}'", command.join(" ")),
            name => name.into(),
        };
        Ok(Self {
            prefix,
            limit,
            name,
            patience: Some(timeout).filter(|timeout| !timeout.is_zero()),
            monitor_retries,
        })
    }
}

pub(super) fn run(flags: &LockFlags) -> Result<ExitCode, CliError> {
    let wanted = Wanted::new(flags)?;
    // What anyone happens to remember says nothing about who holds a lock.
    let asked = ClientFlags {
        stale: false,
        ..flags.client.clone()
    };
    let client = Client::new(&asked)?.with_patience(session::TTL);
    let (events, news) = mpsc::channel();
    child::take_signals(events.clone())?;
    let holder = Holder {
        flags,
        events,
        news,
    };
    holder.run(&wanted, &client)
}

/// The main thread's part.
struct Holder<'a> {
    flags: &'a LockFlags,
    events: Sender<Event<News>>,
    news: Receiver<Event<News>>,
}

/// Why the child is not to run any longer.
enum End {
    /// It has ended by itself: whether well.
    Child(bool),
    /// This process was asked to end.
    Shutdown,
    Lost(String),
}

impl Holder<'_> {
    fn verbose(&self, text: impl AsRef<str>) {
        if self.flags.verbose {
            let _ = say(text);
        }
    }

    fn next(&self) -> Event<News> {
        // The main thread has a sender of its own: the channel does not close.
        self.news.recv().unwrap_or(Event::Signal(SIGTERM))
    }

    fn run(&self, wanted: &Wanted, client: &Client) -> Result<ExitCode, CliError> {
        let lost = self.events.clone();
        let mut session = Session::create(client, &wanted.name, move |why| {
            let _ = lost.send(Event::News(News::Lost(why)));
        })
        .map_err(|CliError(why)| CliError(format!("Lock acquisition failed: {why}")))?;
        let lock = Lock::new(wanted, client, session.id.clone());
        self.verbose(format!("Setting up lock at path: {}/.lock", wanted.prefix));
        if let Err(error) = self.acquire(wanted, &lock) {
            let _ = session.destroy();
            return Err(error);
        }
        let end = self.hold();
        let mut released = self.release(&lock);
        let lost = matches!(end, End::Lost(_));
        // A server that does not hear of the one will not hear of the other; the TTL does it then.
        if released.is_ok() || !lost {
            let destroyed = session.destroy().map_err(|CliError(why)| {
                CliError(format!("The lock's session was not destroyed: {why}"))
            });
            released = released.and(destroyed);
        }
        if let End::Lost(why) = end {
            return Err(CliError(format!("Lock lost: {why}")));
        }
        released?;
        match end {
            End::Child(false) if self.flags.child_exit_code => Ok(ExitCode::from(2)),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    fn release(&self, lock: &Lock) -> Result<(), CliError> {
        let failed = |what: &str, CliError(why)| CliError(format!("Lock {what} failed: {why}"));
        lock.release().map_err(|error| failed("release", error))?;
        match lock.clean_up().map_err(|error| failed("cleanup", error))? {
            Cleanup::Done => self.verbose("Cleanup succeeded"),
            Cleanup::InUse => self.verbose("Cleanup aborted, lock in use"),
        }
        Ok(())
    }

    /// Waits for the lock; from then on its key is watched.
    fn acquire(&self, wanted: &Wanted, lock: &Lock) -> Result<(), CliError> {
        self.verbose("Attempting lock acquisition");
        let (lock, events) = (lock.clone(), self.events.clone());
        let (patience, retries) = (wanted.patience, wanted.monitor_retries);
        thread::spawn(move || {
            let acquired = lock.acquire(patience);
            let held = matches!(acquired, Ok(true));
            let told = events.send(Event::News(News::Acquired(acquired)));
            if held && told.is_ok() {
                let why = lock.monitor(retries);
                let _ = events.send(Event::News(News::Lost(why)));
            }
        });
        let failed = |why| Err(CliError(format!("Lock acquisition failed: {why}")));
        loop {
            match self.next() {
                Event::News(News::Acquired(Ok(true))) => return Ok(()),
                Event::News(News::Acquired(Err(CliError(why))) | News::Lost(why)) => {
                    return failed(why);
                }
                Event::News(News::Acquired(Ok(false))) => {}
                Event::Signal(signal) if child::ends(signal) => {}
                Event::Signal(_) | Event::ChildEnded => continue,
            }
            return Err(CliError(
                "Shutdown triggered or timeout during lock acquisition".into(),
            ));
        }
    }

    /// Runs the child until it ends, or must.
    fn hold(&self) -> End {
        let args = &self.flags.args[1..];
        self.verbose(format!("Starting handler '{}'", args.join(" ")));
        let mut command = child::command(args, self.flags.shell);
        command.env("CONSUL_LOCK_HELD", "true");
        if !self.flags.pass_stdin {
            command.stdin(Stdio::null());
        }
        let group = !self.flags.pass_stdin;
        let child = match Child::start(command, group, self.events.clone()) {
            Ok(child) => child,
            Err(error) => {
                eprintln!("Error executing handler: {error}");
                return End::Child(false);
            }
        };
        loop {
            match self.next() {
                Event::ChildEnded => {
                    let well = match child.reap() {
                        Ok(status) if status.success() => true,
                        Ok(status) => {
                            eprintln!("Error running handler: {status}");
                            false
                        }
                        Err(error) => {
                            eprintln!("Error running handler: {error}");
                            false
                        }
                    };
                    self.verbose("Child terminated, releasing lock");
                    return End::Child(well);
                }
                Event::Signal(signal) if child::ends(signal) => {
                    self.verbose("Shutdown triggered, killing child");
                    let mut steps = vec![signal, SIGTERM, SIGKILL];
                    steps.dedup();
                    self.kill(child, &steps);
                    return End::Shutdown;
                }
                Event::Signal(signal) => {
                    let _ = child.signal(signal);
                }
                Event::News(News::Lost(why)) => {
                    self.verbose("Lock lost, killing child");
                    self.kill(child, &[SIGTERM, SIGKILL]);
                    return End::Lost(why);
                }
                Event::News(News::Acquired(_)) => {}
            }
        }
    }

    /// Sends the signals, a grace period apart, until the child has ended. When the lock is lost on
    /// the way there is no time left for gentle ones.
    fn kill(&self, child: Child, signals: &[i32]) {
        for (at, signal) in signals.iter().enumerate() {
            self.verbose(format!(
                "Sending signal {signal} to child pid {}",
                child.id()
            ));
            if let Err(error) = child.signal(*signal) {
                eprintln!("Failed to terminate {}: {error}", child.id());
            }
            let until = Instant::now() + GRACE;
            let last = at + 1 == signals.len();
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let event = match last {
                    true => Ok(self.next()),
                    false => self.news.recv_timeout(left),
                };
                match event {
                    Ok(Event::ChildEnded) => {
                        self.verbose("Child terminated");
                        if let Err(error) = child.reap_group(until) {
                            eprintln!("Failed to end what the child had started: {error}");
                        }
                        return;
                    }
                    Ok(Event::News(News::Lost(_))) if !last => break,
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
        }
    }
}

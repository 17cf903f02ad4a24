//! From a checked configuration to a serving process, and down again.
//!
//! ```text
//! directory and lock ─ ports ─ executors ─┬─ no cluster yet: form or find one   (executor)
//!                                         ├─ recover the log, repair it         (recover)
//!                                         └─ open the shards ─ serve ─ signal ─ stop
//! ```
//! The ports are open from the start: while there is nothing to serve they say why.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle, available_parallelism},
    time::Duration,
};

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use super::{
    agent::tokens::Tokens,
    awake::Awake,
    board::Board,
    config::{AgentConfig, DataDir as WhereData, HttpAddress, options::AutopilotOptions},
    executor::{Executor, Listeners, Place},
    http::{UnixSocketFile, bind_after_predecessor, listen_after_predecessor},
    lanes::{Ends, mesh},
    reload::{Reload, Source},
};
use crate::{
    cluster::identity::{DataDir, Identity, random_u64},
    consensus::Configuration,
};

/// Memory each executor registers with glommio's rings, bytes: its smallest. Our files do not use it.
const GLOMMIO_IO_MEMORY: usize = 64 << 10;
/// Submissions that glommio's rings hold.
const GLOMMIO_RING_DEPTH: usize = 128;
/// After so long a task that works on is asked to let others run. Our tasks bound their own slices,
/// and what is interrupted before it began is begun late (see [`awake`](super::awake)).
const PREEMPT_AFTER: Duration = Duration::from_millis(10);

/// The signals that end a server, as a descriptor that becomes readable.
pub type StopSignal = OwnedFd;

/// The signals of a server, as descriptors that become readable.
pub struct Signals {
    /// Ends it.
    pub stop: StopSignal,
    /// Has it read its configuration again. Reading 8 bytes takes what came; never blocks.
    pub reload: OwnedFd,
}

/// Lets the process have as many descriptors as it may: shells start it with a lower bound, for the
/// sake of programs that cannot take more.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the pointed-to local, and then reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            // Refused, it goes on with what it has.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Runs a server until it is signalled; `source` reads its configuration again. The error is one
/// sentence for the operator.
pub fn run_agent(mut config: AgentConfig, signals: Signals, source: Source) -> Result<(), String> {
    raise_descriptor_limit();
    only_what_is_built(&config)?;
    let reload = Reload::new(config.clone(), source);
    let temporary = TemporaryDir::for_config(&config)?;
    let path = match (&config.data_dir, &temporary) {
        (WhereData::At(path), _) => path.clone(),
        (WhereData::Temporary, Some(temporary)) => temporary.0.clone(),
        (WhereData::Temporary, None) => unreachable!("a temporary directory was made"),
    };
    let wanted_logs = config.shards.unwrap_or(1).min(config.executors);
    let data = DataDir::open(&path, config.node_id, &config.datacenter, wanted_logs)
        .map_err(|error| format!("-data-dir: {error}"))?;
    refuse_data_of_another(data.identity(), &config)
        .map_err(|why| format!("-data-dir: {}: {why}", path.display()))?;
    let logs = data.identity().logs.len();
    if logs > usize::from(config.executors) {
        return Err(format!(
            "-executors={}: the data directory has {logs} logs, each of which needs an executor; start with -executors={logs} or more",
            config.executors
        ));
    }
    let (listeners, _socket_files) = listen(&mut config)?;
    let _pid_file = PidFile::write(config.pid_file.as_deref())?;
    let board = Board::new(config.acl.enabled, config.executors);
    let mut ends = mesh(config.executors)
        .map_err(|error| format!("cannot make an eventfd: {error}"))?
        .into_iter();
    let first = ends.next().ok_or("-executors=0: at least one is needed")?;
    let place = Place {
        path: data.path().to_owned(),
        identity: data.identity().clone(),
        tokens: Tokens::open(
            data.path(),
            config.acl.tokens.clone(),
            config.acl.enabled && config.acl.enable_token_persistence,
        )
        .map_err(|error| format!("-data-dir: {}: {error}", data.path().display()))?,
    };
    let workers = ends
        .map(|ends| start_worker(&config, &reload, &place, &board, ends))
        .collect::<Result<Vec<_>, String>>()?;
    let (executor, awake) = make_executor(&config, 0)?;
    let main_config = config.clone();
    let result = executor.run(async move {
        let made = Executor::new(main_config, reload, place, &board, first);
        let (executor, inbound) = awake.through(made).await?;
        executor.run_first(inbound, data, listeners, signals).await
    });
    if result.is_ok() {
        for worker in workers {
            // A worker's own trouble was already said, and ended the first executor.
            let _ = worker.join();
        }
    }
    drop(temporary);
    result
}

/// Takes every port and socket of the configuration, and puts the chosen port for port 0.
fn listen(config: &mut AgentConfig) -> Result<(Listeners, Vec<UnixSocketFile>), String> {
    let mut listeners = Listeners {
        server: None,
        http: Vec::new(),
    };
    if config.listens_for_servers() {
        let server = bind_after_predecessor(config.server_bind, "-bind, -server-port")
            .map_err(|error| error.to_string())?;
        listeners.server = Some(server);
    }
    let mut files = Vec::new();
    for address in &mut config.http_addresses {
        match address {
            HttpAddress::Tcp(address) => {
                let http = bind_after_predecessor(*address, "-client, -http-port")
                    .map_err(|error| error.to_string())?;
                // Of port 0, the one that was chosen: it is logged, and told to clients.
                *address = http.local_addr().map_err(|error| error.to_string())?;
                listeners.http.push(http.into());
            }
            HttpAddress::Unix(path) => {
                let (http, file) = listen_after_predecessor(path, &config.unix_sockets)
                    .map_err(|error| error.to_string())?;
                listeners.http.push(http);
                files.push(file);
            }
        }
    }
    Ok((listeners, files))
}

/// Refuses what a configuration asks for and this build does not give, where the server would be
/// less protected without; says the rest in the log. Each part takes its lines from here when it
/// reads its options.
fn only_what_is_built(config: &AgentConfig) -> Result<(), String> {
    let waiting = [
        (
            "acl.enable_token_replication",
            config.acl.enable_token_replication,
        ),
        ("autopilot", config.autopilot != AutopilotOptions::default()),
    ];
    for (key, given) in waiting {
        if given {
            log::warn!(target: "agent", "{key}: read, but without an effect in this build of curia");
        }
    }
    Ok(())
}

/// The others know a server by the address that it formed the cluster with. Started elsewhere with
/// its data, a server would vote and acknowledge in the name of one that others look for in vain.
fn refuse_data_of_another(identity: &Identity, config: &AgentConfig) -> Result<(), String> {
    let Some(bytes) = identity.bootstrap() else {
        return Ok(());
    };
    let formed = Configuration::decode(&bytes).map_err(|error| error.to_string())?;
    let Some(member) = formed.member(identity.server_id()) else {
        return Err("its cluster does not list the server that it belongs to".to_owned());
    };
    let own = config.server_advertise.to_string();
    // A sole server is looked for by nobody: it may move.
    if member.address == own || formed.members.len() == 1 {
        return Ok(());
    }
    Err(format!(
        "it belongs to server {} at {}, and this one is {} at {own}; start it at that address \
         (-bind, -advertise, -server-port), or choose another -data-dir",
        member.name, member.address, config.node_name
    ))
}

type Worker = JoinHandle<()>;

/// Starts an executor on a thread of its own; returns once it is made.
fn start_worker(
    config: &AgentConfig,
    reload: &Arc<Reload>,
    place: &Place,
    board: &Board,
    ends: Ends,
) -> Result<Worker, String> {
    let (config, reload, place) = (config.clone(), Arc::clone(reload), place.clone());
    let index = ends.index();
    let board = board.for_executor(index);
    let (tell, told) = mpsc::channel();
    let run = move || {
        let (executor, awake) = match make_executor(&config, usize::from(index)) {
            Ok(made) => made,
            // Whoever started the thread waits for this.
            Err(why) => return tell.send(Err(why)).unwrap_or_default(),
        };
        tell.send(Ok(())).unwrap_or_default();
        executor.run(async move {
            let made = Executor::new(config, reload, place, &board, ends);
            match awake.through(made).await {
                Ok((executor, inbound)) => executor.run_worker(inbound).await,
                Err(why) => {
                    // The first executor waits for this one, and nothing has begun yet.
                    log::error!(target: "agent", "{why}");
                    std::process::exit(1);
                }
            }
        });
    };
    let worker = thread::Builder::new()
        .name(format!("curia-{index}"))
        .spawn(run)
        .map_err(executor_error)?;
    told.recv()
        .unwrap_or_else(|_| Err("an executor's thread ended as it started".to_owned()))?;
    Ok(worker)
}

/// An executor of this thread, and what keeps it awake until its main task runs.
fn make_executor(config: &AgentConfig, index: usize) -> Result<(LocalExecutor, Awake), String> {
    let executor = builder(config, index).make().map_err(executor_error)?;
    let awake = Awake::new().map_err(executor_error)?;
    Ok((executor, awake))
}

/// Pinned to a processor each, unless their number was chosen: then processors may be shared.
fn builder(config: &AgentConfig, index: usize) -> LocalExecutorBuilder {
    let processors = available_parallelism().map_or(1, usize::from);
    let placement = match config.executors_chosen {
        true => Placement::Unbound,
        false => Placement::Fixed(index % processors),
    };
    LocalExecutorBuilder::new(placement)
        .name("curia")
        .io_memory(GLOMMIO_IO_MEMORY)
        .ring_depth(GLOMMIO_RING_DEPTH)
        .preempt_timer(PREEMPT_AFTER)
}

fn executor_error(error: impl std::fmt::Display) -> String {
    format!(
        "cannot start an executor: {error}; is io_uring allowed here (kernel.io_uring_disabled, memlock limit)?"
    )
}

/// Puts the path before an error.
pub(super) fn in_dir<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

/// A data directory for `-dev`, removed at the end.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn for_config(config: &AgentConfig) -> Result<Option<Self>, String> {
        if config.data_dir != WhereData::Temporary {
            return Ok(None);
        }
        let path = std::env::temp_dir().join(format!("curia-dev-{:016x}", random_u64()));
        std::fs::create_dir(&path).map_err(in_dir(&path))?;
        Ok(Some(Self(path)))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!(target: "agent", "{}: {error}; remove it by hand", self.0.display());
        }
    }
}

/// `-pid-file`, removed at the end.
struct PidFile(Option<PathBuf>);

impl PidFile {
    fn write(path: Option<&Path>) -> Result<Self, String> {
        if let Some(path) = path {
            std::fs::write(path, format!("{}\n", std::process::id()))
                .map_err(|error| format!("-pid-file={}: {error}", path.display()))?;
        }
        Ok(Self(path.map(Path::to_owned)))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may be gone already; nothing depends on it.
            let _ = std::fs::remove_file(path);
        }
    }
}

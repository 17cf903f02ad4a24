//! From a checked configuration to a serving server, and down again.
//!
//! ```text
//! directory and lock ─ ports ─ executors ─┬─ no cluster yet: form or find one
//!                                         ├─ recover the log ─ damaged: repair from peers
//!                                         └─ open the shards ─ serve ─ signal ─ stop
//! ```
//! The ports are open from the start: while there is nothing to serve they say why.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{FromRawFd, IntoRawFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use futures_lite::FutureExt;
use glommio::{LocalExecutorBuilder, Placement, io::BufferedFile, timer::sleep};
use wire::{ClusterId, Hello, Member, ShardId, limits};

use super::{
    admission::{Admission, AdmissionLimits},
    board::Board,
    config::{AgentConfig, BootstrapMode, DataDir as WhereData},
    devices::RealDevices,
    forming::{Desk, find_cluster},
    gateway::ServerInfo,
    http::{HttpService, bind_exclusive},
    links::{LinkEvent, Links},
    port::{Phase, Port, Serving},
    repair::repair,
    router::Router,
    shell::{self, Shell, now_ns},
};
use crate::{
    cluster::{
        forming::Own,
        identity::{DataDir, random_u64},
    },
    consensus::Configuration,
    io::{BackgroundLane, Dir, Disk, LogRing, RingOptions},
    log::{Log, LogConfig, LogIdentity, Recovered},
    shard::{Core, CoreConfig, Event, ImageConfig, Member as ShardMember, ShardSettings, bootstrap_log, open_shards},
};

/// Length of a raft tick with multiplier 1.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Least ticks before an election: half a second with multiplier 1.
const ELECTION_TICKS: usize = 10;
/// Entries kept in memory for followers that are a little behind, bytes per shard.
const ENTRY_CACHE_BYTES: usize = 16 << 20;
/// Payload proposed and not yet committed, bytes per shard.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Memory each executor registers with glommio's rings, bytes: its smallest. Our files do not use it.
const GLOMMIO_IO_MEMORY: usize = 64 << 10;
/// How long a stopping server waits for its log, at most.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// The signals that end a server, as a descriptor that becomes readable.
pub type StopSignal = OwnedFd;

/// Runs a server until it is signalled. The error is one sentence for the operator.
pub fn run_agent(config: AgentConfig, stop: StopSignal) -> Result<(), String> {
    let temporary = TemporaryDir::for_config(&config)?;
    let path = match (&config.data_dir, &temporary) {
        (WhereData::At(path), _) => path.clone(),
        (WhereData::Temporary, Some(temporary)) => temporary.0.clone(),
        (WhereData::Temporary, None) => unreachable!("a temporary directory was made"),
    };
    let data = DataDir::open(&path, config.node_id, &config.datacenter, LANES)
        .map_err(|error| format!("-data-dir: {error}"))?;
    let server = bind_exclusive(config.server_bind, "-bind, -server-port").map_err(|e| e.to_string())?;
    let http = config
        .http_address
        .map(|address| bind_exclusive(address, "-client, -http-port"))
        .transpose()
        .map_err(|error| error.to_string())?;
    let _pid_file = PidFile::write(config.pid_file.as_deref())?;
    let placement = match config.executors_chosen {
        true => Placement::Unbound,
        false => Placement::Fixed(0),
    };
    let executor = LocalExecutorBuilder::new(placement)
        .name("curia")
        .io_memory(GLOMMIO_IO_MEMORY)
        .ring_depth(128)
        .preempt_timer(Duration::from_micros(500))
        .make()
        .map_err(|error| format!("cannot start an executor: {error}; is io_uring allowed here (kernel.io_uring_disabled)?"))?;
    let result = executor.run(Agent::new(config, data).run(server, http, stop));
    drop(temporary);
    result
}

/// Logs of a data directory: shards live on the first executor's log.
const LANES: u16 = 1;

struct Agent {
    config: AgentConfig,
    data: RefCell<DataDir>,
    /// The cluster, once there is one.
    cluster: Rc<RefCell<Option<Configuration>>>,
    board: Board,
}

impl Agent {
    fn new(config: AgentConfig, data: DataDir) -> Rc<Self> {
        Rc::new(Self { config, data: RefCell::new(data), cluster: Rc::default(), board: Board::default() })
    }

    async fn run(
        self: Rc<Self>,
        server: std::net::TcpListener,
        http: Option<std::net::TcpListener>,
        stop: StopSignal,
    ) -> Result<(), String> {
        let stopping = Rc::new(Cell::new(false));
        let introduce = self.introduce();
        let id = self.data.borrow().identity().server_id();
        let links = Links::new(id, self.config.server_bind.ip(), introduce.clone());
        let shell = Shell::new(links, self.board.clone());
        let desk = Desk::new(self.own());
        let port = Port::new(Phase::Forming(desk.clone()), introduce.clone());
        let server_port = Rc::clone(&port);
        glommio::spawn_local(accept(server, move |socket| Rc::clone(&server_port).serve(socket))).detach();

        let router = self.router(&shell);
        let service = HttpService::new(router.clone(), self.config.http.clone());
        if let Some(listener) = http {
            let service = service.clone();
            let serve = move |socket| {
                let service = service.clone();
                async move { service.serve_connection(super::pipe::stream(socket)).await }
            };
            glommio::spawn_local(accept(listener, serve)).detach();
        }
        self.greet();
        let signalled = {
            let (stopping, shell) = (Rc::clone(&stopping), Rc::clone(&shell));
            async move {
                wait_for_signal(stop).await;
                log::info!(target: "agent", "Gracefully shutting down agent...");
                stopping.set(true);
                shell.post(Event::Shutdown);
            }
        };
        let signalled = glommio::spawn_local(signalled);

        let serve = Rc::clone(&self).serve(&shell, &router, &port, &desk, &introduce, &stopping);
        let impatient = async {
            while !stopping.get() {
                sleep(Duration::from_millis(20)).await;
            }
            service.stop();
            sleep(STOP_PATIENCE).await;
            log::warn!(target: "agent", "stopped without waiting for the log any longer; what was acknowledged is durable");
            Ok(())
        };
        let result = serve.or(impatient).await;
        service.stop();
        port.enter(Phase::Stopping);
        drop(signalled);
        if result.is_ok() {
            log::info!(target: "agent", "shutdown complete");
        }
        result
    }

    fn greet(&self) {
        let identity = self.data.borrow().identity().clone();
        let http = self.config.http_address.map_or("disabled".to_owned(), |address| address.to_string());
        log::info!(
            target: "agent",
            "curia {} agent running: node={} node_id={} datacenter={} server={} http={http} data_dir={}",
            env!("CARGO_PKG_VERSION"), self.config.node_name, identity.node_id, self.config.datacenter,
            self.config.server_bind, self.data.borrow().path().display(),
        );
    }

    fn own(&self) -> Own {
        let identity = self.data.borrow().identity().clone();
        Own {
            member: Member {
                raft_id: identity.server_id(),
                node_id: identity.node_id(),
                name: self.config.node_name.clone(),
                address: self.config.server_advertise.to_string(),
                voter: true,
                leader: false,
            },
            expect: match self.config.bootstrap {
                BootstrapMode::None => 0,
                BootstrapMode::Alone => 1,
                BootstrapMode::Expect(servers) => servers,
            },
            shards: self.config.shards.unwrap_or(1),
            datacenter: self.config.datacenter.clone(),
        }
    }

    /// What this server says of itself at the start of every connection.
    fn introduce(self: &Rc<Self>) -> super::links::Introduce {
        let agent = Rc::clone(self);
        let own = self.own();
        let http = self.config.http_address.map(|address| address.to_string()).unwrap_or_default();
        Rc::new(move || {
            let cluster = agent.cluster.borrow();
            Hello {
                protocol: limits::PROTOCOL_VERSION,
                node_id: own.member.node_id,
                raft_id: own.member.raft_id,
                name: own.member.name.clone(),
                address: own.member.address.clone(),
                http_address: http.clone(),
                datacenter: own.datacenter.clone(),
                cluster_id: cluster.as_ref().map_or(ClusterId::default(), |c| c.cluster_id),
                lanes: LANES,
                shards: cluster.as_ref().map_or(0, |c| c.shards),
                expect: own.expect,
                has_state: cluster.is_some(),
                leader: agent.board.status(ShardId(0)).leader,
                members: cluster.as_ref().map_or(Vec::new(), |c| c.members.clone()),
                ..Hello::default()
            }
        })
    }

    fn router(&self, shell: &Rc<Shell>) -> Router {
        let info = ServerInfo {
            node_name: self.config.node_name.clone(),
            node_id: self.data.borrow().identity().node_id.clone(),
            datacenter: self.config.datacenter.clone(),
            server_address: self.config.server_advertise.to_string(),
            http_address: self.config.http_address.map(|a| a.to_string()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("CURIA_REVISION").unwrap_or_default().to_owned(),
            shards: self.config.shards.unwrap_or(1),
            executors: self.config.executors,
            dev_mode: self.config.dev,
        };
        Router::new(Rc::clone(shell), self.config.rpc_hold_timeout, info)
    }

    /// Finds the cluster, opens what is on disk, and serves until the log is idle after a shutdown.
    async fn serve(
        self: Rc<Self>,
        shell: &Rc<Shell>,
        router: &Router,
        port: &Rc<Port>,
        desk: &Rc<Desk>,
        introduce: &super::links::Introduce,
        stopping: &Rc<Cell<bool>>,
    ) -> Result<(), String> {
        let restarted = self.data.borrow().identity().cluster_id.is_some();
        if !restarted && !self.join(shell, desk, introduce, stopping).await? {
            return Ok(());
        }
        let opened = Opened::recover(&self.config, &self.data.borrow())?;
        let configuration = opened.configuration()?;
        router.set_shards(configuration.shards);
        *self.cluster.borrow_mut() = Some(configuration.clone());
        shell.links.set_members(&configuration.members);
        let down = Rc::clone(shell);
        shell.links.on_event(Rc::new(move |LinkEvent::Down(server)| down.post(Event::PeerDown { server })));
        let (core, devices) = opened.into_core(&self.config, &self.data.borrow(), &configuration, restarted, shell, port, stopping).await?;
        port.enter(Phase::Serving(Serving {
            shell: Rc::clone(shell),
            router: router.clone(),
            admission: Admission::new(AdmissionLimits::default()),
        }));
        log::info!(
            target: "agent.server",
            "serving: cluster={} servers={} quorum={} shards={}",
            configuration.cluster_id, configuration.members.len(), configuration.quorum(), configuration.shards
        );
        shell::run(Rc::clone(shell), core, devices, tick(&self.config)).await
    }

    /// Finds or forms a cluster and makes it durable. False when told to stop before there was one.
    async fn join(
        &self,
        shell: &Rc<Shell>,
        desk: &Rc<Desk>,
        introduce: &super::links::Introduce,
        stopping: &Rc<Cell<bool>>,
    ) -> Result<bool, String> {
        let refuse = |why| shell.refuse(why);
        let formed = find_cluster(&self.config, desk, introduce, stopping, refuse).await?;
        let Some(formed) = formed else { return Ok(false) };
        shell.refuse(None);
        let table = &formed.bootstrap;
        let configuration = Configuration::new(table.cluster_id, table.shards, table.members.clone());
        // The log first: a directory that names a cluster always has one.
        create_log(&self.config, &self.data.borrow(), &configuration)?;
        self.data
            .borrow_mut()
            .join_cluster(configuration.cluster_id, &configuration.encode())
            .map_err(|error| error.to_string())?;
        *self.cluster.borrow_mut() = Some(configuration);
        log::info!(target: "agent.server", "cluster formed: cluster={} servers={}", table.cluster_id, table.members.len());
        formed.announce().await;
        Ok(true)
    }
}

fn tick(config: &AgentConfig) -> Duration {
    TICK * u32::from(config.raft.multiplier)
}

fn log_config(config: &AgentConfig) -> LogConfig {
    LogConfig { segment_bytes: config.log.segment_bytes, ..LogConfig::default() }
}

fn log_identity(data: &DataDir) -> LogIdentity {
    let name = &data.identity().logs[0];
    LogIdentity { log_id: name.id, salt: name.salt }
}

fn in_dir<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

/// Makes the log of a server that joins its first cluster, with each shard's first checkpoint.
/// What a start that was cut short left there is removed: the directory names no cluster yet.
fn create_log(config: &AgentConfig, data: &DataDir, configuration: &Configuration) -> Result<(), String> {
    let path = data.log_path(0);
    let io = in_dir(&path);
    match std::fs::remove_dir_all(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    std::fs::create_dir_all(&path).map_err(in_dir(&path))?;
    std::fs::create_dir_all(data.images_path()).map_err(in_dir(&path))?;
    let disk = Dir::open(&path).map_err(in_dir(&path))?;
    let mut log = Log::create(&disk, log_config(config), log_identity(data)).map_err(in_dir(&path))?;
    let shards: Vec<ShardId> = (0..configuration.shards).map(ShardId).collect();
    bootstrap_log(&mut log, &shards, configuration);
    log.flush_blocking(&disk, now_ns()).map_err(in_dir(&path))?;
    std::fs::File::open(data.path()).and_then(|dir| dir.sync_all()).map_err(in_dir(data.path()))
}

/// A recovered log, not yet served from.
struct Opened {
    log: Log,
    recovered: Recovered,
    disk: Dir,
    path: PathBuf,
}

impl Opened {
    fn recover(config: &AgentConfig, data: &DataDir) -> Result<Self, String> {
        let path = data.log_path(0);
        let began = std::time::Instant::now();
        let disk = Dir::open(&path).map_err(in_dir(&path))?;
        let lone = data
            .identity()
            .bootstrap()
            .and_then(|bytes| Configuration::decode(&bytes).ok())
            .is_none_or(|configuration| configuration.members.len() == 1);
        let (log, recovered) =
            Log::recover(&disk, log_config(config), log_identity(data), lone).map_err(in_dir(&path))?;
        log::info!(
            target: "agent.server.log",
            "log recovered: batches={} entries={} bytes={} segments={} took_ms={}",
            recovered.report.batches, recovered.report.entries, recovered.report.bytes_read,
            recovered.report.segments, began.elapsed().as_millis()
        );
        for place in &recovered.report.corrupt {
            log::error!(target: "agent.server.log", "corrupt record: {place}");
        }
        Ok(Self { log, recovered, disk, path })
    }

    /// The peer set as the log has it.
    fn configuration(&self) -> Result<Configuration, String> {
        let found = self.recovered.shards.get(&ShardId(0)).ok_or("the log holds no shard 0: the data directory is not whole")?;
        Configuration::decode(&found.checkpoint.configuration)
            .map_err(|error| format!("{}: its configuration cannot be read: {error}", self.path.display()))
    }

    #[allow(clippy::too_many_arguments)]
    async fn into_core(
        mut self,
        config: &AgentConfig,
        data: &DataDir,
        configuration: &Configuration,
        restarted: bool,
        shell: &Rc<Shell>,
        port: &Rc<Port>,
        stopping: &Rc<Cell<bool>>,
    ) -> Result<(Core, RealDevices), String> {
        let id = data.identity().server_id();
        repair(&mut self.log, &mut self.recovered, &self.disk, id, configuration, shell, port, stopping).await?;
        let images = Dir::open(&data.images_path()).map_err(in_dir(&data.images_path()))?;
        let settings = ShardSettings {
            id,
            cluster_id: configuration.cluster_id,
            tick_ns: tick(config).as_nanos() as u64,
            heartbeat_ticks: HEARTBEAT_TICKS,
            election_ticks: ELECTION_TICKS,
            seed: random_u64(),
            cache_bytes_max: ENTRY_CACHE_BYTES,
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            restarted,
            images: ImageConfig::default(),
        };
        let shards: Vec<ShardId> = (0..configuration.shards).map(ShardId).collect();
        let began = std::time::Instant::now();
        let members: std::collections::BTreeMap<ShardId, ShardMember> =
            open_shards(&settings, &shards, &self.log, &self.recovered, &self.disk, &images as &dyn Disk, now_ns())
                .map_err(in_dir(data.path()))?;
        log::info!(target: "agent.server", "state replayed: took_ms={}", began.elapsed().as_millis());
        let options = RingOptions { require_direct: config.log.require_direct };
        let (ring, buffers) = LogRing::open(&self.path, options).map_err(in_dir(&self.path))?;
        for warning in ring.warnings() {
            log::warn!(target: "agent.server.log", "{warning}");
        }
        self.log.give_buffers(buffers);
        let lane = BackgroundLane::start(&self.path, &data.images_path()).map_err(in_dir(&self.path))?;
        let devices = RealDevices::start(shell, ring, lane).map_err(in_dir(&self.path))?;
        let core_config = CoreConfig { tick_ns: settings.tick_ns, election_ticks: ELECTION_TICKS as u64 };
        Ok((Core::new(core_config, self.log, members, now_ns()), devices))
    }
}

/// Accepts connections for ever; each is served by a task of its own.
async fn accept<F>(listener: std::net::TcpListener, serve: impl Fn(socket2::Socket) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let listener = super::http::into_glommio(listener);
    loop {
        match listener.shared_accept().await {
            Ok(accepted) => {
                let stream = accepted.bind_to_executor();
                let Ok(socket) = own_socket(stream) else { continue };
                glommio::spawn_local(serve(socket)).detach();
            }
            Err(error) => {
                // Out of descriptors, most likely: those that close make room.
                log::warn!(target: "agent.server", "cannot accept a connection: {error}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn own_socket(stream: glommio::net::TcpStream) -> io::Result<socket2::Socket> {
    use std::os::fd::{AsRawFd, BorrowedFd};
    // SAFETY: the stream owns the descriptor and lives until it has been duplicated.
    let borrowed = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    Ok(borrowed.try_clone_to_owned()?.into())
}

async fn wait_for_signal(stop: StopSignal) {
    // SAFETY: the descriptor is an open eventfd, and its ownership passes to the file.
    let file = unsafe { BufferedFile::from_raw_fd(stop.into_raw_fd()) };
    // An error means that no signal can be waited for any more: stopping is the safe answer.
    let _ = file.read_at(0, 8).await;
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


//! One executor of a server: what runs on its thread.
//!
//! The first executor owns the ports, finds the cluster and hands HTTP connections round; every
//! executor serves connections, and those with a log run the shards on it.

use std::{
    cell::{Cell, RefCell},
    io::Read,
    os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_lite::FutureExt;
use glommio::{io::BufferedFile, timer::sleep};
use socket2::Socket;
use wire::{ClusterId, FrameKind, Hello, Member, ShardId, limits};

use super::{
    admission::{Admission, AdmissionLimits},
    agent::{
        calls::Calls, configured::Configured, events::UserEvent, keeper::Keeper, service::Agent,
        sync::OwnNode, tokens::Tokens,
    },
    board::Board,
    cancels::Cancels,
    clients::{ClientTicket, Clients, TooMany},
    config::{AgentConfig, BootstrapMode},
    dial,
    forming::{Desk, find_cluster},
    gateway::ServerInfo,
    http::{HttpService, keeper},
    lanes::{Ends, Inbound, Lanes, Parcel},
    links::{Introduce, LinkEvent, Links},
    port::{Phase, Port, Serving},
    reactor,
    recover::{Opened, create_logs, image_config, tick},
    reload::{InForce, Reload},
    router::Router,
    shell::{self, Shell},
    start::Signals,
    stream::{Acceptor, Stream},
    throttle::{Throttle, left_out},
};
use crate::{
    cluster::{
        forming::Own,
        identity::{DataDir, Identity},
    },
    consensus::Configuration,
    io::{Interest, Readiness},
    shard::{CompactionBounds, Event},
};

/// How long a stopping server waits for its log and its answers, at most.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Between two lines of log about connections that cannot be accepted.
const ACCEPT_COMPLAINTS_PAUSE: Duration = Duration::from_secs(1);

/// Between two looks at whether there is a cluster.
const CLUSTER_LOOK: Duration = Duration::from_millis(5);

/// How long a stopping executor waits until those who waited for a change have their answers.
const WAITERS_PATIENCE: Duration = Duration::from_millis(500);

/// Between two looks at whether the server is to stop.
const STOP_LOOK: Duration = Duration::from_millis(20);

/// Where a server's data lies, and whose it is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data directory.
    pub path: PathBuf,
    /// What it says of itself.
    pub identity: Identity,
    /// The server's own tokens, those kept there included.
    pub tokens: Arc<Tokens>,
}

impl Place {
    /// Number of logs.
    pub fn logs(&self) -> u16 {
        self.identity.logs.len() as u16
    }

    /// Folder of the images.
    pub fn images_path(&self) -> PathBuf {
        self.path.join("images")
    }
}

/// Where a server listens.
pub struct Listeners {
    /// For servers and native clients.
    pub server: Option<std::net::TcpListener>,
    /// For HTTP.
    pub http: Vec<Socket>,
}

/// One executor of a server.
pub struct Executor {
    /// As it was at the start; what has changed since is where it has its effect.
    config: AgentConfig,
    reload: Arc<Reload>,
    /// The last configuration that was carried out here.
    generation: Cell<u64>,
    /// HTTP connections by client; only the first executor counts.
    clients: Clients,
    place: Place,
    lanes: Rc<Lanes>,
    calls: Rc<Calls>,
    shell: Rc<Shell>,
    router: Router,
    service: HttpService<Router>,
    introduce: Introduce,
    /// The cluster, once there is one.
    cluster: Rc<RefCell<Option<Configuration>>>,
    /// Blocking queries of other executors, by asker and its name for the question.
    waiting: Cancels<(u16, u64)>,
    stopping: Rc<Cell<bool>>,
    /// Why another executor cannot go on.
    failed: Rc<RefCell<Option<String>>>,
}

impl Executor {
    /// The executor that this runs on.
    pub async fn new(
        config: AgentConfig,
        reload: Arc<Reload>,
        place: Place,
        board: &Board,
        ends: Ends,
    ) -> Result<(Rc<Self>, Vec<Inbound>), String> {
        let ring = reactor::start(ends.bell()).map_err(|error| {
            format!(
                "cannot set up io_uring: {error} (is it forbidden by kernel.io_uring_disabled or a seccomp filter?)"
            )
        })?;
        let (lanes, inbound) = Lanes::connect(ends).await;
        let cluster: Rc<RefCell<Option<Configuration>>> = Rc::default();
        let introduce = introduction(
            &config,
            &place,
            lanes.index(),
            board.clone(),
            Rc::clone(&cluster),
        );
        let links = Links::new(
            place.identity.server_id(),
            config.server_bind.ip(),
            introduce.clone(),
        );
        let shell = Shell::new(ring, links, board.clone());
        let info = server_info(&config, &place);
        let calls = Calls::new(Rc::clone(&lanes));
        let router = Router::new(
            Rc::clone(&shell),
            Rc::clone(&lanes),
            Rc::clone(&calls),
            place.logs(),
            config.rpc_hold_timeout,
            info,
        );
        let service = HttpService::new(router.clone(), config.http);
        service.configure(config.http, config.http_rules.clone());
        let executor = Self {
            clients: Clients::new(config.http.client_connections_max),
            config,
            reload,
            generation: Cell::new(0),
            place,
            lanes,
            calls,
            shell,
            router,
            service,
            introduce,
            cluster,
            waiting: Cancels::default(),
            stopping: Rc::default(),
            failed: Rc::default(),
        };
        let executor = Rc::new(executor);
        let weak = Rc::downgrade(&executor);
        executor.router.on_reload(Box::new(move || {
            let executor = weak.upgrade();
            Box::pin(async move {
                match executor {
                    Some(executor) => executor.read_configuration_again().await,
                    None => Err("this server is stopping".to_owned()),
                }
            })
        }));
        Ok((executor, inbound))
    }

    /// The first executor: until the server is told to stop, or cannot go on.
    pub async fn run_first(
        self: Rc<Self>,
        inbound: Vec<Inbound>,
        data: DataDir,
        listeners: Listeners,
        signals: Signals,
    ) -> Result<(), String> {
        self.greet();
        glommio::spawn_local(Arc::clone(self.shell.board.meter().meters()).run()).detach();
        self.start_agent();
        self.read_parcels(inbound);
        let desk = Desk::new(self.own());
        let port = Port::new(Phase::Forming(desk.clone()), self.introduce.clone());
        let server_port = Rc::clone(&port);
        if let Some(server) = listeners.server {
            let server = Acceptor::new(server).map_err(|error| error.to_string())?;
            glommio::spawn_local(accept(server, move |socket| {
                glommio::spawn_local(Rc::clone(&server_port).serve(socket)).detach();
            }))
            .detach();
        }
        for listener in listeners.http {
            let listener = Acceptor::new(listener).map_err(|error| error.to_string())?;
            glommio::spawn_local(accept(listener, Rc::clone(&self).hand_round())).detach();
        }
        glommio::spawn_local(Rc::clone(&self).stop_on(signals.stop)).detach();
        let _reloading = glommio::spawn_local(Rc::clone(&self).reload_on(signals.reload));
        let result = self
            .join_and_serve(data, &desk, &port)
            .or(self.stopped())
            .await;
        port.enter(Phase::Stopping);
        if let Some(agent) = self.calls.agent() {
            agent.after_sync().await;
        }
        self.lanes.send_all(|| Parcel::Stop).await;
        if result.is_ok() {
            log::info!(target: "agent", "shutdown complete");
        }
        result
    }

    /// Registrations are taken from the start; the catalog learns of them once there is one.
    fn start_agent(&self) {
        let config = &self.config;
        let address = config.server_advertise.ip().to_string();
        let id = &self.place.identity.node_id;
        let mut own = OwnNode::new(id, &config.node_name, &address, &config.datacenter);
        own.set_meta(&config.node_meta);
        let shell = Rc::clone(&self.shell);
        let tell_peers = Box::new(move |event: &UserEvent| {
            let mut frame = dial::frame(FrameKind::Event, Bytes::new());
            frame.blob = event.encode().into();
            shell.links.tell_all(&frame);
        });
        let data = self.place.path.clone();
        let tokens = Arc::clone(&self.place.tokens);
        let agent = Agent::start(own, data, tokens, Configured::of(config), tell_peers);
        let keeper = Keeper::new(Rc::clone(&agent), self.router.clone(), self.service.judge());
        glommio::spawn_local(keeper.run()).detach();
        self.calls.settle(agent);
    }

    /// Another executor: until the first one says stop.
    pub async fn run_worker(self: Rc<Self>, inbound: Vec<Inbound>) {
        self.read_parcels(inbound);
        let serving = async {
            while self.cluster.borrow().is_none() {
                if self.stopping.get() {
                    self.service.stop();
                    return Ok(());
                }
                sleep(CLUSTER_LOOK).await;
            }
            let configuration = self.cluster.borrow().clone().unwrap_or_default();
            if self.lanes.index() >= self.place.logs() {
                return self.serve_connections_only().await;
            }
            let opened = Opened::recover(&self.config, &self.place, self.lanes.index())?;
            self.serve_shards(opened, &configuration, true, None).await
        };
        if let Err(why) = serving.or(self.stopped()).await {
            self.lanes.send(0, Parcel::Fatal(why)).await;
        }
    }

    /// An executor without a log has nothing to wait for when it is told to stop.
    async fn serve_connections_only(&self) -> Result<(), String> {
        while !self.stopping.get() {
            sleep(STOP_LOOK).await;
        }
        self.service.stop();
        self.waiters_answered().await;
        Ok(())
    }

    /// Finds the cluster, and serves until the log is idle after a shutdown.
    async fn join_and_serve(
        self: &Rc<Self>,
        mut data: DataDir,
        desk: &Rc<Desk>,
        port: &Rc<Port>,
    ) -> Result<(), String> {
        let restarted = self.place.identity.cluster_id.is_some();
        if !restarted && !self.join(&mut data, desk).await? {
            return Ok(());
        }
        let opened = Opened::recover(&self.config, &self.place, 0)?;
        let configuration = opened.configuration()?;
        *self.cluster.borrow_mut() = Some(configuration.clone());
        self.lanes
            .send_all(|| Parcel::Serve(Box::new(configuration.clone())))
            .await;
        self.serve_shards(opened, &configuration, restarted, Some(port))
            .await
    }

    /// Opens the shards of this executor's log and runs them.
    async fn serve_shards(
        self: &Rc<Self>,
        opened: Opened,
        configuration: &Configuration,
        restarted: bool,
        port: Option<&Rc<Port>>,
    ) -> Result<(), String> {
        self.router.set_shards(configuration.shards);
        self.shell.links.set_members(&configuration.members);
        let down = Rc::clone(&self.shell);
        self.shell
            .links
            .on_event(Rc::new(move |LinkEvent::Down(server)| {
                down.post(Event::PeerDown { server })
            }));
        if let Some(port) = port.filter(|_| opened.is_damaged()) {
            port.enter(Phase::Repairing(self.router.clone()));
        }
        let (core, devices) = opened
            .into_core(
                &self.config,
                &self.place,
                configuration,
                restarted,
                &self.shell,
                &self.stopping,
            )
            .await?;
        if let Some(port) = port {
            port.enter(Phase::Serving(Serving {
                shell: Rc::clone(&self.shell),
                router: self.router.clone(),
                admission: Admission::new(AdmissionLimits::default()),
                acl: self.config.acl.enabled,
            }));
            if self.config.acl.enabled {
                self.keep_acl();
            }
            log::info!(
                target: "agent.server",
                "serving: cluster={} servers={} quorum={} shards={}",
                configuration.cluster_id, configuration.members.len(), configuration.quorum(), configuration.shards
            );
        }
        shell::run(Rc::clone(&self.shell), core, devices, tick(&self.config)).await?;
        self.waiters_answered().await;
        Ok(())
    }

    /// Keeps the ACL in order while this server leads the system shard, which lies on this executor.
    fn keep_acl(&self) {
        let shell = Rc::clone(&self.shell);
        let leads = move || shell.leader(ShardId(0)).here;
        let options = self.config.acl.clone();
        glommio::spawn_local(keeper::keep(self.router.clone(), options, leads)).detach();
    }

    /// Blocking queries were ended by the shards' last turn: lets their answers leave.
    async fn waiters_answered(&self) {
        let mut waited = Duration::ZERO;
        while self.service.waiting() > 0 && waited < WAITERS_PATIENCE {
            sleep(STOP_LOOK).await;
            waited += STOP_LOOK;
        }
        let left = self.service.waiting();
        if left > 0 {
            log::warn!(target: "agent", "stopped while clients had not taken their last answers: clients={left}");
        }
    }

    /// Finds or forms a cluster and makes it durable. False when told to stop before there was one.
    async fn join(&self, data: &mut DataDir, desk: &Rc<Desk>) -> Result<bool, String> {
        let refuse = |why: Option<String>| {
            for to in 1..self.lanes.count() {
                // An executor that is behind learns it with the next round.
                let _ = self.lanes.try_send(to, Parcel::Refuse(why.clone()));
            }
            self.shell.refuse(why);
        };
        let found = find_cluster(&self.config, desk, &self.introduce, &self.stopping, refuse);
        // Nothing is promised or durable before it is found, so it may be let go of anywhere.
        let told_to_stop = async {
            while !self.stopping.get() {
                sleep(STOP_LOOK).await;
            }
            Ok(None)
        };
        let Some(formed) = found.or(told_to_stop).await? else {
            return Ok(false);
        };
        refuse(None);
        let table = &formed.bootstrap;
        let configuration =
            Configuration::new(table.cluster_id, table.shards, table.members.clone());
        // The logs first: a directory that names a cluster always has them.
        create_logs(&self.config, &self.place, &configuration)?;
        data.join_cluster(configuration.cluster_id, &configuration.encode())
            .map_err(|error| error.to_string())?;
        *self.cluster.borrow_mut() = Some(configuration);
        log::info!(target: "agent.server", "cluster formed: cluster={} servers={}", table.cluster_id, table.members.len());
        formed.announce().await;
        Ok(true)
    }

    /// Ends when a stopping server has waited long enough, or another executor has failed.
    async fn stopped(&self) -> Result<(), String> {
        while !self.stopping.get() {
            if let Some(why) = self.failed.borrow().clone() {
                return Err(why);
            }
            sleep(STOP_LOOK).await;
        }
        self.service.stop();
        sleep(STOP_PATIENCE).await;
        log::warn!(target: "agent", "stopped without waiting for the log any longer; what was acknowledged is durable");
        Ok(())
    }

    async fn stop_on(self: Rc<Self>, stop: OwnedFd) {
        // SAFETY: the descriptor is an open eventfd, and its ownership passes to the file.
        let file = unsafe { BufferedFile::from_raw_fd(stop.into_raw_fd()) };
        if let Err(error) = file.read_at(0, 8).await {
            // No signal can be waited for any more: stopping is the safe answer.
            log::error!(target: "agent", "cannot wait for signals, so stopping: {error}");
        }
        log::info!(target: "agent", "Gracefully shutting down agent...");
        self.stop();
    }

    /// Reads the configuration again at every SIGHUP.
    async fn reload_on(self: Rc<Self>, hangup: OwnedFd) {
        let Ok(ring) = reactor::ring() else { return };
        let hangups_file = std::fs::File::from(hangup);
        let mut hangups = Readiness::new(ring, Interest::Read);
        loop {
            hangups.ready(hangups_file.as_raw_fd()).await;
            // Takes all that came since; somebody else cannot have taken them.
            let mut count = [0; 8];
            if let Err(error) = (&hangups_file).read(&mut count) {
                // Nobody else takes them, so it stays like this: looking again would never end.
                log::error!(
                    target: "agent",
                    "SIGHUP is not heard any more: {error}; reload with PUT /v1/agent/reload"
                );
                return;
            }
            // Whatever came of it, `Reload::read_again` has told the log.
            let _ = Rc::clone(&self).read_configuration_again().await;
        }
    }

    /// Reads the configuration again, and has every executor carry it out.
    async fn read_configuration_again(self: Rc<Self>) -> Result<(), String> {
        let reload = Arc::clone(&self.reload);
        let read = glommio::executor().spawn_blocking(move || reload.read_again());
        let in_force = read.await?;
        self.lanes
            .send_all(|| Parcel::Configure(Arc::clone(&in_force)))
            .await;
        self.configure(&in_force);
        Ok(())
    }

    /// Carries out what can change while the server runs.
    fn configure(&self, in_force: &InForce) {
        // Two that were read at the same time may arrive in either order.
        if in_force.generation <= self.generation.get() {
            return;
        }
        self.generation.set(in_force.generation);
        let http = in_force.config.http;
        self.service
            .configure(http, in_force.config.http_rules.clone());
        self.clients.set_max(http.client_connections_max);
        if let Some(agent) = self.calls.agent().cloned() {
            let meta = in_force.config.node_meta.clone();
            let all = Configured::of(&in_force.config);
            glommio::spawn_local(async move { agent.configure(&meta, all).await }).detach();
        }
        if self.lanes.index() >= self.place.logs() {
            return;
        }
        let images = image_config(&in_force.config, self.place.identity.server_id());
        self.shell.post(Event::Compaction(CompactionBounds {
            threshold_entries: images.threshold_entries,
            interval_ns: images.interval_ns,
            trailing_entries_max: in_force.config.raft.trailing_logs,
        }));
    }

    fn stop(&self) {
        self.stopping.set(true);
        self.shell.post(Event::Shutdown);
    }

    /// Starts a task for what each other executor sends.
    fn read_parcels(self: &Rc<Self>, inbound: Vec<Inbound>) {
        for receiver in inbound {
            let executor = Rc::clone(self);
            glommio::spawn_local(async move {
                while let Some(parcel) = receiver.recv().await {
                    executor.take(parcel);
                }
            })
            .detach();
        }
    }

    fn take(&self, parcel: Parcel) {
        match parcel {
            Parcel::Http(fd, ticket) => self.serve_http(fd.into(), ticket),
            Parcel::Configure(in_force) => self.configure(&in_force),
            Parcel::Call {
                from,
                id,
                kind,
                shard,
                payload,
                waits,
            } => {
                let answer = self.router.serve_call(from, id, kind, shard, payload);
                // An asker's names for its questions are different.
                match waits.then(|| self.waiting.enter((from, id))).flatten() {
                    Some(entered) => glommio::spawn_local(entered.or_cancelled(answer)).detach(),
                    None => glommio::spawn_local(answer).detach(),
                };
            }
            Parcel::Reply { id, reply } => self.lanes.answered(id, reply),
            Parcel::Credit { from, id, pieces } => {
                self.lanes.windows.credit((from, id), pieces);
                if pieces == 0 {
                    self.waiting.cancel(&(from, id));
                }
            }
            Parcel::Event(event) => self.shell.post(*event),
            Parcel::Serve(configuration) => {
                self.router.set_shards(configuration.shards);
                *self.cluster.borrow_mut() = Some(*configuration);
            }
            Parcel::Agent(parcel) => self.calls.take(parcel),
            Parcel::Refuse(why) => self.shell.refuse(why),
            Parcel::Stop => self.stop(),
            Parcel::Fatal(why) => *self.failed.borrow_mut() = Some(why),
        }
    }

    fn serve_http(&self, socket: Socket, ticket: Option<ClientTicket>) {
        match Stream::new(socket) {
            Ok(stream) => {
                let served = self.service.serve_connection(stream);
                glommio::spawn_local(async move {
                    served.await;
                    drop(ticket);
                })
                .detach();
            }
            Err(error) => log::warn!(target: "agent.http", "connection dropped: {error}"),
        }
    }

    /// Takes HTTP connections in turn with the other executors.
    fn hand_round(self: Rc<Self>) -> impl Fn(Socket) {
        let next = Cell::new(0);
        move |socket| {
            let ticket = match self.clients.ticket(&socket) {
                Ok(ticket) => ticket,
                Err(TooMany) => return self.turn_away(socket),
            };
            let to = next.get();
            next.set((to + 1) % self.lanes.count());
            if to == self.lanes.index() {
                return self.serve_http(socket, ticket);
            }
            // An executor that is behind gets no more: this one serves it.
            let parcel = Parcel::Http(socket.into(), ticket);
            if let Err(Parcel::Http(fd, ticket)) = self.lanes.try_send(to, parcel) {
                self.serve_http(fd.into(), ticket);
            }
        }
    }

    fn turn_away(&self, socket: Socket) {
        if let Ok(stream) = Stream::new(socket) {
            glommio::spawn_local(self.service.turn_away(stream)).detach();
        }
    }

    fn greet(&self) {
        let http: Vec<String> = self
            .config
            .http_addresses
            .iter()
            .map(|a| a.to_string())
            .collect();
        let http = match http.is_empty() {
            true => "disabled".to_owned(),
            false => http.join(","),
        };
        log::info!(
            target: "agent",
            "curia {} agent running: node={} node_id={} datacenter={} server={} http={http} executors={} data_dir={}",
            env!("CARGO_PKG_VERSION"), self.config.node_name, self.place.identity.node_id, self.config.datacenter,
            self.config.server_bind, self.lanes.count(), self.place.path.display(),
        );
    }

    fn own(&self) -> Own {
        own(&self.config, &self.place)
    }
}

fn own(config: &AgentConfig, place: &Place) -> Own {
    Own {
        member: Member {
            raft_id: place.identity.server_id(),
            node_id: place.identity.node_id(),
            name: config.node_name.clone(),
            address: config.server_advertise.to_string(),
            voter: true,
            leader: false,
        },
        expect: match config.bootstrap {
            BootstrapMode::None => 0,
            BootstrapMode::Alone => 1,
            BootstrapMode::Expect(servers) => servers,
        },
        shards: config.shards.unwrap_or(1),
        datacenter: config.datacenter.clone(),
    }
}

/// What this server says of itself at the start of every connection.
fn introduction(
    config: &AgentConfig,
    place: &Place,
    lane: u16,
    board: Board,
    cluster: Rc<RefCell<Option<Configuration>>>,
) -> Introduce {
    let own = own(config, place);
    let lanes = place.logs();
    let http = config
        .http_address()
        .map(|address| address.to_string())
        .unwrap_or_default();
    Rc::new(move || {
        let cluster = cluster.borrow();
        Hello {
            protocol: limits::PROTOCOL_VERSION,
            node_id: own.member.node_id,
            raft_id: own.member.raft_id,
            name: own.member.name.clone(),
            address: own.member.address.clone(),
            http_address: http.clone(),
            datacenter: own.datacenter.clone(),
            cluster_id: cluster
                .as_ref()
                .map_or(ClusterId::default(), |c| c.cluster_id),
            lane,
            lanes,
            shards: cluster.as_ref().map_or(0, |c| c.shards),
            expect: own.expect,
            has_state: cluster.is_some(),
            leader: board.status(ShardId(0)).leader,
            members: cluster.as_ref().map_or(Vec::new(), |c| c.members.clone()),
            ..Hello::default()
        }
    })
}

fn server_info(config: &AgentConfig, place: &Place) -> ServerInfo {
    ServerInfo {
        node_name: config.node_name.clone(),
        node_id: place.identity.node_id.clone(),
        datacenter: config.datacenter.clone(),
        server_address: config.server_advertise.to_string(),
        node_meta: config.node_meta.clone(),
        http_address: config
            .http_address()
            .map(|address| address.to_string())
            .unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: option_env!("CURIA_REVISION").unwrap_or_default().to_owned(),
        shards: 1,
        executors: config.executors,
        hold: config.rpc_hold_timeout,
        acl: config.acl.clone(),
        tokens: Some(Arc::clone(&place.tokens)),
        data_dir: place.path.clone(),
        dev_mode: config.dev,
        telemetry: config.telemetry.clone(),
    }
}

/// Accepts connections for ever.
async fn accept(mut acceptor: Acceptor, serve: impl Fn(Socket)) {
    let complaints = Throttle::new(ACCEPT_COMPLAINTS_PAUSE);
    loop {
        match acceptor.accept().await {
            Ok(socket) => serve(socket),
            Err(error) => {
                // Out of descriptors, most likely: those that close make room.
                if let Some(others) = complaints.speak(Instant::now()) {
                    let others = left_out(others);
                    log::warn!(target: "agent.server", "cannot accept a connection: {error}{others}");
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

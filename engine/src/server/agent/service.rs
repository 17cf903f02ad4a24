//! The agent of a server: registrations, on disk and in time.
//!
//! Lives on the first executor. A request is carried out at once on what is registered; it is
//! answered when its files are written. One task expires TTL checks, one for each check that runs
//! runs it; whoever keeps the catalog in step waits for [`Agent::changed`].

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_lite::FutureExt;
use glommio::{sync::Semaphore, timer::sleep};

use super::{
    aside::Aside,
    configured::Configured,
    disk,
    events::{Events, UserEvent},
    local::{CheckKind, Local},
    names::Names,
    probe::{self, Reach},
    request::{AgentReply, AgentRequest, answer, events_heard},
    signal::{News, Signal},
    sync::OwnNode,
    tls::Trust,
    tokens::{self, TokenKind, Tokens},
};
use crate::{
    cluster::identity::random_u64,
    server::{config::acl::Secret, shell},
};

/// Runs of checks that are under way at once, at most.
pub const RUNS_IN_FLIGHT_MAX: u64 = 64;

/// Between two looks for services that have been critical for too long (Consul: 30 s).
const REAP_INTERVAL: Duration = Duration::from_secs(30);

/// The first run of a check comes within this, spread over it.
const FIRST_RUN_WITHIN_NS: u64 = 1_000_000_000;

/// A status that stays the same is written again at most this often: its file only says for how
/// long a TTL check still lives.
const STATUS_WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The agent of a server.
pub struct Agent {
    local: RefCell<Local>,
    own: RefCell<OwnNode>,
    /// The catalog must be compared with everything.
    resync: Cell<bool>,
    datacenter: String,
    data: PathBuf,
    tokens: Arc<Tokens>,
    files: Rc<Aside>,
    reach: Reach,
    /// One writes files at a time.
    writing: Semaphore,
    runs: Rc<Semaphore>,
    /// Generations of the checks that have a task.
    running: RefCell<BTreeMap<String, u64>>,
    timers: Signal,
    status_files: Signal,
    /// Rung whenever the catalog may have to be told something.
    pub(super) changed: Signal,
    seen_version: Cell<u64>,
    seen_generations: Cell<u64>,
    news: News,
    events: RefCell<Events>,
    event_news: News,
    tell_peers: TellPeers,
}

/// Sends a user event to all servers that are connected.
pub type TellPeers = Box<dyn Fn(&UserEvent)>;

/// The clock of TTLs, ms.
pub(super) fn now_ms() -> u64 {
    shell::now_ns() / 1_000_000
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

impl Agent {
    /// Reads what was registered before, below `data`, and starts its checks. Blocks for that.
    pub fn start(
        own: OwnNode,
        data: PathBuf,
        tokens: Arc<Tokens>,
        configured: Configured,
        tell_peers: TellPeers,
    ) -> Rc<Self> {
        let mut local = Local::new(&own.node.node);
        disk::read(&data, &mut local, now_ms(), unix_ms());
        let files = Aside::new("curia-agent");
        let agent = Rc::new(Self {
            local: RefCell::new(local),
            datacenter: own.node.datacenter.clone(),
            own: RefCell::new(own),
            resync: Cell::new(false),
            data,
            tokens,
            reach: Reach {
                names: Names::new(),
                trust: Trust::new(Rc::clone(&files)),
            },
            files,
            writing: Semaphore::new(1),
            runs: Rc::new(Semaphore::new(RUNS_IN_FLIGHT_MAX)),
            running: RefCell::default(),
            timers: Signal::default(),
            status_files: Signal::default(),
            changed: Signal::default(),
            seen_version: Cell::new(0),
            seen_generations: Cell::new(0),
            news: News::default(),
            events: RefCell::default(),
            event_news: News::default(),
            tell_peers,
        });
        glommio::spawn_local(Rc::clone(&agent).expire()).detach();
        glommio::spawn_local(Rc::clone(&agent).reap()).detach();
        glommio::spawn_local(Rc::clone(&agent).write_statuses()).detach();
        agent.register_configured(configured);
        agent.after_change();
        agent
    }

    /// Who this node is.
    pub(super) fn own(&self) -> OwnNode {
        self.own.borrow().clone()
    }

    /// Whether the catalog must be compared with everything, asked once.
    pub(super) fn take_resync(&self) -> bool {
        self.resync.replace(false)
    }

    /// Carries out a configuration that was read again.
    pub async fn configure(self: &Rc<Self>, meta: &BTreeMap<String, String>, all: Configured) {
        self.own.borrow_mut().set_meta(meta);
        self.resync.set(true);
        self.register_configured(all);
        self.changed.ring();
        self.after_change();
        self.after_sync().await;
    }

    fn register_configured(&self, all: Configured) {
        let errors = self.with_local(|local| local.configure(now_ms(), all.services, all.checks));
        for error in errors {
            log::error!(target: "agent", "not registered of the configuration: {error}");
        }
    }

    /// What is registered, to be looked at for a moment.
    pub(super) fn with_local<T>(&self, look: impl FnOnce(&mut Local) -> T) -> T {
        look(&mut self.local.borrow_mut())
    }

    /// Writes what has changed without anybody's asking.
    pub(in super::super) async fn after_sync(self: &Rc<Self>) {
        if let Err(why) = self.flush().await {
            log::error!(target: "agent", "cannot write a registration: {why}");
        }
    }

    /// Carries out a request.
    pub async fn serve(self: &Rc<Self>, request: AgentRequest) -> AgentReply {
        if let AgentRequest::Service { id, hash, wait_ms } = &request
            && !hash.is_empty()
        {
            self.hash_differs(id, hash, *wait_ms).await;
        }
        let request = match request {
            AgentRequest::Fire { event } => return self.fire(*event),
            AgentRequest::SetToken { kind, secret } => return self.set_token(kind, secret).await,
            AgentRequest::Events {
                name,
                index,
                wait_ms,
            } => return self.heard_since(&name, index, wait_ms).await,
            request => request,
        };
        let told = matches!(request, AgentRequest::UpdateCheck { .. });
        let reads = matches!(
            request,
            AgentRequest::Services
                | AgentRequest::Checks
                | AgentRequest::Counts
                | AgentRequest::Service { .. }
                | AgentRequest::HealthOf { .. }
                | AgentRequest::HealthNamed { .. }
        );
        let version = self.local.borrow().version();
        let reply = self.answer(request);
        if reads {
            return reply;
        }
        let same_status = told && self.local.borrow().version() == version;
        self.after_change();
        if same_status {
            // A sign of life: its file can wait, so that each does not cost a write.
            self.status_files.ring();
            return reply;
        }
        match self.flush().await {
            Err(why) if reply == AgentReply::Done => AgentReply::NotKept(why),
            _ => reply,
        }
    }

    /// Uses another token from now on; where tokens are kept, once it is. Goes on when whoever asked
    /// has gone: what is on disk must be what counts.
    async fn set_token(self: &Rc<Self>, kind: TokenKind, secret: Secret) -> AgentReply {
        let agent = Rc::clone(self);
        let setting = async move {
            let Ok(_turn) = agent.writing.acquire_permit(1).await else {
                return AgentReply::Gone;
            };
            if let Some(file) = agent.tokens.file_with(kind, &secret) {
                let path = agent.data.join(tokens::FILE);
                let written = agent
                    .files
                    .run(move || disk::replace_durably(&path, &file))
                    .await;
                if let Err(error) = written.flatten() {
                    return AgentReply::TokenNotKept(error.to_string());
                }
            }
            if agent.tokens.set(kind, secret) {
                // Whatever was refused with the old one is tried again.
                agent.resync.set(true);
                agent.changed.ring();
            }
            log::info!(target: "agent", "Updated agent's ACL token: token={}", kind.name());
            AgentReply::Done
        };
        let set = glommio::spawn_local(setting).detach().await;
        set.unwrap_or(AgentReply::Gone)
    }

    /// What a request does and says at once.
    fn answer(&self, request: AgentRequest) -> AgentReply {
        let (mut local, mut events) = (self.local.borrow_mut(), self.events.borrow_mut());
        answer(&mut local, &mut events, now_ms(), &self.datacenter, request)
    }

    fn fire(&self, mut event: UserEvent) -> AgentReply {
        event.ltime = self.events.borrow_mut().next_ltime();
        (self.tell_peers)(&event);
        self.hear(event);
        AgentReply::Done
    }

    /// An event that this server, or another, has fired.
    pub fn hear(&self, event: UserEvent) {
        if !event.concerns(&self.local.borrow()) {
            return;
        }
        log::debug!(target: "agent", "new user event: event_name={} event_id={}", event.name, event.id);
        if self.events.borrow_mut().heard(event) {
            self.event_news.tell();
        }
    }

    async fn heard_since(&self, name: &str, index: u64, wait_ms: u32) -> AgentReply {
        let listing = || events_heard(&self.events.borrow(), name);
        let differs = async {
            while matches!(listing(), AgentReply::Events { index: now, .. } if now == index) {
                self.event_news.next().await;
            }
        };
        let late = async {
            sleep(Duration::from_millis(wait_ms.into())).await;
        };
        if index > 0 {
            differs.or(late).await;
        }
        listing()
    }

    /// Wakes whoever has to do with what has just changed.
    fn after_change(self: &Rc<Self>) {
        let version = self.local.borrow().version();
        self.timers.ring();
        if self.seen_version.replace(version) != version {
            self.changed.ring();
            self.news.tell();
        }
        // Signs of life are many, and change nothing of what is run.
        let generations = self.local.borrow().generations();
        if self.seen_generations.replace(generations) != generations {
            self.start_runs();
        }
    }

    /// Writes what has changed. Goes on when whoever waits for it has gone: what could not be
    /// written must be noted.
    async fn flush(self: &Rc<Self>) -> Result<(), String> {
        let agent = Rc::clone(self);
        let writing = async move { agent.write().await };
        let written = glommio::spawn_local(writing).detach().await;
        written.unwrap_or_else(|| Err("the agent is stopping".to_owned()))
    }

    async fn write(&self) -> Result<(), String> {
        let Ok(_turn) = self.writing.acquire_permit(1).await else {
            return Err("the agent is stopping".to_owned());
        };
        // Somebody else may have written ours along.
        let files = self.with_local(|local| local.take_dirty(now_ms(), unix_ms()));
        if files.is_empty() {
            return Ok(());
        }
        let places: Vec<_> = files.iter().map(|file| file.place.clone()).collect();
        let data = self.data.clone();
        match self.files.run(move || disk::write(&data, files)).await {
            Ok(failed) => {
                self.with_local(|local| local.not_written(failed.places));
                failed.why.map_or(Ok(()), Err)
            }
            Err(error) => {
                self.with_local(|local| local.not_written(places));
                Err(error.to_string())
            }
        }
    }

    /// Waits until a service has another hash than `hash`, at most so long.
    async fn hash_differs(&self, id: &str, hash: &str, wait_ms: u32) {
        let differs = async {
            loop {
                let ask = AgentRequest::Service {
                    id: id.to_owned(),
                    hash: String::new(),
                    wait_ms: 0,
                };
                match self.answer(ask) {
                    AgentReply::Document { hash: now, .. } if now == hash => {
                        self.news.next().await;
                    }
                    _ => return,
                }
            }
        };
        let late = async {
            sleep(Duration::from_millis(wait_ms.into())).await;
        };
        differs.or(late).await;
    }

    /// Expires TTL checks.
    async fn expire(self: Rc<Self>) {
        loop {
            let next_ms = self.local.borrow().next_deadline_ms();
            let rung = self.timers.rung();
            match next_ms {
                None => rung.await,
                Some(next_ms) => {
                    let left = Duration::from_millis(next_ms.saturating_sub(now_ms()));
                    let due = async {
                        sleep(left).await;
                    };
                    rung.or(due).await;
                }
            }
            let expired = self.with_local(|local| local.expire(now_ms()));
            if expired.is_empty() {
                continue;
            }
            for id in expired {
                log::warn!(target: "agent", "Check missed TTL, is now critical: check={id}");
            }
            self.after_change();
            self.status_files.ring();
        }
    }

    /// Takes out services that have been critical for too long.
    async fn reap(self: Rc<Self>) {
        loop {
            sleep(REAP_INTERVAL).await;
            let overdue = self.local.borrow().overdue(now_ms());
            for id in overdue {
                log::info!(target: "agent", "deregistered service due to a check that was critical for too long: service={id}");
                let reply = self.serve(AgentRequest::DeregisterService { id }).await;
                if let AgentReply::NotKept(why) = reply {
                    log::error!(target: "agent", "cannot write a registration: {why}");
                }
            }
        }
    }

    /// Writes the files of statuses that nobody waits for, and tries again what failed.
    async fn write_statuses(self: Rc<Self>) {
        loop {
            self.status_files.rung().await;
            sleep(STATUS_WRITE_INTERVAL).await;
            if let Err(why) = self.flush().await {
                log::error!(target: "agent", "cannot write a registration: {why}");
                sleep(REAP_INTERVAL).await;
                self.status_files.ring();
            }
        }
    }

    /// Starts a task for each check that runs and has none.
    fn start_runs(self: &Rc<Self>) {
        let local = self.local.borrow();
        let mut running = self.running.borrow_mut();
        running.retain(|id, generation| {
            local
                .checks()
                .get(id)
                .is_some_and(|check| check.generation == *generation)
        });
        for (id, check) in local.checks() {
            let runs = matches!(
                check.definition.kind,
                CheckKind::Http(_) | CheckKind::Tcp(_)
            );
            if runs && !running.contains_key(id) {
                running.insert(id.clone(), check.generation);
                let run = Rc::clone(self).run(id.clone(), check.generation);
                glommio::spawn_local(run).detach();
            }
        }
    }

    /// Runs a check for as long as it is registered as it is.
    async fn run(self: Rc<Self>, id: String, generation: u64) {
        let mut runs = 0;
        loop {
            let found = self.local.borrow().checks().get(&id).cloned();
            let Some(check) = found.filter(|check| check.generation == generation) else {
                return;
            };
            let check = check.definition;
            let interval_ns = check.interval_ns;
            // The first result comes soon; then the checks are spread over their intervals.
            let pause_ns = match runs {
                0 => random_below(interval_ns.min(FIRST_RUN_WITHIN_NS)),
                1 => random_below(interval_ns),
                _ => interval_ns,
            };
            sleep(Duration::from_nanos(pause_ns)).await;
            runs += 1;
            let Ok(permit) = self.runs.acquire_permit(1).await else {
                return;
            };
            let timeout = probe::timeout(check.timeout_ns, interval_ns);
            let (status, output) = match &check.kind {
                CheckKind::Http(request) => {
                    probe::http(&self.reach, request, check.output_bytes_max, timeout).await
                }
                CheckKind::Tcp(check) => probe::tcp(&self.reach, check, timeout).await,
                _ => return,
            };
            drop(permit);
            self.with_local(|local| local.observe(now_ms(), &id, generation, status, output));
            if self.local.borrow().is_dirty() {
                self.after_change();
                self.status_files.ring();
            }
        }
    }
}

pub(super) fn random_below(bound: u64) -> u64 {
    random_u64() % bound.max(1)
}

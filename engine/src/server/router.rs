//! Where does a request go?
//!
//! Key → shard → executor; there to this server's replica if it leads, else to the leader over a
//! link. While there is no leader the request waits, up to the hold time (Consul
//! `rpc_hold_timeout`, 7 s); what nobody has acted on may be tried again, what may have been
//! acted on never is.

use std::{
    cell::{Cell, OnceCell},
    collections::BTreeMap,
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use glommio::timer::sleep;
use wire::{
    ClusterStatus, Failure, FailureKind, FrameKind, Index, Query, ReadMode, Reply as WireReply,
    ReplyBody, ShardId, TxnResult, shard_of,
};

use super::{
    agent::{
        calls::Calls,
        events::UserEvent,
        request::{AgentReply, AgentRequest},
    },
    answer::{over_bounds, plain},
    gateway::{Answer, Gateway, ServerInfo, Written},
    lanes::{Lanes, Parcel},
    meters::Meter,
    placement::Placement,
    relay::{
        Attempt, Carried, ReplySink, ends_wait, garbled, local_answer, relay_answer, rows_read,
        settle, written,
    },
    rows::Rows,
    shell::Shell,
    window::{Pieces, Window, may_be_long},
};
use crate::shard::{Event, Reply, Request, failure};

/// First and longest pause between two looks for a leader.
const HOLD_PAUSE_MIN: Duration = Duration::from_millis(10);
const HOLD_PAUSE_MAX: Duration = Duration::from_millis(200);

/// The way into the cluster for the tasks of one executor.
#[derive(Clone)]
pub struct Router(Rc<Inner>);

struct Inner {
    shell: Rc<Shell>,
    lanes: Rc<Lanes>,
    calls: Rc<Calls>,
    /// 0 until the cluster is known. Where a key belongs is a guess until then, and nothing is
    /// asked of a guessed shard.
    shards: Cell<u16>,
    /// Executors that shards live on: shard `s` on executor `s mod logs`.
    logs: u16,
    hold: Duration,
    info: ServerInfo,
    reload: OnceCell<ReloadServer>,
}

/// What has the whole server read its configuration again.
pub type ReloadServer = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>>>>>;

/// Another executor that asked.
struct LaneSink {
    /// This executor's way there.
    lanes: Rc<Lanes>,
    /// The asker.
    to: u16,
    /// Its name for the question.
    id: u64,
    /// How far a long answer may be ahead.
    window: Option<Window<(u16, u64)>>,
}

impl ReplySink for LaneSink {
    async fn reply(&self, reply: WireReply) -> bool {
        if let Some(window) = &self.window
            && !window.take().await
        {
            return false;
        }
        self.lanes
            .send(self.to, Parcel::Reply { id: self.id, reply })
            .await
    }
}

impl Router {
    /// A router for the tasks of the executor that `shell` and `lanes` are of.
    pub fn new(
        shell: Rc<Shell>,
        lanes: Rc<Lanes>,
        calls: Rc<Calls>,
        logs: u16,
        hold: Duration,
        info: ServerInfo,
    ) -> Self {
        Self(Rc::new(Inner {
            shell,
            lanes,
            calls,
            shards: Cell::new(0),
            logs,
            hold,
            info,
            reload: OnceCell::new(),
        }))
    }

    /// Another server has fired a user event.
    pub fn user_event(&self, bytes: &[u8]) {
        // One of a later version is not understood here, and nothing hangs on it.
        if let (Some(agent), Ok(event)) = (self.0.calls.agent(), UserEvent::decode(bytes)) {
            agent.hear(event);
        }
    }

    /// Says what [`Gateway::reload`] does. The first word counts.
    pub fn on_reload(&self, reload: ReloadServer) {
        let _ = self.0.reload.set(reload);
    }

    /// How many shards the cluster turned out to have.
    pub fn set_shards(&self, shards: u16) {
        self.0.shards.set(shards);
    }

    /// Which shards things belong to.
    fn placement(&self) -> Placement {
        Placement(self.shards())
    }

    /// Whether the sender of a command or query for `shard` knows where its key belongs.
    pub fn check_placement(&self, shard: ShardId, request: &Request) -> Result<(), Failure> {
        self.placement().check(shard, request)
    }

    /// Number of shards; 1 until the cluster is known.
    pub fn shards(&self) -> u16 {
        self.0.shards.get().max(1)
    }

    /// Waits until the cluster is known.
    async fn placed(&self) -> Result<(), Failure> {
        if self.0.shards.get() != 0 {
            return Ok(());
        }
        self.hold(|| async {
            match self.0.shards.get() {
                0 => Attempt::Again,
                _ => Attempt::Settled(Ok(())),
            }
        })
        .await
    }

    /// The executor that a shard lives on.
    fn lane_of(&self, shard: ShardId) -> u16 {
        shard.0 % self.0.logs
    }

    /// Whether the shard lives on this executor.
    pub fn is_here(&self, shard: ShardId) -> bool {
        self.lane_of(shard) == self.0.lanes.index()
    }

    /// Whether this server leads the shard and it lives on this executor.
    pub fn leads_here(&self, shard: ShardId) -> bool {
        self.0.shell.leader(shard).here
    }

    /// Hands an event to the executor that the shard lives on.
    pub fn to_shard(&self, shard: ShardId, event: Event) {
        if self.is_here(shard) {
            self.0.shell.post(event);
        } else {
            // A full channel drops it, as a network does: raft and transfers send again.
            let _ = self
                .0
                .lanes
                .try_send(self.lane_of(shard), Parcel::Event(Box::new(event)));
        }
    }

    /// Asks the executor that a shard lives on. It holds for a leader there.
    fn across(
        &self,
        kind: FrameKind,
        shard: ShardId,
        payload: Bytes,
        waits: bool,
    ) -> Result<Pieces, Failure> {
        let to = self.lane_of(shard);
        let asked = self.0.lanes.ask(to, kind, shard, payload, waits);
        asked.ok_or_else(|| over_bounds("requests in flight"))
    }

    /// Answers question `id` of another executor. Its window is open when this returns, so that
    /// the asker may go at any time.
    pub fn serve_call(
        &self,
        from: u16,
        id: u64,
        kind: FrameKind,
        shard: ShardId,
        payload: Bytes,
    ) -> impl Future<Output = ()> + use<> {
        let request = match kind {
            FrameKind::Propose => Ok(Request::Write(payload)),
            _ => Query::decode(&payload).map(Request::Read),
        };
        let lanes = Rc::clone(&self.0.lanes);
        let window = match &request {
            Ok(Request::Read(query)) if may_be_long(query) => lanes.windows.open((from, id)),
            _ => None,
        };
        let sink = LaneSink {
            lanes,
            to: from,
            id,
            window,
        };
        let router = self.clone();
        async move {
            match request {
                Ok(request) => router.relay(shard, request, &sink).await,
                Err(error) => {
                    let failure = failure(FailureKind::Invalid, error.to_string());
                    sink.reply(plain(Index(0), ReplyBody::Failed(failure)))
                        .await;
                }
            }
        }
    }

    /// Tries until it is settled or the hold time is over.
    async fn hold<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Attempt<T>>,
    {
        let deadline = Cell::new(Instant::now() + self.0.hold);
        self.hold_until(&deadline, attempt).await
    }

    /// [`Self::hold`] for a read. One that waits for a change may lose its leader at any time: it
    /// is asked again, of the next one, for what is left of its wait, and has the hold time anew.
    async fn hold_read(&self, shard: ShardId, query: Query) -> Result<Answer<Rows>, Failure> {
        if !query.waits() {
            return self.hold(|| self.try_read(shard, &query)).await;
        }
        let hold = self.0.hold;
        let begun = Instant::now();
        let until = begun + Duration::from_millis(u64::from(query.wait.ms));
        let deadline = Cell::new(begun + hold);
        let (deadline, query) = (&deadline, &query);
        self.hold_until(deadline, || async move {
            let asked = Instant::now();
            let left = until.saturating_duration_since(asked);
            let mut query = query.clone();
            query.wait.ms = left.as_millis() as u32;
            let attempt = self.try_read(shard, &query).await;
            if query.waits() && asked.elapsed() > HOLD_PAUSE_MAX {
                deadline.set(Instant::now() + hold);
            }
            attempt
        })
        .await
    }

    async fn hold_until<T, F>(
        &self,
        deadline: &Cell<Instant>,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Attempt<T>>,
    {
        let mut pause = HOLD_PAUSE_MIN;
        loop {
            if let Some(why) = self.0.shell.refusal() {
                return Err(failure(FailureKind::NotMember, why));
            }
            if let Attempt::Settled(result) = attempt().await {
                return result;
            }
            if Instant::now() + pause > deadline.get() {
                return Err(failure(FailureKind::NoLeader, "No cluster leader"));
            }
            sleep(pause).await;
            pause = (pause * 2).min(HOLD_PAUSE_MAX);
        }
    }

    async fn try_write(&self, shard: ShardId, command: Bytes) -> Attempt<Carried> {
        let shell = &self.0.shell;
        if !self.is_here(shard) {
            return match self.across(FrameKind::Propose, shard, command, false) {
                Ok(pieces) => written(pieces).await,
                Err(failure) => Attempt::Settled(Err(failure)),
            };
        }
        let leader = shell.leader(shard);
        if leader.here {
            return match shell.call(shard, Request::Write(command)).await {
                Ok(Reply::Written { ok, index }) => {
                    Attempt::Settled(Ok(Carried::Written(Written { ok, index })))
                }
                Ok(Reply::Txn { index, outcome }) => {
                    Attempt::Settled(Ok(Carried::Txn(index, outcome.to_wire())))
                }
                Ok(Reply::Document { index, json }) => {
                    Attempt::Settled(Ok(Carried::Document(index, json)))
                }
                Ok(Reply::Read(_)) => unreachable!("a write is answered as a write"),
                Err(failure) => settle(failure),
            };
        }
        let Some(server) = leader.server else {
            return Attempt::Again;
        };
        match shell
            .links
            .forward(server, FrameKind::Propose, shard, command, false)
        {
            Ok(pieces) => written(pieces).await,
            Err(_) => Attempt::Again,
        }
    }

    async fn try_read(&self, shard: ShardId, query: &Query) -> Attempt<Answer<Rows>> {
        let shell = &self.0.shell;
        if !self.is_here(shard) {
            let waits = query.waits();
            return match self.across(FrameKind::Query, shard, query.encode(), waits) {
                // This process is stopping, whichever of its executors says so.
                Ok(pieces) => rows_read(pieces, waits).await,
                Err(failure) => Attempt::Settled(Err(failure)),
            };
        }
        let leader = shell.leader(shard);
        if leader.here || query.mode == ReadMode::Stale {
            match shell.call(shard, Request::Read(query.clone())).await {
                Ok(Reply::Read(read)) => return Attempt::Settled(Ok(local_answer(read))),
                Ok(Reply::Written { .. } | Reply::Txn { .. } | Reply::Document { .. }) => {
                    unreachable!("a read is answered as a read")
                }
                Err(failure) if ends_wait(&failure, query.waits()) => {
                    return Attempt::Settled(Err(failure));
                }
                Err(failure) => match settle(failure) {
                    // A server that never heard from a leader has nothing to answer from.
                    Attempt::Again if query.mode == ReadMode::Stale => {}
                    other => return other,
                },
            }
        }
        let Some(server) = leader.server.filter(|_| !leader.here) else {
            return Attempt::Again;
        };
        match shell.links.forward(
            server,
            FrameKind::Query,
            shard,
            query.encode(),
            query.waits(),
        ) {
            Ok(pieces) => rows_read(pieces, false).await,
            Err(_) => Attempt::Again,
        }
    }

    /// Has a command committed and applied, wherever the leader is.
    async fn carry_out(&self, shard: ShardId, command: Bytes) -> Result<Carried, Failure> {
        let shard = match self.0.shards.get() {
            0 => {
                self.placed().await?;
                self.placement().of_command(&command)?
            }
            _ => shard,
        };
        self.hold(|| self.try_write(shard, command.clone())).await
    }

    /// Answers a request by way of the router, in one or more pieces.
    pub async fn relay(&self, shard: ShardId, request: Request, sink: &impl ReplySink) {
        match request {
            Request::Write(command) => {
                sink.reply(match self.carry_out(shard, command).await {
                    Ok(Carried::Written(Written { ok, index })) => {
                        plain(index, ReplyBody::Written { ok, index })
                    }
                    Ok(Carried::Txn(index, result)) => plain(index, ReplyBody::Txn(result)),
                    Ok(Carried::Document(index, json)) => plain(index, ReplyBody::Document(json)),
                    Err(failure) => plain(Index(0), ReplyBody::Failed(failure)),
                })
                .await;
            }
            Request::Read(query) => match self.hold_read(shard, query).await {
                Ok(answer) => relay_answer(answer, sink).await,
                Err(failure) => {
                    sink.reply(plain(Index(0), ReplyBody::Failed(failure)))
                        .await;
                }
            },
        }
    }
}

impl Gateway for Router {
    type Rows = Rows;

    async fn write(&self, shard: ShardId, command: Bytes) -> Result<Written, Failure> {
        match self.carry_out(shard, command).await? {
            Carried::Written(written) => Ok(written),
            Carried::Txn(..) | Carried::Document(..) => Err(garbled()),
        }
    }

    async fn record(&self, command: Bytes) -> Result<Written, Failure> {
        self.placed().await?;
        let shard = self.placement().of_command(&command)?;
        self.write(shard, command).await
    }

    async fn record_with_answer(&self, command: Bytes) -> Result<(Index, Bytes), Failure> {
        self.placed().await?;
        let shard = self.placement().of_command(&command)?;
        match self.carry_out(shard, command).await? {
            Carried::Document(index, json) => Ok((index, json)),
            Carried::Written(_) | Carried::Txn(..) => Err(garbled()),
        }
    }

    async fn txn(&self, command: Bytes) -> Result<(Index, TxnResult), Failure> {
        self.placed().await?;
        let shard = self.placement().of_command(&command)?;
        match self.carry_out(shard, command).await? {
            Carried::Txn(index, result) => Ok((index, result)),
            Carried::Written(_) | Carried::Document(..) => Err(garbled()),
        }
    }

    async fn read(&self, query: Query) -> Result<Answer<Rows>, Failure> {
        self.placed().await?;
        let shard = self.placement().of_query(&query)?;
        self.hold_read(shard, query).await
    }

    async fn agent(&self, request: AgentRequest) -> AgentReply {
        self.0.calls.ask(request).await
    }

    fn shard_of(&self, key: &[u8]) -> ShardId {
        shard_of(key, self.shards())
    }

    fn status(&self) -> ClusterStatus {
        self.0.shell.board.status(ShardId(0))
    }

    fn acl_index(&self) -> u64 {
        self.0.shell.board.acl_index()
    }

    fn info(&self) -> ServerInfo {
        ServerInfo {
            shards: self.shards(),
            ..self.0.info.clone()
        }
    }

    async fn reload(&self) -> Result<(), String> {
        match self.0.reload.get() {
            Some(reload) => reload().await,
            None => Err("this server is not ready to read its configuration again".to_owned()),
        }
    }

    fn meter(&self) -> Meter {
        self.0.shell.board.meter().clone()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        self.0.shell.board.metrics()
    }
}

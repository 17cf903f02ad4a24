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
    ClusterStatus, Command, Failure, FailureKind, FrameKind, Index, KvCommand, KvRow as WireRow,
    KvRowRef, KvVerb, Query, QueryBody, ReadMode, RecordKind, Reply as WireReply, ReplyBody,
    ShardId, TxnOps, TxnResult, TxnVerb, limits, shard_of,
};

use super::{
    agent::{
        calls::Calls,
        events::UserEvent,
        request::{AgentReply, AgentRequest},
    },
    answer::{ROWS_PER_SLICE, over_bounds, plain},
    gateway::{Answer, AnswerBody, Gateway, RowBatch, RowStream, ServerInfo, Written},
    lanes::{Lanes, Parcel},
    meters::Meter,
    shell::Shell,
    window::{Pieces, Window, may_be_long},
};
use crate::{
    documents::TooLong,
    shard::{Event, ReadBody, Reply, Request, failure},
    state::{KvList, KvRow},
};

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

/// Where the pieces of an answer go.
pub trait ReplySink {
    /// Takes a piece, waiting until there is room. False when nobody wants more.
    fn reply(&self, reply: WireReply) -> impl Future<Output = bool>;
}

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

/// What came of one attempt.
enum Attempt<T> {
    /// It is settled.
    Settled(Result<T, Failure>),
    /// Nobody acted on it: it may be tried again.
    Again,
}

/// What a command came to.
enum Carried {
    Written(Written),
    Txn(Index, TxnResult),
    Document(Index, Bytes),
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

    /// Number of shards; 1 until the cluster is known.
    pub fn shards(&self) -> u16 {
        self.0.shards.get().max(1)
    }

    /// Waits until the cluster is known.
    async fn placed(&self) -> Result<(), Failure> {
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
                self.shard_of_command(&command)?
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

    /// Why no one shard can carry a command out, if none can.
    fn misplaced(&self, command: &KvCommand<'_>) -> Option<String> {
        let tree = command.verb == KvVerb::DeleteTree;
        (self.shards() > 1 && tree && !has_full_segment(command.key)).then(|| {
            "a recursive delete of a prefix without a full first segment spans shards".to_owned()
        })
    }

    /// Whether the sender of a command or query for `shard` knows where its key belongs: one that
    /// counts other shards than there are would write where nobody reads.
    pub fn check_placement(&self, shard: ShardId, request: &Request) -> Result<(), Failure> {
        if self.shards() == 1 {
            return Ok(());
        }
        let wanted = match request {
            Request::Write(command) => self.shard_of_command(command)?,
            // Each shard has a status.
            Request::Read(query) if query.body == QueryBody::Status => return Ok(()),
            Request::Read(query) => self.shard_of_query(query)?,
        };
        if wanted == shard {
            return Ok(());
        }
        let shards = self.shards();
        let why = format!("of {shards} shards this key belongs to {wanted}, not to {shard}");
        Err(failure(FailureKind::Invalid, why))
    }

    /// The shard that a command's key belongs to.
    fn shard_of_command(&self, command: &[u8]) -> Result<ShardId, Failure> {
        match Command::decode(command) {
            Ok(Command::Kv(kv)) => match self.misplaced(&kv) {
                Some(why) => Err(failure(FailureKind::SpansShards, why)),
                None => Ok(shard_of(kv.key, self.shards())),
            },
            Ok(Command::Txn(ops)) => self.shard_of_txn(&ops),
            Ok(Command::Record(record))
                if matches!(record.kind, RecordKind::Session | RecordKind::Txn)
                    && self.shards() > 1 =>
            {
                let why = format!(
                    "sessions and transactions on the catalog span shards, which a cluster of {} shards does not support",
                    self.shards()
                );
                Err(failure(FailureKind::SpansShards, why))
            }
            Ok(_) => Ok(ShardId(0)),
            Err(error) => Err(failure(FailureKind::Internal, error.to_string())),
        }
    }

    /// The shard that all operations of a transaction lie in.
    fn shard_of_txn(&self, ops: &TxnOps<'_>) -> Result<ShardId, Failure> {
        let shards = self.shards();
        let mut found = None;
        for op in ops.iter() {
            let prefix = matches!(op.verb, TxnVerb::Kv(KvVerb::DeleteTree) | TxnVerb::GetTree);
            let spans = prefix && shards > 1 && !has_full_segment(op.key);
            let shard = shard_of(op.key, shards);
            if spans || found.is_some_and(|found| found != shard) {
                let why = format!(
                    "a transaction whose keys lie in more than one shard is not supported (this cluster has {shards})"
                );
                return Err(failure(FailureKind::SpansShards, why));
            }
            found = Some(shard);
        }
        Ok(found.unwrap_or_default())
    }

    /// The shard that can answer a query alone.
    fn shard_of_query(&self, query: &Query) -> Result<ShardId, Failure> {
        if self.shards() == 1 {
            return Ok(ShardId(0));
        }
        let spans = |what: &str| {
            Err(failure(
                FailureKind::SpansShards,
                format!(
                    "{what} spans shards, which a cluster of {} shards does not support",
                    self.shards()
                ),
            ))
        };
        match &query.body {
            QueryBody::KvGet { key } => Ok(shard_of(key, self.shards())),
            // Records live in the system shard.
            QueryBody::Status | QueryBody::Record(_) => Ok(ShardId(0)),
            QueryBody::Txn(command) => self.shard_of_command(command),
            QueryBody::KvList { prefix, .. } | QueryBody::KvKeys { prefix, .. } => {
                match has_full_segment(prefix) {
                    true => Ok(shard_of(prefix, self.shards())),
                    false => spans("a listing of a prefix without a full first segment"),
                }
            }
            QueryBody::KvWatch { prefix, .. } => match has_full_segment(prefix) {
                true => Ok(shard_of(prefix, self.shards())),
                false => spans("a watch of a prefix without a full first segment"),
            },
        }
    }
}

/// Whether every key with this prefix lies in one shard: its first segment is complete.
pub fn has_full_segment(prefix: &[u8]) -> bool {
    let start = prefix
        .iter()
        .position(|byte| *byte != b'/')
        .unwrap_or(prefix.len());
    prefix[start..].contains(&b'/')
}

fn settle<T>(failure: Failure) -> Attempt<T> {
    match failure.kind {
        // Nothing happened there: look for the leader again.
        FailureKind::NotLeader | FailureKind::NotMember => Attempt::Again,
        FailureKind::ShuttingDown => Attempt::Again,
        _ => Attempt::Settled(Err(failure)),
    }
}

/// Whether this very server ended a blocking query because it stops. Others are asked again.
fn ends_wait(failure: &Failure, waits_here: bool) -> bool {
    waits_here && failure.kind == FailureKind::ShuttingDown
}

fn garbled() -> Failure {
    failure(
        FailureKind::Internal,
        "the leader answered another question than was asked",
    )
}

fn local_answer(read: crate::shard::ReadAnswer) -> Answer<Rows> {
    let body = match read.body {
        ReadBody::Row(row) => AnswerBody::Rows(Rows::Few(row.into_iter().collect())),
        ReadBody::List(list) => AnswerBody::Rows(Rows::List(list)),
        ReadBody::Keys(mut keys) => {
            let mut names = Vec::new();
            while keys.next_keys(ROWS_PER_SLICE, &mut names) {}
            AnswerBody::Keys(names)
        }
        ReadBody::Status(status) => AnswerBody::Status(status),
        ReadBody::Txn(outcome) => AnswerBody::Txn(outcome.to_wire()),
        ReadBody::Document(json) => AnswerBody::Document(json),
        ReadBody::Changes(changes) => AnswerBody::Changes(changes.to_wire()),
    };
    Answer {
        index: read.index,
        known_leader: read.known_leader,
        last_contact_ms: read.last_contact_ms,
        body,
    }
}

async fn remote_answer(first: WireReply, mut pieces: Pieces) -> Attempt<Answer<Rows>> {
    let (index, known_leader, last_contact_ms) =
        (first.index, first.known_leader, first.last_contact_ms);
    let body = match first.body {
        ReplyBody::Rows(rows) => {
            let rest = first.more.then_some(pieces);
            AnswerBody::Rows(Rows::Remote {
                first: Some(rows),
                rest,
            })
        }
        ReplyBody::Keys(mut keys) => {
            let mut more = first.more;
            while more {
                match pieces.next().await {
                    Some(WireReply {
                        body: ReplyBody::Keys(next),
                        more: further,
                        ..
                    }) => {
                        keys.extend(next);
                        more = further;
                    }
                    _ => return Attempt::Again,
                }
            }
            AnswerBody::Keys(keys)
        }
        ReplyBody::Status(status) => AnswerBody::Status(status),
        ReplyBody::Txn(result) => AnswerBody::Txn(result),
        ReplyBody::Document(json) if !first.more => AnswerBody::Document(json),
        ReplyBody::Document(json) => match rest_of(json, &mut pieces).await {
            Some(Ok(json)) => AnswerBody::Document(json),
            Some(Err(failure)) => return Attempt::Settled(Err(failure)),
            None => return Attempt::Again,
        },
        ReplyBody::Changes(changes) => AnswerBody::Changes(changes),
        ReplyBody::Written { .. } | ReplyBody::Failed(_) => {
            return Attempt::Settled(Err(garbled()));
        }
    };
    Attempt::Settled(Ok(Answer {
        index,
        known_leader,
        last_contact_ms,
        body,
    }))
}

/// A document from its pieces; `None` when the connection broke before the last.
async fn rest_of(first: Bytes, pieces: &mut Pieces) -> Option<Result<Bytes, Failure>> {
    let mut document = first.to_vec();
    loop {
        let reply = pieces.next().await?;
        let ReplyBody::Document(piece) = reply.body else {
            return Some(Err(garbled()));
        };
        if document.len() + piece.len() > limits::DOCUMENT_BYTES_MAX {
            return Some(Err(too_long()));
        }
        document.extend_from_slice(&piece);
        if !reply.more {
            return Some(Ok(document.into()));
        }
    }
}

fn too_long() -> Failure {
    failure(FailureKind::TooLarge, TooLong.to_string())
}

/// The outcome of a write that was sent elsewhere.
async fn written(mut pieces: Pieces) -> Attempt<Carried> {
    let reply = pieces.next().await;
    let index = reply.as_ref().map(|reply| reply.index).unwrap_or_default();
    match reply.map(|reply| reply.body) {
        Some(ReplyBody::Written { ok, index }) => {
            Attempt::Settled(Ok(Carried::Written(Written { ok, index })))
        }
        Some(ReplyBody::Txn(result)) => Attempt::Settled(Ok(Carried::Txn(index, result))),
        Some(ReplyBody::Document(json)) => Attempt::Settled(Ok(Carried::Document(index, json))),
        Some(ReplyBody::Failed(failure)) => settle(failure),
        Some(_) => Attempt::Settled(Err(garbled())),
        None => Attempt::Settled(Err(failure(
            FailureKind::OutcomeUnknown,
            "leadership lost while committing log",
        ))),
    }
}

/// The answer to a read that was sent elsewhere.
async fn rows_read(mut pieces: Pieces, waits_here: bool) -> Attempt<Answer<Rows>> {
    match pieces.next().await {
        None => Attempt::Again,
        Some(first) => match first.body {
            ReplyBody::Failed(failure) if ends_wait(&failure, waits_here) => {
                Attempt::Settled(Err(failure))
            }
            ReplyBody::Failed(failure) => settle(failure),
            _ => remote_answer(first, pieces).await,
        },
    }
}

async fn relay_answer(answer: Answer<Rows>, sink: &impl ReplySink) {
    let reply = |more, body| WireReply {
        index: answer.index,
        known_leader: answer.known_leader,
        last_contact_ms: answer.last_contact_ms,
        more,
        body,
    };
    match answer.body {
        AnswerBody::Status(status) => {
            sink.reply(reply(false, ReplyBody::Status(status))).await;
        }
        AnswerBody::Txn(result) => {
            sink.reply(reply(false, ReplyBody::Txn(result))).await;
        }
        AnswerBody::Document(mut json) => loop {
            let piece = json.split_to(json.len().min(limits::REPLY_BYTES_MAX));
            let more = !json.is_empty();
            if !sink.reply(reply(more, ReplyBody::Document(piece))).await || !more {
                return;
            }
        },
        AnswerBody::Changes(changes) => {
            sink.reply(reply(false, ReplyBody::Changes(changes))).await;
        }
        AnswerBody::Keys(keys) => {
            let mut pieces = keys.chunks(KEYS_PER_PIECE).peekable();
            while let Some(piece) = pieces.next() {
                let more = pieces.peek().is_some();
                if !sink
                    .reply(reply(more, ReplyBody::Keys(piece.to_vec())))
                    .await
                {
                    return;
                }
            }
            if keys.is_empty() {
                sink.reply(reply(false, ReplyBody::Keys(Vec::new()))).await;
            }
        }
        AnswerBody::Rows(mut rows) => {
            while let Some(batch) = rows.next_batch().await {
                let wanted = match batch {
                    Ok(batch) => {
                        sink.reply(reply(true, ReplyBody::Rows(batch.into_wire())))
                            .await
                    }
                    Err(failure) => {
                        sink.reply(reply(false, ReplyBody::Failed(failure))).await;
                        false
                    }
                };
                if !wanted {
                    return;
                }
            }
            sink.reply(reply(false, ReplyBody::Rows(Vec::new()))).await;
        }
    }
}

/// Key names per piece of an answer: of the longest keys, they fit a frame.
const KEYS_PER_PIECE: usize = 512;

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
        let shard = self.shard_of_command(&command)?;
        self.write(shard, command).await
    }

    async fn record_with_answer(&self, command: Bytes) -> Result<(Index, Bytes), Failure> {
        self.placed().await?;
        let shard = self.shard_of_command(&command)?;
        match self.carry_out(shard, command).await? {
            Carried::Document(index, json) => Ok((index, json)),
            Carried::Written(_) | Carried::Txn(..) => Err(garbled()),
        }
    }

    async fn txn(&self, command: Bytes) -> Result<(Index, TxnResult), Failure> {
        self.placed().await?;
        let shard = self.shard_of_command(&command)?;
        match self.carry_out(shard, command).await? {
            Carried::Txn(index, result) => Ok((index, result)),
            Carried::Written(_) | Carried::Document(..) => Err(garbled()),
        }
    }

    async fn read(&self, query: Query) -> Result<Answer<Rows>, Failure> {
        self.placed().await?;
        let shard = self.shard_of_query(&query)?;
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

/// Rows of an answer, wherever they come from.
pub enum Rows {
    /// All of them.
    Few(Vec<KvRow>),
    /// A cursor over this server's state.
    List(KvList),
    /// Pieces from the leader.
    Remote {
        /// The piece that came first.
        first: Option<Vec<WireRow>>,
        /// Where the others come from; `None` at the end.
        rest: Option<Pieces>,
    },
}

/// A piece of them.
pub enum Batch {
    /// From this server's state.
    Local(Vec<KvRow>),
    /// From the leader.
    Remote(Vec<WireRow>),
}

impl Batch {
    fn into_wire(self) -> Vec<WireRow> {
        match self {
            Self::Remote(rows) => rows,
            Self::Local(rows) => rows.iter().map(|row| row.as_ref().to_row()).collect(),
        }
    }
}

impl RowStream for Rows {
    type Batch = Batch;

    async fn next_batch(&mut self) -> Option<Result<Batch, Failure>> {
        match self {
            Self::Few(rows) if rows.is_empty() => None,
            Self::Few(rows) => Some(Ok(Batch::Local(std::mem::take(rows)))),
            Self::List(list) => {
                let mut rows = Vec::new();
                list.next_rows(ROWS_PER_SLICE, limits::REPLY_BYTES_MAX, &mut rows);
                (!rows.is_empty()).then_some(Ok(Batch::Local(rows)))
            }
            Self::Remote { first, rest } => {
                if let Some(rows) = first.take().filter(|rows| !rows.is_empty()) {
                    return Some(Ok(Batch::Remote(rows)));
                }
                loop {
                    let piece = rest.as_mut()?.next().await;
                    match piece {
                        Some(WireReply {
                            body: ReplyBody::Rows(rows),
                            more,
                            ..
                        }) => {
                            if !more {
                                *rest = None;
                            }
                            if !rows.is_empty() {
                                return Some(Ok(Batch::Remote(rows)));
                            }
                        }
                        Some(WireReply {
                            body: ReplyBody::Failed(failure),
                            ..
                        }) => {
                            *rest = None;
                            return Some(Err(failure));
                        }
                        _ => {
                            *rest = None;
                            let why = "the connection to the leader broke while it was listing";
                            return Some(Err(failure(FailureKind::Internal, why)));
                        }
                    }
                }
            }
        }
    }
}

impl RowBatch for Batch {
    fn len(&self) -> usize {
        match self {
            Self::Local(rows) => rows.len(),
            Self::Remote(rows) => rows.len(),
        }
    }

    fn row(&self, at: usize) -> KvRowRef<'_> {
        match self {
            Self::Local(rows) => rows[at].as_ref(),
            Self::Remote(rows) => rows[at].borrow(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_lies_in_one_shard_only_when_its_first_segment_is_complete() {
        for (prefix, full) in [
            ("", false),
            ("a", false),
            ("a/", true),
            ("/a", false),
            ("//a/b", true),
            ("/", false),
        ] {
            assert_eq!(has_full_segment(prefix.as_bytes()), full, "{prefix:?}");
        }
    }
}

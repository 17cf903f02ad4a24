//! A cluster in a map.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use engine::server::agent::{
    events::Events,
    local::Local,
    request::{AgentReply, AgentRequest, answer},
};
use engine::server::gateway::{Answer, AnswerBody, Gateway, RowStream, ServerInfo, Written};
use wire::{
    ChangeOp, ClusterStatus, Command, Cursor, Failure, FailureKind, Index, KvChange, KvChanges,
    KvCommand, KvRow, KvVerb, Member, Query, QueryBody, ReadMode, ServerId, ShardId, Term,
    TxnResult, Uuid, Wait, WatchFrom,
};

/// What the test sees and decides.
pub struct State {
    pub rows: BTreeMap<Vec<u8>, KvRow>,
    pub index: u64,
    /// Last index that changed anything, deletions included.
    pub table_index: u64,
    pub sessions: BTreeSet<String>,
    /// What every request is answered with.
    pub failure: Option<Failure>,
    /// What a write is answered with after it was carried out.
    pub failure_after: Option<Failure>,
    /// The reads so far.
    pub reads: Vec<(ReadMode, QueryBody)>,
    /// What each of them waited for.
    pub waits: Vec<Wait>,
    /// Blocking queries that wait now.
    pub waiting: usize,
    /// What watches are told, and behind which cursor it begins.
    pub changes: Vec<KvChange>,
    pub history_begins: Cursor,
    /// Changes in one answer.
    pub changes_max: usize,
    /// What a watch's questions for changes are answered with.
    pub watch_failure: Option<Failure>,
    /// The writes so far.
    pub writes: usize,
    /// What every transaction comes to.
    pub txn: TxnResult,
    /// The transactions so far, as they print.
    pub txns: Vec<String>,
    /// Writes wait while this is set.
    pub hold: bool,
    /// Requests that wait now.
    pub held: usize,
    pub known_leader: bool,
    pub last_contact_ms: u64,
    pub batch_rows: usize,
    /// Batches that were read of row streams.
    pub batches_read: usize,
    /// A row stream fails after so many batches.
    pub fail_after_batches: Option<usize>,
    pub info: ServerInfo,
    pub status: ClusterStatus,
    /// What is registered with the agent, and its clock.
    pub local: Local,
    pub events: Events,
    pub now_ms: u64,
    /// Registrations cannot be written, for this reason.
    pub not_kept: Option<String>,
}

/// Whose history it is.
pub const ORIGIN: u64 = 0xc0ffee;

pub const NODE_ID: &str = "0191f3ab-00ff-4c2d-9e7a-0123456789ab";

impl Default for State {
    fn default() -> Self {
        let member = |at: u8, leader| Member {
            raft_id: ServerId(at.into()),
            node_id: if leader {
                Uuid::parse(NODE_ID).unwrap()
            } else {
                Uuid([at; 16])
            },
            name: format!("s{at}"),
            address: format!("127.0.0.{}:8300", at + 1),
            voter: at < 3,
            leader,
        };
        Self {
            rows: BTreeMap::new(),
            index: 10,
            table_index: 0,
            sessions: BTreeSet::new(),
            failure: None,
            failure_after: None,
            reads: Vec::new(),
            waits: Vec::new(),
            waiting: 0,
            changes: Vec::new(),
            history_begins: Cursor::default(),
            changes_max: usize::MAX,
            watch_failure: None,
            writes: 0,
            txn: TxnResult::default(),
            txns: Vec::new(),
            hold: false,
            held: 0,
            known_leader: true,
            last_contact_ms: 0,
            batch_rows: 100,
            batches_read: 0,
            fail_after_batches: None,
            info: ServerInfo {
                node_name: "s1".into(),
                node_id: NODE_ID.into(),
                datacenter: "dc1".into(),
                server_address: "127.0.0.2:8300".into(),
                node_meta: BTreeMap::new(),
                http_address: "127.0.0.2:8500".into(),
                version: "0.1.0".into(),
                revision: "abc123".into(),
                shards: 1,
                executors: 2,
                dev_mode: false,
                ..ServerInfo::default()
            },
            local: Local::new("s1"),
            events: Events::default(),
            now_ms: 0,
            not_kept: None,
            status: ClusterStatus {
                leader: "127.0.0.2:8300".into(),
                term: Term(3),
                commit: Index(42),
                applied: Index(41),
                members: vec![member(1, true), member(2, false), member(3, false)],
            },
        }
    }
}

pub fn failure(kind: FailureKind, message: &str) -> Failure {
    Failure {
        kind,
        message: message.into(),
        leader: String::new(),
        retry_after_ms: 0,
    }
}

impl State {
    fn answer(&mut self, now_ms: u64, request: AgentRequest) -> AgentReply {
        answer(&mut self.local, &mut self.events, now_ms, "dc1", request)
    }

    fn note_txn(&mut self, command: &[u8]) {
        let Ok(Command::Txn(ops)) = Command::decode(command) else {
            panic!("not a transaction: {command:?}");
        };
        self.txns.extend(ops.iter().map(|op| {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let (key, value, session) = (text(op.key), text(op.value), text(op.session));
            format!(
                "{:?} {key}={value} flags {} index {} session {session}",
                op.verb, op.flags, op.index
            )
        }));
    }

    fn apply(&mut self, kv: KvCommand<'_>) -> Result<bool, Failure> {
        let old = self.rows.get(kv.key).cloned();
        let old_index = old.as_ref().map_or(0, |row| row.modify_index.0);
        let session = std::str::from_utf8(kv.session).unwrap();
        let old_session = old
            .as_ref()
            .map(|row| row.session.clone())
            .unwrap_or_default();
        let old_lock_index = old.as_ref().map_or(0, |row| row.lock_index);
        match kv.verb {
            KvVerb::Set => self.write(kv, old, old_session, 0),
            KvVerb::Cas if kv.index != old_index => return Ok(false),
            KvVerb::Cas => self.write(kv, old, old_session, 0),
            KvVerb::Lock if !self.sessions.contains(session) => {
                return Err(failure(
                    FailureKind::Refused,
                    &format!("invalid session {session:?}"),
                ));
            }
            KvVerb::Lock if old_session.is_empty() => {
                self.write(
                    kv,
                    old,
                    Bytes::copy_from_slice(kv.session),
                    old_lock_index + 1,
                );
            }
            KvVerb::Lock if old_session == kv.session => {
                self.write(kv, old, old_session, old_lock_index);
            }
            KvVerb::Lock => return Ok(false),
            KvVerb::Unlock if old.is_none() || old_session != kv.session => return Ok(false),
            KvVerb::Unlock => self.write(kv, old, Bytes::new(), old_lock_index),
            KvVerb::Delete => self.remove(|key| key == kv.key, ChangeOp::Delete, kv),
            KvVerb::DeleteCas if old.is_none() => {}
            KvVerb::DeleteCas if kv.index != old_index => return Ok(false),
            KvVerb::DeleteCas => self.remove(|key| key == kv.key, ChangeOp::Delete, kv),
            KvVerb::DeleteTree => {
                self.remove(|key| key.starts_with(kv.key), ChangeOp::DeleteTree, kv)
            }
        }
        Ok(true)
    }

    fn write(&mut self, kv: KvCommand<'_>, old: Option<KvRow>, session: Bytes, lock_index: u64) {
        let mut row = KvRow {
            key: Bytes::copy_from_slice(kv.key),
            value: Bytes::copy_from_slice(kv.value),
            flags: kv.flags,
            create_index: old
                .as_ref()
                .map_or(Index(self.index), |old| old.create_index),
            modify_index: old.as_ref().map_or(Index(0), |old| old.modify_index),
            lock_index,
            session,
        };
        // An identical write changes nothing.
        if old.as_ref() != Some(&row) {
            row.modify_index = Index(self.index);
            self.table_index = self.index;
            self.changed(ChangeOp::Set, row.clone());
            self.rows.insert(kv.key.to_vec(), row);
        }
    }

    fn remove(&mut self, gone: impl Fn(&[u8]) -> bool, op: ChangeOp, kv: KvCommand<'_>) {
        let before = self.rows.len();
        self.rows.retain(|key, _| !gone(key));
        if self.rows.len() != before {
            self.table_index = self.index;
            let row = KvRow {
                key: Bytes::copy_from_slice(kv.key),
                value: Bytes::new(),
                flags: 0,
                create_index: Index(0),
                modify_index: Index(self.index),
                lock_index: 0,
                session: Bytes::new(),
            };
            self.changed(op, row);
        }
    }

    /// Notes what watches are told.
    pub fn changed(&mut self, op: ChangeOp, row: KvRow) {
        let index = Index(self.index);
        let before = self
            .changes
            .iter()
            .filter(|change| change.at.index == index);
        let position = before.count() as u32 + 1;
        let at = Cursor { index, position };
        self.changes.push(KvChange { op, at, row });
    }

    fn watched(&self, prefix: &[u8], from: WatchFrom) -> KvChanges {
        let mut found = KvChanges {
            origin: ORIGIN,
            next: Cursor::behind(Index(self.index)),
            caught_up: true,
            ..KvChanges::default()
        };
        if let WatchFrom::Cursor(after) = from {
            found.gone = after < self.history_begins;
            found.next = found.next.max(after);
            let mut changes = self
                .changes
                .iter()
                .filter(|change| change.at > after && change.row.key.starts_with(prefix))
                .filter(|_| !found.gone);
            found.changes = changes.by_ref().take(self.changes_max).cloned().collect();
            if changes.next().is_some() {
                found.caught_up = false;
                found.next = found.changes.last().expect("some").at;
            }
        }
        found
    }

    /// Whether a query has no reason to wait.
    fn has_news(&self, query: &Query) -> bool {
        match &query.body {
            QueryBody::KvWatch {
                prefix,
                from: from @ WatchFrom::Cursor(_),
            } => {
                let found = self.watched(prefix, *from);
                found.gone || !found.changes.is_empty() || self.watch_failure.is_some()
            }
            QueryBody::KvWatch { .. } => self.index >= query.min_index.0,
            body => self.query(body).0 > query.wait.index.0,
        }
    }

    fn query(&self, body: &QueryBody) -> (u64, Found) {
        let below = |prefix: &[u8]| -> Vec<KvRow> {
            let rows = self.rows.iter().filter(|(key, _)| key.starts_with(prefix));
            rows.map(|(_, row)| row.clone()).collect()
        };
        let newest = |rows: &[KvRow]| rows.iter().map(|row| row.modify_index.0).max();
        match body {
            QueryBody::KvGet { key } => match self.rows.get(&key[..]) {
                Some(row) => (row.modify_index.0, Found::Rows(vec![row.clone()])),
                None => (self.table_index, Found::Rows(Vec::new())),
            },
            QueryBody::KvList {
                prefix,
                start_after,
                limit,
            } => {
                let mut rows = below(prefix);
                let index = newest(&rows).unwrap_or(self.table_index);
                rows.retain(|row| row.key > *start_after);
                rows.truncate(if *limit == 0 {
                    usize::MAX
                } else {
                    *limit as usize
                });
                (index, Found::Rows(rows))
            }
            QueryBody::KvKeys {
                prefix,
                separator,
                start_after,
                limit,
            } => {
                let rows = below(prefix);
                let mut names = BTreeSet::new();
                for row in &rows {
                    let rest = &row.key[prefix.len()..];
                    let width = separator.len();
                    let cut =
                        (0..rest.len()).find(|at| width > 0 && rest[*at..].starts_with(separator));
                    names.insert(match cut {
                        Some(at) => row.key.slice(..prefix.len() + at + width),
                        None => row.key.clone(),
                    });
                }
                let index = newest(&rows).unwrap_or(self.table_index);
                let names = names.into_iter().filter(|name| *name > start_after);
                let most = if *limit == 0 {
                    usize::MAX
                } else {
                    *limit as usize
                };
                (index, Found::Keys(names.take(most).collect()))
            }
            QueryBody::Status => (self.index, Found::Status),
            QueryBody::Txn(_) => (self.index, Found::Txn),
            QueryBody::Record(_) => (self.index, Found::Document),
            QueryBody::KvWatch { prefix, from } => match from {
                WatchFrom::Rows => (self.index, Found::Rows(below(prefix))),
                from => (self.index, Found::Changes(self.watched(prefix, *from))),
            },
        }
    }
}

/// A blocking query that waits; whoever drops it waits no longer.
struct Waiting<'a>(&'a Fake);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().waiting -= 1;
    }
}

impl Fake {
    /// Looks again every millisecond whether there is news or the time is over.
    async fn wait(&self, query: &Query) {
        let begun = std::time::Instant::now();
        self.0.lock().unwrap().waiting += 1;
        let _waiting = Waiting(self);
        let wait = query.wait;
        while !self.0.lock().unwrap().has_news(query)
            && begun.elapsed() < Duration::from_millis(wait.ms.into())
        {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
    }
}

enum Found {
    Rows(Vec<KvRow>),
    Keys(Vec<Bytes>),
    Status,
    Txn,
    Document,
    Changes(KvChanges),
}

#[derive(Clone)]
pub struct Fake(pub Arc<Mutex<State>>);

pub struct FakeRows {
    rows: std::vec::IntoIter<KvRow>,
    state: Arc<Mutex<State>>,
    read: usize,
}

impl RowStream for FakeRows {
    type Batch = Vec<KvRow>;

    async fn next_batch(&mut self) -> Option<Result<Vec<KvRow>, Failure>> {
        // A real stream crosses executors; this one at least lets others run.
        glommio::executor().yield_task_queue_now().await;
        let mut state = self.state.lock().unwrap();
        if state.fail_after_batches == Some(self.read) {
            return Some(Err(failure(FailureKind::Internal, "the store went away")));
        }
        let batch: Vec<KvRow> = self.rows.by_ref().take(state.batch_rows).collect();
        self.read += 1;
        state.batches_read += 1;
        (!batch.is_empty()).then_some(Ok(batch))
    }
}

impl Gateway for Fake {
    type Rows = FakeRows;

    async fn record_with_answer(&self, _command: Bytes) -> Result<(Index, Bytes), Failure> {
        panic!("the fake keeps no records")
    }

    async fn record(&self, _command: Bytes) -> Result<Written, Failure> {
        panic!("the fake keeps no records")
    }

    async fn write(&self, shard: ShardId, command: Bytes) -> Result<Written, Failure> {
        assert_eq!(shard, ShardId(0));
        self.0.lock().unwrap().held += 1;
        while self.0.lock().unwrap().hold {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        let mut state = self.0.lock().unwrap();
        state.held -= 1;
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let Ok(Command::Kv(kv)) = Command::decode(&command) else {
            panic!("not a KV command: {command:?}");
        };
        state.index += 1;
        state.writes += 1;
        let ok = state.apply(kv)?;
        match &state.failure_after {
            Some(failure) => Err(failure.clone()),
            None => Ok(Written {
                ok,
                index: Index(state.index),
            }),
        }
    }

    async fn txn(&self, command: Bytes) -> Result<(Index, TxnResult), Failure> {
        let mut state = self.0.lock().unwrap();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.note_txn(&command);
        Ok((Index(state.index), state.txn.clone()))
    }

    async fn read(&self, query: Query) -> Result<Answer<FakeRows>, Failure> {
        {
            let mut state = self.0.lock().unwrap();
            state.reads.push((query.mode, query.body.clone()));
            state.waits.push(query.wait);
        }
        if query.waits() {
            self.wait(&query).await;
        }
        let state = self.0.lock().unwrap();
        if let Some(failure) = state
            .failure
            .clone()
            .filter(|_| query.mode != ReadMode::Stale)
        {
            return Err(failure);
        }
        let asks_changes = matches!(
            query.body,
            QueryBody::KvWatch {
                from: WatchFrom::Cursor(_),
                ..
            }
        );
        if let Some(failure) = state.watch_failure.clone().filter(|_| asks_changes) {
            return Err(failure);
        }
        let (index, found) = state.query(&query.body);
        let stale = query.mode == ReadMode::Stale;
        Ok(Answer {
            index: Index(index),
            known_leader: state.known_leader,
            last_contact_ms: if stale { state.last_contact_ms } else { 0 },
            body: match found {
                Found::Rows(rows) => AnswerBody::Rows(FakeRows {
                    rows: rows.into_iter(),
                    state: self.0.clone(),
                    read: 0,
                }),
                Found::Keys(keys) => AnswerBody::Keys(keys),
                Found::Status => AnswerBody::Status(state.status.clone()),
                Found::Txn => AnswerBody::Txn(state.txn.clone()),
                // It keeps no records.
                Found::Document => AnswerBody::Document(Bytes::from_static(b"[]")),
                Found::Changes(changes) => AnswerBody::Changes(changes),
            },
        })
    }

    async fn agent(&self, request: AgentRequest) -> AgentReply {
        let begun = std::time::Instant::now();
        let hash = match &request {
            AgentRequest::Service { hash, wait_ms, .. } if !hash.is_empty() => {
                Some((hash.clone(), u64::from(*wait_ms)))
            }
            _ => None,
        };
        loop {
            let reply = {
                let mut state = self.0.lock().unwrap();
                let now_ms = state.now_ms;
                let not_kept = state.not_kept.clone();
                match (state.answer(now_ms, request.clone()), not_kept) {
                    (AgentReply::Done, Some(why)) => AgentReply::NotKept(why),
                    (reply, _) => reply,
                }
            };
            match (&hash, &reply) {
                (Some((known, wait_ms)), AgentReply::Document { hash, .. })
                    if known == hash && begun.elapsed() < Duration::from_millis(*wait_ms) =>
                {
                    glommio::timer::sleep(Duration::from_millis(1)).await;
                }
                _ => return reply,
            }
        }
    }

    fn shard_of(&self, _: &[u8]) -> ShardId {
        ShardId(0)
    }

    fn status(&self) -> ClusterStatus {
        self.0.lock().unwrap().status.clone()
    }

    fn info(&self) -> ServerInfo {
        self.0.lock().unwrap().info.clone()
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::from([("curia.log.batches".to_string(), 7.5)])
    }
}

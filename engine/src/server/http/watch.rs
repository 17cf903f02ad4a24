//! `GET /v1/kv/<prefix>?watch`: each change once, in order, as it is applied.
//!
//! A watch is a loop of questions to this server's own state: what came behind this cursor? One
//! that is asked for too late is told so, and nothing waits for who does not ask; so a client that
//! reads slowly costs one answer of bounded size, and no write waits for it.
//!
//! ```text
//! where does it begin?                    how fresh is that?
//!   nothing given   rows, `synced`          default, consistent   the leader says its index, and this
//!   ?index=N        behind N                                      server has applied it before it says
//!   Last-Event-ID   behind that event                             anything
//!                                           stale                 as this server has it
//! ```
//!
//! The changes are those of committed entries, which every server applies in the same order, so
//! they come from this server whatever the mode: a watch outlives the leader, and a client goes on
//! at any other server where it stopped. Invariant: `next` is behind everything that was said and
//! before everything that was not.

use std::{pin::Pin, rc::Rc};

use bytes::Bytes;
use futures_lite::{FutureExt, Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use wire::{
    ChangeOp, Cursor, Failure, FailureKind, Index, KvChange, KvChanges, Query, QueryBody, ReadMode,
    Wait, WatchFrom, limits,
};

use super::{
    acl::{Rights, Who},
    events::{self, Place},
    failure::Refusal,
    go_text::{parse_uint, quote},
    limits::ANSWER_PIECE_BYTES,
    link::Link,
    params::Params,
    reads,
    reply::{Content, Meta, Reply},
    rows::Incomplete,
    serve::Inner,
};
use crate::{
    acl::{Access, Resource},
    server::{
        gateway::{Answer, AnswerBody, Gateway, RowBatch, RowStream},
        reactor::let_others_run,
    },
    shard::failure,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Where a client wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the rows as they are.
    Rows,
    /// Behind this index.
    Index(Index),
    /// Behind this event.
    Place(Place),
}

impl Begin {
    pub(super) fn parse(params: &Params<'_>, headers: &HeaderMap) -> Result<Self, Refusal> {
        for (given, name) in [
            (params.keys, "keys"),
            (params.raw, "raw"),
            (params.separator.is_some(), "separator"),
            (params.limit.is_some(), "limit"),
            (params.start_after.is_some(), "start-after"),
        ] {
            if given {
                let text = format!("?watch cannot be combined with ?{name}");
                return Err(Refusal::bad(text));
            }
        }
        params.wait()?;
        // A client that comes back sends the URL that it came with at first.
        if let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
            let place = id.to_str().ok().and_then(Place::parse);
            let bad = || {
                let text = quote(&String::from_utf8_lossy(id.as_bytes()));
                Refusal::bad(format!(
                    "Invalid Last-Event-ID {text}: send the id of an event of a watch, or none to start over"
                ))
            };
            return place.map(Self::Place).ok_or_else(bad);
        }
        match params.index_text().map(parse_uint) {
            Some(Err(_)) => Err(Refusal::bad("Invalid index")),
            None | Some(Ok(0)) => Ok(Self::Rows),
            Some(Ok(index)) => Ok(Self::Index(Index(index.min(limits::INDEX_MAX)))),
        }
    }
}

/// Answers with the first words of a watch, or says why there is none.
pub(super) async fn watch<G: Gateway>(
    inner: &Inner<G>,
    link: &Rc<Link>,
    rights: Rights<G>,
    prefix: Bytes,
    params: &Params<'_>,
    begin: Begin,
) -> Result<Reply<G::Rows>, Refusal> {
    let freshness = params.freshness()?;
    let now = QueryBody::KvWatch {
        prefix: prefix.clone(),
        from: WatchFrom::Now,
    };
    let now = reads::fresh(&inner.gateway, freshness, now).await?;
    let mut meta = Meta::of(&now);
    let now = changes(now)?;
    let mut feed = Feed {
        gateway: inner.gateway.clone(),
        link: Rc::clone(link),
        who: rights.now().await?,
        rights,
        prefix,
        origin: now.origin,
        next: now.next,
        patience_ms: inner.limits().watch_progress.as_millis() as u32,
        batch: None,
        rows: None,
        first: Vec::new(),
        over: false,
    };
    // The leader said so, too, where a stale answer was older than the client bears.
    feed.catch_up().await?;
    let confirmed = freshness.mode != ReadMode::Stale;
    let behind = match begin {
        Begin::Rows => None,
        Begin::Index(index) => Some(Cursor::behind(index)),
        Begin::Place(place) if place.origin != now.origin => {
            feed.reset(OTHER_HISTORY);
            None
        }
        Begin::Place(place) => Some(place.cursor),
    };
    match behind {
        _ if feed.over => {}
        Some(cursor) if confirmed && cursor.index > now.next.index => feed.reset(AHEAD),
        Some(cursor) => {
            feed.next = cursor;
            meta.index = feed.resume().await?.0;
        }
        None => meta.index = feed.start().await?.0,
    }
    let body = EventsBody::new(feed);
    let event_stream = HeaderValue::from_static("text/event-stream");
    let no_store = HeaderValue::from_static("no-store");
    Ok(Reply::new(StatusCode::OK, Content::Events(body))
        .header(header::CONTENT_TYPE, event_stream)
        .header(header::CACHE_CONTROL, no_store)
        .meta(meta))
}

const OTHER_HISTORY: &str = "this id is of another cluster or of another shard: start over";
const AHEAD: &str =
    "this index is ahead of the cluster's, which was restored or is another one: start over";
const GONE: &str = "the history of this server begins later: start over";

type Batch<G> = <<G as Gateway>::Rows as RowStream>::Batch;

/// A watch under way.
struct Feed<G: Gateway> {
    gateway: G,
    link: Rc<Link>,
    /// Who is told, as it was looked at last.
    who: Who,
    rights: Rights<G>,
    prefix: Bytes,
    origin: u64,
    /// Behind everything that was said.
    next: Cursor,
    /// Without a change for so long, progress is told, ms.
    patience_ms: u32,
    /// Rows of the beginning that were not said yet: those read, and those to be read.
    batch: Option<(Batch<G>, usize)>,
    rows: Option<G::Rows>,
    /// What is said with the headers.
    first: Vec<u8>,
    /// Nothing more is said.
    over: bool,
}

impl<G: Gateway> Feed<G> {
    /// Waits until this server has applied what it is to begin with.
    async fn catch_up(&mut self) -> Result<(), Refusal> {
        let query = Query {
            min_index: self.next.index,
            ..self.question(WatchFrom::Now, limits::WAIT_MS_MAX)
        };
        let link = Rc::clone(&self.link);
        let gone = async {
            link.ended().await;
            Err(failure(FailureKind::Internal, "the client left"))
        };
        self.gateway.read(query).or(gone).await?;
        Ok(())
    }

    /// Begins with the rows as they are; at which index.
    async fn start(&mut self) -> Result<Index, Refusal> {
        let answer = self.gateway.read(self.question(WatchFrom::Rows, 0)).await?;
        let AnswerBody::Rows(rows) = answer.body else {
            return Err(Refusal::internal("internal error: no rows for a watch"));
        };
        self.next = Cursor::behind(answer.index);
        self.rows = Some(rows);
        let mut first = Vec::new();
        self.say_rows(&mut first).await?;
        self.first = first;
        Ok(answer.index)
    }

    /// Goes on behind `next`; at which index this server is.
    async fn resume(&mut self) -> Result<Index, Refusal> {
        let answer = self.ask(0).await?;
        let mut first = Vec::new();
        let index = answer.changes.next.index;
        self.tell(&mut first, &answer, true);
        self.first = first;
        Ok(index)
    }

    fn question(&self, from: WatchFrom, wait_ms: u32) -> Query {
        let index = Index(u64::from(wait_ms > 0));
        Query {
            mode: ReadMode::Stale,
            min_index: Index(0),
            wait: Wait { index, ms: wait_ms },
            body: QueryBody::KvWatch {
                prefix: self.prefix.clone(),
                from,
            },
        }
    }

    /// What came behind `next`; waits for it at most `wait_ms`.
    async fn ask(&self, wait_ms: u32) -> Result<Heard, Failure> {
        let question = self.question(WatchFrom::Cursor(self.next), wait_ms);
        let answer = self.gateway.read(question).await?;
        let (known_leader, last_contact_ms) = (answer.known_leader, answer.last_contact_ms);
        Ok(Heard {
            changes: changes(answer)?,
            known_leader,
            last_contact_ms,
        })
    }

    /// Writes what was heard, and goes on behind it. `idle`: it is worth a word that there was
    /// nothing.
    ///
    /// This is the one place where a change becomes words for a client, and [`Self::say_rows`] the
    /// one where a row of the beginning does. Each is decided by its key and by the rights of this
    /// moment; what may not be seen is left out, and the cursor goes on behind it. A recursive delete
    /// is told if any key under its prefix may be seen.
    fn tell(&mut self, out: &mut Vec<u8>, heard: &Heard, idle: bool) {
        let changes = &heard.changes;
        if changes.gone {
            events::reset(out, GONE);
            self.over = true;
            return;
        }
        let mut told = false;
        for change in changes.changes.iter().filter(|change| self.may_see(change)) {
            events::change(out, self.origin, change);
            told = true;
        }
        self.next = changes.next;
        if idle && !told && changes.caught_up {
            let place = self.place();
            events::progress(out, place, heard.known_leader, heard.last_contact_ms);
        }
    }

    fn may_see(&self, change: &KvChange) -> bool {
        let key = change.row.borrow().key;
        match change.op {
            ChangeOp::DeleteTree => self.who.may_read_some(key),
            _ => self.who.may(Resource::Key, key, Access::Read),
        }
    }

    /// Looks at the rights anew. Whoever has none any longer is told so, and nothing more.
    async fn is_still_allowed(&mut self, out: &mut Vec<u8>) -> bool {
        match self.rights.now().await {
            Ok(who) => self.who = who,
            Err(refusal) => {
                events::reset(out, &refusal.text);
                self.over = true;
            }
        }
        !self.over
    }

    fn place(&self) -> Place {
        Place {
            origin: self.origin,
            cursor: self.next,
        }
    }

    fn reset(&mut self, reason: &str) {
        events::reset(&mut self.first, reason);
        self.over = true;
    }

    /// Writes rows of the beginning until a piece is full or all are written.
    async fn say_rows(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        while out.len() < ANSWER_PIECE_BYTES {
            if let Some((batch, at)) = self.batch.as_mut().filter(|(batch, at)| *at < batch.len()) {
                let row = batch.row(*at);
                if self.who.may(Resource::Key, row.key, Access::Read) {
                    events::row(out, &row);
                }
                *at += 1;
                continue;
            }
            let Some(rows) = &mut self.rows else { break };
            self.batch = rows.next_batch().await.transpose()?.map(|batch| (batch, 0));
            if self.batch.is_none() {
                self.rows = None;
                events::synced(out, self.place());
            }
        }
        Ok(())
    }

    /// The next words; none when the watch is over.
    async fn piece(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut out = std::mem::take(&mut self.first);
        if !out.is_empty() {
            return Ok(Some(out));
        }
        if self.over {
            return Ok(None);
        }
        // Others get their turn between two pieces.
        let_others_run().await;
        if !self.is_still_allowed(&mut out).await {
            return Ok(Some(out));
        }
        if self.rows.is_some() {
            self.say_rows(&mut out).await?;
            return Ok(Some(out));
        }
        while out.is_empty() {
            let heard = match self.ask(self.patience_ms).await {
                Ok(heard) => heard,
                // The client goes on elsewhere, with the id that it has.
                Err(failure) if failure.kind == FailureKind::ShuttingDown => return Ok(None),
                Err(failure) => return Err(failure),
            };
            if self.is_still_allowed(&mut out).await {
                self.tell(&mut out, &heard, true);
            }
        }
        Ok(Some(out))
    }

    /// The next words, unless the client leaves before them.
    async fn next(mut self) -> Option<(Result<Bytes, Incomplete>, Self)> {
        let link = Rc::clone(&self.link);
        let gone = async {
            link.ended().await;
            Ok(None)
        };
        match self.piece().or(gone).await {
            Ok(Some(piece)) => Some((Ok(piece.into()), self)),
            Ok(None) => None,
            Err(failure) => {
                self.over = true;
                Some((Err(Incomplete(failure.message)), self))
            }
        }
    }
}

/// An answer to a watch's question.
struct Heard {
    changes: KvChanges,
    known_leader: bool,
    last_contact_ms: u64,
}

fn changes<S>(answer: Answer<S>) -> Result<KvChanges, Failure> {
    match answer.body {
        AnswerBody::Changes(changes) => Ok(changes),
        _ => {
            let why = "internal error: no changes for a watch";
            Err(failure(FailureKind::Internal, why))
        }
    }
}

/// A watch as an answer's body.
pub(super) struct EventsBody(Pin<Box<dyn Stream<Item = Result<Bytes, Incomplete>>>>);

impl EventsBody {
    fn new<G: Gateway>(feed: Feed<G>) -> Self {
        Self::of(stream::unfold(feed, Feed::next))
    }

    /// Pieces that come when they come, as an answer's body.
    pub(super) fn of(pieces: impl Stream<Item = Result<Bytes, Incomplete>> + 'static) -> Self {
        Self(Box::pin(pieces))
    }

    /// The next words.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Bytes, Incomplete>>> {
        self.0.as_mut().poll_next(cx)
    }
}

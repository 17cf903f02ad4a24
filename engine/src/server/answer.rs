//! How does an answer reach a native connection?
//!
//! Short ones are encoded straight into the connection's buffer and leave with the turn. Long
//! listings are streamed by a task of their own, in pieces, no faster than a client reads them; to
//! another server, no faster than its client does (see [`window`](super::window)).

use std::{rc::Rc, time::Duration};

use glommio::timer::sleep;
use wire::{
    Failure, FailureKind, Index, Reply as WireReply, ReplyBody, ReplyMeta, RequestId, ShardId,
    encode_rows_reply, limits,
};

use super::{
    admission::Permit, cancels::Entered, pipe::Outbox, reactor::let_others_run, relay::ReplySink,
    shell::Outcome, window::Window,
};
use crate::{
    shard::{ReadAnswer, ReadBody, Reply, failure},
    state::KvRow,
};

/// Rows evaluated at a time: bounds a slice's time well under half a millisecond.
pub const ROWS_PER_SLICE: usize = 512;

/// A request of a native connection.
pub struct NativeAsker {
    /// Where the answer goes.
    pub outbox: Rc<Outbox>,
    /// Its name there.
    pub request: RequestId,
    /// Its shard.
    pub shard: ShardId,
    /// How far a long answer to another server may be ahead.
    pub window: Option<Window<RequestId>>,
    /// Its place among the requests in flight, given back when the answer is out.
    pub _permit: Permit,
    /// Its place among the connection's blocking queries, if it is one.
    pub _waiting: Option<Entered<RequestId>>,
}

impl NativeAsker {
    /// Encodes the answer, or starts streaming it. `dirty` collects connections to be flushed.
    pub fn answer(self, outcome: Outcome, dirty: &mut Vec<Rc<Outbox>>) {
        match outcome {
            Ok(Reply::Written { ok, index }) => {
                self.push(&plain(index, ReplyBody::Written { ok, index }));
            }
            Ok(Reply::Txn { index, outcome }) => {
                self.push(&plain(index, ReplyBody::Txn(outcome.to_wire())));
            }
            Ok(Reply::Document { index, json }) => {
                self.push(&plain(index, ReplyBody::Document(json)));
            }
            Ok(Reply::Read(read)) => {
                if let Some(rest) = self.short(read) {
                    glommio::spawn_local(self.stream(rest)).detach();
                    return;
                }
            }
            Err(failure) => self.push(&plain(Index(0), ReplyBody::Failed(failure))),
        }
        if !dirty.iter().any(|other| Rc::ptr_eq(other, &self.outbox)) {
            dirty.push(Rc::clone(&self.outbox));
        }
    }

    fn push(&self, reply: &WireReply) {
        // A clogged peer is cut off: it did not read what it asked for.
        if self
            .outbox
            .push(|out| reply.encode_frame(self.shard, self.request, out))
            .is_err()
        {
            self.outbox.close();
        }
    }

    /// Answers what fits one frame; gives back what does not.
    fn short(&self, read: ReadAnswer) -> Option<ReadAnswer> {
        let meta = meta(&read, false);
        match &read.body {
            ReadBody::Row(row) => {
                let rows = row.as_ref().map(KvRow::as_ref);
                let pushed = self
                    .outbox
                    .push(|out| encode_rows_reply(self.shard, self.request, &meta, rows, out));
                if pushed.is_err() {
                    self.outbox.close();
                }
                None
            }
            ReadBody::Status(status) => {
                self.push(&with_meta(meta, ReplyBody::Status(status.clone())));
                None
            }
            ReadBody::Txn(outcome) => {
                self.push(&with_meta(meta, ReplyBody::Txn(outcome.to_wire())));
                None
            }
            ReadBody::Document(json) if json.len() <= limits::REPLY_BYTES_MAX => {
                self.push(&with_meta(meta, ReplyBody::Document(json.clone())));
                None
            }
            ReadBody::Changes(changes) => {
                self.push(&with_meta(meta, ReplyBody::Changes(changes.to_wire())));
                None
            }
            ReadBody::List(_) | ReadBody::Keys(_) | ReadBody::Document(_) => Some(read),
        }
    }

    async fn stream(self, read: ReadAnswer) {
        let (last, more) = (meta(&read, false), meta(&read, true));
        let mut rows = Vec::new();
        let mut body = read.body;
        let mut unfinished = true;
        while unfinished && self.may_send().await {
            match &mut body {
                ReadBody::List(list) => {
                    rows.clear();
                    unfinished = list.next_rows(ROWS_PER_SLICE, limits::REPLY_BYTES_MAX, &mut rows);
                    let meta = if unfinished { &more } else { &last };
                    let rows = rows.iter().map(KvRow::as_ref);
                    let pushed = self
                        .outbox
                        .push(|out| encode_rows_reply(self.shard, self.request, meta, rows, out));
                    if pushed.is_err() {
                        self.outbox.close();
                    }
                }
                ReadBody::Keys(keys) => {
                    let mut names = Vec::new();
                    unfinished = keys.next_keys(ROWS_PER_SLICE, &mut names);
                    let meta = if unfinished { more } else { last };
                    self.push(&with_meta(meta, ReplyBody::Keys(names)));
                }
                ReadBody::Document(json) => {
                    let piece = json.split_to(json.len().min(limits::REPLY_BYTES_MAX));
                    unfinished = !json.is_empty();
                    let meta = if unfinished { more } else { last };
                    self.push(&with_meta(meta, ReplyBody::Document(piece)));
                }
                ReadBody::Row(_)
                | ReadBody::Status(_)
                | ReadBody::Txn(_)
                | ReadBody::Changes(_) => {
                    unreachable!("answered in one frame")
                }
            }
            self.outbox.flush();
            if unfinished {
                let_others_run().await;
            }
        }
    }

    async fn may_send(&self) -> bool {
        may_send(self.window.as_ref(), &self.outbox).await
    }
}

/// Waits until the next piece may be sent: until whoever takes the answer has given credit for it,
/// if it does, and the connection has taken most of what was sent. False when either is gone.
async fn may_send(window: Option<&Window<RequestId>>, outbox: &Outbox) -> bool {
    if let Some(window) = window
        && !window.take().await
    {
        return false;
    }
    while outbox.pending() > limits::REPLY_BYTES_MAX && !outbox.is_closed() {
        sleep(Duration::from_millis(1)).await;
    }
    !outbox.is_closed()
}

/// A native connection that a relayed answer goes to.
pub struct OutboxSink {
    /// The connection.
    pub outbox: Rc<Outbox>,
    /// The shard.
    pub shard: ShardId,
    /// Its name for the request.
    pub request: RequestId,
    /// How far a long answer to another server may be ahead.
    pub window: Option<Window<RequestId>>,
}

impl ReplySink for OutboxSink {
    async fn reply(&self, reply: WireReply) -> bool {
        let long = reply.more || self.window.is_some();
        if long && !may_send(self.window.as_ref(), &self.outbox).await {
            return false;
        }
        if self
            .outbox
            .push(|out| reply.encode_frame(self.shard, self.request, out))
            .is_err()
        {
            self.outbox.close();
        }
        self.outbox.flush();
        if reply.more {
            let_others_run().await;
        }
        !self.outbox.is_closed()
    }
}

fn meta(read: &ReadAnswer, more: bool) -> ReplyMeta {
    ReplyMeta {
        index: read.index,
        known_leader: read.known_leader,
        last_contact_ms: read.last_contact_ms,
        more,
    }
}

fn with_meta(meta: ReplyMeta, body: ReplyBody) -> WireReply {
    WireReply {
        index: meta.index,
        known_leader: meta.known_leader,
        last_contact_ms: meta.last_contact_ms,
        more: meta.more,
        body,
    }
}

/// A reply that is no read.
pub fn plain(index: Index, body: ReplyBody) -> WireReply {
    WireReply {
        index,
        known_leader: true,
        last_contact_ms: 0,
        more: false,
        body,
    }
}

/// The refusal of a request over the bounds of admission.
pub fn over_bounds(what: &str) -> Failure {
    let mut failure = failure(
        FailureKind::Busy,
        format!("too many {what} on this server; try again later, or at another one"),
    );
    failure.retry_after_ms = 100;
    failure
}

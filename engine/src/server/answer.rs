//! How does an answer reach a native connection?
//!
//! Short ones are encoded straight into the connection's buffer and leave with the turn. Long
//! listings are streamed by a task of their own, in pieces, no faster than the peer reads.

use std::{rc::Rc, time::Duration};

use glommio::timer::sleep;
use wire::{
    Failure, FailureKind, Index, Reply as WireReply, ReplyBody, ReplyMeta, RequestId, ShardId,
    encode_rows_reply, limits,
};

use super::{
    admission::Permit, cancels::Entered, pipe::Outbox, reactor::let_others_run, router::ReplySink,
    shell::Outcome,
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
            ReadBody::List(_) | ReadBody::Keys(_) => Some(read),
        }
    }

    async fn stream(self, read: ReadAnswer) {
        let (last, more) = (meta(&read, false), meta(&read, true));
        match read.body {
            ReadBody::List(mut list) => {
                let mut rows = Vec::new();
                loop {
                    rows.clear();
                    let unfinished =
                        list.next_rows(ROWS_PER_SLICE, limits::REPLY_BYTES_MAX, &mut rows);
                    let meta = if unfinished { &more } else { &last };
                    let pushed = self.outbox.push(|out| {
                        encode_rows_reply(
                            self.shard,
                            self.request,
                            meta,
                            rows.iter().map(KvRow::as_ref),
                            out,
                        );
                    });
                    if pushed.is_err() || !self.room(unfinished).await {
                        return;
                    }
                }
            }
            ReadBody::Keys(mut keys) => loop {
                let mut names = Vec::new();
                let unfinished = keys.next_keys(ROWS_PER_SLICE, &mut names);
                let meta = if unfinished { more } else { last };
                self.push(&with_meta(meta, ReplyBody::Keys(names)));
                if !self.room(unfinished).await {
                    return;
                }
            },
            ReadBody::Row(_) | ReadBody::Status(_) => unreachable!("answered in one frame"),
        }
    }

    async fn room(&self, unfinished: bool) -> bool {
        self.outbox.flush();
        unfinished && room(&self.outbox).await
    }
}

/// Sends what is there and waits until the peer has read most of it. False when it is gone.
async fn room(outbox: &Rc<Outbox>) -> bool {
    outbox.flush();
    let_others_run().await;
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
}

impl ReplySink for OutboxSink {
    async fn reply(&self, reply: WireReply) -> bool {
        if self
            .outbox
            .push(|out| reply.encode_frame(self.shard, self.request, out))
            .is_err()
        {
            self.outbox.close();
        }
        if reply.more {
            return room(&self.outbox).await;
        }
        self.outbox.flush();
        true
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
        format!("too many {what} in flight on this server; try again later"),
    );
    failure.retry_after_ms = 100;
    failure
}

//! How does an answer cross to another executor or server, and become one again?
//!
//! In pieces: what is long is never whole in a frame. Whoever asked learns whether the question
//! was settled, or whether nobody acted on it and it may be asked again.

use bytes::Bytes;
use wire::{Failure, FailureKind, Index, Reply as WireReply, ReplyBody, TxnResult, limits};

use super::{
    answer::ROWS_PER_SLICE,
    gateway::{Answer, AnswerBody, RowStream, Written},
    rows::Rows,
    window::Pieces,
};
use crate::{
    documents::TooLong,
    shard::{ReadAnswer, ReadBody, failure},
};

/// Key names per piece of an answer: of the longest keys, they fit a frame.
const KEYS_PER_PIECE: usize = 512;

/// Where the pieces of an answer go.
pub trait ReplySink {
    /// Takes a piece, waiting until there is room. False when nobody wants more.
    fn reply(&self, reply: WireReply) -> impl Future<Output = bool>;
}

/// What came of one attempt.
pub(super) enum Attempt<T> {
    /// It is settled.
    Settled(Result<T, Failure>),
    /// Nobody acted on it: it may be tried again.
    Again,
}

/// What a command came to.
pub(super) enum Carried {
    Written(Written),
    Txn(Index, TxnResult),
    Document(Index, Bytes),
}

pub(super) fn settle<T>(failure: Failure) -> Attempt<T> {
    match failure.kind {
        // Nothing happened there: look for the leader again.
        FailureKind::NotLeader | FailureKind::NotMember => Attempt::Again,
        FailureKind::ShuttingDown => Attempt::Again,
        _ => Attempt::Settled(Err(failure)),
    }
}

/// Whether this very server ended a blocking query because it stops. Others are asked again.
pub(super) fn ends_wait(failure: &Failure, waits_here: bool) -> bool {
    waits_here && failure.kind == FailureKind::ShuttingDown
}

pub(super) fn garbled() -> Failure {
    failure(
        FailureKind::Internal,
        "the leader answered another question than was asked",
    )
}

/// What this server's own replica answered.
pub(super) fn local_answer(read: ReadAnswer) -> Answer<Rows> {
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
pub(super) async fn written(mut pieces: Pieces) -> Attempt<Carried> {
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
pub(super) async fn rows_read(mut pieces: Pieces, waits_here: bool) -> Attempt<Answer<Rows>> {
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

/// Sends an answer in pieces, for as long as somebody wants them.
pub(super) async fn relay_answer(answer: Answer<Rows>, sink: &impl ReplySink) {
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

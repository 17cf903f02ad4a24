//! How does a listing of any length leave, one bounded piece at a time?
//!
//! [`Listing`] turns batches of rows into JSON. A short one is gathered whole and answered with a
//! `Content-Length`; of a longer one the first piece is already written when the answer starts,
//! so that whatever fails before it still gets its proper status.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use wire::Failure;

use super::{
    acl::Who,
    json::{self, Style},
    limits::ANSWER_PIECE_BYTES,
};
use crate::{
    acl::{Access, Resource},
    server::{
        gateway::{RowBatch, RowStream},
        reactor::let_others_run,
    },
};

/// A listing or a watch that failed after its answer had begun. hyper cuts the connection.
#[derive(Debug, thiserror::Error)]
#[error("it failed after its answer had begun: {0}")]
pub(super) struct Incomplete(pub(super) String);

/// Rows on their way into a JSON array.
pub(super) struct Listing<R: RowStream> {
    stream: R,
    batch: Option<(R::Batch, usize)>,
    ahead: Option<R::Batch>,
    style: Style,
    out: Vec<u8>,
    empty: bool,
    seen: Seen,
}

/// Which rows may be seen, and whether there were others. Nothing where all may be.
#[derive(Clone)]
pub(super) struct Seen(Option<Rc<Sifting>>);

struct Sifting {
    who: Who,
    hidden: Cell<bool>,
}

impl Seen {
    /// The rows that whoever asks may see. `hides`: not all, perhaps.
    pub(super) fn new(who: &Who, hides: bool) -> Self {
        Self(hides.then(|| {
            Rc::new(Sifting {
                who: who.clone(),
                hidden: Cell::new(false),
            })
        }))
    }

    /// The next row of a batch that may be seen, from `at` on.
    pub(super) fn next(&self, batch: &impl RowBatch, at: usize) -> Option<usize> {
        let Some(sifting) = &self.0 else {
            return (at < batch.len()).then_some(at);
        };
        let may = |at: &usize| {
            let key = batch.row(*at).key;
            let may = sifting.who.may(Resource::Key, key, Access::Read);
            if !may {
                sifting.hidden.set(true);
            }
            may
        };
        (at..batch.len()).find(may)
    }

    /// As if the rest had rows that are hidden.
    pub(super) fn say_in_advance(&self) {
        if let Some(sifting) = &self.0 {
            sifting.hidden.set(true);
        }
    }

    /// Whether whoever asks is told that rows were left out.
    pub(super) fn is_told(&self) -> bool {
        let told = |sifting: &Rc<Sifting>| sifting.hidden.get() && sifting.who.is_told_of_filters();
        self.0.as_ref().is_some_and(told)
    }
}

impl<R: RowStream> Listing<R> {
    /// A listing that starts with the batches that have already been read.
    pub(super) fn new(
        stream: R,
        first: R::Batch,
        second: Option<R::Batch>,
        style: Style,
        seen: Seen,
    ) -> Self {
        let out = Vec::from(*b"[");
        Self {
            stream,
            batch: Some((first, 0)),
            ahead: second,
            style,
            out,
            empty: true,
            seen,
        }
    }

    /// Writes rows until a piece is full or the stream ends; returns whether it has ended.
    pub(super) async fn gather(&mut self) -> Result<bool, Failure> {
        loop {
            if self.write_batch() {
                return Ok(false);
            }
            if let Some(batch) = self.ahead.take() {
                self.batch = Some((batch, 0));
                continue;
            }
            match self.stream.next_batch().await {
                Some(batch) => self.batch = Some((batch?, 0)),
                None => {
                    self.style.end_array(&mut self.out, self.empty);
                    return Ok(true);
                }
            }
        }
    }

    /// Writes what is left of the current batch; returns whether the piece is full.
    fn write_batch(&mut self) -> bool {
        let Some((batch, at)) = &mut self.batch else {
            return false;
        };
        while let Some(next) = self.seen.next(batch, *at) {
            if self.out.len() >= ANSWER_PIECE_BYTES {
                return true;
            }
            json::row(&mut self.out, self.style, &batch.row(next), self.empty);
            self.empty = false;
            *at = next + 1;
        }
        self.batch = None;
        false
    }

    /// What has been written since the last piece.
    pub(super) fn take_piece(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }
}

type Gathering<R> = Pin<Box<dyn Future<Output = (Listing<R>, Result<bool, Failure>)>>>;

enum State<R: RowStream> {
    /// A piece is written and waits to be taken; whether it is the last.
    Written(Listing<R>, bool),
    /// The next piece is being written.
    Gathering(Gathering<R>),
    Ended,
}

/// A listing as an answer's body.
pub(super) struct RowsBody<R: RowStream>(State<R>);

impl<R: RowStream> RowsBody<R> {
    /// A body whose first piece is written and not the last.
    pub(super) fn new(listing: Listing<R>) -> Self {
        Self(State::Written(listing, false))
    }

    /// The next piece. One allocation for each, which a piece of this size pays for.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Incomplete>>> {
        if let State::Gathering(gathering) = &mut self.0 {
            let (listing, ended) = ready!(gathering.as_mut().poll(cx));
            match ended {
                Ok(last) => self.0 = State::Written(listing, last),
                Err(failure) => {
                    self.0 = State::Ended;
                    return Poll::Ready(Some(Err(Incomplete(failure.message))));
                }
            }
        }
        match std::mem::replace(&mut self.0, State::Ended) {
            State::Written(mut listing, last) => {
                let piece = listing.take_piece();
                if !last {
                    self.0 = State::Gathering(Box::pin(async move {
                        // Others get their turn between two pieces.
                        let_others_run().await;
                        let ended = listing.gather().await;
                        (listing, ended)
                    }));
                }
                Poll::Ready(Some(Ok(piece)))
            }
            _ => Poll::Ready(None),
        }
    }
}

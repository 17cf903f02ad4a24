//! How does an answer arrive that another executor or server makes?
//!
//! In one or more pieces, through a channel that closes without a last piece when the way there
//! breaks. Whoever drops the receiving end of a blocking query before its answer has begun has it
//! cancelled at the other end: waiters do not outlive those who wait.

use futures_channel::mpsc;
use futures_lite::StreamExt;
use wire::Reply;

/// The receiving end of an answer.
pub struct Pieces {
    pieces: mpsc::UnboundedReceiver<Reply>,
    cancel: Option<Box<dyn FnOnce()>>,
}

impl Pieces {
    /// An answer that comes soon, whether anyone wants it or not.
    pub fn new(pieces: mpsc::UnboundedReceiver<Reply>) -> Self {
        Self {
            pieces,
            cancel: None,
        }
    }

    /// An answer that may be long in coming; `cancel` is called if this is dropped before.
    pub fn cancelled_by(
        pieces: mpsc::UnboundedReceiver<Reply>,
        cancel: impl FnOnce() + 'static,
    ) -> Self {
        Self {
            pieces,
            cancel: Some(Box::new(cancel)),
        }
    }

    /// The next piece; `None` when no more come.
    pub async fn next(&mut self) -> Option<Reply> {
        let piece = self.pieces.next().await;
        self.cancel = None;
        piece
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use futures_lite::future::block_on;
    use wire::{Index, ReplyBody};

    use super::*;

    #[test]
    fn only_an_answer_that_has_not_begun_is_cancelled() {
        let cancelled = Rc::new(Cell::new(0));
        let make = || {
            let (sender, receiver) = mpsc::unbounded();
            let count = Rc::clone(&cancelled);
            let cancel = move || count.set(count.get() + 1);
            (sender, Pieces::cancelled_by(receiver, cancel))
        };
        let (sender, mut pieces) = make();
        sender
            .unbounded_send(Reply {
                index: Index(1),
                known_leader: true,
                last_contact_ms: 0,
                more: true,
                body: ReplyBody::Rows(Vec::new()),
            })
            .unwrap();
        assert!(block_on(pieces.next()).is_some());
        drop((sender, pieces));
        assert_eq!(cancelled.get(), 0, "it had begun");

        let (sender, mut pieces) = make();
        drop(sender);
        assert!(block_on(pieces.next()).is_none());
        drop(pieces);
        assert_eq!(cancelled.get(), 0, "the way there broke");

        drop(make());
        assert_eq!(cancelled.get(), 1);
    }
}

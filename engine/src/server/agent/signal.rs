//! How does one task of an executor tell another that there is something to do?

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Poll, Waker},
};

use futures_channel::oneshot;
use futures_lite::future::poll_fn;

/// Wakes the one task that waits; rung before, it is remembered once.
#[derive(Clone, Default)]
pub(super) struct Signal(Rc<(Cell<bool>, RefCell<Option<Waker>>)>);

impl Signal {
    /// There is something to do.
    pub(super) fn ring(&self) {
        self.0.0.set(true);
        if let Some(waker) = self.0.1.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits until there is.
    pub(super) async fn rung(&self) {
        poll_fn(|cx| match self.0.0.replace(false) {
            true => Poll::Ready(()),
            false => {
                *self.0.1.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }
}

/// Wakes all who wait for the next news.
#[derive(Default)]
pub(in super::super) struct News(RefCell<Vec<oneshot::Sender<()>>>);

impl News {
    /// There are some.
    pub(in super::super) fn tell(&self) {
        for waiting in self.0.take() {
            // It may have gone.
            let _ = waiting.send(());
        }
    }

    /// Waits for the next.
    pub(in super::super) async fn next(&self) {
        let (tell, told) = oneshot::channel();
        self.0.borrow_mut().retain(|other| !other.is_canceled());
        self.0.borrow_mut().push(tell);
        // The sender lives here until it has told.
        let _ = told.await;
    }
}

//! What do answers have in common that go on until somebody leaves?
//!
//! Log lines and metrics are sent as they come. Such an answer ends when its client has gone, when
//! whoever asked may not see it any more, and when the server stops; it is counted among the
//! watches, and a client that takes nothing is cut off like theirs.

use std::{cell::Cell, rc::Rc};

use futures_lite::FutureExt;

use super::{acl::Rights, link::Link};
use crate::{
    acl::{Access, Resource},
    server::{agent::signal::News, gateway::Gateway},
};

/// Whether a service is stopping, and who waits to hear of it.
#[derive(Default)]
pub(super) struct Stopping {
    begun: Cell<bool>,
    news: News,
}

impl Stopping {
    /// It is.
    pub(super) fn begin(&self) {
        self.begun.set(true);
        self.news.tell();
    }

    /// Whether it is.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.get()
    }

    async fn begun(&self) {
        while !self.begun.get() {
            self.news.next().await;
        }
    }
}

/// What an answer that goes on depends on.
pub(super) struct Lifeline<G> {
    pub(super) link: Rc<Link>,
    pub(super) stopping: Rc<Stopping>,
    pub(super) rights: Rights<G>,
    /// This server's.
    pub(super) node: String,
}

impl<G: Gateway> Lifeline<G> {
    /// What `next` gives; `None` once the answer is over.
    pub(super) async fn until<T>(&self, next: impl Future<Output = T>) -> Option<T> {
        let next = async { Some(next.await) };
        let over = async {
            self.link.ended().or(self.stopping.begun()).await;
            None
        };
        let next = over.or(next).await?;
        self.may_go_on().await.then_some(next)
    }

    /// Whether whoever asked may still read what this agent says of itself.
    async fn may_go_on(&self) -> bool {
        let who = self.rights.now().await;
        who.is_ok_and(|who| who.may(Resource::Agent, self.node.as_bytes(), Access::Read))
    }
}

//! How does a request get to the agent, from whichever executor it came in on?
//!
//! The agent lives on the first executor; others send it their requests in parcels and get the
//! answers back likewise. One who loses interest says so, so that nothing waits for nobody.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
};

use ahash::AHashMap;
use futures_channel::oneshot;

use super::{
    request::{AgentReply, AgentRequest},
    service::Agent,
};
use crate::server::{
    cancels::Cancels,
    lanes::{Lanes, Parcel},
};

/// The executor that the agent lives on.
const HOME: u16 = 0;

/// What executors say to each other about the agent.
#[derive(Debug)]
pub enum AgentParcel {
    /// A request.
    Ask {
        /// Who asks.
        from: u16,
        /// Its name for the question.
        id: u64,
        /// The request.
        request: Box<AgentRequest>,
    },
    /// An answer.
    Reply {
        /// The asker's name for the question.
        id: u64,
        /// The answer.
        reply: Box<AgentReply>,
    },
    /// The answer is not wanted any more.
    Cancel {
        /// Who asked.
        from: u16,
        /// Its name for the question.
        id: u64,
    },
}

/// One executor's way to the agent.
pub struct Calls {
    lanes: Rc<Lanes>,
    /// On the executor that it lives on.
    agent: OnceCell<Rc<Agent>>,
    asked: RefCell<AHashMap<u64, oneshot::Sender<AgentReply>>>,
    next: Cell<u64>,
    serving: Cancels<(u16, u64)>,
}

impl Calls {
    /// A way without an agent at its end yet.
    pub fn new(lanes: Rc<Lanes>) -> Rc<Self> {
        Rc::new(Self {
            lanes,
            agent: OnceCell::new(),
            asked: RefCell::default(),
            next: Cell::new(0),
            serving: Cancels::default(),
        })
    }

    /// The agent lives here.
    pub fn settle(&self, agent: Rc<Agent>) {
        let settled = self.agent.set(agent);
        assert!(settled.is_ok(), "a server has one agent");
    }

    /// The agent, where it lives.
    pub fn agent(&self) -> Option<&Rc<Agent>> {
        self.agent.get()
    }

    /// Has a request carried out. Dropped, it is forgotten.
    pub async fn ask(self: &Rc<Self>, request: AgentRequest) -> AgentReply {
        if let Some(agent) = self.agent.get() {
            return agent.serve(request).await;
        }
        let id = self.next.get() + 1;
        self.next.set(id);
        let (tell, told) = oneshot::channel();
        self.asked.borrow_mut().insert(id, tell);
        let asked = Asked {
            calls: Rc::clone(self),
            id,
        };
        let ask = AgentParcel::Ask {
            from: self.lanes.index(),
            id,
            request: Box::new(request),
        };
        if !self.lanes.send(HOME, Parcel::Agent(ask)).await {
            return AgentReply::Gone;
        }
        let reply = told.await;
        drop(asked);
        reply.unwrap_or(AgentReply::Gone)
    }

    /// Takes a parcel of another executor.
    pub fn take(self: &Rc<Self>, parcel: AgentParcel) {
        match parcel {
            AgentParcel::Ask { from, id, request } => {
                let calls = Rc::clone(self);
                let answer = async move {
                    let reply = match calls.agent.get() {
                        Some(agent) => agent.serve(*request).await,
                        None => AgentReply::Gone,
                    };
                    let reply = Box::new(reply);
                    let reply = Parcel::Agent(AgentParcel::Reply { id, reply });
                    calls.lanes.send(from, reply).await;
                };
                // An asker's names for its questions are different.
                if let Some(entered) = self.serving.enter((from, id)) {
                    glommio::spawn_local(entered.or_cancelled(answer)).detach();
                }
            }
            AgentParcel::Reply { id, reply } => {
                if let Some(asker) = self.asked.borrow_mut().remove(&id) {
                    // It may have gone.
                    let _ = asker.send(*reply);
                }
            }
            AgentParcel::Cancel { from, id } => self.serving.cancel(&(from, id)),
        }
    }
}

/// A question that waits for its answer.
struct Asked {
    calls: Rc<Calls>,
    id: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.calls.asked.borrow_mut().remove(&self.id).is_none() {
            return;
        }
        let (lanes, id) = (Rc::clone(&self.calls.lanes), self.id);
        let from = lanes.index();
        glommio::spawn_local(async move {
            let cancel = Parcel::Agent(AgentParcel::Cancel { from, id });
            lanes.send(HOME, cancel).await;
        })
        .detach();
    }
}

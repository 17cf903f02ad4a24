//! How do the executors of one process talk to each other?
//!
//! By messages only. Each pair has a bounded channel in each direction; what one executor knows
//! of another's shards is what it is told. A request for a shard that lives elsewhere crosses
//! over as the bytes it would travel to another server in, and is answered in the same form, so
//! that crossing cores and crossing machines are one piece of code above.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
};

use ahash::AHashMap;
use bytes::Bytes;
use glommio::{
    GlommioError, ResourceType,
    channels::shared_channel::{
        ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender, new_bounded,
    },
};
use wire::{FrameKind, Reply, ShardId};

use super::{
    agent::calls::AgentParcel,
    clients::ClientTicket,
    reactor::Bell,
    reload::InForce,
    window::{Arrivals, Maker, Pieces, Windows},
};
use crate::{consensus::Configuration, shard::Event};

/// Messages under way from one executor to another, at most.
pub const PARCELS_IN_FLIGHT_MAX: usize = 4096;

/// What one executor sends another.
#[derive(Debug)]
pub enum Parcel {
    /// An accepted HTTP connection, to be served there.
    Http(OwnedFd, Option<ClientTicket>),
    /// The configuration has changed: carry it out.
    Configure(Arc<InForce>),
    /// A request for a shard there.
    Call {
        /// Who asks.
        from: u16,
        /// Its name for the question.
        id: u64,
        /// Propose or Query.
        kind: FrameKind,
        /// The shard.
        shard: ShardId,
        /// Command or query, encoded and verified.
        payload: Bytes,
        /// It is a blocking query.
        waits: bool,
    },
    /// An answer, in one or more pieces.
    Reply {
        /// The asker's name for the question.
        id: u64,
        /// The piece.
        reply: Reply,
    },
    /// Pieces of an answer were taken, or with 0 no more are wanted.
    Credit {
        /// Who takes them.
        from: u16,
        /// Its name for the question.
        id: u64,
        /// How many.
        pieces: usize,
    },
    /// Something for a shard there.
    Event(Box<Event>),
    /// There is a cluster now: open your shards.
    Serve(Box<Configuration>),
    /// For the agent, or from it.
    Agent(AgentParcel),
    /// This server serves nothing, for this reason; or serves again.
    Refuse(Option<String>),
    /// Stop.
    Stop,
    /// An executor cannot go on: the process must end.
    Fatal(String),
}

/// The channels of one executor before it runs.
pub struct Ends {
    index: u16,
    senders: Vec<Option<SharedSender<Parcel>>>,
    receivers: Vec<Option<SharedReceiver<Parcel>>>,
    bells: Vec<Arc<Bell>>,
}

impl Ends {
    /// What the others ring after they have sent something here.
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bells[usize::from(self.index)])
    }

    /// The executor that they are for.
    pub fn index(&self) -> u16 {
        self.index
    }
}

/// Channels between `executors` executors, in their order.
///
/// # Errors
/// When the process has no descriptor left.
pub fn mesh(executors: u16) -> io::Result<Vec<Ends>> {
    let count = usize::from(executors);
    let bells = (0..count)
        .map(|_| Bell::new())
        .collect::<io::Result<Vec<_>>>()?;
    let mut ends: Vec<Ends> = (0..executors)
        .map(|index| Ends {
            index,
            senders: (0..count).map(|_| None).collect(),
            receivers: (0..count).map(|_| None).collect(),
            bells: bells.clone(),
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            let (sender, receiver) = new_bounded(PARCELS_IN_FLIGHT_MAX);
            ends[from].senders[to] = Some(sender);
            ends[to].receivers[from] = Some(receiver);
        }
    }
    Ok(ends)
}

/// One executor's way to the others.
pub struct Lanes {
    index: u16,
    senders: Vec<Option<ConnectedSender<Parcel>>>,
    bells: Vec<Arc<Bell>>,
    /// Whom this one asked what, and where the answer goes.
    asked: RefCell<AHashMap<u64, (u16, FrameKind, Arrivals)>>,
    next: Cell<u64>,
    /// Windows of the long answers that are made here, by asker and its name for the question.
    pub windows: Windows<(u16, u64)>,
}

/// What arrives from one other executor.
pub type Inbound = ConnectedReceiver<Parcel>;

impl Lanes {
    /// Connects the channels, on the executor that will use them.
    pub async fn connect(ends: Ends) -> (Rc<Self>, Vec<Inbound>) {
        // An end waits for its other end, and that may wait for another of ours: all at once.
        let sending: Vec<_> = ends
            .senders
            .into_iter()
            .map(|sender| sender.map(|sender| glommio::spawn_local(sender.connect())))
            .collect();
        let receiving: Vec<_> = ends
            .receivers
            .into_iter()
            .flatten()
            .map(|r| glommio::spawn_local(r.connect()))
            .collect();
        let mut senders = Vec::new();
        for sender in sending {
            senders.push(match sender {
                Some(sender) => Some(sender.await),
                None => None,
            });
        }
        let mut receivers = Vec::new();
        for receiver in receiving {
            receivers.push(receiver.await);
        }
        let (asked, next) = (RefCell::default(), Cell::new(0));
        (
            Rc::new(Self {
                index: ends.index,
                senders,
                bells: ends.bells,
                asked,
                next,
                windows: Windows::new(),
            }),
            receivers,
        )
    }

    /// This executor's number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// How many executors there are.
    pub fn count(&self) -> u16 {
        self.senders.len() as u16
    }

    /// Sends at once; gives the parcel back when the channel is full.
    pub fn try_send(&self, to: u16, parcel: Parcel) -> Result<(), Parcel> {
        let Some(sender) = self.senders.get(usize::from(to)).and_then(Option::as_ref) else {
            return Err(parcel);
        };
        sender.try_send(parcel).map_err(|error| match error {
            GlommioError::WouldBlock(ResourceType::Channel(parcel))
            | GlommioError::Closed(ResourceType::Channel(parcel)) => parcel,
            _ => Parcel::Stop,
        })?;
        self.bells[usize::from(to)].ring();
        Ok(())
    }

    /// Sends, waiting while the channel is full. False when that executor has ended.
    pub async fn send(&self, to: u16, parcel: Parcel) -> bool {
        match self.senders.get(usize::from(to)).and_then(Option::as_ref) {
            Some(sender) => {
                let sent = sender.send(parcel).await.is_ok();
                self.bells[usize::from(to)].ring();
                sent
            }
            None => false,
        }
    }

    /// Sends to all others what can be made anew for each.
    pub async fn send_all(&self, parcel: impl Fn() -> Parcel) {
        for to in (0..self.count()).filter(|to| *to != self.index) {
            self.send(to, parcel()).await;
        }
    }

    /// Asks an executor; `None` when its channel is full.
    pub fn ask(
        self: &Rc<Self>,
        to: u16,
        kind: FrameKind,
        shard: ShardId,
        payload: Bytes,
        waits: bool,
    ) -> Option<Pieces> {
        let id = self.next.get() + 1;
        self.next.set(id);
        let call = Parcel::Call {
            from: self.index,
            id,
            kind,
            shard,
            payload,
            waits,
        };
        self.try_send(to, call).ok()?;
        let (arrivals, pieces) = Pieces::expect(Rc::<Self>::clone(self), id);
        self.asked.borrow_mut().insert(id, (to, kind, arrivals));
        Some(pieces)
    }

    /// A piece of an answer arrived.
    pub fn answered(&self, id: u64, reply: Reply) {
        let more = reply.more;
        let mut asked = self.asked.borrow_mut();
        // The asker may have gone; its pieces are dropped.
        if let Some((.., arrivals)) = asked.get_mut(&id) {
            let sent = arrivals.try_send(reply);
            debug_assert!(sent.is_ok(), "a maker keeps to its window");
            if !more || sent.is_err() {
                asked.remove(&id);
            }
        }
    }
}

impl Maker for Lanes {
    fn credit(self: Rc<Self>, question: u64, pieces: usize) {
        let mut asked = self.asked.borrow_mut();
        let Some((to, kind, _)) = asked.get(&question) else {
            return;
        };
        let (to, kind) = (*to, *kind);
        if pieces == 0 {
            asked.remove(&question);
            if kind != FrameKind::Query {
                return;
            }
        }
        drop(asked);
        let from = self.index;
        let credit = move || Parcel::Credit {
            from,
            id: question,
            pieces,
        };
        let Some(Some(sender)) = self.senders.get(usize::from(to)) else {
            return;
        };
        match sender.try_send(credit()) {
            Ok(()) => self.bells[usize::from(to)].ring(),
            // Lost credit would leave the maker waiting for ever.
            Err(GlommioError::WouldBlock(_)) => {
                let lanes = Rc::clone(&self);
                glommio::spawn_local(async move { lanes.send(to, credit()).await }).detach();
            }
            // That executor has ended.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::{LocalExecutorBuilder, Placement};
    use std::{
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        time::Duration,
    };
    use wire::{Index, ReplyBody, limits};

    /// Found by running `curia agent -dev` on two cores: each executor connected its sending end
    /// first and waited for the other's receiving end, for ever.
    #[test]
    fn a_full_channel_gives_the_parcel_back_and_questions_are_answered() {
        let mut ends = mesh(2).unwrap();
        let (second, first) = (ends.pop().unwrap(), ends.pop().unwrap());
        let asker = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move {
                let (lanes, _inbound) = Lanes::connect(first).await;
                let mut sent = 0;
                while lanes.try_send(1, Parcel::Refuse(None)).is_ok() {
                    sent += 1;
                    assert!(
                        sent <= PARCELS_IN_FLIGHT_MAX + 1,
                        "the channel is not bounded"
                    );
                }
                assert!(
                    lanes
                        .ask(1, FrameKind::Query, ShardId(0), Bytes::new(), false)
                        .is_none()
                );
                assert!(
                    lanes.asked.borrow().is_empty(),
                    "a question that was not sent is forgotten"
                );
                sent
            })
            .unwrap();
        let quiet = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move {
                let (lanes, _inbound) = Lanes::connect(second).await;
                // Reads nothing until the other has filled the channel.
                glommio::timer::sleep(std::time::Duration::from_millis(300)).await;
                lanes.index()
            })
            .unwrap();
        assert!(asker.join().unwrap() > 0);
        assert_eq!(quiet.join().unwrap(), 1);
    }

    fn piece(more: bool) -> Reply {
        Reply {
            index: Index(1),
            known_leader: true,
            last_contact_ms: 0,
            more,
            body: ReplyBody::Rows(Vec::new()),
        }
    }

    /// A listing that crossed from another executor lay here whole until its client had read it.
    /// Two executors: one makes pieces without end, the other takes none, then some, then goes.
    #[test]
    fn a_maker_on_another_executor_is_a_window_ahead_and_ends_with_its_asker() {
        let made = Arc::new(AtomicUsize::new(0));
        let mut ends = mesh(2).unwrap();
        let (second, first) = (ends.pop().unwrap(), ends.pop().unwrap());
        let counted = Arc::clone(&made);
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let asker = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move {
                let (lanes, mut inbound) = Lanes::connect(first).await;
                let read = Rc::clone(&lanes);
                let inbound = inbound.pop().unwrap();
                glommio::spawn_local(async move {
                    while let Some(Parcel::Reply { id, reply }) = inbound.recv().await {
                        read.answered(id, reply);
                    }
                })
                .detach();
                let mut pieces = lanes
                    .ask(1, FrameKind::Query, ShardId(0), Bytes::new(), false)
                    .unwrap();
                settle(&counted, limits::REPLY_WINDOW_PIECES).await;
                for _ in 0..10 {
                    assert!(pieces.next().await.unwrap().more);
                }
                settle(&counted, limits::REPLY_WINDOW_PIECES + 10).await;
                drop(pieces);
                while !over.load(Ordering::SeqCst) {
                    glommio::timer::sleep(Duration::from_millis(1)).await;
                }
            })
            .unwrap();
        let maker = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move {
                let (lanes, mut inbound) = Lanes::connect(second).await;
                let inbound = inbound.pop().unwrap();
                let Some(Parcel::Call { from, id, .. }) = inbound.recv().await else {
                    panic!("the question comes first");
                };
                let window = lanes.windows.open((from, id)).unwrap();
                let (making, counted) = (Rc::clone(&lanes), Arc::clone(&made));
                let making = glommio::spawn_local(async move {
                    while window.take().await {
                        let reply = piece(true);
                        assert!(making.send(from, Parcel::Reply { id, reply }).await);
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                })
                .detach();
                let credited = Rc::clone(&lanes);
                glommio::spawn_local(async move {
                    while let Some(Parcel::Credit { from, id, pieces }) = inbound.recv().await {
                        credited.windows.credit((from, id), pieces);
                    }
                })
                .detach();
                making.await;
                ended.store(true, Ordering::SeqCst);
                made.load(Ordering::SeqCst)
            })
            .unwrap();
        let made = maker.join().unwrap();
        assert_eq!(made, limits::REPLY_WINDOW_PIECES + 10);
        asker.join().unwrap();
    }

    /// Waits until `count` are counted, and a little for one too many.
    async fn settle(counted: &AtomicUsize, count: usize) {
        while counted.load(Ordering::SeqCst) < count {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        glommio::timer::sleep(Duration::from_millis(50)).await;
        assert_eq!(counted.load(Ordering::SeqCst), count);
    }

    #[test]
    fn pieces_reach_the_asker_until_the_last() {
        let lanes = Rc::new(Lanes {
            index: 0,
            senders: vec![None],
            bells: Vec::new(),
            asked: RefCell::default(),
            next: Cell::new(0),
            windows: Windows::new(),
        });
        let (arrivals, mut pieces) = Pieces::expect(lanes.clone(), 7);
        let asked = (0, FrameKind::Query, arrivals);
        lanes.asked.borrow_mut().insert(7, asked);
        lanes.answered(7, piece(true));
        lanes.answered(7, piece(false));
        lanes.answered(7, piece(false));
        let taken = |pieces: &mut Pieces| futures_lite::future::block_on(pieces.next());
        assert!(taken(&mut pieces).unwrap().more);
        assert!(!taken(&mut pieces).unwrap().more);
        assert!(taken(&mut pieces).is_none());
        assert!(lanes.asked.borrow().is_empty());
    }
}

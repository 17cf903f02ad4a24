//! How does a turn meet the machine?
//!
//! The glommio side of one executor: tasks that read sockets put events into the mailbox, the
//! loop takes all of them at once, lets the core take its turn, and performs what it asked for:
//! frames to peers first (they have the longest way), then one submission to the log's ring,
//! then answers.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use ahash::AHashMap;
use flatbuffers::FlatBufferBuilder;
use futures_channel::oneshot;
use glommio::timer::sleep;
use wire::{
    Failure, FailureKind, Frame, FrameKind, RaftEnvelope, RequestId, ServerId, ShardId,
    encode_raft_frame,
};

use super::{answer::NativeAsker, board::Board, links::Links};
use crate::{
    io::Ring,
    shard::{Answered, Core, Effects, Event, Notice, Reply, Request, Ticket, Transfer, failure},
};

/// What a local caller gets.
pub type Outcome = Result<Reply, Failure>;

/// Who waits for an answer.
pub enum Asker {
    /// A task of this executor.
    Task(oneshot::Sender<Outcome>),
    /// A native connection: the answer is encoded straight into its buffer.
    Native(NativeAsker),
}

/// What one executor's tasks share with its loop.
pub struct Shell {
    ring: Rc<Ring>,
    events: RefCell<Vec<Event>>,
    waker: RefCell<Option<Waker>>,
    askers: RefCell<AHashMap<u64, Asker>>,
    next_ticket: Cell<u64>,
    /// For each shard here: whether it leads, and who does.
    leaders: RefCell<BTreeMap<ShardId, Leader>>,
    /// Why this server serves nothing at all.
    refusal: RefCell<Option<String>>,
    /// Links to the other servers.
    pub links: Links,
    /// What the rest of the process may know.
    pub board: Board,
    /// Followers may not know yet what is committed.
    untold: Cell<bool>,
}

/// Who leads a shard, as this executor knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leader {
    /// This server does.
    pub here: bool,
    /// That server does.
    pub server: Option<ServerId>,
}

impl Shell {
    /// An executor with these links.
    pub fn new(ring: Rc<Ring>, links: Links, board: Board) -> Rc<Self> {
        Rc::new(Self {
            ring,
            events: RefCell::default(),
            waker: RefCell::default(),
            askers: RefCell::default(),
            next_ticket: Cell::new(0),
            leaders: RefCell::default(),
            refusal: RefCell::default(),
            links,
            board,
            untold: Cell::new(false),
        })
    }

    /// The ring of this executor.
    pub fn ring(&self) -> &Rc<Ring> {
        &self.ring
    }

    /// Something happened.
    pub fn post(&self, event: Event) {
        self.events.borrow_mut().push(event);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Something is asked; `asker` is answered exactly once, unless it is [cancelled](Self::cancel).
    pub fn ask(&self, shard: ShardId, request: Request, asker: Asker) -> Ticket {
        let ticket = self.next_ticket.get() + 1;
        self.next_ticket.set(ticket);
        self.askers.borrow_mut().insert(ticket, asker);
        let ticket = Ticket(ticket);
        self.post(Event::Request {
            ticket,
            shard,
            request,
        });
        ticket
    }

    /// Nobody waits any longer for the answers to these reads.
    pub fn cancel(&self, shard: ShardId, tickets: Vec<Ticket>) {
        for ticket in &tickets {
            // What an asker holds may ask this shell again when it is dropped.
            let asker = self.askers.borrow_mut().remove(&ticket.0);
            drop(asker);
        }
        self.post(Event::Cancel { shard, tickets });
    }

    /// Asks and waits. A blocking query whose future is dropped gives up its place.
    pub async fn call(&self, shard: ShardId, request: Request) -> Outcome {
        let (sender, receiver) = oneshot::channel();
        let waits = matches!(&request, Request::Read(query) if query.waits());
        let ticket = self.ask(shard, request, Asker::Task(sender));
        let mut called = Called {
            shell: self,
            shard,
            ticket: waits.then_some(ticket),
        };
        let answer = receiver.await;
        called.ticket = None;
        answer.unwrap_or_else(|_| {
            Err(failure(
                FailureKind::ShuttingDown,
                "this server is shutting down",
            ))
        })
    }

    /// Who leads a shard of this executor.
    pub fn leader(&self, shard: ShardId) -> Leader {
        self.leaders
            .borrow()
            .get(&shard)
            .cloned()
            .unwrap_or_default()
    }

    /// Serve nothing, for this reason; `None`: serve again.
    pub fn refuse(&self, why: Option<String>) {
        *self.refusal.borrow_mut() = why;
    }

    /// Why this server serves nothing.
    pub fn refusal(&self) -> Option<String> {
        self.refusal.borrow().clone()
    }

    /// Waits until something has happened, and takes all of it.
    pub async fn gathered(&self, events: &mut Vec<Event>) {
        poll_fn(|cx| {
            let mut waiting = self.events.borrow_mut();
            if waiting.is_empty() {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(&mut *waiting, events);
            self.ring.stir();
            Poll::Ready(())
        })
        .await;
    }
}

/// A blocking query under way; dropped before its answer, it is cancelled.
struct Called<'s> {
    shell: &'s Shell,
    shard: ShardId,
    ticket: Option<Ticket>,
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shell.cancel(self.shard, vec![ticket]);
        }
    }
}

/// What the loop drives besides the core: the log's device and the background lane.
pub trait Devices {
    /// Submits log and file operations together, in one system call where there are any.
    fn submit(&mut self, log: &mut Vec<crate::io::LogOp>, files: &mut Vec<crate::io::FileOp>);
}

/// Clock that counts suspension, ns.
pub fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime writes one timespec into the pointed-to local.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert_eq!(result, 0, "CLOCK_BOOTTIME exists since Linux 2.6.39");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs one executor's core until it has shut down. Returns why it must stop at once, if it must.
pub async fn run(
    shell: Rc<Shell>,
    mut core: Core,
    mut devices: impl Devices,
    tick: Duration,
) -> Result<(), String> {
    let ticker = glommio::spawn_local(tick_forever(Rc::clone(&shell), tick));
    let teller = glommio::spawn_local(tell_at_rest(Rc::clone(&shell)));
    let mut performer = Performer::default();
    let mut events = Vec::new();
    let mut effects = Effects::default();
    let mut stopping = false;
    shell.post(Event::Wake);
    let result = loop {
        shell.gathered(&mut events).await;
        stopping |= events.iter().any(|event| matches!(event, Event::Shutdown));
        core.turn(now_ns(), &mut events, &mut effects);
        if let Some(why) = effects.fatal.take() {
            break Err(why);
        }
        shell.note(&core, &mut effects);
        shell.untold.set(core.has_commit_to_tell());
        performer.perform(&shell, &mut effects, &mut devices);
        if stopping && core.is_shut_down() {
            break Ok(());
        }
    };
    ticker.cancel().await;
    teller.cancel().await;
    result
}

async fn tick_forever(shell: Rc<Shell>, tick: Duration) {
    // The first timer of an executor is late by milliseconds; let it be this one.
    loop {
        sleep(tick).await;
        shell.post(Event::Wake);
    }
}

async fn tell_at_rest(shell: Rc<Shell>) {
    let mut rests = 0;
    loop {
        poll_fn(|cx| shell.ring.poll_rest(&mut rests, cx)).await;
        if shell.untold.get() {
            shell.post(Event::Rest);
        }
    }
}

impl Shell {
    fn note(&self, core: &Core, effects: &mut Effects) {
        let mut changed = false;
        for (shard, member) in core.members() {
            let replica = member.replica();
            let leader = Leader {
                here: replica.is_leader(),
                server: replica.leader(),
            };
            let mut leaders = self.leaders.borrow_mut();
            if leaders.get(shard) != Some(&leader) {
                let before = leaders
                    .insert(*shard, leader.clone())
                    .and_then(|leader| leader.server);
                if let Some(before) = before.filter(|before| Some(*before) != leader.server) {
                    self.links.abandon(before, *shard);
                }
                changed = true;
            }
        }
        for notice in effects.notices.drain(..) {
            match notice {
                Notice::Leader { shard, leads: true } => {
                    log::info!(target: "agent.server.raft", "cluster leadership acquired: shard={shard}");
                }
                Notice::Leader {
                    shard,
                    leads: false,
                } => {
                    log::info!(target: "agent.server.raft", "cluster leadership lost: shard={shard}");
                }
                Notice::Configuration(configuration) => {
                    self.links.set_members(&configuration.members)
                }
                Notice::Warn(text) => log::warn!(target: "agent.server", "{text}"),
                Notice::Info(text) => log::info!(target: "agent.server", "{text}"),
            }
            changed = true;
        }
        self.board.note_acl(core);
        self.board.update(core, changed);
    }
}

/// Performs effects; keeps its buffers from turn to turn.
#[derive(Default)]
struct Performer {
    builder: FlatBufferBuilder<'static>,
    batch: Vec<RaftEnvelope>,
}

impl Performer {
    fn perform(&mut self, shell: &Rc<Shell>, effects: &mut Effects, devices: &mut impl Devices) {
        self.send_raft(shell, effects);
        for (to, shard, transfer) in effects.transfers.drain(..) {
            shell
                .links
                .send(to, |out| transfer_frame(shard, transfer).encode(out));
        }
        shell.links.flush();
        devices.submit(&mut effects.log, &mut effects.files);
        self.answer(shell, effects);
        if std::mem::take(&mut effects.again) {
            shell.post(Event::Wake);
        }
    }

    /// One frame per peer and shard, holding all its messages of this turn.
    fn send_raft(&mut self, shell: &Shell, effects: &mut Effects) {
        let mut messages: Vec<_> = effects.raft.drain(..).collect();
        messages.sort_by_key(|(to, shard, _)| (*to, *shard));
        let mut messages = messages.into_iter().peekable();
        while let Some((to, shard, first)) = messages.next() {
            self.batch.clear();
            self.batch.push(first);
            while let Some((_, _, next)) = messages.next_if(|(t, s, _)| (*t, *s) == (to, shard)) {
                self.batch.push(next);
            }
            let (builder, batch) = (&mut self.builder, &self.batch);
            shell
                .links
                .send(to, |out| encode_raft_frame(builder, shard, batch, out));
        }
    }

    fn answer(&mut self, shell: &Rc<Shell>, effects: &mut Effects) {
        let now_ns = now_ns();
        let mut natives = Vec::new();
        for Answered {
            ticket,
            result,
            lease_until_ns,
        } in effects.answers.drain(..)
        {
            let Some(asker) = shell.askers.borrow_mut().remove(&ticket.0) else {
                continue;
            };
            // The lease may have run out while the answer was made (a pause): then ask again.
            let result = match lease_until_ns {
                Some(until) if until <= now_ns => Err(failure(
                    FailureKind::NotLeader,
                    "the leader's lease ran out while it answered",
                )),
                _ => result,
            };
            match asker {
                Asker::Task(sender) => {
                    // The caller may have gone; then nobody misses the answer.
                    let _ = sender.send(result);
                }
                Asker::Native(native) => native.answer(result, &mut natives),
            }
        }
        for outbox in natives {
            outbox.flush();
        }
    }
}

fn transfer_frame(shard: ShardId, transfer: Transfer) -> Frame {
    let (kind, payload, blob) = match transfer {
        Transfer::ImageFetch(fetch) => (FrameKind::ImageFetch, fetch.encode(), bytes::Bytes::new()),
        Transfer::ImageChunk(chunk, bytes) => (FrameKind::ImageChunk, chunk.encode(), bytes),
        Transfer::EntriesChunk(chunk) => {
            let (payload, blob) = chunk.encode();
            (FrameKind::EntriesChunk, payload, blob)
        }
    };
    Frame {
        kind,
        shard,
        request: RequestId(0),
        flags: 0,
        payload,
        blob,
    }
}

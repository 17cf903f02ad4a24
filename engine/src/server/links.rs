//! How does a server speak to the others?
//!
//! One connection to each, dialled from here, for as long as the server is in the peer set: raft
//! messages, images and forwarded requests go out on it; only answers to forwarded requests come
//! back. What cannot be sent is dropped, which raft takes as loss; a forwarded request is never
//! sent twice: once its bytes may have left, a broken link means "outcome unknown".

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use ahash::AHashMap;
use bytes::{Bytes, BytesMut};
use futures_lite::AsyncReadExt;
use glommio::timer::sleep;
use wire::{
    Credit, FLAG_NO_FORWARD, Frame, FrameDecoder, FrameKind, Hello, Member, Reply, RequestId, Role,
    ServerId, ShardId, limits,
};

use super::{
    dial::{dial, exchange_hello},
    pipe::Outbox,
    stream::Stream,
    window::{Arrivals, Maker, Pieces},
};

/// Bytes waiting for a peer that does not read, beyond which messages to it are dropped.
const LINK_BYTES_MAX: usize = 32 << 20;
/// Shortest and longest wait before dialling again.
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_millis(1000);
/// Forwarded requests in flight on one link.
const FORWARDS_IN_FLIGHT_MAX: usize = 16_384;
/// Forwarded blocking queries that wait at the other end of one link, beside these.
const FORWARDS_WAITING_MAX: usize = 131_072;

/// What every dialled connection introduces itself with.
pub type Introduce = Rc<dyn Fn() -> Hello>;

/// There is no connection to that server, or it takes no more: nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSent;

/// What happens to links that others must know.
pub enum LinkEvent {
    /// The connection to a server broke.
    Down(ServerId),
}

/// Whom to tell of a link event.
type Notify = Rc<dyn Fn(LinkEvent)>;

/// A forwarded request.
struct Asked {
    /// The shard that was asked.
    shard: ShardId,
    /// What it was asked.
    kind: FrameKind,
    /// Where its answer goes.
    arrivals: Arrivals,
    /// Its place among those that wait, if it is a blocking query.
    _waiting: Option<Counted>,
}

/// One of a number; dropping it counts it off.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn among(count: &Rc<Cell<usize>>, max: usize) -> Option<Self> {
        if count.get() >= max {
            return None;
        }
        count.set(count.get() + 1);
        Some(Self(Rc::clone(count)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Link {
    address: RefCell<String>,
    outbox: RefCell<Option<Rc<Outbox>>>,
    asked: RefCell<AHashMap<u64, Asked>>,
    /// How many of `asked` are blocking queries.
    waiting: Rc<Cell<usize>>,
    next_request: Cell<u64>,
    retired: Cell<bool>,
}

struct Inner {
    own: ServerId,
    bind: IpAddr,
    introduce: Introduce,
    links: RefCell<BTreeMap<ServerId, Rc<Link>>>,
    notify: RefCell<Option<Notify>>,
}

/// Links of one executor to all other servers.
#[derive(Clone)]
pub struct Links(Rc<Inner>);

impl Links {
    /// No links yet. Connections are dialled from `bind`.
    pub fn new(own: ServerId, bind: IpAddr, introduce: Introduce) -> Self {
        Self(Rc::new(Inner {
            own,
            bind,
            introduce,
            links: RefCell::default(),
            notify: RefCell::default(),
        }))
    }

    /// Whom to tell of broken connections.
    pub fn on_event(&self, notify: Notify) {
        *self.0.notify.borrow_mut() = Some(notify);
    }

    /// The peer set: dials who is new, lets go of who left.
    pub fn set_members(&self, members: &[Member]) {
        let mut links = self.0.links.borrow_mut();
        links.retain(|id, link| {
            let stays = members.iter().any(|member| member.raft_id == *id);
            if !stays {
                link.retired.set(true);
                link.disconnect();
            }
            stays
        });
        for member in members.iter().filter(|member| member.raft_id != self.0.own) {
            match links.get(&member.raft_id) {
                Some(link) => *link.address.borrow_mut() = member.address.clone(),
                None => {
                    let link = Rc::new(Link::new(member.address.clone()));
                    links.insert(member.raft_id, Rc::clone(&link));
                    let inner = Rc::clone(&self.0);
                    glommio::spawn_local(keep(inner, member.raft_id, link)).detach();
                }
            }
        }
    }

    /// Appends a frame for a server; dropped when it cannot be reached or does not read.
    pub fn send(&self, to: ServerId, write: impl FnOnce(&mut BytesMut)) {
        let links = self.0.links.borrow();
        let Some(link) = links.get(&to) else { return };
        let outbox = link.outbox.borrow();
        if let Some(outbox) = outbox.as_ref() {
            // A clogged link drops, as a network does; raft sends again.
            let _ = outbox.push(write);
        }
    }

    /// Sends a frame to all servers that can be reached now.
    pub fn tell_all(&self, frame: &Frame) {
        for link in self.0.links.borrow().values() {
            if let Some(outbox) = link.outbox.borrow().as_ref()
                && outbox.push(|out| frame.encode(out)).is_ok()
            {
                outbox.flush();
            }
        }
    }

    /// Sends what gathered, one system call per server.
    pub fn flush(&self) {
        for link in self.0.links.borrow().values() {
            if let Some(outbox) = link.outbox.borrow().as_ref()
                && outbox.pending() > 0
            {
                outbox.flush();
            }
        }
    }

    /// Forwards a request; the answer comes in one or more pieces, and breaks off without a last
    /// one when the connection does. `waits`: it is a blocking query, of which there is a bound.
    pub fn forward(
        &self,
        to: ServerId,
        kind: FrameKind,
        shard: ShardId,
        payload: Bytes,
        waits: bool,
    ) -> Result<Pieces, NotSent> {
        let link = self.0.links.borrow().get(&to).cloned().ok_or(NotSent)?;
        let outbox = link.outbox.borrow().clone().ok_or(NotSent)?;
        let waiting = match waits {
            true => Some(Counted::among(&link.waiting, FORWARDS_WAITING_MAX).ok_or(NotSent)?),
            false if link.asked.borrow().len() - link.waiting.get() >= FORWARDS_IN_FLIGHT_MAX => {
                return Err(NotSent);
            }
            false => None,
        };
        let request = link.next_request.get() + 1;
        link.next_request.set(request);
        let frame = Frame {
            kind,
            shard,
            request: RequestId(request),
            flags: FLAG_NO_FORWARD,
            payload,
            blob: Bytes::new(),
        };
        outbox.push(|out| frame.encode(out)).map_err(|_| NotSent)?;
        let (arrivals, pieces) = Pieces::expect(Rc::<Link>::clone(&link), request);
        let asked = Asked {
            shard,
            kind,
            arrivals,
            _waiting: waiting,
        };
        link.asked.borrow_mut().insert(request, asked);
        outbox.flush();
        Ok(pieces)
    }

    /// A shard's leader is no longer that server: what was forwarded to it is answered by nobody
    /// here, as when the connection breaks. It may be asleep, with the connection standing.
    pub fn abandon(&self, server: ServerId, shard: ShardId) {
        let Some(link) = self.0.links.borrow().get(&server).cloned() else {
            return;
        };
        let asked = link.asked.borrow();
        let of_shard = asked.iter().filter(|(_, asked)| asked.shard == shard);
        let abandoned: Vec<u64> = of_shard.map(|(request, _)| *request).collect();
        drop(asked);
        for request in abandoned {
            // It may be making a long answer, and wait for credit.
            Rc::clone(&link).credit(request, 0);
        }
    }
}

impl Link {
    fn new(address: String) -> Self {
        Self {
            address: RefCell::new(address),
            outbox: RefCell::default(),
            asked: RefCell::default(),
            waiting: Rc::default(),
            next_request: Cell::new(0),
            retired: Cell::new(false),
        }
    }

    fn disconnect(&self) {
        if let Some(outbox) = self.outbox.borrow_mut().take() {
            outbox.close();
        }
        // Dropping the senders tells the waiting that no answer comes.
        self.asked.borrow_mut().clear();
    }

    fn reply(&self, frame: &Frame) -> Result<(), wire::WireError> {
        let reply = Reply::decode(&frame.payload)?;
        let more = reply.more;
        let mut asked = self.asked.borrow_mut();
        // The asker may have gone; its pieces are dropped.
        if let Some(of) = asked.get_mut(&frame.request.0) {
            let beyond = of
                .arrivals
                .try_send(reply)
                .is_err_and(|error| error.is_full());
            if beyond {
                return Err(wire::WireError::TooLarge {
                    what: "pieces of an answer",
                    found: limits::REPLY_WINDOW_PIECES as u64 + 1,
                    max: limits::REPLY_WINDOW_PIECES as u64,
                });
            }
            if !more {
                asked.remove(&frame.request.0);
            }
        }
        Ok(())
    }
}

impl Maker for Link {
    fn credit(self: Rc<Self>, question: u64, pieces: usize) {
        let mut asked = self.asked.borrow_mut();
        let Some(Asked { shard, kind, .. }) = asked.get(&question) else {
            return;
        };
        let (shard, kind) = (*shard, *kind);
        if pieces == 0 {
            // Dropping the sender tells whoever waits that no answer comes.
            asked.remove(&question);
            if kind != FrameKind::Query {
                return;
            }
        }
        drop(asked);
        let credit = Credit {
            pieces: pieces as u32,
        };
        let frame = Frame {
            kind: FrameKind::Credit,
            shard,
            request: RequestId(question),
            flags: 0,
            payload: credit.encode(),
            blob: Bytes::new(),
        };
        let Some(outbox) = self.outbox.borrow().clone() else {
            return;
        };
        match outbox.push(|out| frame.encode(out)) {
            Ok(()) => outbox.flush(),
            // Without its credit the answer would stand still for ever.
            Err(_) => outbox.close(),
        }
    }
}

/// Keeps one link up until its server leaves the peer set.
async fn keep(inner: Rc<Inner>, server: ServerId, link: Rc<Link>) {
    let mut wait = REDIAL_MIN;
    while !link.retired.get() {
        if let Ok(stream) = connect(&inner, server, &link).await {
            wait = REDIAL_MIN;
            // The reason matters to nobody: the link is dialled again either way.
            let _ = read_replies(&link, stream).await;
            link.disconnect();
            let notify = inner.notify.borrow().clone();
            if let Some(notify) = notify {
                notify(LinkEvent::Down(server));
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(REDIAL_MAX);
    }
}

async fn connect(
    inner: &Inner,
    server: ServerId,
    link: &Link,
) -> Result<(Stream, FrameDecoder), ()> {
    let address: SocketAddr = link.address.borrow().parse().map_err(|_| ())?;
    let (socket, mut stream) = dial(address, Some(inner.bind)).await.map_err(|_| ())?;
    let mut hello = (inner.introduce)();
    hello.role = Role::Peer;
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
    let theirs = exchange_hello(&mut stream, &mut decoder, &hello)
        .await
        .map_err(|_| ())?;
    if theirs.raft_id == server && theirs.cluster_id.is_nil() {
        // It is about to learn of the cluster it was formed with.
        return Err(());
    }
    if theirs.raft_id != server || theirs.cluster_id != hello.cluster_id {
        log::warn!(
            target: "agent.server.rpc",
            "{address} is not the server that the peer set says it is: raft id {} (expected {server}), cluster {}; \
             was its data directory wiped?",
            theirs.raft_id, theirs.cluster_id
        );
        return Err(());
    }
    let outbox = Outbox::new(&socket, LINK_BYTES_MAX).map_err(|_| ())?;
    *link.outbox.borrow_mut() = Some(outbox);
    Ok((stream, decoder))
}

async fn read_replies(
    link: &Link,
    (mut stream, mut decoder): (Stream, FrameDecoder),
) -> Result<(), ()> {
    loop {
        let read = stream.read(decoder.space()).await.map_err(|_| ())?;
        if read == 0 {
            return Ok(());
        }
        decoder.received(read);
        while let Some(frame) = decoder.next_frame().map_err(|_| ())? {
            if frame.kind == FrameKind::Reply {
                link.reply(&frame).map_err(|_| ())?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_waiting_max_is_reached_and_given_back() {
        let count = Rc::default();
        let one = || Counted::among(&count, FORWARDS_WAITING_MAX);
        let mut all: Vec<Counted> = (0..FORWARDS_WAITING_MAX).filter_map(|_| one()).collect();
        assert_eq!(all.len(), FORWARDS_WAITING_MAX);
        assert!(one().is_none());
        all.pop();
        let last = one();
        assert!(last.is_some() && one().is_none());
        drop((all, last));
        assert_eq!(count.get(), 0);
    }
}

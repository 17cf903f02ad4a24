//! One client's socket: how do hyper and the executor meet, and when is a slow client cut off?
//!
//! hyper polls [`HyperIo`], a thin adapter. Behind it, [`Link`] knows in which phase the
//! connection is and since when; one sweeper per executor looks at all links a few times a second
//! and shuts down the sockets of those that are late, which wakes their tasks with an
//! end-of-stream. No request ever starts a timer or reads a clock.
//!
//! Answers go out with `sendmsg`: header and body in one system call, without copying the body.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    net::{IpAddr, Shutdown},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use futures_lite::future::poll_fn;
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::server::Stream;

/// Coarse time: ticks of the sweeper since the service started.
pub(super) type Tick = u64;

/// What the connection is doing, as far as deadlines are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Idle,
    /// Some bytes of a request's header have arrived.
    Header,
    /// The header is complete, the body is not.
    Body,
    /// The request is complete and being carried out; the cluster's own deadlines apply.
    Serving,
    /// Refused; what the client still sends is thrown away.
    Linger,
}

/// One client's socket.
pub(super) struct Link {
    stream: RefCell<Stream>,
    clock: Rc<Cell<Tick>>,
    phase: Cell<Phase>,
    since: Cell<Tick>,
    write_blocked_since: Cell<Option<Tick>>,
    late_in: Cell<Option<Phase>>,
    ended: Cell<bool>,
    /// An answer to a request that was understood is on its way to the socket.
    answering: Cell<bool>,
    /// Status with which hyper refused a request that it could not read.
    unreadable: Cell<Option<u16>>,
}

impl Link {
    pub(super) fn new(stream: Stream, clock: Rc<Cell<Tick>>) -> Self {
        // Answers are small and whole; Nagle's delay would only hold them back.
        let _ = stream.socket().set_tcp_nodelay(true);
        Self {
            stream: RefCell::new(stream),
            since: Cell::new(clock.get()),
            clock,
            phase: Cell::new(Phase::Idle),
            write_blocked_since: Cell::new(None),
            late_in: Cell::new(None),
            ended: Cell::new(false),
            answering: Cell::new(false),
            unreadable: Cell::new(None),
        }
    }

    /// Enters a phase now.
    pub(super) fn enter(&self, phase: Phase) {
        if phase == Phase::Serving {
            self.answering.set(true);
        }
        self.phase.set(phase);
        self.since.set(self.clock.get());
    }

    /// The client's address; none over a socket of the file system.
    pub(super) fn client_ip(&self) -> Option<IpAddr> {
        let address = self.stream.borrow().socket().peer_addr().ok()?;
        Some(address.as_socket()?.ip().to_canonical())
    }

    /// What the connection is doing.
    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Since when.
    pub(super) fn since(&self) -> Tick {
        self.since.get()
    }

    /// Since when the client has taken nothing of an answer that waits for it.
    pub(super) fn write_blocked_since(&self) -> Option<Tick> {
        self.write_blocked_since.get()
    }

    /// The phase in which the client was too slow and was cut off.
    pub(super) fn late_in(&self) -> Option<Phase> {
        self.late_in.get()
    }

    /// Cuts off a late client's sending side; its task wakes and reads an end-of-stream.
    pub(super) fn cut_reading(&self) {
        self.late_in.set(Some(self.phase.get()));
        let _ = self.stream.borrow().socket().shutdown(Shutdown::Read);
    }

    /// Cuts off a client that does not take its answer.
    pub(super) fn cut(&self) {
        let _ = self.stream.borrow().socket().shutdown(Shutdown::Both);
    }

    /// Status with which a request was refused that could not be read. It is still to be answered:
    /// hyper's own answer, which gives no reason, was held back.
    pub(super) fn unreadable(&self) -> Option<u16> {
        self.unreadable.get()
    }

    fn between_requests(&self) -> bool {
        matches!(self.phase.get(), Phase::Idle | Phase::Header)
    }

    /// Takes an answer that nobody here gave, and notes its status: while no request is being
    /// answered, hyper writes only to refuse one that it cannot read.
    fn hold_back(&self, bufs: &[IoSlice<'_>]) -> Option<usize> {
        if self.answering.get() || !self.between_requests() {
            return None;
        }
        if self.unreadable.get().is_none() {
            let head = bufs.iter().find(|buf| !buf.is_empty())?;
            let status = head.get("HTTP/1.1 ".len()..)?.get(..3)?;
            let status = std::str::from_utf8(status).ok()?.parse().ok()?;
            self.unreadable.set(Some(status));
        }
        Some(bufs.iter().map(|buf| buf.len()).sum())
    }

    /// All that hyper had to write has been written.
    fn flushed(&self) {
        if self.between_requests() {
            self.answering.set(false);
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(self.stream.borrow_mut().poll_read(cx, buf))?;
        if read == 0 {
            self.ended.set(true);
        } else if self.phase.get() == Phase::Idle {
            self.enter(Phase::Header);
        }
        Poll::Ready(Ok(read))
    }

    fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let sent = self.stream.borrow_mut().poll_write(cx, bufs);
        if sent.is_ready() {
            self.write_blocked_since.set(None);
        } else if self.write_blocked_since.get().is_none() {
            self.write_blocked_since.set(Some(self.clock.get()));
        }
        sent
    }

    /// Waits until the client has closed its sending side or is gone.
    pub(super) async fn ended(&self) {
        poll_fn(|cx| self.stream.borrow_mut().poll_ended(cx)).await;
    }

    /// Sends all of `bytes`.
    pub(super) async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = poll_fn(|cx| self.poll_write(cx, &[IoSlice::new(bytes)])).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Ends the connection so that the client gets to read its last answer: our side is closed,
    /// then at most `bytes_max` of what it still sends are thrown away. Closing a socket with
    /// unread input would reset it, and the answer would be lost.
    pub(super) async fn close(&self, bytes_max: usize) {
        let _ = self.stream.borrow().socket().shutdown(Shutdown::Write);
        self.enter(Phase::Linger);
        let mut dropped = 0;
        while !self.ended.get() && dropped < bytes_max {
            // The scratch space lives on the stack, not in the connection's task.
            match poll_fn(|cx| self.poll_read(cx, &mut [0; 4096])).await {
                Ok(read) => dropped += read,
                Err(_) => break,
            }
        }
    }
}

/// What hyper reads from and writes to.
pub(super) struct HyperIo(pub(super) Rc<Link>);

impl Read for HyperIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(self.0.poll_read(cx, cursor.initialize_unfilled()))?;
        // SAFETY: the whole rest of the buffer is initialised, and `read` is at most its length.
        unsafe { cursor.advance(read) };
        Poll::Ready(Ok(()))
    }
}

impl Write for HyperIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.flushed();
        Poll::Ready(Ok(()))
    }

    /// The connection's owner closes it, see [`Link::close`].
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.0.hold_back(bufs) {
            Some(held) => Poll::Ready(Ok(held)),
            None => self.0.poll_write(cx, bufs),
        }
    }
}

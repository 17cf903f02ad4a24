//! What happens on one non-blocking connection, from dialling to its end?
//!
//! ```text
//! Down ──dial──▶ Connecting ──▶ Greeting ──Event::Ready──▶ Ready
//!   ▲                │              │                        │
//!   └────────────────┴──── reset ───┴────────────────────────┘
//! ```
//! A protocol without a greeting goes from Connecting to Ready at once.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use mio::net::TcpStream;

use super::Op;
use super::mux::RECONNECT_AFTER;
use super::session::{Event, Session, Sessions};

/// One connection and its session.
pub struct Connection<S> {
    /// The socket; `None` while down.
    pub stream: Option<TcpStream>,
    /// The protocol; `None` until connected.
    pub session: Option<S>,
    /// Where to.
    pub address: SocketAddr,
    /// Where it stands.
    pub state: State,
    /// Not to be dialled before.
    pub retry_at: Option<Instant>,
    /// How often it was dialled.
    pub attempts: usize,
    /// What waits to be sent.
    pub out: BytesMut,
}

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No socket.
    Down,
    /// Dialled.
    Connecting,
    /// Waits for the answer to the greeting.
    Greeting,
    /// Requests may be sent.
    Ready,
}

impl<S: Session> Connection<S> {
    /// A connection that is down and may be dialled at once.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            stream: None,
            session: None,
            address,
            state: State::Down,
            retry_at: None,
            attempts: 0,
            out: BytesMut::new(),
        }
    }

    /// Finds out how a connection attempt ended, once the socket reports anything, and greets.
    pub fn establish<P: Sessions<Session = S>>(&mut self, protocol: &P) {
        let Some(stream) = self
            .stream
            .as_ref()
            .filter(|_| self.state == State::Connecting)
        else {
            return;
        };
        if matches!(stream.take_error(), Ok(Some(_)) | Err(_)) {
            self.stream = None;
            self.state = State::Down;
        } else if stream.peer_addr().is_ok() {
            let _ = stream.set_nodelay(true);
            let mut session = protocol.session(self.address);
            self.state = match session.greet(&mut self.out) {
                true => State::Ready,
                false => State::Greeting,
            };
            self.session = Some(session);
        }
    }

    /// Reads while no request is outstanding: only a greeting's answer may come.
    pub fn greet(&mut self) -> std::result::Result<(), String> {
        if self.state != State::Greeting {
            return Ok(());
        }
        while let Some((n, _)) = self.read().map_err(|e| e.to_string())? {
            if n == 0 {
                return Err("closed".into());
            }
            let session = self.session.as_mut().expect("a greeting has a session");
            while let Some(event) = session.next(Op::Put, &mut self.out)? {
                match event {
                    Event::Ready => self.state = State::Ready,
                    _ => return Err("an answer to no request".into()),
                }
            }
        }
        Ok(())
    }

    /// Receives once into the session: bytes received and room there was; `None` when the socket
    /// is empty.
    pub fn read(&mut self) -> io::Result<Option<(usize, usize)>> {
        let (Some(stream), Some(session)) = (self.stream.as_mut(), self.session.as_mut()) else {
            return Ok(None);
        };
        loop {
            let space = session.space();
            let room = space.len();
            match stream.read(space) {
                Ok(n) => {
                    session.received(n);
                    return Ok(Some((n, room)));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends as much as the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = self.stream.as_mut() else {
            self.out.clear();
            return Ok(());
        };
        while !self.out.is_empty() {
            match stream.write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.out.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        // Sent whole: the allocation can be used from its start again.
        self.out.clear();
        Ok(())
    }

    /// Closes it, to be dialled again after a pause.
    pub fn reset(&mut self, registry: &mio::Registry) {
        if let Some(mut stream) = self.stream.take() {
            let _ = registry.deregister(&mut stream);
        }
        self.session = None;
        self.state = State::Down;
        self.out = BytesMut::new();
        self.retry_at = Some(Instant::now() + RECONNECT_AFTER);
    }
}

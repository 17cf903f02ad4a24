//! How do the bytes of one turn leave in one system call?
//!
//! A connection's write half. Whatever a turn has to say gathers in one buffer and leaves with
//! one non-blocking `send`; only when the kernel's buffer is full does a task take over and wait.
//! The buffer is bounded: who does not read is not written for.

use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
    rc::Rc,
    time::Duration,
};

use bytes::{Buf, BytesMut};
use futures_lite::AsyncWriteExt;
use glommio::timer::sleep;
use socket2::Socket;

use super::stream::Stream;

/// A refusal to buffer more for a peer that does not read.
#[derive(Debug, PartialEq, Eq)]
pub struct Clogged;

/// Write half of a connection.
#[derive(Debug)]
pub struct Outbox {
    socket: Socket,
    buffer: RefCell<BytesMut>,
    /// A task is waiting for the kernel to take more.
    waiting: Cell<bool>,
    closed: Cell<bool>,
    bytes_max: usize,
}

impl Outbox {
    /// The write half of `stream`, holding at most `bytes_max` bytes that the kernel did not take yet.
    pub fn new(socket: &Socket, bytes_max: usize) -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            socket: socket.try_clone()?,
            buffer: RefCell::default(),
            waiting: Cell::new(false),
            closed: Cell::new(false),
            bytes_max,
        }))
    }

    /// Lets `write` append whole frames. They leave at the next [`Self::flush`].
    pub fn push(&self, write: impl FnOnce(&mut BytesMut)) -> Result<(), Clogged> {
        let mut buffer = self.buffer.borrow_mut();
        if self.closed.get() || buffer.len() > self.bytes_max {
            return Err(Clogged);
        }
        write(&mut buffer);
        Ok(())
    }

    /// Bytes not yet taken by the kernel.
    pub fn pending(&self) -> usize {
        self.buffer.borrow().len()
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Gives the kernel what it takes now; the rest follows when it takes more.
    pub fn flush(self: &Rc<Self>) {
        if self.waiting.get() || self.closed.get() {
            return;
        }
        let mut buffer = self.buffer.borrow_mut();
        while !buffer.is_empty() {
            match self
                .socket
                .send_with_flags(&buffer, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            {
                Ok(sent) => buffer.advance(sent),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.waiting.set(true);
                    // glommio runs a new task at once up to its first wait, so it may not find
                    // the buffer borrowed.
                    drop(buffer);
                    glommio::spawn_local(Rc::clone(self).wait()).detach();
                    return;
                }
                Err(_) => return self.close(),
            }
        }
        if buffer.capacity() > BUFFER_KEPT_BYTES_MAX {
            *buffer = BytesMut::new();
        }
    }

    async fn wait(self: Rc<Self>) {
        let Ok(socket) = self.socket.try_clone() else {
            return self.close();
        };
        let Ok(mut stream) = Stream::new(socket) else {
            return self.close();
        };
        loop {
            let piece = self.buffer.borrow_mut().split();
            if piece.is_empty() || self.closed.get() {
                break;
            }
            if stream.write_all(&piece).await.is_err() {
                self.close();
                break;
            }
        }
        self.waiting.set(false);
    }

    /// Waits until whoever still holds this write half has answered, and the peer has taken it all:
    /// a peer that closed its sending side still gets its answers. `own`: how many of the handles are
    /// the connection's own, and answer nothing. Not longer than `patience`.
    pub async fn drained(self: &Rc<Self>, own: usize, patience: Duration) {
        let mut waited = Duration::ZERO;
        while waited < patience && !self.is_closed() && Rc::strong_count(self) > own {
            sleep(DRAIN_LOOK).await;
            waited += DRAIN_LOOK;
        }
    }

    /// Closes both directions: the reading task ends too.
    pub fn close(&self) {
        if !self.closed.replace(true) {
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Between two looks at a half-closed connection.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// An empty buffer larger than this is given back, bytes.
const BUFFER_KEPT_BYTES_MAX: usize = 4 << 20;

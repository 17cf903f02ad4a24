//! How do tasks read and write a socket?
//!
//! Through non-blocking calls, and the executor's ring when those would block. What glommio's own
//! streams do through its reactor is done here in one submission that shares the executor's next
//! system call (see [`reactor`](super::reactor)).

use std::{
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use futures_lite::{AsyncRead, AsyncWrite, future::poll_fn};
use socket2::Socket;

use super::reactor;
use crate::io::{Interest, Readiness, Ring};

/// A connected socket of this executor.
pub struct Stream {
    // Before the socket: a watch is cancelled before its descriptor is closed.
    readable: Readiness,
    writable: Readiness,
    ring: Rc<Ring>,
    /// The last read took all there was.
    drained: bool,
    socket: Socket,
}

impl Stream {
    /// The connection as a stream of the executor that this runs on.
    ///
    /// # Errors
    /// When the kernel gives no ring.
    pub fn new(socket: Socket) -> io::Result<Self> {
        let ring = reactor::ring()?;
        Ok(Self {
            readable: Readiness::new(Rc::clone(&ring), Interest::Read),
            writable: Readiness::new(Rc::clone(&ring), Interest::Write),
            ring,
            drained: false,
            socket,
        })
    }

    /// The socket itself.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Reads what there is; 0 is the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if !self.drained {
                match receive(&self.socket, buf) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    read => {
                        self.drained = matches!(read, Ok(read) if read > 0 && read < buf.len());
                        self.ring.stir();
                        return Poll::Ready(read);
                    }
                }
            }
            self.drained = true;
            ready!(self.readable.poll(self.fd(), cx));
            self.drained = false;
        }
    }

    /// Ready when the peer has closed its sending side or is gone. Never while something that it
    /// sent before is unread.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let peeked = self.socket.recv_with_flags(
                &mut [MaybeUninit::uninit()],
                libc::MSG_PEEK | libc::MSG_DONTWAIT,
            );
            match peeked {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.readable.poll(self.fd(), cx));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(1..) => {
                    self.drained = false;
                    return Poll::Pending;
                }
                Ok(0) | Err(_) => {
                    self.drained = false;
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Writes what the kernel takes at once, in one call.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        loop {
            match self.socket.send_vectored_with_flags(bufs, flags) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.writable.poll(self.fd(), cx));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                sent => {
                    self.ring.stir();
                    return Poll::Ready(sent);
                }
            }
        }
    }

    /// Ready when the kernel may take more.
    pub async fn writable(&mut self) {
        let fd = self.fd();
        self.writable.ready(fd).await;
    }
}

fn receive(socket: &Socket, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the bytes are initialised, and the kernel only writes initialised bytes over them.
    let buf = unsafe { &mut *(std::ptr::from_mut(buf) as *mut [MaybeUninit<u8>]) };
    socket.recv_with_flags(buf, libc::MSG_DONTWAIT)
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_read(&mut self, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_write(&mut self, cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(std::net::Shutdown::Write))
    }
}

/// Accepts connections of a listener, one after the other.
pub struct Acceptor {
    readable: Readiness,
    listener: Socket,
}

impl Acceptor {
    /// Accepts on the executor that this runs on.
    ///
    /// # Errors
    /// When the kernel gives no ring, or the listener cannot be made non-blocking.
    pub fn new(listener: impl Into<Socket>) -> io::Result<Self> {
        let listener = listener.into();
        listener.set_nonblocking(true)?;
        let readable = Readiness::new(reactor::ring()?, Interest::Read);
        Ok(Self { readable, listener })
    }

    /// The next connection.
    ///
    /// # Errors
    /// When the process is out of descriptors, for example.
    pub async fn accept(&mut self) -> io::Result<Socket> {
        let fd = self.listener.as_raw_fd();
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => return Ok(socket),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock
                            | ErrorKind::Interrupted
                            | ErrorKind::ConnectionAborted
                    ) =>
                {
                    poll_fn(|cx| self.readable.poll(fd, cx)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

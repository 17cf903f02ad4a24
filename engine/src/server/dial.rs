//! How is a connection to a server port opened?
//!
//! From this server's own `-bind` address, so that several servers can live on one machine's
//! loopback addresses and each is seen under its own.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use glommio::timer::sleep;
use socket2::{Domain, Protocol, Socket, Type};
use wire::{Frame, FrameDecoder, FrameKind, Hello, RequestId, ShardId, WireError};

use super::{reactor, stream::Stream};
use crate::io::{Interest, Readiness};

/// How long connecting and the first exchange may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long sent bytes may go unacknowledged. TCP alone tries ever more rarely, up to two minutes
/// apart, and a link would be of no use for as long again as the network was away.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The network.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not our protocol.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// No answer in time.
    #[error("no answer within {DIAL_TIMEOUT:?}")]
    Timeout,
    /// Closed without an answer.
    #[error("the connection was closed without an answer")]
    Closed,
    /// Another frame than expected.
    #[error("an unexpected frame of kind {0:?}")]
    Unexpected(FrameKind),
}

/// Connects from `bind`; gives the socket (for the write half) and the stream.
pub async fn dial(
    address: SocketAddr,
    bind: Option<IpAddr>,
) -> Result<(Socket, Stream), DialError> {
    let late = async {
        sleep(DIAL_TIMEOUT).await;
        Err(DialError::Timeout)
    };
    connect(address, bind).or(late).await
}

/// As [`dial`], for who keeps the time.
pub async fn connect(
    address: SocketAddr,
    bind: Option<IpAddr>,
) -> Result<(Socket, Stream), DialError> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(SILENCE_MAX))?;
    if let Some(bind) =
        bind.filter(|bind| !bind.is_unspecified() && bind.is_ipv4() == address.is_ipv4())
    {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(bind, 0).into())?;
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    connected(&socket).await?;
    socket.set_nonblocking(false)?;
    let stream = Stream::new(socket.try_clone()?)?;
    Ok((socket, stream))
}

/// Waits until a connection is made or refused.
async fn connected(socket: &Socket) -> Result<(), DialError> {
    let mut writable = Readiness::new(reactor::ring()?, Interest::Write);
    writable.ready(socket.as_raw_fd()).await;
    match socket.take_error()? {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Sends a frame and waits for the next one.
pub async fn exchange(
    stream: &mut Stream,
    decoder: &mut FrameDecoder,
    kind: FrameKind,
    payload: Bytes,
) -> Result<Frame, DialError> {
    let mut out = BytesMut::new();
    frame(kind, payload).encode(&mut out);
    stream.write_all(&out).await?;
    next_frame(stream, decoder).await
}

/// Waits for the next frame, for a limited time.
pub async fn next_frame(
    stream: &mut Stream,
    decoder: &mut FrameDecoder,
) -> Result<Frame, DialError> {
    let read = async {
        loop {
            if let Some(frame) = decoder.next_frame()? {
                return Ok(frame);
            }
            let read = stream.read(decoder.space()).await?;
            if read == 0 {
                return Err(DialError::Closed);
            }
            decoder.received(read);
        }
    };
    let late = async {
        sleep(DIAL_TIMEOUT).await;
        Err(DialError::Timeout)
    };
    read.or(late).await
}

/// Introduces ourselves and learns who is there.
pub async fn exchange_hello(
    stream: &mut Stream,
    decoder: &mut FrameDecoder,
    hello: &Hello,
) -> Result<Hello, DialError> {
    let answer = exchange(stream, decoder, FrameKind::Hello, hello.encode()).await?;
    match answer.kind {
        FrameKind::Hello => Ok(Hello::decode(&answer.payload)?),
        other => Err(DialError::Unexpected(other)),
    }
}

/// A frame that concerns no shard.
pub fn frame(kind: FrameKind, payload: Bytes) -> Frame {
    Frame {
        kind,
        shard: ShardId(0),
        request: RequestId(0),
        flags: 0,
        payload,
        blob: Bytes::new(),
    }
}

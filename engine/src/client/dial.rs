//! How is a connection opened without waiting for it?
//!
//! The socket is bound (glommio's own `connect` cannot) and its connecting begun; whether it came
//! about shows with the first send, which is the Hello.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{FromRawFd, IntoRawFd},
};

use glommio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// A socket for a connection from `bind` to `address`.
pub(super) fn socket(address: SocketAddr, bind: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bind) = bind {
        socket.bind(&SocketAddr::new(bind, 0).into())?;
    }
    Ok(socket)
}

/// Begins to connect.
pub(super) fn dial(address: SocketAddr, bind: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = socket(address, bind)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // SAFETY: the descriptor is a TCP socket that nothing else owns; its ownership passes to the
    // stream, which must be made on the executor that uses it, as here.
    Ok(unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) })
}

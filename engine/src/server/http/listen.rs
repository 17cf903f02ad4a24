//! How does a server take a port so that nobody else can?
//!
//! glommio's own `TcpListener::bind` sets `SO_REUSEPORT`, with which a second process of the same
//! user binds the same port *successfully* and steals connections. Here the port is taken
//! exclusively: `SO_REUSEADDR` lets a restarted server take over from connections in `TIME_WAIT`,
//! and a port that a living process listens on is an error.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait in the kernel to be accepted.
pub(super) const BACKLOG: i32 = 4096;

/// Why a port could not be taken. Its text names the flag, the address and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error(
        "{flag}: {address} is already in use by another process: stop it, or choose another \
         address with {flag}"
    )]
    InUse {
        /// The flags that chose the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The address is not one of this machine's.
    #[error("{flag}: {address} is not an address of this machine: choose one that `ip addr` shows")]
    NotOurs {
        /// The flags that chose the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Ports below 1024 need a privilege.
    #[error(
        "{flag}: no permission to listen on {address}: ports below 1024 need root or \
         CAP_NET_BIND_SERVICE; choose a higher one with {flag}"
    )]
    Denied {
        /// The flags that chose the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Anything else the kernel says.
    #[error("{flag}: cannot listen on {address}: {source}")]
    Other {
        /// The flags that chose the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Listens on `address` exclusively. `flag` names what chose it, for the error
/// (`"-client, -http-port"`). Port 0 lets the kernel choose.
pub fn bind_exclusive(
    address: SocketAddr,
    flag: &'static str,
) -> Result<std::net::TcpListener, ListenError> {
    listen(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { flag, address },
        io::ErrorKind::AddrNotAvailable => ListenError::NotOurs { flag, address },
        io::ErrorKind::PermissionDenied => ListenError::Denied { flag, address },
        _ => ListenError::Other {
            flag,
            address,
            source,
        },
    })
}

/// [`bind_exclusive`], for a server that may follow upon one that was just killed.
///
/// The kernel takes a dead process's io_uring rings apart in the background, and until it has,
/// the accept under way there keeps the listening socket alive: for some milliseconds after
/// `waitpid` the port is still taken. So a taken port is tried again for a while.
pub fn bind_after_predecessor(
    address: SocketAddr,
    flag: &'static str,
) -> Result<std::net::TcpListener, ListenError> {
    let deadline = Instant::now() + PREDECESSOR_PATIENCE;
    loop {
        match bind_exclusive(address, flag) {
            Err(ListenError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(PREDECESSOR_PAUSE);
            }
            other => return other,
        }
    }
}

/// How long a predecessor may take to be gone.
pub(super) const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts.
pub(super) const PREDECESSOR_PAUSE: Duration = Duration::from_millis(5);

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_that_names_flag_and_address() {
        let first = bind_exclusive("127.0.0.1:0".parse().unwrap(), "-http-port").unwrap();
        let address = first.local_addr().unwrap();
        let error = bind_exclusive(address, "-client, -http-port").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "-client, -http-port: {address} is already in use by another process: stop it, \
                 or choose another address with -client, -http-port"
            )
        );
        drop(first);
        bind_exclusive(address, "-http-port").expect("free again at once");
    }

    #[test]
    fn an_address_of_another_machine_is_an_error_that_says_so() {
        let error = bind_exclusive("192.0.2.1:8500".parse().unwrap(), "-bind").unwrap_err();
        assert!(matches!(error, ListenError::NotOurs { .. }), "{error}");
    }
}

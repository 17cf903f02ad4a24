//! How is HTTP served on a socket of the file system?
//!
//! Consul's `unix://PATH`. A socket file outlives the process that made it, so one that nobody
//! listens on any more is replaced; one that somebody answers on, and a file that is no socket, are
//! errors. Owner and permissions are set before the socket listens, and it is removed at the end.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Instant,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::listen::{BACKLOG, PREDECESSOR_PATIENCE, PREDECESSOR_PAUSE};
use crate::server::config::UnixSocketOptions;

/// Why there is no socket. Its text names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum UnixListenError {
    /// Another process answers there.
    #[error(
        "addresses.http: unix://{0} is already in use by another process: stop it, or choose another path"
    )]
    InUse(PathBuf),
    /// There is a file that is no socket.
    #[error(
        "addresses.http: unix://{0}: there is a file of that name, which is no socket: remove it, or \
         choose another path"
    )]
    NoSocket(PathBuf),
    /// Anything else the kernel says.
    #[error("addresses.http: unix://{path}: cannot {what}: {source}")]
    Other {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

/// The file of a socket, removed at the end.
#[derive(Debug)]
pub struct UnixSocketFile(PathBuf);

impl Drop for UnixSocketFile {
    fn drop(&mut self) {
        // It may be gone already; the next start replaces it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens at `path`, with owner and permissions as `options` say.
///
/// # Errors
/// When somebody else listens there, a file is in the way, or the kernel refuses.
fn listen_at(
    path: &Path,
    options: &UnixSocketOptions,
) -> Result<(Socket, UnixSocketFile), UnixListenError> {
    let other = |what| {
        move |source| UnixListenError::Other {
            path: path.to_owned(),
            what,
            source,
        }
    };
    make_room(path)?;
    let address = SockAddr::unix(path).map_err(other("use this path"))?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(other("make a socket"))?;
    socket
        .bind(&address)
        .map_err(other("make the socket file"))?;
    let file = UnixSocketFile(path.to_owned());
    if options.user.is_some() || options.group.is_some() {
        chown(path, options.user, options.group)
            .map_err(other("give the socket to unix_sockets.user and group"))?;
    }
    if let Some(mode) = options.mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(other("set the permissions of unix_sockets.mode"))?;
    }
    socket.listen(BACKLOG).map_err(other("listen"))?;
    Ok((socket, file))
}

/// [`listen_at`], for a server that may follow upon one that was just killed: the kernel keeps its
/// socket for some milliseconds (see [`bind_after_predecessor`](super::bind_after_predecessor)).
pub fn listen_after_predecessor(
    path: &Path,
    options: &UnixSocketOptions,
) -> Result<(Socket, UnixSocketFile), UnixListenError> {
    let deadline = Instant::now() + PREDECESSOR_PATIENCE;
    loop {
        match listen_at(path, options) {
            Err(UnixListenError::InUse(_)) if Instant::now() < deadline => {
                std::thread::sleep(PREDECESSOR_PAUSE);
            }
            other => return other,
        }
    }
}

/// Removes a socket that a dead process has left.
fn make_room(path: &Path) -> Result<(), UnixListenError> {
    let other = |what, source| UnixListenError::Other {
        path: path.to_owned(),
        what,
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(other("look at the path", error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(UnixListenError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(UnixListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| other("remove the old socket", error))
        }
        Err(error) => Err(other("see whether anybody listens there", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_its_mode_and_replaces_only_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        let options = UnixSocketOptions {
            mode: Some(0o640),
            ..UnixSocketOptions::default()
        };
        let (socket, file) = listen_at(&path, &options).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let error = listen_at(&path, &options).unwrap_err();
        assert!(matches!(error, UnixListenError::InUse(_)), "{error}");
        // A killed process: its file stays.
        std::mem::forget(file);
        drop(socket);
        assert!(path.exists());
        let (socket, file) = listen_at(&path, &options).unwrap();
        drop((socket, file));
        assert!(!path.exists(), "the file goes with the server");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, "precious").unwrap();
        let error = listen_at(&path, &UnixSocketOptions::default()).unwrap_err();
        assert!(matches!(error, UnixListenError::NoSocket(_)), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}

//! How does the bench speak HTTP without spending the servers' CPU?
//!
//! Servers and load generator share the cores, so each cycle spent here is one that the product
//! loses. A general client brings pools, bodies as streams and a runtime; the bench needs one
//! request in flight per connection, a status and a body. Heads are parsed by `httparse`.

mod response;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
pub use response::{Malformed, Response, ResponseReader};

use crate::{Context, Error, Result};

/// A request on a connection of its own: for probes, metrics and verification, not for load.
/// `Err` if there was no whole answer within `timeout` for connecting and for each read.
pub fn fetch(address: SocketAddr, request: &[u8], timeout: Duration) -> Result<Response> {
    Connection::open(address, timeout)?.exchange(request)
}

/// A blocking keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    reader: ResponseReader,
}

impl Connection {
    /// Connects; `timeout` also bounds every read and write later.
    pub fn open(address: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)
            .context(|| format!("connect to {address}"))?;
        stream
            .set_nodelay(true)
            .context(|| "set TCP_NODELAY".into())?;
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(&stream, Some(timeout)).context(|| "set a socket timeout".into())?;
        }
        Ok(Self {
            address,
            stream,
            reader: ResponseReader::default(),
        })
    }

    /// Sends one request and waits for its answer. After an error the connection is of no use.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Response> {
        let mut answers = self.exchange_many(request, 1)?;
        Ok(answers.remove(0))
    }

    /// Sends `count` requests at once (HTTP pipelining) and waits for all their answers, which
    /// come in the same order.
    pub fn exchange_many(&mut self, requests: &[u8], count: usize) -> Result<Vec<Response>> {
        let address = self.address;
        self.stream
            .write_all(requests)
            .context(|| format!("send a request to {address}"))?;
        let mut answers = Vec::with_capacity(count);
        loop {
            while let Some(answer) = self
                .reader
                .next_response()
                .map_err(|e| Error::Server(format!("{address}: {e}")))?
            {
                answers.push(answer);
                if answers.len() == count {
                    return Ok(answers);
                }
            }
            let n = self
                .stream
                .read(self.reader.space())
                .context(|| format!("wait for an answer from {address}"))?;
            if n == 0 {
                return Err(Error::Server(format!(
                    "{address} closed the connection without a whole answer"
                )));
            }
            self.reader.received(n);
        }
    }
}

/// Appends a request head and body. `path` is already percent-encoded.
pub fn encode_request(method: &str, path: &str, host: SocketAddr, body: &[u8], out: &mut BytesMut) {
    // Writing into a buffer that grows cannot fail.
    let _ = write!(
        out,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(body);
}

/// A `GET` of `path`, ready to send.
pub fn get(path: &str, host: SocketAddr) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Any request with a body, ready to send.
pub fn request(method: &str, path: &str, host: SocketAddr, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(128 + body.len());
    encode_request(method, path, host, body, &mut out);
    out.to_vec()
}

//! How does a Rust program read and write the store at full speed?
//!
//! The native client: many requests in flight on one connection to the leader, those of one turn
//! in one send. It finds the leader by itself and reconnects when it loses it.
//!
//! ```no_run
//! # async fn example() -> Result<(), engine::client::ClientError> {
//! use engine::client::{Client, ClientOptions, PutOptions};
//! use wire::ReadMode;
//!
//! let seeds = vec!["127.0.0.1:8300".parse().unwrap()];
//! let client = Client::connect(ClientOptions { seeds, ..ClientOptions::default() }).await?;
//! client.put(b"config/size", b"7", PutOptions::default()).await?;
//! let row = client.get(b"config/size", ReadMode::Default).await?.value;
//! assert_eq!(row.unwrap().value, &b"7"[..]);
//! # Ok(()) }
//! ```
//!
//! | file | its job |
//! |---|---|
//! | `session` | sans-io: frames out, frames in, what is in flight, what may be sent again |
//! | `route` | sans-io: which server next |
//! | `requests` | requests as frames, replies as results |
//! | `shell` | the [`Client`] on a glommio executor |
//! | `driver` | its one task: connects, sends, receives |
//! | [`blocking`] | the same over a plain socket, one request at a time |
//!
//! *The promise about writes*: a write whose bytes have left is never sent again. It ends in its
//! reply, or in [`ClientError::OutcomeUnknown`]. What has not left yet, and every read, follows
//! the client to the next server until the request's time is up.

mod dial;
#[cfg(feature = "fuzzing")]
pub mod doors;
mod driver;
mod error;
mod requests;
mod route;
mod session;
mod shell;

pub mod blocking;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use error::ClientError;
pub use requests::{PutOptions, Read, Written};
pub use shell::Client;

/// How a client finds its cluster, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Server addresses to begin with; one that answers is enough.
    pub seeds: Vec<SocketAddr>,
    /// Local address of outgoing connections; any for `None`.
    pub bind: Option<IpAddr>,
    /// What the client calls itself in its Hello.
    pub name: String,
    /// How long `connect` looks for a server. One attempt may take a third of it, at most 1 s.
    pub connect_timeout: Duration,
    /// How long a request may take in all, over reconnects and redirects. Servers hold requests
    /// for up to 7 s while there is no leader; less than that gives up before they do.
    pub request_timeout: Duration,
    /// Most requests in flight; further ones wait their turn, at most `request_timeout`.
    pub requests_in_flight_max: usize,
    /// Most bytes of requests in flight; a request counts as 1/`requests_in_flight_max` of it at least.
    pub bytes_in_flight_max: usize,
    /// Longest answer to one read, bytes.
    pub answer_bytes_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            seeds: Vec::new(),
            bind: None,
            name: String::new(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            requests_in_flight_max: 4096,
            bytes_in_flight_max: 32 << 20,
            answer_bytes_max: 256 << 20,
        }
    }
}

//! How does the outside reach the shards?
//!
//! Sockets and the glommio side of an executor: the HTTP API, the native protocol, links to
//! peers, admission, forwarding. The only part of the engine, with `cli`, that names a runtime.

pub mod admission;
mod answer;
mod board;
mod dial;
pub mod gateway;
mod links;
mod pipe;
mod port;
mod router;
mod shell;

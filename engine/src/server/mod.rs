//! How does the outside reach the shards?
//!
//! Sockets and the glommio side of an executor: the HTTP API, the native protocol, links to
//! peers, admission, forwarding. The only part of the engine, with `cli`, that names a runtime.

pub mod admission;
pub mod agent;
mod answer;
mod awake;
mod board;
mod cancels;
mod clients;
pub mod config;
mod devices;
mod dial;
mod executor;
mod forming;
pub mod gateway;
pub mod http;
mod lanes;
mod links;
pub mod meters;
pub mod monitor;
pub mod nearest;
mod pipe;
mod placement;
mod places;
mod port;
mod reactor;
mod recover;
mod relay;
pub mod reload;
pub mod repair;
mod router;
mod rows;
mod shell;
mod start;
mod stream;
mod throttle;
mod window;

pub use places::{CLIENTS_MAX, PEER_CONNECTIONS_MAX, STRANGERS_MAX};
pub use start::{Signals, StopSignal, run_agent};
pub use stream::{Acceptor, Stream};

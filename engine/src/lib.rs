//! curia: a Raft-replicated, Consul-API-compatible state store.
pub mod io;
pub mod state;
pub mod fsm;
pub mod log;
pub mod snapshot;
pub mod consensus;
pub mod shard;
pub mod cluster;
pub mod server;
pub mod cli;
pub mod client;

//! curia: a Raft-replicated, Consul-API-compatible state store.
#[macro_use]
pub mod mutant;

pub mod acl;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod consensus;
pub mod documents;
pub mod filter;
pub mod fsm;
pub mod io;
pub mod log;
pub mod server;
pub mod shard;
pub mod snapshot;
pub mod state;

//! How do the servers of one shard agree on one sequence of commands?
//!
//! A small sans-io driver around raft-rs: inputs are messages, proposals, ticks and "durable up
//! to here"; outputs are messages that may leave, entries to apply and bytes in the open log
//! batch. It names no socket, clock, thread or runtime; time and randomness are passed in.
//!
//! Invariants, each held by a test:
//! - a message leaves only when what it promises is durable ([`Outgoing::requires`]);
//! - the leader's disk works in parallel with the network (Raft thesis §10.2.1);
//! - a read under the lease is answered only while a quorum cannot have elected anyone else
//!   ([`QuorumClock`]), and never before an entry of the leader's own term is applied;
//! - entries that are not yet applied stay in memory, so that raft-rs never needs the disk
//!   where it cannot wait.

mod configuration;
mod election;
mod entries;
mod lease;
mod replica;
mod split;
#[cfg(test)]
mod tests;

pub use configuration::Configuration;
pub use election::{ElectionTimer, TickFeeder};
pub use entries::{EntryStore, ImageDescriptor, WantedEntries};
pub use lease::QuorumClock;
pub use replica::{Outgoing, Output, ProposeError, Replica, ReplicaConfig, RoleChange};

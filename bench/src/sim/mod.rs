//! Would curia keep its promises in a world where everything goes wrong?
//!
//! A deterministic simulator after FoundationDB's and TigerBeetle's: whole clusters of the shipped
//! shard loop, consensus, log, state machine and images, in one thread and virtual time, under one
//! seed that decides everything. A run that fails fails again, for as long as it takes to
//! understand it: `curia-bench simulate --seed N`.
//!
//! | module | job |
//! |---|---|
//! | [`draw`], [`queue`] | chance and time |
//! | [`plan`] | what the seed's world is like |
//! | [`world`] | servers, network, disks and clients go through time together |
//! | [`server`], [`network`] | one server and its disks; the links between them |
//! | [`clients`], [`workload`] | what is asked for, and what clients are told |
//! | [`nemesis`], [`atlas`] | what goes wrong, and what may never be destroyed |
//! | [`recorder`] | what is true of all servers together |
//! | [`checks`] | what is true of each server by itself |
//! | [`trial`], [`shrink`] | one seed from its beginning to its verdict; the least that still fails |
//!
//! Invariants: nothing here reads a clock, a random source or a hash map in its own order; the code
//! under test is the one that ships, driven through `engine::shard` and `engine::io`.

mod atlas;
mod checks;
mod clients;
pub mod draw;
mod nemesis;
mod network;
pub mod plan;
mod queue;
mod recorder;
mod server;
pub mod shrink;
#[cfg(test)]
mod tests;
pub mod trial;
mod workload;
mod world;

pub use plan::{Fault, Plan, Wish};
pub use trial::{Outcome, run};
pub use world::Counts;

//! What is registered with this very server, and how is it doing?
//!
//! In Consul every machine runs an agent; applications register their services and checks with the
//! one beside them, and it keeps the catalog in step. A server of ours is such an agent too. There
//! is one per server, on its first executor.
//!
//! ```text
//! local      what is registered, sans-io: definitions, statuses, deadlines, files
//! request    what may be asked of it
//! service    the agent: registrations on disk and in time
//!   disk       files of the data directory        aside      a thread for what blocks
//!   probe      one run of a check                 client_io  hyper's client on our streams
//!   names      where a check's host lies          tls        whom checks believe
//!   signal     one task tells another
//! configured services and checks of configuration files
//! events     user events that this server heard of
//! tokens     the tokens that the server uses itself
//! keeper     when the catalog is told            sync       what it must be told
//! calls      the way to it from every executor
//! ```
//!
//! Invariant: a registration that was answered is on disk.

mod aside;
pub mod calls;
mod client_io;
pub mod configured;
mod disk;
pub mod events;
pub(super) mod keeper;
pub mod local;
mod names;
mod probe;
pub mod request;
pub mod service;
pub(super) mod signal;
pub mod sync;
mod tls;
pub mod tokens;

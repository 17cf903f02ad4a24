//! What does one executor do, turn after turn?
//!
//! Gather, step, perform: a turn takes everything that happened ([`Event`]), lets each shard's
//! consensus and state machine step, and leaves behind everything that must now happen
//! ([`Effects`]). It knows no runtime: glommio drives it in production, a simulator can drive
//! the very same code.
//!
//! Invariants: a write is answered in one place only, with a proof that it was applied
//! ([`tickets::Applied`]); a message leaves only when what it promises is durable (asserted in
//! [`Effects::send`]); whatever waits here is bounded by what was admitted at the sockets.

mod core;
pub mod duties;
mod event;
mod history;
mod images;
mod member;
mod onlook;
mod open;
mod reads;
pub mod reconcile;
mod repair;
#[cfg(test)]
mod tests;
pub mod tickets;
pub mod watch;

pub use self::core::{Core, CoreConfig};
pub use event::{
    Answered, CompactionBounds, Effects, Event, Notice, ReadAnswer, ReadBody, Reply, Request,
    Ticket, Trace, Transfer, failure,
};
pub use history::{
    CHANGES_BYTES_MAX, CHANGES_LOOKED_AT_MAX, Changes, HISTORY_BYTES_DEFAULT, History,
};
pub use images::ImageConfig;
pub use member::Member;
pub use open::{
    FIRST_INDEX, FIRST_TERM, OpenError, OpenedShard, ShardSettings, bootstrap_log, open_shards,
};
pub use reads::status;

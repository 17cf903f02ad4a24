//! What is registered here: services, checks, their statuses. No socket, clock or file.
//!
//! ```text
//! fields       Consul's JSON, read field by field
//! definition   services and checks as they are registered, checked
//! limits       meta data, names, numbers of things
//! status       passing, warning, critical; thresholds; outputs that are too long
//! state        the registrations, and what each request does to them
//! timers       deadlines of checks that are told their status, and reaping
//! files        registrations as they lie in the data directory
//! rows         the JSON that clients get
//! ```
//!
//! Invariants: a check of a service exists only while its service does. Whatever changed is named
//! by [`Local::take_dirty`] until its file is written, so that nothing is answered before it is on
//! disk. Times are milliseconds of a monotonic clock that is passed in.

mod definition;
mod fields;
mod files;
mod limits;
mod rows;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod timers;

pub use definition::{
    CheckDefinition, CheckKind, HttpCheck, ServiceDefinition, TcpCheck, TlsOptions, Weights,
};
pub use fields::DecodeError;
pub use files::{FileError, Item, Kept, Place, Stored, content_hash};
pub use limits::{
    CHECK_OUTPUT_BYTES, CHECKS_MAX, ID_BYTES_MAX, META_KEY_BYTES_MAX, META_PAIRS_MAX,
    META_VALUE_BYTES_MAX, OUTPUT_BYTES_MAX, SERVICES_MAX, TAGS_MAX,
};
pub(super) use rows::go_duration;
pub use rows::{CheckRow, HealthRow, ServiceHealth, ServiceRow, worst};
pub use state::{AgentError, Check, Local, NODE_MAINTENANCE, Origin, SERVICE_MAINTENANCE, Service};
pub use status::{Standing, Status};

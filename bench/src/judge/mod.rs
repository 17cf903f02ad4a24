//! Is what clients saw possible for a store that does one operation at a time?
//!
//! Both the simulator and the torment of real processes record a [`History`] of what clients
//! called and were answered. Two judges that were written apart, and share nothing but these
//! types, read it: a bug in one is not a bug in the other.
//!
//! | module | job |
//! |---|---|
//! | [`history`] | what clients called, when, and what they were told |
//! | [`indexed`] | the linear-time judge: by the places in the log that answers carry |
//!
//! Invariant: a judge never looks at the store, only at the history.

pub mod history;
pub mod indexed;

pub use history::{Answer, Call, History, Operation, Row, Step};

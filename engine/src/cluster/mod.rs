//! Who belongs together?
//!
//! The identity of a data directory, and the decision of empty servers to form one cluster.

pub mod forming;
pub mod identity;

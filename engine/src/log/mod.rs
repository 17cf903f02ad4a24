//! (being built) The durable log of one executor.
#![allow(unused)]
mod error;
mod format;
mod stats;
mod types;
mod verdict;
mod skeleton;

pub use error::{CorruptAt, LogError, LogFailure};
pub use skeleton::*;
pub use stats::LogStats;
pub use types::*;
pub use verdict::{Cause, Verdict};

//! How does the state of one moment travel and rest?
//!
//! As an [`image`]: all rows of all tables, verified to the last bit, written from a view
//! in slices while the state moves on, and read back in slices. [`names`] say which file
//! is which. The same bytes are the snapshot behind which the log is cut, what a follower that
//! fell behind is sent, and (later) what a user archives.

pub mod image;
pub mod names;
#[cfg(any(test, feature = "simulation"))]
pub mod proof;

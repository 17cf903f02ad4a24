//! What do the parts of curia that read bytes do with bytes that nobody meant?
//!
//! A [`Target`](targets::Target) takes any input and panics if a promise is broken. Half of them
//! take bytes as they come; the others read a script from them ([`feed`]), so that every input gets
//! past magic numbers and checksums. They ask for more than the absence of crashes: what is read and
//! written again is the same, two ways to the same state agree, a reference decides alike, what
//! the disk holds is never believed when it is wrong.
//!
//! ```text
//! scripts/fuzz smoke | long ──► bin/curia_fuzz (libFuzzer, coverage-guided) ──┐
//! cargo test -p fuzz ──► tests/corpus (every file of corpus/, once) ──────────┴─► targets
//! ```
//!
//! One binary holds all targets, so that there is one instrumented build. Without the feature
//! `libfuzzer` nothing here needs a C++ compiler.

mod commands;
pub mod feed;
mod questions;
pub mod targets;

//! What may be concluded from how a call ended?
//!
//! A call that no server was connected to did not happen. One whose bytes left and whose answer
//! did not come may have happened, or happen later. An answer that no server should give is kept
//! and fails the run.

use crate::judge::Answer;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It was decided.
    Answer(Answer),
    /// It was promised that nothing happened, or nobody was asked.
    Refused,
    /// Nobody knows.
    Unknown,
    /// No server should say this.
    Odd(String),
}

//! What can a caller do about a request that failed?
//!
//! One variant for each different answer to "did it happen, and should I try again?".

use std::time::Duration;

use wire::{Failure, FailureKind, WireError};

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The write may or may not have happened: its bytes left, and no answer came. It is not
    /// sent again. Read before writing again, or write with `cas`.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// No answer in time. Nothing happened; the request may be made again.
    #[error("no answer within {after:?}: {last}")]
    Timeout {
        /// The time it was given.
        after: Duration,
        /// What kept it.
        last: String,
    },
    /// The server said no. What that means is in [`Failure::kind`]; nothing happened.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The request itself is wrong. It was not sent.
    #[error("{0}")]
    Invalid(String),
    /// The answer to a read exceeds `answer_bytes_max`. Read in pieces.
    #[error(
        "the answer is longer than {max} bytes: read a shorter prefix, or raise `answer_bytes_max`"
    )]
    AnswerTooLong {
        /// The bound, bytes.
        max: usize,
    },
    /// No server could be used within the connect timeout.
    #[error("no server of {tried} could be used within {after:?}: {last}")]
    NoServer {
        /// The seeds.
        tried: String,
        /// The connect timeout.
        after: Duration,
        /// What the last attempt met with.
        last: String,
    },
    /// The client was dropped, or its executor ended, before the answer came.
    #[error("the client was closed")]
    Closed,
}

impl From<Failure> for ClientError {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            FailureKind::OutcomeUnknown => Self::OutcomeUnknown(failure.message),
            _ => Self::Refused(failure),
        }
    }
}

/// Why a connection ended. It concerns all that was in flight on it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server does not speak this protocol: {0}")]
    Wire(#[from] WireError),
    #[error("{0}")]
    Refused(String),
    #[error("the server does not answer")]
    Silent,
    /// Nothing is wrong: another server leads.
    #[error("another server leads")]
    Elsewhere,
}

//! What went wrong, whose fault is it, and what should the person at the terminal do?
//!
//! Five kinds, because five different people fix them: the caller (usage), the host
//! (environment), the tested servers (server), the tested product's correctness (violation),
//! and the kernel (io). The exit code tells them apart in scripts.

use std::io;

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run ended without its figures.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something impossible. The text says what to pass instead.
    #[error("{0}")]
    Usage(String),
    /// This host cannot give a meaningful figure. The text says what to change.
    #[error("{0}")]
    Environment(String),
    /// A server process did not do what a run needs. The text ends with its last log lines.
    #[error("{0}")]
    Server(String),
    /// The product broke a promise: acknowledged without a quorum, or lost what it acknowledged.
    #[error("PROMISE BROKEN: {0}")]
    Violation(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to which file or address.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// Exit code of the process: 2 for usage, 3 for a broken promise, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Violation(_) => 3,
            _ => 1,
        }
    }
}

/// Adds what was being done to an I/O error.
pub trait Context<T> {
    /// `what` is read as "`what`: `kernel's answer`", e.g. "open the data directory /x".
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source,
        })
    }
}

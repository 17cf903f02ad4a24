//! What can be wrong with bytes from outside?

/// Why bytes were refused. Nothing of them took effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The stream does not start with the frame magic: not our protocol.
    #[error("not a curia frame: magic {0:#010x}")]
    Magic(u32),
    /// A frame of a version that this build does not speak.
    #[error("frame version {found} is not supported (this build speaks {supported})")]
    Version {
        /// The version in the frame.
        found: u8,
        /// The version of this build.
        supported: u8,
    },
    /// A kind that this build does not know.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Over a limit of `limits`.
    #[error("{what} of {found} bytes is over the limit of {max}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// Checksum of frame or entry.
    #[error("checksum mismatch in {0}: the bytes were damaged on the way")]
    Checksum(&'static str),
    /// The flatbuffer verifier refused it, or a field is missing or out of range.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// Which table.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

//! (being built)
/// Bytes of a batch header.
pub const HEADER_BYTES: usize = 104;
/// Bytes of a record header.
pub const RECORD_HEADER_BYTES: usize = 32;

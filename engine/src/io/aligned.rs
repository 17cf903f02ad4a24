//! A buffer that direct I/O accepts.
/// (being built)
#[derive(Debug)]
pub struct AlignedBuf;

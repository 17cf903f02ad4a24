//! Which file holds which image? (API first; bodies follow.)
use wire::{Index, ShardId, Term};

/// What an image file's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    /// The shard.
    pub shard: ShardId,
    /// Last index in it.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

impl ImageName {
    /// `<shard 4 hex>-<index 16 hex>-<term 16 hex>.image`
    pub fn file_name(&self) -> String {
        format!(
            "{:04x}-{:016x}-{:016x}.image",
            self.shard.0, self.index.0, self.term.0
        )
    }
    /// The name it has while it is being written: `<file name>.tmp`.
    pub fn temporary_name(&self) -> String {
        format!("{}.tmp", self.file_name())
    }
    /// Reads a final file name; `None` for any other file, temporary ones included.
    pub fn parse(_name: &str) -> Option<Self> {
        todo!()
    }
}

/// Whether this is the name of an image that was never finished and may be removed at start.
pub fn is_temporary(_name: &str) -> bool {
    todo!()
}

//! Which file holds which image?
//!
//! The name says what is inside, so that the newest image of a shard is found without opening
//! one: `<shard, 4 hex digits>-<last index, 16>-<term, 16>.image`. Names sort by shard and index.
//! An image that is being written has [`TEMPORARY_SUFFIX`] behind its name and is renamed once it
//! is durable; a file that still has it at start was never finished.

use wire::{Index, ShardId, Term};

/// Behind the name of an image that is not finished.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

const SUFFIX: &str = ".image";

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
    /// The name of the finished file.
    pub fn file_name(&self) -> String {
        format!(
            "{:04x}-{:016x}-{:016x}{SUFFIX}",
            self.shard.0, self.index.0, self.term.0
        )
    }

    /// The name of the file while it is being written.
    pub fn temporary_name(&self) -> String {
        self.file_name() + TEMPORARY_SUFFIX
    }

    /// Reads the name of a finished image; `None` for any other file.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.split('-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            u64::from_str_radix(part, 16).ok()
        };
        let (shard, index, term) = (number(4)?, number(16)?, number(16)?);
        let read = Self {
            shard: ShardId(u16::try_from(shard).ok()?),
            index: Index(index),
            term: Term(term),
        };
        // Only the spelling that is written: no capitals, no signs, nothing behind.
        (read.file_name() == name).then_some(read)
    }
}

/// Whether this is the name of an image that was never finished and may be removed at start.
pub fn is_temporary(name: &str) -> bool {
    name.strip_suffix(TEMPORARY_SUFFIX)
        .is_some_and(|name| ImageName::parse(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_sort_by_index() {
        let name = |index| ImageName {
            shard: ShardId(3),
            index: Index(index),
            term: Term(7),
        };
        assert_eq!(
            name(0x1f).file_name(),
            "0003-000000000000001f-0000000000000007.image"
        );
        assert_eq!(ImageName::parse(&name(0x1f).file_name()), Some(name(0x1f)));
        assert!(
            name(9).file_name() < name(10).file_name()
                && name(10).file_name() < name(u64::MAX).file_name()
        );
        assert!(is_temporary(&name(1).temporary_name()) && !is_temporary(&name(1).file_name()));
        assert_eq!(ImageName::parse(&name(1).temporary_name()), None);
    }

    #[test]
    fn other_files_are_left_alone() {
        for other in [
            "",
            ".image",
            "0003-000000000000001F-0000000000000007.image",
            "0003-00000000000001f-0000000000000007.image",
            "+003-000000000000001f-0000000000000007.image",
            "0003-000000000000001f-0000000000000007-1.image",
            "0003-000000000000001f.image",
            "0000000000000001.segment",
            "0003-000000000000001f-000000000000000ä.image",
        ] {
            assert_eq!(ImageName::parse(other), None, "{other}");
            assert!(!is_temporary(&format!("{other}.tmp")), "{other}");
        }
    }
}

//! What is this number the number of?
//!
//! Every quantity that crosses a module boundary has its own type, so that an index can never
//! be passed where a term is meant. They are plain copies with no behaviour but ordering and text.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl From<$inner> for $name {
            fn from(n: $inner) -> Self {
                Self(n)
            }
        }
    };
}

number!(
    /// Position in a shard's raft log, from 1 (Raft paper §5.3). Also the modify index of what it changed.
    Index(u64)
);
number!(
    /// Raft term, from 1 (Raft paper §5.1).
    Term(u64)
);
number!(
    /// Raft group; 0 is the system shard.
    ShardId(u16)
);
number!(
    /// Raft id of one incarnation of a data directory: random, never 0, never used again.
    ServerId(u64)
);
number!(
    /// Log sequence number: the number of a batch in one executor's log, from 1.
    Lsn(u64)
);
number!(
    /// Number of an executor (core) within its server, from 0.
    ExecutorId(u16)
);
number!(
    /// Client-chosen number of a request, unique among those in flight on one connection.
    RequestId(u64)
);

/// A 128-bit name in its canonical 36-character text: node ids and cluster ids.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// Name of a server that survives everything but its data directory (Consul: `node-id`).
pub type NodeId = Uuid;
/// Name of one cluster, made when it bootstraps; servers of two clusters never talk.
pub type ClusterId = Uuid;

impl Uuid {
    /// Reads 16 raw bytes; `None` when there are not exactly 16.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// True for the all-zero value, which names nothing.
    pub fn is_nil(&self) -> bool {
        self.0 == [0; 16]
    }

    /// Parses the 36-character text form, either case.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&at| bytes[at] != b'-') {
            return None;
        }
        let mut out = [0u8; 16];
        let digits: Vec<u8> = bytes.iter().copied().filter(|b| *b != b'-').collect();
        if digits.len() != 32 {
            return None;
        }
        for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
            let high = (pair[0] as char).to_digit(16)?;
            let low = (pair[1] as char).to_digit(16)?;
            *byte = (high * 16 + low) as u8;
        }
        Some(Self(out))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&at) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_round_trips() {
        let text = "0191f3ab-00ff-4c2d-9e7a-0123456789ab";
        assert_eq!(Uuid::parse(text).unwrap().to_string(), text);
        assert_eq!(Uuid::parse(&text.to_uppercase()).unwrap().to_string(), text);
        for bad in [
            "",
            "0191f3ab",
            "0191f3ab-00ff-4c2d-9e7a-0123456789ag",
            "0191f3ab000ff-4c2d-9e7a-0123456789ab",
        ] {
            assert!(Uuid::parse(bad).is_none(), "{bad}");
        }
    }
}

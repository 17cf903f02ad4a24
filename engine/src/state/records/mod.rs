//! How are the rows of all tables but `kvs` kept?
//!
//! As ordinary structs with Consul's field names. Their rows are small and few compared with keys
//! and values, so they share one kind of row, [`RecordRow`]: primary key, canonical bytes and
//! decoded struct, made once and shared.
//!
//! The canonical bytes are MessagePack maps with Go's field names, the shape in which Consul's own
//! log and snapshots keep these objects. They are a format, version [`RECORDS_VERSION`]:
//!
//! ```text
//! +-----------------------+----------------------+-----------------------+-----
//! | map of n fields       | name                 | value                 | …      fields in the order
//! | fixmap, map16 or map32| fixstr, str8 …       | shortest form         |        of the struct
//! +-----------------------+----------------------+-----------------------+-----
//! ```
//!
//! Every server must have the same bytes for the same object, since digests are taken of them:
//!
//! - numbers take their shortest form, maps are sorted (`BTreeMap`, never a hash map);
//! - bytes are accepted only if encoding what they say gives them back ([`Row::decode`]), so there
//!   is one form of each object, and what a later version added is refused and not lost;
//! - a field that a later version adds goes to the end of its struct, and is *skipped while it has
//!   its default* (`#[serde(default, skip_serializing_if = …)]`), so that the digests of servers
//!   of two versions agree for as long as nobody uses the field. A field is never removed,
//!   renamed, or given another type.
//!
//! The same structs are parts of commands in the log, so all refuse unknown fields: a server that
//! would drop a later version's field must stop instead of going on with another state.
//!
//! Goldens of every table's rows: `engine/golden/rows`, checked by the conformance test.

mod acl;
mod catalog;
mod config;
mod coordinate;
mod json;
mod session;
mod system;

use std::{fmt, ops::Deref, rc::Rc};

use serde::{Serialize, de::DeserializeOwned};
use wire::{Index, limits};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    index::Key,
    row::{Row, RowError},
    tree::Keyed,
};

pub use acl::{
    AclPolicy, AclRole, AclToken, NodeIdentity, PolicyLink, RoleLink, ServiceIdentity,
    TemplateVariables, TemplatedPolicy,
};
pub use catalog::{Check, Node, Service, ServiceAddress, Weights};
pub use config::{AutopilotConfig, ConfigEntry, PreparedQuery, QueryTemplate};
pub use coordinate::{Coord, Coordinate};
pub use json::JsonText;
pub use session::{LockDelay, ServiceCheck, Session, SessionCheck};
pub use system::{SystemMetadata, Usage};

/// Version of the canonical bytes, in the names of their goldens.
pub const RECORDS_VERSION: u32 = 1;

/// Longest primary key of a record, bytes. Names are far shorter; a service's key is two of them.
pub const RECORD_KEY_BYTES_MAX: usize = limits::KEY_BYTES_MAX;

/// Longest record, bytes of its canonical form: as long as a command may be, so that any row
/// fits into a chunk of an image.
pub const RECORD_BYTES_MAX: usize = limits::COMMAND_BYTES_MAX;

/// A struct that a table can hold.
///
/// Two records are the same if their canonical bytes are.
pub trait Record: Serialize + DeserializeOwned + PartialEq + fmt::Debug + Clone + 'static {
    /// Its primary key: what the primary index of its table writes.
    fn primary_key(&self, key: &mut Key);
    /// Its modify index; 0 for records that have none.
    fn modify_index(&self) -> Index {
        Index(0)
    }
}

/// A record that is too long to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its names.
    #[error("names are too long: a key of {bytes} bytes, at most {RECORD_KEY_BYTES_MAX}")]
    Key {
        /// Length of the primary key.
        bytes: usize,
    },
    /// All of it.
    #[error("object is too large: {bytes} bytes, at most {RECORD_BYTES_MAX}")]
    Size {
        /// Length of the canonical bytes.
        bytes: usize,
    },
}

/// A record with its primary key and its canonical bytes; `Clone` is one reference count.
pub struct RecordRow<T>(Rc<Parts<T>>);

struct Parts<T> {
    key: Key,
    bytes: Vec<u8>,
    record: T,
}

impl<T> Clone for RecordRow<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for RecordRow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.record.fmt(f)
    }
}

impl<T> Deref for RecordRow<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0.record
    }
}

impl<T: Record> RecordRow<T> {
    /// A row of this record.
    pub fn new(record: T) -> Result<Self, RecordError> {
        let mut key = Key::default();
        record.primary_key(&mut key);
        if key.len() > RECORD_KEY_BYTES_MAX {
            return Err(RecordError::Key { bytes: key.len() });
        }
        let bytes = rmp_serde::to_vec_named(&record).expect("records are plain data in memory");
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::Size { bytes: bytes.len() });
        }
        Ok(Self(Rc::new(Parts { key, bytes, record })))
    }

    /// The canonical bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl<T: Record> Keyed for RecordRow<T> {
    fn key(&self) -> &[u8] {
        self.0.key.as_bytes()
    }
    fn stamp(&self) -> u64 {
        self.modify_index().0
    }
    fn digest(&self) -> u64 {
        xxh3_64(&self.0.bytes)
    }
}

impl<T: Record> Row for RecordRow<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.bytes);
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let record: T = rmp_serde::from_slice(bytes)
            .map_err(|_| RowError("not MessagePack of this table's fields"))?;
        let row = Self::new(record).map_err(|_| RowError("longer than a record may be"))?;
        if row.0.bytes != bytes {
            return Err(RowError(
                "not the canonical form, or with fields that this build does not know",
            ));
        }
        Ok(row)
    }

    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// `Node` as a later version has it.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Later {
        key: String,
        value: String,
        create_index: u64,
        modify_index: u64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        added: String,
    }

    impl Record for Later {
        fn primary_key(&self, key: &mut Key) {
            key.lower(&self.key);
        }
    }

    fn now() -> SystemMetadata {
        SystemMetadata {
            key: "a".into(),
            value: "b".into(),
            create_index: 1,
            modify_index: 300,
        }
    }

    fn later(added: &str) -> RecordRow<Later> {
        RecordRow::new(Later {
            key: "a".into(),
            value: "b".into(),
            create_index: 1,
            modify_index: 300,
            added: added.into(),
        })
        .expect("short")
    }

    /// The rule of the module text: two versions agree until somebody uses what one of them lacks.
    #[test]
    fn a_field_that_is_added_changes_nothing_until_it_is_used() {
        let row = RecordRow::new(now()).expect("short");
        assert_eq!(
            (row.bytes(), row.digest()),
            (later("").bytes(), later("").digest())
        );
        assert!(RecordRow::<Later>::decode(row.bytes()).is_ok_and(|read| *read == *later("")));
        assert!(RecordRow::<SystemMetadata>::decode(later("x").bytes()).is_err());
    }

    #[test]
    fn only_canonical_bytes_are_read() {
        let row = RecordRow::new(now()).expect("short");
        assert!(RecordRow::<SystemMetadata>::decode(row.bytes()).is_ok());
        for length in 0..row.bytes().len() {
            assert!(RecordRow::<SystemMetadata>::decode(&row.bytes()[..length]).is_err());
        }
        let longer = [row.bytes(), &[0xc0]].concat();
        assert!(RecordRow::<SystemMetadata>::decode(&longer).is_err());
        // 1 as a number of two bytes.
        let at = row
            .bytes()
            .iter()
            .position(|byte| *byte == 1)
            .expect("create index");
        let mut wide = row.bytes().to_vec();
        wide.splice(at..=at, [0xcc, 1]);
        assert!(rmp_serde::from_slice::<SystemMetadata>(&wide).is_ok_and(|read| read == now()));
        assert!(RecordRow::<SystemMetadata>::decode(&wide).is_err());
    }

    #[test]
    fn records_over_the_limits_are_refused() {
        let of = |key: usize, value: usize| {
            RecordRow::new(SystemMetadata {
                key: "k".repeat(key),
                value: "v".repeat(value),
                ..now()
            })
        };
        // A key ends in NUL.
        assert!(of(RECORD_KEY_BYTES_MAX - 1, 1).is_ok());
        assert_eq!(
            of(RECORD_KEY_BYTES_MAX, 1).err(),
            Some(RecordError::Key {
                bytes: RECORD_KEY_BYTES_MAX + 1
            })
        );
        let rest = of(1, 70_000).expect("short").bytes().len() - 70_000;
        let largest = of(1, RECORD_BYTES_MAX - rest).expect("just not too large");
        assert_eq!(largest.bytes().len(), RECORD_BYTES_MAX);
        assert_eq!(
            of(1, RECORD_BYTES_MAX - rest + 1).err(),
            Some(RecordError::Size {
                bytes: RECORD_BYTES_MAX + 1
            })
        );
    }
}

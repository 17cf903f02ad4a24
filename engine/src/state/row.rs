//! What do a table's rows have in common, and what is a KV row made of?
//!
//! A row is immutable and shared: tables, indexes and views hold references to one allocation. Its
//! canonical bytes ([`Row::encode`]) are what images keep and what the state digest is taken of;
//! they are a format, the same on every server and in every version that knows the table.
//!
//! A [`KvRow`] *is* its canonical bytes, little-endian:
//!
//! ```text
//!  0       8              16             24           32          34             35         36
//! +-------+--------------+--------------+------------+-----------+--------------+----------+-----+---------+-------+
//! | flags | create index | modify index | lock index | key bytes | session bytes| zero u8  | key | session | value |
//! | u64   | u64          | u64          | u64        | u16       | u8           |          |     |         |       |
//! +-------+--------------+--------------+------------+-----------+--------------+----------+-----+---------+-------+
//! ```
//! so that a million rows of 64 + 256 bytes take a million allocations of 372 bytes, and loading
//! an image is a copy per row.

use std::{fmt, rc::Rc};

use wire::{Index, KvRowRef, limits};
use xxhash_rust::xxh3::xxh3_64;

use super::tree::Keyed;

/// Bytes of an image that are no row of their table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a row of this table: {0}")]
pub struct RowError(pub &'static str);

/// A row of a table: a cheap handle on an immutable allocation.
///
/// Its digest ([`Keyed::digest`]) is the XXH3-64 of its canonical bytes and of nothing else: images
/// are checked by it.
pub trait Row: Keyed + fmt::Debug + 'static {
    /// Appends the row's canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads canonical bytes; only bytes that `encode` can produce are accepted.
    fn decode(bytes: &[u8]) -> Result<Self, RowError>;

    /// Whether two handles are of one allocation.
    fn is(&self, other: &Self) -> bool;

    /// Whether two rows are the same, by canonical bytes.
    fn is_same(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        self.encode(&mut ours);
        other.encode(&mut theirs);
        ours == theirs
    }
}

/// Reads a little-endian number at a fixed place.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

const FLAGS: usize = 0;
const CREATE_INDEX: usize = 8;
const MODIFY_INDEX: usize = 16;
const LOCK_INDEX: usize = 24;
const KEY_LENGTH: usize = 32;
const SESSION_LENGTH: usize = 34;
const HEADER_BYTES: usize = 36;

/// Longest session id that a row can name, bytes.
pub const SESSION_BYTES_MAX: usize = u8::MAX as usize;

/// One KV row; `Clone` is one reference count.
#[derive(Clone, PartialEq, Eq)]
pub struct KvRow(Rc<[u8]>);

impl KvRow {
    /// A row of these fields. `scratch` is kept by the caller, so that the row is the only allocation.
    ///
    /// Key and session must be within [`limits::KEY_BYTES_MAX`] and [`SESSION_BYTES_MAX`].
    pub fn new(row: KvRowRef<'_>, scratch: &mut Vec<u8>) -> Self {
        assert!(row.key.len() <= limits::KEY_BYTES_MAX && row.session.len() <= SESSION_BYTES_MAX);
        scratch.clear();
        scratch.extend_from_slice(&row.flags.to_le_bytes());
        scratch.extend_from_slice(&row.create_index.0.to_le_bytes());
        scratch.extend_from_slice(&row.modify_index.0.to_le_bytes());
        scratch.extend_from_slice(&row.lock_index.to_le_bytes());
        scratch.extend_from_slice(&(row.key.len() as u16).to_le_bytes());
        scratch.extend_from_slice(&[row.session.len() as u8, 0]);
        scratch.extend_from_slice(row.key);
        scratch.extend_from_slice(row.session);
        scratch.extend_from_slice(row.value);
        Self(Rc::from(&scratch[..]))
    }

    fn key_length(&self) -> usize {
        usize::from(u16::from_le_bytes([
            self.0[KEY_LENGTH],
            self.0[KEY_LENGTH + 1],
        ]))
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.0[HEADER_BYTES..HEADER_BYTES + self.key_length()]
    }

    /// Id of the session that holds it; empty where none does.
    pub fn session(&self) -> &[u8] {
        let first = HEADER_BYTES + self.key_length();
        &self.0[first..first + usize::from(self.0[SESSION_LENGTH])]
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.0[HEADER_BYTES + self.key_length() + usize::from(self.0[SESSION_LENGTH])..]
    }

    /// Index of the write that made the row.
    pub fn create_index(&self) -> Index {
        Index(u64_at(&self.0, CREATE_INDEX))
    }

    /// Index of the last write that changed it.
    pub fn modify_index(&self) -> Index {
        Index(u64_at(&self.0, MODIFY_INDEX))
    }

    /// How often it was acquired.
    pub fn lock_index(&self) -> u64 {
        u64_at(&self.0, LOCK_INDEX)
    }

    /// The client's number.
    pub fn flags(&self) -> u64 {
        u64_at(&self.0, FLAGS)
    }

    /// The row, borrowed.
    #[allow(clippy::should_implement_trait)] // `KvRowRef` is a value of borrowed fields, which `AsRef` cannot return.
    pub fn as_ref(&self) -> KvRowRef<'_> {
        KvRowRef {
            key: self.key(),
            value: self.value(),
            flags: self.flags(),
            create_index: self.create_index(),
            modify_index: self.modify_index(),
            lock_index: self.lock_index(),
            session: self.session(),
        }
    }

    /// Length of the row: header, key, session and value, bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for KvRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl Keyed for KvRow {
    fn key(&self) -> &[u8] {
        self.key()
    }
    fn stamp(&self) -> u64 {
        self.modify_index().0
    }
    fn digest(&self) -> u64 {
        xxh3_64(&self.0)
    }
}

impl Row for KvRow {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let header = bytes
            .get(..HEADER_BYTES)
            .ok_or(RowError("shorter than its header"))?;
        let key = usize::from(u16::from_le_bytes([
            header[KEY_LENGTH],
            header[KEY_LENGTH + 1],
        ]));
        if key > limits::KEY_BYTES_MAX {
            return Err(RowError("key over its limit"));
        }
        if header[HEADER_BYTES - 1] != 0 {
            return Err(RowError("reserved byte is not zero"));
        }
        if bytes.len() < HEADER_BYTES + key + usize::from(header[SESSION_LENGTH]) {
            return Err(RowError("shorter than its key and session"));
        }
        Ok(Self(bytes.into()))
    }

    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

/// A key and an index: a tombstone (`index`: of the deletion) or a row of the index table (`index`:
/// greatest modify index of what `key` names). Canonical bytes: index u64 little-endian, key.
#[derive(Clone, PartialEq, Eq)]
pub struct IndexRow(Rc<[u8]>);

impl IndexRow {
    /// A row of these fields. Keys are within [`limits::KEY_BYTES_MAX`].
    pub fn new(key: &[u8], index: Index) -> Self {
        Self([&index.0.to_le_bytes(), key].concat().into())
    }

    /// The index.
    pub fn index(&self) -> Index {
        Index(u64_at(&self.0, 0))
    }
}

impl fmt::Debug for IndexRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key().escape_ascii(), self.index())
    }
}

impl Keyed for IndexRow {
    fn key(&self) -> &[u8] {
        &self.0[8..]
    }
    fn stamp(&self) -> u64 {
        self.index().0
    }
    fn digest(&self) -> u64 {
        xxh3_64(&self.0)
    }
}

impl Row for IndexRow {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        match bytes.len() {
            0..8 => Err(RowError("shorter than its index")),
            length if length > 8 + limits::KEY_BYTES_MAX => Err(RowError("key over its limit")),
            _ => Ok(Self(bytes.into())),
        }
    }

    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kv_row_gives_back_its_fields() {
        let row = KvRowRef {
            key: b"a/b",
            value: b"value",
            flags: u64::MAX,
            create_index: Index(1),
            modify_index: Index(2),
            lock_index: 3,
            session: &[7; 16],
        };
        let held = KvRow::new(row, &mut Vec::new());
        assert_eq!(held.as_ref(), row);
        let mut bytes = Vec::new();
        held.encode(&mut bytes);
        assert_eq!(KvRow::decode(&bytes), Ok(held.clone()));
        assert_eq!(held.bytes(), bytes.len());
        for short in 0..36 + 3 + 16 {
            assert!(KvRow::decode(&bytes[..short]).is_err());
        }
        let empty = KvRow::new(
            KvRowRef {
                value: b"",
                session: b"",
                ..row
            },
            &mut Vec::new(),
        );
        assert_eq!((empty.value(), empty.session()), (&b""[..], &b""[..]));
    }

    #[test]
    fn rows_with_keys_over_the_limit_are_refused() {
        let mut bytes = vec![0; 36 + limits::KEY_BYTES_MAX + 1];
        bytes[32..34].copy_from_slice(&(limits::KEY_BYTES_MAX as u16 + 1).to_le_bytes());
        assert_eq!(KvRow::decode(&bytes), Err(RowError("key over its limit")));
        bytes[32..34].copy_from_slice(&(limits::KEY_BYTES_MAX as u16).to_le_bytes());
        assert!(KvRow::decode(&bytes).is_ok());
        bytes[35] = 1;
        assert!(KvRow::decode(&bytes).is_err());
        assert!(IndexRow::decode(&[0; 8 + limits::KEY_BYTES_MAX]).is_ok());
        assert!(IndexRow::decode(&[0; 9 + limits::KEY_BYTES_MAX]).is_err());
        assert!(IndexRow::decode(&[0; 7]).is_err());
    }
}

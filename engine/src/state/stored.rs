//! How does an ordinary struct become a row?
//!
//! KV rows have a layout of their own because there are millions of them. Everything else is a
//! struct that says how it is encoded; [`Stored`] keeps it beside its primary key, which is
//! computed once.

use std::{fmt, ops::Deref, rc::Rc};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    index::Key,
    row::{Row, RowError},
    tree::Keyed,
};

/// A struct that a table can hold.
pub trait Record: fmt::Debug + Sized + 'static {
    /// Its primary key.
    fn primary_key(&self, key: &mut Key);
    /// Its modify index.
    fn modify_index(&self) -> u64;
    /// Appends its canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads canonical bytes; only bytes that `encode` can produce are accepted.
    fn decode(bytes: &[u8]) -> Result<Self, RowError>;
}

/// A shared record and its primary key; `Clone` is one reference count.
#[derive(Debug)]
pub struct Stored<R>(Rc<(Key, R)>);

impl<R> Clone for Stored<R> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<R: Record> Stored<R> {
    /// A row of this record.
    pub fn new(record: R) -> Self {
        let mut key = Key::default();
        record.primary_key(&mut key);
        Self(Rc::new((key, record)))
    }
}

impl<R> Deref for Stored<R> {
    type Target = R;
    fn deref(&self) -> &R {
        &self.0.1
    }
}

impl<R: Record> Keyed for Stored<R> {
    fn key(&self) -> &[u8] {
        self.0.0.as_bytes()
    }
    fn stamp(&self) -> u64 {
        self.modify_index()
    }
    fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        self.0.1.encode(&mut bytes);
        xxh3_64(&bytes)
    }
}

impl<R: Record> Row for Stored<R> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.1.encode(out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        R::decode(bytes).map(Self::new)
    }
    fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

//! Under which keys can an object be found?
//!
//! Two styles, as Consul's state store has them. *Declarative* ([`DeclaredIndex`]): a list of
//! fields, each with its encoding; one field is a plain index, several are a compound, and a
//! list-valued field makes it a multi-value index. *Functional* ([`FunctionalIndex`]): typed
//! closures; `read` makes the key of a query, `write` those of an object, `prefix` that of a
//! query by prefix. Both are constants of the schema module, and both are queried by their own
//! type, so that asking an index for the wrong thing does not compile (functional) or is an error
//! that names it (declarative).
//!
//! Keys are built so that one is never a prefix of another by accident: strings end in NUL,
//! everything else has a fixed length.

mod declared;
mod functional;
mod key;

pub use declared::{Arg, DeclaredIndex, Field};
pub use functional::{FunctionalIndex, Write};
pub use key::{Key, Keys};

/// Why an object cannot be stored, or a query cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// An object without a value for an index that needs one.
    #[error("missing value for index '{index}'")]
    Missing {
        /// The index.
        index: &'static str,
    },
    /// Another object is in a unique index under the same key.
    #[error("index '{index}' is unique and already has this value")]
    NotUnique {
        /// The index.
        index: &'static str,
    },
    /// An object with several values for an index that takes one.
    #[error("index '{index}' takes one value")]
    NotMulti {
        /// The index.
        index: &'static str,
    },
    /// A prefix query on an index that is not declared for it.
    #[error("index '{index}' does not support prefix queries")]
    NoPrefix {
        /// The index.
        index: &'static str,
    },
    /// A query that does not fit the index.
    #[error("index '{index}': {why}")]
    Query {
        /// The index.
        index: &'static str,
        /// What does not fit.
        why: &'static str,
    },
}

/// What an index promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// At most one object per key.
    pub unique: bool,
    /// Objects without a value are simply not in it.
    pub allow_missing: bool,
    /// An object may be in it under several keys.
    pub multi: bool,
    /// May be queried by prefix.
    pub prefix: bool,
}

impl Attributes {
    /// None of them.
    pub const NONE: Self = Self {
        unique: false,
        allow_missing: false,
        multi: false,
        prefix: false,
    };
}

/// The half of an index that a table needs: which keys an object has.
#[derive(Debug)]
pub struct IndexDef<R: 'static> {
    /// Its name, unique within the table.
    pub name: &'static str,
    /// What it promises.
    pub attributes: Attributes,
    /// The keys of an object.
    pub writer: Writer<R>,
}

impl<R> Clone for IndexDef<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for IndexDef<R> {}

/// How the keys of an object come about.
#[derive(Debug)]
pub enum Writer<R: 'static> {
    /// From these fields.
    Declared(&'static [Field<R>]),
    /// By a function.
    Functional(Write<R>),
}

impl<R> Clone for Writer<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Writer<R> {}

impl<R> IndexDef<R> {
    /// Writes the keys of `row`, sorted, each once, after checking all attributes but `unique`.
    pub fn keys_of(&self, row: &R, keys: &mut Keys) -> Result<(), IndexError> {
        keys.clear();
        match &self.writer {
            Writer::Declared(fields) => declared::write(fields, row, keys),
            Writer::Functional(Write::One(write)) => keys.add_if(|key| write(row, key)),
            Writer::Functional(Write::Multi(write)) => write(row, keys),
        }
        if keys.is_empty() && !self.attributes.allow_missing {
            return Err(IndexError::Missing { index: self.name });
        }
        if keys.len() > 1 {
            if !self.attributes.multi {
                return Err(IndexError::NotMulti { index: self.name });
            }
            keys.sort();
        }
        Ok(())
    }
}

/// The half of an index that a query needs.
pub trait Lookup<R: 'static> {
    /// What it is asked by.
    type Query<'q>: Copy;
    /// The half that the table holds.
    fn def(&self) -> IndexDef<R>;
    /// The key of a query for equality.
    fn read(&self, query: Self::Query<'_>, key: &mut Key) -> Result<(), IndexError>;
    /// The beginning of the keys of a query by prefix.
    fn read_prefix(&self, query: Self::Query<'_>, key: &mut Key) -> Result<(), IndexError>;
}

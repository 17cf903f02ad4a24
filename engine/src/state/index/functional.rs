//! How is an index declared by functions?
//!
//! For keys that no list of fields describes: derived from several fields at once, or queried by
//! a type of their own. The functions are plain `fn`s (closures that capture nothing), so that an
//! index is a constant and its use costs a call.

use super::{Attributes, IndexDef, IndexError, Key, Keys, Lookup, Writer};

/// The keys of an object.
#[derive(Debug)]
pub enum Write<R: 'static> {
    /// One key, or `false` for none.
    One(fn(&R, &mut Key) -> bool),
    /// Any number of keys.
    Multi(fn(&R, &mut Keys)),
}

impl<R> Clone for Write<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Write<R> {}

/// An index by typed functions; `Q` is what it is asked by.
#[derive(Debug)]
pub struct FunctionalIndex<R: 'static, Q: ?Sized + 'static> {
    /// Its name, unique within the table.
    pub name: &'static str,
    /// What it promises.
    pub attributes: Attributes,
    /// The key of a query.
    pub read: fn(&Q, &mut Key),
    /// The keys of an object.
    pub write: Write<R>,
    /// The beginning of the keys of a query by prefix.
    pub prefix: Option<fn(&Q, &mut Key)>,
}

impl<R: 'static, Q: ?Sized + 'static> Lookup<R> for FunctionalIndex<R, Q> {
    type Query<'q> = &'q Q;

    fn def(&self) -> IndexDef<R> {
        IndexDef {
            name: self.name,
            attributes: self.attributes,
            writer: Writer::Functional(self.write),
        }
    }

    fn read(&self, query: &Q, key: &mut Key) -> Result<(), IndexError> {
        (self.read)(query, key);
        Ok(())
    }

    fn read_prefix(&self, query: &Q, key: &mut Key) -> Result<(), IndexError> {
        let prefix = self
            .prefix
            .ok_or(IndexError::NoPrefix { index: self.name })?;
        prefix(query, key);
        Ok(())
    }
}

//! How is an index declared by naming fields?
//!
//! Consul's generic indexers find a field by its name at run time; here a field is its accessor,
//! so that a misspelt one does not compile. Encodings are Consul's: strings end in NUL, in lower
//! case where wanted; UUIDs are 16 bytes.

use wire::Uuid;

use super::{Attributes, IndexDef, IndexError, Key, Keys, Lookup, Writer};

/// One field of an object, and how it is encoded.
#[derive(Debug)]
pub enum Field<R: 'static> {
    /// A string as it is; empty means missing.
    Text(fn(&R) -> &str),
    /// A string in lower case; empty means missing.
    Lower(fn(&R) -> &str),
    /// A string in lower case; the empty one is a value too.
    LowerOrEmpty(fn(&R) -> &str),
    /// A UUID as its 36 characters, kept as 16 bytes; anything else means missing.
    UuidText(fn(&R) -> &str),
    /// A UUID as 16 bytes; anything else means missing.
    Uuid(fn(&R) -> &[u8]),
    /// A number.
    Integer(fn(&R) -> i64),
    /// A list of strings, each of which is a key; for a multi-value index.
    TextList(fn(&R) -> &[String]),
    /// The same in lower case.
    LowerList(fn(&R) -> &[String]),
    /// Whether a condition holds.
    Condition(fn(&R) -> bool),
}

/// One value of a query, in the order of the index's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg<'a> {
    /// For text fields and lists of text.
    Text(&'a str),
    /// For UUID fields: 16 bytes; by prefix, the first of them.
    Uuid(&'a [u8]),
    /// For numbers.
    Integer(i64),
    /// For conditions.
    Condition(bool),
}

/// An index over one field, or over several one after the other (compound).
#[derive(Debug)]
pub struct DeclaredIndex<R: 'static> {
    /// Its name, unique within the table.
    pub name: &'static str,
    /// What it promises.
    pub attributes: Attributes,
    /// The fields, most significant first.
    pub fields: &'static [Field<R>],
}

/// Adds the keys of `row`: one for each combination of list elements, none if a field is missing.
pub(super) fn write<R>(fields: &[Field<R>], row: &R, keys: &mut Keys) {
    let lists = fields
        .iter()
        .any(|field| matches!(field, Field::TextList(_) | Field::LowerList(_)));
    if lists {
        write_combinations(fields, row, &mut Key::default(), keys);
    } else {
        keys.add_if(|key| fields.iter().all(|field| write_one(field, row, key)));
    }
}

fn write_combinations<R>(fields: &[Field<R>], row: &R, key: &mut Key, keys: &mut Keys) {
    let Some((field, rest)) = fields.split_first() else {
        return keys.add(|complete| {
            complete.raw(key.as_bytes());
        });
    };
    let length = key.len();
    match field {
        Field::TextList(list) | Field::LowerList(list) => {
            for text in list(row).iter().filter(|text| !text.is_empty()) {
                match field {
                    Field::LowerList(_) => key.lower(text),
                    _ => key.text(text),
                };
                write_combinations(rest, row, key, keys);
                key.truncate(length);
            }
        }
        _ => {
            if write_one(field, row, key) {
                write_combinations(rest, row, key, keys);
            }
            key.truncate(length);
        }
    }
}

/// Appends a field that has one value; false where it is missing.
fn write_one<R>(field: &Field<R>, row: &R, key: &mut Key) -> bool {
    match field {
        Field::Text(text) => !text(row).is_empty() && key.text(text(row)).len() > 0,
        Field::Lower(text) => !text(row).is_empty() && key.lower(text(row)).len() > 0,
        Field::LowerOrEmpty(text) => key.lower(text(row)).len() > 0,
        Field::UuidText(uuid) => {
            Uuid::parse(uuid(row)).is_some_and(|uuid| key.uuid(uuid).len() > 0)
        }
        Field::Uuid(uuid) => {
            Uuid::from_slice(uuid(row)).is_some_and(|uuid| key.uuid(uuid).len() > 0)
        }
        Field::Integer(number) => key.integer(number(row)).len() > 0,
        Field::Condition(holds) => key.flag(holds(row)).len() > 0,
        Field::TextList(_) | Field::LowerList(_) => unreachable!("lists are combined"),
    }
}

impl<R> DeclaredIndex<R> {
    fn error(&self, why: &'static str) -> IndexError {
        IndexError::Query {
            index: self.name,
            why,
        }
    }

    fn read_arg(&self, field: &Field<R>, arg: Arg<'_>, key: &mut Key) -> Result<(), IndexError> {
        match (field, arg) {
            (Field::Text(_) | Field::TextList(_), Arg::Text(text)) => key.text(text),
            (Field::Lower(_) | Field::LowerOrEmpty(_) | Field::LowerList(_), Arg::Text(text)) => {
                key.lower(text)
            }
            (Field::Uuid(_) | Field::UuidText(_), Arg::Uuid(bytes)) => {
                key.uuid(Uuid::from_slice(bytes).ok_or(self.error("a UUID has 16 bytes"))?)
            }
            (Field::Integer(_), Arg::Integer(number)) => key.integer(number),
            (Field::Condition(_), Arg::Condition(holds)) => key.flag(holds),
            _ => return Err(self.error("the query's value is of another type than the field")),
        };
        Ok(())
    }
}

impl<R: 'static> Lookup<R> for DeclaredIndex<R> {
    type Query<'q> = &'q [Arg<'q>];

    fn def(&self) -> IndexDef<R> {
        IndexDef {
            name: self.name,
            attributes: self.attributes,
            writer: Writer::Declared(self.fields),
        }
    }

    fn read(&self, query: &[Arg<'_>], key: &mut Key) -> Result<(), IndexError> {
        if query.len() != self.fields.len() {
            return Err(self.error("a query needs one value for each field"));
        }
        self.fields
            .iter()
            .zip(query)
            .try_for_each(|(field, arg)| self.read_arg(field, *arg, key))
    }

    /// The first fields whole; of the last one given, if it is text, the beginning.
    fn read_prefix(&self, query: &[Arg<'_>], key: &mut Key) -> Result<(), IndexError> {
        let Some((last, whole)) = query.split_last() else {
            return Ok(());
        };
        let field = self
            .fields
            .get(whole.len())
            .ok_or(self.error("more values than fields"))?;
        self.fields
            .iter()
            .zip(whole)
            .try_for_each(|(field, arg)| self.read_arg(field, *arg, key))?;
        match (field, last) {
            (Field::Text(_) | Field::TextList(_), Arg::Text(text)) => {
                key.text_prefix(text);
            }
            (Field::Lower(_) | Field::LowerOrEmpty(_) | Field::LowerList(_), Arg::Text(text)) => {
                key.lower_prefix(text);
            }
            // Consul finds nodes by the beginning of their UUID.
            (Field::Uuid(_) | Field::UuidText(_), Arg::Uuid(bytes)) if bytes.len() <= 16 => {
                key.raw(bytes);
            }
            _ => self.read_arg(field, *last, key)?,
        }
        Ok(())
    }
}

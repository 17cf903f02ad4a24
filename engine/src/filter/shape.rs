//! Which selectors do the rows of an endpoint have, and of what type is what they select?
//!
//! Shapes are tables in [`shapes`](super::shapes), made before the program runs. A shape names the
//! fields as Consul's filters do, which is nearly always as its JSON does.

use serde_json::Value;

/// The fields of a row.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// In any order.
    pub fields: &'static [Field],
}

/// One field of a struct.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// In expressions and in JSON.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// What a field, or a value of a map, holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `==`, `in` (a part of it), `matches`.
    Text,
    /// A whole number from -2^63 to 2^63 - 1: `==`.
    Number,
    /// `==`.
    Bool,
    /// A list of strings: `in`, `is empty`.
    Texts,
    /// Values under any keys: `in` (a key), `is empty`, and a key selects its value.
    Map(&'static Kind),
    /// A list of structs: `is empty`, and selectors go on in each of them.
    List(&'static Shape),
    /// A struct within: only its fields can be selected.
    Struct(&'static Shape),
}

impl Field {
    /// A field.
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }
}

impl Shape {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// What in `row` is not as the shape says, by its selector: a field of another type. For the
    /// tests of those who make rows; a filter takes such a field for empty. Fields that the shape
    /// does not have cannot be selected, and are no fault.
    pub fn misfits(&self, row: &Value) -> Vec<String> {
        let mut found = Vec::new();
        misfits_of_struct(self, row, "", &mut found);
        found
    }
}

fn misfits_of_struct(shape: &Shape, row: &Value, path: &str, found: &mut Vec<String>) {
    match row {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(field) = shape.field(name) {
                    misfits(&field.kind, value, &format!("{path}.{name}"), found);
                }
            }
        }
        Value::Null => {}
        _ => found.push(path.trim_start_matches('.').to_owned()),
    }
}

/// Recursion ends with the shape, which is a constant.
fn misfits(kind: &Kind, value: &Value, path: &str, found: &mut Vec<String>) {
    let fits = match (kind, value) {
        (_, Value::Null) | (Kind::Text, Value::String(_)) | (Kind::Bool, Value::Bool(_)) => true,
        (Kind::Number, number) => number.as_i64().is_some(),
        (Kind::Texts, Value::Array(items)) => items.iter().all(Value::is_string),
        (Kind::Map(kind), Value::Object(map)) => {
            for (key, value) in map {
                misfits(kind, value, &format!("{path}.{key}"), found);
            }
            true
        }
        (Kind::List(shape), Value::Array(items)) => {
            for item in items {
                misfits_of_struct(shape, item, path, found);
            }
            true
        }
        (Kind::Struct(shape), value) => {
            misfits_of_struct(shape, value, path, found);
            true
        }
        _ => false,
    };
    if !fits {
        found.push(path.trim_start_matches('.').to_owned());
    }
}

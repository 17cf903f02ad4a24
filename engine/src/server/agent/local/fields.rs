//! How is Consul's JSON read, field by field?
//!
//! Clients write field names as Go's decoder forgives them: in any case, and for configuration's
//! sake with underscores (`EnableTagOverride`, `enable_tag_override`). Durations are texts
//! (`"10s"`) or nanoseconds. `null` is as good as absent, unknown fields are passed over. What has
//! the wrong type is refused by name.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::server::http::go_text::{parse_duration, quote};

/// Why a body is not what it should be; Consul's `Request decode failed: …` stands before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// The fields of one JSON object.
pub(super) struct Fields<'a> {
    fields: BTreeMap<String, &'a Value>,
    /// Where it lies, for errors: `Checks[0].`
    path: String,
}

type Read<T> = Result<T, DecodeError>;

impl<'a> Fields<'a> {
    /// The fields of `value`, which must be an object.
    pub(super) fn of(value: &'a Value, path: &str) -> Read<Self> {
        match value {
            Value::Object(map) => Ok(Self::new(map, path)),
            Value::Null => Ok(Self {
                fields: BTreeMap::new(),
                path: path.to_owned(),
            }),
            other => Err(DecodeError(format!(
                "expected an object{}, found {}",
                at(path),
                kind(other)
            ))),
        }
    }

    fn new(map: &'a Map<String, Value>, path: &str) -> Self {
        let fields = map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (folded(name), value))
            .collect();
        Self {
            fields,
            path: path.to_owned(),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(&folded(name)).copied()
    }

    /// The value of a field as it is.
    pub(super) fn raw(&self, name: &str) -> Option<&'a Value> {
        self.get(name)
    }

    fn wrong(&self, name: &str, wanted: &str, found: &Value) -> DecodeError {
        let path = &self.path;
        DecodeError(format!(
            "{path}{name}: expected {wanted}, found {}",
            kind(found)
        ))
    }

    /// A text; empty when absent.
    pub(super) fn text(&self, name: &str) -> Read<String> {
        match self.get(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(self.wrong(name, "a string", other)),
        }
    }

    /// The first of these fields that is not empty.
    pub(super) fn text_of(&self, names: &[&str]) -> Read<String> {
        for name in names {
            let text = self.text(name)?;
            if !text.is_empty() {
                return Ok(text);
            }
        }
        Ok(String::new())
    }

    /// A truth value; false when absent.
    pub(super) fn flag(&self, name: &str) -> Read<bool> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(name, "true or false", other)),
        }
    }

    /// A whole number; `None` when absent.
    pub(super) fn number(&self, name: &str) -> Read<Option<i64>> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name, "a whole number", value)),
            },
        }
    }

    /// A duration in nanoseconds; 0 when absent or empty.
    pub(super) fn duration_ns(&self, name: &str) -> Read<i64> {
        let path = &self.path;
        match self.get(name) {
            None => Ok(0),
            Some(Value::String(text)) if text.is_empty() => Ok(0),
            Some(Value::String(text)) => parse_duration(text).ok_or_else(|| {
                DecodeError(format!(
                    "{path}{name}: time: invalid duration {}",
                    quote(text)
                ))
            }),
            Some(value) => match (value.as_i64(), value.as_f64()) {
                (Some(nanos), _) => Ok(nanos),
                (_, Some(nanos)) if nanos.abs() < i64::MAX as f64 => Ok(nanos as i64),
                _ => Err(self.wrong(name, "a duration such as \"10s\"", value)),
            },
        }
    }

    /// A list of texts; empty when absent.
    pub(super) fn texts(&self, name: &str) -> Read<Vec<String>> {
        let wanted = "a list of strings";
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text.clone()),
                    other => Err(self.wrong(name, wanted, other)),
                })
                .collect(),
            Some(other) => Err(self.wrong(name, wanted, other)),
        }
    }

    /// Texts by name; empty when absent.
    pub(super) fn pairs(&self, name: &str) -> Read<BTreeMap<String, String>> {
        let wanted = "an object of strings";
        self.map(name, wanted, |value| match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong(name, wanted, other)),
        })
    }

    /// Lists of texts by name; a single text is a list of one.
    pub(super) fn headers(&self, name: &str) -> Read<BTreeMap<String, Vec<String>>> {
        let wanted = "an object of lists of strings";
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong(name, wanted, other)),
        };
        self.map(name, wanted, |value| match value {
            Value::Array(list) => list.iter().map(text).collect(),
            one => Ok(vec![text(one)?]),
        })
    }

    /// What `read` makes of each member of an object; empty when absent.
    pub(super) fn map<T>(
        &self,
        name: &str,
        wanted: &str,
        read: impl Fn(&Value) -> Read<T>,
    ) -> Read<BTreeMap<String, T>> {
        match self.get(name) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(map)) => map
                .iter()
                .map(|(name, value)| Ok((name.clone(), read(value)?)))
                .collect(),
            Some(other) => Err(self.wrong(name, wanted, other)),
        }
    }

    /// The fields of a member that is an object; none when absent.
    pub(super) fn object(&self, name: &str) -> Read<Option<Fields<'a>>> {
        let path = format!("{}{name}.", self.path);
        self.get(name)
            .map(|value| Fields::of(value, &path))
            .transpose()
    }

    /// The objects of a list; `null`s among them are passed over.
    pub(super) fn objects(&self, name: &str) -> Read<Vec<Fields<'a>>> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .iter()
                .enumerate()
                .filter(|(_, value)| !value.is_null())
                .map(|(at, value)| Fields::of(value, &format!("{}{name}[{at}].", self.path)))
                .collect(),
            Some(other) => Err(self.wrong(name, "a list of objects", other)),
        }
    }

    /// Whether no field says anything: absent, empty, zero or false.
    pub(super) fn says_nothing(&self) -> bool {
        self.fields.values().all(|value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(true) => false,
        })
    }
}

/// A field's name without what Go's decoder does not look at.
fn folded(name: &str) -> String {
    name.chars()
        .filter(|c| *c != '_')
        .flat_map(char::to_lowercase)
        .collect()
}

fn at(path: &str) -> String {
    match path.trim_end_matches('.') {
        "" => String::new(),
        path => format!(" at {path}"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

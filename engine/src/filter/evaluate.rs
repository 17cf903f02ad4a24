//! Does a row pass?
//!
//! The test knows the type of what it looks at, so a field that is left out, or `null`, is its
//! type's empty value. Only a key that a map lacks is nothing at all.

use serde_json::Value;

use super::bind::{Check, Node, Step, Test};

impl Node {
    /// Whether the expression holds for a row. Recursion is as deep as its parentheses.
    pub(super) fn holds(&self, row: &Value) -> bool {
        match self {
            Self::Or(parts) => parts.iter().any(|part| part.holds(row)),
            Self::And(parts) => parts.iter().all(|part| part.holds(row)),
            Self::Not(inner) => !inner.holds(row),
            Self::Test(test) => test.holds(&test.path, Some(row)),
        }
    }
}

impl Test {
    fn holds(&self, path: &[Step], at: Option<&Value>) -> bool {
        let Some((step, path)) = path.split_first() else {
            return self.check.holds(at) != self.negated;
        };
        match step {
            Step::Field(name) => self.holds(path, at.and_then(|value| value.get(*name))),
            Step::Key(key) => match at.and_then(|value| value.get(key)) {
                Some(value) => self.holds(path, Some(value)),
                None => self.check.holds_of_nothing() != self.negated,
            },
            Step::Each => {
                let items = at.and_then(Value::as_array).into_iter().flatten();
                items.into_iter().any(|item| self.holds(path, Some(item)))
            }
        }
    }
}

impl Check {
    fn holds(&self, at: Option<&Value>) -> bool {
        let text = || at.and_then(Value::as_str).unwrap_or_default();
        let list = || at.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        match self {
            Self::TextIs(wanted) => text() == wanted,
            Self::NumberIs(wanted) => at.and_then(Value::as_i64).unwrap_or_default() == *wanted,
            Self::BoolIs(wanted) => at.and_then(Value::as_bool).unwrap_or_default() == *wanted,
            Self::TextHas(part) => text().contains(part.as_str()),
            Self::ListHas(item) => list().iter().any(|found| found.as_str() == Some(item)),
            Self::MapHas(key) => at.and_then(|value| value.get(key)).is_some(),
            Self::Matches(regex) => regex.is_match(text()),
            Self::Empty => match at {
                Some(Value::Array(items)) => items.is_empty(),
                Some(Value::Object(map)) => map.is_empty(),
                _ => true,
            },
        }
    }

    /// For a key that a map does not have.
    fn holds_of_nothing(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

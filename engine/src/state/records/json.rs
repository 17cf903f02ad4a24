//! How is a part of an object kept that nothing here needs to understand?
//!
//! As the JSON text it came as: it goes out the same way. It is checked once, where it comes in.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// JSON as text, or nothing (the empty text).
///
/// Read from an image it is not parsed again: what is stored was checked before it was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JsonText(String);

impl JsonText {
    /// Nothing.
    pub const NONE: Self = Self(String::new());

    /// Takes text that must be JSON; space around it is dropped, `null` is nothing.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text).map(Self::from_raw)
    }

    /// Takes JSON that was read as such; `null` is nothing.
    pub fn from_raw(raw: &RawValue) -> Self {
        match raw.get() {
            "null" => Self::NONE,
            text => Self(text.to_owned()),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text; empty for nothing.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For putting it into other JSON; `None` for nothing.
    pub fn raw(&self) -> Option<&RawValue> {
        serde_json::from_str(&self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_out_as_it_came() {
        let text = JsonText::parse(" {\"B\": 1e400, \"A\":[ ]}\n").expect("JSON");
        assert_eq!(text.as_str(), "{\"B\": 1e400, \"A\":[ ]}");
        assert_eq!(text.raw().map(RawValue::get), Some(text.as_str()));
        assert!(JsonText::parse("null").is_ok_and(|none| none == JsonText::NONE));
        assert!(JsonText::NONE.raw().is_none() && JsonText::NONE.is_empty());
        assert!(JsonText::parse("{").is_err() && JsonText::parse("").is_err());
    }
}

//! How does Go read an object whose fields are spelt as the client likes?
//!
//! Field names count in any case, `null` is as good as nothing, and what is not known is passed
//! over. A struct that is read through [`Loose`] has its fields in lower case
//! (`#[serde(rename_all = "lowercase", default)]`); the keys of maps within stay as they are.

use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error};
use serde_json::{Map, Value};

/// A struct read that way.
#[derive(Debug, Default)]
pub(super) struct Loose<T>(pub(super) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Map::<String, Value>::deserialize(deserializer)?;
        let lowered = object
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_lowercase(), value))
            .collect();
        T::deserialize(Value::Object(lowered))
            .map(Loose)
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "lowercase", default)]
    struct Body {
        checkid: String,
        meta: BTreeMap<String, String>,
        inner: Option<Loose<Box<Body>>>,
    }

    #[test]
    fn names_of_fields_count_in_any_case_and_keys_of_maps_as_they_are() {
        let text = r#"{"CheckID": "a", "META": {"Key": "v"}, "Inner": {"checkId": "b", "meta": null}, "x": 1}"#;
        let Loose(body) = serde_json::from_str::<Loose<Body>>(text).expect("fits");
        assert_eq!((&*body.checkid, &*body.meta["Key"]), ("a", "v"));
        assert_eq!(body.inner.expect("given").0.checkid, "b");
        for bad in [r#"{"CheckID": 1}"#, "[]", r#"{"Inner": []}"#] {
            assert!(serde_json::from_str::<Loose<Body>>(bad).is_err(), "{bad}");
        }
    }
}

//! What was said so far, by files, `-set` and flags?
//!
//! All sources end in one [`Layer`]: a later value replaces an earlier one, lists and maps grow.
//! Every value knows where it came from, so that an error can name it. Mistakes are gathered, not
//! thrown: whoever has three is told of three.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    ConfigError,
    keys::{KEYS, Kind, find},
};
use crate::server::{http::go_text::parse_duration, nearest::nearest};

/// A value and where it came from: `-bind`, `curia.json: bind_addr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) origin: String,
}

impl<T> Sourced<T> {
    pub(super) fn new(value: T, origin: &str) -> Self {
        Self {
            value,
            origin: origin.to_string(),
        }
    }
}

#[derive(Clone, Debug)]
enum Scalar {
    Flag(bool),
    /// A number, or nanoseconds.
    Number(i64),
    Text(String),
}

/// What was said so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// `-dev`, which is no key.
    pub(super) dev: bool,
    scalars: BTreeMap<&'static str, Sourced<Scalar>>,
    texts: BTreeMap<&'static str, Vec<Sourced<String>>>,
    maps: BTreeMap<&'static str, BTreeMap<String, Sourced<String>>>,
    /// Definitions of services, unread.
    pub(super) services: Vec<Sourced<Value>>,
    /// Definitions of checks, unread.
    pub(super) checks: Vec<Sourced<Value>>,
    /// Keys that were warned of: each once, in however many files it stands.
    warned: BTreeSet<&'static str>,
    pub(super) warnings: Vec<String>,
    pub(super) errors: Vec<ConfigError>,
}

impl Layer {
    pub(super) fn flag(&self, key: &'static str) -> Option<Sourced<bool>> {
        debug_assert_eq!(find(key), Some((key, Kind::Flag)));
        let Sourced { value, origin } = self.scalars.get(key)?;
        match value {
            Scalar::Flag(value) => Some(Sourced::new(*value, origin)),
            _ => None,
        }
    }

    /// Whether the flag was given and is true.
    pub(super) fn is_on(&self, key: &'static str) -> bool {
        self.flag(key).is_some_and(|flag| flag.value)
    }

    /// A number, or a duration in nanoseconds.
    pub(super) fn number(&self, key: &'static str) -> Option<Sourced<i64>> {
        debug_assert!(matches!(
            find(key),
            Some((_, Kind::Number | Kind::Duration))
        ));
        let Sourced { value, origin } = self.scalars.get(key)?;
        match value {
            Scalar::Number(value) => Some(Sourced::new(*value, origin)),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &'static str) -> Option<Sourced<&str>> {
        debug_assert_eq!(find(key), Some((key, Kind::Text)));
        let Sourced { value, origin } = self.scalars.get(key)?;
        match value {
            Scalar::Text(value) => Some(Sourced::new(value, origin)),
            _ => None,
        }
    }

    pub(super) fn texts(&self, key: &'static str) -> &[Sourced<String>] {
        debug_assert_eq!(find(key), Some((key, Kind::Texts)));
        self.texts.get(key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn map(
        &self,
        key: &'static str,
    ) -> impl Iterator<Item = (&String, &Sourced<String>)> {
        debug_assert_eq!(find(key), Some((key, Kind::TextMap)));
        self.maps.get(key).into_iter().flatten()
    }

    /// Forgets what was said of a key.
    pub(super) fn forget(&mut self, key: &'static str) {
        self.scalars.remove(key);
    }

    /// Reads what a command line says of a key. `flag` is for the error.
    pub(super) fn set_flag(&mut self, key: &'static str, flag: &str, text: String) {
        let kind = find(key).map(|(_, kind)| kind);
        let kind = match kind {
            Some(Kind::Old(new)) => find(new).map(|(_, kind)| kind),
            kind => kind,
        };
        let wrong = |wanted| ConfigError(format!("{flag}={text}: must be {wanted}"));
        let value = match kind {
            Some(Kind::Flag) => text
                .parse()
                .map(Value::Bool)
                .map_err(|_| wrong("true or false")),
            Some(Kind::Number) => text
                .parse::<i64>()
                .map(Value::from)
                .map_err(|_| wrong("a whole number")),
            Some(Kind::Duration) if parse_duration(&text).is_none() => {
                Err(wrong("a duration such as 30s"))
            }
            // As Consul's flag: one pair, with a colon.
            Some(Kind::TextMap) => match text.split_once(':') {
                Some((name, value)) => Ok(serde_json::json!({ name: value })),
                None => Err(wrong("KEY:VALUE")),
            },
            // A port that is not wanted, for one.
            Some(Kind::Ignored) => Ok(text
                .parse::<i64>()
                .map_or_else(|_| Value::String(text.clone()), Value::from)),
            _ => Ok(Value::String(text.clone())),
        };
        match value {
            Ok(value) => self.set(key, value, &|_| flag.to_string()),
            Err(error) => self.errors.push(error),
        }
    }

    /// Applies `-set KEY=VALUE`; the value is JSON, or else text.
    pub(super) fn set_pair(&mut self, pair: &str) {
        let Some((key, text)) = pair.split_once('=') else {
            self.errors.push(ConfigError(format!(
                "-set={pair}: must be KEY=VALUE, such as performance.raft_multiplier=1"
            )));
            return;
        };
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_string()));
        self.set(key, value, &|key| format!("-set {key}"));
    }

    /// Applies a file: an object of keys. `origin` says where a key of it stands.
    pub(super) fn set_all(&mut self, file: Value, origin: &dyn Fn(&str) -> String) {
        if let Value::Object(members) = file {
            for (key, value) in members {
                self.set(&key, value, origin);
            }
        }
    }

    /// Sets the key at the dotted path `key`.
    fn set(&mut self, key: &str, value: Value, origin: &dyn Fn(&str) -> String) {
        let Some((key, kind)) = find(key) else {
            return self.errors.push(unknown(key, &origin(key)));
        };
        // As in Consul, nothing is said by `null`.
        if value.is_null() {
            return;
        }
        let at = origin(key);
        match kind {
            Kind::Old(new) => {
                self.warn(
                    key,
                    format!(
                        "{at}: The '{key}' field is deprecated. Use the '{new}' field instead."
                    ),
                );
                if let Some((new, kind)) = find(new) {
                    self.set_value(new, kind, value, &at);
                }
            }
            Kind::Object => match single(value) {
                Value::Object(members) => {
                    for (member, value) in members {
                        self.set(&format!("{key}.{member}"), value, origin);
                    }
                }
                value => self.wrong(&at, "an object", &value),
            },
            // Consul's way of saying that a port is not wanted, and it is not there.
            Kind::Ignored if key.starts_with("ports.") && value.as_i64() == Some(-1) => {}
            Kind::Ignored => self.warn(key, format!("{at}: has no effect on a curia server")),
            Kind::Protection if off(&value) => {}
            Kind::Protection => self.errors.push(ConfigError(format!(
                "{at}: curia cannot do this yet, and without it the server would be less protected \
                 than this file asks for: remove the key to run it so anyway"
            ))),
            kind => self.set_value(key, kind, value, &at),
        }
    }

    fn set_value(&mut self, key: &'static str, kind: Kind, value: Value, at: &str) {
        let scalar = match kind {
            Kind::Flag => value.as_bool().map(Scalar::Flag).ok_or("true or false"),
            Kind::Number => value.as_i64().map(Scalar::Number).ok_or("a whole number"),
            Kind::Duration => value
                .as_str()
                .and_then(parse_duration)
                .map(Scalar::Number)
                .ok_or("a duration such as \"30s\" or \"500ms\""),
            Kind::Text => match &value {
                Value::String(text) => Ok(Scalar::Text(text.clone())),
                _ => Err("text"),
            },
            kind => return self.add(key, kind, value, at),
        };
        match scalar {
            Ok(scalar) => {
                self.scalars.insert(key, Sourced::new(scalar, at));
            }
            Err(wanted) => self.wrong(at, wanted, &value),
        }
    }

    /// Adds to what grows.
    fn add(&mut self, key: &'static str, kind: Kind, value: Value, at: &str) {
        match kind {
            Kind::Texts => match list(&value) {
                Some(texts) => {
                    let sourced = texts.into_iter().map(|text| Sourced::new(text, at));
                    self.texts.entry(key).or_default().extend(sourced);
                }
                None => self.wrong(at, "a list of texts", &value),
            },
            Kind::TextMap => match single(value) {
                Value::Object(members) => {
                    for (name, value) in members {
                        let at = format!("{at}.{name}");
                        match value {
                            Value::String(text) => {
                                let map = self.maps.entry(key).or_default();
                                map.insert(name, Sourced::new(text, &at));
                            }
                            value => self.wrong(&at, "text", &value),
                        }
                    }
                }
                value => self.wrong(at, "an object of texts", &value),
            },
            Kind::Services | Kind::Checks => {
                let definitions = match value {
                    Value::Array(items) => items
                        .into_iter()
                        .enumerate()
                        .map(|(i, item)| Sourced::new(item, &format!("{at}[{i}]")))
                        .collect(),
                    one => vec![Sourced::new(one, at)],
                };
                match kind {
                    Kind::Services => self.services.extend(definitions),
                    _ => self.checks.extend(definitions),
                }
            }
            _ => unreachable!("{key} is not a list"),
        }
    }

    fn wrong(&mut self, at: &str, wanted: &str, value: &Value) {
        // What was given may be a token.
        let given = match at.contains("token") {
            true => "what it is".to_string(),
            false => value.to_string(),
        };
        self.errors
            .push(ConfigError(format!("{at}: must be {wanted}, not {given}")));
    }

    /// Warns of a key, once.
    pub(super) fn warn(&mut self, key: &'static str, text: String) {
        if self.warned.insert(key) {
            self.warnings.push(text);
        }
    }
}

/// A block of HCL 1 is a list of one, and Consul takes such a list for its only item.
pub(super) fn single(value: Value) -> Value {
    match value {
        Value::Array(mut items) if items.len() == 1 => items.remove(0),
        value => value,
    }
}

/// A list of texts; one text is a list, too.
pub(super) fn list(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|i| i.as_str().map(String::from)).collect(),
        _ => None,
    }
}

/// Whether a value asks for nothing.
fn off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(off),
        Value::Object(members) => members.values().all(off),
        _ => false,
    }
}

/// The error for a key that nobody knows: the nearest one of the same object, or of all.
fn unknown(key: &str, origin: &str) -> ConfigError {
    let siblings = KEYS.iter().map(|(known, _)| *known);
    let hint = match nearest(key, siblings) {
        Some(known) => format!(" (did you mean {known}?)"),
        None => String::new(),
    };
    ConfigError(format!("{origin}: unknown key{hint}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer(files: &[Value]) -> Layer {
        let mut layer = Layer::default();
        for (at, file) in files.iter().enumerate() {
            layer.set_all(file.clone(), &|key| format!("{at}.json: {key}"));
        }
        layer
    }

    #[test]
    fn later_wins_and_lists_and_maps_grow() {
        let layer = layer(&[
            json!({"datacenter": "a", "retry_join": ["x"], "node_meta": {"k": "1", "l": "1"},
                   "service": {"name": "s"}, "checks": [{"name": "c"}], "ports": {"http": 1}}),
            json!({"datacenter": "b", "retry_join": ["y", "x"], "node_meta": {"k": "2"},
                   "services": [{"name": "t"}, {"name": "u"}], "check": {"name": "d"},
                   "ports": {"server": 2}, "log_level": null}),
        ]);
        assert!(layer.errors.is_empty(), "{:?}", layer.errors);
        let datacenter = layer.text("datacenter").unwrap();
        assert_eq!(datacenter, Sourced::new("b", "1.json: datacenter"));
        assert!(layer.text("log_level").is_none());
        let joined: Vec<&str> = layer
            .texts("retry_join")
            .iter()
            .map(|s| &*s.value)
            .collect();
        assert_eq!(joined, ["x", "y", "x"]);
        let meta: Vec<_> = layer
            .map("node_meta")
            .map(|(k, v)| (&**k, &*v.value))
            .collect();
        assert_eq!(meta, [("k", "2"), ("l", "1")]);
        assert_eq!(layer.number("ports.http").unwrap().value, 1);
        assert_eq!(layer.number("ports.server").unwrap().value, 2);
        let from: Vec<&str> = layer.services.iter().map(|s| &*s.origin).collect();
        assert_eq!(
            from,
            [
                "0.json: service",
                "1.json: services[0]",
                "1.json: services[1]"
            ]
        );
        let from: Vec<&str> = layer.checks.iter().map(|s| &*s.origin).collect();
        assert_eq!(from, ["0.json: checks[0]", "1.json: check"]);
    }

    #[test]
    fn every_key_without_meaning_is_warned_of_once() {
        for (key, _) in KEYS.iter().filter(|(_, kind)| *kind == Kind::Ignored) {
            let (path, word) = match key.split_once('.') {
                Some((object, word)) if find(object).is_some() => (Some(object), word),
                _ => (None, *key),
            };
            let file = match path {
                // `acl.tokens.dns` lies two objects deep.
                Some(object) => match word.split_once('.').filter(|_| object == "acl") {
                    Some((inner, word)) => json!({object: {inner: {word: true}}}),
                    None => json!({object: {word: true}}),
                },
                None => json!({word: true}),
            };
            let layer = layer(&[file.clone(), file]);
            assert!(layer.errors.is_empty(), "{key}: {:?}", layer.errors);
            assert_eq!(
                layer.warnings,
                [format!("0.json: {key}: has no effect on a curia server")]
            );
        }
    }

    #[test]
    fn ports_that_are_not_wanted_are_not_warned_of() {
        let layer = layer(&[json!({"ports": {"dns": -1, "grpc": -1, "serf_lan": 8301}})]);
        assert_eq!(
            layer.warnings,
            ["0.json: ports.serf_lan: has no effect on a curia server"]
        );
    }

    #[test]
    fn every_old_name_means_its_new_one_and_is_warned_of_once() {
        for (key, kind) in KEYS {
            let Kind::Old(new) = kind else { continue };
            let kind = find(new).unwrap().1;
            let value = match kind {
                Kind::Flag => json!(true),
                Kind::Duration => json!("5s"),
                Kind::TextMap => json!({"a": "b"}),
                Kind::Texts => json!(["a"]),
                _ => json!("a"),
            };
            let file = match key.strip_prefix("acl.tokens.") {
                Some(word) => json!({"acl": {"tokens": {word: value}}}),
                None => json!({*key: value}),
            };
            let layer = layer(&[file.clone(), file]);
            assert!(layer.errors.is_empty(), "{key}: {:?}", layer.errors);
            assert_eq!(
                layer.warnings,
                [format!(
                    "0.json: {key}: The '{key}' field is deprecated. Use the '{new}' field instead."
                )]
            );
            let found = match kind {
                Kind::Flag => layer.flag(new).is_some(),
                Kind::Duration => layer.number(new).is_some(),
                Kind::TextMap => layer.map(new).next().is_some(),
                Kind::Texts => !layer.texts(new).is_empty(),
                _ => layer.text(new).is_some(),
            };
            assert!(found, "{key} does not arrive at {new}");
        }
    }

    #[test]
    fn all_mistakes_are_gathered_and_tokens_kept_quiet() {
        let layer = layer(&[json!({
            "servr": true,
            "ports": {"htp": 1},
            "bootstrap_expect": "3",
            "acl": {"tokens": {"agent": ["secret"]}},
            "node_meta": {"a": 1},
        })]);
        let texts: Vec<&str> = layer.errors.iter().map(|error| &*error.0).collect();
        assert_eq!(
            texts,
            [
                "0.json: acl.tokens.agent: must be text, not what it is",
                "0.json: bootstrap_expect: must be a whole number, not \"3\"",
                "0.json: node_meta.a: must be text, not 1",
                "0.json: ports.htp: unknown key (did you mean ports.http?)",
                "0.json: servr: unknown key (did you mean server?)",
            ]
        );
    }
}

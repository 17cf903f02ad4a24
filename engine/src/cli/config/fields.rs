//! How are the fields of a definition taken out of its object, and what is left told?
//!
//! One after the other, each with its type; a mistake is noted by place and the rest is read on. What
//! nobody has taken in the end is not known.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{
    definitions::Findings,
    layer::{list, single},
};
use crate::server::{
    config::definitions::CheckStatus, http::go_text::parse_duration, nearest::nearest,
};

/// A name without case and underscores: as files and the API spell it alike.
pub(super) fn plain(key: &str) -> String {
    key.bytes()
        .filter(|b| *b != b'_')
        .map(|b| char::from(b.to_ascii_lowercase()))
        .collect()
}

/// Members of an object that are taken out one by one.
pub(super) struct Fields<'o> {
    pub(super) at: &'o str,
    /// By plain name: the name as written, and the value.
    members: BTreeMap<String, (String, Value)>,
    pub(super) out: &'o mut Findings,
}

impl<'o> Fields<'o> {
    pub(super) fn open(value: &Value, at: &'o str, out: &'o mut Findings) -> Option<Self> {
        let Value::Object(members) = single(value.clone()) else {
            out.error(format!("{at}: must be an object"));
            return None;
        };
        let members = members
            .into_iter()
            .map(|(key, value)| (plain(&key), (key, value)))
            .collect();
        Some(Self { at, members, out })
    }

    pub(super) fn error(&mut self, key: &str, why: &str) {
        self.out.error(format!("{}.{key}: {why}", self.at));
    }

    /// A member, unless it is absent or null.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let (_, value) = self.members.remove(&plain(key))?;
        Some(value).filter(|value| !value.is_null())
    }

    fn read<T>(
        &mut self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let read = read(&value);
        if read.is_none() {
            self.error(key, &format!("must be {wanted}"));
        }
        read
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.read(key, "text", |value| value.as_str().map(String::from))
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn whole(&mut self, key: &str, min: i64, max: i64) -> Option<i64> {
        let wanted = format!("a whole number from {min} to {max}");
        self.read(key, &wanted, |value| {
            value.as_i64().filter(|value| (min..=max).contains(value))
        })
    }

    pub(super) fn count(&mut self, key: &str) -> Option<u32> {
        self.whole(key, 0, i64::from(u32::MAX)).map(|n| n as u32)
    }

    pub(super) fn duration(&mut self, key: &str) -> Option<Duration> {
        self.read(key, "a duration such as \"10s\"", |value| {
            let nanos = parse_duration(value.as_str()?)?;
            Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
        })
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        self.read(key, "a list of texts", list).unwrap_or_default()
    }

    pub(super) fn text_map(&mut self, key: &str) -> BTreeMap<String, String> {
        self.read(key, "an object of texts", |value| {
            let Value::Object(members) = single(value.clone()) else {
                return None;
            };
            members
                .into_iter()
                .map(|(name, value)| Some((name, value.as_str()?.to_string())))
                .collect()
        })
        .unwrap_or_default()
    }

    pub(super) fn headers(&mut self) -> BTreeMap<String, Vec<String>> {
        self.read("header", "an object of lists of texts", |value| {
            let Value::Object(members) = single(value.clone()) else {
                return None;
            };
            members
                .into_iter()
                .map(|(name, value)| Some((name, list(&value)?)))
                .collect()
        })
        .unwrap_or_default()
    }

    pub(super) fn status(&mut self) -> CheckStatus {
        self.read("status", "passing, warning or critical", |value| {
            Some(match value.as_str()? {
                "passing" => CheckStatus::Passing,
                "warning" => CheckStatus::Warning,
                "critical" | "" => CheckStatus::Critical,
                _ => return None,
            })
        })
        .unwrap_or_default()
    }

    pub(super) fn tagged_addresses(&mut self) -> BTreeMap<String, (String, u16)> {
        let mut found = BTreeMap::new();
        let Some(value) = self.take("tagged_addresses") else {
            return found;
        };
        let Value::Object(members) = single(value) else {
            self.error("tagged_addresses", "must be an object");
            return found;
        };
        for (name, value) in members {
            let at = format!("{}.tagged_addresses.{name}", self.at);
            if let Some(mut fields) = Fields::open(&value, &at, self.out) {
                let address = fields.text("address").unwrap_or_default();
                let port = fields.whole("port", 0, 65_535).unwrap_or(0) as u16;
                fields.close(&[], &["address", "port"]);
                found.insert(name, (address, port));
            }
        }
        found
    }

    /// What is left: a warning for `ignored`, an error for what is not known.
    pub(super) fn close(self, ignored: &[&str], known: &[&'static str]) {
        for (name, (written, value)) in self.members {
            let at = self.at;
            if ignored.iter().any(|key| plain(key) == name) {
                if !value.is_null() {
                    self.out
                        .warnings
                        .push(format!("{at}.{written}: has no effect on a curia server"));
                }
                continue;
            }
            let hint = match nearest(&written, known.iter().copied()) {
                Some(known) => format!(" (did you mean {known}?)"),
                None => String::new(),
            };
            self.out.error(format!("{at}.{written}: unknown key{hint}"));
        }
    }
}

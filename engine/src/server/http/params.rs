//! What does a query string ask for?
//!
//! One pass over the pairs into named fields. Of repeated names the first counts, as with Go's
//! `url.Values.Get`. Names that Consul does not know are refused: a misspelt `?recurse` on a
//! `DELETE` or a misspelt `?cas` on a `PUT` would otherwise do something else than was meant.

use std::borrow::Cow;

use wire::{Index, ReadMode, Wait, limits};

use super::{
    failure::Refusal,
    go_text::{parse_duration, parse_uint, quote},
};

/// Names that Consul knows for single endpoints; elsewhere they change nothing.
const OTHERS: &[&str] = &[
    "token",
    "hash",
    "filter",
    "near",
    "node-meta",
    "format",
    "passing",
    "wan",
    "segment",
    "session",
    "merge-central-config",
    "verify",
    "replace-existing-checks",
    "tag",
    "name",
    "node",
    "service",
    "note",
    "enable",
    "reason",
    "type",
    "prune",
    "policy",
    "role",
    "authmethod",
    "servicename",
    "authmethod-ns",
    "expanded",
    "loglevel",
    "logjson",
    "limit",
    "connect",
    "global",
];

/// Names with an effect, for "did you mean".
const WITH_EFFECT: &[&str] = &[
    "raw",
    "recurse",
    "keys",
    "separator",
    "cas",
    "flags",
    "acquire",
    "release",
    "stale",
    "consistent",
    "leader",
    "max_stale",
    "index",
    "wait",
    "watch",
    "limit",
    "start-after",
    "pretty",
    "dc",
    "ns",
    "partition",
];

/// A parsed query string. A field is `Some("")` for a name without a value.
#[derive(Debug, Default)]
pub(super) struct Params<'q> {
    query: &'q str,
    pub(super) raw: bool,
    pub(super) recurse: bool,
    pub(super) keys: bool,
    pub(super) pretty: bool,
    pub(super) watch: bool,
    stale: bool,
    consistent: bool,
    leader: bool,
    cached: bool,
    pub(super) separator: Option<Cow<'q, str>>,
    pub(super) limit: Option<Cow<'q, str>>,
    /// As it came: a key may be of any bytes.
    pub(super) start_after: Option<&'q str>,
    pub(super) cas: Option<Cow<'q, str>>,
    pub(super) flags: Option<Cow<'q, str>>,
    pub(super) acquire: Option<Cow<'q, str>>,
    pub(super) release: Option<Cow<'q, str>>,
    max_stale: Option<Cow<'q, str>>,
    index: Option<Cow<'q, str>>,
    wait: Option<Cow<'q, str>>,
    dc: Option<Cow<'q, str>>,
    /// All others that are known, in their order.
    others: Vec<(Cow<'q, str>, Cow<'q, str>)>,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Freshness {
    pub(super) mode: ReadMode,
    /// With [`ReadMode::Stale`]: ask the leader when the answer is older than this, milliseconds.
    pub(super) max_stale_ms: Option<u64>,
}

impl<'q> Params<'q> {
    /// Parses what follows the `?`. `datacenter` is this server's.
    pub(super) fn parse(query: Option<&'q str>, datacenter: &str) -> Result<Self, Refusal> {
        let mut params = Params::default();
        let Some(query) = query.filter(|query| !query.is_empty()) else {
            return Ok(params);
        };
        params.query = query;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            params.take(decode(name)?, value)?;
        }
        if let Some(dc) = &params.dc
            && !dc.is_empty()
            && dc != datacenter
        {
            return Err(Refusal::internal("No path to datacenter"));
        }
        Ok(params)
    }

    fn take(&mut self, name: Cow<'q, str>, value: &'q str) -> Result<(), Refusal> {
        let switch = match &*name {
            "raw" => Some(&mut self.raw),
            "recurse" => Some(&mut self.recurse),
            "keys" => Some(&mut self.keys),
            "pretty" => Some(&mut self.pretty),
            "watch" => Some(&mut self.watch),
            "stale" => Some(&mut self.stale),
            "consistent" => Some(&mut self.consistent),
            "leader" => Some(&mut self.leader),
            "cached" => Some(&mut self.cached),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = true;
            return Ok(());
        }
        if name == "start-after" {
            self.start_after.get_or_insert(value);
            return Ok(());
        }
        let field = match &*name {
            "separator" | "seperator" => &mut self.separator,
            "limit" => &mut self.limit,
            "cas" => &mut self.cas,
            "flags" => &mut self.flags,
            "acquire" => &mut self.acquire,
            "release" => &mut self.release,
            "max_stale" => &mut self.max_stale,
            "index" => &mut self.index,
            "wait" => &mut self.wait,
            "dc" | "datacenter" => &mut self.dc,
            "ns" | "partition" | "peer" => return enterprise(&name, &decode(value)?),
            known if OTHERS.contains(&known) => {
                let value = decode(value)?;
                self.others.push((name, value));
                return Ok(());
            }
            name => return Err(unknown(name)),
        };
        if field.is_none() {
            *field = Some(decode(value)?);
        }
        Ok(())
    }

    /// The value of a parameter that only some endpoints know; the first of several.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a parameter that only some endpoints know.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.others.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| &**value)
    }

    /// How long a read waits for a change. Bad values are refused; too long ones are cut, and an
    /// index of 0 waits for nothing.
    pub(super) fn wait(&self) -> Result<Wait, Refusal> {
        let ms = self.wait_ms()?;
        let index = self.index()?;
        Ok(match index {
            0 => Wait::default(),
            // None is ever greater: it waits its whole time in either case.
            _ => Wait {
                index: Index(index.min(limits::INDEX_MAX)),
                ms,
            },
        })
    }

    /// `?index=`, if it says anything.
    pub(super) fn index_text(&self) -> Option<&str> {
        self.index.as_deref().filter(|text| !text.is_empty())
    }

    /// The mode of a read.
    pub(super) fn freshness(&self) -> Result<Freshness, Refusal> {
        let mut stale = self.stale;
        let mut max_stale_ms = None;
        if let Some(text) = self.max_stale.as_deref().filter(|text| !text.is_empty()) {
            let bad = || Refusal::bad(format!("Invalid max_stale value {}", quote(text)));
            let nanos = parse_duration(text).ok_or_else(bad)?;
            if nanos > 0 {
                stale = true;
                max_stale_ms = Some(nanos as u64 / 1_000_000);
            }
        }
        if stale && self.consistent {
            return Err(Refusal::bad(
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            ));
        }
        if stale && self.leader {
            return Err(Refusal::bad(
                "Cannot specify ?stale with ?leader, conflicting semantics.",
            ));
        }
        if self.cached && self.consistent {
            return Err(Refusal::bad(
                "Cannot specify ?cached with ?consistent, conflicting semantics.",
            ));
        }
        let mode = match (stale, self.consistent) {
            (true, _) => ReadMode::Stale,
            (_, true) => ReadMode::Consistent,
            _ => ReadMode::Default,
        };
        Ok(Freshness { mode, max_stale_ms })
    }

    /// The index that was given; 0 for none.
    pub(super) fn index(&self) -> Result<u64, Refusal> {
        match self.index.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => parse_uint(text).map_err(|_| Refusal::bad("Invalid index")),
            None => Ok(0),
        }
    }

    /// How long whoever waits would wait, ms, whatever for.
    pub(super) fn wait_ms(&self) -> Result<u32, Refusal> {
        let Some(text) = self.wait.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(limits::WAIT_MS_DEFAULT);
        };
        let nanos = parse_duration(text).ok_or_else(|| Refusal::bad("Invalid wait time"))?;
        let longest = u64::from(limits::WAIT_MS_MAX);
        Ok(match nanos {
            ..=0 => limits::WAIT_MS_DEFAULT,
            nanos => (nanos as u64 / 1_000_000).clamp(1, longest) as u32,
        })
    }

    /// Refuses two of the things that a request can do at once.
    pub(super) fn exclusive(&self, given: &[bool]) -> Result<(), Refusal> {
        if given.iter().filter(|given| **given).count() < 2 {
            return Ok(());
        }
        let mut pairs: Vec<&str> = self
            .query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .collect();
        pairs.sort_by_key(|pair| pair.split_once('=').map_or(*pair, |(name, _)| name));
        let pairs: Vec<String> = pairs
            .iter()
            .map(|pair| {
                if pair.contains('=') {
                    pair.to_string()
                } else {
                    format!("{pair}=")
                }
            })
            .collect();
        Err(Refusal::bad(format!(
            "Conflicting flags: {}\n",
            pairs.join("&")
        )))
    }
}

fn enterprise(name: &str, value: &str) -> Result<(), Refusal> {
    let what = match name {
        "ns" => "Namespaces are",
        "partition" => "Partitions are",
        _ => "Cluster peering is",
    };
    match value {
        "" | "default" if name != "peer" => Ok(()),
        "" => Ok(()),
        _ => Err(Refusal::bad(format!(
            "Invalid query parameter: {} - {what} not supported",
            quote(name)
        ))),
    }
}

fn unknown(name: &str) -> Refusal {
    let known = WITH_EFFECT.iter().chain(OTHERS).copied();
    let hint = match crate::server::nearest::nearest(name, known) {
        Some(known) => format!(" (did you mean {}?)", quote(known)),
        None => String::new(),
    };
    Refusal::bad(format!("Unknown query parameter {}{hint}", quote(name)))
}

/// Undoes form encoding of a name or a value.
fn decode(text: &str) -> Result<Cow<'_, str>, Refusal> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
    match decoded {
        Ok(decoded) => Ok(Cow::Owned(decoded.into_owned())),
        Err(_) => Err(Refusal::bad(format!(
            "Query parameter {} is not UTF-8",
            quote(text)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str) -> String {
        match Params::parse(Some(query), "dc1") {
            Err(refusal) => refusal.text.into_owned(),
            Ok(params) => match params.freshness().and_then(|_| params.wait()) {
                Err(refusal) => refusal.text.into_owned(),
                Ok(_) => String::new(),
            },
        }
    }

    #[test]
    fn bad_parameters_are_named() {
        for (query, text) in [
            (
                "recurce",
                "Unknown query parameter \"recurce\" (did you mean \"recurse\"?)",
            ),
            ("zzzzzz=1", "Unknown query parameter \"zzzzzz\""),
            (
                "stale&consistent",
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            ),
            (
                "max_stale=5s&consistent",
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            ),
            (
                "cached&consistent",
                "Cannot specify ?cached with ?consistent, conflicting semantics.",
            ),
            ("max_stale=x", "Invalid max_stale value \"x\""),
            ("index=-1", "Invalid index"),
            ("wait=10", "Invalid wait time"),
            (
                "ns=team1",
                "Invalid query parameter: \"ns\" - Namespaces are not supported",
            ),
            ("dc=dc2", "No path to datacenter"),
            ("separator=%ff", "Query parameter \"%ff\" is not UTF-8"),
            ("dc=dc1&token=x&ns=default&index=5&wait=10s&stale", ""),
        ] {
            assert_eq!(refusal(query), text, "{query}");
        }
    }

    #[test]
    fn the_first_of_a_repeated_name_counts() {
        let params = Params::parse(Some("cas=1&cas=2&&flags=a%2Bb+c"), "dc1").unwrap();
        assert_eq!(params.cas.as_deref(), Some("1"));
        assert_eq!(params.flags.as_deref(), Some("a+b c"));
    }

    #[test]
    fn max_stale_implies_stale() {
        let params = Params::parse(Some("max_stale=1500us"), "dc1").unwrap();
        let freshness = params.freshness().unwrap();
        assert_eq!(
            freshness,
            Freshness {
                mode: ReadMode::Stale,
                max_stale_ms: Some(1)
            }
        );
    }

    #[test]
    fn a_wait_has_consuls_default_and_is_cut_at_consuls_maximum() {
        let wait = |query: &str| {
            let params = Params::parse(Some(query), "dc1").unwrap();
            let wait = params.wait().unwrap();
            (wait.index.0, wait.ms)
        };
        assert_eq!(wait("index=7"), (7, limits::WAIT_MS_DEFAULT));
        assert_eq!(wait("index=7&wait=10m"), (7, limits::WAIT_MS_MAX));
        assert_eq!(wait("index=7&wait=10m1ms"), (7, limits::WAIT_MS_MAX));
        assert_eq!(wait("index=7&wait=1500us"), (7, 1));
        assert_eq!(wait("index=7&wait=1ns"), (7, 1));
        // As in Consul: what is not positive is no wish.
        assert_eq!(wait("index=7&wait=0s"), (7, limits::WAIT_MS_DEFAULT));
        assert_eq!(wait("index=7&wait=-5s"), (7, limits::WAIT_MS_DEFAULT));
        for at_once in ["", "index=0", "index=0&wait=5s", "wait=5s", "index="] {
            assert_eq!(wait(at_once), (0, 0), "{at_once}");
        }
        let future = format!("index={}", u64::MAX);
        assert_eq!(wait(&future).0, limits::INDEX_MAX);
    }
}

//! Which endpoint, and which key, does a request path name?
//!
//! As Consul's: first the path must be printable, then it must be clean (Go's `ServeMux` answers
//! `//`, `/./` and `/../` with `301`), and only then is it percent-decoded; `%2F` decodes into the
//! key. The common case, a clean path without escapes, is one scan and no allocation.
//!
//! A path is decoded here and nowhere else: what a request may do is decided by the [`Route`] that
//! answers it ([`super::acl`]), so that no spelling of a path leads to one and is judged as another.

use std::borrow::Cow;

use http::Method;

use super::{call::Family, go_text::is_print};

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// `/v1/kv/<key>`; the key is decoded and may be empty.
    Kv(Cow<'p, [u8]>),
    /// `/v1/txn`.
    Txn,
    /// An endpoint about records: its family, and the rest of the path, decoded.
    Family(Family, String),
    /// One of the endpoints without a variable part.
    Fixed(Endpoint),
    /// `/`.
    Root,
    /// Not an endpoint; whether it is below `/v1/`.
    Unknown {
        /// Below `/v1/`.
        v1: bool,
    },
    /// Not clean: the path to go to.
    Moved(String),
    /// Contains what cannot be printed.
    Unprintable,
    /// Of a family whose names are text, and not UTF-8.
    NotText,
    /// A `%` without two hexadecimal digits: the text around it.
    BadEscape(String),
}

/// Endpoints whose path is always the same, and that know one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v1/agent/reload`: of the executors, not of the agent.
    Reload,
    /// `/v1/status/leader`.
    StatusLeader,
    /// `/v1/status/peers`.
    StatusPeers,
    /// `/v1/operator/raft/configuration`.
    RaftConfiguration,
}

impl Endpoint {
    /// All of them.
    pub(super) const ALL: [(&'static str, Self); 4] = [
        ("/v1/agent/reload", Self::Reload),
        ("/v1/status/leader", Self::StatusLeader),
        ("/v1/status/peers", Self::StatusPeers),
        ("/v1/operator/raft/configuration", Self::RaftConfiguration),
    ];

    fn of(path: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.iter();
        let found = all.find(|(known, _)| known.as_bytes() == path);
        found.map(|(_, endpoint)| *endpoint)
    }

    /// The one method that it knows.
    pub(super) fn method(self) -> Method {
        match self {
            Self::Reload => Method::PUT,
            Self::StatusLeader | Self::StatusPeers | Self::RaftConfiguration => Method::GET,
        }
    }
}

/// Parses the path of a request line.
pub(super) fn parse(path: &str) -> Route<'_> {
    let decoded = match decode(path) {
        Ok(decoded) => decoded,
        Err(at) => {
            let end = (at + 3).min(path.len());
            return Route::BadEscape(String::from_utf8_lossy(&path.as_bytes()[at..end]).into());
        }
    };
    if !printable(&decoded) {
        return Route::Unprintable;
    }
    if let Some(clean) = clean(path) {
        return Route::Moved(clean);
    }
    route(decoded)
}

fn route(decoded: Cow<'_, [u8]>) -> Route<'_> {
    const KV: &[u8] = b"/v1/kv/";
    if decoded.starts_with(KV) {
        return Route::Kv(match decoded {
            Cow::Borrowed(path) => Cow::Borrowed(&path[KV.len()..]),
            Cow::Owned(mut path) => Cow::Owned(path.split_off(KV.len())),
        });
    }
    if let Some(endpoint) = Endpoint::of(&decoded) {
        return Route::Fixed(endpoint);
    }
    if let Some((family, rest)) = decoded.strip_prefix(b"/v1/").and_then(Family::of) {
        return match std::str::from_utf8(rest) {
            Ok(rest) => Route::Family(family, rest.to_owned()),
            Err(_) => Route::NotText,
        };
    }
    match &*decoded {
        b"/v1/txn" => Route::Txn,
        b"/v1/kv" => Route::Moved("/v1/kv/".into()),
        b"/" => Route::Root,
        other => Route::Unknown {
            v1: other.starts_with(b"/v1/"),
        },
    }
}

/// Undoes percent-encoding. `Err` is the offset of a `%` that two hexadecimal digits do not follow.
fn decode(path: &str) -> Result<Cow<'_, [u8]>, usize> {
    let bytes = path.as_bytes();
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|b| *b == b'%') {
        let at = from + at;
        let digits = bytes.get(at + 1..at + 3).ok_or(at)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(at);
        }
        from = at + 3;
    }
    Ok(match from {
        0 => Cow::Borrowed(bytes),
        _ => percent_encoding::percent_decode(bytes).into(),
    })
}

fn printable(path: &[u8]) -> bool {
    path.iter().all(|b| (b' '..=b'~').contains(b))
        || String::from_utf8_lossy(path).chars().all(is_print)
}

/// Go's `cleanPath`: `None` when the path is clean, otherwise what it should have been.
fn clean(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let dirty =
        bytes.first() != Some(&b'/') || bytes.windows(2).any(|pair| pair == b"//" || pair == b"/.");
    if !dirty {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if kept.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    (out != path).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str) -> Route<'static> {
        Route::Kv(Cow::Owned(key.as_bytes().to_vec()))
    }

    #[test]
    fn paths_name_keys_and_endpoints() {
        for (path, route) in [
            ("/v1/kv/a/b", kv("a/b")),
            ("/v1/kv/a%2Fb", kv("a/b")),
            ("/v1/kv/a%2F%2Fb", kv("a//b")),
            ("/v1/kv/a%20b%C3%A9", kv("a b\u{e9}")),
            ("/v1/kv/", kv("")),
            ("/v1/kv/dir/", kv("dir/")),
            ("/v1/kv/.hidden", kv(".hidden")),
            ("/v1/kv/a..b", kv("a..b")),
            ("/v1/kv/...", kv("...")),
            ("/v1/kv", Route::Moved("/v1/kv/".into())),
            ("/v1/kv//a", Route::Moved("/v1/kv/a".into())),
            ("/v1/kv/a//b/", Route::Moved("/v1/kv/a/b/".into())),
            ("/v1/kv/./a", Route::Moved("/v1/kv/a".into())),
            ("/v1/kv/a/../b", Route::Moved("/v1/kv/b".into())),
            ("/v1/kv/a/.", Route::Moved("/v1/kv/a".into())),
            ("/../../", Route::Moved("/".into())),
            ("/v1/kv/a%2F..%2F", kv("a/../")),
            ("/v1/kv/%00", Route::Unprintable),
            ("/v1/kv/a%0Ab", Route::Unprintable),
            ("/v1/kv/%C2%A0", Route::Unprintable),
            ("/v1/kv/100%", Route::BadEscape("%".into())),
            ("/v1/kv/%zz", Route::BadEscape("%zz".into())),
            ("/v1/status/leader", Route::Fixed(Endpoint::StatusLeader)),
            (
                "/v1/agent/service/a%2Fb",
                Route::Family(Family::Agent, "service/a/b".into()),
            ),
            ("/v1/catalog/node/%ff", Route::NotText),
            ("/v1/txn", Route::Txn),
            ("/v1/agent/reload", Route::Fixed(Endpoint::Reload)),
            ("/v%31/%61gent/reloa%64", Route::Fixed(Endpoint::Reload)),
            (
                "/v%31/a%63l/tokens",
                Route::Family(Family::Acl, "tokens".into()),
            ),
            ("/V1/agent/reload", Route::Unknown { v1: false }),
            ("/v1/Agent/reload", Route::Unknown { v1: true }),
            ("/", Route::Root),
            ("/v1/nothing", Route::Unknown { v1: true }),
            ("/ui/", Route::Unknown { v1: false }),
        ] {
            assert_eq!(parse(path), route, "{path}");
        }
    }

    #[test]
    fn a_plain_key_is_not_copied() {
        assert!(matches!(
            parse("/v1/kv/plain"),
            Route::Kv(Cow::Borrowed(b"plain"))
        ));
    }
}

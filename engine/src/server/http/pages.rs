//! How is a listing read a page at a time?
//!
//! `?limit=N&start-after=KEY`, with `?recurse` or `?keys`: Consul has neither, and its clients send
//! neither. A page is made whole before it leaves, because its header says where the next one
//! starts: [`NEXT`], absent on the last page. It ends at `limit` entries, or where its text reaches
//! [`PAGE_BYTES_MAX`], which bounds what a page costs whatever its limit. Each page is of its own
//! moment; its `X-Consul-Index` is that of the whole listing, so that a blocking query on a page
//! wakes for every change under the prefix.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use wire::limits::KEY_BYTES_MAX;

use super::{
    failure::Refusal,
    go_text::{parse_uint, quote},
    json::{self, Style},
    params::Params,
    reply::{Content, Reply},
    rows::Seen,
};
use crate::server::gateway::{RowBatch, RowStream};

/// The last entry of a page that is not the last one, as `start-after` takes it.
pub(super) const NEXT: HeaderName = HeaderName::from_static("x-curia-next");

/// Text of rows after which a page ends, bytes. It has at least one row, whatever its length.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// What a key is written with in a query string.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Which part of a listing is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Entries at most; `None`: no pages are asked for.
    limit: Option<u64>,
    /// Only what is greater; empty for all.
    pub(super) start_after: Bytes,
}

impl Page {
    /// The page of the listing of `prefix` that the parameters ask for.
    pub(super) fn parse(params: &Params<'_>, prefix: &[u8]) -> Result<Self, Refusal> {
        if params.limit.is_none() && params.start_after.is_none() {
            return Ok(Self::default());
        }
        if !params.recurse && !params.keys {
            return Err(Refusal::bad(
                "?limit and ?start-after are of listings: add ?recurse or ?keys",
            ));
        }
        let limit = match &params.limit {
            Some(text) => Some(parse_limit(text)?),
            None => None,
        };
        let start_after = match params.start_after {
            Some(text) => parse_start(text, prefix)?,
            None => Bytes::new(),
        };
        Ok(Self { limit, start_after })
    }

    /// Refuses parameters of pages where there is no listing: a delete deletes all that it names.
    pub(super) fn refuse(params: &Params<'_>) -> Result<(), Refusal> {
        let given = [
            ("limit", params.limit.is_some()),
            ("start-after", params.start_after.is_some()),
            ("watch", params.watch),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                let text = format!("?{name} is for reading only: nothing was changed");
                Err(Refusal::bad(text))
            }
            None => Ok(()),
        }
    }

    /// Entries to ask for, one more than the page holds, which says whether another follows; 0 for
    /// all there are.
    pub(super) fn wanted(&self) -> u64 {
        self.limit.map_or(0, |limit| limit.saturating_add(1))
    }

    /// Whether a page is asked for, and not all that there is.
    pub(super) fn is_bounded(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether an empty answer means the end of a listing, and not that there is none.
    pub(super) fn goes_on(&self) -> bool {
        !self.start_after.is_empty()
    }

    /// Cuts names to the page; the last one, if more follow.
    pub(super) fn cut<'k>(&self, names: &mut &'k [Bytes]) -> Option<&'k [u8]> {
        let limit = usize::try_from(self.limit?).ok()?;
        if names.len() <= limit {
            return None;
        }
        *names = &names[..limit];
        names.last().map(|last| &last[..])
    }

    /// The page of rows that begins with `first`.
    pub(super) async fn rows<R: RowStream>(
        &self,
        mut stream: R,
        first: R::Batch,
        style: Style,
        seen: &Seen,
    ) -> Result<Reply<R>, Refusal> {
        let limit = self.limit.unwrap_or(u64::MAX);
        let mut out = Vec::from(*b"[");
        let mut last = Bytes::new();
        let (mut rows, mut next) = (0, Some(first));
        let more = 'page: loop {
            let Some(batch) = next.take() else {
                break false;
            };
            let mut from = 0;
            while let Some(at) = seen.next(&batch, from) {
                from = at + 1;
                if rows == limit || out.len() >= PAGE_BYTES_MAX {
                    break 'page true;
                }
                let row = batch.row(at);
                json::row(&mut out, style, &row, rows == 0);
                rows += 1;
                if rows == limit || out.len() >= PAGE_BYTES_MAX {
                    last = Bytes::copy_from_slice(row.key);
                }
            }
            next = stream.next_batch().await.transpose()?;
        };
        style.end_array(&mut out, rows == 0);
        let reply = Reply::json(Content::Whole(out.into()));
        Ok(match more {
            true => with_next(reply, &last),
            false => reply,
        })
    }
}

/// The answer, with word of where the next page starts.
pub(super) fn with_next<R: RowStream>(reply: Reply<R>, last: &[u8]) -> Reply<R> {
    let text = percent_encode(last, UNRESERVED).to_string();
    let value = HeaderValue::try_from(text).expect("percent-encoded text is plain");
    reply.header(NEXT, value)
}

fn parse_limit(text: &str) -> Result<u64, Refusal> {
    match parse_uint(text) {
        Ok(limit) if limit > 0 => Ok(limit),
        _ => Err(Refusal::bad(format!(
            "Invalid limit {}: it must be a whole number greater than 0",
            quote(text)
        ))),
    }
}

/// A key from the query string, which may hold any bytes.
fn parse_start(text: &str, prefix: &[u8]) -> Result<Bytes, Refusal> {
    let spaced = match text.contains('+') {
        true => Cow::Owned(text.replace('+', " ")),
        false => Cow::Borrowed(text),
    };
    let key: Vec<u8> = percent_decode_str(&spaced).collect();
    if key.len() > KEY_BYTES_MAX {
        return Err(Refusal::bad(format!(
            "Invalid start-after: {} bytes are more than a key has, {KEY_BYTES_MAX}",
            key.len()
        )));
    }
    if !key.is_empty() && !key.starts_with(prefix) {
        return Err(Refusal::bad(format!(
            "Invalid start-after {}: it must begin with the listed prefix {}",
            quote(&String::from_utf8_lossy(&key)),
            quote(&String::from_utf8_lossy(prefix))
        )));
    }
    Ok(key.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str, prefix: &str) -> Result<Page, String> {
        let params = Params::parse(Some(query), "dc1").unwrap();
        Page::parse(&params, prefix.as_bytes()).map_err(|refusal| refusal.text.into_owned())
    }

    #[test]
    fn bad_pages_are_named() {
        let long = format!("keys&start-after={}", "k".repeat(KEY_BYTES_MAX + 1));
        for (query, text) in [
            (
                "limit=5",
                "?limit and ?start-after are of listings: add ?recurse or ?keys",
            ),
            (
                "start-after=a",
                "?limit and ?start-after are of listings: add ?recurse or ?keys",
            ),
            (
                "recurse&limit=0",
                "Invalid limit \"0\": it must be a whole number greater than 0",
            ),
            (
                "recurse&limit",
                "Invalid limit \"\": it must be a whole number greater than 0",
            ),
            (
                "keys&limit=-1",
                "Invalid limit \"-1\": it must be a whole number greater than 0",
            ),
            (
                "keys&limit=ten",
                "Invalid limit \"ten\": it must be a whole number greater than 0",
            ),
            (
                "keys&start-after=b",
                "Invalid start-after \"b\": it must begin with the listed prefix \"a/\"",
            ),
            (
                &long,
                "Invalid start-after: 8193 bytes are more than a key has, 8192",
            ),
        ] {
            assert_eq!(parse(query, "a/"), Err(text.to_owned()), "{query}");
        }
    }

    #[test]
    fn what_is_written_into_the_header_is_read_back_from_the_query() {
        let all: Vec<u8> = (0..=255).collect();
        for key in [&all[..], b"a/b c+d&e=f%25", b"plain/key-1_2.3~4"] {
            let text = percent_encode(key, UNRESERVED).to_string();
            assert!(HeaderValue::try_from(&text).is_ok());
            let page = parse(&format!("recurse&limit=3&start-after={text}"), "").unwrap();
            assert_eq!(page.start_after, key, "{text}");
            assert_eq!(page.wanted(), 4);
        }
        let plain = percent_encode(b"plain/key-1_2.3~4", UNRESERVED).to_string();
        assert_eq!(plain, "plain/key-1_2.3~4");
        let most = parse("keys&limit=18446744073709551615", "").unwrap();
        assert_eq!(most.wanted(), u64::MAX);
    }
}

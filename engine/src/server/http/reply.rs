//! How does an answer leave: headers, and a body that is nothing, whole, or a stream of rows?
//!
//! A stream is written as it is read, [`super::limits::ANSWER_PIECE_BYTES`] at a time, and the next piece is only
//! made when the socket has taken the last: a client that reads slowly costs one piece of memory,
//! not a listing. When the stream fails midway the connection is cut without the last chunk, so
//! that the client sees an incomplete answer and not a short one.

use std::{
    borrow::Cow,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use wire::ReadMode;

use super::{
    admission::Admitted,
    failure::Refusal,
    json::Style,
    rows::{Incomplete, RowsBody},
    serve::Serving,
    watch::EventsBody,
};
use crate::server::gateway::RowStream;

const X_CONSUL_INDEX: HeaderName = HeaderName::from_static("x-consul-index");
const X_CONSUL_KNOWN_LEADER: HeaderName = HeaderName::from_static("x-consul-knownleader");
const X_CONSUL_LAST_CONTACT: HeaderName = HeaderName::from_static("x-consul-lastcontact");
const X_CONSUL_EFFECTIVE_CONSISTENCY: HeaderName =
    HeaderName::from_static("x-consul-effective-consistency");
pub(super) const X_CONSUL_DEFAULT_ACL_POLICY: HeaderName =
    HeaderName::from_static("x-consul-default-acl-policy");

const X_CONSUL_FILTERED: HeaderName = HeaderName::from_static("x-consul-results-filtered-by-acls");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Consul's three headers of every read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) index: u64,
    pub(super) known_leader: bool,
    pub(super) last_contact_ms: u64,
}

/// Consul's word for a mode.
pub(super) fn level(mode: ReadMode) -> &'static str {
    match mode {
        ReadMode::Default => "leader",
        ReadMode::Consistent => "consistent",
        ReadMode::Stale => "stale",
    }
}

/// An answer under construction.
pub(super) struct Reply<R: RowStream> {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) content: Content<R>,
}

/// What an answer consists of.
pub(super) enum Content<R: RowStream> {
    Empty,
    Whole(Bytes),
    Rows(RowsBody<R>),
    Events(EventsBody),
}

impl<R: RowStream> Reply<R> {
    pub(super) fn new(status: StatusCode, content: Content<R>) -> Self {
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(
            X_CONSUL_DEFAULT_ACL_POLICY,
            HeaderValue::from_static("allow"),
        );
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        Self {
            status,
            headers,
            content,
        }
    }

    pub(super) fn json(content: Content<R>) -> Self {
        let mut reply = Self::new(StatusCode::OK, content);
        reply.headers.insert(header::CONTENT_TYPE, JSON);
        reply
    }

    /// `true` or `false`, and the index that decided it.
    pub(super) fn written(ok: bool, index: u64, style: Style) -> Self {
        let text = match (ok, style) {
            (true, Style::Compact) => "true",
            (true, Style::Pretty) => "true\n",
            (false, Style::Compact) => "false",
            (false, Style::Pretty) => "false\n",
        };
        let mut reply = Self::json(Content::Whole(Bytes::from_static(text.as_bytes())));
        reply
            .headers
            .insert(X_CONSUL_INDEX, HeaderValue::from(index));
        reply
    }

    /// A value as it is, which a browser must neither guess about nor run.
    pub(super) fn raw(value: Bytes) -> Self {
        let mut reply = Self::new(StatusCode::OK, Content::Whole(value));
        let headers = &mut reply.headers;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("sandbox"),
        );
        reply
    }

    pub(super) fn refusal(refusal: Refusal) -> Self {
        let content = match refusal.text {
            text if text.is_empty() => Content::Empty,
            text => Content::Whole(match text {
                Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
                Cow::Owned(text) => text.into(),
            }),
        };
        let mut reply = Self::new(refusal.status, content);
        reply.headers.insert(header::CONTENT_TYPE, TEXT);
        if let Some(seconds) = refusal.retry_after_s {
            reply
                .headers
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if refusal.close {
            reply
                .headers
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The index that a write got.
    pub(super) fn index(self, index: u64) -> Self {
        self.header(X_CONSUL_INDEX, HeaderValue::from(index))
    }

    /// Says that something was left out because its asker may not see it.
    pub(super) fn filtered(self, told: bool) -> Self {
        match told {
            true => self.header(X_CONSUL_FILTERED, HeaderValue::from_static("true")),
            false => self,
        }
    }

    /// Says how consistent the answer is, as some of Consul's endpoints do.
    pub(super) fn level(self, mode: ReadMode) -> Self {
        let level = HeaderValue::from_static(level(mode));
        self.header(X_CONSUL_EFFECTIVE_CONSISTENCY, level)
    }

    pub(super) fn meta(mut self, meta: Meta) -> Self {
        // A client that waits for "more than 0" would never wait.
        self.headers
            .insert(X_CONSUL_INDEX, HeaderValue::from(meta.index.max(1)));
        let known = if meta.known_leader { "true" } else { "false" };
        self.headers
            .insert(X_CONSUL_KNOWN_LEADER, HeaderValue::from_static(known));
        self.headers.insert(
            X_CONSUL_LAST_CONTACT,
            HeaderValue::from(meta.last_contact_ms),
        );
        self
    }

    /// Ready for hyper; `hold` is given back when the body has been taken.
    pub(super) fn into_response(self, hold: Hold) -> Response<ReplyBody<R>> {
        let mut response = Response::new(ReplyBody {
            content: self.content,
            _hold: hold,
        });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// What lasts until an answer's body has been taken.
pub(super) type Hold = (Serving, Option<Admitted>);

/// An answer's body, as hyper takes it.
pub(super) struct ReplyBody<R: RowStream> {
    content: Content<R>,
    _hold: Hold,
}

// Nothing in it is pinned in place: what must be is boxed.
impl<R: RowStream> Unpin for ReplyBody<R> {}

impl<R: RowStream> Body for ReplyBody<R> {
    type Data = Bytes;
    type Error = Incomplete;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Incomplete>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Rows(rows) => rows
                .poll_piece(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Content::Events(events) => events
                .poll_piece(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Rows(_) | Content::Events(_) => SizeHint::default(),
        }
    }
}

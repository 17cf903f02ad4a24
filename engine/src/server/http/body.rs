//! How is a request's body taken in, whole, within its limit?

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_lite::future::poll_fn;
use hyper::body::{Body, Incoming};

use super::{
    failure::Refusal,
    link::{Link, Phase},
};

/// How many bytes a body may turn out to have, for admission. A body that announces more than
/// `max` is refused before a byte of it is read, and before `100 Continue` asks for it.
pub(super) fn announced(body: &Incoming, max: usize) -> Result<usize, Refusal> {
    match body.size_hint().exact() {
        Some(length) if length > max as u64 => Err(Refusal::body_too_large(length, max)),
        Some(length) => Ok(length as usize),
        // Chunked: nobody knows, so it takes as much room as it may.
        None => Ok(max),
    }
}

/// Reads all of a body. The common case, one that arrived with its header, is not copied.
pub(super) async fn read(mut body: Incoming, link: &Link, max: usize) -> Result<Bytes, Refusal> {
    let mut whole = match next(&mut body, link).await? {
        None => return Ok(Bytes::new()),
        Some(first) if body.is_end_stream() && first.len() <= max => return Ok(first),
        Some(first) => {
            let length = body.size_hint().exact().unwrap_or(0) as usize;
            let mut whole = BytesMut::with_capacity(first.len() + length);
            whole.extend_from_slice(&first);
            whole
        }
    };
    while whole.len() <= max {
        match next(&mut body, link).await? {
            Some(more) => whole.extend_from_slice(&more),
            None => return Ok(whole.freeze()),
        }
    }
    Err(Refusal::body_too_large(whole.len() as u64, max))
}

/// The next piece; trailers are skipped.
async fn next(body: &mut Incoming, link: &Link) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(_)) if link.late_in() == Some(Phase::Body) => {
                return Err(Refusal::timeout("Request body was not received in time"));
            }
            Some(Err(error)) => {
                let text = format!("Request body is incomplete or malformed: {error}");
                return Err(Refusal {
                    close: true,
                    ..Refusal::bad(text)
                });
            }
        }
    }
}

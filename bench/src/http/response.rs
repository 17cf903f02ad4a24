//! Where does one HTTP response end, however its bytes arrive?
//!
//! Push style: the caller receives into [`ResponseReader::space`] and asks for the next response.
//! Bodies by `Content-Length` and chunked (etcd's gateway); a body that only ends with the
//! connection is refused, since a keep-alive load generator cannot use it.
//!
//! Invariant: the responses are the same for every split of the same bytes.

use crate::Error;

/// Longest accepted response head, bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest accepted body, bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const HEADERS_MAX: usize = 64;
const READ_BYTES: usize = 16 * 1024;

/// Bytes that are no HTTP/1.1 response that we can use. Final for the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable HTTP response: {0}")]
pub struct Malformed(String);

impl From<Malformed> for Error {
    fn from(e: Malformed) -> Self {
        Error::Server(e.to_string())
    }
}

/// One whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Decoded body.
    pub body: Vec<u8>,
    /// The server will close the connection after this.
    pub close: bool,
    /// `X-Consul-Index`; 0 where there is none.
    pub index: u64,
}

/// Cuts a byte stream into responses.
#[derive(Debug, Default)]
pub struct ResponseReader {
    buffer: Vec<u8>,
    filled: usize,
    spare_body: Vec<u8>,
}

struct Head {
    bytes: usize,
    status: u16,
    framing: Framing,
    close: bool,
    index: u64,
}

enum Framing {
    Length(usize),
    Chunked,
}

impl ResponseReader {
    /// Where to receive the next bytes; never empty. Follow with [`Self::received`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.buffer.len() - self.filled < READ_BYTES / 4 {
            let grown = (self.buffer.len() * 2).max(READ_BYTES);
            self.buffer.resize(grown, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// The first `n` bytes of [`Self::space`] were filled.
    pub fn received(&mut self, n: usize) {
        self.filled += n;
        assert!(self.filled <= self.buffer.len());
    }

    /// Whether bytes are held that belong to no whole response yet.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Forgets everything, for a new connection.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Gives a body's allocation back for reuse.
    pub fn recycle(&mut self, body: Vec<u8>) {
        self.spare_body = body;
    }

    /// The next whole response; `None` when more bytes are needed.
    pub fn next_response(&mut self) -> Result<Option<Response>, Malformed> {
        let bytes = &self.buffer[..self.filled];
        let Some(head) = parse_head(bytes)? else {
            return Ok(None);
        };
        let mut body = std::mem::take(&mut self.spare_body);
        body.clear();
        let rest = &bytes[head.bytes..];
        let consumed = match head.framing {
            Framing::Length(length) if rest.len() >= length => {
                body.extend_from_slice(&rest[..length]);
                Some(length)
            }
            Framing::Length(_) => None,
            Framing::Chunked => unchunk(rest, &mut body)?,
        };
        let Some(consumed) = consumed else {
            self.spare_body = body;
            return Ok(None);
        };
        let end = head.bytes + consumed;
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
        if (100..200).contains(&head.status) {
            return self.next_response();
        }
        Ok(Some(Response {
            status: head.status,
            body,
            close: head.close,
            index: head.index,
        }))
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(Malformed(format!("head of over {HEAD_BYTES_MAX} bytes")));
        }
        Err(e) => return Err(Malformed(e.to_string())),
    };
    let status = response.code.unwrap_or(0);
    let mut length = None;
    let mut chunked = false;
    let mut close = response.version == Some(0);
    let mut index = 0;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).unwrap_or("");
            let n: usize = text
                .trim()
                .parse()
                .map_err(|_| Malformed(format!("Content-Length {text:?}")))?;
            length = Some(n);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = header.value.eq_ignore_ascii_case(b"chunked");
        } else if header.name.eq_ignore_ascii_case("connection") {
            close = header.value.eq_ignore_ascii_case(b"close");
        } else if header.name.eq_ignore_ascii_case("x-consul-index") {
            let text = std::str::from_utf8(header.value).unwrap_or("");
            let wrong = |_| Malformed(format!("X-Consul-Index {text:?}"));
            index = text.trim().parse().map_err(wrong)?;
        }
    }
    let bodiless = status < 200 || status == 204 || status == 304;
    let framing = match (bodiless, chunked, length) {
        (true, ..) => Framing::Length(0),
        (_, true, _) => Framing::Chunked,
        (_, _, Some(n)) if n <= BODY_BYTES_MAX => Framing::Length(n),
        (_, _, Some(n)) => return Err(Malformed(format!("body of {n} bytes"))),
        _ => return Err(Malformed("neither Content-Length nor chunked".into())),
    };
    Ok(Some(Head {
        bytes: head_bytes,
        status,
        framing,
        close,
        index,
    }))
}

/// Decodes a chunked body (RFC 9112 §7.1) into `body`; returns its encoded length once whole.
fn unchunk(bytes: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, Malformed> {
    let mut at = 0;
    loop {
        let (line, size) = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete((line, size))) => (line, size),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed("bad chunk size".into())),
        };
        at += line;
        if size == 0 {
            return trailers_end(&bytes[at..]).map(|end| end.map(|n| at + n));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > BODY_BYTES_MAX - body.len() {
            return Err(Malformed("chunked body too long".into()));
        }
        if bytes.len() - at < size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&bytes[at..at + size]);
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Err(Malformed("chunk without its line end".into()));
        }
        at += size + 2;
    }
}

/// Length of the trailer section, its closing empty line included.
fn trailers_end(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::parse_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete((n, _))) => Ok(Some(n)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(e) => Err(Malformed(format!("bad trailer: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: 12\r\ncontent-length: 4\r\n\r\ntrue\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-T: 1\r\n\r\n\
        HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 17\r\n\r\nNo cluster leader";

    fn expected() -> Vec<(u16, &'static [u8], bool)> {
        vec![
            (200, b"true", false),
            (204, b"", false),
            (200, b"hello world", false),
            (500, b"No cluster leader", true),
        ]
    }

    fn feed(reader: &mut ResponseReader, bytes: &[u8], out: &mut Vec<Response>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = reader.space();
            let n = rest.len().min(space.len());
            space[..n].copy_from_slice(&rest[..n]);
            reader.received(n);
            rest = &rest[n..];
        }
        while let Some(response) = reader.next_response().unwrap() {
            out.push(response);
        }
    }

    fn check(responses: &[Response]) {
        let seen: Vec<_> = responses
            .iter()
            .map(|r| (r.status, r.body.as_slice(), r.close))
            .collect();
        assert_eq!(seen, expected());
    }

    #[test]
    fn every_split_in_two_gives_the_same_responses() {
        for cut in 0..=STREAM.len() {
            let (mut reader, mut out) = (ResponseReader::default(), Vec::new());
            feed(&mut reader, &STREAM[..cut], &mut out);
            feed(&mut reader, &STREAM[cut..], &mut out);
            check(&out);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn one_byte_at_a_time_gives_the_same_responses() {
        let (mut reader, mut out) = (ResponseReader::default(), Vec::new());
        for byte in STREAM {
            feed(&mut reader, std::slice::from_ref(byte), &mut out);
        }
        check(&out);
    }

    fn refused(bytes: &[u8]) -> String {
        let mut reader = ResponseReader::default();
        reader.space()[..bytes.len()].copy_from_slice(bytes);
        reader.received(bytes.len());
        reader.next_response().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_reason() {
        assert!(refused(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").contains("neither"));
        assert!(refused(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").contains("-1"));
        assert!(
            refused(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").contains("body of")
        );
        assert!(refused(b"SSH-2.0-OpenSSH\r\n").contains("not a usable"));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n";
        assert!(refused(chunked).contains("line end"));
        let endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFF\r\n";
        assert!(refused(endless).contains("too long"));
    }

    #[test]
    fn a_head_without_end_is_refused_at_its_bound() {
        let mut reader = ResponseReader::default();
        let mut sent = 0;
        let refused = loop {
            let line = b"X-Filler: 0123456789012345678901234567890123456789\r\n";
            let text: &[u8] = if sent == 0 {
                b"HTTP/1.1 200 OK\r\nX: "
            } else {
                &line[..1]
            };
            // One endless header value: the header count must not be what stops it.
            let text: &[u8] = if sent == 0 { text } else { &[b'x'; 1000] };
            let space = reader.space();
            let n = text.len().min(space.len());
            space[..n].copy_from_slice(&text[..n]);
            reader.received(n);
            sent += n;
            match reader.next_response() {
                Ok(None) => assert!(sent <= HEAD_BYTES_MAX + 1000),
                Ok(Some(r)) => panic!("{r:?}"),
                Err(e) => break e,
            }
        };
        assert!(refused.to_string().contains("head"), "{refused}");
    }
}

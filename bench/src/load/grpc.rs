//! How does etcd's own protocol look to the load generator?
//!
//! gRPC over HTTP/2, as much of it as unary `KV.Put` and `KV.Range` need: a client library would
//! bring an async runtime and spend the servers' CPU. Requests use indexed headers, so the server
//! decodes what a good client would send it. Answers are judged without decoding headers: gRPC
//! sends a message only on success, an error comes as trailers alone (gRPC over HTTP/2,
//! "Trailers-Only"). We announce a header table of size 0 and never look into a header block.
//!
//! ```text
//! 0        3      4       5          9
//! +--------+------+-------+----------+-----------+   RFC 9113 §4.1, big-endian
//! | length | type | flags | stream   | payload   |
//! | u24    | u8   | u8    | u31      |           |
//! +--------+------+-------+----------+-----------+
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::{Buf, BufMut, BytesMut};

use super::session::{Event, Session, Sessions, Verdict};
use super::{Consistency, Op};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
/// Largest frame a peer may send without our leave (RFC 9113 §6.5.2).
const FRAME_BYTES_MAX: usize = 16_384;
/// What a connection and a stream may carry before the server grants more.
const FIRST_WINDOW: i64 = 65_535;
/// Our own grant to the server, renewed when half of it is used.
const OUR_WINDOW: u32 = 1 << 30;
const READ_BYTES: usize = 64 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const PUT_PATH: &[u8] = b"/etcdserverpb.KV/Put";
const RANGE_PATH: &[u8] = b"/etcdserverpb.KV/Range";

/// etcd's KV service.
#[derive(Clone, Copy, Debug, Default)]
pub struct EtcdGrpc;

impl Sessions for EtcdGrpc {
    type Session = GrpcSession;

    fn session(&self, host: SocketAddr) -> GrpcSession {
        GrpcSession {
            authority: host.to_string(),
            buffer: BytesMut::new(),
            indexed_path: None,
            next_stream: 1,
            streams: HashMap::new(),
            window: FIRST_WINDOW,
            backlog: VecDeque::new(),
            received_data: 0,
            greeted: false,
            filled: 0,
        }
    }

    fn connections(&self, in_flight: usize) -> usize {
        // As few as for curia's frames, so that both servers see the same number of sockets.
        super::Frames.connections(in_flight)
    }
}

/// One HTTP/2 connection.
pub struct GrpcSession {
    authority: String,
    buffer: BytesMut,
    filled: usize,
    /// The path that the header table holds, once it holds anything.
    indexed_path: Option<&'static [u8]>,
    next_stream: u32,
    streams: HashMap<u32, Stream>,
    /// Bytes of DATA that the server still accepts on this connection.
    window: i64,
    /// DATA frames that wait for it.
    backlog: VecDeque<BytesMut>,
    received_data: u32,
    greeted: bool,
}

struct Stream {
    slot: u32,
    message: Vec<u8>,
}

impl GrpcSession {
    fn request(&mut self, slot: u32, path: &'static [u8], message: &[u8], out: &mut BytesMut) {
        let stream = self.next_stream;
        self.next_stream += 2;
        let message_body = Stream {
            slot,
            message: Vec::new(),
        };
        self.streams.insert(stream, message_body);
        let mut headers = BytesMut::with_capacity(128);
        self.headers(path, &mut headers);
        frame(HEADERS, END_HEADERS, stream, &headers, out);
        let mut body = BytesMut::with_capacity(message.len() + 5);
        body.put_u8(0);
        body.put_u32(message.len() as u32);
        body.extend_from_slice(message);
        // Longer messages are cut into frames; only the last one ends the stream.
        while body.len() > FRAME_BYTES_MAX {
            let part = body.split_to(FRAME_BYTES_MAX);
            self.data(0, stream, &part, out);
        }
        self.data(END_STREAM, stream, &body, out);
    }

    /// HPACK (RFC 7541): the first request fills the dynamic table, later ones refer to it.
    fn headers(&mut self, path: &'static [u8], out: &mut BytesMut) {
        out.put_slice(&[0x83, 0x86]); // :method POST, :scheme http
        match self.indexed_path {
            None => {
                // Literals with incremental indexing; the newest entry is number 62.
                literal(0x44, path, out); // :path
                literal(0x41, self.authority.as_bytes(), out); // :authority
                out.put_u8(0x40);
                string(b"te", out);
                string(b"trailers", out);
                out.put_u8(0x5f); // content-type, static entry 31
                string(b"application/grpc", out);
                self.indexed_path = Some(path);
            }
            Some(indexed) => {
                match indexed == path {
                    true => out.put_u8(0x80 | 65),
                    false => literal(0x04, path, out), // not indexed
                }
                out.put_slice(&[0x80 | 64, 0x80 | 63, 0x80 | 62]);
            }
        }
    }

    fn data(&mut self, flags: u8, stream: u32, payload: &[u8], out: &mut BytesMut) {
        let mut data = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        frame(DATA, flags, stream, payload, &mut data);
        self.backlog.push_back(data);
        self.send_backlog(out);
    }

    fn send_backlog(&mut self, out: &mut BytesMut) {
        while let Some(front) = self.backlog.front() {
            let cost = (front.len() - HEADER_BYTES) as i64;
            if cost > self.window {
                return;
            }
            self.window -= cost;
            out.extend_from_slice(front);
            self.backlog.pop_front();
        }
    }

    /// One whole frame, if there is one.
    fn next_frame(&mut self) -> Result<Option<(u8, u8, u32, BytesMut)>, String> {
        let bytes = &self.buffer[..self.filled];
        if bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        let length = (u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(format!("an HTTP/2 frame of {length} bytes"));
        }
        if bytes.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let (kind, flags) = (bytes[3], bytes[4]);
        let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
        self.filled -= HEADER_BYTES + length;
        let mut frame = self.buffer.split_to(HEADER_BYTES + length);
        frame.advance(HEADER_BYTES);
        Ok(Some((kind, flags, stream, frame)))
    }

    fn ended(&mut self, stream: u32, op: Op) -> Option<Event> {
        let stream = self.streams.remove(&stream)?;
        let verdict = judge(op, &stream.message);
        Some(Event::Answer {
            slot: stream.slot,
            verdict,
        })
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        op: Op,
        out: &mut BytesMut,
    ) -> Result<Option<Event>, String> {
        match kind {
            DATA => {
                if flags & PADDED != 0 {
                    return Err("padded HTTP/2 data".into());
                }
                self.received_data += payload.len() as u32;
                if self.received_data > OUR_WINDOW / 2 {
                    frame(WINDOW_UPDATE, 0, 0, &self.received_data.to_be_bytes(), out);
                    self.received_data = 0;
                }
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.message.extend_from_slice(payload);
                }
            }
            SETTINGS if flags & ACK == 0 => {
                frame(SETTINGS, ACK, 0, &[], out);
                if !self.greeted {
                    self.greeted = true;
                    return Ok(Some(Event::Ready));
                }
            }
            PING if flags & ACK == 0 => frame(PING, ACK, 0, payload, out),
            WINDOW_UPDATE if stream == 0 => {
                let bytes = payload.try_into().map_err(|_| "a bad window update")?;
                self.window += i64::from(u32::from_be_bytes(bytes) & 0x7fff_ffff);
                self.send_backlog(out);
            }
            RST_STREAM => {
                if let Some(stream) = self.streams.remove(&stream) {
                    let code = payload.last().copied().unwrap_or(0);
                    let verdict = Verdict::Failed(format!("stream reset, code {code}"));
                    return Ok(Some(Event::Answer {
                        slot: stream.slot,
                        verdict,
                    }));
                }
            }
            GOAWAY => return Ok(Some(Event::Close)),
            PUSH_PROMISE => return Err("a push that was never allowed".into()),
            _ => {}
        }
        match matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            true => Ok(self.ended(stream, op)),
            false => Ok(None),
        }
    }
}

impl Session for GrpcSession {
    fn greet(&mut self, out: &mut BytesMut) -> bool {
        out.put_slice(PREFACE);
        let mut settings = BytesMut::new();
        // Header table size 0, no push, and streams that may carry as much as the connection.
        for (id, value) in [(1u16, 0u32), (2, 0), (4, OUR_WINDOW)] {
            settings.put_u16(id);
            settings.put_u32(value);
        }
        frame(SETTINGS, 0, 0, &settings, out);
        frame(WINDOW_UPDATE, 0, 0, &OUR_WINDOW.to_be_bytes(), out);
        false
    }

    fn put(&mut self, slot: u32, key: &[u8], value: &[u8], out: &mut BytesMut) {
        let mut message = BytesMut::with_capacity(key.len() + value.len() + 12);
        field(1, key, &mut message);
        field(2, value, &mut message);
        self.request(slot, PUT_PATH, &message, out);
    }

    fn get(&mut self, slot: u32, key: &[u8], consistency: Consistency, out: &mut BytesMut) {
        let mut message = BytesMut::with_capacity(key.len() + 8);
        field(1, key, &mut message);
        if consistency == Consistency::Stale {
            message.put_slice(&[7 << 3, 1]); // serializable = true
        }
        self.request(slot, RANGE_PATH, &message, out);
    }

    fn space(&mut self) -> &mut [u8] {
        if self.buffer.len() - self.filled < READ_BYTES / 4 {
            self.buffer.resize(self.filled + READ_BYTES, 0);
        }
        &mut self.buffer[self.filled..]
    }

    fn received(&mut self, n: usize) {
        self.filled += n;
    }

    fn next(&mut self, op: Op, out: &mut BytesMut) -> Result<Option<Event>, String> {
        while let Some((kind, flags, stream, payload)) = self.next_frame()? {
            if let Some(event) = self.take(kind, flags, stream, &payload, op, out)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut BytesMut) {
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(payload);
}

/// A header whose name is a static entry in `prefix`, its value literal.
fn literal(prefix: u8, value: &[u8], out: &mut BytesMut) {
    out.put_u8(prefix);
    string(value, out);
}

/// An HPACK string, not Huffman coded; ours are all shorter than 127 bytes.
fn string(text: &[u8], out: &mut BytesMut) {
    assert!(text.len() < 127, "needs a longer length");
    out.put_u8(text.len() as u8);
    out.put_slice(text);
}

/// A protobuf field of bytes.
fn field(number: u8, bytes: &[u8], out: &mut BytesMut) {
    out.put_u8(number << 3 | 2);
    let mut length = bytes.len();
    while length > 127 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.put_slice(bytes);
}

/// `message` with gRPC's five-byte prefix; empty if the server sent trailers only.
fn judge(op: Op, message: &[u8]) -> Verdict {
    match (op, message.get(5..)) {
        (_, None) => Verdict::Failed("gRPC error".into()),
        (Op::Put, Some(_)) => Verdict::Done,
        (Op::Get, Some(range)) if has_rows(range) => Verdict::Done,
        (Op::Get, Some(_)) => Verdict::Failed("key not found".into()),
    }
}

/// Whether a RangeResponse has `kvs` (field 2) behind its header (field 1).
fn has_rows(mut range: &[u8]) -> bool {
    while let [tag, length, rest @ ..] = range {
        match tag {
            0x12 => return true,
            // The header is far shorter than 128 bytes: one byte of length.
            0x0a if *length < 128 && rest.len() >= usize::from(*length) => {
                range = &rest[usize::from(*length)..];
            }
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> GrpcSession {
        let mut session = EtcdGrpc.session("127.0.0.1:2379".parse().unwrap());
        let mut out = BytesMut::new();
        assert!(!session.greet(&mut out));
        assert!(out.starts_with(PREFACE));
        session
    }

    fn feed(session: &mut GrpcSession, bytes: &[u8]) {
        session.space()[..bytes.len()].copy_from_slice(bytes);
        session.received(bytes.len());
    }

    fn answer(stream: u32, message: Option<&[u8]>) -> BytesMut {
        let mut out = BytesMut::new();
        if let Some(message) = message {
            frame(HEADERS, END_HEADERS, stream, b"\x88", &mut out);
            let mut body = vec![0, 0, 0, 0, message.len() as u8];
            body.extend_from_slice(message);
            frame(DATA, 0, stream, &body, &mut out);
        }
        frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x88", &mut out);
        out
    }

    #[test]
    fn the_first_request_fills_the_header_table_and_the_second_uses_it() {
        let mut session = session();
        let mut first = BytesMut::new();
        session.put(0, b"k", b"v", &mut first);
        assert!(first.windows(PUT_PATH.len()).any(|w| w == PUT_PATH));
        assert!(first.ends_with(b"\0\0\x0b\0\x01\0\0\0\x01\0\0\0\0\x06\x0a\x01k\x12\x01v"));
        let mut second = BytesMut::new();
        session.put(1, b"k", b"v", &mut second);
        assert!(second.starts_with(b"\0\0\x06\x01\x04\0\0\0\x03\x83\x86\xc1\xc0\xbf\xbe"));
    }

    #[test]
    fn answers_split_at_every_byte_find_their_slots() {
        let mut stream = BytesMut::new();
        frame(SETTINGS, 0, 0, &[], &mut stream);
        frame(PING, 0, 0, b"12345678", &mut stream);
        stream.extend_from_slice(&answer(3, Some(b"\x0a\x02\x08\x01")));
        stream.extend_from_slice(&answer(1, None));
        for cut in 0..=stream.len() {
            let (mut session, mut out) = (session(), BytesMut::new());
            session.put(10, b"k", b"v", &mut out);
            session.put(20, b"k", b"v", &mut out);
            out.clear();
            let mut events = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                feed(&mut session, part);
                while let Some(event) = session.next(Op::Put, &mut out).unwrap() {
                    events.push(event);
                }
            }
            let failed = Verdict::Failed("gRPC error".into());
            let expected = [
                Event::Ready,
                Event::Answer {
                    slot: 20,
                    verdict: Verdict::Done,
                },
                Event::Answer {
                    slot: 10,
                    verdict: failed,
                },
            ];
            assert_eq!(events, expected);
            assert!(
                out.ends_with(b"\0\0\x08\x06\x01\0\0\0\x0012345678"),
                "the ping is answered"
            );
        }
    }

    #[test]
    fn data_waits_for_the_servers_window() {
        let (mut session, mut out) = (session(), BytesMut::new());
        let value = vec![b'x'; 40_000];
        session.put(0, b"k", &value, &mut out);
        let one = out.len();
        session.put(1, b"k", &value, &mut out);
        assert!(
            out.len() < 2 * one - 10_000,
            "the second request does not fit into 65,535 bytes"
        );
        let mut grant = BytesMut::new();
        frame(WINDOW_UPDATE, 0, 0, &50_000u32.to_be_bytes(), &mut grant);
        feed(&mut session, &grant);
        session.next(Op::Put, &mut out).unwrap();
        // The header block of the first request is the longer one.
        assert!(out.len() > 2 * one - 100);
    }

    #[test]
    fn a_range_without_rows_is_not_found() {
        let header = b"\0\0\0\0\x04\x0a\x02\x08\x01";
        assert_ne!(judge(Op::Get, header), Verdict::Done);
        let found = b"\0\0\0\0\x08\x0a\x02\x08\x01\x12\x02\x0a\x00";
        assert_eq!(judge(Op::Get, found), Verdict::Done);
    }
}

//! How does curia's native frame protocol look to the load generator?
//!
//! Few connections, many requests in flight on each, one Propose or Query frame for each request
//! and one Reply frame back under the same request id. This is the protocol without a client
//! library around it: what is measured is the servers, and the least that a client must do.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use wire::{
    Frame, FrameDecoder, FrameKind, Hello, Index, KvCommand, KvVerb, Query, QueryBody, ReadMode,
    Reply, ReplyBody, RequestId, Role, ShardId, encode_propose_frame, limits,
};

use super::session::{Event, Session, Sessions, Verdict};
use super::{Consistency, Op};

/// Requests in flight for which a connection of their own is worth it.
const SLOTS_PER_CONNECTION: usize = 64;
/// Most connections.
const CONNECTIONS_MAX: usize = 4;

/// The native protocol, to clusters of one shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames;

impl Sessions for Frames {
    type Session = FrameSession;

    fn session(&self, _: SocketAddr) -> FrameSession {
        FrameSession {
            decoder: FrameDecoder::new(limits::FRAME_BYTES_MAX),
            greeted: false,
        }
    }

    fn connections(&self, in_flight: usize) -> usize {
        (in_flight / SLOTS_PER_CONNECTION).clamp(1, CONNECTIONS_MAX)
    }
}

/// One connection.
pub struct FrameSession {
    decoder: FrameDecoder,
    greeted: bool,
}

impl FrameSession {
    fn push(kind: FrameKind, request: RequestId, payload: Bytes, out: &mut BytesMut) {
        let frame = Frame {
            kind,
            shard: ShardId(0),
            request,
            flags: 0,
            payload,
            blob: Bytes::new(),
        };
        frame.encode(out);
    }
}

impl Session for FrameSession {
    fn greet(&mut self, out: &mut BytesMut) -> bool {
        let hello = Hello {
            protocol: limits::PROTOCOL_VERSION,
            role: Role::Client,
            name: "curia-bench".into(),
            ..Hello::default()
        };
        Self::push(FrameKind::Hello, RequestId(0), hello.encode(), out);
        false
    }

    fn put(&mut self, slot: u32, key: &[u8], value: &[u8], out: &mut BytesMut) {
        let command = KvCommand {
            verb: KvVerb::Set,
            key,
            value,
            flags: 0,
            index: 0,
            session: &[],
        };
        encode_propose_frame(ShardId(0), request_id(slot), &command, out);
    }

    fn get(&mut self, slot: u32, key: &[u8], consistency: Consistency, out: &mut BytesMut) {
        let query = Query {
            mode: match consistency {
                Consistency::Default => ReadMode::Default,
                Consistency::Consistent => ReadMode::Consistent,
                Consistency::Stale => ReadMode::Stale,
            },
            min_index: Index(0),
            wait: wire::Wait::default(),
            body: QueryBody::KvGet {
                key: Bytes::copy_from_slice(key),
            },
        };
        Self::push(FrameKind::Query, request_id(slot), query.encode(), out);
    }

    fn space(&mut self) -> &mut [u8] {
        self.decoder.space()
    }

    fn received(&mut self, n: usize) {
        self.decoder.received(n);
    }

    fn next(&mut self, op: Op, _: &mut BytesMut) -> Result<Option<Event>, String> {
        let Some(frame) = self.decoder.next_frame().map_err(|e| e.to_string())? else {
            return Ok(None);
        };
        match (frame.kind, self.greeted) {
            (FrameKind::Hello, false) => {
                let hello = Hello::decode(&frame.payload).map_err(|e| e.to_string())?;
                if hello.protocol != limits::PROTOCOL_VERSION {
                    return Err(format!("the server speaks protocol {}", hello.protocol));
                }
                self.greeted = true;
                Ok(Some(Event::Ready))
            }
            (FrameKind::Reply, true) => {
                let slot = frame
                    .request
                    .0
                    .checked_sub(1)
                    .and_then(|n| u32::try_from(n).ok());
                let slot = slot.ok_or_else(|| format!("an answer to request {}", frame.request))?;
                let reply = Reply::decode(&frame.payload).map_err(|e| e.to_string())?;
                let verdict = judge(op, reply);
                Ok(Some(Event::Answer { slot, verdict }))
            }
            (kind, _) => Err(format!("an unexpected frame of kind {kind:?}")),
        }
    }
}

/// Request ids begin at 1: 0 means none.
fn request_id(slot: u32) -> RequestId {
    RequestId(u64::from(slot) + 1)
}

fn judge(op: Op, reply: Reply) -> Verdict {
    match (op, reply.body) {
        (Op::Put, ReplyBody::Written { ok: true, .. }) => Verdict::Done,
        (Op::Get, ReplyBody::Rows(rows)) if rows.len() == 1 => Verdict::Done,
        (Op::Get, ReplyBody::Rows(_)) => Verdict::Failed("key not found".into()),
        (_, ReplyBody::Failed(failure)) => Verdict::Failed(format!("{:?}", failure.kind)),
        (_, other) => Verdict::Failed(
            format!("unexpected reply {other:?}")
                .chars()
                .take(80)
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Command, Failure, FailureKind, KvRow};

    fn reply(body: ReplyBody) -> Reply {
        Reply {
            index: Index(7),
            known_leader: true,
            last_contact_ms: 0,
            more: false,
            body,
        }
    }

    fn feed(session: &mut FrameSession, bytes: &[u8]) {
        for byte in bytes {
            session.space()[0] = *byte;
            session.received(1);
        }
    }

    fn decoded(out: &BytesMut) -> Frame {
        let mut decoder = FrameDecoder::new(limits::CLIENT_FRAME_BYTES_MAX);
        decoder.space()[..out.len()].copy_from_slice(out);
        decoder.received(out.len());
        decoder.next_frame().unwrap().unwrap()
    }

    fn greeted() -> FrameSession {
        let mut session = Frames.session("127.0.0.1:1".parse().unwrap());
        let mut out = BytesMut::new();
        assert!(!session.greet(&mut out));
        let hello = Hello::decode(&decoded(&out).payload).unwrap();
        assert_eq!(hello.role, Role::Client);
        feed(&mut session, &out);
        assert_eq!(session.next(Op::Put, &mut out), Ok(Some(Event::Ready)));
        session
    }

    #[test]
    fn a_write_travels_as_the_command_it_is() {
        let (mut session, mut out) = (greeted(), BytesMut::new());
        session.put(41, b"key", b"value", &mut out);
        let frame = decoded(&out);
        assert_eq!(
            (frame.kind, frame.request),
            (FrameKind::Propose, RequestId(42))
        );
        let Command::Kv(command) = Command::decode(&frame.payload).unwrap() else {
            panic!("not a KV command");
        };
        assert_eq!((command.key, command.value), (&b"key"[..], &b"value"[..]));
    }

    #[test]
    fn answers_find_their_slot_and_only_a_yes_is_a_commit() {
        let (mut session, mut out) = (greeted(), BytesMut::new());
        let failure = Failure {
            kind: FailureKind::OutcomeUnknown,
            message: String::new(),
            leader: String::new(),
            retry_after_ms: 0,
        };
        let cases = [
            (
                ReplyBody::Written {
                    ok: true,
                    index: Index(9),
                },
                Verdict::Done,
            ),
            (
                ReplyBody::Failed(failure),
                Verdict::Failed("OutcomeUnknown".into()),
            ),
        ];
        for (body, verdict) in cases {
            out.clear();
            FrameSession::push(
                FrameKind::Reply,
                RequestId(42),
                reply(body).encode(),
                &mut out,
            );
            let bytes = out.split();
            feed(&mut session, &bytes);
            let answer = Event::Answer { slot: 41, verdict };
            assert_eq!(session.next(Op::Put, &mut out), Ok(Some(answer)));
        }
        assert_ne!(
            judge(
                Op::Put,
                reply(ReplyBody::Written {
                    ok: false,
                    index: Index(0)
                })
            ),
            Verdict::Done
        );
        assert_ne!(
            judge(Op::Put, reply(ReplyBody::Rows(Vec::new()))),
            Verdict::Done
        );
        assert_ne!(
            judge(Op::Get, reply(ReplyBody::Rows(Vec::<KvRow>::new()))),
            Verdict::Done
        );
    }

    #[test]
    fn a_frame_before_the_greeting_or_to_no_request_ends_the_connection() {
        let mut out = BytesMut::new();
        let body = ReplyBody::Written {
            ok: true,
            index: Index(1),
        };
        FrameSession::push(
            FrameKind::Reply,
            RequestId(0),
            reply(body).encode(),
            &mut out,
        );
        let bytes = out.split();
        let mut fresh = Frames.session("127.0.0.1:1".parse().unwrap());
        for session in [&mut fresh, &mut greeted()] {
            feed(session, &bytes);
            assert!(session.next(Op::Put, &mut out).is_err());
        }
    }
}

//! Does each request of a native client end once, and is no write made twice or lost in silence?
//!
//! A script of requests, connections that carry as much as it says, answers of a server that
//! answers what it has seen, out of order or with any bytes, and time that passes. Each ticket
//! ends exactly once per time it was made; a write is handed back to be made again only if no
//! server can have seen the whole of it, or one said that it was not the leader.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use engine::client::doors::{Conversation, Ended};
use wire::{
    Failure, FailureKind, Frame, FrameDecoder, FrameKind, Hello, Index, Reply, ReplyBody,
    RequestId, ShardId,
};

use crate::feed::Feed;

const STEPS_MAX: usize = 200;

/// The far end of a connection.
#[derive(Default)]
struct Far {
    decoder: FrameDecoder,
    /// Requests seen whole: number, ticket, and whether it is a write.
    open: Vec<(RequestId, u32, bool)>,
}

struct Script {
    client: Conversation,
    far: Option<Far>,
    /// Tickets in flight: whether it is a write, and what became of it so far.
    flights: BTreeMap<u32, Flight>,
    /// Writes of which was said that they did not happen, and that were not refused.
    unmade: BTreeSet<u32>,
    next_ticket: u32,
}

struct Flight {
    is_write: bool,
    seen_whole: bool,
    refused: bool,
}

/// Converses.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let mut script = Script {
        client: Conversation::new(),
        far: None,
        flights: BTreeMap::new(),
        unmade: BTreeSet::new(),
        next_ticket: 0,
    };
    for _ in 0..STEPS_MAX {
        if feed.is_empty() {
            break;
        }
        script.step(&mut feed);
    }
    let mut ended = Vec::new();
    if script.far.take().is_some() {
        script.client.disconnected(&mut ended);
    }
    script.client.pass(1 << 40, &mut ended);
    script.end(&ended);
    assert!(script.client.is_idle());
    assert!(script.flights.is_empty(), "some never ended");
}

impl Script {
    fn step(&mut self, feed: &mut Feed<'_>) {
        let mut ended = Vec::new();
        match feed.below(10) {
            0 | 1 => {
                self.next_ticket += 1;
                let (ticket, is_write) = (self.next_ticket, feed.flag());
                let wait_ms = feed.below(2000) as u64 + 1;
                let key = ticket.to_le_bytes();
                match is_write {
                    true => self.client.put(ticket, &key, wait_ms),
                    false => self.client.get(ticket, &key, wait_ms),
                }
                let flight = Flight {
                    is_write,
                    seen_whole: false,
                    refused: false,
                };
                self.flights.insert(ticket, flight);
            }
            2 => {
                if self.far.is_none() {
                    self.client.connected();
                    self.far = Some(Far::default());
                    if feed.flag() {
                        self.receive(
                            &frame(FrameKind::Hello, RequestId(0), Hello::default().encode()),
                            &mut ended,
                        );
                    }
                }
            }
            3 | 4 => self.send(feed.below(200)),
            5 | 6 => self.answer(feed, &mut ended),
            7 => self.client.pass(feed.below(1500) as u64, &mut ended),
            8 => {
                if self.far.is_some() && feed.byte() < 64 {
                    self.far = None;
                    self.client.disconnected(&mut ended);
                }
            }
            _ => {
                let bytes = match feed.flag() {
                    true => feed.bytes(60).to_vec(),
                    false => {
                        let hello = Hello::default().encode();
                        frame(FrameKind::Hello, RequestId(0), hello)
                    }
                };
                self.receive(&bytes, &mut ended);
            }
        }
        self.end(&ended);
    }

    /// So many bytes leave and arrive.
    fn send(&mut self, n: usize) {
        let Some(far) = &mut self.far else {
            return;
        };
        let bytes = self.client.to_send();
        let n = n.min(bytes.len());
        let space = far.decoder.space();
        assert!(space.len() >= 200);
        space[..n].copy_from_slice(&bytes[..n]);
        far.decoder.received(n);
        self.client.sent(n);
        while let Some(frame) = far
            .decoder
            .next_frame()
            .expect("the client speaks the protocol")
        {
            let is_write = match frame.kind {
                FrameKind::Propose => true,
                FrameKind::Query => false,
                kind => {
                    assert_eq!(kind, FrameKind::Hello);
                    continue;
                }
            };
            let ticket = ticket_of(&frame);
            // One that had begun to leave when its time was over leaves whole.
            let Some(flight) = self.flights.get_mut(&ticket) else {
                assert!(
                    !self.unmade.contains(&ticket),
                    "it was said not to have happened"
                );
                continue;
            };
            assert!(!flight.seen_whole || !is_write, "a write left twice");
            flight.seen_whole = true;
            far.open.push((frame.request, ticket, is_write));
        }
    }

    fn answer(&mut self, feed: &mut Feed<'_>, ended: &mut Vec<(u32, Ended)>) {
        let Some(far) = &mut self.far else {
            return;
        };
        if far.open.is_empty() {
            return;
        }
        let (number, ticket, is_write) = far.open.remove(feed.below(far.open.len()));
        let kind = feed.below(6);
        let body = match kind {
            0 => ReplyBody::Failed(Failure {
                kind: FailureKind::NotLeader,
                message: "another leads".into(),
                retry_after_ms: 0,
                leader: String::new(),
            }),
            _ if is_write => ReplyBody::Written {
                ok: true,
                index: Index(1),
            },
            _ => ReplyBody::Rows(Vec::new()),
        };
        if kind == 0
            && let Some(flight) = self.flights.get_mut(&ticket)
        {
            flight.refused = true;
        }
        let reply = Reply {
            index: Index(1),
            known_leader: true,
            last_contact_ms: 0,
            more: kind == 1 && !is_write,
            body,
        };
        if reply.more {
            far.open.push((number, ticket, is_write));
        }
        self.receive(&frame(FrameKind::Reply, number, reply.encode()), ended);
    }

    fn receive(&mut self, bytes: &[u8], ended: &mut Vec<(u32, Ended)>) {
        if self.far.is_some() && self.client.received(bytes, ended).is_err() {
            self.far = None;
            self.client.disconnected(ended);
        }
        if self.far.is_some() && self.client.is_drained() {
            self.far = None;
            self.client.disconnected(ended);
        }
    }

    fn end(&mut self, ended: &[(u32, Ended)]) {
        for (ticket, how) in ended {
            let flight = self.flights.remove(ticket).expect("a request ended twice");
            let happened = flight.is_write && flight.seen_whole && !flight.refused;
            match how {
                Ended::Again | Ended::TimedOut => {
                    assert!(!happened, "{how:?}, of a write that a server has");
                    if flight.is_write && !flight.refused {
                        self.unmade.insert(*ticket);
                    }
                }
                Ended::Answered => assert!(flight.seen_whole, "an answer to nothing"),
                Ended::Unknown => assert!(flight.is_write),
            }
        }
    }
}

fn frame(kind: FrameKind, request: RequestId, payload: Bytes) -> Vec<u8> {
    let mut out = BytesMut::new();
    let frame = Frame {
        kind,
        shard: ShardId(0),
        request,
        flags: 0,
        payload,
        blob: Bytes::new(),
    };
    frame.encode(&mut out);
    out.to_vec()
}

fn ticket_of(frame: &Frame) -> u32 {
    let key = match frame.kind {
        FrameKind::Propose => match wire::Command::decode(&frame.payload) {
            Ok(wire::Command::Kv(kv)) => kv.key.to_vec(),
            other => panic!("{other:?}"),
        },
        _ => match wire::Query::decode(&frame.payload)
            .expect("the client's own")
            .body
        {
            wire::QueryBody::KvGet { key } => key.to_vec(),
            other => panic!("{other:?}"),
        },
    };
    u32::from_le_bytes(key.try_into().expect("4 bytes"))
}

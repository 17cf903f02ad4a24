//! What is in flight, and what may be sent again when the connection is lost?
//!
//! Sans-io: bytes out, bytes in, time passed in. One session outlives its connections. Requests
//! become frames at once and wait in one buffer; positions in that stream of frames, counted over
//! the session's life, tell which of them have begun to leave.
//!
//! ```text
//!            sent                    queued         positions in the stream
//!   ----------+-----------------------+
//!     left    |  buffer: not yet sent |             a frame that begins before `sent` has left
//!   ----------+-----------------------+
//! ```
//!
//! When a connection is lost, a write that has left ends in `OutcomeUnknown`, a read that has left
//! is handed back to be made again, and what has not left stays where it is for the next
//! connection. A request whose time is up before it left is cut out of the buffer: its caller is
//! told that nothing happened, so it must never leave.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use ahash::AHashMap;
use bytes::{Buf, Bytes, BytesMut};
use wire::{
    FailureKind, Frame, FrameDecoder, FrameKind, Hello, Reply, ReplyBody, RequestId, ShardId,
    WireError,
};

use super::{ClientError, error::Lost, requests::Request};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered.
    Reply(Reply),
    /// It failed for good.
    Failed(ClientError),
    /// Nothing happened; it is to be made again, while its time lasts.
    Again,
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Event<T> {
    /// The server introduced itself.
    Hello(Box<Hello>),
    /// A request ended.
    Ended(T, Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection.
    Down,
    /// Our Hello goes out, theirs is awaited.
    Greeting,
    /// Requests go out.
    Open,
    /// Nothing more goes out; answers are awaited before the connection is given up.
    Draining,
}

/// A request in flight. `T` is what its caller knows it by.
struct Flight<T> {
    ticket: T,
    is_write: bool,
    begins_at: u64,
    made_at: Instant,
    deadline: Instant,
    /// Pieces of a long answer that have come.
    pieces: Option<ReplyBody>,
    pieces_bytes: usize,
}

/// The requests of one client and their way to the server.
pub(crate) struct Session<T> {
    phase: Phase,
    hello: Bytes,
    greeting: Bytes,
    buffer: BytesMut,
    /// Frames in the buffer that have not begun to leave: number and position.
    waiting: VecDeque<(RequestId, u64)>,
    queued: u64,
    sent: u64,
    flights: AHashMap<RequestId, Flight<T>>,
    /// How many of `flights` have left.
    left: usize,
    decoder: FrameDecoder,
    heard_at: Option<Instant>,
    last_request: u64,
    answer_bytes_max: usize,
    /// Who leads instead, as far as known; why the connection is being drained.
    elsewhere: String,
}

impl<T> fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("phase", &self.phase)
            .field("in_flight", &self.flights.len())
            .field("left", &self.left)
            .field("to_send", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl<T> Session<T> {
    /// A session without a connection.
    pub(crate) fn new(hello: &Hello, answer_bytes_max: usize) -> Self {
        let mut bytes = BytesMut::new();
        let frame = Frame {
            kind: FrameKind::Hello,
            shard: ShardId(0),
            request: RequestId(0),
            flags: 0,
            payload: hello.encode(),
            blob: Bytes::new(),
        };
        frame.encode(&mut bytes);
        Self {
            phase: Phase::Down,
            hello: bytes.freeze(),
            greeting: Bytes::new(),
            buffer: BytesMut::new(),
            waiting: VecDeque::new(),
            queued: 0,
            sent: 0,
            flights: AHashMap::new(),
            left: 0,
            decoder: FrameDecoder::default(),
            heard_at: None,
            last_request: 0,
            answer_bytes_max,
            elsewhere: String::new(),
        }
    }

    /// Takes a request in. It leaves when there is a connection and its turn comes.
    pub(crate) fn make<R: Request>(
        &mut self,
        request: &R,
        ticket: T,
        now: Instant,
        deadline: Instant,
    ) {
        self.last_request += 1;
        let number = RequestId(self.last_request);
        let before = self.buffer.len();
        request.encode(number, &mut self.buffer);
        let flight = Flight {
            ticket,
            is_write: R::IS_WRITE,
            begins_at: self.queued,
            made_at: now,
            deadline,
            pieces: None,
            pieces_bytes: 0,
        };
        self.waiting.push_back((number, self.queued));
        self.queued += (self.buffer.len() - before) as u64;
        self.flights.insert(number, flight);
    }

    /// Whether any request is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// A connection is being made: our Hello is to go out first.
    pub(crate) fn connected(&mut self) {
        debug_assert_eq!(self.phase, Phase::Down);
        self.phase = Phase::Greeting;
        self.greeting = self.hello.clone();
        self.decoder = FrameDecoder::default();
        self.heard_at = None;
    }

    /// The server's Hello was found good: requests may go out.
    pub(crate) fn open(&mut self) {
        debug_assert_eq!(self.phase, Phase::Greeting);
        self.phase = Phase::Open;
    }

    /// Sends nothing more on this connection: `leader` leads, or another that is not known
    /// where it is empty.
    pub(crate) fn drain(&mut self, leader: String) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining;
            self.elsewhere = leader;
        }
    }

    /// Where to go, once the connection was to be drained and everything that left is answered.
    pub(crate) fn drained(&self) -> Option<&str> {
        let done =
            self.phase == Phase::Draining && self.left == 0 && self.sent == self.next_whole();
        done.then_some(&self.elsewhere)
    }

    /// Where the first frame begins that has not begun to leave.
    fn next_whole(&self) -> u64 {
        self.waiting
            .front()
            .map_or(self.queued, |(_, begins_at)| *begins_at)
    }

    /// What is to be sent now. Follow with [`Self::sent`].
    pub(crate) fn to_send(&self) -> &[u8] {
        match self.phase {
            Phase::Down => &[],
            // Also once theirs was found good: they may have greeted before ours had left whole.
            _ if !self.greeting.is_empty() => &self.greeting,
            Phase::Greeting => &[],
            Phase::Open => &self.buffer,
            // A frame that has begun is finished.
            Phase::Draining => &self.buffer[..(self.next_whole() - self.sent) as usize],
        }
    }

    /// The first `n` bytes of [`Self::to_send`] left.
    pub(crate) fn sent(&mut self, n: usize) {
        if !self.greeting.is_empty() {
            self.greeting.advance(n);
            return;
        }
        self.buffer.advance(n);
        self.sent += n as u64;
        while let Some((number, begins_at)) = self.waiting.front().copied() {
            if begins_at >= self.sent {
                break;
            }
            self.waiting.pop_front();
            self.left += usize::from(self.flights.contains_key(&number));
        }
    }

    /// The space to receive into: never empty. Follow with [`Self::received`].
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.decoder.space()
    }

    /// The first `n` bytes of [`Self::space`] were received.
    pub(crate) fn received(&mut self, n: usize, now: Instant) {
        self.decoder.received(n);
        self.heard_at = Some(now);
    }

    /// The next thing that happened; `None` when more has to come. After an error the connection
    /// is of no use.
    pub(crate) fn next_event(&mut self) -> Result<Option<Event<T>>, Lost> {
        while let Some(frame) = self.decoder.next_frame()? {
            let event = match (frame.kind, self.phase) {
                (FrameKind::Hello, Phase::Greeting) => {
                    Some(Event::Hello(Box::new(Hello::decode(&frame.payload)?)))
                }
                (FrameKind::Reply, Phase::Open | Phase::Draining) => self.reply(&frame)?,
                (kind, _) => return Err(misfit(format!("an unexpected {kind:?} frame"))),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn reply(&mut self, frame: &Frame) -> Result<Option<Event<T>>, Lost> {
        let reply = Reply::decode(&frame.payload)?;
        let Some(flight) = self.flights.get_mut(&frame.request) else {
            // Its caller has been told something else already.
            return Ok(None);
        };
        if flight.begins_at >= self.sent {
            return Err(misfit(format!(
                "an answer to request {} before it left",
                frame.request
            )));
        }
        let failed = matches!(reply.body, ReplyBody::Failed(_));
        let fits = failed || flight.is_write == matches!(reply.body, ReplyBody::Written { .. });
        if !fits || (reply.more && (flight.is_write || failed)) {
            return Err(misfit(format!(
                "an answer that does not fit request {}",
                frame.request
            )));
        }
        flight.pieces_bytes += frame.payload.len();
        if flight.pieces_bytes > self.answer_bytes_max {
            let max = self.answer_bytes_max;
            let outcome = Outcome::Failed(ClientError::AnswerTooLong { max });
            return Ok(self.end(frame.request, outcome));
        }
        let Some(reply) = flight.add(reply)? else {
            return Ok(None);
        };
        let outcome = match reply.body {
            ReplyBody::Failed(failure)
                if matches!(
                    failure.kind,
                    FailureKind::NotLeader | FailureKind::NotMember
                ) =>
            {
                self.drain(failure.leader);
                Outcome::Again
            }
            ReplyBody::Failed(failure) => Outcome::Failed(failure.into()),
            body => Outcome::Reply(Reply { body, ..reply }),
        };
        Ok(self.end(frame.request, outcome))
    }

    fn end(&mut self, number: RequestId, outcome: Outcome) -> Option<Event<T>> {
        let flight = self.flights.remove(&number)?;
        self.left -= usize::from(flight.begins_at < self.sent);
        Some(Event::Ended(flight.ticket, outcome))
    }

    /// The connection is gone, because of `why`. Returns what was in flight on it.
    pub(crate) fn disconnected(&mut self, why: &Lost) -> Vec<(T, Outcome)> {
        self.phase = Phase::Down;
        self.elsewhere.clear();
        // What is left of a frame that has begun to leave is of no use on another connection.
        let next = self.next_whole();
        self.buffer.advance((next - self.sent) as usize);
        let sent = self.sent;
        self.sent = next;
        self.left = 0;
        let mut ended = Vec::new();
        let gone = self.flights.extract_if(|_, flight| flight.begins_at < next);
        for (_, flight) in gone {
            debug_assert!(
                flight.begins_at < sent,
                "a frame that begins there has begun to leave"
            );
            let outcome = if flight.is_write {
                let why = format!("the connection was lost before the answer came ({why})");
                Outcome::Failed(ClientError::OutcomeUnknown(why))
            } else {
                Outcome::Again
            };
            ended.push((flight.ticket, outcome));
        }
        ended
    }

    /// Ends what has run out of time. `last` says what kept it.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        after: Duration,
        last: &str,
    ) -> Vec<(T, ClientError)> {
        let mut ended = Vec::new();
        let mut cut = false;
        let expired = self.flights.extract_if(|_, flight| flight.deadline <= now);
        for (_, flight) in expired {
            let has_left = flight.begins_at < self.sent;
            self.left -= usize::from(has_left);
            cut |= !has_left;
            let last = last.to_owned();
            let error = match has_left && flight.is_write {
                true => ClientError::OutcomeUnknown(format!("no answer within {after:?}: {last}")),
                false => ClientError::Timeout { after, last },
            };
            ended.push((flight.ticket, error));
        }
        if cut {
            self.cut_expired();
        }
        ended
    }

    /// Takes the frames that wait for nobody out of the buffer.
    fn cut_expired(&mut self) {
        let first = self.next_whole();
        let mut kept = BytesMut::with_capacity(self.buffer.len());
        kept.extend_from_slice(&self.buffer[..(first - self.sent) as usize]);
        let mut waiting = VecDeque::with_capacity(self.waiting.len());
        for (at, &(number, begins_at)) in self.waiting.iter().enumerate() {
            let Some(flight) = self.flights.get_mut(&number) else {
                continue;
            };
            let ends_at = self.waiting.get(at + 1).map_or(self.queued, |next| next.1);
            flight.begins_at = self.sent + kept.len() as u64;
            waiting.push_back((number, flight.begins_at));
            let frame = (begins_at - self.sent) as usize..(ends_at - self.sent) as usize;
            kept.extend_from_slice(&self.buffer[frame]);
        }
        self.queued = self.sent + kept.len() as u64;
        (self.buffer, self.waiting) = (kept, waiting);
    }

    /// Whether a request that has left is older than `patience` and nothing at all was heard
    /// since it was made.
    pub(crate) fn is_silent(&self, now: Instant, patience: Duration) -> bool {
        self.left > 0
            && self.flights.values().any(|flight| {
                flight.begins_at < self.sent
                    && now.saturating_duration_since(flight.made_at) >= patience
                    && self.heard_at.is_none_or(|heard| heard <= flight.made_at)
            })
    }
}

impl<T> Flight<T> {
    /// Adds a piece; the whole answer with the last one.
    fn add(&mut self, mut reply: Reply) -> Result<Option<Reply>, Lost> {
        if let Some(pieces) = &mut self.pieces {
            match (pieces, &mut reply.body) {
                (ReplyBody::Rows(whole), ReplyBody::Rows(piece)) => whole.append(piece),
                (ReplyBody::Keys(whole), ReplyBody::Keys(piece)) => whole.append(piece),
                (_, ReplyBody::Failed(_)) => return Ok(Some(reply)),
                _ => {
                    return Err(misfit(
                        "pieces of an answer that do not fit together".into(),
                    ));
                }
            }
        } else if reply.more {
            let body = std::mem::replace(&mut reply.body, ReplyBody::Keys(Vec::new()));
            self.pieces = Some(body);
        }
        if reply.more {
            return Ok(None);
        }
        if let Some(whole) = self.pieces.take() {
            reply.body = whole;
        }
        Ok(Some(reply))
    }
}

fn misfit(why: String) -> Lost {
    let what = "conversation";
    Lost::Wire(WireError::Malformed { what, why })
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

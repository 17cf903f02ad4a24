//! How does one thread keep a thousand requests in flight without stealing the servers' CPU?
//!
//! One epoll (through `mio`) over non-blocking connections, slots spread over them, and per turn
//! one `read` and one `write` for each connection that has anything to say: on a connection that
//! carries many slots, answers and new requests are batched as a good client would. Nothing is
//! allocated per request once buffers have grown. How requests and answers look is the
//! [`Session`]'s business, so that curia and its peers are loaded by the same machine.
//!
//! A connection that breaks is made again after [`RECONNECT_AFTER`], to the next target; writes
//! outstanding on it have an unknown outcome and are not repeated.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::connection::{Connection, State};
use super::session::{Event, Session, Sessions, Verdict};
use super::{DRAIN_MAX, Flow, Ledger, Load, Op, Outcome, Rung, Ticket, Until, Watch};
use crate::{Context, Error, Result};

/// Pause before a broken connection is made again.
pub const RECONNECT_AFTER: Duration = Duration::from_millis(10);
/// How long the first connections of a rung may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest sleep, so that watchers are called in time.
const TICK: Duration = Duration::from_millis(5);

/// Load over connections of one protocol.
pub struct Mux<P: Sessions> {
    protocol: P,
    addresses: Vec<SocketAddr>,
    targets: Vec<usize>,
    poll: Poll,
    connections: Vec<Connection<P::Session>>,
    slots: Vec<Slot>,
    /// Slots that may send, in the order in which they became free.
    free: Vec<usize>,
    key: Vec<u8>,
    value: Vec<u8>,
}

#[derive(Default)]
struct Slot {
    request: Option<(Instant, Option<Ticket>)>,
}

/// State of one rung.
struct Run<'a> {
    rung: &'a Rung,
    ledger: &'a mut Ledger,
    watch: &'a mut dyn Watch,
    outcome: Outcome,
    started: Instant,
    sent: u64,
    done: u64,
    outstanding: usize,
    stopping: bool,
    exhausted: bool,
}

impl<P: Sessions> Mux<P> {
    /// Will send to `addresses`, at first to all of them in turn.
    pub fn new(protocol: P, addresses: Vec<SocketAddr>) -> Result<Self> {
        Ok(Self {
            protocol,
            targets: (0..addresses.len()).collect(),
            addresses,
            poll: Poll::new().context(|| "create an epoll instance".into())?,
            connections: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    /// Makes the connections for `slots` slots exist and waits until each is ready.
    fn connect_all(&mut self, slots: usize) -> Result<()> {
        // Every target gets a connection if there are slots enough.
        let n = self
            .protocol
            .connections(slots)
            .max(self.targets.len())
            .clamp(1, slots);
        for gone in self.connections.drain(n.min(self.connections.len())..) {
            if let Some(mut stream) = gone.stream {
                let _ = self.poll.registry().deregister(&mut stream);
            }
        }
        while self.connections.len() < n {
            self.connections.push(Connection::new(self.addresses[0]));
        }
        self.slots.clear();
        self.slots.resize_with(slots, Slot::default);
        self.free.clear();
        let deadline = Instant::now() + CONNECT_MAX;
        let mut events = Events::with_capacity(1024);
        loop {
            self.redial();
            let ready = |c: &Connection<P::Session>| c.state == State::Ready;
            let Some(missing) = self.connections.iter().position(|c| !ready(c)) else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(Error::Server(format!(
                    "{}: no connection within {} s",
                    self.connections[missing].address,
                    CONNECT_MAX.as_secs()
                )));
            }
            self.wait(&mut events)?;
            for event in events.iter() {
                let i = event.token().0;
                let connection = &mut self.connections[i];
                connection.establish(&self.protocol);
                let greeted = connection.greet();
                if connection.flush().is_err() || greeted.is_err() {
                    connection.reset(self.poll.registry());
                }
            }
        }
    }

    fn wait(&mut self, events: &mut Events) -> Result<()> {
        match self.poll.poll(events, Some(TICK)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.context(|| "wait for sockets".into()),
        }
    }

    /// Starts connecting wherever it is time to.
    fn redial(&mut self) {
        let now = Instant::now();
        for i in 0..self.connections.len() {
            let connection = &mut self.connections[i];
            if connection.state != State::Down || connection.retry_at.is_some_and(|at| at > now) {
                continue;
            }
            let target = self.targets[(i + connection.attempts) % self.targets.len()];
            connection.address = self.addresses[target];
            connection.attempts += 1;
            connection.retry_at = Some(now + RECONNECT_AFTER);
            let Ok(mut stream) = TcpStream::connect(connection.address) else {
                continue;
            };
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self
                .poll
                .registry()
                .register(&mut stream, Token(i), interest)
                .is_ok()
            {
                connection.stream = Some(stream);
                connection.state = State::Connecting;
            }
        }
    }

    /// Lets every free slot whose connection is ready send its next request.
    fn send_all(&mut self, run: &mut Run<'_>) {
        let mut kept = 0;
        for n in 0..self.free.len() {
            let slot = self.free[n];
            if !run.may_send() {
                break;
            }
            let connection = slot % self.connections.len();
            if self.connections[connection].state != State::Ready {
                self.free[kept] = slot;
                kept += 1;
                continue;
            }
            self.send(slot, connection, run);
        }
        self.free.truncate(kept);
        for i in 0..self.connections.len() {
            if !self.connections[i].out.is_empty()
                && let Err(e) = self.connections[i].flush()
            {
                self.broken(i, &e.kind().to_string(), run);
            }
        }
    }

    fn send(&mut self, slot: usize, connection: usize, run: &mut Run<'_>) {
        let slots = self.slots.len();
        let connection = &mut self.connections[connection];
        let Some(session) = connection.session.as_mut() else {
            return;
        };
        self.key.clear();
        let ticket = match run.rung.op {
            Op::Put => {
                let Some(ticket) = run.ledger.next_put(slot, slots) else {
                    run.exhausted = true;
                    return;
                };
                self.value.clear();
                run.ledger.key(ticket.key, &mut self.key);
                run.ledger.value(ticket, &mut self.value);
                session.put(slot as u32, &self.key, &self.value, &mut connection.out);
                Some(ticket)
            }
            Op::Get => {
                let Some(key) = run.ledger.next_get() else {
                    run.exhausted = true;
                    return;
                };
                run.ledger.key(key, &mut self.key);
                session.get(
                    slot as u32,
                    &self.key,
                    run.rung.consistency,
                    &mut connection.out,
                );
                None
            }
        };
        run.sent += 1;
        run.outstanding += 1;
        self.slots[slot].request = Some((Instant::now(), ticket));
    }

    /// Takes in all that connection `i` has received.
    fn receive(&mut self, i: usize, closed: bool, run: &mut Run<'_>) {
        loop {
            let connection = &mut self.connections[i];
            let (n, room) = match connection.read() {
                Ok(Some((0, _))) => return self.broken(i, "connection closed by the server", run),
                Ok(Some(read)) => read,
                Ok(None) => return,
                Err(e) => return self.broken(i, &e.kind().to_string(), run),
            };
            let now = Instant::now();
            loop {
                let connection = &mut self.connections[i];
                let Some(session) = connection.session.as_mut() else {
                    return;
                };
                match session.next(run.rung.op, &mut connection.out) {
                    Ok(Some(Event::Answer { slot, verdict })) => {
                        self.answered(i, slot as usize, verdict, now, run);
                    }
                    Ok(Some(Event::Ready)) => connection.state = State::Ready,
                    Ok(Some(Event::Close)) => return self.broken(i, "closed by the server", run),
                    Ok(None) => break,
                    Err(e) => return self.broken(i, &e, run),
                }
            }
            // A short read has emptied the socket (epoll(7), question 9): the next bytes raise
            // a new edge. Unless the peer has closed: then the end of file is still to be read.
            if n < room && !closed {
                return;
            }
        }
    }

    fn answered(
        &mut self,
        i: usize,
        slot: usize,
        verdict: Verdict,
        now: Instant,
        run: &mut Run<'_>,
    ) {
        let ours = slot < self.slots.len() && slot % self.connections.len() == i;
        let Some((sent, ticket)) = ours.then(|| self.slots[slot].request.take()).flatten() else {
            run.outcome.failure("an answer to no request");
            return;
        };
        run.done += 1;
        run.outstanding -= 1;
        self.free.push(slot);
        match verdict {
            Verdict::Done => {
                run.outcome.success(now - sent);
                if let Some(ticket) = ticket {
                    run.ledger.acknowledged(ticket);
                }
                run.watch.acknowledged(sent, now);
            }
            Verdict::Failed(reason) => run.failed(&reason, ticket),
        }
    }

    fn broken(&mut self, i: usize, reason: &str, run: &mut Run<'_>) {
        let stride = self.connections.len();
        for slot in (i..self.slots.len()).step_by(stride) {
            if let Some((_, ticket)) = self.slots[slot].request.take() {
                run.done += 1;
                run.outstanding -= 1;
                run.failed(reason, ticket);
                self.free.push(slot);
            }
        }
        self.connections[i].reset(self.poll.registry());
    }

    fn handle(&mut self, event: &mio::event::Event, run: &mut Run<'_>) {
        let i = event.token().0;
        let connection = &mut self.connections[i];
        if connection.state == State::Connecting {
            connection.establish(&self.protocol);
        }
        if event.is_writable()
            && !connection.out.is_empty()
            && let Err(e) = connection.flush()
        {
            return self.broken(i, &e.kind().to_string(), run);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.receive(i, event.is_read_closed(), run);
        }
    }
}

impl<P: Sessions> Load for Mux<P> {
    fn run(&mut self, rung: &Rung, ledger: &mut Ledger, watch: &mut dyn Watch) -> Result<Outcome> {
        self.connect_all(rung.in_flight + watch.reserve())?;
        let mut reserve = rung.in_flight..self.slots.len();
        let mut events = Events::with_capacity(1024);
        let mut run = Run {
            rung,
            ledger,
            watch,
            outcome: Outcome::default(),
            started: Instant::now(),
            sent: 0,
            done: 0,
            outstanding: 0,
            stopping: false,
            exhausted: false,
        };
        self.free.extend(0..rung.in_flight);
        self.send_all(&mut run);
        let mut ticked = Instant::now();
        let mut stopped_at = None;
        loop {
            if !run.may_send() {
                let since: Instant = *stopped_at.get_or_insert_with(Instant::now);
                if run.outstanding > 0 && since.elapsed() > DRAIN_MAX {
                    for i in 0..self.connections.len() {
                        self.broken(i, "no answer in time", &mut run);
                    }
                }
                if run.outstanding == 0 {
                    break;
                }
            }
            self.wait(&mut events)?;
            for event in events.iter() {
                self.handle(event, &mut run);
            }
            self.send_all(&mut run);
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                match run.watch.tick(run.done) {
                    Flow::Continue => {}
                    Flow::Stop => run.stopping = true,
                    Flow::AddSlot => self.free.extend(reserve.next()),
                }
                if run.may_send() {
                    self.redial();
                }
            }
        }
        let mut outcome = run.outcome;
        outcome.elapsed = run.started.elapsed();
        Ok(outcome)
    }

    fn aim(&mut self, targets: &[usize]) {
        assert!(!targets.is_empty(), "nowhere to send to");
        if self.targets != targets {
            self.targets = targets.to_vec();
            for connection in &mut self.connections {
                connection.reset(self.poll.registry());
            }
            self.connections.clear();
        }
    }
}

impl Run<'_> {
    fn may_send(&self) -> bool {
        !self.stopping
            && !self.exhausted
            && match self.rung.until {
                Until::Time(limit) => self.started.elapsed() < limit,
                Until::Requests(n) => self.sent < n,
            }
    }

    fn failed(&mut self, reason: &str, ticket: Option<Ticket>) {
        self.outcome.failure(reason);
        if let Some(ticket) = ticket {
            self.ledger.unknown(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Response;
    use crate::load::{Consistency, Dialect, Http, Shape, Unwatched};
    use bytes::BytesMut;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// `PUT`s answered by a script; the key travels as the path.
    #[derive(Clone, Copy)]
    struct Plain;
    impl Dialect for Plain {
        fn put(&self, host: SocketAddr, key: &[u8], value: &[u8], out: &mut BytesMut) {
            let path = std::str::from_utf8(key).unwrap();
            crate::http::encode_request("PUT", path, host, value, out);
        }
        fn get(&self, host: SocketAddr, key: &[u8], _: Consistency, out: &mut BytesMut) {
            out.extend_from_slice(&crate::http::get(std::str::from_utf8(key).unwrap(), host));
        }
        fn judge(&self, _: Op, response: &Response) -> Verdict {
            match response.status {
                200 => Verdict::Done,
                status => Verdict::Failed(status.to_string()),
            }
        }
    }

    /// Serves each connection on a thread with `answer(request number on it)`; `None` closes.
    fn server(answer: fn(usize) -> Option<&'static str>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut seen = Vec::new();
                    let mut n = 0;
                    let mut chunk = [0; 4096];
                    while let Ok(got @ 1..) = stream.read(&mut chunk) {
                        seen.extend_from_slice(&chunk[..got]);
                        let Some(head) = seen.windows(4).position(|w| w == b"\r\n\r\n") else {
                            continue;
                        };
                        let text = String::from_utf8_lossy(&seen[..head]).to_string();
                        let length = text
                            .split("Content-Length: ")
                            .nth(1)
                            .map_or(0, |t| t.split("\r\n").next().unwrap().parse().unwrap());
                        if seen.len() < head + 4 + length {
                            continue;
                        }
                        seen.drain(..head + 4 + length);
                        let Some(reply) = answer(n) else { return };
                        n += 1;
                        if stream.write_all(reply.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue";

    fn ledger(keys: usize, value_bytes: usize) -> Ledger {
        Ledger::new(Shape {
            key_bytes: 64,
            value_bytes,
            keys,
        })
        .unwrap()
    }

    fn puts(in_flight: usize, until: Until) -> Rung {
        Rung {
            op: Op::Put,
            consistency: Consistency::Default,
            in_flight,
            until,
        }
    }

    #[test]
    fn every_request_is_answered_counted_and_in_the_ledger() {
        let mut load = Mux::new(Http(Plain), vec![server(|_| Some(OK))]).unwrap();
        for in_flight in [1, 7, 64] {
            let mut ledger = ledger(1000, 256);
            let rung = puts(in_flight, Until::Requests(2000));
            let outcome = load.run(&rung, &mut ledger, &mut Unwatched).unwrap();
            assert_eq!((outcome.succeeded(), outcome.failed()), (2000, 0));
            assert!(ledger.keys_to_find().count() > 500);
        }
    }

    #[test]
    fn a_body_larger_than_the_socket_buffer_is_sent_whole() {
        let mut load = Mux::new(Http(Plain), vec![server(|_| Some(OK))]).unwrap();
        let mut ledger = ledger(4, 4 << 20);
        let rung = puts(2, Until::Requests(6));
        let outcome = load.run(&rung, &mut ledger, &mut Unwatched).unwrap();
        assert_eq!(outcome.succeeded(), 6);
    }

    #[test]
    fn a_fill_ends_by_itself_after_the_last_key() {
        let mut load = Mux::new(Http(Plain), vec![server(|_| Some(OK))]).unwrap();
        let mut ledger = ledger(333, 16);
        ledger.start_fill();
        let rung = puts(10, Until::Requests(u64::MAX));
        let outcome = load.run(&rung, &mut ledger, &mut Unwatched).unwrap();
        assert_eq!(outcome.succeeded(), 333);
        assert_eq!(ledger.keys_to_find().count(), 333);
    }

    #[test]
    fn refusals_and_lost_connections_are_failures_and_acknowledge_nothing() {
        let script = |n| match n {
            0 => Some(OK),
            1 => Some("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
            2 => Some("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
            _ => None,
        };
        let mut load = Mux::new(Http(Plain), vec![server(script)]).unwrap();
        let mut ledger = ledger(100, 16);
        let rung = puts(3, Until::Requests(90));
        let outcome = load.run(&rung, &mut ledger, &mut Unwatched).unwrap();
        assert_eq!(outcome.succeeded() + outcome.failed(), 90);
        assert!(outcome.succeeded() >= 50, "{outcome:?}");
        assert!(outcome.errors["503"] >= 25, "{:?}", outcome.errors);
    }

    #[test]
    fn a_server_that_hangs_up_does_not_hang_the_run() {
        let mut load = Mux::new(Http(Plain), vec![server(|_| None)]).unwrap();
        let rung = puts(2, Until::Requests(10));
        let outcome = load
            .run(&rung, &mut ledger(10, 16), &mut Unwatched)
            .unwrap();
        assert_eq!((outcome.succeeded(), outcome.failed()), (0, 10));
    }

    #[test]
    fn a_watcher_can_end_a_rung_and_sees_acknowledgements() {
        struct Stopper(u64);
        impl Watch for Stopper {
            fn tick(&mut self, done: u64) -> Flow {
                if done < 100 {
                    Flow::Continue
                } else {
                    Flow::Stop
                }
            }
            fn acknowledged(&mut self, sent: Instant, now: Instant) {
                assert!(now >= sent);
                self.0 += 1;
            }
        }
        let mut load = Mux::new(Http(Plain), vec![server(|_| Some(OK))]).unwrap();
        let mut stopper = Stopper(0);
        let rung = puts(4, Until::Time(Duration::from_secs(600)));
        let outcome = load.run(&rung, &mut ledger(100, 16), &mut stopper).unwrap();
        assert!(outcome.succeeded() >= 100);
        assert_eq!(stopper.0, outcome.succeeded());
    }

    #[test]
    fn nobody_listening_is_an_error_that_names_the_address() {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut load = Mux::new(Http(Plain), vec![free, server(|_| Some(OK))]).unwrap();
        // With one of two targets down every connection finds the other.
        let rung = puts(4, Until::Requests(40));
        let outcome = load
            .run(&rung, &mut ledger(10, 16), &mut Unwatched)
            .unwrap();
        assert_eq!(outcome.succeeded(), 40);
    }

    /// Every slot of the rung hangs: only a slot from the reserve can see that service resumed.
    #[test]
    fn slots_in_reserve_are_brought_in_when_the_watcher_asks() {
        struct Probing(u64);
        impl Watch for Probing {
            fn reserve(&self) -> usize {
                5
            }
            fn tick(&mut self, _: u64) -> Flow {
                if self.0 < 5 {
                    Flow::AddSlot
                } else {
                    Flow::Stop
                }
            }
            fn acknowledged(&mut self, _: Instant, _: Instant) {
                self.0 += 1;
            }
        }
        // The first connection's requests are never answered: that server only reads.
        let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = deaf.local_addr().unwrap();
        std::thread::spawn(move || {
            let open: Vec<_> = deaf.incoming().take(1).collect();
            drop(deaf);
            std::thread::sleep(Duration::from_millis(300));
            drop(open);
        });
        let mut load = Mux::new(Http(Plain), vec![address, server(|_| Some(OK))]).unwrap();
        let mut probing = Probing(0);
        let rung = puts(1, Until::Time(Duration::from_secs(600)));
        let outcome = load.run(&rung, &mut ledger(100, 16), &mut probing).unwrap();
        assert!(probing.0 >= 5);
        assert_eq!(
            outcome.failed(),
            1,
            "the swallowed request: {:?}",
            outcome.errors
        );
    }
}

//! How do a thousand keep-alive connections load a server from one thread?
//!
//! One epoll (through `mio`), one request outstanding per connection, one `write` and one `read`
//! per request. Nothing is allocated per request once buffers have grown. What goes into a
//! request and what an answer means is the [`Dialect`]'s business, so that curia and its peers
//! are loaded by the same machine.
//!
//! A connection that breaks is made again after [`RECONNECT_AFTER`], to the next target; its
//! outstanding write has an unknown outcome and is not repeated.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::{Consistency, DRAIN_MAX, Ledger, Load, Op, Outcome, Rung, Ticket, Until, Watch};
use crate::http::{Response, ResponseReader};
use crate::{Context, Error, Result};

/// Pause before a broken connection is made again.
const RECONNECT_AFTER: Duration = Duration::from_millis(10);
/// How long the first connections of a rung may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest sleep, so that watchers are called in time.
const TICK: Duration = Duration::from_millis(5);

/// What an answer says about its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done as asked.
    Done,
    /// Not done, or not known to be; with a short reason that groups alike failures.
    Failed(String),
}

/// How one product is spoken to over HTTP/1.1.
pub trait Dialect {
    /// Appends a whole request that writes `value` under `key`.
    fn put(&self, host: SocketAddr, key: &[u8], value: &[u8], out: &mut Vec<u8>);
    /// Appends a whole request that reads `key`.
    fn get(&self, host: SocketAddr, key: &[u8], consistency: Consistency, out: &mut Vec<u8>);
    /// Judges the answer to a request of kind `op`.
    fn judge(&self, op: Op, response: &Response) -> Verdict;
}

/// Load over keep-alive HTTP connections.
pub struct HttpLoad<D> {
    dialect: D,
    addresses: Vec<SocketAddr>,
    targets: Vec<usize>,
    poll: Poll,
    connections: Vec<Connection>,
    key: Vec<u8>,
    value: Vec<u8>,
}

struct Connection {
    stream: Option<TcpStream>,
    address: SocketAddr,
    connected: bool,
    retry_at: Option<Instant>,
    attempts: usize,
    reader: ResponseReader,
    out: Vec<u8>,
    written: usize,
    request: Option<(Instant, Option<Ticket>)>,
    finished: bool,
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
    stopping: bool,
}

impl<D: Dialect> HttpLoad<D> {
    /// Will send to `addresses`, at first to all of them in turn.
    pub fn new(dialect: D, addresses: Vec<SocketAddr>) -> Result<Self> {
        Ok(Self {
            dialect,
            targets: (0..addresses.len()).collect(),
            addresses,
            poll: Poll::new().context(|| "create an epoll instance".into())?,
            connections: Vec::new(),
            key: Vec::new(),
            value: Vec::new(),
        })
    }

    fn target(&self, connection: usize, attempt: usize) -> SocketAddr {
        self.addresses[self.targets[(connection + attempt) % self.targets.len()]]
    }

    /// Makes `n` connections exist and waits until each is established.
    fn connect_all(&mut self, n: usize) -> Result<()> {
        for gone in self.connections.drain(n.min(self.connections.len())..) {
            if let Some(mut stream) = gone.stream {
                let _ = self.poll.registry().deregister(&mut stream);
            }
        }
        while self.connections.len() < n {
            let address = self.target(self.connections.len(), 0);
            self.connections.push(Connection::new(address));
        }
        for i in 0..n {
            self.connections[i].finished = false;
            if self.connections[i].stream.is_none() {
                self.dial(i);
            }
        }
        let deadline = Instant::now() + CONNECT_MAX;
        let mut events = Events::with_capacity(1024);
        while let Some(missing) = self.connections.iter().position(|c| !c.connected) {
            if Instant::now() > deadline {
                return Err(Error::Server(format!(
                    "{}: no connection within {} s",
                    self.connections[missing].address,
                    CONNECT_MAX.as_secs()
                )));
            }
            self.wait(&mut events, TICK)?;
            for event in events.iter() {
                self.connections[event.token().0].establish();
            }
            self.redial();
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.context(|| "wait for sockets".into()),
        }
    }

    fn redial(&mut self) {
        let now = Instant::now();
        for i in 0..self.connections.len() {
            if self.connections[i].retry_at.is_some_and(|at| at <= now) {
                self.dial(i);
            }
        }
    }

    fn dial(&mut self, i: usize) {
        let address = self.target(i, self.connections[i].attempts);
        let connection = &mut self.connections[i];
        connection.address = address;
        connection.attempts += 1;
        connection.retry_at = Some(Instant::now() + RECONNECT_AFTER);
        let Ok(mut stream) = TcpStream::connect(address) else {
            return;
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self
            .poll
            .registry()
            .register(&mut stream, Token(i), interest)
            .is_ok()
        {
            connection.stream = Some(stream);
            connection.retry_at = None;
        }
    }

    /// Sends the next request of connection `i`, or marks it finished.
    fn send_next(&mut self, i: usize, run: &mut Run<'_>) {
        let slots = self.connections.len();
        let connection = &mut self.connections[i];
        if !connection.connected || connection.request.is_some() || connection.finished {
            return;
        }
        connection.out.clear();
        connection.written = 0;
        self.key.clear();
        let ticket = match (run.may_send(), run.rung.op) {
            (false, _) => None,
            (true, Op::Put) => run.ledger.next_put(i, slots).map(|ticket| {
                self.value.clear();
                run.ledger.key(ticket.key, &mut self.key);
                run.ledger.value(ticket, &mut self.value);
                self.dialect.put(
                    connection.address,
                    &self.key,
                    &self.value,
                    &mut connection.out,
                );
                Some(ticket)
            }),
            (true, Op::Get) => run.ledger.next_get().map(|key| {
                run.ledger.key(key, &mut self.key);
                let consistency = run.rung.consistency;
                self.dialect.get(
                    connection.address,
                    &self.key,
                    consistency,
                    &mut connection.out,
                );
                None
            }),
        };
        let Some(ticket) = ticket else {
            connection.finished = true;
            return;
        };
        run.sent += 1;
        connection.request = Some((Instant::now(), ticket));
        if let Err(e) = connection.flush() {
            self.broken(i, &e.to_string(), run);
        }
    }

    fn receive(&mut self, i: usize, closed: bool, run: &mut Run<'_>) {
        loop {
            let connection = &mut self.connections[i];
            let Some(stream) = connection.stream.as_mut() else {
                return;
            };
            let space = connection.reader.space();
            let room = space.len();
            let n = match stream.read(space) {
                Ok(0) => return self.broken(i, "connection closed by the server", run),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return self.broken(i, &e.kind().to_string(), run),
            };
            connection.reader.received(n);
            match connection.reader.next_response() {
                Ok(Some(response)) => self.answered(i, response, run),
                Ok(None) => {}
                Err(e) => return self.broken(i, &e.to_string(), run),
            }
            // A short read has emptied the socket (epoll(7), question 9): the next bytes raise
            // a new edge. Unless the peer has closed: then the end of file is still to be read.
            if n < room && !closed {
                return;
            }
        }
    }

    fn answered(&mut self, i: usize, response: Response, run: &mut Run<'_>) {
        let connection = &mut self.connections[i];
        let Some((sent, ticket)) = connection.request.take() else {
            return self.broken(i, "an answer to no request", run);
        };
        let now = Instant::now();
        run.done += 1;
        match self.dialect.judge(run.rung.op, &response) {
            Verdict::Done => {
                run.outcome.success(now - sent);
                if let Some(ticket) = ticket {
                    run.ledger.acknowledged(ticket);
                }
                run.watch.acknowledged(sent, now);
            }
            Verdict::Failed(reason) => {
                run.outcome.failure(&reason);
                if let Some(ticket) = ticket {
                    run.ledger.unknown(ticket);
                }
            }
        }
        let close = response.close;
        connection.reader.recycle(response.body);
        if close {
            self.broken(i, "", run);
        } else {
            self.send_next(i, run);
        }
    }

    fn broken(&mut self, i: usize, reason: &str, run: &mut Run<'_>) {
        let connection = &mut self.connections[i];
        if let Some((_, ticket)) = connection.request.take() {
            run.done += 1;
            run.outcome.failure(reason);
            if let Some(ticket) = ticket {
                run.ledger.unknown(ticket);
            }
        }
        connection.reset(self.poll.registry());
    }
}

impl<D: Dialect> Load for HttpLoad<D> {
    fn run(&mut self, rung: &Rung, ledger: &mut Ledger, watch: &mut dyn Watch) -> Result<Outcome> {
        self.connect_all(rung.in_flight)?;
        let mut events = Events::with_capacity(1024);
        let mut run = Run {
            rung,
            ledger,
            watch,
            outcome: Outcome::default(),
            started: Instant::now(),
            sent: 0,
            done: 0,
            stopping: false,
        };
        for i in 0..self.connections.len() {
            self.send_next(i, &mut run);
        }
        let mut ticked = Instant::now();
        let mut stopped_at = None;
        loop {
            let waiting = self.connections.iter().any(|c| c.request.is_some());
            if !run.may_send() {
                let since = *stopped_at.get_or_insert_with(Instant::now);
                if !waiting {
                    break;
                }
                if since.elapsed() > DRAIN_MAX {
                    for i in 0..self.connections.len() {
                        if self.connections[i].request.is_some() {
                            self.broken(i, "no answer in time", &mut run);
                        }
                    }
                    break;
                }
            } else if self.connections.iter().all(|c| c.finished) {
                break;
            }
            self.wait(&mut events, TICK)?;
            for event in events.iter() {
                let i = event.token().0;
                if !self.connections[i].connected {
                    self.connections[i].establish();
                    self.send_next(i, &mut run);
                } else if event.is_writable() && self.connections[i].unsent() {
                    if let Err(e) = self.connections[i].flush() {
                        self.broken(i, &e.kind().to_string(), &mut run);
                    }
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.receive(i, event.is_read_closed(), &mut run);
                }
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                run.stopping |= !run.watch.tick(run.done);
                if !run.stopping {
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
            && match self.rung.until {
                Until::Time(limit) => self.started.elapsed() < limit,
                Until::Requests(n) => self.sent < n,
            }
    }
}

impl Connection {
    fn new(address: SocketAddr) -> Self {
        Self {
            stream: None,
            address,
            connected: false,
            retry_at: None,
            attempts: 0,
            reader: ResponseReader::default(),
            out: Vec::new(),
            written: 0,
            request: None,
            finished: false,
        }
    }

    /// Finds out how a connection attempt ended, once the socket reports anything.
    fn establish(&mut self) {
        let Some(stream) = &self.stream else { return };
        let failed = matches!(stream.take_error(), Ok(Some(_)) | Err(_));
        if !failed && stream.peer_addr().is_ok() {
            let _ = stream.set_nodelay(true);
            self.connected = true;
        } else if failed {
            self.stream = None;
            self.retry_at = Some(Instant::now() + RECONNECT_AFTER);
        }
    }

    fn unsent(&self) -> bool {
        self.written < self.out.len()
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = self.stream.as_mut() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        while self.written < self.out.len() {
            match stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn reset(&mut self, registry: &mio::Registry) {
        if let Some(mut stream) = self.stream.take() {
            let _ = registry.deregister(&mut stream);
        }
        self.connected = false;
        self.reader.clear();
        self.out.clear();
        self.written = 0;
        self.retry_at = Some(Instant::now() + RECONNECT_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Shape, Unwatched};
    use std::net::TcpListener;

    /// `PUT`s answered by a script; the key travels as the path.
    struct Plain;
    impl Dialect for Plain {
        fn put(&self, host: SocketAddr, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
            let path = std::str::from_utf8(key).unwrap();
            crate::http::encode_request("PUT", path, host, value, out);
        }
        fn get(&self, host: SocketAddr, key: &[u8], _: Consistency, out: &mut Vec<u8>) {
            out.extend(crate::http::get(std::str::from_utf8(key).unwrap(), host));
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
        let mut load = HttpLoad::new(Plain, vec![server(|_| Some(OK))]).unwrap();
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
        let mut load = HttpLoad::new(Plain, vec![server(|_| Some(OK))]).unwrap();
        let mut ledger = ledger(4, 4 << 20);
        let rung = puts(2, Until::Requests(6));
        let outcome = load.run(&rung, &mut ledger, &mut Unwatched).unwrap();
        assert_eq!(outcome.succeeded(), 6);
    }

    #[test]
    fn a_fill_ends_by_itself_after_the_last_key() {
        let mut load = HttpLoad::new(Plain, vec![server(|_| Some(OK))]).unwrap();
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
        let mut load = HttpLoad::new(Plain, vec![server(script)]).unwrap();
        let mut ledger = ledger(100, 16);
        let rung = puts(3, Until::Requests(90));
        let outcome = load.run(&rung, &mut ledger, &mut Unwatched).unwrap();
        assert_eq!(outcome.succeeded() + outcome.failed(), 90);
        assert!(outcome.succeeded() >= 50, "{outcome:?}");
        assert!(outcome.errors["503"] >= 25, "{:?}", outcome.errors);
    }

    #[test]
    fn a_server_that_hangs_up_does_not_hang_the_run() {
        let mut load = HttpLoad::new(Plain, vec![server(|_| None)]).unwrap();
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
            fn tick(&mut self, done: u64) -> bool {
                done < 100
            }
            fn acknowledged(&mut self, sent: Instant, now: Instant) {
                assert!(now >= sent);
                self.0 += 1;
            }
        }
        let mut load = HttpLoad::new(Plain, vec![server(|_| Some(OK))]).unwrap();
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
        let mut load = HttpLoad::new(Plain, vec![free, server(|_| Some(OK))]).unwrap();
        // With one of two targets down every connection finds the other.
        let rung = puts(4, Until::Requests(40));
        let outcome = load
            .run(&rung, &mut ledger(10, 16), &mut Unwatched)
            .unwrap();
        assert_eq!(outcome.succeeded(), 40);
    }
}

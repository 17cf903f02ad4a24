//! The native client without an executor: for command-line tools and tests.
//!
//! The same session and route over a plain socket, one request at a time; each call blocks its
//! thread for at most the request timeout.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use wire::{ClusterStatus, Hello, Index, KvRow, KvVerb, Query, ReadMode, Reply, ShardId};

use super::{
    ClientError, ClientOptions, PutOptions, Read, Written,
    dial::socket,
    driver::attempt_timeout,
    error::Lost,
    requests::{self, Encoded, Request, Write},
    route::{Route, Step, Verdict},
    session::{Event, Outcome, Session},
};

/// A blocking client of the native protocol.
#[derive(Debug)]
pub struct Client {
    options: ClientOptions,
    route: Route,
    session: Session<()>,
    connection: Option<Connection>,
    shards: u16,
    last: String,
}

#[derive(Debug)]
struct Connection {
    address: SocketAddr,
    stream: TcpStream,
}

impl Connection {
    /// Whether the server has closed the connection while nothing was asked of it. A write would
    /// still seem to leave then, and its outcome be unknown for nothing.
    fn is_closed(&self) -> bool {
        let peek = || {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            peeked
        };
        match peek() {
            Ok(n) => n == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl Client {
    /// Finds a server, and through it the leader, within `options.connect_timeout`.
    ///
    /// # Errors
    ///
    /// As [`super::Client::connect`].
    pub fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        options.check()?;
        let mut client = Self {
            route: Route::new(&options.seeds, getrandom::u32().unwrap_or(1)),
            session: Session::new(&options.hello(), options.answer_bytes_max),
            connection: None,
            shards: 0,
            last: "no server was tried yet".into(),
            options,
        };
        let deadline = Instant::now() + client.options.connect_timeout;
        while client.connection.is_none() {
            if Instant::now() >= deadline {
                return Err(ClientError::NoServer {
                    tried: client.options.seed_names(),
                    after: client.options.connect_timeout,
                    last: client.last,
                });
            }
            client.reconnect(deadline);
        }
        Ok(client)
    }

    /// Writes a key.
    pub fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        options: PutOptions,
    ) -> Result<Written, ClientError> {
        let write = Write::new(requests::set(key, value, options), self.shards)?;
        requests::written(self.request(&write)?)
    }

    /// Writes a key if its modify index is `index`; 0: if it does not exist. [`Written::ok`]
    /// says whether it was written.
    pub fn cas(&mut self, key: &[u8], value: &[u8], index: Index) -> Result<Written, ClientError> {
        let cas = Some(index);
        self.put(key, value, PutOptions { flags: 0, cas })
    }

    /// Removes a key; ok whether or not it exists.
    pub fn delete(&mut self, key: &[u8]) -> Result<Written, ClientError> {
        self.remove(KvVerb::Delete, key, Index(0))
    }

    /// Removes a key if its modify index is `index`.
    pub fn delete_cas(&mut self, key: &[u8], index: Index) -> Result<Written, ClientError> {
        self.remove(KvVerb::DeleteCas, key, index)
    }

    /// Removes every key that begins with `prefix`.
    pub fn delete_tree(&mut self, prefix: &[u8]) -> Result<Written, ClientError> {
        self.remove(KvVerb::DeleteTree, prefix, Index(0))
    }

    fn remove(&mut self, verb: KvVerb, key: &[u8], index: Index) -> Result<Written, ClientError> {
        let write = Write::new(requests::delete(verb, key, index), self.shards)?;
        requests::written(self.request(&write)?)
    }

    /// Reads one key.
    pub fn get(&mut self, key: &[u8], mode: ReadMode) -> Result<Read<Option<KvRow>>, ClientError> {
        requests::row(self.query(&requests::get(key, mode))?)
    }

    /// Reads all rows whose keys begin with `prefix`, in key order.
    pub fn list(&mut self, prefix: &[u8], mode: ReadMode) -> Result<Read<Vec<KvRow>>, ClientError> {
        requests::rows(self.query(&requests::list(prefix, mode))?)
    }

    /// Reads the names of keys that begin with `prefix`, cut after the first `separator` behind
    /// it (empty for none), each once.
    pub fn keys(
        &mut self,
        prefix: &[u8],
        separator: &[u8],
        mode: ReadMode,
    ) -> Result<Read<Vec<Bytes>>, ClientError> {
        requests::names(self.query(&requests::keys(prefix, separator, mode))?)
    }

    /// Who leads, and who is in the peer set, as the connected server knows it.
    pub fn status(&mut self) -> Result<ClusterStatus, ClientError> {
        requests::cluster(self.query(&requests::status())?)
    }

    /// Has an encoded [`wire::Command`] committed and applied by `shard`.
    pub fn propose(&mut self, shard: ShardId, command: Bytes) -> Result<Written, ClientError> {
        requests::written(self.request(&Encoded::command(shard, command)?)?)
    }

    /// Asks a query; the pieces of a long answer come as one reply, never a `Failed` one.
    pub fn query(&mut self, query: &Query) -> Result<Reply, ClientError> {
        self.request(&Encoded::query(query, self.shards)?)
    }

    /// Number of shards of the cluster.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    fn request<R: Request>(&mut self, request: &R) -> Result<Reply, ClientError> {
        let timeout = self.options.request_timeout;
        let made = Instant::now();
        let deadline = made + timeout;
        self.session.make(request, (), made, deadline);
        loop {
            let now = Instant::now();
            if let Some(((), error)) = self.session.expire(now, timeout, &self.last).pop() {
                return Err(error);
            }
            let ended = match &mut self.connection {
                None => {
                    self.reconnect(deadline);
                    continue;
                }
                Some(connection) if connection.is_closed() => Err(Lost::Closed),
                Some(connection) => exchange(&mut self.session, connection, deadline),
            };
            let outcome = match ended {
                Ok(outcome) => Some(outcome),
                Err(lost) => self.lose(&lost),
            };
            self.follow();
            if matches!(outcome, Some(Outcome::Reply(_) | Outcome::Failed(_))) {
                self.route.settled();
            }
            match outcome {
                Some(Outcome::Reply(reply)) => return Ok(reply),
                Some(Outcome::Failed(error)) => return Err(error),
                Some(Outcome::Again) => {
                    self.session.make(request, (), Instant::now(), deadline);
                }
                // It had not left: it waits for the next connection.
                None => {}
            }
        }
    }

    /// Goes to another server if this one said that it does not lead.
    fn follow(&mut self) {
        let Some(leader) = self.session.drained().map(str::to_owned) else {
            return;
        };
        let lost = match self.route.follow(&leader, Instant::now()) {
            true => Lost::Elsewhere,
            false => Lost::Refused("this server does not lead, and knows no other".into()),
        };
        self.lose(&lost);
    }

    /// Gives the connection up; returns how the request ended if it was in flight on it.
    fn lose(&mut self, lost: &Lost) -> Option<Outcome> {
        if let Some(connection) = self.connection.take()
            && !matches!(lost, Lost::Elsewhere)
        {
            self.route.failed(connection.address, Instant::now());
            self.last = format!("{}: {lost}", connection.address);
        }
        let ended = self.session.disconnected(lost).pop();
        ended.map(|((), outcome)| outcome)
    }

    /// One attempt at the next server, or the pause before it.
    fn reconnect(&mut self, deadline: Instant) {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let address = match self.route.next(now) {
            Step::Dial(address) => address,
            Step::Pause(pause) => return thread::sleep(pause.min(left)),
        };
        let patience = left.min(attempt_timeout(self.options.connect_timeout));
        if let Err(lost) = self.open(address, patience.max(Duration::from_millis(1))) {
            self.connection = None;
            self.session.disconnected(&lost);
            if !matches!(lost, Lost::Elsewhere) {
                self.route.failed(address, Instant::now());
                self.last = format!("{address}: {lost}");
            }
        }
    }

    fn open(&mut self, address: SocketAddr, patience: Duration) -> Result<(), Lost> {
        let socket = socket(address, self.options.bind)?;
        socket.connect_timeout(&address.into(), patience)?;
        self.session.connected();
        let connection = self.connection.insert(Connection {
            address,
            stream: socket.into(),
        });
        let deadline = Instant::now() + patience;
        let hello = match until_event(&mut self.session, connection, deadline)? {
            Event::Hello(hello) => hello,
            Event::Ended(..) => unreachable!("no request leaves before the greeting"),
        };
        self.welcome(&hello)
    }

    fn welcome(&mut self, hello: &Hello) -> Result<(), Lost> {
        match self.route.answered(hello, Instant::now()) {
            Verdict::Stay { .. } => {
                self.session.open();
                self.shards = hello.shards;
                Ok(())
            }
            Verdict::Elsewhere => Err(Lost::Elsewhere),
            Verdict::Unusable(why) => Err(Lost::Refused(why)),
        }
    }
}

/// Sends the request and waits for its end.
fn exchange(
    session: &mut Session<()>,
    connection: &mut Connection,
    deadline: Instant,
) -> Result<Outcome, Lost> {
    match until_event(session, connection, deadline)? {
        Event::Ended((), outcome) => Ok(outcome),
        Event::Hello(_) => unreachable!("a session is greeted once"),
    }
}

fn until_event(
    session: &mut Session<()>,
    connection: &mut Connection,
    deadline: Instant,
) -> Result<Event<()>, Lost> {
    let stream = &mut connection.stream;
    loop {
        if let Some(event) = session.next_event()? {
            return Ok(event);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Lost::Silent);
        }
        if !session.to_send().is_empty() {
            stream.set_write_timeout(Some(left))?;
            let sent = stream.write(session.to_send()).map_err(late)?;
            session.sent(sent);
            continue;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(session.space()).map_err(late)? {
            0 => return Err(Lost::Closed),
            n => session.received(n, Instant::now()),
        }
    }
}

/// A socket's timeout shows as one of two errors.
fn late(error: io::Error) -> Lost {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Lost::Silent,
        _ => Lost::Io(error),
    }
}

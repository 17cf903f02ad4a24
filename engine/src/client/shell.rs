//! The client of a glommio executor: what its callers hold.
//!
//! A call encodes its frame straight from the caller's bytes into the session's buffer, wakes the
//! driver and waits. The driver runs once per turn of the executor however many calls were made,
//! so their frames leave in one send.

use std::{
    cell::RefCell,
    fmt,
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_channel::oneshot;
use futures_lite::{FutureExt, future::poll_fn};
use glommio::{sync::Semaphore, timer::sleep};
use std::task::Poll;
use wire::{ClusterStatus, Hello, Index, KvRow, KvVerb, Query, ReadMode, Reply, Role, ShardId};

use super::{
    ClientError, ClientOptions, PutOptions, Read, Written, driver,
    requests::{self, Encoded, Request, Write},
    session::{Outcome, Session},
};

/// A client of the native protocol, on the executor that connected it. Clones share the
/// connection; the last one to go closes it.
#[derive(Clone)]
pub struct Client {
    handle: Rc<Handle>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.handle.shared.options;
        f.debug_struct("Client")
            .field("options", options)
            .finish_non_exhaustive()
    }
}

/// Ends the tasks behind the client when nobody holds it any more.
struct Handle {
    shared: Rc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// What the client and its tasks share. Never borrowed across an await.
pub(super) struct Shared {
    pub(super) options: ClientOptions,
    pub(super) state: RefCell<State>,
    admission: Semaphore,
}

pub(super) struct State {
    pub(super) session: Session<oneshot::Sender<Outcome>>,
    /// The driver, where it waits for the connection.
    pub(super) driver: Option<Waker>,
    /// The sweeper, where it waits for requests.
    sweeper: Option<Waker>,
    /// Shards of the cluster; known once connected.
    pub(super) shards: u16,
    /// What went wrong last, for errors.
    pub(super) last: String,
    /// The server has been silent for too long.
    pub(super) hung: bool,
    pub(super) closed: bool,
}

impl State {
    pub(super) fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Takes a request in; its outcome comes through the receiver.
    pub(super) fn make<R: Request>(
        &mut self,
        request: &R,
        now: Instant,
        deadline: Instant,
    ) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.session.make(request, sender, now, deadline);
        self.wake_driver();
        if let Some(sweeper) = self.sweeper.take() {
            sweeper.wake();
        }
        receiver
    }
}

/// Tells a caller how its request ended; a caller that has gone is none.
pub(super) fn tell(caller: oneshot::Sender<Outcome>, outcome: Outcome) {
    let _ = caller.send(outcome);
}

impl Shared {
    fn close(&self) {
        let mut state = self.state.borrow_mut();
        state.closed = true;
        state.wake_driver();
        if let Some(sweeper) = state.sweeper.take() {
            sweeper.wake();
        }
    }
}

impl Client {
    /// Finds a server, and through it the leader, within `options.connect_timeout`.
    ///
    /// # Errors
    ///
    /// [`ClientError::NoServer`] when none of the seeds leads to a server of a cluster;
    /// [`ClientError::Invalid`] for options that cannot work.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        options.check()?;
        let shared = Rc::new(Shared {
            state: RefCell::new(State {
                session: Session::new(&options.hello(), options.answer_bytes_max),
                driver: None,
                sweeper: None,
                shards: 0,
                last: "no server was tried yet".into(),
                hung: false,
                closed: false,
            }),
            admission: Semaphore::new(options.bytes_in_flight_max as u64),
            options,
        });
        let client = Self {
            handle: Rc::new(Handle {
                shared: Rc::clone(&shared),
            }),
        };
        let (ready, connected) = oneshot::channel();
        glommio::spawn_local(driver::drive(Rc::clone(&shared), ready)).detach();
        glommio::spawn_local(sweep(Rc::clone(&shared))).detach();
        let options = &shared.options;
        let late = async {
            sleep(options.connect_timeout).await;
            Err(oneshot::Canceled)
        };
        match connected.or(late).await {
            Ok(()) => Ok(client),
            Err(oneshot::Canceled) => Err(ClientError::NoServer {
                tried: options.seed_names(),
                after: options.connect_timeout,
                last: shared.state.borrow().last.clone(),
            }),
        }
    }

    /// Writes a key.
    pub async fn put(
        &self,
        key: &[u8],
        value: &[u8],
        options: PutOptions,
    ) -> Result<Written, ClientError> {
        let write = Write::new(requests::set(key, value, options), self.shards())?;
        requests::written(self.request(&write).await?)
    }

    /// Writes a key if its modify index is `index`; 0: if it does not exist. [`Written::ok`]
    /// says whether it was written.
    pub async fn cas(
        &self,
        key: &[u8],
        value: &[u8],
        index: Index,
    ) -> Result<Written, ClientError> {
        let cas = Some(index);
        self.put(key, value, PutOptions { flags: 0, cas }).await
    }

    /// Removes a key; ok whether or not it exists.
    pub async fn delete(&self, key: &[u8]) -> Result<Written, ClientError> {
        self.remove(KvVerb::Delete, key, Index(0)).await
    }

    /// Removes a key if its modify index is `index`.
    pub async fn delete_cas(&self, key: &[u8], index: Index) -> Result<Written, ClientError> {
        self.remove(KvVerb::DeleteCas, key, index).await
    }

    /// Removes every key that begins with `prefix`.
    pub async fn delete_tree(&self, prefix: &[u8]) -> Result<Written, ClientError> {
        self.remove(KvVerb::DeleteTree, prefix, Index(0)).await
    }

    async fn remove(&self, verb: KvVerb, key: &[u8], index: Index) -> Result<Written, ClientError> {
        let write = Write::new(requests::delete(verb, key, index), self.shards())?;
        requests::written(self.request(&write).await?)
    }

    /// Reads one key.
    pub async fn get(
        &self,
        key: &[u8],
        mode: ReadMode,
    ) -> Result<Read<Option<KvRow>>, ClientError> {
        requests::row(self.query(&requests::get(key, mode)).await?)
    }

    /// Reads all rows whose keys begin with `prefix`, in key order.
    pub async fn list(
        &self,
        prefix: &[u8],
        mode: ReadMode,
    ) -> Result<Read<Vec<KvRow>>, ClientError> {
        requests::rows(self.query(&requests::list(prefix, mode)).await?)
    }

    /// Reads the names of keys that begin with `prefix`, cut after the first `separator` behind
    /// it (empty for none), each once.
    pub async fn keys(
        &self,
        prefix: &[u8],
        separator: &[u8],
        mode: ReadMode,
    ) -> Result<Read<Vec<Bytes>>, ClientError> {
        requests::names(self.query(&requests::keys(prefix, separator, mode)).await?)
    }

    /// Who leads, and who is in the peer set, as the connected server knows it.
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        requests::cluster(self.query(&requests::status()).await?)
    }

    /// Has an encoded [`wire::Command`] committed and applied by `shard`.
    pub async fn propose(&self, shard: ShardId, command: Bytes) -> Result<Written, ClientError> {
        requests::written(self.request(&Encoded::command(shard, command)?).await?)
    }

    /// Asks a query; the pieces of a long answer come as one reply, never a `Failed` one.
    pub async fn query(&self, query: &Query) -> Result<Reply, ClientError> {
        self.request(&Encoded::query(query, self.shards())?).await
    }

    /// Number of shards of the cluster.
    pub fn shards(&self) -> u16 {
        self.handle.shared.state.borrow().shards
    }

    async fn request<R: Request>(&self, request: &R) -> Result<Reply, ClientError> {
        let shared = &self.handle.shared;
        let timeout = shared.options.request_timeout;
        let mut now = Instant::now();
        let deadline = now + timeout;
        let units = shared.options.units(request.bytes());
        let _permit = match shared.admission.try_acquire_permit(units) {
            Ok(permit) => permit,
            Err(_) => {
                let admitted = async {
                    let permit = shared.admission.acquire_permit(units).await;
                    permit.map_err(|_| ClientError::Closed)
                };
                let late = async {
                    sleep(timeout).await;
                    let last = "too many requests were in flight".into();
                    Err(ClientError::Timeout {
                        after: timeout,
                        last,
                    })
                };
                let permit = admitted.or(late).await?;
                now = Instant::now();
                permit
            }
        };
        loop {
            let outcome = {
                let mut state = shared.state.borrow_mut();
                if now >= deadline {
                    let last = state.last.clone();
                    return Err(ClientError::Timeout {
                        after: timeout,
                        last,
                    });
                }
                state.make(request, now, deadline)
            };
            match outcome.await {
                Ok(Outcome::Reply(reply)) => return Ok(reply),
                Ok(Outcome::Failed(error)) => return Err(error),
                Ok(Outcome::Again) => now = Instant::now(),
                Err(oneshot::Canceled) => return Err(ClientError::Closed),
            }
        }
    }
}

impl ClientOptions {
    pub(super) fn check(&self) -> Result<(), ClientError> {
        let wrong = |why: &str| Err(ClientError::Invalid(why.into()));
        if self.seeds.is_empty() {
            return wrong("no server address was given: a client needs at least one seed");
        }
        if self.requests_in_flight_max == 0 || self.bytes_in_flight_max == 0 {
            return wrong("requests_in_flight_max and bytes_in_flight_max must be at least 1");
        }
        if self.connect_timeout.is_zero() || self.request_timeout.is_zero() {
            return wrong("connect_timeout and request_timeout must be more than nothing");
        }
        Ok(())
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            protocol: wire::limits::PROTOCOL_VERSION,
            role: Role::Client,
            name: self.name.clone(),
            ..Hello::default()
        }
    }

    pub(super) fn seed_names(&self) -> String {
        let names: Vec<_> = self.seeds.iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// What a request of `bytes` takes of `bytes_in_flight_max`.
    fn units(&self, bytes: usize) -> u64 {
        let least = self
            .bytes_in_flight_max
            .div_ceil(self.requests_in_flight_max);
        bytes.max(least).min(self.bytes_in_flight_max) as u64
    }
}

/// Ends requests whose time is up. Sleeps only while there are any.
async fn sweep(shared: Rc<Shared>) {
    let timeout = shared.options.request_timeout;
    let tick = (timeout / 20).clamp(Duration::from_millis(5), Duration::from_millis(250));
    loop {
        let closed = poll_fn(|cx| {
            let mut state = shared.state.borrow_mut();
            if state.session.is_idle() && !state.closed {
                state.sweeper = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(state.closed)
        });
        if closed.await {
            return;
        }
        sleep(tick).await;
        let now = Instant::now();
        let mut state = shared.state.borrow_mut();
        if state.session.is_silent(now, timeout) {
            state.hung = true;
            state.wake_driver();
        }
        let last = state.last.clone();
        for (caller, error) in state.session.expire(now, timeout, &last) {
            tell(caller, Outcome::Failed(error));
        }
    }
}

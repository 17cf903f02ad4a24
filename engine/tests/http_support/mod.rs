//! A server of the HTTP layer without a cluster, and a client that says exactly what it is told.
//!
//! Behind the layer stands [`Fake`], a map with Consul's semantics in a few dozen lines: obviously
//! correct rather than fast, and told by the test how to misbehave.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod client;
pub mod fake;

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use engine::server::http::{HttpLimits, HttpService, bind_exclusive};
use engine::server::{Acceptor, Stream};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

#[allow(unused_imports, reason = "each test binary uses its part")]
pub use client::{Client, Event, Response, get, put, request};
pub use fake::{Fake, State};

/// A server on a port of its own, on an executor of its own, until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    drain: Arc<AtomicBool>,
    executor: Option<ExecutorJoinHandle<()>>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(HttpLimits::default(), |_| {})
    }

    pub fn with(limits: HttpLimits, set_up: impl FnOnce(&mut State)) -> Self {
        let mut state = State::default();
        set_up(&mut state);
        let state = Arc::new(Mutex::new(state));
        let (stop, drain) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let (ready, started) = mpsc::channel();
        let inside = (state.clone(), stop.clone(), drain.clone());
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(64 << 10)
            .ring_depth(128)
            // glommio 0.9 may park for ever with runnable tasks when this expires before any ran
            // (glommio/glommio#53); a busy machine made a short one do so here.
            .preempt_timer(Duration::from_secs(60))
            .spawn(move || async move {
                let (state, stop, drain) = inside;
                let listener =
                    bind_exclusive("127.0.0.1:0".parse().unwrap(), "-http-port").unwrap();
                ready.send(listener.local_addr().unwrap()).unwrap();
                let mut acceptor = Acceptor::new(listener).unwrap();
                let service = HttpService::new(Fake(state), limits);
                loop {
                    let socket = acceptor.accept().await.unwrap();
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    if drain.load(Ordering::Acquire) {
                        service.stop();
                    }
                    glommio::spawn_local(service.serve_connection(Stream::new(socket).unwrap()))
                        .detach();
                }
            })
            .unwrap();
        let address = started.recv().unwrap();
        Self {
            address,
            state,
            stop,
            drain,
            executor: Some(executor),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Tells the service to stop, as a shutdown does.
    pub fn drain(&self) {
        self.drain.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address).unwrap());
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn get(&self, target: &str) -> Response {
        self.client().get(target)
    }

    pub fn put(&self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.client().put(target, body)
    }

    pub fn delete(&self, target: &str) -> Response {
        self.client().request("DELETE", target, &[], b"")
    }

    /// A gauge of the server's own metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/v1/agent/metrics").json();
        let gauges = metrics["Gauges"].as_array().unwrap();
        let gauge = gauges.iter().find(|gauge| gauge["Name"] == name);
        gauge.unwrap_or_else(|| panic!("no {name}"))["Value"]
            .as_f64()
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept loop.
        drop(TcpStream::connect(self.address));
        let ended = self.executor.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Waits until `reached`, which must happen: only a test that fails waits long.
pub fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if reached() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never happened that {what}");
}

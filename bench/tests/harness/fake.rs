//! A stand-in for `curia agent` that keeps its promises unless told otherwise.
//!
//! All servers of a cluster share one directory of values, so replication is no question. Alive
//! is who accepts connections on the server port; the leader is the first of those; a write is
//! acknowledged if a quorum is alive. The server port speaks frames to whoever says Hello.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use wire::{
    Command, Failure, FailureKind, Frame, FrameDecoder, FrameKind, Hello, Index, KvRow, Query,
    QueryBody, Reply, ReplyBody, limits,
};

/// Environment variable with the arguments that `curia` was called with.
pub const ARGUMENTS: &str = "FAKE_ARGUMENTS";
/// Set: acknowledges writes without a quorum.
pub const ACKS_ALONE: &str = "FAKE_ACKS_ALONE";
/// Every so many writes one is acknowledged and not stored.
pub const FORGETS_EVERY: &str = "FAKE_FORGETS_EVERY";
/// The process ends after so many writes.
pub const CRASHES_AFTER: &str = "FAKE_CRASHES_AFTER";

struct Fake {
    flags: HashMap<String, String>,
    store: PathBuf,
    writes: AtomicU64,
}

/// Not a test but the stand-in's `main`: does nothing unless started through the script.
#[test]
fn serve() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else {
        return;
    };
    let flags: HashMap<String, String> = arguments
        .split_whitespace()
        .filter_map(|flag| flag.trim_start_matches('-').split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let data = PathBuf::from(&flags["data-dir"]);
    let store = data.parent().unwrap().join("shared");
    fs::create_dir_all(&store).unwrap();
    let listen = |ip: &str, port: &str| {
        TcpListener::bind(format!("{}:{}", flags[ip], flags[port])).expect("port in use")
    };
    let (peers, http) = (listen("bind", "server-port"), listen("client", "http-port"));
    let fake = Arc::new(Fake {
        flags,
        store,
        writes: AtomicU64::new(0),
    });
    let native = fake.clone();
    std::thread::spawn(move || {
        for stream in peers.incoming() {
            let fake = native.clone();
            // Most connections here only ask whether we are alive, and end at once.
            std::thread::spawn(move || fake.frames(stream.unwrap()));
        }
    });
    for stream in http.incoming() {
        let fake = fake.clone();
        std::thread::spawn(move || fake.connection(stream.unwrap()));
    }
}

fn reply(body: ReplyBody) -> Reply {
    Reply {
        index: Index(1),
        known_leader: true,
        last_contact_ms: 0,
        more: false,
        body,
    }
}

fn scripted(name: &str) -> u64 {
    std::env::var(name).map_or(0, |n| n.parse().unwrap())
}

impl Fake {
    fn peers(&self) -> Vec<&str> {
        self.flags["retry-join"].split(',').collect()
    }

    fn alive(&self) -> Vec<&str> {
        let accepts = |peer: &&str| {
            let address: SocketAddr = peer.parse().unwrap();
            TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
        };
        self.peers().into_iter().filter(accepts).collect()
    }

    fn connection(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut out = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream);
        loop {
            let mut request = String::new();
            if lines.read_line(&mut request).unwrap_or(0) == 0 {
                return;
            }
            let mut length = 0;
            loop {
                let mut header = String::new();
                if lines.read_line(&mut header).unwrap_or(0) == 0 {
                    return;
                }
                if header.trim().is_empty() {
                    break;
                }
                if let Some(n) = header.strip_prefix("Content-Length: ") {
                    length = n.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            if lines.read_exact(&mut body).is_err() {
                return;
            }
            let words: Vec<&str> = request.split(' ').collect();
            let (status, answer) = self.answer(words[0], words[1], &body);
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            if out.write_all(&[head.as_bytes(), &answer].concat()).is_err() {
                return;
            }
        }
    }

    fn frames(&self, mut stream: TcpStream) {
        let mut decoder = FrameDecoder::new(limits::CLIENT_FRAME_BYTES_MAX);
        stream.set_nodelay(true).unwrap();
        while let Ok(n @ 1..) = stream.read(decoder.space()) {
            decoder.received(n);
            while let Some(frame) = decoder.next_frame().expect("frames of our own bench") {
                let mut out = BytesMut::new();
                let (kind, payload) = match frame.kind {
                    FrameKind::Hello => (
                        FrameKind::Hello,
                        Hello {
                            protocol: limits::PROTOCOL_VERSION,
                            ..Hello::default()
                        }
                        .encode(),
                    ),
                    FrameKind::Propose => (FrameKind::Reply, self.propose(&frame.payload).encode()),
                    FrameKind::Query => (FrameKind::Reply, self.query(&frame.payload).encode()),
                    other => panic!("a bench that sends {other:?}"),
                };
                Frame {
                    kind,
                    payload,
                    ..frame
                }
                .encode(&mut out);
                if stream.write_all(&out).is_err() {
                    return;
                }
            }
        }
    }

    fn propose(&self, payload: &Bytes) -> Reply {
        let Ok(Command::Kv(kv)) = Command::decode(payload) else {
            panic!("not a KV command");
        };
        let key = std::str::from_utf8(kv.key).unwrap();
        let index = Index(1);
        reply(match self.put(&format!("/v1/kv/{key}"), kv.value) {
            (200, _) => ReplyBody::Written { ok: true, index },
            (_, text) => ReplyBody::Failed(Failure {
                kind: FailureKind::NoLeader,
                message: String::from_utf8(text).unwrap(),
                leader: String::new(),
                retry_after_ms: 0,
            }),
        })
    }

    fn query(&self, payload: &Bytes) -> Reply {
        let QueryBody::KvGet { key } = Query::decode(payload).unwrap().body else {
            panic!("not a get");
        };
        let path = format!("/v1/kv/{}", std::str::from_utf8(&key).unwrap());
        let row = |value: Vec<u8>| KvRow {
            key: key.clone(),
            value: value.into(),
            flags: 0,
            create_index: Index(1),
            modify_index: Index(1),
            lock_index: 0,
            session: Bytes::new(),
        };
        reply(ReplyBody::Rows(
            fs::read(self.file(&path))
                .ok()
                .map(row)
                .into_iter()
                .collect(),
        ))
    }

    fn answer(&self, method: &str, target: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match (method, path) {
            (_, "/v1/status/leader") => {
                let alive = self.alive();
                let leads = if self.has_quorum(&alive) {
                    alive[0]
                } else {
                    ""
                };
                (200, format!("{leads:?}").into_bytes())
            }
            (_, "/v1/status/peers") => (200, format!("{:?}", self.peers()).into_bytes()),
            (_, "/v1/agent/metrics") => (200, self.metrics()),
            ("PUT", _) => self.put(path, body),
            ("GET", _) => match fs::read(self.file(path)) {
                Ok(value) if query.contains("raw") => (200, value),
                Ok(value) => {
                    let text = base64::engine::general_purpose::STANDARD.encode(value);
                    (200, format!(r#"[{{"Value":"{text}"}}]"#).into_bytes())
                }
                Err(_) => (404, Vec::new()),
            },
            _ => (405, Vec::new()),
        }
    }

    fn has_quorum(&self, alive: &[&str]) -> bool {
        alive.len() > self.peers().len() / 2
    }

    fn put(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        if !self.has_quorum(&self.alive()) && scripted(ACKS_ALONE) == 0 {
            std::thread::sleep(Duration::from_millis(100));
            return (500, b"No cluster leader".to_vec());
        }
        let n = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        if n == scripted(CRASHES_AFTER) {
            eprintln!("scripted crash");
            std::process::exit(1);
        }
        let every = scripted(FORGETS_EVERY);
        if every == 0 || !n.is_multiple_of(every) {
            let file = self.file(path);
            let fresh = file.with_extension(format!("{}-{n}", std::process::id()));
            fs::write(&fresh, body).unwrap();
            fs::rename(&fresh, &file).unwrap();
        }
        (200, b"true".to_vec())
    }

    fn file(&self, path: &str) -> PathBuf {
        self.store.join(path.replace('/', "_"))
    }

    /// Each server claims what the leader alone can count: 4096 bytes for each write of all.
    fn metrics(&self) -> Vec<u8> {
        let n = self.peers().len() as u64;
        let bytes = self.writes.load(Ordering::Relaxed) * 4096 * n;
        let gauge = |name: &str, value: u64| {
            format!(r#"{{"Name":"{name}","Value":{value},"Labels":{{}}}}"#)
        };
        let gauges = [
            gauge("curia.raft.term", 2),
            gauge("curia.raft.elections", 1),
            gauge("curia.log.batches", self.writes.load(Ordering::Relaxed)),
            gauge("curia.log.bytes_submitted", bytes),
            gauge("curia.log.zero_fill_bytes", 1 << 20),
        ];
        format!(r#"{{"Gauges":[{}]}}"#, gauges.join(",")).into_bytes()
    }
}

//! A server that follows a script: what each connection says is up to the test.
//!
//! Bound before it is scripted, so that servers can name each other.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use wire::{
    Command, Failure, FailureKind, Frame, FrameDecoder, FrameKind, Hello, Index, Member, Query,
    Reply, ReplyBody, RequestId, Role, ServerId, ShardId, Uuid, limits,
};

/// A bound address that does not serve yet.
pub struct FakeServer {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl FakeServer {
    pub fn bind() -> Self {
        Self::bind_to((Ipv4Addr::LOCALHOST, 0).into())
    }

    pub fn bind_to(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// Serves connections, each on a thread of its own; `script` gets their number from 0 on.
    /// Returns a counter of the connections accepted.
    pub fn serve(
        self,
        script: impl Fn(usize, Conversation) + Send + Sync + 'static,
    ) -> Arc<AtomicUsize> {
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let script = Arc::new(script);
        let address = self.address;
        thread::spawn(move || {
            while let Ok((stream, peer)) = self.listener.accept() {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let script = Arc::clone(&script);
                thread::spawn(move || script(number, Conversation::new(stream, peer, address)));
            }
        });
        accepted
    }

    /// Accepts one connection, follows `script` on it, then closes the port.
    pub fn serve_one(self, script: impl FnOnce(Conversation) + Send + 'static) {
        thread::spawn(move || {
            let (stream, peer) = self.listener.accept().unwrap();
            drop(self.listener);
            script(Conversation::new(stream, peer, self.address));
        });
    }
}

/// A server's end of a connection.
pub struct Conversation {
    stream: TcpStream,
    decoder: FrameDecoder,
    pub peer: SocketAddr,
    address: SocketAddr,
}

/// What a client asked.
#[derive(Debug)]
pub struct Asked {
    pub request: RequestId,
    pub shard: ShardId,
    /// The key of a command or query; empty where it has none.
    pub key: Vec<u8>,
    pub is_write: bool,
}

impl Conversation {
    fn new(stream: TcpStream, peer: SocketAddr, address: SocketAddr) -> Self {
        // A test that goes wrong must end.
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            decoder: FrameDecoder::new(limits::CLIENT_FRAME_BYTES_MAX),
            peer,
            address,
        }
    }

    /// A Hello of this server in a cluster of one shard.
    pub fn hello(&self, leader: Option<SocketAddr>, members: &[SocketAddr]) -> Hello {
        Hello {
            protocol: limits::PROTOCOL_VERSION,
            role: Role::Client,
            name: "fake".into(),
            address: self.address.to_string(),
            cluster_id: Uuid([1; 16]),
            shards: 1,
            leader: leader.map(|leader| leader.to_string()).unwrap_or_default(),
            members: members
                .iter()
                .zip(1..)
                .map(|(address, id)| Member {
                    raft_id: ServerId(id),
                    address: address.to_string(),
                    voter: true,
                    ..Member::default()
                })
                .collect(),
            ..Hello::default()
        }
    }

    /// Takes the client's Hello and answers it.
    pub fn greet(&mut self, hello: &Hello) {
        let first = self.frame().expect("a Hello");
        assert_eq!(first.kind, FrameKind::Hello);
        let theirs = Hello::decode(&first.payload).unwrap();
        assert_eq!(
            (theirs.role, theirs.protocol),
            (Role::Client, limits::PROTOCOL_VERSION)
        );
        self.say(FrameKind::Hello, RequestId(0), hello.encode());
    }

    /// Greets as the leader.
    pub fn lead(mut self) -> Self {
        let hello = self.hello(Some(self.address), &[self.address]);
        self.greet(&hello);
        self
    }

    /// The next frame; `None` at the end of the stream.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read(self.decoder.space()) {
                Ok(n) if n > 0 => self.decoder.received(n),
                _ => return None,
            }
        }
    }

    /// The next request; `None` at the end of the stream.
    pub fn asked(&mut self) -> Option<Asked> {
        let frame = self.frame()?;
        let key = match frame.kind {
            FrameKind::Propose => match Command::decode(&frame.payload).unwrap() {
                Command::Kv(kv) => kv.key.to_vec(),
                _ => Vec::new(),
            },
            FrameKind::Query => match Query::decode(&frame.payload).unwrap().body {
                wire::QueryBody::KvGet { key } => key.to_vec(),
                wire::QueryBody::KvList { prefix, .. }
                | wire::QueryBody::KvKeys { prefix, .. }
                | wire::QueryBody::KvWatch { prefix, .. } => prefix.to_vec(),
                wire::QueryBody::Status | wire::QueryBody::Txn(_) | wire::QueryBody::Record(_) => {
                    Vec::new()
                }
            },
            other => panic!("a client sent {other:?}"),
        };
        Some(Asked {
            request: frame.request,
            shard: frame.shard,
            key,
            is_write: frame.kind == FrameKind::Propose,
        })
    }

    pub fn say(&mut self, kind: FrameKind, request: RequestId, payload: Bytes) {
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
        self.raw(&out);
    }

    /// Sends bytes as they are. The client may be gone already.
    pub fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn reply(&mut self, request: RequestId, body: ReplyBody) {
        self.piece(request, body, false);
    }

    pub fn piece(&mut self, request: RequestId, body: ReplyBody, more: bool) {
        let reply = Reply {
            index: Index(77),
            known_leader: true,
            last_contact_ms: 0,
            more,
            body,
        };
        self.say(FrameKind::Reply, request, reply.encode());
    }

    pub fn written(&mut self, request: RequestId, index: u64) {
        let index = Index(index);
        self.reply(request, ReplyBody::Written { ok: true, index });
    }

    pub fn fail(&mut self, request: RequestId, kind: FailureKind, leader: &str) {
        let failure = Failure {
            kind,
            message: format!("{kind:?} by script"),
            leader: leader.into(),
            retry_after_ms: 0,
        };
        self.reply(request, ReplyBody::Failed(failure));
    }

    /// Answers everything: writes with the number of the request as index, reads with no rows.
    pub fn answer_all(&mut self) {
        while let Some(asked) = self.asked() {
            if asked.is_write {
                self.written(asked.request, asked.request.0);
            } else {
                self.reply(asked.request, ReplyBody::Rows(Vec::new()));
            }
        }
    }

    /// Closes both directions at once.
    pub fn close(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

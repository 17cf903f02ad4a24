//! One sample of every frame kind, strategies for arbitrary values of every type, and a reader
//! that treats a frame as the sockets do: by its kind.

#![allow(dead_code, reason = "each test binary uses its part")]

use bytes::{Bytes, BytesMut};
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use wire::{
    Bootstrap, BootstrapAnswer, ChangeOp, ClusterStatus, Command, Credit, Cursor, EntriesChunk,
    EntriesFetch, Failure, FailureKind, Frame, FrameDecoder, FrameKind, Hello, ImageChunk,
    ImageFetch, Index, KvChange, KvChanges, KvCommand, KvRow, KvVerb, Member, Query, QueryBody,
    RaftEnvelope, ReadMode, RecordCommand, RecordKind, Reply, ReplyBody, RequestId, Role, ServerId,
    ShardId, Term, TxnError, TxnOp, TxnOps, TxnResult, TxnVerb, Uuid, Wait, WatchFrom, WireEntry,
    WireError, decode_raft_frame, encode_raft_frame,
};

pub mod strategies;

/// Reads a frame's content as its kind says.
pub fn read_content(frame: &Frame) -> Result<(), WireError> {
    let payload = &frame.payload;
    match frame.kind {
        FrameKind::Hello => Hello::decode(payload).map(drop),
        FrameKind::Raft => decode_raft_frame(payload, &frame.blob).map(drop),
        FrameKind::Propose => Command::decode(payload).map(drop),
        FrameKind::Query => Query::decode(payload).map(drop),
        FrameKind::Reply => Reply::decode(payload).map(drop),
        FrameKind::BootstrapPropose | FrameKind::BootstrapCommit => {
            Bootstrap::decode(payload).map(drop)
        }
        FrameKind::BootstrapAnswer => BootstrapAnswer::decode(payload).map(drop),
        FrameKind::ImageFetch => ImageFetch::decode(payload).map(drop),
        FrameKind::ImageChunk => ImageChunk::decode(payload)?.check(&frame.blob),
        FrameKind::EntriesFetch => EntriesFetch::decode(payload).map(drop),
        FrameKind::EntriesChunk => EntriesChunk::decode(payload, &frame.blob).map(drop),
        FrameKind::Credit => Credit::decode(payload).map(drop),
        FrameKind::Cancel | FrameKind::Event => Ok(()),
    }
}

/// Feeds `bytes` to a decoder in as few pieces as its space allows; returns the frames and the error.
pub fn feed(decoder: &mut FrameDecoder, mut bytes: &[u8]) -> (Vec<Frame>, Option<WireError>) {
    let mut frames = Vec::new();
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        if bytes.is_empty() {
            return (frames, None);
        }
        let space = decoder.space();
        let n = space.len().min(bytes.len());
        space[..n].copy_from_slice(&bytes[..n]);
        decoder.received(n);
        bytes = &bytes[n..];
    }
}

pub fn encoded(frame: &Frame) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.to_vec()
}

fn frame(kind: FrameKind, request: u64, payload: Bytes, blob: Bytes) -> Vec<u8> {
    encoded(&Frame {
        kind,
        shard: ShardId(0),
        request: RequestId(request),
        flags: 0,
        payload,
        blob,
    })
}

pub fn sample_uuid(n: u8) -> Uuid {
    let mut bytes = [n; 16];
    bytes[0] = 0x42;
    Uuid(bytes)
}

pub fn sample_members() -> Vec<Member> {
    (1..=3)
        .map(|n| Member {
            raft_id: ServerId(0x1111_0000 + u64::from(n)),
            node_id: sample_uuid(n),
            name: format!("node-{n}"),
            address: format!("127.0.0.{n}:8300"),
            voter: n < 3,
            leader: n == 1,
        })
        .collect()
}

pub fn sample_hello() -> Hello {
    Hello {
        protocol: wire::limits::PROTOCOL_VERSION,
        role: Role::Peer,
        node_id: sample_uuid(1),
        raft_id: ServerId(77),
        name: "node-1".into(),
        address: "127.0.0.1:8300".into(),
        http_address: "127.0.0.1:8500".into(),
        datacenter: "dc1".into(),
        cluster_id: sample_uuid(9),
        lane: 1,
        lanes: 2,
        shards: 4,
        expect: 3,
        has_state: true,
        leader: "127.0.0.2:8300".into(),
        members: sample_members(),
    }
}

fn append() -> RaftEnvelope {
    let mut message = Message {
        to: 2,
        from: 1,
        term: 5,
        log_term: 4,
        index: 41,
        commit: 40,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgAppend);
    for (index, term, kind, data) in [
        (42, 4, EntryType::EntryNormal, &b"first"[..]),
        (43, 5, EntryType::EntryNormal, b""),
        (44, 5, EntryType::EntryConfChangeV2, b"conf change"),
    ] {
        let mut entry = Entry {
            index,
            term,
            data: Bytes::from_static(data),
            ..Entry::default()
        };
        entry.set_entry_type(kind);
        message.entries.push(entry);
    }
    RaftEnvelope {
        message,
        sent_at: 123_456_789,
        echo: 0,
    }
}

fn heartbeat_response() -> RaftEnvelope {
    let mut message = Message {
        to: 2,
        from: 1,
        term: 5,
        commit: 40,
        context: Bytes::from_static(b"read 7"),
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgHeartbeatResponse);
    RaftEnvelope {
        message,
        sent_at: 123_456_999,
        echo: 123_400_000,
    }
}

fn snapshot() -> RaftEnvelope {
    let mut message = Message {
        to: 2,
        from: 1,
        term: 5,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgSnapshot);
    let mut snapshot = Snapshot {
        data: Bytes::from_static(b"image of 4096 bytes"),
        ..Snapshot::default()
    };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (40, 4);
    let conf = metadata.mut_conf_state();
    conf.voters = vec![1, 2, 3];
    conf.learners = vec![5];
    conf.voters_outgoing = vec![1, 2, 4];
    conf.learners_next = vec![4];
    conf.auto_leave = true;
    message.set_snapshot(snapshot);
    RaftEnvelope {
        message,
        ..RaftEnvelope::default()
    }
}

/// An append, a heartbeat's answer and a snapshot.
pub fn sample_messages() -> Vec<RaftEnvelope> {
    vec![append(), heartbeat_response(), snapshot()]
}

pub fn raft_frame(messages: &[RaftEnvelope]) -> Vec<u8> {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let mut out = BytesMut::new();
    encode_raft_frame(&mut builder, ShardId(3), messages, &mut out);
    out.to_vec()
}

pub fn sample_command() -> Command<'static> {
    Command::Kv(KvCommand {
        verb: KvVerb::Lock,
        key: b"lock/leader",
        value: b"node-1",
        flags: 42,
        index: 7,
        session: b"0191f3ab-00ff-4c2d-9e7a-0123456789ab",
    })
}

pub fn sample_row() -> KvRow {
    KvRow {
        key: Bytes::from_static(b"service/web"),
        value: Bytes::from_static(b"10.0.0.1"),
        flags: 42,
        create_index: Index(10),
        modify_index: Index(12),
        lock_index: 1,
        session: Bytes::from_static(b"0191f3ab-00ff-4c2d-9e7a-0123456789ab"),
    }
}

pub fn reply(body: ReplyBody) -> Reply {
    Reply {
        index: Index(99),
        known_leader: true,
        last_contact_ms: 3,
        more: matches!(body, ReplyBody::Rows(_)),
        body,
    }
}

fn sample_entries() -> EntriesChunk {
    EntriesChunk {
        term: Term(6),
        commit: Index(50),
        last_index: Index(60),
        leader: true,
        refused: false,
        reason: String::new(),
        entries: [(41, 4, "one"), (42, 6, "")]
            .map(|(index, term, data)| WireEntry {
                index: Index(index),
                term: Term(term),
                kind: 0,
                data: Bytes::from_static(data.as_bytes()),
            })
            .to_vec(),
        ..EntriesChunk::default()
    }
}

fn sample_refusal() -> EntriesChunk {
    EntriesChunk {
        term: Term(6),
        refused: true,
        reason: "this server's log begins at 50".to_owned(),
        image_index: Index(49),
        image_term: Term(5),
        other_history: true,
        ..EntriesChunk::default()
    }
}

/// Those of [`samples`] whose content can be damaged.
pub fn samples_with_payload() -> Vec<(&'static str, Vec<u8>)> {
    let mut samples = samples();
    samples.retain(|(name, _)| *name != "cancel");
    samples
}

/// A whole encoded frame for every kind, and for every form of the ones with several.
pub fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let bare = |kind, request, payload| frame(kind, request, payload, Bytes::new());
    let bootstrap = Bootstrap {
        cluster_id: sample_uuid(9),
        shards: 4,
        members: sample_members(),
    };
    let answer = BootstrapAnswer {
        accepted: false,
        reason: "it has state of another cluster".into(),
    };
    let query = |body| Query {
        mode: ReadMode::Consistent,
        min_index: Index(3),
        wait: Wait::default(),
        body,
    };
    let waiting = Query {
        mode: ReadMode::Stale,
        min_index: Index(0),
        wait: Wait {
            index: Index(42),
            ms: 300_000,
        },
        body: QueryBody::KvGet {
            key: Bytes::from_static(b"service/"),
        },
    };
    let key = Bytes::from_static(b"service/");
    let list = query(QueryBody::KvList {
        prefix: key.clone(),
        start_after: Bytes::from_static(b"service/a"),
        limit: 10,
    });
    let keys = query(QueryBody::KvKeys {
        prefix: key.clone(),
        separator: Bytes::from_static(b"/"),
        start_after: Bytes::new(),
        limit: 0,
    });
    let page = query(QueryBody::KvKeys {
        prefix: key.clone(),
        separator: Bytes::from_static(b"/"),
        start_after: Bytes::from_static(b"service/db/"),
        limit: 20,
    });
    let cursor = Cursor {
        index: Index(90),
        position: 2,
    };
    let watch = query(QueryBody::KvWatch {
        prefix: key.clone(),
        from: WatchFrom::Cursor(cursor),
    });
    let changes = ReplyBody::Changes(KvChanges {
        origin: 0x0191_f3ab_00ff_0000,
        next: Cursor::behind(Index(99)),
        caught_up: true,
        gone: false,
        changes: [ChangeOp::Lock, ChangeOp::DeleteTree]
            .map(|op| KvChange {
                op,
                at: cursor,
                row: sample_row(),
            })
            .to_vec(),
    });
    let failure = ReplyBody::Failed(Failure {
        kind: FailureKind::NotLeader,
        message: "this server does not lead".into(),
        leader: "127.0.0.2:8300".into(),
        retry_after_ms: 50,
    });
    let status = ReplyBody::Status(ClusterStatus {
        leader: "127.0.0.1:8300".into(),
        term: Term(5),
        commit: Index(99),
        applied: Index(98),
        members: sample_members(),
    });
    let written = ReplyBody::Written {
        ok: true,
        index: Index(99),
    };
    let digest = Command::DigestCheck {
        index: Index(1000),
        digest: 0xfeed_f00d,
    };
    let set = sample_command();
    let Command::Kv(set) = set else {
        unreachable!()
    };
    let op = |verb| TxnOp {
        verb,
        key: set.key,
        value: set.value,
        flags: set.flags,
        index: set.index,
        session: set.session,
    };
    let ops = [TxnVerb::Kv(KvVerb::Cas), TxnVerb::GetTree].map(op);
    let reads = [TxnVerb::Get, TxnVerb::CheckNotExists].map(op);
    let txn = Command::Txn(TxnOps::new(&ops));
    let txn_read = query(QueryBody::Txn(Command::Txn(TxnOps::new(&reads)).encode()));
    let record = Command::Record(RecordCommand {
        kind: RecordKind::Session,
        body: b"\x81\xa2Op\xa6create",
    });
    let record_read = query(QueryBody::Record(Bytes::from_static(b"\xa4List")));
    let document = ReplyBody::Document(Bytes::from_static(b"[{\"ID\":\"a\"}]"));
    let txn_result = ReplyBody::Txn(TxnResult {
        rows: vec![sample_row()],
        errors: vec![TxnError {
            op: 1,
            what: "key \"service/web\" doesn't exist".into(),
        }],
    });
    let image_fetch = ImageFetch {
        index: Index(40),
        term: Term(4),
        offset: 4096,
        length: 65_536,
    };
    let chunk_bytes = Bytes::from_static(b"a piece of an image");
    let image_chunk = ImageChunk {
        index: Index(40),
        term: Term(4),
        offset: 4096,
        total: 10_000,
        crc: crc32c::crc32c(&chunk_bytes),
        missing: false,
    };
    let entries_fetch = EntriesFetch {
        first: Index(41),
        last: Index(42),
        next_index: Index(43),
        next_term: Term(6),
    };
    let (entries, entries_blob) = sample_entries().encode();
    let rows = ReplyBody::Rows(vec![sample_row(), sample_row()]);
    let names = ReplyBody::Keys(vec![key.clone(), Bytes::from_static(b"service/db")]);
    let reply = |body| bare(FrameKind::Reply, 7, reply(body).encode());

    vec![
        ("hello", bare(FrameKind::Hello, 0, sample_hello().encode())),
        ("raft", raft_frame(&sample_messages())),
        (
            "propose",
            bare(FrameKind::Propose, 7, sample_command().encode()),
        ),
        (
            "propose-digest",
            bare(FrameKind::Propose, 0, digest.encode()),
        ),
        (
            "propose-ignorable",
            bare(FrameKind::Propose, 0, Command::Ignorable.encode()),
        ),
        ("propose-txn", bare(FrameKind::Propose, 7, txn.encode())),
        (
            "propose-record",
            bare(FrameKind::Propose, 7, record.encode()),
        ),
        (
            "query-get",
            bare(
                FrameKind::Query,
                7,
                query(QueryBody::KvGet { key }).encode(),
            ),
        ),
        ("query-list", bare(FrameKind::Query, 8, list.encode())),
        ("query-wait", bare(FrameKind::Query, 11, waiting.encode())),
        ("cancel", bare(FrameKind::Cancel, 11, Bytes::new())),
        (
            "event",
            frame(FrameKind::Event, 0, Bytes::new(), Bytes::from_static(b"{}")),
        ),
        ("query-keys", bare(FrameKind::Query, 9, keys.encode())),
        ("query-keys-page", bare(FrameKind::Query, 9, page.encode())),
        ("query-watch", bare(FrameKind::Query, 12, watch.encode())),
        (
            "query-status",
            bare(FrameKind::Query, 10, query(QueryBody::Status).encode()),
        ),
        ("query-txn", bare(FrameKind::Query, 11, txn_read.encode())),
        (
            "query-record",
            bare(FrameKind::Query, 11, record_read.encode()),
        ),
        ("reply-txn", reply(txn_result)),
        ("reply-document", reply(document)),
        ("reply-written", reply(written)),
        ("reply-rows", reply(rows)),
        ("reply-keys", reply(names)),
        ("reply-failed", reply(failure)),
        ("reply-changes", reply(changes)),
        ("reply-status", reply(status)),
        (
            "bootstrap-propose",
            bare(FrameKind::BootstrapPropose, 1, bootstrap.encode()),
        ),
        (
            "bootstrap-answer",
            bare(FrameKind::BootstrapAnswer, 1, answer.encode()),
        ),
        (
            "bootstrap-commit",
            bare(FrameKind::BootstrapCommit, 1, bootstrap.encode()),
        ),
        (
            "image-fetch",
            bare(FrameKind::ImageFetch, 2, image_fetch.encode()),
        ),
        (
            "image-chunk",
            frame(FrameKind::ImageChunk, 2, image_chunk.encode(), chunk_bytes),
        ),
        (
            "entries-fetch",
            bare(FrameKind::EntriesFetch, 3, entries_fetch.encode()),
        ),
        (
            "entries-chunk",
            frame(FrameKind::EntriesChunk, 3, entries, entries_blob),
        ),
        (
            "entries-refused",
            bare(FrameKind::EntriesChunk, 3, sample_refusal().encode().0),
        ),
        (
            "credit",
            bare(FrameKind::Credit, 7, Credit { pieces: 2 }.encode()),
        ),
    ]
}

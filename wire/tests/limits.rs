//! Is each bound of `limits` reached: is the greatest allowed value accepted, and the next refused?

mod common;

use bytes::{Bytes, BytesMut};
use common::{encoded, feed, raft_frame};
use raft::eraftpb::{Entry, Message, MessageType};
use wire::*;

fn frame(kind: FrameKind, blob_bytes: usize) -> Frame {
    Frame {
        kind,
        shard: ShardId(0),
        request: RequestId(0),
        flags: 0,
        payload: Bytes::new(),
        blob: Bytes::from(vec![0; blob_bytes]),
    }
}

/// Runs `decode` on what `make` gives for the limit and for one more.
fn reached<T>(max: usize, make: impl Fn(usize) -> T, decode: impl Fn(&T) -> Result<(), WireError>) {
    assert_eq!(decode(&make(max)), Ok(()));
    assert!(decode(&make(max + 1)).is_err(), "one more than {max}");
}

#[test]
fn frame_version() {
    let mut bytes = encoded(&frame(FrameKind::Query, 0));
    assert_eq!(bytes[4], limits::FRAME_VERSION);
    bytes[4] += 1;
    let error = feed(&mut FrameDecoder::default(), &bytes).1.unwrap();
    let expected = WireError::Version {
        found: limits::FRAME_VERSION + 1,
        supported: limits::FRAME_VERSION,
    };
    assert_eq!(error, expected);
}

/// A Hello of any protocol version is read, so that it can be refused by name.
#[test]
fn protocol_version() {
    let mut hello = common::sample_hello();
    hello.protocol = limits::PROTOCOL_VERSION + 1;
    assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
}

#[test]
fn command_version() {
    let bytes = common::sample_command().encode();
    let at = bytes.iter().rposition(|&b| b == limits::COMMAND_VERSION);
    let refusals = (0..bytes.len()).filter(|&at| {
        let mut changed = bytes.to_vec();
        changed[at] = limits::COMMAND_VERSION + 1;
        let error = Command::decode(&changed)
            .err()
            .map(|error| error.to_string());
        error.is_some_and(|text| text.contains("version 2 is not supported"))
    });
    assert!(
        at.is_some() && refusals.count() == 1,
        "one byte is the version"
    );
}

#[test]
fn frames() {
    let header = encoded(&frame(FrameKind::Query, 0)).len();
    for max in [limits::FRAME_BYTES_MAX, limits::CLIENT_FRAME_BYTES_MAX] {
        let decode = |bytes: &Vec<u8>| {
            let (frames, error) = feed(&mut FrameDecoder::new(max), bytes);
            assert!(error.is_some() || frames.len() == 1);
            error.map_or(Ok(()), Err)
        };
        let longest = encoded(&frame(FrameKind::Query, max - header));
        assert_eq!(longest.len(), max);
        assert_eq!(decode(&longest), Ok(()));
        // The header alone is enough to refuse it.
        let mut longer = longest[..header].to_vec();
        let announced = (max - header + 1) as u32;
        longer[20..24].copy_from_slice(&announced.to_le_bytes());
        let refused = WireError::TooLarge {
            what: "frame",
            found: max as u64 + 1,
            max: max as u64,
        };
        assert_eq!(decode(&longer), Err(refused));
    }
}

#[test]
#[should_panic(expected = "over the limit")]
fn frames_longer_than_the_limit_are_not_sent() {
    encoded(&frame(FrameKind::Query, limits::FRAME_BYTES_MAX));
}

/// Lengths that overflow 32 bits together are no way around the limit.
#[test]
fn lengths_do_not_overflow() {
    let mut bytes = encoded(&frame(FrameKind::Query, 0));
    bytes[16..24].fill(0xff);
    let error = feed(&mut FrameDecoder::default(), &bytes).1;
    assert!(
        matches!(error, Some(WireError::TooLarge { .. })),
        "{error:?}"
    );
}

#[test]
fn receive_buffer() {
    let mut decoder = FrameDecoder::default();
    assert_eq!(decoder.space().len(), limits::RECEIVE_BUFFER_BYTES_MIN);
    let stream = encoded(&frame(FrameKind::Query, 5_000)).repeat(40);
    feed(&mut decoder, &stream);
    assert_eq!(decoder.space().len(), limits::RECEIVE_BUFFER_BYTES);
}

fn kv<'a>(key: &'a [u8], value: &'a [u8], session: &'a [u8]) -> Command<'a> {
    Command::Kv(KvCommand {
        verb: KvVerb::Lock,
        key,
        value,
        flags: 0,
        index: 0,
        session,
    })
}

#[test]
fn commands() {
    let decode = |bytes: &Bytes| Command::decode(bytes).map(drop);
    let bytes = vec![b'x'; limits::COMMAND_BYTES_MAX];
    let key = |n| kv(&bytes[..n], b"", b"").encode();
    reached(limits::KEY_BYTES_MAX, key, decode);
    let session = |n| kv(b"k", b"", &bytes[..n]).encode();
    reached(limits::SESSION_BYTES_MAX, session, decode);

    let overhead = kv(b"k", &bytes[..1023], b"").encode().len() - 1023;
    let largest = kv(b"k", &bytes[..limits::COMMAND_BYTES_MAX - overhead], b"").encode();
    assert_eq!(largest.len(), limits::COMMAND_BYTES_MAX);
    assert_eq!(decode(&largest), Ok(()));
    let larger = kv(
        b"k",
        &bytes[..limits::COMMAND_BYTES_MAX - overhead + 1],
        b"",
    )
    .encode();
    assert!(matches!(decode(&larger), Err(WireError::TooLarge { .. })));
}

#[test]
fn transactions() {
    let get = TxnOp {
        verb: TxnVerb::Get,
        key: b"k",
        value: b"",
        flags: 0,
        index: 0,
        session: b"",
    };
    let decode = |bytes: &Bytes| Command::decode(bytes).map(drop);
    let txn = |n: usize| Command::Txn(TxnOps::new(&vec![get; n])).encode();
    reached(limits::TXN_OPS_MAX, txn, decode);
    // What a transaction answers with travels in one frame, with all its errors.
    let errors = limits::TXN_OPS_MAX * (limits::MESSAGE_BYTES_MAX + 64);
    const { assert!(limits::TXN_ROWS_BYTES_MAX * 3 / 2 < limits::FRAME_BYTES_MAX) };
    assert!(errors < limits::FRAME_BYTES_MAX);
}

#[test]
fn records() {
    let command = |n: usize| {
        let body = &vec![b'r'; n];
        let kind = RecordKind::Register;
        Command::Record(RecordCommand { kind, body }).encode()
    };
    let decode = |bytes: &Bytes| Command::decode(bytes).map(drop);
    reached(limits::RECORD_BYTES_MAX, command, decode);
    let query = |n: usize| {
        let query = Query {
            mode: ReadMode::Default,
            min_index: Index(0),
            wait: Wait::default(),
            body: QueryBody::Record(vec![b'q'; n].into()),
        };
        query.encode()
    };
    let decode = |bytes: &Bytes| Query::decode(bytes).map(drop);
    reached(limits::QUESTION_BYTES_MAX, query, decode);
}

/// The longest key with the longest value fits a command, and that a client's frame.
#[test]
fn longest_value_fits() {
    let session = [b's'; limits::SESSION_BYTES_MAX];
    let kv = KvCommand {
        verb: KvVerb::Unlock,
        key: &[b'k'; limits::KEY_BYTES_MAX],
        value: &[b'v'; limits::VALUE_BYTES_MAX],
        flags: u64::MAX,
        index: u64::MAX,
        session: &session,
    };
    let mut out = BytesMut::new();
    encode_propose_frame(ShardId(0), RequestId(1), &kv, &mut out);
    let mut decoder = FrameDecoder::new(limits::CLIENT_FRAME_BYTES_MAX);
    let (frames, error) = feed(&mut decoder, &out);
    assert_eq!(error, None);
    assert_eq!(Command::decode(&frames[0].payload), Ok(Command::Kv(kv)));
}

#[test]
fn queries() {
    let decode = |bytes: &Bytes| Query::decode(bytes).map(drop);
    let query = |n| {
        let query = Query {
            mode: ReadMode::Stale,
            min_index: Index(0),
            wait: Wait::default(),
            body: QueryBody::KvGet {
                key: Bytes::from(vec![b'k'; n]),
            },
        };
        query.encode()
    };
    reached(limits::KEY_BYTES_MAX, query, decode);
}

#[test]
fn waits() {
    let decode = |bytes: &Bytes| Query::decode(bytes).map(drop);
    let query = |index: u64, ms: u32| {
        let query = Query {
            mode: ReadMode::Default,
            min_index: Index(0),
            wait: Wait {
                index: Index(index),
                ms,
            },
            body: QueryBody::Status,
        };
        query.encode()
    };
    let longest = limits::WAIT_MS_MAX + limits::WAIT_MS_MAX / limits::WAIT_JITTER_DIVISOR;
    reached(longest as usize, |ms| query(1, ms as u32), decode);
    assert_eq!(decode(&query(limits::INDEX_MAX, 1)), Ok(()));
    assert!(decode(&query(limits::INDEX_MAX + 1, 1)).is_err());
}

fn append(entries: usize, entry_bytes: usize) -> RaftEnvelope {
    let data = Bytes::from(vec![7; entry_bytes]);
    let mut message = Message {
        to: 2,
        from: 1,
        term: 1,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgAppend);
    let entries = (1..=entries as u64).map(|index| Entry {
        index,
        term: 1,
        data: data.clone(),
        ..Entry::default()
    });
    message.set_entries(entries.collect::<Vec<_>>().into());
    RaftEnvelope {
        message,
        ..RaftEnvelope::default()
    }
}

fn frames_of(messages: &[RaftEnvelope]) -> Vec<Frame> {
    let (frames, error) = feed(&mut FrameDecoder::default(), &raft_frame(messages));
    assert_eq!(error, None);
    frames
}

fn read_all(frames: &[Frame]) -> Result<Vec<RaftEnvelope>, WireError> {
    let read = frames
        .iter()
        .map(|f| decode_raft_frame(&f.payload, &f.blob));
    Ok(read.collect::<Result<Vec<_>, _>>()?.concat())
}

/// Messages whose entries exceed the bound together go out in several frames.
#[test]
fn append_bytes() {
    let half = append(1, limits::APPEND_BYTES_MAX / 2);
    assert_eq!(frames_of(&vec![half.clone(); 2]).len(), 1);
    let three = vec![half; 3];
    let frames = frames_of(&three);
    assert_eq!(frames.len(), 2);
    assert_eq!(read_all(&frames), Ok(three));

    // One message is never taken apart.
    let long = vec![append(3, limits::APPEND_BYTES_MAX / 2); 2];
    let frames = frames_of(&long);
    assert_eq!((frames.len(), read_all(&frames)), (2, Ok(long)));
}

#[test]
fn messages_per_frame() {
    let max = limits::RAFT_MESSAGES_PER_FRAME_MAX;
    let messages = vec![append(0, 0); max + 1];
    assert_eq!(frames_of(&messages[..max]).len(), 1);
    let frames = frames_of(&messages);
    assert_eq!((frames.len(), read_all(&frames)), (2, Ok(messages)));
}

#[test]
fn entries_per_message() {
    let decode =
        |message: &RaftEnvelope| read_all(&frames_of(std::slice::from_ref(message))).map(drop);
    reached(limits::ENTRIES_PER_MESSAGE_MAX, |n| append(n, 0), decode);
}

#[test]
fn raft_context_and_image_descriptor() {
    let decode =
        |message: &RaftEnvelope| read_all(&frames_of(std::slice::from_ref(message))).map(drop);
    let [_, heartbeat, snapshot] = common::sample_messages().try_into().unwrap();
    let context = |n| {
        let mut envelope: RaftEnvelope = heartbeat.clone();
        envelope.message.context = Bytes::from(vec![0; n]);
        envelope
    };
    reached(limits::RAFT_CONTEXT_BYTES_MAX, context, decode);
    let image = |n| {
        let mut envelope: RaftEnvelope = snapshot.clone();
        envelope.message.mut_snapshot().data = Bytes::from(vec![0; n]);
        envelope
    };
    reached(limits::IMAGE_DESCRIPTOR_BYTES_MAX, image, decode);
    let voters = |n| {
        let mut envelope: RaftEnvelope = snapshot.clone();
        let metadata = envelope.message.mut_snapshot().mut_metadata();
        metadata.mut_conf_state().voters = (100..100 + n as u64).collect();
        envelope
    };
    reached(limits::MEMBERS_MAX, voters, decode);
}

#[test]
fn greatest_index() {
    let written = |index| {
        let body = ReplyBody::Written {
            ok: true,
            index: Index(index),
        };
        Reply::decode(&common::reply(body).encode()).map(drop)
    };
    assert_eq!(written(limits::INDEX_MAX), Ok(()));
    assert!(written(limits::INDEX_MAX + 1).is_err());
}

/// Sets one text of a Hello.
type Set<'a> = &'a dyn Fn(&mut Hello, String);

#[test]
fn hello_fields() {
    let decode = |hello: &Hello| Hello::decode(&hello.encode()).map(drop);
    let with = |set: Set<'_>, n| {
        let mut hello = common::sample_hello();
        set(&mut hello, "x".repeat(n));
        hello
    };
    let names: [Set<'_>; 3] = [
        &|hello, text| hello.name = text,
        &|hello, text| hello.datacenter = text,
        &|hello, text| hello.members[0].name = text,
    ];
    for set in names {
        reached(limits::NAME_BYTES_MAX, |n| with(set, n), decode);
    }
    let addresses: [Set<'_>; 4] = [
        &|hello, text| hello.address = text,
        &|hello, text| hello.http_address = text,
        &|hello, text| hello.leader = text,
        &|hello, text| hello.members[0].address = text,
    ];
    for set in addresses {
        reached(limits::ADDRESS_BYTES_MAX, |n| with(set, n), decode);
    }
    let members = |n| {
        let mut hello = common::sample_hello();
        hello.members = vec![hello.members[0].clone(); n];
        for (member, id) in hello.members.iter_mut().zip(1..) {
            member.raft_id = ServerId(id);
        }
        hello
    };
    reached(limits::MEMBERS_MAX, members, decode);
    let shards = |n| {
        let mut hello = common::sample_hello();
        hello.shards = n as u16;
        hello
    };
    reached(limits::SHARDS_MAX, shards, decode);
}

/// The longest message is cut by its sender, at a character.
#[test]
fn messages() {
    let reason = "é".repeat(limits::MESSAGE_BYTES_MAX);
    let answer = BootstrapAnswer {
        accepted: false,
        reason: format!("x{reason}"),
    };
    let read = BootstrapAnswer::decode(&answer.encode()).unwrap().reason;
    assert_eq!(read.len(), limits::MESSAGE_BYTES_MAX - 1);
    assert!(answer.reason.starts_with(&read));
}

#[test]
fn image_chunks() {
    let fetch = |n| {
        let fetch = ImageFetch {
            length: n as u32,
            ..ImageFetch::default()
        };
        fetch.encode()
    };
    let decode = |bytes: &Bytes| ImageFetch::decode(bytes).map(drop);
    reached(limits::IMAGE_CHUNK_BYTES_MAX, fetch, decode);
    let check = |blob: &Vec<u8>| {
        let chunk = ImageChunk {
            total: u64::MAX,
            crc: crc32c::crc32c(blob),
            ..ImageChunk::default()
        };
        chunk.check(blob)
    };
    reached(limits::IMAGE_CHUNK_BYTES_MAX, |n| vec![0; n], check);
    let chunk = ImageChunk {
        offset: 90,
        total: 100,
        ..ImageChunk::default()
    };
    let check = |blob: &Vec<u8>| {
        let crc = crc32c::crc32c(blob);
        ImageChunk {
            crc,
            ..chunk.clone()
        }
        .check(blob)
    };
    reached(10, |n| vec![0; n], check);
}

/// A piece of a long reply may hold that many bytes of rows, however small they are, and one row
/// more of the greatest length.
#[test]
fn reply_pieces() {
    let small = KvRow {
        key: Bytes::from_static(b"k"),
        value: Bytes::new(),
        session: Bytes::new(),
        ..common::sample_row()
    };
    let count = limits::REPLY_BYTES_MAX / small.borrow().wire_bytes();
    let mut rows = vec![small; count];
    rows.push(KvRow {
        value: Bytes::from(vec![0; limits::VALUE_BYTES_MAX]),
        ..common::sample_row()
    });
    let mut out = BytesMut::new();
    let reply = common::reply(ReplyBody::Rows(rows));
    reply.encode_frame(ShardId(0), RequestId(1), &mut out);
    let (frames, error) = feed(&mut FrameDecoder::default(), &out);
    assert_eq!(error, None);
    assert_eq!(Reply::decode(&frames[0].payload), Ok(reply));
}

#[test]
fn reply_windows() {
    let credit = |pieces| {
        let pieces = pieces as u32;
        Credit { pieces }.encode()
    };
    let decode = |bytes: &Bytes| Credit::decode(bytes).map(drop);
    reached(limits::REPLY_WINDOW_PIECES, credit, decode);
}

#[test]
fn tables_per_frame() {
    let reply = |names| common::reply(ReplyBody::Keys(vec![Bytes::new(); names])).encode();
    let decode = |bytes: &Bytes| Reply::decode(bytes).map(drop);
    // The reply and its list are tables, too.
    reached(limits::TABLES_PER_FRAME_MAX - 2, reply, decode);
}

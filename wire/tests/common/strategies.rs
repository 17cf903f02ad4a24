//! Arbitrary valid values of every type that travels.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use wire::*;

const NUMBER_MAX: u64 = limits::INDEX_MAX;

pub fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

fn key() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..64).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,40}"
}

pub fn index() -> impl Strategy<Value = Index> {
    (0..=NUMBER_MAX).prop_map(Index)
}

pub fn term() -> impl Strategy<Value = Term> {
    (0..=NUMBER_MAX).prop_map(Term)
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid)
}

pub type OwnedKv = (KvVerb, Bytes, Bytes, u64, u64, Bytes);

pub fn kv() -> impl Strategy<Value = OwnedKv> {
    let verb = select(&KvVerb::ALL[..]);
    (
        verb,
        key(),
        bytes(300),
        any::<u64>(),
        any::<u64>(),
        bytes(36),
    )
}

pub fn borrowed((verb, key, value, flags, index, session): &OwnedKv) -> KvCommand<'_> {
    KvCommand {
        verb: *verb,
        key,
        value,
        flags: *flags,
        index: *index,
        session,
    }
}

/// The verbs of a transaction.
pub fn txn_verb() -> impl Strategy<Value = TxnVerb> {
    prop_oneof![
        select(&TxnVerb::READING[..]),
        select(&KvVerb::ALL[..]).prop_map(TxnVerb::Kv),
    ]
}

/// An operation of a transaction: a KV command under another verb.
pub fn op(verb: TxnVerb, kv: &OwnedKv) -> TxnOp<'_> {
    let kv = borrowed(kv);
    TxnOp {
        verb,
        key: kv.key,
        value: kv.value,
        flags: kv.flags,
        index: kv.index,
        session: kv.session,
    }
}

pub fn query() -> impl Strategy<Value = Query> {
    let body = prop_oneof![
        key().prop_map(|key| QueryBody::KvGet { key }),
        (bytes(40), bytes(40), any::<u64>()).prop_map(|(prefix, start_after, limit)| {
            QueryBody::KvList {
                prefix,
                start_after,
                limit,
            }
        }),
        (bytes(40), bytes(4), bytes(40), any::<u64>()).prop_map(
            |(prefix, separator, start_after, limit)| QueryBody::KvKeys {
                prefix,
                separator,
                start_after,
                limit,
            }
        ),
        (bytes(40), watch_from()).prop_map(|(prefix, from)| QueryBody::KvWatch { prefix, from }),
        Just(QueryBody::Status),
        vec((select(&TxnVerb::READING[..]), kv()), 0..5).prop_map(|ops| {
            let ops: Vec<_> = ops.iter().map(|(verb, kv)| op(*verb, kv)).collect();
            QueryBody::Txn(Command::Txn(TxnOps::new(&ops)).encode())
        }),
        bytes(100).prop_map(QueryBody::Record),
    ];
    let wait = (index(), 0..=600_000u32).prop_map(|(index, ms)| Wait { index, ms });
    (select(&ReadMode::ALL[..]), index(), wait, body).prop_map(|(mode, min_index, wait, body)| {
        Query {
            mode,
            min_index,
            wait,
            body,
        }
    })
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (index(), any::<u32>()).prop_map(|(index, position)| Cursor { index, position })
}

fn watch_from() -> impl Strategy<Value = WatchFrom> {
    prop_oneof![
        Just(WatchFrom::Now),
        Just(WatchFrom::Rows),
        cursor().prop_map(WatchFrom::Cursor),
    ]
}

fn changes() -> impl Strategy<Value = KvChanges> {
    let change = (select(&ChangeOp::ALL[..]), cursor(), row());
    let change = change.prop_map(|(op, at, row)| KvChange { op, at, row });
    let flags = (any::<bool>(), any::<bool>());
    (any::<u64>(), cursor(), flags, vec(change, 0..20)).prop_map(
        |(origin, next, (caught_up, gone), changes)| KvChanges {
            origin,
            next,
            caught_up,
            gone,
            changes,
        },
    )
}

fn row() -> impl Strategy<Value = KvRow> {
    let indexes = (index(), index(), any::<u64>());
    (key(), bytes(100), any::<u64>(), indexes, bytes(36)).prop_map(
        |(key, value, flags, (create_index, modify_index, lock_index), session)| KvRow {
            key,
            value,
            flags,
            create_index,
            modify_index,
            lock_index,
            session,
        },
    )
}

pub fn rows() -> impl Strategy<Value = Vec<KvRow>> {
    vec(row(), 0..20)
}

fn member() -> impl Strategy<Value = Member> {
    (
        1..u64::MAX,
        uuid(),
        text(),
        text(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(raft_id, node_id, name, address, voter, leader)| Member {
            raft_id: ServerId(raft_id),
            node_id,
            name,
            address,
            voter,
            leader,
        })
}

pub fn members() -> impl Strategy<Value = Vec<Member>> {
    vec(member(), 0..=limits::MEMBERS_MAX).prop_map(|mut members| {
        members.sort_by_key(|m| m.raft_id);
        members.dedup_by_key(|m| m.raft_id);
        members
    })
}

pub fn reply() -> impl Strategy<Value = Reply> {
    let failure = (select(&FailureKind::ALL[..]), text(), text(), any::<u32>()).prop_map(
        |(kind, message, leader, retry_after_ms)| Failure {
            kind,
            message,
            leader,
            retry_after_ms,
        },
    );
    let status = (text(), term(), index(), index(), members()).prop_map(
        |(leader, term, commit, applied, members)| ClusterStatus {
            leader,
            term,
            commit,
            applied,
            members,
        },
    );
    let body = prop_oneof![
        (any::<bool>(), index()).prop_map(|(ok, index)| ReplyBody::Written { ok, index }),
        rows().prop_map(ReplyBody::Rows),
        vec(bytes(40), 0..20).prop_map(ReplyBody::Keys),
        failure.prop_map(ReplyBody::Failed),
        status.prop_map(ReplyBody::Status),
        (rows(), vec((any::<u32>(), text()), 0..5)).prop_map(|(rows, errors)| {
            let error = |(op, what)| TxnError { op, what };
            let errors = errors.into_iter().map(error).collect();
            ReplyBody::Txn(TxnResult { rows, errors })
        }),
        bytes(100).prop_map(ReplyBody::Document),
        changes().prop_map(ReplyBody::Changes),
    ];
    (index(), any::<bool>(), any::<u64>(), any::<bool>(), body).prop_map(
        |(index, known_leader, last_contact_ms, more, body)| Reply {
            index,
            known_leader,
            last_contact_ms,
            more,
            body,
        },
    )
}

pub fn hello() -> impl Strategy<Value = Hello> {
    let names = (text(), text(), text(), text(), text());
    let ids = (uuid(), uuid(), any::<u64>());
    let numbers = (
        any::<u16>(),
        any::<u16>(),
        any::<u16>(),
        0..=limits::SHARDS_MAX as u16,
        any::<u16>(),
        any::<bool>(),
    );
    (select(&Role::ALL[..]), names, ids, numbers, members()).prop_map(
        |(role, names, ids, numbers, members)| {
            let (name, address, http_address, datacenter, leader) = names;
            let (node_id, cluster_id, raft_id) = ids;
            let (protocol, lane, lanes, shards, expect, has_state) = numbers;
            Hello {
                protocol,
                role,
                node_id,
                raft_id: ServerId(raft_id),
                name,
                address,
                http_address,
                datacenter,
                cluster_id,
                lane,
                lanes,
                shards,
                expect,
                has_state,
                leader,
                members,
            }
        },
    )
}

pub fn entries_chunk() -> impl Strategy<Value = EntriesChunk> {
    let head = (index(), index(), any::<bool>(), any::<bool>(), text());
    let entries = (1..NUMBER_MAX / 2, vec((0..3u32, bytes(60), 0..3u64), 0..12));
    let offer = (index(), term(), any::<bool>());
    (head, entries, offer).prop_map(
        |(
            (commit, last_index, leader, refused, reason),
            (first, drawn),
            (image_index, image_term, other_history),
        )| {
            let mut term = 1;
            let entries: Vec<_> = drawn
                .into_iter()
                .zip(first..)
                .map(|((kind, data, later), index)| {
                    term += later;
                    WireEntry {
                        index: Index(index),
                        term: Term(term),
                        kind,
                        data,
                    }
                })
                .collect();
            EntriesChunk {
                term: Term(term),
                commit,
                last_index,
                leader,
                refused,
                reason,
                entries,
                image_index,
                image_term,
                other_history,
            }
        },
    )
}

/// Entries that continue a log behind (`index`, `term`), and the last one's term.
fn log_entries(index: u64, term: u64) -> impl Strategy<Value = (Vec<Entry>, u64)> {
    let kinds = [
        EntryType::EntryNormal,
        EntryType::EntryConfChange,
        EntryType::EntryConfChangeV2,
    ];
    vec((select(kinds.to_vec()), bytes(200), 0..3u64), 0..12).prop_map(move |drawn| {
        let mut last = term.max(1);
        let entries = drawn.into_iter().zip(index + 1..);
        let entries = entries.map(|((kind, data, later), index)| {
            last += later;
            let mut entry = Entry {
                index,
                term: last,
                data,
                ..Entry::default()
            };
            entry.set_entry_type(kind);
            entry
        });
        (entries.collect(), last)
    })
}

fn append() -> impl Strategy<Value = Message> {
    let previous = prop_oneof![Just((0, 0)), (1..NUMBER_MAX / 2, 1..NUMBER_MAX / 2).boxed(),];
    previous
        .prop_flat_map(|(index, log_term)| {
            (
                Just((index, log_term)),
                log_entries(index, log_term),
                index_of_commit(),
            )
        })
        .prop_map(|((index, log_term), (entries, term), commit)| {
            let mut message = Message {
                term,
                log_term,
                index,
                commit,
                ..Message::default()
            };
            message.set_msg_type(MessageType::MsgAppend);
            message.set_entries(entries.into());
            message
        })
}

fn index_of_commit() -> impl Strategy<Value = u64> {
    0..=NUMBER_MAX
}

fn snapshot() -> impl Strategy<Value = Message> {
    (
        1..=NUMBER_MAX,
        1..=NUMBER_MAX,
        1..=4u64,
        any::<bool>(),
        bytes(100),
    )
        .prop_map(|(index, term, voters, joint, image)| {
            let mut snapshot = Snapshot {
                data: image,
                ..Snapshot::default()
            };
            let metadata = snapshot.mut_metadata();
            (metadata.index, metadata.term) = (index, term);
            let conf = metadata.mut_conf_state();
            conf.voters = (1..=voters).collect();
            conf.learners = vec![10];
            if joint {
                conf.voters_outgoing = vec![1, 11];
                conf.learners_next = vec![11];
                conf.auto_leave = true;
            }
            let mut message = Message {
                term,
                ..Message::default()
            };
            message.set_msg_type(MessageType::MsgSnapshot);
            message.set_snapshot(snapshot);
            message
        })
}

fn read_message() -> impl Strategy<Value = Message> {
    (any::<bool>(), bytes(60), 1..=NUMBER_MAX, index_of_commit()).prop_map(
        |(answer, name, term, index)| {
            let mut message = Message::default();
            if answer {
                message.set_msg_type(MessageType::MsgReadIndexResp);
                (message.term, message.index) = (term, index);
            } else {
                message.set_msg_type(MessageType::MsgReadIndex);
            }
            let name = Entry {
                data: name,
                ..Entry::default()
            };
            message.set_entries(vec![name].into());
            message
        },
    )
}

fn plain_message() -> impl Strategy<Value = Message> {
    let kinds = [
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgTransferLeader,
        MessageType::MsgTimeoutNow,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
    ];
    let terms = (1..=NUMBER_MAX).prop_flat_map(|term| (Just(term), 0..=term, 0..=term));
    let n = || 0..=NUMBER_MAX;
    let indexes = (n(), n(), n(), n());
    let rest = (any::<bool>(), any::<i64>(), bytes(60));
    (select(kinds.to_vec()), terms, indexes, rest).prop_map(
        |(kind, (term, log_term, commit_term), indexes, (reject, priority, context))| {
            let (index, commit, request_snapshot, reject_hint) = indexes;
            let mut message = Message {
                term,
                log_term,
                commit_term,
                index,
                commit,
                request_snapshot,
                reject_hint,
                reject,
                priority,
                context,
                ..Message::default()
            };
            message.set_msg_type(kind);
            message
        },
    )
}

pub fn envelope() -> impl Strategy<Value = RaftEnvelope> {
    let message = prop_oneof![append(), snapshot(), read_message(), plain_message()];
    let stamps = (1..u64::MAX, 1..u64::MAX, any::<u64>(), any::<u64>());
    (message, stamps).prop_map(|(mut message, (to, from, sent_at, echo))| {
        (message.to, message.from) = (to, from);
        RaftEnvelope {
            message,
            sent_at,
            echo,
        }
    })
}

pub fn frame() -> impl Strategy<Value = Frame> {
    let size = prop_oneof![8 => 0..300usize, 2 => 3_000..9_000usize, 1 => 60_000..200_000usize];
    let payload = size
        .prop_flat_map(|n| vec(any::<u8>(), n..=n))
        .prop_map(Bytes::from);
    let kind = select(&FrameKind::ALL[..]);
    (
        kind,
        any::<u16>(),
        any::<u64>(),
        any::<u32>(),
        payload,
        any::<prop::sample::Index>(),
    )
        .prop_map(|(kind, shard, request, flags, whole, cut)| {
            let cut = cut.index(whole.len() + 1);
            Frame {
                kind,
                shard: ShardId(shard),
                request: RequestId(request),
                flags,
                payload: whole.slice(..cut),
                blob: whole.slice(cut..),
            }
        })
}

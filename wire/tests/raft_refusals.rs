//! Is every raft message refused that raft-rs would abort on?

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use raft::{
    Config, RawNode,
    eraftpb::{ConfState, Entry, Message, MessageType},
    storage::MemStorage,
};
use wire::{RaftEnvelope, WireError, decode_raft_frame, limits};

/// Sends a message through a frame.
fn travel(message: Message) -> Result<Message, WireError> {
    let envelope = RaftEnvelope {
        message,
        ..RaftEnvelope::default()
    };
    let bytes = common::raft_frame(&[envelope]);
    let (frames, error) = common::feed(&mut wire::FrameDecoder::default(), &bytes);
    assert_eq!(error, None);
    let mut read = decode_raft_frame(&frames[0].payload, &frames[0].blob)?;
    Ok(read.pop().unwrap().message)
}

fn append() -> Message {
    common::sample_messages().swap_remove(0).message
}

fn snapshot() -> Message {
    common::sample_messages().swap_remove(2).message
}

fn conf(message: &mut Message) -> &mut ConfState {
    message.mut_snapshot().mut_metadata().mut_conf_state()
}

/// Each change makes a good message one that must not reach raft-rs.
#[test]
fn messages_that_make_no_sense_are_refused() {
    type Change = fn(&mut Message);
    let of_append: &[(&str, Change)] = &[
        ("from nobody", |m| m.from = 0),
        ("to nobody", |m| m.to = 0),
        ("term 0 is a local message to raft-rs", |m| m.term = 0),
        ("log term after the message's", |m| m.log_term = m.term + 1),
        ("an index without a term", |m| m.log_term = 0),
        ("a term without an index", |m| m.index = 0),
        ("a gap before the first entry", |m| m.index -= 1),
        ("a gap between entries", |m| m.entries[1].index += 1),
        ("an index twice", |m| m.entries[1].index -= 1),
        ("an entry of index 0", |m| m.entries[0].index = 0),
        ("an entry of term 0", |m| m.entries[0].term = 0),
        ("a falling entry term", |m| {
            (m.entries[0].term, m.entries[1].term) = (5, 4);
        }),
        ("an entry term before the log term", |m| {
            m.entries[0].term = 3
        }),
        ("an entry of a later term", |m| m.entries[2].term = 6),
        ("an index out of range", |m| {
            m.commit = limits::INDEX_MAX + 1
        }),
        ("a term out of range", |m| m.term = limits::INDEX_MAX + 1),
        ("entries in a heartbeat", |m| {
            m.set_msg_type(MessageType::MsgHeartbeat)
        }),
        ("two names in a read", |m| {
            m.set_msg_type(MessageType::MsgReadIndexResp);
        }),
        ("a read without a name", |m| {
            m.set_msg_type(MessageType::MsgReadIndexResp);
            m.clear_entries();
        }),
    ];
    let of_snapshot: &[(&str, Change)] = &[
        ("index 0", |m| m.mut_snapshot().mut_metadata().index = 0),
        ("term 0", |m| m.mut_snapshot().mut_metadata().term = 0),
        ("a later term", |m| m.mut_snapshot().mut_metadata().term = 6),
        ("no voters", |m| conf(m).voters.clear()),
        ("a voter twice", |m| conf(m).voters.push(1)),
        ("voter 0", |m| conf(m).voters.push(0)),
        ("a learner that votes", |m| conf(m).learners.push(1)),
        ("a learner that still votes", |m| conf(m).learners.push(4)),
        ("a learner-to-be that votes", |m| {
            conf(m).learners_next.push(1)
        }),
        ("a learner-to-be from nowhere", |m| {
            conf(m).learners_next.push(8)
        }),
        ("leaving nothing", |m| {
            conf(m).voters_outgoing.clear();
            conf(m).learners_next.clear();
        }),
    ];
    for (good, changes) in [(append(), of_append), (snapshot(), of_snapshot)] {
        assert_eq!(travel(good.clone()), Ok(good.clone()));
        for (name, change) in changes {
            let mut message = good.clone();
            change(&mut message);
            let refused = travel(message);
            assert!(refused.is_err(), "{name}: {refused:?}");
        }
    }
}

/// A snapshot message without its snapshot cannot be built here; an empty one is as bad.
#[test]
fn a_snapshot_of_nothing_is_refused() {
    let mut message = snapshot();
    message.clear_snapshot();
    assert!(travel(message).is_err());
}

#[test]
fn local_messages_and_proposals_do_not_travel() {
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
    ] {
        let mut message = Message {
            to: 2,
            from: 1,
            term: 1,
            ..Message::default()
        };
        message.set_msg_type(kind);
        assert!(travel(message).is_err(), "{kind:?}");
    }
}

#[test]
#[should_panic(expected = "an entry has no context")]
fn an_entry_with_a_context_is_a_mistake_of_the_sender() {
    let mut message = append();
    message.entries[0].context = Bytes::from_static(b"lost on the way");
    let _ = travel(message);
}

fn follower() -> RawNode<MemStorage> {
    let config = Config {
        id: 1,
        election_tick: 10,
        heartbeat_tick: 1,
        ..Config::default()
    };
    let storage = MemStorage::new_with_conf_state((vec![1, 2], vec![]));
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&config, storage, &logger).unwrap()
}

fn ids() -> impl Strategy<Value = Vec<u64>> {
    vec(0..6u64, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// raft-rs aborts on a peer set that it cannot restore: whatever passes here, it restores,
    /// and what is refused here, it could not (or it names the same server twice in one list).
    #[test]
    fn raft_restores_every_peer_set_that_passes(
        voters in ids(), learners in ids(), outgoing in ids(), next in ids(), auto_leave: bool,
    ) {
        let mut message = snapshot();
        message.to = 1;
        message.from = 2;
        let conf = conf(&mut message);
        conf.voters = voters;
        conf.learners = learners;
        conf.voters_outgoing = outgoing;
        conf.learners_next = next;
        conf.auto_leave = auto_leave;
        let here = [&conf.voters, &conf.learners, &conf.voters_outgoing];
        if !here.iter().any(|list| list.contains(&1)) {
            // raft-rs ignores a snapshot that does not name the receiver.
            conf.voters.push(1);
        }
        let twice = [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next]
            .iter()
            .any(|list| (1..list.len()).any(|at| list[..at].contains(&list[at])));
        let passed = travel(message.clone()).is_ok();
        if !twice {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(|_| ()));
            let restored = catch_unwind(AssertUnwindSafe(|| follower().step(message)));
            std::panic::set_hook(hook);
            prop_assert_eq!(passed, matches!(restored, Ok(Ok(()))));
        }
    }
}

/// The read's name is not an entry of the log.
#[test]
fn a_read_carries_one_name() {
    let mut message = Message {
        to: 2,
        from: 1,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgReadIndex);
    message.set_entries(
        vec![Entry {
            data: Bytes::from_static(b"read 7"),
            ..Entry::default()
        }]
        .into(),
    );
    assert_eq!(travel(message.clone()), Ok(message.clone()));
    message.term = 3;
    assert!(
        travel(message).is_err(),
        "raft-rs forwards reads with term 0"
    );
}

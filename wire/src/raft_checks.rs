//! Which raft messages may raft-rs see?
//!
//! raft-rs 0.7 treats a message that cannot come from a correct peer as a broken invariant and
//! aborts, or takes it for a local one (term 0 skips every term check). One bad frame must cost a
//! connection, not the server. These rules follow its `raft.rs`, `raft_log.rs` and `confchange/`.

use raft::eraftpb::{ConfState, Message, MessageType, Snapshot};

use crate::codec;
use crate::entries::Sequence;
use crate::{Index, Term, WireError, limits};

pub(crate) const WHAT: &str = "raft message";

fn wrong<T>(why: impl std::fmt::Display) -> Result<T, WireError> {
    Err(codec::malformed(WHAT, why))
}

/// The message type with this number, of those that travel.
///
/// Not among them are the ones raft sends itself (hup, beat, unreachable, snapshot status, check
/// quorum), and proposals, which travel as commands and are answered.
pub(crate) fn message_type(number: u8) -> Result<MessageType, WireError> {
    use MessageType as T;
    let travelling = [
        T::MsgAppend,
        T::MsgAppendResponse,
        T::MsgRequestVote,
        T::MsgRequestVoteResponse,
        T::MsgSnapshot,
        T::MsgHeartbeat,
        T::MsgHeartbeatResponse,
        T::MsgTransferLeader,
        T::MsgTimeoutNow,
        T::MsgReadIndex,
        T::MsgReadIndexResp,
        T::MsgRequestPreVote,
        T::MsgRequestPreVoteResponse,
    ];
    match travelling
        .into_iter()
        .find(|t| *t as i32 == i32::from(number))
    {
        Some(message_type) => Ok(message_type),
        None => wrong(format_args!("type {number} is unknown or local")),
    }
}

/// Checks a message of a travelling type.
pub(crate) fn check(message: &Message) -> Result<(), WireError> {
    check_numbers(message)?;
    codec::at_most(
        "raft context",
        message.context.len(),
        limits::RAFT_CONTEXT_BYTES_MAX,
    )?;
    check_entries(message)?;
    let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
    match (is_snapshot, message.has_snapshot()) {
        (false, false) => Ok(()),
        (true, true) => check_snapshot(message.get_snapshot(), message.term),
        (true, false) => wrong("a snapshot message without a snapshot"),
        (false, true) => wrong("a snapshot in a message of another type"),
    }
}

fn check_numbers(message: &Message) -> Result<(), WireError> {
    if message.from == 0 || message.to == 0 {
        return wrong(format_args!("from {} to {}", message.from, message.to));
    }
    for term in [message.term, message.log_term, message.commit_term] {
        codec::term(WHAT, term)?;
    }
    for index in [
        message.index,
        message.commit,
        message.request_snapshot,
        message.reject_hint,
    ] {
        codec::index(WHAT, index)?;
    }
    // raft-rs forwards a read request with term 0, and takes every message of term 0 as local.
    let is_read = message.get_msg_type() == MessageType::MsgReadIndex;
    if is_read != (message.term == 0) {
        return wrong(format_args!(
            "term {} in {:?}",
            message.term,
            message.get_msg_type()
        ));
    }
    if !is_read && (message.log_term > message.term || message.commit_term > message.term) {
        return wrong("it speaks of a later term than its own");
    }
    Ok(())
}

fn check_entries(message: &Message) -> Result<(), WireError> {
    match message.get_msg_type() {
        MessageType::MsgAppend => {
            if (message.index == 0) != (message.log_term == 0) {
                return wrong("an append after half an entry");
            }
            let previous = (Index(message.index), Term(message.log_term));
            let mut sequence = Sequence::after(WHAT, previous, Term(message.term));
            message
                .entries
                .iter()
                .try_for_each(|entry| sequence.check(entry.index, entry.term))
        }
        // The one entry is not one of the log: its data names the read.
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => match message.get_entries() {
            [name] if name.index == 0 && name.term == 0 => {
                codec::at_most("read name", name.data.len(), limits::RAFT_CONTEXT_BYTES_MAX)
            }
            _ => wrong("a read needs exactly one name"),
        },
        _ if message.entries.is_empty() => Ok(()),
        other => wrong(format_args!("entries in {other:?}")),
    }
}

fn check_snapshot(snapshot: &Snapshot, message_term: u64) -> Result<(), WireError> {
    let metadata = snapshot.get_metadata();
    codec::index(WHAT, metadata.index)?;
    if metadata.index == 0 || metadata.term == 0 || metadata.term > message_term {
        return wrong(format_args!(
            "a snapshot at index {} of term {}",
            metadata.index, metadata.term
        ));
    }
    codec::at_most(
        "image descriptor",
        snapshot.data.len(),
        limits::IMAGE_DESCRIPTOR_BYTES_MAX,
    )?;
    check_peer_set(metadata.get_conf_state())
}

/// The rules under which `confchange::restore` succeeds and arrives at the same configuration.
fn check_peer_set(conf: &ConfState) -> Result<(), WireError> {
    let lists = [
        &conf.voters,
        &conf.learners,
        &conf.voters_outgoing,
        &conf.learners_next,
    ];
    for list in lists {
        if list.len() > limits::MEMBERS_MAX {
            return wrong(format_args!("a peer set of {} servers", list.len()));
        }
        let twice = list
            .iter()
            .enumerate()
            .any(|(at, id)| list[..at].contains(id));
        if twice || list.contains(&0) {
            return wrong("a peer set with an id twice or zero");
        }
    }
    if conf.voters.is_empty() {
        return wrong("a peer set without voters");
    }
    let disjoint = |a: &[u64], b: &[u64]| a.iter().all(|id| !b.contains(id));
    let learners_apart = disjoint(&conf.learners, &conf.voters)
        && disjoint(&conf.learners, &conf.voters_outgoing)
        && disjoint(&conf.learners_next, &conf.voters);
    let next_are_leaving = conf
        .learners_next
        .iter()
        .all(|id| conf.voters_outgoing.contains(id));
    if !learners_apart || !next_are_leaving {
        return wrong("a peer set whose learners are voters");
    }
    if conf.auto_leave && conf.voters_outgoing.is_empty() {
        return wrong("a peer set that leaves a joint configuration it is not in");
    }
    Ok(())
}

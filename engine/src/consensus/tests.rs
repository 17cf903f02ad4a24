//! One replica, spoken to by hand.

use bytes::Bytes;
use raft::eraftpb::{ConfState, HardState as RaftHardState, Message, MessageType};
use wire::{Index, Member, RaftEnvelope, ServerId, ShardId, Term, Uuid, limits};

use super::{Configuration, EntryStore, Output, Replica, ReplicaConfig};
use crate::{
    io::mem::MemDisk,
    log::{Checkpoint, HardState, Log, LogConfig, LogIdentity},
};

const SHARD: ShardId = ShardId(0);

struct Rig {
    replica: Replica,
    log: Log,
    disk: MemDisk,
    now: u64,
}

impl Rig {
    /// Server 1 of `voters`, after its first start.
    fn new(voters: u64) -> Self {
        let member = |id| Member {
            raft_id: ServerId(id),
            voter: true,
            ..Member::default()
        };
        let members = (1..=voters).map(member).collect();
        let configuration = Configuration::new(Uuid([1; 16]), 1, members);
        let disk = MemDisk::new();
        let identity = LogIdentity { log_id: 1, salt: 2 };
        let mut log = Log::create(&disk, LogConfig::default(), identity).unwrap();
        let hard_state = HardState {
            term: Term(1),
            vote: 0,
            commit: Index(1),
        };
        let checkpoint = Checkpoint {
            hard_state,
            snapshot_index: Index(1),
            snapshot_term: Term(1),
            configuration: configuration.encode(),
        };
        log.put_checkpoint(SHARD, checkpoint);
        log.flush_blocking(&disk, 0).unwrap();
        let mut state = RaftHardState::default();
        (state.term, state.commit) = (1, 1);
        let conf: ConfState = configuration.conf_state();
        let store = EntryStore::new(state, conf, Index(1), Term(1), 1 << 20, 100);
        let config = ReplicaConfig {
            id: ServerId(1),
            shard: SHARD,
            tick_ns: 1_000_000,
            heartbeat_ticks: 2,
            election_ticks: 10,
            seed: 7,
            uncommitted_bytes_max: 64 << 20,
            restarted: false,
        };
        let replica = Replica::new(config, configuration, store, Index(1), 0);
        Self {
            replica,
            log,
            disk,
            now: 1,
        }
    }

    /// Drains with a disk that is always done at once; applies what is committed.
    fn drain(&mut self) -> Output {
        let mut all = Output::default();
        loop {
            self.now += 1;
            self.log.flush_blocking(&self.disk, self.now).unwrap();
            let mut out = Output::default();
            self.replica.drain(self.now, &mut self.log, &mut out);
            if let Some(last) = out.committed.last() {
                self.replica.applied(Index(last.index));
            }
            all.send.append(&mut out.send);
            all.committed.append(&mut out.committed);
            self.log.flush_blocking(&self.disk, self.now).unwrap();
            self.replica.on_durable(self.log.durable_lsn());
            if !self.replica.has_ready() {
                return all;
            }
        }
    }

    fn hear(&mut self, kind: MessageType, term: u64, index: u64) {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term, message.index) = (2, 1, term, index);
        let envelope = RaftEnvelope {
            message,
            sent_at: 0,
            echo: 0,
        };
        self.replica.step(self.now, ServerId(2), envelope);
    }

    /// Elected by server 2, which then acknowledges the first entry of the term.
    fn lead(&mut self) {
        while !self
            .drain()
            .send
            .iter()
            .any(|out| out.envelope.message.get_msg_type() == MessageType::MsgRequestPreVote)
        {
            self.replica.tick(false);
        }
        self.hear(MessageType::MsgRequestPreVoteResponse, 2, 0);
        self.drain();
        self.hear(MessageType::MsgRequestVoteResponse, 2, 0);
        self.drain();
        assert!(self.replica.is_leader());
        let first = self.replica.last_index().0;
        self.hear(MessageType::MsgAppendResponse, 2, first);
        self.drain();
    }
}

#[test]
fn a_leader_has_at_most_appends_in_flight_max_under_way() {
    let mut rig = Rig::new(2);
    rig.lead();
    let mut appends = 0;
    for _ in 0..limits::APPENDS_IN_FLIGHT_MAX + 50 {
        rig.replica
            .propose(&mut vec![Bytes::from_static(b"command")])
            .unwrap();
        let sent = rig.drain().send;
        appends += sent
            .iter()
            .filter(|out| !out.envelope.message.entries.is_empty())
            .count();
    }
    assert_eq!(appends, limits::APPENDS_IN_FLIGHT_MAX);
}

#[test]
fn a_committed_run_holds_at_most_apply_bytes_max() {
    let mut rig = Rig::new(1);
    rig.drain();
    let entry = Bytes::from(vec![0; 256 << 10]);
    let mut commands = vec![entry; 3 * limits::APPLY_BYTES_MAX / (256 << 10)];
    let entries = commands.len();
    rig.replica.propose(&mut commands).unwrap();
    let (mut runs, mut committed) = (0, 0);
    while committed < entries {
        rig.now += 1;
        let mut out = Output::default();
        rig.replica.drain(rig.now, &mut rig.log, &mut out);
        let bytes: usize = out.committed.iter().map(|entry| entry.data.len()).sum();
        assert!(bytes <= limits::APPLY_BYTES_MAX, "a run of {bytes} bytes");
        if let Some(last) = out.committed.last() {
            runs += 1;
            committed += out.committed.len();
            rig.replica.applied(Index(last.index));
        }
        rig.log.flush_blocking(&rig.disk, rig.now).unwrap();
        rig.replica.on_durable(rig.log.durable_lsn());
    }
    assert!(runs >= 3);
}

/// A follower that lost what it had acknowledged, or a message that was never ours: raft-rs aborts
/// on a heartbeat whose commit index is beyond the log, and believes an answer about entries that
/// the leader does not have.
#[test]
fn what_raft_rs_would_abort_on_or_believe_is_left_out() {
    let mut rig = Rig::new(2);
    rig.lead();
    let last = rig.replica.last_index();
    rig.hear(MessageType::MsgAppendResponse, 2, last.0 + 5);
    rig.drain();
    assert_eq!(rig.replica.commit(), last);
    let mut follower = Rig::new(2);
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgHeartbeat);
    (message.from, message.to, message.term, message.commit) = (2, 1, 3, 99);
    let envelope = RaftEnvelope {
        message,
        sent_at: 0,
        echo: 0,
    };
    follower.replica.step(1, ServerId(2), envelope);
    follower.drain();
    assert_eq!(follower.replica.commit(), Index(1));
}

/// A message of its own for every commit cost each follower a wake-up and the leader another for
/// the answer; without any, a follower would apply the last write only with the next heartbeat.
#[test]
fn followers_are_told_what_is_committed_once_and_when_the_leader_rests() {
    let mut rig = Rig::new(2);
    rig.lead();
    rig.replica.tell_commit();
    rig.drain();
    rig.replica
        .propose(&mut vec![Bytes::from_static(b"command")])
        .unwrap();
    rig.drain();
    assert!(!rig.replica.has_commit_to_tell());
    let last = rig.replica.last_index();
    rig.hear(MessageType::MsgAppendResponse, 2, last.0);
    assert!(rig.drain().send.is_empty(), "nothing for the commit itself");
    assert!(rig.replica.has_commit_to_tell());
    for messages in [1, 0] {
        rig.replica.tell_commit();
        let sent = rig.drain().send;
        assert_eq!(sent.len(), messages);
        assert!(sent.iter().all(|out| out.envelope.message.commit == last.0));
        assert!(!rig.replica.has_commit_to_tell());
    }
}

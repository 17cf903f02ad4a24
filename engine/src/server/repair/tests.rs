//! Is a damaged log made whole by what peers say, and by nothing less?
//!
//! The peers here answer as `shard/repair.rs` does. The server under repair is killed after every
//! single answer: what it has by then must still be known to be damaged, or be whole.

use bytes::Bytes;
use wire::{
    ClusterId, Command, EntriesChunk, EntriesFetch, ImageChunk, ImageFetch, Index, Member,
    ServerId, ShardId, Term, Uuid, WireEntry,
};

use super::patient::{Letter, Patient, Question};
use crate::{
    consensus::Configuration,
    fsm::Fsm,
    io::{Disk, SegmentNo, mem::MemDisk},
    log::{EntryRef, HardState, Log, LogConfig, LogIdentity},
    shard::bootstrap_log,
    snapshot::{image::ImageWriter, names::ImageName},
};

const SHARD: ShardId = ShardId(0);
const CLUSTER: ClusterId = Uuid([7; 16]);
const OWN: ServerId = ServerId(9);
const A: ServerId = ServerId(1);
const B: ServerId = ServerId(2);
const IDENTITY: LogIdentity = LogIdentity { log_id: 1, salt: 2 };
/// Entries that a peer sends at a time.
const ENTRIES_PER_CHUNK: usize = 2;
/// Each entry of a log here is one batch, and each batch one block.
const BLOCK: u64 = crate::io::BLOCK_BYTES as u64;

fn configuration() -> Configuration {
    let member = |raft_id: ServerId| Member {
        raft_id,
        node_id: Uuid([raft_id.0 as u8; 16]),
        name: format!("s{raft_id}"),
        address: format!("10.0.0.{raft_id}:8300"),
        voter: true,
        leader: false,
    };
    Configuration::new(CLUSTER, 1, [OWN, A, B].map(member).to_vec())
}

fn log_config() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 20,
        ..LogConfig::default()
    }
}

/// A server's disks.
#[derive(Default)]
struct Server {
    log_disk: MemDisk,
    image_disk: MemDisk,
}

impl Server {
    /// One whose log holds entries of these terms from index 2 on, of which those up to `commit` are
    /// known to be committed. It voted for A at the last one's term.
    fn with(terms: &[u64], commit: u64) -> (Self, Log) {
        let server = Self::default();
        let mut log = Log::create(&server.log_disk, log_config(), IDENTITY).unwrap();
        bootstrap_log(&mut log, &[SHARD], &configuration());
        server.flush(&mut log);
        for (term, at) in terms.iter().zip(2..) {
            let state = HardState {
                term: Term(*term),
                vote: A.0,
                commit: Index(commit.min(at)),
            };
            log.put_hard_state(SHARD, state, false);
            let entry = EntryRef {
                index: Index(at),
                term: Term(*term),
                kind: 0,
                data: b"x",
            };
            log.append(SHARD, entry);
            server.flush(&mut log);
        }
        (server, log)
    }

    /// The same, of which the batch with the entry at `damaged` cannot be read, as it starts again.
    fn damaged(terms: &[u64], commit: u64, damaged: u64) -> (Self, Log) {
        let (server, log) = Self::with(terms, commit);
        drop(log);
        server.damage(damaged);
        let log = server.restart();
        (server, log)
    }

    fn damage(&self, index: u64) {
        let name = SegmentNo(1).file_name();
        self.log_disk.flip(&name, ((index - 1) * BLOCK + 100) * 8);
    }

    fn restart(&self) -> Log {
        let (log, _) = Log::recover(&self.log_disk, log_config(), IDENTITY, false).unwrap();
        log
    }

    fn flush(&self, log: &mut Log) {
        log.flush_blocking(&self.log_disk, 0).unwrap();
    }

    fn take(&self, patient: &mut Patient, log: &mut Log, from: ServerId, letter: Letter) -> bool {
        let useful = patient.take(log, &self.image_disk, from, letter).unwrap();
        self.flush(log);
        useful
    }

    /// Repairs the log with the help of these peers. It is killed after as many answers.
    fn repair(&self, mut log: Log, peers: &[(ServerId, &Peer)], killed_after: usize) -> Log {
        let mut patient = Patient::new(SHARD, OWN, &configuration(), &mut log);
        self.flush(&mut log);
        let mut answers = 0;
        for _round in 0..200 {
            let mut useful = false;
            for (from, peer) in peers {
                if patient.is_whole(&log) {
                    return log;
                }
                let letter = match patient.question(&log) {
                    Question::Entries(fetch) => Letter::Entries(peer.entries(&fetch)),
                    Question::Image(of, fetch) if of == *from => peer.piece(&fetch),
                    Question::Image(..) => continue,
                };
                useful |= self.take(&mut patient, &mut log, *from, letter);
                answers += 1;
                if answers == killed_after {
                    let whole = patient.is_whole(&log);
                    log = self.restart();
                    patient = Patient::new(SHARD, OWN, &configuration(), &mut log);
                    self.flush(&mut log);
                    assert_eq!(
                        patient.is_whole(&log),
                        whole,
                        "killed after {answers} answers"
                    );
                }
            }
            if !useful {
                patient.round_over(&self.image_disk).unwrap();
            }
        }
        panic!(
            "it is not whole after 200 rounds: {}",
            patient.describe(&log)
        );
    }
}

/// A peer, as far as it answers.
struct Peer {
    term: u64,
    leader: bool,
    /// The image's index and term: entries up to there are in it alone.
    image: (u64, u64),
    /// Terms of the entries behind it.
    terms: Vec<u64>,
}

impl Peer {
    fn leader(term: u64, terms: &[u64]) -> Self {
        Self {
            term,
            leader: true,
            image: (1, 1),
            terms: terms.to_vec(),
        }
    }

    fn follower(term: u64, terms: &[u64]) -> Self {
        Self {
            leader: false,
            ..Self::leader(term, terms)
        }
    }

    /// Its log up to `index` is gone into an image.
    fn compacted(mut self, index: u64) -> Self {
        let gone = (index - self.image.0) as usize;
        self.image = (index, self.terms[gone - 1]);
        self.terms.drain(..gone);
        self
    }

    fn last(&self) -> u64 {
        self.image.0 + self.terms.len() as u64
    }

    fn term_of(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.image.0)? {
            0 => Some(self.image.1),
            behind => self.terms.get(behind as usize - 1).copied(),
        }
    }

    fn entries(&self, fetch: &EntriesFetch) -> EntriesChunk {
        let mut chunk = EntriesChunk {
            term: Term(self.term),
            last_index: Index(self.last()),
            leader: self.leader,
            ..EntriesChunk::default()
        };
        let mut last = self.last();
        if fetch.first.0 <= self.image.0 {
            chunk.refused = true;
            (chunk.image_index, chunk.image_term) = (Index(self.image.0), Term(self.image.1));
        } else if fetch.next_index.0 != 0 {
            chunk.other_history = self.term_of(fetch.next_index.0) != Some(fetch.next_term.0);
            chunk.refused = chunk.other_history;
            last = fetch.last.0;
        } else {
            chunk.refused = !self.leader;
        }
        if !chunk.refused {
            let wanted = (fetch.first.0..=last).take(ENTRIES_PER_CHUNK);
            chunk.entries = wanted
                .map(|at| entry(at, self.term_of(at).unwrap()))
                .collect();
        }
        chunk
    }

    fn piece(&self, fetch: &ImageFetch) -> Letter {
        let (index, term) = self.image;
        assert_eq!((fetch.index, fetch.term), (Index(index), Term(term)));
        let whole = image(index, term, CLUSTER);
        let from = fetch.offset as usize;
        // In pieces of a few bytes, or one would do.
        let bytes = whole.slice(from..whole.len().min(from + 300));
        let chunk = ImageChunk {
            index: fetch.index,
            term: fetch.term,
            offset: fetch.offset,
            total: whole.len() as u64,
            crc: crc32c::crc32c(&bytes),
            missing: false,
        };
        Letter::Image(chunk, bytes)
    }
}

fn entry(index: u64, term: u64) -> WireEntry {
    WireEntry {
        index: Index(index),
        term: Term(term),
        kind: 0,
        data: Bytes::from_static(b"x"),
    }
}

/// An image up to `index`, of which the last entry has `term`.
fn image(index: u64, term: u64, cluster: ClusterId) -> Bytes {
    let mut fsm = Fsm::new();
    let run: Vec<(Index, Term, Bytes)> = (1..=index)
        .map(|at| (Index(at), Term(term), Command::Ignorable.encode()))
        .collect();
    fsm.apply_run(&run, &mut Vec::new()).unwrap();
    let configuration = configuration().encode();
    let mut writer = ImageWriter::new(fsm.view(), cluster, SHARD, configuration);
    let pieces: Vec<Bytes> = std::iter::from_fn(|| writer.next_chunk(1 << 20)).collect();
    pieces.concat().into()
}

/// What the log holds: its snapshot, and the terms of the entries behind it.
fn held(log: &Log) -> (u64, Vec<u64>) {
    let (first, last) = (log.first_index(SHARD).0, log.last_index(SHARD).0);
    let terms = (first..=last).map(|at| log.term(SHARD, Index(at)).unwrap_or_default().0);
    (first - 1, terms.collect())
}

/// Repairs the server that `damaged` makes, killed after each answer in turn, and looks at what it
/// holds then.
fn heal(
    damaged: impl Fn() -> (Server, Log),
    peers: &[(ServerId, &Peer)],
    check: impl Fn(&Server, &Log),
) {
    for killed_after in 1..12 {
        let (server, log) = damaged();
        let log = server.repair(log, peers, killed_after);
        check(&server, &log);
        drop(log);
        let log = server.restart();
        let found = log.recovered(SHARD).unwrap();
        assert!(found.gaps.is_empty() && !found.hard_state_in_doubt);
        check(&server, &log);
    }
}

fn chunk(term: u64, first: u64, terms: &[u64], last: u64) -> Letter {
    Letter::Entries(EntriesChunk {
        term: Term(term),
        last_index: Index(last),
        leader: true,
        entries: (first..).zip(terms).map(|(at, t)| entry(at, *t)).collect(),
        ..EntriesChunk::default()
    })
}

fn follower(term: u64) -> Letter {
    Letter::Entries(EntriesChunk {
        term: Term(term),
        refused: true,
        ..EntriesChunk::default()
    })
}

fn in_doubt() -> (Server, Log, Patient) {
    let (server, mut log) = Server::with(&[], 1);
    log.doubt_hard_state(SHARD);
    let patient = Patient::new(SHARD, OWN, &configuration(), &mut log);
    (server, log, patient)
}

// ---------------------------------------------------------------- tails

/// The tail was put together from whichever leaders answered: the first entries from one, the
/// rest from its successor, whose log had others in their place.
#[test]
fn a_tail_comes_from_one_leader_alone() {
    let (server, mut log, mut patient) = in_doubt();
    let mut take = |from, letter| server.take(&mut patient, &mut log, from, letter);
    take(B, follower(5));
    assert!(take(A, chunk(5, 2, &[5, 5], 4)));
    // B was elected meanwhile, without the entries that A had alone.
    assert!(!take(B, chunk(6, 4, &[6], 4)), "all of B's log is wanted");
    take(A, follower(6));
    assert!(take(B, chunk(6, 2, &[3, 3, 6], 4)));
    assert_eq!(held(&log), (1, vec![3, 3, 6]));
    assert!(patient.is_whole(&log));
}

/// A leader that was deposed and does not know it yet was believed.
#[test]
fn a_deposed_leader_is_not_believed() {
    let (server, mut log, mut patient) = in_doubt();
    let mut take = |from, letter| server.take(&mut patient, &mut log, from, letter);
    assert!(!take(A, chunk(5, 2, &[5], 3)), "B was not heard yet");
    take(B, follower(6));
    assert!(!take(A, chunk(5, 2, &[5], 3)));
    assert!(take(B, chunk(6, 2, &[6], 3)));
    // Another election is under way: its winner may know more.
    take(A, follower(7));
    take(B, chunk(6, 3, &[6], 3));
    assert!(!patient.is_whole(&log));
}

/// Its vote at the newest term that anybody knows is its own afterwards: it may have given it away.
#[test]
fn a_lost_tail_is_the_leaders_and_the_vote_is_spent() {
    let leader = Peer::leader(4, &[1, 1, 2, 2, 4, 4, 4]);
    let peers = [(A, &leader), (B, &Peer::follower(4, &[1, 1, 2, 2, 4]))];
    let damaged = || Server::damaged(&[1, 1, 2, 2], 3, 5);
    let (_, log) = damaged();
    assert!(log.hard_state_in_doubt(SHARD), "the last batch is lost");
    heal(damaged, &peers, |_, log| {
        assert_eq!(held(log), (1, vec![1, 1, 2, 2, 4, 4, 4]));
        let state = log.hard_state(SHARD);
        assert_eq!((state.term, state.vote), (Term(4), OWN.0));
    });
}

/// A later record said how far the log had gone: then nothing but the entries was in doubt, and the
/// log was taken for whole with the first of them that the leader sent. The rest of what it had
/// acknowledged was forgotten.
#[test]
fn a_lost_tail_of_known_length_is_taken_to_its_end() {
    let damaged = || {
        let (server, mut log) = Server::with(&[1, 1, 2, 2, 2, 2], 3);
        let known = log.recovered(SHARD).unwrap();
        log.put_checkpoint(SHARD, known.checkpoint);
        server.flush(&mut log);
        drop(log);
        for index in 4..=7 {
            server.damage(index);
        }
        let log = server.restart();
        (server, log)
    };
    let (_, log) = damaged();
    let gaps = log.gaps(SHARD);
    assert_eq!(
        (
            gaps.len(),
            gaps[0].last,
            gaps[0].next,
            log.hard_state_in_doubt(SHARD)
        ),
        (1, Some(Index(7)), None, false)
    );
    let leader = Peer::leader(2, &[1, 1, 2, 2, 2, 2]);
    let peers = [(A, &leader), (B, &Peer::follower(2, &[1, 1, 2]))];
    heal(damaged, &peers, |_, log| {
        assert_eq!(held(log), (1, vec![1, 1, 2, 2, 2, 2]));
    });
    // Where the leader has less, what was lost was never committed.
    let shorter = Peer::leader(3, &[1, 1]);
    let peers = [(A, &shorter), (B, &Peer::follower(3, &[1, 1]))];
    heal(damaged, &peers, |_, log| {
        assert_eq!(held(log), (1, vec![1, 1]));
        assert_eq!(log.hard_state(SHARD).term, Term(3));
    });
}

// ---------------------------------------------------------------- gaps

#[test]
fn a_gap_is_filled_by_any_server_that_holds_the_entry_behind_it() {
    let peers = [
        (A, &Peer::leader(3, &[1, 1, 2, 2, 2]).compacted(5)),
        (B, &Peer::follower(3, &[1, 1, 2, 2, 2])),
    ];
    let damaged = || Server::damaged(&[1, 1, 2, 2, 2], 3, 4);
    heal(damaged, &peers, |_, log| {
        assert_eq!(held(log), (1, vec![1, 1, 2, 2, 2]), "no image is needed");
        assert_eq!(log.hard_state(SHARD).vote, A.0, "its vote is not in doubt");
    });
}

/// The entry behind the gap was replaced elsewhere: nobody held it, and the repair never ended.
#[test]
fn a_gap_in_a_history_that_was_given_up_is_replaced_by_the_leaders_log() {
    let leader = Peer::leader(5, &[1, 1, 3, 5]);
    let peers = [(A, &leader), (B, &Peer::follower(5, &[1, 1, 3]))];
    let damaged = || Server::damaged(&[1, 1, 2, 2, 2], 3, 5);
    heal(damaged, &peers, |_, log| {
        assert_eq!(held(log), (1, vec![1, 1, 3, 5]));
        assert_eq!(log.hard_state(SHARD).vote, OWN.0);
    });
}

#[test]
fn only_a_leader_of_the_newest_term_can_say_that_a_history_was_given_up() {
    let (server, mut log) = Server::damaged(&[1, 1, 2, 2, 2], 3, 5);
    let mut patient = Patient::new(SHARD, OWN, &configuration(), &mut log);
    let mut refuse = |from, term, leader| {
        let refusal = EntriesChunk {
            term: Term(term),
            leader,
            refused: true,
            other_history: true,
            ..EntriesChunk::default()
        };
        server.take(&mut patient, &mut log, from, Letter::Entries(refusal))
    };
    assert!(!refuse(A, 5, true), "B was not heard yet");
    assert!(!refuse(B, 6, false), "it may only be behind");
    assert!(!refuse(A, 5, true), "B knows a later term");
    assert!(refuse(A, 6, true));
}

// ---------------------------------------------------------------- images

/// The peers had compacted their logs past what was wanted, and the repair never ended.
#[test]
fn entries_that_are_in_images_only_come_as_an_image() {
    let all = [1, 1, 2, 2, 2, 2, 2, 2];
    let peers = [
        (A, &Peer::leader(2, &all).compacted(7)),
        (B, &Peer::follower(2, &all).compacted(7)),
    ];
    // The image ends behind this log: nothing of it is left.
    heal(
        || Server::damaged(&all[..4], 4, 3),
        &peers,
        |server, log| {
            assert_eq!(held(log), (7, vec![]));
            let state = log.hard_state(SHARD);
            assert_eq!((state.commit, state.vote), (Index(7), A.0));
            let name = ImageName {
                shard: SHARD,
                index: Index(7),
                term: Term(2),
            };
            let files = server.image_disk.list().unwrap();
            assert_eq!(files.len(), 1, "{files:?}");
            assert_eq!(files[0].0, name.file_name());
        },
    );
    // It ends within this log: what is behind it stays.
    heal(
        || Server::damaged(&all, 4, 3),
        &peers,
        |_, log| {
            assert_eq!(held(log), (7, vec![2, 2]));
        },
    );
}

/// A lost vote and a lost tail, while the leader has neither any more: the image alone must not
/// make the server whole, for it may have acknowledged entries behind it.
#[test]
fn a_lost_tail_is_an_image_and_the_leaders_log_behind_it() {
    let all = [1, 1, 2, 2, 2, 4, 4, 4];
    let leader = Peer::leader(4, &all).compacted(6);
    let other = Peer::follower(4, &all).compacted(8);
    let damaged = || Server::damaged(&all[..3], 2, 4);
    heal(damaged, &[(A, &leader), (B, &other)], |_, log| {
        let (snapshot, terms) = held(log);
        assert!(snapshot == 6 && terms == [4, 4, 4] || snapshot == 8 && terms == [4]);
        let state = log.hard_state(SHARD);
        assert_eq!((state.term, state.vote), (Term(4), OWN.0));
        assert!(state.commit.0 >= snapshot);
    });
    // With the image, and before the leader's log, it is not whole.
    let (server, mut log) = damaged();
    let mut patient = Patient::new(SHARD, OWN, &configuration(), &mut log);
    let refusal = leader.entries(&EntriesFetch {
        first: Index(3),
        ..EntriesFetch::default()
    });
    server.take(&mut patient, &mut log, A, Letter::Entries(refusal));
    patient.round_over(&server.image_disk).unwrap();
    while let Question::Image(_, fetch) = patient.question(&log) {
        server.take(&mut patient, &mut log, A, leader.piece(&fetch));
    }
    assert_eq!(held(&log), (6, vec![]));
    assert!(!patient.is_whole(&log) && log.hard_state_in_doubt(SHARD));
}

#[test]
fn an_image_that_is_damaged_or_of_another_cluster_is_not_installed() {
    let all = [1, 1, 2, 2, 2, 2];
    let peer = Peer::leader(2, &all).compacted(6);
    let garble = |change: fn(&mut ImageChunk, &mut Vec<u8>)| {
        let (server, mut log) = Server::damaged(&all[..4], 4, 3);
        let mut patient = Patient::new(SHARD, OWN, &configuration(), &mut log);
        let gap = match patient.question(&log) {
            Question::Entries(fetch) => peer.entries(&fetch),
            Question::Image(..) => panic!("nobody offered one"),
        };
        server.take(&mut patient, &mut log, A, Letter::Entries(gap));
        patient.round_over(&server.image_disk).unwrap();
        while let Question::Image(_, fetch) = patient.question(&log) {
            let Letter::Image(mut chunk, bytes) = peer.piece(&fetch) else {
                panic!("a piece")
            };
            let mut bytes = bytes.to_vec();
            change(&mut chunk, &mut bytes);
            let letter = Letter::Image(chunk, bytes.into());
            if !server.take(&mut patient, &mut log, A, letter) {
                break;
            }
        }
        assert_eq!(held(&log).0, 1, "nothing is installed");
        assert!(!patient.is_whole(&log));
        let files = server.image_disk.list().unwrap();
        assert!(
            files
                .iter()
                .all(|(name, _)| ImageName::parse(name).is_none())
        );
    };
    // Damaged on its way: asked for again.
    garble(|_, bytes| bytes[20] ^= 1);
    // Damaged where it was read.
    garble(|chunk, bytes| {
        bytes[20] ^= 1;
        chunk.crc = crc32c::crc32c(bytes);
    });
    garble(|chunk, _| chunk.missing = true);
    garble(|chunk, bytes| {
        let whole = image(6, 2, Uuid([8; 16]));
        let from = chunk.offset as usize;
        *bytes = whole[from..whole.len().min(from + 300)].to_vec();
        chunk.crc = crc32c::crc32c(bytes);
    });
}

/// An image of another history than what is known to be committed here is refused aloud.
#[test]
fn an_image_that_contradicts_what_is_committed_stops_the_server() {
    let peer = Peer::leader(5, &[1, 1, 3, 3, 5]).compacted(5);
    let (server, mut log) = Server::damaged(&[1, 1, 2, 2, 2], 6, 3);
    let mut patient = Patient::new(SHARD, OWN, &configuration(), &mut log);
    let Question::Entries(fetch) = patient.question(&log) else {
        panic!("entries are wanted first")
    };
    server.take(
        &mut patient,
        &mut log,
        A,
        Letter::Entries(peer.entries(&fetch)),
    );
    patient.round_over(&server.image_disk).unwrap();
    let why = loop {
        let Question::Image(_, fetch) = patient.question(&log) else {
            panic!("the image is wanted")
        };
        if let Err(why) = patient.take(&mut log, &server.image_disk, A, peer.piece(&fetch)) {
            break why;
        }
    };
    assert!(why.contains("two histories"), "{why}");
}

/// Found by the simulator: where the damaged batch was the one that the log was made with, the
/// server asked its peers for entry 1 for ever. Nobody has that one: it stands for the
/// configuration, and nobody wrote it. Peers whose logs are whole and who have made no image yet
/// could not help.
#[test]
fn a_log_that_lost_its_very_beginning_is_made_whole() {
    struct Young(Peer);
    impl Young {
        /// As a peer without images answers.
        fn entries(&self, fetch: &EntriesFetch) -> EntriesChunk {
            let mut chunk = self.0.entries(fetch);
            (chunk.image_index, chunk.image_term) = (Index(0), Term(0));
            chunk
        }
    }
    let (server, mut log) = Server::damaged(&[1, 1, 2, 2], 4, 1);
    assert_eq!(log.gaps(SHARD)[0].first, Index(1), "the beginning is lost");
    let mut patient = Patient::new(SHARD, OWN, &configuration(), &mut log);
    server.flush(&mut log);
    let peer = Young(Peer::leader(2, &[1, 1, 2, 2]));
    for from in [A, B, A, B, A, B] {
        if let Question::Entries(fetch) = patient.question(&log) {
            let letter = Letter::Entries(peer.entries(&fetch));
            server.take(&mut patient, &mut log, from, letter);
        }
    }
    assert!(patient.is_whole(&log), "{}", patient.describe(&log));
    let found = server.restart().recovered(SHARD).unwrap();
    assert_eq!((found.first_index, found.last_index), (Index(2), Index(5)));
    assert_eq!(found.checkpoint.configuration, configuration().encode());
}

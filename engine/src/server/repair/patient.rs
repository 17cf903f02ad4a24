//! What is asked for a damaged shard, and which answers make it whole?
//!
//! - *A gap with entries behind it* is filled by any server that holds the entry behind it (log
//!   matching, Raft paper §5.3).
//! - *What the peers' logs no longer hold* is in their images. Any server's will do: what an image
//!   holds is committed, and all agree on that. Entries of this log up to there go with it.
//! - *A damaged tail* is replaced by the leader's log from this server's commit index on (up to
//!   there all logs agree): whatever this server ever acknowledged to that leader is among it. All
//!   of it comes from one leader of one term, than which no other voter knows a later one: a
//!   deposed leader lacks what its successor committed, and a log put together from two leaders'
//!   is nobody's.
//! - *A gap of which such a leader does not hold the entry behind it* belongs to a history that was
//!   given up elsewhere: what is not known to be committed becomes a damaged tail.
//! - *A hard state in doubt* is settled once every other voter has said its term: whoever ever
//!   collected this server's vote had made its term durable first. The server then starts at the
//!   highest of them with its vote given to itself, and so cannot vote twice in it.
//!
//! Invariant: before the first entry is replaced by a leader's, the doubt is in the log. So a
//! repair that is cut short is taken up again, and a shard is never whole before it has all that
//! the leader had: it cannot vote without the entries that it once acknowledged.

use std::collections::BTreeMap;

use bytes::Bytes;
use wire::{
    ClusterId, EntriesChunk, EntriesFetch, ImageChunk, ImageFetch, Index, ServerId, ShardId, Term,
};

use super::image::{Progress, Pull};
use crate::{
    consensus::Configuration,
    io::Disk,
    log::{Checkpoint, Entry, Gap, HardState, Log},
    shard::{FIRST_INDEX, FIRST_TERM},
    snapshot::{image::ImageMeta, names::ImageName},
};

/// A peer that sends no piece of an image for so many rounds is given up; after a failure as many
/// pass before the next attempt.
const SILENT_ROUNDS_MAX: u32 = 25;

/// What is asked.
#[derive(Debug)]
pub enum Question {
    /// Of every other voter.
    Entries(EntriesFetch),
    /// Of that server.
    Image(ServerId, ImageFetch),
}

/// What is answered.
#[derive(Debug)]
pub enum Letter {
    /// Entries, or a refusal.
    Entries(EntriesChunk),
    /// A piece of an image.
    Image(ImageChunk, Bytes),
}

/// A shard under repair.
pub struct Patient {
    shard: ShardId,
    own: ServerId,
    cluster: ClusterId,
    /// The other voters.
    others: Vec<ServerId>,
    /// First entry wanted of the leader's log, for a damaged tail.
    tail_first: Index,
    /// Whose log is being taken, and of which term.
    leader: Option<(ServerId, Term)>,
    /// Next entry wanted of the leader's log.
    tail_next: Index,
    /// The leader's log was taken to its end.
    tail_whole: bool,
    /// What the other voters said.
    terms: BTreeMap<ServerId, Term>,
    /// The newest image that a peer has instead of the entries wanted.
    offer: Option<(ServerId, ImageName)>,
    pull: Option<Pull>,
    /// Rounds since something useful was heard.
    silent_rounds: u32,
    /// The last pull failed: the next one waits as long as a silent peer is waited for.
    resting: bool,
}

impl Patient {
    /// Looks at a shard. What is put into the log is to be flushed before anything is asked.
    pub fn new(
        shard: ShardId,
        own: ServerId,
        configuration: &Configuration,
        log: &mut Log,
    ) -> Self {
        restore_beginning(shard, configuration, log);
        // Nothing proves what the end of the log held: a leader's entries will take its place.
        if log.gaps(shard).iter().any(|gap| gap.next.is_none()) && !log.hard_state_in_doubt(shard) {
            log.doubt_hard_state(shard);
        }
        let others = configuration.voters().map(|member| member.raft_id);
        let mut patient = Self {
            shard,
            own,
            cluster: configuration.cluster_id,
            others: others.filter(|id| *id != own).collect(),
            tail_first: Index(0),
            leader: None,
            tail_next: Index(0),
            tail_whole: false,
            terms: BTreeMap::new(),
            offer: None,
            pull: None,
            silent_rounds: 0,
            resting: false,
        };
        patient.begin_anew(log);
        patient
    }

    /// Everything that was lost is back.
    pub fn is_whole(&self, log: &Log) -> bool {
        log.gaps(self.shard).is_empty() && !log.hard_state_in_doubt(self.shard)
    }

    /// For the operator.
    pub fn describe(&self, log: &Log) -> String {
        let gaps: Vec<String> = log.gaps(self.shard).iter().map(spell).collect();
        let image = self.pull.as_ref().map(|pull| pull.name.index);
        format!(
            "shard={} missing=[{}] image={} hard_state_in_doubt={} voters_heard={}/{}",
            self.shard,
            gaps.join(", "),
            image.map_or("none".to_owned(), |index| index.to_string()),
            log.hard_state_in_doubt(self.shard),
            self.terms.len(),
            self.others.len()
        )
    }

    /// What is wanted now.
    pub fn question(&self, log: &Log) -> Question {
        if let Some(pull) = &self.pull {
            return Question::Image(pull.from, pull.wanted());
        }
        Question::Entries(match closed_gap(log, self.shard) {
            Some((gap, (next_index, next_term))) => EntriesFetch {
                first: gap.first,
                last: gap.last.unwrap_or(Index(next_index.0 - 1)),
                next_index,
                next_term,
            },
            None => EntriesFetch {
                first: self.tail_next,
                ..EntriesFetch::default()
            },
        })
    }

    /// Takes an answer; what was put into the log is to be flushed. Whether it was of use: then
    /// something else is wanted now.
    pub fn take(
        &mut self,
        log: &mut Log,
        images: &dyn Disk,
        from: ServerId,
        letter: Letter,
    ) -> Result<bool, String> {
        let useful = match letter {
            Letter::Entries(chunk) => self.take_entries(log, from, &chunk),
            Letter::Image(chunk, bytes) => self.take_piece(log, images, from, &chunk, &bytes)?,
        };
        if useful {
            self.offer = None;
        }
        if self.can_settle(log) {
            self.settle(log);
            return Ok(true);
        }
        Ok(useful)
    }

    /// Nothing useful was heard for a while: nobody has the entries, so that an image must do.
    pub fn round_over(&mut self, images: &dyn Disk) -> Result<(), String> {
        self.silent_rounds += 1;
        if self.pull.is_some() && self.silent_rounds >= SILENT_ROUNDS_MAX {
            self.give_up("its server fell silent");
        }
        self.resting &= self.silent_rounds < SILENT_ROUNDS_MAX;
        if self.pull.is_none()
            && !self.resting
            && let Some((from, name)) = self.offer.take()
        {
            log::info!(
                target: "agent.server.log",
                "the peers' logs no longer hold what is missing; fetching the image: shard={} index={} from={from}",
                self.shard, name.index
            );
            self.pull = Some(Pull::begin(from, name, self.cluster, images)?);
            self.silent_rounds = 0;
        }
        Ok(())
    }

    // ------------------------------------------------------------------ entries

    /// Takes what answers the present question; anything else is of an earlier one.
    fn take_entries(&mut self, log: &mut Log, from: ServerId, chunk: &EntriesChunk) -> bool {
        self.terms.insert(from, chunk.term);
        let gap = closed_gap(log, self.shard);
        if chunk.refused {
            return self.take_refusal(log, from, chunk, gap);
        }
        let first = chunk.entries.first().map(|entry| entry.index);
        let entries = chunk.entries.iter().map(|entry| Entry {
            index: entry.index,
            term: entry.term,
            kind: entry.kind as u8,
            data: entry.data.clone(),
        });
        if let Some((gap, _)) = gap {
            if first != Some(gap.first) {
                return false;
            }
            log.fill_gap(self.shard, &entries.collect::<Vec<_>>());
            return true;
        }
        if !chunk.leader
            || !self.follows(from, chunk.term)
            || first.is_some_and(|first| first != self.tail_next)
        {
            return false;
        }
        for entry in entries {
            self.tail_next = Index(entry.index.0 + 1);
            log.append(self.shard, entry.as_ref());
        }
        self.tail_whole = self.tail_next > chunk.last_index;
        first.is_some()
    }

    fn take_refusal(
        &mut self,
        log: &mut Log,
        from: ServerId,
        chunk: &EntriesChunk,
        gap: Option<(Gap, (Index, Term))>,
    ) -> bool {
        let wanted = gap.map_or(self.tail_next, |(gap, _)| gap.first);
        if chunk.image_index >= wanted {
            let name = ImageName {
                shard: self.shard,
                index: chunk.image_index,
                term: chunk.image_term,
            };
            if self.offer.is_none_or(|(_, other)| other.index < name.index) {
                self.offer = Some((from, name));
            }
            return false;
        }
        let Some((_, (next, _))) = gap else {
            return false;
        };
        // What is known to be committed is the leader's history as well.
        let given_up = chunk.other_history
            && chunk.leader
            && self.is_newest(chunk.term)
            && next >= first_unsure(log, self.shard);
        if given_up {
            log::warn!(
                target: "agent.server.log",
                "entry {next} behind a gap is not in the leader's log; its log from {} on replaces this one: shard={}",
                first_unsure(log, self.shard), self.shard
            );
            log.doubt_hard_state(self.shard);
            log.cut(self.shard, first_unsure(log, self.shard));
            self.begin_anew(log);
        }
        given_up
    }

    /// Whether a leader of this term is the one to follow. One that was not followed before is
    /// followed from the start.
    fn follows(&mut self, from: ServerId, term: Term) -> bool {
        if !self.is_newest(term) {
            return false;
        }
        if self.leader != Some((from, term)) {
            self.leader = Some((from, term));
            self.tail_next = self.tail_first;
            self.tail_whole = false;
        }
        true
    }

    /// Whether all other voters were heard, and none of a later term.
    fn is_newest(&self, term: Term) -> bool {
        self.others
            .iter()
            .all(|id| self.terms.get(id).is_some_and(|known| *known <= term))
            || mutant!(RepairFromAnyLeader)
    }

    /// The log is not what it was: a leader is followed from the start.
    fn begin_anew(&mut self, log: &Log) {
        self.tail_first = first_unsure(log, self.shard);
        self.tail_next = self.tail_first;
        self.tail_whole = false;
        self.leader = None;
        self.offer = None;
    }

    // ------------------------------------------------------------------ images

    fn take_piece(
        &mut self,
        log: &mut Log,
        images: &dyn Disk,
        from: ServerId,
        chunk: &ImageChunk,
        bytes: &Bytes,
    ) -> Result<bool, String> {
        let Some(pull) = &mut self.pull else {
            return Ok(false);
        };
        match pull.take(images, from, chunk, bytes) {
            Ok(Progress::None) => return Ok(false),
            Ok(Progress::Piece) => self.silent_rounds = 0,
            Ok(Progress::Whole(meta)) => {
                self.pull = None;
                self.install(log, meta)?;
            }
            // What is asked next brings another offer.
            Err(why) => self.give_up(&why),
        }
        Ok(true)
    }

    fn give_up(&mut self, why: &str) {
        (self.silent_rounds, self.resting) = (0, true);
        if let Some(pull) = self.pull.take() {
            log::warn!(
                target: "agent.server.log",
                "the image at index {} is given up: {why}; another one is looked for: shard={}",
                pull.name.index, self.shard
            );
        }
    }

    /// The log begins behind the image now; what it has behind it stays if it is of one history
    /// with it.
    fn install(&mut self, log: &mut Log, meta: ImageMeta) -> Result<(), String> {
        let state = log.hard_state(self.shard);
        let known = log.term(self.shard, meta.index);
        if meta.index <= state.commit && known.is_some_and(|term| term != meta.term) {
            return Err(format!(
                "shard {}: entry {} is committed here with term {} and in a peer's image with term {}: these are two \
                 histories, and this server cannot tell which is damaged; set its data directory aside",
                self.shard,
                meta.index,
                known.unwrap_or_default(),
                meta.term
            ));
        }
        if meta.index >= log.first_index(self.shard) {
            let hard_state = HardState {
                commit: state.commit.max(meta.index),
                ..state
            };
            let checkpoint = Checkpoint {
                hard_state,
                snapshot_index: meta.index,
                snapshot_term: meta.term,
                configuration: meta.configuration,
            };
            log.put_checkpoint(self.shard, checkpoint);
            log::info!(target: "agent.server.log", "installed a peer's image: shard={} index={}", self.shard, meta.index);
        }
        self.begin_anew(log);
        Ok(())
    }

    // ------------------------------------------------------------------ hard state

    fn can_settle(&self, log: &Log) -> bool {
        log.hard_state_in_doubt(self.shard)
            && closed_gap(log, self.shard).is_none()
            && self.tail_whole
            && self.leader.is_some_and(|(_, term)| self.is_newest(term))
    }

    fn settle(&self, log: &mut Log) {
        // What the leader's log is too short for is not missing.
        if log.gaps(self.shard).iter().any(|gap| gap.last.is_some()) {
            log.cut(self.shard, self.tail_next);
        }
        let known = log.hard_state(self.shard);
        let heard = self.terms.values().copied().max().unwrap_or_default();
        let state = HardState {
            term: heard.max(known.term),
            vote: self.own.0,
            commit: known.commit,
        };
        log.put_hard_state(self.shard, state, true);
        log.settle_hard_state(self.shard);
    }
}

/// The batch that a log was made with may be lost, and with it what every shard's log begins with:
/// the configuration, in an entry that nobody wrote and so nobody could send.
fn restore_beginning(shard: ShardId, configuration: &Configuration, log: &mut Log) {
    if log.first_index(shard) > FIRST_INDEX {
        return;
    }
    let known = log.hard_state(shard);
    let checkpoint = Checkpoint {
        hard_state: HardState {
            term: known.term.max(FIRST_TERM),
            commit: known.commit.max(FIRST_INDEX),
            ..known
        },
        snapshot_index: FIRST_INDEX,
        snapshot_term: FIRST_TERM,
        configuration: configuration.encode(),
    };
    log.put_checkpoint(shard, checkpoint);
}

/// The first gap that a peer can fill, and the entry behind it.
fn closed_gap(log: &Log, shard: ShardId) -> Option<(Gap, (Index, Term))> {
    let mut gaps = log.gaps(shard).into_iter();
    gaps.find_map(|gap| Some((gap, gap.next?)))
}

/// The first entry that is not known to be the same in all logs, or that nothing here tells of. The
/// commit index may be newer than the entries that are left: a mark carries it.
fn first_unsure(log: &Log, shard: ShardId) -> Index {
    let lost = log.gaps(shard).into_iter().find(|gap| gap.next.is_none());
    let held = lost.map_or(log.last_index(shard).0, |gap| gap.first.0 - 1);
    Index(held.min(log.hard_state(shard).commit.0) + 1).max(log.first_index(shard))
}

fn spell(gap: &Gap) -> String {
    match gap.last {
        Some(last) => format!("{}..={last}", gap.first),
        None => format!("{}..", gap.first),
    }
}

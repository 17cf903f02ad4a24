//! What would a store do that did one operation at a time?
//!
//! Consul's rules for keys and locks, as a function from a state and an operation to the next
//! state, or to "it could not have answered that here". Strings are numbers by now
//! ([`super::objects`]); a state holds the keys of one object only, and is small enough to be
//! kept by the million.
//!
//! Modify indexes are part of the state where the history tells them, and 0 where it does not: a
//! comparison with an unknown index is never held against the store. Over HTTP a write is not told
//! its index, but a value is unique, so whoever reads it names the index for everybody.
//!
//! Invariant: `apply` refuses only what no store could have done.

use std::collections::{HashMap, HashSet};

/// A row as the search knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// Its value's number.
    pub value: u32,
    /// Number of the session that holds it; 0 for nobody.
    pub session: u32,
    /// How often it was locked since the last plain write.
    pub lock_index: u64,
    /// The index of its last change, 0 if the history does not tell.
    pub modify: u64,
    /// The index it came to be at, 0 if the history does not tell.
    pub create: u64,
}

/// A row that somebody saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its value's number; `None` where the answer left it out.
    pub value: Option<u32>,
    /// Session's number.
    pub session: u32,
    /// As answered.
    pub lock_index: u64,
    /// As answered.
    pub modify: u64,
    /// As answered.
    pub create: u64,
}

/// One verb; keys are places in [`State::rows`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Writes a value.
    Set(usize, u32),
    /// Writes a value where the key has this index.
    Cas(usize, u32, u64),
    /// Deletes.
    Delete(usize),
    /// Deletes where the key has this index.
    DeleteCas(usize, u64),
    /// Deletes several.
    DeleteTree(Vec<usize>),
    /// Key, value, session.
    Acquire(usize, u32, u32),
    /// Key, value, session.
    Release(usize, u32, u32),
    /// Reads.
    Get(usize),
}

/// What was called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// A plain read.
    Read(usize),
    /// A plain change.
    Step(Verb),
    /// All or nothing.
    Txn(Vec<Verb>),
    /// A session begins.
    Create(u32),
    /// A session ends.
    Destroy(u32),
}

/// What the answer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nobody knows.
    Nothing,
    /// A read's row.
    Row(Option<Seen>),
    /// A change was done or not.
    Done(bool),
    /// A transaction's rows, one place for each step.
    Rows(Vec<Option<Seen>>),
    /// A transaction was rolled back for these steps.
    RolledBack(Vec<usize>),
}

/// One operation of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// What.
    pub act: Act,
    /// The answer.
    pub said: Said,
    /// Where in the log, 0 where that was not said.
    pub index: u64,
    /// Place in the history.
    pub source: usize,
    /// When it may have taken place at the earliest, ns.
    pub called_ns: u64,
    /// When it must have taken place at the latest, ns; `None`: never, perhaps.
    pub returned_ns: Option<u64>,
    /// An operation of unknown outcome that was called earlier and would have done the same: this
    /// one need not be tried before that.
    pub twin: Option<usize>,
}

impl Op {
    /// Whether it leaves every state as it is and has no place of its own in the log: then the
    /// first place at which it fits is as good as any.
    pub fn is_pure(&self) -> bool {
        match (&self.act, &self.said) {
            (Act::Read(_), _) => true,
            (_, Said::Done(false) | Said::RolledBack(_)) => self.index == 0,
            (Act::Txn(steps), _) => steps.iter().all(|step| matches!(step, Verb::Get(_))),
            _ => false,
        }
    }
}

/// A key's place, the value and the holder that a change left it with. No two changes leave the
/// same: values are unique, and sessions hold a key with one value once.
pub type Version = (usize, u32, u32);

/// The number of every value that nobody ever saw and nobody knows to have been written.
pub const UNSEEN: u32 = u32::MAX;

/// What all of a history's answers together say about indexes.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The index of the change that left this key with this value and this holder.
    pub modify: HashMap<Version, u64>,
    /// The index that such a row came to be at.
    pub create: HashMap<Version, u64>,
    /// Every index that some client was shown.
    pub indexes: HashSet<u64>,
}

/// How a session lets go of what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behavior {
    /// The rows stay, without a holder.
    #[default]
    Release,
    /// The rows go.
    Delete,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// Its creation has not taken place.
    Unborn,
    /// It may hold locks.
    Alive,
    /// It may not any more.
    Dead,
}

/// One object between two operations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Its keys.
    pub rows: Vec<Option<Held>>,
    /// Its sessions, from number 1.
    pub sessions: Vec<Life>,
    /// The greatest index in the log that is behind us.
    pub last: u64,
}

/// Does the operation on states.
#[derive(Clone, Debug)]
pub struct Model {
    /// About indexes.
    pub known: Known,
    /// About sessions.
    pub behavior: Behavior,
}

impl Model {
    /// The state after `op`, if a store in `state` could have answered as it did.
    pub fn apply(&self, state: &State, op: &Op) -> Option<State> {
        if op.index != 0 && op.index <= state.last {
            return None;
        }
        let mut next = state.clone();
        let fits = match &op.act {
            Act::Read(key) => match &op.said {
                Said::Row(row) => shows(row.as_ref(), state.rows[*key].as_ref()),
                _ => false,
            },
            Act::Step(verb) => self.step(&mut next, verb, op),
            Act::Txn(steps) => self.at_one_index(&mut next, op.index, |state, index| {
                self.txn(state, steps, op, index)
            }),
            Act::Create(session) => begin(&mut next, *session),
            Act::Destroy(session) => self.at_one_index(&mut next, op.index, |state, index| {
                self.destroy(state, *session, index)
            }),
        };
        next.last = next.last.max(op.index);
        fits.then_some(next)
    }

    fn step(&self, state: &mut State, verb: &Verb, op: &Op) -> bool {
        let before = state.clone();
        // Where nobody can tell whether the condition held, the answer does.
        let doubt = op.said != Said::Done(false);
        let Some(done) = self.verb(state, before.last, verb, op.index, doubt) else {
            return false;
        };
        match op.said {
            Said::Done(said) if said == done => {}
            // An unknown outcome that changed nothing need not have a place at all.
            Said::Nothing if done => {}
            _ => return false,
        }
        if !done {
            *state = before;
        }
        true
    }

    /// What changes several rows does so at one index: where one row's is known, all are.
    fn at_one_index(
        &self,
        state: &mut State,
        index: u64,
        change: impl Fn(&mut State, u64) -> bool,
    ) -> bool {
        let before = state.clone();
        let fits = change(state, index);
        if !fits || index != 0 || state.last == before.last {
            return fits;
        }
        let found = state.last;
        *state = before;
        change(state, found)
    }

    fn txn(&self, state: &mut State, steps: &[Verb], op: &Op, index: u64) -> bool {
        let before = state.clone();
        let mut failed = Vec::new();
        let mut rows = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let doubt = !matches!(&op.said, Said::RolledBack(said) if said.contains(&at));
            match self.verb(state, before.last, step, index, doubt) {
                None => return false,
                Some(false) => failed.push(at),
                Some(true) => {}
            }
            rows.push(row_after(state, step));
        }
        match &op.said {
            Said::RolledBack(said) => {
                *state = before;
                *said == failed && !failed.is_empty()
            }
            Said::Nothing => failed.is_empty(),
            Said::Rows(said) => {
                let alike = |(said, row): (&Option<Seen>, &Option<Held>)| {
                    shows(said.as_ref(), row.as_ref())
                };
                failed.is_empty() && said.len() == rows.len() && said.iter().zip(&rows).all(alike)
            }
            _ => false,
        }
    }

    /// Carries one verb out; whether its condition held, or `None` where the indexes that are
    /// known forbid it to be here. `last` is the index behind the whole operation.
    fn verb(
        &self,
        state: &mut State,
        last: u64,
        verb: &Verb,
        index: u64,
        doubt: bool,
    ) -> Option<bool> {
        let held = |key: usize, state: &State| state.rows[key].clone();
        let done = match *verb {
            Verb::Get(key) => state.rows[key].is_some(),
            Verb::Set(key, value) => {
                let session = held(key, state).map_or(0, |row| row.session);
                self.write(state, last, key, value, session, 0, index)?
            }
            Verb::Cas(key, value, wanted) => {
                let row = held(key, state);
                if !self.is_at(row.as_ref(), wanted, doubt) {
                    return Some(false);
                }
                let session = row.map_or(0, |row| row.session);
                self.write(state, last, key, value, session, 0, index)?
            }
            Verb::Delete(key) => {
                state.rows[key] = None;
                true
            }
            Verb::DeleteCas(key, wanted) => {
                let row = held(key, state);
                // As Consul's: what is not there need not be deleted.
                if row.is_some() && !self.is_at(row.as_ref(), wanted, doubt) {
                    return Some(false);
                }
                state.rows[key] = None;
                true
            }
            Verb::DeleteTree(ref keys) => {
                for key in keys {
                    state.rows[*key] = None;
                }
                true
            }
            Verb::Acquire(key, value, session) => {
                if state.sessions[session as usize - 1] != Life::Alive {
                    return Some(false);
                }
                let locks = match held(key, state) {
                    None => 1,
                    Some(row) if row.session == session => row.lock_index,
                    Some(row) if row.session == 0 => row.lock_index + 1,
                    Some(_) => return Some(false),
                };
                self.write(state, last, key, value, session, locks, index)?
            }
            Verb::Release(key, value, session) => match held(key, state) {
                Some(row) if row.session == session => {
                    self.write(state, last, key, value, 0, row.lock_index, index)?
                }
                _ => return Some(false),
            },
        };
        Some(done)
    }

    /// Whether a row has an index. `doubt` is the answer where that cannot be known.
    fn is_at(&self, row: Option<&Held>, wanted: u64, doubt: bool) -> bool {
        match row {
            None => wanted == 0,
            Some(_) if wanted == 0 => false,
            Some(row) if row.modify != 0 => row.modify == wanted,
            // Somebody was shown the index with another row, or this one's would be known.
            Some(_) if self.known.indexes.contains(&wanted) => false,
            Some(_) => doubt,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn write(
        &self,
        state: &mut State,
        last: u64,
        key: usize,
        value: u32,
        session: u32,
        lock_index: u64,
        index: u64,
    ) -> Option<bool> {
        let modify = self.index_of((key, value, session), index, last)?;
        let told = self.known.create.get(&(key, value, session)).copied();
        let create = match (state.rows[key].as_ref(), told) {
            (None, Some(told)) if modify != 0 && modify != told => return None,
            (None, _) => modify,
            (Some(row), Some(told)) if row.create != 0 && row.create != told => return None,
            (Some(row), told) => told.unwrap_or(row.create),
        };
        state.rows[key] = Some(Held {
            value,
            session,
            lock_index,
            modify,
            create,
        });
        state.last = state.last.max(modify);
        Some(true)
    }

    fn destroy(&self, state: &mut State, session: u32, index: u64) -> bool {
        let last = state.last;
        state.sessions[session as usize - 1] = Life::Dead;
        for (key, place) in state.rows.iter_mut().enumerate() {
            let Some(row) = place.as_mut().filter(|row| row.session == session) else {
                continue;
            };
            if self.behavior == Behavior::Delete {
                *place = None;
                continue;
            }
            row.session = 0;
            let Some(modify) = self.index_of((key, row.value, 0), index, last) else {
                return false;
            };
            row.modify = modify;
            state.last = state.last.max(modify);
        }
        true
    }

    /// The index of a change that leaves a key like this, 0 if the history does not tell; `None` if
    /// what it tells cannot be behind `last`.
    fn index_of(&self, version: Version, index: u64, last: u64) -> Option<u64> {
        let modify = match (index, self.known.modify.get(&version).copied()) {
            (0, told) => told.unwrap_or(0),
            (index, Some(told)) if told != index => return None,
            (index, _) => index,
        };
        (modify == 0 || modify > last).then_some(modify)
    }
}

fn begin(state: &mut State, session: u32) -> bool {
    let life = &mut state.sessions[session as usize - 1];
    let unborn = *life == Life::Unborn;
    *life = Life::Alive;
    unborn
}

/// The row that a transaction answers a step with.
fn row_after(state: &State, step: &Verb) -> Option<Held> {
    match *step {
        Verb::Get(key)
        | Verb::Set(key, _)
        | Verb::Cas(key, ..)
        | Verb::Acquire(key, ..)
        | Verb::Release(key, ..) => state.rows[key].clone(),
        Verb::Delete(_) | Verb::DeleteCas(..) | Verb::DeleteTree(_) => None,
    }
}

/// Whether a row that was seen is the one that is there.
fn shows(seen: Option<&Seen>, held: Option<&Held>) -> bool {
    let (seen, held) = match (seen, held) {
        (None, None) => return true,
        (Some(seen), Some(held)) => (seen, held),
        _ => return false,
    };
    let same = |said: u64, known: u64| known == 0 || said == known;
    seen.value.is_none_or(|value| value == held.value)
        && seen.session == held.session
        && seen.lock_index == held.lock_index
        && same(seen.modify, held.modify)
        && same(seen.create, held.create)
}

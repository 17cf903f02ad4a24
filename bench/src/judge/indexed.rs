//! Is a history possible, judged by the places in the log that answers carry?
//!
//! Every change has an index, the place in the log where it was decided, and a store that is
//! linearizable does its operations in that order. So there is no search: changes are put in the
//! order of their indexes and carried out on a plain [`Model`], which says what each of them, and
//! each read, should have been answered. Three passes, all of them linear but for sorting:
//!
//! 1. *Places.* The answer says its index; or a read showed the value that the write wrote, and with
//!    it the index; or the caller read the log ([`Place`]).
//! 2. *Replay.* In the order of indexes on the model: was the condition true that was answered as
//!    true? Each key's versions are noted.
//! 3. *Time.* What was answered before something else was called comes before it in the log. A read
//!    stands at some index at which the key was as it was read; the least that time allows for is
//!    taken, which leaves the most room to all others.
//!
//! What has no place (an acknowledged write whose index nobody said and whose value nobody saw, or
//! one of which nobody knows what came of it) clouds the keys that it may have touched: of those,
//! only what is certain in any case is judged. The simulator knows all places, so nothing is
//! clouded there.

mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use model::Model;
use model::Stepped;

use super::{Answer, Call, History, Operation, Row, Step};

/// Where an operation was decided, by the word of somebody who read the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nobody knows.
    #[default]
    Unknown,
    /// Nowhere: it is not in the log.
    Never,
    /// At this index.
    At(u64),
}

/// Why a history is impossible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("operation {operation}: {what}")]
pub struct Impossible {
    /// Its number in the history.
    pub operation: usize,
    /// What cannot be.
    pub what: String,
}

/// What a history that is possible came to.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// The state at its end; certain only if nothing is clouded.
    pub model: Model,
    /// Operations whose answers were held against the model, or against time.
    pub judged: usize,
    /// Keys of which not everything is certain.
    pub clouded: usize,
}

/// A key from some index on.
#[derive(Clone, Debug)]
struct Version {
    index: u64,
    /// `None`: it does not exist.
    row: Option<Row>,
}

struct Judge<'h> {
    operations: &'h [Operation],
    /// Where each operation was decided; 0 for unknown or nowhere.
    at: Vec<u64>,
    never: Vec<bool>,
    clouded: BTreeSet<&'h str>,
    /// Sessions of which it is not certain when they lived.
    unsure_sessions: BTreeSet<&'h str>,
    model: Model,
    versions: HashMap<&'h str, Vec<Version>>,
    /// Indexes at which any key changed.
    changes: Vec<u64>,
    /// Whether every change has its place.
    complete: bool,
    judged: usize,
}

/// Judges a history. `places` is empty, or says of each operation where it was decided.
///
/// # Errors
/// The first thing that cannot be.
pub fn judge(history: &History, places: &[Place]) -> Result<Judged, Impossible> {
    let operations = &history.operations;
    let mut judge = Judge {
        operations,
        at: vec![0; operations.len()],
        never: vec![false; operations.len()],
        clouded: BTreeSet::new(),
        unsure_sessions: BTreeSet::new(),
        model: Model::default(),
        versions: HashMap::new(),
        changes: Vec::new(),
        complete: true,
        judged: 0,
    };
    judge.place(places)?;
    judge.cloud();
    judge.replay()?;
    judge.keep_time()?;
    Ok(Judged {
        clouded: judge.clouded.len(),
        judged: judge.judged,
        model: judge.model,
    })
}

fn cannot<T>(operation: usize, what: impl Into<String>) -> Result<T, Impossible> {
    let what = what.into();
    Err(Impossible { operation, what })
}

fn changes_something(call: &Call) -> bool {
    !matches!(call, Call::Get { .. } | Call::GetStale { .. })
}

fn steps(call: &Call) -> &[Step] {
    match call {
        Call::Step(step) => std::slice::from_ref(step),
        Call::Txn(steps) => steps,
        _ => &[],
    }
}

/// Key and value that a step writes.
fn written(step: &Step) -> Option<(&str, &str)> {
    match step {
        Step::Set { key, value }
        | Step::Cas { key, value, .. }
        | Step::Acquire { key, value, .. }
        | Step::Release { key, value, .. } => Some((key, value)),
        _ => None,
    }
}

/// The row that an answer shows of a key, with its value.
fn shown(operation: &Operation) -> Vec<(&str, &Row)> {
    match (&operation.call, operation.answer.as_ref().map(|a| &a.1)) {
        (Call::Get { key } | Call::GetStale { key }, Some(Answer::Row(Some(row), _))) => {
            vec![(key, row)]
        }
        (Call::Txn(steps), Some(Answer::Txn { rows, .. })) => {
            let pairs = steps.iter().zip(rows);
            pairs
                .filter_map(|(step, row)| match (step, row) {
                    (Step::Get { key }, Some(row)) => Some((key.as_str(), row)),
                    _ => None,
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

impl<'h> Judge<'h> {
    /// Finds out where each change was decided.
    fn place(&mut self, places: &[Place]) -> Result<(), Impossible> {
        let mut writers: HashMap<(&str, &str), usize> = HashMap::new();
        for (no, operation) in self.operations.iter().enumerate() {
            for (key, value) in steps(&operation.call).iter().filter_map(written) {
                writers.insert((key, value), no);
            }
            let said = match operation.answer.as_ref().map(|answer| &answer.1) {
                Some(Answer::Refused) => {
                    self.never[no] = true;
                    0
                }
                Some(
                    Answer::Done { index, .. }
                    | Answer::Txn { index, .. }
                    | Answer::Session { index, .. },
                ) => *index,
                _ => 0,
            };
            match places.get(no).copied().unwrap_or_default() {
                Place::At(index) if self.never[no] => {
                    return cannot(no, format!("it was refused, and is in the log at {index}"));
                }
                Place::At(index) if said != 0 && said != index => {
                    return cannot(no, format!("decided at {index}, and answered with {said}"));
                }
                Place::At(index) => self.at[no] = index,
                Place::Never if said != 0 => {
                    return cannot(no, format!("answered with {said}, and not in the log"));
                }
                Place::Never => self.never[no] = changes_something(&operation.call),
                Place::Unknown => self.at[no] = said,
            }
        }
        for (no, operation) in self.operations.iter().enumerate() {
            for (key, row) in shown(operation) {
                self.place_by_value(no, key, row, &writers)?;
            }
        }
        self.no_two_at_one_place()
    }

    /// A value that was read names its write, and the row the place of it: unless a lock that was
    /// released has changed the row since.
    fn place_by_value(
        &mut self,
        no: usize,
        key: &'h str,
        row: &Row,
        writers: &HashMap<(&str, &str), usize>,
    ) -> Result<(), Impossible> {
        let Some(&writer) = writers.get(&(key, row.value.as_str())) else {
            return cannot(
                no,
                format!("{key}: nobody wrote the value {:.40}", row.value),
            );
        };
        if self.never[writer] {
            return cannot(
                no,
                format!("{key}: the value of operation {writer}, which never happened"),
            );
        }
        let returned = self.operations[no].answer.as_ref().map_or(0, |a| a.0);
        if self.operations[writer].called_ns > returned {
            return cannot(
                no,
                format!("{key}: the value of operation {writer}, which was not called yet"),
            );
        }
        if row.modify_index < self.at[writer] {
            return cannot(
                no,
                format!(
                    "{key}: read at index {}, and operation {writer} wrote it at {}",
                    row.modify_index, self.at[writer]
                ),
            );
        }
        // A row that is not held may have been let go of by the end of a session.
        let certain = !row.session.is_empty() || row.lock_index == 0;
        if self.at[writer] == 0 && certain {
            self.at[writer] = row.modify_index;
        }
        Ok(())
    }

    fn no_two_at_one_place(&self) -> Result<(), Impossible> {
        let mut taken: HashMap<u64, usize> = HashMap::new();
        for (no, at) in self.at.iter().enumerate().filter(|(_, at)| **at != 0) {
            if let Some(other) = taken.insert(*at, no) {
                return cannot(no, format!("decided at {at}, as operation {other} was"));
            }
        }
        Ok(())
    }

    /// Whether an operation may have changed something without anybody knowing when.
    fn is_lost(&self, no: usize) -> bool {
        let operation = &self.operations[no];
        let answer = operation.answer.as_ref().map(|answer| &answer.1);
        let failed = matches!(
            answer,
            Some(Answer::Done { ok: false, .. } | Answer::RolledBack { .. })
        );
        changes_something(&operation.call) && self.at[no] == 0 && !self.never[no] && !failed
    }

    /// Notes what is not certain.
    fn cloud(&mut self) {
        let lost: Vec<usize> = (0..self.operations.len())
            .filter(|no| self.is_lost(*no))
            .collect();
        self.complete = lost.is_empty();
        if self.complete {
            return;
        }
        let mut prefixes: Vec<&str> = Vec::new();
        for no in &lost {
            let operation = &self.operations[*no];
            match &operation.call {
                Call::DestroySession { session } => {
                    self.unsure_sessions.insert(session);
                }
                Call::CreateSession => {
                    if let Some((_, Answer::Session { session, .. })) = &operation.answer {
                        self.unsure_sessions.insert(session);
                    }
                }
                call => {
                    for step in steps(call) {
                        match step {
                            Step::DeleteTree { prefix } => prefixes.push(prefix),
                            step => self.clouded.extend(key_of(step)),
                        }
                    }
                }
            }
        }
        // What an unsure session may have held is unsure, and what lies under an unsure prefix.
        for operation in self.operations {
            for step in steps(&operation.call) {
                let Some(key) = key_of(step) else { continue };
                let held = matches!(step, Step::Acquire { session, .. } if self.unsure_sessions.contains(session.as_str()));
                if held || prefixes.iter().any(|prefix| key.starts_with(prefix)) {
                    self.clouded.insert(key);
                }
            }
        }
        // A transaction that may or may not have met its conditions clouds all that it touches.
        loop {
            let before = self.clouded.len();
            for operation in self.operations {
                let Call::Txn(steps) = &operation.call else {
                    continue;
                };
                let unsure = steps
                    .iter()
                    .filter_map(key_of)
                    .any(|key| self.clouded.contains(key));
                if unsure && operation.answer.is_none() {
                    self.clouded.extend(steps.iter().filter_map(key_of));
                }
            }
            if self.clouded.len() == before {
                return;
            }
        }
    }

    /// Carries out the changes in the order of their places.
    fn replay(&mut self) -> Result<(), Impossible> {
        let mut order: Vec<usize> = (0..self.operations.len())
            .filter(|no| self.at[*no] != 0)
            .collect();
        order.sort_unstable_by_key(|no| self.at[*no]);
        for no in order {
            let operation = &self.operations[no];
            let answer = operation.answer.as_ref().map(|answer| &answer.1);
            let index = self.at[no];
            match &operation.call {
                Call::Step(step) => {
                    let done = self.model.step(index, step);
                    self.check_step(no, step, &done, answer)?;
                    self.note(index, &done.changed);
                }
                Call::Txn(steps) => self.replay_txn(no, index, steps, answer)?,
                Call::CreateSession => {
                    if let Some(Answer::Session { session, .. }) = answer {
                        self.model.sessions.insert(session.clone());
                    }
                }
                Call::DestroySession { session } => {
                    let released = self.model.destroy(index, session);
                    self.note(index, &released);
                }
                Call::Get { .. } | Call::GetStale { .. } => {}
            }
        }
        Ok(())
    }

    fn is_certain(&self, step: &Step) -> bool {
        let session = match step {
            Step::Acquire { session, .. } | Step::Release { session, .. } => session,
            _ => "",
        };
        let key = key_of(step).unwrap_or_default();
        !self.clouded.contains(key) && !self.unsure_sessions.contains(session)
    }

    fn check_step(
        &mut self,
        no: usize,
        step: &Step,
        done: &Stepped,
        answer: Option<&Answer>,
    ) -> Result<(), Impossible> {
        let Some(Answer::Done { ok, .. }) = answer else {
            return Ok(());
        };
        if *ok != done.ok && self.is_certain(step) {
            return cannot(
                no,
                format!(
                    "{step:?} at {} is answered with {ok}, and should be with {}; the key was {:?}",
                    self.at[no],
                    done.ok,
                    key_of(step).and_then(|key| self.before(key, self.at[no])),
                ),
            );
        }
        // In doubt, what was answered is what happened.
        if *ok && !done.ok {
            self.force(self.at[no], step);
        }
        self.judged += 1;
        Ok(())
    }

    /// Makes the model follow an answer that cannot be judged.
    fn force(&mut self, index: u64, step: &Step) {
        if let Some((key, value)) = written(step) {
            let set = Step::Set {
                key: key.to_owned(),
                value: value.to_owned(),
            };
            let done = self.model.step(index, &set);
            self.note(index, &done.changed);
        } else if let Some(key) = key_of(step) {
            let done = self.model.step(
                index,
                &Step::Delete {
                    key: key.to_owned(),
                },
            );
            self.note(index, &done.changed);
        }
    }

    fn replay_txn(
        &mut self,
        no: usize,
        index: u64,
        steps: &'h [Step],
        answer: Option<&Answer>,
    ) -> Result<(), Impossible> {
        let certain = steps.iter().all(|step| self.is_certain(step));
        let done = self.model.txn(index, steps);
        if certain {
            self.judged += 1;
            match (answer, &done) {
                (None, _) => {}
                (Some(Answer::Txn { rows, .. }), Ok(done)) => {
                    check_rows(no, steps, rows, done)?;
                }
                (Some(Answer::RolledBack { failed }), Err(should)) if failed == should => {}
                (Some(answer), done) => {
                    return cannot(
                        no,
                        format!(
                            "{steps:?} at {index} is answered with {answer:?}, and should be with {done:?}"
                        ),
                    );
                }
            }
        }
        match (done, answer) {
            (Ok(done), _) => {
                for done in done {
                    self.note(index, &done.changed);
                }
            }
            (Err(_), Some(Answer::Txn { .. })) => {
                for step in steps {
                    self.force(index, step);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes new versions of keys.
    fn note(&mut self, index: u64, keys: &[String]) {
        let operations = self.operations;
        for key in keys {
            let row = self.model.rows.get(key).cloned();
            let known = self
                .versions
                .get_key_value(key.as_str())
                .map(|(key, _)| *key);
            let Some(key) = known.or_else(|| name_in(operations, key)) else {
                continue;
            };
            let versions = self.versions.entry(key).or_default();
            // A transaction may change a key more than once; only the last counts.
            versions.retain(|version| version.index != index);
            versions.push(Version { index, row });
        }
        if !keys.is_empty() && self.changes.last() != Some(&index) {
            self.changes.push(index);
        }
    }

    fn before(&self, key: &str, index: u64) -> Option<&Version> {
        let versions = self.versions.get(key)?;
        let at = versions.partition_point(|version| version.index < index);
        versions.get(at.checked_sub(1)?)
    }

    /// Holds places against time.
    fn keep_time(&mut self) -> Result<(), Impossible> {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (no, operation) in self.operations.iter().enumerate() {
            // A call at the moment of an answer does not come after it.
            moments.push((operation.called_ns, false, no));
            if let Some((returned, _)) = &operation.answer {
                moments.push((*returned, true, no));
            }
        }
        moments.sort_unstable();
        // The least place of whatever was answered so far, and of that when each was called.
        let mut passed = 0;
        let mut floor = vec![0; self.operations.len()];
        for (_, returns, no) in moments {
            if !returns {
                floor[no] = passed;
                let at = self.at[no];
                if at != 0 && at <= passed {
                    return cannot(
                        no,
                        format!("decided at {at}, though {passed} was seen before it was called"),
                    );
                }
                continue;
            }
            passed = passed.max(self.stands_at(no, floor[no])?);
        }
        Ok(())
    }

    /// The least index that an answered operation can stand at.
    fn stands_at(&mut self, no: usize, floor: u64) -> Result<u64, Impossible> {
        let operation = &self.operations[no];
        let answer = operation.answer.as_ref().map(|answer| &answer.1);
        let (key, stale) = match &operation.call {
            Call::Get { key } => (key.as_str(), false),
            Call::GetStale { key } => (key.as_str(), true),
            _ => return Ok(self.at[no].max(floor)),
        };
        let Some(Answer::Row(row, said)) = answer else {
            return Ok(floor);
        };
        self.judged += 1;
        let least = match row {
            Some(row) => row.modify_index,
            None => *said,
        };
        if row.as_ref().is_some_and(|row| row.modify_index != *said) {
            return cannot(no, format!("{key}: answered at {said} with {row:?}"));
        }
        let from = if stale { least } else { least.max(floor) };
        let found = self.find(no, key, row.as_ref(), least, from)?;
        match stale {
            // It says nothing about what was known to others.
            true => Ok(floor),
            false => Ok(found),
        }
    }

    /// The least index from `from` on at which the key was as it was read.
    fn find(
        &self,
        no: usize,
        key: &str,
        row: Option<&Row>,
        least: u64,
        from: u64,
    ) -> Result<u64, Impossible> {
        let clouded = self.clouded.contains(key);
        let empty = Vec::new();
        let versions = self.versions.get(key).unwrap_or(&empty);
        let behind = versions.partition_point(|version| version.index <= from);
        let present = behind.checked_sub(1).map(|at| &versions[at]);
        let held = present.and_then(|version| version.row.as_ref());
        if clouded {
            // What is certain: a known change behind what was read has taken it away.
            let stands = present.is_none_or(|version| version.index <= least) || row.is_none();
            return match stands {
                true => Ok(from),
                false => cannot(
                    no,
                    format!("{key}: {row:?} was read, though {present:?} was seen before"),
                ),
            };
        }
        if held != row {
            return cannot(
                no,
                format!("{key}: {row:?} was read, and at {from} it is {present:?}"),
            );
        }
        // The index of a missing key is that of the last change of any key.
        if row.is_none() && self.complete {
            let changed = self.changes.partition_point(|at| *at <= from);
            let last = changed.checked_sub(1).map_or(1, |at| self.changes[at]);
            if last != least {
                return cannot(
                    no,
                    format!("{key}: missing at {least}, and at {from} the last change was {last}"),
                );
            }
        }
        Ok(from)
    }
}

/// Holds the rows of a transaction against what they should be. A row that was written is answered
/// without its value.
fn check_rows(
    no: usize,
    steps: &[Step],
    rows: &[Option<Row>],
    done: &[Stepped],
) -> Result<(), Impossible> {
    for ((step, row), done) in steps.iter().zip(rows).zip(done) {
        let mut should = done.row.clone();
        if let (Some(should), Some(row), false) =
            (&mut should, row, matches!(step, Step::Get { .. }))
            && row.value.is_empty()
        {
            should.value.clear();
        }
        if *row != should {
            return cannot(
                no,
                format!("{step:?} is answered with {row:?}, and should be with {should:?}"),
            );
        }
    }
    Ok(())
}

fn key_of(step: &Step) -> Option<&str> {
    match step {
        Step::Get { key } | Step::Delete { key } | Step::DeleteCas { key, .. } => Some(key),
        Step::DeleteTree { .. } => None,
        step => written(step).map(|(key, _)| key),
    }
}

/// A key as the history names it.
fn name_in<'h>(operations: &'h [Operation], key: &str) -> Option<&'h str> {
    let named = operations
        .iter()
        .flat_map(|operation| steps(&operation.call));
    named.filter_map(key_of).find(|named| *named == key)
}

/// Which rows the model and a store disagree on, if any.
pub fn difference(model: &Model, rows: &BTreeMap<String, Row>) -> Option<String> {
    let keys: BTreeSet<&String> = model.rows.keys().chain(rows.keys()).collect();
    keys.into_iter().find_map(|key| {
        let (should, is) = (model.rows.get(key), rows.get(key));
        (should != is).then(|| format!("{key}: should be {should:?}, is {is:?}"))
    })
}

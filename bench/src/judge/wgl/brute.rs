//! Every order of a small history, tried one after the other: what the search must agree with.
//!
//! Written to be obviously right and nothing else. Indexes are not looked up beforehand: each
//! placed operation is an unknown number, every answer that names one is an equation, and an order
//! explains a history if the equations have a solution that grows along the order.

use std::collections::BTreeMap;

use super::super::{Answer, Call, History, Operation, Row, Step};

#[derive(Clone, Debug)]
struct Kept {
    value: String,
    session: String,
    lock_index: u64,
    /// Which placed operation changed it last.
    changed_by: usize,
    /// Which life of the key this is.
    life: usize,
}

#[derive(Clone, Debug, Default)]
struct World {
    rows: BTreeMap<String, Kept>,
    sessions: BTreeMap<String, bool>,
    placed: usize,
    /// Index of a placed operation, as some answer named it.
    named: Vec<(usize, u64)>,
    /// The index that a life of a key began at, as some answer named it, and who began it.
    made: Vec<(usize, u64)>,
    makers: Vec<usize>,
    /// What an index is known not to be.
    unlike: Vec<(usize, u64)>,
}

impl World {
    fn agrees(&mut self, row: Option<&Row>, key: &str) -> bool {
        let kept = self.rows.get(key).cloned();
        match (row, kept) {
            (None, None) => true,
            (Some(row), Some(kept)) => {
                self.named.push((kept.changed_by, row.modify_index));
                self.made.push((kept.life, row.create_index));
                row.value == kept.value
                    && row.session == kept.session
                    && row.lock_index == kept.lock_index
            }
            _ => false,
        }
    }

    fn write(&mut self, key: &str, value: &str, session: String, lock_index: u64) {
        let life = match self.rows.get(key) {
            Some(row) => row.life,
            None => {
                self.makers.push(self.placed);
                self.makers.len() - 1
            }
        };
        let row = Kept {
            value: value.into(),
            session,
            lock_index,
            changed_by: self.placed,
            life,
        };
        self.rows.insert(key.into(), row);
    }

    /// Whether the row has this index: asked of the answer, and noted.
    fn is_at(&mut self, key: &str, wanted: u64, answered: bool) -> bool {
        let Some(changed_by) = self.rows.get(key).map(|row| row.changed_by) else {
            return wanted == 0;
        };
        if wanted == 0 {
            return false;
        }
        match answered {
            true => self.named.push((changed_by, wanted)),
            false => self.unlike.push((changed_by, wanted)),
        }
        answered
    }

    fn step(&mut self, step: &Step, answered: bool) -> bool {
        match step {
            Step::Get { key } => self.rows.contains_key(key),
            Step::Set { key, value } => {
                let session = self.holder(key);
                self.write(key, value, session, 0);
                true
            }
            Step::Cas { key, value, index } => {
                let done = self.is_at(key, *index, answered);
                if done {
                    let session = self.holder(key);
                    self.write(key, value, session, 0);
                }
                done
            }
            Step::Delete { key } => {
                self.rows.remove(key);
                true
            }
            Step::DeleteCas { key, index } => {
                if !self.rows.contains_key(key) {
                    return true;
                }
                let done = self.is_at(key, *index, answered);
                if done {
                    self.rows.remove(key);
                }
                done
            }
            Step::DeleteTree { prefix } => {
                self.rows.retain(|key, _| !key.starts_with(prefix));
                true
            }
            Step::Acquire {
                key,
                value,
                session,
            } => {
                if self.sessions.get(session) != Some(&true) {
                    return false;
                }
                let locks = match self.rows.get(key) {
                    None => 1,
                    Some(row) if row.session == *session => row.lock_index,
                    Some(row) if row.session.is_empty() => row.lock_index + 1,
                    Some(_) => return false,
                };
                self.write(key, value, session.clone(), locks);
                true
            }
            Step::Release {
                key,
                value,
                session,
            } => {
                let locks = match self.rows.get(key) {
                    Some(row) if row.session == *session => row.lock_index,
                    _ => return false,
                };
                self.write(key, value, String::new(), locks);
                true
            }
        }
    }

    fn holder(&self, key: &str) -> String {
        self.rows
            .get(key)
            .map_or(String::new(), |row| row.session.clone())
    }

    /// Places one operation; the world after it, if the answer could have been given here.
    fn with(&self, operation: &Operation) -> Option<World> {
        let mut world = self.clone();
        world.placed += 1;
        let answer = operation.answer.as_ref().map(|(_, answer)| answer);
        let fits = match (&operation.call, answer) {
            (Call::Get { key } | Call::GetStale { key }, Some(Answer::Row(row, _))) => {
                world.agrees(row.as_ref(), key)
            }
            (Call::Step(step), answer) => {
                let said = match answer {
                    Some(Answer::Done { ok, index }) => {
                        world.note_index(*index);
                        *ok
                    }
                    None => true,
                    _ => return None,
                };
                let mut after = world.clone();
                let done = after.step(step, said);
                if done {
                    world = after;
                } else {
                    world.unlike = after.unlike;
                }
                done == said
            }
            (Call::Txn(steps), answer) => {
                let mut failed = Vec::new();
                let mut fits = true;
                let mut after = world.clone();
                for (at, step) in steps.iter().enumerate() {
                    let answered = !matches!(answer, Some(Answer::RolledBack { failed }) if failed.contains(&at));
                    if !after.step(step, answered) {
                        failed.push(at);
                    }
                    if let Some(Answer::Txn { rows, .. }) = answer {
                        fits &= match step {
                            Step::Delete { .. }
                            | Step::DeleteCas { .. }
                            | Step::DeleteTree { .. } => rows[at].is_none(),
                            Step::Get { key }
                            | Step::Set { key, .. }
                            | Step::Cas { key, .. }
                            | Step::Acquire { key, .. }
                            | Step::Release { key, .. } => after.agrees(rows[at].as_ref(), key),
                        };
                    }
                }
                match answer {
                    Some(Answer::RolledBack { failed: said }) => {
                        // What held, and what did not, was about rows of before, or of no matter.
                        let before = |(placed, _): &(usize, u64)| *placed < world.placed;
                        world.unlike = after.unlike.into_iter().filter(before).collect();
                        world.named = after.named.into_iter().filter(before).collect();
                        fits = *said == failed && !failed.is_empty();
                    }
                    Some(Answer::Txn { index, .. }) => {
                        after.note_index(*index);
                        world = after;
                        fits &= failed.is_empty();
                    }
                    None => {
                        world = after;
                        fits = failed.is_empty();
                    }
                    _ => return None,
                }
                fits
            }
            (Call::CreateSession, Some(Answer::Session { session, .. })) => {
                world.sessions.insert(session.clone(), true).is_none()
            }
            (Call::DestroySession { session }, _) => {
                world.sessions.insert(session.clone(), false);
                let placed = world.placed;
                for row in world
                    .rows
                    .values_mut()
                    .filter(|row| row.session == *session)
                {
                    row.session.clear();
                    row.changed_by = placed;
                }
                true
            }
            _ => return None,
        };
        fits.then_some(world)
    }

    fn note_index(&mut self, index: u64) {
        if index != 0 {
            self.named.push((self.placed, index));
        }
    }

    /// Whether the equations have a solution.
    fn is_solvable(&self) -> bool {
        let mut indexes: BTreeMap<usize, u64> = BTreeMap::new();
        for (placed, index) in &self.named {
            if *indexes.entry(*placed).or_insert(*index) != *index {
                return false;
            }
        }
        let mut made: BTreeMap<usize, u64> = BTreeMap::new();
        for (life, index) in &self.made {
            let known = indexes.get(&self.makers[*life]).copied().unwrap_or(*index);
            if known != *index || *made.entry(*life).or_insert(*index) != *index {
                return false;
            }
        }
        let grows = indexes.values().collect::<Vec<_>>();
        grows.windows(2).all(|pair| pair[0] < pair[1])
            && self
                .unlike
                .iter()
                .all(|(placed, index)| indexes.get(placed) != Some(index))
    }
}

/// Whether some order explains the history.
pub fn is_linearizable(history: &History) -> bool {
    let operations: Vec<&Operation> = history
        .operations
        .iter()
        .filter(|operation| !matches!(operation.answer, Some((_, Answer::Refused))))
        .filter(|operation| {
            let asks = matches!(
                operation.call,
                Call::Get { .. } | Call::GetStale { .. } | Call::CreateSession
            );
            operation.answer.is_some() || !asks
        })
        .collect();
    extend(&World::default(), &operations)
}

fn extend(world: &World, left: &[&Operation]) -> bool {
    if left.iter().all(|operation| operation.answer.is_none()) && world.is_solvable() {
        return true;
    }
    let first_return = left
        .iter()
        .filter_map(|operation| operation.answer.as_ref().map(|(at, _)| *at))
        .min();
    (0..left.len()).any(|at| {
        let stale = matches!(left[at].call, Call::GetStale { .. });
        let early = stale || first_return.is_none_or(|first| left[at].called_ns <= first);
        let rest: Vec<&Operation> = [&left[..at], &left[at + 1..]].concat();
        early
            && world
                .with(left[at])
                .is_some_and(|world| extend(&world, &rest))
    })
}

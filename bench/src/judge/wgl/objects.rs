//! Which keys have to be judged together, and which can be judged apart?
//!
//! Linearizability is local (Herlihy and Wing): a history is linearizable if it is so for each
//! object. Objects are as small as the operations allow: a key is one of its own, unless a
//! transaction, a recursive delete or a session joins it with others. Joining is by a union-find
//! over keys and sessions.
//!
//! Invariant: every operation of the history is in exactly one object, or said nothing and asked
//! for nothing that could have had an effect.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::{Answer, Call, History, Row, Step};
use super::model::{Act, Known, Life, Op, Said, Seen, State, UNSEEN, Verb, Version};

/// Some keys, everything that was done with them, and what is known of their indexes.
#[derive(Debug)]
pub struct Object {
    /// Its keys' names.
    pub keys: Vec<String>,
    /// Its operations, in the order of their calls.
    pub ops: Vec<Op>,
    /// Before the first of them.
    pub start: State,
    /// About indexes.
    pub known: Known,
}

/// Groups that grow together.
#[derive(Default)]
struct Groups {
    parent: Vec<usize>,
    places: HashMap<Name, usize>,
}

/// A key or a session.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Name {
    Key(String),
    Session(String),
}

impl Groups {
    fn place(&mut self, name: Name) -> usize {
        let next = self.parent.len();
        let place = *self.places.entry(name).or_insert(next);
        if place == next {
            self.parent.push(next);
        }
        place
    }

    fn root(&mut self, mut place: usize) -> usize {
        while self.parent[place] != place {
            self.parent[place] = self.parent[self.parent[place]];
            place = self.parent[place];
        }
        place
    }

    fn join(&mut self, names: Vec<Name>) {
        let places: Vec<usize> = names.into_iter().map(|name| self.place(name)).collect();
        for pair in places.windows(2) {
            let (one, other) = (self.root(pair[0]), self.root(pair[1]));
            self.parent[one] = other;
        }
    }
}

/// Cuts a history into objects.
///
/// # Errors
///
/// A sentence, if the history itself breaks its rules: two writes of one value, a row with two
/// indexes, an index that two rows claim.
pub fn split(history: &History) -> Result<Vec<Object>, String> {
    let all_keys = all_keys(history);
    let mut groups = Groups::default();
    for operation in &history.operations {
        groups.join(names(&operation.call, &operation.answer, &all_keys));
    }
    let mut builders: BTreeMap<usize, Builder> = BTreeMap::new();
    let named: Vec<(Name, usize)> = {
        let mut named: Vec<_> = groups.places.clone().into_iter().collect();
        named.sort();
        named
    };
    for (name, place) in named {
        let builder = builders.entry(groups.root(place)).or_default();
        builder.name(name);
    }
    for (source, operation) in history.operations.iter().enumerate() {
        let Some(name) = names(&operation.call, &operation.answer, &all_keys).pop() else {
            continue;
        };
        let place = groups.place(name);
        let builder = builders
            .get_mut(&groups.root(place))
            .expect("every name has a group");
        builder.add(source, operation)?;
    }
    Ok(builders.into_values().map(Builder::build).collect())
}

fn all_keys(history: &History) -> Vec<String> {
    let mut keys = HashSet::new();
    for operation in &history.operations {
        match &operation.call {
            Call::Get { key } | Call::GetStale { key } => {
                keys.insert(key.clone());
            }
            Call::Step(step) => keys.extend(key_of(step).map(str::to_owned)),
            Call::Txn(steps) => {
                keys.extend(
                    steps
                        .iter()
                        .filter_map(|step| key_of(step).map(str::to_owned)),
                );
            }
            Call::CreateSession | Call::DestroySession { .. } => {}
        }
    }
    let mut keys: Vec<String> = keys.into_iter().collect();
    keys.sort();
    keys
}

fn key_of(step: &Step) -> Option<&str> {
    match step {
        Step::Set { key, .. }
        | Step::Cas { key, .. }
        | Step::Delete { key }
        | Step::DeleteCas { key, .. }
        | Step::Acquire { key, .. }
        | Step::Release { key, .. }
        | Step::Get { key } => Some(key),
        Step::DeleteTree { .. } => None,
    }
}

/// Everything that a call touches. Calls without names have no effect that could be judged.
fn names(call: &Call, answer: &Option<(u64, Answer)>, all_keys: &[String]) -> Vec<Name> {
    let mut names = Vec::new();
    let mut of_step = |step: &Step| {
        names.extend(key_of(step).map(|key| Name::Key(key.to_owned())));
        match step {
            Step::DeleteTree { prefix } => {
                let below = all_keys.iter().filter(|key| key.starts_with(prefix));
                names.extend(below.map(|key| Name::Key(key.clone())));
            }
            Step::Acquire { session, .. } | Step::Release { session, .. } => {
                names.push(Name::Session(session.clone()));
            }
            _ => {}
        }
    };
    match (call, answer) {
        (Call::Get { key } | Call::GetStale { key }, _) => of_step(&Step::Get { key: key.clone() }),
        (Call::Step(step), _) => of_step(step),
        (Call::Txn(steps), _) => steps.iter().for_each(of_step),
        (Call::CreateSession, Some((_, Answer::Session { session, .. }))) => {
            names.push(Name::Session(session.clone()));
        }
        (Call::CreateSession, _) => {}
        (Call::DestroySession { session }, _) => names.push(Name::Session(session.clone())),
    }
    names
}

fn is_read(act: &Act) -> bool {
    match act {
        Act::Read(_) => true,
        Act::Txn(steps) => steps.iter().all(|step| matches!(step, Verb::Get(_))),
        _ => false,
    }
}

fn blur(verb: &mut Verb, seen: &HashSet<u32>) {
    match verb {
        Verb::Set(_, value)
        | Verb::Cas(_, value, _)
        | Verb::Acquire(_, value, _)
        | Verb::Release(_, value, _)
            if !seen.contains(value) =>
        {
            *value = UNSEEN;
        }
        _ => {}
    }
}

/// An object as it is put together.
#[derive(Default)]
struct Builder {
    keys: Vec<String>,
    key_places: HashMap<String, usize>,
    /// From number 1; 0 is nobody.
    sessions: HashMap<String, u32>,
    born: HashSet<u32>,
    values: HashMap<String, u32>,
    writers: HashMap<u32, usize>,
    /// Values that somebody saw.
    seen: HashSet<u32>,
    ops: Vec<Op>,
    known: Known,
}

impl Builder {
    fn name(&mut self, name: Name) {
        match name {
            Name::Key(key) => {
                self.key_places.insert(key.clone(), self.keys.len());
                self.keys.push(key);
            }
            Name::Session(session) => {
                let number = self.sessions.len() as u32 + 1;
                self.sessions.insert(session, number);
            }
        }
    }

    fn add(&mut self, source: usize, operation: &super::super::Operation) -> Result<(), String> {
        let (returned_ns, answer) = match &operation.answer {
            Some((_, Answer::Refused)) => return Ok(()),
            Some((at, answer)) => (Some(*at), Some(answer)),
            None => (None, None),
        };
        let (mut called_ns, mut index) = (operation.called_ns, 0);
        let act = match &operation.call {
            Call::Get { key } => Act::Read(self.key_places[key]),
            Call::GetStale { key } => {
                // What it tells of was true at some time, however long ago.
                called_ns = 0;
                Act::Read(self.key_places[key])
            }
            Call::Step(step) => Act::Step(self.verb(source, step)?),
            Call::Txn(steps) => {
                let verbs = steps.iter().map(|step| self.verb(source, step));
                Act::Txn(verbs.collect::<Result<_, _>>()?)
            }
            Call::CreateSession => match answer {
                Some(Answer::Session { session, .. }) => {
                    self.born.insert(self.sessions[session]);
                    Act::Create(self.sessions[session])
                }
                _ => return Ok(()),
            },
            Call::DestroySession { session } => Act::Destroy(self.sessions[session]),
        };
        let said = match answer {
            // A read that was not answered tells nothing and does nothing.
            None if is_read(&act) => return Ok(()),
            None => Said::Nothing,
            Some(Answer::Row(row, _)) => Said::Row(self.seen(&act, 0, row.as_ref())?),
            Some(Answer::Done { ok, index: at }) => {
                index = *at;
                match act {
                    // Of one that is dead already it is said as well.
                    Act::Destroy(_) => Said::Nothing,
                    _ => Said::Done(*ok),
                }
            }
            Some(Answer::Txn { rows, index: at }) => {
                index = *at;
                let seen = rows.iter().enumerate();
                let seen = seen.map(|(at, row)| self.seen(&act, at, row.as_ref()));
                Said::Rows(seen.collect::<Result<_, _>>()?)
            }
            Some(Answer::RolledBack { failed }) => Said::RolledBack(failed.clone()),
            Some(Answer::Session { index: at, .. }) => {
                index = *at;
                Said::Nothing
            }
            Some(Answer::Refused) => unreachable!("left out above"),
        };
        if is_read(&act) {
            // It has no place of its own in the log.
            index = 0;
        }
        self.known.indexes.insert(index);
        self.ops.push(Op {
            act,
            said,
            index,
            source,
            called_ns,
            returned_ns,
            twin: None,
        });
        Ok(())
    }

    fn verb(&mut self, source: usize, step: &Step) -> Result<Verb, String> {
        let key = key_of(step).map_or(0, |key| self.key_places[key]);
        Ok(match step {
            Step::Set { value, .. } => Verb::Set(key, self.written(source, value)?),
            Step::Cas { value, index, .. } => Verb::Cas(key, self.written(source, value)?, *index),
            Step::Delete { .. } => Verb::Delete(key),
            Step::DeleteCas { index, .. } => Verb::DeleteCas(key, *index),
            Step::DeleteTree { prefix } => {
                let below = self.keys.iter().enumerate();
                let below = below.filter(|(_, key)| key.starts_with(prefix));
                Verb::DeleteTree(below.map(|(place, _)| place).collect())
            }
            Step::Acquire { value, session, .. } => {
                Verb::Acquire(key, self.written(source, value)?, self.sessions[session])
            }
            Step::Release { value, session, .. } => {
                Verb::Release(key, self.written(source, value)?, self.sessions[session])
            }
            Step::Get { .. } => Verb::Get(key),
        })
    }

    /// The number of a value that an operation writes; no other may.
    fn written(&mut self, source: usize, value: &str) -> Result<u32, String> {
        let number = self.value(value);
        match self.writers.insert(number, source) {
            Some(other) => Err(format!(
                "operations {other} and {source} both write {value:?}: values must be unique"
            )),
            None => Ok(number),
        }
    }

    fn value(&mut self, value: &str) -> u32 {
        let next = self.values.len() as u32;
        *self.values.entry(value.to_owned()).or_insert(next)
    }

    /// A row as it was seen, whose index is noted for everybody.
    fn seen(&mut self, act: &Act, step: usize, row: Option<&Row>) -> Result<Option<Seen>, String> {
        let Some(row) = row else { return Ok(None) };
        let verb = match act {
            Act::Read(key) => &Verb::Get(*key),
            Act::Txn(steps) => steps
                .get(step)
                .ok_or("an answer with more rows than its transaction has steps")?,
            _ => return Err("a row in answer to a call that is not told any".into()),
        };
        let (key, written) = match *verb {
            Verb::Get(key) => (key, None),
            Verb::Set(key, value)
            | Verb::Cas(key, value, _)
            | Verb::Acquire(key, value, _)
            | Verb::Release(key, value, _) => (key, Some(value)),
            // The comparison will say that there should be none.
            Verb::Delete(key) | Verb::DeleteCas(key, _) => (key, None),
            Verb::DeleteTree(_) => return Err("a row in answer to a recursive delete".into()),
        };
        let session = match row.session.as_str() {
            "" => 0,
            // A holder that the history does not know of is nobody's session.
            id => self.sessions.get(id).copied().unwrap_or(u32::MAX),
        };
        // Consul leaves the values out that a transaction wrote.
        let value = match (row.value.is_empty(), written) {
            (true, Some(_)) => None,
            _ => Some(self.value(&row.value)),
        };
        if let Some(value) = value.or(written) {
            self.seen.insert(value);
            self.note((key, value, session), row)?;
        }
        self.known.indexes.insert(row.modify_index);
        Ok(Some(Seen {
            value,
            session,
            lock_index: row.lock_index,
            modify: row.modify_index,
            create: row.create_index,
        }))
    }

    fn note(&mut self, version: Version, row: &Row) -> Result<(), String> {
        let key = &self.keys[version.0];
        if row.create_index > row.modify_index {
            return Err(format!(
                "{key} was shown changed before it was made: {row:?}"
            ));
        }
        let told = self.known.create.insert(version, row.create_index);
        if let Some(other) = told.filter(|other| *other != row.create_index) {
            return Err(format!(
                "{key} was shown with the value {:?}, made at the indexes {other} and {}",
                row.value, row.create_index
            ));
        }
        match self.known.modify.insert(version, row.modify_index) {
            Some(other) if other != row.modify_index => Err(format!(
                "{key} was shown with the value {:?} and holder {:?} at the indexes {other} and {}",
                row.value, row.session, row.modify_index
            )),
            _ => Ok(()),
        }
    }

    /// What nobody saw, and nobody knows to have happened, is all the same: of several such
    /// operations the one that was called first does for all.
    fn find_twins(&mut self) {
        let mut latest: HashMap<Act, usize> = HashMap::new();
        for (at, op) in self.ops.iter_mut().enumerate() {
            if op.returned_ns.is_some() {
                continue;
            }
            match &mut op.act {
                Act::Step(verb) => blur(verb, &self.seen),
                Act::Txn(steps) => steps.iter_mut().for_each(|step| blur(step, &self.seen)),
                _ => {}
            }
            op.twin = latest.insert(op.act.clone(), at);
        }
    }

    fn build(mut self) -> Object {
        self.find_twins();
        let life = |number: u32| match self.born.contains(&number) {
            true => Life::Unborn,
            // Made before the history begins.
            false => Life::Alive,
        };
        let sessions = (1..=self.sessions.len() as u32).map(life).collect();
        Object {
            start: State {
                rows: vec![None; self.keys.len()],
                sessions,
                last: 0,
            },
            keys: self.keys,
            ops: self.ops,
            known: self.known,
        }
    }
}

//! What does a store do that does one thing at a time?
//!
//! Consul's KV rules as its documentation tells them, in the plainest form: a map of keys and a set
//! of sessions. It knows nothing of the engine.

use std::collections::{BTreeMap, BTreeSet};

use crate::judge::{Row, Step};

/// The state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Keys and what they hold.
    pub rows: BTreeMap<String, Row>,
    /// Sessions that live.
    pub sessions: BTreeSet<String>,
    /// Index of the last change of any key.
    pub changed: u64,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stepped {
    /// Whether its condition held.
    pub ok: bool,
    /// The key as it is afterwards, for the answer of a transaction; `None` for a delete.
    pub row: Option<Row>,
    /// Keys that were changed.
    pub changed: Vec<String>,
}

impl Stepped {
    fn no() -> Self {
        Self {
            ok: false,
            row: None,
            changed: Vec::new(),
        }
    }

    fn unchanged() -> Self {
        Self {
            ok: true,
            ..Self::no()
        }
    }
}

impl Model {
    /// Carries out one step at an index.
    pub fn step(&mut self, index: u64, step: &Step) -> Stepped {
        match step {
            Step::Set { key, value } => self.set(index, key, value),
            Step::Cas {
                key,
                value,
                index: wanted,
            } => {
                let held = self.rows.get(key).map_or(0, |row| row.modify_index);
                match held == *wanted {
                    true => self.set(index, key, value),
                    false => Stepped::no(),
                }
            }
            Step::Delete { key } => self.delete(index, key),
            Step::DeleteCas { key, index: wanted } => match self.rows.get(key) {
                Some(row) if row.modify_index != *wanted => Stepped::no(),
                _ => self.delete(index, key),
            },
            Step::DeleteTree { prefix } => {
                let under = self.rows.keys().filter(|key| key.starts_with(prefix));
                let gone: Vec<String> = under.cloned().collect();
                for key in &gone {
                    self.rows.remove(key);
                }
                if !gone.is_empty() {
                    self.changed = index;
                }
                Stepped {
                    changed: gone,
                    ..Stepped::unchanged()
                }
            }
            Step::Acquire {
                key,
                value,
                session,
            } => self.acquire(index, key, value, session),
            Step::Release {
                key,
                value,
                session,
            } => match self.rows.get(key) {
                Some(row) if row.session == *session && !session.is_empty() => {
                    let lock_index = row.lock_index;
                    self.write(index, key, value, lock_index, "")
                }
                _ => Stepped::no(),
            },
            Step::Get { key } => match self.rows.get(key) {
                Some(row) => Stepped {
                    row: Some(row.clone()),
                    ..Stepped::unchanged()
                },
                None => Stepped::no(),
            },
        }
    }

    /// A plain write keeps the holder and forgets how often the key was locked.
    fn set(&mut self, index: u64, key: &str, value: &str) -> Stepped {
        let holder = self.rows.get(key).map(|row| row.session.clone());
        self.write(index, key, value, 0, &holder.unwrap_or_default())
    }

    fn write(
        &mut self,
        index: u64,
        key: &str,
        value: &str,
        lock_index: u64,
        session: &str,
    ) -> Stepped {
        let created = self.rows.get(key).map_or(index, |row| row.create_index);
        let row = Row {
            value: value.to_owned(),
            create_index: created,
            modify_index: index,
            lock_index,
            session: session.to_owned(),
        };
        self.rows.insert(key.to_owned(), row.clone());
        self.changed = index;
        Stepped {
            ok: true,
            row: Some(row),
            changed: vec![key.to_owned()],
        }
    }

    fn delete(&mut self, index: u64, key: &str) -> Stepped {
        if self.rows.remove(key).is_none() {
            return Stepped::unchanged();
        }
        self.changed = index;
        Stepped {
            changed: vec![key.to_owned()],
            ..Stepped::unchanged()
        }
    }

    fn acquire(&mut self, index: u64, key: &str, value: &str, session: &str) -> Stepped {
        if !self.sessions.contains(session) {
            return Stepped::no();
        }
        let lock_index = match self.rows.get(key) {
            None => 1,
            Some(row) if row.session == session => row.lock_index,
            Some(row) if row.session.is_empty() => row.lock_index + 1,
            Some(_) => return Stepped::no(),
        };
        self.write(index, key, value, lock_index, session)
    }

    /// Carries out all steps or none; `Err` names those that failed. The later ones are tried on
    /// what the earlier ones would have left.
    pub fn txn(&mut self, index: u64, steps: &[Step]) -> Result<Vec<Stepped>, Vec<usize>> {
        let mut after = self.clone();
        let done: Vec<Stepped> = steps.iter().map(|step| after.step(index, step)).collect();
        let failed = done.iter().enumerate().filter(|(_, done)| !done.ok);
        let failed: Vec<usize> = failed.map(|(at, _)| at).collect();
        if !failed.is_empty() {
            return Err(failed);
        }
        *self = after;
        Ok(done)
    }

    /// Ends a session: what it held is released. Returns those keys.
    pub fn destroy(&mut self, index: u64, session: &str) -> Vec<String> {
        if !self.sessions.remove(session) {
            return Vec::new();
        }
        let mut released = Vec::new();
        for (key, row) in &mut self.rows {
            if row.session == session {
                row.session.clear();
                row.modify_index = index;
                self.changed = index;
                released.push(key.clone());
            }
        }
        released
    }
}

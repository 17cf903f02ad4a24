//! Up to N holders: contender keys and one lock document, as Consul's library keeps them.
//!
//! ```text
//! PREFIX/<session>   a contender's key, acquired by its session: it is alive while the key is held
//! PREFIX/.lock       {"Limit":N,"Holders":{"<session>":true,…}}, changed by compare-and-set only
//! ```
//!
//! A holder whose contender key nobody holds is dead, and its slot is anyone's. The decisions are
//! those of [`Document`], which knows no server; all keys carry [`FLAGS`].

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    super::{CliError, kv::Row},
    Cleanup,
    mutex::{WAIT, left},
    store::{Entry, Failure, Look, Store, bytes},
};

/// Flags of a semaphore's keys, Consul's `SemaphoreFlagValue`.
pub(super) const FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;

const CONFLICT: &str = "Existing key does not match semaphore use";

/// The lock document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    limit: u64,
    /// Sessions that hold a slot; the values say nothing.
    #[serde(default)]
    holders: BTreeMap<String, bool>,
}

/// The document and what is needed to change it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    document: Document,
    /// Modify index of its row; 0 if there is none.
    index: u64,
}

impl Document {
    /// The document among the rows below the prefix, without holders that are dead.
    fn find(rows: &[Row], key: &str, limit: u64) -> Result<Found, CliError> {
        let row = rows.iter().find(|row| row.key == key);
        if row.is_some_and(|row| row.flags != FLAGS) {
            return Err(CliError(CONFLICT.into()));
        }
        let value = row.map(bytes).unwrap_or_default();
        let mut document = match value.is_empty() {
            true => Document {
                limit,
                holders: BTreeMap::new(),
            },
            false => serde_json::from_slice(&value)
                .map_err(|error| CliError(format!("lock decode failed: {error}")))?,
        };
        let alive: Vec<&str> = rows
            .iter()
            .filter(|row| row.key != key && !row.session.is_empty())
            .map(|row| &*row.session)
            .collect();
        document
            .holders
            .retain(|session, _| alive.contains(&&**session));
        Ok(Found {
            document,
            index: row.map_or(0, |row| row.modify_index),
        })
    }

    /// With one more holder, unless all slots are taken.
    fn with(mut self, session: &str) -> Option<Self> {
        if self.holders.len() as u64 >= self.limit {
            return None;
        }
        self.holders.insert(session.into(), true);
        Some(self)
    }
}

#[derive(Clone)]
pub(super) struct Semaphore {
    pub(super) store: Store,
    pub(super) prefix: String,
    /// Key of the lock document.
    pub(super) key: String,
    pub(super) session: String,
    pub(super) limit: u64,
}

impl Semaphore {
    fn contender_key(&self) -> String {
        format!("{}/{}", self.prefix, self.session)
    }

    /// Waits until a slot is ours; `false` if `patience` ends before.
    pub(super) fn acquire(&self, patience: Option<Duration>) -> Result<bool, CliError> {
        let contender = Entry {
            key: &self.contender_key(),
            flags: FLAGS,
            value: b"",
        };
        match self.store.acquire(contender, &self.session) {
            Ok(true) => {}
            Ok(false) => return Err(CliError("failed to make contender entry".into())),
            Err(failure) => return Err(failure.saying("failed to make contender entry")),
        }
        let acquired = self.contend(patience);
        if !matches!(acquired, Ok(true)) {
            // Without its session the key would stay as litter.
            let _ = self.store.delete(&self.contender_key());
        }
        acquired
    }

    fn contend(&self, patience: Option<Duration>) -> Result<bool, CliError> {
        let begun = Instant::now();
        let mut look = Look::default();
        for attempt in 0.. {
            look.wait = match left(patience, begun) {
                Some(Duration::ZERO) if attempt > 0 => return Ok(false),
                left => left.unwrap_or(WAIT).min(WAIT),
            };
            let (found, index) = self.read(look)?;
            if found.document.limit != self.limit {
                return Err(CliError(format!(
                    "semaphore limit conflict (lock: {}, local: {})",
                    found.document.limit, self.limit
                )));
            }
            let Some(with_us) = found.document.with(&self.session) else {
                look.index = index;
                continue;
            };
            if self.write(&with_us, found.index)? {
                return Ok(true);
            }
            // Another contender was faster: look again at once.
            look.index = 0;
        }
        Ok(false)
    }

    fn read(&self, look: Look) -> Result<(Found, u64), CliError> {
        let (rows, index) = self
            .store
            .list(&self.prefix, look)
            .map_err(|failure| failure.saying("failed to read prefix"))?;
        Ok((Document::find(&rows, &self.key, self.limit)?, index))
    }

    fn write(&self, document: &Document, index: u64) -> Result<bool, CliError> {
        let value = serde_json::to_vec(document)
            .map_err(|error| CliError(format!("lock encode failed: {error}")))?;
        let entry = Entry {
            key: &self.key,
            flags: FLAGS,
            value: &value,
        };
        self.store
            .cas(entry, index)
            .map_err(|failure| failure.saying("failed to update lock"))
    }

    /// Whether we hold a slot, when `look` has seen news; and what to look with next.
    pub(super) fn held(&self, look: Look) -> Result<(bool, u64), Failure> {
        let (rows, index) = self.store.list(&self.prefix, look)?;
        let found =
            Document::find(&rows, &self.key, self.limit).map_err(|CliError(why)| Failure {
                why,
                passing: false,
            })?;
        let held = found.document.holders.contains_key(&self.session);
        Ok((held, index))
    }

    pub(super) fn release(&self) -> Result<(), CliError> {
        loop {
            let (found, _) = self.read(Look::default())?;
            let mut document = found.document;
            let holding = document.holders.remove(&self.session).is_some();
            if !holding || self.write(&document, found.index)? {
                break;
            }
        }
        match self.store.delete(&self.contender_key()) {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.saying("failed to remove contender entry")),
        }
    }

    /// Deletes the document if nobody holds a slot.
    pub(super) fn clean_up(&self) -> Result<Cleanup, CliError> {
        let (found, _) = self.read(Look::default())?;
        if found.index == 0 {
            return Ok(Cleanup::Done);
        }
        if !found.document.holders.is_empty() {
            return Ok(Cleanup::InUse);
        }
        match self.store.delete_cas(&self.key, found.index) {
            Ok(true) => Ok(Cleanup::Done),
            Ok(false) => Ok(Cleanup::InUse),
            Err(failure) => Err(failure.saying("failed to remove semaphore")),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    use super::*;

    fn row(key: &str, session: &str, value: &str) -> Row {
        Row {
            key: key.into(),
            session: session.into(),
            value: STANDARD.encode(value),
            flags: FLAGS,
            modify_index: 7,
            ..Row::default()
        }
    }

    #[test]
    fn the_document_is_written_as_go_writes_it() {
        let document = Document {
            limit: 2,
            holders: BTreeMap::from([("b".into(), true), ("a".into(), true)]),
        };
        let text = r#"{"Limit":2,"Holders":{"a":true,"b":true}}"#;
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        assert_eq!(serde_json::from_str::<Document>(text).unwrap(), document);
    }

    #[test]
    fn a_free_prefix_has_an_empty_document() {
        let found = Document::find(&[row("p/a", "a", "")], "p/.lock", 3).unwrap();
        assert_eq!((found.index, found.document.limit), (0, 3));
        assert!(found.document.holders.is_empty());
    }

    #[test]
    fn other_peoples_keys_are_refused() {
        let mut theirs = row("p/.lock", "", "{}");
        theirs.flags = super::super::mutex::FLAGS;
        let CliError(why) = Document::find(&[theirs], "p/.lock", 3).unwrap_err();
        assert_eq!(why, CONFLICT);
        let broken = row("p/.lock", "", "no document");
        assert!(Document::find(&[broken], "p/.lock", 3).is_err());
    }

    proptest! {
        /// The dead give their slots back, the living keep theirs, and none is given twice.
        #[test]
        fn slots(
            limit in 1..4u64,
            holders in prop::collection::btree_set(0..8u8, 0..4),
            alive in prop::collection::btree_set(0..8u8, 0..8),
        ) {
            let name = |id: &u8| format!("s{id}");
            let written = Document {
                limit,
                holders: holders.iter().map(|id| (name(id), true)).collect(),
            };
            let mut rows = vec![row("p/.lock", "", &serde_json::to_string(&written).unwrap())];
            rows.extend(alive.iter().map(|id| row(&format!("p/s{id}"), &name(id), "")));
            let found = Document::find(&rows, "p/.lock", limit).unwrap();
            let living: Vec<String> = holders.intersection(&alive).map(name).collect();
            prop_assert_eq!(found.document.holders.keys().cloned().collect::<Vec<_>>(), living.clone());
            prop_assert_eq!(found.index, 7);
            match found.document.with("me") {
                Some(document) => {
                    prop_assert!(document.holders.len() as u64 <= limit);
                    prop_assert_eq!(document.holders.len(), living.len() + 1);
                }
                None => prop_assert!(living.len() as u64 >= limit),
            }
        }
    }
}

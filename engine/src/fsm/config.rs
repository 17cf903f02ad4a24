//! What becomes of config entries?
//!
//! They are stored and served, not understood: writing one that is the same moves no index, and a
//! cas that does not fit answers false. Consul: FSM command 22.

use serde::{Deserialize, Serialize};
use wire::Index;

use super::usage;
use crate::state::{
    Tables, Txn,
    index::Key,
    records::{ConfigEntry, Record, RecordRow},
    schema::ConfigEntries,
    tree::Keyed,
};

/// What a command on config entries does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigVerb {
    /// Writes it.
    Upsert,
    /// Writes it if its modify index is the request's (0: only if there is none).
    UpsertCas,
    /// Deletes it; true whether or not it was there.
    Delete,
    /// Deletes it if its modify index is the request's.
    DeleteCas,
}

/// A command on config entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ConfigRequest {
    /// What to do.
    pub op: ConfigVerb,
    /// The entry; its modify index is the one that a cas expects.
    pub entry: ConfigEntry,
}

/// The entry of this kind and name.
pub fn get<'t>(tables: &'t Tables, kind: &str, name: &str) -> Option<&'t RecordRow<ConfigEntry>> {
    let mut key = Key::default();
    key.lower(kind).lower(name);
    tables.config_entries.get(key.as_bytes())
}

/// Carries out a command at `index`.
pub(super) fn apply(
    txn: &mut Txn<'_>,
    index: Index,
    request: &ConfigRequest,
) -> Result<bool, String> {
    let entry = &request.entry;
    if entry.kind.is_empty() || entry.name.is_empty() {
        return Err("a config entry needs both a kind and a name".to_owned());
    }
    let held = get(txn.tables(), &entry.kind, &entry.name).cloned();
    let modified = held.as_ref().map_or(Index(0), |held| held.modify_index());
    let expected = Index(entry.modify_index);
    match request.op {
        ConfigVerb::UpsertCas if modified != expected => return Ok(false),
        ConfigVerb::DeleteCas if held.is_some() && modified != expected => return Ok(false),
        _ => {}
    }
    match (request.op, held) {
        (ConfigVerb::Delete | ConfigVerb::DeleteCas, None) => {}
        (ConfigVerb::Delete | ConfigVerb::DeleteCas, Some(held)) => {
            txn.remove::<ConfigEntries>(held.key());
            txn.touch::<ConfigEntries>(index);
            usage::config_entry(txn, index, &held.kind, -1);
        }
        (_, Some(held)) if held.body == entry.body => {}
        (_, held) => {
            if held.is_none() {
                usage::config_entry(txn, index, &entry.kind, 1);
            }
            let entry = ConfigEntry {
                create_index: held.map_or(index.0, |held| held.create_index),
                modify_index: index.0,
                ..entry.clone()
            };
            let row = RecordRow::new(entry).map_err(|error| error.to_string())?;
            txn.put::<ConfigEntries>(row)
                .map_err(|error| error.to_string())?;
            txn.touch::<ConfigEntries>(index);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod nameless {
    use super::*;
    use crate::fsm::{Fsm, Outcome, records::RecordOp};

    /// Over HTTP a config entry without a name is refused, but not where a native client's command is
    /// applied: its row had no primary key, which no index has a place for. (Fuzz target `machine`,
    /// which has every table check itself.)
    #[test]
    fn an_entry_without_a_name_is_refused() {
        let entry = ConfigEntry {
            kind: "proxy-defaults".into(),
            ..ConfigEntry::default()
        };
        let op = ConfigVerb::Upsert;
        let command = RecordOp::ConfigEntry(ConfigRequest { op, entry }).encode();
        let (mut fsm, mut outcomes) = (Fsm::new(), Vec::new());
        let entry = (Index(1), wire::Term(1), command);
        fsm.apply_run(&[entry], &mut outcomes)
            .expect("a known command");
        assert!(
            matches!(&outcomes[..], [Outcome::Refused(_)]),
            "{outcomes:?}"
        );
        fsm.store().tables().check();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::state::{Store, records::JsonText};

    const KINDS: [&str; 2] = ["service-defaults", "mesh"];

    const VERBS: [ConfigVerb; 4] = [
        ConfigVerb::Upsert,
        ConfigVerb::UpsertCas,
        ConfigVerb::Delete,
        ConfigVerb::DeleteCas,
    ];

    proptest! {
        /// Against a map from (kind, name) to (body, create, modify).
        #[test]
        fn config_entries_do_what_the_model_does(
            steps in prop::collection::vec((0..4usize, 0..2u8, 0..2u8, 0..3u8, 0..3u64), 1..40),
        ) {
            let mut store = Store::new();
            let mut model: BTreeMap<(u8, u8), (u8, u64, u64)> = BTreeMap::new();
            for ((verb, kind, name, body, behind), index) in steps.into_iter().zip(1u64..) {
                let verb = VERBS[verb];
                let held = model.get(&(kind, name)).copied();
                let modified = held.map_or(0, |held| held.2);
                let expected = modified.saturating_sub(behind);
                let fits = match verb {
                    ConfigVerb::UpsertCas => modified == expected,
                    ConfigVerb::DeleteCas => held.is_none() || modified == expected,
                    _ => true,
                };
                if fits {
                    match (verb, held) {
                        (ConfigVerb::Delete | ConfigVerb::DeleteCas, _) => {
                            model.remove(&(kind, name));
                        }
                        (_, Some(held)) if held.0 == body => {}
                        (_, held) => {
                            let create = held.map_or(index, |held| held.1);
                            model.insert((kind, name), (body, create, index));
                        }
                    }
                }
                let request = ConfigRequest {
                    op: verb,
                    entry: ConfigEntry {
                        kind: KINDS[usize::from(kind)].to_owned(),
                        name: format!("name-{name}"),
                        body: JsonText::parse(&format!("{{\"a\":{body}}}")).unwrap(),
                        modify_index: expected,
                        ..ConfigEntry::default()
                    },
                };
                let mut txn = store.begin();
                prop_assert_eq!(apply(&mut txn, Index(index), &request), Ok(fits));
                txn.commit();
                store.tables().check();
                prop_assert_eq!(store.tables().config_entries.len(), model.len());
                for (at, kind) in KINDS.iter().enumerate() {
                    let of_kind = model.keys().filter(|(kind, _)| usize::from(*kind) == at);
                    let id = format!("config-entries-{kind}");
                    prop_assert_eq!(usage::count(store.tables(), &id), of_kind.count() as u64);
                }
                for ((kind, name), (body, create, modify)) in &model {
                    let (kind, name) = (KINDS[usize::from(*kind)].to_uppercase(), format!("NAME-{name}"));
                    let entry = get(store.tables(), &kind, &name).expect("an entry of the model");
                    prop_assert_eq!((entry.create_index, entry.modify_index), (*create, *modify));
                    prop_assert_eq!(entry.body.as_str(), format!("{{\"a\":{body}}}"));
                }
            }
        }
    }
}

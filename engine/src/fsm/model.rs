//! Consul's KV table, the plain way: a sorted map and rules as its documentation gives them.

use std::collections::BTreeMap;

use wire::{KvCommand, KvVerb};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: Vec<u8>,
    pub(super) flags: u64,
    pub(super) create: u64,
    pub(super) modify: u64,
    pub(super) lock: u64,
    pub(super) session: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) kvs: BTreeMap<Vec<u8>, Entry>,
    pub(super) tombstones: BTreeMap<Vec<u8>, u64>,
    pub(super) kvs_index: u64,
    pub(super) tombstones_index: u64,
}

impl Model {
    /// `None` for a refusal.
    pub(super) fn apply(&mut self, index: u64, kv: &KvCommand<'_>) -> Option<bool> {
        let held = self.kvs.get(kv.key).cloned();
        if kv.key.is_empty() && kv.verb != KvVerb::DeleteTree {
            return None;
        }
        match (kv.verb, held) {
            (KvVerb::Set, held) => self.set(index, kv, held),
            (KvVerb::Cas, None) if kv.index == 0 => self.set(index, kv, None),
            (KvVerb::Cas, Some(held)) if kv.index == held.modify && kv.index != 0 => {
                self.set(index, kv, Some(held))
            }
            (KvVerb::Cas, _) => return Some(false),
            (KvVerb::Delete | KvVerb::DeleteCas, None) => {}
            (KvVerb::Delete, Some(_)) => self.delete(index, kv.key),
            (KvVerb::DeleteCas, Some(held)) if held.modify == kv.index => {
                self.delete(index, kv.key)
            }
            (KvVerb::DeleteCas, Some(_)) => return Some(false),
            (KvVerb::DeleteTree, _) => {
                let before = self.kvs.len();
                self.kvs.retain(|key, _| !key.starts_with(kv.key));
                if self.kvs.len() < before {
                    self.kvs_index = index;
                    self.tombstones.retain(|key, _| !key.starts_with(kv.key));
                    if !kv.key.is_empty() {
                        self.tombstones.insert(kv.key.to_vec(), index);
                        self.tombstones_index = index;
                    }
                }
            }
            (KvVerb::Lock, _) => return None,
            (KvVerb::Unlock, _) if kv.session.is_empty() => return None,
            (KvVerb::Unlock, Some(held)) if held.session == kv.session => {
                let session = Vec::new();
                let released = Entry {
                    value: kv.value.to_vec(),
                    flags: kv.flags,
                    modify: index,
                    session,
                    ..held
                };
                self.kvs.insert(kv.key.to_vec(), released);
                self.kvs_index = index;
            }
            (KvVerb::Unlock, _) => return Some(false),
        }
        Some(true)
    }

    fn set(&mut self, index: u64, kv: &KvCommand<'_>, held: Option<Entry>) {
        let session = held
            .as_ref()
            .map_or_else(Vec::new, |held| held.session.clone());
        let create = held.as_ref().map_or(index, |held| held.create);
        let new = Entry {
            value: kv.value.to_vec(),
            flags: kv.flags,
            create,
            modify: index,
            lock: 0,
            session,
        };
        let same = |held: Entry| {
            Entry {
                modify: index,
                ..held
            } == new
        };
        if !held.is_some_and(same) {
            self.kvs.insert(kv.key.to_vec(), new);
            self.kvs_index = index;
        }
    }

    fn delete(&mut self, index: u64, key: &[u8]) {
        self.kvs.remove(key);
        self.kvs_index = index;
        self.tombstones.insert(key.to_vec(), index);
        self.tombstones_index = index;
    }
}

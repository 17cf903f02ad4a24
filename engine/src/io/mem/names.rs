//! Which names does a directory hold, and which would a power cut leave?
//!
//! Changes that were not flushed survive in the order in which they were made, up to some point:
//! a filesystem's journal keeps that order.

use std::{collections::BTreeMap, sync::Arc};

/// File numbers by name; shared between copies of a disk.
pub(super) type Names = Arc<BTreeMap<String, u64>>;

/// A change of the directory that is not durable.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link { name: String, id: u64 },
    Rename { from: String, to: String },
    Unlink { name: String },
}

impl NameChange {
    pub fn apply(&self, names: &mut Names) {
        let names = Arc::make_mut(names);
        match self {
            Self::Link { name, id } => {
                names.insert(name.clone(), *id);
            }
            Self::Rename { from, to } => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
        }
    }
}

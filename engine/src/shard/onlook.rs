//! What could an onlooker find wrong with a shard, that nobody who asks it would notice?
//!
//! A blocking query that was not woken is answered at its deadline, and looks like one for which
//! nothing happened. Only who sees the state and those who wait for it together can tell.

use wire::{Index, Query, QueryBody};

use super::{event::Ticket, member::Member};
use crate::state::Tables;

impl Member {
    /// Somebody who waits for the change of a key that has changed. To be asked between two turns,
    /// when all who were woken have been asked again.
    pub fn slept_through(&self) -> Option<Ticket> {
        let watches = self.watches();
        if watches.has_woken() {
            return None;
        }
        let tables = self.fsm().store().tables();
        let waiting = watches.waiting();
        let slept = waiting.filter(|(_, query)| missed(tables, query));
        slept.map(|(ticket, _)| ticket).min()
    }
}

/// Whether a query's key came, changed or went after what its asker knows.
fn missed(tables: &Tables, query: &Query) -> bool {
    let QueryBody::KvGet { key } = &query.body else {
        return false;
    };
    let row = tables.kvs.get(key).map(|row| row.modify_index());
    let gone = tables.tombstones.get(key).map(|stone| stone.index());
    row.max(gone).unwrap_or(Index(0)) > query.wait.index
}

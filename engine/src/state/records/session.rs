//! What is a session, what is it bound to, and what does it leave behind?
//!
//! Times here are of the cluster's lease clock: a number of milliseconds in the replicated state,
//! advanced by logged elapsed durations, so that every server agrees on it. No wall-clock time is
//! stored.

use serde::{Deserialize, Serialize};
use wire::Index;

use super::Record;
use crate::state::index::Key;

/// A check of a service that a session is bound to. Consul: `structs.ServiceCheck`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct ServiceCheck {
    /// The check's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Consul Enterprise's namespace; empty here.
    pub namespace: String,
}

/// A session: what locks are held by. Consul: `structs.Session`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Session {
    /// UUID as text.
    #[serde(rename = "ID")]
    pub id: String,
    /// For people.
    pub name: String,
    /// The node it belongs to, and dies with.
    pub node: String,
    /// For how long its keys cannot be locked after it was invalidated, ns.
    pub lock_delay: u64,
    /// What happens to its keys: `release` or `delete`.
    pub behavior: String,
    /// Time to live as Go writes durations; empty for none.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// Checks of its node that it dies with.
    pub node_checks: Vec<String>,
    /// Checks of services on its node that it dies with.
    pub service_checks: Vec<ServiceCheck>,
    /// Index of the command that made it.
    pub create_index: u64,
    /// Index of the last command that changed it.
    pub modify_index: u64,
    /// `ttl`, ms; 0 for none.
    pub ttl_ms: u64,
    /// When it was made or last renewed, lease clock, ms.
    pub renewed_at_ms: u64,
}

impl Session {
    /// When it expires if it is not renewed, lease clock, ms: one and a half TTLs after the last
    /// renewal, between the one TTL that is promised to its holder and the two after which others
    /// may count on it. `None` without a TTL.
    pub fn deadline_ms(&self) -> Option<u64> {
        (self.ttl_ms > 0).then(|| {
            if mutant!(SessionEndsEarly) {
                return self.renewed_at_ms + self.ttl_ms / 2;
            }
            self.renewed_at_ms
                .saturating_add(self.ttl_ms)
                .saturating_add(self.ttl_ms / 2)
        })
    }
}

impl Record for Session {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.id);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

/// That a session is bound to a check. Consul: `sessionCheck`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct SessionCheck {
    /// The node of both.
    pub node: String,
    /// The check's id.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// The session's id.
    pub session: String,
}

impl Record for SessionCheck {
    fn primary_key(&self, key: &mut Key) {
        key.lower(&self.node)
            .lower(&self.check_id)
            .lower(&self.session);
    }
}

/// That a key cannot be locked for a while, since its holder was invalidated. Ours: Consul keeps
/// these in the memory of each server, and by its clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct LockDelay {
    /// The key in `kvs`.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// Until when, lease clock, ms.
    pub until_ms: u64,
}

impl Record for LockDelay {
    fn primary_key(&self, key: &mut Key) {
        key.raw(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_expire_after_one_and_a_half_ttls() {
        let session = Session {
            ttl_ms: 10_000,
            renewed_at_ms: 5,
            ..Session::default()
        };
        assert_eq!(session.deadline_ms(), Some(15_005));
        assert_eq!(Session::default().deadline_ms(), None);
        let last = Session {
            ttl_ms: u64::MAX,
            renewed_at_ms: u64::MAX,
            ..Session::default()
        };
        assert_eq!(last.deadline_ms(), Some(u64::MAX));
    }
}

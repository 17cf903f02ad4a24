//! One holder at a time: the key `PREFIX/.lock`, acquired by a session, as Consul's library does.
//!
//! The key carries [`FLAGS`], by which contenders know that it is a lock and not someone's data.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    super::CliError,
    Cleanup,
    store::{Entry, Look, Store},
};

/// Flags of a lock's key, Consul's `LockFlagValue`.
pub(super) const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// Longest wait of one look at the key.
pub(super) const WAIT: Duration = Duration::from_secs(15);
/// Between two tries while a lock-delay is in force.
pub(super) const RETRY: Duration = Duration::from_secs(5);

const CONFLICT: &str = "Existing key does not match lock use";

#[derive(Clone)]
pub(super) struct Mutex {
    pub(super) store: Store,
    pub(super) key: String,
    pub(super) session: String,
}

impl Mutex {
    fn entry(&self) -> Entry<'_> {
        Entry {
            key: &self.key,
            flags: FLAGS,
            value: b"",
        }
    }

    /// Waits until the lock is ours; `false` if `patience` ends before.
    pub(super) fn acquire(&self, patience: Option<Duration>) -> Result<bool, CliError> {
        let begun = Instant::now();
        let mut look = Look::default();
        for attempt in 0.. {
            look.wait = match left(patience, begun) {
                Some(Duration::ZERO) if attempt > 0 => return Ok(false),
                left => left.unwrap_or(WAIT).min(WAIT),
            };
            let (row, index) = self
                .store
                .get(&self.key, look)
                .map_err(|failure| failure.saying("failed to read lock"))?;
            match row {
                Some(row) if row.flags != FLAGS => return Err(CliError(CONFLICT.into())),
                Some(row) if row.session == self.session => return Ok(true),
                Some(row) if !row.session.is_empty() => {
                    look.index = index;
                    continue;
                }
                _ => {}
            }
            let acquired = self
                .store
                .acquire(self.entry(), &self.session)
                .map_err(|failure| failure.saying("failed to acquire lock"))?;
            if acquired {
                return Ok(true);
            }
            // Another was faster, and is waited for; or a lock-delay is in force, whose end nobody
            // announces.
            let (row, index) = self
                .store
                .get(&self.key, Look { index: 0, ..look })
                .map_err(|failure| failure.saying("failed to read lock"))?;
            look.index = 0;
            match row {
                Some(row) if !row.session.is_empty() => look.index = index,
                _ => thread::sleep(left(patience, begun).unwrap_or(RETRY).min(RETRY)),
            }
        }
        Ok(false)
    }

    /// Whether we hold the lock, when `look` has seen news; and what to look with next.
    pub(super) fn held(&self, look: Look) -> Result<(bool, u64), super::store::Failure> {
        let (row, index) = self.store.get(&self.key, look)?;
        Ok((row.is_some_and(|row| row.session == self.session), index))
    }

    pub(super) fn release(&self) -> Result<(), CliError> {
        match self.store.release(self.entry(), &self.session) {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.saying("failed to release lock")),
        }
    }

    /// Deletes the key if nobody has taken it.
    pub(super) fn clean_up(&self) -> Result<Cleanup, CliError> {
        let (row, _) = self
            .store
            .get(&self.key, Look::default())
            .map_err(|failure| failure.saying("failed to read lock"))?;
        match row {
            None => Ok(Cleanup::Done),
            Some(row) if row.flags != FLAGS => Err(CliError(CONFLICT.into())),
            Some(row) if !row.session.is_empty() => Ok(Cleanup::InUse),
            Some(row) => match self.store.delete_cas(&self.key, row.modify_index) {
                Ok(true) => Ok(Cleanup::Done),
                Ok(false) => Ok(Cleanup::InUse),
                Err(failure) => Err(failure.saying("failed to remove lock")),
            },
        }
    }
}

/// What is left of one's patience; `None` if it is without end.
pub(super) fn left(patience: Option<Duration>, begun: Instant) -> Option<Duration> {
    patience.map(|patience| patience.saturating_sub(begun.elapsed()))
}

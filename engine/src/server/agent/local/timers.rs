//! Which checks were told nothing for too long, and which services are critical for too long?

use std::collections::BTreeSet;

use super::{CheckKind, Local, Status};

/// What is said of a TTL check whose time is over.
pub(super) const EXPIRED: &str = "TTL expired";

/// Deadlines in their order.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(u64, String)>);

impl Timers {
    /// Replaces a check's deadline.
    pub(super) fn set(&mut self, id: &str, before_ms: Option<u64>, after_ms: Option<u64>) {
        if let Some(before_ms) = before_ms {
            self.0.remove(&(before_ms, id.to_owned()));
        }
        if let Some(after_ms) = after_ms {
            self.0.insert((after_ms, id.to_owned()));
        }
    }

    fn pop(&mut self, now_ms: u64) -> Option<String> {
        let first = self.0.first()?;
        (first.0 <= now_ms).then(|| self.0.pop_first().map(|(_, id)| id))?
    }
}

impl Local {
    /// When the next TTL check expires.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.0.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// TTL checks whose time is over turn critical, once; their ids.
    pub fn expire(&mut self, now_ms: u64) -> Vec<String> {
        let mut expired = Vec::new();
        while let Some(id) = self.timers.pop(now_ms) {
            let Some(check) = self.checks.get_mut(&id) else {
                continue;
            };
            check.deadline_ms = None;
            let output = match &*check.output {
                "" => EXPIRED.to_owned(),
                // Registered again since, and not told anything.
                last if last.starts_with(EXPIRED) => last.to_owned(),
                last => format!("TTL expired (last output before timeout follows): {last}"),
            };
            self.set_status(now_ms, &id, Status::Critical, output);
            expired.push(id);
        }
        expired
    }

    /// Services that a check of theirs has been critical for longer than it allows.
    pub fn overdue(&self, now_ms: u64) -> Vec<String> {
        let overdue: BTreeSet<&String> = self
            .checks
            .values()
            .filter(|check| {
                let definition = &check.definition;
                let after_ms = definition.deregister_after_ns / 1_000_000;
                let since_ms = check.critical_since_ms.unwrap_or(now_ms);
                after_ms > 0
                    && !definition.service_id.is_empty()
                    && definition.kind != CheckKind::Maintenance
                    && now_ms.saturating_sub(since_ms) > after_ms
            })
            .map(|check| &check.definition.service_id)
            .collect();
        overdue.into_iter().cloned().collect()
    }
}

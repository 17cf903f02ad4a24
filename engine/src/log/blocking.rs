//! Running a log without a ring: before a server serves, and in tools and tests.

use crate::io::{Disk, perform};

use super::{Log, LogFailure};

impl Log {
    /// Makes everything gathered durable, blocking. For start-up and repair; a serving executor
    /// hands the ops to its ring instead.
    pub fn flush_blocking(&mut self, disk: &dyn Disk, now_ns: u64) -> Result<(), LogFailure> {
        let mut ops = Vec::new();
        loop {
            self.take_ops(now_ns, &mut ops);
            if ops.is_empty() && self.is_idle() {
                return Ok(());
            }
            for op in ops.drain(..) {
                self.done(now_ns, perform(disk, op))?;
            }
        }
    }
}

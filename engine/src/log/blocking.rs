//! Running a log without a ring: before a server serves, and in tools and tests.

use crate::io::{Disk, LogDone, LogOp, prepare_segment};

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

/// Carries out one op on a blocking disk.
pub fn perform(disk: &dyn Disk, op: LogOp) -> LogDone {
    match op {
        LogOp::Write { segment, offset, buf, length, token } => {
            let name = segment.file_name();
            let result = disk.write_at(&name, offset, &buf[..length]).and_then(|()| disk.sync(&name));
            LogDone { token, buf: Some(buf), result, formatted_bytes: 0 }
        }
        LogOp::Read { segment, offset, mut buf, length, token } => {
            let result = disk.read_at(&segment.file_name(), offset, &mut buf[..length]);
            LogDone { token, buf: Some(buf), result, formatted_bytes: 0 }
        }
        LogOp::Prepare { segment, recycle, bytes, key, token } => {
            let result = prepare_segment(disk, segment, recycle, bytes, key);
            let formatted_bytes = *result.as_ref().unwrap_or(&0);
            LogDone { token, buf: None, result: result.map(|_| ()), formatted_bytes }
        }
        LogOp::Remove { segment, token } => {
            let result = disk.remove(&segment.file_name());
            LogDone { token, buf: None, result, formatted_bytes: 0 }
        }
    }
}

//! How is a log op carried out by a plain thread?
//!
//! The blocking counterpart of the ring: for start-up, tools, the background lane and tests.

use super::{Disk, LogDone, LogOp, prepare_segment};

/// Carries out one op on a blocking disk.
pub fn perform(disk: &dyn Disk, op: LogOp) -> LogDone {
    match op {
        LogOp::Write {
            segment,
            offset,
            buf,
            length,
            token,
        } => {
            let name = segment.file_name();
            let result = disk
                .write_at(&name, offset, &buf[..length])
                .and_then(|()| disk.sync(&name));
            LogDone {
                token,
                buf: Some(buf),
                result,
                formatted_bytes: 0,
            }
        }
        LogOp::Read {
            segment,
            offset,
            mut buf,
            length,
            token,
        } => {
            let result = disk.read_at(&segment.file_name(), offset, &mut buf[..length]);
            LogDone {
                token,
                buf: Some(buf),
                result,
                formatted_bytes: 0,
            }
        }
        LogOp::Prepare {
            segment,
            recycle,
            bytes,
            key,
            token,
        } => {
            let result = prepare_segment(disk, segment, recycle, bytes, key);
            let formatted_bytes = *result.as_ref().unwrap_or(&0);
            LogDone {
                token,
                buf: None,
                result: result.map(|_| ()),
                formatted_bytes,
            }
        }
        LogOp::Remove { segment, token } => {
            let result = disk.remove(&segment.file_name());
            LogDone {
                token,
                buf: None,
                result,
                formatted_bytes: 0,
            }
        }
    }
}

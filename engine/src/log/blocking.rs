//! Running a log without a ring: before a server serves, and in tools and tests.

use crate::io::{Disk, perform};

use wire::Lsn;

use super::{Log, LogFailure, Space};

impl Log {
    /// Makes everything gathered durable, blocking. For start-up and repair; a serving executor
    /// hands the ops to its ring instead.
    ///
    /// # Errors
    /// A failed write; or a segment that cannot be prepared, for want of space. Of the latter the
    /// log is none the worse, and what was gathered goes out once there is space again.
    pub fn flush_blocking(&mut self, disk: &dyn Disk, now_ns: u64) -> Result<(), LogFailure> {
        let mut ops = Vec::new();
        loop {
            self.take_ops(now_ns, &mut ops);
            if ops.is_empty() && self.is_idle() {
                return Ok(());
            }
            if ops.is_empty() {
                // A batch waits for its segment, which is tried again when time has passed. Here it
                // does not.
                return Err(self.stuck());
            }
            for op in ops.drain(..) {
                self.done(now_ns, perform(disk, op))?;
            }
        }
    }

    /// What the batch that waits longest waits for.
    fn stuck(&self) -> LogFailure {
        let waiting = self.closed.front().or(self.open.as_ref());
        let why = match self.space() {
            Space::Full { why } => why,
            Space::Ok => "its segment cannot be prepared".to_owned(),
        };
        LogFailure {
            file: waiting.map_or(String::new(), |batch| batch.place.segment.file_name()),
            offset: waiting.map_or(0, |batch| batch.place.offset),
            lsn: Lsn(waiting.map_or(self.next_lsn, |batch| batch.stamp.lsn)),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::mem::MemDisk,
        log::{EntryRef, LogConfig, LogIdentity, SEGMENT_BYTES_MIN},
    };
    use wire::{Index, ShardId, Term};

    /// Found by the simulator: a log whose next segment found no space on the disk was flushed for
    /// ever. The server that repaired itself so never said a word, and used up a core.
    #[test]
    fn a_flush_on_a_full_disk_ends_and_says_so() {
        let disk = MemDisk::new();
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES_MIN,
            batch_bytes_max: 8192,
            ..LogConfig::default()
        };
        let identity = LogIdentity { log_id: 1, salt: 2 };
        let mut log = Log::create(&disk, config, identity).unwrap();
        disk.set_capacity(Some(SEGMENT_BYTES_MIN));
        let append = |log: &mut Log, index| {
            let data = &[7; 2000];
            let (index, term) = (Index(index), Term(1));
            let entry = EntryRef {
                index,
                term,
                kind: 0,
                data,
            };
            log.append(ShardId(0), entry);
        };
        let mut index = 0;
        let failure = loop {
            index += 1;
            append(&mut log, index);
            if let Err(failure) = log.flush_blocking(&disk, 0) {
                break failure;
            }
            assert!(index < 100, "the disk was never full");
        };
        assert!(failure.why.contains("cannot prepare"), "{failure}");
        disk.set_capacity(None);
        let later = log.next_deadline_ns().unwrap();
        log.flush_blocking(&disk, later).unwrap();
        assert_eq!(log.durable_lsn(), log.open_lsn(), "nothing was lost by it");
    }
}

//! When is a batch written, and when is it durable?
//!
//! [`take_ops`](Log::take_ops) issues what the device may take now; [`done`](Log::done) takes the
//! answers. While a write is in flight the next batch gathers, so batches grow with the load and
//! a lone writer never waits for a timer. Writes may be answered out of order; durability
//! advances in order, since a batch counts only with everything before it.
//!
//! A failed or short write is final (`fsync` has no second chance): the log issues nothing more
//! and every answer from then on is the failure. A failed *preparation* of a segment is not: it
//! is tried again, and until it succeeds [`space`](Log::space) asks the caller to refuse entries.

use wire::Lsn;

use crate::io::{LogDone, LogOp};

use super::{
    Log, LogFailure,
    batch::{Batch, Issue},
    format::{FLAG_CLOSES, FLAG_MARK, Place},
    types::{Progress, Space},
};

/// A write that was issued.
#[derive(Debug)]
pub(super) struct InFlight {
    token: u64,
    lsn: u64,
    place: Place,
    oldest: crate::io::SegmentNo,
    issued_ns: u64,
    done: bool,
}

impl Log {
    /// Adds what is to be done now to `ops`: durable writes, the preparation of segments, and,
    /// after [`idle_mark_ns`](super::LogConfig::idle_mark_ns) without a write, a mark. To be
    /// called after each turn's appends, after each `done`, and at
    /// [`next_deadline_ns`](Self::next_deadline_ns). Nothing after a failure.
    pub fn take_ops(&mut self, now_ns: u64, ops: &mut Vec<LogOp>) {
        if self.failure.is_some() {
            return;
        }
        if self.mark_is_due(now_ns) {
            self.ensure_open();
            self.close(FLAG_MARK);
        }
        while let Some(batch) = self.next_to_issue() {
            self.issue(batch, now_ns, ops);
        }
        let urgent = self
            .closed
            .front()
            .is_some_and(|batch| !self.may_issue(batch));
        let token = &mut self.next_token;
        self.segments
            .take_ops(&self.config, now_ns, urgent, token, ops);
    }

    fn mark_is_due(&self, now_ns: u64) -> bool {
        if !self.is_idle() {
            return false;
        }
        if self.shutting_down {
            return self.needs_mark || !self.dirty.is_empty();
        }
        // The reserve of a full disk is for hard states.
        self.needs_mark
            && now_ns >= self.last_write_ns + self.config.idle_mark_ns
            && self.space() == Space::Ok
    }

    /// The next batch, when the device may take it.
    fn next_to_issue(&mut self) -> Option<Batch> {
        if self.in_flight.len() >= self.config.writes_in_flight_max {
            return None;
        }
        let waiting = self.closed.front().or(self.open.as_ref())?;
        let long = waiting.disk_bytes() >= self.config.second_write_bytes_min as u64;
        if !self.in_flight.is_empty() && !long {
            return None;
        }
        if self.closed.is_empty() {
            self.close(0);
        }
        let ready = self
            .closed
            .front()
            .is_some_and(|batch| self.may_issue(batch));
        if ready { self.closed.pop_front() } else { None }
    }

    /// Whether the segment of a batch exists, and, if the batch says that its segment is closed,
    /// the next one too: so that recovery can take a missing file for what it is.
    fn may_issue(&self, batch: &Batch) -> bool {
        let segment = batch.place.segment;
        self.segments.is_ready(segment)
            && (batch.flags & FLAG_CLOSES == 0 || self.segments.is_ready(segment.next()))
    }

    fn issue(&mut self, batch: Batch, now_ns: u64, ops: &mut Vec<LogOp>) {
        let (place, lsn, oldest) = (batch.place, batch.stamp.lsn, batch.oldest);
        let entries = u64::from(batch.entries);
        let issue = Issue {
            log_id: self.identity.log_id,
            previous_digest: self.digest,
            durable: self.durable,
        };
        self.stats.empty_batches += u64::from(batch.is_empty());
        let (buf, length, digest) = batch.seal(self.key, &issue);
        self.digest = digest;
        self.stats.batches += 1;
        self.stats.entries += entries;
        self.stats.bytes_submitted += length as u64;
        self.stats.last_batch_bytes = length as u64;
        self.stats.last_batch_entries = entries;
        self.next_token += 1;
        self.in_flight.push_back(InFlight {
            token: self.next_token,
            lsn,
            place,
            oldest,
            issued_ns: now_ns,
            done: false,
        });
        ops.push(LogOp::Write {
            segment: place.segment,
            offset: place.offset,
            buf,
            length,
            token: self.next_token,
        });
    }

    /// Takes the answer to an op.
    ///
    /// # Errors
    /// The failure that killed the log, now or before. Nothing that was not durable by then will
    /// be; the server must step down and stop acknowledging.
    pub fn done(&mut self, now_ns: u64, done: LogDone) -> Result<Progress, LogFailure> {
        let (token, result, formatted) = (done.token, done.result, done.formatted_bytes);
        if self
            .segments
            .done(&self.config, now_ns, token, &result, formatted)
        {
            return self.failure.clone().map_or(Ok(Progress::Nothing), Err);
        }
        if let Some(read) = self.reads.iter_mut().find(|read| read.token == token) {
            read.answer = Some((done.buf, result));
            return Ok(Progress::Read(token));
        }
        if let Some(buf) = done.buf {
            self.buffers.give(buf);
        }
        let Some(write) = self.in_flight.iter_mut().find(|write| write.token == token) else {
            panic!("the log was told of op {token}, which it never issued");
        };
        write.done = true;
        if let (Err(error), None) = (&result, &self.failure)
            && !mutant!(FailedFlushIgnored)
        {
            self.failure = Some(LogFailure {
                file: write.place.segment.file_name(),
                offset: write.place.offset,
                lsn: Lsn(write.lsn),
                why: error.to_string(),
            });
        }
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        Ok(self.advance(now_ns))
    }

    fn advance(&mut self, now_ns: u64) -> Progress {
        let before = self.durable;
        while self.in_flight.front().is_some_and(|write| write.done) {
            let write = self.in_flight.pop_front().expect("just seen");
            self.durable = write.lsn;
            self.segments.free_below(write.oldest);
            self.last_write_ns = now_ns;
        }
        if mutant!(DurableOutOfOrder) {
            let done = self.in_flight.iter().filter(|write| write.done);
            self.durable = done.map(|write| write.lsn).fold(self.durable, u64::max);
        }
        if self.durable > before {
            Progress::Durable(Lsn(self.durable))
        } else {
            Progress::Nothing
        }
    }

    /// When `take_ops` should be called although nothing has happened: an idle mark, or another
    /// try to prepare a segment.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        if self.failure.is_some() {
            return None;
        }
        let mark = (self.needs_mark && self.is_idle() && self.space() == Space::Ok)
            .then(|| self.last_write_ns + self.config.idle_mark_ns);
        mark.into_iter().chain(self.segments.retry_ns()).min()
    }

    /// Whether entries may be appended.
    pub fn space(&self) -> Space {
        let gathered = self.open.as_ref().map_or(0, Batch::disk_bytes);
        self.segments
            .space(&self.config, self.tail.offset + gathered)
    }

    /// When the oldest unanswered write was issued. Older than an election timeout: the disk
    /// hangs, and a leader must step down.
    pub fn oldest_write_ns(&self) -> Option<u64> {
        self.in_flight.front().map(|write| write.issued_ns)
    }

    /// Whether nothing is gathered, waiting or in flight (the background lane aside).
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.closed.is_empty() && self.in_flight.is_empty()
    }

    /// Begins a clean shutdown: what is gathered is written, then a mark names the tail durable
    /// and carries the newest commit indexes. Call `take_ops` and `done` until
    /// [`is_shut_down`](Self::is_shut_down).
    pub fn shutdown_mark(&mut self, now_ns: u64, ops: &mut Vec<LogOp>) {
        self.shutting_down = true;
        self.take_ops(now_ns, ops);
    }

    /// Whether everything, the mark included, is durable; or the log has failed.
    pub fn is_shut_down(&self) -> bool {
        let settled = self.is_idle() && !self.needs_mark && self.dirty.is_empty();
        self.failure.is_some() || (self.shutting_down && settled)
    }
}

//! Which segment files exist, and what becomes of them?
//!
//! ```text
//!   free (may be recycled)   live (hold something needed)     prepared (ahead of need)
//!   3.segment 4.segment      5.segment 6.segment 7.segment    8.segment
//!                            oldest              active
//! ```
//!
//! A segment is *prepared* on the background lane before it is needed: its file is formatted (or
//! is a freed one, renamed) and durable under its name before the first batch is written to it.
//! So running out of space happens there and only there, where it can wait and be tried again.
//!
//! Freed files keep their names until they are recycled or removed, always the lowest first and
//! one at a time: the files of a log are a contiguous run of numbers at every instant, so a hole
//! is a lost file and not an interrupted clean-up.

use std::collections::VecDeque;

use crate::io::{LogOp, SectorKey, SegmentNo};

use super::types::{LogConfig, Space};

/// A segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub no: SegmentNo,
    pub bytes: u64,
    /// False while the segment is gathered for but its file is not prepared yet.
    pub exists: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Background {
    Prepare {
        segment: SegmentNo,
        recycle: Option<File>,
        token: u64,
    },
    Remove {
        file: File,
        token: u64,
    },
}

/// The files of one log.
#[derive(Debug)]
pub(super) struct Segments {
    key: SectorKey,
    free: VecDeque<File>,
    live: VecDeque<File>,
    prepared: VecDeque<File>,
    background: Option<Background>,
    /// Why the last preparation failed, and when to try again.
    blocked: Option<(String, u64)>,
    /// When a failed removal is tried again.
    remove_retry_ns: u64,
    pub prepared_total: u64,
    pub recycled_total: u64,
    pub failures_total: u64,
    pub formatted_bytes: u64,
}

impl Segments {
    /// `live` ends with the active segment.
    pub fn new(key: SectorKey, free: Vec<File>, live: Vec<File>, prepared: Vec<File>) -> Self {
        Self {
            key,
            free: free.into(),
            live: live.into(),
            prepared: prepared.into(),
            background: None,
            blocked: None,
            remove_retry_ns: 0,
            prepared_total: 0,
            recycled_total: 0,
            failures_total: 0,
            formatted_bytes: 0,
        }
    }

    /// The segment that batches are gathered for.
    pub fn active(&self) -> File {
        *self.live.back().expect("a log has an active segment")
    }

    /// The first live segment.
    pub fn oldest(&self) -> SegmentNo {
        self.live.front().expect("a log has an active segment").no
    }

    pub fn live_count(&self) -> u64 {
        self.live.len() as u64
    }

    /// Bytes of live segments, from `from` on.
    pub fn live_bytes_from(&self, from: SegmentNo) -> u64 {
        let live = self.live.iter().filter(|file| file.no >= from);
        live.map(|file| file.bytes).sum()
    }

    pub fn disk_bytes(&self) -> u64 {
        let all = self.free.iter().chain(&self.live).chain(&self.prepared);
        all.filter(|file| file.exists).map(|file| file.bytes).sum()
    }

    /// Whether batches may be written into the segment.
    pub fn is_ready(&self, no: SegmentNo) -> bool {
        let mut files = self.live.iter().rev().chain(&self.prepared);
        files.any(|file| file.no == no && file.exists)
    }

    /// The lowest segment that should be prepared now.
    fn wanted(&self) -> Option<SegmentNo> {
        let rolled = self
            .live
            .iter()
            .find(|file| !file.exists)
            .map(|file| file.no);
        rolled.or_else(|| self.prepared.is_empty().then(|| self.active().no.next()))
    }

    /// The next segment becomes the active one. Its length is the prepared file's, or will be
    /// the configured one.
    pub fn roll(&mut self, config: &LogConfig) -> File {
        let no = self.active().no.next();
        let file = self.prepared.pop_front().unwrap_or(File {
            no,
            bytes: config.segment_bytes,
            exists: false,
        });
        debug_assert_eq!(file.no, no);
        self.live.push_back(file);
        file
    }

    /// Segments below `oldest` are needed no more.
    pub fn free_below(&mut self, oldest: SegmentNo) {
        while self.live.len() > 1 && self.oldest() < oldest {
            let freed = self.live.pop_front().expect("checked");
            self.free.push_back(freed);
            // It can be recycled, whatever stood in the way of a new one.
            self.blocked = None;
        }
    }

    /// Adds what the background lane should do now, at most one op at a time. `urgent`: a batch
    /// waits for the next segment.
    pub fn take_ops(
        &mut self,
        config: &LogConfig,
        now_ns: u64,
        urgent: bool,
        token: &mut u64,
        ops: &mut Vec<LogOp>,
    ) {
        if self.background.is_some() {
            return;
        }
        if let Some(segment) = self.wanted() {
            self.prepare(segment, config, now_ns, urgent, token, ops);
        } else if let Some(file) = self.free.front().copied()
            && now_ns >= self.remove_retry_ns
            && (self.free.len() > config.free_segments_max
                || self.disk_bytes() > config.log_bytes_max)
        {
            *token += 1;
            self.background = Some(Background::Remove {
                file,
                token: *token,
            });
            ops.push(LogOp::Remove {
                segment: file.no,
                token: *token,
            });
        }
    }

    fn prepare(
        &mut self,
        segment: SegmentNo,
        config: &LogConfig,
        now_ns: u64,
        urgent: bool,
        token: &mut u64,
        ops: &mut Vec<LogOp>,
    ) {
        if self
            .blocked
            .as_ref()
            .is_some_and(|(_, retry_ns)| now_ns < *retry_ns)
        {
            return;
        }
        let recycle = self.free.front().copied();
        let more = if recycle.is_some() {
            0
        } else {
            config.segment_bytes
        };
        let beyond = if urgent { config.segment_bytes } else { 0 };
        if self.disk_bytes() + more > config.log_bytes_max + beyond {
            let why = format!(
                "the log has reached log_bytes_max ({} bytes); waiting for a snapshot to free segments",
                config.log_bytes_max
            );
            self.blocked = Some((why, now_ns + config.prepare_retry_ns));
            return;
        }
        *token += 1;
        self.background = Some(Background::Prepare {
            segment,
            recycle,
            token: *token,
        });
        ops.push(LogOp::Prepare {
            segment,
            recycle: recycle.map(|file| file.no),
            bytes: config.segment_bytes,
            key: self.key,
            token: *token,
        });
    }

    /// The answer to an op of ours; `false` when the token is not ours.
    pub fn done(
        &mut self,
        config: &LogConfig,
        now_ns: u64,
        token: u64,
        result: &std::io::Result<()>,
        formatted_bytes: u64,
    ) -> bool {
        let ours = match self.background {
            Some(
                Background::Prepare { token: ours, .. } | Background::Remove { token: ours, .. },
            ) => ours,
            None => return false,
        };
        if ours != token {
            return false;
        }
        match (self.background.take().expect("just seen"), result) {
            (
                Background::Prepare {
                    segment, recycle, ..
                },
                Ok(()),
            ) => {
                if recycle.is_some() {
                    self.free.pop_front();
                    self.recycled_total += u64::from(formatted_bytes == 0);
                }
                self.prepared_total += 1;
                self.formatted_bytes += formatted_bytes;
                self.blocked = None;
                // Rolled in the meantime: then it is live already, at this length.
                match self.live.iter_mut().find(|file| file.no == segment) {
                    Some(file) => file.exists = true,
                    None => self.prepared.push_back(File {
                        no: segment,
                        bytes: config.segment_bytes,
                        exists: true,
                    }),
                }
            }
            (Background::Prepare { segment, .. }, Err(error)) => {
                self.failures_total += 1;
                let why = format!("cannot prepare {}: {error}", segment.file_name());
                self.blocked = Some((why, now_ns + config.prepare_retry_ns));
            }
            (Background::Remove { .. }, Ok(())) => {
                self.free.pop_front();
            }
            // It stays in the list and is recycled, or its removal is tried again later.
            (Background::Remove { .. }, Err(_)) => {
                self.remove_retry_ns = now_ns + config.prepare_retry_ns;
            }
        }
        true
    }

    /// When a preparation should be tried again.
    pub fn retry_ns(&self) -> Option<u64> {
        let retry = self.blocked.as_ref().map(|(_, retry_ns)| *retry_ns);
        retry.filter(|_| self.background.is_none() && self.wanted().is_some())
    }

    /// Whether entries may be appended, with `used` bytes of the active segment taken.
    pub fn space(&self, config: &LogConfig, used: u64) -> Space {
        let active = self.active();
        let left = active.bytes.saturating_sub(used);
        let short = !active.exists || left < config.reserve_bytes();
        if !short || !self.prepared.is_empty() {
            return Space::Ok;
        }
        // Also before the preparation has failed: what is accepted now might wait for it for ever.
        let why = match &self.blocked {
            Some((why, _)) => why.clone(),
            None => "the next log segment is still being prepared".to_owned(),
        };
        Space::Full { why }
    }
}

//! How does a byte stream, split anywhere, become frames without trusting what it announces?
//!
//! One receive buffer, refilled in place. Its growth follows the bytes that came, never the
//! length that a header announces: it doubles only when it is full.
//!
//! ```text
//!           start        end          len
//!   +---------+-----------+------------+
//!   | handed  | received, | space()    |     len <= RECEIVE_BUFFER_BYTES, unless one frame
//!   | out     | not yet   |            |     longer than that is being received: then
//!   +---------+-----------+------------+     start = 0 and len <= that frame's length
//! ```
//!
//! *Frames up to the buffer's size* are copied out, all that are complete in one allocation of
//! exactly their size. A frame's views live as long as its slowest entry, and must not pin a
//! half-empty receive buffer meanwhile. (Giving the buffer itself away would cost as much: the
//! next one has to be zeroed.) *Longer frames* are given away with the buffer they arrived in,
//! which ends exactly where they end.

use bytes::{Buf, Bytes};

use crate::{Frame, WireError, frame::FrameHeader, limits};

/// Turns a byte stream, split anywhere, into frames.
///
/// Never allocates more than twice what arrived plus one receive buffer; an error is final for
/// the stream (the connection is closed).
#[derive(Debug)]
pub struct FrameDecoder {
    frame_bytes_max: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Length of the next receive buffer: small until a receive fills it.
    receive_bytes: usize,
    /// Complete frames, taken out of the buffer and not yet asked for.
    complete: Bytes,
    /// Total length of the unfinished frame at `start`, where its header has come.
    unfinished: Option<usize>,
    failed: Option<WireError>,
}

impl Default for FrameDecoder {
    /// A decoder with the limit of links between servers.
    fn default() -> Self {
        Self::new(limits::FRAME_BYTES_MAX)
    }
}

impl FrameDecoder {
    /// A decoder that accepts frames of at most `frame_bytes_max` bytes in all.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self {
            frame_bytes_max,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            receive_bytes: limits::RECEIVE_BUFFER_BYTES_MIN,
            complete: Bytes::new(),
            unfinished: None,
            failed: None,
        }
    }

    /// The space to receive the next bytes into: never empty. Follow with [`Self::received`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() < self.receive_bytes {
            let mut larger = vec![0; self.receive_bytes];
            larger[..self.end - self.start].copy_from_slice(&self.buffer[self.start..self.end]);
            self.buffer = larger;
            (self.start, self.end) = (0, self.end - self.start);
        } else if self.start > 0 && self.buffer.len() - self.end < self.buffer.len() / 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.grow();
        }
        &mut self.buffer[self.end..]
    }

    /// Says that the first `n` bytes of [`Self::space`] were filled.
    ///
    /// # Panics
    ///
    /// If `n` is more than the space there was.
    pub fn received(&mut self, n: usize) {
        assert!(n <= self.buffer.len() - self.end, "more than the space");
        self.end += n;
        if self.end == self.buffer.len() {
            self.receive_bytes = (2 * self.end).clamp(
                limits::RECEIVE_BUFFER_BYTES_MIN,
                limits::RECEIVE_BUFFER_BYTES,
            );
        }
    }

    /// The next whole frame, `None` when more bytes are needed. After an error, the same error.
    ///
    /// Ask until `None` after each receive: frames that are not asked for stay in the buffer.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.take_frame();
        if let Err(error) = &next {
            self.failed = Some(error.clone());
            self.complete = Bytes::new();
            (self.start, self.end, self.unfinished) = (0, 0, None);
        }
        next
    }

    fn take_frame(&mut self) -> Result<Option<Frame>, WireError> {
        if self.complete.is_empty() {
            let stop = self.end_of_complete()?;
            if stop == self.start {
                return Ok(None);
            }
            self.complete = self.take_until(stop);
        }
        let header = FrameHeader::read(&self.complete, self.frame_bytes_max)?
            .expect("`complete` ends where a frame ends");
        let whole = self.complete.split_to(header.total);
        header.open(whole).map(Some)
    }

    /// Where the last complete frame in the buffer ends. A bad header behind good frames is
    /// reported once they are taken.
    fn end_of_complete(&mut self) -> Result<usize, WireError> {
        let mut stop = self.start;
        self.unfinished = None;
        loop {
            match FrameHeader::read(&self.buffer[stop..self.end], self.frame_bytes_max) {
                Ok(Some(header)) if header.total <= self.end - stop => stop += header.total,
                Ok(Some(header)) => {
                    self.unfinished = Some(header.total);
                    return Ok(stop);
                }
                Ok(None) => return Ok(stop),
                Err(error) if stop == self.start => return Err(error),
                Err(_) => return Ok(stop),
            }
        }
    }

    /// Takes the bytes before `stop` out of the buffer, with the buffer if they fill it.
    fn take_until(&mut self, stop: usize) -> Bytes {
        if self.buffer.len() <= limits::RECEIVE_BUFFER_BYTES {
            let taken = Bytes::copy_from_slice(&self.buffer[self.start..stop]);
            self.start = stop;
            return taken;
        }
        let rest = self.buffer[stop..self.end].to_vec();
        let mut taken = Bytes::from(std::mem::replace(&mut self.buffer, rest));
        taken.truncate(stop);
        taken.advance(self.start);
        (self.start, self.end) = (0, self.buffer.len());
        taken
    }

    /// Doubles a full buffer, but not past the end of an unfinished frame that needs it.
    fn grow(&mut self) {
        let doubled = 2 * self.buffer.len();
        let wanted = match self.unfinished {
            Some(frame) if frame > self.buffer.len() => {
                doubled.min(frame.max(limits::RECEIVE_BUFFER_BYTES))
            }
            _ => doubled,
        };
        self.buffer.reserve_exact(wanted - self.buffer.len());
        self.buffer.resize(wanted, 0);
    }
}

//! What do the floor's processes say to each other?
//!
//! ```text
//! 0        4         8        16
//! +--------+---------+---------+----------------+
//! | kind   | length  | number  | length bytes   |
//! | u32    | u32     | u64     |                |
//! +--------+---------+---------+----------------+
//! ```
//! Little-endian, between processes of one build, never stored.

use std::io::{Read, Write};

use crate::{Context, Error, Result};

/// Length of what precedes the bytes.
pub const HEADER_BYTES: usize = 16;
/// Longest message; a floor server allocates no more for one.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What a message means; `number` in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Make this durable (round).
    Round = 1,
    /// A quorum has it, or as a follower's answer: it is durable here, with all before (round).
    Done = 2,
    /// Leader, make rounds by yourself (how many); the bytes say how large, u64.
    Drive = 3,
    /// The latencies of a drive, as a serialised histogram (how many).
    Driven = 4,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it means.
    pub kind: Kind,
    /// See [`Kind`].
    pub number: u64,
}

impl Message {
    /// A header.
    pub fn new(kind: Kind, number: u64) -> Self {
        Self { kind, number }
    }

    /// The header's bytes for a body of `length`.
    pub fn header(self, length: usize) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        out[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        out[8..].copy_from_slice(&self.number.to_le_bytes());
        out
    }

    /// Reads a header: the message and the length of its body.
    pub fn parse(header: &[u8; HEADER_BYTES]) -> Result<(Self, usize)> {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let number = u64::from_le_bytes(header[8..].try_into().expect("8 bytes"));
        let kind = match word(0) {
            1 => Kind::Round,
            2 => Kind::Done,
            3 => Kind::Drive,
            4 => Kind::Driven,
            other => return Err(Error::Server(format!("floor: unknown message {other}"))),
        };
        let length = word(4) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(Error::Server(format!("floor: message of {length} bytes")));
        }
        Ok((Self { kind, number }, length))
    }

    /// Sends header and body in one write.
    pub fn send(self, to: &mut impl Write, body: &[u8]) -> Result<()> {
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.extend_from_slice(&self.header(body.len()));
        out.extend_from_slice(body);
        to.write_all(&out).context(|| "floor: send".into())
    }

    /// Receives one message, its body into `body`.
    pub fn receive(from: &mut impl Read, body: &mut Vec<u8>) -> Result<Self> {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header)
            .context(|| "floor: receive".into())?;
        let (message, length) = Self::parse(&header)?;
        body.resize(length, 0);
        from.read_exact(body).context(|| "floor: receive".into())?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received() {
        for kind in [Kind::Round, Kind::Done, Kind::Drive, Kind::Driven] {
            let mut wire = Vec::new();
            Message::new(kind, 77).send(&mut wire, b"body").unwrap();
            let mut body = Vec::new();
            let got = Message::receive(&mut wire.as_slice(), &mut body).unwrap();
            assert_eq!(
                (got, body.as_slice()),
                (Message::new(kind, 77), &b"body"[..])
            );
        }
    }

    #[test]
    fn foreign_bytes_are_refused_before_anything_is_allocated() {
        assert!(Message::parse(b"GET / HTTP/1.1\r\n").is_err());
        let mut long = Message::new(Kind::Round, 1).header(0);
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Message::parse(&long).is_err());
    }
}

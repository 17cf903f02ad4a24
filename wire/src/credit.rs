//! How does whoever takes a long answer tell its maker to go on?
//!
//! Each forwarded answer has a window: its maker may be [`limits::REPLY_WINDOW_PIECES`] pieces
//! ahead. The taker gives them back as it takes them, so that a slow client of one server costs
//! neither that server nor the leader more than the window.

use bytes::Bytes;

use crate::codec;
use crate::generated::wire as fb;
use crate::{WireError, limits};

/// Pieces of an answer that were taken; the answer is named by the frame's request id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// How many, at most [`limits::REPLY_WINDOW_PIECES`]. 0: no more are wanted, the asker is gone.
    pub pieces: u32,
}

impl Credit {
    /// Verifies and reads one.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let credit = codec::root::<fb::Credit>("credit", bytes)?;
        let pieces = credit.pieces();
        codec::at_most("credit", pieces as usize, limits::REPLY_WINDOW_PIECES)?;
        Ok(Self { pieces })
    }

    /// Encodes one.
    pub fn encode(&self) -> Bytes {
        codec::encoded(|builder| {
            let pieces = self.pieces;
            let credit = fb::Credit::create(builder, &fb::CreditArgs { pieces });
            builder.finish_minimal(credit);
        })
    }
}

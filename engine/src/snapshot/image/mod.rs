//! What is in an image, byte for byte? (API first; bodies follow.)
use bytes::Bytes;
use wire::{ClusterId, Index, ShardId, Term};

use crate::fsm::{Fsm, FsmView};

/// What an image's header says besides the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageMeta {
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// Last applied index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Raft configuration at `index`, opaque here.
    pub configuration: Bytes,
    /// Feature level of the state.
    pub feature_level: u32,
    /// State digest at `index`.
    pub digest: u64,
}

/// Why bytes are not a whole, undamaged image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// To be refined.
    #[error("image damaged at byte {offset}: {what}")]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

/// Writes an image in slices; concatenate the pieces.
#[derive(Debug)]
pub struct ImageWriter {}

impl ImageWriter {
    /// An image of `view`; `view`'s index, term, digest and level go into the header.
    pub fn new(
        _view: FsmView,
        _cluster_id: ClusterId,
        _shard: ShardId,
        _configuration: Bytes,
    ) -> Self {
        todo!()
    }
    /// The next piece, about `budget` bytes of rows at most (and never more than a chunk);
    /// `None` after the last.
    pub fn next_chunk(&mut self, _budget: usize) -> Option<Bytes> {
        todo!()
    }
    /// Length in bytes of what `next_chunk` returned so far.
    pub fn written(&self) -> u64 {
        todo!()
    }
    /// The header.
    pub fn meta(&self) -> &ImageMeta {
        todo!()
    }
}

/// Reads an image from pieces split anywhere, verifies all of it and builds the state.
#[derive(Debug, Default)]
pub struct ImageLoader {}

impl ImageLoader {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// The next bytes of the file. An error is final. Work is bounded by the piece (plus one chunk).
    pub fn push(&mut self, _bytes: &[u8]) -> Result<(), ImageError> {
        todo!()
    }
    /// The header, once it has arrived and was verified.
    pub fn meta(&self) -> Option<&ImageMeta> {
        todo!()
    }
    /// The state, if every byte arrived and the digest agrees.
    pub fn finish(self) -> Result<(Fsm, ImageMeta), ImageError> {
        todo!()
    }
}

//! Where do the rows of an answer come from?
//!
//! From a cursor over this server's state, or in pieces from the server that leads. Whoever reads
//! them cannot tell, and never has more than a piece in memory.

use wire::{
    Failure, FailureKind, KvRow as WireRow, KvRowRef, Reply as WireReply, ReplyBody, limits,
};

use super::{
    answer::ROWS_PER_SLICE,
    gateway::{RowBatch, RowStream},
    window::Pieces,
};
use crate::{
    shard::failure,
    state::{KvList, KvRow},
};

/// Rows of an answer, wherever they come from.
pub enum Rows {
    /// All of them.
    Few(Vec<KvRow>),
    /// A cursor over this server's state.
    List(KvList),
    /// Pieces from the leader.
    Remote {
        /// The piece that came first.
        first: Option<Vec<WireRow>>,
        /// Where the others come from; `None` at the end.
        rest: Option<Pieces>,
    },
}

/// A piece of them.
pub enum Batch {
    /// From this server's state.
    Local(Vec<KvRow>),
    /// From the leader.
    Remote(Vec<WireRow>),
}

impl Batch {
    pub(super) fn into_wire(self) -> Vec<WireRow> {
        match self {
            Self::Remote(rows) => rows,
            Self::Local(rows) => rows.iter().map(|row| row.as_ref().to_row()).collect(),
        }
    }
}

impl RowStream for Rows {
    type Batch = Batch;

    async fn next_batch(&mut self) -> Option<Result<Batch, Failure>> {
        match self {
            Self::Few(rows) if rows.is_empty() => None,
            Self::Few(rows) => Some(Ok(Batch::Local(std::mem::take(rows)))),
            Self::List(list) => {
                let mut rows = Vec::new();
                list.next_rows(ROWS_PER_SLICE, limits::REPLY_BYTES_MAX, &mut rows);
                (!rows.is_empty()).then_some(Ok(Batch::Local(rows)))
            }
            Self::Remote { first, rest } => {
                if let Some(rows) = first.take().filter(|rows| !rows.is_empty()) {
                    return Some(Ok(Batch::Remote(rows)));
                }
                loop {
                    let piece = rest.as_mut()?.next().await;
                    match piece {
                        Some(WireReply {
                            body: ReplyBody::Rows(rows),
                            more,
                            ..
                        }) => {
                            if !more {
                                *rest = None;
                            }
                            if !rows.is_empty() {
                                return Some(Ok(Batch::Remote(rows)));
                            }
                        }
                        Some(WireReply {
                            body: ReplyBody::Failed(failure),
                            ..
                        }) => {
                            *rest = None;
                            return Some(Err(failure));
                        }
                        _ => {
                            *rest = None;
                            let why = "the connection to the leader broke while it was listing";
                            return Some(Err(failure(FailureKind::Internal, why)));
                        }
                    }
                }
            }
        }
    }
}

impl RowBatch for Batch {
    fn len(&self) -> usize {
        match self {
            Self::Local(rows) => rows.len(),
            Self::Remote(rows) => rows.len(),
        }
    }

    fn row(&self, at: usize) -> KvRowRef<'_> {
        match self {
            Self::Local(rows) => rows[at].as_ref(),
            Self::Remote(rows) => rows[at].borrow(),
        }
    }
}

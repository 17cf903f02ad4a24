//! How is an image written while the state it shows is being changed?
//!
//! From views, a chunk at a time: the caller asks for the next piece when it has time, and appends
//! the pieces to a file or sends them. Nothing here waits, and nothing is held of the live state.

use std::collections::VecDeque;

use bytes::Bytes;
use wire::{ClusterId, ShardId, limits};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    CHUNK_FILL_BYTES, CHUNK_HEADER_BYTES, CHUNK_MAGIC, FOOTER_BYTES, FOOTER_MAGIC, ImageMeta,
    header,
};
use crate::{
    fsm::FsmView,
    state::{schema::RowSource, table::digest_weight},
};

/// Writes an image in slices; the pieces in order are the image.
#[derive(Debug)]
pub struct ImageWriter {
    meta: ImageMeta,
    /// Number, rows and rows to come of each table that is not done.
    tables: VecDeque<(u16, Box<dyn RowSource>)>,
    /// Where each chunk begins.
    offsets: Vec<u64>,
    rows: u64,
    /// Of the rows as written.
    digest: u64,
    written: u64,
    header: Option<Vec<u8>>,
    done: bool,
}

impl ImageWriter {
    /// An image of `view`, of which index, term, digest and feature level go into the header.
    /// `configuration` is the raft configuration at the view's index, opaque here.
    pub fn new(view: FsmView, cluster_id: ClusterId, shard: ShardId, configuration: Bytes) -> Self {
        let meta = ImageMeta {
            cluster_id,
            shard,
            index: view.index,
            term: view.term,
            configuration,
            feature_level: view.feature_level,
            digest: view.digest,
        };
        // Tables without rows are not listed, so that a build which does not know a table can read
        // the images of one that does, for as long as nothing is in it.
        let mut sources = view.tables.sources();
        sources.retain(|(_, rows, _)| *rows > u64::from(mutant!(ImageMissesRow)));
        let counts: Vec<(u16, u64)> = sources
            .iter()
            .map(|(table, rows, _)| (*table, *rows))
            .collect();
        Self {
            header: Some(header::encode(&meta, &counts)),
            meta,
            tables: sources
                .into_iter()
                .map(|(table, _, source)| (table, source))
                .collect(),
            offsets: Vec::new(),
            rows: 0,
            digest: 0,
            written: 0,
            done: false,
        }
    }

    /// The header.
    pub fn meta(&self) -> &ImageMeta {
        &self.meta
    }

    /// Length of the pieces so far, bytes; after the last, of the image.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The next piece: a chunk of at least one row and about `budget` bytes at most (and never
    /// more than [`limits::IMAGE_CHUNK_BYTES_MAX`]), or header or footer. `None` after the last.
    ///
    /// # Panics
    /// If the rows are not those that the state machine's digest was kept of. The image is then
    /// worthless, and the state in memory not to be trusted.
    pub fn next_chunk(&mut self, budget: usize) -> Option<Bytes> {
        let piece = match self.header.take() {
            Some(header) => header,
            None => self.next_rows(budget).or_else(|| self.footer())?,
        };
        self.written += piece.len() as u64;
        Some(piece.into())
    }

    fn next_rows(&mut self, budget: usize) -> Option<Vec<u8>> {
        let budget = budget.clamp(CHUNK_HEADER_BYTES + 1, CHUNK_FILL_BYTES);
        let mut chunk = Vec::with_capacity(budget + budget / 8);
        loop {
            let (table, source) = self.tables.front_mut()?;
            chunk.resize(CHUNK_HEADER_BYTES, 0);
            let digest = &mut self.digest;
            let weight = digest_weight(*table);
            let mut each = |row: &[u8]| {
                *digest = digest.wrapping_add(xxh3_64(row).wrapping_mul(weight));
            };
            let rows = source.fill(budget, &mut each, &mut chunk);
            if rows > 0 {
                let table = *table;
                self.rows += u64::from(rows);
                self.seal(&mut chunk, table, rows);
                return Some(chunk);
            }
            self.tables.pop_front();
        }
    }

    /// Writes the chunk's header in front of its rows.
    fn seal(&mut self, chunk: &mut [u8], table: u16, rows: u32) {
        assert!(
            chunk.len() <= limits::IMAGE_CHUNK_BYTES_MAX,
            "rows are bounded by commands"
        );
        let payload = (chunk.len() - CHUNK_HEADER_BYTES) as u32;
        let number = self.offsets.len() as u32;
        chunk[0..4].copy_from_slice(CHUNK_MAGIC);
        chunk[4..8].copy_from_slice(&payload.to_le_bytes());
        chunk[8..12].copy_from_slice(&number.to_le_bytes());
        chunk[12..16].copy_from_slice(&rows.to_le_bytes());
        chunk[16..18].copy_from_slice(&table.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&chunk[..20]), &chunk[CHUNK_HEADER_BYTES..]);
        chunk[20..24].copy_from_slice(&crc.to_le_bytes());
        self.offsets.push(self.written);
    }

    fn footer(&mut self) -> Option<Vec<u8>> {
        if std::mem::replace(&mut self.done, true) {
            return None;
        }
        assert_eq!(
            self.digest, self.meta.digest,
            "the rows are the state that the digest was kept of"
        );
        let length = (FOOTER_BYTES + 8 * self.offsets.len()) as u32;
        let mut out = Vec::with_capacity(length as usize);
        out.extend_from_slice(FOOTER_MAGIC);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(self.offsets.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&self.digest.to_le_bytes());
        for offset in &self.offsets {
            out.extend_from_slice(&offset.to_le_bytes());
        }
        out.extend_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(out.len(), length as usize);
        Some(out)
    }
}

//! How does an image become a state, and what if a bit of it is wrong?
//!
//! Bytes are pushed in pieces split anywhere, from a disk or from the network. A chunk is looked
//! at once it is complete and its checksum holds, and its rows go straight into the tables being
//! built. Anything that is not exactly as a writer writes it is an error, and an error is final:
//! what was built so far is worth nothing.
//!
//! Invariant: never holds more than one incomplete header, chunk or footer beside the rows.

use wire::limits;

use super::{
    CHUNK_HEADER_BYTES, CHUNK_MAGIC, FOOTER_BYTES, FOOTER_MAGIC, ImageError, ImageMeta,
    header::{self, HEADER_START_BYTES, u16_at, u32_at, u64_at},
};
use crate::{
    fsm::{FEATURE_LEVEL, Fsm},
    state::{Store, Tables, schema::TablesBuilder},
};

/// Reads an image, verifies all of it and builds the state.
#[derive(Debug, Default)]
pub struct ImageLoader {
    /// The beginning of a part that has not arrived whole.
    partial: Vec<u8>,
    /// Where the next part begins.
    offset: u64,
    stage: Stage,
    header: Option<(ImageMeta, Vec<(u16, u64)>)>,
    builder: TablesBuilder,
    /// Which of the header's tables the last chunk belonged to.
    table_at: usize,
    offsets: Vec<u64>,
    rows: u64,
    footer_digest: u64,
    failed: Option<ImageError>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Header,
    /// Or the footer.
    Chunk,
    End,
}

impl ImageLoader {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The header, once it has arrived and was verified.
    pub fn meta(&self) -> Option<&ImageMeta> {
        self.header.as_ref().map(|(meta, _)| meta)
    }

    /// Takes the next bytes of the image. Work is bounded by the piece and one chunk. An error is
    /// final: the same is returned ever after.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.take(bytes)
            .inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), ImageError> {
        while !bytes.is_empty() {
            if self.stage == Stage::End {
                return Err(ImageError::Trailing {
                    offset: self.offset,
                });
            }
            if self.partial.is_empty()
                && let Some(length) = self.part_length(bytes)?
                && length <= bytes.len()
            {
                let (part, rest) = bytes.split_at(length);
                self.accept(part)?;
                bytes = rest;
                continue;
            }
            let missing = match self.part_length(&self.partial)? {
                Some(length) => length - self.partial.len(),
                None => self.start_bytes() - self.partial.len(),
            };
            let (more, rest) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(more);
            bytes = rest;
            if self.part_length(&self.partial)? == Some(self.partial.len()) {
                let part = std::mem::take(&mut self.partial);
                self.accept(&part)?;
                self.partial = part;
                self.partial.clear();
            }
        }
        Ok(())
    }

    /// How many bytes of the next part say how long it is.
    fn start_bytes(&self) -> usize {
        match self.stage {
            Stage::Header => HEADER_START_BYTES,
            Stage::Chunk | Stage::End => 8,
        }
    }

    /// Length of the part that begins with `bytes`, `None` if there are too few to tell.
    fn part_length(&self, bytes: &[u8]) -> Result<Option<usize>, ImageError> {
        if bytes.len() < self.start_bytes() {
            return Ok(None);
        }
        if self.stage == Stage::Header {
            return header::length(bytes).map(Some);
        }
        let length = u32_at(bytes, 4) as usize;
        if bytes[..4] == *CHUNK_MAGIC {
            return match CHUNK_HEADER_BYTES.checked_add(length) {
                Some(whole) if whole <= limits::IMAGE_CHUNK_BYTES_MAX => Ok(Some(whole)),
                _ => Err(self.malformed("chunk", format!("a payload of {length} bytes"))),
            };
        }
        if bytes[..4] == *FOOTER_MAGIC {
            if length != FOOTER_BYTES + 8 * self.offsets.len() {
                return Err(self.malformed(
                    "footer",
                    format!("{length} bytes after {} chunks", self.offsets.len()),
                ));
            }
            return Ok(Some(length));
        }
        Err(self.malformed("chunk", "neither a chunk nor a footer".to_owned()))
    }

    fn malformed(&self, what: &'static str, why: String) -> ImageError {
        ImageError::Malformed {
            what,
            offset: self.offset,
            why,
        }
    }

    /// Takes in a part that has arrived whole.
    fn accept(&mut self, part: &[u8]) -> Result<(), ImageError> {
        match self.stage {
            Stage::Header => self.accept_header(part)?,
            _ if part[..4] == *CHUNK_MAGIC => self.accept_chunk(part)?,
            _ => self.accept_footer(part)?,
        }
        self.offset += part.len() as u64;
        Ok(())
    }

    fn accept_header(&mut self, part: &[u8]) -> Result<(), ImageError> {
        let (meta, tables) = header::decode(part)?;
        if meta.feature_level > FEATURE_LEVEL {
            return Err(ImageError::FeatureLevel {
                found: meta.feature_level,
                known: FEATURE_LEVEL,
            });
        }
        if !tables.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(self.malformed("header", "tables are not in ascending order".to_owned()));
        }
        if let Some((table, _)) = tables
            .iter()
            .find(|(table, _)| !Tables::ALL.iter().any(|(known, _)| known == table))
        {
            return Err(self.malformed(
                "header",
                format!("table {table} is not known to this build"),
            ));
        }
        self.header = Some((meta, tables));
        self.stage = Stage::Chunk;
        Ok(())
    }

    fn accept_chunk(&mut self, part: &[u8]) -> Result<(), ImageError> {
        let (header, payload) = part.split_at(CHUNK_HEADER_BYTES);
        if crc32c::crc32c_append(crc32c::crc32c(&header[..20]), payload) != u32_at(header, 20) {
            return Err(ImageError::Checksum {
                what: "chunk",
                offset: self.offset,
            });
        }
        let (number, rows, table) = (u32_at(header, 8), u32_at(header, 12), u16_at(header, 16));
        if number as usize != self.offsets.len() {
            return Err(self.malformed(
                "chunk",
                format!("number {number} in place {}", self.offsets.len()),
            ));
        }
        if rows == 0 || u16_at(header, 18) != 0 {
            return Err(self.malformed("chunk", "no rows, or reserved bytes in use".to_owned()));
        }
        self.move_to_table(table)?;
        self.accept_rows(table, rows, payload)?;
        self.offsets.push(self.offset);
        self.rows += u64::from(rows);
        Ok(())
    }

    /// Tables come in the header's order, and none is gone back to.
    fn move_to_table(&mut self, table: u16) -> Result<(), ImageError> {
        let (_, tables) = self.header.as_ref().expect("the header came first");
        match tables[self.table_at..]
            .iter()
            .position(|(other, _)| *other == table)
        {
            Some(ahead) => self.table_at += ahead,
            None => {
                return Err(self.malformed(
                    "chunk",
                    format!("table {table} is not listed, or came before"),
                ));
            }
        }
        Ok(())
    }

    fn accept_rows(&mut self, table: u16, rows: u32, mut payload: &[u8]) -> Result<(), ImageError> {
        for _ in 0..rows {
            let row = payload.split_first_chunk::<4>().and_then(|(length, rest)| {
                let length = u32::from_le_bytes(*length) as usize;
                (length <= rest.len()).then(|| rest.split_at(length))
            });
            let Some((row, rest)) = row else {
                return Err(self.malformed("chunk", "a row reaches beyond it".to_owned()));
            };
            self.builder
                .push(table, row)
                .map_err(|why| self.malformed("chunk", why.to_string()))?;
            payload = rest;
        }
        if !payload.is_empty() {
            return Err(self.malformed("chunk", "bytes behind its last row".to_owned()));
        }
        Ok(())
    }

    fn accept_footer(&mut self, part: &[u8]) -> Result<(), ImageError> {
        let (covered, crc) = part.split_at(part.len() - 4);
        if crc32c::crc32c(covered) != u32_at(crc, 0) {
            return Err(ImageError::Checksum {
                what: "footer",
                offset: self.offset,
            });
        }
        let listed = part[32..part.len() - 8]
            .chunks_exact(8)
            .map(|offset| u64_at(offset, 0));
        let agrees = u32_at(part, 8) as usize == self.offsets.len()
            && u32_at(part, 12) == 0
            && u64_at(part, 16) == self.rows
            && listed.eq(self.offsets.iter().copied())
            && u32_at(part, part.len() - 8) as usize == part.len();
        if !agrees {
            return Err(self.malformed(
                "footer",
                "it does not describe the chunks before it".to_owned(),
            ));
        }
        self.footer_digest = u64_at(part, 24);
        self.stage = Stage::End;
        Ok(())
    }

    /// The state machine as it was, and the header, if every byte has arrived and all agrees.
    pub fn finish(self) -> Result<(Fsm, ImageMeta), ImageError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (meta, tables) = match self.header {
            Some(header) if self.stage == Stage::End => header,
            _ => {
                return Err(ImageError::Truncated {
                    length: self.offset + self.partial.len() as u64,
                });
            }
        };
        if let Some((table, rows)) = tables
            .iter()
            .find(|(table, rows)| self.builder.rows(*table) != *rows)
        {
            let why = format!(
                "table {table} has {} rows, not {rows}",
                self.builder.rows(*table)
            );
            return Err(ImageError::Malformed {
                what: "header",
                offset: 0,
                why,
            });
        }
        let store = Store::with_tables(self.builder.finish());
        let found = store.digest();
        for (place, named) in [("footer", self.footer_digest), ("header", meta.digest)] {
            if named != found {
                return Err(ImageError::Digest {
                    place,
                    named,
                    found,
                });
            }
        }
        Ok((
            Fsm::from_parts(store, meta.index, meta.term, meta.feature_level),
            meta,
        ))
    }
}

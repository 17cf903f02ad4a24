//! How does a server under repair get an image?
//!
//! It pulls the pieces one by one from the peer that named it, checks each and the whole, and
//! stores it under its final name only when it is whole and durable. Until then nothing has
//! changed, whatever is cut short; what is left of an attempt is removed by the next one, or when
//! the shards are opened.

use bytes::Bytes;
use wire::{ClusterId, ImageChunk, ImageFetch, ServerId, limits};

use crate::{
    io::Disk,
    snapshot::{
        image::{ImageLoader, ImageMeta},
        names::ImageName,
    },
};

/// An image that is being pulled.
pub(super) struct Pull {
    /// The peer.
    pub from: ServerId,
    /// The image.
    pub name: ImageName,
    cluster: ClusterId,
    loader: ImageLoader,
    offset: u64,
}

/// What a piece led to.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    /// It is not the one that was asked for, or was damaged on its way.
    None,
    /// The next one is wanted.
    Piece,
    /// The image is whole, verified and durable under its final name.
    Whole(ImageMeta),
}

impl Pull {
    /// Begins to pull an image of this cluster. `disk` is the folder of images.
    pub fn begin(
        from: ServerId,
        name: ImageName,
        cluster: ClusterId,
        disk: &dyn Disk,
    ) -> Result<Self, String> {
        // Pieces are written into place: a longer attempt must not stay behind a shorter one.
        disk.remove(&name.temporary_name())
            .map_err(|error| format!("{}: {error}", name.temporary_name()))?;
        Ok(Self {
            from,
            name,
            cluster,
            loader: ImageLoader::new(),
            offset: 0,
        })
    }

    /// The next piece wanted.
    pub fn wanted(&self) -> ImageFetch {
        ImageFetch {
            index: self.name.index,
            term: self.name.term,
            offset: self.offset,
            length: limits::IMAGE_CHUNK_BYTES_MAX as u32,
        }
    }

    /// Takes a piece. An error ends the pull.
    pub fn take(
        &mut self,
        disk: &dyn Disk,
        from: ServerId,
        chunk: &ImageChunk,
        bytes: &Bytes,
    ) -> Result<Progress, String> {
        let asked = (self.from, self.name.index, self.name.term, self.offset);
        if (from, chunk.index, chunk.term, chunk.offset) != asked {
            return Ok(Progress::None);
        }
        if chunk.missing {
            return Err("the peer no longer has it".to_owned());
        }
        if chunk.check(bytes).is_err() {
            return Ok(Progress::None);
        }
        let file = self.name.temporary_name();
        self.loader
            .push(bytes)
            .map_err(|error| format!("it is damaged: {error}"))?;
        disk.write_at(&file, self.offset, bytes)
            .map_err(|error| format!("{file}: {error}"))?;
        self.offset += bytes.len() as u64;
        if self.offset < chunk.total {
            return Ok(Progress::Piece);
        }
        let meta = self.verify()?;
        disk.sync(&file)
            .and_then(|()| disk.rename(&file, &self.name.file_name()))
            .map_err(|error| format!("{file}: {error}"))?;
        Ok(Progress::Whole(meta))
    }

    fn verify(&mut self) -> Result<ImageMeta, String> {
        let loader = std::mem::take(&mut self.loader);
        let (_, meta) = loader
            .finish()
            .map_err(|error| format!("it is damaged: {error}"))?;
        let name = self.name;
        let wanted = (self.cluster, name.shard, name.index, name.term);
        if (meta.cluster_id, meta.shard, meta.index, meta.term) != wanted {
            return Err("it is not the one that was asked for".to_owned());
        }
        Ok(meta)
    }
}

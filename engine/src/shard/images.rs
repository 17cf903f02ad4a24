//! How is the log kept short, and a follower that fell behind it brought up?
//!
//! *Writing*: when a shard's log outgrew its bound ([`Images::is_due`]), a view of the state is
//! taken (O(1)) and written in slices, one piece at a time, paced by the background lane: each finished write
//! lets the next slice be made. Only when the file is durable under its final name is a
//! checkpoint put into the log, and only when that is durable may older segments go.
//!
//! *Sending*: raft-rs's snapshot message carries a descriptor; the follower pulls the pieces.
//! While it does, the log behind the image stays, so that it can catch up afterwards.
//!
//! *Receiving*: pieces are verified, written to a temporary file and built into a new state as
//! they arrive. Only a whole, verified, durable image is given to raft; until then the old
//! image and log stand, and a crash at any point leaves one or the other.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use wire::{
    ClusterId, ImageChunk, ImageFetch, Index, Lsn, RaftEnvelope, ServerId, ShardId, Term, limits,
};

use super::event::{Effects, Notice, Transfer};
use crate::{
    fsm::{Fsm, FsmView},
    io::{FileDone, FileOp},
    snapshot::{
        image::{ImageLoader, ImageMeta, ImageWriter},
        names::ImageName,
    },
};

/// Bounds of image making.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    /// Applied payload since the last image that calls for a new one at once, bytes.
    pub threshold_bytes: u64,
    /// Entries applied since the last image that call for a new one at the next look
    /// (`raft_snapshot_threshold`).
    pub threshold_entries: u64,
    /// Between two looks at the entries, ns (`raft_snapshot_interval`).
    pub interval_ns: u64,
    /// Rows made into one piece at a time, bytes: bounds the time a slice takes.
    pub slice_bytes: usize,
    /// A follower that asked for no piece for so long has given up, ns.
    pub idle_ns_max: u64,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            threshold_bytes: 128 << 20,
            threshold_entries: 16_384,
            interval_ns: 30_000_000_000,
            slice_bytes: 128 << 10,
            idle_ns_max: 5_000_000_000,
        }
    }
}

/// What a finished file operation means for the shard.
#[derive(Debug)]
pub enum ImageEvent {
    /// Our own image is durable: put the checkpoint.
    Written(ImageName, u64),
    /// A received image is durable: let raft have its message, then [`Images::take_loaded`].
    Received(Box<(ServerId, RaftEnvelope)>),
    /// A piece that a peer asked for was read.
    Nothing,
}

#[derive(Debug)]
enum Purpose {
    Slice,
    Publish,
    Serve { to: ServerId, chunk: ImageChunk },
    Receive,
    PublishReceived,
    Remove,
}

#[derive(Debug)]
struct Writing {
    writer: ImageWriter,
    name: ImageName,
    offset: u64,
}

#[derive(Debug)]
struct Receiving {
    from: ServerId,
    message: RaftEnvelope,
    name: ImageName,
    loader: ImageLoader,
    offset: u64,
    total: u64,
    asked_ns: u64,
}

/// A follower that pulls an image.
#[derive(Debug)]
struct Serving {
    active_ns: u64,
}

/// A received image, whole and verified.
#[derive(Debug)]
pub struct Loaded {
    /// The state it holds.
    pub fsm: Fsm,
    /// Its header.
    pub meta: ImageMeta,
    /// Its name.
    pub name: ImageName,
    /// Its size, bytes.
    pub bytes: u64,
}

/// Images of one shard.
#[derive(Debug)]
pub struct Images {
    shard: ShardId,
    cluster_id: ClusterId,
    config: ImageConfig,
    purposes: BTreeMap<u64, Purpose>,
    next_token: u64,
    writing: Option<Writing>,
    receiving: Option<Receiving>,
    loaded: Option<Loaded>,
    serving: BTreeMap<ServerId, Serving>,
    /// Images whose checkpoint is in the log with their sizes in bytes, oldest first.
    kept: Vec<(ImageName, u64)>,
    /// Images that go when the log is durable so far, oldest first.
    leaving: VecDeque<(Lsn, ImageName)>,
    applied_bytes: u64,
    applied_entries: u64,
    image_bytes: u64,
    /// When the entries are looked at next, ns.
    look_ns: u64,
    /// Not before this time after a failure, ns.
    retry_ns: u64,
}

/// Images kept on disk: the newest, and the one before it that a follower may be pulling.
pub const IMAGES_KEPT_MAX: usize = 2;

impl Images {
    /// `kept`: images found on disk that the log's checkpoint vouches for, with their sizes in bytes.
    pub fn new(
        shard: ShardId,
        cluster_id: ClusterId,
        config: ImageConfig,
        kept: Vec<(ImageName, u64)>,
    ) -> Self {
        let image_bytes = kept.last().map_or(0, |(_, bytes)| *bytes);
        Self {
            shard,
            cluster_id,
            config,
            purposes: BTreeMap::new(),
            next_token: 0,
            writing: None,
            receiving: None,
            loaded: None,
            serving: BTreeMap::new(),
            kept,
            leaving: VecDeque::new(),
            applied_bytes: 0,
            applied_entries: 0,
            image_bytes,
            look_ns: 0,
            retry_ns: 0,
        }
    }

    /// The shard that a file token belongs to.
    pub fn shard_of(token: u64) -> ShardId {
        ShardId((token >> 48) as u16)
    }

    fn token(&mut self, purpose: Purpose) -> u64 {
        self.next_token += 1;
        let token = u64::from(self.shard.0) << 48 | self.next_token;
        self.purposes.insert(token, purpose);
        token
    }

    /// Counts what was applied since the last image.
    pub fn count_applied(&mut self, entries: u64, bytes: u64) {
        self.applied_entries += entries;
        self.applied_bytes += bytes;
    }

    /// Bounds from now on; the entries are looked at with the next turn.
    pub fn set_bounds(&mut self, threshold_entries: u64, interval_ns: u64) {
        self.config.threshold_entries = threshold_entries;
        self.config.interval_ns = interval_ns;
        self.look_ns = 0;
    }

    /// Whether an image should be begun. `wanted`: a follower needs one whatever the size of the
    /// log. `pinned`: the log cannot keep to its bound without one. Otherwise none is begun while
    /// a follower pulls one, because the log behind that one is what it will catch up from.
    ///
    /// Consul's two keys mean what they mean there: every `raft_snapshot_interval` the entries
    /// since the last image are held against `raft_snapshot_threshold`. A fast log is also bounded
    /// in bytes, at once. Either way no image is written for less than half of its own size in new
    /// log, so that keeping a large state short costs at most two bytes per byte written.
    pub fn is_due(&mut self, now_ns: u64, wanted: bool, pinned: bool) -> bool {
        let looked = now_ns >= self.look_ns;
        if looked {
            self.look_ns = now_ns + self.config.interval_ns;
        }
        let many = looked && self.applied_entries >= self.config.threshold_entries;
        let outgrown = (many || self.applied_bytes >= self.config.threshold_bytes)
            && self.applied_bytes >= self.image_bytes / 2
            && self.serving.is_empty();
        self.writing.is_none()
            && self.receiving.is_none()
            && self.loaded.is_none()
            && now_ns >= self.retry_ns
            && (wanted || pinned || outgrown)
    }

    /// Begins an image of `view`.
    pub fn begin(&mut self, view: FsmView, configuration: Bytes, effects: &mut Effects) {
        let name = ImageName {
            shard: self.shard,
            index: view.index,
            term: view.term,
        };
        if self.kept.last().is_some_and(|(kept, _)| *kept == name) {
            return;
        }
        let writer = ImageWriter::new(view, self.cluster_id, self.shard, configuration);
        (self.applied_bytes, self.applied_entries) = (0, 0);
        self.writing = Some(Writing {
            writer,
            name,
            offset: 0,
        });
        self.write_slice(effects);
    }

    fn write_slice(&mut self, effects: &mut Effects) {
        let slice_bytes = self.config.slice_bytes;
        let Some(writing) = &mut self.writing else {
            return;
        };
        let name = writing.name;
        match writing.writer.next_chunk(slice_bytes) {
            Some(bytes) => {
                let offset = writing.offset;
                writing.offset += bytes.len() as u64;
                let token = self.token(Purpose::Slice);
                effects.files.push(FileOp::Write {
                    name: name.temporary_name(),
                    offset,
                    bytes,
                    token,
                });
            }
            None => {
                self.image_bytes = writing.offset;
                let token = self.token(Purpose::Publish);
                let (from, to) = (name.temporary_name(), name.file_name());
                effects.files.push(FileOp::Publish { from, to, token });
            }
        }
    }

    /// A background file operation of this shard ended.
    pub fn file_done(&mut self, now_ns: u64, done: FileDone, effects: &mut Effects) -> ImageEvent {
        let Some(purpose) = self.purposes.remove(&done.token) else {
            return ImageEvent::Nothing;
        };
        match (purpose, done.result) {
            (Purpose::Slice, Ok(_)) => {
                self.write_slice(effects);
                if mutant!(ImageNamedEarly)
                    && let Some(FileOp::Publish { .. }) = effects.files.last()
                    && let Some(writing) = self.writing.take()
                {
                    return ImageEvent::Written(writing.name, writing.offset);
                }
            }
            (Purpose::Publish, Ok(_)) => {
                if let Some(writing) = self.writing.take() {
                    return ImageEvent::Written(writing.name, writing.offset);
                }
            }
            (Purpose::Slice | Purpose::Publish, Err(error)) => {
                let name = self.writing.take().map(|writing| writing.name);
                self.give_up(
                    now_ns,
                    name,
                    &format!("writing an image failed: {error}"),
                    effects,
                );
            }
            (Purpose::Serve { to, mut chunk }, result) => {
                let bytes = result.unwrap_or_default();
                chunk.missing = bytes.is_empty();
                chunk.crc = crc32c::crc32c(&bytes);
                let transfer = Transfer::ImageChunk(chunk, bytes);
                effects.transfers.push((to, self.shard, transfer));
            }
            (Purpose::Receive, Ok(_)) => {}
            (Purpose::PublishReceived, Ok(_)) => {
                if let Some(receiving) = self.receiving.take() {
                    return ImageEvent::Received(Box::new((receiving.from, receiving.message)));
                }
            }
            (Purpose::Receive | Purpose::PublishReceived, Err(error)) => {
                self.loaded = None;
                let name = self.receiving.take().map(|receiving| receiving.name);
                self.give_up(
                    now_ns,
                    name,
                    &format!("storing an image failed: {error}"),
                    effects,
                );
            }
            (Purpose::Remove, _) => {}
        }
        ImageEvent::Nothing
    }

    fn give_up(&mut self, now_ns: u64, name: Option<ImageName>, why: &str, effects: &mut Effects) {
        self.retry_ns = now_ns + self.config.idle_ns_max;
        let shard = self.shard;
        effects.notices.push(Notice::Warn(format!(
            "shard {shard}: {why}; it will be tried again"
        )));
        if let Some(name) = name {
            let token = self.token(Purpose::Remove);
            effects.files.push(FileOp::Remove {
                name: name.temporary_name(),
                token,
            });
        }
    }

    /// The checkpoint of this image is in the log, as part of the batch `checkpoint`: older images may
    /// go once that is durable.
    pub fn keep(&mut self, name: ImageName, bytes: u64, checkpoint: Lsn) {
        self.image_bytes = bytes;
        self.kept.push((name, bytes));
        while self.kept.len() > IMAGES_KEPT_MAX {
            let (old, _) = self.kept.remove(0);
            self.leaving.push_back((checkpoint, old));
        }
    }

    /// Removes the images that no durable checkpoint can name any longer.
    pub fn release(&mut self, durable: Lsn, effects: &mut Effects) {
        while let Some((_, old)) = self.leaving.pop_front_if(|(needed, _)| *needed <= durable) {
            let token = self.token(Purpose::Remove);
            effects.files.push(FileOp::Remove {
                name: old.file_name(),
                token,
            });
        }
    }

    // ------------------------------------------------------------------ sending

    /// The newest image that a peer can be given.
    pub fn newest(&self) -> Option<ImageName> {
        self.kept.last().map(|(name, _)| *name)
    }

    /// A follower was sent a snapshot message, or a damaged peer the name of an image.
    pub fn offered(&mut self, now_ns: u64, to: ServerId) {
        self.serving.insert(to, Serving { active_ns: now_ns });
    }

    /// A peer asks for a piece.
    pub fn serve(&mut self, now_ns: u64, to: ServerId, fetch: &ImageFetch, effects: &mut Effects) {
        if let Some(serving) = self.serving.get_mut(&to) {
            serving.active_ns = now_ns;
        }
        let name = ImageName {
            shard: self.shard,
            index: fetch.index,
            term: fetch.term,
        };
        let mut chunk = ImageChunk {
            index: fetch.index,
            term: fetch.term,
            offset: fetch.offset,
            ..ImageChunk::default()
        };
        let Some((_, total)) = self.kept.iter().find(|(kept, _)| *kept == name) else {
            chunk.missing = true;
            effects
                .transfers
                .push((to, self.shard, Transfer::ImageChunk(chunk, Bytes::new())));
            return;
        };
        chunk.total = *total;
        let length = (fetch.length as usize).min(limits::IMAGE_CHUNK_BYTES_MAX);
        let token = self.token(Purpose::Serve { to, chunk });
        effects.files.push(FileOp::Read {
            name: name.file_name(),
            offset: fetch.offset,
            length,
            token,
        });
    }

    /// Followers that stopped asking, to be reported to raft as failed.
    pub fn take_idle(&mut self, now_ns: u64) -> Vec<ServerId> {
        let idle_ns_max = self.config.idle_ns_max;
        let idle: Vec<ServerId> = self
            .serving
            .iter()
            .filter(|(_, serving)| now_ns > serving.active_ns + idle_ns_max)
            .map(|(server, _)| *server)
            .collect();
        for server in &idle {
            self.serving.remove(server);
        }
        idle
    }

    // ------------------------------------------------------------------ receiving

    /// A snapshot message arrived: begins to pull the image, unless that very one is being pulled.
    pub fn receive(
        &mut self,
        now_ns: u64,
        from: ServerId,
        message: RaftEnvelope,
        effects: &mut Effects,
    ) {
        let meta = message.message.get_snapshot().get_metadata();
        let name = ImageName {
            shard: self.shard,
            index: Index(meta.index),
            term: Term(meta.term),
        };
        if let Some(receiving) = &mut self.receiving {
            // One that is whole is being put in its place. The disk answers, however slowly, and its
            // answer must not be taken for that of another.
            let whole = self.loaded.is_some();
            let alive = whole || now_ns < receiving.asked_ns + self.config.idle_ns_max;
            if alive && receiving.name == name && receiving.from == from {
                receiving.message = message;
                return;
            }
            if whole {
                return;
            }
            let old = receiving.name;
            let token = self.token(Purpose::Remove);
            effects.files.push(FileOp::Remove {
                name: old.temporary_name(),
                token,
            });
        }
        effects.notices.push(Notice::Info(format!(
            "shard {}: this server is behind the leader's log; fetching the image at index {}",
            self.shard, name.index
        )));
        self.loaded = None;
        self.receiving = Some(Receiving {
            from,
            message,
            name,
            loader: ImageLoader::new(),
            offset: 0,
            total: u64::MAX,
            asked_ns: now_ns,
        });
        self.ask(now_ns, effects);
    }

    fn ask(&mut self, now_ns: u64, effects: &mut Effects) {
        let Some(receiving) = &mut self.receiving else {
            return;
        };
        receiving.asked_ns = now_ns;
        let fetch = ImageFetch {
            index: receiving.name.index,
            term: receiving.name.term,
            offset: receiving.offset,
            length: limits::IMAGE_CHUNK_BYTES_MAX as u32,
        };
        effects
            .transfers
            .push((receiving.from, self.shard, Transfer::ImageFetch(fetch)));
    }

    /// A piece arrived. A damaged one is asked for again; an image that is damaged as a whole is
    /// given up, and the leader will offer one anew.
    pub fn chunk(
        &mut self,
        now_ns: u64,
        from: ServerId,
        chunk: &ImageChunk,
        bytes: Bytes,
        effects: &mut Effects,
    ) {
        let Some(receiving) = &mut self.receiving else {
            return;
        };
        let wanted = receiving.from == from
            && (receiving.name.index, receiving.name.term) == (chunk.index, chunk.term)
            && receiving.offset == chunk.offset;
        if !wanted {
            return;
        }
        let name = receiving.name;
        if chunk.missing {
            self.receiving = None;
            return self.give_up(
                now_ns,
                Some(name),
                "the leader no longer has the image it offered",
                effects,
            );
        }
        if crc32c::crc32c(&bytes) != chunk.crc {
            return self.ask(now_ns, effects);
        }
        if let Err(error) = receiving.loader.push(&bytes) {
            self.receiving = None;
            return self.give_up(
                now_ns,
                Some(name),
                &format!("the image offered is damaged: {error}"),
                effects,
            );
        }
        receiving.total = chunk.total;
        let offset = receiving.offset;
        receiving.offset += bytes.len() as u64;
        let whole = receiving.offset >= receiving.total;
        let token = self.token(Purpose::Receive);
        effects.files.push(FileOp::Write {
            name: name.temporary_name(),
            offset,
            bytes,
            token,
        });
        if whole {
            self.finish_receiving(now_ns, effects);
        } else {
            self.ask(now_ns, effects);
        }
    }

    fn finish_receiving(&mut self, now_ns: u64, effects: &mut Effects) {
        let Some(receiving) = &mut self.receiving else {
            return;
        };
        let (name, bytes) = (receiving.name, receiving.total);
        let loaded = std::mem::take(&mut receiving.loader).finish();
        let checked = loaded
            .map_err(|error| error.to_string())
            .and_then(|(fsm, meta)| {
                let right = (meta.cluster_id, meta.shard, meta.index, meta.term)
                    == (self.cluster_id, name.shard, name.index, name.term);
                right
                    .then_some((fsm, meta))
                    .ok_or_else(|| "it is not the one that was offered".to_owned())
            });
        match checked {
            Ok((fsm, meta)) => {
                self.loaded = Some(Loaded {
                    fsm,
                    meta,
                    name,
                    bytes,
                });
                let token = self.token(Purpose::PublishReceived);
                let (from, to) = (name.temporary_name(), name.file_name());
                effects.files.push(FileOp::Publish { from, to, token });
            }
            Err(why) => {
                self.receiving = None;
                self.give_up(
                    now_ns,
                    Some(name),
                    &format!("the image offered is damaged: {why}"),
                    effects,
                );
            }
        }
    }

    /// The state built from a received image, once raft has accepted its message. An image that is
    /// being written is given up: it may be older than the one that came.
    pub fn take_loaded(&mut self, effects: &mut Effects) -> Option<Loaded> {
        (self.applied_bytes, self.applied_entries) = (0, 0);
        if let Some(Writing { name, .. }) = self.writing.take() {
            // It has either name by now; operations are in order.
            for file in [name.temporary_name(), name.file_name()] {
                let token = self.token(Purpose::Remove);
                effects.files.push(FileOp::Remove { name: file, token });
            }
        }
        self.loaded.take()
    }

    /// Raft did not want the image after all (it had caught up meanwhile).
    pub fn drop_loaded(&mut self, effects: &mut Effects) {
        if let Some(Loaded { name, .. }) = self.loaded.take() {
            let token = self.token(Purpose::Remove);
            effects.files.push(FileOp::Remove {
                name: name.file_name(),
                token,
            });
        }
    }

    /// Gives up a transfer whose leader has fallen silent, so that another may begin.
    pub fn expire(&mut self, now_ns: u64, effects: &mut Effects) {
        let idle = |receiving: &Receiving| now_ns > receiving.asked_ns + self.config.idle_ns_max;
        if self.loaded.is_none() && self.receiving.as_ref().is_some_and(idle) {
            let name = self.receiving.take().map(|receiving| receiving.name);
            self.give_up(
                now_ns,
                name,
                "the leader stopped sending its image",
                effects,
            );
        }
    }

    /// Size of the newest image written here, bytes.
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1 << 40;

    fn images(threshold_entries: u64, image_bytes: u64) -> Images {
        let config = ImageConfig {
            threshold_entries,
            interval_ns: 100,
            ..ImageConfig::default()
        };
        let name = ImageName {
            shard: ShardId(0),
            index: Index(5),
            term: Term(1),
        };
        Images::new(
            ShardId(0),
            ClusterId::default(),
            config,
            vec![(name, image_bytes)],
        )
    }

    /// Old images went when a newer one's checkpoint was put into the log, before it was durable. With
    /// three of them within one stalled write of the log, the only durable checkpoint named one that
    /// was gone, and the server would not have started after a power cut.
    #[test]
    fn an_image_goes_only_when_no_durable_checkpoint_can_name_it() {
        let mut images = images(10, 0);
        let at = |index| ImageName {
            index: Index(index),
            ..images.kept[0].0
        };
        let names = [at(6), at(7), at(8)];
        let mut effects = Effects::default();
        let removed = |effects: &mut Effects| effects.files.drain(..).count();
        for (name, lsn) in names.into_iter().zip([3, 3, 4]) {
            images.keep(name, 0, Lsn(lsn));
        }
        images.release(Lsn(2), &mut effects);
        assert_eq!(
            removed(&mut effects),
            0,
            "the image at 5 may be the durable one"
        );
        images.release(Lsn(3), &mut effects);
        assert_eq!(
            removed(&mut effects),
            1,
            "that at 7 is, and that at 6 its elder"
        );
        images.release(Lsn(4), &mut effects);
        assert_eq!(removed(&mut effects), 1);
        assert_eq!(images.newest(), Some(names[2]));
    }

    #[test]
    fn entries_count_at_each_look_and_bytes_at_once() {
        let mut images = images(10, 0);
        assert!(!images.is_due(1000, false, false), "nothing was applied");
        images.count_applied(10, 10);
        assert!(
            !images.is_due(1099, false, false),
            "the next look is at 1100"
        );
        assert!(images.is_due(1100, false, false));
        images.count_applied(1, BYTES);
        assert!(
            images.is_due(1101, false, false),
            "a log of that many bytes does not wait for a look"
        );
    }

    #[test]
    fn a_large_state_is_not_written_for_a_little_log() {
        let mut images = images(1, 1000);
        images.count_applied(100, 499);
        assert!(!images.is_due(1000, false, false));
        assert!(
            images.is_due(1001, true, false),
            "but a follower that needs one gets it"
        );
        assert!(
            images.is_due(1002, false, true),
            "and a log that cannot keep to its bound is cut"
        );
        images.count_applied(0, 1);
        assert!(images.is_due(1100, false, false));
    }

    #[test]
    fn a_follower_that_pulls_an_image_keeps_the_log_behind_it() {
        let mut images = images(1, 0);
        images.count_applied(10, 10);
        images.offered(1000, ServerId(2));
        assert!(!images.is_due(1000, false, false));
        assert_eq!(images.take_idle(1000 + 6_000_000_000), [ServerId(2)]);
        assert!(images.is_due(6_000_001_100, false, false));
    }
}

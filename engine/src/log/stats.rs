//! What has the log done so far?

/// Counters since the log was opened. Bytes are those handed to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Durable writes issued; each is one flush of the device.
    pub batches: u64,
    /// … of which idle marks and segment closes, which carry no entry.
    pub empty_batches: u64,
    /// Entries in issued batches.
    pub entries: u64,
    /// Bytes of issued batches, padding and stamps included.
    pub bytes_submitted: u64,
    /// Bytes of the last issued batch.
    pub last_batch_bytes: u64,
    /// Entries of the last issued batch.
    pub last_batch_entries: u64,
    /// Bytes written to format new segments; 0 while segments are recycled.
    pub zero_fill_bytes: u64,
    /// Segments made ready ahead of need.
    pub segments_prepared: u64,
    /// … of which recycled from freed ones.
    pub segments_recycled: u64,
    /// Segments that could not be made ready (disk full); each was tried again.
    pub prepare_failures: u64,
    /// Segment files that hold something needed.
    pub segments_live: u64,
    /// Bytes of all segment files: live, prepared and freed.
    pub disk_bytes: u64,
    /// Entries read back and verified since opening.
    pub entries_read: u64,
}

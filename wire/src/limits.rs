//! How much is too much? Every bound of the system, in one table, with its unit in its name.
//!
//! A test of the repository checks that each constant here is named by a test that reaches it.

/// Version of the frame header.
pub const FRAME_VERSION: u8 = 1;
/// Version of the protocol that Hello announces.
pub const PROTOCOL_VERSION: u16 = 1;
/// Version of the commands in the log.
pub const COMMAND_VERSION: u8 = 1;
/// Longest key, bytes. Consul bounds it only by the request line; so do we over HTTP.
pub const KEY_BYTES_MAX: usize = 8 * 1024;
/// Longest value by default, bytes (Consul `limits.kv_max_value_size`).
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// Longest encoded command, bytes: key, value and the table around them.
pub const COMMAND_BYTES_MAX: usize = 768 * 1024;
/// Most operations in a transaction, as Consul's.
pub const TXN_OPS_MAX: usize = 128;
/// Longest body of a command on records, bytes.
pub const RECORD_BYTES_MAX: usize = 640 * 1024;
/// Longest question about records, bytes.
pub const QUESTION_BYTES_MAX: usize = 64 * 1024;
/// Longest JSON document that a question about records is answered with, bytes. It is made in one go
/// on the shard's executor, which answers nobody else meanwhile.
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Rows that a transaction may answer with, bytes: they travel in one frame.
pub const TXN_ROWS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest session id, bytes: a UUID as text.
pub const SESSION_BYTES_MAX: usize = 36;
/// Longest frame, header included, bytes.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest frame from a client, bytes.
pub const CLIENT_FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Most flatbuffer tables in one frame; the rows of the longest reply are far fewer.
pub const TABLES_PER_FRAME_MAX: usize = 100_000;
/// A connection's receive buffer once it is busy, bytes. Longer frames have a buffer of their own.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// A connection's first receive buffer, bytes; doubled when a receive fills it.
pub const RECEIVE_BUFFER_BYTES_MIN: usize = 4 * 1024;
/// Entries in one append message, bytes of payload.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Most messages in one Raft frame.
pub const RAFT_MESSAGES_PER_FRAME_MAX: usize = 4096;
/// Most entries in one message.
pub const ENTRIES_PER_MESSAGE_MAX: usize = 65_536;
/// Longest context of a raft message, bytes: a read request's name or the mark of a transfer.
pub const RAFT_CONTEXT_BYTES_MAX: usize = 256;
/// Longest description of an image in a snapshot message, bytes. The image itself travels in chunks.
pub const IMAGE_DESCRIPTOR_BYTES_MAX: usize = 4096;
/// How long a blocking query waits if it does not say, ms (Consul `DefaultQueryTime`).
pub const WAIT_MS_DEFAULT: u32 = 300_000;
/// Longest that a blocking query may ask to wait, ms (Consul `MaxQueryTime`); over HTTP, what is
/// longer is taken for this.
pub const WAIT_MS_MAX: u32 = 600_000;
/// Up to so great a part of its wait is added to a blocking query's wait at random (Consul
/// `jitterFraction`), so that those that began together do not end together.
pub const WAIT_JITTER_DIVISOR: u32 = 16;
/// Greatest index or term: leaves room for arithmetic that cannot overflow.
pub const INDEX_MAX: u64 = 1 << 62;
/// Most servers in a peer set.
pub const MEMBERS_MAX: usize = 9;
/// Most shards in a cluster.
pub const SHARDS_MAX: usize = 64;
/// Longest name of a node or datacenter, bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest `ip:port`, bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Longest sentence in a failure or refusal, bytes; encoders cut what is longer.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// One piece of an image, bytes.
pub const IMAGE_CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// One piece of a long reply, bytes of rows. A single row may be longer.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Pieces of one forwarded answer that its maker sends before the first is given back as credit.
pub const REPLY_WINDOW_PIECES: usize = 2;
/// Append messages under way to one peer before the leader waits for an answer.
pub const APPENDS_IN_FLIGHT_MAX: usize = 256;
/// Payload of the entries applied in one run, bytes.
pub const APPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

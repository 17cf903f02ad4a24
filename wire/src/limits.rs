//! How much is too much? Every bound of the system, in one table, with its unit in its name.
//!
//! A test of the repository checks that each constant here is named by a test that reaches it.

/// Version of the frame header.
pub const FRAME_VERSION: u8 = 1;
/// Version of the protocol that Hello announces.
pub const PROTOCOL_VERSION: u16 = 1;
/// Longest key, bytes. Consul bounds it only by the request line; so do we over HTTP.
pub const KEY_BYTES_MAX: usize = 8 * 1024;
/// Longest value by default, bytes (Consul `limits.kv_max_value_size`).
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// Longest encoded command, bytes: key, value and the table around them.
pub const COMMAND_BYTES_MAX: usize = 768 * 1024;
/// Longest frame, header included, bytes.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest frame from a client, bytes.
pub const CLIENT_FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Entries in one append message, bytes of payload.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Most servers in a peer set.
pub const MEMBERS_MAX: usize = 9;
/// Most shards in a cluster.
pub const SHARDS_MAX: usize = 64;
/// One piece of an image, bytes.
pub const IMAGE_CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// One piece of a long reply, bytes of rows.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Append messages under way to one peer before the leader waits for an answer.
pub const APPENDS_IN_FLIGHT_MAX: usize = 256;
/// Payload of the entries applied in one run, bytes.
pub const APPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

//! How much may one HTTP client, and all of them together, ask of an executor?
//!
//! Admission comes before anything else: what is refused here has cost a header's parsing and
//! nothing more. All figures are per executor, because executors share nothing.

use std::time::Duration;

use crate::server::config::SESSION_TTL_MIN;

/// Connections of one executor; further ones are answered `503` and closed.
pub const CONNECTIONS_MAX: usize = 32_768;
/// Requests in flight on one executor; further ones are answered `429`.
pub const REQUESTS_MAX: usize = 8_192;
/// Blocking queries on one executor; further ones are answered `429`. They are not among
/// [`REQUESTS_MAX`]: however many wait, others are served.
pub const WAITERS_MAX: usize = CONNECTIONS_MAX;
/// Watches on one executor; further ones are answered `429`. They are neither among [`REQUESTS_MAX`]
/// nor among [`WAITERS_MAX`].
pub const WATCHERS_MAX: usize = 4_096;
/// Bytes of request bodies in flight on one executor; what would pass it is answered `429`.
pub const BODY_BYTES_IN_FLIGHT_MAX: usize = 64 * 1024 * 1024;
/// Longest body of a transaction unless `limits.txn_max_req_len` says otherwise, bytes.
pub const TXN_BODY_BYTES_MAX: usize = 512 * 1024;
/// Request line and headers together, bytes; more is answered `431`.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Headers of one request; more is answered `431`.
pub const HEADERS_MAX: usize = 100;
/// Bytes of an answer gathered before they are handed to the socket.
pub const ANSWER_PIECE_BYTES: usize = 32 * 1024;
/// Bytes that are read and thrown away after a refusal, so that the client sees the answer
/// instead of a reset.
pub const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Socket buffer of hyper in each direction, bytes; a little over [`HEADER_BYTES_MAX`]. It grows to
/// this for large values and stays so for the life of the connection, which is why it is not more.
pub const BUFFER_BYTES_MAX: usize = 20 * 1024;

/// Bounds of one executor's HTTP service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Open connections.
    pub connections_max: usize,
    /// Open connections of one client address on the whole server (Consul
    /// `limits.http_max_conns_per_client`); `usize::MAX` for as many as there may be.
    pub client_connections_max: usize,
    /// Requests in flight, from the end of their header to the end of their answer.
    pub requests_max: usize,
    /// Blocking queries, likewise; they are not among the requests in flight.
    pub waiters_max: usize,
    /// Watches.
    pub watchers_max: usize,
    /// Bytes of request bodies in flight.
    pub body_bytes_in_flight_max: usize,
    /// Shortest TTL of a session (Consul `session_ttl_min`).
    pub session_ttl_min: Duration,
    /// Longest value of a key, bytes (Consul `limits.kv_max_value_size`).
    pub value_bytes_max: usize,
    /// Longest body of a transaction, bytes (Consul `limits.txn_max_req_len`).
    pub txn_bytes_max: usize,
    /// From the first byte of a request to the end of its header.
    pub header_timeout: Duration,
    /// From the end of the header to the end of the body.
    pub body_timeout: Duration,
    /// Without a byte of an answer being taken by the client.
    pub write_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Without a change, until a watch is told so; at most `limits::WAIT_MS_MAX`.
    pub watch_progress: Duration,
    /// For a refused client to stop sending.
    pub linger_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            client_connections_max: usize::MAX,
            requests_max: REQUESTS_MAX,
            waiters_max: WAITERS_MAX,
            watchers_max: WATCHERS_MAX,
            body_bytes_in_flight_max: BODY_BYTES_IN_FLIGHT_MAX,
            session_ttl_min: SESSION_TTL_MIN,
            value_bytes_max: wire::limits::VALUE_BYTES_MAX,
            txn_bytes_max: TXN_BODY_BYTES_MAX,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
            watch_progress: Duration::from_secs(10),
            linger_timeout: Duration::from_secs(2),
        }
    }
}

impl HttpLimits {
    /// How often deadlines are looked at: an eighth of the shortest, within 10 to 500 ms.
    /// A client is therefore closed at most that much late.
    pub(super) fn tick(&self) -> Duration {
        let shortest = [
            self.header_timeout,
            self.body_timeout,
            self.write_timeout,
            self.idle_timeout,
            self.linger_timeout,
        ]
        .into_iter()
        .min()
        .unwrap_or_default();
        (shortest / 8).clamp(Duration::from_millis(10), Duration::from_millis(500))
    }
}

//! What does a configuration file say of services and checks that this server is to register?
//!
//! Consul's `services`, `service`, `checks` and `check`, validated: whoever registers them need not
//! look for mistakes any more. The catalog has its own types; these are what a person wrote.

use std::{collections::BTreeMap, time::Duration};

use super::acl::Secret;

/// Most pairs of a node's or service's metadata.
pub const META_PAIRS_MAX: usize = 64;
/// Longest key of metadata, bytes.
pub const META_KEY_BYTES_MAX: usize = 128;
/// Longest value of metadata, bytes.
pub const META_VALUE_BYTES_MAX: usize = 512;
/// Output of a check that is kept unless it says otherwise, bytes.
pub const CHECK_OUTPUT_BYTES: u32 = 4096;

/// A service to register at the start (`services`, `service`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDefinition {
    /// `id`: unique on this node; the name where none was given.
    pub id: String,
    /// `name`: not empty.
    pub name: String,
    /// `tags`, in the order given.
    pub tags: Vec<String>,
    /// `address`; empty for the node's.
    pub address: String,
    /// `port`; 0 for none.
    pub port: u16,
    /// `socket_path`; excludes the port.
    pub socket_path: String,
    /// `tagged_addresses`: address and port by name (`lan`, `wan`, …).
    pub tagged_addresses: BTreeMap<String, (String, u16)>,
    /// `meta`: at most [`META_PAIRS_MAX`] pairs.
    pub meta: BTreeMap<String, String>,
    /// `weights.passing`: from 1.
    pub weight_passing: u16,
    /// `weights.warning`: from 0.
    pub weight_warning: u16,
    /// `enable_tag_override`.
    pub enable_tag_override: bool,
    /// `check` and `checks`: each with an id (`service:<id>`, or `service:<id>:<n>` of several).
    pub checks: Vec<CheckDefinition>,
    /// `token` to register it with.
    pub token: Option<Secret>,
}

/// A check to register at the start (`checks`, `check`, and those of a service).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckDefinition {
    /// `id`: unique on this node; the name where none was given.
    pub id: String,
    /// `name`: not empty.
    pub name: String,
    /// `notes`.
    pub notes: String,
    /// `service_id`; empty for a check of the node.
    pub service_id: String,
    /// `status` before the first result.
    pub status: CheckStatus,
    /// What is done to find out.
    pub kind: CheckKind,
    /// `success_before_passing`: results in a row, beyond the first, before it counts as passing.
    pub success_before_passing: u32,
    /// `failures_before_warning`, likewise; as `failures_before_critical` where it was not given.
    pub failures_before_warning: u32,
    /// `failures_before_critical`, likewise.
    pub failures_before_critical: u32,
    /// `deregister_critical_service_after`; `None` for never.
    pub deregister_critical_service_after: Option<Duration>,
    /// `output_max_size`, bytes; from 1.
    pub output_bytes_max: u32,
    /// `token` to register it with.
    pub token: Option<Secret>,
}

/// Status of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckStatus {
    /// `passing`.
    Passing,
    /// `warning`.
    Warning,
    /// `critical`.
    #[default]
    Critical,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// It is told its status by whoever is checked, at least once in `ttl`.
    Ttl {
        /// `ttl`: longer than 0.
        ttl: Duration,
    },
    /// It asks by HTTP: 2xx is passing, 429 warning, anything else critical.
    Http {
        /// `http`: `http://…` or `https://…`.
        url: String,
        /// `method`; `GET` where none was given.
        method: String,
        /// `header`: values by name.
        headers: BTreeMap<String, Vec<String>>,
        /// `body`.
        body: String,
        /// `tls_skip_verify`.
        tls_skip_verify: bool,
        /// `tls_server_name`; empty for the URL's host.
        tls_server_name: String,
        /// `disable_redirects`.
        disable_redirects: bool,
        /// `interval`: longer than 0.
        interval: Duration,
        /// `timeout`; 10 s where none was given.
        timeout: Duration,
    },
    /// It connects by TCP.
    Tcp {
        /// `tcp`: `host:port`.
        address: String,
        /// `tcp_use_tls`.
        use_tls: bool,
        /// `tls_skip_verify`.
        tls_skip_verify: bool,
        /// `tls_server_name`; empty for the host.
        tls_server_name: String,
        /// `interval`: longer than 0.
        interval: Duration,
        /// `timeout`; 10 s where none was given.
        timeout: Duration,
    },
}

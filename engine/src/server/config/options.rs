//! What does a configuration say of autopilot and telemetry?

use std::time::Duration;

/// `autopilot`: what a new cluster begins with; later the operator's API decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutopilotOptions {
    /// `cleanup_dead_servers`.
    pub cleanup_dead_servers: bool,
    /// `last_contact_threshold`: without the leader for longer, a server is not healthy.
    pub last_contact_threshold: Duration,
    /// `max_trailing_logs`: further behind, a server is not healthy.
    pub max_trailing_logs: u64,
    /// `min_quorum`: servers below which none is removed; 0 for no such bound.
    pub min_quorum: u32,
    /// `server_stabilization_time`: healthy for so long before a new server votes.
    pub server_stabilization_time: Duration,
}

impl Default for AutopilotOptions {
    fn default() -> Self {
        Self {
            cleanup_dead_servers: true,
            last_contact_threshold: Duration::from_millis(200),
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_time: Duration::from_secs(10),
        }
    }
}

/// `telemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryOptions {
    /// `prometheus_retention_time`; 0: `/v1/agent/metrics?format=prometheus` answers 415.
    pub prometheus_retention_time: Duration,
    /// `disable_hostname`: gauges do not carry the node's name.
    pub disable_hostname: bool,
    /// `metrics_prefix`: not empty.
    pub metrics_prefix: String,
    /// `filter_default`: whether metrics that no filter speaks of are shown.
    pub filter_default: bool,
    /// `prefix_filter`: prefixes and whether metrics with them are shown; the longest one decides.
    pub prefix_filter: Vec<(String, bool)>,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self {
            prometheus_retention_time: Duration::ZERO,
            disable_hostname: false,
            metrics_prefix: "consul".into(),
            filter_default: true,
            prefix_filter: Vec::new(),
        }
    }
}

//! What of a configuration that was read again can change while the server runs?
//!
//! As in Consul: the log level, limits, compaction, metadata and tokens, services and checks,
//! telemetry filters. The rest is fixed at the start, and a change of it is named until there is
//! a restart. Both lists are made by one exhaustive pattern, so that a new field has to choose.

use super::{AgentConfig, RaftOptions};
use crate::server::http::HttpLimits;

/// Keys of a new configuration that differ from the one in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that take effect at once.
    pub applied: Vec<&'static str>,
    /// Those that wait for a restart.
    pub restart: Vec<&'static str>,
}

impl Changes {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.restart.is_empty()
    }

    fn applied(&mut self, keys: &'static str, differ: bool) {
        self.applied.extend(differ.then_some(keys));
    }

    fn restart(&mut self, keys: &'static str, differ: bool) {
        self.restart.extend(differ.then_some(keys));
    }
}

impl AgentConfig {
    /// Takes over from `new` what can change while the server runs, and says what differed.
    pub fn reload(&mut self, new: Self) -> Changes {
        let mut changes = Changes::default();
        // No `..`: whoever adds a field decides here.
        let Self {
            dev,
            bootstrap,
            retry_join,
            retry_interval,
            node_name,
            node_id,
            node_meta,
            datacenter,
            primary_datacenter,
            server_bind,
            server_advertise,
            http_addresses,
            unix_sockets,
            data_dir,
            executors,
            executors_chosen: _,
            shards,
            log,
            raft,
            rpc_hold_timeout,
            watch_history_bytes,
            http,
            http_rules,
            services,
            checks,
            acl,
            autopilot,
            telemetry,
            pid_file,
            log_level,
            warnings: _,
        } = new;
        changes.restart("-dev", self.dev != dev);
        changes.restart("bootstrap, bootstrap_expect", self.bootstrap != bootstrap);
        changes.restart("retry_join", self.retry_join != retry_join);
        changes.restart("retry_interval", self.retry_interval != retry_interval);
        changes.restart("node_name", self.node_name != node_name);
        changes.restart("node_id", self.node_id != node_id);
        changes.restart("datacenter", self.datacenter != datacenter);
        changes.restart(
            "primary_datacenter",
            self.primary_datacenter != primary_datacenter,
        );
        changes.restart("bind_addr, ports.server", self.server_bind != server_bind);
        changes.restart("advertise_addr", self.server_advertise != server_advertise);
        changes.restart(
            "client_addr, addresses.http, ports.http",
            self.http_addresses != http_addresses,
        );
        changes.restart("unix_sockets", self.unix_sockets != unix_sockets);
        changes.restart("data_dir", self.data_dir != data_dir);
        changes.restart("executors", self.executors != executors);
        changes.restart("shards", self.shards != shards);
        changes.restart("log", self.log != log);
        changes.restart(
            "performance.raft_multiplier",
            self.raft.multiplier != raft.multiplier,
        );
        changes.restart(
            "performance.rpc_hold_timeout",
            self.rpc_hold_timeout != rpc_hold_timeout,
        );
        changes.restart(
            "limits.watch_history_bytes",
            self.watch_history_bytes != watch_history_bytes,
        );
        changes.restart("autopilot", self.autopilot != autopilot);
        changes.restart("pid_file", self.pid_file != pid_file);

        let compaction = RaftOptions {
            multiplier: self.raft.multiplier,
            ..raft
        };
        changes.applied(
            "raft_snapshot_threshold, raft_snapshot_interval, raft_trailing_logs",
            self.raft != compaction,
        );
        self.raft = compaction;
        changes.applied("log_level", self.log_level != log_level);
        let same_ttl = HttpLimits {
            session_ttl_min: self.http.session_ttl_min,
            ..http
        };
        changes.applied("limits", self.http != same_ttl);
        changes.applied("session_ttl_min", http != same_ttl);
        changes.applied("http_config", self.http_rules != http_rules);
        (self.log_level, self.http, self.http_rules) = (log_level, http, http_rules);

        changes.applied("node_meta", self.node_meta != node_meta);
        changes.applied("services", self.services != services);
        changes.applied("checks", self.checks != checks);
        (self.node_meta, self.services, self.checks) = (node_meta, services, checks);

        // Nobody takes these over while the server runs, yet.
        changes.restart("acl", self.acl != acl);
        changes.restart("telemetry", self.telemetry != telemetry);
        changes
    }
}

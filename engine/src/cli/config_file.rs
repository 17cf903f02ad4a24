//! What may a configuration file say?
//!
//! JSON with Consul's keys. One table, [`KEYS`], says for each key how it is read; files, `-set`
//! and flags all end in the same [`Layer`], where every value knows where it came from, so that
//! an error can name it. A key that nobody knows is an error. A key of Consul's that means nothing
//! here is accepted with a warning, unless it asks for protection that this build does not give:
//! a server must not seem protected when it is not.

use std::{fs, path::Path};

use serde_json::Value;

use super::config::ConfigError;
use crate::server::{http::go_text::parse_duration, nearest::nearest};

/// A value and where it came from: `-bind`, `curia.json: bind_addr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) origin: String,
}

/// What was said so far; later sources overwrite, lists grow.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) dev: Option<Sourced<bool>>,
    pub(super) server: Option<Sourced<bool>>,
    pub(super) bootstrap: Option<Sourced<bool>>,
    pub(super) bootstrap_expect: Option<Sourced<i64>>,
    pub(super) retry_join: Vec<Sourced<String>>,
    pub(super) retry_interval: Option<Sourced<i64>>,
    pub(super) node_name: Option<Sourced<String>>,
    pub(super) node_id: Option<Sourced<String>>,
    pub(super) bind: Option<Sourced<String>>,
    pub(super) advertise: Option<Sourced<String>>,
    pub(super) client: Option<Sourced<String>>,
    pub(super) http_ip: Option<Sourced<String>>,
    pub(super) http_port: Option<Sourced<i64>>,
    pub(super) server_port: Option<Sourced<i64>>,
    pub(super) data_dir: Option<Sourced<String>>,
    pub(super) datacenter: Option<Sourced<String>>,
    pub(super) log_level: Option<Sourced<String>>,
    pub(super) executors: Option<Sourced<i64>>,
    pub(super) shards: Option<Sourced<i64>>,
    pub(super) pid_file: Option<Sourced<String>>,
    pub(super) raft_multiplier: Option<Sourced<i64>>,
    pub(super) rpc_hold_timeout: Option<Sourced<i64>>,
    pub(super) snapshot_threshold: Option<Sourced<i64>>,
    pub(super) snapshot_interval: Option<Sourced<i64>>,
    pub(super) trailing_logs: Option<Sourced<i64>>,
    pub(super) kv_max_value_size: Option<Sourced<i64>>,
    pub(super) watch_history_bytes: Option<Sourced<i64>>,
    pub(super) log_completion: Option<Sourced<String>>,
    pub(super) log_require_direct: Option<Sourced<bool>>,
    pub(super) log_segment_mb: Option<Sourced<i64>>,
    pub(super) warnings: Vec<String>,
}

/// How a key is read.
enum Kind {
    Flag(fn(&mut Layer) -> &mut Option<Sourced<bool>>),
    Number(fn(&mut Layer) -> &mut Option<Sourced<i64>>),
    /// Go's duration, in nanoseconds.
    Duration(fn(&mut Layer) -> &mut Option<Sourced<i64>>),
    Text(fn(&mut Layer) -> &mut Option<Sourced<String>>),
    Texts(fn(&mut Layer) -> &mut Vec<Sourced<String>>),
    /// Consul's, without meaning here.
    Ignored,
    /// Consul's, for protection that this build does not give: only accepted when switched off.
    Protection,
    /// An object of further keys.
    Object,
}

use Kind::{Duration, Flag, Ignored, Number, Object, Protection, Text, Texts};

/// Every key, with the path to it.
const KEYS: &[(&str, Kind)] = &[
    ("server", Flag(|l| &mut l.server)),
    ("bootstrap", Flag(|l| &mut l.bootstrap)),
    ("bootstrap_expect", Number(|l| &mut l.bootstrap_expect)),
    ("retry_join", Texts(|l| &mut l.retry_join)),
    ("start_join", Texts(|l| &mut l.retry_join)),
    ("retry_interval", Duration(|l| &mut l.retry_interval)),
    ("node_name", Text(|l| &mut l.node_name)),
    ("node_id", Text(|l| &mut l.node_id)),
    ("bind_addr", Text(|l| &mut l.bind)),
    ("advertise_addr", Text(|l| &mut l.advertise)),
    ("client_addr", Text(|l| &mut l.client)),
    ("addresses", Object),
    ("addresses.http", Text(|l| &mut l.http_ip)),
    ("addresses.dns", Ignored),
    ("addresses.grpc", Ignored),
    ("addresses.grpc_tls", Ignored),
    ("addresses.https", Ignored),
    ("ports", Object),
    ("ports.http", Number(|l| &mut l.http_port)),
    ("ports.server", Number(|l| &mut l.server_port)),
    ("ports.dns", Ignored),
    ("ports.grpc", Ignored),
    ("ports.grpc_tls", Ignored),
    ("ports.https", Ignored),
    ("ports.serf_lan", Ignored),
    ("ports.serf_wan", Ignored),
    ("ports.sidecar_min_port", Ignored),
    ("ports.sidecar_max_port", Ignored),
    ("ports.expose_min_port", Ignored),
    ("ports.expose_max_port", Ignored),
    ("data_dir", Text(|l| &mut l.data_dir)),
    ("datacenter", Text(|l| &mut l.datacenter)),
    ("log_level", Text(|l| &mut l.log_level)),
    ("pid_file", Text(|l| &mut l.pid_file)),
    ("executors", Number(|l| &mut l.executors)),
    ("shards", Number(|l| &mut l.shards)),
    ("performance", Object),
    (
        "performance.raft_multiplier",
        Number(|l| &mut l.raft_multiplier),
    ),
    (
        "performance.rpc_hold_timeout",
        Duration(|l| &mut l.rpc_hold_timeout),
    ),
    ("performance.leave_drain_time", Ignored),
    ("performance.grpc_keepalive_interval", Ignored),
    ("performance.grpc_keepalive_timeout", Ignored),
    (
        "raft_snapshot_threshold",
        Number(|l| &mut l.snapshot_threshold),
    ),
    (
        "raft_snapshot_interval",
        Duration(|l| &mut l.snapshot_interval),
    ),
    ("raft_trailing_logs", Number(|l| &mut l.trailing_logs)),
    ("limits", Object),
    (
        "limits.kv_max_value_size",
        Number(|l| &mut l.kv_max_value_size),
    ),
    (
        "limits.watch_history_bytes",
        Number(|l| &mut l.watch_history_bytes),
    ),
    ("limits.txn_max_req_len", Ignored),
    ("limits.http_max_conns_per_client", Ignored),
    ("limits.https_handshake_timeout", Ignored),
    ("limits.rpc_handshake_timeout", Ignored),
    ("limits.rpc_client_timeout", Ignored),
    ("limits.rpc_max_conns_per_client", Ignored),
    ("limits.rpc_rate", Ignored),
    ("limits.rpc_max_burst", Ignored),
    ("limits.request_limits", Ignored),
    ("log", Object),
    ("log.completion", Text(|l| &mut l.log_completion)),
    ("log.require_direct", Flag(|l| &mut l.log_require_direct)),
    ("log.segment_mb", Number(|l| &mut l.log_segment_mb)),
    ("acl", Object),
    ("acl.enabled", Protection),
    ("acl.default_policy", Ignored),
    ("acl.down_policy", Ignored),
    ("acl.token_ttl", Ignored),
    ("acl.policy_ttl", Ignored),
    ("acl.role_ttl", Ignored),
    ("acl.enable_key_list_policy", Ignored),
    ("acl.enable_token_persistence", Ignored),
    ("acl.enable_token_replication", Ignored),
    ("acl.tokens", Ignored),
    ("encrypt", Protection),
    ("encrypt_verify_incoming", Ignored),
    ("encrypt_verify_outgoing", Ignored),
    ("tls", Protection),
    ("verify_incoming", Protection),
    ("verify_incoming_rpc", Protection),
    ("verify_incoming_https", Protection),
    ("verify_outgoing", Protection),
    ("verify_server_hostname", Protection),
    ("ca_file", Protection),
    ("ca_path", Protection),
    ("cert_file", Protection),
    ("key_file", Protection),
    ("http_config", Object),
    ("http_config.block_endpoints", Protection),
    ("http_config.allow_write_http_from", Protection),
    ("http_config.response_headers", Ignored),
    ("http_config.use_cache", Ignored),
    ("http_config.max_header_bytes", Ignored),
    ("advertise_addr_ipv4", Ignored),
    ("advertise_addr_ipv6", Ignored),
    ("advertise_addr_wan", Ignored),
    ("alt_domain", Ignored),
    ("auto_config", Ignored),
    ("auto_encrypt", Ignored),
    ("auto_reload_config", Ignored),
    ("autopilot", Ignored),
    ("cache", Ignored),
    ("check_update_interval", Ignored),
    ("checks", Ignored),
    ("check", Ignored),
    ("cloud", Ignored),
    ("config_entries", Ignored),
    ("connect", Ignored),
    ("default_query_time", Ignored),
    ("default_intention_policy", Ignored),
    ("disable_anonymous_signature", Ignored),
    ("disable_coordinates", Ignored),
    ("disable_host_node_id", Ignored),
    ("disable_keyring_file", Ignored),
    ("disable_remote_exec", Ignored),
    ("disable_update_check", Ignored),
    ("discard_check_output", Ignored),
    ("discovery_max_stale", Ignored),
    ("dns_config", Ignored),
    ("domain", Ignored),
    ("enable_agent_tls_for_checks", Ignored),
    ("enable_central_service_config", Ignored),
    ("enable_debug", Ignored),
    ("enable_local_script_checks", Ignored),
    ("enable_script_checks", Ignored),
    ("enable_syslog", Ignored),
    ("experiments", Ignored),
    ("gossip_lan", Ignored),
    ("gossip_wan", Ignored),
    ("leave_on_terminate", Ignored),
    ("license_path", Ignored),
    ("log_file", Ignored),
    ("log_json", Ignored),
    ("log_rotate_bytes", Ignored),
    ("log_rotate_duration", Ignored),
    ("log_rotate_max_files", Ignored),
    ("max_query_time", Ignored),
    ("node_meta", Ignored),
    ("peering", Ignored),
    ("primary_datacenter", Ignored),
    ("primary_gateways", Ignored),
    ("primary_gateways_interval", Ignored),
    ("protocol", Ignored),
    ("raft_boltdb", Ignored),
    ("raft_logstore", Ignored),
    ("raft_prevote_disabled", Ignored),
    ("raft_protocol", Ignored),
    ("read_replica", Ignored),
    ("reconnect_timeout", Ignored),
    ("reconnect_timeout_wan", Ignored),
    ("recursors", Ignored),
    ("rejoin_after_leave", Ignored),
    ("reporting", Ignored),
    ("retry_interval_wan", Ignored),
    ("retry_join_wan", Ignored),
    ("retry_max", Ignored),
    ("retry_max_wan", Ignored),
    ("rpc", Ignored),
    ("segments", Ignored),
    ("serf_lan", Ignored),
    ("serf_lan_allowed_cidrs", Ignored),
    ("serf_wan", Ignored),
    ("serf_wan_allowed_cidrs", Ignored),
    ("server_rejoin_age_max", Ignored),
    ("service", Ignored),
    ("services", Ignored),
    ("session_ttl_min", Ignored),
    ("skip_leave_on_interrupt", Ignored),
    ("start_join_wan", Ignored),
    ("syslog_facility", Ignored),
    ("tagged_addresses", Ignored),
    ("telemetry", Ignored),
    ("translate_wan_addrs", Ignored),
    ("ui", Ignored),
    ("ui_config", Ignored),
    ("unix_sockets", Ignored),
    ("use_streaming_backend", Ignored),
    ("watches", Ignored),
    ("xds", Ignored),
];

impl Layer {
    /// Reads one configuration file on top of what is there.
    pub(super) fn read_file(&mut self, flag: &str, path: &Path) -> Result<(), ConfigError> {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError(format!("{flag}={shown}: cannot read the file: {error}"))
        })?;
        let value: Value = serde_json::from_str(&text).map_err(|error| {
            ConfigError(format!(
                "{flag}={shown}: not JSON, line {} column {}: {error}; configuration files are \
                 JSON (HCL is not supported)",
                error.line(),
                error.column()
            ))
        })?;
        let Value::Object(members) = value else {
            return Err(ConfigError(format!(
                "{flag}={shown}: must be a JSON object {{\"key\": …}}"
            )));
        };
        for (key, value) in members {
            self.set(&key, value, &|key| format!("{shown}: {key}"))?;
        }
        Ok(())
    }

    /// Applies `-set KEY=VALUE`; the value is JSON, or else text.
    pub(super) fn set_pair(&mut self, pair: &str) -> Result<(), ConfigError> {
        let Some((key, text)) = pair.split_once('=') else {
            return Err(ConfigError(format!(
                "-set={pair}: must be KEY=VALUE, such as performance.raft_multiplier=1"
            )));
        };
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_string()));
        self.set(key, value, &|key| format!("-set {key}"))
    }

    /// Sets the key at the dotted path `key`.
    fn set(
        &mut self,
        key: &str,
        value: Value,
        origin: &dyn Fn(&str) -> String,
    ) -> Result<(), ConfigError> {
        let Some((_, kind)) = KEYS.iter().find(|(known, _)| *known == key) else {
            return Err(unknown(key, origin));
        };
        let origin_text = origin(key);
        let wrong =
            |wanted: &str| ConfigError(format!("{origin_text}: must be {wanted}, not {value}"));
        match kind {
            Flag(field) => {
                let value = value.as_bool().ok_or_else(|| wrong("true or false"))?;
                *field(self) = Some(Sourced {
                    value,
                    origin: origin_text,
                });
            }
            Number(field) => {
                let value = value.as_i64().ok_or_else(|| wrong("a whole number"))?;
                *field(self) = Some(Sourced {
                    value,
                    origin: origin_text,
                });
            }
            Duration(field) => {
                let value = value
                    .as_str()
                    .and_then(parse_duration)
                    .ok_or_else(|| wrong("a duration such as \"30s\" or \"500ms\""))?;
                *field(self) = Some(Sourced {
                    value,
                    origin: origin_text,
                });
            }
            Text(field) => {
                let value = value.as_str().ok_or_else(|| wrong("text"))?.to_string();
                *field(self) = Some(Sourced {
                    value,
                    origin: origin_text,
                });
            }
            Texts(field) => {
                let texts = match &value {
                    Value::String(text) => Some(vec![text.clone()]),
                    Value::Array(items) => {
                        items.iter().map(|i| i.as_str().map(String::from)).collect()
                    }
                    _ => None,
                };
                let texts = texts.ok_or_else(|| wrong("a list of texts"))?;
                let sourced = |value| Sourced {
                    value,
                    origin: origin_text.clone(),
                };
                field(self).extend(texts.into_iter().map(sourced));
            }
            Object => {
                let Value::Object(members) = value else {
                    return Err(wrong("an object"));
                };
                for (member, value) in members {
                    self.set(&format!("{key}.{member}"), value, origin)?;
                }
            }
            Ignored => self.warn(format!("{origin_text}: has no effect on a curia server")),
            Protection if off(&value) => {}
            Protection => {
                return Err(ConfigError(format!(
                    "{origin_text}: curia cannot do this yet, and without it the server would be less \
                     protected than this file asks for: remove the key to run it so anyway"
                )));
            }
        }
        Ok(())
    }

    fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }
}

/// Whether a value asks for nothing.
fn off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(off),
        Value::Object(members) => members.values().all(off),
        _ => false,
    }
}

fn unknown(key: &str, origin: &dyn Fn(&str) -> String) -> ConfigError {
    let hint = match nearest(key, KEYS.iter().map(|(known, _)| *known)) {
        Some(known) => format!(" (did you mean {known}?)"),
        None => String::new(),
    };
    ConfigError(format!("{}: unknown key{hint}", origin(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_listed_once_and_below_an_object() {
        for (at, (key, _)) in KEYS.iter().enumerate() {
            assert!(
                KEYS[..at].iter().all(|(other, _)| other != key),
                "{key} is listed twice"
            );
            if let Some((object, _)) = key.rsplit_once('.') {
                let parent = KEYS.iter().find(|(other, _)| *other == object);
                assert!(matches!(parent, Some((_, Object))), "{object} of {key}");
            }
        }
    }
}

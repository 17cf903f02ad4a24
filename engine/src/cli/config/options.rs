//! How are `acl`, `autopilot`, `telemetry` and `http_config` checked?

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{
    ConfigError,
    check::{duration, err, range},
    definitions::Findings,
    layer::{Layer, Sourced},
};
use crate::server::{
    config::{
        acl::{AclOptions, AclTokens, DefaultPolicy, DownPolicy, Secret},
        options::{AutopilotOptions, TelemetryOptions},
    },
    http::{HttpRules, Network},
};

/// Headers that belong to the connection: set by hand they would break it.
const HEADERS_RESERVED: [&str; 5] = [
    "connection",
    "content-length",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn acl(layer: &Layer, out: &mut Findings) -> AclOptions {
    let default = AclOptions::default();
    let ttl = |key, default, out: &mut Findings| {
        out.or(
            duration(layer.number(key), default, Duration::ZERO),
            default,
        )
    };
    // As in Consul: the old key switches access control on, unless the new one says no.
    let enabled = match layer.flag("acl.enabled") {
        Some(enabled) => enabled.value,
        None => layer.text("acl_datacenter").is_some(),
    };
    AclOptions {
        enabled,
        default_policy: out.or(default_policy(layer), default.default_policy),
        down_policy: out.or(down_policy(layer), default.down_policy),
        token_ttl: ttl("acl.token_ttl", default.token_ttl, out),
        policy_ttl: ttl("acl.policy_ttl", default.policy_ttl, out),
        role_ttl: ttl("acl.role_ttl", default.role_ttl, out),
        enable_key_list_policy: layer.is_on("acl.enable_key_list_policy"),
        enable_token_persistence: layer.is_on("acl.enable_token_persistence"),
        enable_token_replication: layer.is_on("acl.enable_token_replication"),
        tokens: AclTokens {
            initial_management: secret(layer, "acl.tokens.initial_management"),
            agent: secret(layer, "acl.tokens.agent"),
            agent_recovery: secret(layer, "acl.tokens.agent_recovery"),
            default: secret(layer, "acl.tokens.default"),
            replication: secret(layer, "acl.tokens.replication"),
            config_file_service_registration: secret(
                layer,
                "acl.tokens.config_file_service_registration",
            ),
        },
    }
}

fn secret(layer: &Layer, key: &'static str) -> Option<Secret> {
    let text = layer.text(key).filter(|text| !text.value.is_empty())?;
    Some(Secret::new(text.value.to_string()))
}

fn default_policy(layer: &Layer) -> Result<DefaultPolicy, ConfigError> {
    match layer.text("acl.default_policy") {
        None => Ok(DefaultPolicy::default()),
        Some(Sourced { value, origin }) => match value {
            "allow" => Ok(DefaultPolicy::Allow),
            "deny" => Ok(DefaultPolicy::Deny),
            _ => err(format!(
                "{origin}: {value:?} is not known: use allow or deny"
            )),
        },
    }
}

fn down_policy(layer: &Layer) -> Result<DownPolicy, ConfigError> {
    match layer.text("acl.down_policy") {
        None => Ok(DownPolicy::default()),
        Some(Sourced { value, origin }) => match value {
            "allow" => Ok(DownPolicy::Allow),
            "deny" => Ok(DownPolicy::Deny),
            "extend-cache" => Ok(DownPolicy::ExtendCache),
            "async-cache" => Ok(DownPolicy::AsyncCache),
            _ => err(format!(
                "{origin}: {value:?} is not known: use allow, deny, extend-cache or async-cache"
            )),
        },
    }
}

pub(super) fn autopilot(layer: &Layer, out: &mut Findings) -> AutopilotOptions {
    let default = AutopilotOptions::default();
    let time = |key, default, out: &mut Findings| {
        out.or(
            duration(layer.number(key), default, Duration::ZERO),
            default,
        )
    };
    let whole =
        |key, out: &mut Findings| out.or(range(layer.number(key), 0, i64::from(u32::MAX)), None);
    AutopilotOptions {
        cleanup_dead_servers: layer
            .flag("autopilot.cleanup_dead_servers")
            .map_or(default.cleanup_dead_servers, |flag| flag.value),
        last_contact_threshold: time(
            "autopilot.last_contact_threshold",
            default.last_contact_threshold,
            out,
        ),
        max_trailing_logs: whole("autopilot.max_trailing_logs", out)
            .map_or(default.max_trailing_logs, |logs| logs as u64),
        min_quorum: whole("autopilot.min_quorum", out)
            .map_or(default.min_quorum, |servers| servers as u32),
        server_stabilization_time: time(
            "autopilot.server_stabilization_time",
            default.server_stabilization_time,
            out,
        ),
    }
}

pub(super) fn telemetry(layer: &Layer, out: &mut Findings) -> TelemetryOptions {
    let default = TelemetryOptions::default();
    let mut prefix_filter = Vec::new();
    for Sourced { value, origin } in layer.texts("telemetry.prefix_filter") {
        match value.split_at_checked(1) {
            Some(("+", prefix)) if !prefix.is_empty() => prefix_filter.push((prefix.into(), true)),
            Some(("-", prefix)) if !prefix.is_empty() => prefix_filter.push((prefix.into(), false)),
            _ => out.error(format!(
                "{origin}: Filter rule must begin with either '+' or '-': {value:?}, and name a prefix"
            )),
        }
    }
    let metrics_prefix = match layer.text("telemetry.metrics_prefix") {
        Some(prefix) if !prefix.value.is_empty() => prefix.value.to_string(),
        _ => default.metrics_prefix,
    };
    TelemetryOptions {
        prometheus_retention_time: out.or(
            duration(
                layer.number("telemetry.prometheus_retention_time"),
                Duration::ZERO,
                Duration::ZERO,
            ),
            Duration::ZERO,
        ),
        disable_hostname: layer.is_on("telemetry.disable_hostname"),
        metrics_prefix,
        filter_default: layer
            .flag("telemetry.filter_default")
            .is_none_or(|flag| flag.value),
        prefix_filter,
    }
}

pub(super) fn http_rules(layer: &Layer, out: &mut Findings) -> HttpRules {
    let mut rules = HttpRules::default();
    for (name, Sourced { value, origin }) in layer.map("http_config.response_headers") {
        let header = HeaderName::from_bytes(name.as_bytes());
        match (header, HeaderValue::from_str(value)) {
            (Ok(name), _) if HEADERS_RESERVED.contains(&name.as_str()) => out.error(format!(
                "{origin}: this header belongs to the connection and cannot be set"
            )),
            (Ok(name), Ok(value)) => rules.response_headers.push((name, value)),
            (Err(_), _) => out.error(format!("{origin}: {name:?} is not a header's name")),
            (_, Err(_)) => out.error(format!("{origin}: {value:?} cannot be a header's value")),
        }
    }
    for Sourced { value, origin } in layer.texts("http_config.block_endpoints") {
        match value.starts_with('/') {
            true => rules.block_endpoints.push(value.clone()),
            false => out.error(format!(
                "{origin}: {value:?} is not the beginning of a path: give one such as /v1/agent/"
            )),
        }
    }
    for Sourced { value, origin } in layer.texts("http_config.allow_write_http_from") {
        match Network::parse(value) {
            Some(network) => rules.allow_write_http_from.push(network),
            None => out.error(format!(
                "{origin}: {value:?} is not a network: give one such as 10.0.0.0/8"
            )),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with<T>(file: Value, read: impl Fn(&Layer, &mut Findings) -> T) -> (T, Vec<String>) {
        let mut layer = Layer::default();
        layer.set_all(file, &|key| key.to_string());
        let mut out = Findings::default();
        let read = read(&layer, &mut out);
        let errors = layer.errors.into_iter().chain(out.errors);
        (read, errors.map(|error| error.0).collect())
    }

    #[test]
    fn acl_by_new_names_and_old_ones_alike() {
        let new = json!({"acl": {
            "enabled": true, "default_policy": "deny", "down_policy": "async-cache",
            "token_ttl": "1m", "enable_key_list_policy": true,
            "tokens": {"initial_management": "m", "agent": "a", "agent_recovery": "r", "default": "d", "replication": "p"},
        }});
        let old = json!({
            "acl_datacenter": "dc1", "acl_default_policy": "deny", "acl_down_policy": "async-cache",
            "acl_ttl": "1m", "acl_enable_key_list_policy": true,
            "acl_master_token": "m", "acl_agent_token": "a", "acl_agent_master_token": "r",
            "acl_token": "d", "acl_replication_token": "p",
        });
        let middle = json!({"acl": {
            "enabled": true, "default_policy": "deny", "down_policy": "async-cache",
            "token_ttl": "1m", "enable_key_list_policy": true,
            "tokens": {"master": "m", "agent": "a", "agent_master": "r", "default": "d", "replication": "p"},
        }});
        let (read, errors) = with(new, acl);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(with(old, acl), (read.clone(), vec![]));
        assert_eq!(with(middle, acl), (read.clone(), vec![]));
        assert!(read.enabled);
        assert_eq!(read.default_policy, DefaultPolicy::Deny);
        assert_eq!(read.down_policy, DownPolicy::AsyncCache);
        assert_eq!(read.token_ttl, Duration::from_secs(60));
        assert_eq!(read.tokens.agent_recovery.as_ref().unwrap().expose(), "r");
        assert!(!format!("{read:?}").contains("\"m\""), "a token is printed");
    }

    #[test]
    fn acl_is_off_unless_asked_for() {
        assert_eq!(with(json!({}), acl).0, AclOptions::default());
        let off = json!({"acl": {"enabled": false}, "acl_datacenter": "dc1"});
        assert!(!with(off, acl).0.enabled);
        let empty = json!({"acl": {"tokens": {"agent": ""}}});
        assert_eq!(with(empty, acl).0.tokens, AclTokens::default());
    }

    #[test]
    fn mistakes_in_options_are_named() {
        let all = |layer: &Layer, out: &mut Findings| {
            acl(layer, out);
            autopilot(layer, out);
            telemetry(layer, out);
            http_rules(layer, out);
        };
        let (_, errors) = with(
            json!({
                "acl": {"default_policy": "maybe", "down_policy": "x", "token_ttl": "-1s"},
                "autopilot": {"min_quorum": -1},
                "telemetry": {"prefix_filter": ["consul"]},
                "http_config": {
                    "response_headers": {"a b": "c", "Connection": "close", "X": "a\nb"},
                    "block_endpoints": ["v1"],
                    "allow_write_http_from": ["10.0.0.1"],
                },
            }),
            all,
        );
        assert_eq!(
            errors,
            [
                "acl.default_policy: \"maybe\" is not known: use allow or deny",
                "acl.down_policy: \"x\" is not known: use allow, deny, extend-cache or async-cache",
                "acl.token_ttl: too short: it must be at least 0s",
                "autopilot.min_quorum: -1 is not between 0 and 4294967295",
                "telemetry.prefix_filter: Filter rule must begin with either '+' or '-': \"consul\", and name a prefix",
                "http_config.response_headers.Connection: this header belongs to the connection and cannot be set",
                "http_config.response_headers.X: \"a\\nb\" cannot be a header's value",
                "http_config.response_headers.a b: \"a b\" is not a header's name",
                "http_config.block_endpoints: \"v1\" is not the beginning of a path: give one such as /v1/agent/",
                "http_config.allow_write_http_from: \"10.0.0.1\" is not a network: give one such as 10.0.0.0/8",
            ]
        );
    }
}

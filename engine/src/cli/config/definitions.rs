//! How do `services` and `checks` of a file become definitions that can be registered?
//!
//! Consul's keys, in its files' spelling (`deregister_critical_service_after`) or its API's
//! (`DeregisterCriticalServiceAfter`). Every rule of Consul's registration is checked here, so that
//! a mistake is known at the start, by file and place. A check that would need a shell, or a
//! protocol that curia does not speak, is refused: it would never say anything.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{
    ConfigError,
    fields::{Fields, plain},
    layer::{Layer, Sourced, single},
};
use crate::server::config::{
    acl::Secret,
    definitions::{
        CHECK_OUTPUT_BYTES, CheckDefinition, CheckKind, META_KEY_BYTES_MAX, META_PAIRS_MAX,
        META_VALUE_BYTES_MAX, ServiceDefinition,
    },
};

/// Of a check that does not say how long it waits.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Fields of a service that mean nothing here.
const SERVICE_IGNORED: [&str; 6] = [
    "kind",
    "proxy",
    "connect",
    "namespace",
    "partition",
    "locality",
];
/// Fields of a check that mean nothing here.
const CHECK_IGNORED: [&str; 3] = ["shell", "namespace", "partition"];
/// Fields of a check that make it one that curia does not run.
const CHECK_FOREIGN: [&str; 12] = [
    "args",
    "script_args",
    "script",
    "docker_container_id",
    "grpc",
    "grpc_use_tls",
    "udp",
    "h2ping",
    "h2ping_use_tls",
    "os_service",
    "alias_service",
    "alias_node",
];

/// Services and checks to register.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub(super) services: Vec<ServiceDefinition>,
    pub(super) checks: Vec<CheckDefinition>,
}

/// Reads all definitions. Of two with one id the later one counts, as in Consul.
pub(super) fn definitions(layer: &Layer, out: &mut Findings) -> Definitions {
    let mut found = Definitions::default();
    for definition in &layer.services {
        let Some(service) = service(definition, out) else {
            continue;
        };
        match found.services.iter_mut().find(|s| s.id == service.id) {
            Some(earlier) => {
                let Sourced { origin, .. } = definition;
                let id = &service.id;
                out.warnings.push(format!(
                    "{origin}: replaces an earlier service with the id {id:?}"
                ));
                *earlier = service;
            }
            None => found.services.push(service),
        }
    }
    for definition in &layer.checks {
        let Some(check) = check(&definition.value, &definition.origin, out) else {
            continue;
        };
        match found.checks.iter_mut().find(|c| c.id == check.id) {
            Some(earlier) => {
                let Sourced { origin, .. } = definition;
                let id = &check.id;
                out.warnings.push(format!(
                    "{origin}: replaces an earlier check with the id {id:?}"
                ));
                *earlier = check;
            }
            None => found.checks.push(check),
        }
    }
    found
}

/// Mistakes and warnings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
}

impl Findings {
    pub(super) fn error(&mut self, text: String) {
        self.errors.push(ConfigError(text));
    }
}

fn service(definition: &Sourced<Value>, out: &mut Findings) -> Option<ServiceDefinition> {
    let at = &*definition.origin;
    let before = out.errors.len();
    let mut fields = Fields::open(&definition.value, at, out)?;
    let name = fields.text("name").unwrap_or_default();
    let id = fields.text("id").filter(|id| !id.is_empty());
    let mut service = ServiceDefinition {
        id: id.unwrap_or_else(|| name.clone()),
        tags: fields.texts("tags"),
        address: fields.text("address").unwrap_or_default(),
        port: fields.whole("port", 0, 65_535).unwrap_or(0) as u16,
        socket_path: fields.text("socket_path").unwrap_or_default(),
        tagged_addresses: fields.tagged_addresses(),
        meta: fields.text_map("meta"),
        weight_passing: 1,
        weight_warning: 1,
        enable_tag_override: fields.flag("enable_tag_override").unwrap_or(false),
        checks: Vec::new(),
        token: fields
            .text("token")
            .filter(|t| !t.is_empty())
            .map(Secret::new),
        name,
    };
    if let Some(weights) = fields.take("weights") {
        let at = format!("{at}.weights");
        if let Some(mut weights) = Fields::open(&weights, &at, fields.out) {
            service.weight_passing = weights.whole("passing", 1, 65_535).unwrap_or(1) as u16;
            service.weight_warning = weights.whole("warning", 0, 65_535).unwrap_or(1) as u16;
            weights.close(&[], &["passing", "warning"]);
        }
    }
    service.checks = service_checks(&service, &mut fields);
    fields.close(
        &SERVICE_IGNORED,
        &[
            "name",
            "id",
            "tags",
            "address",
            "port",
            "socket_path",
            "tagged_addresses",
            "meta",
            "weights",
            "enable_tag_override",
            "check",
            "checks",
            "token",
        ],
    );
    if service.name.is_empty() {
        out.error(format!("{at}: a service needs a name"));
    }
    if service.port != 0 && !service.socket_path.is_empty() {
        out.error(format!("{at}: port and socket_path exclude each other"));
    }
    if let Err(why) = check_meta(service.meta.iter()) {
        out.error(format!("{at}.meta: {why}"));
    }
    (out.errors.len() == before).then_some(service)
}

/// `check` and `checks` of a service.
fn service_checks(service: &ServiceDefinition, fields: &mut Fields<'_>) -> Vec<CheckDefinition> {
    let mut given = Vec::new();
    if let Some(one) = fields.take("check") {
        given.push((one, format!("{}.check", fields.at)));
    }
    match fields.take("checks") {
        Some(Value::Array(items)) => {
            let at = fields.at;
            let numbered = items.into_iter().enumerate();
            given.extend(numbered.map(|(i, item)| (item, format!("{at}.checks[{i}]"))));
        }
        Some(one) => given.push((one, format!("{}.checks", fields.at))),
        None => {}
    }
    let several = given.len() > 1;
    let mut checks: Vec<CheckDefinition> = Vec::new();
    for (at_number, (value, at)) in given.into_iter().enumerate() {
        // Its id and name are made of the service's where it has none.
        let mut value = single(value);
        if let Value::Object(members) = &mut value {
            let absent = |members: &Map<String, Value>, name: &str| {
                !members.keys().any(|key| plain(key) == name)
            };
            if absent(members, "id") && absent(members, "checkid") {
                let id = match several {
                    true => format!("service:{}:{}", service.id, at_number + 1),
                    false => format!("service:{}", service.id),
                };
                members.insert("id".into(), id.into());
            }
            if absent(members, "name") {
                members.insert(
                    "name".into(),
                    format!("Service '{}' check", service.name).into(),
                );
            }
        }
        let Some(mut check) = check(&value, &at, fields.out) else {
            continue;
        };
        check.service_id.clone_from(&service.id);
        if checks.iter().any(|other| other.id == check.id) {
            fields.out.error(format!(
                "{at}: another check of this service has the id {:?}",
                check.id
            ));
        }
        checks.push(check);
    }
    checks
}

fn check(value: &Value, at: &str, out: &mut Findings) -> Option<CheckDefinition> {
    let before = out.errors.len();
    let mut fields = Fields::open(value, at, out)?;
    let name = fields.text("name").unwrap_or_default();
    let id = fields
        .text("id")
        .or_else(|| fields.text("check_id"))
        .filter(|id| !id.is_empty());
    for foreign in CHECK_FOREIGN {
        if fields.take(foreign).is_some() {
            let why = "curia runs ttl, http and tcp checks and no others: remove the check, or have \
                       whoever runs it tell the result to a ttl check";
            fields.error(foreign, why);
            return None;
        }
    }
    let kind = check_kind(&mut fields);
    let critical = fields.count("failures_before_critical").unwrap_or(0);
    let warning = fields.count("failures_before_warning");
    let after = fields.duration("deregister_critical_service_after");
    let definition = CheckDefinition {
        id: id.unwrap_or_else(|| name.clone()),
        notes: fields.text("notes").unwrap_or_default(),
        service_id: fields.text("service_id").unwrap_or_default(),
        status: fields.status(),
        kind: kind.unwrap_or(CheckKind::Ttl {
            ttl: Duration::ZERO,
        }),
        success_before_passing: fields.count("success_before_passing").unwrap_or(0),
        failures_before_warning: warning.unwrap_or(critical),
        failures_before_critical: critical,
        deregister_critical_service_after: after.filter(|after| !after.is_zero()),
        output_bytes_max: fields
            .whole("output_max_size", 1, i64::from(u32::MAX))
            .unwrap_or(i64::from(CHECK_OUTPUT_BYTES)) as u32,
        token: fields
            .text("token")
            .filter(|t| !t.is_empty())
            .map(Secret::new),
        name,
    };
    fields.close(
        &CHECK_IGNORED,
        &[
            "name",
            "id",
            "notes",
            "service_id",
            "token",
            "status",
            "ttl",
            "http",
            "method",
            "header",
            "body",
            "tls_skip_verify",
            "tls_server_name",
            "tcp_use_tls",
            "disable_redirects",
            "tcp",
            "interval",
            "timeout",
            "success_before_passing",
            "failures_before_warning",
            "failures_before_critical",
            "deregister_critical_service_after",
            "output_max_size",
        ],
    );
    if definition.name.is_empty() {
        out.error(format!("{at}: a check needs a name"));
    }
    if definition.failures_before_warning > definition.failures_before_critical {
        out.error(format!(
            "{at}: failures_before_warning can't be higher than failures_before_critical"
        ));
    }
    (out.errors.len() == before).then_some(definition)
}

/// What the check does; exactly one of three. `None` after an error.
fn check_kind(fields: &mut Fields<'_>) -> Option<CheckKind> {
    let before = fields.out.errors.len();
    let ttl = fields.duration("ttl").filter(|ttl| !ttl.is_zero());
    let http = fields.text("http").filter(|url| !url.is_empty());
    let tcp = fields.text("tcp").filter(|address| !address.is_empty());
    let interval = fields.duration("interval").unwrap_or_default();
    let timeout = fields.duration("timeout").filter(|t| !t.is_zero());
    let timeout = timeout.unwrap_or(CHECK_TIMEOUT);
    let method = fields.text("method").filter(|method| !method.is_empty());
    let headers = fields.headers();
    let body = fields.text("body").unwrap_or_default();
    let tls_skip_verify = fields.flag("tls_skip_verify").unwrap_or(false);
    let tls_server_name = fields.text("tls_server_name").unwrap_or_default();
    let use_tls = fields.flag("tcp_use_tls").unwrap_or(false);
    let disable_redirects = fields.flag("disable_redirects").unwrap_or(false);
    if fields.out.errors.len() > before {
        return None;
    }
    let wrong = |fields: &mut Fields<'_>, why: &str| {
        let at = fields.at;
        fields.out.error(format!("{at}: {why}"));
        None
    };
    match (ttl, http, tcp) {
        (Some(_), None, None) if !interval.is_zero() => {
            wrong(fields, "Interval and TTL cannot both be specified")
        }
        (Some(ttl), None, None) => Some(CheckKind::Ttl { ttl }),
        (None, Some(_), None) | (None, None, Some(_)) if interval.is_zero() => {
            wrong(fields, "Interval must be > 0 for HTTP or TCP checks")
        }
        (None, Some(url), None) => {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return wrong(
                    fields,
                    &format!("http: {url:?} does not begin with http:// or https://"),
                );
            }
            Some(CheckKind::Http {
                url,
                method: method.unwrap_or_else(|| "GET".into()),
                headers,
                body,
                tls_skip_verify,
                tls_server_name,
                disable_redirects,
                interval,
                timeout,
            })
        }
        (None, None, Some(address)) => {
            let port = address.rsplit_once(':').map(|(_, port)| port);
            if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return wrong(fields, &format!("tcp: {address:?} is not HOST:PORT"));
            }
            Some(CheckKind::Tcp {
                address,
                use_tls,
                tls_skip_verify,
                tls_server_name,
                interval,
                timeout,
            })
        }
        (None, None, None) => wrong(
            fields,
            "TTL must be > 0 for TTL checks; a check needs one of ttl, http and tcp",
        ),
        _ => wrong(
            fields,
            "a check does one thing: give one of ttl, http and tcp",
        ),
    }
}

/// Consul's rules for metadata of nodes and services.
pub(super) fn check_meta<'m>(
    meta: impl ExactSizeIterator<Item = (&'m String, &'m String)>,
) -> Result<(), String> {
    if meta.len() > META_PAIRS_MAX {
        return Err(format!(
            "cannot contain more than {META_PAIRS_MAX} key/value pairs"
        ));
    }
    for (key, value) in meta {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if key.is_empty() {
            return Err("Key cannot be blank".into());
        } else if !key.bytes().all(fine) {
            return Err(format!(
                "Couldn't load metadata pair ('{key}', …): Key contains invalid characters: use \
                 letters, digits, '-' and '_'"
            ));
        } else if key.len() > META_KEY_BYTES_MAX {
            return Err(format!(
                "{key}: Key is too long (limit: {META_KEY_BYTES_MAX} characters)"
            ));
        } else if key.starts_with("consul-") {
            return Err(format!(
                "{key}: Key prefix 'consul-' is reserved for internal use"
            ));
        } else if value.len() > META_VALUE_BYTES_MAX {
            return Err(format!(
                "{key}: Value is too long (limit: {META_VALUE_BYTES_MAX} characters)"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

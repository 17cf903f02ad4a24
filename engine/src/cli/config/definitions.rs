//! How do `services` and `checks` of a file become definitions that can be registered?
//!
//! Consul's keys, in its files' spelling (`deregister_critical_service_after`) or its API's
//! (`DeregisterCriticalServiceAfter`). Every rule of Consul's registration is checked here, so that
//! a mistake is known at the start, by file and place. A check that would need a shell, or a
//! protocol that curia does not speak, is refused: it would never say anything.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

use super::{
    ConfigError,
    layer::{Layer, Sourced, list, single},
};
use crate::server::{
    config::{
        acl::Secret,
        definitions::{
            CHECK_OUTPUT_BYTES, CheckDefinition, CheckKind, CheckStatus, META_KEY_BYTES_MAX,
            META_PAIRS_MAX, META_VALUE_BYTES_MAX, ServiceDefinition,
        },
    },
    http::go_text::parse_duration,
    nearest::nearest,
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
const CHECK_IGNORED: [&str; 4] = ["shell", "tls_server_name", "namespace", "partition"];
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

/// A name without case and underscores: as files and the API spell it alike.
fn plain(key: &str) -> String {
    key.bytes()
        .filter(|b| *b != b'_')
        .map(|b| char::from(b.to_ascii_lowercase()))
        .collect()
}

/// Members of an object that are taken out one by one.
struct Fields<'o> {
    at: &'o str,
    /// By plain name: the name as written, and the value.
    members: BTreeMap<String, (String, Value)>,
    out: &'o mut Findings,
}

impl<'o> Fields<'o> {
    fn open(value: &Value, at: &'o str, out: &'o mut Findings) -> Option<Self> {
        let Value::Object(members) = single(value.clone()) else {
            out.error(format!("{at}: must be an object"));
            return None;
        };
        let members = members
            .into_iter()
            .map(|(key, value)| (plain(&key), (key, value)))
            .collect();
        Some(Self { at, members, out })
    }

    fn error(&mut self, key: &str, why: &str) {
        self.out.error(format!("{}.{key}: {why}", self.at));
    }

    /// A member, unless it is absent or null.
    fn take(&mut self, key: &str) -> Option<Value> {
        let (_, value) = self.members.remove(&plain(key))?;
        Some(value).filter(|value| !value.is_null())
    }

    fn read<T>(
        &mut self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let read = read(&value);
        if read.is_none() {
            self.error(key, &format!("must be {wanted}"));
        }
        read
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.read(key, "text", |value| value.as_str().map(String::from))
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    fn whole(&mut self, key: &str, min: i64, max: i64) -> Option<i64> {
        let wanted = format!("a whole number from {min} to {max}");
        self.read(key, &wanted, |value| {
            value.as_i64().filter(|value| (min..=max).contains(value))
        })
    }

    fn count(&mut self, key: &str) -> Option<u32> {
        self.whole(key, 0, i64::from(u32::MAX)).map(|n| n as u32)
    }

    fn duration(&mut self, key: &str) -> Option<Duration> {
        self.read(key, "a duration such as \"10s\"", |value| {
            let nanos = parse_duration(value.as_str()?)?;
            Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
        })
    }

    fn texts(&mut self, key: &str) -> Vec<String> {
        self.read(key, "a list of texts", list).unwrap_or_default()
    }

    fn text_map(&mut self, key: &str) -> BTreeMap<String, String> {
        self.read(key, "an object of texts", |value| {
            let Value::Object(members) = single(value.clone()) else {
                return None;
            };
            members
                .into_iter()
                .map(|(name, value)| Some((name, value.as_str()?.to_string())))
                .collect()
        })
        .unwrap_or_default()
    }

    fn headers(&mut self) -> BTreeMap<String, Vec<String>> {
        self.read("header", "an object of lists of texts", |value| {
            let Value::Object(members) = single(value.clone()) else {
                return None;
            };
            members
                .into_iter()
                .map(|(name, value)| Some((name, list(&value)?)))
                .collect()
        })
        .unwrap_or_default()
    }

    fn status(&mut self) -> CheckStatus {
        self.read("status", "passing, warning or critical", |value| {
            Some(match value.as_str()? {
                "passing" => CheckStatus::Passing,
                "warning" => CheckStatus::Warning,
                "critical" | "" => CheckStatus::Critical,
                _ => return None,
            })
        })
        .unwrap_or_default()
    }

    fn tagged_addresses(&mut self) -> BTreeMap<String, (String, u16)> {
        let mut found = BTreeMap::new();
        let Some(value) = self.take("tagged_addresses") else {
            return found;
        };
        let Value::Object(members) = single(value) else {
            self.error("tagged_addresses", "must be an object");
            return found;
        };
        for (name, value) in members {
            let at = format!("{}.tagged_addresses.{name}", self.at);
            if let Some(mut fields) = Fields::open(&value, &at, self.out) {
                let address = fields.text("address").unwrap_or_default();
                let port = fields.whole("port", 0, 65_535).unwrap_or(0) as u16;
                fields.close(&[], &["address", "port"]);
                found.insert(name, (address, port));
            }
        }
        found
    }

    /// What is left: a warning for `ignored`, an error for what is not known.
    fn close(self, ignored: &[&str], known: &[&'static str]) {
        for (name, (written, value)) in self.members {
            let at = self.at;
            if ignored.iter().any(|key| plain(key) == name) {
                if !value.is_null() {
                    self.out
                        .warnings
                        .push(format!("{at}.{written}: has no effect on a curia server"));
                }
                continue;
            }
            let hint = match nearest(&written, known.iter().copied()) {
                Some(known) => format!(" (did you mean {known}?)"),
                None => String::new(),
            };
            self.out.error(format!("{at}.{written}: unknown key{hint}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(file: Value) -> (Definitions, Findings) {
        let mut layer = Layer::default();
        layer.set_all(file, &|key| key.to_string());
        let mut out = Findings::default();
        out.errors.append(&mut layer.errors);
        let found = definitions(&layer, &mut out);
        (found, out)
    }

    #[test]
    fn a_service_with_its_checks_in_both_spellings() {
        let files = json!({"services": [{
            "name": "web", "id": "web-1", "port": 8080, "tags": ["a"],
            "meta": {"version": "1"}, "weights": {"passing": 5, "warning": 0},
            "tagged_addresses": {"lan": {"address": "10.0.0.1", "port": 80}},
            "enable_tag_override": true,
            "checks": [
                {"ttl": "1m30s", "status": "passing"},
                {"id": "h", "name": "asks", "http": "http://x/", "interval": "5s", "header": {"A": ["b", "c"]},
                 "failures_before_critical": 3, "deregister_critical_service_after": "90m"},
            ],
        }]});
        let api = json!({"services": [{
            "Name": "web", "ID": "web-1", "Port": 8080, "Tags": ["a"],
            "Meta": {"version": "1"}, "Weights": {"Passing": 5, "Warning": 0},
            "TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 80}},
            "EnableTagOverride": true,
            "Checks": [
                {"TTL": "1m30s", "Status": "passing"},
                {"CheckID": "h", "Name": "asks", "HTTP": "http://x/", "Interval": "5s", "Header": {"A": ["b", "c"]},
                 "FailuresBeforeCritical": 3, "DeregisterCriticalServiceAfter": "90m"},
            ],
        }]});
        let (found, out) = read(files);
        assert!(out.errors.is_empty() && out.warnings.is_empty(), "{out:?}");
        assert_eq!(found.services, read(api).0.services);
        let service = &found.services[0];
        assert_eq!(service.tagged_addresses["lan"], ("10.0.0.1".into(), 80));
        assert_eq!((service.weight_passing, service.weight_warning), (5, 0));
        let [ttl, http] = &service.checks[..] else {
            panic!("two checks")
        };
        assert_eq!(
            (&*ttl.id, &*ttl.name, &*ttl.service_id),
            ("service:web-1:1", "Service 'web' check", "web-1")
        );
        assert_eq!(ttl.status, CheckStatus::Passing);
        assert_eq!(
            ttl.kind,
            CheckKind::Ttl {
                ttl: Duration::from_secs(90)
            }
        );
        assert_eq!(
            (http.failures_before_warning, http.failures_before_critical),
            (3, 3)
        );
        assert_eq!(
            http.deregister_critical_service_after,
            Some(Duration::from_secs(5400))
        );
        let CheckKind::Http {
            method, timeout, ..
        } = &http.kind
        else {
            panic!("an HTTP check")
        };
        assert_eq!((&**method, *timeout), ("GET", CHECK_TIMEOUT));
    }

    #[test]
    fn a_block_is_a_list_of_one_and_names_are_ids() {
        let (found, out) = read(json!({
            "service": [{"name": "db", "check": [{"tcp": "db:5432", "interval": "1s"}], "kind": "typical"}],
            "check": {"name": "mem", "ttl": "10s", "service_id": "db"},
        }));
        assert!(out.errors.is_empty(), "{out:?}");
        assert_eq!(
            out.warnings,
            ["service[0].kind: has no effect on a curia server"]
        );
        assert_eq!(found.services[0].id, "db");
        assert_eq!(found.services[0].checks[0].id, "service:db");
        assert_eq!(found.checks[0].id, "mem");
    }

    #[test]
    fn of_two_services_with_one_id_the_later_counts() {
        let (found, out) = read(json!({"services": [
            {"name": "a", "port": 1}, {"name": "a", "port": 2}, {"name": "a", "id": "b"},
        ]}));
        assert_eq!(
            out.warnings,
            ["services[1]: replaces an earlier service with the id \"a\""]
        );
        let ports: Vec<_> = found.services.iter().map(|s| (&*s.id, s.port)).collect();
        assert_eq!(ports, [("a", 2), ("b", 0)]);
    }

    #[test]
    fn every_mistake_names_its_place() {
        for (file, error) in [
            (
                json!({"service": {"port": 1}}),
                "service: a service needs a name",
            ),
            (json!({"services": ["a"]}), "services[0]: must be an object"),
            (
                json!({"service": {"name": "a", "port": 65536}}),
                "service.port: must be a whole number from 0 to 65535",
            ),
            (
                json!({"service": {"name": "a", "porrt": 1}}),
                "service.porrt: unknown key (did you mean port?)",
            ),
            (
                json!({"service": {"name": "a", "port": 1, "socket_path": "/s"}}),
                "service: port and socket_path exclude each other",
            ),
            (
                json!({"service": {"name": "a", "weights": {"passing": 0}}}),
                "service.weights.passing: must be a whole number from 1 to 65535",
            ),
            (
                json!({"service": {"name": "a", "meta": {"a b": "c"}}}),
                "service.meta: Couldn't load metadata pair ('a b', …): Key contains invalid characters: use letters, digits, '-' and '_'",
            ),
            (
                json!({"service": {"name": "a", "checks": [{"id": "x", "ttl": "1s"}, {"id": "x", "ttl": "1s"}]}}),
                "service.checks[1]: another check of this service has the id \"x\"",
            ),
            (
                json!({"service": {"name": "a", "check": {"args": ["true"], "interval": "1s", "ttl": "1s"}}}),
                "service.check.args: curia runs ttl, http and tcp checks and no others: remove the check, or have whoever runs it tell the result to a ttl check",
            ),
            (
                json!({"check": {"ttl": "1s"}}),
                "check: a check needs a name",
            ),
            (
                json!({"check": {"name": "a"}}),
                "check: TTL must be > 0 for TTL checks; a check needs one of ttl, http and tcp",
            ),
            (
                json!({"check": {"name": "a", "ttl": "10"}}),
                "check.ttl: must be a duration such as \"10s\"",
            ),
            (
                json!({"check": {"name": "a", "ttl": "-1s"}}),
                "check.ttl: must be a duration such as \"10s\"",
            ),
            (
                json!({"check": {"name": "a", "ttl": "1s", "interval": "1s"}}),
                "check: Interval and TTL cannot both be specified",
            ),
            (
                json!({"check": {"name": "a", "tcp": "a:1"}}),
                "check: Interval must be > 0 for HTTP or TCP checks",
            ),
            (
                json!({"check": {"name": "a", "tcp": "a", "interval": "1s"}}),
                "check: tcp: \"a\" is not HOST:PORT",
            ),
            (
                json!({"check": {"name": "a", "http": "a", "interval": "1s"}}),
                "check: http: \"a\" does not begin with http:// or https://",
            ),
            (
                json!({"check": {"name": "a", "http": "http://a", "tcp": "a:1", "interval": "1s"}}),
                "check: a check does one thing: give one of ttl, http and tcp",
            ),
            (
                json!({"check": {"name": "a", "ttl": "1s", "status": "fine"}}),
                "check.status: must be passing, warning or critical",
            ),
            (
                json!({"check": {"name": "a", "ttl": "1s", "failures_before_warning": 2, "failures_before_critical": 1}}),
                "check: failures_before_warning can't be higher than failures_before_critical",
            ),
        ] {
            let (_, out) = read(file.clone());
            let texts: Vec<&str> = out.errors.iter().map(|error| &*error.0).collect();
            assert_eq!(texts, [error], "{file}");
        }
    }

    #[test]
    fn meta_pairs_max_key_bytes_max_and_value_bytes_max_are_reached() {
        let check = |meta: Vec<(String, String)>| {
            let meta: BTreeMap<String, String> = meta.into_iter().collect();
            check_meta(meta.iter())
        };
        let pairs = |count| {
            (0..count)
                .map(|i| (format!("k{i}"), String::new()))
                .collect()
        };
        assert_eq!(check(pairs(META_PAIRS_MAX)), Ok(()));
        assert_eq!(
            check(pairs(META_PAIRS_MAX + 1)).unwrap_err(),
            "cannot contain more than 64 key/value pairs"
        );
        let key = |bytes| vec![("k".repeat(bytes), String::new())];
        assert_eq!(check(key(META_KEY_BYTES_MAX)), Ok(()));
        assert!(
            check(key(META_KEY_BYTES_MAX + 1))
                .unwrap_err()
                .contains("Key is too long")
        );
        let value = |bytes| vec![("k".to_string(), "v".repeat(bytes))];
        assert_eq!(check(value(META_VALUE_BYTES_MAX)), Ok(()));
        assert!(
            check(value(META_VALUE_BYTES_MAX + 1))
                .unwrap_err()
                .contains("Value is too long")
        );
        assert!(
            check(vec![("consul-x".into(), String::new())])
                .unwrap_err()
                .contains("reserved")
        );
        assert_eq!(
            check(vec![(String::new(), String::new())]).unwrap_err(),
            "Key cannot be blank"
        );
    }
}

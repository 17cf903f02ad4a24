//! How do services and checks of configuration files come to be registered?
//!
//! What was read from the files is put as a client would put it, and goes through the same checks:
//! what a client may not register is not registered by a file either. The log says what was left
//! out and why; the rest is registered.

use serde_json::{Value, json};

use super::local::{AgentError, CheckDefinition, ServiceDefinition};
use crate::server::config::{
    AgentConfig,
    definitions::{
        CheckDefinition as CheckText, CheckKind, CheckStatus, ServiceDefinition as ServiceText,
    },
};

/// What configuration files say is to be registered.
#[derive(Debug, Default)]
pub struct Configured {
    /// Services with their checks.
    pub services: Vec<ServiceDefinition>,
    /// Checks of the node, or of services that are registered otherwise.
    pub checks: Vec<CheckDefinition>,
}

impl Configured {
    /// What `config` says; what cannot be registered is named in the log.
    pub fn of(config: &AgentConfig) -> Self {
        let services = config.services.iter().filter_map(|service| {
            let read = ServiceDefinition::from_value(&service_json(service));
            registrable("service", &service.id, read)
        });
        let checks = config.checks.iter().filter_map(|check| {
            let read = CheckDefinition::from_value(&check_json(check));
            registrable("check", &check.id, read)
        });
        Self {
            services: services.collect(),
            checks: checks.collect(),
        }
    }
}

fn registrable<T>(what: &str, id: &str, read: Result<T, AgentError>) -> Option<T> {
    match read {
        Ok(definition) => Some(definition),
        Err(error) => {
            log::error!(target: "agent", "{what} {id:?} of the configuration is not registered: {error}");
            None
        }
    }
}

fn service_json(service: &ServiceText) -> Value {
    let addresses: serde_json::Map<String, Value> = service
        .tagged_addresses
        .iter()
        .map(|(name, (address, port))| (name.clone(), json!({"Address": address, "Port": port})))
        .collect();
    json!({
        "ID": service.id,
        "Name": service.name,
        "Tags": service.tags,
        "Address": service.address,
        "Port": service.port,
        "SocketPath": service.socket_path,
        "TaggedAddresses": addresses,
        "Meta": service.meta,
        "Weights": {"Passing": service.weight_passing, "Warning": service.weight_warning},
        "EnableTagOverride": service.enable_tag_override,
        "Checks": service.checks.iter().map(check_json).collect::<Vec<_>>(),
        "Token": service.token.as_ref().map(|token| token.expose()),
    })
}

fn check_json(check: &CheckText) -> Value {
    let nanos = |duration: &std::time::Duration| duration.as_nanos() as u64;
    let mut document = json!({
        "ID": check.id,
        "Name": check.name,
        "Notes": check.notes,
        "ServiceID": check.service_id,
        "Status": match check.status {
            CheckStatus::Passing => "passing",
            CheckStatus::Warning => "warning",
            CheckStatus::Critical => "critical",
        },
        "SuccessBeforePassing": check.success_before_passing,
        "FailuresBeforeWarning": check.failures_before_warning,
        "FailuresBeforeCritical": check.failures_before_critical,
        "DeregisterCriticalServiceAfter":
            check.deregister_critical_service_after.as_ref().map(nanos),
        "OutputMaxSize": check.output_bytes_max,
        "Token": check.token.as_ref().map(|token| token.expose()),
    });
    let timed = |document: &mut Value, interval, timeout| {
        document["Interval"] = json!(nanos(interval));
        document["Timeout"] = json!(nanos(timeout));
    };
    match &check.kind {
        CheckKind::Ttl { ttl } => document["TTL"] = json!(nanos(ttl)),
        CheckKind::Tcp {
            address,
            use_tls,
            tls_skip_verify,
            tls_server_name,
            interval,
            timeout,
        } => {
            document["TCP"] = json!(address);
            document["TCPUseTLS"] = json!(use_tls);
            document["TLSSkipVerify"] = json!(tls_skip_verify);
            document["TLSServerName"] = json!(tls_server_name);
            timed(&mut document, interval, timeout);
        }
        CheckKind::Http {
            url,
            method,
            headers,
            body,
            tls_skip_verify,
            tls_server_name,
            disable_redirects,
            interval,
            timeout,
        } => {
            document["HTTP"] = json!(url);
            document["Method"] = json!(method);
            document["Header"] = json!(headers);
            document["Body"] = json!(body);
            document["DisableRedirects"] = json!(disable_redirects);
            document["TLSSkipVerify"] = json!(tls_skip_verify);
            document["TLSServerName"] = json!(tls_server_name);
            timed(&mut document, interval, timeout);
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::server::agent::local::{CheckKind as Kind, Status, TcpCheck, TlsOptions};

    fn check(kind: CheckKind) -> CheckText {
        CheckText {
            id: "service:web".into(),
            name: "Service 'web' check".into(),
            notes: "n".into(),
            service_id: "web".into(),
            status: CheckStatus::Warning,
            kind,
            success_before_passing: 2,
            failures_before_warning: 3,
            failures_before_critical: 4,
            deregister_critical_service_after: Some(Duration::from_secs(120)),
            output_bytes_max: 100,
            token: None,
        }
    }

    fn service(checks: Vec<CheckText>) -> ServiceText {
        ServiceText {
            id: "web".into(),
            name: "web".into(),
            tags: vec!["a".into()],
            address: String::new(),
            port: 80,
            socket_path: String::new(),
            tagged_addresses: [("lan".to_owned(), ("10.0.0.1".to_owned(), 81))].into(),
            meta: BTreeMap::new(),
            weight_passing: 5,
            weight_warning: 0,
            enable_tag_override: true,
            checks,
            token: None,
        }
    }

    #[test]
    fn everything_that_a_file_says_arrives() {
        let http = CheckKind::Http {
            url: "https://127.0.0.1/".into(),
            method: "PUT".into(),
            headers: [("X-A".to_owned(), vec!["1".to_owned()])].into(),
            body: "b".into(),
            tls_skip_verify: true,
            tls_server_name: "web.example".into(),
            disable_redirects: true,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
        };
        let definition =
            ServiceDefinition::from_value(&service_json(&service(vec![check(http)]))).unwrap();
        assert_eq!(
            (definition.weights.passing, definition.weights.warning),
            (5, 0)
        );
        assert_eq!(
            definition.tagged_addresses["lan"],
            ("10.0.0.1".to_owned(), 81)
        );
        assert!(definition.enable_tag_override);
        let check = &definition.checks[0];
        assert_eq!((&*check.id, check.status), ("service:web", Status::Warning));
        assert_eq!(
            (check.interval_ns, check.timeout_ns),
            (10_000_000_000, 3_000_000_000)
        );
        assert_eq!(check.thresholds.failures_before_critical, 4);
        assert_eq!(check.deregister_after_ns, 120_000_000_000);
        assert_eq!(check.output_bytes_max, 100);
        let Kind::Http(request) = &check.kind else {
            panic!("{check:?}");
        };
        assert_eq!((&*request.method, &*request.body), ("PUT", "b"));
        assert!(request.disable_redirects && request.tls.skip_verify);
        assert_eq!(request.tls.server_name, "web.example");
    }

    #[test]
    fn checks_of_files_are_of_all_kinds() {
        let ttl = CheckKind::Ttl {
            ttl: Duration::from_millis(1500),
        };
        let ttl = CheckDefinition::from_value(&check_json(&check(ttl))).unwrap();
        assert_eq!(
            ttl.kind,
            Kind::Ttl {
                ttl_ns: 1_500_000_000
            }
        );
        let tcp = CheckKind::Tcp {
            address: "127.0.0.1:1".into(),
            use_tls: true,
            tls_skip_verify: false,
            tls_server_name: "web.example".into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        };
        let tcp = CheckDefinition::from_value(&check_json(&check(tcp))).unwrap();
        assert_eq!(
            tcp.kind,
            Kind::Tcp(Box::new(TcpCheck {
                address: "127.0.0.1:1".into(),
                tls: Some(TlsOptions {
                    server_name: "web.example".into(),
                    skip_verify: false,
                }),
            }))
        );
    }
}

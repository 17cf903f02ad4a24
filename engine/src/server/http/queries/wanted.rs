//! What does a client want a prepared query to be?
//!
//! Read as Go reads it, refused in Consul's words. What names what there is not here (peered
//! clusters, sameness groups) is refused: an answer from elsewhere cannot be given, and one from
//! here would be wrong.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::{
    failure::Refusal,
    go_text::{parse_duration, quote},
    loose::Loose,
};
use crate::{
    documents::{
        acl::HIDDEN,
        queries::{Definition, Dns, Failover, ServiceQuery, Target, Template, check_template},
    },
    fsm::catalog::check_meta,
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct QueryBody {
    id: String,
    name: String,
    session: String,
    token: String,
    template: Loose<TemplateBody>,
    service: Loose<ServiceBody>,
    dns: Loose<DnsBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct TemplateBody {
    #[serde(rename = "type")]
    kind: String,
    regexp: String,
    removeemptytags: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct ServiceBody {
    service: String,
    samenessgroup: String,
    failover: Loose<FailoverBody>,
    onlypassing: bool,
    ignorecheckids: Vec<String>,
    near: String,
    tags: Vec<String>,
    nodemeta: BTreeMap<String, String>,
    servicemeta: BTreeMap<String, String>,
    connect: bool,
    peer: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct FailoverBody {
    nearestn: i64,
    datacenters: Vec<String>,
    targets: Vec<Loose<TargetBody>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct TargetBody {
    peer: String,
    datacenter: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct DnsBody {
    ttl: String,
}

/// Reads a body.
pub(super) fn query(body: &[u8]) -> Result<Definition, Refusal> {
    let Loose(QueryBody {
        id,
        name,
        session,
        token,
        template: Loose(template),
        service: Loose(service),
        dns: Loose(DnsBody { ttl }),
    }) = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("Request decode failed: {error}")))?;
    Ok(Definition {
        id,
        name,
        session,
        token,
        template: Template {
            kind: template.kind,
            regexp: template.regexp,
            remove_empty_tags: template.removeemptytags,
        },
        service: service.query(),
        dns: Dns { ttl },
    })
}

impl ServiceBody {
    fn query(self) -> ServiceQuery {
        let Loose(failover) = self.failover;
        let target = |Loose(target): Loose<TargetBody>| Target {
            peer: target.peer,
            datacenter: target.datacenter,
        };
        ServiceQuery {
            service: self.service,
            sameness_group: self.samenessgroup,
            failover: Failover {
                nearest_n: failover.nearestn,
                datacenters: failover.datacenters,
                targets: failover.targets.into_iter().map(target).collect(),
            },
            only_passing: self.onlypassing,
            ignore_check_ids: self.ignorecheckids,
            near: self.near,
            tags: self.tags,
            node_meta: self.nodemeta,
            service_meta: self.servicemeta,
            connect: self.connect,
            peer: self.peer,
        }
    }
}

/// Whether a query may be kept; Consul's texts if not.
pub(super) fn check(query: &Definition) -> Result<(), Refusal> {
    problem(query).map_err(|why| Refusal::internal(format!("Invalid prepared query: {why}")))?;
    if query.template.kind.is_empty() {
        return Ok(());
    }
    check_template(query).map_err(|why| {
        let said = super::APPLY_FAILED;
        Refusal::internal(format!("{said}failed compiling template: {why}"))
    })
}

fn problem(query: &Definition) -> Result<(), String> {
    let Definition {
        service,
        token,
        dns: Dns { ttl },
        ..
    } = query;
    if query.name.is_empty() && query.template.kind.is_empty() && query.session.is_empty() {
        return Err("Must be bound to a session".to_owned());
    }
    if token == HIDDEN {
        return Err(format!(
            "Bad Token '{token}', it looks like a query definition with a redacted token was \
             submitted"
        ));
    }
    if service.service.is_empty() {
        return Err("Must provide a Service name to query".to_owned());
    }
    if !service.sameness_group.is_empty() || !service.peer.is_empty() {
        return Err("sameness groups and cluster peering are not supported".to_owned());
    }
    let failover = &service.failover;
    if failover.nearest_n < 0 {
        let nearest = failover.nearest_n;
        return Err(format!("Bad NearestN '{nearest}', must be >= 0"));
    }
    let others = failover.nearest_n != 0 || !failover.datacenters.is_empty();
    if others && !failover.targets.is_empty() {
        return Err("Targets cannot be populated with NearestN or Datacenters".to_owned());
    }
    check_meta("Node", &service.node_meta)?;
    match parse_duration(ttl) {
        _ if ttl.is_empty() => Ok(()),
        None => Err(format!(
            "Bad DNS TTL '{ttl}': time: invalid duration {}",
            quote(ttl)
        )),
        Some(ns) if ns < 0 => Err(format!("DNS TTL '{ns}', must be >=0")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_as_consul_reads_them() {
        let text = r#"{
            "name": "q", "TOKEN": null, "Unknown": 1, "dns": {"Ttl": "10s"},
            "Template": {"type": "name_prefix_match", "RemoveEmptyTags": true},
            "Service": {"service": "web", "Tags": null, "OnlyPassing": true,
                        "IgnoreCheckIDs": ["c"], "NodeMeta": {"Rack": "7"},
                        "Failover": {"NearestN": 2, "Datacenters": ["dc2"], "targets": null}}
        }"#;
        let query = query(text.as_bytes()).unwrap();
        assert_eq!((&*query.name, &*query.dns.ttl), ("q", "10s"));
        assert!(query.template.remove_empty_tags && query.service.only_passing);
        assert_eq!(query.service.node_meta["Rack"], "7");
        assert_eq!(query.service.failover.datacenters, ["dc2"]);
        assert!(check(&query).is_ok());
        for bad in ["", "[]", r#"{"Name": 1}"#, r#"{"Service": "web"}"#] {
            let refusal = super::query(bad.as_bytes()).unwrap_err();
            assert_eq!(refusal.status.as_u16(), 400, "{bad}");
            assert!(refusal.text.starts_with("Request decode failed: "), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_query_is_said_in_consuls_words() {
        let invalid = |why: &str| format!("Invalid prepared query: {why}");
        for (body, text) in [
            ("{}", invalid("Must be bound to a session")),
            (
                r#"{"Name": "q", "Token": "<hidden>"}"#,
                invalid(
                    "Bad Token '<hidden>', it looks like a query definition with a redacted token was submitted",
                ),
            ),
            (
                r#"{"Name": "q"}"#,
                invalid("Must provide a Service name to query"),
            ),
            (
                r#"{"Name": "q", "Service": {"Service": "web", "Failover": {"NearestN": -1}}}"#,
                invalid("Bad NearestN '-1', must be >= 0"),
            ),
            (
                r#"{"Name": "q", "Service": {"Service": "web", "Failover": {"NearestN": 1, "Targets": [{"Datacenter": "dc2"}]}}}"#,
                invalid("Targets cannot be populated with NearestN or Datacenters"),
            ),
            (
                r#"{"Name": "q", "Service": {"Service": "web", "Peer": "other"}}"#,
                invalid("sameness groups and cluster peering are not supported"),
            ),
            (
                r#"{"Name": "q", "Service": {"Service": "web", "NodeMeta": {"": "x"}}}"#,
                invalid("Couldn't load metadata pair ('', 'x'): Key cannot be blank"),
            ),
            (
                r#"{"Name": "q", "Service": {"Service": "web"}, "DNS": {"TTL": "abc"}}"#,
                invalid("Bad DNS TTL 'abc': time: invalid duration \"abc\""),
            ),
            (
                r#"{"Name": "q", "Service": {"Service": "web"}, "DNS": {"TTL": "-5s"}}"#,
                invalid("DNS TTL '-5000000000', must be >=0"),
            ),
            (
                r#"{"Template": {"Type": "x"}, "Service": {"Service": "web"}}"#,
                "raft apply failed: failed compiling template: Bad Template.Type 'x'".to_owned(),
            ),
        ] {
            let refusal = query(body.as_bytes())
                .and_then(|query| check(&query))
                .unwrap_err();
            assert_eq!(
                (refusal.status.as_u16(), &*refusal.text),
                (500, &*text),
                "{body}"
            );
        }
        let fine = br#"{"Session": "s", "Service": {"Service": "web"}, "DNS": {"TTL": "0s"}}"#;
        assert!(check(&query(fine).unwrap()).is_ok());
    }
}

//! What does a client want a token, policy or role to be?
//!
//! Bodies of `/v1/acl/…`, read as Consul reads them: names of fields in any case, `null` for what
//! is not given, fields that Consul only shows (`Hash`, `CreateIndex`) without effect. Everything
//! that can be wrong without a look at the state is said here, before the log.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use wire::Uuid;

use super::{
    super::{failure::Refusal, go_text::quote},
    expiry::ends,
};
use crate::{
    acl::{RESERVED_ID_PREFIX, Rules, builtin_policy, valid_identity_name},
    state::records::{
        AclPolicy, AclRole, AclToken, NodeIdentity, PolicyLink, RoleLink, ServiceIdentity,
    },
};

/// Longest name of a policy, bytes.
pub(super) const POLICY_NAME_BYTES_MAX: usize = 128;
/// Longest name of a role, bytes.
pub(super) const ROLE_NAME_BYTES_MAX: usize = 256;

/// A link by id, else by name.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Link {
    id: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Service {
    servicename: String,
    datacenters: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Node {
    nodename: String,
    datacenter: String,
}

/// A token's body. Exactly what Consul's has; unknown fields are refused, as Consul does.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TokenBody {
    accessorid: String,
    secretid: String,
    description: String,
    policies: Vec<Link>,
    roles: Vec<Link>,
    serviceidentities: Vec<Service>,
    nodeidentities: Vec<Node>,
    templatedpolicies: Vec<Value>,
    local: bool,
    authmethod: String,
    expirationtime: String,
    expirationttl: Option<Value>,
    createtime: Value,
    hash: Value,
    createindex: Value,
    modifyindex: u64,
    rules: String,
    r#type: String,
    namespace: String,
    partition: String,
    id: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PolicyBody {
    id: String,
    name: String,
    description: String,
    rules: String,
    datacenters: Vec<String>,
    hash: Value,
    createindex: Value,
    modifyindex: Value,
    namespace: String,
    partition: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RoleBody {
    id: String,
    name: String,
    description: String,
    policies: Vec<Link>,
    serviceidentities: Vec<Service>,
    nodeidentities: Vec<Node>,
    templatedpolicies: Vec<Value>,
    hash: Value,
    createindex: Value,
    modifyindex: Value,
    namespace: String,
    partition: String,
}

/// Reads a body; `what` it is stands in the error.
fn parse<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Refusal> {
    let failed = |why: String| Refusal::bad(format!("{what} decoding failed: {why}"));
    let value: Value = serde_json::from_slice(body).map_err(|error| failed(error.to_string()))?;
    serde_json::from_value(lowered(value)).map_err(|error| failed(error.to_string()))
}

/// With the names of fields in lower case, and without those that are `null`.
fn lowered(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, value)| !value.is_null());
            let members = members.map(|(name, value)| (name.to_lowercase(), lowered(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(lowered).collect()),
        value => value,
    }
}

/// What `PUT /v1/acl/bootstrap` wants the secret to be; empty for any.
pub(in super::super) fn bootstrap_secret(body: &[u8]) -> Result<String, Refusal> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Bootstrap {
        bootstrapsecret: String,
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(String::new());
    }
    let failed = |why: String| Refusal::bad(format!("Request decoding failed: {why}"));
    let value: Value = serde_json::from_slice(body).map_err(|error| failed(error.to_string()))?;
    let wanted: Bootstrap =
        serde_json::from_value(lowered(value)).map_err(|error| failed(error.to_string()))?;
    let secret = wanted.bootstrapsecret;
    match secret.is_empty() || Uuid::parse(&secret).is_some() && !reserved(&secret) {
        true => Ok(secret),
        false => Err(Refusal::internal("invalid token: UUID provided is invalid")),
    }
}

fn reserved(id: &str) -> bool {
    id.to_lowercase().starts_with(RESERVED_ID_PREFIX)
}

/// A token; its ids and times are as far as they were given. `now_ns` decides when it ends.
pub(in super::super) fn token(body: &[u8], create: bool, now_ns: u64) -> Result<AclToken, Refusal> {
    let wanted: TokenBody = parse(body, "Token")?;
    one_tenant(&wanted.namespace, &wanted.partition)?;
    let refuse = |why: &str| Err(Refusal::internal(why.to_owned()));
    if !wanted.rules.is_empty() {
        return refuse("Rules cannot be specified for this token");
    }
    if !wanted.r#type.is_empty() {
        return refuse("Type cannot be specified for this token");
    }
    if create && !wanted.authmethod.is_empty() {
        return refuse("AuthMethod field is disallowed outside of Login");
    }
    if create {
        for (name, id) in [
            ("AccessorID", &wanted.accessorid),
            ("SecretID", &wanted.secretid),
        ] {
            if !id.is_empty() && Uuid::parse(id).is_none() {
                return refuse(&format!("Invalid Token: {name} is not a valid UUID"));
            }
            if reserved(id) {
                return refuse(&format!(
                    "Invalid Token: UUIDs with the prefix {} are reserved",
                    quote(RESERVED_ID_PREFIX)
                ));
            }
        }
    }
    no_templates(&wanted.templatedpolicies)?;
    let ttl = wanted.expirationttl.as_ref();
    let expiration_time = match (create, ttl) {
        (false, Some(ttl)) if *ttl != 0 && *ttl != "" => {
            let id = &wanted.accessorid;
            return refuse(&format!("Cannot change expiration time of {id}"));
        }
        (true, ttl) => ends(&wanted.expirationtime, ttl, Some(now_ns))?,
        (false, _) => ends(&wanted.expirationtime, None, None)?,
    };
    Ok(AclToken {
        accessor_id: wanted.accessorid.to_lowercase(),
        secret_id: wanted.secretid,
        description: wanted.description,
        policies: policy_links(wanted.policies),
        roles: wanted
            .roles
            .into_iter()
            .map(|link| RoleLink {
                id: link.id,
                name: link.name,
            })
            .collect(),
        service_identities: services(wanted.serviceidentities, wanted.local)?,
        node_identities: nodes(wanted.nodeidentities)?,
        local: wanted.local,
        auth_method: wanted.authmethod,
        expiration_time,
        modify_index: wanted.modifyindex,
        ..AclToken::default()
    })
}

/// A policy; its id as far as it was given.
pub(in super::super) fn policy(body: &[u8]) -> Result<AclPolicy, Refusal> {
    let wanted: PolicyBody = parse(body, "Policy")?;
    one_tenant(&wanted.namespace, &wanted.partition)?;
    if wanted.name.is_empty() {
        return Err(Refusal::internal("Invalid Policy: no Name is set"));
    }
    // A built-in policy's own name has a slash.
    let builtin = builtin_policy(&wanted.id).is_some_and(|builtin| builtin.name == wanted.name);
    if !builtin && !plain_name(&wanted.name, POLICY_NAME_BYTES_MAX) {
        return Err(Refusal::internal(
            "Invalid Policy: invalid Name. Only alphanumeric characters, '-' and '_' are allowed",
        ));
    }
    Rules::parse(&wanted.rules).map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(AclPolicy {
        id: wanted.id.to_lowercase(),
        name: wanted.name,
        description: wanted.description,
        rules: wanted.rules,
        datacenters: wanted.datacenters,
        ..AclPolicy::default()
    })
}

/// A role; its id as far as it was given.
pub(in super::super) fn role(body: &[u8]) -> Result<AclRole, Refusal> {
    let wanted: RoleBody = parse(body, "Role")?;
    one_tenant(&wanted.namespace, &wanted.partition)?;
    if wanted.name.is_empty() {
        return Err(Refusal::internal("Invalid Role: no Name is set"));
    }
    if !plain_name(&wanted.name, ROLE_NAME_BYTES_MAX) {
        return Err(Refusal::internal(
            "Invalid Role: invalid Name. Only alphanumeric characters, '-' and '_' are allowed",
        ));
    }
    no_templates(&wanted.templatedpolicies)?;
    Ok(AclRole {
        id: wanted.id.to_lowercase(),
        name: wanted.name,
        description: wanted.description,
        policies: policy_links(wanted.policies),
        service_identities: services(wanted.serviceidentities, false)?,
        node_identities: nodes(wanted.nodeidentities)?,
        ..AclRole::default()
    })
}

fn one_tenant(namespace: &str, partition: &str) -> Result<(), Refusal> {
    match (namespace, partition) {
        ("" | "default", "" | "default") => Ok(()),
        _ => Err(Refusal::bad("Namespaces and partitions are not supported")),
    }
}

fn no_templates(templates: &[Value]) -> Result<(), Refusal> {
    match templates.is_empty() {
        true => Ok(()),
        false => Err(Refusal::internal(
            "Templated policies are not supported: use ServiceIdentities or NodeIdentities, or a \
             policy of its own",
        )),
    }
}

fn plain_name(name: &str, bytes_max: usize) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.len() <= bytes_max && name.bytes().all(plain)
}

fn policy_links(links: Vec<Link>) -> Vec<PolicyLink> {
    let link = |Link { id, name }| PolicyLink { id, name };
    links.into_iter().map(link).collect()
}

fn services(identities: Vec<Service>, local: bool) -> Result<Vec<ServiceIdentity>, Refusal> {
    let checked = |identity: Service| {
        let name = &identity.servicename;
        let refuse = |why: String| Err(Refusal::internal(why));
        if name.is_empty() {
            return refuse(
                "Service identity is missing the service name field on this token".to_owned(),
            );
        }
        if local && !identity.datacenters.is_empty() {
            let name = quote(name);
            return refuse(format!(
                "Service identity {name} cannot specify a list of datacenters on a local token"
            ));
        }
        if !valid_identity_name(name) {
            let name = quote(name);
            return refuse(format!(
                "Service identity {name} has an invalid name. Only lowercase alphanumeric \
                 characters, '-' and '_' are allowed"
            ));
        }
        Ok(ServiceIdentity {
            service_name: identity.servicename,
            datacenters: identity.datacenters,
        })
    };
    identities.into_iter().map(checked).collect()
}

fn nodes(identities: Vec<Node>) -> Result<Vec<NodeIdentity>, Refusal> {
    let checked = |identity: Node| {
        if identity.nodename.is_empty() {
            return Err(Refusal::internal(
                "Node identity is missing the node name field on this token",
            ));
        }
        if identity.datacenter.is_empty() {
            return Err(Refusal::internal(
                "Node identity is missing the datacenter field on this token",
            ));
        }
        if !valid_identity_name(&identity.nodename) {
            return Err(Refusal::internal(
                "Node identity has an invalid name. Only lowercase alphanumeric characters, '-' \
                 and '_' are allowed",
            ));
        }
        Ok(NodeIdentity {
            node_name: identity.nodename,
            datacenter: identity.datacenter,
        })
    };
    identities.into_iter().map(checked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::expiry::EXPIRES_NS_MIN;

    const NOW_NS: u64 = 1_700_000_000_000_000_000;

    fn made(body: &str) -> Result<AclToken, String> {
        token(body.as_bytes(), true, NOW_NS).map_err(|refusal| refusal.text.into_owned())
    }

    #[test]
    fn tokens_are_read_as_consul_reads_them() {
        let token = made(
            r#"{"accessorid": null, "Description": "d", "Policies": [{"Name": "p"}, {"ID": "x"}],
                "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}],
                "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}],
                "ExpirationTTL": "1h", "Hash": "AAAA", "CreateIndex": 7, "ModifyIndex": 9}"#,
        )
        .unwrap();
        assert_eq!(token.expiration_time, NOW_NS + 3600 * 1_000_000_000);
        assert_eq!((token.policies.len(), token.modify_index), (2, 9));
        assert_eq!(token.service_identities[0].datacenters, ["dc1"]);
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said_in_consuls_words() {
        for (body, why) in [
            ("{", "Token decoding failed: "),
            (
                r#"{"Polices": []}"#,
                "Token decoding failed: unknown field `polices`",
            ),
            (
                r#"{"AccessorID": "x"}"#,
                "Invalid Token: AccessorID is not a valid UUID",
            ),
            (
                r#"{"SecretID": "x"}"#,
                "Invalid Token: SecretID is not a valid UUID",
            ),
            (
                r#"{"SecretID": "00000000-0000-0000-0000-000000000077"}"#,
                "Invalid Token: UUIDs with the prefix \"00000000-0000-0000-0000-0000000000\" are reserved",
            ),
            (
                r#"{"ExpirationTTL": "59s"}"#,
                "ExpirationTime cannot be less than 1m0s in the future (was 59s)",
            ),
            (
                r#"{"ExpirationTTL": "-1s"}"#,
                "Token Expiration TTL '-1s' should be > 0",
            ),
            (
                r#"{"ExpirationTTL": "x"}"#,
                "Token decoding failed: time: invalid duration \"x\"",
            ),
            (
                r#"{"ExpirationTime": "2020-01-01T00:00:00Z"}"#,
                "ExpirationTime cannot be before CreateTime",
            ),
            (
                r#"{"ExpirationTime": "2030-01-01T00:00:00Z", "ExpirationTTL": "1h"}"#,
                "Token Expiration TTL and Expiration Time cannot both be set",
            ),
            (
                r#"{"Rules": "x"}"#,
                "Rules cannot be specified for this token",
            ),
            (
                r#"{"AuthMethod": "x"}"#,
                "AuthMethod field is disallowed outside of Login",
            ),
            (
                r#"{"ServiceIdentities": [{}]}"#,
                "Service identity is missing the service name field on this token",
            ),
            (
                r#"{"ServiceIdentities": [{"ServiceName": "Web"}]}"#,
                "Service identity \"Web\" has an invalid name.",
            ),
            (
                r#"{"Local": true, "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}]}"#,
                "Service identity \"web\" cannot specify a list of datacenters on a local token",
            ),
            (
                r#"{"NodeIdentities": [{"NodeName": "n1"}]}"#,
                "Node identity is missing the datacenter field on this token",
            ),
            (
                r#"{"TemplatedPolicies": [{}]}"#,
                "Templated policies are not supported",
            ),
            (
                r#"{"Namespace": "a"}"#,
                "Namespaces and partitions are not supported",
            ),
        ] {
            let error = made(body).unwrap_err();
            assert!(error.starts_with(why), "{body}: {error}");
        }
    }

    #[test]
    fn a_token_lives_at_least_a_minute() {
        let left = EXPIRES_NS_MIN;
        assert!(made(&format!("{{\"ExpirationTTL\": {left}}}")).is_ok());
        assert!(made(&format!("{{\"ExpirationTTL\": {}}}", left - 1)).is_err());
    }

    #[test]
    fn names_are_bounded() {
        let body = |name: &str| format!("{{\"Name\": \"{name}\"}}");
        let policy_of = |name: &str| policy(body(name).as_bytes()).is_ok();
        assert!(policy_of(&"a".repeat(POLICY_NAME_BYTES_MAX)));
        assert!(!policy_of(&"a".repeat(POLICY_NAME_BYTES_MAX + 1)));
        assert!(!policy_of("a b") && !policy_of("") && !policy_of("a/b"));
        let role_of = |name: &str| role(body(name).as_bytes()).is_ok();
        assert!(role_of(&"a".repeat(ROLE_NAME_BYTES_MAX)));
        assert!(!role_of(&"a".repeat(ROLE_NAME_BYTES_MAX + 1)));
    }
}

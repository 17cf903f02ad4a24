//! How does Consul show tokens, policies and roles?
//!
//! Fields in its order; names of links as they are now; what has no value is left out where
//! Consul leaves it out, and `null` where it is not. Times as Go shows them: RFC 3339 with as many
//! decimals as it takes.

use serde::Serialize;

use super::{HIDDEN, View};
use crate::{
    fsm::acl,
    state::{
        Tables,
        records::{
            AclPolicy, AclRole, AclToken, NodeIdentity, PolicyLink, RoleLink, ServiceIdentity,
        },
    },
};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LinkShown {
    #[serde(rename = "ID")]
    id: String,
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceShown<'a> {
    service_name: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    datacenters: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodeShown<'a> {
    node_name: &'a str,
    datacenter: &'a str,
}

fn policies_shown(tables: &Tables, links: &[PolicyLink]) -> Vec<LinkShown> {
    let shown = |link: &PolicyLink| {
        let policy = acl::policy(tables, &link.id)?;
        Some(LinkShown {
            id: policy.id.clone(),
            name: policy.name.clone(),
        })
    };
    links.iter().filter_map(shown).collect()
}

fn roles_shown(tables: &Tables, links: &[RoleLink]) -> Vec<LinkShown> {
    let shown = |link: &RoleLink| {
        let role = acl::role(tables, &link.id)?;
        Some(LinkShown {
            id: role.id.clone(),
            name: role.name.clone(),
        })
    };
    links.iter().filter_map(shown).collect()
}

fn services_shown(identities: &[ServiceIdentity]) -> Vec<ServiceShown<'_>> {
    let shown = identities.iter().map(|identity| ServiceShown {
        service_name: &identity.service_name,
        datacenters: &identity.datacenters,
    });
    shown.collect()
}

fn nodes_shown(identities: &[NodeIdentity]) -> Vec<NodeShown<'_>> {
    let shown = identities.iter().map(|identity| NodeShown {
        node_name: &identity.node_name,
        datacenter: &identity.datacenter,
    });
    shown.collect()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TokenShown<'a> {
    #[serde(rename = "AccessorID")]
    accessor_id: &'a str,
    #[serde(rename = "SecretID")]
    secret_id: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<LinkShown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<LinkShown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_identities: Vec<ServiceShown<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    node_identities: Vec<NodeShown<'a>>,
    local: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    auth_method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_time: Option<String>,
    create_time: String,
    hash: String,
    create_index: u64,
    modify_index: u64,
}

impl<'a> TokenShown<'a> {
    pub(super) fn new(tables: &Tables, token: &'a AclToken, view: &View) -> Self {
        let expires = token.expiration_time;
        Self {
            accessor_id: &token.accessor_id,
            secret_id: match view.hide_secrets {
                true => HIDDEN,
                false => &token.secret_id,
            },
            description: &token.description,
            policies: policies_shown(tables, &token.policies),
            roles: roles_shown(tables, &token.roles),
            service_identities: services_shown(&token.service_identities),
            node_identities: nodes_shown(&token.node_identities),
            local: token.local,
            auth_method: &token.auth_method,
            expiration_time: (expires > 0).then(|| rfc3339(expires)),
            create_time: rfc3339(token.create_time),
            hash: base64(&token.hash),
            create_index: token.create_index,
            modify_index: token.modify_index,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PolicyShown<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<&'a str>,
    /// Not there in a whole policy of all, `null` in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    datacenters: Option<Option<&'a [String]>>,
    hash: String,
    create_index: u64,
    modify_index: u64,
}

impl<'a> PolicyShown<'a> {
    pub(super) fn new(policy: &'a AclPolicy, whole: bool) -> Self {
        let some = (!policy.datacenters.is_empty()).then_some(&policy.datacenters[..]);
        Self {
            id: &policy.id,
            name: &policy.name,
            description: &policy.description,
            rules: whole.then_some(&policy.rules),
            datacenters: match whole {
                true => some.map(Some),
                false => Some(some),
            },
            hash: base64(&policy.hash),
            create_index: policy.create_index,
            modify_index: policy.modify_index,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RoleShown<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<LinkShown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_identities: Vec<ServiceShown<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    node_identities: Vec<NodeShown<'a>>,
    hash: String,
    create_index: u64,
    modify_index: u64,
}

impl<'a> RoleShown<'a> {
    pub(super) fn new(tables: &Tables, role: &'a AclRole) -> Self {
        Self {
            id: &role.id,
            name: &role.name,
            description: &role.description,
            policies: policies_shown(tables, &role.policies),
            service_identities: services_shown(&role.service_identities),
            node_identities: nodes_shown(&role.node_identities),
            hash: base64(&role.hash),
            create_index: role.create_index,
            modify_index: role.modify_index,
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A time as Go writes it: UTC, with as many decimals of the second as it takes.
fn rfc3339(ns: u64) -> String {
    const NS: u64 = 1_000_000_000;
    let (seconds, fraction) = (ns / NS, ns % NS);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let decimals = match fraction {
        0 => String::new(),
        _ => format!(".{fraction:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{decimals}Z")
}

/// Year, month and day of a day since 1970, counting years from March so that a leap day is a
/// year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_000_000_000, "2000-02-28T23:59:59Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (951_868_800_500_000_000, "2000-03-01T00:00:00.5Z"),
            (1_704_067_199_999_999_999, "2023-12-31T23:59:59.999999999Z"),
            (1_709_164_800_000_000_000, "2024-02-29T00:00:00Z"),
            (4_107_542_400_120_000_000, "2100-03-01T00:00:00.12Z"),
        ] {
            assert_eq!(rfc3339(ns), text, "{ns}");
        }
        // Day by day through four centuries, as the calendar goes on.
        let mut expected = (1970, 1, 1);
        for days in 0..146_097 {
            assert_eq!(civil(days), expected);
            let (year, month, day) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == last => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }
}

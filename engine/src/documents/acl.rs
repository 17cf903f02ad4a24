//! What do Consul's ACL endpoints answer, and what does a server ask itself before it decides?
//!
//! The public questions give tokens, policies and roles as Consul shows them; what is not there is
//! `null`, and the endpoint makes its 404 of it. Who may not change the ACL sees no secrets.
//!
//! [`AclQuestion::Resolve`] gathers all that decides what a token may do, in one answer of one
//! moment: its own policies, those of its roles, its identities. [`AclQuestion::Duties`] is what a
//! leader looks at: is anything missing that every cluster has, is any token's time over.
//!
//! Times are shown as Go shows them: RFC 3339 with as many decimals as it takes.

use serde::{Deserialize, Serialize};
use wire::Index;

use super::{Subject, json};
use crate::{
    acl::{ANONYMOUS_ACCESSOR, GLOBAL_MANAGEMENT, GLOBAL_READ_ONLY},
    fsm::acl::{self, has_ended},
    state::{
        Tables,
        index::Arg,
        records::{
            AclPolicy, AclRole, AclToken, NodeIdentity, PolicyLink, RoleLink, ServiceIdentity,
        },
        schema::{AclPolicies, AclRoles, AclTokens, CHECKS_ID, PREPARED_QUERIES_ID, SERVICES_ID},
        table::TableDef,
    },
};

/// What stands for a secret that is not shown.
pub const HIDDEN: &str = "<hidden>";

/// Ended tokens that one look of the leader finds at most; the next look finds the next.
pub const ENDED_TOKENS_MAX: usize = 64;

/// A question about the ACL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AclQuestion {
    /// A token by its public name.
    Token {
        /// The accessor id.
        accessor: String,
        /// How it is shown.
        view: View,
    },
    /// A token by its secret: whoever knows it may see it.
    TokenSelf {
        /// The secret.
        secret: String,
        /// How it is shown.
        view: View,
    },
    /// All tokens, or those with this policy (by id), role (by id), auth method and service.
    Tokens {
        /// Empty for any.
        policy: String,
        /// Empty for any.
        role: String,
        /// Empty for any.
        auth_method: String,
        /// Empty for any.
        service: String,
        /// How they are shown.
        view: View,
    },
    /// A policy by its id.
    Policy {
        /// The id.
        id: String,
    },
    /// A policy by its name.
    PolicyByName {
        /// The name.
        name: String,
    },
    /// All policies, without their rules.
    Policies,
    /// A role by its id.
    Role {
        /// The id.
        id: String,
    },
    /// A role by its name.
    RoleByName {
        /// The name.
        name: String,
    },
    /// All roles, or those with this policy (by id).
    Roles {
        /// Empty for any.
        policy: String,
    },
    /// What decides what a token may do; a [`Resolved`] or `null`.
    Resolve {
        /// The secret.
        secret: String,
        /// This server's datacenter: policies of others do not count.
        datacenter: String,
    },
    /// What a leader has to do; a [`Duties`].
    Duties {
        /// The time, ns since 1970.
        now_ns: u64,
        /// A secret that is to have all rights; empty for none.
        initial_management: String,
    },
    /// The name of a service on a node, or of the service that a check is of; a text, or `null` for
    /// what is not there. Empty for a check of the node.
    ServiceOf {
        /// The node.
        node: String,
        /// The service's id; looked at if it is not empty.
        service_id: String,
        /// The check's id; looked at otherwise.
        check_id: String,
    },
    /// The node of a session; a text, or `null` where there is none of this id.
    SessionNode {
        /// The id.
        id: String,
    },
    /// The name of a prepared query; a text, or `null` where there is none of this id.
    QueryName {
        /// The id.
        id: String,
    },
}

/// How tokens are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The time, ns since 1970: tokens that have ended are not there.
    pub now_ns: u64,
    /// Secrets are hidden.
    pub hide_secrets: bool,
}

/// All that decides what a token may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Public name.
    pub accessor: String,
    /// What its bearer shows.
    pub secret: String,
    /// When it ends, ns since 1970; 0 for never.
    pub expiration_time: u64,
    /// Texts of the policies that count here.
    pub rules: Vec<String>,
    /// Services that it has the identity of.
    pub services: Vec<String>,
    /// Nodes that it has the identity of.
    pub nodes: Vec<String>,
}

/// What a leader has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duties {
    /// Ids of built-in policies that are missing.
    pub policies: Vec<String>,
    /// The anonymous token is missing.
    pub anonymous: bool,
    /// The initial management token is missing.
    pub management: bool,
    /// Index at which a first management token was made; 0 if none was.
    pub bootstrapped_index: u64,
    /// Accessor ids of tokens that have ended.
    pub ended: Vec<String>,
}

impl From<AclQuestion> for super::Question {
    fn from(question: AclQuestion) -> Self {
        Self::Acl(question)
    }
}

impl AclQuestion {
    pub(super) fn subject(&self) -> Subject {
        match self {
            Self::Token { accessor, .. } => of_token(accessor),
            Self::TokenSelf { .. } | Self::Tokens { .. } | Self::Duties { .. } => {
                Subject::table(AclTokens::ID)
            }
            Self::Policy { .. } | Self::PolicyByName { .. } | Self::Policies => {
                Subject::table(AclPolicies::ID)
            }
            Self::Role { .. } | Self::RoleByName { .. } | Self::Roles { .. } => {
                Subject::table(AclRoles::ID)
            }
            // Asked without waiting.
            Self::Resolve { .. }
            | Self::ServiceOf { .. }
            | Self::SessionNode { .. }
            | Self::QueryName { .. } => Subject::table(AclTokens::ID),
        }
    }

    pub(super) fn index(&self, tables: &Tables) -> Index {
        match self {
            Self::Token { .. } | Self::TokenSelf { .. } | Self::Tokens { .. } => {
                tables.max_index(&[AclTokens::NAME])
            }
            Self::Policy { .. } | Self::PolicyByName { .. } | Self::Policies => {
                tables.max_index(&[AclPolicies::NAME])
            }
            Self::Role { .. } | Self::RoleByName { .. } | Self::Roles { .. } => {
                tables.max_index(&[AclRoles::NAME])
            }
            Self::Resolve { .. }
            | Self::Duties { .. }
            | Self::ServiceOf { .. }
            | Self::SessionNode { .. }
            | Self::QueryName { .. } => acl::decisions_index(tables),
        }
    }

    pub(super) fn answer(&self, tables: &Tables) -> Vec<u8> {
        let token = |token: Option<&AclToken>, view: &View| {
            let token = token.filter(|token| !has_ended(token, view.now_ns));
            json(&token.map(|token| TokenShown::new(tables, token, view)))
        };
        let policy = |policy: Option<&AclPolicy>| json(&policy.map(|p| PolicyShown::new(p, true)));
        let role = |role: Option<&AclRole>| json(&role.map(|role| RoleShown::new(tables, role)));
        match self {
            Self::Token { accessor, view } => {
                token(acl::token(tables, accessor).map(|row| &**row), view)
            }
            Self::TokenSelf { secret, view } => {
                token(acl::token_by_secret(tables, secret).as_deref(), view)
            }
            Self::Tokens { view, .. } => {
                let found = self.tokens(tables);
                let alive = found.iter().filter(|token| !has_ended(token, view.now_ns));
                let shown = alive.map(|token| TokenShown::new(tables, token, view));
                json(&shown.collect::<Vec<_>>())
            }
            Self::Policy { id } => policy(acl::policy(tables, id).map(|row| &**row)),
            Self::PolicyByName { name } => policy(acl::policy_by_name(tables, name).as_deref()),
            Self::Policies => {
                let all = all(tables.acl_policies.view());
                let shown = all.iter().map(|policy| PolicyShown::new(policy, false));
                json(&shown.collect::<Vec<_>>())
            }
            Self::Role { id } => role(acl::role(tables, id).map(|row| &**row)),
            Self::RoleByName { name } => role(acl::role_by_name(tables, name).as_deref()),
            Self::Roles { policy } => {
                let mut all = all(tables.acl_roles.view());
                all.retain(|role| policy.is_empty() || has_policy(&role.policies, policy));
                let shown = all.iter().map(|role| RoleShown::new(tables, role));
                json(&shown.collect::<Vec<_>>())
            }
            Self::Resolve { secret, datacenter } => json(&resolve(tables, secret, datacenter)),
            Self::Duties {
                now_ns,
                initial_management,
            } => json(&duties(tables, *now_ns, initial_management)),
            Self::ServiceOf {
                node,
                service_id,
                check_id,
            } => json(&service_of(tables, node, service_id, check_id)),
            Self::SessionNode { id } => {
                let found = crate::fsm::sessions::get(tables, id);
                json(&found.map(|session| &session.node))
            }
            Self::QueryName { id } => {
                let query: &[Arg<'_>] = &[Arg::Text(id)];
                let found = tables.prepared_queries.first(&PREPARED_QUERIES_ID, query);
                json(&found.ok().flatten().map(|query| query.name.clone()))
            }
        }
    }

    fn tokens(&self, tables: &Tables) -> Vec<crate::state::RecordRow<AclToken>> {
        let mut found = all(tables.acl_tokens.view());
        if let Self::Tokens {
            policy,
            role,
            auth_method,
            service,
            ..
        } = self
        {
            found.retain(|token| {
                let mut services = token.service_identities.iter();
                let mut roles = token.roles.iter();
                (policy.is_empty() || has_policy(&token.policies, policy))
                    && (role.is_empty() || roles.any(|link| link.id.eq_ignore_ascii_case(role)))
                    && (auth_method.is_empty() || token.auth_method == *auth_method)
                    && (service.is_empty() || services.any(|known| known.service_name == *service))
            });
        }
        found
    }
}

fn has_policy(links: &[PolicyLink], id: &str) -> bool {
    links.iter().any(|link| link.id.eq_ignore_ascii_case(id))
}

/// All rows of a table, in order.
fn all<R: crate::state::row::Row>(view: crate::state::tree::View<R>) -> Vec<R> {
    let mut rows = Vec::new();
    let mut cursor = view.cursor();
    while cursor.scan(|row| {
        rows.push(row.clone());
        true
    }) {}
    rows
}

fn resolve(tables: &Tables, secret: &str, datacenter: &str) -> Option<Resolved> {
    let token = acl::token_by_secret(tables, secret)?;
    let mut resolved = Resolved {
        accessor: token.accessor_id.clone(),
        secret: token.secret_id.clone(),
        expiration_time: token.expiration_time,
        ..Resolved::default()
    };
    let mut policies: Vec<String> = Vec::new();
    let mut grant = |links: &[PolicyLink], services: &[ServiceIdentity], nodes: &[NodeIdentity]| {
        policies.extend(links.iter().map(|link| link.id.clone()));
        let here = |places: &[String]| places.is_empty() || places.iter().any(|p| p == datacenter);
        let services = services.iter().filter(|known| here(&known.datacenters));
        let services = services.map(|known| known.service_name.clone());
        resolved.services.extend(services);
        let nodes = nodes.iter().filter(|known| known.datacenter == datacenter);
        resolved
            .nodes
            .extend(nodes.map(|known| known.node_name.clone()));
    };
    grant(
        &token.policies,
        &token.service_identities,
        &token.node_identities,
    );
    for link in &token.roles {
        if let Some(role) = acl::role(tables, &link.id) {
            grant(
                &role.policies,
                &role.service_identities,
                &role.node_identities,
            );
        }
    }
    policies.sort();
    policies.dedup();
    let here = |policy: &&crate::state::RecordRow<AclPolicy>| {
        let places = &policy.datacenters;
        places.is_empty() || places.iter().any(|place| place == datacenter)
    };
    let found = policies.iter().filter_map(|id| acl::policy(tables, id));
    resolved.rules = found
        .filter(here)
        .map(|policy| policy.rules.clone())
        .collect();
    Some(resolved)
}

fn duties(tables: &Tables, now_ns: u64, initial_management: &str) -> Duties {
    let missing = [GLOBAL_MANAGEMENT, GLOBAL_READ_ONLY]
        .iter()
        .filter(|policy| acl::policy(tables, policy.id).is_none())
        .map(|policy| policy.id.to_owned())
        .collect();
    Duties {
        policies: missing,
        anonymous: acl::token(tables, ANONYMOUS_ACCESSOR).is_none(),
        management: !initial_management.is_empty()
            && acl::token_by_secret(tables, initial_management).is_none(),
        bootstrapped_index: acl::bootstrapped_index(tables).0,
        ended: acl::ended_tokens(tables, now_ns, ENDED_TOKENS_MAX),
    }
}

fn service_of(tables: &Tables, node: &str, service_id: &str, check_id: &str) -> Option<String> {
    if !service_id.is_empty() {
        let query: &[Arg<'_>] = &[Arg::Text(node), Arg::Text(service_id)];
        let found = tables.services.first(&SERVICES_ID, query);
        let found = found.expect("the query fits its index")?;
        return Some(found.service.clone());
    }
    let query: &[Arg<'_>] = &[Arg::Text(node), Arg::Text(check_id)];
    let found = tables.checks.first(&CHECKS_ID, query);
    let found = found.expect("the query fits its index")?;
    Some(found.service_name.clone())
}

/// The subjects of a token that came, went or changed.
pub(super) fn touched_token(token: &AclToken, each: &mut dyn FnMut(Subject)) {
    each(Subject::table(AclTokens::ID));
    each(of_token(&token.accessor_id));
}

/// The subjects of a policy that came, went or changed. Tokens show its name.
pub(super) fn touched_policy(each: &mut dyn FnMut(Subject)) {
    each(Subject::table(AclPolicies::ID));
}

/// The subjects of a role that came, went or changed.
pub(super) fn touched_role(each: &mut dyn FnMut(Subject)) {
    each(Subject::table(AclRoles::ID));
}

fn of_token(accessor: &str) -> Subject {
    Subject::named(AclTokens::ID, accessor)
}

// ------------------------------------------------------------------------- as Consul shows them

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
struct TokenShown<'a> {
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
    fn new(tables: &Tables, token: &'a AclToken, view: &View) -> Self {
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
struct PolicyShown<'a> {
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
    fn new(policy: &'a AclPolicy, whole: bool) -> Self {
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
struct RoleShown<'a> {
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
    fn new(tables: &Tables, role: &'a AclRole) -> Self {
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

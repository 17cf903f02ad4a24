//! What do Consul's ACL endpoints answer, and what does a server ask itself before it decides?
//!
//! The public questions give tokens, policies and roles as Consul shows them; what is not there is
//! `null`, and the endpoint makes its 404 of it. Who may not change the ACL sees no secrets.
//!
//! [`AclQuestion::Resolve`] gathers all that decides what a token may do, in one answer of one
//! moment: its own policies, those of its roles, its identities. [`AclQuestion::Duties`] is what a
//! leader looks at: is anything missing that every cluster has, is any token's time over.

mod shown;

use serde::{Deserialize, Serialize};
use wire::Index;

use super::{Subject, json};
use crate::{
    acl::{ANONYMOUS_ACCESSOR, GLOBAL_MANAGEMENT, GLOBAL_READ_ONLY},
    fsm::{
        acl::{self, has_ended},
        queries,
    },
    state::{
        Tables,
        index::Arg,
        records::{
            AclPolicy, AclRole, AclToken, NodeIdentity, PolicyLink, PreparedQuery, ServiceIdentity,
        },
        schema::{AclPolicies, AclRoles, AclTokens, CHECKS_ID, SERVICES_ID},
        table::TableDef,
    },
};
use shown::{PolicyShown, RoleShown, TokenShown};

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
    /// The name of a prepared query, which rules are asked about; a text, or `null` where there is
    /// none of this id, and for one without a name that is no template.
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
                let named = |query: &&crate::state::RecordRow<PreparedQuery>| {
                    !query.name.is_empty() || query.is_template()
                };
                let found = queries::by_id(tables, id).filter(named);
                json(&found.map(|query| &query.name))
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

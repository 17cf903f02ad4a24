//! What do commands about tokens, policies and roles do?
//!
//! As Consul's, with one difference: Consul looks at the state before it writes to the log (is the
//! name free, is the policy there), and two writers may both find that it is. Here this is decided
//! when the command is applied, the same on every server. What depends on the clock or on chance
//! (ids, secrets, times), and whether a text can be read as rules, is decided before the log.
//!
//! Links hold ids only; a name in a request is looked up here, and names are shown as they are when
//! a token is read. A policy that is deleted stays in the links of tokens, where it grants nothing
//! and is not shown, as in Consul.

mod hash;
mod links;
mod policies;
mod roles;
#[cfg(test)]
mod tests;
mod tokens;

use serde::{Deserialize, Serialize};
use wire::{Index, Uuid};

pub(super) use policies::{delete as delete_policies, set as set_policies};
pub(super) use roles::{delete as delete_roles, set as set_roles};
pub(super) use tokens::{bootstrap, delete as delete_tokens, set as set_tokens};
pub use tokens::{ended as ended_tokens, has_ended};

use crate::state::{
    RecordRow, Tables,
    index::{Arg, Key},
    records::{AclPolicy, AclRole, AclToken},
    schema::{ACL_POLICIES_NAME, ACL_ROLES_NAME, ACL_TOKENS_ID, AclPolicies, AclRoles, AclTokens},
    table::TableDef,
};

/// Row of the index table that says when the first management token was made.
const BOOTSTRAPPED: &str = "acl-token-bootstrap";

macro_rules! request {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    };
}

request! {
    /// Makes the first management token. Consul: `structs.ACLTokenBootstrapRequest`.
    Bootstrap {
        /// The token.
        token: AclToken,
        /// The index of the last time, if it is to be done again.
        reset_index: u64,
    }
}

request! {
    /// Makes or changes tokens, all or none. Consul: `structs.ACLTokenBatchSetRequest`.
    TokenSet {
        /// The tokens. Of one that is changed an empty secret, or no expiration, means as it was.
        tokens: Vec<AclToken>,
        /// They are new; else each must be there.
        create: bool,
        /// Only if each has the modify index that is given here; else nothing, and false.
        cas: bool,
        /// The time, ns since 1970: a token that had ended before cannot be changed.
        now_ns: u64,
    }
}

request! {
    /// Deletes tokens. Consul: `structs.ACLTokenBatchDeleteRequest`.
    TokenDelete {
        /// Their accessor ids. True if there was any.
        ids: Vec<String>,
    }
}

request! {
    /// Makes or changes policies, all or none. Consul: `structs.ACLPolicyBatchSetRequest`.
    PolicySet {
        /// The policies.
        policies: Vec<AclPolicy>,
        /// They are new; else each must be there.
        create: bool,
    }
}

request! {
    /// Deletes policies. Consul: `structs.ACLPolicyBatchDeleteRequest`.
    PolicyDelete {
        /// Their ids. True if there was any.
        ids: Vec<String>,
    }
}

request! {
    /// Makes or changes roles, all or none. Consul: `structs.ACLRoleBatchSetRequest`.
    RoleSet {
        /// The roles.
        roles: Vec<AclRole>,
        /// They are new; else each must be there.
        create: bool,
    }
}

request! {
    /// Deletes roles. Consul: `structs.ACLRoleBatchDeleteRequest`.
    RoleDelete {
        /// Their ids. True if there was any.
        ids: Vec<String>,
    }
}

type Done = Result<bool, String>;

/// The greatest index at which anything changed that decisions depend on.
pub fn decisions_index(tables: &Tables) -> Index {
    tables.max_index(&[AclTokens::NAME, AclPolicies::NAME, AclRoles::NAME])
}

/// When the first management token was made; 0 if none was.
pub fn bootstrapped_index(tables: &Tables) -> Index {
    tables.max_index(&[BOOTSTRAPPED])
}

/// A token by its public name.
pub fn token<'t>(tables: &'t Tables, accessor: &str) -> Option<&'t RecordRow<AclToken>> {
    tables.acl_tokens.get(id_key(accessor)?.as_bytes())
}

/// A token by what its bearer shows.
pub fn token_by_secret(tables: &Tables, secret: &str) -> Option<RecordRow<AclToken>> {
    let query: &[Arg<'_>] = &[Arg::Text(secret)];
    let found = tables.acl_tokens.first(&ACL_TOKENS_ID, query);
    found.expect("the query fits its index")
}

/// A policy by its id.
pub fn policy<'t>(tables: &'t Tables, id: &str) -> Option<&'t RecordRow<AclPolicy>> {
    tables.acl_policies.get(id_key(id)?.as_bytes())
}

/// A policy by its name, in any case.
pub fn policy_by_name(tables: &Tables, name: &str) -> Option<RecordRow<AclPolicy>> {
    let query: &[Arg<'_>] = &[Arg::Text(name)];
    let found = tables.acl_policies.first(&ACL_POLICIES_NAME, query);
    found.expect("the query fits its index")
}

/// A role by its id.
pub fn role<'t>(tables: &'t Tables, id: &str) -> Option<&'t RecordRow<AclRole>> {
    tables.acl_roles.get(id_key(id)?.as_bytes())
}

/// A role by its name, in any case.
pub fn role_by_name(tables: &Tables, name: &str) -> Option<RecordRow<AclRole>> {
    let query: &[Arg<'_>] = &[Arg::Text(name)];
    let found = tables.acl_roles.first(&ACL_ROLES_NAME, query);
    found.expect("the query fits its index")
}

fn id_key(text: &str) -> Option<Key> {
    let mut key = Key::default();
    key.uuid(Uuid::parse(text)?);
    Some(key)
}

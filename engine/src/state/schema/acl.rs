//! Tokens, policies and roles.

use super::{SOME, SOME_MULTI, UNIQUE, UNIQUE_PREFIX, uuid_key};
use crate::state::{
    index::{Attributes, DeclaredIndex, Field, FunctionalIndex, Key, Keys, Write},
    records::{AclPolicy, AclRole, AclToken, RecordRow},
};

record_table! {
    /// ACL tokens. Consul: `acl-tokens`.
    AclTokens: AclToken = 14 "acl-tokens", by ACL_TOKENS_ACCESSOR, and [
        ACL_TOKENS_ID, ACL_TOKENS_POLICIES, ACL_TOKENS_ROLES, ACL_TOKENS_AUTHMETHOD,
        ACL_TOKENS_LOCALITY, ACL_TOKENS_EXPIRES_GLOBAL, ACL_TOKENS_EXPIRES_LOCAL,
        ACL_TOKENS_SERVICE_NAME
    ]
}

/// `acl-tokens.accessor`: the public name.
pub const ACL_TOKENS_ACCESSOR: DeclaredIndex<RecordRow<AclToken>> = DeclaredIndex {
    name: "accessor",
    attributes: UNIQUE_PREFIX,
    fields: &[Field::UuidText(|token| &token.accessor_id)],
};

/// `acl-tokens.id`: the secret, case-sensitive.
pub const ACL_TOKENS_ID: DeclaredIndex<RecordRow<AclToken>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE,
    fields: &[Field::Text(|token| &token.secret_id)],
};

fn read_uuid(text: &str, key: &mut Key) {
    uuid_key(text, key);
}

fn write_uuids<'a>(ids: impl Iterator<Item = &'a String>, keys: &mut Keys) {
    for id in ids {
        keys.add_if(|key| uuid_key(id, key));
    }
}

/// `acl-tokens.policies`: UUID (as text) of each policy.
pub const ACL_TOKENS_POLICIES: FunctionalIndex<RecordRow<AclToken>, str> = FunctionalIndex {
    name: "policies",
    attributes: SOME_MULTI,
    read: read_uuid,
    write: Write::Multi(|token, keys| {
        write_uuids(token.policies.iter().map(|link| &link.id), keys)
    }),
    prefix: None,
};

/// `acl-tokens.roles`: UUID (as text) of each role.
pub const ACL_TOKENS_ROLES: FunctionalIndex<RecordRow<AclToken>, str> = FunctionalIndex {
    name: "roles",
    attributes: SOME_MULTI,
    read: read_uuid,
    write: Write::Multi(|token, keys| write_uuids(token.roles.iter().map(|link| &link.id), keys)),
    prefix: None,
};

/// `acl-tokens.authmethod`: the auth method that made it, if one did.
pub const ACL_TOKENS_AUTHMETHOD: DeclaredIndex<RecordRow<AclToken>> = DeclaredIndex {
    name: "authmethod",
    attributes: SOME,
    fields: &[Field::Lower(|token| &token.auth_method)],
};

/// `acl-tokens.locality`: whether it is of this datacenter only.
pub const ACL_TOKENS_LOCALITY: DeclaredIndex<RecordRow<AclToken>> = DeclaredIndex {
    name: "locality",
    attributes: Attributes::NONE,
    fields: &[Field::Condition(|token| token.local)],
};

const BY_TIME: Attributes = Attributes {
    prefix: true,
    ..SOME
};

fn read_time(time: &u64, key: &mut Key) {
    key.unsigned(*time);
}

fn write_time(token: &RecordRow<AclToken>, local: bool, key: &mut Key) -> bool {
    token.expiration_time > 0
        && token.local == local
        && !key.unsigned(token.expiration_time).as_bytes().is_empty()
}

/// `acl-tokens.expires-global`: when a token of all datacenters ends, if it does. Any query by
/// prefix goes through all of them, those that end first in front.
pub const ACL_TOKENS_EXPIRES_GLOBAL: FunctionalIndex<RecordRow<AclToken>, u64> = FunctionalIndex {
    name: "expires-global",
    attributes: BY_TIME,
    read: read_time,
    write: Write::One(|token, key| write_time(token, false, key)),
    prefix: Some(|_, _| ()),
};

/// `acl-tokens.expires-local`: the same of tokens of this datacenter only.
pub const ACL_TOKENS_EXPIRES_LOCAL: FunctionalIndex<RecordRow<AclToken>, u64> = FunctionalIndex {
    name: "expires-local",
    attributes: BY_TIME,
    read: read_time,
    write: Write::One(|token, key| write_time(token, true, key)),
    prefix: Some(|_, _| ()),
};

/// `acl-tokens.service-name`: each service that it has an identity or a templated policy for.
pub const ACL_TOKENS_SERVICE_NAME: FunctionalIndex<RecordRow<AclToken>, str> = FunctionalIndex {
    name: "service-name",
    attributes: SOME_MULTI,
    read: |name, key| {
        key.lower(name);
    },
    write: Write::Multi(|token, keys| {
        let identities = token.service_identities.iter();
        let templates = token.templated_policies.iter();
        let names = identities
            .map(|identity| &identity.service_name)
            .chain(templates.map(|policy| &policy.template_variables.name));
        for name in names.filter(|name| !name.is_empty()) {
            keys.add(|key| {
                key.lower(name);
            });
        }
    }),
    prefix: None,
};

record_table! {
    /// ACL policies. Consul: `acl-policies`.
    AclPolicies: AclPolicy = 15 "acl-policies", by ACL_POLICIES_ID, and [ACL_POLICIES_NAME]
}

/// `acl-policies.id`: the id.
pub const ACL_POLICIES_ID: DeclaredIndex<RecordRow<AclPolicy>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    fields: &[Field::UuidText(|policy| &policy.id)],
};

/// `acl-policies.name`: the name.
pub const ACL_POLICIES_NAME: DeclaredIndex<RecordRow<AclPolicy>> = DeclaredIndex {
    name: "name",
    attributes: UNIQUE,
    fields: &[Field::Lower(|policy| &policy.name)],
};

record_table! {
    /// ACL roles. Consul: `acl-roles`.
    AclRoles: AclRole = 16 "acl-roles", by ACL_ROLES_ID, and [ACL_ROLES_NAME, ACL_ROLES_POLICIES]
}

/// `acl-roles.id`: the id.
pub const ACL_ROLES_ID: DeclaredIndex<RecordRow<AclRole>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    fields: &[Field::UuidText(|role| &role.id)],
};

/// `acl-roles.name`: the name.
pub const ACL_ROLES_NAME: DeclaredIndex<RecordRow<AclRole>> = DeclaredIndex {
    name: "name",
    attributes: UNIQUE,
    fields: &[Field::Lower(|role| &role.name)],
};

/// `acl-roles.policies`: UUID (as text) of each policy.
pub const ACL_ROLES_POLICIES: FunctionalIndex<RecordRow<AclRole>, str> = FunctionalIndex {
    name: "policies",
    attributes: SOME_MULTI,
    read: read_uuid,
    write: Write::Multi(|role, keys| write_uuids(role.policies.iter().map(|link| &link.id), keys)),
    prefix: None,
};

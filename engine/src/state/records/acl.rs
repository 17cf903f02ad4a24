//! Who may do what?
//!
//! Times of tokens are wall-clock times that their creators chose and clients read: ns since 1970,
//! 0 for none. What has expired is decided before the log and never while a command is applied.

use serde::{Deserialize, Serialize};
use wire::Index;

use super::Record;
use crate::state::{index::Key, schema::uuid_key};

macro_rules! acl_struct {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    };
}

acl_struct! {
    /// A token's or role's policy. The id counts; the name is filled in when it is read.
    PolicyLink {
        /// UUID as text.
        #[serde(rename = "ID")]
        id: String,
        /// The policy's name.
        name: String,
    }
}

acl_struct! {
    /// A token's role. The id counts; the name is filled in when it is read.
    RoleLink {
        /// UUID as text.
        #[serde(rename = "ID")]
        id: String,
        /// The role's name.
        name: String,
    }
}

acl_struct! {
    /// Rights of a service by its name. Consul: `structs.ACLServiceIdentity`.
    ServiceIdentity {
        /// The service.
        service_name: String,
        /// Where it holds; everywhere if empty.
        datacenters: Vec<String>,
    }
}

acl_struct! {
    /// Rights of a node by its name. Consul: `structs.ACLNodeIdentity`.
    NodeIdentity {
        /// The node.
        node_name: String,
        /// Where it holds.
        datacenter: String,
    }
}

acl_struct! {
    /// Values for a template's variables. Consul: `structs.ACLTemplatedPolicyVariables`.
    TemplateVariables {
        /// The name it is for.
        name: String,
    }
}

acl_struct! {
    /// Rights by a built-in template. Consul: `structs.ACLTemplatedPolicy`.
    TemplatedPolicy {
        /// UUID of the template, as text.
        #[serde(rename = "TemplateID")]
        template_id: String,
        /// `builtin/service`, `builtin/node`, ….
        template_name: String,
        /// What it is filled in with.
        template_variables: TemplateVariables,
        /// Where it holds; everywhere if empty.
        datacenters: Vec<String>,
    }
}

acl_struct! {
    /// A token. Consul: `structs.ACLToken`.
    AclToken {
        /// UUID as text: the public name.
        #[serde(rename = "AccessorID")]
        accessor_id: String,
        /// What its bearer shows; its case counts.
        #[serde(rename = "SecretID")]
        secret_id: String,
        /// For people.
        description: String,
        /// Policies.
        policies: Vec<PolicyLink>,
        /// Roles.
        roles: Vec<RoleLink>,
        /// Service identities.
        service_identities: Vec<ServiceIdentity>,
        /// Node identities.
        node_identities: Vec<NodeIdentity>,
        /// Templated policies.
        templated_policies: Vec<TemplatedPolicy>,
        /// Whether it is of this datacenter only.
        local: bool,
        /// The auth method that made it; empty for none.
        auth_method: String,
        /// When it ends, ns since 1970; 0 for never.
        expiration_time: u64,
        /// When it was made, ns since 1970.
        create_time: u64,
        /// Digest of what clients can change.
        #[serde(with = "serde_bytes")]
        hash: Vec<u8>,
        /// Index of the command that made it.
        create_index: u64,
        /// Index of the last command that changed it.
        modify_index: u64,
    }
}

impl Record for AclToken {
    fn primary_key(&self, key: &mut Key) {
        uuid_key(&self.accessor_id, key);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

acl_struct! {
    /// A policy. Consul: `structs.ACLPolicy`.
    AclPolicy {
        /// UUID as text.
        #[serde(rename = "ID")]
        id: String,
        /// Unique, by any case.
        name: String,
        /// For people.
        description: String,
        /// The rules, as they were written.
        rules: String,
        /// Where it holds; everywhere if empty.
        datacenters: Vec<String>,
        /// Digest of what clients can change.
        #[serde(with = "serde_bytes")]
        hash: Vec<u8>,
        /// Index of the command that made it.
        create_index: u64,
        /// Index of the last command that changed it.
        modify_index: u64,
    }
}

impl Record for AclPolicy {
    fn primary_key(&self, key: &mut Key) {
        uuid_key(&self.id, key);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

acl_struct! {
    /// A role. Consul: `structs.ACLRole`.
    AclRole {
        /// UUID as text.
        #[serde(rename = "ID")]
        id: String,
        /// Unique, by any case.
        name: String,
        /// For people.
        description: String,
        /// Policies.
        policies: Vec<PolicyLink>,
        /// Service identities.
        service_identities: Vec<ServiceIdentity>,
        /// Node identities.
        node_identities: Vec<NodeIdentity>,
        /// Templated policies.
        templated_policies: Vec<TemplatedPolicy>,
        /// Digest of what clients can change.
        #[serde(with = "serde_bytes")]
        hash: Vec<u8>,
        /// Index of the command that made it.
        create_index: u64,
        /// Index of the last command that changed it.
        modify_index: u64,
    }
}

impl Record for AclRole {
    fn primary_key(&self, key: &mut Key) {
        uuid_key(&self.id, key);
    }
    fn modify_index(&self) -> Index {
        Index(self.modify_index)
    }
}

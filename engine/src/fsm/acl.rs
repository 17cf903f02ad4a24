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

use serde::{Deserialize, Serialize};
use wire::{Index, Uuid};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    acl::{ANONYMOUS_ACCESSOR, builtin_policy},
    state::{
        RecordRow, Tables, Txn,
        index::{Arg, Key},
        records::{
            AclPolicy, AclRole, AclToken, NodeIdentity, PolicyLink, RoleLink, ServiceIdentity,
        },
        schema::{
            ACL_POLICIES_NAME, ACL_ROLES_NAME, ACL_TOKENS_ID, AclPolicies, AclRoles, AclTokens,
        },
        table::TableDef,
    },
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

pub(super) fn bootstrap(txn: &mut Txn<'_>, index: Index, request: &Bootstrap) -> Done {
    let before = bootstrapped_index(txn.tables());
    if before.0 > 0 && request.reset_index == 0 {
        return Err(format!(
            "ACL bootstrap no longer allowed (reset index: {before})"
        ));
    }
    if before.0 > 0 && request.reset_index != before.0 {
        let given = request.reset_index;
        return Err(format!(
            "Invalid bootstrap reset index (specified {given}, reset index: {before})"
        ));
    }
    create_token(txn, index, request.token.clone())?;
    txn.touch_named(BOOTSTRAPPED, index);
    // The next command may be in the same run, and must see it.
    txn.settle();
    Ok(true)
}

pub(super) fn set_tokens(txn: &mut Txn<'_>, index: Index, request: &TokenSet) -> Done {
    if request.cas {
        let is_same = |given: &AclToken| {
            let held = token(txn.tables(), &given.accessor_id);
            held.map_or(0, |held| held.modify_index) == given.modify_index
        };
        if !request.tokens.iter().all(is_same) {
            return Ok(false);
        }
    }
    for token in request.tokens.iter().cloned() {
        match request.create {
            true => create_token(txn, index, token)?,
            false => change_token(txn, index, token, request.now_ns)?,
        }
    }
    Ok(true)
}

fn create_token(txn: &mut Txn<'_>, index: Index, mut new: AclToken) -> Result<(), String> {
    if id_key(&new.accessor_id).is_none() {
        return Err("Invalid Token: AccessorID is not a valid UUID".to_owned());
    }
    if new.secret_id.is_empty() {
        return Err("Invalid Token: SecretID is missing".to_owned());
    }
    let tables = txn.tables();
    let taken = |id: &str| token(tables, id).is_some() || token_by_secret(tables, id).is_some();
    if taken(&new.accessor_id) {
        return Err("Invalid Token: AccessorID is already in use".to_owned());
    }
    if taken(&new.secret_id) {
        return Err("Invalid Token: SecretID is already in use".to_owned());
    }
    new.create_index = index.0;
    put_token(txn, index, new)
}

fn change_token(
    txn: &mut Txn<'_>,
    index: Index,
    mut new: AclToken,
    now_ns: u64,
) -> Result<(), String> {
    let id = new.accessor_id.clone();
    let held = token(txn.tables(), &id).filter(|held| !has_ended(held, now_ns));
    let Some(held) = held else {
        return Err(format!("Cannot find token {id:?}"));
    };
    if new.secret_id.is_empty() {
        new.secret_id.clone_from(&held.secret_id);
    }
    if new.secret_id != held.secret_id {
        return Err("Changing a tokens SecretID is not permitted".to_owned());
    }
    if new.local != held.local {
        return Err(format!("cannot toggle local mode of {id}"));
    }
    if new.auth_method.is_empty() {
        new.auth_method.clone_from(&held.auth_method);
    }
    if new.auth_method != held.auth_method {
        return Err(format!("Cannot change AuthMethod of {id}"));
    }
    if new.expiration_time == 0 {
        new.expiration_time = held.expiration_time;
    }
    if new.expiration_time != held.expiration_time {
        return Err(format!("Cannot change expiration time of {id}"));
    }
    new.create_time = held.create_time;
    new.create_index = held.create_index;
    put_token(txn, index, new)
}

/// Whether a token's time is over.
pub fn has_ended(token: &AclToken, now_ns: u64) -> bool {
    token.expiration_time > 0 && token.expiration_time <= now_ns
}

fn put_token(txn: &mut Txn<'_>, index: Index, mut token: AclToken) -> Result<(), String> {
    token.policies = policy_links(txn.tables(), &token.policies)?;
    token.roles = role_links(txn.tables(), &token.roles)?;
    dedup(&mut token.service_identities);
    dedup(&mut token.node_identities);
    token.hash = token_hash(&token);
    token.modify_index = index.0;
    txn.put_record::<AclTokens, _>(token)
        .map_err(|error| error.to_string())?;
    txn.touch::<AclTokens>(index);
    Ok(())
}

/// The links by id, each once; one to nothing is refused.
fn policy_links(tables: &Tables, links: &[PolicyLink]) -> Result<Vec<PolicyLink>, String> {
    let mut found: Vec<PolicyLink> = Vec::new();
    for link in links {
        let id = match link.id.is_empty() {
            true => policy_by_name(tables, &link.name)
                .map(|policy| policy.id.clone())
                .ok_or_else(|| format!("No such ACL policy with name {:?}", link.name)),
            false => policy(tables, &link.id)
                .map(|policy| policy.id.clone())
                .ok_or_else(|| format!("No such ACL policy with ID {:?}", link.id)),
        }?;
        if !found.iter().any(|link| link.id == id) {
            let name = String::new();
            found.push(PolicyLink { id, name });
        }
    }
    Ok(found)
}

fn role_links(tables: &Tables, links: &[RoleLink]) -> Result<Vec<RoleLink>, String> {
    let mut found: Vec<RoleLink> = Vec::new();
    for link in links {
        let id = match link.id.is_empty() {
            true => role_by_name(tables, &link.name)
                .map(|role| role.id.clone())
                .ok_or_else(|| format!("No such ACL role with name {:?}", link.name)),
            false => role(tables, &link.id)
                .map(|role| role.id.clone())
                .ok_or_else(|| format!("No such ACL role with ID {:?}", link.id)),
        }?;
        if !found.iter().any(|link| link.id == id) {
            let name = String::new();
            found.push(RoleLink { id, name });
        }
    }
    Ok(found)
}

fn dedup<T: PartialEq>(items: &mut Vec<T>) {
    let mut kept = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *items = kept;
}

pub(super) fn delete_tokens(txn: &mut Txn<'_>, index: Index, request: &TokenDelete) -> Done {
    let mut any = false;
    for id in &request.ids {
        if id.eq_ignore_ascii_case(ANONYMOUS_ACCESSOR) {
            return Err("Delete operation not permitted on the anonymous token".to_owned());
        }
        let Some(key) = id_key(id) else {
            return Err("Accessor ID is missing or an invalid UUID".to_owned());
        };
        if txn.remove::<AclTokens>(key.as_bytes()) {
            txn.touch::<AclTokens>(index);
            any = true;
        }
    }
    Ok(any)
}

pub(super) fn set_policies(txn: &mut Txn<'_>, index: Index, request: &PolicySet) -> Done {
    for policy in request.policies.iter().cloned() {
        set_policy(txn, index, policy, request.create)?;
    }
    Ok(true)
}

fn set_policy(
    txn: &mut Txn<'_>,
    index: Index,
    mut new: AclPolicy,
    create: bool,
) -> Result<(), String> {
    if id_key(&new.id).is_none() {
        return Err("Policy ID invalid UUID".to_owned());
    }
    let tables = txn.tables();
    let name = new.name.clone();
    let of_name = policy_by_name(tables, &name).filter(|held| held.id != new.id);
    match (policy(tables, &new.id), create) {
        (Some(_), true) => return Err(format!("policy {} exists already", new.id)),
        (None, false) => return Err(format!("cannot find policy {}", new.id)),
        (None, true) if of_name.is_some() => {
            return Err(format!(
                "Invalid Policy: A Policy with Name {name:?} already exists"
            ));
        }
        (None, true) => new.create_index = index.0,
        (Some(_), false) if of_name.is_some() => {
            return Err(format!(
                "Invalid Policy: A policy with name {name:?} already exists"
            ));
        }
        (Some(held), false) => {
            if let Some(builtin) = builtin_policy(&held.id) {
                let what = builtin.name;
                if !new.datacenters.is_empty() {
                    return Err(format!(
                        "Changing the Datacenters of the builtin {what} policy is not permitted"
                    ));
                }
                if new.rules != held.rules {
                    return Err(format!(
                        "Changing the Rules for the builtin {what} policy is not permitted"
                    ));
                }
            }
            new.create_index = held.create_index;
        }
    }
    new.hash = policy_hash(&new);
    new.modify_index = index.0;
    txn.put_record::<AclPolicies, _>(new)
        .map_err(|error| error.to_string())?;
    txn.touch::<AclPolicies>(index);
    Ok(())
}

pub(super) fn delete_policies(txn: &mut Txn<'_>, index: Index, request: &PolicyDelete) -> Done {
    let mut any = false;
    for id in &request.ids {
        if let Some(builtin) = builtin_policy(id) {
            let what = builtin.name;
            return Err(format!(
                "Delete operation not permitted on the builtin {what} policy"
            ));
        }
        if id_key(id).is_some_and(|key| txn.remove::<AclPolicies>(key.as_bytes())) {
            txn.touch::<AclPolicies>(index);
            any = true;
        }
    }
    Ok(any)
}

pub(super) fn set_roles(txn: &mut Txn<'_>, index: Index, request: &RoleSet) -> Done {
    for role in request.roles.iter().cloned() {
        set_role(txn, index, role, request.create)?;
    }
    Ok(true)
}

fn set_role(txn: &mut Txn<'_>, index: Index, mut new: AclRole, create: bool) -> Result<(), String> {
    if id_key(&new.id).is_none() {
        return Err("Role ID invalid UUID".to_owned());
    }
    let tables = txn.tables();
    let name = new.name.clone();
    let of_name = role_by_name(tables, &name).filter(|held| held.id != new.id);
    match (role(tables, &new.id), create) {
        (Some(_), true) => return Err(format!("role {} exists already", new.id)),
        (None, false) => return Err(format!("cannot find role {}", new.id)),
        (None, true) if of_name.is_some() => {
            return Err(format!(
                "Invalid Role: A Role with Name {name:?} already exists"
            ));
        }
        (Some(_), false) if of_name.is_some() => {
            return Err(format!(
                "Invalid Role: A role with name {name:?} already exists"
            ));
        }
        (None, true) => new.create_index = index.0,
        (Some(held), false) => new.create_index = held.create_index,
    }
    new.policies = policy_links(tables, &new.policies)?;
    dedup(&mut new.service_identities);
    dedup(&mut new.node_identities);
    new.hash = role_hash(&new);
    new.modify_index = index.0;
    txn.put_record::<AclRoles, _>(new)
        .map_err(|error| error.to_string())?;
    txn.touch::<AclRoles>(index);
    Ok(())
}

pub(super) fn delete_roles(txn: &mut Txn<'_>, index: Index, request: &RoleDelete) -> Done {
    let mut any = false;
    for id in &request.ids {
        if id_key(id).is_some_and(|key| txn.remove::<AclRoles>(key.as_bytes())) {
            txn.touch::<AclRoles>(index);
            any = true;
        }
    }
    Ok(any)
}

/// The next tokens whose time is over, by accessor id, those that ended first in front.
pub fn ended_tokens(tables: &Tables, now_ns: u64, at_most: usize) -> Vec<String> {
    use crate::state::schema::{ACL_TOKENS_EXPIRES_GLOBAL, ACL_TOKENS_EXPIRES_LOCAL};
    let mut ended = Vec::new();
    for index in [&ACL_TOKENS_EXPIRES_GLOBAL, &ACL_TOKENS_EXPIRES_LOCAL] {
        let found = tables.acl_tokens.find_prefix(index, &0, |token| {
            let over = has_ended(token, now_ns) && ended.len() < at_most;
            if over {
                ended.push(token.accessor_id.clone());
            }
            over
        });
        found.expect("the index is declared for prefixes");
    }
    ended
}

/// Digest of what clients can change: each text with its length in front, so that no two objects
/// write the same. The algorithm may never change: it is in the rows.
#[derive(Default)]
struct Hasher(Xxh3);

impl Hasher {
    fn text(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn texts<'t>(&mut self, texts: impl ExactSizeIterator<Item = &'t str>) {
        self.0.update(&(texts.len() as u64).to_le_bytes());
        texts.for_each(|text| self.text(text));
    }

    fn identities(&mut self, services: &[ServiceIdentity], nodes: &[NodeIdentity]) {
        self.0.update(&(services.len() as u64).to_le_bytes());
        for service in services {
            self.text(&service.service_name);
            self.texts(service.datacenters.iter().map(|name| &**name));
        }
        self.0.update(&(nodes.len() as u64).to_le_bytes());
        for node in nodes {
            self.text(&node.node_name);
            self.text(&node.datacenter);
        }
    }

    fn finish(self) -> Vec<u8> {
        self.0.digest128().to_be_bytes().to_vec()
    }
}

fn token_hash(token: &AclToken) -> Vec<u8> {
    let mut hasher = Hasher::default();
    hasher.text(&token.description);
    hasher.texts(token.policies.iter().map(|link| &*link.id));
    hasher.texts(token.roles.iter().map(|link| &*link.id));
    hasher.identities(&token.service_identities, &token.node_identities);
    hasher.finish()
}

fn policy_hash(policy: &AclPolicy) -> Vec<u8> {
    let mut hasher = Hasher::default();
    hasher.text(&policy.name);
    hasher.text(&policy.description);
    hasher.text(&policy.rules);
    hasher.texts(policy.datacenters.iter().map(|name| &**name));
    hasher.finish()
}

fn role_hash(role: &AclRole) -> Vec<u8> {
    let mut hasher = Hasher::default();
    hasher.text(&role.name);
    hasher.text(&role.description);
    hasher.texts(role.policies.iter().map(|link| &*link.id));
    hasher.identities(&role.service_identities, &role.node_identities);
    hasher.finish()
}

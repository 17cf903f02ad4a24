//! How is a token made, changed and ended?
//!
//! Its two ids are unique among both kinds, so that an accessor id can never be used as a secret.
//! What makes it what it is (secret, locality, end) is given once.

use wire::Index;

use super::{
    BOOTSTRAPPED, Bootstrap, Done, TokenDelete, TokenSet, bootstrapped_index, hash, id_key,
    links::{dedup, policy_links, role_links},
    token, token_by_secret,
};
use crate::{
    acl::ANONYMOUS_ACCESSOR,
    state::{
        Tables, Txn,
        records::AclToken,
        schema::{ACL_TOKENS_EXPIRES_GLOBAL, ACL_TOKENS_EXPIRES_LOCAL, AclTokens},
    },
};

pub(in crate::fsm) fn bootstrap(txn: &mut Txn<'_>, index: Index, request: &Bootstrap) -> Done {
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

pub(in crate::fsm) fn set(txn: &mut Txn<'_>, index: Index, request: &TokenSet) -> Done {
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
    if taken(&new.secret_id) || new.secret_id == new.accessor_id {
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
    token.hash = hash::of_token(&token);
    token.modify_index = index.0;
    txn.put_record::<AclTokens, _>(token)
        .map_err(|error| error.to_string())?;
    txn.touch::<AclTokens>(index);
    Ok(())
}

pub(in crate::fsm) fn delete(txn: &mut Txn<'_>, index: Index, request: &TokenDelete) -> Done {
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

/// The next tokens whose time is over, by accessor id, those that ended first in front.
pub fn ended(tables: &Tables, now_ns: u64, at_most: usize) -> Vec<String> {
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

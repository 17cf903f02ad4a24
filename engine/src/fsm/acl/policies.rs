//! How is a policy made, changed and taken away?
//!
//! The built-in ones may be renamed, and nothing else.

use wire::Index;

use super::{Done, PolicyDelete, PolicySet, hash, id_key, policy, policy_by_name};
use crate::{
    acl::builtin_policy,
    state::{Txn, records::AclPolicy, schema::AclPolicies},
};

pub(in crate::fsm) fn set(txn: &mut Txn<'_>, index: Index, request: &PolicySet) -> Done {
    for policy in request.policies.iter().cloned() {
        set_one(txn, index, policy, request.create)?;
    }
    Ok(true)
}

fn set_one(
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
    new.hash = hash::of_policy(&new);
    new.modify_index = index.0;
    txn.put_record::<AclPolicies, _>(new)
        .map_err(|error| error.to_string())?;
    txn.touch::<AclPolicies>(index);
    Ok(())
}

pub(in crate::fsm) fn delete(txn: &mut Txn<'_>, index: Index, request: &PolicyDelete) -> Done {
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

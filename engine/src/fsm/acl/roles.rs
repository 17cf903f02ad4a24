//! How is a role made, changed and taken away?

use wire::Index;

use super::{
    Done, RoleDelete, RoleSet, hash, id_key,
    links::{dedup, policy_links},
    role, role_by_name,
};
use crate::state::{Txn, records::AclRole, schema::AclRoles};

pub(in crate::fsm) fn set(txn: &mut Txn<'_>, index: Index, request: &RoleSet) -> Done {
    for role in request.roles.iter().cloned() {
        set_one(txn, index, role, request.create)?;
    }
    Ok(true)
}

fn set_one(txn: &mut Txn<'_>, index: Index, mut new: AclRole, create: bool) -> Result<(), String> {
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
    new.hash = hash::of_role(&new);
    new.modify_index = index.0;
    txn.put_record::<AclRoles, _>(new)
        .map_err(|error| error.to_string())?;
    txn.touch::<AclRoles>(index);
    Ok(())
}

pub(in crate::fsm) fn delete(txn: &mut Txn<'_>, index: Index, request: &RoleDelete) -> Done {
    let mut any = false;
    for id in &request.ids {
        if id_key(id).is_some_and(|key| txn.remove::<AclRoles>(key.as_bytes())) {
            txn.touch::<AclRoles>(index);
            any = true;
        }
    }
    Ok(any)
}

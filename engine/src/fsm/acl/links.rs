//! What do the links of tokens and roles mean?

use super::{policy, policy_by_name, role, role_by_name};
use crate::state::{
    Tables,
    records::{PolicyLink, RoleLink},
};

/// The links by id, each once; one to nothing is refused.
pub(super) fn policy_links(
    tables: &Tables,
    links: &[PolicyLink],
) -> Result<Vec<PolicyLink>, String> {
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

/// The links by id, each once; one to nothing is refused.
pub(super) fn role_links(tables: &Tables, links: &[RoleLink]) -> Result<Vec<RoleLink>, String> {
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

/// Takes out what comes again.
pub(super) fn dedup<T: PartialEq>(items: &mut Vec<T>) {
    let mut kept = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    *items = kept;
}

//! May the operations of a transaction be done?
//!
//! Each by itself: those that may not are named in the answer, as Consul does, and nothing is done.
//! What is only read is not refused but left out of the answer.
//!
//! Services and checks are looked up by their ids where the state decides whose they are. A service
//! that the same transaction puts in counts as what it will be.

use std::collections::BTreeMap;

use wire::{KvVerb, TxnVerb};

use super::{
    super::failure::Refusal,
    bodies::{owner, service_of},
    guard::Who,
};
use crate::{
    acl::{Access, Resource},
    fsm::{
        catalog::CatalogVerb,
        mixed::{KvOp, MixedOp},
    },
    server::gateway::Gateway,
};

/// Refuses an operation on a key that its sender may not do, in Consul's words.
pub(in super::super) fn check_key(who: &Who, verb: TxnVerb, key: &[u8]) -> Result<(), String> {
    let wanted = match verb {
        TxnVerb::Get | TxnVerb::GetOrEmpty | TxnVerb::GetTree => return Ok(()),
        TxnVerb::CheckIndex | TxnVerb::CheckSession | TxnVerb::CheckNotExists => Access::Read,
        TxnVerb::Kv(_) => Access::Write,
    };
    let may = match verb {
        TxnVerb::Kv(KvVerb::DeleteTree) => who.may_write_prefix(key),
        _ => who.may(Resource::Key, key, wanted),
    };
    match may {
        true => Ok(()),
        false => Err(who.lacks(Resource::Key, key, wanted)),
    }
}

/// What is wrong with each operation that its sender may not do, by its place. `Err`: it cannot be
/// found out.
pub(in super::super) async fn check_ops<G: Gateway>(
    gateway: &G,
    who: &Who,
    ops: &[MixedOp],
) -> Result<Vec<(usize, String)>, Refusal> {
    let mut wrong = Vec::new();
    if who.is_anyone() {
        return Ok(wrong);
    }
    let mut put = BTreeMap::new();
    for (at, op) in ops.iter().enumerate() {
        let checked = match op {
            MixedOp::Kv(KvOp { verb, key, .. }) => {
                check_key(who, *verb, key).map_err(super::guard::forbidden)
            }
            MixedOp::Node { verb, .. }
            | MixedOp::Service { verb, .. }
            | MixedOp::Check { verb, .. }
                if *verb == CatalogVerb::Get =>
            {
                Ok(())
            }
            MixedOp::Node { node, .. } => {
                who.must(Resource::Node, node.node.as_bytes(), Access::Write)
            }
            MixedOp::Service { verb, service } => {
                let place = (service.node.to_lowercase(), service.id.to_lowercase());
                let held = service_of(gateway, &service.node, &service.id, "").await?;
                let puts = matches!(verb, CatalogVerb::Set | CatalogVerb::Cas);
                let given = puts.then(|| service.service.clone());
                put.extend(given.clone().map(|name| (place, name)));
                let mut names = given.into_iter().chain(held);
                let write =
                    |name: String| who.must(Resource::Service, name.as_bytes(), Access::Write);
                names.try_for_each(write)
            }
            MixedOp::Check { verb, check } => {
                let node = &check.node;
                let place = (node.to_lowercase(), check.service_id.to_lowercase());
                let puts = matches!(verb, CatalogVerb::Set | CatalogVerb::Cas);
                match put.get(&place).filter(|_| puts) {
                    Some(name) => who.must(Resource::Service, name.as_bytes(), Access::Write),
                    None if puts => owner(gateway, who, node, &check.service_id, "").await,
                    None => owner(gateway, who, node, "", &check.check_id).await,
                }
            }
        };
        match checked {
            Ok(()) => {}
            Err(refusal) if refusal.status == http::StatusCode::FORBIDDEN => {
                wrong.push((at, refusal.text.into_owned()));
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(wrong)
}

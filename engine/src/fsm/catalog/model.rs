//! Consul's catalog, the plain way: sorted maps of what is registered, and rules as its
//! documentation gives them. No indexes: the tests hold that against what readers can see.

use std::collections::BTreeMap;

use super::{DeregisterRequest, RegisterRequest};
use crate::state::records::{Check, Node, Service};

/// By node, and by the id on it, in lower case.
type OnNode<T> = BTreeMap<(String, String), T>;

/// All rows, with indexes 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) services: OnNode<Service>,
    pub(super) checks: OnNode<Check>,
}

pub(super) fn key(node: &str, id: &str) -> (String, String) {
    (node.to_lowercase(), id.to_lowercase())
}

impl Model {
    /// False for a refusal, after which the model is not what it was.
    pub(super) fn register(&mut self, request: &RegisterRequest) -> bool {
        let name = request.node.to_lowercase();
        let node = Node {
            id: request.id.clone(),
            node: request.node.clone(),
            address: request.address.clone(),
            meta: request.node_meta.clone(),
            ..Node::default()
        };
        if name.is_empty() || (node.address.is_empty() && !request.skip_node_update) {
            return false;
        }
        let skip = request.skip_node_update && self.nodes.contains_key(&name);
        if !skip && !self.put_node(name.clone(), node) {
            return false;
        }
        if let Some(service) = &request.service {
            let mut service = service.clone();
            service.node = request.node.clone();
            if service.service.is_empty() {
                return false;
            }
            if service.id.is_empty() {
                service.id = service.service.clone();
            }
            let key = key(&name, &service.id);
            keep_or_put(&mut self.services, key, service);
        }
        request
            .checks
            .iter()
            .chain(&request.check)
            .all(|check| self.put_check(&request.node, check.clone()))
    }

    fn put_node(&mut self, name: String, node: Node) -> bool {
        let known = self
            .nodes
            .iter()
            .find(|(_, held)| !node.id.is_empty() && held.id == node.id);
        let known = known.map(|(name, _)| name.clone());
        if !node.id.is_empty()
            && let Some(holder) = self.nodes.get(&name).filter(|holder| holder.id != node.id)
        {
            let serf = self.checks.get(&key(&name, "serfHealth"));
            let alive = serf.is_some_and(|check| check.status != "critical");
            if alive && (known.is_some() || !holder.id.is_empty()) {
                return false;
            }
        }
        if let Some(known) = known.filter(|known| *known != name) {
            self.drop_node(&known);
        }
        keep_or_put(&mut self.nodes, name, node);
        true
    }

    fn put_check(&mut self, node: &str, mut check: Check) -> bool {
        if check.node.is_empty() {
            check.node = node.to_owned();
        }
        if check.check_id.is_empty() {
            check.check_id = check.name.clone();
        }
        if check.check_id.is_empty() || check.node.to_lowercase() != node.to_lowercase() {
            return false;
        }
        if check.status.is_empty() {
            check.status = "critical".to_owned();
        }
        if !check.service_id.is_empty() {
            let Some(service) = self.services.get(&key(node, &check.service_id)) else {
                return false;
            };
            check.service_name = service.service.clone();
            check.service_tags = service.tags.clone();
        }
        keep_or_put(&mut self.checks, key(node, &check.check_id), check);
        true
    }

    pub(super) fn deregister(&mut self, request: &DeregisterRequest) {
        let node = request.node.to_lowercase();
        if !request.service_id.is_empty() {
            let (_, id) = key("", &request.service_id);
            self.services.remove(&(node.clone(), id.clone()));
            self.checks.retain(|(on, _), check| {
                *on != node || check.service_id.is_empty() || check.service_id.to_lowercase() != id
            });
        } else if !request.check_id.is_empty() {
            self.checks.remove(&key(&node, &request.check_id));
        } else {
            self.drop_node(&node);
        }
    }

    fn drop_node(&mut self, node: &str) {
        self.nodes.remove(node);
        self.services.retain(|(on, _), _| on != node);
        self.checks.retain(|(on, _), _| on != node);
    }

    /// What someone sees who asks for a service: each instance, its node, and the checks of both.
    pub(super) fn shown_of_service(&self, name: &str) -> Vec<(&Service, &Node, Vec<&Check>)> {
        let of_name = self
            .services
            .iter()
            .filter(|(_, service)| service.service.to_lowercase() == name);
        of_name
            .map(|((on, id), service)| {
                let checks = self.checks.iter().filter(|((at, _), check)| {
                    let of = check.service_id.to_lowercase();
                    at == on && (of.is_empty() || of == *id)
                });
                (
                    service,
                    &self.nodes[on],
                    checks.map(|(_, check)| check).collect(),
                )
            })
            .collect()
    }

    /// What someone sees who asks for a node and the services on it.
    pub(super) fn shown_of_node(&self, node: &str) -> (Option<&Node>, Vec<&Service>) {
        let services = self.services.iter().filter(|((on, _), _)| on == node);
        (
            self.nodes.get(node),
            services.map(|(_, service)| service).collect(),
        )
    }
}

/// Writing the same again, but for the case of the node's name, changes nothing.
fn keep_or_put<K: Ord, T: Named>(rows: &mut BTreeMap<K, T>, key: K, row: T) {
    match rows.get(&key) {
        Some(held) if held.in_lower_case() == row.in_lower_case() => {}
        _ => {
            rows.insert(key, row);
        }
    }
}

trait Named: Clone + PartialEq {
    fn in_lower_case(&self) -> Self;
}

macro_rules! named {
    ($($type:ty),*) => {
        $(impl Named for $type {
            fn in_lower_case(&self) -> Self {
                Self { node: self.node.to_lowercase(), ..self.clone() }
            }
        })*
    };
}

named!(Node, Service, Check);

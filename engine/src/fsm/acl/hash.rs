//! What is the `Hash` of a token, policy or role?
//!
//! A digest of what clients can change, by which they see whether anything did. Consul's is of
//! another kind; nobody compares it with anything but itself. The algorithm is in the rows, and so
//! in the state's digest: it may never change.

use xxhash_rust::xxh3::Xxh3;

use crate::state::records::{AclPolicy, AclRole, AclToken, NodeIdentity, ServiceIdentity};

/// Each text goes in with its length in front, so that no two objects write the same.
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

pub(super) fn of_token(token: &AclToken) -> Vec<u8> {
    let mut hasher = Hasher::default();
    hasher.text(&token.description);
    hasher.texts(token.policies.iter().map(|link| &*link.id));
    hasher.texts(token.roles.iter().map(|link| &*link.id));
    hasher.identities(&token.service_identities, &token.node_identities);
    hasher.finish()
}

pub(super) fn of_policy(policy: &AclPolicy) -> Vec<u8> {
    let mut hasher = Hasher::default();
    hasher.text(&policy.name);
    hasher.text(&policy.description);
    hasher.text(&policy.rules);
    hasher.texts(policy.datacenters.iter().map(|name| &**name));
    hasher.finish()
}

pub(super) fn of_role(role: &AclRole) -> Vec<u8> {
    let mut hasher = Hasher::default();
    hasher.text(&role.name);
    hasher.text(&role.description);
    hasher.texts(role.policies.iter().map(|link| &*link.id));
    hasher.identities(&role.service_identities, &role.node_identities);
    hasher.finish()
}

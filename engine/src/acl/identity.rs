//! What may a service or a node do in its own name?
//!
//! A token with an identity has the rules that a service with its sidecar, or a node's agent,
//! needs, without a policy for each name (Consul `ACLServiceIdentity`, `ACLNodeIdentity`).

use super::{Access, Resource, Rule, Rules, Scope};

/// Longest name in an identity, bytes, as Consul's.
const NAME_BYTES_MAX: usize = 256;

/// What a service may do: be registered, with its sidecar, and find any other.
pub fn service_identity(service: &str) -> Rules {
    Rules::of(vec![
        exact(Resource::Service, service.to_owned()),
        exact(Resource::Intention, service.to_owned()).reading(),
        exact(Resource::Service, format!("{service}-sidecar-proxy")),
        exact(Resource::Intention, format!("{service}-sidecar-proxy")).reading(),
        read_all(Resource::Service),
        read_all(Resource::Intention),
        read_all(Resource::Node),
    ])
}

/// What a node's agent may do: register the node, and find any service.
pub fn node_identity(node: &str) -> Rules {
    Rules::of(vec![
        exact(Resource::Node, node.to_owned()),
        read_all(Resource::Service),
        read_all(Resource::Intention),
    ])
}

/// Whether a name may stand in an identity: lower-case letters, digits, `-` and `_`, the last two
/// not at its ends.
pub fn valid_identity_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            bytes.len() <= NAME_BYTES_MAX
                && plain(*first)
                && plain(*last)
                && bytes.iter().all(|b| plain(*b) || matches!(b, b'-' | b'_'))
        }
        _ => false,
    }
}

fn exact(resource: Resource, name: String) -> Rule {
    Rule {
        resource,
        scope: Scope::Exact(name),
        access: Access::Write,
    }
}

fn read_all(resource: Resource) -> Rule {
    Rule {
        resource,
        scope: Scope::Prefix(String::new()),
        access: Access::Read,
    }
}

impl Rule {
    fn reading(self) -> Self {
        Self {
            access: Access::Read,
            ..self
        }
    }
}

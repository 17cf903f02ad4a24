//! The flags by which tokens and roles are given policies and identities.

use clap::{ArgAction, Args};

use super::{
    super::CliError,
    show::{Grants, Link, NodeIdentity, ServiceIdentity},
};

/// Policies and identities to give.
#[derive(Args, Debug, Default)]
pub(super) struct GrantFlags {
    /// Id of a policy. Repeatable.
    #[arg(long, value_name = "ID", action = ArgAction::Append)]
    policy_id: Vec<String>,
    /// Name of a policy. Repeatable.
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    policy_name: Vec<String>,
    /// Name of a service that may register and find itself, in all datacenters or some. Repeatable.
    #[arg(long, value_name = "NAME[:DC,…]", action = ArgAction::Append)]
    service_identity: Vec<String>,
    /// Name and datacenter of a node that may register itself. Repeatable.
    #[arg(long, value_name = "NAME:DC", action = ArgAction::Append)]
    node_identity: Vec<String>,
}

impl GrantFlags {
    pub(super) fn none(&self) -> bool {
        self.policy_id.is_empty()
            && self.policy_name.is_empty()
            && self.service_identity.is_empty()
            && self.node_identity.is_empty()
    }

    /// What the flags say.
    pub(super) fn grants(&self) -> Result<Grants, CliError> {
        let service = |text: &String| {
            let (name, datacenters) = text.split_once(':').unwrap_or((text, ""));
            let datacenters = datacenters.split(',').filter(|name| !name.is_empty());
            ServiceIdentity {
                service_name: name.into(),
                datacenters: datacenters.map(String::from).collect(),
            }
        };
        let node = |text: &String| match text.split_once(':') {
            Some((name, datacenter)) if !name.is_empty() && !datacenter.is_empty() => {
                Ok(NodeIdentity {
                    node_name: name.into(),
                    datacenter: datacenter.into(),
                })
            }
            _ => Err(CliError(format!(
                "Malformed -node-identity argument: {text:?}: give NAME:DATACENTER"
            ))),
        };
        Ok(Grants {
            policies: links(&self.policy_id, &self.policy_name),
            service_identities: self.service_identity.iter().map(service).collect(),
            node_identities: self
                .node_identity
                .iter()
                .map(node)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Replaces each kind of grant that the flags name.
    pub(super) fn replace(&self, grants: &mut Grants) -> Result<(), CliError> {
        let new = self.grants()?;
        if !new.policies.is_empty() {
            grants.policies = new.policies;
        }
        if !new.service_identities.is_empty() {
            grants.service_identities = new.service_identities;
        }
        if !new.node_identities.is_empty() {
            grants.node_identities = new.node_identities;
        }
        Ok(())
    }

    /// Adds what the flags name.
    pub(super) fn add(&self, grants: &mut Grants) -> Result<(), CliError> {
        let new = self.grants()?;
        add_links(&mut grants.policies, new.policies);
        let services = new.service_identities.into_iter();
        let services: Vec<_> = services
            .filter(|one| !grants.service_identities.contains(one))
            .collect();
        grants.service_identities.extend(services);
        let nodes = new.node_identities.into_iter();
        let nodes: Vec<_> = nodes
            .filter(|one| !grants.node_identities.contains(one))
            .collect();
        grants.node_identities.extend(nodes);
        Ok(())
    }
}

/// Links by ids and by names.
pub(super) fn links(ids: &[String], names: &[String]) -> Vec<Link> {
    let by_id = ids.iter().map(|id| Link {
        id: id.clone(),
        name: String::new(),
    });
    let by_name = names.iter().map(|name| Link {
        id: String::new(),
        name: name.clone(),
    });
    by_id.chain(by_name).collect()
}

/// Adds links that are not there yet, by id or by name.
pub(super) fn add_links(links: &mut Vec<Link>, new: Vec<Link>) {
    for link in new {
        let there = links.iter().any(|old| {
            (!link.id.is_empty() && old.id == link.id)
                || (!link.name.is_empty() && old.name == link.name)
        });
        if !there {
            links.push(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_consul_reads_them() {
        let flags = GrantFlags {
            policy_id: vec!["1".into()],
            policy_name: vec!["p".into()],
            service_identity: vec!["web".into(), "db:dc1,dc2".into()],
            node_identity: vec!["n:dc1".into()],
        };
        let grants = flags.grants().unwrap();
        assert_eq!(grants.policies.len(), 2);
        assert!(grants.service_identities[0].datacenters.is_empty());
        assert_eq!(grants.service_identities[1].datacenters, ["dc1", "dc2"]);
        assert_eq!(grants.node_identities[0].datacenter, "dc1");
        let mut added = grants.clone();
        flags.add(&mut added).unwrap();
        assert_eq!(added, grants, "nothing is there twice");
        let wrong = GrantFlags {
            node_identity: vec!["n".into()],
            ..GrantFlags::default()
        };
        assert!(wrong.grants().is_err());
    }
}

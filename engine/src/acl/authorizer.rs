//! May it, with all of a token's policies together?
//!
//! Consul's order: the rule for exactly this name, else that of the longest prefix, else what
//! happens where no rule speaks. Several grants for the same name or prefix are merged first
//! ([`Access::merged`]).
//!
//! Prefixes lie in order, each with the number of the longest other one that it begins with. The
//! last that is not after a name, or one that it begins with, is then the longest prefix of the
//! name: whatever lies between a prefix of the name and the name begins with that prefix.

use super::{Access, Resource, Rule, Rules, Scope};

/// What happens where no rule speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Everything but what concerns the ACL itself (`default_policy = "allow"`).
    Allow,
    /// Nothing (`default_policy = "deny"`).
    Deny,
}

/// A token's policies, compiled.
#[derive(Clone, Debug)]
pub struct Authorizer {
    grants: Vec<Grants>,
    fallback: Fallback,
}

/// The grants of one resource.
#[derive(Clone, Debug, Default)]
struct Grants {
    whole: Option<Access>,
    /// Ordered by name.
    exact: Vec<(Box<[u8]>, Access)>,
    /// Ordered by prefix.
    prefixes: Vec<PrefixGrant>,
}

#[derive(Clone, Debug)]
struct PrefixGrant {
    prefix: Box<[u8]>,
    access: Access,
    /// The longest other prefix that this one begins with.
    parent: Option<u32>,
}

impl Authorizer {
    /// All of the policies together.
    pub fn new<'a>(policies: impl IntoIterator<Item = &'a Rules>, fallback: Fallback) -> Self {
        let mut grants = vec![Grants::default(); Resource::ALL.len()];
        for rule in policies.into_iter().flat_map(Rules::iter) {
            grants[rule.resource as usize].add(rule);
        }
        for grants in &mut grants {
            grants.settle();
        }
        Self { grants, fallback }
    }

    /// Whether `wanted` of `resource` is granted for this name; the name does not count where the
    /// resource has none.
    pub fn allows(&self, resource: Resource, name: &[u8], wanted: Access) -> bool {
        match self.granted(resource, name) {
            Some(granted) => granted >= wanted,
            None => self.otherwise(resource),
        }
    }

    /// Whether the ACL itself may be seen or changed, or an archive of everything taken.
    pub fn allows_acl(&self, wanted: Access) -> bool {
        self.allows(Resource::Acl, b"", wanted)
    }

    /// Whether everything under `prefix` may be changed: what the prefix itself is granted, unless
    /// a rule beneath it grants less.
    pub fn may_write_prefix(&self, prefix: &[u8]) -> bool {
        let keys = self.of(Resource::Key);
        if keys
            .least_within(prefix)
            .is_some_and(|least| least < Access::Write)
        {
            return false;
        }
        match keys.by_prefix(prefix) {
            Some(granted) => granted == Access::Write,
            None => self.otherwise(Resource::Key),
        }
    }

    /// Whether every key under `prefix` may be seen: the prefix may, and no rule beneath refuses.
    pub fn may_read_prefix(&self, prefix: &[u8]) -> bool {
        let keys = self.of(Resource::Key);
        if keys.least_within(prefix) == Some(Access::Deny) {
            return false;
        }
        match keys.by_prefix(prefix) {
            Some(granted) => granted >= Access::Read,
            None => self.otherwise(Resource::Key),
        }
    }

    /// Whether any key under `prefix` may be seen, one that nobody has written yet included.
    pub fn may_read_some(&self, prefix: &[u8]) -> bool {
        let keys = self.of(Resource::Key);
        let own = match keys.by_prefix(prefix) {
            Some(granted) => granted >= Access::Read,
            None => self.otherwise(Resource::Key),
        };
        own || keys.within(prefix).any(|granted| granted >= Access::Read)
    }

    /// Whether all of `resource` may be seen: granted for every name, and refused for none.
    pub fn may_read_all(&self, resource: Resource) -> bool {
        let grants = self.of(resource);
        if grants.least_within(b"") == Some(Access::Deny) {
            return false;
        }
        grants.by_prefix(b"").is_some() || self.otherwise(resource)
    }

    /// Whether any of `resource` may be changed.
    pub fn may_write_any(&self, resource: Resource) -> bool {
        let grants = self.of(resource);
        let mut all = grants.exact.iter().map(|(_, access)| *access);
        let mut prefixes = grants.prefixes.iter().map(|grant| grant.access);
        if all.any(|access| access == Access::Write)
            || prefixes.any(|access| access == Access::Write)
        {
            return true;
        }
        grants.by_prefix(b"").is_none() && self.otherwise(resource)
    }

    fn of(&self, resource: Resource) -> &Grants {
        &self.grants[resource as usize]
    }

    fn granted(&self, resource: Resource, name: &[u8]) -> Option<Access> {
        if resource.is_named() {
            return self.of(resource).by_name(name);
        }
        let own = self.of(resource).whole;
        match resource {
            Resource::Mesh | Resource::Peering => own.or(self.of(Resource::Operator).whole),
            _ => own,
        }
    }

    /// Where no rule speaks. Of the ACL itself nothing is ever allowed by default.
    fn otherwise(&self, resource: Resource) -> bool {
        self.fallback == Fallback::Allow && resource != Resource::Acl
    }
}

impl Grants {
    fn add(&mut self, rule: &Rule) {
        match &rule.scope {
            Scope::Whole => {
                let before = self.whole.unwrap_or(rule.access);
                self.whole = Some(before.merged(rule.access));
            }
            Scope::Exact(name) => self.exact.push((name.as_bytes().into(), rule.access)),
            Scope::Prefix(prefix) => self.prefixes.push(PrefixGrant {
                prefix: prefix.as_bytes().into(),
                access: rule.access,
                parent: None,
            }),
        }
    }

    /// Orders and merges what was added.
    fn settle(&mut self) {
        self.exact.sort_by(|a, b| a.0.cmp(&b.0));
        self.exact.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = kept.1.merged(later.1);
            }
            same
        });
        self.prefixes.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        self.prefixes.dedup_by(|later, kept| {
            let same = later.prefix == kept.prefix;
            if same {
                kept.access = kept.access.merged(later.access);
            }
            same
        });
        for at in 1..self.prefixes.len() {
            self.prefixes[at].parent = self.longest(at - 1, &self.prefixes[at].prefix);
        }
    }

    /// The longest prefix of `name` among those up to number `last`, of which none is after it.
    fn longest(&self, last: usize, name: &[u8]) -> Option<u32> {
        let mut at = Some(last as u32);
        while let Some(number) = at {
            let grant = &self.prefixes[number as usize];
            if name.starts_with(&grant.prefix) {
                return at;
            }
            at = grant.parent;
        }
        None
    }

    fn by_prefix(&self, name: &[u8]) -> Option<Access> {
        let after = self
            .prefixes
            .partition_point(|grant| *grant.prefix <= *name);
        let number = self.longest(after.checked_sub(1)?, name)?;
        Some(self.prefixes[number as usize].access)
    }

    fn by_name(&self, name: &[u8]) -> Option<Access> {
        match self
            .exact
            .binary_search_by(|(exact, _)| (**exact).cmp(name))
        {
            Ok(at) => Some(self.exact[at].1),
            Err(_) => self.by_prefix(name),
        }
    }

    /// The least that a rule for a name or prefix beginning with `prefix` grants.
    fn least_within(&self, prefix: &[u8]) -> Option<Access> {
        self.within(prefix).min()
    }

    /// What rules for names and prefixes beginning with `prefix` grant.
    fn within<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = Access> + 'a {
        let exact = self.exact.partition_point(|(name, _)| **name < *prefix);
        let exact = self.exact[exact..].iter();
        let exact = exact.take_while(move |(name, _)| name.starts_with(prefix));
        let prefixes = self
            .prefixes
            .partition_point(|grant| *grant.prefix < *prefix);
        let prefixes = self.prefixes[prefixes..].iter();
        let prefixes = prefixes.take_while(move |grant| grant.prefix.starts_with(prefix));
        let exact = exact.map(|(_, access)| *access);
        exact.chain(prefixes.map(|grant| grant.access))
    }
}

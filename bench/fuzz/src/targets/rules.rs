//! Does the authorizer decide as the documentation of the rules says?
//!
//! A script draws policies; each is written in HCL or JSON, read, and must be what was drawn. All
//! of them together are judged by a reference written for this: the rule for exactly this name,
//! else the longest prefix, else the default. Questions about prefixes are answered by asking the
//! reference for every name of a small universe, in which every rule has names of its own.

use engine::acl::{Access, Authorizer, Fallback, Resource, Rule, Rules, Scope};

use super::rules_text;
use crate::feed::Feed;

/// Names of rules and questions are of these; `z` is in no rule.
const LETTERS: [char; 3] = ['a', 'b', '/'];
const RULE_NAME_LETTERS_MAX: usize = 3;
const ACCESS: [Access; 4] = [Access::Deny, Access::Read, Access::Write, Access::List];
const WANTED: [Access; 3] = [Access::Read, Access::List, Access::Write];

/// Decides.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let fallback = feed.pick(&[Fallback::Deny, Fallback::Allow]);
    let wholes = feed.flag();
    let mut policies = Vec::new();
    while !feed.is_empty() && policies.len() < 4 {
        policies.push(policy(&mut feed, wholes));
    }
    let authorizer = Authorizer::new(&policies, fallback);
    let rules: Vec<&Rule> = policies.iter().flat_map(Rules::iter).collect();
    let reference = Reference { rules, fallback };
    let names = universe();
    for resource in Resource::ALL {
        for name in &names {
            for wanted in WANTED {
                assert_eq!(
                    authorizer.allows(*resource, name.as_bytes(), wanted),
                    reference.allows(*resource, name, wanted),
                    "{resource:?} {name:?} {wanted:?}: {policies:?}"
                );
            }
        }
        if !resource.is_named() {
            continue;
        }
        let all = |wanted| {
            names
                .iter()
                .all(|name| reference.allows(*resource, name, wanted))
        };
        let any = |wanted| {
            names
                .iter()
                .any(|name| reference.allows(*resource, name, wanted))
        };
        let told = authorizer.may_read_all(*resource);
        assert_eq!(told, all(Access::Read), "all {resource:?}: {policies:?}");
        let told = authorizer.may_write_any(*resource);
        assert_eq!(told, any(Access::Write), "any {resource:?}: {policies:?}");
    }
    for prefix in names
        .iter()
        .filter(|name| name.len() <= RULE_NAME_LETTERS_MAX)
    {
        let under = || names.iter().filter(|name| name.starts_with(prefix));
        let may = |name: &&String, wanted| reference.allows(Resource::Key, name, wanted);
        let told = authorizer.may_write_prefix(prefix.as_bytes());
        let right = under().all(|name| may(&name, Access::Write));
        assert_eq!(told, right, "write under {prefix:?}: {policies:?}");
        let told = authorizer.may_read_prefix(prefix.as_bytes());
        let right = under().all(|name| may(&name, Access::Read));
        assert_eq!(told, right, "read under {prefix:?}: {policies:?}");
        let told = authorizer.may_read_some(prefix.as_bytes());
        let right = under().any(|name| may(&name, Access::Read));
        assert_eq!(told, right, "some under {prefix:?}: {policies:?}");
    }
}

/// A policy, written and read.
fn policy(feed: &mut Feed<'_>, wholes: bool) -> Rules {
    let in_json = feed.flag();
    let mut rules: Vec<Rule> = Vec::new();
    for _ in 0..feed.below(5) {
        let resource = match wholes {
            true => feed.pick(Resource::ALL),
            false => feed.pick(&[Resource::Key, Resource::Key, Resource::Service]),
        };
        if resource == Resource::Intention {
            continue;
        }
        let access = match (resource, feed.pick(&ACCESS)) {
            (Resource::Key, access) => access,
            (_, Access::List) => Access::Read,
            (_, access) => access,
        };
        if !resource.is_named() {
            if rules.iter().all(|rule| rule.resource != resource) {
                let scope = Scope::Whole;
                rules.push(Rule {
                    resource,
                    scope,
                    access,
                });
            }
            continue;
        }
        let letters = feed.below(RULE_NAME_LETTERS_MAX + 1);
        let name: String = (0..letters).map(|_| feed.pick(&LETTERS)).collect();
        let scope = match feed.flag() {
            true => Scope::Prefix(name),
            false => Scope::Exact(name),
        };
        if resource == Resource::Service {
            let intentions = feed.pick(&[Access::Deny, Access::Read, Access::Write]);
            rules.push(Rule {
                resource: Resource::Intention,
                scope: scope.clone(),
                access: intentions,
            });
        }
        rules.push(Rule {
            resource,
            scope,
            access,
        });
    }
    let text = match in_json {
        true => rules_text::json(&rules),
        false => rules_text::hcl(&rules),
    };
    let read = Rules::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(read.iter().eq(&rules), "{text}: {read:?}");
    read
}

/// Every name that a rule may have, and longer ones.
fn universe() -> Vec<String> {
    let mut names = vec![String::new()];
    let mut last = 0..1;
    for _ in 0..RULE_NAME_LETTERS_MAX {
        for at in last.clone() {
            names.extend(LETTERS.map(|letter| format!("{}{letter}", names[at])));
        }
        last = last.end..names.len();
    }
    let others: Vec<String> = names.iter().map(|name| format!("{name}z")).collect();
    names.extend(others);
    names
}

/// The rules as they are, looked through for each question.
struct Reference<'r> {
    rules: Vec<&'r Rule>,
    fallback: Fallback,
}

impl Reference<'_> {
    fn allows(&self, resource: Resource, name: &str, wanted: Access) -> bool {
        if let Some(granted) = self.granted(resource, name) {
            return rank(granted) >= rank(wanted);
        }
        // Consul: the mesh and peerings are the operator's, unless a rule says otherwise.
        if matches!(resource, Resource::Mesh | Resource::Peering)
            && let Some(granted) = self.granted(Resource::Operator, "")
        {
            return rank(granted) >= rank(wanted);
        }
        self.fallback == Fallback::Allow && resource != Resource::Acl
    }

    fn granted(&self, resource: Resource, name: &str) -> Option<Access> {
        let about = |scope: &dyn Fn(&Scope) -> bool| {
            let rules = self.rules.iter().filter(|rule| rule.resource == resource);
            let found: Vec<Access> = rules
                .filter(|rule| scope(&rule.scope))
                .map(|rule| rule.access)
                .collect();
            // One refusal outdoes any grants.
            match found.contains(&Access::Deny) {
                true => Some(Access::Deny),
                false => found.into_iter().max_by_key(|access| rank(*access)),
            }
        };
        if !resource.is_named() {
            return about(&|scope| *scope == Scope::Whole);
        }
        about(&|scope| matches!(scope, Scope::Exact(exact) if exact == name)).or_else(|| {
            (0..=name.len()).rev().find_map(|length| {
                about(&|scope| matches!(scope, Scope::Prefix(prefix) if *prefix == name[..length]))
            })
        })
    }
}

fn rank(access: Access) -> u8 {
    match access {
        Access::Deny => 0,
        Access::Read => 1,
        Access::List => 2,
        Access::Write => 3,
    }
}

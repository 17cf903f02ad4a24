//! What does a policy's text grant?
//!
//! ```text
//! acl = "write"                                      one rule for the whole
//! key "a/b"        { policy = "read" }               a rule for this name
//! key_prefix "a/"  { policy = "list" }               a rule for all names that begin so
//! service "web"    { policy = "write"  intentions = "read" }   (each on its line)
//! {"key": {"a/b": {"policy": "read"}}}               the same in JSON
//! ```
//!
//! Unlike Consul, which passes over words that it does not know, an unknown word is an error: a
//! misspelt `key_prefix "" { policy = "deny" }` would otherwise grant what it was to refuse.

use super::{
    Access, Resource,
    syntax::{self, Node},
};

/// Longest text of a policy, bytes.
pub const RULES_BYTES_MAX: usize = 256 * 1024;

/// Why a text is no policy. Its text is Consul's, with what and where behind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Failed to parse ACL rules: {0}")]
pub struct RulesError(String);

/// Which names a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The resource as a whole; only of resources that are not named.
    Whole,
    /// This name.
    Exact(String),
    /// Every name that begins so.
    Prefix(String),
}

/// One grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is about.
    pub resource: Resource,
    /// Which of them.
    pub scope: Scope,
    /// How much.
    pub access: Access,
}

/// What a policy grants, in the order of its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(pub(super) Vec<Rule>);

impl Rules {
    /// Reads a policy's text: HCL, or JSON if it opens with a brace. An empty one grants nothing.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        if text.len() > RULES_BYTES_MAX {
            let why = format!("{} bytes, at most {RULES_BYTES_MAX}", text.len());
            return Err(RulesError(why));
        }
        let members = syntax::parse(text).map_err(RulesError)?;
        let mut rules = Self::default();
        for (word, node) in members {
            rules.read(&word, node).map_err(RulesError)?;
        }
        Ok(rules)
    }

    /// The rules, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Rules that were not written as a text.
    pub fn of(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    fn push(&mut self, resource: Resource, scope: Scope, access: Access) {
        self.0.push(Rule {
            resource,
            scope,
            access,
        });
    }

    fn read(&mut self, word: &str, node: Node) -> Result<(), String> {
        let (resource, is_prefix) = resource(word)?;
        if !resource.is_named() {
            let access = level(resource, word, node)?;
            if self.0.iter().any(|rule| rule.resource == resource) {
                return Err(format!("{word} is given twice"));
            }
            self.push(resource, Scope::Whole, access);
            return Ok(());
        }
        for (name, body) in each_member(node, word)? {
            let place = format!("{word} {name:?}");
            let granted = Granted::read(resource, &place, body)?;
            let scope = |name| match is_prefix {
                true => Scope::Prefix(name),
                false => Scope::Exact(name),
            };
            if resource == Resource::Service {
                let intentions = granted.intentions.unwrap_or(match granted.policy {
                    Access::Deny => Access::Deny,
                    _ => Access::Read,
                });
                self.push(Resource::Intention, scope(name.clone()), intentions);
            }
            self.push(resource, scope(name), granted.policy);
        }
        Ok(())
    }
}

/// The words of a named rule's block.
struct Granted {
    policy: Access,
    intentions: Option<Access>,
}

impl Granted {
    fn read(resource: Resource, place: &str, body: Node) -> Result<Self, String> {
        let mut policy = None;
        let mut intentions = None;
        for (word, value) in each_member(body, place)? {
            let inside = format!("{place}: {word}");
            let slot = match word.as_str() {
                "policy" => &mut policy,
                "intentions" if matches!(resource, Resource::Service | Resource::Identity) => {
                    &mut intentions
                }
                "sentinel" => return Err(format!("{place}: Sentinel is not supported")),
                _ => return Err(unknown(&inside, &word, ["policy", "intentions"])),
            };
            if slot.is_some() {
                return Err(format!("{inside} is given twice"));
            }
            let of = match word.as_str() {
                "policy" => resource,
                _ => Resource::Intention,
            };
            *slot = Some(level(of, &inside, value)?);
        }
        let policy = policy.ok_or_else(|| format!("{place} has no policy"))?;
        Ok(Self { policy, intentions })
    }
}

/// The members of a block, or of each block of a list: HCL's blocks as JSON may be written so.
fn each_member(node: Node, place: &str) -> Result<Vec<(String, Node)>, String> {
    match node {
        Node::Object(members) => Ok(members),
        Node::List(items) => {
            let mut all = Vec::new();
            for item in items {
                match item {
                    Node::Object(members) => all.extend(members),
                    item => return Err(needs_block(place, &item)),
                }
            }
            Ok(all)
        }
        node => Err(needs_block(place, &node)),
    }
}

fn needs_block(place: &str, node: &Node) -> String {
    format!("{place}: {} where a block is needed", node.what())
}

/// `key_prefix` is the resource `key`, by prefix.
fn resource(word: &str) -> Result<(Resource, bool), String> {
    let known = |word: &str| {
        let spoken = |resource: &&Resource| **resource != Resource::Intention;
        let mut all = Resource::ALL.iter().filter(spoken);
        all.find(|resource| resource.word() == word).copied()
    };
    if let Some(resource) = known(word) {
        return Ok((resource, false));
    }
    if let Some(resource) = word.strip_suffix("_prefix").and_then(known)
        && resource.is_named()
    {
        return Ok((resource, true));
    }
    match word {
        "namespace" | "namespace_prefix" => Err("namespaces are not supported".into()),
        "partition" | "partition_prefix" => Err("partitions are not supported".into()),
        _ => {
            let words = Resource::ALL.iter().map(|resource| resource.word());
            Err(unknown(word, word, words))
        }
    }
}

fn unknown<'a>(place: &str, word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    format!(
        "{place}: {word:?} has no meaning here, known are {}",
        known.join(", ")
    )
}

fn level(resource: Resource, place: &str, node: Node) -> Result<Access, String> {
    let Node::Text(text) = node else {
        return Err(format!("{place}: {} where a text is needed", node.what()));
    };
    match text.as_str() {
        "deny" => Ok(Access::Deny),
        "read" => Ok(Access::Read),
        "list" if resource == Resource::Key => Ok(Access::List),
        "write" => Ok(Access::Write),
        _ => {
            let list = match resource {
                Resource::Key => ", list",
                _ => "",
            };
            Err(format!(
                "{place}: {text:?} is none of deny, read{list}, write"
            ))
        }
    }
}

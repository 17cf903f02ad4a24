//! Who may do what, read off the documentation.
//!
//! A token's rules lie in a list, as they were drawn: no text was read and nothing was compiled.
//! A question about one name looks for the rules that are for exactly this name, else for those
//! with the longest prefix of it, else asks the default policy. A question about all or any names
//! under a prefix is asked of names: of every one that a rule speaks of, and of one beneath it that
//! no rule speaks of. That is enough, since a name is decided by the rules for it and its prefixes.

use super::drawn::{Said, Token};

/// How much is granted or wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Deny,
    Read,
    List,
    Write,
}

impl Level {
    fn of(word: &str) -> Self {
        match word {
            "deny" => Self::Deny,
            "read" => Self::Read,
            "list" => Self::List,
            "write" => Self::Write,
            other => panic!("no level: {other}"),
        }
    }
}

/// A character that no drawn name has.
const FRESH: char = '~';

struct Line {
    word: String,
    prefix: bool,
    name: String,
    level: Level,
}

/// All that a token's policies say.
pub struct Reference {
    lines: Vec<Line>,
    default_allow: bool,
}

impl Reference {
    pub fn new(token: &Token) -> Self {
        let mut all = Self {
            lines: Vec::new(),
            default_allow: token.default_allow,
        };
        for said in token.policies.iter().flat_map(|policy| &policy.said) {
            all.say(said);
        }
        // "Service identities": the service and its sidecar may be registered, and everything be
        // found.
        for name in &token.services {
            for name in [name.clone(), format!("{name}-sidecar-proxy")] {
                all.rule("service", false, &name, "write");
            }
            all.rule("service", true, "", "read");
            all.rule("node", true, "", "read");
        }
        // "Node identities": the node may be registered, and every service be found.
        for name in &token.nodes {
            all.rule("node", false, name, "write");
            all.rule("service", true, "", "read");
        }
        all
    }

    fn say(&mut self, said: &Said) {
        match &said.intentions {
            None => self.rule(said.word, said.prefix, &said.name, said.level),
            Some(intentions) => {
                self.line(said.word, said.prefix, &said.name, said.level);
                self.line("intention", said.prefix, &said.name, intentions);
            }
        }
    }

    /// "If intentions are not given, a service's rule that reads or writes lets them be read."
    fn rule(&mut self, word: &str, prefix: bool, name: &str, level: &str) {
        self.line(word, prefix, name, level);
        if word == "service" {
            let intentions = match level {
                "read" | "write" => "read",
                _ => "deny",
            };
            self.line("intention", prefix, name, intentions);
        }
    }

    fn line(&mut self, word: &str, prefix: bool, name: &str, level: &str) {
        self.lines.push(Line {
            word: word.to_owned(),
            prefix,
            name: name.to_owned(),
            level: Level::of(level),
        });
    }

    /// What rules of this kind for this name say together: "deny" wins, else the most.
    fn together(&self, word: &str, prefix: bool, name: &str) -> Option<Level> {
        let mut together = None;
        for line in &self.lines {
            if line.word == word && line.prefix == prefix && line.name == name {
                together = Some(match together {
                    None => line.level,
                    Some(Level::Deny) => Level::Deny,
                    Some(_) if line.level == Level::Deny => Level::Deny,
                    Some(other) => line.level.max(other),
                });
            }
        }
        together
    }

    fn said_of(&self, word: &str, name: &str) -> Option<Level> {
        match word {
            "acl" | "keyring" | "operator" => self.together(word, false, ""),
            // "Where no rule speaks of the mesh or of peerings, the operator's counts."
            "mesh" | "peering" => self
                .together(word, false, "")
                .or_else(|| self.together("operator", false, "")),
            _ => self.together(word, false, name).or_else(|| {
                let mut ends: Vec<usize> = name.char_indices().map(|(at, _)| at).collect();
                ends.push(name.len());
                let longest_first = ends.into_iter().rev();
                let mut said = longest_first.map(|end| self.together(word, true, &name[..end]));
                said.find_map(|level| level)
            }),
        }
    }

    /// "The default policy decides where no rule does, but never on ACLs themselves."
    pub fn allows(&self, word: &str, name: &str, wanted: Level) -> bool {
        match self.said_of(word, name) {
            Some(level) => level >= wanted,
            None => self.default_allow && word != "acl",
        }
    }

    fn under<'a>(&'a self, word: &'a str, prefix: &'a str) -> impl Iterator<Item = String> + 'a {
        let of_word = self.lines.iter().filter(move |line| line.word == word);
        let named = of_word.map(|line| line.name.clone());
        let named = named.filter(move |name| name.starts_with(prefix));
        let own = std::iter::once(prefix.to_owned());
        // The prefix itself is a name too; of nodes or services the empty one is none.
        let own = own.filter(|name| !name.is_empty());
        let beneath = |name: String| [format!("{name}{FRESH}"), name];
        let fresh = std::iter::once(format!("{prefix}{FRESH}"));
        named.chain(own).flat_map(beneath).chain(fresh)
    }

    /// Whether it is allowed of every name under a prefix.
    pub fn all(&self, word: &str, prefix: &str, wanted: Level) -> bool {
        self.under(word, prefix)
            .all(|name| self.allows(word, &name, wanted))
    }

    /// Whether it is allowed of any name under a prefix.
    pub fn any(&self, word: &str, prefix: &str, wanted: Level) -> bool {
        self.under(word, prefix)
            .any(|name| self.allows(word, &name, wanted))
    }
}

//! Does a policy's text mean the same when it is written again, in both languages?
//!
//! Any text that is understood is written as HCL and as JSON from the rules that it means, and
//! must mean the same rules.

use engine::acl::{Access, RULES_BYTES_MAX, Resource, Rule, Rules, Scope};

/// Reads a text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let rules = match Rules::parse(text) {
        Ok(rules) => rules,
        Err(error) => {
            assert!(error.to_string().starts_with("Failed to parse ACL rules: "));
            return;
        }
    };
    let listed: Vec<Rule> = rules.iter().cloned().collect();
    for text in [hcl(&listed), json(&listed)] {
        if text.len() <= RULES_BYTES_MAX {
            assert_eq!(Rules::parse(&text).as_ref(), Ok(&rules), "{text}");
        }
    }
}

/// A rule as it is written: what of a service's intentions is said with it.
struct Written<'r> {
    rule: &'r Rule,
    intentions: Option<Access>,
}

/// Rules for intentions come from the service's behind them.
fn written(rules: &[Rule]) -> impl Iterator<Item = Written<'_>> {
    let before = std::iter::once(None).chain(rules.iter().map(Some));
    rules.iter().zip(before).filter_map(|(rule, before)| {
        let intentions = (rule.resource == Resource::Service).then(|| {
            let before = before.expect("a service's intentions come before it");
            assert_eq!(
                (before.resource, &before.scope),
                (Resource::Intention, &rule.scope)
            );
            before.access
        });
        (rule.resource != Resource::Intention).then_some(Written { rule, intentions })
    })
}

fn word(rule: &Rule) -> String {
    match rule.scope {
        Scope::Prefix(_) => format!("{}_prefix", rule.resource.word()),
        _ => rule.resource.word().to_owned(),
    }
}

/// The rules in HCL.
pub(super) fn hcl(rules: &[Rule]) -> String {
    let mut out = String::new();
    for Written { rule, intentions } in written(rules) {
        let (word, level) = (word(rule), rule.access.word());
        match &rule.scope {
            Scope::Whole => out.push_str(&format!("{word} = \"{level}\"\n")),
            Scope::Exact(name) | Scope::Prefix(name) => {
                out.push_str(&format!(
                    "{word} {} {{ policy = \"{level}\"",
                    hcl_text(name)
                ));
                if let Some(intentions) = intentions {
                    out.push_str(&format!(", intentions = \"{}\"", intentions.word()));
                }
                out.push_str(" }\n");
            }
        }
    }
    out
}

/// A text in quotes. A dollar is escaped, so that no brace after it opens anything.
fn hcl_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '{' => out.push_str("\\u007b"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c if (c as u32) > 0xffff => out.push_str(&format!("\\U{:08x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The rules in JSON: an object whose members may repeat, since their order counts.
pub(super) fn json(rules: &[Rule]) -> String {
    let mut members = Vec::new();
    for Written { rule, intentions } in written(rules) {
        let (word, level) = (word(rule), rule.access.word());
        members.push(match &rule.scope {
            Scope::Whole => format!("\"{word}\":\"{level}\""),
            Scope::Exact(name) | Scope::Prefix(name) => {
                let name = serde_json::to_string(name).expect("a text");
                let intentions = intentions.map_or(String::new(), |access| {
                    format!(",\"intentions\":\"{}\"", access.word())
                });
                format!("\"{word}\":{{{name}:{{\"policy\":\"{level}\"{intentions}}}}}")
            }
        });
    }
    format!("{{{}}}", members.join(","))
}

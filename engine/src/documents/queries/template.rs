//! What does a template become for a name?
//!
//! Every text of what the query asks for may have holes, `${name.full}`, `${name.prefix}`,
//! `${name.suffix}`, `${agent.segment}` and `${match(N)}`; `$${` stands for `${`. They are filled
//! with the name that was asked for, and with what the template's regular expression found in it.
//! Consul's language for this (HIL) has arithmetic, conditions and strings as well; queries do
//! without, and what has them is refused when the query is stored, not when it is executed.
//!
//! Invariant: a template that was let in ([`check`]) can be rendered for every name.

use regex::{Regex, RegexBuilder};

use super::definition::{Definition, ServiceQuery};

/// The one kind of template.
pub const NAME_PREFIX_MATCH: &str = "name_prefix_match";

/// Most memory of a template's compiled regular expression, bytes.
pub const TEMPLATE_REGEX_BYTES_MAX: usize = 1024 * 1024;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece<'t> {
    Plain(&'t str),
    Hole(Hole),
}

/// What is put into a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    /// The name that was asked for.
    Full,
    /// The template's own name.
    Prefix,
    /// What follows it.
    Suffix,
    /// The network segment of whoever asks, which is always the one without a name.
    Segment,
    /// What the group with this number found; nothing if there is none.
    Match(usize),
}

/// Why a text of a template is refused.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// It is not of the form.
    Format(String),
    /// It names what there is not.
    Unknown(String),
}

/// Whether a template can be rendered; Consul's text if not.
pub fn check(query: &Definition) -> Result<(), String> {
    let kind = &query.template.kind;
    if kind != NAME_PREFIX_MATCH {
        return Err(format!("Bad Template.Type '{kind}'"));
    }
    render(query, &query.name).map(drop)
}

/// The query that a template stands for when it is asked for by this name.
pub fn render(query: &Definition, asked: &str) -> Result<Definition, String> {
    let regex = match &*query.template.regexp {
        "" => None,
        text => Some(compile(text)?),
    };
    let captures = regex.as_ref().and_then(|regex| regex.captures(asked));
    let fill = |hole: Hole| match hole {
        Hole::Full => asked,
        Hole::Prefix => &query.name,
        // As Consul: in its own case, while the name itself counts in any.
        Hole::Suffix => asked.strip_prefix(&*query.name).unwrap_or(asked),
        Hole::Segment => "",
        Hole::Match(group) => {
            let found = captures.as_ref().and_then(|captures| captures.get(group));
            found.map_or("", |found| found.as_str())
        }
    };
    let mut rendered = query.clone();
    for_each_text(&mut rendered.service, &mut |path, text| {
        let pieces = pieces(text).map_err(|fault| match fault {
            Fault::Format(why) => format!("Bad format '{text}' in Service{path}: {why}"),
            Fault::Unknown(why) => format!("Bad evaluation for '{text}' in Service{path}: {why}"),
        })?;
        *text = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Plain(plain) => plain,
                Piece::Hole(hole) => fill(*hole),
            })
            .collect();
        Ok(())
    })?;
    if query.template.remove_empty_tags {
        rendered.service.tags.retain(|tag| !tag.is_empty());
    }
    Ok(rendered)
}

fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(TEMPLATE_REGEX_BYTES_MAX)
        .dfa_size_limit(TEMPLATE_REGEX_BYTES_MAX)
        .build()
        .map_err(|error| format!("Bad Regexp: {error}"))
}

type Each<'e> = &'e mut dyn FnMut(&str, &mut String) -> Result<(), String>;

/// Every text of a query, with its path as Consul's errors have it.
fn for_each_text(service: &mut ServiceQuery, each: Each<'_>) -> Result<(), String> {
    each(".Service", &mut service.service)?;
    let failover = &mut service.failover;
    list(".Failover.Datacenters", &mut failover.datacenters, each)?;
    for (at, target) in failover.targets.iter_mut().enumerate() {
        let path = format!(".Failover.Targets[{at}]");
        each(&format!("{path}.Peer"), &mut target.peer)?;
        each(&format!("{path}.Datacenter"), &mut target.datacenter)?;
    }
    list(".IgnoreCheckIDs", &mut service.ignore_check_ids, each)?;
    each(".Near", &mut service.near)?;
    list(".Tags", &mut service.tags, each)?;
    for (name, pairs) in [
        (".NodeMeta", &mut service.node_meta),
        (".ServiceMeta", &mut service.service_meta),
    ] {
        for (key, value) in pairs {
            each(&format!("{name}[{key}]"), value)?;
        }
    }
    Ok(())
}

fn list(name: &str, texts: &mut [String], each: Each<'_>) -> Result<(), String> {
    for (at, text) in texts.iter_mut().enumerate() {
        each(&format!("{name}[{at}]"), text)?;
    }
    Ok(())
}

/// A text, taken apart.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Fault> {
    let mut pieces = Vec::new();
    let mut from = 0;
    while let Some(found) = text[from..].find("${") {
        let at = from + found;
        if text[from..at].ends_with('$') {
            // The second `$` is the escape: both before it and after it belong to the text.
            pieces.push(Piece::Plain(&text[from..at - 1]));
            pieces.push(Piece::Plain("${"));
            from = at + 2;
            continue;
        }
        pieces.push(Piece::Plain(&text[from..at]));
        let inside = at + 2;
        let end = text[inside..].find('}').map(|end| inside + end);
        let end = end.ok_or_else(|| {
            let place = place(text, at);
            Fault::Format(format!("{place}: the \"${{\" has no \"}}\""))
        })?;
        pieces.push(Piece::Hole(hole(text, inside, end)?));
        from = end + 1;
    }
    pieces.push(Piece::Plain(&text[from..]));
    Ok(pieces)
}

/// What stands between `${` and `}`.
fn hole(text: &str, from: usize, to: usize) -> Result<Hole, Fault> {
    let inner = &text[from..to];
    let start = from + (inner.len() - inner.trim_start().len());
    let inner = inner.trim();
    let place = || place(text, start);
    let named = |name: &str| {
        let mut letters = name.chars();
        let first = letters
            .next()
            .is_some_and(|c| c.is_alphabetic() || c == '_');
        first && letters.all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))
    };
    match inner {
        "name.full" => return Ok(Hole::Full),
        "name.prefix" => return Ok(Hole::Prefix),
        "name.suffix" => return Ok(Hole::Suffix),
        "agent.segment" => return Ok(Hole::Segment),
        name if named(name) => {
            let why = format!("{}: unknown variable accessed: {name}", place());
            return Err(Fault::Unknown(why));
        }
        _ => {}
    }
    let called = inner
        .strip_suffix(')')
        .and_then(|call| call.split_once('('))
        .map(|(function, argument)| (function.trim(), argument.trim()));
    match called {
        Some(("match", argument)) => match argument.parse() {
            Ok(group) => Ok(Hole::Match(group)),
            // Consul's finds nothing there.
            Err(_) if argument.parse::<i64>().is_ok() => Ok(Hole::Match(usize::MAX)),
            Err(_) => Err(Fault::Format(format!(
                "{}: match takes the number of a group, as in ${{match(1)}}",
                place()
            ))),
        },
        Some((function, _)) if named(function) => Err(Fault::Unknown(format!(
            "{}: unknown function called: {function}",
            place()
        ))),
        _ => Err(Fault::Format(format!(
            "{}: expected name.full, name.prefix, name.suffix, agent.segment or match(N)",
            place()
        ))),
    }
}

/// A byte offset as HIL names it.
fn place(text: &str, at: usize) -> String {
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("At column {column}, line {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(name: &str, regexp: &str, service: &str) -> Definition {
        let mut query = Definition {
            name: name.into(),
            ..Definition::default()
        };
        query.template.kind = NAME_PREFIX_MATCH.into();
        query.template.regexp = regexp.into();
        query.service.service = service.into();
        query
    }

    fn rendered(query: &Definition, asked: &str) -> String {
        render(query, asked).expect("a template").service.service
    }

    /// Consul's own example.
    #[test]
    fn a_name_is_taken_apart_and_put_into_every_text() {
        let mut query = template("geo-db", "^geo-db-(.*?)-([^\\-]+?)$", "mysql-${match(1)}");
        query.service.failover.datacenters = vec!["${match(0)}".into()];
        query.service.ignore_check_ids = vec!["${name.prefix}".into()];
        query.service.near = "${agent.segment}".into();
        query.service.tags = vec!["${match(2)}".into(), "${match(3)}".into(), "!v1".into()];
        query.service.node_meta = [("a".into(), "${name.suffix}".into())].into();
        query.service.service_meta = [("b".into(), "${ name.full }".into())].into();
        query.template.remove_empty_tags = true;
        assert_eq!(check(&query), Ok(()));
        let service = render(&query, "geo-db-customer-primary").unwrap().service;
        assert_eq!(service.service, "mysql-customer");
        assert_eq!(service.failover.datacenters, ["geo-db-customer-primary"]);
        assert_eq!(service.ignore_check_ids, ["geo-db"]);
        assert_eq!(service.near, "");
        assert_eq!(service.tags, ["primary", "!v1"]);
        assert_eq!(service.node_meta["a"], "-customer-primary");
        assert_eq!(service.service_meta["b"], "geo-db-customer-primary");
        // What the expression does not find is nothing.
        assert_eq!(rendered(&query, "geo-db"), "mysql-");
        query.template.remove_empty_tags = false;
        assert_eq!(
            render(&query, "geo-db").unwrap().service.tags,
            ["", "", "!v1"]
        );
    }

    #[test]
    fn holes_are_found_and_escapes_are_not_holes() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$", "$"),
            ("a}b{c", "a}b{c"),
            ("$${name.full}", "${name.full}"),
            ("a$${x}b${name.suffix}c", "a${x}bebc"),
            ("${name.prefix}${name.suffix}", "web"),
            ("${match(-1)}${match(99)}|", "|"),
            ("é${name.full}é", "éwebé"),
        ] {
            assert_eq!(
                rendered(&template("w", "", text), "web"),
                expected,
                "{text}"
            );
        }
        // The name counts in any case, the suffix only in its own.
        assert_eq!(rendered(&template("W", "", "${name.suffix}"), "web"), "web");
    }

    #[test]
    fn what_cannot_be_rendered_is_refused_with_its_place() {
        for (text, why) in [
            (
                "${name.fill}",
                "Bad evaluation for '${name.fill}' in Service.Service: At column 3, line 1: unknown variable accessed: name.fill",
            ),
            (
                "a\nb${ upper(1)}",
                "Bad evaluation for 'a\nb${ upper(1)}' in Service.Service: At column 5, line 2: unknown function called: upper",
            ),
            (
                "${name.full",
                "Bad format '${name.full' in Service.Service: At column 1, line 1: the \"${\" has no \"}\"",
            ),
            (
                "${match(x)}",
                "Bad format '${match(x)}' in Service.Service: At column 3, line 1: match takes the number of a group, as in ${match(1)}",
            ),
            (
                "${1 + 1}",
                "Bad format '${1 + 1}' in Service.Service: At column 3, line 1: expected name.full, name.prefix, name.suffix, agent.segment or match(N)",
            ),
            (
                "${}",
                "Bad format '${}' in Service.Service: At column 3, line 1: expected name.full, name.prefix, name.suffix, agent.segment or match(N)",
            ),
        ] {
            assert_eq!(
                check(&template("w", "", text)),
                Err(why.to_owned()),
                "{text}"
            );
        }
        let mut query = template("w", "(", "web");
        let why = check(&query).unwrap_err();
        assert!(why.starts_with("Bad Regexp: "), "{why}");
        query.template.kind = "other".into();
        assert_eq!(check(&query), Err("Bad Template.Type 'other'".to_owned()));
        let mut query = template("w", "", "web");
        query.service.tags = vec!["ok".into(), "${".into()];
        let why = check(&query).unwrap_err();
        assert!(why.contains("in Service.Tags[1]: "), "{why}");
    }

    #[test]
    fn template_regex_bytes_max_is_reached() {
        let ok = template("w", "a{1000}", "web");
        assert_eq!(check(&ok), Ok(()));
        let why = check(&template("w", "(a{1000}){1000}", "web")).unwrap_err();
        assert!(why.contains(&TEMPLATE_REGEX_BYTES_MAX.to_string()), "{why}");
    }

    proptest::proptest! {
        /// A template is let in only if it can be rendered for every name; the holes of any text are
        /// those that a plain reading finds.
        #[test]
        fn a_template_that_was_let_in_renders_for_every_name(
            parts in proptest::collection::vec(
                proptest::sample::select(&[
                    "$", "{", "}", "${", "$${", "a", "é", "${name.full}", "${name.suffix}",
                    "${match(1)}", "${match(7)}", "${x}",
                ][..]),
                0..8,
            ),
            regexp in proptest::sample::select(&["", "^(.)", "(x)?(y)*"][..]),
            asked in ".{0,12}",
        ) {
            let query = template("w", regexp, &parts.concat());
            if check(&query).is_ok() {
                proptest::prop_assert!(render(&query, &asked).is_ok());
            }
        }
    }
}

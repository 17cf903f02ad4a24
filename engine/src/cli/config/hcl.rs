//! How does a file in HCL become the same tree as one in JSON?
//!
//! Consul reads HCL 1, the well-kept parser reads HCL 2. For configuration files they differ in
//! little: HCL 1 allows keys in quotes, and gives no meaning to `${…}` in a string. Both are kept
//! here. What HCL 2 adds (variables, functions, operators) is refused: there is nothing it could
//! refer to.
//!
//! A block is an object; blocks of the same name are a list of objects, in their order.

use hcl::{
    Body, Expression, Structure,
    expr::{Operation, UnaryOperator},
};
use serde_json::{Map, Number, Value};

/// Stand for `$` and `%` before `{` while the parser looks, which would take them for templates:
/// two characters without a meaning of their own.
const DOLLAR: &str = "\u{f8f0}";
const PERCENT: &str = "\u{f8f1}";

/// Deepest nesting of a file: of brackets, and of operators in front of each other. The parser calls
/// itself for each level, so that a file could otherwise end the process.
const NESTING_MAX: usize = 64;

/// Reads a file in HCL. The error is the parser's, with line and column, or names a key.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    bounded(text)?;
    if text.contains(DOLLAR) || text.contains(PERCENT) {
        return Err("not HCL: U+F8F0 and U+F8F1 have no place in it".into());
    }
    let plain = text
        .replace("${", &format!("{DOLLAR}{{"))
        .replace("%{", &format!("{PERCENT}{{"));
    let body: Body = hcl::parse(&plain)
        .or_else(|_| hcl::parse(&unquoted(&plain)))
        .map_err(|error| format!("not HCL: {}", one_line(&error)))?;
    object(body, "")
}

/// Refuses what is nested too deeply, before the parser meets it. Brackets in texts and comments do
/// not count; those of a text over several lines do, of which no real one has so many left open.
fn bounded(text: &str) -> Result<(), String> {
    let (mut depth, mut operators) = (0_usize, 0_usize);
    for (number, line) in text.lines().enumerate() {
        let mut quoted = false;
        let mut chars = line.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '\\' if quoted => drop(chars.next()),
                '"' => quoted = !quoted,
                _ if quoted => {}
                '#' => break,
                '/' if chars.peek() == Some(&'/') => break,
                '{' | '[' | '(' => depth += 1,
                '}' | ']' | ')' => depth = depth.saturating_sub(1),
                '!' | '-' | '?' => operators += 1,
                '=' | ',' => operators = 0,
                _ => {}
            }
            if depth > NESTING_MAX || operators > NESTING_MAX {
                let line = number + 1;
                return Err(format!(
                    "line {line} is nested more than {NESTING_MAX} levels deep"
                ));
            }
        }
        operators = 0;
    }
    Ok(())
}

/// A text as it was written.
fn written(text: String) -> String {
    match text.contains(['\u{f8f0}', '\u{f8f1}']) {
        true => text.replace(DOLLAR, "$").replace(PERCENT, "%"),
        false => text,
    }
}

/// Place and reason: the parser draws them over several lines, with the text between.
fn one_line(error: &hcl::Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim);
    let place = lines.next().unwrap_or_default();
    let place = place
        .trim_start_matches("--> ")
        .trim_start_matches("HCL parse error in ");
    let reasons = lines.filter_map(|line| line.strip_prefix("= "));
    std::iter::once(place)
        .chain(reasons)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Takes the quotes off keys: `"a" = 1` is ` a  = 1`, so that every place stays where it is. Texts over several lines are left alone.
fn unquoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut until: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        if let Some(end) = until {
            if line.trim() == end {
                until = None;
            }
            out.push_str(line);
            continue;
        }
        if let Some((_, marker)) = line.split_once("<<") {
            until = Some(marker.trim().trim_start_matches('-'));
        }
        match quoted_key(line) {
            Some((before, key, after)) => out.extend([before, " ", key, " ", after]),
            None => out.push_str(line),
        }
    }
    out
}

/// A line that begins with a key in quotes: what is before it, the key, and the rest.
fn quoted_key(line: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = line.split_once('"')?;
    let (key, after) = rest.split_once('"')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let is_key = before.trim().is_empty()
        && after.trim_start().starts_with('=')
        && key
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && key.bytes().all(plain);
    is_key.then_some((before, key, after))
}

fn object(body: Body, path: &str) -> Result<Value, String> {
    let mut members: Map<String, Value> = Map::new();
    for structure in body {
        match structure {
            Structure::Attribute(attribute) => {
                let key = attribute.key.to_string();
                let path = below(path, &key);
                let value = value(attribute.expr, &path)?;
                if members.insert(key, value).is_some() {
                    return Err(format!("{path} is given twice"));
                }
            }
            Structure::Block(block) => {
                let key = block.identifier.to_string();
                let path = below(path, &key);
                let mut value = object(block.body, &path)?;
                for label in block.labels.into_iter().rev() {
                    let label = written(label.into_inner());
                    value = Value::Object(Map::from_iter([(label, value)]));
                }
                match members.get_mut(&key) {
                    None => {
                        members.insert(key, value);
                    }
                    Some(Value::Array(several)) => several.push(value),
                    Some(one @ Value::Object(_)) => {
                        *one = Value::Array(vec![one.take(), value]);
                    }
                    Some(_) => return Err(format!("{path} is given twice")),
                }
            }
        }
    }
    Ok(Value::Object(members))
}

fn value(expression: Expression, path: &str) -> Result<Value, String> {
    Ok(match expression {
        Expression::Null => Value::Null,
        Expression::Bool(value) => Value::Bool(value),
        Expression::Number(value) => number(&value).ok_or_else(|| no_meaning(path))?,
        Expression::String(text) => Value::String(written(text)),
        // A text over several lines: nothing else is left of templates.
        Expression::TemplateExpr(template) => Value::String(written(template.to_string())),
        Expression::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item| value(item, path))
                .collect::<Result<_, _>>()?,
        ),
        Expression::Object(members) => {
            let mut out = Map::new();
            for (key, member) in members {
                let key = match key {
                    hcl::ObjectKey::Expression(Expression::String(text)) => written(text),
                    key => key.to_string(),
                };
                let path = below(path, &key);
                if out.insert(key, value(member, &path)?).is_some() {
                    return Err(format!("{path} is given twice"));
                }
            }
            Value::Object(out)
        }
        Expression::Parenthesis(inner) => value(*inner, path)?,
        Expression::Operation(operation) => match *operation {
            Operation::Unary(unary) if unary.operator == UnaryOperator::Neg => {
                match value(unary.expr, path)? {
                    Value::Number(positive) => {
                        negative(&positive).ok_or_else(|| no_meaning(path))?
                    }
                    _ => return Err(no_meaning(path)),
                }
            }
            _ => return Err(no_meaning(path)),
        },
        _ => return Err(no_meaning(path)),
    })
}

fn number(number: &hcl::Number) -> Option<Value> {
    let whole = number
        .as_i64()
        .map(Number::from)
        .or(number.as_u64().map(Number::from));
    Some(Value::Number(
        whole.or_else(|| Number::from_f64(number.as_f64()?))?,
    ))
}

fn negative(number: &Number) -> Option<Value> {
    let whole = number.as_i64().and_then(i64::checked_neg).map(Number::from);
    Some(Value::Number(
        whole.or_else(|| Number::from_f64(-number.as_f64()?))?,
    ))
}

fn below(path: &str, key: &str) -> String {
    match path {
        "" => key.to_string(),
        path => format!("{path}.{key}"),
    }
}

fn no_meaning(path: &str) -> String {
    format!("{path}: only texts, numbers, true, false, lists and objects have a meaning here")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A file of some hundred levels overflowed a stack of 256 KiB, which the fuzzer found: the
    /// parser calls itself for each.
    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("a = {}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&nested(NESTING_MAX)).is_ok());
        for text in [
            nested(NESTING_MAX + 1),
            "a {".repeat(100_000),
            "a = {".repeat(100_000),
            format!("a = {}1", "!".repeat(100_000)),
            format!("a = {}1", "- ".repeat(100_000)),
            format!("a = {}1", "1 ? 2 : ".repeat(100_000)),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!(error, "line 1 is nested more than 64 levels deep");
        }
        let texts = format!("a = \"{}\" # {}", "{[(".repeat(100), "{".repeat(100));
        assert!(parse(&texts).is_ok());
    }

    #[test]
    fn blocks_are_objects_and_repeated_ones_lists() {
        let text = r#"
            # a comment
            node_name = "a" // another
            ports { http = -1, server = 8300 }
            service { name = "web" tags = ["a", "b"] }
            service {
              name = "db"
              check { ttl = "10s" }
            }
            acl = { tokens = { agent = "x" } }
        "#;
        // Separated by commas, or two attributes on a line: HCL 2 takes neither.
        assert!(parse(text).unwrap_err().starts_with("not HCL: "));
        let text = r#"
            # a comment
            node_name = "a" // another
            ports { http = -1 }
            service {
              name = "web"
              tags = ["a", "b"]
            }
            service {
              name = "db"
              check { ttl = "10s" }
            }
            /* and one over
               two lines */
            acl = { tokens = { agent = "x" } }
            ratio = -0.5
        "#;
        assert_eq!(
            parse(text).unwrap(),
            json!({
                "node_name": "a",
                "ports": {"http": -1},
                "service": [
                    {"name": "web", "tags": ["a", "b"]},
                    {"name": "db", "check": {"ttl": "10s"}},
                ],
                "acl": {"tokens": {"agent": "x"}},
                "ratio": -0.5,
            })
        );
    }

    #[test]
    fn keys_in_quotes_and_dollars_in_texts_are_as_in_hcl_1() {
        let text = "node_meta {\n  \"rack-id\" = \"r1\"\n}\nservice {\n  \"name\" = \"n ${x}\"\n  notes = <<EOT\n\"kept\" = %{1}\nEOT\n}\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({
                "node_meta": {"rack-id": "r1"},
                "service": {"name": "n ${x}", "notes": "\"kept\" = %{1}\n"},
            })
        );
    }

    #[test]
    fn what_nothing_could_give_a_meaning_to_is_refused_by_name() {
        for (text, error) in [
            ("a { b = c }", "a.b: only texts"),
            ("a = 1 + 2", "a: only texts"),
            ("a { b = x.y }", "a.b: only texts"),
            ("a = 1\na { b = 2 }", "a is given twice"),
            ("b = 1\n a = 1\n  a = 2", "not HCL: line 3, column 3: "),
            ("a = ", "not HCL: line 1, column 1: unexpected token"),
        ] {
            let wrong = parse(text).unwrap_err();
            assert!(wrong.starts_with(error), "{text}: {wrong}");
        }
    }
}

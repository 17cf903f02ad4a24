//! Does an expression fit its rows, and what exactly is to be looked at?
//!
//! Selectors become paths of steps, values become values of the field's type, and regular
//! expressions are compiled: once for a request, not once for a row.

use regex::{Regex, RegexBuilder};

use super::{
    FILTER_REGEX_BYTES_MAX, FILTER_REGEX_NESTING_MAX, FILTER_REGEXES_MAX, FilterError,
    parser::{Expression, Match, Operator},
    shape::{Kind, Shape},
};

/// An expression, ready for rows.
#[derive(Debug)]
pub(super) enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

/// One look at one field.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) path: Vec<Step>,
    pub(super) check: Check,
    pub(super) negated: bool,
}

/// One part of the way to a field.
#[derive(Debug)]
pub(super) enum Step {
    /// A field of a struct.
    Field(&'static str),
    /// A key of a map.
    Key(String),
    /// Each struct of a list.
    Each,
}

/// What is asked of the field.
#[derive(Debug)]
pub(super) enum Check {
    TextIs(String),
    NumberIs(i64),
    BoolIs(bool),
    /// A part of a string.
    TextHas(String),
    /// An item of a list of strings.
    ListHas(String),
    /// A key of a map.
    MapHas(String),
    Matches(Regex),
    /// A list or a map without anything.
    Empty,
}

/// Fits an expression to rows of `shape`.
pub(super) fn bind(expression: Expression, shape: &Shape) -> Result<Node, FilterError> {
    Binder { shape, regexes: 0 }.node(expression)
}

struct Binder<'a> {
    shape: &'a Shape,
    /// Compiled so far.
    regexes: usize,
}

impl Binder<'_> {
    fn node(&mut self, expression: Expression) -> Result<Node, FilterError> {
        Ok(match expression {
            Expression::Or(parts) => Node::Or(self.nodes(parts)?),
            Expression::And(parts) => Node::And(self.nodes(parts)?),
            Expression::Not(inner) => Node::Not(Box::new(self.node(*inner)?)),
            Expression::Match(found) => Node::Test(self.test(found)?),
        })
    }

    fn nodes(&mut self, parts: Vec<Expression>) -> Result<Vec<Node>, FilterError> {
        parts.into_iter().map(|part| self.node(part)).collect()
    }

    fn test(&mut self, found: Match) -> Result<Test, FilterError> {
        let (path, kind) = path(self.shape, &found.selector)?;
        Ok(Test {
            path,
            check: self.check(&found, kind)?,
            negated: found.negated,
        })
    }

    fn check(&mut self, found: &Match, kind: Kind) -> Result<Check, FilterError> {
        Ok(match (&found.operator, kind) {
            (Operator::Equal(value), Kind::Text) => Check::TextIs(value.clone()),
            (Operator::Equal(value), Kind::Number) => {
                Check::NumberIs(go_int(value).map_err(|why| not_a(value, found, why))?)
            }
            (Operator::Equal(value), Kind::Bool) => {
                Check::BoolIs(go_bool(value).map_err(|why| not_a(value, found, why))?)
            }
            (Operator::In(value), Kind::Text) => Check::TextHas(value.clone()),
            (Operator::In(value), Kind::Texts) => Check::ListHas(value.clone()),
            (Operator::In(value), Kind::Map(_)) => Check::MapHas(value.clone()),
            (Operator::Matches(value), Kind::Text) => Check::Matches(self.regex(value)?),
            (Operator::Empty, Kind::Texts | Kind::Map(_) | Kind::List(_)) => Check::Empty,
            (operator, _) => {
                return Err(FilterError::Operator {
                    operator: name(operator, found.negated),
                    selector: found.selector.join("."),
                });
            }
        })
    }

    fn regex(&mut self, text: &str) -> Result<Regex, FilterError> {
        self.regexes += 1;
        if self.regexes > FILTER_REGEXES_MAX {
            return Err(FilterError::TooManyRegexes);
        }
        let compiled = RegexBuilder::new(text)
            .size_limit(FILTER_REGEX_BYTES_MAX)
            .dfa_size_limit(FILTER_REGEX_BYTES_MAX)
            .nest_limit(FILTER_REGEX_NESTING_MAX)
            .build();
        compiled.map_err(|error| FilterError::Regex {
            regex: text.to_owned(),
            why: match &error {
                regex::Error::CompiledTooBig(_) => {
                    format!("compiled it takes more than {FILTER_REGEX_BYTES_MAX} bytes")
                }
                // The crate draws the place into several lines; the last says what it is.
                other => {
                    let text = other.to_string();
                    let last = text.lines().last().unwrap_or_default();
                    last.trim_start_matches("error: ").to_owned()
                }
            },
        })
    }
}

/// The way that a selector goes, and what is at its end.
fn path(shape: &Shape, selector: &[String]) -> Result<(Vec<Step>, Kind), FilterError> {
    let mut steps = Vec::with_capacity(selector.len());
    let mut at: Option<Kind> = None;
    for (depth, part) in selector.iter().enumerate() {
        let unknown = || FilterError::Selector {
            selector: selector[..=depth].join("."),
        };
        let fields = match at {
            None => shape,
            Some(Kind::Struct(inner)) => inner,
            Some(Kind::List(inner)) => {
                steps.push(Step::Each);
                inner
            }
            Some(Kind::Map(kind)) => {
                steps.push(Step::Key(part.clone()));
                at = Some(*kind);
                continue;
            }
            Some(Kind::Text | Kind::Number | Kind::Bool | Kind::Texts) => return Err(unknown()),
        };
        let field = fields.field(part).ok_or_else(unknown)?;
        steps.push(Step::Field(field.name));
        at = Some(field.kind);
    }
    Ok((steps, at.expect("a selector has at least one part")))
}

fn not_a(value: &str, found: &Match, why: String) -> FilterError {
    FilterError::Value {
        value: value.to_owned(),
        selector: found.selector.join("."),
        why,
    }
}

/// go-bexpr's names.
fn name(operator: &Operator, negated: bool) -> &'static str {
    match (operator, negated) {
        (Operator::Equal(_), false) => "Equal",
        (Operator::Equal(_), true) => "Not Equal",
        (Operator::In(_), false) => "In",
        (Operator::In(_), true) => "Not In",
        (Operator::Matches(_), false) => "Matches",
        (Operator::Matches(_), true) => "Not Matches",
        (Operator::Empty, false) => "Is Empty",
        (Operator::Empty, true) => "Is Not Empty",
    }
}

/// Go's `strconv.ParseInt(text, 0, 64)` but for underscores: a sign, a prefix for the base, digits.
fn go_int(text: &str) -> Result<i64, String> {
    let error = |why: &str| Err(format!("strconv.ParseInt: parsing {text:?}: {why}"));
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = unsigned.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some(two) if two.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return error("invalid syntax");
    }
    // The sign belongs to the digits: the least number has no positive twin.
    let signed = format!("{}{digits}", if negative { "-" } else { "" });
    i64::from_str_radix(&signed, radix).or_else(|_| error("value out of range"))
}

/// Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

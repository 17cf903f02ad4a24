//! How do the words of an expression hang together?
//!
//! Chains of `and` and of `or` are lists and runs of `not` are counted, so that only parentheses
//! nest, and what nests is bounded. Nothing is known here about the rows.

use super::{
    FILTER_NESTING_MAX, FilterError,
    lexer::{Lexer, Token},
};

/// An expression as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Holds if one of them does; at least two.
    Or(Vec<Expression>),
    /// Holds if each of them does; at least two.
    And(Vec<Expression>),
    Not(Box<Expression>),
    Match(Match),
}

/// One look at one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) selector: Vec<String>,
    pub(super) operator: Operator,
    /// `!=`, `not in`, `is not empty`, …
    pub(super) negated: bool,
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal(String),
    /// `in` and `contains` are one.
    In(String),
    Matches(String),
    Empty,
}

/// The expression that `text` is.
pub(super) fn parse(text: &str) -> Result<Expression, FilterError> {
    let mut lexer = Lexer::new(text)?;
    let expression = any_of(&mut lexer, 0)?;
    match lexer.peek() {
        Token::End => Ok(expression),
        _ => Err(lexer.expected("\"and\", \"or\" or the end")),
    }
}

fn any_of(lexer: &mut Lexer<'_>, depth: usize) -> Result<Expression, FilterError> {
    let mut terms = vec![all_of(lexer, depth)?];
    while lexer.take_keyword("or")? {
        terms.push(all_of(lexer, depth)?);
    }
    Ok(one_or(terms, Expression::Or))
}

fn all_of(lexer: &mut Lexer<'_>, depth: usize) -> Result<Expression, FilterError> {
    let mut factors = vec![factor(lexer, depth)?];
    while lexer.take_keyword("and")? {
        factors.push(factor(lexer, depth)?);
    }
    Ok(one_or(factors, Expression::And))
}

/// The only one, or the list of them.
fn one_or(mut parts: Vec<Expression>, list: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.len() {
        1 => parts.remove(0),
        _ => list(parts),
    }
}

fn factor(lexer: &mut Lexer<'_>, depth: usize) -> Result<Expression, FilterError> {
    let mut negated = false;
    while lexer.take_keyword("not")? {
        negated = !negated;
    }
    let inner = match lexer.peek() {
        Token::Open => parenthesised(lexer, depth + 1)?,
        _ => Expression::Match(one_match(lexer)?),
    };
    Ok(match negated {
        true => Expression::Not(Box::new(inner)),
        false => inner,
    })
}

fn parenthesised(lexer: &mut Lexer<'_>, depth: usize) -> Result<Expression, FilterError> {
    if depth > FILTER_NESTING_MAX {
        return Err(FilterError::TooDeep {
            at: lexer.position(),
        });
    }
    lexer.take()?;
    let inner = any_of(lexer, depth)?;
    match lexer.peek() {
        Token::Close => lexer.take().map(|_| inner),
        _ => Err(lexer.expected("\"and\", \"or\" or a closing parenthesis")),
    }
}

fn one_match(lexer: &mut Lexer<'_>) -> Result<Match, FilterError> {
    match lexer.peek() {
        Token::Word(_) | Token::Number(_) | Token::Text(_) => {}
        _ => return Err(lexer.expected("a selector or a value")),
    }
    match lexer.take()? {
        Token::Word(parts) => selector_first(lexer, parts),
        Token::Number(value) | Token::Text(value) => {
            let negated = lexer.take_keyword("not")?;
            if !lexer.peek().is_keyword("in") {
                return Err(lexer.expected("\"in\" or \"not in\" after a value"));
            }
            in_selector(lexer, value, negated)
        }
        _ => unreachable!("looked at just before"),
    }
}

/// A match that begins with a word: a selector, or a bare value before `in`.
fn selector_first(lexer: &mut Lexer<'_>, selector: Vec<String>) -> Result<Match, FilterError> {
    let equality = match lexer.peek() {
        Token::Equal => Some(false),
        Token::NotEqual => Some(true),
        _ => None,
    };
    if let Some(negated) = equality {
        lexer.take()?;
        let operator = Operator::Equal(value(lexer)?);
        return Ok(Match {
            selector,
            operator,
            negated,
        });
    }
    if lexer.take_keyword("is")? {
        let negated = lexer.take_keyword("not")?;
        if !lexer.take_keyword("empty")? {
            return Err(lexer.expected("\"empty\" or \"not empty\" after \"is\""));
        }
        return Ok(Match {
            selector,
            operator: Operator::Empty,
            negated,
        });
    }
    let negated = lexer.take_keyword("not")?;
    if lexer.peek().is_keyword("in") {
        return in_selector(lexer, selector.join("."), negated);
    }
    let operator = if lexer.take_keyword("contains")? {
        Operator::In(value(lexer)?)
    } else if lexer.take_keyword("matches")? {
        Operator::Matches(value(lexer)?)
    } else {
        let all = "an operator (==, !=, [not] in, [not] contains, [not] matches, is [not] empty)";
        return Err(lexer.expected(all));
    };
    Ok(Match {
        selector,
        operator,
        negated,
    })
}

/// From the keyword `in` on.
fn in_selector(lexer: &mut Lexer<'_>, value: String, negated: bool) -> Result<Match, FilterError> {
    lexer.take()?;
    if !matches!(lexer.peek(), Token::Word(_)) {
        return Err(lexer.expected("a selector after \"in\""));
    }
    let Token::Word(selector) = lexer.take()? else {
        unreachable!("looked at just before")
    };
    Ok(Match {
        selector,
        operator: Operator::In(value),
        negated,
    })
}

fn value(lexer: &mut Lexer<'_>) -> Result<String, FilterError> {
    if !matches!(
        lexer.peek(),
        Token::Word(_) | Token::Number(_) | Token::Text(_)
    ) {
        return Err(lexer.expected("a value"));
    }
    Ok(match lexer.take()? {
        Token::Word(parts) => parts.join("."),
        Token::Number(text) | Token::Text(text) => text,
        _ => unreachable!("looked at just before"),
    })
}

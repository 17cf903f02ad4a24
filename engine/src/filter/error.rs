//! What is wrong with an expression, and where?
//!
//! Consul's clients see these texts with status 500; the beginning and the texts about selectors,
//! operators and values are go-bexpr's. Its syntax errors list every token that would have been
//! possible at some place; ours say what was expected, in its format of positions.

use std::fmt;

use super::{FILTER_BYTES_MAX, FILTER_NESTING_MAX, FILTER_REGEXES_MAX};

/// A place in an expression, printed as go-bexpr does: `line:column (offset)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column, characters from 1.
    pub column: usize,
    /// Bytes before it.
    pub offset: usize,
}

impl Position {
    /// The place `offset` bytes into `text`.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: 1 + before.matches('\n').count(),
            column: 1 + before[line_start..].chars().count(),
            offset,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ({})", self.line, self.column, self.offset)
    }
}

/// How each text begins.
const BEGINNING: &str = "Failed to create boolean expression evaluator:";

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not an expression.
    #[error("{} {at}: {what}", BEGINNING)]
    Syntax {
        /// Where.
        at: Position,
        /// What was expected, or what is wrong there.
        what: String,
    },
    /// Rows have no such field.
    #[error("{} Selector {selector:?} is not valid", BEGINNING)]
    Selector {
        /// The selector up to the part that is unknown.
        selector: String,
    },
    /// The field's type does not have this operator.
    #[error(
        "{} Invalid match operator {operator:?} for selector {selector:?}",
        BEGINNING
    )]
    Operator {
        /// go-bexpr's name of the operator.
        operator: &'static str,
        /// The field.
        selector: String,
    },
    /// The field's type does not have this value.
    #[error(
        "{} Failed to coerce value {value:?} for selector {selector:?}: {why}",
        BEGINNING
    )]
    Value {
        /// The value as it stands in the expression.
        value: String,
        /// The field.
        selector: String,
        /// Go's words.
        why: String,
    },
    /// Not a regular expression, or too large a one.
    #[error("{} Failed to compile regular expression {regex:?}: {why}", BEGINNING)]
    Regex {
        /// The regular expression.
        regex: String,
        /// What is wrong with it.
        why: String,
    },
    /// Longer than [`FILTER_BYTES_MAX`].
    #[error(
        "{} it has {bytes} bytes, and {} are the most",
        BEGINNING,
        FILTER_BYTES_MAX
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More than [`FILTER_NESTING_MAX`] parentheses open.
    #[error(
        "{} {at}: more than {} parentheses are open",
        BEGINNING,
        FILTER_NESTING_MAX
    )]
    TooDeep {
        /// The one too many.
        at: Position,
    },
    /// More than [`FILTER_REGEXES_MAX`] regular expressions.
    #[error("{} more than {} regular expressions", BEGINNING, FILTER_REGEXES_MAX)]
    TooManyRegexes,
}

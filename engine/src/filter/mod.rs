//! Which rows does a `filter` expression let through?
//!
//! Listings of the catalog, of health and of the agent take an expression in the language of
//! Consul's go-bexpr (0.1.2, which Consul has used since 1.5):
//!
//! ```text
//! Service.Tags contains "v2" and not (Node.Meta.rack == "7" or Checks.Status != passing)
//!
//! expression  = term { "or" term }                 term = factor { "and" factor }
//! factor      = { "not" } ( "(" expression ")" | match )
//! match       = selector ( "==" | "!=" ) value
//!             | selector [ "not" ] ( "contains" | "matches" ) value
//!             | selector "is" [ "not" ] "empty"
//!             | value [ "not" ] "in" selector
//! selector    = name { "." name | "[" string "]" }
//! value       = string | number | selector         string = "…" with Go's escapes | `…` as it is
//! ```
//!
//! What it means is decided by the [`Shape`] of the rows, not by what a row happens to hold: Consul
//! leaves empty fields out of its JSON, and a field that is left out has its type's empty value.
//! Operators that a field's type does not have, and values that it cannot take, are errors before
//! the first row is looked at. A selector that goes through a list of structs holds if it holds for
//! any of them, also when negated. A key that a map does not have equals nothing, holds nothing,
//! matches nothing and is empty. (Consul 1.21 lets `matches` hold for such a key, by oversight;
//! go-bexpr has mended that since, and so do we.)
//!
//! Two more things are kinder than Consul's: blanks are needed only where words would run together,
//! and `\"` may stand in a string. Regular expressions are those of the `regex` crate: RE2's but for
//! `\Q…\E` and `\C`, and `\w`, `\d`, `\s` and `\b` know Unicode.
//!
//! Invariant: a filter costs what its text allows, and that is bounded: its length, its nesting
//! (nothing here recurses deeper), the number and the size of its regular expressions, which the
//! crate runs in time linear in the row.

mod bind;
mod error;
mod evaluate;
mod lexer;
mod parser;
mod shape;
pub mod shapes;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use error::{FilterError, Position};
pub use shape::{Field, Kind, Shape};

/// Longest expression, bytes.
pub const FILTER_BYTES_MAX: usize = 16 * 1024;
/// Most parentheses that are open at one place of an expression.
pub const FILTER_NESTING_MAX: usize = 64;
/// Most regular expressions in one expression.
pub const FILTER_REGEXES_MAX: usize = 16;
/// Size of one compiled regular expression, bytes; its cache may grow as large again.
pub const FILTER_REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting inside one regular expression.
pub const FILTER_REGEX_NESTING_MAX: u32 = 64;

/// An expression that was understood and fits the rows it is for.
#[derive(Debug, Default)]
pub struct Filter {
    /// `None` lets everything through: the empty expression.
    root: Option<bind::Node>,
}

impl Filter {
    /// Understands `text` for rows of `shape`. The empty text lets every row through, as in Consul.
    ///
    /// # Errors
    /// Says what is wrong, and where; the text begins as Consul's.
    pub fn parse(text: &str, shape: &Shape) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self { root: None });
        }
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError::TooLong { bytes: text.len() });
        }
        let parsed = parser::parse(text)?;
        let root = bind::bind(parsed, shape)?;
        Ok(Self { root: Some(root) })
    }

    /// Whether a row, as Consul's JSON spells it, passes.
    pub fn matches(&self, row: &Value) -> bool {
        self.root.as_ref().is_none_or(|root| root.holds(row))
    }

    /// Whether it lets everything through without a look, so that no row need be built for it.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }
}

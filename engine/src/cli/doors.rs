//! What may a fuzzer reach of the command line? Only with the feature `fuzzing`.

use super::config;

/// Reads the text of a configuration file and checks it, as `curia validate` does; the warnings, or
/// all that is wrong.
///
/// # Errors
/// Every mistake, each a sentence.
pub fn configuration(text: &str, hcl: bool) -> Result<Vec<String>, Vec<String>> {
    config::of_text(text, hcl).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// The tree of a document in HCL.
///
/// # Errors
/// Place and reason.
pub fn hcl(text: &str) -> Result<serde_json::Value, String> {
    config::parse_hcl(text)
}

//! How do commands print? Columns, JSON and lines as Consul's command line prints them.
//!
//! A reader that has seen enough (`curia … | head`) ends the output, not the command.

use std::io::{self, Write};

use clap::Args;

use super::CliError;

/// In which form a command prints what it was asked for.
#[derive(Args, Debug, Default)]
pub(super) struct Format {
    /// How to print: pretty or json
    #[arg(long = "format", value_name = "FORMAT", default_value = "pretty")]
    format: String,
}

impl Format {
    /// Whether it is JSON.
    pub(super) fn json(&self) -> Result<bool, CliError> {
        match &*self.format {
            "json" => Ok(true),
            "pretty" => Ok(false),
            other => Err(CliError(format!(
                "Unknown format: {other}; there are pretty and json"
            ))),
        }
    }
}

/// Writes to standard output.
pub(super) fn write_out(out: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(out).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|error| CliError(format!("Error! cannot write the output: {error}")))
        }
    }
}

/// Writes one line, or several, to standard output.
pub(super) fn say(text: impl AsRef<str>) -> Result<(), CliError> {
    let text = text.as_ref();
    write_out(format!("{text}\n").as_bytes())
}

/// Cells in columns, two spaces apart; the first row is the heading. An empty cell shows nothing.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `key=value` pairs, as Consul's columns show them.
pub(super) fn pairs<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let pairs: Vec<String> = map
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// A JSON document without the white space between its parts.
pub(super) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut inside = Inside::default();
    out.extend(
        json.chars()
            .filter(|char| inside.string(*char) || !char.is_ascii_whitespace()),
    );
    out
}

/// A JSON document indented as Go's `json.MarshalIndent` does; names stay in their order, which a
/// map of `serde_json` would not keep.
pub(super) fn indented(json: &str, unit: &str) -> String {
    let json = compact(json);
    let mut out = String::with_capacity(json.len() * 2);
    let mut inside = Inside::default();
    let mut depth = 0;
    let mut chars = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(unit, depth));
    };
    while let Some(char) = chars.next() {
        if inside.string(char) {
            out.push(char);
            continue;
        }
        match char {
            '{' | '[' => {
                out.push(char);
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(char);
            }
            ',' => {
                out.push(char);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(char),
        }
    }
    out
}

/// Whether a character of a document belongs to a string, quotes included.
#[derive(Default)]
struct Inside {
    string: bool,
    escaped: bool,
}

impl Inside {
    fn string(&mut self, char: char) -> bool {
        let was = self.string;
        match char {
            _ if self.escaped => self.escaped = false,
            '\\' if self.string => self.escaped = true,
            '"' => self.string = !self.string,
            _ => {}
        }
        was || self.string
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn documents() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\u{e9}\n\\\\\"]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn indenting_is_serdes_and_compacting_takes_it_back(document in documents()) {
            let flat = document.to_string();
            let mut expected = Vec::new();
            let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
            let mut serializer = serde_json::Serializer::with_formatter(&mut expected, format);
            serde::Serialize::serialize(&document, &mut serializer).unwrap();
            prop_assert_eq!(indented(&flat, "\t").into_bytes(), expected);
            prop_assert_eq!(compact(&indented(&flat, "  ")), flat);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
        assert_eq!(
            columns(&[row(["A", "Longer", "C"]), row(["wide", "", "x"])]),
            "A     Longer  C\nwide          x\n"
        );
    }
}

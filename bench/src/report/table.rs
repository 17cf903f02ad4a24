//! How does a table read well both in a terminal and in a Markdown file?
//!
//! Markdown's own form with padded cells is both.

/// A titled table of text cells.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Line above the table.
    pub title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|c| c.to_string()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with one cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Removes columns in which every cell says "not measured".
    pub fn drop_empty_columns(&mut self) {
        for column in (0..self.columns.len()).rev() {
            if self
                .rows
                .iter()
                .all(|row| row[column] == DASH || row[column].is_empty())
            {
                self.columns.remove(column);
                for row in &mut self.rows {
                    row.remove(column);
                }
            }
        }
    }

    /// Markdown with aligned columns: numbers to the right, a last text column to the left.
    pub fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells
                .max()
                .unwrap_or(0)
                .max(self.columns[column].chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:>width$}"))
                .collect();
            format!("| {} |\n", padded.join(" | "))
        };
        let rule: Vec<String> = widths
            .iter()
            .map(|w| format!("{}:", "-".repeat(w + 1)))
            .collect();
        let mut out = String::new();
        if !self.title.is_empty() {
            out += &format!("**{}**\n\n", self.title);
        }
        out += &line(&self.columns);
        out += &format!("|{}|\n", rule.join("|"));
        for row in &self.rows {
            out += &line(row);
        }
        out
    }
}

/// Cell of what was not measured.
pub const DASH: &str = "–";

/// Milliseconds from nanoseconds, three significant digits.
pub fn ms(ns: u64) -> String {
    number(ns as f64 / 1e6)
}

/// A number with three significant digits, grouped by thousands from 1,000 up.
pub fn number(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        a if a < 0.001 => format!("{x:.5}"),
        a if a < 0.1 => format!("{x:.4}"),
        a if a < 1.0 => format!("{x:.3}"),
        a if a < 10.0 => format!("{x:.2}"),
        a if a < 1000.0 => format!("{x:.1}"),
        _ => group(x.round() as i64),
    }
}

/// [`number`], or a dash.
pub fn optional(x: Option<f64>) -> String {
    x.map_or_else(|| DASH.into(), number)
}

fn group(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if n < 0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_markdown() {
        let mut table = Table::new("T", &["a", "commits/s", "empty"]);
        table.row(vec!["1".into(), number(123456.0), DASH.into()]);
        table.row(vec!["10".into(), number(0.5), DASH.into()]);
        table.drop_empty_columns();
        assert_eq!(
            table.render(),
            "**T**\n\n|  a | commits/s |\n|---:|----------:|\n|  1 |   123,456 |\n| 10 |     0.500 |\n"
        );
    }

    #[test]
    fn numbers_keep_three_digits_that_matter() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.00015), "0.00015");
        assert_eq!(number(0.0133), "0.0133");
        assert_eq!(number(0.214), "0.214");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(1_000_000.0), "1,000,000");
        assert_eq!(number(-1234.0), "-1,234");
        assert_eq!(ms(214_000), "0.214");
        assert_eq!(optional(None), DASH);
    }
}

//! How is a history kept, so that it can be judged again?
//!
//! JSON lines, to be read with any tool: the first line names the format, each further one is an
//! operation as `serde` writes [`Operation`].
//!
//! ```text
//! {"format":"curia-history","version":1,"operations":1}
//! {"client":3,"call":{"Get":{"key":"a"}},"called_ns":17,"answer":[29,{"Row":[null,4]}]}
//! ```
//!
//! Invariant: what is read is what was written (`files_read_back_as_they_were`), and a file that
//! is cut short or of another version is an error, never a shorter history.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{History, Operation};
use crate::{Context, Error, Result};

const FORMAT: &str = "curia-history";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    operations: usize,
}

/// Writes a history.
pub fn write(history: &History, path: &Path) -> Result<()> {
    let what = || format!("write the history {}", path.display());
    let mut out = BufWriter::new(File::create(path).context(what)?);
    let head = Head {
        format: FORMAT.into(),
        version: VERSION,
        operations: history.operations.len(),
    };
    let mut line = |text: String| writeln!(out, "{text}").context(what);
    line(to_json(&head))?;
    for operation in &history.operations {
        line(to_json(operation))?;
    }
    out.flush().context(what)
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data has a JSON form")
}

/// Reads one.
///
/// # Errors
///
/// [`Error::Usage`] names the line that is not of this format.
pub fn read(path: &Path) -> Result<History> {
    let what = || format!("read the history {}", path.display());
    let wrong =
        |line: usize, why: String| Error::Usage(format!("{}, line {line}: {why}", path.display()));
    let mut lines = BufReader::new(File::open(path).context(what)?).lines();
    let first = lines.next().transpose().context(what)?.unwrap_or_default();
    let head: Head = serde_json::from_str(&first).map_err(|e| wrong(1, e.to_string()))?;
    if (head.format.as_str(), head.version) != (FORMAT, VERSION) {
        let why = format!(
            "this is {:?} version {}; {FORMAT} version {VERSION} can be read",
            head.format, head.version
        );
        return Err(wrong(1, why));
    }
    let mut history = History::default();
    for (at, line) in lines.enumerate() {
        let line = line.context(what)?;
        let operation: Operation =
            serde_json::from_str(&line).map_err(|e| wrong(at + 2, e.to_string()))?;
        history.operations.push(operation);
    }
    if history.operations.len() != head.operations {
        let why = format!(
            "{} operations are announced, {} are there: the file is cut short",
            head.operations,
            history.operations.len()
        );
        return Err(wrong(1, why));
    }
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Call, Row, Step};
    use super::*;

    fn sample() -> History {
        let row = Row {
            value: "v\n\"".into(),
            create_index: 3,
            modify_index: 4,
            lock_index: 1,
            session: "s".into(),
        };
        let operation = |call, answer| Operation {
            client: 1,
            call,
            called_ns: 17,
            answer,
        };
        let acquire = Step::Acquire {
            key: "a".into(),
            value: "v".into(),
            session: "s".into(),
        };
        History {
            operations: vec![
                operation(
                    Call::Get { key: "a".into() },
                    Some((29, Answer::Row(Some(row), 4))),
                ),
                operation(Call::Step(acquire), None),
                operation(
                    Call::Txn(vec![Step::Delete { key: "a".into() }]),
                    Some((30, Answer::RolledBack { failed: vec![0] })),
                ),
            ],
        }
    }

    #[test]
    fn files_read_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        write(&sample(), &path).unwrap();
        assert_eq!(read(&path).unwrap(), sample());
        // The form is fixed: files of last year are judged again.
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.lines().nth(2).unwrap(),
            r#"{"client":1,"call":{"Step":{"Acquire":{"key":"a","value":"v","session":"s"}}},"called_ns":17,"answer":null}"#
        );
    }

    #[test]
    fn a_file_that_is_cut_short_is_no_history() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        write(&sample(), &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        std::fs::write(&path, lines[..3].join("\n")).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("cut short"));
        std::fs::write(&path, text.replace("\"version\":1", "\"version\":9")).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("version 9"));
    }
}

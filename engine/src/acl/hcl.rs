//! How is HCL 1 read?
//!
//! Policies are texts that people have stored for years, and that come back from archives: they
//! must mean here what they mean to Consul, which reads HCL 1. The well-kept parser (`hcl-rs`) is
//! one of HCL 2, a stricter language: it refuses two blocks on a line, as every shell one-liner
//! has them, two attributes in a block on one line, commas between them, and `${…}` in a name.
//! Rules need so little of HCL 1 that it is read here:
//!
//! ```text
//! items   = { item [","] }
//! item    = key { key } block | key "=" value
//! key     = identifier | string
//! block   = "{" items "}"
//! value   = string | block | list | number | "true" | "false"
//! list    = "[" { value [","] } "]"
//! comment = "#" … | "//" … | "/*" … "*/"
//! ```
//!
//! Heredocs are not read: no word of a rule is one. Inside `${…}` of a string quotes do not end
//! the string, as in HCL 1; the text is kept as it is.

use super::syntax::Node;

/// Blocks and lists inside each other. A rule needs two.
const NESTING_MAX: usize = 16;

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Vec<(String, Node)>, String> {
    let mut reader = Reader {
        text,
        at: 0,
        nesting: 0,
    };
    let items = reader.items()?;
    match reader.peek()? {
        None => Ok(items),
        Some(_) => Err(reader.wrong("a name is needed")),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// Offset of the next byte, always between two characters.
    at: usize,
    nesting: usize,
}

impl Reader<'_> {
    fn items(&mut self) -> Result<Vec<(String, Node)>, String> {
        let mut items = Vec::new();
        while let Some(key) = self.key()? {
            let value = match self.take(b'=')? {
                true => self.value()?,
                false => self.labelled()?,
            };
            self.take(b',')?;
            items.push((key, value));
        }
        Ok(items)
    }

    /// A block behind further keys, each of which holds the rest.
    fn labelled(&mut self) -> Result<Node, String> {
        let mut labels = Vec::new();
        while let Some(label) = self.key()? {
            labels.push(label);
            if self.nesting + labels.len() > NESTING_MAX {
                return Err(self.wrong("nested too deeply"));
            }
        }
        if !self.take(b'{')? {
            return Err(self.wrong("\"=\" or \"{\" is needed"));
        }
        let block = self.block()?;
        let hold = |inner, label| Node::Object(vec![(label, inner)]);
        Ok(labels.into_iter().rev().fold(block, hold))
    }

    /// A block whose brace was taken.
    fn block(&mut self) -> Result<Node, String> {
        self.deeper()?;
        let items = self.items()?;
        if !self.take(b'}')? {
            return Err(self.wrong("a name or \"}\" is needed"));
        }
        self.nesting -= 1;
        Ok(Node::Object(items))
    }

    fn list(&mut self) -> Result<Node, String> {
        self.deeper()?;
        let mut list = Vec::new();
        while !self.take(b']')? {
            list.push(self.value()?);
            self.take(b',')?;
        }
        self.nesting -= 1;
        Ok(Node::List(list))
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.nesting += 1;
        match self.nesting > NESTING_MAX {
            true => Err(self.wrong("nested too deeply")),
            false => Ok(()),
        }
    }

    fn value(&mut self) -> Result<Node, String> {
        match self.peek()? {
            Some(b'"') => Ok(Node::Text(self.string()?)),
            Some(b'{') => {
                self.at += 1;
                self.block()
            }
            Some(b'[') => {
                self.at += 1;
                self.list()
            }
            Some(b'-' | b'0'..=b'9') => {
                self.word(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.'));
                Ok(Node::Other("a number"))
            }
            _ => match self.key()?.as_deref() {
                Some("true" | "false") => Ok(Node::Other("a truth value")),
                Some(word) => Err(self.wrong(&format!("a value is needed before {word:?} ends"))),
                None => Err(self.wrong("a value is needed")),
            },
        }
    }

    fn key(&mut self) -> Result<Option<String>, String> {
        match self.peek()? {
            Some(b'"') => self.string().map(Some),
            Some(b) if b.is_ascii_alphabetic() || b == b'_' => {
                let word =
                    self.word(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
                Ok(Some(word))
            }
            _ => Ok(None),
        }
    }

    fn word(&mut self, belongs: impl Fn(u8) -> bool) -> String {
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().take_while(|b| belongs(**b)).count();
        let word = &self.text[self.at..self.at + length];
        self.at += length;
        word.to_owned()
    }

    fn string(&mut self) -> Result<String, String> {
        let opened = self.at;
        self.at += 1;
        let mut out = String::new();
        let mut braces = 0_usize;
        let unended = |reader: &mut Self| {
            reader.at = opened;
            Err(reader.wrong("this text is not ended on its line"))
        };
        while let Some(next) = self.text[self.at..].chars().next() {
            self.at += next.len_utf8();
            match next {
                '"' if braces == 0 => return Ok(out),
                '\n' if braces == 0 => return unended(self),
                '\\' if braces == 0 => {
                    let escaped = self.escaped()?;
                    out.push(escaped);
                    continue;
                }
                '{' if braces > 0 || out.ends_with('$') => braces += 1,
                '}' if braces > 0 => braces -= 1,
                _ => {}
            }
            out.push(next);
        }
        unended(self)
    }

    /// What stands behind a backslash.
    fn escaped(&mut self) -> Result<char, String> {
        let next = self.text[self.at..].chars().next();
        let next = next.ok_or_else(|| self.wrong("an escape is not ended"))?;
        self.at += next.len_utf8();
        let digits = match next {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            '"' | '\\' => return Ok(next),
            'u' => 4,
            'U' => 8,
            _ => return Err(self.wrong("no such escape")),
        };
        let number = self.text.get(self.at..self.at + digits);
        let number = number.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = number.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += number.map_or(0, |_| digits);
        number
            .and_then(char::from_u32)
            .ok_or_else(|| self.wrong("no such character"))
    }

    /// Takes the sign if it comes next.
    fn take(&mut self, sign: u8) -> Result<bool, String> {
        let comes = self.peek()? == Some(sign);
        self.at += usize::from(comes);
        Ok(comes)
    }

    /// The first byte of what comes next, behind blanks and comments.
    fn peek(&mut self) -> Result<Option<u8>, String> {
        loop {
            let rest = &self.text[self.at..];
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            let rest = &rest[blank..];
            if rest.starts_with('#') || rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                match comment.find("*/") {
                    Some(end) => self.at += 2 + end + 2,
                    None => return Err(self.wrong("this comment is not ended")),
                }
            } else {
                return Ok(rest.bytes().next());
            }
        }
    }

    fn wrong(&self, why: &str) -> String {
        let before = &self.text[..self.at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("line {line}, column {column}: {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: Node) -> Vec<(String, Node)> {
        vec![("a".into(), value)]
    }

    fn text(text: &str) -> Node {
        Node::Text(text.into())
    }

    #[test]
    fn what_hcl_1_allows_is_read() {
        for (source, node) in [
            ("a = \"b\"", text("b")),
            ("\"a\" = \"b\",", text("b")),
            (
                r#"a="\"\\\n\u00e9\U0001F600""#,
                text("\"\\\n\u{e9}\u{1F600}"),
            ),
            ("a = \"${x[\"y\"]}\"", text("${x[\"y\"]}")),
            ("a = -1.5e+3", Node::Other("a number")),
            ("a = true // yes", Node::Other("a truth value")),
            ("a = [\"b\" \"c\",]", Node::List(vec![text("b"), text("c")])),
            ("a { }", Node::Object(vec![])),
            ("a = { }", Node::Object(vec![])),
            (
                "a \"b\" { c = \"d\" c=\"e\", }",
                Node::Object(vec![(
                    "b".into(),
                    Node::Object(vec![("c".into(), text("d")), ("c".into(), text("e"))]),
                )]),
            ),
        ] {
            assert_eq!(parse(source), Ok(one(node)), "{source}");
        }
        let two = parse("a { } /* and */ a = \"b\" # end").unwrap();
        assert_eq!(two.len(), 2);
    }

    #[test]
    fn what_is_wrong_has_its_line_and_column() {
        for (source, why) in [
            ("a", "line 1, column 2: \"=\" or \"{\" is needed"),
            (
                "a \"b\" = \"c\"",
                "line 1, column 7: \"=\" or \"{\" is needed",
            ),
            (
                "a {\n b = \"c\"\n",
                "line 3, column 1: a name or \"}\" is needed",
            ),
            (
                "a = \"b\n\"",
                "line 1, column 5: this text is not ended on its line",
            ),
            (
                "a = \"b",
                "line 1, column 5: this text is not ended on its line",
            ),
            ("a = \"\\x\"", "line 1, column 8: no such escape"),
            ("a = \"\\ud800\"", "line 1, column 12: no such character"),
            ("a = \"\\u00\"", "line 1, column 8: no such character"),
            ("a = ", "line 1, column 5: a value is needed"),
            (
                "a = b",
                "line 1, column 6: a value is needed before \"b\" ends",
            ),
            ("a = <<E\nE", "line 1, column 5: a value is needed"),
            ("é = 1", "line 1, column 1: a name is needed"),
            ("a {} }", "line 1, column 6: a name is needed"),
            ("/* a", "line 1, column 1: this comment is not ended"),
        ] {
            assert_eq!(parse(source), Err(why.into()), "{source}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| format!("a = {}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(NESTING_MAX)).is_ok());
        let error = parse(&nested(NESTING_MAX + 1)).unwrap_err();
        assert!(error.ends_with("nested too deeply"), "{error}");
        assert!(parse(&"a {".repeat(100_000)).is_err());
    }

    /// Each label of a block is a level too: `a a a … {}`, well within the longest policy, made a
    /// tree so deep that forgetting it overflowed the executor's stack and ended the server. (Found
    /// by reading, while the fuzz target `rules_text` was written.)
    #[test]
    fn labels_are_nesting_too() {
        let labels = |count| format!("{}{{}}", "a ".repeat(count));
        assert!(parse(&labels(NESTING_MAX)).is_ok());
        let error = parse(&labels(super::super::RULES_BYTES_MAX / 2 - 1)).unwrap_err();
        assert!(error.ends_with("nested too deeply"), "{error}");
    }
}

//! What are the words of an expression?
//!
//! A selector with all its parts is one token, so that a name after a dot is never taken for a
//! keyword. Keywords are not told from other names here: where a value is expected, `in` is one.

use super::{FilterError, Position};

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Open,
    Close,
    Equal,
    NotEqual,
    /// A selector, a keyword or a bare value: its parts.
    Word(Vec<String>),
    Number(String),
    /// A quoted string, without quotes and escapes.
    Text(String),
    End,
}

impl Token {
    /// Whether it is this keyword.
    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(parts) if parts.len() == 1 && parts[0] == keyword)
    }
}

/// Reads tokens, with one token of foresight.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Where the token after `next` begins.
    at: usize,
    next: Token,
    /// Where `next` begins.
    next_at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, FilterError> {
        let mut lexer = Self {
            text,
            at: 0,
            next: Token::End,
            next_at: 0,
        };
        lexer.take()?;
        Ok(lexer)
    }

    /// The token that comes next.
    pub(super) fn peek(&self) -> &Token {
        &self.next
    }

    /// Where the next token begins.
    pub(super) fn position(&self) -> Position {
        Position::of(self.text, self.next_at)
    }

    /// Takes the next token.
    pub(super) fn take(&mut self) -> Result<Token, FilterError> {
        let blanks = self.rest().len() - self.rest().trim_start_matches(is_blank).len();
        self.at += blanks;
        self.next_at = self.at;
        let read = self.read()?;
        Ok(std::mem::replace(&mut self.next, read))
    }

    /// Takes the next token if it is this keyword.
    pub(super) fn take_keyword(&mut self, keyword: &str) -> Result<bool, FilterError> {
        let found = self.next.is_keyword(keyword);
        if found {
            self.take()?;
        }
        Ok(found)
    }

    /// "Expected this", where the next token is.
    pub(super) fn expected(&self, what: &str) -> FilterError {
        let found = match &self.next {
            Token::Open => "an opening parenthesis".to_owned(),
            Token::Close => "a closing parenthesis".to_owned(),
            Token::Equal => "\"==\"".to_owned(),
            Token::NotEqual => "\"!=\"".to_owned(),
            Token::Word(parts) => format!("{:?}", parts.join(".")),
            Token::Number(text) | Token::Text(text) => format!("the value {text:?}"),
            Token::End => "the end".to_owned(),
        };
        self.error(self.next_at, format!("expected {what}, found {found}"))
    }

    fn error(&self, at: usize, what: impl Into<String>) -> FilterError {
        FilterError::Syntax {
            at: Position::of(self.text, at),
            what: what.into(),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn read(&mut self) -> Result<Token, FilterError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        let fixed = [
            ("(", Token::Open),
            (")", Token::Close),
            ("==", Token::Equal),
            ("!=", Token::NotEqual),
        ];
        if let Some((text, token)) = fixed.into_iter().find(|(text, _)| rest.starts_with(text)) {
            self.at += text.len();
            return Ok(token);
        }
        match first {
            '"' | '`' => self.string().map(Token::Text),
            '-' | '0'..='9' => self.number(),
            'a'..='z' | 'A'..='Z' => self.word(),
            '=' => Err(self.error(self.at, "equality is \"==\"")),
            '\'' => Err(self.error(
                self.at,
                "strings stand in \"double quotes\" or `back ticks`",
            )),
            other => Err(self.error(
                self.at,
                format!("{other:?} cannot stand here; values with it need quotes"),
            )),
        }
    }

    /// `-`? ( `0` | `1`-`9` digits ) ( `.` digits )?, and nothing that runs on from it.
    fn number(&mut self) -> Result<Token, FilterError> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| is_blank(c) || c == ')')
            .unwrap_or(rest.len());
        let text = &rest[..end];
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (unsigned, None),
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !digits(whole) || leading_zero || fraction.is_some_and(|text| !digits(text)) {
            return Err(self.error(
                self.at,
                format!("{text:?} is not a number; other values need quotes"),
            ));
        }
        self.at += end;
        Ok(Token::Number(text.to_owned()))
    }

    /// A name and what is selected from it.
    fn word(&mut self) -> Result<Token, FilterError> {
        let mut parts = vec![self.name()?];
        loop {
            let rest = self.rest();
            if rest.starts_with('.') {
                self.at += 1;
                parts.push(self.name()?);
            } else if rest.starts_with('[') {
                parts.push(self.index()?);
            } else if let Some(c) = rest.chars().next().filter(|c| runs_on(*c)) {
                let what = format!(
                    "{c:?} cannot stand in a name: select with [\"…\"], and put values in quotes"
                );
                return Err(self.error(self.at, what));
            } else {
                return Ok(Token::Word(parts));
            }
        }
    }

    fn name(&mut self) -> Result<String, FilterError> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let what = "a name begins with a letter: select other keys with [\"…\"]";
            return Err(self.error(self.at, what));
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    /// `["…"]`
    fn index(&mut self) -> Result<String, FilterError> {
        let open = self.at;
        self.at += 1;
        self.skip_blanks();
        if !self.rest().starts_with(['"', '`']) {
            return Err(self.error(self.at, "an index is a string: [\"…\"]"));
        }
        let key = self.string()?;
        self.skip_blanks();
        if !self.rest().starts_with(']') {
            return Err(self.error(open, "an index that is not closed by \"]\""));
        }
        self.at += 1;
        Ok(key)
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches(is_blank).len();
    }

    fn string(&mut self) -> Result<String, FilterError> {
        let open = self.at;
        let unterminated = "a string that is not terminated";
        if let Some(raw) = self.rest().strip_prefix('`') {
            let end = raw
                .find('`')
                .ok_or_else(|| self.error(open, unterminated))?;
            self.at += end + 2;
            // As Go reads its raw strings.
            return Ok(raw[..end].replace('\r', ""));
        }
        let mut out = String::new();
        let mut at = open + 1;
        while let Some(c) = self.text[at..].chars().next() {
            at += c.len_utf8();
            match c {
                '"' => {
                    self.at = at;
                    return Ok(out);
                }
                '\n' => break,
                '\\' => {
                    let (c, length) = unescape(&self.text[at..]).ok_or_else(|| {
                        self.error(at - 1, "not one of Go's escapes; \\\\ is a backslash")
                    })?;
                    out.push(c);
                    at += length;
                }
                c => out.push(c),
            }
        }
        Err(self.error(open, unterminated))
    }
}

/// The whitespace of the grammar.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Whether a character right after a word makes it something else than a word.
fn runs_on(c: char) -> bool {
    !is_blank(c) && !matches!(c, '(' | ')' | '=' | '!' | '"' | '`')
}

/// What stands after a backslash, as in Go's strings: the character, and the bytes it takes.
/// Escapes of single bytes that are not ASCII are refused, since a string is UTF-8 here.
fn unescape(rest: &str) -> Option<(char, usize)> {
    let coded = |digits: std::ops::Range<usize>, radix: u32| {
        let text = rest.get(digits.clone())?;
        let plain = text.bytes().all(|b| char::from(b).is_digit(radix));
        let code = u32::from_str_radix(text, radix).ok().filter(|_| plain)?;
        Some((char::from_u32(code)?, digits.end))
    };
    let ascii = |(c, length): (char, usize)| c.is_ascii().then_some((c, length));
    let plain = match rest.chars().next()? {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' => '\\',
        '"' => '"',
        'x' => return coded(1..3, 16).and_then(ascii),
        'u' => return coded(1..5, 16),
        'U' => return coded(1..9, 16),
        '0'..='7' => return coded(0..3, 8).and_then(ascii),
        _ => return None,
    };
    Some((plain, 1))
}

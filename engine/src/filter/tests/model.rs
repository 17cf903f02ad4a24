//! Random expressions on random rows, compared with rows that are plain structs and expressions
//! that are plain Rust.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use crate::filter::{Field, Filter, Kind, Shape};

const CHECK: Shape = Shape {
    fields: &[
        Field::new("Status", Kind::Text),
        Field::new("Tags", Kind::Texts),
    ],
};
const ADDRESS: Shape = Shape {
    fields: &[Field::new("Port", Kind::Number)],
};
const SHAPE: Shape = Shape {
    fields: &[
        Field::new("Name", Kind::Text),
        Field::new("Port", Kind::Number),
        Field::new("On", Kind::Bool),
        Field::new("Tags", Kind::Texts),
        Field::new("Meta", Kind::Map(&Kind::Text)),
        Field::new("Checks", Kind::List(&CHECK)),
        Field::new("Inner", Kind::Struct(&CHECK)),
        Field::new("Addresses", Kind::Map(&Kind::Struct(&ADDRESS))),
    ],
};

#[derive(Clone, Debug)]
struct Row {
    name: String,
    port: i64,
    on: bool,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    checks: Vec<Check>,
    inner: Check,
    addresses: BTreeMap<String, i64>,
}

#[derive(Clone, Debug)]
struct Check {
    status: String,
    tags: Vec<String>,
}

impl Check {
    /// Empty fields are left out, as Go's `omitempty` does.
    fn json(&self) -> Value {
        let mut out = json!({"Status": self.status, "Tags": self.tags});
        let map = out.as_object_mut().unwrap();
        map.retain(|_, value| *value != json!("") && *value != json!([]));
        out
    }
}

impl Row {
    fn json(&self) -> Value {
        let addresses: BTreeMap<_, _> = self
            .addresses
            .iter()
            .map(|(key, port)| (key, json!({ "Port": port })))
            .collect();
        let mut out = json!({
            "Name": self.name, "Port": self.port, "On": self.on, "Tags": self.tags,
            "Meta": self.meta, "Checks": self.checks.iter().map(Check::json).collect::<Vec<_>>(),
            "Inner": self.inner.json(), "Addresses": addresses, "Other": 7,
        });
        let empty = [json!(""), json!(0), json!(false), json!([]), json!({})];
        out.as_object_mut()
            .unwrap()
            .retain(|_, value| !empty.contains(value));
        out
    }
}

/// One look at a field.
#[derive(Clone, Debug)]
enum Test {
    Name(Text),
    Port(i64),
    On(bool),
    Tags(Texts),
    MetaKey(String, Text),
    Meta(Texts),
    ChecksEmpty,
    CheckStatus(Text),
    CheckTags(Texts),
    InnerStatus(Text),
    AddressPort(String, i64),
}

#[derive(Clone, Debug)]
enum Text {
    Is(String),
    Has(String),
    BeginsWith(String),
}

#[derive(Clone, Debug)]
enum Texts {
    Has(String),
    Empty,
}

#[derive(Clone, Debug)]
enum Expression {
    Test(Test, bool),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

impl Text {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Is(other) => text == other,
            Self::Has(part) => text.contains(part),
            Self::BeginsWith(part) => text.starts_with(part),
        }
    }

    /// `style` picks among ways to write the same.
    fn print(&self, selector: &str, not: bool, style: u8) -> String {
        let no = if not { "not " } else { "" };
        match self {
            Self::Is(v) => format!("{selector}{}{}", equal(not, style), value(v, style)),
            Self::Has(v) if style.is_multiple_of(2) => {
                format!("{} {no}in {selector}", value(v, style))
            }
            Self::Has(v) => format!("{selector} {no}contains {}", value(v, style)),
            Self::BeginsWith(v) => format!("{selector} {no}matches `^{v}`"),
        }
    }
}

impl Texts {
    fn holds<'a>(&self, mut items: impl Iterator<Item = &'a String>) -> bool {
        match self {
            Self::Has(wanted) => items.any(|item| item == wanted),
            Self::Empty => items.next().is_none(),
        }
    }

    fn print(&self, selector: &str, not: bool, style: u8) -> String {
        let no = if not { "not " } else { "" };
        match self {
            Self::Has(v) => Text::Has(v.clone()).print(selector, not, style),
            Self::Empty => format!("{selector} is\n{no}empty"),
        }
    }
}

impl Test {
    fn holds(&self, row: &Row, not: bool) -> bool {
        match self {
            Self::Name(text) => text.holds(&row.name) != not,
            Self::Port(port) => (row.port == *port) != not,
            Self::On(on) => (row.on == *on) != not,
            Self::Tags(texts) => texts.holds(row.tags.iter()) != not,
            Self::MetaKey(key, text) => match row.meta.get(key) {
                Some(found) => text.holds(found) != not,
                None => not,
            },
            Self::Meta(texts) => texts.holds(row.meta.keys()) != not,
            Self::ChecksEmpty => row.checks.is_empty() != not,
            Self::CheckStatus(text) => row.checks.iter().any(|c| text.holds(&c.status) != not),
            Self::CheckTags(texts) => row.checks.iter().any(|c| texts.holds(c.tags.iter()) != not),
            Self::InnerStatus(text) => text.holds(&row.inner.status) != not,
            Self::AddressPort(key, port) => match row.addresses.get(key) {
                Some(found) => (found == port) != not,
                None => not,
            },
        }
    }

    fn print(&self, not: bool, style: u8) -> String {
        let key = |map: &str, key: &str| match style % 3 {
            0 => format!("{map}.{key}"),
            1 => format!("{map}[\"{key}\"]"),
            _ => format!("{map}[ `{key}` ]"),
        };
        match self {
            Self::Name(text) => text.print("Name", not, style),
            Self::Port(port) => format!("Port{}{port}", equal(not, style)),
            Self::On(on) => format!("On{}{on}", equal(not, style)),
            Self::Tags(texts) => texts.print("Tags", not, style),
            Self::MetaKey(name, text) => text.print(&key("Meta", name), not, style),
            Self::Meta(texts) => texts.print("Meta", not, style),
            Self::ChecksEmpty => Texts::Empty.print("Checks", not, style),
            Self::CheckStatus(text) => text.print("Checks.Status", not, style),
            Self::CheckTags(texts) => texts.print("Checks[\"Tags\"]", not, style),
            Self::InnerStatus(text) => text.print("Inner.Status", not, style),
            Self::AddressPort(name, port) => {
                format!(
                    "{}.Port{}\"{port}\"",
                    key("Addresses", name),
                    equal(not, style)
                )
            }
        }
    }
}

fn equal(not: bool, style: u8) -> &'static str {
    match (not, style % 2) {
        (false, 0) => "==",
        (false, _) => " == ",
        (true, 0) => "!=",
        (true, _) => "\t!= ",
    }
}

fn value(text: &str, style: u8) -> String {
    match style % 3 {
        0 if !text.is_empty() => text.to_owned(),
        1 => format!("`{text}`"),
        _ => format!("{text:?}"),
    }
}

impl Expression {
    fn holds(&self, row: &Row) -> bool {
        match self {
            Self::Test(test, not) => test.holds(row, *not),
            Self::Not(inner) => !inner.holds(row),
            Self::And(parts) => parts.iter().all(|part| part.holds(row)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(row)),
        }
    }

    /// With the fewest parentheses that keep the meaning: `above` is how tightly what is around
    /// binds (0 or, 1 and, 2 not).
    fn print(&self, above: u8, style: u8) -> String {
        let (own, text) = match self {
            Self::Test(test, not) => return test.print(*not, style),
            Self::Not(inner) => return format!("not {}", inner.print(2, style)),
            Self::And(parts) => (1, join(parts, 2, " and ", style)),
            Self::Or(parts) => (0, join(parts, 1, "\r\nor ", style)),
        };
        match own < above {
            true => format!("( {text})"),
            false => text,
        }
    }
}

fn join(parts: &[Expression], above: u8, word: &str, style: u8) -> String {
    let printed: Vec<_> = parts.iter().map(|part| part.print(above, style)).collect();
    printed.join(word)
}

/// Few words, so that they meet.
fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "b", "ab", "passing"]).prop_map(str::to_owned)
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "in"]).prop_map(str::to_owned)
}

fn check() -> impl Strategy<Value = Check> {
    (word(), vec(word(), 0..3)).prop_map(|(status, tags)| Check { status, tags })
}

fn row() -> impl Strategy<Value = Row> {
    let map = prop::collection::btree_map(name(), word(), 0..3);
    let addresses = prop::collection::btree_map(name(), -1..2_i64, 0..3);
    let rest = (vec(check(), 0..3), check(), addresses);
    (
        word(),
        -1..2_i64,
        any::<bool>(),
        vec(word(), 0..3),
        map,
        rest,
    )
        .prop_map(
            |(name, port, on, tags, meta, (checks, inner, addresses))| Row {
                name,
                port,
                on,
                tags,
                meta,
                checks,
                inner,
                addresses,
            },
        )
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        word().prop_map(Text::Is),
        word().prop_map(Text::Has),
        word().prop_map(Text::BeginsWith),
    ]
}

fn texts() -> impl Strategy<Value = Texts> {
    prop_oneof![word().prop_map(Texts::Has), Just(Texts::Empty)]
}

fn expression() -> impl Strategy<Value = Expression> {
    let test = prop_oneof![
        text().prop_map(Test::Name),
        (-1..2_i64).prop_map(Test::Port),
        any::<bool>().prop_map(Test::On),
        texts().prop_map(Test::Tags),
        (name(), text()).prop_map(|(key, text)| Test::MetaKey(key, text)),
        texts().prop_map(Test::Meta),
        Just(Test::ChecksEmpty),
        text().prop_map(Test::CheckStatus),
        texts().prop_map(Test::CheckTags),
        text().prop_map(Test::InnerStatus),
        (name(), -1..2_i64).prop_map(|(key, port)| Test::AddressPort(key, port)),
    ];
    let leaf = (test, any::<bool>()).prop_map(|(test, not)| Expression::Test(test, not));
    leaf.prop_recursive(5, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|e| Expression::Not(Box::new(e))),
            vec(inner.clone(), 2..4).prop_map(Expression::And),
            vec(inner, 2..4).prop_map(Expression::Or),
        ]
    })
}

proptest! {
    #[test]
    fn filters_hold_when_the_model_does(
        expression in expression(),
        rows in vec(row(), 1..8),
        style in any::<u8>(),
    ) {
        let text = expression.print(0, style);
        let filter = Filter::parse(&text, &SHAPE);
        let filter = filter.map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        for row in rows {
            let json = row.json();
            prop_assert_eq!(SHAPE.misfits(&json), Vec::<String>::new());
            prop_assert_eq!(filter.matches(&json), expression.holds(&row), "{} on {}", text, json);
        }
    }

    /// Nothing that is sent ends the server, and errors point into the text.
    #[test]
    fn any_text_is_a_filter_or_an_error(parts in vec(prop_oneof![
        prop::sample::select(vec![
            "Name", "Port", "Meta", "Checks", ".", "[", "]", "\"", "`", "\\", " ", "\n", "(", ")",
            "==", "!=", "in", "not", "and", "or", "is", "empty", "contains", "matches", "1", "-",
            "é", "a", "\\u12", "\\777", "^*",
        ]).prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ], 0..24)) {
        let text = parts.concat();
        match Filter::parse(&text, &SHAPE) {
            Ok(filter) => { filter.matches(&json!({"Meta": {"a": "b"}, "Checks": 1})); }
            Err(crate::filter::FilterError::Syntax { at, .. }) => {
                prop_assert!(text.is_char_boundary(at.offset));
                prop_assert!(at.line <= text.split('\n').count());
            }
            Err(_) => {}
        }
    }
}

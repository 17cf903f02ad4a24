//! How does a text in HCL or JSON become one tree?
//!
//! Consul reads rules with HCL 1, which takes JSON for HCL if it opens with a brace; so do we. The
//! tree keeps the order and every repetition: to a map, `"a": deny, "a": write` would be a
//! grant.
//!
//! Both readers bound their nesting and report where they stopped.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use super::hcl;

/// A value of the text. Members keep their order, and may repeat.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
    /// Something that no rule consists of, by its name.
    Other(&'static str),
}

impl Node {
    /// What it is, for errors.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "a block",
            Self::Other(what) => what,
        }
    }
}

/// Reads a text. The error says where, by line and column.
pub(super) fn parse(text: &str) -> Result<Vec<(String, Node)>, String> {
    if !text.trim_start().starts_with('{') {
        return hcl::parse(text);
    }
    let node: Node = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match node {
        Node::Object(members) => Ok(members),
        node => Err(format!("{} where a block is needed", node.what())),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rule")
    }
    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other("a truth value"))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other("null"))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            members.push(entry);
        }
        Ok(Node::Object(members))
    }
}

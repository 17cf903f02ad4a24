//! What of an answer may be seen?
//!
//! Answers are made where the state is, as JSON, and may come from another server. Here, at the
//! door, what the token may not see is left out: elements are looked at by the few fields that name
//! their node and service, and those that stay keep their bytes. An answer of which nothing is left
//! out is passed on as it came.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, de::MapAccess};
use serde_json::value::RawValue;

use super::{
    super::failure::Refusal,
    guard::{Who, forbidden},
};
use crate::acl::{Access, Resource};

/// The form of an answer, which says where its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Sieve {
    /// `[{Node}]`.
    Nodes,
    /// `{service: tags}`.
    ServiceNames,
    /// `[{Node, ServiceName}]`, of services.
    ServiceRows,
    /// `{Node: {Node}, Services: {id: {Service}}}`.
    NodeServices,
    /// `{Node: {Node}, Services: [{Service}]}`.
    NodeServiceList,
    /// `[{Node, ServiceName}]`, of checks: without a service they are the node's.
    Checks,
    /// `[{Node: {Node}, Service: {Service}, Checks}]`.
    CheckedServices,
    /// `[{Node}]`, of sessions.
    Sessions,
    /// `[{Name}]`, of members.
    Members,
    /// `{id: {Service}}`.
    OwnServices,
    /// `{id: {Node, ServiceName}}`.
    OwnChecks,
    /// `{Service}`, or `{Service: {Service}}`; the whole answer or none.
    OwnService,
    /// `[{Name}]`, of events.
    Events,
    /// `[{Name, Template: {Type}}]`, of prepared queries.
    Queries,
    /// `{Service, Nodes: [{Node: {Node}, Service: {Service}}]}`.
    Executed,
    /// `{Results: [{KV: {Key}} or {Node: {Node}} or {Service: {Service}} or {Check: {Node, …}}]}`.
    Results,
    /// `[{Kind, Name}]`, of config entries.
    ConfigEntries,
}

/// An answer that is not given at all, for what it is about.
#[derive(Debug, PartialEq, Eq)]
struct Hidden(Resource, String);

/// The names within an element, as far as it has them.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Names<'a> {
    #[serde(borrow)]
    node: Named<'a>,
    #[serde(borrow)]
    service: Named<'a>,
    #[serde(borrow)]
    service_name: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    name: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    template: Named<'a>,
}

/// A name, or an object that has it under `Node`, `Service` or `Name`, or its `Type`.
#[derive(Default)]
struct Named<'a>(std::borrow::Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Named<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Named<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name or an object with one")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Named<'de>, E> {
                Ok(Named(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Named<'de>, E> {
                Ok(Named(text.to_owned().into()))
            }
            fn visit_unit<E>(self) -> Result<Named<'de>, E> {
                Ok(Named::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<'de>, A::Error> {
                let mut found = Named::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    let value: &RawValue = map.next_value()?;
                    if matches!(&*key, "Node" | "Service" | "Name" | "Type")
                        && let Ok(name) = serde_json::from_str::<String>(value.get())
                    {
                        found = Named(name.into());
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What is left of an answer.
pub(in super::super) struct Sifted {
    /// The document.
    pub(in super::super) json: Bytes,
    /// Whether anything was left out.
    pub(in super::super) filtered: bool,
}

impl Sieve {
    /// What of this document may be seen, or why it is not given at all.
    pub(in super::super) fn sift(self, who: &Who, json: Bytes) -> Result<Sifted, Refusal> {
        let sifted = self
            .apply(who, json)
            .map_err(|error| Refusal::internal(format!("internal error: {error}")))?;
        sifted.map_err(|Hidden(resource, name)| {
            forbidden(who.lacks(resource, name.as_bytes(), Access::Read))
        })
    }

    /// What of this document may be seen. One that is not of the form is an error, not let through.
    fn apply(self, who: &Who, json: Bytes) -> Result<Result<Sifted, Hidden>, serde_json::Error> {
        if json.is_empty() || &json[..] == b"null" {
            let filtered = false;
            return Ok(Ok(Sifted { json, filtered }));
        }
        match self {
            Self::ServiceNames => members(json, |name, _| {
                Ok(who.may(Resource::Service, name.as_bytes(), Access::Read))
            })
            .map(Ok),
            Self::OwnServices | Self::OwnChecks => {
                members(json, |_, value| self.keeps(who, value)).map(Ok)
            }
            Self::NodeServices | Self::NodeServiceList | Self::Executed | Self::Results => {
                self.nested(who, json).map(Ok)
            }
            Self::OwnService => {
                let names: Names<'_> = serde_json::from_slice(&json)?;
                let (resource, name) = (Resource::Service, &names.service.0);
                if !who.may(resource, name.as_bytes(), Access::Read) {
                    return Ok(Err(Hidden(resource, name.clone().into_owned())));
                }
                drop(names);
                let filtered = false;
                Ok(Ok(Sifted { json, filtered }))
            }
            _ => elements(json, |element| self.keeps(who, element)).map(Ok),
        }
    }

    /// Whether an element may be seen.
    fn keeps(self, who: &Who, element: &RawValue) -> Result<bool, serde_json::Error> {
        if self == Self::Results {
            return result(who, element);
        }
        let names: Names<'_> = serde_json::from_str(element.get())?;
        let may = |resource, name: &str| who.may(resource, name.as_bytes(), Access::Read);
        let node = || may(Resource::Node, &names.node.0);
        Ok(match self {
            Self::Nodes => node(),
            Self::ServiceRows => node() && may(Resource::Service, &names.service_name),
            Self::Checks | Self::OwnChecks => {
                let of_node = names.service_name.is_empty();
                node() && (of_node || may(Resource::Service, &names.service_name))
            }
            Self::CheckedServices | Self::Executed => {
                node() && may(Resource::Service, &names.service.0)
            }
            Self::Sessions => may(Resource::Session, &names.node.0),
            Self::Members => may(Resource::Node, &names.name),
            Self::OwnServices | Self::NodeServices | Self::NodeServiceList => {
                may(Resource::Service, &names.service.0)
            }
            Self::Events => may(Resource::Event, &names.name),
            // One without a name is for those who know its id, or manage all; a template without
            // one is of the name that all names begin with.
            Self::Queries if names.name.is_empty() && names.template.0.is_empty() => {
                who.may(Resource::Acl, b"", Access::Write)
            }
            Self::Queries => may(Resource::Query, &names.name),
            Self::ConfigEntries => {
                match super::needs::config_entry(&names.kind, &names.name, Access::Read) {
                    super::Need::Of(resource, name, access) => {
                        who.may(resource, name.as_bytes(), access)
                    }
                    _ => true,
                }
            }
            Self::ServiceNames | Self::OwnService | Self::Results => false,
        })
    }

    /// An object with a list or map of what is sifted, and a node that must be visible at all.
    fn nested(self, who: &Who, json: Bytes) -> Result<Sifted, serde_json::Error> {
        let object = Pairs::parse(&json)?;
        let mut filtered = false;
        let mut out = Vec::with_capacity(json.len());
        for (at, (name, value)) in object.0.iter().enumerate() {
            out.push(if at == 0 { b'{' } else { b',' });
            out.extend_from_slice(&crate::documents::json(name));
            out.push(b':');
            let inner = match (self, &**name) {
                (Self::NodeServices | Self::NodeServiceList, "Node") => {
                    let node: Named<'_> = serde_json::from_str(value.get())?;
                    if !who.may(Resource::Node, node.0.as_bytes(), Access::Read) {
                        return Ok(Sifted {
                            json: Bytes::from_static(b"null"),
                            filtered: true,
                        });
                    }
                    None
                }
                (_, "Services" | "Nodes" | "Results") if value.get() != "null" => {
                    let inner = Bytes::copy_from_slice(value.get().as_bytes());
                    Some(match self {
                        Self::NodeServices => members(inner, |_, value| self.keeps(who, value))?,
                        _ => elements(inner, |value| self.keeps(who, value))?,
                    })
                }
                _ => None,
            };
            match inner {
                Some(sifted) => {
                    filtered |= sifted.filtered;
                    out.extend_from_slice(&sifted.json);
                }
                None => out.extend_from_slice(value.get().as_bytes()),
            }
        }
        out.push(b'}');
        let json = if filtered { out.into() } else { json.clone() };
        Ok(Sifted { json, filtered })
    }
}

/// Whether a result of a transaction may be seen. One of a kind that is not known may not.
fn result(who: &Who, element: &RawValue) -> Result<bool, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Key<'a> {
        #[serde(borrow)]
        key: std::borrow::Cow<'a, str>,
    }
    let may = |resource, name: &str| who.may(resource, name.as_bytes(), Access::Read);
    let Pairs(pairs) = serde_json::from_str(element.get())?;
    let [(kind, value)] = &pairs[..] else {
        return Ok(false);
    };
    Ok(match &**kind {
        "KV" => {
            let Key { key } = serde_json::from_str(value.get())?;
            may(Resource::Key, &key)
        }
        "Node" => {
            let node: Named<'_> = serde_json::from_str(value.get())?;
            may(Resource::Node, &node.0)
        }
        "Service" => {
            let service: Named<'_> = serde_json::from_str(value.get())?;
            may(Resource::Service, &service.0)
        }
        "Check" => Sieve::Checks.keeps(who, value)?,
        _ => false,
    })
}

/// The elements of a list that are kept.
fn elements(
    json: Bytes,
    mut keeps: impl FnMut(&RawValue) -> Result<bool, serde_json::Error>,
) -> Result<Sifted, serde_json::Error> {
    let all: Vec<&RawValue> = serde_json::from_slice(&json)?;
    let mut out = Vec::with_capacity(json.len());
    let mut filtered = false;
    for element in all {
        if !keeps(element)? {
            filtered = true;
            continue;
        }
        out.push(if out.is_empty() { b'[' } else { b',' });
        out.extend_from_slice(element.get().as_bytes());
    }
    if out.is_empty() {
        out.push(b'[');
    }
    out.push(b']');
    let json = if filtered { out.into() } else { json };
    Ok(Sifted { json, filtered })
}

/// The members of an object that are kept.
fn members(
    json: Bytes,
    mut keeps: impl FnMut(&str, &RawValue) -> Result<bool, serde_json::Error>,
) -> Result<Sifted, serde_json::Error> {
    let all = Pairs::parse(&json)?;
    let mut out = Vec::with_capacity(json.len());
    let mut filtered = false;
    for (name, value) in all.0 {
        if !keeps(&name, value)? {
            filtered = true;
            continue;
        }
        out.push(if out.is_empty() { b'{' } else { b',' });
        out.extend_from_slice(&crate::documents::json(&name));
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    if out.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    let json = if filtered { out.into() } else { json };
    Ok(Sifted { json, filtered })
}

/// An object's members, in their order.
pub(super) struct Pairs<'a>(pub(super) Vec<(std::borrow::Cow<'a, str>, &'a RawValue)>);

impl<'a> Pairs<'a> {
    fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    pairs.push((name.into(), map.next_value::<&RawValue>()?));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

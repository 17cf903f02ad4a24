//! What does a prepared query say?
//!
//! All of it, field by field in Consul's order (`structs.PreparedQuery`), since this is the JSON
//! that the state keeps and that clients are shown. The state machine understands id, name, session
//! and the kind of template; the rest is understood here, when the query is executed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::state::records::{JsonText, PreparedQuery, QueryTemplate};

/// What stands for no list and no pairs, as Go writes them.
fn or_null<T: Serialize, S: Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    Some(items)
        .filter(|items| !items.is_empty())
        .serialize(serializer)
}

fn pairs_or_null<S: Serializer>(pairs: &Pairs, serializer: S) -> Result<S::Ok, S::Error> {
    Some(pairs)
        .filter(|pairs| !pairs.is_empty())
        .serialize(serializer)
}

/// A list that may be `null`.
fn list<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

type Pairs = BTreeMap<String, String>;

/// A prepared query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Definition {
    /// UUID as text.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name to execute it by; may be empty.
    pub name: String,
    /// The session it dies with; empty for none.
    pub session: String,
    /// The secret that it is executed with, in place of its asker's; empty for none.
    pub token: String,
    /// Whether it stands for all names that begin as its own.
    pub template: Template,
    /// What it asks for.
    pub service: ServiceQuery,
    /// How its result is served over DNS.
    #[serde(rename = "DNS")]
    pub dns: Dns,
}

/// Consul: `structs.QueryTemplateOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Template {
    /// `name_prefix_match`, or empty for no template.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Takes a name apart for `${match(N)}`; empty for none.
    pub regexp: String,
    /// Whether tags that come out empty are left out.
    pub remove_empty_tags: bool,
}

/// Consul: `structs.ServiceQuery`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceQuery {
    /// The service's name.
    pub service: String,
    /// Always empty: an Enterprise feature.
    pub sameness_group: String,
    /// Where to look if there is nothing here.
    pub failover: Failover,
    /// Whether instances with a warning are left out as well as those with a critical check.
    pub only_passing: bool,
    /// Checks that do not count.
    #[serde(
        rename = "IgnoreCheckIDs",
        serialize_with = "or_null",
        deserialize_with = "list"
    )]
    pub ignore_check_ids: Vec<String>,
    /// The node that the nearest instances come first from; `_agent` and `_ip` stand for whoever
    /// asks; empty for a random order.
    pub near: String,
    /// Tags that an instance must have, or with a `!` must not have, in any case.
    #[serde(serialize_with = "or_null", deserialize_with = "list")]
    pub tags: Vec<String>,
    /// Pairs that the node must have in its meta.
    #[serde(serialize_with = "pairs_or_null", deserialize_with = "list")]
    pub node_meta: Pairs,
    /// Pairs that the instance must have in its meta.
    #[serde(serialize_with = "pairs_or_null", deserialize_with = "list")]
    pub service_meta: Pairs,
    /// Whether what speaks for the service in the mesh is asked for, in place of itself.
    pub connect: bool,
    /// Always empty: clusters are not peered.
    pub peer: String,
}

/// Consul: `structs.QueryFailoverOptions`. Stored; there is one datacenter, so none of them is ever
/// known, and Consul passes over what it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Failover {
    /// How many of the nearest other datacenters.
    pub nearest_n: i64,
    /// Which others.
    #[serde(serialize_with = "or_null", deserialize_with = "list")]
    pub datacenters: Vec<String>,
    /// Datacenters and peers, in place of both.
    #[serde(serialize_with = "or_null", deserialize_with = "list")]
    pub targets: Vec<Target>,
}

/// Consul: `structs.QueryFailoverTarget`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Target {
    /// A peered cluster; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// A datacenter; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub datacenter: String,
}

/// Consul: `structs.QueryDNSOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Dns {
    /// How long an answer holds, as Go writes durations; empty for DNS's default.
    #[serde(rename = "TTL")]
    pub ttl: String,
}

impl Definition {
    /// What a row of the table says; `Err` for a body that no door of this build has let in.
    pub fn of(row: &PreparedQuery) -> Result<Self, serde_json::Error> {
        serde_json::from_str(row.body.as_str())
    }

    /// As the state keeps it.
    pub fn record(&self) -> PreparedQuery {
        let text = serde_json::to_string(self).expect("plain data");
        PreparedQuery {
            id: self.id.clone(),
            name: self.name.clone(),
            session: self.session.clone(),
            template: QueryTemplate {
                kind: self.template.kind.clone(),
            },
            body: JsonText::parse(&text).expect("it was written as JSON"),
            ..PreparedQuery::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_kept_in_consuls_order_and_read_back() {
        let mut query = Definition {
            id: "i".into(),
            name: "n".into(),
            ..Definition::default()
        };
        query.service.service = "web".into();
        let text = r#"{"ID":"i","Name":"n","Session":"","Token":"","Template":{"Type":"","Regexp":"","RemoveEmptyTags":false},"Service":{"Service":"web","SamenessGroup":"","Failover":{"NearestN":0,"Datacenters":null,"Targets":null},"OnlyPassing":false,"IgnoreCheckIDs":null,"Near":"","Tags":null,"NodeMeta":null,"ServiceMeta":null,"Connect":false,"Peer":""},"DNS":{"TTL":""}}"#;
        assert_eq!(query.record().body.as_str(), text);
        query.service.failover.targets = vec![Target {
            datacenter: "dc2".into(),
            ..Target::default()
        }];
        query.service.node_meta = [("a".to_owned(), "b".to_owned())].into();
        query.template.kind = "name_prefix_match".into();
        let record = query.record();
        assert!(record.is_template());
        assert_eq!(Definition::of(&record).ok(), Some(query));
    }
}

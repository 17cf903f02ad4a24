//! May what a body asks for be done?
//!
//! Bodies are looked at for the names that decide, and for nothing else: what is wrong with them is
//! their handler's to say, so one that cannot be read here asks for no name. Names of fields count
//! in any case, as for Go and for the handlers.
//!
//! Where a body names something by id (a service to deregister), the name is looked up in this
//! server's copy of the state. It may be a little behind; as in Consul, the look and the change are
//! not one step.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use wire::ReadMode;

use super::{
    super::failure::Refusal,
    guard::{Who, ask},
    needs::{self, Body, Need},
    sieve::Pairs,
};
use crate::{
    acl::{Access, Resource},
    documents::{
        AclQuestion, CatalogQuestion, Question,
        catalog::{About, Narrow},
    },
    server::{
        agent::request::{AgentReply, AgentRequest},
        gateway::Gateway,
    },
};

/// Refuses what the body asks for and the token may not do. `node` is this server's.
pub(in super::super) async fn check<G: Gateway>(
    gateway: &G,
    who: &Who,
    need: &Need<'_>,
    node: &str,
    body: &[u8],
) -> Result<(), Refusal> {
    let kind = match need {
        Need::Body(kind) => *kind,
        Need::Query(_) => Body::Query,
        _ => return Ok(()),
    };
    let body = Fields::parse(body, Spelling::of(kind))?;
    let write = |resource, name: &str| who.must(resource, name.as_bytes(), Access::Write);
    match kind {
        Body::Register => register(gateway, who, &body).await,
        Body::Deregister => {
            let node = body.text("node");
            let (service, check) = (body.text("serviceid"), body.text("checkid"));
            owner(gateway, who, &node, &service, &check).await
        }
        Body::OwnService => {
            let name = body.text("name");
            let id = match body.text("id") {
                id if id.is_empty() => name.clone(),
                id => id,
            };
            write(Resource::Service, &name)?;
            // One that takes the place of another takes it from that other's owner.
            match own_service(gateway, &id).await {
                Some(held) => write(Resource::Service, &held),
                None => Ok(()),
            }
        }
        Body::OwnCheck => {
            let id = match body.text("id") {
                id if id.is_empty() => body.text("name"),
                id => id,
            };
            own_check(gateway, who, node, &id).await?;
            match body.text("serviceid") {
                id if id.is_empty() => write(Resource::Node, node),
                id => match own_service(gateway, &id).await {
                    Some(name) => write(Resource::Service, &name),
                    // Its handler says that there is no such service.
                    None => Ok(()),
                },
            }
        }
        Body::Session => match body.text("node") {
            given if given.is_empty() => write(Resource::Session, node),
            given => write(Resource::Session, &given),
        },
        Body::ConfigEntry => {
            let name = body.text("name");
            match needs::config_entry(&body.text("kind"), &name, Access::Write) {
                Need::Of(resource, name, access) => who.must(resource, name.as_bytes(), access),
                _ => write(Resource::Operator, ""),
            }
        }
        Body::Query => match body.text("name") {
            // Without a name it is for those who know its id, unless it is a template for all names.
            name if name.is_empty() && !body.has_template()? => Ok(()),
            name => write(Resource::Query, &name),
        },
        Body::Coordinate => write(Resource::Node, &body.text("node")),
    }
}

/// Refuses what a path names by an id, and the token may not change.
pub(in super::super) async fn check_path<G: Gateway>(
    gateway: &G,
    who: &Who,
    need: &Need<'_>,
    node: &str,
) -> Result<(), Refusal> {
    match need {
        Need::Of(resource, name, access) => who.must(*resource, name.as_bytes(), *access),
        Need::OwnService(id, access) => match own_service(gateway, id).await {
            Some(name) => who.must(Resource::Service, name.as_bytes(), *access),
            // There is no such service, as its handler says.
            None => Ok(()),
        },
        Need::OwnCheck(id) => own_check(gateway, who, node, id).await,
        Need::Session(id) => {
            let question = Question::from(AclQuestion::SessionNode {
                id: (*id).to_owned(),
            });
            let found: Option<String> = ask(gateway, ReadMode::Default, &question).await?;
            match found {
                Some(node) => who.must(Resource::Session, node.as_bytes(), Access::Write),
                // There is nothing to change.
                None => Ok(()),
            }
        }
        Need::Query(id) => {
            let question = Question::from(AclQuestion::QueryName {
                id: (*id).to_owned(),
            });
            let found: Option<String> = ask(gateway, ReadMode::Default, &question).await?;
            match found {
                Some(name) => who.must(Resource::Query, name.as_bytes(), Access::Write),
                None => Ok(()),
            }
        }
        Need::Nothing | Need::Sieve(_) | Need::Body(_) => Ok(()),
    }
}

/// A node, and with it a service and checks.
async fn register<G: Gateway>(gateway: &G, who: &Who, body: &Fields<'_>) -> Result<(), Refusal> {
    let node = body.text("node");
    let write = |resource, name: &str| who.must(resource, name.as_bytes(), Access::Write);
    let service = body.object("service")?;
    if let Some(service) = &service {
        let name = service.text("service");
        write(Resource::Service, &name)?;
        let id = match service.text("id") {
            id if id.is_empty() => name,
            id => id,
        };
        if let Some(held) = service_of(gateway, &node, &id, "").await? {
            write(Resource::Service, &held)?;
        }
    }
    let checks = body.checks()?;
    // One that is of nothing else is of the node.
    let mut of_node = service.is_none() && checks.is_empty();
    for check in checks {
        match check.text("serviceid") {
            id if id.is_empty() => of_node = true,
            id => {
                let is_this = service.as_ref().is_some_and(|service| {
                    let own = service.text("id");
                    let own = if own.is_empty() {
                        service.text("service")
                    } else {
                        own
                    };
                    own == id
                });
                if !is_this {
                    owner(gateway, who, &node, &id, "").await?;
                }
            }
        }
    }
    if who.may(Resource::Node, node.as_bytes(), Access::Write)
        || !of_node && !changes_node(gateway, &node, body).await?
    {
        return Ok(());
    }
    write(Resource::Node, &node)
}

/// A node as the catalog has it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Held {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    datacenter: String,
    tagged_addresses: Option<BTreeMap<String, String>>,
    meta: Option<BTreeMap<String, String>>,
}

/// Whether a registration would make or change its node. Whoever registers a service repeats what
/// is known of the node, and needs no right to it, as in Consul; but one that is not there is made
/// even by a registration that is to leave it as it is.
async fn changes_node<G: Gateway>(
    gateway: &G,
    node: &str,
    body: &Fields<'_>,
) -> Result<bool, Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Found {
        node: Held,
    }
    let question = Question::Catalog(CatalogQuestion {
        about: About::Node {
            node: node.to_owned(),
        },
        narrow: Narrow::default(),
    });
    let found: Option<Found> = ask(gateway, ReadMode::Default, &question).await?;
    let Some(Found { node: held }) = found else {
        return Ok(true);
    };
    if body.flag("skipnodeupdate") {
        return Ok(false);
    }
    // What cannot be read is a change; its handler says what is wrong with it.
    let is_map = |name: &str, held: Option<BTreeMap<String, String>>| {
        let given = body.get(name).map_or(Ok(None), serde_json::from_str);
        let given: Result<Option<BTreeMap<String, String>>, _> = given;
        given.is_ok_and(|given| given.unwrap_or_default() == held.unwrap_or_default())
    };
    let datacenter = body.text("datacenter");
    Ok(body.text("id") != held.id
        || body.text("address") != held.address
        || !datacenter.is_empty() && datacenter != held.datacenter
        || !is_map("taggedaddresses", held.tagged_addresses)
        || !is_map("nodemeta", held.meta))
}

/// The name of a service that this server's agent has under an id.
async fn own_service<G: Gateway>(gateway: &G, id: &str) -> Option<String> {
    let request = AgentRequest::Service {
        id: id.to_owned(),
        hash: String::new(),
        wait_ms: 0,
    };
    let AgentReply::Document { json, .. } = gateway.agent(request).await else {
        return None;
    };
    Some(
        Fields::parse(&json, Spelling::AnyCase)
            .ok()?
            .text("service"),
    )
}

/// Refuses a change to a check of this server's agent: it takes the right to change its service, or
/// the node if it is of none. One that is not there may be changed by anyone: nothing happens.
async fn own_check<G: Gateway>(
    gateway: &G,
    who: &Who,
    node: &str,
    id: &str,
) -> Result<(), Refusal> {
    let AgentReply::Document { json, .. } = gateway.agent(AgentRequest::Checks).await else {
        return who.must(Resource::Node, node.as_bytes(), Access::Write);
    };
    let Pairs(checks) = serde_json::from_slice(&json)
        .map_err(|error| Refusal::internal(format!("internal error: {error}")))?;
    let Some((_, check)) = checks.iter().find(|(known, _)| known == id) else {
        return Ok(());
    };
    let check = Fields::parse(check.get().as_bytes(), Spelling::AnyCase)?;
    match check.text("servicename") {
        name if name.is_empty() => who.must(Resource::Node, node.as_bytes(), Access::Write),
        name => who.must(Resource::Service, name.as_bytes(), Access::Write),
    }
}

/// Whoever may change the node, or the service that this is or is about.
pub(super) async fn owner<G: Gateway>(
    gateway: &G,
    who: &Who,
    node: &str,
    service_id: &str,
    check_id: &str,
) -> Result<(), Refusal> {
    if who.may(Resource::Node, node.as_bytes(), Access::Write) {
        return Ok(());
    }
    let named = !service_id.is_empty() || !check_id.is_empty();
    let service = match named {
        true => service_of(gateway, node, service_id, check_id).await?,
        false => None,
    };
    match service.filter(|name| !name.is_empty()) {
        Some(name) => who.must(Resource::Service, name.as_bytes(), Access::Write),
        None => who.must(Resource::Node, node.as_bytes(), Access::Write),
    }
}

pub(super) async fn service_of<G: Gateway>(
    gateway: &G,
    node: &str,
    service_id: &str,
    check_id: &str,
) -> Result<Option<String>, Refusal> {
    let question = Question::from(AclQuestion::ServiceOf {
        node: node.to_owned(),
        service_id: service_id.to_owned(),
        check_id: check_id.to_owned(),
    });
    ask(gateway, ReadMode::Default, &question).await
}

/// By what the right to write a config entry is judged, in words.
#[cfg(feature = "fuzzing")]
pub(in super::super) fn config_entry(kind: &str, name: &str) -> String {
    format!("{:?}", needs::config_entry(kind, name, Access::Write))
}

/// The names in a body by which its request is judged, in the order in which its handler reads them:
/// for comparison with what the handler reads.
#[cfg(feature = "fuzzing")]
pub(in super::super) fn names(kind: Body, body: &[u8]) -> Result<Vec<String>, Refusal> {
    let body = Fields::parse(body, Spelling::of(kind))?;
    let own = |fields: &Fields<'_>| match fields.text("id") {
        id if id.is_empty() => fields.text("name"),
        id => id,
    };
    Ok(match kind {
        Body::Register => {
            let mut names = vec![body.text("node"), body.flag("skipnodeupdate").to_string()];
            if let Some(service) = body.object("service")? {
                names.extend([service.text("service"), service.text("id")]);
            }
            names.extend(body.checks()?.iter().map(|check| check.text("serviceid")));
            names
        }
        Body::Deregister => ["node", "serviceid", "checkid"]
            .map(|name| body.text(name))
            .into(),
        Body::OwnService => vec![body.text("name"), own(&body)],
        Body::OwnCheck => vec![own(&body), body.text("serviceid")],
        Body::Session | Body::Coordinate => vec![body.text("node")],
        Body::ConfigEntry => vec![config_entry(&body.text("kind"), &body.text("name"))],
        Body::Query => vec![body.text("name")],
    })
}

/// How a body's handler lets clients spell the names of fields. A judge that is more forgiving than
/// the handler would judge by what the handler passes over.
#[derive(Clone, Copy, Debug)]
enum Spelling {
    /// `ServiceID` and `serviceid`.
    AnyCase,
    /// `service_id` as well: the agent's registrations, which are written like configuration.
    AnyCaseAndUnderscores,
}

impl Spelling {
    fn of(kind: Body) -> Self {
        match kind {
            Body::OwnService | Body::OwnCheck => Self::AnyCaseAndUnderscores,
            Body::Register
            | Body::Deregister
            | Body::Session
            | Body::ConfigEntry
            | Body::Query
            | Body::Coordinate => Self::AnyCase,
        }
    }

    fn plain(self, name: &str) -> String {
        let lower = name.to_lowercase();
        match self {
            Self::AnyCase => lower,
            Self::AnyCaseAndUnderscores => lower.replace('_', ""),
        }
    }
}

/// An object's members by their names, spelt plainly. A name that comes twice is refused: it could
/// mean one thing here and the other to the handler.
struct Fields<'a> {
    spelling: Spelling,
    members: Vec<(String, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    fn parse(json: &'a [u8], spelling: Spelling) -> Result<Self, Refusal> {
        let mut fields = Self {
            spelling,
            members: Vec::new(),
        };
        let Ok(Pairs(pairs)) = serde_json::from_slice(json) else {
            return Ok(fields);
        };
        for (name, value) in pairs {
            let plain = spelling.plain(&name);
            if fields.get(&plain).is_some() {
                let why = format!("Request decode failed: {name:?} is given twice");
                return Err(Refusal::bad(why));
            }
            fields.members.push((plain, value));
        }
        Ok(fields)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.members.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.get())
    }

    fn text(&self, name: &str) -> String {
        let text = self.get(name).map(serde_json::from_str);
        text.and_then(Result::ok).unwrap_or_default()
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    fn object(&self, name: &str) -> Result<Option<Self>, Refusal> {
        let object = self.get(name).filter(|json| json.starts_with('{'));
        let parse = |json: &'a str| Self::parse(json.as_bytes(), self.spelling);
        object.map(parse).transpose()
    }

    /// Whether a query's body is a template's.
    fn has_template(&self) -> Result<bool, Refusal> {
        let template = self.object("template")?;
        Ok(template.is_some_and(|template| !template.text("type").is_empty()))
    }

    fn checks(&self) -> Result<Vec<Self>, Refusal> {
        let several = self
            .get("checks")
            .map(serde_json::from_str::<Vec<&RawValue>>);
        let several = several.and_then(Result::ok).unwrap_or_default();
        let mut checks = Vec::from_iter(self.object("check")?);
        for check in several {
            checks.push(Self::parse(check.get().as_bytes(), self.spelling)?);
        }
        Ok(checks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The judge of bodies took `skip_node_update` for `SkipNodeUpdate` everywhere, as the agent's
    /// endpoints do; the catalog's and the sessions' handlers pass over it. So a token that could
    /// write the service `web` and nothing else moved any node to another address:
    /// `{"Node":"victim","Address":"6.6.6.6","skip_node_update":true,"Service":{"Service":"web"}}`
    /// was judged without its node. In the same way `service_id` passed a node's check off as a
    /// service's, and `no_de` a session on the server's own node as one on another. (Fuzz target
    /// `http_bodies`, which compares what the two read.)
    #[test]
    fn a_body_is_judged_by_the_names_that_its_handler_reads() {
        let judged = |kind, json: &'static str, name: &str| {
            let fields = Fields::parse(json.as_bytes(), Spelling::of(kind)).expect("no name twice");
            (fields.text(name), fields.flag(name))
        };
        let none = (String::new(), false);
        for (kind, json, name) in [
            (
                Body::Register,
                r#"{"skip_node_update":true}"#,
                "skipnodeupdate",
            ),
            (Body::Register, r#"{"service_id":"web"}"#, "serviceid"),
            (Body::Session, r#"{"no_de":"mine","Name":"x"}"#, "node"),
            (Body::ConfigEntry, r#"{"Na_me":"mine"}"#, "name"),
        ] {
            assert_eq!(judged(kind, json, name), none, "{json}");
        }
        let own = judged(Body::OwnCheck, r#"{"service_id":"web"}"#, "serviceid");
        assert_eq!(own.0, "web");
        let any_case = judged(
            Body::Register,
            r#"{"SKIPNodeUpdate":true}"#,
            "skipnodeupdate",
        );
        assert!(any_case.1);
    }
}

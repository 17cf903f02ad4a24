//! `/v1/catalog/…` and `/v1/health/…`: how is the catalog written, and how is it asked?

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{
    call::{Call, Outcome},
    failure::Refusal,
    loose::Loose,
    reply::{Content, Reply},
};
use crate::{
    documents::{
        CatalogQuestion, Question,
        catalog::{About, Instances, Narrow},
    },
    fsm::{
        catalog::{self, DeregisterRequest, RegisterRequest},
        records::RecordOp,
    },
    server::gateway::Gateway,
    state::records::{Check, JsonText, Service, ServiceAddress, Weights},
};

/// `/v1/catalog/<rest>`.
pub(super) async fn answer<G: Gateway>(call: Call<'_, G>, rest: &str) -> Outcome<G> {
    let (name, argument) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = match (name, argument) {
        ("register" | "deregister", "") => Method::PUT,
        ("datacenters" | "nodes" | "services", "")
        | ("service" | "connect" | "node" | "node-services", _) => Method::GET,
        _ => return call.unknown(),
    };
    if let Some(reply) = call.unless(&[allowed]) {
        return Ok(reply);
    }
    let about = match name {
        "register" => return register(call).await,
        "deregister" => return deregister(call).await,
        "datacenters" => return datacenters(&call),
        "nodes" => About::Nodes,
        "services" => About::Services,
        "node" => About::Node {
            node: named(argument, "Missing node name")?,
        },
        "node-services" => About::NodeServices {
            node: named(argument, "Missing node name")?,
        },
        _ => About::Service(Instances {
            service: named(argument, "Missing service name")?,
            connect: name == "connect",
            tags: tags(&call),
            passing: false,
        }),
    };
    ask(call, about).await
}

/// `/v1/health/<rest>`.
pub(super) async fn health<G: Gateway>(call: Call<'_, G>, rest: &str) -> Outcome<G> {
    let (name, argument) = rest.split_once('/').unwrap_or((rest, ""));
    if !["node", "checks", "state", "service", "connect"].contains(&name) {
        return call.unknown();
    }
    if let Some(reply) = call.unless(&[Method::GET]) {
        return Ok(reply);
    }
    let about = match name {
        "node" => About::ChecksOfNode {
            node: named(argument, "Missing node name")?,
        },
        "checks" => About::ChecksOfService {
            service: named(argument, "Missing service name")?,
        },
        "state" => About::ChecksInState {
            status: named(argument, "Missing check state")?,
        },
        _ => About::Health(Instances {
            service: named(argument, "Missing service name")?,
            connect: name == "connect",
            tags: tags(&call),
            passing: passing(&call)?,
        }),
    };
    ask(call, about).await
}

fn named(argument: &str, missing: &'static str) -> Result<String, Refusal> {
    match argument {
        "" => Err(Refusal::bad(missing)),
        given => Ok(given.to_owned()),
    }
}

fn tags<G: Gateway>(call: &Call<'_, G>) -> Vec<String> {
    call.params.all("tag").map(str::to_owned).collect()
}

/// `?passing`, which may have a value that Go takes for true or false.
fn passing<G: Gateway>(call: &Call<'_, G>) -> Result<bool, Refusal> {
    match call.params.get("passing") {
        None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(_) => Err(Refusal::bad("Invalid value for ?passing")),
    }
}

async fn ask<G: Gateway>(mut call: Call<'_, G>, about: About) -> Outcome<G> {
    let params = &call.params;
    let near = match params.get("near").unwrap_or_default() {
        "_agent" => &call.inner.info.node_name,
        node => node,
    };
    let pairs = params.all("node-meta").map(|pair| {
        let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
        (key.to_owned(), value.to_owned())
    });
    let narrow = Narrow {
        filter: params.get("filter").unwrap_or_default().to_owned(),
        node_meta: pairs.collect(),
        near: near.to_owned(),
    };
    let question = CatalogQuestion { about, narrow };
    question
        .check()
        .map_err(|error| Refusal::internal(error.to_string()))?;
    call.read(Question::Catalog(question), true).await
}

fn datacenters<G: Gateway>(call: &Call<'_, G>) -> Outcome<G> {
    let document = serde_json::json!([call.inner.info.datacenter]).to_string();
    let document = call.styled(Bytes::from(document));
    Ok(Reply::json(Content::Whole(document)))
}

async fn register<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let Loose(body) = call.json::<Loose<RegisterBody>>().await?;
    let mut request = body.request();
    datacenter(&call, &mut request.datacenter)?;
    catalog::check(&request).map_err(Refusal::internal)?;
    commit(call, RecordOp::Register(request)).await
}

async fn deregister<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let Loose(mut body) = call.json::<Loose<DeregisterBody>>().await?;
    datacenter(&call, &mut body.datacenter)?;
    if body.node.is_empty() {
        return Err(Refusal::internal("Must provide node"));
    }
    let request = DeregisterRequest {
        node: body.node,
        service_id: body.serviceid,
        check_id: body.checkid,
    };
    commit(call, RecordOp::Deregister(request)).await
}

async fn commit<G: Gateway>(mut call: Call<'_, G>, op: RecordOp) -> Outcome<G> {
    let written = call.write(&op, "").await?;
    let style = call.inner.style(call.params.pretty);
    Ok(Reply::written(written.ok, written.index.0, style))
}

/// The datacenter that a body names must be ours, and is if it names none.
fn datacenter<G: Gateway>(call: &Call<'_, G>, named: &mut String) -> Result<(), Refusal> {
    let ours = &call.inner.info.datacenter;
    if named.is_empty() {
        named.clone_from(ours);
    }
    match named == ours {
        true => Ok(()),
        false => Err(Refusal::internal("No path to datacenter")),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub(super) struct DeregisterBody {
    datacenter: String,
    pub(super) node: String,
    pub(super) serviceid: String,
    pub(super) checkid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub(super) struct RegisterBody {
    datacenter: String,
    id: String,
    node: String,
    address: String,
    taggedaddresses: BTreeMap<String, String>,
    nodemeta: BTreeMap<String, String>,
    service: Option<Loose<ServiceBody>>,
    check: Option<Loose<CheckBody>>,
    checks: Vec<Loose<CheckBody>>,
    skipnodeupdate: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub(super) struct ServiceBody {
    id: String,
    service: String,
    kind: String,
    tags: Vec<String>,
    address: String,
    taggedaddresses: BTreeMap<String, Loose<AddressBody>>,
    meta: BTreeMap<String, String>,
    port: u64,
    socketpath: String,
    weights: Option<Loose<WeightsBody>>,
    enabletagoverride: bool,
    proxy: Option<Value>,
    connect: Option<Value>,
    /// What a cas expects.
    modifyindex: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct AddressBody {
    address: String,
    port: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct WeightsBody {
    passing: u64,
    warning: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub(super) struct CheckBody {
    node: String,
    checkid: String,
    name: String,
    status: String,
    notes: String,
    output: String,
    serviceid: String,
    #[serde(rename = "type")]
    kind: String,
    interval: String,
    timeout: String,
    exposedport: u64,
    definition: Option<Value>,
    /// What a cas expects.
    modifyindex: u64,
}

/// What was read as JSON is JSON.
fn text(json: &Option<Value>) -> JsonText {
    let text = json.as_ref().map(Value::to_string);
    text.map_or(JsonText::NONE, |text| {
        JsonText::parse(&text).expect("it was JSON")
    })
}

impl RegisterBody {
    pub(super) fn request(self) -> RegisterRequest {
        RegisterRequest {
            datacenter: self.datacenter,
            id: self.id,
            node: self.node,
            address: self.address,
            tagged_addresses: self.taggedaddresses,
            node_meta: self.nodemeta,
            service: self.service.map(|Loose(service)| service.record()),
            check: self.check.map(|Loose(check)| check.record()),
            checks: self
                .checks
                .into_iter()
                .map(|Loose(check)| check.record())
                .collect(),
            skip_node_update: self.skipnodeupdate,
        }
    }
}

impl ServiceBody {
    pub(super) fn record(self) -> Service {
        let address = |Loose(given): Loose<AddressBody>| ServiceAddress {
            address: given.address,
            port: given.port,
        };
        Service {
            node: String::new(),
            id: self.id,
            service: self.service,
            kind: self.kind,
            tags: self.tags,
            address: self.address,
            tagged_addresses: self
                .taggedaddresses
                .into_iter()
                .map(|(tag, given)| (tag, address(given)))
                .collect(),
            meta: self.meta,
            port: self.port,
            socket_path: self.socketpath,
            weights: self
                .weights
                .map_or_else(Weights::default, |Loose(given)| Weights {
                    passing: given.passing,
                    warning: given.warning,
                }),
            enable_tag_override: self.enabletagoverride,
            proxy: text(&self.proxy),
            connect: text(&self.connect),
            create_index: 0,
            modify_index: self.modifyindex,
        }
    }
}

impl CheckBody {
    pub(super) fn record(self) -> Check {
        Check {
            node: self.node,
            check_id: self.checkid,
            name: self.name,
            status: self.status,
            notes: self.notes,
            output: self.output,
            service_id: self.serviceid,
            kind: match self.kind {
                kind if kind.is_empty() => kind_of(&self.definition).to_owned(),
                kind => kind,
            },
            interval: self.interval,
            timeout: self.timeout,
            exposed_port: self.exposedport,
            definition: text(&self.definition),
            modify_index: self.modifyindex,
            ..Check::default()
        }
    }
}

/// The kind of a check whose definition says what is looked at, as Consul derives it.
fn kind_of(definition: &Option<Value>) -> &'static str {
    let fields = definition.as_ref().and_then(Value::as_object);
    let given = |wanted: &str| {
        fields.is_some_and(|fields| {
            fields.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case(wanted)
                    && !value.is_null()
                    && value.as_str() != Some("")
                    && value.as_u64() != Some(0)
            })
        })
    };
    let kinds = ["grpc", "http", "ttl", "tcp", "udp"];
    kinds.into_iter().find(|kind| given(kind)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_as_consul_reads_them() {
        let text = r#"{
            "node": "n", "ADDRESS": "1.1.1.1", "NodeMeta": {"Rack": "7"}, "TaggedAddresses": null,
            "Service": {"Service": "web", "Tags": null, "Port": 80, "Weights": {"Passing": 3},
                        "TaggedAddresses": {"lan": {"address": "10.0.0.1", "Port": 8080}},
                        "Proxy": {"DestinationServiceName": "db"}},
            "Check": {"Name": "alive", "Definition": {"HTTP": "http://x", "TCP": ""}},
            "Checks": [{"CheckID": "c", "Status": "passing", "Type": "ttl"}],
            "Unknown": 1
        }"#;
        let Loose(body) = serde_json::from_str::<Loose<RegisterBody>>(text).expect("fits");
        let request = body.request();
        assert_eq!((&*request.node, &*request.address), ("n", "1.1.1.1"));
        assert_eq!(request.node_meta["Rack"], "7");
        let service = request.service.expect("given");
        assert_eq!((service.weights.passing, service.weights.warning), (3, 0));
        assert_eq!(service.tagged_addresses["lan"].port, 8080);
        assert_eq!(service.proxy.as_str(), r#"{"DestinationServiceName":"db"}"#);
        assert!(service.connect.is_empty());
        let check = request.check.expect("given");
        assert_eq!((&*check.name, &*check.kind), ("alive", "http"));
        assert_eq!(
            (&*request.checks[0].check_id, &*request.checks[0].kind),
            ("c", "ttl")
        );
    }
}

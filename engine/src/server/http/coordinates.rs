//! `/v1/coordinate/…`: where are nodes, by the round trips to them?

use http::{Method, StatusCode};

use super::{
    call::{Call, Outcome},
    failure::Refusal,
    reads::Asked,
    reply::{Content, Reply},
};
use crate::{
    documents::{CoordinatesQuestion, Question},
    fsm::{catalog::CoordinatesRequest, records::RecordOp},
    server::gateway::Gateway,
    state::records::Coordinate,
};

pub(super) async fn answer<G: Gateway>(mut call: Call<'_, G>, rest: &str) -> Outcome<G> {
    let (name, argument) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = match (name, argument) {
        ("datacenters" | "nodes", "") | ("node", _) => Method::GET,
        ("update", "") => Method::PUT,
        _ => return call.unknown(),
    };
    if let Some(reply) = call.unless(&[allowed]) {
        return Ok(reply);
    }
    let segment = call.params.get("segment").map(str::to_owned);
    match name {
        "update" => update(call).await,
        "datacenters" => {
            call.admit(false)?;
            // Servers of one datacenter: there is no distance between datacenters to show.
            let datacenter = &call.inner.info.datacenter;
            let document = serde_json::json!([
                {"Datacenter": datacenter, "AreaID": "wan", "Coordinates": []}
            ]);
            let document = document.to_string().into();
            Ok(Reply::json(Content::Whole(call.styled(document))))
        }
        "nodes" => {
            let question = CoordinatesQuestion::Nodes { segment };
            call.read(Question::Coordinates(question), false).await
        }
        _ => {
            if argument.is_empty() {
                return Err(Refusal::bad("Missing node name"));
            }
            let node = argument.to_owned();
            let question = CoordinatesQuestion::Node { node, segment };
            let asked = Asked::parse(&call.params)?;
            let (meta, document) = call.ask(asked, Question::Coordinates(question)).await?;
            Ok(match &document[..] {
                b"[]" => Reply::new(StatusCode::NOT_FOUND, Content::Empty).meta(meta),
                _ => Reply::json(Content::Whole(call.styled(document))).meta(meta),
            })
        }
    }
}

async fn update<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let update: Coordinate = call.json().await?;
    if update.node.is_empty() {
        return Err(Refusal::bad("Must provide node"));
    }
    let request = CoordinatesRequest {
        updates: vec![update],
    };
    call.write(&RecordOp::Coordinates(request), "").await?;
    Ok(Reply::new(StatusCode::OK, Content::Empty))
}

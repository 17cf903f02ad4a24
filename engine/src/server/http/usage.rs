//! `/v1/operator/usage`: how much is registered?

use http::Method;

use super::{
    call::{Call, Outcome},
    reads::Asked,
    reply::{Content, Reply},
    txn::Level,
};
use crate::{documents::usage::UsageQuestion, server::gateway::Gateway};

/// `?global` is for all datacenters, of which there is one.
pub(super) async fn answer<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    if let Some(reply) = call.unless(&[Method::GET]) {
        return Ok(reply);
    }
    let asked = Asked::parse(&call.params)?;
    let datacenter = call.inner.info.datacenter.clone();
    let question = UsageQuestion { datacenter };
    let (meta, document) = call.ask(asked, question.into()).await?;
    let level = Level::new(&meta, asked.mode()).told(false);
    let document = call.styled(level.after(&document));
    let reply = Reply::json(Content::Whole(document));
    Ok(reply.meta(meta).level(asked.mode()))
}

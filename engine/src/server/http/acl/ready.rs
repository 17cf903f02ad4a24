//! When are the policies there that every cluster has?
//!
//! The first leader makes them in its first moments ([`super::keeper`]), and the token that bootstrap
//! makes is linked to one of them. Who asks for it in between waits, as for a leader and at most as
//! long, instead of hearing that there is no such policy.

use std::time::{Duration, Instant};

use wire::{Index, Query, QueryBody, ReadMode, Wait};

use super::super::failure::Refusal;
use crate::{
    acl::GLOBAL_MANAGEMENT,
    documents::{AclQuestion, Question},
    server::gateway::{AnswerBody, Gateway},
};

/// Waits for the policy that gives all rights, at most `hold`.
pub(super) async fn wait<G: Gateway>(gateway: &G, hold: Duration) -> Result<(), Refusal> {
    let begun = Instant::now();
    let mut wait = Wait::default();
    loop {
        let (index, is_there) = look(gateway, wait).await?;
        if is_there {
            return Ok(());
        }
        let left = hold.saturating_sub(begun.elapsed());
        let ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        if ms == 0 {
            return Err(Refusal::internal(
                "the built-in policies are not there yet: the leader is still making them, try again",
            ));
        }
        wait = Wait { index, ms };
    }
}

/// The index of the policies, and whether that one is among them.
async fn look<G: Gateway>(gateway: &G, wait: Wait) -> Result<(Index, bool), Refusal> {
    let question = Question::from(AclQuestion::Policy {
        id: GLOBAL_MANAGEMENT.id.to_owned(),
    });
    let answer = gateway
        .read(Query {
            mode: ReadMode::Default,
            min_index: Index(0),
            wait,
            body: QueryBody::Record(question.encode()),
        })
        .await?;
    match answer.body {
        AnswerBody::Document(json) => Ok((answer.index, json != "null")),
        _ => Err(Refusal::internal(
            "internal error: no document for a question",
        )),
    }
}

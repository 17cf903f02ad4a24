//! How is a read asked for: how fresh, and does it wait for a change?
//!
//! Every endpoint that reads goes through here. A blocking query (`?index=`, `?wait=`) is one
//! query below, which waits where its rows are; what belongs to the door is here: the random
//! addition to its time, so that clients that began together do not come back together, and the
//! eye on a connection that may close in the meantime.

use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use wire::{Index, Query, QueryBody, ReadMode, Wait, limits};

use super::{
    failure::Refusal,
    link::Link,
    params::{Freshness, Params},
};
use crate::server::gateway::{Answer, Gateway};

/// What a read's parameters ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    freshness: Freshness,
    wait: Wait,
}

impl Asked {
    pub(super) fn parse(params: &Params<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            freshness: params.freshness()?,
            wait: params.wait()?,
        })
    }

    /// The mode.
    pub(super) fn mode(&self) -> ReadMode {
        self.freshness.mode
    }

    /// The same without a wait.
    pub(super) fn at_once(self) -> Self {
        Self {
            wait: Wait::default(),
            ..self
        }
    }

    /// Whether it may have to wait for a change.
    pub(super) fn waits(&self) -> bool {
        self.wait.ms > 0
    }
}

/// Reads; a blocking query waits for as long as its client does.
///
/// A client that has only closed its sending side cannot be told from one that is gone, so that
/// it waits no longer either: it gets the answer as it is now.
pub(super) async fn read<G: Gateway>(
    gateway: &G,
    link: &Link,
    asked: Asked,
    body: QueryBody,
) -> Result<Answer<G::Rows>, Refusal> {
    match asked.waits() {
        false => fresh(gateway, asked.freshness, body).await,
        // In a box, so that a connection does not keep room for it that only reads.
        true => Box::pin(parked(gateway, link, asked, body)).await,
    }
}

async fn parked<G: Gateway>(
    gateway: &G,
    link: &Link,
    Asked { freshness, wait }: Asked,
    body: QueryBody,
) -> Result<Answer<G::Rows>, Refusal> {
    let wait = with_jitter(wait, draw());
    let waiting = async { Some(blocking(gateway, freshness, wait, body.clone()).await) };
    let gone = async {
        link.ended().await;
        None
    };
    match waiting.or(gone).await {
        Some(answer) => answer,
        None => fresh(gateway, freshness, body).await,
    }
}

/// Reads at once.
pub(super) fn fresh<G: Gateway>(
    gateway: &G,
    freshness: Freshness,
    body: QueryBody,
) -> impl Future<Output = Result<Answer<G::Rows>, Refusal>> {
    blocking(gateway, freshness, Wait::default(), body)
}

async fn blocking<G: Gateway>(
    gateway: &G,
    freshness: Freshness,
    wait: Wait,
    body: QueryBody,
) -> Result<Answer<G::Rows>, Refusal> {
    match freshness.max_stale_ms {
        None => Ok(gateway.read(query(freshness.mode, wait, body)).await?),
        Some(most) => Box::pin(fresh_enough(gateway, freshness, most, wait, body)).await,
    }
}

fn query(mode: ReadMode, wait: Wait, body: QueryBody) -> Query {
    Query {
        mode,
        min_index: Index(0),
        wait,
        body,
    }
}

/// Reads, and once more from the leader when a stale answer is older than the client bears.
async fn fresh_enough<G: Gateway>(
    gateway: &G,
    freshness: Freshness,
    max_stale_ms: u64,
    mut wait: Wait,
    body: QueryBody,
) -> Result<Answer<G::Rows>, Refusal> {
    let begun = (wait.ms > 0).then(Instant::now);
    let answer = gateway
        .read(query(freshness.mode, wait, body.clone()))
        .await?;
    if answer.last_contact_ms <= max_stale_ms {
        return Ok(answer);
    }
    if let Some(begun) = begun {
        let left = Duration::from_millis(wait.ms.into()).saturating_sub(begun.elapsed());
        wait.ms = left.as_millis() as u32;
    }
    Ok(gateway.read(query(ReadMode::Default, wait, body)).await?)
}

/// Lengthens a wait by up to a sixteenth, as the drawn number says.
fn with_jitter(wait: Wait, drawn: u32) -> Wait {
    let most = u64::from(wait.ms / limits::WAIT_JITTER_DIVISOR);
    let jitter = (u64::from(drawn) * (most + 1)) >> 32;
    Wait {
        ms: wait.ms + jitter as u32,
        ..wait
    }
}

fn draw() -> u32 {
    // Without a random number the clients come back together, which is no reason to refuse them.
    getrandom::u32().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_reaches_from_nothing_to_a_sixteenth() {
        let jittered = |ms, drawn| {
            let index = Index(1);
            with_jitter(Wait { index, ms }, drawn).ms
        };
        let longest = limits::WAIT_MS_MAX;
        assert_eq!(jittered(longest, 0), longest);
        assert_eq!(
            jittered(longest, u32::MAX),
            longest + longest / limits::WAIT_JITTER_DIVISOR
        );
        assert_eq!(jittered(15, u32::MAX), 15);
        assert_eq!(jittered(16, u32::MAX), 17);
        assert_eq!(jittered(1600, 1 << 31), 1650);
    }
}

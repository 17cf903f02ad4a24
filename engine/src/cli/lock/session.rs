//! The session behind a lock: made, kept alive, and its end noticed before the server's is felt.
//!
//! A session is renewed at every half of its TTL. The server ends it no earlier than one TTL after
//! the last renewal that it answered, so one TTL after the last answered renewal *was sent* this
//! side must stop to believe in it. Consul's library leaves that to the watch on the lock's key,
//! which hears nothing over a connection that hangs.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::json;

use super::super::{
    CliError,
    client::{Client, path_of},
};

/// TTL of the session, as in Consul's library.
pub(super) const TTL: Duration = Duration::from_secs(15);
/// Between a renewal that failed and the next.
const RENEW_RETRY: Duration = Duration::from_secs(1);

pub(super) struct Session {
    client: Client,
    pub(super) id: String,
    /// Dropped to end the renewals.
    keeper: Option<mpsc::Sender<()>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

impl Session {
    /// Makes a session and keeps it; `lost` is told once if that comes to an end.
    pub(super) fn create(
        client: &Client,
        name: &str,
        lost: impl FnOnce(String) + Send + 'static,
    ) -> Result<Self, CliError> {
        let sent = Instant::now();
        let body = json!({ "Name": name, "TTL": format!("{}s", TTL.as_secs()) }).to_string();
        let created: Created = client
            .put("/v1/session/create", &[], body.as_bytes())
            .and_then(|reply| reply.json())
            .map_err(|CliError(why)| CliError(format!("failed to create session: {why}")))?;
        let (keeper, stop) = mpsc::channel();
        let (renewing, id) = (client.clone(), created.id.clone());
        thread::spawn(move || {
            if let Some(why) = keep(&renewing, &id, sent, &stop) {
                lost(why);
            }
        });
        Ok(Self {
            client: client.clone(),
            id: created.id,
            keeper: Some(keeper),
        })
    }

    /// Ends the session, and with it all that it holds.
    pub(super) fn destroy(&mut self) -> Result<(), CliError> {
        self.keeper = None;
        let path = path_of("/v1/session/destroy", &self.id);
        let reply = self.client.put(&path, &[], b"");
        reply.and_then(|reply| reply.success()).map(drop)
    }
}

/// Renews until told to stop (`None`), or until the session is over or may be.
fn keep(client: &Client, id: &str, created: Instant, stop: &mpsc::Receiver<()>) -> Option<String> {
    let path = path_of("/v1/session/renew", id);
    let mut good_until = created + TTL;
    let mut pause = TTL / 2;
    let mut trouble = String::new();
    loop {
        let left = good_until.saturating_duration_since(Instant::now());
        match stop.recv_timeout(pause.min(left)) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return None,
        }
        let sent = Instant::now();
        let left = good_until.saturating_duration_since(sent);
        if left.is_zero() {
            return Some(format!(
                "session {id} could not be renewed for {} s: {trouble}",
                TTL.as_secs()
            ));
        }
        match client.put_within(&path, &[], b"", left) {
            Ok(reply) if reply.status == 404 => return Some(format!("session {id} has ended")),
            Ok(reply) if reply.status == 200 => {
                good_until = sent + TTL;
                pause = TTL / 2;
            }
            Ok(reply) => {
                trouble = reply.refusal().0;
                pause = RENEW_RETRY;
            }
            Err(CliError(why)) => {
                trouble = why;
                pause = RENEW_RETRY;
            }
        }
    }
}

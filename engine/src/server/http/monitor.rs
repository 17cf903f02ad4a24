//! `GET /v1/agent/monitor`: the server's log, as it is written.
//!
//! Lines of `?loglevel=` (`info` where none is given) and coarser, from now on, also finer ones than
//! the server keeps for itself; with `?logjson` one object each. What a client takes too slowly is
//! dropped and counted (see [`monitor`]): the log never waits for it. When the server stops, the
//! last lines are told, and the answer ends as a whole one.

use futures_lite::stream;
use http::{HeaderValue, StatusCode, header};
use log::LevelFilter;

use super::{
    call::{Call, Outcome},
    failure::Refusal,
    reply::{Content, Reply},
    streams::Lifeline,
    watch::EventsBody,
};
use crate::server::{
    gateway::Gateway,
    monitor::{Form, Monitor, parse_level},
};

/// A monitor under way.
struct Lines<G> {
    monitor: Monitor,
    life: Lifeline<G>,
    over: bool,
}

pub(super) async fn answer<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    let level = match call.params.get("loglevel") {
        None | Some("") => LevelFilter::Info,
        Some(text) => {
            parse_level(text).ok_or_else(|| Refusal::bad(format!("Unknown log level: {text}")))?
        }
    };
    let form = match call.params.get("logjson") {
        Some(_) => Form::Json,
        None => Form::Text,
    };
    call.admit_watch()?;
    let monitor = Monitor::new(level, form)
        .map_err(|error| Refusal::internal(format!("cannot read the log along: {error}")))?;
    let lines = Lines {
        monitor,
        life: call.lifeline(),
        over: false,
    };
    let body = stream::unfold(lines, |mut lines| async {
        if lines.over {
            return None;
        }
        let piece = match lines.life.until(lines.monitor.next()).await {
            Some(piece) => piece,
            None if lines.life.stopping.has_begun() => {
                lines.over = true;
                lines.monitor.take()
            }
            None => return None,
        };
        Some((Ok(piece), lines))
    });
    let kind = match form {
        Form::Text => "text/plain; charset=utf-8",
        Form::Json => "application/json",
    };
    let content = Content::Events(EventsBody::of(body));
    Ok(Reply::new(StatusCode::OK, content)
        .header(header::CONTENT_TYPE, HeaderValue::from_static(kind))
        .header(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

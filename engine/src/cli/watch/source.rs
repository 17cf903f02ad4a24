//! What does each type of watch ask, and what does its answer look like to a handler?
//!
//! Handlers are written for what Consul's command line gives them, which has read the answer into
//! Go structures and written it again: a key is an object, or `null`, in the order of `api.KVPair`;
//! what was not found is `null`, not an error.

use std::time::Duration;

use serde_json::{Value, value::RawValue};

use super::{
    super::{
        CliError,
        client::{Client, Reply, kv_path, pair, path_of},
        kv::Row,
        output::compact,
    },
    WatchFlags,
    plan::{Answer, Mark},
};

/// Longest wait of one question; servers answer then, and are asked again.
const WAIT: Duration = Duration::from_secs(300);

/// How an answer is made of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Key,
    Keys,
    Document,
    Events,
    Hashed,
}

/// One type of watch with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    path: String,
    query: Vec<String>,
    shape: Shape,
}

impl Source {
    pub(super) fn new(flags: &WatchFlags) -> Result<Self, CliError> {
        let wrong = |text: &str| Err(CliError(text.into()));
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (path, shape) = match &*flags.kind {
            "" => return wrong("Watch type must be specified; see curia watch -help"),
            "key" => match given(&flags.key) {
                Some(key) => (kv_path(&key), Shape::Key),
                None => return wrong("Must specify a single key to watch"),
            },
            "keyprefix" => match given(&flags.prefix) {
                Some(prefix) => (kv_path(&prefix), Shape::Keys),
                None => return wrong("Must specify a single prefix to watch"),
            },
            "services" => ("/v1/catalog/services".into(), Shape::Document),
            "nodes" => ("/v1/catalog/nodes".into(), Shape::Document),
            "service" => match given(&flags.service) {
                Some(service) => (path_of("/v1/health/service", &service), Shape::Document),
                None => return wrong("Must specify a single service to watch"),
            },
            "checks" => match (given(&flags.service), given(&flags.state)) {
                (Some(_), Some(_)) => return wrong("Cannot specify service and state"),
                (Some(service), None) => (path_of("/v1/health/checks", &service), Shape::Document),
                (None, state) => {
                    let state = state.unwrap_or_else(|| "any".into());
                    (path_of("/v1/health/state", &state), Shape::Document)
                }
            },
            "event" => ("/v1/event/list".into(), Shape::Events),
            "agent_service" => match given(&flags.service) {
                Some(id) => (path_of("/v1/agent/service", &id), Shape::Hashed),
                None => return wrong("Must specify a single service to watch, by its id"),
            },
            other => {
                return Err(CliError(format!(
                    "Unsupported watch type: {other}; there are key, keyprefix, services, nodes, \
                     service, checks, event and agent_service"
                )));
            }
        };
        let mut query = Vec::new();
        match &*flags.kind {
            "keyprefix" => query.push("recurse".into()),
            "service" => {
                query.extend(flags.tag.iter().map(|tag| pair("tag", tag)));
                query.extend(flags.passingonly.then(|| "passing".into()));
            }
            "event" => query.extend(given(&flags.name).map(|name| pair("name", &name))),
            _ => {}
        }
        query.extend(given(&flags.filter).map(|filter| pair("filter", &filter)));
        Ok(Self { path, query, shape })
    }

    /// Asks, and waits for news after `mark`.
    pub(super) fn ask(&self, client: &Client, mark: Option<&Mark>) -> Result<Answer, CliError> {
        let mut query = self.query.clone();
        match mark {
            None => {}
            Some(Mark::Index(index) | Mark::Event(index)) => query.push(format!("index={index}")),
            Some(Mark::Hash(hash)) => query.push(pair("hash", hash)),
        }
        let wait = match mark {
            None => Duration::ZERO,
            Some(_) => {
                query.push(format!("wait={}s", WAIT.as_secs()));
                WAIT
            }
        };
        let reply = client.get_blocking(&self.path, &query, wait)?;
        self.read(reply, mark)
    }

    fn read(&self, reply: Reply, asked: Option<&Mark>) -> Result<Answer, CliError> {
        let mark = match self.shape {
            Shape::Hashed => Mark::Hash(reply.content_hash.clone().unwrap_or_default()),
            Shape::Events => Mark::Event(reply.index),
            _ => Mark::Index(reply.index),
        };
        let unreadable = |error: serde_json::Error| {
            CliError(format!("the server's answer is not as expected: {error}"))
        };
        let text = match self.shape {
            Shape::Key | Shape::Keys if reply.status == 404 => "null".into(),
            Shape::Key => {
                let rows: Vec<Row> = reply.json()?;
                serde_json::to_string(&rows.first()).map_err(unreadable)?
            }
            Shape::Keys => {
                let rows: Vec<Row> = reply.json()?;
                serde_json::to_string(&rows).map_err(unreadable)?
            }
            Shape::Document | Shape::Hashed => compact(&text(reply)?),
            Shape::Events => {
                let all = compact(&text(reply)?);
                let events: Vec<&RawValue> = serde_json::from_str(&all).map_err(unreadable)?;
                let events: Vec<&str> = events.iter().map(|event| event.get()).collect();
                format!("[{}]", newer(&events, asked).join(","))
            }
        };
        Ok(Answer { mark, text })
    }
}

fn text(reply: Reply) -> Result<String, CliError> {
    String::from_utf8(reply.success()?)
        .map_err(|_| CliError("the server's answer is not text".into()))
}

/// The events after the one that was waited with; all of them if it is not among them.
fn newer<'a, 'e>(events: &'a [&'e str], asked: Option<&Mark>) -> &'a [&'e str] {
    let is_asked = |event: &&str| {
        let event: Value = serde_json::from_str(event).unwrap_or_default();
        let number = event["ID"].as_str().and_then(event_number);
        number.is_some_and(|number| asked == Some(&Mark::Event(number)))
    };
    match events.iter().position(is_asked) {
        Some(at) => &events[at + 1..],
        None => events,
    }
}

/// The index under which Consul lists an event: the halves of its UUID, folded.
fn event_number(uuid: &str) -> Option<u64> {
    let digits: String = uuid.chars().filter(|char| *char != '-').collect();
    let (low, high) = (digits.get(..16)?, digits.get(16..32)?);
    let half = |text| u64::from_str_radix(text, 16).ok();
    Some(half(low)? ^ half(high)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, index: u64, body: &str) -> Reply {
        Reply {
            status,
            index,
            content_hash: None,
            body: body.into(),
        }
    }

    fn source(set: impl FnOnce(&mut WatchFlags)) -> Result<Source, CliError> {
        let mut flags = WatchFlags::default();
        set(&mut flags);
        Source::new(&flags)
    }

    #[test]
    fn a_missing_key_is_null() {
        let key = source(|flags| (flags.kind, flags.key) = ("key".into(), "a".into())).unwrap();
        let answer = key.read(reply(404, 7, ""), None).unwrap();
        assert_eq!((answer.mark, &*answer.text), (Mark::Index(7), "null"));
        let row = r#"[{"LockIndex":0,"Key":"a","Flags":0,"Value":"dg==","CreateIndex":1,"ModifyIndex":2}]"#;
        assert_eq!(
            key.read(reply(200, 8, row), None).unwrap().text,
            r#"{"Key":"a","CreateIndex":1,"ModifyIndex":2,"LockIndex":0,"Flags":0,"Value":"dg==","Session":""}"#
        );
        let CliError(why) = key
            .read(reply(500, 0, "No cluster leader"), None)
            .unwrap_err();
        assert_eq!(why, "Unexpected response code: 500 (No cluster leader)");
    }

    #[test]
    fn events_that_were_seen_are_left_out() {
        let event = source(|flags| flags.kind = "event".into()).unwrap();
        let (first, second) = (
            "00000000-0000-0003-0000-000000000001",
            "00000000-0000-0007-0000-000000000002",
        );
        let body = format!("[\n{{\"ID\": \"{first}\"}}, {{\"ID\": \"{second}\"}}]");
        let seen = Mark::Event(2);
        let text = |asked| event.read(reply(200, 5, &body), asked).unwrap().text;
        assert_eq!(text(Some(&seen)), format!("[{{\"ID\":\"{second}\"}}]"));
        assert_eq!(text(None).matches("ID").count(), 2);
        assert_eq!(text(Some(&Mark::Event(99))).matches("ID").count(), 2);
    }

    #[test]
    fn each_type_asks_its_endpoint() {
        for (kind, path, query) in [
            ("services", "/v1/catalog/services", &[][..]),
            ("nodes", "/v1/catalog/nodes", &[]),
            ("service", "/v1/health/service/s%2F1", &["tag=t", "passing"]),
            ("checks", "/v1/health/checks/s%2F1", &[]),
            ("agent_service", "/v1/agent/service/s%2F1", &[]),
            ("key", "/v1/kv/a/b", &[]),
            ("keyprefix", "/v1/kv/a/", &["recurse"]),
        ] {
            let asked = source(|flags| {
                flags.kind = kind.into();
                flags.service = "s/1".into();
                flags.tag = vec!["t".into()];
                flags.passingonly = true;
                (flags.key, flags.prefix) = ("a/b".into(), "a/".into());
            })
            .unwrap();
            assert_eq!(
                (&*asked.path, &*asked.query),
                (
                    path,
                    &*query
                        .iter()
                        .map(|part| (*part).to_owned())
                        .collect::<Vec<_>>()
                )
            );
        }
        for (kind, told) in [
            ("", "Watch type must be specified"),
            ("key", "Must specify a single key to watch"),
            ("keyprefix", "Must specify a single prefix to watch"),
            ("service", "Must specify a single service to watch"),
            ("leader", "Unsupported watch type: leader"),
        ] {
            let CliError(why) = source(|flags| flags.kind = kind.into()).unwrap_err();
            assert!(why.starts_with(told), "{why}");
        }
    }
}

//! Which user events has this server heard of?
//!
//! Events are said once and not kept: the last few are remembered, in memory, on each server that
//! heard them (Consul: gossip, never raft). Whoever fires one tells all servers that it is connected
//! to; one that is away at that moment does not hear of it.
//!
//! An event may be meant for some: its filters are regular expressions on the node's name, and on
//! names and tags of services that are registered here. Each server decides for itself.
//!
//! A listing's index is not a number that grows but the last event's id folded to 64 bits; a waiter
//! is answered as soon as it is another one.

use std::collections::VecDeque;

use base64::{Engine, engine::general_purpose::STANDARD};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use wire::Uuid;

use super::local::Local;

/// Events that are remembered (Consul: 256).
pub const EVENTS_MAX: usize = 256;
/// Longest payload of an event, bytes.
pub const EVENT_PAYLOAD_BYTES_MAX: usize = 8 * 1024;
/// Longest name or filter of an event, bytes.
pub const EVENT_NAME_BYTES_MAX: usize = 512;
/// Size of a filter's compiled expression, bytes.
const FILTER_BYTES_MAX: usize = 256 * 1024;

/// An event. Consul: `agent.UserEvent`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UserEvent {
    /// UUID as text.
    #[serde(rename = "ID")]
    pub id: String,
    /// What happened; never empty.
    pub name: String,
    /// Base64; `None` for nothing.
    pub payload: Option<String>,
    /// For nodes whose names this matches; empty for all.
    pub node_filter: String,
    /// For nodes with a service whose name this matches; empty for all.
    pub service_filter: String,
    /// For nodes with such a service that has a tag which this matches; empty for all.
    pub tag_filter: String,
    /// Always 1.
    pub version: u8,
    /// Lamport time: greater than that of whatever its sender had heard of.
    #[serde(rename = "LTime")]
    pub ltime: u64,
}

impl UserEvent {
    /// An event to be fired.
    ///
    /// # Errors
    /// In Consul's words, what is wrong with it.
    pub fn new(
        id: String,
        name: &str,
        payload: &[u8],
        [node, service, tag]: [&str; 3],
    ) -> Result<Self, String> {
        if name.is_empty() {
            return Err("Missing name".to_owned());
        }
        if !tag.is_empty() && service.is_empty() {
            return Err("Cannot provide tag filter without service filter".to_owned());
        }
        for (what, text) in [
            ("name", name),
            ("node filter", node),
            ("service filter", service),
            ("tag filter", tag),
        ] {
            if text.len() > EVENT_NAME_BYTES_MAX {
                return Err(format!(
                    "{what} of {} bytes is too long, at most {EVENT_NAME_BYTES_MAX} bytes",
                    text.len()
                ));
            }
            if what != "name" {
                expression(text).map_err(|error| format!("Invalid {what}: {error}"))?;
            }
        }
        if payload.len() > EVENT_PAYLOAD_BYTES_MAX {
            return Err(format!(
                "user event exceeds configured limit of {EVENT_PAYLOAD_BYTES_MAX} bytes"
            ));
        }
        Ok(Self {
            id,
            name: name.to_owned(),
            payload: (!payload.is_empty()).then(|| STANDARD.encode(payload)),
            node_filter: node.to_owned(),
            service_filter: service.to_owned(),
            tag_filter: tag.to_owned(),
            version: 1,
            ltime: 0,
        })
    }

    /// Whether it is meant for this server.
    pub fn concerns(&self, local: &Local) -> bool {
        let matches = |filter: &str, text: &str| {
            filter.is_empty() || expression(filter).is_ok_and(|filter| filter.is_match(text))
        };
        if !matches(&self.node_filter, local.node()) {
            return false;
        }
        if self.service_filter.is_empty() {
            return true;
        }
        local.services().values().any(|service| {
            let service = &service.definition;
            let tagged = self.tag_filter.is_empty()
                || service
                    .tags
                    .iter()
                    .any(|tag| matches(&self.tag_filter, tag));
            tagged && matches(&self.service_filter, &service.name)
        })
    }

    /// As it travels between servers.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data into memory")
    }

    /// Reads an event of another server.
    ///
    /// # Errors
    /// When it is none that could have been fired.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let event: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if Uuid::parse(&event.id).is_none() {
            return Err(format!("{:?} is not an event's id", event.id));
        }
        Ok(event)
    }
}

fn expression(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(FILTER_BYTES_MAX).build()
}

/// The last events, and the Lamport clock.
#[derive(Debug, Default)]
pub struct Events {
    last: VecDeque<UserEvent>,
    ltime: u64,
}

impl Events {
    /// The time of an event that is fired here and now.
    pub fn next_ltime(&mut self) -> u64 {
        self.ltime += 1;
        self.ltime
    }

    /// An event that concerns this server was heard of. False if it was before.
    pub fn heard(&mut self, event: UserEvent) -> bool {
        self.ltime = self.ltime.max(event.ltime);
        if self.last.iter().any(|known| known.id == event.id) {
            return false;
        }
        if self.last.len() == EVENTS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(event);
        true
    }

    /// Events of this name, or all for an empty one, oldest first; and their index.
    pub fn listing(&self, name: &str) -> (u64, Vec<&UserEvent>) {
        let named = |event: &&UserEvent| name.is_empty() || event.name == name;
        let found: Vec<&UserEvent> = self.last.iter().filter(named).collect();
        // Of none: not 0, which would be no index to wait with.
        let index = found.last().map_or(1, |event| index_of(&event.id));
        (index, found)
    }
}

/// Consul's `uuidToUint64`: both halves, one laid over the other.
fn index_of(id: &str) -> u64 {
    let Some(Uuid(bytes)) = Uuid::parse(id) else {
        return 1;
    };
    let bits = u128::from_be_bytes(bytes);
    (bits >> 64) as u64 ^ bits as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::agent::local::{Origin, ServiceDefinition};

    fn event(n: u8, name: &str, filters: [&str; 3]) -> UserEvent {
        let id = Uuid([n; 16]).to_string();
        UserEvent::new(id, name, b"", filters).unwrap()
    }

    #[test]
    fn the_last_events_are_remembered_once_each() {
        let mut events = Events::default();
        assert_eq!(events.listing(""), (1, vec![]));
        for n in 0..=255 {
            assert!(events.heard(event(n, "a", [""; 3])));
        }
        assert!(!events.heard(event(7, "a", [""; 3])));
        assert_eq!(events.listing("").1.len(), EVENTS_MAX);
        let other = UserEvent {
            ltime: 40,
            id: "0191f3ab-00ff-4c2d-9e7a-0123456789ab".into(),
            ..event(0, "b", [""; 3])
        };
        events.heard(other);
        let (index, found) = events.listing("");
        assert_eq!(
            (found.len(), &*found[0].id),
            (EVENTS_MAX, &*Uuid([1; 16]).to_string())
        );
        assert_eq!(index, 0x0191_f3ab_00ff_4c2d ^ 0x9e7a_0123_4567_89ab);
        assert_eq!(events.listing("b").1.len(), 1);
        assert_eq!(events.next_ltime(), 41);
    }

    #[test]
    fn filters_say_whom_an_event_concerns() {
        let mut local = Local::new("web-1");
        let service = br#"{"Name": "api", "Tags": ["v2", "blue"]}"#;
        let service = ServiceDefinition::from_json(service).unwrap();
        local
            .register_service(0, service, Origin::Client, false)
            .unwrap();
        for (filters, concerns) in [
            (["", "", ""], true),
            (["^web-", "", ""], true),
            (["^db-", "", ""], false),
            (["", "api", ""], true),
            (["", "^ap$", ""], false),
            (["", "api", "v[12]"], true),
            (["", "api", "green"], false),
            (["db", "api", ""], false),
        ] {
            assert_eq!(
                event(1, "e", filters).concerns(&local),
                concerns,
                "{filters:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_fired_is_refused() {
        let refused = |name: &str, payload: &[u8], filters| {
            UserEvent::new(String::new(), name, payload, filters).unwrap_err()
        };
        assert_eq!(refused("", b"", [""; 3]), "Missing name");
        assert_eq!(
            refused("e", b"", ["", "", "t"]),
            "Cannot provide tag filter without service filter"
        );
        assert!(refused("e", b"", ["(", "", ""]).starts_with("Invalid node filter: "));
        let long = vec![0; EVENT_PAYLOAD_BYTES_MAX + 1];
        assert_eq!(
            refused("e", &long, [""; 3]),
            "user event exceeds configured limit of 8192 bytes"
        );
        let name = "n".repeat(EVENT_NAME_BYTES_MAX + 1);
        assert_eq!(
            refused(&name, b"", [""; 3]),
            "name of 513 bytes is too long, at most 512 bytes"
        );
        // An expression of few bytes that would take megabytes.
        assert!(refused("e", b"", ["", "\\w{900}{9}", ""]).starts_with("Invalid service filter: "));
    }

    #[test]
    fn events_travel_whole() {
        let event = UserEvent {
            payload: Some("AA==".into()),
            ltime: 7,
            ..event(3, "deploy", ["n", "s", "t"])
        };
        assert_eq!(UserEvent::decode(&event.encode()), Ok(event.clone()));
        let json = String::from_utf8(event.encode()).unwrap();
        assert!(json.ends_with(r#""Version":1,"LTime":7}"#), "{json}");
        for bytes in [&b""[..], b"{}", br#"{"ID":"x"}"#] {
            assert!(UserEvent::decode(bytes).is_err());
        }
        let bad = UserEvent {
            id: "x".into(),
            ..event
        };
        assert!(UserEvent::decode(&bad.encode()).is_err());
    }
}
